"""Linked pictures hold what they are given, small, and are linked in the browser; the book's scripts come from
packages."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import offline
import pytest
from ipywidgets import Widget
from PIL import Image

from pcamlib.report import widgets


def patches(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 96, 96, 3), dtype=np.uint8)


def frames(box) -> list[tuple[np.ndarray, str, str]]:
    """Picture, alternative text and caption of each frame."""
    found = []
    for frame in box.children[1].children:
        data, alt, caption = re.search(r'base64,(.*?)".*alt="(.*?)".*<figcaption>(.*?)<', frame.value).groups()
        found.append((np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), alt, caption))
    return found


def test_a_mosaic_keeps_every_patch_in_its_place():
    images = patches(2, 3)
    picture = widgets.mosaic(images)
    assert picture.shape == (2 * 96 + 3 * 4, 3 * 96 + 4 * 4, 3) and (picture[:4] == 255).all()
    np.testing.assert_array_equal(picture[104:200, 204:300], images[1, 2])
    for wrong in (images[0], images.astype(float), images[:0]):
        with pytest.raises(ValueError, match=r"uint8 \(rows, columns, H, W, 3\)"):
            widgets.mosaic(wrong)


def test_the_slider_is_linked_in_the_browser():
    Widget.close_all()
    box = widgets.forward_noise(patches(2, 5), [0, 25, 50, 75, 99])
    (play, slider), stack = box.children[0].children, box.children[1]
    assert (slider.min, slider.max, slider.value, stack.selected_index, play.max) == (0, 4, 0, 0, 4)
    models = [m["state"] for m in Widget.get_manager_state()["state"].values() if m["model_name"] == "LinkModel"]
    assert [(m["source"], m["target"]) for m in models] == [
        ([f"IPY_MODEL_{play.model_id}", "value"], [f"IPY_MODEL_{slider.model_id}", "value"]),
        ([f"IPY_MODEL_{slider.model_id}", "value"], [f"IPY_MODEL_{stack.model_id}", "selected_index"]),
    ]


def test_frames_show_their_own_step():
    flat = np.zeros((2, 3, 96, 96, 3), np.uint8) + np.array([10, 120, 230], np.uint8)[:, None, None, None]
    shown = frames(widgets.forward_noise(flat, [0, 50, 99]))
    assert [caption for _, _, caption in shown] == ["t = 0", "t = 50", "t = 99"]
    assert [round(float(picture[40:60, 40:60].mean()), -1) for picture, _, _ in shown] == [10, 120, 230]
    assert all(alt.endswith(caption) and len(alt) > len(caption) for _, alt, caption in shown)


def test_denoising_puts_the_classes_above_each_other():
    images = np.repeat(np.array([20, 220], np.uint8), 2)[:, None, None, None, None] + np.zeros(
        (4, 3, 96, 96, 3), np.uint8
    )
    picture, alt, _ = frames(widgets.denoising(images, [99, 50, 0]))[0]
    assert picture.shape[:2] == (204, 204) and picture[:100].mean() < 60 < 200 < picture[104:].mean()
    assert "above no tumour, below tumour" in alt


def test_guidance_starts_at_the_profile_s_scale():
    box = widgets.guidance({g: patches(4, seed=int(g)) for g in (1, 1.5, 3)}, start=1.5)
    assert box.children[1].selected_index == 1
    assert [caption for _, _, caption in frames(box)] == [f"guidance scale {g}" for g in ("1", "1.5", "3")]


def test_a_realism_threshold_fades_what_it_drops_and_counts_all():
    scores = np.array([0.5, 0.9, 1.0, 1.4, 0.2, 1.1, 1.2, 0.95])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    box = widgets.realism_threshold(np.zeros((8, 96, 96, 3), np.uint8), labels, scores, columns=4)
    shown = frames(box)
    start = box.children[1].selected_index
    picture, _, caption = shown[start]
    assert caption == "threshold 1.00: kept 50% (2 of 4 no tumour, 2 of 4 tumour)"
    dark = [[bool(picture[40 + 100 * r, 50 + 100 * c].mean() < 60) for c in range(4)] for r in range(2)]
    assert dark == [[True, True, False, False]] * 2, "from the highest score to the lowest, a row per class"
    thresholds = [float(c.split(":")[0].split()[1]) for _, _, c in shown]
    kept = [int(re.search(r"kept (\d+)%", c).group(1)) for _, _, c in shown]
    assert thresholds == sorted(set(thresholds)) and kept == sorted(kept, reverse=True)


def test_a_class_may_be_missing_and_nothing_may_not():
    box = widgets.realism_threshold(patches(3), np.ones(3), np.array([0.5, 1.0, 2.0]))
    assert frames(box)[0][0].shape == (104, 304, 3) and "of 0 no tumour" in frames(box)[0][2]
    with pytest.raises(ValueError, match="at least one patch"):
        widgets.realism_threshold(patches(0), np.ones(0), np.ones(0))


@pytest.mark.parametrize("pictures, captions, start", [(0, 0, 0), (2, 1, 0), (2, 2, 2), (2, 2, -1)])
def test_frames_that_do_not_go_together(pictures, captions, start):
    with pytest.raises(ValueError, match="do not go together"):
        widgets.linked_frames([patches()] * pictures, ["c"] * captions, name="n", alt="a", start=start)


def test_text_in_a_page_is_escaped():
    ((_, alt, caption),) = frames(widgets.linked_frames([patches()], ['<b> & "q"'], name="n", alt="x"))
    assert caption == "&lt;b&gt; &amp; &quot;q&quot;" and "<" not in alt


def test_the_book_s_scripts_come_from_installed_packages():
    for package, path in offline.FILES.values():
        assert offline.source(package, path).exists()
    with pytest.raises(FileNotFoundError, match="the book needs x.js of the package nowhere: install the extra 'book'"):
        offline.source("nowhere", "x.js")
