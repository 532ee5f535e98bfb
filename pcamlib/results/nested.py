"""Intervals over subsets, seeds and test patches that count each source of variance once; and arms chosen fairly.

A mean over subsets varies with the subsets, their seeds and the test patches. The sample variance of the subsets'
values already holds everything that differs between subsets: the subsets themselves, their seeds, and what the test
patches do to one subset and not to another. What is left to add is what the patches do to all subsets alike.
Redrawing seeds and patches within each subset, and adding that variance to the spread over redrawn subsets, counts
the seeds and the interaction three times: once in the spread, and twice by the redrawing.

An arm that is chosen on the validation patches is tested with the same trained networks, whose luck is part of why
it was chosen. `chosen_then_reported` reports it from networks that had no say. Bad input raises StudyError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import optimize
from scipy import stats as scipy_stats

from pcamlib.core.errors import StudyError
from pcamlib.results import clusters


class Nested(NamedTuple):
    """A mean with its interval over subsets, seeds and patches.

    `p`: two-sided, of zero; None where it would not cover new subsets, that is with one subset. Without any
    spread it is None too, and the interval infinite. `between` and `patch`: the two variances of the mean that `error`
    is made of, from the spread of subsets (of seeds, where there is one subset), and from what patches do to all of
    them alike.
    """

    mean: float
    low: float
    high: float
    p: float | None
    error: float
    between: float
    patch: float
    subsets: int


def nested_interval(
    labels: Any,
    scores: Sequence[Any],
    reference: Sequence[Any] | None = None,
    *,
    groups: Any | None = None,
    level: float = clusters.LEVEL,
) -> Nested:
    """An arm's AUC, or its difference to `reference`, averaged over seeds and then subsets, with its interval.

    labels: (N,) of 0 and 1. scores, reference: one array (R, N) per subset, the same subsets in the same order;
    numbers of seeds may differ. groups: (N,) slide ids, else patches count as independent.

    The error's square is S²/K + patch. S² is the variance of the K subsets' values. `patch` is the variance of the
    patches' mean terms less what of it belongs to single subsets (see `power.variance_components`), at least 0.
    With one subset the seeds take the subsets' place, and with one seed there are only patches.

    The two parts have very different degrees of freedom, K - 1 and patches (or slides) - 1. The quantile is the
    mean of their Student quantiles weighted by their variances (the approximation of Cochran and Cox 1950 for
    unequal variances). In simulations it covers 95 to 97 % from two subsets on; Satterthwaite's single number of
    degrees of freedom covers 89 % with two subsets and 92 to 94 % with three or four.
    """
    if not len(scores) or (reference is not None and len(reference) != len(scores)):
        raise StudyError("scores and reference must hold the same subsets, at least one.")
    sides = [scores] if reference is None else [scores, reference]
    found = [
        [clusters.auc_terms(labels, np.atleast_2d(np.asarray(runs)), f"{word}scores") for runs in side]
        for word, side in zip(("", "reference "), sides)
    ]
    if any(terms.ndim != 2 for side in found for _, terms in side):
        raise StudyError("scores of a subset must have shape (seeds, patches).")
    y = np.asarray(labels).astype(bool)
    codes = None if groups is None else clusters.codes_of(groups, len(y))
    values = np.array([[auc.mean() for auc, _ in side] for side in found])
    terms = np.array([[terms.mean(0) for _, terms in side] for side in found])
    value, term = (values[0] - values[1], terms[0] - terms[1]) if len(found) == 2 else (values[0], terms[0])
    k, common = len(value), term.mean(0)
    patch = float(clusters.variance(common, y, codes))
    if k > 1:
        parts = [(float(value.var(ddof=1)) / k, k - 1)]
        patch -= float(clusters.variance(term - common, y, codes).sum()) / (k * (k - 1))
    else:
        parts = []
        for ((auc, each),) in found:
            if (r := len(auc)) > 1:
                parts.append((float(auc.var(ddof=1)) / r, r - 1))
                patch -= float(clusters.variance(each - each.mean(0), y, codes).sum()) / (r * (r - 1))
    patch = max(patch, 0.0)
    between = sum(v for v, _ in parts)
    parts.append((patch, (len(y) if codes is None else int(codes.max()) + 1) - 1))
    total, mean = between + patch, float(value.mean())
    error = math.sqrt(total)

    def quantile(tail: float) -> float:
        """Of the mean over its error: exceeded by chance with this probability, at either end."""
        return sum(v * float(scipy_stats.t.isf(tail, df)) for v, df in parts) / total

    if error < clusters.RESOLUTION:
        return Nested(mean, -math.inf, math.inf, None, 0.0, between, patch, k)
    half = quantile((1 - level) / 2) * error
    p = None
    if k > 1:
        reached = abs(mean) / error
        least, most = math.log(1e-300), math.log(0.5)
        found_at = least
        if quantile(math.exp(least)) > reached:
            found_at = float(optimize.brentq(lambda tail: quantile(math.exp(tail)) - reached, least, most))
        p = min(2 * math.exp(found_at), 1.0)
    return Nested(mean, mean - half, mean + half, p, error, between, patch, k)


def chosen_then_reported(
    valid: Any, test: Any, *, by: Literal["seed", "subset"] = "seed"
) -> tuple[np.ndarray, list[int]]:
    """Test values of the arm that is best on validation, from networks that were not asked; and which arm each time.

    valid, test: (A, K, R) of A arms, K subsets and R seeds, say their AUC, or its difference to a reference.
    Returns (K,) values, one per subset for a test over subsets, and the arms chosen, one per seed or subset.

    by="seed": each seed in turn chooses by its mean over subsets, and the other seeds report; at least 2 seeds. It
    is free of the luck of networks, not of subsets that happen to suit an arm. by="subset": each subset is reported
    by the arm that the other subsets choose; at least 2 subsets, and free of both.
    """
    v, t = np.asarray(valid, np.float64), np.asarray(test, np.float64)
    if v.ndim != 3 or v.shape != t.shape or not v.size:
        raise StudyError(f"valid and test have shapes {v.shape} and {t.shape}: give both as (arms, subsets, seeds).")
    if not (np.isfinite(v).all() and np.isfinite(t).all()):
        raise StudyError("valid and test must be finite: leave out arms that were not run everywhere.")
    _, k, r = v.shape
    if by not in ("seed", "subset"):
        raise StudyError(f"by must be 'seed' or 'subset', got {by!r}.")
    if (r if by == "seed" else k) < 2:
        raise StudyError(f"choosing by {by} needs at least two {by}s: one to choose with and one to report.")
    if by == "seed":
        arms = [int(v[:, :, i].mean(1).argmax()) for i in range(r)]
        return np.mean([np.delete(t[arm], i, axis=1).mean(1) for i, arm in enumerate(arms)], axis=0), arms
    arms = [int(np.delete(v, i, axis=1).mean((1, 2)).argmax()) for i in range(k)]
    return np.array([t[arm, i].mean() for i, arm in enumerate(arms)]), arms
