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
from safetensors.numpy import load_file
from scipy import stats as scipy_stats

from pcamlib import data
from pcamlib.core.errors import loading_weights
from pcamlib.core.files import write_json
from pcamlib.results import frame
from pcamlib.results.frame import BASELINE, TRADITIONAL, Arm, Row
from pcamlib.study import Study

LEVEL = 0.95
EXACT = 16  # values: 65,536 choices of signs
DRAWS = 1000
CHUNK = 250  # draws at a time: 32,768 test patches then take 70 MB
SCORES = "scores.safetensors"
TOO_NARROW = (
    "Intervals and p values treat test patches, or the subsets, as independent. Patches of one slide are not, and slide "
    "numbers are missing: all of them are too narrow."
)


class Estimate(NamedTuple):
    """A mean with its 95 % interval and two-sided p value against zero, all by Student's t over `n` values.

    `flip_p`: the exact sign-flip p value of up to EXACT values, which cannot fall below 2 / 2^n; `effect`: Hedges' g, the
    mean in units of the standard deviation, corrected for small n, from three values on. Both are None where only
    summaries are known.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    flip_p: float | None = None
    effect: float | None = None


def _estimate(mean: float, error: float, df: float, n: int) -> Estimate:
    """From a standard error and its degrees of freedom; without any error the mean is exact."""
    if error == 0:
        return Estimate(mean, mean, mean, float(mean == 0), n)
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, df)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * scipy_stats.t.sf(abs(mean / error), df)), n)


def over_subsets(values: Sequence[float]) -> Estimate | None:
    """One-sample t test of one value per subset (paired differences, say) against zero; None with fewer than two.

    With two subsets the interval is 12.7 standard errors to either side, so only what hardly varies is decided. Equal
    values (shares move in steps) are no proof: their p value is that of the sign flips, and they have no interval.
    """
    n = len(values)
    if n < 2:
        return None
    mean, sd, _ = frame.mean_sd(values)
    if sd < 1e-12:  # equal values whose mean was rounded
        p = 2.0 ** (1 - n) if mean else 1.0
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
    subset are paired, which mostly makes differences surer than this says.
    """
    mean = sum(w * m for w, m, _ in weighted)
    parts = [(w * sd) ** 2 / n for w, _, sd in weighted]
    variance = sum(parts)
    df = variance**2 / sum(part**2 / (n - 1) for part in parts) if variance else n - 1
    return _estimate(mean, math.sqrt(variance), df, n)


def family(arm: Arm) -> str:
    """What an arm is compared among: synthetic images with real ones, synthetic ones alone, real ones alone.

    That synthetic images alone fall short is no news; counted in, it would make room for false finds among the rest.
    """
    regime, generator, _ = arm
    return "real" if generator is None else "synthetic" if regime == "synthetic" else "mixed"


def false_discovery(p: Mapping[Arm, float]) -> dict[Arm, float]:
    """Benjamini and Hochberg's adjusted p values within each family of arms: the share of false finds up to this one."""
    found: dict[Arm, float] = {}
    for name in dict.fromkeys(map(family, p)):
        arms = [arm for arm in p if family(arm) == name]
        found |= dict(zip(arms, scipy_stats.false_discovery_control([p[arm] for arm in arms]).tolist()))
    return found


def compared(rows: Sequence[Row], against: Arm, metric: str = "auc") -> dict[Arm, Estimate]:
    """Every other arm minus `against`, paired over subsets, for the arms that ran with it in at least two subsets."""
    found = frame.of_kind(rows, "classification")
    arms = dict.fromkeys(frame.arm_of(row) for row in found)
    pairs = {arm: frame.paired(found, arm, against, metric) for arm in arms if arm != against}
    tests = {arm: over_subsets(list(pair.values.values())) for arm, pair in pairs.items() if pair}
    return {arm: test for arm, test in tests.items() if test}


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
    be redrawn: its interval is of seeds and patches only, and it has no p value.
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
        freedom = (k - 1) * ((within + between) / between) ** 2 if between else math.inf
        found = _estimate(float(np.nanmean(as_is)), math.sqrt(within + between), freedom, k)
        return {"mean": found.mean, "low": found.low, "high": found.high, "p": found.p if test and k > 1 else None}

    found = {}
    for arm, by_subset in scores.items():
        found[arm] = {"auc": summary(redrawn[arm], plain[arm], test=False)}
        for reference in (BASELINE, TRADITIONAL):
            both = reference in scores and arm != reference
            found[arm][reference[0]] = (
                summary(redrawn[arm] - redrawn[reference], plain[arm] - plain[reference], test=True) if both else None
            )
        seeds = [len(runs) for runs in by_subset.values()]
        found[arm] |= {"subsets": len(by_subset), "seeds": [min(seeds), max(seeds)]}
    return found


def saved_scores(study: Study, rows: Sequence[Row]) -> Scores:
    """The test scores beside the classifiers of a run folder, of the arms in `rows` (see `Scores`).

    Arms tested by a version that did not keep them are left out. StudyError for a damaged file.
    """
    found: Scores = {}
    for row in frame.of_kind(rows, "classification"):
        path = study.root / f"subset-{row['subset']}" / "classifiers" / row["arm"] / SCORES
        if row["status"] == "ok" and path.exists():
            with loading_weights(path, f"remove {path.parent} and run notebook 07 again"):
                scores = load_file(path)["test"]
            found.setdefault(frame.arm_of(row), {}).setdefault(row["subset"], []).append(scores)
    return found


def evaluate(study: Study, rows: Sequence[Row], subsets: int, draws: int = DRAWS) -> dict[str, Any] | None:
    """Bootstrap a run, write <run>/results/bootstrap-<subsets>.json and return it; None if no scores were kept.

    "rows" has one entry per arm: "regime", "generator", "selection", what `bootstrap` returns for it, and in each of
    "baseline" and "traditional" the p value adjusted within its family of arms ("q"; None where there is no p).
    """
    scores, path = saved_scores(study, rows), study.root / "results" / f"bootstrap-{subsets}.json"
    if not scores:
        path.unlink(missing_ok=True)  # of results that were there before
        return None
    labels = data.labels(study.data_root, "test")
    found = bootstrap(labels, scores, draws)
    for reference in (BASELINE[0], TRADITIONAL[0]):
        compared_with = {arm: row[reference] for arm, row in found.items() if row[reference]}
        adjusted = false_discovery({arm: row["p"] for arm, row in compared_with.items() if row["p"] is not None})
        for arm, row in compared_with.items():
            row["q"] = adjusted.get(arm)
    result = {
        "provenance": frame.merged_provenance(rows),
        "draws": draws,
        "seed": 0,
        "test_n": len(labels),
        "rows": [dict(zip(("regime", "generator", "selection"), arm)) | row for arm, row in found.items()],
    }
    write_json(path, result)
    return result


def intervals(result: dict[str, Any] | None, key: str) -> dict[Arm, dict[str, Any]]:
    """From a result of `evaluate`, by arm: its "auc", or its difference to "baseline" or "traditional"."""
    rows = result["rows"] if result else []
    return {(row["regime"], row["generator"], row["selection"]): row[key] for row in rows if row[key]}
