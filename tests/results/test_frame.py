"""Collecting results, and the statistics, against values worked out by hand."""

from __future__ import annotations

import pytest
from made_up import arm_row, edit, not_run, provenance, write_run

from pcamlib.core.errors import StudyError
from pcamlib.results import frame
from pcamlib.results.frame import BASELINE, TRADITIONAL


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "phantom-demo")


def classification(*values: dict[str, float | None]) -> list[dict]:
    """Rows of baseline, traditional and one more arm from a dict per subset; None is "not run"."""
    rows = []
    for subset, by_regime in enumerate(values):
        for regime, value in by_regime.items():
            row = arm_row(regime, None, None, subset) | {
                "kind": "classification",
                "subset": subset,
                "auc": value,
            }
            rows.append(row | {"status": "ok" if value is not None else "not run"})
    return rows


def test_mean_sd_by_hand():
    mean, sd, values = frame.mean_sd([1, 2, 4])
    assert mean == pytest.approx(7 / 3)
    assert sd == pytest.approx((42 / 18) ** 0.5)  # squares 16/9 + 1/9 + 25/9 over n - 1 = 2
    assert values == (1, 2, 4)


def test_sd_of_one_value_is_unknown_not_zero():
    assert frame.mean_sd([0.5]) == (0.5, None, (0.5,))
    with pytest.raises(ValueError, match="at least one"):
        frame.mean_sd([])


def test_paired_by_hand():
    rows = classification(
        {"baseline": 0.80, "traditional": 0.81},
        {"baseline": 0.60, "traditional": 0.62},
        {"baseline": 0.90, "traditional": 0.93},
    )
    result = frame.paired(rows, TRADITIONAL, BASELINE)
    assert result.mean == pytest.approx(0.02)
    assert result.sd == pytest.approx(0.01)
    assert result.values == pytest.approx({0: 0.01, 1: 0.02, 2: 0.03})
    half = 4.302652729911275 * 0.01 / 3**0.5  # t quantile 0.975 with 2 degrees of freedom, from a table
    assert (result.low, result.high) == pytest.approx((0.02 - half, 0.02 + half))


def test_paired_uses_common_subsets_only():
    rows = classification(
        {"baseline": 0.80, "traditional": None},
        {"baseline": 0.60, "traditional": 0.63},
        {"traditional": 0.99},
    )
    result = frame.paired(rows, TRADITIONAL, BASELINE)
    assert result.values == pytest.approx({1: 0.03})
    assert (result.sd, result.low, result.high) == (None, None, None)
    assert frame.paired(rows[:2], TRADITIONAL, BASELINE) is None


def test_two_subsets_have_no_interval():
    rows = classification({"baseline": 0.8, "traditional": 0.81}, {"baseline": 0.8, "traditional": 0.83})
    result = frame.paired(rows, TRADITIONAL, BASELINE)
    assert result.sd == pytest.approx(0.02 / 2**0.5)
    assert (result.low, result.high) == (None, None)


def test_collect_complete(run):
    rows = frame.collect(run, 2)
    assert len(frame.of_kind(rows, "quality")) == 2 * 2 * 11
    assert len(frame.of_kind(rows, "classification")) == 2 * (27 + 5)
    assert len(frame.of_kind(rows, "selection")) == 2 * 9
    assert frame.extractors(rows) == ["judge-a", "judge-b"]
    assert frame.missing(run, 2) == []
    fid = frame.summary(frame.of_kind(rows, "quality"), ("quality", "dit", "realism"), "fid", "judge-b")
    assert (fid.mean, fid.sd) == pytest.approx((455, 50**0.5))


def test_an_absent_file_and_a_row_not_run_are_legal(run):
    (run / "subset-1/results/classification-dit.json").unlink()
    not_run(run / "subset-0/results/classification-unet.json", regime="transfer", selection="class")
    rows = frame.collect(run, 2)
    assert frame.missing(run, 2) == ["subset-1/results/classification-dit.json"]
    assert len(frame.summary(rows, ("transfer", "dit", "none"), "auc").values) == 1
    assert list(frame.per_subset(rows, ("transfer", "unet", "class"), "auc")) == [1]


def test_a_subset_without_results(run):
    with pytest.raises(StudyError, match=r"subset-2/results holds no results.*-p subset 2"):
        frame.collect(run, 3)
    with pytest.raises(StudyError, match="subsets is 0"):
        frame.collect(run, 0)


@pytest.mark.parametrize("key", ["data_sha", "profile_sha"])
@pytest.mark.parametrize("name", ["quality.json", "classification-dit.json", "selection-unet.json"])
def test_mixed_scales_are_refused_by_name(run, key, name):
    path = edit(run / "subset-1/results" / name, lambda content: content["provenance"].update({key: "other"}))
    with pytest.raises(StudyError) as error:
        frame.collect(run, 2)
    assert str(path) in str(error.value) and key in str(error.value)


def test_mixed_extractors_and_judges_are_refused(run):
    def rename(content):
        for row in content["rows"]:
            row["extractor"] = row["extractor"].replace("judge-b", "inception")
        content["judge"]["inception"] = "about inception"

    path = run / "subset-1/results/quality.json"
    original = path.read_text()
    edit(path, rename)
    with pytest.raises(StudyError, match="quality extractors is .*inception"):
        frame.collect(run, 2)
    path.write_text(original)
    edit(path, lambda content: content["judge"].update({"judge-a": "trained for longer"}))
    with pytest.raises(StudyError, match="judge judge-a is 'trained for longer'"):
        frame.collect(run, 2)
    path.write_text(original)
    edit(run / "subset-1/results/selection-dit.json", lambda content: content.update(extractor="other"))
    with pytest.raises(StudyError, match="selection extractor is 'other'"):
        frame.collect(run, 2)


def test_a_copied_subset_is_noticed(run):
    path = run / "subset-1/results/quality.json"
    path.write_text((run / "subset-0/results/quality.json").read_text())
    with pytest.raises(StudyError, match="says that it is of subset 0"):
        frame.collect(run, 2)


@pytest.mark.parametrize("value", [93.2, -0.1, None, "0.9"])
def test_numbers_out_of_range_are_refused(run, value):
    path = run / "subset-0/results/classification-real.json"
    edit(path, lambda content: content["rows"][0].update(auc=value))
    with pytest.raises(StudyError, match=r"classification-real.json: auc is .* not a number in its range"):
        frame.collect(run, 1)


def test_an_arm_twice_is_refused(run):
    path = run / "subset-0/results/classification-dit.json"
    edit(path, lambda content: content["rows"].append(content["rows"][0]))
    with pytest.raises(StudyError, match="repeats an arm"):
        frame.collect(run, 1)


@pytest.mark.parametrize(
    "text, message", [("{", "not valid JSON"), ("[]", "form of a result file"), ("{}", "provenance")]
)
def test_damaged_files_are_named(run, text, message):
    path = run / "subset-0/results/quality.json"
    path.write_text(text)
    with pytest.raises(StudyError, match=message) as error:
        frame.collect(run, 1)
    assert str(path) in str(error.value)


def test_scale_counts_each_file_once(run):
    rows = frame.collect(run, 2)
    merged = frame.merged_provenance(rows)
    assert merged["seconds"] == 2 * 13 * 10
    assert merged["subsets"] == [0, 1]
    note = frame.provenance_note(merged)
    for part in ("phantom (procedural", "profile demo", "2 subsets of 256", "cpu", "4 min 20 s", "0.1.0+abc"):
        assert part in note
    with pytest.raises(StudyError, match="no results to state a scale for"):
        frame.merged_provenance([])


def test_scale_note_of_one_file():
    note = frame.provenance_note(provenance(3, data="pcam-slice", phantom=False))
    assert note.startswith("Data: pcam-slice; profile demo; subset 3 of 256 patches")


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (11400, "3 h 10 min")]
)
def test_duration(seconds, text):
    assert frame.duration(seconds) == text
