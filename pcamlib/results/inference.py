"""How sure a difference between two arms is: paired tests over subsets, and a bootstrap of subsets, seeds and patches.

Two questions that need different answers. *Over subsets*: would another subset of the same slides show it too? That is
`over_subsets`, from one difference per subset. *Over everything that was drawn*: subset, classifier seed and test patch,
together in `bootstrap`. Both are too narrow as statements about new patients: patches of one slide are not independent,
PCam does not say which slide a patch is from, and so patches are drawn here as if each came from a slide of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from scipy import stats as scipy_stats

from pcamlib import data
from pcamlib.core.errors import loading_weights
from pcamlib.core.files import write_json
from pcamlib.results import frame
from pcamlib.results.arms import BASELINE, TRADITIONAL, Arm
from pcamlib.study import Study

LEVEL = 0.95
RESOLUTION = 5e-5
"""Half of a hundredth of a percentage point: a spread below it is printed as 0.00, and is no evidence of certainty."""
EXACT = 16  # values: 65,536 choices of signs
DRAWS = 1000
CHUNK = 250  # draws at a time: 32,768 test patches then take 70 MB
SCORES = "scores.safetensors"
TOO_NARROW = (
    "Intervals and p values treat test patches, or subsets, as independent. Patches of one slide are not, and slide "
    "numbers are missing, so all of them are too narrow."
)


class Estimate(NamedTuple):
    """A mean with its 95 % interval and two-sided p value against zero, all by Student's t over `n` values.

    `flip_p`: the exact sign-flip p value of up to EXACT values, which cannot fall below 2 / 2^n; `effect`: Hedges' g, the
    mean in units of the standard deviation, corrected for small n, from three values on. Both are None where only
    summaries are known. `low` and `high` are infinite where values are too much alike to show a spread.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    flip_p: float | None = None
    effect: float | None = None


def _estimate(mean: float, error: float, df: float, n: int) -> Estimate:
    """From a standard error and its degrees of freedom."""
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, df)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * scipy_stats.t.sf(abs(mean / error), df)), n)


def over_subsets(values: Sequence[float]) -> Estimate | None:
    """One-sample t test of one value per subset (paired differences, say) against zero; None with fewer than two.

    With two subsets the interval is 12.7 standard errors to either side, so only what hardly varies is decided. Values
    whose standard deviation is below RESOLUTION show no spread to calculate with (shares move in steps): they have no
    interval and no effect size, and their p value is that of the sign flips.
    """
    n = len(values)
    if n < 2:
        return None
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    if sd < RESOLUTION:
        p = 2.0 ** (1 - n) if abs(mean) >= RESOLUTION else 1.0
        return Estimate(mean, -math.inf, math.inf, p, n, flip_p=p)
    effect = hedges(n - 1) * mean / sd if n > 2 else None
    return _estimate(mean, sd / math.sqrt(n), n - 1, n)._replace(
        flip_p=sign_flip(values) if n <= EXACT else None, effect=effect
    )


def hedges(df: int) -> float:
    """Hedges' exact correction of a standardised mean for `df` degrees of freedom, 2 or more (with 1 it is 0)."""
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def sign_flip(values: Sequence[float]) -> float:
    """Exact two-sided p value: the share of all 2^n choices of signs whose mean is as far from zero.

    At best 2 / 2^n: 0.25 for three subsets, 0.0625 for five. ValueError beyond EXACT values.
    """
    if len(values) > EXACT:
        raise ValueError(f"{len(values)} values have too many choices of signs; use a t test.")
    found = scipy_stats.permutation_test(
        (np.asarray(values, float),), np.mean, permutation_type="samples", n_resamples=np.inf, axis=-1, vectorized=True
    )
    return float(min(1.0, found.pvalue))


def welch(weighted: Sequence[tuple[float, float, float]], n: int) -> Estimate:
    """A weighted sum of independent means: (weight, mean, sd) each over `n` values; Welch-Satterthwaite's freedom.

    For one arm minus another this is Welch's t test. It is all that printed means and deviations allow: arms of one
    subset are paired, which mostly makes differences surer than this says. Where all deviations are printed as 0.00,
    they are taken to be RESOLUTION, the largest that is printed so.
    """
    if not any(w * sd for w, _, sd in weighted):
        weighted = [(w, m, RESOLUTION) for w, m, _ in weighted]
    mean = sum(w * m for w, m, _ in weighted)
    parts = [(w * sd) ** 2 / n for w, _, sd in weighted]
    variance = sum(parts)
    df = variance**2 / sum(part**2 / (n - 1) for part in parts)
    return _estimate(mean, math.sqrt(variance), df, n)


def family(arm: Arm) -> str:
    """What an arm is compared among: synthetic images with real ones, synthetic ones alone, real ones alone.

    That synthetic images alone fall short is expected. Counted among the rest, these sure differences would make room
    for false discoveries.
    """
    return "real" if arm.generator is None else "synthetic" if arm.regime == "synthetic" else "mixed"


def false_discovery(p: Mapping[Arm, float]) -> dict[Arm, float]:
    """Benjamini and Hochberg's adjusted p values within each family of arms: the share of false finds up to this one."""
    found: dict[Arm, float] = {}
    for name in dict.fromkeys(map(family, p)):
        arms = [arm for arm in p if family(arm) == name]
        found |= dict(zip(arms, scipy_stats.false_discovery_control([p[arm] for arm in arms]).tolist()))
    return found


def compared(results: pd.DataFrame, against: Arm, metric: str = "auc") -> pd.DataFrame:
    """Every other arm minus `against`, paired by subset, a line per arm (`Arm.name`) that ran with it in some subset.

    Columns: mean, sd (NaN with one subset), n, and of `over_subsets` low, high, p, flip_p and effect; these are NaN with
    one subset. In units of the metric.
    """
    found = frame.differences(results, against, metric)
    tests = {arm: over_subsets(found[arm].dropna().tolist()) for arm in found}
    columns = ("low", "high", "p", "flip_p", "effect")
    lines = {arm: [getattr(test, column) if test else None for column in columns] for arm, test in tests.items()}
    shown = pd.DataFrame({"mean": found.mean(), "sd": found.std(), "n": found.count()})
    return shown.join(pd.DataFrame.from_dict(lines, orient="index", columns=list(columns), dtype="float64"))


# ------------------------------------------------------------------------------------------------ bootstrap


def resampled_auc(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """AUC of resampled test sets, float64 (B,).

    labels: (N,) of 0 and 1; scores: (N,), higher for class 1; counts: int (N, B), how often each patch was drawn. By
    ranks, ties counted half: for each positive, how many negatives lie below it. ValueError if a class is absent.
    """
    positive, negative = labels == 1, labels == 0
    order = np.argsort(scores[negative], kind="stable")
    below = np.zeros((len(order) + 1, counts.shape[1]), np.int32)
    np.cumsum(counts[negative][order], axis=0, dtype=np.int32, out=below[1:])
    values, drawn = scores[negative][order], counts[positive]
    wins = below[np.searchsorted(values, scores[positive], "left")]
    wins += below[np.searchsorted(values, scores[positive], "right")]
    pairs = below[-1].astype(np.float64) * drawn.sum(0, dtype=np.float64)
    if not pairs.all():
        raise ValueError("a resampled test set lacks a class, so its AUC is not defined.")
    return np.einsum("nb,nb->b", drawn, wins, dtype=np.float64) / (2 * pairs)


def patch_counts(labels: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each patch is drawn, int16 (N, draws): with replacement, within its class, so both keep their number."""
    counts = np.empty((len(labels), draws), np.int16)
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        counts[rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), draws).T
    return counts


Scores = dict[Arm, dict[int, list[np.ndarray]]]
"""Test scores float32 (N,) by arm and subset, one array per classifier seed."""


def bootstrap(labels: np.ndarray, scores: Scores, draws: int = DRAWS, seed: int = 0) -> dict[Arm, dict[str, Any]]:
    """Each arm's AUC and its differences to both references, over redrawn subsets, classifier seeds and test patches.

    In every draw all arms share the subsets and the test patches (that keeps the comparison paired); the seeds of a
    subset are redrawn for each arm. Only subsets that all of `scores`' references and the arm have take part.

    Returns, by arm: "auc", "baseline" and "traditional", each with "mean" (of the data as they are), "low", "high" (95 %)
    and "p" (two-sided, of zero; None for "auc"), and how many "subsets" and "seeds" there were. A reference that did not
    run gives None. Percentiles of K redrawn subsets are far too sure for small K (with three, all of one sign is called
    significant), so intervals are Student's t with the draws' variance: the subsets' part, which redrawing shows to
    (K - 1) / K, has K - 1 degrees of freedom, that of seeds and patches all; together by Satterthwaite. One subset cannot
    be redrawn: its interval is of seeds and patches only, and it has no p value. Draws that all give the same value (two
    perfect classifiers, say; a standard error below RESOLUTION) show no spread: "low", "high" and "p" are then None.
    """
    rng = np.random.default_rng(seed)
    everywhere = sorted({subset for by_subset in scores.values() for subset in by_subset})
    picks = rng.integers(len(everywhere), size=(draws, len(everywhere)))
    once = np.ones((len(labels), 1), np.int16)
    redrawn: dict[Arm, np.ndarray] = {}  # (subsets, draws), NaN where the arm has no such subset
    plain: dict[Arm, np.ndarray] = {}
    chunks = [patch_counts(labels, min(CHUNK, draws - start), rng) for start in range(0, draws, CHUNK)]
    for arm, by_subset in scores.items():
        redrawn[arm] = np.full((len(everywhere), draws), np.nan)
        plain[arm] = np.full((len(everywhere), 1), np.nan)
        for k, subset in enumerate(everywhere):
            runs = by_subset.get(subset, [])
            if runs:
                plain[arm][k] = np.mean([resampled_auc(labels, run, once) for run in runs])
                values = np.stack([np.concatenate([resampled_auc(labels, run, c) for c in chunks]) for run in runs])
                chosen = rng.integers(len(runs), size=(len(runs), draws))
                redrawn[arm][k] = np.take_along_axis(values, chosen, 0).mean(0)

    def summary(values: np.ndarray, as_is: np.ndarray, test: bool) -> dict[str, float | None] | None:
        """From `values` (subsets, draws) and `as_is` (subsets, 1), of the subsets that have a value."""
        k = int(np.isfinite(as_is).sum())
        if not k:
            return None
        drawn = values[picks.T, np.arange(draws)]
        drawn = np.nanmean(drawn[:, np.isfinite(drawn).any(0)], axis=0)
        within = float(np.nanmean(values, axis=0).var(ddof=1))
        between = max(float(drawn.var(ddof=1)) - within, 0.0) * k / (k - 1) if k > 1 else 0.0
        mean, error = float(np.nanmean(as_is)), math.sqrt(within + between)
        if error < RESOLUTION:
            return {"mean": mean, "low": None, "high": None, "p": None}
        freedom = (k - 1) * ((within + between) / between) ** 2 if between else math.inf
        found = _estimate(mean, error, freedom, k)
        return {"mean": found.mean, "low": found.low, "high": found.high, "p": found.p if test and k > 1 else None}

    found = {}
    for arm, by_subset in scores.items():
        found[arm] = {"auc": summary(redrawn[arm], plain[arm], test=False)}
        for reference in (BASELINE, TRADITIONAL):
            both = reference in scores and arm != reference
            found[arm][reference.name] = (
                summary(redrawn[arm] - redrawn[reference], plain[arm] - plain[reference], test=True) if both else None
            )
        seeds = [len(runs) for runs in by_subset.values()]
        found[arm] |= {"subsets": len(by_subset), "seeds": [min(seeds), max(seeds)]}
    return found


def saved_scores(study: Study, results: pd.DataFrame) -> Scores:
    """The test scores beside the classifiers of a run folder (see `Scores`); StudyError for a damaged file.

    Arms whose scores were removed are left out, and have no interval.
    """
    found: Scores = {}
    ran = frame.of_kind(results, "classification").drop_duplicates(["subset", "arm", "seed"])
    for line in ran.itertuples():
        arm = frame.arm_of(line)
        path = study.root / f"subset-{line.subset}" / "classifiers" / arm.id / SCORES
        if path.exists():
            with loading_weights(path, f"remove {path.parent} and run notebook 07 again"):
                scores = load_file(path)["test"]
            found.setdefault(arm._replace(seed=0), {}).setdefault(line.subset, []).append(scores)
    return found


def evaluate(study: Study, results: pd.DataFrame, subsets: int, draws: int = DRAWS) -> dict[str, Any] | None:
    """Bootstrap a run, write <run>/results/bootstrap-<subsets>.json and return it; None if no scores were kept.

    "rows" has one entry per arm: "regime", "generator", "selection", what `bootstrap` returns for it, and in each of
    "baseline" and "traditional" the p value adjusted within its family of arms ("q"; None where there is no p).
    """
    scores, path = saved_scores(study, results), study.root / "results" / f"bootstrap-{subsets}.json"
    if not scores:
        path.unlink(missing_ok=True)  # of results that were there before
        return None
    labels = data.labels(study.data_root, "test")
    found = bootstrap(labels, scores, draws)
    for reference in (BASELINE.name, TRADITIONAL.name):
        compared_with = {arm: row[reference] for arm, row in found.items() if row[reference]}
        adjusted = false_discovery({arm: row["p"] for arm, row in compared_with.items() if row["p"] is not None})
        for arm, row in compared_with.items():
            row["q"] = adjusted.get(arm)
    result = {
        "provenance": frame.merged_provenance(results),
        "draws": draws,
        "seed": 0,
        "test_n": len(labels),
        "rows": [dict(zip(("regime", "generator", "selection"), arm)) | row for arm, row in found.items()],
    }
    write_json(path, result)
    return result


def intervals(result: dict[str, Any] | None, key: str) -> pd.DataFrame:
    """From a result of `evaluate`, by arm (`Arm.name`): low, high and q of its "auc", or of its difference to "baseline" or
    "traditional". low and high are NaN where the draws show no spread; empty without a result."""
    rows = [row for row in (result["rows"] if result else []) if row[key]]
    names = [Arm(row["regime"], row["generator"], row["selection"]).name for row in rows]
    return pd.DataFrame([row[key] for row in rows], index=names, columns=["low", "high", "q"], dtype="float64")
