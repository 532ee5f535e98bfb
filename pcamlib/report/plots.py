"""Figures of data and of training; those of patches are in `patch_plots`, of the results in `result_plots`. Data in, a
Figure out.

Nothing global is touched. Colours suit colour-blind readers and differ in lightness too; a generator has the same one
everywhere. Figures are narrow, with panels below each other, so that the text can be read on a telephone, and white in
dark mode as well. `note` is a footnote, usually where the numbers come from. A figure's label is its takeaway: one
sentence made from what it shows, which `show` puts above it.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from IPython.display import HTML, Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_auc_score, roc_curve

from pcamlib.core import paper
from pcamlib.core.text import inert, printable
from pcamlib.data import CLASSES
from pcamlib.models import generators

__all__ = [
    "label_balance",
    "loss_curves",
    "noise_schedules",
    "realism_histogram",
    "roc",
    "show",
]

COLOURS = generators.colours(generators.REGISTRY) | {"baseline": "#009E73", "traditional": "#0072B2"}
GREY, INK = "#767676", "#222222"
QUANTITIES = {
    "l1": "Mean absolute error",
    "kl": "Kullback-Leibler divergence",
    "l_simple": "Denoising error (L_simple)",
    "d_loss": "Loss of the discriminator",
    "g_loss": "Loss of the generator",
    "d_real": "Discriminator: real patches called real",
    "d_fake": "Discriminator: samples called generated",
    "lr": "Learning rate",
    "loss": "Training loss",
    "train_loss": "Training loss",
    "auc": "AUC",
    "valid_auc": "AUC on validation",
}
"""Titles of what training logs record."""
WIDTH = 5.2
"""Inches. Shown 390 px wide, 10 pt text is then about 10 px high."""


def takeaway(figure: Figure) -> HTML:
    """The figure's one sentence, as a paragraph; empty if it has none."""
    return HTML(f'<p class="pcam-takeaway">{inert(figure.get_label(), "html")}</p>' if figure.get_label() else "")


def show(figure: Figure) -> Image:
    """Displays the figure's takeaway and returns the figure as PNG, for the last line of a notebook cell; the alt text
    goes into the cell's metadata."""
    if figure.get_label():
        display(takeaway(figure))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return Image(data=buffer.getvalue(), format="png")


def few_colours(figure: Figure, dpi: int) -> bytes:
    """The figure as a PNG of 128 colours: more than it has hues, and a third of the bytes of full colour."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=dpi)
    PIL.Image.open(full).convert("RGB").quantize(128).save(small, format="PNG", optimize=True)
    return small.getvalue()


def new_figure(rows: int, columns: int, height: float, note: str, **subplots: Any) -> tuple[Figure, np.ndarray]:
    """A white figure of the book's width with (rows, columns) axes and the footnote below."""
    lines = [inert(line, "figure") for line in textwrap.wrap(printable(note), 88)]
    figure = Figure(figsize=(WIDTH, height + 0.16 * len(lines)), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    if lines:
        figure.supxlabel("\n".join(lines), fontsize=7.5, color="#444444", x=0.02, ha="left", linespacing=1.25)
    return figure, axes


def plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


# ------------------------------------------------------------------------------------------------ training


def _stacked(panels: Mapping[str, Mapping[str, tuple[list, list]]], x: str, note: str) -> Figure:
    """One panel per name, below each other with a shared x axis, of named lines (x values, y values)."""
    names = list(next(iter(panels.values())))
    height = 1.5 * len(panels) + 0.4 + 0.17 * len(names)
    figure, axes = new_figure(len(panels), 1, height, note, sharex=True)
    for place, (name, lines) in zip(axes[:, 0], panels.items(), strict=True):
        for i, (label, (at, values)) in enumerate(lines.items()):
            colour = COLOURS.get(label, (INK, "#D55E00", "#56B4E9")[i % 3])
            style = "-" if label in COLOURS else ("-", "--", ":")[i // 3 % 3]
            label = generators.label(label)
            marker = "o" if len(at) < 15 else None
            place.plot(at, values, style, color=colour, linewidth=1.5, label=label, marker=marker, markersize=3)
        plain(place)
        place.set_title(name, fontsize=9.5, loc="left")
    if len(names) > 1:
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    axes[-1, 0].set_xlabel(x, fontsize=9)
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def loss_curves(
    rows: Sequence[Mapping[str, float]] | Mapping[str, Sequence[Mapping[str, float]]],
    keys: Sequence[str] | None = None,
    x: str = "epoch",
    note: str = "",
) -> Figure:
    """One panel for each logged quantity over `x`.

    rows: a training log (one dict per epoch), or several by name. keys: which to draw; by default all but
    epoch, step, images, seconds and version.
    """
    logs = dict(rows) if isinstance(rows, Mapping) else {"": rows}
    if not any(logs.values()):
        raise ValueError("loss_curves needs at least one row")
    known = dict.fromkeys(key for log in logs.values() for row in log for key in row)
    keys = keys or [key for key in known if key not in ("epoch", "step", "images", "seconds", "version")]
    panels = {
        QUANTITIES.get(key, key.replace("_", " ").replace("auc", "AUC").capitalize()): {
            name: ([row[x] for row in log if key in row], [row[key] for row in log if key in row])
            for name, log in logs.items()
        }
        for key in keys
    }
    figure = _stacked(panels, x, note)
    name, lines = next(iter(panels.items()))
    ends = [(values[0], values[-1]) for _, values in lines.values() if values]
    first, last = np.mean(ends, axis=0)
    at = [at for at, values in lines.values() if values]
    moved = "falls" if last < first else "rises"
    mean = f" (mean of {len(ends)} runs)" if len(ends) > 1 else ""
    figure.set_label(
        f"{name}{mean} {moved} from {first:.3g} to {last:.3g} between {x} {min(map(min, at)):g} and"
        f" {max(map(max, at)):g}."
    )
    return figure


def label_balance(labels: Mapping[str, np.ndarray], note: str = "") -> Figure:
    """Share of both classes in each named array of labels (0/1), with the counts."""
    figure, axes = new_figure(1, 1, 0.42 * len(labels) + 0.75, note)
    place = axes[0, 0]
    for y, values in enumerate(labels.values()):
        counts = np.bincount(np.asarray(values).ravel(), minlength=2)
        left = 0.0
        for count, colour, ink in zip(counts, ("#C9C9C9", "#5A5A5A"), (INK, "white"), strict=True):
            share = count / counts.sum()
            place.barh(y, share, left=left, color=colour, height=0.7)
            if share > 0:
                place.text(left + share / 2, y, f"{count:,}", ha="center", va="center", color=ink, fontsize=9)
            left += share
    place.set_yticks(range(len(labels)), list(labels))
    place.invert_yaxis()
    place.set_xlim(0, 1)
    place.spines[:].set_visible(False)
    place.set_xticks([])
    place.set_title("no tumour (light), tumour (dark)", fontsize=9.5, loc="left")
    shares = ", ".join(f"{100 * np.mean(np.asarray(values)):.1f} % in {name}" for name, values in labels.items())
    figure.set_label(f"Share of patches labelled tumour: {shares}.")
    return figure


def noise_schedules(signal: Mapping[str, np.ndarray], note: str = "") -> Figure:
    """Share of the variance that is signal, ᾱ_t of Eq. 1, over the steps of each named schedule.

    signal[name] holds ᾱ_t for t = 1..T, falling from nearly 1 to nearly 0; schedules may differ in T.
    """
    figure, axes = new_figure(1, 1, 2.2, note)
    place = axes[0, 0]
    equal = {}
    for (name, values), style, colour in zip(
        signal.items(), ("-", "--", ":"), (INK, "#D55E00", "#56B4E9"), strict=False
    ):
        share = np.arange(1, len(values) + 1) / len(values)
        equal[name] = share[int(np.argmax(np.asarray(values) < 0.5))]
        place.plot(share, values, style, color=colour, linewidth=1.5, label=name)
    place.axhline(0.5, color=GREY, linewidth=0.8)
    plain(place)
    place.set_xlabel("step t, as a share of T", fontsize=9)
    place.set_title("Share of the variance that is signal", fontsize=9.5, loc="left")
    place.legend(fontsize=8, frameon=False)
    found = " and ".join(f"{100 * at:.0f} % of the steps with the {name} schedule" for name, at in equal.items())
    figure.set_label(f"Noise exceeds signal after {found}.")
    return figure


def roc(labels: np.ndarray, scores: np.ndarray, thresholds: Sequence[float], note: str = "") -> Figure:
    """The ROC curve of scores (N,) for labels (N,) of 0 and 1, with a mark at each of at most four thresholds.

    A patch is classified as tumour where its score is at or above the threshold.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    figure, axes = new_figure(1, 1, 3.4, note)
    place = axes[0, 0]
    wrong, right, _ = roc_curve(labels, scores, drop_intermediate=False)
    place.plot(wrong, right, color=INK, linewidth=1.5)
    place.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1)
    said = []
    for at, marker, colour in zip(thresholds, "osD^", ("#0072B2", "#D55E00", "#009E73", "#A83279"), strict=False):
        sensitivity, specificity = np.mean(scores[labels == 1] >= at), np.mean(scores[labels == 0] < at)
        place.plot(1 - specificity, sensitivity, marker, color=colour, markersize=7, label=f"threshold {at:.3f}")
        said.append(
            f"{at:.3f} the sensitivity is {100 * sensitivity:.1f} % and the specificity {100 * specificity:.1f} %"
        )
    plain(place)
    place.set_aspect("equal")
    place.set_xlabel("1 − specificity", fontsize=9)
    place.set_ylabel("sensitivity", fontsize=9)
    place.legend(fontsize=8, frameon=False, loc="lower right")
    area = 100 * roc_auc_score(labels, scores)
    figure.set_label(f"The area below the curve is {area:.1f} %; at " + ", at ".join(said) + ".")
    return figure


def realism_histogram(
    scores: Mapping[str, Sequence[Sequence[float]]], threshold: float = 1.0, title: str = "", note: str = ""
) -> Figure:
    """Distribution of realism scores (Eq. 11): a panel per selection, a line per class, the threshold, what passes.

    scores[name] holds one sequence per class.
    """
    values = {name: [np.asarray(x, float) for x in by_class] for name, by_class in scores.items()}
    if not values or not all(len(x) for by_class in values.values() for x in by_class):
        raise ValueError("realism_histogram needs at least one score of each class under each name")
    together = np.concatenate([x for by_class in values.values() for x in by_class])
    # a fake on top of a real patch has a score without bound
    high = max(float(np.percentile(together, 99.5)), threshold) * 1.05
    bins = np.linspace(min(float(together.min()), threshold) * 0.95, high, 41)
    figure, axes = new_figure(len(values), 1, 1.5 * len(values) + 0.5, note, sharex=True)
    for place, (name, by_class) in zip(axes[:, 0], values.items(), strict=True):
        for x, label, colour, style in zip(by_class, CLASSES, (GREY, INK), ("-", "--"), strict=True):
            text = f"{label}: {np.mean(x >= threshold):.1%} at or above {threshold:g}"
            place.hist(
                np.minimum(x, high), bins, histtype="step", color=colour, linestyle=style, linewidth=1.3, label=text
            )
        place.axvline(threshold, color="#D55E00", linewidth=1.2)
        plain(place)
        place.set_ylim(top=1.35 * place.get_ylim()[1])  # room for the legend
        place.legend(fontsize=8, frameon=False, loc="upper right")
        place.set_ylabel("candidates", fontsize=9)
        place.set_title(paper.SELECTION_NAMES.get(name, name), fontsize=9.5, loc="left")
    axes[-1, 0].set_xlabel("realism score", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    passed = ", ".join(
        f"{100 * np.mean(np.concatenate(by_class) >= threshold):.1f} % by {paper.SELECTION_NAMES.get(name, name)}"
        for name, by_class in values.items()
    )
    figure.set_label(f"Candidates at or above {threshold:g}: {passed}.")
    return figure
