"""How sure a difference between two arms is, from one value per subset: Student's t, sign flips, false discovery rates.

The question here is whether another subset of the same slides would show the difference too, on the same test
patches. `intervals` adds the test patches, from the scores of every patch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from pcamlib.results import frame
from pcamlib.results.arms import Arm

LEVEL = 0.95
RESOLUTION = 5e-5
"""Half of a hundredth of a percentage point: a spread below it is printed as 0.00, and is no evidence of certainty."""
EXACT = 16  # values: 65,536 choices of signs
SCORES = "scores.safetensors"


class Estimate(NamedTuple):
    """A mean with its 95 % interval and two-sided p value against zero, all by Student's t over `n` values.

    `flip_p`: the exact sign-flip p value of up to EXACT values, which cannot fall below 2 / 2^n; `effect`: Hedges' g,
    the mean in units of the standard deviation, corrected for small n, from three values on. Both are None where only
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


def welch(weighted: Sequence[tuple[float, float, float | None]], n: int) -> Estimate:
    """A weighted sum of independent means: (weight, mean, sd) each over `n` values; Welch-Satterthwaite's freedom.

    For one arm minus another this is Welch's t test. It is all that printed means and deviations allow: arms of one
    subset are paired, which mostly makes differences surer than this says. A deviation that is printed as 0.00 is
    taken to be RESOLUTION, the largest that is printed so: no spread is printed as certainty. A known number is given
    as (1, number, None).
    """
    mean = sum(w * m for w, m, _ in weighted)
    parts = [(w * (sd or RESOLUTION)) ** 2 / n for w, _, sd in weighted if sd is not None]
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
    """Benjamini and Hochberg's adjusted p values within each family of arms: the share of false finds up to this
    one."""
    found: dict[Arm, float] = {}
    for name in dict.fromkeys(map(family, p)):
        arms = [arm for arm in p if family(arm) == name]
        found |= dict(zip(arms, scipy_stats.false_discovery_control([p[arm] for arm in arms]).tolist()))
    return found


def compared(results: pd.DataFrame, against: Arm, metric: str = "auc") -> pd.DataFrame:
    """Every other arm minus `against`, paired by subset, a line per arm (`Arm.name`) that ran with it in some subset.

    Columns: mean, sd (NaN with one subset), n, and of `over_subsets` low, high, p, flip_p and effect; these are NaN
    with one subset. In units of the metric.
    """
    found = frame.differences(results, against, metric)
    tests = {arm: over_subsets(found[arm].dropna().tolist()) for arm in found}
    columns = ("low", "high", "p", "flip_p", "effect")
    lines = {arm: [getattr(test, column) if test else None for column in columns] for arm, test in tests.items()}
    shown = pd.DataFrame({"mean": found.mean(), "sd": found.std(), "n": found.count()})
    return shown.join(pd.DataFrame.from_dict(lines, orient="index", columns=list(columns), dtype="float64"))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: the chance of any false discovery among all tests."""
    found, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        found[i] = least
    return found
