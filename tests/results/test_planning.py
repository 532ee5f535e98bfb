"""Power of a run: components and detectable effects against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pcamlib.results import power, power_table
from pcamlib.results.arms import BASELINE, TRADITIONAL, Arm

ARM = Arm("transfer", "unet", "realism")


def test_lines_are_those_of_the_components():
    rng, labels = np.random.default_rng(0), np.tile([0, 1], 300)
    hard = rng.normal(size=600)

    def runs(gain, seeds):
        return {
            k: [(gain * labels + hard + 0.5 * rng.normal(size=600)).astype(np.float32) for _ in range(seeds)]
            for k in range(4)
        }

    scores = {
        TRADITIONAL: runs(1.0, 3),
        ARM: runs(1.1, 2),
        BASELINE: runs(0.5, 1),
        Arm("synthetic", "unet", "none"): runs(0.1, 1),
    }
    table = power_table(labels, scores)
    assert list(table.index) == [ARM.name], "arms with synthetic and real images"
    line = table.loc[ARM.name]
    ours, theirs = (np.array([side[k][:2] for k in range(4)]) for side in (scores[ARM], scores[TRADITIONAL]))
    c = power.variance_components(labels, ours, theirs)
    assert (line["subsets"], line["seeds"], line["mean"]) == (4, 2, pytest.approx(c.mean))
    assert line["sd"] == pytest.approx(math.sqrt(c.subset + c.seed / 2 + c.patch_subset))
    # a t test of 4 subsets with 80 % power at 5 %: noncentrality 4.3 or so, over two standard errors of sqrt(4)
    assert line["detectable"] == pytest.approx(power.minimum_detectable_effect(line["sd"] / 2, 3))
    assert power.power_of(line["detectable"], line["sd"] / 2, 3) == pytest.approx(0.8, abs=1e-6)
    assert line["detectable_all"] > 2 * line["detectable"], "eighteen arms"
    assert line["needed"] == power.subsets_needed(0.0055, line["sd"])


def test_one_subset_or_no_reference_has_no_line():
    labels, rng = np.tile([0, 1], 50), np.random.default_rng(0)
    one = {0: [rng.random(100)]}
    assert power_table(labels, {TRADITIONAL: one, ARM: one}).empty
    assert power_table(labels, {ARM: one | {1: [rng.random(100)]}}).empty
