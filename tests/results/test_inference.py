"""Inference: against values by hand, against SciPy and scikit-free brute force, and for coverage on made-up truth."""

from __future__ import annotations

import made_up
import numpy as np
import pytest
from scipy import stats as scipy_stats

from pcamlib.results import inference, load
from pcamlib.results.arms import BASELINE, TRADITIONAL, Arm


def test_over_subsets_is_the_one_sample_t_test():
    values = [0.01, 0.03, 0.02, 0.05]
    found = inference.over_subsets(values)
    reference = scipy_stats.ttest_1samp(values, 0)
    interval = reference.confidence_interval()
    assert (found.p, found.low, found.high) == pytest.approx((reference.pvalue, interval.low, interval.high))
    assert inference.hedges(9) == pytest.approx(1 - 3 / (4 * 9 - 1), abs=1e-3), "the usual approximation"
    assert found.effect == pytest.approx(np.mean(values) / np.std(values, ddof=1) * np.sqrt(np.pi / 6))
    assert inference.over_subsets([0.1, 0.2]).effect is None
    assert inference.over_subsets([0.1]) is None
    same = inference.over_subsets([0.1, 0.1, 0.1])
    assert (same.low, same.high, same.p, same.effect) == (
        -np.inf,
        np.inf,
        0.25,
        None,
    ), "sign flips have at best 2 / 2^3"
    assert inference.over_subsets([0.0, 0.0]).p == 1


@pytest.mark.parametrize(
    "values", [[0.05] * 3, np.float32([0.85, 0.75, 0.65]) - np.float32([0.8, 0.7, 0.6]), [0.05, 0.050002, 0.05]]
)
def test_no_spread_is_no_certainty(values):
    """Equal differences, those of float32 metrics (equal but for rounding), and a spread that is printed as 0.00."""
    found = inference.over_subsets([float(v) for v in values])
    assert (found.low, found.high, found.p, found.flip_p) == (-np.inf, np.inf, 0.25, 0.25)
    arms = {BASELINE: [0.8, 0.7, 0.6], TRADITIONAL: [0.8 + values[0], 0.7 + values[1], 0.6 + values[2]]}
    line = inference.compared(made_up.measured(arms), BASELINE).loc["traditional"]
    assert line["mean"] == pytest.approx(0.05, abs=1e-5) and line["n"] == 3
    assert (line["low"], line["high"], line["p"]) == (-np.inf, np.inf, 0.25) and np.isnan(line["effect"])


@pytest.mark.parametrize("n, least", [(2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_sign_flips_cannot_fall_below_their_least(n, least):
    assert inference.sign_flip(np.linspace(1, 2, n)) == pytest.approx(least)
    assert inference.sign_flip([-v for v in np.linspace(1, 2, n)]) == pytest.approx(least)


def test_sign_flips_by_hand():
    assert inference.sign_flip([3, -1]) == 1.0  # sums +-4, +-2: 2 is reached by all four
    assert inference.sign_flip([4, 2, -1]) == pytest.approx(0.5)  # |sum| >= 5: 7 and 5, either sign
    with pytest.raises(ValueError, match="17 values"):
        inference.sign_flip(range(17))
    assert inference.over_subsets(range(17)).flip_p is None


def test_welch_is_scipys():
    reference = scipy_stats.ttest_ind_from_stats(93.54, 0.38, 5, 92.99, 0.26, 5, equal_var=False)
    found = inference.welch([(1, 93.54, 0.38), (-1, 92.99, 0.26)], 5)
    assert found.p == pytest.approx(reference.pvalue)
    assert found.low < 0.55 < found.high and found.mean == pytest.approx(0.55)
    exact = inference.welch([(1, 0.02, 0.0), (-1, 0.01, 0.0)], 5)
    assert exact == inference.welch([(1, 0.02, 5e-5), (-1, 0.01, 5e-5)], 5), "printed as 0.00, so at most 0.005 %"
    assert exact.low < 0.01 < exact.high and 0 < exact.p < 1e-6


def test_a_printed_zero_beside_another_spread_counts_too():
    one = inference.welch([(1, 0.02, 0.0), (-1, 0.01, 0.001)], 5)
    assert one == inference.welch([(1, 0.02, 5e-5), (-1, 0.01, 0.001)], 5)
    recall = inference.welch([(1, 0.01, None), (-1, 0.0, 0.0)], 5)  # 1 % minus a recall of 0.00 ± 0.00
    assert recall.p == pytest.approx(2 * scipy_stats.t.sf(0.01 / (5e-5 / 5**0.5), 4)) and recall.p > 0


def test_false_discovery_by_hand():
    p = {Arm("a"): 0.01, Arm("b"): 0.04, Arm("c"): 0.03}
    assert list(inference.false_discovery(p).values()) == pytest.approx([0.03, 0.04, 0.04])
    assert inference.false_discovery({}) == {}


def test_sure_differences_of_one_kind_of_arm_make_no_room_for_another():
    mixed = {Arm("transfer", "unet", s): p for s, p in zip(("none", "realism", "class"), (0.04, 0.5, 0.9))}
    alone = {Arm("synthetic", g, s): 0.001 for g in ("unet", "dit", "histogan") for s in ("none", "realism", "class")}
    found = inference.false_discovery(alone | mixed)
    assert {arm: found[arm] for arm in mixed} == inference.false_discovery(mixed)
    assert found[Arm("transfer", "unet", "none")] == pytest.approx(0.12) and list(found) == [*alone, *mixed]


def test_compared_pairs_over_subsets(tmp_path):
    found = inference.compared(load(made_up.write_run(tmp_path / "run"), 2), TRADITIONAL)
    assert len(found) == 31 + 9 and found.loc["baseline", "mean"] == pytest.approx(-0.05)
    assert found.loc["baseline", "p"] == 0.5, "equal in both subsets"
