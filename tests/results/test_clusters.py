"""AUCs of patches in slides: DeLong and Obuchowski by hand, the bootstrap beside them, coverage on made-up slides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from pcamlib.core.errors import StudyError
from pcamlib.results import clusters


def wins(labels, scores):
    positive, negative = scores[labels == 1][:, None], scores[labels == 0]
    return (positive > negative) + 0.5 * (positive == negative)


def wins_of_slides(y: np.ndarray, scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(G, G): of the pairs of a positive of one slide and a negative of another, how many are ranked rightly."""
    slides = int(codes.max()) + 1
    order = np.argsort(scores[~y], kind="stable")
    values = scores[~y][order]
    below = np.zeros((len(order) + 1, slides))
    below[np.arange(1, len(order) + 1), codes[~y][order]] = 1
    below = below.cumsum(0)
    of_patch = below[np.searchsorted(values, scores[y], "left")] + below[np.searchsorted(values, scores[y], "right")]
    wins = np.zeros((slides, slides))
    np.add.at(wins, codes[y], of_patch / 2)
    return wins


def bootstrap(labels, scores, *, groups, reference=None, draws=2000):
    """(AUCs or differences of redrawn whole slides, draws that lack a class): a draw is a quadratic form in the slides'
    counts."""
    y, codes = labels == 1, np.unique(groups, return_inverse=True)[1]
    slides = int(codes.max()) + 1
    counts = np.random.default_rng(0).multinomial(slides, np.full(slides, 1 / slides), draws).astype(np.float64)
    positives, negatives = (counts @ np.bincount(codes[c], minlength=slides) for c in (y, ~y))
    whole = (positives > 0) & (negatives > 0)
    wins = wins_of_slides(y, scores, codes) - (0 if reference is None else wins_of_slides(y, reference, codes))
    found = np.einsum("bg,gh,bh->b", counts, wins, counts, optimize=True)[whole] / (positives * negatives)[whole]
    return found, draws - whole.sum()


def test_delong_by_hand_with_ties():
    labels, scores = np.array([1, 0, 1, 0, 1, 0, 0]), np.array([3, 1, 2, 2, 2, 0, 3])
    matrix = wins(labels, scores)
    auc, terms = clusters.auc_terms(labels, scores)
    assert auc == pytest.approx(matrix.mean()) and terms.sum() == pytest.approx(0)
    assert terms[labels == 1] == pytest.approx((matrix.mean(1) - matrix.mean()) / 3)
    expected = matrix.mean(1).var(ddof=1) / 3 + matrix.mean(0).var(ddof=1) / 4
    assert clusters.variance(terms, labels == 1) == pytest.approx(expected)
    found = clusters.auc_interval(labels, scores)
    assert found.error == pytest.approx(math.sqrt(expected)) and 0 < found.low < found.mean < found.high < 1


def test_obuchowski_by_hand():
    labels = np.array([1, 1, 0, 0, 1, 0, 1, 0, 0, 1])
    groups = np.array(list("aaabbbcccc"))
    scores = np.array([4.0, 2, 3, 1, 5, 2, 6, 0, 5, 1])
    matrix, (positive, negative) = wins(labels, scores), (labels == 1, labels == 0)
    auc, m, n = matrix.mean(), positive.sum(), negative.sum()
    x = [(matrix.mean(1)[groups[positive] == g] - auc).sum() for g in "abc"]
    y = [(matrix.mean(0)[groups[negative] == g] - auc).sum() for g in "abc"]
    s10, s01 = 3 / 2 / m * np.dot(x, x), 3 / 2 / n * np.dot(y, y)
    expected = s10 / m + s01 / n + 2 * 3 / 2 * np.dot(x, y) / (m * n)
    assert clusters.auc_interval(labels, scores, groups=groups).error ** 2 == pytest.approx(expected)
    alone = clusters.auc_interval(labels, scores, groups=range(10))
    assert alone.error == pytest.approx(clusters.auc_interval(labels, scores).error), "a slide for each patch is DeLong"


def test_a_paired_difference_is_that_of_the_terms():
    made = clusters.simulate(np.random.default_rng(0))
    same = clusters.auc_interval(made.labels, made.scores, reference=made.scores, groups=made.groups)
    assert same[:4] == (0, -np.inf, np.inf, 0), "no spread is no proof"
    perfect = clusters.auc_interval(made.labels, made.labels)
    assert perfect[:4] == (1, -np.inf, np.inf, 0)
    there = clusters.auc_interval(made.labels, made.scores, reference=made.reference, groups=made.groups)
    back = clusters.auc_interval(made.labels, made.reference, reference=made.scores, groups=made.groups)
    assert (there.mean, there.low, there.error) == pytest.approx((-back.mean, -back.high, back.error))


def test_the_bootstrap_of_slides_agrees():
    made = clusters.simulate(np.random.default_rng(1), slides=60)
    for reference in (None, made.reference):
        options = {"reference": reference, "groups": made.groups}
        analytic = clusters.auc_interval(made.labels, made.scores, **options)
        drawn, undefined = bootstrap(made.labels, made.scores, **options)
        assert undefined == 0 and drawn.std(ddof=1) == pytest.approx(analytic.error, rel=0.08)
        assert tuple(np.quantile(drawn, (0.025, 0.975))) == pytest.approx(
            (analytic.low, analytic.high), abs=0.4 * analytic.error
        )


def test_a_draw_of_slides_is_the_auc_of_their_patches():
    rng = np.random.default_rng(2)
    labels, scores, groups = np.tile([0, 1], 15), rng.integers(0, 6, 30).astype(float), np.repeat(range(5), 6)
    matrix = wins_of_slides(labels == 1, scores, groups)
    counts = np.array([2, 0, 1, 2, 0])
    rows = np.repeat(np.arange(30), counts[groups])
    brute = wins(labels[rows], scores[rows])
    assert counts @ matrix @ counts == pytest.approx(brute.sum())


def test_draws_without_a_class_are_counted():
    labels, groups = np.repeat([0, 1, 0, 1], 5), np.repeat([0, 1, 2, 3], 5)
    scores = np.random.default_rng(3).normal(size=20)
    _, undefined = bootstrap(labels, scores, groups=groups, draws=4000)
    assert undefined / 4000 == pytest.approx(2 * 0.5**4, abs=0.015)


@pytest.mark.slow
def test_slide_intervals_cover_and_patch_intervals_do_not():
    found = clusters.coverage(600, seed=0)
    for name in ("slide", "slide difference"):  # the standard error of a share of 600 is 0.009
        assert 0.93 <= found[name] <= 0.97, found
    assert found["patch"] < 0.85 and found["patch difference"] < 0.87, found


def test_without_a_slide_effect_both_cover():
    found = clusters.coverage(200, seed=1, shift=0.0)
    assert min(found["slide"], found["patch"], found["patch difference"]) > 0.9, found


def test_intraclass_correlation_and_design_effect():
    rng = np.random.default_rng(4)
    values = np.repeat(rng.normal(size=400), 10) + rng.normal(size=4000)
    groups = np.repeat(np.arange(400), 10)
    assert clusters.intraclass_correlation(values, groups) == pytest.approx(0.5, abs=0.05)
    assert clusters.intraclass_correlation(groups, groups) == 1
    assert clusters.intraclass_correlation(np.tile([0.0, 1.0], 4), np.repeat(range(4), 2)) == pytest.approx(-1)
    twice = np.arange(200) // 2  # every patch is there twice: half of them know as much
    labels, scores = np.tile([0, 1], 50)[twice], rng.normal(size=100)[twice]
    found = clusters.design(labels, scores, groups=twice)
    assert found.effect == pytest.approx(2, rel=0.03) and found.effective == pytest.approx(100, rel=0.03)
    assert (found.patches, found.slides, found.icc) == (200, 100, pytest.approx(1))


def test_truth_of_the_simulation():
    made = clusters.simulate(np.random.default_rng(5), slides=4000, patches=5)
    assert clusters.auc_terms(made.labels, made.scores)[0] == pytest.approx(clusters.true_auc(), abs=0.01)
    assert clusters.true_auc(0.0) == pytest.approx(scipy_stats.norm.cdf(1.5 / 2**0.5))


@pytest.mark.parametrize(
    "labels, scores, groups, words",
    [
        ([0, 1, 2, 1], [1.0, 2, 3, 4], None, "0 .normal. and 1"),
        ([0, 1, 1, 1], [1.0, 2, 3, 4], None, "two patches of each class"),
        ([0, 1, 0, 1], [1.0, 2, 3], None, "4 labels"),
        ([0, 1, 0, 1], [1.0, 2, 3, np.nan], None, "without NaN"),
        ([0, 1, 0, 1], [1.0, 2, 3, 4], [1, 2, 3], "one slide id per patch"),
        ([0, 1, 0, 1], [1.0, 2, 3, 4], [1, 2, 3, np.nan], "NaN"),
        ([0, 1, 0, 1], [1.0, 2, 3, 4], [1, 2, 3, 2], "one slide only"),
    ],
)
def test_bad_input_is_said(labels, scores, groups, words):
    with pytest.raises(StudyError, match=words):
        clusters.auc_interval(labels, scores, groups=groups)
