"""Inference: against values by hand, against SciPy and scikit-free brute force, and for coverage on made-up truth."""

from __future__ import annotations

import time

import made_up
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import stats as scipy_stats

from pcamlib import data, metrics, study
from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json
from pcamlib.results import inference, load
from pcamlib.results.arms import BASELINE, TRADITIONAL, Arm

SYNTHETIC = Arm("transfer", "unet", "realism")


def test_over_subsets_is_the_one_sample_t_test():
    values = [0.01, 0.03, 0.02, 0.05]
    found = inference.over_subsets(values)
    reference = scipy_stats.ttest_1samp(values, 0)
    interval = reference.confidence_interval()
    assert (found.p, found.low, found.high) == pytest.approx((reference.pvalue, interval.low, interval.high))
    assert inference.hedges(9) == pytest.approx(1 - 3 / (4 * 9 - 1), abs=1e-3), "the usual approximation"
    assert found.effect == pytest.approx(np.mean(values) / np.std(values, ddof=1) * np.sqrt(np.pi / 6))
    assert inference.over_subsets([0.1, 0.2]).effect is None
    assert inference.over_subsets([0.1]) is None
    same = inference.over_subsets([0.1, 0.1, 0.1])
    assert (same.low, same.high, same.p, same.effect) == (-np.inf, np.inf, 0.25, None), (
        "sign flips have at best 2 / 2^3"
    )
    assert inference.over_subsets([0.0, 0.0]).p == 1


@pytest.mark.parametrize(
    "values", [[0.05] * 3, np.float32([0.85, 0.75, 0.65]) - np.float32([0.8, 0.7, 0.6]), [0.05, 0.050002, 0.05]]
)
def test_no_spread_is_no_certainty(values):
    """Equal differences, those of float32 metrics (equal but for rounding), and a spread that is printed as 0.00."""
    found = inference.over_subsets([float(v) for v in values])
    assert (found.low, found.high, found.p, found.flip_p) == (-np.inf, np.inf, 0.25, 0.25)
    arms = {BASELINE: [0.8, 0.7, 0.6], TRADITIONAL: [0.8 + values[0], 0.7 + values[1], 0.6 + values[2]]}
    line = inference.compared(made_up.measured(arms), BASELINE).loc["traditional"]
    assert line["mean"] == pytest.approx(0.05, abs=1e-5) and line["n"] == 3
    assert (line["low"], line["high"], line["p"]) == (-np.inf, np.inf, 0.25) and np.isnan(line["effect"])


@pytest.mark.parametrize("n, least", [(2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_sign_flips_cannot_fall_below_their_least(n, least):
    assert inference.sign_flip(np.linspace(1, 2, n)) == pytest.approx(least)
    assert inference.sign_flip([-v for v in np.linspace(1, 2, n)]) == pytest.approx(least)


def test_sign_flips_by_hand():
    assert inference.sign_flip([3, -1]) == 1.0  # sums +-4, +-2: 2 is reached by all four
    assert inference.sign_flip([4, 2, -1]) == pytest.approx(0.5)  # |sum| >= 5: 7 and 5, either sign
    with pytest.raises(ValueError, match="17 values"):
        inference.sign_flip(range(17))
    assert inference.over_subsets(range(17)).flip_p is None


def test_welch_is_scipys():
    reference = scipy_stats.ttest_ind_from_stats(93.54, 0.38, 5, 92.99, 0.26, 5, equal_var=False)
    found = inference.welch([(1, 93.54, 0.38), (-1, 92.99, 0.26)], 5)
    assert found.p == pytest.approx(reference.pvalue)
    assert found.low < 0.55 < found.high and found.mean == pytest.approx(0.55)
    exact = inference.welch([(1, 0.02, 0.0), (-1, 0.01, 0.0)], 5)
    assert exact == inference.welch([(1, 0.02, 5e-5), (-1, 0.01, 5e-5)], 5), "printed as 0.00, so at most 0.005 %"
    assert exact.low < 0.01 < exact.high and 0 < exact.p < 1e-6


def test_false_discovery_by_hand():
    p = {Arm("a"): 0.01, Arm("b"): 0.04, Arm("c"): 0.03}
    assert list(inference.false_discovery(p).values()) == pytest.approx([0.03, 0.04, 0.04])
    assert inference.false_discovery({}) == {}


def test_sure_differences_of_one_kind_of_arm_make_no_room_for_another():
    mixed = {Arm("transfer", "unet", s): p for s, p in zip(("none", "realism", "class"), (0.04, 0.5, 0.9))}
    alone = {Arm("synthetic", g, s): 0.001 for g in ("unet", "dit", "histogan") for s in ("none", "realism", "class")}
    found = inference.false_discovery(alone | mixed)
    assert {arm: found[arm] for arm in mixed} == inference.false_discovery(mixed)
    assert found[Arm("transfer", "unet", "none")] == pytest.approx(0.12) and list(found) == [*alone, *mixed]


def test_resampled_auc_is_the_auc_of_the_resampled_patches():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = (rng.integers(0, 12, 60) / 12 + 0.1 * labels).round(1).astype(np.float32)  # many ties
    counts = inference.patch_counts(labels, 5, rng)
    assert (counts[labels == 1].sum(0) == labels.sum()).all() and (counts.sum(0) == 60).all()
    found = inference.resampled_auc(labels, scores, counts)
    for column, auc in zip(counts.T, found):
        drawn = np.repeat(np.arange(60), column)
        positive, negative = scores[drawn][labels[drawn] == 1], scores[drawn][labels[drawn] == 0]
        brute = np.mean((positive[:, None] > negative) + 0.5 * (positive[:, None] == negative))
        assert auc == pytest.approx(brute, abs=1e-12)
    once = inference.resampled_auc(labels, scores, np.ones((60, 1), int))
    assert once[0] == pytest.approx(metrics.classification_metrics(labels, scores.clip(0, 1))["auc"], abs=0.02)
    with pytest.raises(ValueError, match="lacks a class"):
        inference.resampled_auc(labels, scores, (labels == 1).astype(int)[:, None])


def made_scores(shift: float, n: int = 400, subsets: int = 3, seeds: int = 1, seed: int = 0):
    """Scores of three arms that share what makes a patch hard; SYNTHETIC tells the classes apart better by `shift`."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], n // 2)
    hard = rng.normal(size=n)
    gain = {BASELINE: 0.5, TRADITIONAL: 1.0, SYNTHETIC: 1.0 + shift}
    scores = {
        arm: {k: [(g * labels + hard + 0.5 * rng.normal(size=n)).astype(np.float32) for _ in range(seeds)] for k in range(subsets)}
        for arm, g in gain.items()
    }  # fmt: skip
    return labels, scores


def test_the_bootstrap_sees_a_difference_and_not_its_absence():
    found = inference.bootstrap(*made_scores(shift=0.5), draws=500)
    better = found[SYNTHETIC]["traditional"]
    assert 0 < better["low"] < better["mean"] < better["high"] and better["p"] < 0.01
    assert found[SYNTHETIC]["baseline"]["low"] > better["low"]
    assert found[TRADITIONAL]["traditional"] is None and found[TRADITIONAL]["auc"]["p"] is None
    same = inference.bootstrap(*made_scores(shift=0.0), draws=500)[SYNTHETIC]["traditional"]
    assert same["low"] < 0 < same["high"] and same["p"] > 0.05


def test_one_subset_has_an_interval_of_seeds_and_patches_and_no_p_value():
    found = inference.bootstrap(*made_scores(shift=0.5, subsets=1, seeds=3), draws=100)[SYNTHETIC]["traditional"]
    assert found["low"] < found["mean"] < found["high"] and found["p"] is None


def test_few_subsets_do_not_make_it_too_sure():
    """Training noise alone, far above that of the patches: no arm differs, and p < 0.05 is rare."""
    rng, labels = np.random.default_rng(0), np.tile([0, 1], 400)
    hard, arms = rng.normal(size=800), [Arm("transfer", str(i), "none") for i in range(8)]
    called = 0
    for _ in range(12):
        scores = {
            arm: {k: [(rng.normal(1, 0.15) * labels + hard).astype(np.float32)] for k in range(3)}
            for arm in [TRADITIONAL, *arms]
        }
        found = inference.bootstrap(labels, scores, draws=200)
        called += sum(found[arm]["traditional"]["p"] < 0.05 for arm in arms)
    assert called <= 10, "of 96"


def test_draws_without_spread_have_no_interval():
    """Two perfect classifiers: every draw has the same AUC, and the same difference."""
    labels = np.tile([0, 1], 50)
    scores = {arm: {k: [labels.astype(np.float32)] for k in range(3)} for arm in (BASELINE, TRADITIONAL, SYNTHETIC)}
    found = inference.bootstrap(labels, scores, draws=50)[SYNTHETIC]
    for key, mean in {"auc": 1.0, "traditional": 0.0}.items():
        assert found[key] == {"mean": mean, "low": None, "high": None, "p": None}


def test_pairing_makes_it_surer():
    labels, scores = made_scores(shift=0.2, subsets=8)
    found = inference.bootstrap(labels, scores, draws=500)
    width = {key: found[SYNTHETIC][key]["high"] - found[SYNTHETIC][key]["low"] for key in ("auc", "traditional")}
    assert width["traditional"] < 0.8 * width["auc"], "what makes a patch hard is common to both arms"


def test_the_bootstrap_is_deterministic_and_takes_seeds_and_gaps():
    labels, scores = made_scores(shift=0.1, seeds=3)
    del scores[SYNTHETIC][1]
    scores[SYNTHETIC][0] = scores[SYNTHETIC][0][:1]
    first, second = (inference.bootstrap(labels, scores, draws=300) for _ in range(2))
    assert first == second
    assert (first[SYNTHETIC]["subsets"], first[SYNTHETIC]["seeds"]) == (2, [1, 3])
    assert np.isfinite([first[SYNTHETIC][key]["low"] for key in ("auc", "baseline", "traditional")]).all()
    only = inference.bootstrap(labels, {SYNTHETIC: scores[SYNTHETIC]}, draws=50)
    assert only[SYNTHETIC]["traditional"] is None


def test_a_full_study_takes_seconds():
    """32 arms of 5 subsets at 3,000 test patches, a tenth of the draws."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 1500)
    arms = [BASELINE, TRADITIONAL, *(Arm("transfer", str(i), "none") for i in range(30))]
    scores = {arm: {k: [rng.random(3000, np.float32)] for k in range(5)} for arm in arms}
    started = time.process_time()
    inference.bootstrap(labels, scores, draws=100)
    assert time.process_time() - started < 5


@pytest.fixture
def run(tmp_path, pcam):
    """A made-up run of two subsets on the tiny PCam files, with scores beside two arms."""
    root = made_up.write_run(tmp_path / "run")
    labels, rng = data.labels(pcam, "test"), np.random.default_rng(0)
    for k in (0, 1):
        for arm, gain in (("traditional", 0.5), ("transfer-unet-realism", 2.0)):
            folder = root / f"subset-{k}" / "classifiers" / arm
            folder.mkdir(parents=True)
            save_file(
                {"test": (gain * labels + rng.normal(size=len(labels))).astype(np.float32)}, folder / inference.SCORES
            )
    s = study.Study(pcam, "made-up", "d0", None, 0, root, None, None, None, 0.0)
    return s, load(root, 2)


def test_a_runs_bootstrap_is_kept_with_its_scale(run):
    s, rows = run
    result = inference.evaluate(s, rows, 2, draws=200)
    assert read_json(s.root / "results" / "bootstrap-2.json") == result
    assert result["provenance"]["subsets"] == [0, 1] and result["test_n"] == 32
    found = inference.intervals(result, "traditional")
    (row,) = [row for row in result["rows"] if row["traditional"]]
    assert list(found.index) == [SYNTHETIC.name] and found["q"].item() == row["traditional"]["p"]
    assert inference.intervals(None, "auc").empty


def test_runs_without_scores_have_no_bootstrap_and_damage_is_named(run, tmp_path):
    s, rows = run
    path = s.root / "subset-0" / "classifiers" / "traditional" / inference.SCORES
    path.write_bytes(b"torn")
    with pytest.raises(StudyError, match="is damaged .* run notebook 07 again"):
        inference.evaluate(s, rows, 2)
    bare = study.Study(
        s.data_root, "made-up", "d0", None, 0, made_up.write_run(tmp_path / "bare"), None, None, None, 0.0
    )
    assert inference.evaluate(bare, rows, 2) is None


def test_compared_pairs_over_subsets(run):
    found = inference.compared(run[1], TRADITIONAL)
    assert len(found) == 31 and found.loc["baseline", "mean"] == pytest.approx(-0.05)
    assert found.loc["baseline", "p"] == 0.5, "equal in both subsets"
