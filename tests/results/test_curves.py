"""Exchange rates from curves whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from pcamlib.results import curves

SIZES = (250, 500, 1000, 2000, 4000)


def real(n, subset=0):
    """A curve that rises by two points with every doubling, at a height that differs between subsets."""
    return 0.85 + 0.02 * np.log2(n / 1000) + 0.01 * subset


def made(worth, subsets=6, noise=0.0, n_synthetic=1000):
    rng = np.random.default_rng(0)
    rows = [[k, "", "", n, 0, real(n, k)] for k in range(subsets) for n in SIZES]
    rows += [
        [k, "unet", "none", 1000, n_synthetic, real(1000 + worth * n_synthetic, k) + noise * rng.normal()]
        for k in range(subsets)
    ]
    return pd.DataFrame(rows, columns=["subset", "generator", "selection", "n_real", "n_synthetic", "auc"])


@pytest.mark.parametrize("worth", [-0.5, 0.0, 1.0])
def test_on_the_points_of_the_curve_the_rate_is_exact(worth):
    found = curves.exchange(made(worth), 1000).iloc[0]
    assert found["worth"] == pytest.approx(worth, abs=1e-9) and found["limit"] == ""
    assert found["low"] == pytest.approx(worth, abs=1e-6) == found["high"], "without noise subsets agree"


def test_between_points_it_is_read_on_the_logarithm_and_has_an_interval_that_holds_the_truth():
    found = curves.exchange(made(0.3, subsets=12, noise=0.004), 1000).iloc[0]
    assert found["low"] < 0.3 < found["high"] and found["high"] - found["low"] < 0.6 and found["subsets"] == 12
    again = curves.exchange(made(0.3, subsets=12, noise=0.004), 1000).iloc[0]
    assert (again["low"], again["high"]) == (found["low"], found["high"])


@pytest.mark.parametrize("worth, end, limit", [(4.0, 3.0, ">"), (-0.9, -0.75, "<")])
def test_beyond_the_curve_its_end_is_named_as_a_limit(worth, end, limit):
    found = curves.exchange(made(worth), 1000).iloc[0]
    assert found["worth"] == pytest.approx(end) and found["limit"] == limit


@pytest.mark.parametrize("ceiling, power", [(0.95, 0.5), (0.91, 1.5)])
def test_a_power_law_is_read_exactly(ceiling, power):
    table = made(0.0)
    law = ceiling - 0.1 * (table["n_real"] / 250) ** -power
    real_only = table["generator"] == ""
    table.loc[real_only, "auc"] = law + 0.01 * table["subset"]
    table.loc[~real_only, "auc"] = ceiling - 0.1 * (1500 / 250) ** -power + 0.01 * table["subset"]
    assert curves.exchange(table, 1000).iloc[0]["worth"] == pytest.approx(0.5, abs=1e-6)


def test_patches_that_change_nothing_are_worth_nothing_where_the_curve_of_real_ones_dips():
    """The AUC at n may lie off the law; what counts is the change beside n real patches."""
    table = made(0.0)
    table.loc[table["n_real"] == 1000, "auc"] -= 0.01
    table.loc[(table["generator"] == "") & (table["n_real"] == 500), "auc"] += 0.01
    assert curves.exchange(table, 1000).iloc[0]["worth"] == pytest.approx(0, abs=1e-9)


def test_a_curve_that_does_not_rise_has_no_rate():
    table = made(0.0)
    table.loc[table["generator"] == "", "auc"] = 1 - table["auc"]
    assert curves.exchange(table, 1000).empty


def test_the_interval_of_few_subsets_is_wider_than_percentiles():
    low, high = curves._ends(8)
    assert 0 < low < 0.01 and high == 1 - low
    assert curves._ends(10_000)[0] == pytest.approx(0.025, abs=1e-4)


def test_few_subsets_give_no_interval_and_no_real_curve_gives_no_rate():
    assert np.isnan(curves.exchange(made(0.5, subsets=5), 1000).iloc[0]["low"])
    table = made(0.5)
    assert curves.exchange(table[table["generator"] != ""], 1000).empty
    assert curves.exchange(table, 500).empty


def test_summary_has_t_intervals_from_three_subsets():
    table = curves.summary(made(0.5, subsets=3))
    row = table[(table["generator"] == "") & (table["n_real"] == 1000)].iloc[0]
    assert row["mean"] == pytest.approx(0.86) and row["n"] == 3
    assert row["high"] - row["mean"] == pytest.approx(4.302652729911275 * 0.01 / 3**0.5)
    assert curves.summary(made(0.5, subsets=2))["low"].isna().all()
