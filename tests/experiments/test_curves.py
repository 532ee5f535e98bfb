"""Curves by the probe: nested sets, what cannot be run, and synthetic sets whose worth is known."""

import numpy as np
import pytest

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.experiments import curves, probes, selection
from pcamlib.experiments.features import Extractor
from pcamlib.results import curves as read
from pcamlib.results import loading

POINTS = {"sizes": [16], "ratios": [0.5, 1, 2]}


@pytest.fixture
def cheap(monkeypatch):
    """Features that cost nothing: means of small squares."""

    def means(images):
        return (
            images.reshape(len(images), 8, 12, 8, 12, 3).mean((2, 4)).reshape(len(images), -1).astype(np.float32) / 255
        )

    monkeypatch.setattr(curves.probes.features, "probed", lambda _: Extractor("means", "means of squares", means))


@pytest.fixture
def synthetic(patches, monkeypatch, tmp_path):
    """Synthetic sets are 32 real patches of elsewhere, and so is every further candidate."""
    data.write(tmp_path / "synthetic", "train", patches.images[128:160], patches.labels[128:160])
    monkeypatch.setattr(curves.Study, "synthetic", lambda self, generator, chosen: tmp_path / "synthetic")
    counted = np.bincount(patches.labels[128:160], minlength=2).tolist()
    every = {name: {"kept": counted, "requested": counted} for name in selection.SELECTIONS}
    monkeypatch.setattr(selection, "_result", lambda *_: {"selections": every})
    drawn = []

    class Entry:
        def sampler(self, study):
            def sample(labels, seed):
                drawn.append((len(labels), seed))
                return patches.images[160:192][
                    np.resize(np.flatnonzero(patches.labels[160:192] == labels[0]), len(labels))
                ]

            return sample

    monkeypatch.setattr(curves.generators, "find", lambda study, name: Entry())
    return drawn


def test_every_beginning_of_the_order_has_the_shares_of_all():
    labels = np.array([0] * 300 + [1] * 100)
    order = curves.nested(labels, 3)
    assert sorted(order) == list(range(400)) and (order != np.sort(order)).any()
    for n in (4, 40, 113, 399):
        assert abs((labels[order[:n]] == 1).sum() - n / 4) <= 1
    assert (curves.nested(labels, 3) == order).all() and (curves.nested(labels, 4) != order).any()


def test_real_curve(open_tiny, cheap):
    s = open_tiny(curves=POINTS | {"ratios": [0.5, 1, 50]})
    rows = {row["regime"]: row for row in curves.evaluate(s, "real")["rows"]}
    assert list(rows) == ["16+0", "32+0", "48+0", "64+0", "1632+0"]
    assert rows["1632+0"]["status"] == "not run" and "further train patches are left" in rows["1632+0"]["reason"]
    assert all(0.5 < rows[name]["auc_curve"] <= 1 for name in ("16+0", "32+0", "48+0", "64+0"))
    whole = {row["arm"]: row for row in probes.evaluate(s, "real")["rows"]}["traditional"]
    assert rows["32+0"]["auc_curve"] == whole["auc"], "the whole subset is the traditional arm"
    assert curves.evaluate(s, "real") == curves.evaluate(s, "real")


def test_synthetic_curve_and_what_is_drawn_for_it(open_tiny, cheap, synthetic):
    s = open_tiny(curves=POINTS | {"ratios": [0.5, 1, 2, 4]})
    rows = {(row["regime"], row["selection"]): row for row in curves.evaluate(s, "unet")["rows"]}
    wanted = [("16+16", "none"), *((f"32+{m}", "none") for m in (16, 32, 64, 128))]
    wanted += [(f"32+{m}", chosen) for chosen in ("realism", "class") for m in (16, 32)]
    assert list(rows) == wanted and all(row["status"] == "ok" for row in rows.values())
    assert len(set(synthetic)) == len(synthetic) == 2, "a batch that two ratios share is drawn once"
    assert {n for n, _ in synthetic} == {curves.BATCH}
    curves.evaluate(s, "real")
    found = read.points(loading.load(s.root))
    assert set(found["generator"]) == {"", "unet"} and len(found) == len(rows) + 5
    assert not read.exchange(found, 32).empty


def test_a_generator_without_enough_is_not_run(open_tiny, cheap, synthetic, monkeypatch):
    monkeypatch.setattr(selection, "shortage", lambda *_: "a class has no image")
    rows = curves.evaluate(open_tiny(curves=POINTS), "unet")["rows"]
    assert {row["status"] for row in rows} == {"not run"} and rows[0]["reason"] == "a class has no image"


def test_a_profile_without_curves_is_told(open_tiny):
    with pytest.raises(StudyError, match="measures no curves: give it a section curves"):
        curves.evaluate(open_tiny(curves=None), "real")
