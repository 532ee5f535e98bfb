"""Figures 4, 5 and 6, and paired differences: results over subsets, from `pcamlib.results.load`; patches of Figure 3.

Bars are means, whiskers standard deviations, dots the subsets; an arm without results says "not run".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pcamlib.core import paper
from pcamlib.experiments import selection
from pcamlib.models import generators
from pcamlib.report.plots import COLOURS, GREY, INK, WIDTH, new_figure, plain
from pcamlib.report.tables import arms_of, points
from pcamlib.results import frame, inference, intervals
from pcamlib.results import headline as headline_of
from pcamlib.results.arms import BASELINE, MIXED, NO_NETWORK, TRADITIONAL, Arm, generators_of
from pcamlib.study import Study

Bars = tuple[str, str, list[pd.Series]]
"""Colour, hatch, and the values of each selection, one per subset."""

REFERENCES = {
    "baseline": (COLOURS["baseline"], "-"),
    "traditional augmentation": (COLOURS["traditional"], "-"),
}
REAL, RECONSTRUCTED = (GREY, "--"), (INK, ":")
HATCHES = {"augmentation": "", "transfer": "////"}


def _generator_bars(colours: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The legend of generators."""
    return {generators.label(generator): (colour, "") for generator, colour in colours.items()}


def _values(results: pd.DataFrame, arm: Arm, metric: str, extractor: str | None = None) -> pd.Series:
    """The arm's value in every subset where it ran; empty if in none."""
    found = frame.by_subset(results, metric, extractor)
    return found[arm.name].dropna() if arm.name in found else pd.Series(dtype="float64")


def _bars(place: Axes, bars: Sequence[Bars], factor: float) -> None:
    """Bars grouped by selection, those of `bars` side by side; shown are the values times `factor`."""
    width = 0.8 / len(bars)
    for b, (colour, hatch, selections) in enumerate(bars):
        for g, values in enumerate(selections):
            x = g + (b - (len(bars) - 1) / 2) * width
            if values.empty:
                place.annotate(
                    frame.NOT_RUN, (x, 0), xycoords=("data", "axes fraction"), xytext=(0, 3), rotation=90,
                    textcoords="offset points", ha="center", va="bottom", fontsize=7.5, color=GREY,
                )  # fmt: skip
                continue
            face = "white" if hatch else colour
            style = {"color": face, "edgecolor": colour, "hatch": hatch, "linewidth": 1.2}
            place.bar(x, factor * values.mean(), width * 0.92, **style)
            if len(values) > 1:
                place.errorbar(x, factor * values.mean(), factor * values.std(), color=INK, linewidth=1, capsize=2.5)
            place.plot([x] * len(values), factor * values, "o", ms=3.5, mfc="white", mec=INK, mew=0.8)
    place.set_xlim(-0.5, len(paper.SELECTIONS) - 0.5)
    place.set_xticks(range(len(paper.SELECTIONS)), list(paper.SELECTION_NAMES.values()))
    plain(place)


def _line(place: Axes, values: pd.Series, factor: float, colour: str, style: str = "-") -> None:
    """A reference line with a band of one sd; nothing if the reference was not run."""
    if values.empty:
        return
    mean, sd = factor * values.mean(), factor * values.std()
    place.axhline(mean, color=colour, linewidth=1.6, linestyle=style, zorder=2.5)
    if len(values) > 1:
        place.axhspan(mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0, zorder=0.5)


def _legend(figure: Figure, bars: Mapping[str, tuple[str, str]], lines: Mapping[str, tuple[str, str]]) -> None:
    """One legend above all panels: bars as {label: (colour, hatch)}, lines as {label: (colour, style)}."""
    entries = [
        Patch(facecolor="white" if hatch else colour, edgecolor=colour, hatch=hatch, label=label)
        for label, (colour, hatch) in bars.items()
    ]
    entries += [Line2D([], [], color=c, linestyle=style, label=label) for label, (c, style) in lines.items()]
    columns = 3 if len(bars) == 3 else 2
    figure.legend(handles=entries, loc="outside upper center", ncols=columns, fontsize=8.5, frameon=False)


def quality_figure_4(results: pd.DataFrame, extractor: str, note: str = "") -> Figure:
    """Figure 4: FID, precision and recall by generator and selection, judged by one extractor.

    Lines: other real patches, and VAE reconstructions.
    """

    def get(generator: str, name: str | None, metric: str) -> pd.Series:
        return _values(results, Arm("quality", generator, name), metric, extractor)

    colours = generators.colours(generators_of(results))
    figure, axes = new_figure(3, 1, 6.2, note)
    for place, metric in zip(axes[:, 0], ("fid", "precision", "recall"), strict=True):
        factor = 1 if metric == "fid" else 100
        bars = [(colour, "", [get(g, s, metric) for s in paper.SELECTIONS]) for g, colour in colours.items()]
        _bars(place, bars, factor)
        _line(place, get("real", None, metric), factor, *REAL)
        _line(place, get("autoencoder", None, metric), factor, *RECONSTRUCTED)
        title = (
            "Fréchet distance (FID), lower is better"
            if metric == "fid"
            else f"{metric.capitalize()}, %, higher is better"
        )
        place.set_title(title, fontsize=9.5, loc="left")
        place.set_ylim(bottom=0)
    _legend(figure, _generator_bars(colours), {"other real patches": REAL, "VAE reconstructions": RECONSTRUCTED})
    means = {g: get(g, "none", "fid").mean() for g in colours if len(get(g, "none", "fid"))}
    if means:
        best = min(means, key=means.get)
        real = get("real", None, "fid")
        beside = f"; other real patches have {_short(real.mean())}" if len(real) else ""
        figure.set_label(
            f"Without selection {generators.label(best)} has the lowest Fréchet distance,"
            f" {_short(means[best])}{beside}."
        )
    return figure


def _short(distance: float) -> str:
    return f"{distance:.3f}" if abs(distance) < 10 else f"{distance:.1f}"


def _auc_panel(place: Axes, results: pd.DataFrame, bars: Sequence[Bars], title: str) -> None:
    _bars(place, bars, 100)
    _line(place, _values(results, BASELINE, "auc"), 100, COLOURS["baseline"])
    _line(place, _values(results, TRADITIONAL, "auc"), 100, COLOURS["traditional"])
    place.set_title(title, fontsize=9.5, loc="left")
    place.set_ylabel("AUC, %", fontsize=9)


def _truncate(axes: Sequence[Axes], results: pd.DataFrame, regimes: tuple[str, ...]) -> None:
    """The same range in all panels, close around what was measured: differences are small beside values."""
    found = 100 * frame.by_subset(results[results["regime"].isin(regimes)], "auc")
    if found.empty:
        return
    ends = pd.concat([found.min(), found.max(), found.mean() - found.std(), found.mean() + found.std()])
    margin = max(0.1 * (ends.max() - ends.min()), 0.5)
    for place in axes:
        place.set_ylim(ends.min() - margin, ends.max() + margin)


def auc_figure_5(results: pd.DataFrame, note: str = "") -> Figure:
    """Figure 5: test AUC by generator (panels), regime and selection; baseline green, traditional blue."""
    colours = generators.colours(generators_of(results))
    figure, axes = new_figure(len(colours), 1, 0.7 + 1.9 * len(colours), note)
    for place, (generator, colour) in zip(axes[:, 0], colours.items(), strict=True):
        bars = []
        for regime, hatch in HATCHES.items():
            values = [_values(results, Arm(regime, generator, s), "auc") for s in paper.SELECTIONS]
            bars.append((colour, hatch, values))
        _auc_panel(place, results, bars, generators.label(generator))
    _truncate(axes[:, 0], results, ("baseline", "traditional", "augmentation", "transfer"))
    _legend(figure, {paper.REGIME_NAMES[r]: (INK, hatch) for r, hatch in HATCHES.items()}, REFERENCES)
    figure.set_label(_ahead(results, HATCHES))
    return figure


def auc_figure_6(results: pd.DataFrame, note: str = "") -> Figure:
    """Figure 6: test AUC of training on synthetic images only, by generator and selection; lines as in 5."""
    colours = generators.colours(generators_of(results))
    figure, axes = new_figure(1, 1, 3.0, note)
    bars = [
        (colour, "", [_values(results, Arm("synthetic", g, s), "auc") for s in paper.SELECTIONS])
        for g, colour in colours.items()
    ]
    _auc_panel(axes[0, 0], results, bars, "Trained on synthetic images only")
    _truncate(axes[:, 0], results, ("baseline", "traditional", "synthetic"))
    _legend(figure, _generator_bars(colours), REFERENCES)
    figure.set_label(_ahead(results, ("synthetic",)))
    return figure


def _ahead(results: pd.DataFrame, regimes: Iterable[str]) -> str:
    """How many arms of these regimes have a mean above traditional augmentation, and which has the highest."""
    means = frame.by_subset(results, "auc").dropna(axis=1).mean()
    arms = [arm for arm in arms_of(results) if arm.regime in regimes and arm.name in means]
    if not arms or TRADITIONAL.name not in means:
        return ""
    ahead = sum(means[arm.name] > means[TRADITIONAL.name] for arm in arms)
    best = max(arms, key=lambda arm: means[arm.name])
    return (
        f"{ahead} of {len(arms)} arms have a mean AUC above that of traditional augmentation; the highest is"
        f" {best.title}, {100 * means[best.name]:.2f} % against {100 * means[TRADITIONAL.name]:.2f} %."
    )


def forest_takeaway(results: pd.DataFrame, found: dict[str, Any] | None = None) -> str:
    """How many intervals of arms with real and synthetic images lie on either side of traditional augmentation."""
    ends = _ends(results, found)
    mixed = [arm.name for arm in arms_of(results) if arm.regime in MIXED and arm.name in ends.index]
    if not mixed:
        return "No arm with synthetic images has an interval, so none can be compared with traditional augmentation."
    above, below = (ends.loc[mixed, "low"] > 0).sum(), (ends.loc[mixed, "high"] < 0).sum()
    return (
        f"Of {len(mixed)} arms with synthetic and real images, {above} {'has its' if above == 1 else 'have their'}"
        f" whole interval above traditional augmentation, {below} below it, and {len(mixed) - above - below} on both"
        " sides."
    )


def _ends(results: pd.DataFrame, found: dict[str, Any] | None) -> pd.DataFrame:
    """The interval of every arm's difference to traditional augmentation: with test patches where kept, else by t."""
    tests = inference.compared(results, TRADITIONAL)
    tested = tests.loc[tests["n"] >= 2, ["low", "high"]]
    kept = intervals.table(found, "traditional")[["low", "high"]]
    return pd.concat([kept, tested.drop(kept.index, errors="ignore")]).replace([math.inf, -math.inf], math.nan).dropna()


def forest(results: pd.DataFrame, found: dict[str, Any] | None = None, note: str = "") -> Figure:
    """AUC of every arm minus traditional augmentation of the same subset, in points, with its 95 % interval.

    found: the result of `intervals.evaluate`; then intervals are of subsets, seeds and test patches, else Student's
    t over two subsets or more. Circles are the subsets. Training on synthetic images only has a scale of its own;
    trivial baselines, which are far off, are in the tables only.
    """
    each, tests = frame.differences(results, TRADITIONAL), inference.compared(results, TRADITIONAL)
    ends = _ends(results, found)
    colours = COLOURS | generators.colours(generators_of(results))
    arms = [arm for arm in arms_of(results) if arm != TRADITIONAL and arm.regime not in NO_NETWORK]
    alone = [arm for arm in arms if arm.regime == "synthetic"]
    others = [arm for arm in arms if arm not in alone]
    figure, axes = new_figure(2, 1, 8.0, note, height_ratios=[len(others), len(alone)])
    for place, group, title in zip(
        axes[:, 0], (others, alone), ("With real images", "Synthetic images only"), strict=True
    ):
        for y, arm in enumerate(group):
            if arm.name not in each:
                where = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0), "textcoords": "offset points"}
                place.annotate(frame.NOT_RUN, (0, y), va="center", fontsize=7.5, color=GREY, **where)
                continue
            colour = colours.get(arm.generator or arm.regime, GREY)
            if arm.name in ends.index:
                place.plot(100 * ends.loc[arm.name], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
            mark = "D" if arm.regime == "transfer" else "s"
            place.plot(100 * tests.loc[arm.name, "mean"], y, mark, ms=5, color=colour)
            dots = 100 * each[arm.name].dropna()
            place.plot(dots, [y] * len(dots), "o", ms=3.5, mfc="white", mec=INK, mew=0.8)
        place.axvline(0, color=COLOURS["traditional"], linewidth=1.4, zorder=0.5)
        place.set_ylim(len(group) - 0.5, -0.5)
        place.set_yticks(range(len(group)), [arm.title.replace(" synthetic only", "") for arm in group], fontsize=7.5)
        place.set_title(title, fontsize=9.5, loc="left")
        plain(place)
        place.tick_params(axis="y", labelsize=7.5, length=0)
        place.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        place.set_axisbelow(True)
    axes[1, 0].set_xlabel("AUC minus traditional, points", fontsize=9)
    figure.set_label(forest_takeaway(results, found))
    return figure


def headline(results: Mapping[str, pd.DataFrame], note: str = "") -> Figure:
    """The headline differences (`headline.differences`) of every device that has some (results by its name) below each
    other, in points.

    Squares are means, lines 95 % t intervals over subsets, circles the subsets; a second device has diamonds.
    """
    found = _differences(results)
    titles = list(dict.fromkeys(row.title for rows in found.values() for row in rows))
    several = len(found) > 1
    figure, axes = new_figure(1, 1, 0.75 + (0.34 if several else 0.27) * max(len(titles), 1), note)
    place, places = axes[0, 0], {title: y for y, title in enumerate(titles)}
    colours = COLOURS | generators.colours([row.generator for rows in found.values() for row in rows if row.generator])
    shift = {device: 0.4 * (i - (len(found) - 1) / 2) for i, device in enumerate(found)}
    for (device, rows), mark, face in zip(found.items(), "sD", (True, False)):
        for row in rows:
            colour, y = colours.get(row.generator, INK), places[row.title] + shift[device]
            if row.test and math.isfinite(row.test.high):
                ends = [100 * row.test.low, 100 * row.test.high]
                place.plot(
                    ends, [y, y], color=colour, linewidth=2, solid_capstyle="butt", linestyle="-" if face else "--"
                )
            place.plot(100 * row.mean, y, mark, ms=6.5, mec=colour, mfc=colour if face else "white", zorder=3)
            place.plot(
                [100 * v for v in row.values],
                [y] * len(row.values),
                "o",
                ms=2.8,
                mfc="white",
                mec=INK,
                mew=0.6,
                zorder=4,
            )
    place.axvline(0, color=INK, linewidth=1.2, zorder=0.5)
    reach = [100 * abs(v) for rows in found.values() for row in rows for v in (*row.values, row.mean)]
    if reach:  # an interval may be far wider than what was measured
        wide = [100 * max(abs(row.test.low), abs(row.test.high)) for rows in found.values() for row in rows if row.test]
        limit = min(max([*reach, *(w for w in wide if math.isfinite(w))]) * 1.05, 3 * max(max(reach), 0.5))
        place.set_xlim(-limit, limit)
    place.set_ylim(max(len(titles), 1) - 0.5, -0.5)
    place.set_yticks(range(len(titles)), titles)
    plain(place)
    place.tick_params(axis="y", length=0)
    place.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    place.set_xlabel("AUC minus the control of as many steps, points", fontsize=9)
    if several:
        handles = [
            Line2D([], [], color=INK, marker=m, mfc=INK if f else "white", linestyle=line, label=device)
            for device, m, f, line in zip(found, "sD", (True, False), ("-", "--"))
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2, fontsize=8.5, frameon=False)
    figure.set_label(headline_takeaway(results))
    return figure


def headline_takeaway(results: Mapping[str, pd.DataFrame]) -> str:
    """How many uses of generated patches have an interval above the control, by device, and where twice the real
    patches lie; empty where no device has any difference."""
    found, uses, worth = _differences(results), [], []
    for device, rows in found.items():
        mixed = [row for row in rows if row.generator]
        above = sum(bool(row.test and row.test.low > 0 and math.isfinite(row.test.high)) for row in mixed)
        uses.append(f"{f'{device} ' * (len(found) > 1)}{above} of {len(mixed)}")
        real = next((row for row in rows if row.title == headline_of.DOUBLE.title), None)
        worth.append(f"{points(real.mean)} points" if real else frame.NOT_RUN)
    if not found:
        return ""
    return (
        f"Uses of generated patches whose whole interval is above the control: {', '.join(uses)}; twice the real"
        f" patches: {' and '.join(worth)}."
    )


def _differences(results: Mapping[str, pd.DataFrame]) -> dict[str, list[headline_of.Difference]]:
    """The headline differences of the devices that have some."""
    found = {device: headline_of.differences(measured) for device, measured in results.items()}
    return {device: rows for device, rows in found.items() if rows}


def strip(rows: Mapping[str, np.ndarray]) -> Figure:
    """A line of patches, uint8 (N, 96, 96, 3), for every generator, the same number without and with tumour in each."""
    n = len(next(iter(rows.values())))
    figure, axes = new_figure(len(rows), 1, len(rows) * (0.88 * WIDTH / n + 0.03), "")
    for place, (generator, images) in zip(axes[:, 0], rows.items(), strict=True):
        gap = np.full((*images.shape[1:2], 6, 3), 255, np.uint8)
        place.imshow(np.concatenate([part for image in images for part in (image, gap)][:-1], axis=1))
        place.set_xticks([])
        place.set_yticks([])
        place.spines[:].set_visible(False)
        place.set_ylabel(generators.label(generator), fontsize=8)
    figure.set_label(
        f"The first {n} patches of each generator in one subset, not selected: left {n // 2} without tumour, right"
        f" {n - n // 2} with."
    )
    return figure


def saved_samples(study: Study, count: int = 2) -> dict[str, dict[str, dict[int, np.ndarray]]]:
    """First `count` patches per class of the synthetic sets of a subset, as `patch_plots.samples_figure_3` wants them.

    Every generator of the study's profile has an entry; what has not run is missing in it.
    """
    images: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for generator in study.profile.generator_names:
        images[generator] = {}
        if not (study.results / f"selection-{generator}.json").exists():
            continue
        for name in paper.SELECTIONS:
            patches = selection.synthetic(study, generator, name)
            if patches is not None:
                images[generator][name] = {c: patches.images[patches.labels == c][:count] for c in (0, 1)}
    return images
