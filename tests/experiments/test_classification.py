"""Classifier seeds: which arms have them, what starts from what, and that one seed is what it always was."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml
from conftest import settings
from safetensors.numpy import load_file

from pcamlib import data, metrics
from pcamlib.core import paper
from pcamlib.core.errors import StudyError
from pcamlib.core.settings import load_profile
from pcamlib.experiments import baselines, classification, features
from pcamlib.report import auc_tables
from pcamlib.results import frame, inference, intervals, load
from pcamlib.results.arms import Arm
from pcamlib.results.inference import SCORES


def test_an_arm_brings_seeds_to_what_it_starts_from():
    plain = load_profile("smoke").classifier
    assert classification.runs("unet", plain) == classification.arms("unet")
    several = plain.model_copy(update={"seeds": 3, "seeded": ["transfer-unet-realism", "transfer-real"]})
    runs = classification.runs("unet", several)
    assert len(runs) == 9 + 2 + 2 and len({arm.id for arm in runs}) == 13
    assert runs.index(Arm("synthetic", "unet", "realism", seed=2)) < runs.index(
        Arm("transfer", "unet", "realism", seed=2)
    )
    assert {arm.source for arm in runs if arm.source} <= set(runs)
    assert [arm.id for arm in classification.runs("real", several) if arm.seed] == [
        "traditional-seed1", "traditional-seed2", "transfer-real-seed1", "transfer-real-seed2",
    ]  # fmt: skip


def test_a_pattern_that_no_arm_matches_is_an_error_with_the_nearest(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(yaml.safe_dump(settings(**{"classifier.seeded": ["transfer-*", "transfer-unnet-none"]})))
    with pytest.raises(StudyError, match="mine.yml.*classifier.seeded.*did you mean 'transfer-unet-none'"):
        load_profile(str(path))


def test_the_number_of_seeds_is_part_of_a_profile_from_two_on(tmp_path):
    shas = []
    for seeds in (1, 2):
        path = tmp_path / f"{seeds}.yml"
        path.write_text(yaml.safe_dump(settings(**{"classifier.seeds": seeds})))
        shas.append(load_profile(str(path)).sha)
    assert shas[0] == load_profile("smoke").sha != shas[1], "run folders of before seeds stay valid"


def test_calibration_error_by_hand():
    p = np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.1], np.float32)
    y = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    # four patches called at 0.9 are right in 3 of 4; two at 0.1 (confidence of tumour) have no tumour
    assert classification.calibration_error(y, p) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6, abs=1e-6)
    assert classification.calibration_error(y, y.astype(np.float32)) == 0


def test_arms_are_fine_tuned_in_the_listed_subsets_only(open_tiny):
    s = open_tiny(**{"classifier.subsets": [1], "subsets.count": 2})
    rows = {row["arm"]: row for row in classification.evaluate(s, "real")["rows"]}
    done = {arm for arm, row in rows.items() if row["status"] == "ok"}
    assert done == {"traditional", *(arm.id for arm in classification.baseline_arms("real"))}
    assert rows["transfer-real"]["reason"] == "the profile fine-tunes this arm in subsets 1 only"


def test_a_subset_beyond_the_last_is_an_error(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(yaml.safe_dump(settings(**{"classifier.subsets": [7]})))
    with pytest.raises(StudyError, match="classifier.subsets names subset 7, but subsets.count is"):
        load_profile(str(path))


def test_seeds_are_trained_kept_and_averaged(open_tiny, monkeypatch):
    few = [Arm("traditional"), Arm("transfer-real")]
    monkeypatch.setattr(classification, "arms", lambda generator: few)
    one = classification.evaluate(open_tiny(runs="one"), "real")["rows"]
    s = open_tiny(runs="two", **{"classifier.seeds": 2, "classifier.seeded": ["transfer-real"]})
    rows = classification.evaluate(s, "real")["rows"]
    by_id = {row["arm"]: row for row in rows}
    assert set(by_id) == {row["arm"] for row in one} | {"traditional-seed1", "transfer-real-seed1"}
    for row in one:
        changing = {"seconds", "created", "version"}
        assert {k: v for k, v in row.items() if k not in changing | {"log"}} == {
            k: v for k, v in by_id[row["arm"]].items() if k not in changing | {"log"}
        }, "the first seed is what a run of one seed has"
    assert by_id["transfer-real-seed1"]["pretrained"] == "traditional-seed1"
    assert by_id["traditional-seed1"]["train_loss"] != by_id["traditional"]["train_loss"]
    assert features.gatekeeper(s).about.startswith("tf_efficientnet_lite0 of arm 'traditional', subset 0")

    folders = s.folder / "classifiers"
    labels = data.labels(s.data_root, "test")
    for arm, row in by_id.items():
        if arm == "shuffled-labels":
            continue  # a mean over shuffles has no scores
        kept = load_file(folders / arm / inference.SCORES)
        scores = kept["test"]
        assert scores.dtype == np.float32 and (kept["labels"] == labels).all()
        assert metrics.classification_metrics(labels, scores)["auc"] == row["auc"] and 0 <= row["ece"] <= 1
        assert not (folders / arm / "checkpoint.safetensors").exists()
    assert not (folders / "transfer-real-seed1" / "weights.safetensors").exists()
    times = {path: path.stat().st_mtime_ns for path in folders.rglob("result.json")}
    again = classification.evaluate(s, "real")["rows"]
    assert again == rows and {path: path.stat().st_mtime_ns for path in folders.rglob("result.json")} == times

    df = load(s.root, 1)
    mean = (by_id["traditional"]["auc"] + by_id["traditional-seed1"]["auc"]) / 2
    assert frame.by_subset(df, "auc")["traditional"].to_dict() == {0: pytest.approx(mean)}
    assert auc_tables.table_2(df).data["seeds"].iloc[:2].tolist() == ["not run", "2"]
    found = intervals.evaluate(s, df, 1)
    assert {row["regime"] for row in found["rows"]} == {"traditional", "transfer-real", *paper.TRIVIAL}


def test_auc_by_centre_by_hand():
    labels, scores = np.array([0, 1, 0, 1, 1, 1]), np.array([0.1, 0.9, 0.8, 0.2, 0.5, 0.6])
    found = classification.by_centre(labels, scores, np.array(["a", "a", "b", "b", "c", "c"]))
    assert found == {"a": {"patches": 2, "auc": 1.0}, "b": {"patches": 2, "auc": 0.0}, "c": {"patches": 2, "auc": None}}


def test_arms_are_tested_by_centre_where_centres_are_known(open_tiny, pcam, tmp_path):
    root = tmp_path / "two centres"
    shutil.copytree(pcam, root)
    data.write_groups(root, "test", [f"slide {i // 4}" for i in range(32)], ["A"] * 20 + ["B"] * 12)
    s = open_tiny(root=root)
    row = classification._run_baseline(
        s, Arm("colour"), baselines.Baselines(s, {n: s.split(n) for n in ("valid", "test")})
    )
    assert {name: found["patches"] for name, found in row["centres"].items()} == {"A": 20, "B": 12}
    kept = load_file(s.folder / "classifiers" / "colour" / SCORES)
    for name, rows in (("A", slice(20)), ("B", slice(20, 32))):
        auc = metrics.classification_metrics(kept["labels"][rows], kept["test"][rows])["auc"]
        assert row["centres"][name]["auc"] == pytest.approx(auc)
    assert "centres" not in classification.tested(
        {n: s.split(n) for n in ("valid", "test")}, {"valid": np.zeros(32), "test": np.zeros(32)}
    )
