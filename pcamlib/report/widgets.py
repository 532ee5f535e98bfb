"""Pictures that a slider turns over, in JupyterLab and in the rendered book alike.

Everything is linked in the browser (`jslink`), so no kernel is needed: the pictures lie in the page, small, as WebP.
Each of these stands beside a still figure, for print and for readers without scripts.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from ipywidgets import HTML, HBox, IntSlider, Play, Stack, VBox, jslink
from PIL import Image

from pcamlib.data import CLASSES

GAP = 4
"""Pixels of white between patches."""


def mosaic(images: np.ndarray) -> np.ndarray:
    """Rows and columns of patches, uint8 (rows, columns, H, W, 3), as one picture on white, uint8 (h, w, 3)."""
    images = np.asarray(images)
    if images.ndim != 5 or images.shape[-1] != 3 or images.dtype != np.uint8 or not images.size:
        raise ValueError(f"images must be uint8 (rows, columns, H, W, 3), not empty, not {images.dtype} {images.shape}")
    padded = np.pad(images, ((0, 0), (0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=255)
    rows, columns, height, width, _ = padded.shape
    picture = padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def linked_frames(
    pictures: Sequence[np.ndarray], captions: Sequence[str], *, name: str, alt: str, start: int = 0
) -> VBox:
    """A slider called `name` that shows one of `pictures`, each uint8 (H, W, 3), with its caption.

    alt: what all pictures show; a picture's alternative text is that and its caption. start: index of the first shown.
    ValueError if there is no picture, a caption is missing, or `start` is none of them.
    """
    if not pictures or len(pictures) != len(captions) or not 0 <= start < len(pictures):
        raise ValueError(f"{len(pictures)} pictures, {len(captions)} captions and start {start} do not go together")
    frames = [HTML(_frame(picture, caption, alt)) for picture, caption in zip(pictures, captions, strict=True)]
    last = len(frames) - 1
    slider = IntSlider(start, 0, last, description=name, readout=False, style={"description_width": "initial"})
    play = Play(value=start, min=0, max=last, interval=400, show_repeat=False)
    stack = Stack(frames, selected_index=start)
    jslink((play, "value"), (slider, "value"))
    jslink((slider, "value"), (stack, "selected_index"))
    stack.add_class("linked-frames-stack")
    box = VBox([HBox([play, slider]), stack])
    box.add_class("linked-frames")
    return box


def _frame(picture: np.ndarray, caption: str, alt: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=75, method=6)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = picture.shape[:2]
    return (
        f'<figure><img src="data:image/webp;base64,{data}" width="{2 * width}" height="{2 * height}" '
        f'alt="{html.escape(f"{alt}: {caption}")}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def forward_noise(images: np.ndarray, steps: Sequence[int]) -> VBox:
    """Patches at each noise step t: images uint8 (N, len(steps), 96, 96, 3)."""
    return linked_frames(
        [mosaic(images[None, :, i]) for i in range(len(steps))],
        [f"t = {t}" for t in steps],
        name="noise step t",
        alt="Patches noised to a step of the forward process",
    )


def denoising(images: np.ndarray, times: Sequence[int]) -> VBox:
    """Samples on their way from noise: images uint8 (N, len(times), 96, 96, 3), as many of each class, in order."""
    rows = images.reshape(2, -1, *images.shape[1:])
    return linked_frames(
        [mosaic(rows[:, :, i]) for i in range(len(times))],
        [f"t = {t}" for t in times],
        name="solver step",
        alt=f"Samples on their way from noise, above {CLASSES[0]}, below {CLASSES[1]}",
    )


def guidance(samples: Mapping[float, np.ndarray], start: float) -> VBox:
    """The same noise sampled at several guidance scales.

    samples[scale] is uint8 (N, 96, 96, 3), as many of each class, in order; start: the scale shown first.
    """
    return linked_frames(
        [mosaic(images.reshape(2, -1, *images.shape[1:])) for images in samples.values()],
        [f"guidance scale {scale:g}" for scale in samples],
        name="guidance",
        alt=f"Samples from the same noise, above {CLASSES[0]}, below {CLASSES[1]}",
        start=list(samples).index(start),
    )


def realism_threshold(images: np.ndarray, labels: np.ndarray, scores: np.ndarray, columns: int = 6) -> VBox:
    """What a threshold on the realism score would keep; what it drops is faded.

    images uint8 (N, 96, 96, 3), labels 0/1 (N,), scores (N,). Shown are up to two rows of `columns` patches per class,
    spread evenly over its scores from the highest to the lowest; the captions count all N. ValueError if N is 0.
    """
    if not len(images):
        raise ValueError("realism_threshold needs at least one patch")
    # about evenly many patches between one threshold and the next, and the paper's own threshold among them
    thresholds = np.unique(np.round([1.0, *np.quantile(scores, np.linspace(0.04, 0.96, 12))], 2))
    orders = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    orders = [order[np.argsort(-scores[order], kind="stable")] for order in orders]
    smallest = min(map(len, orders))
    columns = min(columns, smallest)
    lines = 2 if smallest >= 2 * columns else 1
    places = [np.linspace(0, len(order) - 1, lines * columns).round().astype(int) for order in orders]
    shown = np.concatenate([order[at].reshape(lines, columns) for order, at in zip(orders, places, strict=True)])
    faded = 255 - ((255 - images) * 0.22).astype(np.uint8)
    pictures, captions = [], []
    for threshold in thresholds:
        kept = scores >= threshold
        pictures.append(mosaic(np.where(kept[shown][..., None, None, None], images[shown], faded[shown])))
        parts = [f"{kept[labels == c].sum()} of {(labels == c).sum()} {CLASSES[c]}" for c in (0, 1)]
        captions.append(f"threshold {threshold:.2f}: kept {kept.mean():.0%} ({', '.join(parts)})")
    return linked_frames(
        pictures,
        captions,
        name="threshold",
        alt=(
            f"Generated patches from most to least realistic, above {CLASSES[0]}, below {CLASSES[1]}, dropped ones"
            " faded"
        ),
        start=int(np.flatnonzero(thresholds == 1.0)[0]),
    )
