"""Table 1 of one subset: every row at the same counts, sets that are too small left out, the judge loaded once."""

import dataclasses

import numpy as np
import pytest
from small_selection import GATE, Sampler

from pcamlib.experiments import features, quality, selection
from pcamlib.study import GENERATORS


@pytest.fixture
def sampled(open_tiny, monkeypatch):
    """A study with 16 + 16 patches, all synthetic sets, and a judge that measures colour."""
    s = open_tiny(**{"selection.candidates": 8})
    for generator in GENERATORS:
        selection.select(s, generator, Sampler(s), GATE)
    loaded = []

    def judge(study):
        loaded.append(study)
        return features.Judge(GATE, lambda images: GATE(images)[:, 0] / 255)

    monkeypatch.setattr(features, "judge", judge)
    monkeypatch.setattr(features, "random_vgg16", lambda: dataclasses.replace(GATE, name="second"))
    monkeypatch.setattr(quality.autoencoder, "load", lambda study: None)
    monkeypatch.setattr(quality.autoencoder, "reconstruct", lambda decoder, images: images)
    return s, loaded


def with_others(study, first, second):
    """The study with this many other real patches of each class."""
    labels = quality.data.labels(study.data_root, "train")
    free = np.setdiff1d(np.arange(len(labels)), study.rows)
    rows = [free[labels[free] == c][:n] for c, n in ((0, first), (1, second))]
    return dataclasses.replace(study, others=np.sort(np.concatenate(rows)))


def test_every_row_is_at_the_common_count_the_floor_too(sampled):
    s, _ = sampled
    result = quality.evaluate(with_others(s, 10, 22))
    assert result["common_count"] == [10, 16]
    assert len(result["rows"]) == 2 * 11
    for row in result["rows"]:
        assert row["status"] == "ok" and row["n_real"] == row["n_fake"] == 26, row


def test_a_floor_without_enough_patches_of_a_class_is_not_run(sampled):
    s, _ = sampled
    for others, reason in ((7, 25), "only [7, 25] real patches"), ((0, 0), "no real patches are left"):
        result = quality.evaluate(with_others(s, *others))
        assert result["common_count"] == [16, 16]
        for name in ("real", "autoencoder"):
            (row,) = [row for row in result["rows"] if row["generator"] == name and row["extractor"] == GATE.name]
            assert row["status"] == "not run" and reason in row["reason"]


def test_reconstructions_are_of_other_patches_and_share_the_floors_values(sampled):
    s, _ = sampled
    rows = {row["generator"]: row for row in quality.evaluate(s)["rows"] if row["extractor"] == GATE.name}
    floor, rebuilt = rows["real"], rows["autoencoder"]  # this decoder changes nothing
    assert floor["fid"] == rebuilt["fid"] > 1e-3, "a set compared with its own originals has distance zero"


def test_further_measures_follow_their_definitions(sampled):
    s, _ = sampled
    result = quality.evaluate(s)
    row = next(r for r in result["rows"] if r["generator"] == "real")
    own, others, valid = (
        GATE(quality.first_per_class(x, [16, 16]).images) for x in (s.real, s.other_real, s.split("valid"))
    )
    assert result["held_out"] == "the validation split"
    for name, (real, fake) in {
        "fid_0": (own[:16], others[:16]), "fid_1": (own[16:], others[16:]), "fid_held_out": (valid, others),
    }.items():  # fmt: skip
        assert np.isclose(row[name], quality.metrics.frechet_distance(real=real, fake=fake)), name
    assert 1 < row["vendi"] < 6 and np.isfinite(row["fid_infinity"]) and row["fid_infinity_reason"] is None


def test_no_extrapolation_from_fewer_images_than_dimensions():
    rng = np.random.default_rng(0)
    found = quality._further(rng.normal(size=(40, 20)), None, rng.normal(size=(40, 20)), 20, 0)
    assert found["fid_infinity"] is None and found["fid_infinity_reason"] == "fewer images than dimensions"
    assert found["fid_held_out"] is None and found["fid_0"] > 0 and found["vendi"] > 1


def test_an_image_without_features_has_no_vendi_score():
    fake = np.random.default_rng(0).normal(size=(40, 20))
    fake[3] = 0
    assert quality._further(fake + 1, fake + 1, fake, 20, 0)["vendi"] is None


def test_the_judge_is_loaded_once(sampled):
    s, loaded = sampled
    quality.evaluate(s)
    assert len(loaded) == 1


def test_a_filtered_folder_that_is_short_does_not_cut_the_others(sampled, monkeypatch):
    s, _ = sampled
    short = {"requested": [16, 16], "kept": [15, 16]}
    found = {"images": {"about": "the folder mine with [16, 16] images"}}
    found["selections"] = {name: short for name in ("realism", "class")} | {"none": short | {"kept": [16, 16]}}
    results = {g: selection._result(s, g) for g in GENERATORS} | {"unet": found}
    monkeypatch.setattr(selection, "_result", lambda study, generator: results[generator])
    result = quality.evaluate(s)
    rows = {row["selection"]: row for row in result["rows"] if row["generator"] == "unet"}
    assert result["common_count"] == [16, 16] and rows["none"]["status"] == "ok"
    for name in ("realism", "class"):
        assert (
            rows[name]["reason"]
            == "too few images: kept [15, 16] of [16, 16] from the folder mine with [16, 16] images"
        )
