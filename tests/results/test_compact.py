"""Two small CSV files and back: an equal frame, small files, and foreign ones refused by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up import edit, write_curves, write_run

from pcamlib.core.errors import StudyError
from pcamlib.results import compact, curves, load
from pcamlib.results.loading import ONE_CLASS


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "phantom-demo")


def test_two_files_give_back_an_equal_frame(run, tmp_path):
    (run / "subset-1/results/quality.json").unlink()
    df = load(run, 2)
    df.loc[0, "value"] = 0.1 + 0.2
    df.loc[1, ["value", "reason"]] = [5e-324, 'a "reason", with\na line; nan']
    df = df.drop(index=[200, 201])  # lines that are not there stay away
    compact.write(df.reset_index(drop=True), tmp_path / "results.csv")
    found = compact.read(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(found, df.reset_index(drop=True), check_exact=True)


@pytest.mark.slow
def test_twenty_subsets_of_both_devices_stay_below_a_megabyte(run, tmp_path):
    one = load(run, 1)
    rng = np.random.default_rng(0)
    many = []
    for k in range(20):
        file = one["file"].str.replace("subset-0", f"subset-{k}")
        some = one.assign(subset=k, file=file, arm_created=f"2026-11-25T13:04:{k:02}+00:00", seconds=rng.random())
        many.append(some.assign(value=some["value"] * rng.random(len(some))))
    df = pd.concat(many, ignore_index=True)
    compact.write(df, tmp_path / "results.csv")
    sizes = [path.stat().st_size for path in (tmp_path / "results.csv", tmp_path / "provenance" / "results.csv")]
    assert max(sizes) < 1_000_000, sizes
    pd.testing.assert_frame_equal(compact.read(tmp_path / "results.csv"), df, check_exact=True)


def test_foreign_and_torn_files_are_refused_by_name(run, tmp_path):
    path = tmp_path / "results.csv"
    with pytest.raises(StudyError, match="provenance/results.csv cannot be read"):
        compact.read(path)
    compact.write(load(run, 1), path)
    text = path.read_text()
    for broken in (
        "",
        "a,b\n1,2\n",
        text.replace("0.85,", "x.85,", 1),
        text[: len(text) // 2],
        text.replace("\n0,", "\n999,", 1),
    ):
        path.write_text(broken)
        with pytest.raises(StudyError, match="results.csv cannot be read as published results"):
            compact.read(path)


def test_centres_and_the_unit_of_subsets_are_columns_only_where_they_are_known(run, tmp_path):
    compact.write(load(run, 2), tmp_path / "old.csv")
    heads = [path.read_text().splitlines()[0] for path in (tmp_path / "old.csv", tmp_path / "provenance" / "old.csv")]
    assert "centre" not in heads[0] and "subsets_by" not in heads[1] and "auc_half" in heads[0]
    for k in (0, 1):
        by_centre = {"Utrecht": {"patches": 600, "auc": 0.8 + k / 100}, "Nijmegen, 2": {"patches": 424, "auc": None}}
        for name in ("classification", "probe"):
            path = run / f"subset-{k}/results/{name}-unet.json"
            edit(path, lambda content: [row.update(centres=by_centre) for row in content["rows"]])
            edit(path, lambda content: content["provenance"].update(subsets_by="slide"))
    df = load(run, 2)
    compact.write(df, tmp_path / "new.csv")
    pd.testing.assert_frame_equal(compact.read(tmp_path / "new.csv"), df, check_exact=True)
    lines = df[df["arm"].eq("transfer-unet-none") & df["kind"].eq("probe") & df["centre"].notna()]
    found = dict(zip(zip(lines["subset"], lines["centre"], lines["metric"]), lines["value"]))
    assert found[1, "Utrecht", "auc_centre"] == 0.81 and found[0, "Nijmegen, 2", "patches_centre"] == 424
    lacking = lines[lines["status"] != "ok"]
    assert set(lacking["centre"]) == {"Nijmegen, 2"} and set(lacking["reason"]) == {ONE_CLASS}
    assert set(df["subsets_by"].dropna()) == {"slide"}


def test_curves_come_back_as_they_were(run, tmp_path):
    compact.write(load(run, 2), tmp_path / "old.csv")
    assert "auc_curve" not in (tmp_path / "old.csv").read_text().splitlines()[0]
    write_curves(run, 2)
    df = load(run, 2)
    compact.write(df, tmp_path / "new.csv")
    found = compact.read(tmp_path / "new.csv")
    pd.testing.assert_frame_equal(found, df, check_exact=True)
    pd.testing.assert_frame_equal(curves.points(found), curves.points(df), check_exact=True)
    assert len(curves.points(found)) == 2 * (5 + 3 * 3 - 1), "all points but one, of every subset"
    lacking = found[(found["kind"] == "curves") & (found["status"] != "ok")]
    assert set(lacking["regime"]) == {"256+512"} and set(lacking["reason"]) == {"no patches"}


def test_later_metrics_are_columns_only_where_a_row_has_them(run, tmp_path):
    compact.write(load(run, 2), tmp_path / "old.csv")
    assert "vendi" not in (tmp_path / "old.csv").read_text().splitlines()[0]
    edit(
        run / "subset-0/results/quality.json", lambda content: content["rows"][3].update(vendi=12.5, fid_infinity=-0.5)
    )
    frame_with = load(run, 2)
    compact.write(frame_with, tmp_path / "new.csv")
    assert "vendi" in (tmp_path / "new.csv").read_text().splitlines()[0]
    pd.testing.assert_frame_equal(compact.read(tmp_path / "new.csv"), frame_with)
