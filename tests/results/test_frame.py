"""The frame of results: CSV and back, and means and differences against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up import edit, measured, provenance, write_run

from pcamlib.core.errors import StudyError
from pcamlib.report import auc_tables, quality_tables, tables
from pcamlib.results import frame, load
from pcamlib.results.arms import BASELINE, TRADITIONAL, Arm


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "phantom-demo")


def test_csv_gives_back_an_equal_frame(run, tmp_path):
    (run / "subset-1/results/quality.json").unlink()
    df = load(run, 2)
    df.loc[0, "value"] = 0.1 + 0.2
    df.loc[1, ["value", "reason"]] = [5e-324, 'a "reason", with\na line; nan']
    frame.write(df, tmp_path / "results.csv")
    pd.testing.assert_frame_equal(frame.read(tmp_path / "results.csv"), df, check_exact=True)


@pytest.mark.parametrize("text", [None, "", "a,b\n1,2\n", "kind,subset\nquality,one\n", b"\xff\xfe"])
def test_a_foreign_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "results.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError, match="results.csv .* run notebook 08 again"):
        frame.read(path)


def test_mean_and_sd_by_hand():
    df = measured({BASELINE: [1, 2, 4], TRADITIONAL: [0.5, None, None]})
    found = frame.summary(df, "auc")
    assert found.loc["baseline", "mean"] == pytest.approx(7 / 3)
    assert found.loc["baseline", "sd"] == pytest.approx((42 / 18) ** 0.5)  # squares 16/9 + 1/9 + 25/9 over n - 1 = 2
    assert found.loc["traditional", ["mean", "n"]].tolist() == [0.5, 1]
    assert np.isnan(found.loc["traditional", "sd"]), "unknown, not zero"
    assert frame.summary(df, "fid").empty


def test_seeds_of_a_subset_are_averaged_first():
    df = measured({BASELINE: [0.6, 0.9], BASELINE._replace(seed=1): [0.8, None]})
    assert frame.by_subset(df, "auc")["baseline"].tolist() == pytest.approx([0.7, 0.9])


def test_differences_are_paired_and_of_common_subsets_only():
    df = measured(
        {BASELINE: [0.80, 0.60, None], TRADITIONAL: [None, 0.63, 0.99], Arm("double-real"): [0.9, None, None]}
    )
    found = frame.differences(df, BASELINE)
    assert list(found) == ["double-real", "traditional"]
    assert found["traditional"].dropna().to_dict() == pytest.approx({1: 0.03})
    assert frame.differences(df, Arm("transfer-real")).empty


def test_feature_spaces_are_never_averaged(run):
    df = load(run, 2)
    fid = frame.summary(df, "fid", "judge-b").loc["quality-dit-realism"]
    assert fid[["mean", "sd"]].tolist() == pytest.approx([455, 50**0.5])
    with pytest.raises(ValueError, match="several feature spaces"):
        frame.summary(df, "fid")


def test_provenance_counts_each_file_once(run):
    (run / "subset-1/results/quality.json").unlink()
    merged = frame.merged_provenance(load(run, 2))
    assert merged["seconds"] == (2 * 19 - 1) * 10 and merged["subsets"] == [0, 1]
    note = frame.provenance_note(merged)
    for part in ("phantom (procedural", "profile demo", "2 subsets of 256", "cpu", "6 min 10 s", "0.1.0+abc"):
        assert part in note
    with pytest.raises(StudyError, match="no results to state a provenance for"):
        frame.merged_provenance(frame.tidy([]))


def test_mixtures_are_told_where_numbers_are_shown(run):
    plain = frame.provenance_note(frame.merged_provenance(load(run, 2)))
    assert "Mixed" not in plain
    other = {"version": "0.1.0+abc and 0.1.0+def", "threads": 2, "processor": "another", "device": "a GPU"}
    edit(run / "subset-1/results/quality.json", lambda content: content["provenance"].update(other))
    df = load(run, 2)
    note = frame.provenance_note(frame.merged_provenance(df))
    mixed = "Mixed: 2 versions of the code, 2 thread counts, 2 devices, 2 processors."
    assert note.endswith(f" {mixed}")
    assert mixed in tables.provenance_sentence(df, "quality") and mixed in quality_tables.table_1(df, "judge-a").notes
    assert "Mixed" not in auc_tables.table_2(df).notes, "the classifiers are all of one kind"
    arm = df.assign(version="0.1.0+abc", arm_version=["0.1.0+xyz", *[None] * (len(df) - 1)])
    assert "Mixed: 2 versions" in frame.provenance_note(frame.merged_provenance(arm))
    one = frame.provenance_note(provenance(0, version="0.1.0+abc and 0.1.0+def"))
    assert one.endswith("Mixed: 2 versions of the code.")


def test_provenance_of_one_file():
    note = frame.provenance_note(provenance(3, data="pcam-slice", phantom=False, classes=["benign", "malignant"]))
    assert note.startswith(
        'Data: pcam-slice ("no tumour" is benign, "tumour" is malignant); profile demo; subset 3 of 256'
    )


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (11400, "3 h 10 min")]
)
def test_duration(seconds, text):
    assert frame.duration(seconds) == text
