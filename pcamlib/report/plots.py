"""Figures of patches and of training; those of the results are in `result_plots`. Data in, a Figure out.

Nothing global is touched. Colours suit colour-blind readers and differ in lightness too; a generator has the
same one everywhere. Figures are narrow, with panels below each other, so that the text can be read on a
telephone, and white in dark mode as well. `note` is a footnote, usually where the numbers come from. A figure's label is
its takeaway: one sentence made from what it shows, which `show` puts above it.
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
from pcamlib.models import generators
from pcamlib.results import frame

__all__ = [
    "accepted_rejected",
    "forward_noise",
    "guidance_scales",
    "label_balance",
    "loss_curves",
    "nearest_pairs",
    "noise_schedules",
    "patch_grid",
    "realism_histogram",
    "reconstructions",
    "roc",
    "samples_figure_3",
    "show",
]

COLOURS = generators.colours(generators.REGISTRY) | {"baseline": "#009E73", "traditional": "#0072B2"}
GREY, INK = "#767676", "#222222"
CLASSES = ("no tumour", "tumour")
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
    """Displays the figure's takeaway and returns the figure as PNG, for the last line of a notebook cell; the alt text goes
    into the cell's metadata."""
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


def _picture(axes: Axes, image: np.ndarray | None, text: str = "") -> None:
    """One patch without ticks, its text below; None is drawn as an empty field that says so."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_box_aspect(1)
    if image is None:
        axes.set_facecolor("#EEEEEE")
        axes.text(0.5, 0.5, frame.NOT_RUN, ha="center", va="center", fontsize=8, transform=axes.transAxes)
    else:
        axes.imshow(image)
    axes.set_xlabel(text, fontsize=8, labelpad=2)


def _same_shape(images: np.ndarray, name: str = "images") -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
        raise ValueError(f"{name} must be uint8 (N, H, W, 3) with N > 0, not {images.dtype} {images.shape}")
    return images


# ------------------------------------------------------------------------------------------------ patches


def patch_grid(
    images: np.ndarray,
    labels: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    columns: int = 6,
    title: str = "",
    note: str = "",
) -> Figure:
    """Patches, uint8 (N, 96, 96, 3), row by row; below each its class (labels 0/1) or its text."""
    images = _same_shape(images)
    if labels is not None and texts is None:
        texts = [CLASSES[int(label)] for label in labels]
    rows = -(-len(images) // columns)
    height = rows * (WIDTH / columns + (0.2 if texts else 0.05)) + (0.3 if title else 0)
    figure, axes = new_figure(rows, columns, height, note)
    for i, place in enumerate(axes.flat):
        if i < len(images):
            _picture(place, images[i], texts[i] if texts else "")
        else:
            place.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=10)
    figure.set_label(_brightness(images, labels))
    return figure


def _brightness(images: np.ndarray, labels: Sequence[int] | None) -> str:
    """How bright patches are, by class where that is known."""
    if labels is None or len(set(map(int, labels))) < 2:
        return f"The mean brightness of these {len(images)} patches is {images.mean():.0f} of 255."
    labels = np.asarray(labels)
    parts = [f"{images[labels == c].mean():.0f} over the {np.sum(labels == c)} labelled “{CLASSES[c]}”" for c in (1, 0)]
    return f"The mean brightness, of 255, is {parts[0]} and {parts[1]}."


def _named_rows(rows: Sequence[tuple[str, np.ndarray, Any]], note: str, title: str = "") -> Figure:
    """One line of patches per (name, images, texts), the name above its first patch."""
    columns = max(len(images) for _, images, _ in rows)
    below = 0.4 if any(texts for _, _, texts in rows) else 0.25
    height = len(rows) * (WIDTH / columns + below) + (0.3 if title else 0)
    figure, axes = new_figure(len(rows), columns, height, note)
    for line, (name, images, texts) in zip(axes, rows, strict=True):
        for i, place in enumerate(line):
            if i < len(images):
                _picture(place, images[i], texts[i] if texts else "")
            else:
                place.set_axis_off()
        line[0].set_title(name, fontsize=9, loc="left")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def forward_noise(images: np.ndarray, steps: Sequence[int], note: str = "") -> Figure:
    """The forward process (Eq. 1): one line of len(steps) pictures per patch.

    images: uint8 (len(steps), H, W, 3), or (N, len(steps), H, W, 3) for several patches.
    """
    images = np.asarray(images)
    lines = images[None] if images.ndim == 4 else images
    figure, axes = new_figure(len(lines), len(steps), len(lines) * WIDTH / len(steps) + 0.3, note)
    for n, line in enumerate(lines):
        for place, picture, step in zip(axes[n], _same_shape(line), steps, strict=True):
            _picture(place, picture, f"t = {step}" if n == len(lines) - 1 else "")
    clean = int(np.argmin(steps))
    alike = [np.mean([np.corrcoef(x[clean].ravel(), x[i].ravel())[0, 1] for x in lines]) for i in (0, -1)]
    figure.set_label(
        f"The correlation with the picture at t = {steps[clean]} is {alike[0]:.2f} at t = {steps[0]} and {alike[1]:.2f} at "
        f"t = {steps[-1]}.".replace("-", "−")
    )
    return figure


def guidance_scales(samples: Mapping[float, np.ndarray], note: str = "") -> Figure:
    """The same noise sampled at several guidance scales: a line of patches, uint8 (N, 96, 96, 3), per scale."""
    rows = [(f"guidance {g:g}", _same_shape(x, f"samples[{g:g}]"), None) for g, x in samples.items()]
    figure = _named_rows(rows, note)
    spread = ", ".join(f"{x.std(axis=0).mean():.0f} at {g:g}" for g, x in samples.items())
    figure.set_label(f"Standard deviation of a pixel over the samples of a line, of 255, by guidance: {spread}.")
    return figure


def reconstructions(real: np.ndarray, recon: np.ndarray, note: str = "") -> Figure:
    """Real patches above their reconstructions, both uint8 (N, 96, 96, 3)."""
    rows = [("real", _same_shape(real, "real"), None), ("reconstructed", _same_shape(recon, "recon"), None)]
    figure = _named_rows(rows, note)
    off = np.abs(np.asarray(real, float) - np.asarray(recon, float)).mean()
    figure.set_label(f"A reconstructed pixel differs from the real one by {off:.1f} of 255 on average.")
    return figure


def accepted_rejected(
    kept: np.ndarray,
    dropped: np.ndarray,
    scores: tuple[Sequence[float], Sequence[float]] | None = None,
    note: str = "",
) -> Figure:
    """Patches that a selection kept above those it dropped, each with its score from `scores` below it."""
    texts = [[f"{score:.2f}" for score in side] for side in scores] if scores else (None, None)
    rows = [("kept", kept, texts[0]), ("dropped", dropped, texts[1])]
    # a selection may keep all or nothing, and the picture should say so
    shown = [row for row in rows if len(row[1])]
    empty = [f"nothing was {name}" for name, images, _ in rows if not len(images)]
    if not shown:
        raise ValueError("accepted_rejected needs at least one patch, kept or dropped")
    figure = _named_rows([(name, _same_shape(x, name), t) for name, x, t in shown], note, "; ".join(empty))
    if scores and not empty:
        middle = [float(np.median(side)) for side in scores]  # a copy of a real patch has a score without bound
        figure.set_label(
            f"The median score is {middle[0]:.2f} of the kept patches and {middle[1]:.2f} of the dropped ones."
        )
    else:
        figure.set_label(f"Here {len(kept)} patches were kept and {len(dropped)} dropped.")
    return figure


def nearest_pairs(pairs: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence[float]]], note: str = "") -> Figure:
    """Samples above their nearest training patches, with the distance ratio below each pair.

    pairs[generator] is (samples uint8 (P, 96, 96, 3), training patches of the same shape, ratios (P,)).
    """
    rows = []
    for generator, (samples, near, ratios) in pairs.items():
        rows.append((f"{generators.label(generator)}: samples", _same_shape(samples), None))
        rows.append(("nearest training patches", _same_shape(near), [f"{ratio:.2f}" for ratio in ratios]))
    figure = _named_rows(rows, note)
    least = {generator: min(ratios) for generator, (_, _, ratios) in pairs.items() if len(ratios)}
    if least:
        closest = min(least, key=least.get)
        figure.set_label(
            f"The closest of these pairs has a distance ratio of {least[closest]:.2f} ({generators.label(closest)}); a copy "
            "would be near 0."
        )
    return figure


def samples_figure_3(
    images: Mapping[str, Mapping[str, Mapping[int, np.ndarray]]], per_cell: int = 2, note: str = ""
) -> Figure:
    """Figure 3: generators x selections x classes, `per_cell` patches below each other in a cell.

    images[generator][selection][class] is uint8 (n, 96, 96, 3); a patch that is not there is drawn "not run". Rows are in
    the order of `images`.
    """
    columns = len(paper.SELECTIONS) * 2
    names = list(images)
    rows = len(names) * per_cell
    figure, axes = new_figure(rows, columns, rows * WIDTH / columns + 0.75, note)
    for r, line in enumerate(axes):
        generator, i = names[r // per_cell], r % per_cell
        for c, place in enumerate(line):
            selection, label = paper.SELECTIONS[c // 2], c % 2
            patches = images[generator].get(selection, {}).get(label, ())
            _picture(place, patches[i] if i < len(patches) else None)
            if r == 0:
                heading = f"{paper.SELECTION_NAMES[selection]}\n" if label == 0 else "\n"
                place.set_title(heading + CLASSES[label], fontsize=8.5, loc="left")
        if i == 0:
            line[0].set_ylabel(generators.label(generator), fontsize=9)
    sets = [images[g].get(s, {}) for g in names for s in paper.SELECTIONS]
    whole = sum(all(len(by_class.get(c, ())) for c in (0, 1)) for by_class in sets)
    figure.set_label(f"{whole} of the {len(sets)} synthetic sets have patches of both classes.")
    return figure


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
        f"{name}{mean} {moved} from {first:.3g} to {last:.3g} between {x} {min(map(min, at)):g} and {max(map(max, at)):g}."
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
