"""What carries the label: colour, structure or neither; and class-based selection with the truth at hand."""

import dataclasses

import numpy as np
import pytest
from small_selection import GATE

from pcamlib.data import Arrays
from pcamlib.experiments import features, label_content


def fine(images):
    """Colour channels' means, and the contrast between neighbouring pixels, which `halved` removes."""
    x = images.astype(np.float32)
    contrast = np.abs(np.diff(x, axis=2)).mean((1, 2, 3))
    return np.concatenate([x.mean((1, 2)), contrast[:, None]], 1)


def stripes(n, seed, amplitude):
    """Grey patches whose label shows only in stripes of one pixel: `amplitude` for tumour, none without."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.uint8) % 2
    images = rng.integers(100, 140, (n, 1, 1, 3)) + np.zeros((n, 96, 96, 3), int)
    images[labels == 1, :, ::2] += amplitude
    images[labels == 1, :, 1::2] -= amplitude
    return Arrays(np.clip(images, 0, 255).astype(np.uint8), labels)


def test_halved_averages_squares_and_keeps_the_size():
    patches = stripes(4, 0, 9)
    found = label_content.halved(patches.images)
    assert found.shape == patches.images.shape and found.dtype == np.uint8
    np.testing.assert_array_equal(np.diff(found.astype(int), axis=2), 0)  # stripes of one pixel are gone
    np.testing.assert_array_equal(found[:, 0, 0], patches.images[:, 0, :2].mean(1).round())


@pytest.fixture
def prepared(open_tiny, monkeypatch):
    """A study of stripes, with one generator that draws them and one that draws no label at all."""
    s = open_tiny()
    split = {"valid": stripes(40, 1, 4), "test": stripes(40, 2, 4)}
    made = {"unet": stripes(32, 3, 4), "dit": stripes(32, 4, 0), "histogan": None}
    monkeypatch.setattr(type(s), "split", lambda self, name: split[name])
    s.__dict__["real"], s.__dict__["other_real"] = stripes(32, 5, 4), stripes(32, 6, 4)
    monkeypatch.setattr(features, "probed", lambda _: features.Extractor("fine", "fine", fine))
    monkeypatch.setattr(label_content.baselines, "colour", lambda images: fine(images)[:, :3])
    monkeypatch.setattr(label_content.selection, "synthetic", lambda study, generator, which: made[generator])
    monkeypatch.setattr(label_content.selection, "shortage", lambda study, g, which: None if made[g] else "none left")
    monkeypatch.setattr(label_content.autoencoder, "load", lambda study: None)
    monkeypatch.setattr(label_content.autoencoder, "reconstruct", lambda decoder, images: label_content.halved(images))
    return s


def test_a_label_in_fine_structure_is_found_at_full_size_only(prepared):
    result = label_content.evaluate(prepared)
    rows = {row["generator"]: row for row in result["rows"]}
    assert list(rows) == ["real", "autoencoder", *prepared.profile.generator_names]
    for name in ("real", "unet"):
        assert rows[name]["full"] == 1 and rows[name]["half"] < 0.9 and rows[name]["colour"] < 0.9, rows[name]
        assert rows[name]["apart_full"] < 0.75
    assert rows["autoencoder"]["full"] < 0.9, "its reconstructions have lost the stripes"
    assert rows["dit"]["full"] < 0.9 and rows["dit"]["apart_full"] > 0.7 > rows["dit"]["apart_half"]
    assert rows["histogan"] == {"generator": "histogan", "status": "not run", "reason": "none left"}
    assert (prepared.results / "label-content.json").exists()


def test_without_other_patches_nothing_is_made_up(prepared):
    s = dataclasses.replace(prepared, others=prepared.others[:0])
    s.__dict__["real"] = prepared.real
    rows = {row["generator"]: row for row in label_content.evaluate(s)["rows"]}
    assert rows["real"]["apart_full"] is None and rows["real"]["full"] == 1
    assert rows["autoencoder"]["status"] == "not run" and "no real patches" in rows["autoencoder"]["reason"]


def test_selection_by_class_passes_right_labels_and_stops_wrong_ones(open_tiny):
    s = open_tiny()
    result = label_content.known_labels(s, GATE)
    none, tumour, both = result["rows"]
    assert none["class"] == 0 and both["class"] is None and none["n"] + tumour["n"] == both["n"] == 32
    assert both["right"] > 0.5 and both["wrong"] == 0 and both["kept_right"] == 1, "the centre tells the class"
    assert both["right"] == pytest.approx((none["right"] + tumour["right"]) / 2)


def test_selection_by_class_that_sees_no_class_passes_both_alike(open_tiny):
    s = open_tiny()
    blind = features.Extractor("blind", "corner", lambda images: images[:, :8, :8].astype(np.float32).mean((1, 2)))
    both = label_content.known_labels(s, blind)["rows"][2]
    assert abs(both["right"] - both["wrong"]) < 0.3 and 0.3 < both["kept_right"] < 0.7
    copied = dataclasses.replace(s, others=np.concatenate([s.rows[:3], s.others[3:]]))
    assert label_content.known_labels(copied, blind)["copies_left_out"] == 3
