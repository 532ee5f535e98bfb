"""Figures and sentences of the curves follow their numbers."""

import numpy as np
import pandas as pd
import pytest

from pcamlib.report import curve_plots


@pytest.fixture
def points():
    rows = []
    for k in range(6):
        rows += [[k, "", "", n, 0, 0.85 + 0.02 * np.log2(n / 100) + 0.001 * k] for n in (50, 100, 150, 200)]
        rows += [[k, "unet", "none", 50, 50, 0.84]]
        rows += [[k, "unet", s, 100, m, 0.86 + 0.001 * k] for s in ("none", "realism") for m in (50, 100)]
        rows += [[k, "mine", "none", 100, 100, 0.80]]
    return pd.DataFrame(rows, columns=["subset", "generator", "selection", "n_real", "n_synthetic", "auc"])


def test_label_fraction_shows_real_patches_and_equal_mixtures(points):
    place = curve_plots.label_fraction(points, "note").axes[0]
    lines = {line.get_label(): line.get_xydata() for line in place.lines}
    assert list(lines) == ["real patches only", "and as many of U-Net", "and as many of mine"]
    np.testing.assert_allclose(lines["and as many of U-Net"], [[50, 84.0], [100, 86.25]])
    assert len(lines["real patches only"]) == 4
    said = curve_plots.label_fraction(points).get_label()
    assert said == "The probe's mean AUC is 83.25 % with 50 real patches and 87.25 % with 200."


def test_ratio_shows_other_real_patches_beside_the_generators(points):
    place = curve_plots.ratio(points, 100).axes[0]
    assert place.figure.get_label() == curve_plots.gains(points, 100) != ""
    lines = {line.get_label(): line.get_xydata() for line in place.lines}
    np.testing.assert_allclose(lines["other real patches"][:, 0], [0.5, 1])
    assert {"U-Net", "U-Net (realism)", "mine"} <= set(lines)


def test_sentences_tell_the_rates_with_interval_and_limit(points):
    said = curve_plots.sentences(points, 100)
    assert said[0] == "From 100 to 200 real patches the probe's mean AUC changes by +2.00 points."
    assert any("U-Net (no selection) is worth +0.4" in s and "95 % interval +0.4" in s for s in said)
    assert any("mine (no selection) is worth less than −0.50 real ones" in s and "over 6 subsets" in s for s in said)
    assert curve_plots.sentences(points[points["generator"] != ""], 100) == []


def test_the_table_has_a_cell_for_every_mixture(points):
    table = curve_plots.table(points, 100)
    assert list(table.data) == ["50 synthetic", "100 synthetic"]
    assert table.data.index.tolist() == [
        ("U-Net", "no selection"), ("U-Net", "realism"), ("mine", "no selection"),
    ]  # fmt: skip
    assert table.data.loc[("mine", "no selection")].tolist() == ["–", "< −0.50 (−0.50 to −0.50)"]
    # one point above in every subset lies where 141 patches reach it: 41.4 more, of 50 and of 100
    assert [text.split()[0] for text in table.data.loc[("U-Net", "no selection")]] == ["+0.83", "+0.41"]
    assert curve_plots.table(points[points["generator"] == ""], 100) is None
    assert "(" not in curve_plots.table(points[points["subset"] < 5], 100).data.iloc[2, 1], "five subsets, no interval"


def test_captions_tell_the_gains(points):
    assert curve_plots.gain(points, 100) == "From 100 to 200 real patches the probe's mean AUC changes by +2.00 points."
    assert (
        curve_plots.gains(points, 100)
        == "Beside 100 real patches, synthetic ones change the probe's mean AUC by −5.25 to +1.00 points."
    )
    without = points[points["generator"] == "unet"]
    assert curve_plots.gain(without, 100) == curve_plots.gains(without, 100) == ""
