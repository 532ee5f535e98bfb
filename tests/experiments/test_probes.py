"""Probes: features computed once per patch, every arm a row, transfer pulled towards the synthetic solution."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from threadpoolctl import threadpool_info, threadpool_limits

from pcamlib import data, metrics
from pcamlib.core import paper
from pcamlib.core.errors import StudyError
from pcamlib.experiments import classification, probes, selection
from pcamlib.experiments.features import Extractor
from pcamlib.results.arms import PSEUDO, TRADITIONAL


@pytest.fixture
def counted(tmp_path):
    """A store over an extractor that says how many images it was asked for."""
    asked = []

    def means(images):
        asked.append(len(images))
        return images.reshape(len(images), 4, 24, 96, 3).mean((2, 3)).reshape(len(images), -1).astype(np.float32) / 255

    return probes.Features(tmp_path, Extractor("means", "means of four strips", means)), asked


def test_features_are_computed_once_per_patch_and_orientation(counted, patches, tmp_path):
    store, asked = counted
    one = store(patches.images[:6])
    assert one.shape == (6, 8, 12) and one.dtype == np.float32 and sum(asked) == 6 * 8
    mixed = np.concatenate([patches.images[4:9], patches.images[:2], patches.images[8:9]])
    again = store(mixed)
    assert sum(asked) == 9 * 8, "known patches and doubles cost nothing"
    np.testing.assert_array_equal(again[[5, 6]], one[:2])
    np.testing.assert_array_equal(again[4], again[7])
    turned = store(np.rot90(patches.images[:6], axes=(1, 2)).copy(), 1)
    np.testing.assert_allclose(turned[:, 0], one[:, 1], atol=2e-3)
    assert len(store(patches.images[:6], 1)) == 6 and sum(asked) == 9 * 8 + 6 + 6
    other = probes.Features(tmp_path, Extractor("means", "another network", store.extractor.function))
    other(patches.images[:1])
    assert sum(asked) == 9 * 8 + 6 + 6 + 8
    path = next(tmp_path.rglob("8/*.safetensors"))
    path.write_bytes(b"nonsense")
    with pytest.raises(StudyError, match="is damaged"):
        store(patches.images), other(patches.images)


@pytest.fixture
def synthetic(patches, monkeypatch, tmp_path):
    """Every synthetic set is the same 32 patches with every fourth label wrong."""
    labels = patches.labels[128:160].copy()
    labels[::4] = 1 - labels[::4]
    data.write(tmp_path / "synthetic", "train", patches.images[128:160], labels)
    monkeypatch.setattr(probes.Study, "synthetic", lambda self, generator, chosen: tmp_path / "synthetic")
    counted = np.bincount(labels, minlength=2).tolist()
    every = {name: {"kept": counted, "requested": counted} for name in selection.SELECTIONS}
    monkeypatch.setattr(selection, "_result", lambda *_: {"selections": every})


def test_an_opened_study_pins_the_threads_of_torch_and_of_every_blas(open_tiny):
    with threadpool_limits(2, user_api="blas"):
        open_tiny()
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
        assert torch.get_num_threads() == 1


def test_every_arm_is_a_row_and_again_the_same(open_tiny, synthetic):
    s, other = open_tiny(), open_tiny(runs="other")
    real = {row["arm"]: row for row in probes.evaluate(s, "real")["rows"]}
    assert set(real) == {"baseline", "traditional", "traditional-2x", "transfer-real", "double-real", *paper.PSEUDO}
    assert real["traditional-2x"]["status"] == "not run" and real["double-real"]["n_real"] == 64
    assert real["baseline"]["orientations"] == 1 and real["traditional"]["orientations"] == 8
    made = probes.evaluate(s, "dit")
    assert [row["arm"] for row in made["rows"]] == [arm.id for arm in classification.arms("dit")]
    assert "lite0-57934424.pth" in made["network"] and made["provenance"]["subset"] == 0
    by_regime = {row["regime"]: row for row in made["rows"] if row["selection"] == "none"}
    assert (by_regime["augmentation"]["n_real"], by_regime["augmentation"]["n_synthetic"]) == (32, 32)
    assert (by_regime["synthetic"]["n_real"], by_regime["transfer"]["n_real"]) == (0, 32)
    assert by_regime["transfer"]["pretrained"] == "synthetic-dit-none"
    labels = data.labels(s.data_root, "test")
    for row in (*(r for r in real.values() if r["status"] == "ok"), *made["rows"]):
        scores = load_file(s.folder / "probes" / row["arm"] / probes.SCORES)["test"]
        assert metrics.classification_metrics(labels, scores)["auc"] == row["auc"] and row["seconds"] >= 0
    volatile = {"seconds", "created", "version"}
    again = {row["arm"]: row for row in probes.evaluate(other, "real")["rows"]}
    assert all({k: v for k, v in row.items() if k not in volatile} ==
               {k: v for k, v in again[arm].items() if k not in volatile} for arm, row in real.items())  # fmt: skip
    assert probes.evaluate(s, "dit")["rows"] == made["rows"]


def test_pseudo_labels_are_those_of_the_subsets_own_probe(open_tiny, pcam, tmp_path):
    """The true labels outside the subset change nothing but the share that is right, which is for readers."""
    more = {"subsets.size": 16, "subsets.count": 2, "quality.judge.size": 40}
    s = open_tiny(**more)
    assert len(s.pool_rows) == 128 - 2 * 16 - 40
    assert not set(s.pool_rows) & {*s.rows, *s.judge_rows, *open_tiny(subset=1, **more).rows}
    one, whole = (probes.unlabelled(s, arm) for arm in PSEUDO)
    assert len(one) == 16 and set(one) < set(whole) and set(whole) == set(s.pool_rows)
    assert (one == probes.unlabelled(s, PSEUDO[0])).all() and set(one) != set(
        probes.unlabelled(open_tiny(subset=1, **more), PSEUDO[0])
    )
    real = {row["arm"]: row for row in probes.evaluate(s, "real")["rows"]}
    row, rest = (real[name] for name in paper.PSEUDO)
    assert (row["n_real"], rest["n_real"], row["n_synthetic"]) == (32, 16 + 56, 0) and row["control"]
    probe = probes.Probes.of(s)
    patches, right = probe.pseudo_labelled(PSEUDO[0])
    truth = data.load(s.data_root, "train", one)
    np.testing.assert_array_equal(patches.images, truth.images)
    chance = probe._load(TRADITIONAL)(probe.scale(probe.store(truth.images, 1)[:, 0]))
    np.testing.assert_array_equal(patches.labels, chance >= 0.5)
    assert row["right_labels"] == right == (patches.labels == truth.labels).mean()

    images, labels = data.load(pcam, "train")
    labels[s.pool_rows] = 1 - labels[s.pool_rows]
    for split in ("valid", "test"):
        data.write(tmp_path / "turned", split, *data.load(pcam, split))
    data.write(tmp_path / "turned", "train", images, labels)
    turned = dataclasses.replace(s, data_root=tmp_path / "turned", root=tmp_path / "of turned")
    found = {row["arm"]: row for row in probes.evaluate(turned, "real")["rows"]}
    assert found["pseudo-label-pool"]["auc"] == rest["auc"] and found["pseudo-label"]["auc"] == row["auc"]
    assert found["pseudo-label"]["right_labels"] == pytest.approx(1 - right)


def test_pseudo_labels_need_a_pool(open_tiny, monkeypatch):
    s = open_tiny()  # 128 patches, two subsets of 32 and a judge of 32
    reasons = {arm.name: probes.reason_not_to_run(s, arm) for arm in PSEUDO}
    assert reasons == {"pseudo-label": None, "pseudo-label-pool": "it would use no more patches than pseudo-label"}
    few = dataclasses.replace(s, pool_rows=s.pool_rows[:7])
    rows = [probes.Probes(few, None).run(arm) for arm in PSEUDO]
    text = "only 7 train patches are left outside every subset and the judge"
    assert [(row["status"], row["reason"]) for row in rows] == [("not run", text)] * 2
    monkeypatch.setattr(probes, "POOL", 8)
    assert len(probes.unlabelled(s, PSEUDO[1])) == 8, "the most that is used"


def test_subsets_share_features_of_the_splits(open_tiny):
    first, second = open_tiny(subset=0), open_tiny(subset=1)
    probes.evaluate(first, "real")
    folder = next((first.root / "features").iterdir())
    before = {path.name for path in (folder / "1").iterdir()}
    probes.evaluate(second, "real")
    added = {path.name for path in (folder / "1").iterdir()} - before
    assert len(added) == 1, "the second subset's own patches; validation and test were there"
