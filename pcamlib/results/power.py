"""Power of a study: components of variance, minimum detectable effect, and how many subsets an effect needs.

The mean of a difference of AUC over K subsets with R classifier seeds each, tested on n patches of which m come
from one slide, has the variance

    subset / K + (seed / R + patch_subset) / K + patch [1 + (m - 1) rho] / n

The first three parts are the spread over subsets that a t test over subsets sees. The last is of the test patches,
which all subsets share: it counts only where a statement is about new patches. `variance_components` estimates the
parts from scores of every patch by the method of moments (Searle, Casella and McCulloch 1992, chapter 4), with
DeLong's structural components for what patches add. Tests are two-sided t tests, their power is that of the
noncentral t distribution.

All functions are pure. AUCs and their differences are in fractions, variances in their squares. Bad input raises
StudyError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from pcamlib.core.errors import StudyError
from pcamlib.results import clusters

ALPHA, POWER = 0.05, 0.8
MOST = 1_000_000  # subsets; who needs more will not find it

# ------------------------------------------------------------------------------------------------ components


@dataclass(frozen=True)
class Components:
    """Variance components of a paired difference of AUC, none below 0.

    Attributes
    ----------
    mean
        The difference, averaged over subsets and seeds.
    subset
        Of the true difference between training subsets. With one seed it holds the seeds' part too.
    seed
        Between classifier seeds of a subset, tested on `n` patches; None with one seed, where it cannot be told.
    patch_subset
        Of what test patches add to one subset and not to the others, for `n` patches. With one seed it holds what they
        add to one seed.
    patch
        Of what a test patch adds to every subset alike, per patch.
    n, subsets, seeds
        Test patches, subsets and seeds that this was found from.
    m, rho
        Patches of a slide (their mean weighted by themselves, Kish 1965) and their correlation, chosen so that
        1 + (m - 1) rho is the design effect; 1 and 0 without slide ids.
    negative
        The estimates that were below 0 and were set to 0, by name. One far below 0 says that the model is wrong.
    """

    mean: float
    subset: float
    seed: float | None
    patch_subset: float
    patch: float
    n: int
    subsets: int
    seeds: int
    m: float = 1.0
    rho: float = 0.0
    negative: dict[str, float] = field(default_factory=dict)


def _scores(labels: Any, scores: Any, reference: Any) -> tuple[np.ndarray, np.ndarray]:
    """Differences of AUC (K, R) and their terms (K, R, N)."""
    auc, terms = clusters.auc_terms(labels, scores)
    other, more = clusters.auc_terms(labels, reference, "reference scores")
    if terms.ndim != 3 or terms.shape != more.shape:
        raise StudyError(
            f"scores have shape {terms.shape} and the reference's {more.shape}: give both as (subsets, seeds, patches)."
        )
    return auc - other, terms - more


def variance_components(labels: Any, scores: Any, reference: Any, *, groups: Any | None = None) -> Components:
    """Components of the difference in AUC between an arm and its reference.

    labels: (N,) of 0 and 1. scores, reference: (K, R, N), of K at least 2 subsets and R seeds. groups: (N,) slide
    ids; all that patches add is then summed within slides (Obuchowski 1997), and `m` and `rho` are found.

    The terms of the patches (see `clusters.auc_terms`) are a two-way layout, patches crossed with seeds within subsets.
    With v(.) their variance as a mean over patches, the expected v is

        of the mean over subsets   patch/n + patch_subset/K + patch_seed/(K R)
        of a subset minus that     (patch_subset + patch_seed/R) (K - 1)/K
        of a seed minus its subset patch_seed (R - 1)/R

    and the variances of the AUCs, between seeds and between subsets, hold `seed` and patch_subset + seed/R + `subset`.
    """
    differences, terms = _scores(labels, scores, reference)
    k, r, n = terms.shape
    if k < 2:
        raise StudyError("scores are of one subset: a spread over subsets needs at least two.")
    y = np.asarray(labels).astype(bool)
    codes = None if groups is None else clusters.codes_of(groups, n)
    of_subset = terms.mean(1)
    common = of_subset.mean(0)

    def patch_parts(codes: np.ndarray | None) -> tuple[float, float]:
        """What patches add to all subsets alike, for n patches, and to one subset; unbiased, so possibly negative."""
        of_seed = float(clusters.variance(terms - of_subset[:, None], y, codes).mean()) / (r - 1) if r > 1 else 0.0
        once = float(clusters.variance(of_subset - common, y, codes).sum()) / (k - 1)  # patch_subset + patch_seed / R
        return float(clusters.variance(common, y, codes)) - once / k, once - of_seed

    shared, interaction = patch_parts(codes)
    alone = shared if codes is None else patch_parts(None)[0]
    between = float(differences.mean(1).var(ddof=1))
    seed = float(differences.var(axis=1, ddof=1).mean()) if r > 1 else None
    raw = {
        "subset": between - (seed or 0.0) / r - interaction,
        "patch_subset": interaction,
        "patch": alone * n,
    }
    kept = {name: max(value, 0.0) for name, value in raw.items()}
    m, rho = 1.0, 0.0
    if codes is not None:
        m = float((np.bincount(codes) ** 2).sum()) / n
        if m > 1 and alone > 0:
            rho = (max(shared, 0.0) / alone - 1) / (m - 1)
        elif shared > 0 >= alone:
            kept["patch"] = shared * n  # only sums over slides show it
    negative = {name: value for name, value in raw.items() if value < 0}
    return Components(
        float(differences.mean()), seed=seed, n=n, subsets=k, seeds=r, m=m, rho=rho, negative=negative, **kept
    )


def variance_of_mean(
    components: Components, K: int, R: int, n: float, m: float = 1, rho: float = 0, *, new_patches: bool = True
) -> float:
    """Variance of the mean difference over K subsets, R seeds each, tested on n patches (see the module).

    `patch_subset` is scaled from the components' number of patches to n. Give m = components.m and rho =
    components.rho for patches that come in slides. new_patches: False leaves out the patches' own part, for
    statements about the test set as it is. StudyError if R differs from 1 but the components know no seeds.
    """
    return sum(_parts(components, K, R, n, m, rho, new_patches))


def _parts(c: Components, K: int, R: int, n: float, m: float, rho: float, new_patches: bool) -> tuple[float, float]:
    if min(K, R, n, m) < 1:
        raise StudyError(f"K, R, n and m must be at least 1, got {K}, {R}, {n} and {m}.")
    if c.seed is None and R != 1:
        raise StudyError("the components are of one seed, so what more seeds would change is unknown: use R = 1.")
    between = (c.subset + (c.seed or 0.0) / R + c.patch_subset * c.n / n) / K
    return between, c.patch * max(1 + (m - 1) * rho, 0.0) / n if new_patches else 0.0


def freedom(
    components: Components, K: int, R: int, n: float, m: float = 1, rho: float = 0, *, new_patches: bool = True
) -> float:
    """Degrees of freedom of that variance (Satterthwaite 1946): K - 1 of the subsets, n / m - 1 of the patches."""
    return _satterthwaite(zip(_parts(components, K, R, n, m, rho, new_patches), (K - 1, n / m - 1)))


def _satterthwaite(parts: Any) -> float:
    """Degrees of freedom of a sum of independent (variance, its degrees of freedom)."""
    kept = [(v, df) for v, df in parts if v > 0]
    if not kept:
        return math.inf
    if any(df <= 0 for _, df in kept):
        raise StudyError("one subset, or one slide, has no degrees of freedom: plan for at least two.")
    return sum(v for v, _ in kept) ** 2 / sum(v * v / df for v, df in kept)


# ------------------------------------------------------------------------------------------------ power


def level_of(level: float = ALPHA, tests: int = 1, rejected: int = 0) -> float:
    """The level at which one of `tests` hypotheses is tested so that no more than `level` of families has a false find.

    level / (tests - rejected): Bonferroni's with rejected = 0; Holm's (1979) once `rejected` of the others have been.
    Plan with 0 unless other arms are known to differ.
    """
    if not 0 < level < 1 or tests < 1 or not 0 <= rejected < tests:
        raise StudyError(f"level must be in 0 to 1 and rejected below tests, got {level}, {rejected} and {tests}.")
    return level / (tests - rejected)


def power_of(effect: float, error: float, df: float, level: float = ALPHA) -> float:
    """Probability that a two-sided t test finds the effect in its own direction (noncentral t).

    error: the standard error of the mean difference, `df` its degrees of freedom. Without error it is 1.
    """
    if error < 0 or df <= 0:
        raise StudyError(f"error must not be negative, and df positive, got {error} and {df}.")
    shift = abs(effect) / error if error else math.inf
    critical = float(scipy_stats.t.isf(level / 2, df))
    if shift > 30 + critical:  # beyond what the distribution is computed for; the power is 1 to every digit
        return 1.0
    if df > 1e5:
        return float(scipy_stats.norm.sf(critical - shift))
    return float(scipy_stats.nct.sf(critical, df, shift)) if shift else level / 2


def minimum_detectable_effect(
    error: float, df: float, *, level: float = ALPHA, power: float = POWER, tests: int = 1, rejected: int = 0
) -> float:
    """The smallest effect, in the units of `error`, that a two-sided t test finds with this probability.

    tests, rejected: see `level_of`.
    """
    if not level < power < 1:
        raise StudyError(f"power must be between the level and 1, got {power}.")
    alpha = level_of(level, tests, rejected)
    low, high = 0.0, 1.0
    while power_of(high * error, error, df, alpha) < power and high < 1e9:
        high *= 2
    if not error:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(middle * error, error, df, alpha) < power else (low, middle)
    return high * error


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The fewest subsets, from 2 on, that are enough; None if MOST are not."""
    high = 2
    while not enough(high):
        if high >= MOST:
            return None
        high = min(2 * high, MOST)
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def subsets_needed(
    effect: float, sd: float, *, level: float = ALPHA, power: float = POWER, tests: int = 1, rejected: int = 0
) -> int | None:
    """Subsets that a paired t test needs to find `effect`, from 2 on; None if MOST are too few.

    sd: of the paired difference, over subsets, in the units of `effect`.
    """
    alpha = level_of(level, tests, rejected)
    return _fewest(lambda k: power_of(effect, sd / math.sqrt(k), k - 1, alpha) >= power) if effect else None


# ------------------------------------------------------------------------------------------------ published effects


class Decidable(NamedTuple):
    """Whether an effect of the paper can be decided: how large it is, and the subsets of each kind of test.

    `effect` and `sd` are of one subset, in the units they were given in. `unpaired` and `paired` are numbers of
    subsets, None where no number would do: the effect is 0 or has the wrong sign.
    """

    effect: float
    sd: float
    unpaired: int | None
    paired: int | None


Printed = tuple[float, float, float]
"""A weight, and a printed mean and standard deviation over subsets."""


def decidable(
    weighted: Sequence[Printed],
    *,
    correlation: float = 0.5,
    level: float = ALPHA,
    power: float = POWER,
    tests: int = 1,
    rejected: int = 0,
) -> Decidable:
    """Subsets that would show a weighted sum of printed means to be positive, if it is as large as printed.

    weighted: (weight, mean, sd) of each arm, as for `inference.welch`; a margin is (1, margin, 0). unpaired: each
    arm has subsets of its own, which is all that printed tables can be tested by; Welch's degrees of freedom.
    paired: the arms share their subsets, and any two of them correlate by `correlation` (0 to below 1), which the
    paper does not print.
    """
    if not 0 <= correlation < 1:
        raise StudyError(f"correlation must be from 0 to below 1, got {correlation}.")
    effect = math.fsum(w * mean for w, mean, _ in weighted)
    parts = [(w * sd) ** 2 for w, _, sd in weighted]
    own, net = sum(parts), sum(w * sd for w, _, sd in weighted)
    sd = math.sqrt((1 - correlation) * own + correlation * net**2)
    if effect <= 1e-12:  # sums of printed decimals that are 0 but for rounding
        return Decidable(effect, sd, None, None)
    alpha = level_of(level, tests, rejected)

    def enough(n: int) -> bool:
        df = (n - 1) * own**2 / sum(part**2 for part in parts) if own else n - 1
        return power_of(effect, math.sqrt(own / n), df, alpha) >= power

    paired = subsets_needed(effect, sd, level=level, power=power, tests=tests, rejected=rejected)
    return Decidable(effect, sd, _fewest(enough), paired)
