"""AUCs of patches that come in slides: intervals over slides, intraclass correlation and effective sample size.

A patch's placement value V is the share of the other class that it is ranked correctly against. To first order an AUC
differs from its true value by the mean of V - AUC over the positives plus that over the negatives (DeLong, DeLong and
Clarke-Pearson 1988, Biometrics 44:837). Sums of these terms within slides give the variance over slides (Obuchowski
1997, "Nonparametric analysis of clustered ROC curve data", Biometrics 53:567). The intervals are made from it. Their
test compares them with a bootstrap that draws whole slides and keeps all of their patches: drawing patches again within
the drawn slides would count the variance within slides twice (Field and Welsh 2007, "Bootstrapping clustered data",
JRSS B 69:369).

Labels are (N,) of 0 and 1, scores finite and higher for class 1, groups (N,) of slide ids of any type. Bad input raises
StudyError. Everything is in fractions.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from pcamlib.core.errors import StudyError

LEVEL = 0.95
RESOLUTION = 1e-9  # of AUC: a smaller standard error is rounding


class Interval(NamedTuple):
    """A value, its interval, standard error, and the degrees of freedom of Student's t (infinite: the normal's).

    Without any spread (two arms with the same scores, a perfect classifier) nothing is known about other
    patches: the error is 0 and the interval infinite.
    """

    mean: float
    low: float
    high: float
    error: float
    df: float


class Design(NamedTuple):
    """What clustering does to an AUC or a difference of AUCs.

    `icc`: intraclass correlation of the patches' terms, at most 1, below 0 if patches of a slide differ more than
    others; `effect`: variance over slides divided by that over patches; `effective`: patches divided by `effect`,
    the number of independent patches that would know as much.
    """

    patches: int
    slides: int
    icc: float
    effect: float
    effective: float


def check(labels: Any, scores: Any, what: str = "scores") -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool (N,) and scores as float64 (..., N), or StudyError."""
    y, s = np.asarray(labels), np.asarray(scores)
    if y.ndim != 1 or not np.isin(y, (0, 1)).all():
        raise StudyError("labels must be a list of 0 (normal) and 1 (tumour), one per patch.")
    if min(int(y.sum()), len(y) - int(y.sum())) < 2:
        raise StudyError("labels must hold at least two patches of each class: an AUC has no spread otherwise.")
    if s.ndim < 1 or s.shape[-1] != len(y):
        raise StudyError(f"{what} have shape {s.shape}, but there are {len(y)} labels: give one score per patch.")
    if s.dtype.kind not in "fiu" or not np.isfinite(s).all():
        raise StudyError(f"{what} must be numbers, finite and without NaN.")
    return y.astype(bool), s.astype(np.float64)


def codes_of(groups: Any, n: int) -> np.ndarray:
    """Slide ids as int (N,) from 0, or StudyError."""
    values = np.asarray(groups)
    if values.shape != (n,):
        raise StudyError(f"groups have shape {values.shape}, but there are {n} patches: give one slide id per patch.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise StudyError("groups hold NaN: every patch needs the id of its slide.")
    return np.unique(values, return_inverse=True)[1]


def auc_terms(labels: Any, scores: Any, what: str = "scores") -> tuple[np.ndarray, np.ndarray]:
    """AUCs (...) of scores (..., N) and what each patch adds to them, (..., N).

    The terms are (V - AUC) / n_class, so they sum to 0 in each class, and their sum over other patches is, to first
    order, how far another test set's AUC would be off. Placement values V by midranks, ties counted half (Sun and
    Xu 2014, IEEE Signal Processing Letters 21:1389).
    """
    y, s = check(labels, scores, what)
    ranks, terms = scipy_stats.rankdata(s, axis=-1), np.empty(s.shape)
    positives, negatives = int(y.sum()), int((~y).sum())
    above = (ranks[..., y] - scipy_stats.rankdata(s[..., y], axis=-1)) / negatives
    below = 1 - (ranks[..., ~y] - scipy_stats.rankdata(s[..., ~y], axis=-1)) / positives
    auc = above.mean(-1)
    terms[..., y] = (above - auc[..., None]) / positives
    terms[..., ~y] = (below - auc[..., None]) / negatives
    return auc, terms


def sums_by_slide(terms: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sums of terms (..., N) within slides, (..., G)."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    return np.add.reduceat(terms[..., order], starts, axis=-1)


def variance(terms: np.ndarray, labels: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
    """Variance (...) of AUCs or their differences from their terms (..., N): DeLong's, or Obuchowski's over slides.

    labels: bool (N,). StudyError if a class occurs in one slide only.
    """
    by_class = []
    for of_class in (labels, ~labels):
        kept = np.where(of_class, terms, 0.0)
        count = int(of_class.sum()) if codes is None else len(np.unique(codes[of_class]))
        if count < 2:
            raise StudyError("a class occurs in one slide only, so its spread over slides is unknown: use more slides.")
        by_class.append((kept if codes is None else sums_by_slide(kept, codes), count / (count - 1)))
    (a, factor_a), (b, factor_b) = by_class
    found = factor_a * (a * a).sum(-1) + factor_b * (b * b).sum(-1)
    if codes is not None:  # the classes of one slide go together
        slides = a.shape[-1]
        found = np.maximum(found + 2 * slides / (slides - 1) * (a * b).sum(-1), 0.0)
    return found


def _difference(labels: Any, scores: Any, reference: Any | None) -> tuple[float, np.ndarray, np.ndarray]:
    """AUC, or AUC minus the reference's; terms (N,); labels as bool."""
    auc, terms = auc_terms(labels, scores)
    if terms.ndim != 1:
        raise StudyError(f"scores have shape {terms.shape}: give one score per patch.")
    if reference is not None:
        other, more = auc_terms(labels, reference, "reference scores")
        auc, terms = auc - other, terms - more
    return float(auc), terms, np.asarray(labels).astype(bool)


def auc_interval(
    labels: Any, scores: Any, *, reference: Any | None = None, groups: Any | None = None, level: float = LEVEL
) -> Interval:
    """The AUC of `scores` (N,), or its difference to that of `reference` (N,) on the same patches, with its interval.

    With `groups` over slides (Obuchowski 1997, Student's t with slides - 1 degrees of freedom), else over patches
    as if each were from a slide of its own (DeLong 1988). The interval of an AUC is symmetric in its logit, so it
    stays within 0 and 1 (Pepe 2003, The Statistical Evaluation of Medical Tests).
    """
    value, terms, y = _difference(labels, scores, reference)
    codes = None if groups is None else codes_of(groups, len(y))
    error = math.sqrt(float(variance(terms, y, codes)))
    df = math.inf if codes is None else float(codes.max())
    if error < RESOLUTION:
        return Interval(value, -math.inf, math.inf, 0.0, df)
    half = float(scipy_stats.t.ppf((1 + level) / 2, df)) * error
    if reference is not None:
        return Interval(value, value - half, value + half, error, df)
    logit, half = math.log(value / (1 - value)), half / (value * (1 - value))
    return Interval(value, 1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit)), error, df)


def intraclass_correlation(values: Any, groups: Any) -> float:
    """Intraclass correlation of values (N,) within groups, from one-way analysis of variance with unequal group sizes
    (Donner 1986, International Statistical Review 54:67): at most 1; 0 where all values are equal."""
    x = np.asarray(values, np.float64)
    codes = codes_of(groups, len(x))
    sizes = np.bincount(codes)
    g, n = len(sizes), len(x)
    if not 2 <= g < n:
        raise StudyError(f"{n} values in {g} groups: a correlation needs two groups, and one of them two values.")
    means = np.bincount(codes, x) / sizes
    between = float((sizes * (means - x.mean()) ** 2).sum()) / (g - 1)
    within = float(((x - means[codes]) ** 2).sum()) / (n - g)
    size = (n - float((sizes**2).sum()) / n) / (g - 1)
    total = between + (size - 1) * within
    return (between - within) / total if total else 0.0


def design(labels: Any, scores: Any, *, groups: Any, reference: Any | None = None) -> Design:
    """Intraclass correlation, design effect and effective sample size of an AUC, or of a difference of AUCs.

    The correlation is of the patches' terms, not of the scores: a slide whose scores are all higher helps its
    positives and harms its negatives. `effect` is 1 where nothing varies.
    """
    _, terms, y = _difference(labels, scores, reference)
    codes = codes_of(groups, len(y))
    plain, clustered = float(variance(terms, y)), float(variance(terms, y, codes))
    effect = clustered / plain if plain else 1.0
    effective = len(y) / effect if effect else math.inf
    slides = int(codes.max()) + 1
    icc = intraclass_correlation(terms, codes) if slides < len(y) else 0.0
    return Design(len(y), slides, icc, effect, effective)


# ------------------------------------------------------------------------------------------------ simulation


class Simulated(NamedTuple):
    """A made-up test set whose slides are known: labels, slide ids and two arms' scores, each (N,)."""

    labels: np.ndarray
    groups: np.ndarray
    scores: np.ndarray
    reference: np.ndarray


def simulate(
    rng: np.random.Generator, slides: int = 50, patches: int = 20, shift: float = 0.7, gain: float = 0.0
) -> Simulated:
    """Slides of unequal size and tumour share whose patches share a shift of their scores.

    Each slide has Poisson(`patches`) patches, at least 1, and a tumour share from Beta(1, 1). A score is 1.5 for
    class 1, plus a slide's shift with standard deviation `shift`, plus noise of standard deviation 1. Two arms
    share half the variance of the shift; that of `scores` is better by `gain`. True AUC over slides: `true_auc`.
    """
    sizes = np.maximum(rng.poisson(patches, slides), 1)
    groups = np.repeat(np.arange(slides), sizes)
    labels = (rng.random(len(groups)) < rng.beta(1, 1, slides)[groups]).astype(np.int64)
    common = rng.normal(size=slides)
    arms = [
        (1.5 + more) * labels
        + shift * (0.5**0.5 * (common + rng.normal(size=slides)))[groups]
        + rng.normal(size=len(groups))
        for more in (gain, 0.0)
    ]
    return Simulated(labels, groups, *arms)


SIMULATED = (
    "Each study has 50 slides of about 20 patches; patches of a slide share a shift of their scores with a standard"
    " deviation of 0.7 times that within slides, and a random share of tumour."
)
"""What `simulate` makes by default, in words."""


def true_auc(shift: float = 0.7, gain: float = 0.0) -> float:
    """AUC of `simulate` for patches of different slides, the limit for many slides."""
    return float(scipy_stats.norm.cdf((1.5 + gain) / math.sqrt(2 * (1 + shift**2))))


def coverage(studies: int = 200, seed: int = 0, **of_simulate: Any) -> dict[str, float]:
    """Shares of simulated studies whose 95 % intervals hold the truth.

    Keys: "slide" and "patch" for an AUC, "slide difference" and "patch difference" for two arms that are equally good,
    and "studies". With 200 studies a share is known to about 3 points, with 2,000 to 1 (twice its standard error).
    """
    rng, truth = np.random.default_rng(seed), true_auc(of_simulate.get("shift", 0.7))
    hits: dict[str, int] = dict.fromkeys(("slide", "patch", "slide difference", "patch difference"), 0)
    for _ in range(studies):
        made = simulate(rng, **of_simulate)
        for name, groups in (("slide", made.groups), ("patch", None)):
            one = auc_interval(made.labels, made.reference, groups=groups)
            two = auc_interval(made.labels, made.scores, reference=made.reference, groups=groups)
            hits[name] += one.low <= truth <= one.high
            hits[f"{name} difference"] += two.low <= 0 <= two.high
    return {name: count / studies for name, count in hits.items()} | {"studies": studies}
