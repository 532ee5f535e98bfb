"""The headline differences by hand, and the exchange rate against a search over all rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_up import measured, write_run
from scipy import stats

from pcamlib.results import frame, headline, load
from pcamlib.results.arms import TRADITIONAL, TWICE, Arm
from pcamlib.results.headline import DOUBLE


def test_every_use_is_compared_with_the_stronger_control(tmp_path):
    df = frame.by_device(load(write_run(tmp_path / "run", 2), 2), "classification")
    found = {row.title: row for row in headline.differences(df)}
    # 86 is the stronger control
    assert found["U-Net transfer"].mean == pytest.approx((87 + 87.4 + 87.2) / 300 - 0.86)
    assert found["Twice the real data"].values == pytest.approx([0.04, 0.04])
    assert found["Traditional augmentation"].mean == pytest.approx(-0.01)
    assert [row.generator for row in found.values()] == [None, None, *"histogan histogan unet unet dit dit".split()]


def test_an_arm_is_paired_with_the_control_subset_by_subset():
    df = measured({TRADITIONAL: [0.8, 0.8, 0.8], TWICE: [0.8, 0.82, 0.84], DOUBLE: [0.81, None, 0.87]})
    double, traditional = headline.differences(df)
    assert double.values == pytest.approx([0.01, 0.03]) and double.test.n == 2
    assert traditional.values == pytest.approx([0.0, -0.02, -0.04])
    assert headline.differences(measured({TRADITIONAL: [0.8], DOUBLE: [0.9]})) == [], "no control of as many steps"


def test_the_exchange_rate_holds_what_a_t_test_cannot_refuse():
    rng = np.random.default_rng(0)
    real, synthetic = 0.02 + 0.004 * rng.normal(size=8), 0.008 + 0.006 * rng.normal(size=8)
    rate = headline.exchange_rate(synthetic, real)
    assert rate.value == pytest.approx(synthetic.mean() / real.mean())
    tried = np.linspace(-2, 3, 20001)
    held = tried[stats.ttest_1samp(synthetic - tried[:, None] * real, 0, axis=1).pvalue >= 0.05]
    assert (rate.low, rate.high) == (pytest.approx(held.min(), abs=3e-4), pytest.approx(held.max(), abs=3e-4))


def test_without_a_sure_gain_by_real_patches_there_is_no_bounded_rate():
    rate = headline.exchange_rate([0.01, 0.02, 0.0], [0.03, -0.02, 0.01])
    assert math.isinf(rate.low) and math.isinf(rate.high)
    assert headline.exchange_rate([0.01], [0.02]) is None, "one subset"
    assert headline.exchange_rate([0.01, 0.02], [-0.01, -0.02]) is None, "real patches gain nothing"
    with pytest.raises(ValueError, match="one gain per subset"):
        headline.exchange_rate([0.01, 0.02], [0.01])


def test_rates_by_generator():
    arms = {
        TWICE: [0.8, 0.8, 0.8],
        DOUBLE: [0.82, 0.82, 0.82],
        Arm("augmentation", "dit", "none"): [0.81, 0.811, 0.809],
    }
    found = headline.exchange_rates(measured(arms))
    assert list(found) == ["dit"] and found["dit"].value == pytest.approx(0.5)
    assert found["dit"].low == pytest.approx(0.5 - 4.302652729911275 * 0.001 / 3**0.5 / 0.02)
