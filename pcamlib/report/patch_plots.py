"""Figures that show patches: grids, rows of named patches, pairs. Patches in, a Figure out, as in `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcamlib.core import paper
from pcamlib.data import CLASSES
from pcamlib.models import generators
from pcamlib.report.plots import WIDTH, new_figure
from pcamlib.results import frame

__all__ = [
    "accepted_rejected",
    "forward_noise",
    "guidance_scales",
    "lines",
    "nearest_pairs",
    "patch_grid",
    "reconstructions",
    "samples_figure_3",
]


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
    means = {c: f"{images[labels == c].mean():.0f} over the {np.sum(labels == c)}" for c in (1, 0)}
    parts = [f"{mean} labelled “{CLASSES[c]}”" for c, mean in means.items()]
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
    clean, noisy = int(np.argmin(steps)), int(np.argmax(steps))
    alike = np.mean([np.corrcoef(x[clean].ravel(), x[noisy].ravel())[0, 1] for x in lines])
    text = f"The picture at t = {steps[noisy]} has a correlation of {alike:.2f} with the one at t = {steps[clean]}."
    figure.set_label(text.replace("-", "−"))
    return figure


def guidance_scales(samples: Mapping[float, np.ndarray], note: str = "") -> Figure:
    """The same noise sampled at several guidance scales: a line of patches, uint8 (N, 96, 96, 3), per scale."""
    rows = [(f"guidance {g:g}", _same_shape(x, f"samples[{g:g}]"), None) for g, x in samples.items()]
    figure = _named_rows(rows, note)
    spread = ", ".join(f"{x.std(axis=0).mean():.0f} at {g:g}" for g, x in samples.items())
    figure.set_label(f"Standard deviation of a pixel over the samples of a line, of 255, by guidance: {spread}.")
    return figure


def lines(images: Mapping[str, np.ndarray], note: str = "") -> Figure:
    """A line of patches, uint8 (N, 96, 96, 3), for each name."""
    figure = _named_rows([(name, _same_shape(line, name), None) for name, line in images.items()], note)
    spread = (f"{name} {np.std(line.mean((1, 2, 3))):.0f}" for name, line in images.items())
    figure.set_label(f"Standard deviation of the brightness within a line, of 255: {', '.join(spread)}.")
    return figure


def reconstructions(real: np.ndarray, recon: np.ndarray, note: str = "", name: str = "reconstructed") -> Figure:
    """Real patches above their reconstructions, both uint8 (N, 96, 96, 3); `name` says how these were made."""
    rows = [("real", _same_shape(real, "real"), None), (name, _same_shape(recon, "recon"), None)]
    figure = _named_rows(rows, note)
    off = np.abs(np.asarray(real, float) - np.asarray(recon, float)).mean()
    figure.set_label(f"A pixel differs from the real one by {off:.1f} of 255 on average ({name}).")
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
            f"The closest of these pairs has a distance ratio of {least[closest]:.2f} ({generators.label(closest)}); a"
            " copy would be near 0."
        )
    return figure


def samples_figure_3(
    images: Mapping[str, Mapping[str, Mapping[int, np.ndarray]]], per_cell: int = 2, note: str = ""
) -> Figure:
    """Figure 3: generators x selections x classes, `per_cell` patches below each other in a cell.

    images[generator][selection][class] is uint8 (n, 96, 96, 3); a patch that is not there is drawn "not run". Rows are
    in the order of `images`.
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
