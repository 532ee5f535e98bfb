"""Table 1, the measures beside it, and memorisation."""

from __future__ import annotations

import pytest
from made_up import edit, memorisation_row, not_run, write_run

from pcamlib.core import paper
from pcamlib.report import quality_tables
from pcamlib.report.tables import HEADINGS
from pcamlib.results import load
from pcamlib.results.arms import PLANTED, generators_of

FID = HEADINGS["fid"]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "phantom-demo")


@pytest.fixture
def df(run):
    return load(run, 2)


def test_table_1_has_the_papers_rows_then_calibration(df):
    data = quality_tables.table_1(df, "judge-a").data
    assert list(data.index.get_level_values(1)) == ["HistoGAN", "U-Net", "DiT"] * 3 + list(
        quality_tables.CALIBRATION.values()
    )
    assert list(data.index.get_level_values(0)[:9:3]) == list(paper.SELECTION_HEADINGS.values())
    row = data.loc[("Realism score", "DiT")]
    assert row[FID] == "45.50 ± 0.71"  # 45 and 46
    assert row[HEADINGS["precision"]] == "50.00 ± 0.00" and row["Images judged"] == "250"
    printed = quality_tables.paper_table_1()
    assert printed.data.loc[("Realism score", "DiT"), FID] == "40.02 ± 1.78" and len(printed.data) == 9
    assert list(printed.data) == list(data)[1:], "the same columns, so that they can be laid beside each other"


def test_kid_density_coverage_and_acceptance_have_a_table(df):
    table = quality_tables.table_1_more(df, "judge-a")
    assert table.data.loc[("Realism score", "DiT")].tolist() == [
        "12.50 ± 0.00", "1.10 ± 0.00", "90.00 ± 0.00", "75.00 ± 0.00",
    ]  # fmt: skip
    assert "subsets of 125 images" in table.notes and "at most 0.30" in table.notes
    assert "k = 3, a sphere includes its surface" in table.notes and "Vendi" not in table.notes
    second = quality_tables.table_accepted(df)
    assert second.data.loc[("Realism score", "DiT")].tolist() == ["75.00 ± 0.00", "43.00 ± 0.00"]
    assert len(second.data) == 6 and "gatekeeper" in second.notes
    assert len(quality_tables.of_judge(df, "judge-a")) == 2, "these results have no distances by class"
    assert second.line.startswith(
        "Mean ± standard deviation over 2 subsets; phantom (no tissue), 256 patches; profile demo;"
    )


def test_later_measures_have_columns_and_say_why_one_is_missing(run):
    def add(content):
        for row in content["rows"]:
            row |= {"fid_0": 12.0, "fid_1": 7.0, "fid_held_out": 60.0, "vendi": 30.5, "fid_infinity": None}
            if row["generator"] == "real":
                row["fid_infinity"] = -0.25

    for k in (0, 1):
        edit(run / f"subset-{k}/results/quality.json", add)
    results = load(run, 2)
    _, more, data = (table.data for table in quality_tables.of_judge(results, "judge-a"))
    row = data.loc[("No image selection", "DiT")]
    assert row[:2].tolist() == ["12.00 ± 0.00", "7.000 ± 0.000"]
    assert row[HEADINGS["fid_infinity"]] == "not run: fewer images than dimensions"
    assert row[HEADINGS["fid_held_out"]] == "60.00 ± 0.00"
    assert more.loc[("No image selection", "DiT"), HEADINGS["vendi"]] == "30.50 ± 0.00"
    real = data.loc[("Calibration (ours)", quality_tables.CALIBRATION["real"])]
    assert real[HEADINGS["fid_infinity"]] == "-0.250 ± 0.000"


def test_memorisation_table_has_the_controls_and_each_subsets_p(df):
    table = quality_tables.table_memorisation(df)
    first, second, ratio = table.data.columns.levels[0][[3, 0, 2]]
    row = table.data.loc[("Controls", "Reconstructions of training patches (everything is)")]
    assert row[first].tolist() == ["98.00 ± 0.00", "< 0.001, < 0.001"] and row[ratio].tolist() == ["0.10"]
    assert table.data.loc[("Class-based realism score", "U-Net"), (second, "mean ± sd")] == "30.00 ± 0.00"
    assert len(table.data) == 11 and "50.0 %" in table.notes
    nothing = quality_tables.table_memorisation(df[df["kind"] != "memorisation"])
    assert set(nothing.data.to_numpy().ravel()) == {"not run"}


def test_planted_copies_are_lines_of_the_memorisation_table(run, df):
    assert "Planted" not in quality_tables.table_memorisation(df).notes
    row = memorisation_row("real", None)
    planted = [row | {"generator": name, "nearer_train_p": p} for name, p in zip(PLANTED, (0.3, 0.04, 0.001))]
    for k in (0, 1):
        edit(run / f"subset-{k}/results/memorisation.json", lambda content: content["rows"].extend(planted))
    results = load(run, 2)
    table = quality_tables.table_memorisation(results)
    assert generators_of(results) == list(paper.GENERATORS) and len(table.data) == 14
    limit = table.data.loc[("Controls", "Validation patches with 10 % planted copies")]
    assert limit.xs("p, each subset", level=1).iloc[0] == "0.040, 0.040" and "Planted copies" in table.notes


def test_two_extractors_never_share_a_table(df):
    a, b = (quality_tables.table_1(df, judge) for judge in ("judge-a", "judge-b"))
    assert a.data.loc[("No image selection", "U-Net"), FID] == "50.50 ± 0.71"
    assert b.data.loc[("No image selection", "U-Net"), FID] == "505.00 ± 7.07"
    assert "judge-b" not in a.title + a.notes and "judge-b (about judge-b)" in b.notes and "judge-b" in b.title


def test_without_quality_every_cell_says_so(run, df):
    data = quality_tables.table_1(df[df["kind"] != "quality"], "judge-a").data
    assert len(data) == 11 and set(data.to_numpy().ravel()) == {"not run"}
    not_run(run / "subset-1/results/quality.json", generator="dit", selection="class")
    data = quality_tables.table_1(load(run, 2), "judge-a").data
    assert data.loc[("Class-based realism score", "DiT"), FID] == "46.00 (n = 1)"


def test_label_content_table_states_what_was_not_run(run):
    def change(content):
        content["rows"][-1] = {"generator": "dit", "status": "not run", "reason": "a class has no image"}
        content["rows"][0] |= {"apart_half": None, "apart_full": None}

    for k in (0, 1):
        edit(run / f"subset-{k}/results/label-content.json", change)
    edit(run / "subset-1/results/label-content.json", lambda content: content["rows"][3].update(full=0.85))
    table = quality_tables.table_label_content(load(run, 2))
    real = table.data.loc["The subset's real patches"].tolist()
    assert real == ["70.00 ± 0.00", "80.00 ± 0.00", "90.00 ± 0.00", "not run", "not run"]
    assert table.data.loc["U-Net", ("Trained on these, AUC on test patches, %", "96 px")] == "80.00 ± 7.07"
    assert set(table.data.loc["DiT"]) == {"not run"} and "DiT: not run, a class has no image." in table.notes
    assert (
        "1,024 real patches" in table.notes and "250 images a set" in table.notes and "a frozen network" in table.notes
    )


def test_known_labels_table_has_both_rates(run):
    def nothing_passes(content):
        content["rows"][1] |= {"right": 0.0, "wrong": 0.0, "realism": 0.0, "kept_right": None}

    for k in (0, 1):
        edit(run / f"subset-{k}/results/known-labels.json", nothing_passes)
    table = quality_tables.table_known_labels(load(run, 2))
    both = table.data.loc["both classes"].tolist()
    assert both == ["80.00 ± 0.00", "20.00 ± 0.00", "85.00 ± 0.00", "80.00 ± 0.00"]
    assert table.data.loc["tumour"].tolist() == ["0.00 ± 0.00"] * 3 + ["–"]
    assert "256 real patches" in table.notes and "Features of gatekeeper (a gate; patches: rows), k = 3" in table.notes
    for k in (0, 1):
        (run / f"subset-{k}/results/known-labels.json").unlink()
    assert set(quality_tables.table_known_labels(load(run, 2)).data.to_numpy().ravel()) == {"not run"}
