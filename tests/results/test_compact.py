"""Two small CSV files and back: an equal frame, small files, and foreign ones refused by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up import edit, write_run

from pcamlib.core.errors import StudyError
from pcamlib.results import compact, load


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
