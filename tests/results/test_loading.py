"""Loading a run: every arm is a line, and what does not belong together is refused by name."""

from __future__ import annotations

import shutil

import pytest
from made_up import edit, not_run, write_run

from pcamlib.core.errors import StudyError
from pcamlib.results import frame, load
from pcamlib.results.loading import FILES, NO_FILE


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "phantom-demo")


def test_one_line_per_subset_arm_space_and_metric(run):
    df = load(run, 2)
    counts = df.groupby("kind").size().to_dict()
    assert counts == {
        "training": 2 * 4,
        "selection": 2 * 3 * (8 + 10 + 10),
        "quality": 2 * 2 * 11 * 9,
        "memorisation": 2 * 11 * 6,
        "classification": 2 * (32 + 4 + 5) * 8,
        "probe": 2 * (7 + 27) * 8,
        "label-content": 2 * 5 * 5,
        "known-labels": 2 * 12,
    }
    assert not df.duplicated(["kind", "subset", "arm", "seed", "extractor", "metric"]).any()
    lacking = df[df["status"] != "ok"]
    assert set(lacking["kind"] + " " + lacking["arm"]) == {"probe traditional-2x"} and lacking["value"].isna().all()
    ran = df[df["status"] == "ok"]
    assert ran["value"].notna().all() and ran["reason"].isna().all()
    both = df[(df["arm"] == "transfer-unet-class") & (df["metric"] == "auc") & (df["subset"] == 1)]
    line, probe = both.to_dict("records")
    assert probe["kind"] == "probe" and probe["value"] == pytest.approx(line["value"] + 0.02)
    assert line["value"] == pytest.approx(0.86 + 0.01 + 0.002 + 0.01) and not line["control"]
    assert (line["n_real"], line["n_synthetic"], line["test_n"], line["threshold"]) == (256, 256, 1024, 0.5)
    assert (line["data_sha"], line["profile_sha"], line["threads"], line["seconds"]) == ("d0", "p0", 1, 10.0)
    assert (line["subset_size"], line["class_1"], line["torch"], line["processor"]) == (
        256,
        "tumour",
        "2",
        "a processor",
    )
    assert line["file"] == "subset-1/results/classification-unet.json"
    assert df.loc[df["control"], "arm"].nunique() == 3 + 2 + 4 + 5 and frame.extractors(df) == ["judge-a", "judge-b"]


def test_all_subsets_by_default_or_chosen_ones(run):
    shutil.rmtree(run / "subset-0")
    (run / "subset-7").mkdir()
    assert set(load(run)["subset"]) == set(load(run, [1])["subset"]) == {1}
    with pytest.raises(StudyError, match=r"subset-0/results holds no results.*-p subset 0"):
        load(run, 2)
    with pytest.raises(StudyError, match="subsets is 0"):
        load(run, 0)
    with pytest.raises(StudyError, match="holds no results: run notebooks 01 to 07"):
        load(run / "subset-7")


def test_an_arm_not_run_is_a_line_with_its_reason(run):
    not_run(run / "subset-0/results/classification-unet.json", regime="transfer", selection="class")
    df = load(run, 2)
    lines = df[(df["status"] == "not run") & (df["kind"] == "classification")]
    assert set(lines["arm"]) == {"transfer-unet-class"} and set(lines["reason"]) == {"kept 3 of 256"}
    assert len(lines) == 8 and lines["value"].isna().all() and set(lines["data"]) == {"phantom"}
    assert frame.by_subset(df, "auc")["transfer-unet-class"].notna().tolist() == [False, True]


def test_an_absent_file_is_lines_that_were_not_run(run):
    complete = load(run, 2)
    for name in (name for name, arms in FILES.items() if arms):
        path = run / f"subset-1/results/{name}.json"
        text = path.read_text()
        path.unlink()
        df = load(run, 2)
        lines = df[(df["status"] == "not run") & (df["reason"] != "a regression has no steps")]
        assert set(lines["reason"]) == {NO_FILE} and set(lines["file"]) == {f"subset-1/results/{name}.json"}
        keys = ["kind", "subset", "arm", "regime", "generator", "selection", "control", "seed", "metric"]
        keys += ["extractor"] if name == "quality" else []  # else it is not known
        same = complete[complete["file"] == f"subset-1/results/{name}.json"]
        assert sorted(map(str, lines[keys].to_numpy())) == sorted(map(str, same[keys].to_numpy()))
        path.write_text(text)


@pytest.mark.parametrize("key", ["data_sha", "profile_sha"])
@pytest.mark.parametrize("name", ["quality.json", "classification-dit.json", "selection-unet.json"])
def test_other_data_or_profiles_are_refused_by_name(run, key, name):
    path = edit(run / "subset-1/results" / name, lambda content: content["provenance"].update({key: "other"}))
    with pytest.raises(StudyError) as error:
        load(run, 2)
    assert str(path) in str(error.value) and key in str(error.value) and "'other'" in str(error.value)


def test_mixed_extractors_and_judges_are_refused(run):
    def rename(content):
        for row in content["rows"]:
            row["extractor"] = row["extractor"].replace("judge-b", "inception")
        content["judge"]["inception"] = "about inception"

    path = run / "subset-1/results/quality.json"
    original = path.read_text()
    edit(path, rename)
    with pytest.raises(StudyError, match="quality extractors is .*inception"):
        load(run, 2)
    path.write_text(original)
    edit(path, lambda content: content["judge"].update({"judge-a": "trained for longer"}))
    with pytest.raises(StudyError, match="judge judge-a is 'trained for longer'"):
        load(run, 2)
    path.write_text(original)
    edit(run / "subset-1/results/selection-dit.json", lambda content: content.update(extractor="other"))
    with pytest.raises(StudyError, match="selection extractor is 'other'"):
        load(run, 2)


def test_a_copied_subset_is_noticed(run):
    shutil.copy(run / "subset-0/results/quality.json", run / "subset-1/results/quality.json")
    with pytest.raises(StudyError, match="says that it is of subset 0"):
        load(run, 2)


@pytest.mark.parametrize("value", [93.2, -0.1, None, "0.9", float("nan")])
def test_numbers_out_of_range_are_refused(run, value):
    path = run / "subset-0/results/classification-real.json"
    path.write_text(
        path.read_text().replace(
            '"auc": 0.8,',
            f'"auc": {"NaN" if value != value else repr(value)},'.replace("None", "null").replace("'", '"'),
            1,
        )
    )
    with pytest.raises(StudyError, match=r"classification-real.json: auc is .* not a number in its range"):
        load(run, 1)


@pytest.mark.parametrize("name", ["classification-dit.json", "quality.json"])
def test_an_arm_twice_is_refused(run, name):
    path = run / "subset-0/results" / name
    edit(path, lambda content: content["rows"].append(content["rows"][0]))
    with pytest.raises(StudyError, match=f"{name} repeats an arm that is already in .*{name}: "):
        load(run, 1)


@pytest.mark.parametrize(
    "text, message", [("{", "not valid JSON"), ("[]", "form of a result file"), ("{}", "provenance")]
)
def test_damaged_files_are_named(run, text, message):
    path = run / "subset-0/results/quality.json"
    path.write_text(text)
    with pytest.raises(StudyError, match=message) as error:
        load(run, 1)
    assert str(path) in str(error.value)
