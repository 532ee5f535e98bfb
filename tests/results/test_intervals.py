"""Intervals from kept scores: against `nested_interval` by hand, gaps and seeds, slides, and what a run keeps."""

from __future__ import annotations

import made_up
import numpy as np
import pytest
from safetensors.numpy import save_file

from pcamlib import data, study
from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json
from pcamlib.results import clusters, frame, inference, intervals, load
from pcamlib.results.arms import AGAIN, BASELINE, TRADITIONAL, Arm

SYNTHETIC = Arm("transfer", "unet", "realism")


def made_scores(shift: float, n: int = 400, subsets: int = 3, seeds: int = 1, seed: int = 0):
    """Scores of three arms that share what makes a patch hard; SYNTHETIC tells the classes apart better by `shift`."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], n // 2)
    hard = rng.normal(size=n)
    gain = {BASELINE: 0.5, TRADITIONAL: 1.0, SYNTHETIC: 1.0 + shift}
    scores = {
        arm: {
            k: [(g * labels + hard + 0.5 * rng.normal(size=n)).astype(np.float32) for _ in range(seeds)]
            for k in range(subsets)
        }
        for arm, g in gain.items()
    }
    return labels, scores


def test_variances_by_hand():
    """Two subsets: the error is S^2/K + the patches' common part, and t has 1 and n - 1 degrees of freedom."""
    labels = np.array([1, 1, 0, 0])
    # AUC 1.0 and 0.75 in the two subsets (of the reference 0.5 and 0.5): S^2 = 0.125^2 * 2 = 0.03125
    arm = [np.float32([4, 3, 2, 1]), np.float32([4, 2, 3, 1])]
    flat = np.float32([1, 1, 1, 1])
    found = intervals.compare(
        labels, {SYNTHETIC: dict(enumerate([[s] for s in arm])), TRADITIONAL: {0: [flat], 1: [flat]}}
    )
    row = found[SYNTHETIC]["traditional"]
    assert row["mean"] == pytest.approx(0.375)
    # terms (V - AUC) / 2 of subset 1: positives (1, 0.5) - 0.75, negatives (0.5, 1) - 0.75, so +-0.125; subset 0: all
    # 0. Their mean is +-0.0625, and its variance in each class 2 * 2 * 0.0625^2 = 0.015625, together 0.03125; each
    # subset's terms minus the mean have the same, so the patches' common part is 0.03125 - 2 * 0.03125 / (2 * 1) = 0.
    half = 12.706204736432095 * (0.03125 / 2) ** 0.5  # t quantile 0.975 with 1 degree of freedom, from a table
    assert (row["low"], row["high"]) == pytest.approx((0.375 - half, 0.375 + half))
    assert found[SYNTHETIC]["auc"]["p"] is None and found[TRADITIONAL]["traditional"] is None


def test_a_difference_is_seen_and_its_absence_is_not():
    found = intervals.compare(*made_scores(shift=0.5))
    better = found[SYNTHETIC]["traditional"]
    assert 0 < better["low"] < better["mean"] < better["high"] and better["p"] < 0.05
    assert found[SYNTHETIC]["transfer-real"] is None
    same = intervals.compare(*made_scores(shift=0.0))[SYNTHETIC]["traditional"]
    assert same["low"] < 0 < same["high"] and same["p"] > 0.05


def test_common_subsets_and_seeds_only_and_without_spread_nothing():
    labels, scores = made_scores(shift=0.1, seeds=3)
    whole = intervals.compare(labels, scores)
    del scores[SYNTHETIC][1]
    scores[SYNTHETIC][0] = scores[SYNTHETIC][0][:1]
    found = intervals.compare(labels, scores)
    assert (found[SYNTHETIC]["subsets"], found[SYNTHETIC]["seeds"]) == (2, [1, 3])
    assert found[SYNTHETIC]["traditional"] != whole[SYNTHETIC]["traditional"]
    assert found[BASELINE]["traditional"] == whole[BASELINE]["traditional"]
    perfect = {arm: {k: [labels.astype(np.float32)] for k in range(3)} for arm in (TRADITIONAL, SYNTHETIC)}
    for key, mean in {"auc": 1.0, "traditional": 0.0}.items():
        assert intervals.compare(labels, perfect)[SYNTHETIC][key] == {
            "mean": mean,
            "low": None,
            "high": None,
            "p": None,
        }
    one = intervals.compare(*made_scores(shift=0.5, subsets=1, seeds=3))[SYNTHETIC]["traditional"]
    assert one["low"] < one["mean"] < one["high"] and one["p"] is None


def test_patches_of_a_slide_are_taken_together():
    rng = np.random.default_rng(0)
    made = clusters.simulate(rng, slides=30, patches=20)
    other = [made.scores + rng.normal(size=len(made.labels)) * 0.1 for _ in range(3)]
    scores = {SYNTHETIC: {k: [s] for k, s in enumerate(other)}}
    alone, slides = (intervals.assemble(made.labels, scores, groups, {}) for groups in (None, made.groups))
    width = [np.ptp([x["rows"][0]["auc"][end] for end in ("low", "high")]) for x in (alone, slides)]
    assert width[1] > 1.5 * width[0] and (alone["slides"], slides["slides"]) == (None, 30)
    assert "by slide (30 slides)" in intervals.caution(slides) and "too narrow" in intervals.caution(alone)
    (row,) = slides["design"]
    assert alone["design"] is None and row["traditional"] is None, "there is no traditional arm"
    by_hand = [clusters.design(made.labels, s, groups=made.groups) for s in other]
    assert row["auc"]["icc"] == pytest.approx(np.mean([d.icc for d in by_hand])) and row["auc"]["icc"] > 0.02
    assert row["auc"]["effective"] == pytest.approx(len(made.labels) / np.mean([d.effect for d in by_hand]))
    one = intervals.assemble(made.labels, scores, np.where(made.labels == 1, 0, made.groups + 1), {})
    assert one["slides"] is None and one["groups"] is None, "all positives on one slide: no spread over slides"
    assert len(set(slides["groups"])) == 30 and alone["groups"] is None


def test_what_slides_do_to_a_difference_is_told_beside_what_they_do_to_an_auc():
    made = clusters.simulate(np.random.default_rng(1), slides=30, patches=20)
    same = {k: [made.reference] for k in (0, 1)}
    scores = {TRADITIONAL: same, SYNTHETIC: {0: [made.scores], 1: [made.reference]}, BASELINE: same}
    found = {row["arm"]: row for row in intervals.assemble(made.labels, scores, made.groups, {})["design"]}
    one = clusters.design(made.labels, made.scores, groups=made.groups, reference=made.reference)
    assert found[SYNTHETIC.name]["traditional"]["effect"] == pytest.approx(one.effect), "equal scores tell nothing"
    assert found["baseline"]["traditional"] is None and found["traditional"]["traditional"] is None
    assert found["baseline"]["auc"] == found["traditional"]["auc"]


@pytest.fixture
def run(tmp_path, pcam):
    """A made-up run of two subsets on the tiny PCam files, with scores beside two classifiers and two probes."""
    root = made_up.write_run(tmp_path / "run")
    labels, rng = data.labels(pcam, "test"), np.random.default_rng(0)
    for k in (0, 1):
        for arm, gain in (("traditional", 0.5), ("transfer-unet-realism", 2.0)):
            for device in ("classifiers", "probes"):
                folder = root / f"subset-{k}" / device / arm
                folder.mkdir(parents=True)
                scores = ((gain + (device == "probes")) * labels + rng.normal(size=len(labels))).astype(np.float32)
                save_file({"test": scores}, folder / inference.SCORES)
    s = study.Study(pcam, "made-up", "d0", None, 0, root, None, None, None, None, 0.0)
    return s, load(root, 2)


def test_a_runs_intervals_are_kept_with_their_scale_a_device_each(run):
    s, df = run
    kept = {}
    for device in frame.DEVICES:
        kept[device] = intervals.evaluate(s, frame.by_device(df, device), 2)
        assert read_json(intervals.path_of(s.root, 2, device)) == kept[device]
        assert kept[device]["provenance"]["subsets"] == [0, 1] and kept[device]["test_n"] == 32
        found = intervals.table(kept[device], "traditional")
        (row,) = [row for row in kept[device]["rows"] if row["traditional"]]
        assert list(found.index) == [SYNTHETIC.name] and found["q"].item() == row["traditional"]["p"]
        (power,) = kept[device]["power"]
        assert power["arm"] == SYNTHETIC.name and power["subsets"] == 2 and power["seed"] is None
    assert kept["probe"]["rows"] != kept["classification"]["rows"]
    assert intervals.table(None, "auc").empty and intervals.table(kept["probe"], AGAIN.name).empty


def test_runs_without_scores_have_no_intervals_and_damage_is_named(run, tmp_path):
    s, df = run
    path = s.root / "subset-0" / "classifiers" / "traditional" / inference.SCORES
    path.write_bytes(b"torn")
    with pytest.raises(StudyError, match="is damaged .* run notebook 07 again"):
        intervals.evaluate(s, frame.by_device(df, "classification"), 2)
    bare = study.Study(
        s.data_root, "made-up", "d0", None, 0, made_up.write_run(tmp_path / "bare"), None, None, None, None, 0.0
    )
    assert intervals.evaluate(bare, df, 2) is None
