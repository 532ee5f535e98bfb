"""The nested interval: its parts by hand, its coverage on made-up truth beside adding redrawn variances; choosing
fairly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from pcamlib.core.errors import StudyError
from pcamlib.results import clusters, nested


def study(rng, subsets, seeds, n, subset, seed, interaction, patch):
    """Labels, and scores (K, R, N) of two equally good arms that share what makes a patch hard."""
    labels, hard = np.tile([0, 1], n // 2), rng.normal(size=n)

    def arm():
        gain = 1.2 + subset * rng.normal(size=(subsets, 1, 1)) + seed * rng.normal(size=(subsets, seeds, 1))
        own = interaction * rng.normal(size=(subsets, 1, n)) + patch * rng.normal(size=n)
        return gain * labels + hard + own + 0.5 * rng.normal(size=(subsets, seeds, n))

    return labels, arm(), arm()


def redrawn_variance(rng, labels, terms, differences, draws=200):
    """What seeds and patches add to the mean over subsets when both are redrawn within every subset."""
    k, r, n = terms.shape
    seeds = np.array([rng.multinomial(r, np.full(r, 1 / r), draws) for _ in range(k)]) / r  # (K, draws, R)
    patches = np.empty((draws, n))
    for c in (0, 1):
        rows = np.flatnonzero(labels == c)
        patches[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), draws)
    drawn = np.einsum("kbr,kr->kb", seeds, differences)
    drawn += np.einsum("kbr,krb->kb", seeds, terms @ patches.T)
    return float(drawn.mean(0).var(ddof=1)), drawn


def test_parts_by_hand():
    labels, a, b = study(np.random.default_rng(0), 3, 2, 60, 0.2, 0.2, 0.2, 0.2)
    found = nested.nested_interval(labels, list(a), list(b))
    auc = [[np.mean(s[labels == 1][:, None] > s[labels == 0]) for s in side.reshape(6, 60)] for side in (a, b)]
    values = np.subtract(*auc).reshape(3, 2).mean(1)
    assert found.mean == pytest.approx(values.mean()) and found.between == pytest.approx(values.var(ddof=1) / 3)
    assert found.error**2 == pytest.approx(found.between + found.patch) and found.subsets == 3
    again = nested.nested_interval(labels, list(a), list(b), level=1 - found.p)
    nearer = again.low if found.mean > 0 else again.high
    assert nearer == pytest.approx(0, abs=1e-9), "zero is just on the edge of the interval at level 1 - p"


def test_without_shared_patch_variance_it_is_the_t_test_over_subsets():
    rng, labels, same = np.random.default_rng(1), np.tile([0, 1], 30), 0
    for _ in range(20):
        a, b = (1.2 * labels + rng.normal(size=(5, 1, 60)) for _ in range(2))  # patches are hard for one network only
        found = nested.nested_interval(labels, list(a), list(b))
        values = (clusters.auc_terms(labels, a)[0] - clusters.auc_terms(labels, b)[0])[:, 0]
        reference = scipy_stats.ttest_1samp(values, 0)
        if found.patch == 0:
            same += 1
            assert found.p == pytest.approx(reference.pvalue, rel=1e-6)
            assert found.low == pytest.approx(reference.confidence_interval().low)
    assert 5 <= same < 20, "an unbiased estimate of 0 is below 0 about half of the time, and is then set to 0"


def test_one_subset_has_no_p_and_one_seed_is_delong():
    labels, a, b = study(np.random.default_rng(3), 1, 3, 80, 0.2, 0.3, 0.2, 0.2)
    assert nested.nested_interval(labels, list(a), list(b)).p is None
    assert nested.nested_interval(labels, [a[0, :1]], [b[0]]).between > 0, "the reference's seeds differ"
    one = nested.nested_interval(labels, [a[0, 0]], [b[0, 0]])
    assert one.between == 0
    assert one.error == pytest.approx(clusters.auc_interval(labels, a[0, 0], reference=b[0, 0]).error)


@pytest.mark.slow
@pytest.mark.parametrize("design", [(4, 2, 200, 0.0, 0.3, 0.3, 0.3), (3, 1, 200, 0.1, 0.2, 0.3, 0.6)])
def test_covers_the_truth(design):
    rng = np.random.default_rng(4)
    found = []
    for _ in range(300):
        labels, a, b = study(rng, *design)
        found.append(nested.nested_interval(labels, list(a), list(b)))
    covered = np.mean([f.low <= 0 <= f.high for f in found])
    assert 0.93 <= covered <= 0.985, covered  # the standard error of a share of 300 is 0.013
    assert np.mean([f.error**2 for f in found]) == pytest.approx(np.var([f.mean for f in found]), rel=0.2)


@pytest.mark.slow
def test_adding_the_redrawn_variance_counts_seeds_and_interaction_again():
    rng, means, once, added, covered = np.random.default_rng(5), [], [], [], 0
    for _ in range(200):
        labels, a, b = study(rng, 4, 3, 120, 0.0, 0.5, 0.3, 0.1)
        (auc, terms), (other, more) = clusters.auc_terms(labels, a), clusters.auc_terms(labels, b)
        differences, k = auc - other, len(auc)
        within, drawn = redrawn_variance(rng, labels, terms - more, differences)
        picks = rng.integers(k, size=drawn.shape)
        between = max(np.take_along_axis(drawn, picks, 0).mean(0).var(ddof=1) - within, 0) * k / (k - 1)
        found = nested.nested_interval(labels, list(a), list(b))
        means.append(found.mean)
        once.append(found.error**2)
        added.append(within + between)
        df = (k - 1) * ((within + between) / between) ** 2 if between else np.inf
        covered += abs(found.mean) <= scipy_stats.t.ppf(0.975, df) * np.sqrt(within + between)
    truth = np.var(means)
    assert np.mean(once) == pytest.approx(truth, rel=0.25)
    assert np.mean(added) > 1.6 * truth and covered / 200 > 0.97


def test_slides_widen_it():
    rng, variances = np.random.default_rng(6), []
    for _ in range(20):
        made = clusters.simulate(rng, slides=30)
        a, b = ([s + 0.1 * rng.normal(size=(2, len(s))) for _ in range(3)] for s in (made.scores, made.reference))
        plain = nested.nested_interval(made.labels, a, b)
        over_slides = nested.nested_interval(made.labels, a, b, groups=made.groups)
        assert over_slides.between == plain.between
        variances.append((over_slides.patch, plain.patch))
    over_slides, plain = np.mean(variances, axis=0)
    assert over_slides > 1.5 * plain


@pytest.mark.parametrize("by, bias", [("seed", 0.002), ("subset", 0.002)])
def test_the_chosen_arm_is_reported_without_the_luck_of_its_networks(by, bias):
    rng, fair, naive = np.random.default_rng(7), [], []
    for _ in range(300):
        luck = rng.normal(size=(18, 3, 3))  # of a network, on validation as on test
        valid, test = (0.01 * (0.76 * luck + 0.65 * rng.normal(size=luck.shape)) for _ in range(2))
        values, arms = nested.chosen_then_reported(valid, test, by=by)
        assert len(values) == 3 and len(arms) == 3
        fair.append(values.mean())
        naive.append(test[valid.mean((1, 2)).argmax()].mean())
    assert abs(np.mean(fair)) < 4 * np.std(fair) / 300**0.5 and abs(np.mean(fair)) < bias
    assert np.mean(naive) > 0.003, "all arms are equal, and the chosen one looks 0.3 points better"


def test_choosing_by_hand():
    valid = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    values, arms = nested.chosen_then_reported(valid, np.array([[[10.0, 20.0]], [[30.0, 40.0]]]))
    assert arms == [0, 1] and values == pytest.approx([(20 + 30) / 2])
    valid = np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    values, arms = nested.chosen_then_reported(valid, valid * 10, by="subset")
    assert arms == [1, 0] and list(values) == [0, 0]


def test_no_spread_is_no_proof():
    labels, a, _ = study(np.random.default_rng(8), 3, 2, 60, 0.2, 0.2, 0.2, 0.2)
    same = nested.nested_interval(labels, list(a), list(a))
    assert (same.mean, same.low, same.high, same.p) == (0, -np.inf, np.inf, None)


def test_bad_input_is_said():
    labels = [0, 0, 1, 1]
    with pytest.raises(StudyError, match="same subsets"):
        nested.nested_interval(labels, [[0.1, 0.2, 0.3, 0.4]], [])
    with pytest.raises(StudyError, match="at least two seeds"):
        nested.chosen_then_reported(np.ones((2, 3, 1)), np.ones((2, 3, 1)))
    with pytest.raises(StudyError, match="not run everywhere"):
        nested.chosen_then_reported(np.full((2, 3, 2), np.nan), np.ones((2, 3, 2)))
    with pytest.raises(StudyError, match="same shape|shapes"):
        nested.chosen_then_reported(np.ones((2, 3, 2)), np.ones((2, 3, 3)))
