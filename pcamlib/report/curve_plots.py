"""Figures and sentences of the curves: the worth of real and of synthetic patches, from `results.curves.points`.

Lines are means over all subsets, bands their 95 % t intervals (from three subsets on). Generators have the order of
every table and figure.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pcamlib.core import paper
from pcamlib.models import generators
from pcamlib.report.plots import COLOURS, GREY, new_figure, plain
from pcamlib.report.tables import NOT_PRINTED, Table, points, signed
from pcamlib.results import curves

FIGURES = ("label_fraction", "ratio")
"""Names of the files in which `publish` keeps the two figures."""
STYLES = {"none": "-", "realism": "--", "class": ":"}


def _draw(place: Axes, table: pd.DataFrame, x: pd.Series, colour: str, style: str, label: str) -> None:
    """A line with its band; lines that are not solid have none, so that bands do not hide each other."""
    place.plot(x, 100 * table["mean"], style, marker="o", ms=4, color=colour, label=label)
    if style == "-":
        place.fill_between(x, 100 * table["low"], 100 * table["high"], color=colour, alpha=0.15, linewidth=0)


def _finish(place: Axes, label: str, ticks: list[float], texts: list[str], height: str = "test AUC, %") -> None:
    place.set_xscale("log")
    place.xaxis.set_major_locator(FixedLocator(ticks))
    place.xaxis.set_minor_locator(NullLocator())
    place.set_xticklabels(texts)
    place.set_xlabel(label, fontsize=9)
    place.set_ylabel(height, fontsize=9)
    place.legend(fontsize=7.5, frameon=False)
    plain(place)


def label_fraction(found: pd.DataFrame, note: str = "") -> Figure:
    """AUC of the probe over the number of real patches: alone, and with as many synthetic ones of each generator."""
    table, colours = _summary(found), COLOURS | generators.colours(_generators(found))
    figure, axes = new_figure(1, 1, 3.6, note)
    place = axes[0, 0]
    real = table[table["generator"] == ""]
    _draw(place, real, real["n_real"], GREY, "-", "real patches only")
    equal = table[(table["n_real"] == table["n_synthetic"]) & (table["selection"] == "none")]
    for name, part in equal.groupby("generator", sort=False):
        _draw(place, part, part["n_real"], colours[name], "-", f"and as many of {generators.label(name)}")
    ticks = sorted({*real["n_real"], *equal["n_real"]})
    _finish(place, "real patches", ticks, [f"{n:,}" for n in ticks])
    place.tick_params(axis="x", labelsize=7.5, rotation=45)
    figure.set_label(_rise(real))
    return figure


def ratio(found: pd.DataFrame, n: int, note: str = "") -> Figure:
    """Change of the probe's AUC over synthetic patches per real one, beside n real patches and paired by subset, and
    over other real patches."""
    table, colours = _summary(curves.changes(found, n)), COLOURS | generators.colours(_generators(found))
    figure, axes = new_figure(1, 1, 3.6, note)
    place = axes[0, 0]
    real, mixed = table[table["generator"] == ""], table[table["generator"] != ""]
    _draw(place, real, real["n_real"] / n - 1, GREY, "-", "other real patches")
    place.axhline(0, color=GREY, linewidth=1, linestyle=":")
    for (name, chosen), part in mixed.groupby(["generator", "selection"], sort=False):
        text = generators.label(name) + ("" if chosen == "none" else f" ({paper.SELECTION_NAMES[chosen]})")
        _draw(place, part, part["n_synthetic"] / n, colours[name], STYLES[chosen], text)
    ticks = sorted({*(mixed["n_synthetic"] / n), *(real["n_real"] / n - 1)})
    label = f"further patches per real one, beside {n:,} real patches"
    _finish(place, label, ticks, [f"{x:g}" for x in ticks], "change of test AUC, points")
    figure.set_label(gains(found, n))
    return figure


def _rise(real: pd.DataFrame) -> str:
    """The ends of the curve of real patches, lines of `curves.summary`, in a sentence; empty for fewer than two
    points."""
    if len(real) < 2:
        return ""
    first, last = real.iloc[0], real.iloc[-1]
    return (
        f"The probe's mean AUC is {100 * first['mean']:.2f} % with {first['n_real']:,} real patches and"
        f" {100 * last['mean']:.2f} % with {last['n_real']:,}."
    )


def gain(found: pd.DataFrame, n: int) -> str:
    """What twice the real patches change, in a sentence; empty where the curve has not both points."""
    table = curves.summary(found)
    real = table[table["generator"] == ""].set_index("n_real")["mean"]
    if not {n, 2 * n} <= set(real.index):
        return ""
    change = points(real[2 * n] - real[n])
    return f"From {n:,} to {2 * n:,} real patches the probe's mean AUC changes by {change} points."


def gains(found: pd.DataFrame, n: int) -> str:
    """What synthetic patches change beside n real ones, least to most, in a sentence; empty without such points."""
    table = curves.summary(curves.changes(found, n))
    mixed = table.loc[table["generator"] != "", "mean"]
    if mixed.empty:
        return ""
    low, high = (points(end) for end in (mixed.min(), mixed.max()))
    return f"Beside {n:,} real patches, synthetic ones change the probe's mean AUC by {low} to {high} points."


def sentences(found: pd.DataFrame, n: int) -> list[str]:
    """What the curves say: the gain of doubling real patches, and the exchange rate of each generator, ratio 1."""
    said = [text] if (text := gain(found, n)) else []
    rates = _ordered(curves.exchange(found, n))
    for row in rates[rates["n_synthetic"] == n].itertuples():
        name = f"{generators.label(row.generator)} ({_selection(row.selection)})"
        bound = {">": "more than ", "<": "less than ", "": ""}[row.limit]
        text = f"Beside {n:,} real patches, one synthetic patch of {name} is worth {bound}{signed(row.worth)} real ones"
        interval = "" if pd.isna(row.low) else f" (95 % interval {signed(row.low)} to {signed(row.high)})"
        said.append(f"{text}{interval}, over {row.subsets} subset{'s' * (row.subsets != 1)}.")
    return said


def table(found: pd.DataFrame, n: int) -> Table | None:
    """How many real patches one synthetic patch is worth beside n real ones: a line per generator and selection, a
    column per number of synthetic patches. None without a curve of real patches or without synthetic ones."""
    rates = curves.exchange(found, n)
    if rates.empty:
        return None
    rates = _ordered(rates)
    texts = {
        (generators.label(row.generator), _selection(row.selection), row.n_synthetic): rate(row)
        for row in rates.itertuples()
    }
    columns = sorted(rates["n_synthetic"].unique())
    index = dict.fromkeys(key[:2] for key in texts)
    data = pd.DataFrame(
        [[texts.get((*key, m), NOT_PRINTED) for m in columns] for key in index],
        columns=[f"{m:,} synthetic" for m in columns],
        index=pd.MultiIndex.from_tuples(index),
    )
    notes = (
        "A power law, fitted to the mean AUC of real patches only, says how many more or fewer real patches change the"
        f" AUC as the synthetic ones do beside {n:,}; that number divided by that of the synthetic ones is the rate."
        f" In brackets 95 % intervals by a bootstrap over subsets, from {curves.LEAST_RATES} subsets on. > and <:"
        " beyond the measured curve."
    )
    return Table(f"Real patches that one synthetic patch is worth, beside {n:,}", data, notes, "By the linear probe.")


def rate(row: Any) -> str:
    """An exchange rate with its interval, from a line of `curves.exchange` as `itertuples` gives it."""
    interval = "" if pd.isna(row.low) else f" ({signed(row.low)} to {signed(row.high)})"
    return f"{row.limit}{' ' * bool(row.limit)}{signed(row.worth)}{interval}"


def _selection(name: str) -> str:
    return "no selection" if name == "none" else paper.SELECTION_NAMES[name]


def _generators(found: pd.DataFrame) -> list[str]:
    return [name for name in found["generator"].unique() if name]


def _summary(found: pd.DataFrame) -> pd.DataFrame:
    return _ordered(curves.summary(found))


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of a table sorted by generator, the paper's before others, and by selection."""
    order = ["", *paper.GENERATORS, *table["generator"].unique(), *paper.SELECTIONS]
    return table.sort_values(["generator", "selection"], key=lambda names: names.map(order.index), kind="stable")
