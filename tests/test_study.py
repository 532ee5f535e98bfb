"""Opening a study, and the smoke study whole: every notebook, the graph, the tables and the rendered book."""

import os
import shutil
import subprocess
import sys
import time

import h5py
import kill
import nbformat
import numpy as np
import pandas as pd
import pytest

from pcamlib import cli, data, study
from pcamlib.core.errors import StudyError
from pcamlib.core.files import lock, read_json, write_json
from pcamlib.experiments import classification
from pcamlib.results import frame, load
from pcamlib.results.loading import NO_FILE
from pcamlib.study import SELECTIONS
from pcamlib.workflow import book


def open_smoke(root, tmp_path, **changes):
    options = {"data_root": str(root), "runs_dir": str(tmp_path / "runs"), "profile": "smoke", "subset": 0} | changes
    return study.open_study(**options)


def test_subsets_and_provenance_are_written_down(open_tiny):
    s = open_tiny()
    written = read_json(s.root / "subsets.json")
    assert written["seed"] == 0 and [len(x["rows"]) for x in written["subsets"]] == [32, 32]
    assert written["subsets"][0]["rows"] == s.rows.tolist() and len(written["subsets"][0]["sha"]) == 16
    provenance = s.provenance()
    for key in (
        "data",
        "data_sha",
        "profile",
        "profile_sha",
        "subset",
        "seed",
        "n_real",
        "device",
        "processor",
        "threads",
        "seconds",
        "version",
    ):
        assert provenance[key] is not None
    assert not set(s.others) & (set(s.rows) | set(s.judge_rows)) and len(s.others) == 32
    np.testing.assert_array_equal(s.real.labels, data.labels(s.data_root, "train")[s.rows])


def test_subsets_of_whole_slides(open_tiny, pcam, tmp_path):
    """The counts are written down, other slides are refused in the same run folder, and no slides is one sentence."""
    by_slide = {"subsets.by": "slide"}
    with pytest.raises(StudyError, match="draws subsets by slide, but .*groups_train.csv does not exist: write it"):
        open_tiny(**by_slide)
    assert not (tmp_path / "runs").exists()
    root = tmp_path / "with slides"
    shutil.copytree(pcam, root)
    ids = np.arange(128) // 8
    data.write_groups(root, "train", [f"slide {i}" for i in ids])
    s = open_tiny(root=root, **by_slide)
    written = read_json(s.root / "subsets.json")
    assert written["by"] == "slide" and [x["slides"] for x in written["subsets"]] == [4, 4]
    first, second = (set(ids[x["rows"]]) for x in written["subsets"])
    assert not first & second and set(ids[s.rows]) == first and [x["tumour"] for x in written["subsets"]] == [16, 16]
    data.write_groups(root, "train", [f"slide {i}" for i in ids[::-1]])
    with pytest.raises(StudyError, match="groups_train.csv is another"):
        open_tiny(root=root, **by_slide)


@pytest.mark.parametrize("subset", [2, -1, "0", 0.0, True, False, None])
def test_a_subset_out_of_range(open_tiny, subset):
    with pytest.raises(StudyError, match="is out of range: profile 'smoke' has subsets 0 to 1"):
        open_tiny(subset=subset)


def test_other_data_or_settings_may_not_share_a_run_folder(open_tiny, pcam, tmp_path):
    open_tiny()
    with pytest.raises(StudyError, match="was made with profile_sha"):
        open_tiny(seed=5)
    other = tmp_path / "other" / "tiny"
    shutil.copytree(pcam, other)
    images, labels = data.load(other, "train")
    data.write(other, "train", images[::-1].copy(), labels[::-1].copy())
    with pytest.raises(StudyError, match="was made with data_sha"):
        study.open_study(
            data_root=str(other), runs_dir=str(tmp_path / "runs"), profile=str(tmp_path / "tiny.yml"), subset=0
        )


@pytest.mark.parametrize("value", [2024, None, True])
@pytest.mark.parametrize("name", ["data_root", "runs_dir", "profile"])
def test_a_number_for_a_path_is_one_sentence(open_tiny, pcam, tmp_path, name, value):
    open_tiny()
    options = {"data_root": str(pcam), "runs_dir": str(tmp_path / "runs"), "profile": str(tmp_path / "tiny.yml")}
    with pytest.raises(StudyError, match=f"^{name} must be text, .*got {value}: put it in quotes"):
        study.open_study(**options | {name: value}, subset=0)


def test_pixels_changed_under_the_same_labels_are_other_data(open_tiny, pcam, tmp_path, monkeypatch):
    root = tmp_path / "data" / "tiny"
    shutil.copytree(pcam, root)
    scans, scan = [], data.scan
    monkeypatch.setattr(data, "scan", lambda *a: scans.append(a) or scan(*a))
    first = open_tiny(root=root)
    assert open_tiny(root=root, subset=1).data_sha == first.data_sha and len(scans) == 1, "read once"
    images, labels = data.load(root, "train")
    seen = np.linspace(0, len(images) - 1, 64).astype(int)
    images[np.setdiff1d(np.arange(len(images)), seen)] ^= 255
    path = data.file(root, "train", "x")
    before = path.stat()
    with h5py.File(path, "r+") as f:
        f["x"][...] = images
    assert path.stat().st_size == before.st_size
    with pytest.raises(StudyError, match="was made with data_sha .* .the patches or labels are others"):
        open_tiny(root=root)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a tool would that keeps times
    with pytest.raises(StudyError, match="was made with data_sha"):
        open_tiny(root=root)
    with h5py.File(path, "r+") as f:
        f["x"][...] = data.load(pcam, "train").images
    assert open_tiny(root=root).data_sha == first.data_sha


def few(split, n, of_class=1):
    """Fewer patches of a class in a split: the others get the other label."""

    def change(images, labels):
        rows = np.flatnonzero(labels == of_class)[n:]
        labels[rows] = 1 - of_class

    return split, change


def black(split):
    def change(images, labels):
        images[:] = 0

    return split, change


def copies(split):
    def change(images, labels):
        images[labels == 1] = images[1]

    return split, change


@pytest.mark.parametrize(
    "change, message",
    [
        (
            few("train", 6),
            "subset 0 of the train split has [12] patches of class 1 .tumour.; the study needs at least 4",
        ),
        (few("train", 6, 0), "subset 0 of the train split has [12] patches of class 0 .no tumour."),
        (few("valid", 2), "the valid split has 2 patches of class 1"),
        (few("test", 3, 0), "the test split has 3 patches of class 0 .*at least 4 of each class .k = 3 neighbours"),
        (black("train"), "subset 0 of the train split has 0 different patches of more than one colour of class 0"),
        (black("valid"), "the valid split has 0 different patches of more than one colour of class 0"),
        (copies("test"), "the test split has 1 different patches of more than one colour of class 1"),
    ],
)
def test_too_few_patches_are_told_at_opening(open_tiny, pcam, tmp_path, change, message):
    root = tmp_path / "data" / "tiny"
    shutil.copytree(pcam, root)
    split, alter = change
    images, labels = data.load(root, split)
    alter(images, labels)
    data.write(root, split, images, labels)
    with pytest.raises(StudyError, match=message):
        open_tiny(root=root)
    assert not (tmp_path / "runs" / "tiny-smoke" / "study.json").exists()


def test_data_that_is_not_there_or_too_small(pcam, tmp_path, open_tiny):
    open_tiny()
    with pytest.raises(StudyError, match="none is not a folder"):
        open_smoke(tmp_path / "none", tmp_path)
    shutil.copytree(pcam, tmp_path / "a{k}")
    with pytest.raises(StudyError, match="has a brace .* rename the folder"):
        open_smoke(tmp_path / "a{k}", tmp_path, profile=str(tmp_path / "tiny.yml"))
    images, labels = data.load(pcam, "train")
    for split in data.SPLITS:
        data.write(tmp_path / "short", split, images[:64], labels[:64])
    with pytest.raises(StudyError, match="2 subsets of 64 patches need 64 of class 0, the train split has 32"):
        open_smoke(tmp_path / "short", tmp_path)


@pytest.mark.parametrize("name", ["a\u202eb", "a\u200bb", "a\x1b[31m"])
def test_names_that_cannot_be_seen_are_refused(open_tiny, pcam, tmp_path, name):
    with pytest.raises(StudyError, match="data_root: the folder's name .* cannot be seen"):
        open_tiny(root=shutil.copytree(pcam, tmp_path / name))
    named = shutil.copytree(pcam, tmp_path / "named")
    write_json(named / "card.json", {"classes": ["benign", name]})
    with pytest.raises(StudyError, match="card.json: the class .* cannot be seen"):
        open_tiny(root=named)


def test_the_29_classifiers_and_the_controls():
    arms = [arm for generator in ("real", *study.GENERATORS) for arm in classification.arms(generator)]
    assert len(arms) == 36 and len({arm.id for arm in arms}) == 36  # 3 step controls and 4 stronger augmentations
    assert sum(not arm.control for arm in arms) == 29


def test_an_arm_without_a_class_is_not_run(open_tiny, monkeypatch):
    s = open_tiny()
    counts = {"kept": [3, 0], "requested": [16, 16]}
    monkeypatch.setattr(
        classification.selection, "_result", lambda *a: {"selections": dict.fromkeys(SELECTIONS, counts)}
    )
    rows = classification.evaluate(s, "unet")["rows"]
    assert len(rows) == 9 and all(row["status"] == "not run" and "[3, 0]" in row["reason"] for row in rows)


def test_the_smoke_study_is_complete(smoke):
    _, run, _ = smoke
    df = load(run)
    assert df["status"].eq("ok").eq(df["reason"].isna()).all() and not df["reason"].eq(NO_FILE).any()
    assert df.loc[df["kind"] == "classification", "arm"].nunique() == 36 + 5  # and those without a network
    assert len(df[(df["kind"] == "quality") & (df["metric"] == "fid")]) == 2 * 11
    unselected = df[df["selection"].isna() | df["selection"].eq("none")]
    not_run = unselected[unselected["status"].ne("ok")]
    lacking = {
        ("probe", "traditional-2x"),
        ("probe", "pseudo-label-pool"),
    }  # a regression has no steps; 64 patches are left
    assert set(zip(not_run["kind"], not_run["arm"])) == lacking
    pd.testing.assert_frame_equal(frame.read(run / "results.csv"), df, check_exact=True)
    for path in run.rglob("results/*.json"):
        provenance = read_json(path)["provenance"]
        assert provenance["data"] == "phantom" and provenance["profile"] == "smoke" and provenance["device"]


def test_the_killed_study_made_what_an_undisturbed_one_makes(smoke, kills):
    """As far as tests/kill.py went without a kill: five trainings, the latents, the sets of one generator."""
    _, run, _ = smoke
    straight = kills[0] / "straight" / "phantom-smoke"
    shutil.rmtree(straight / "subset-0" / "best", ignore_errors=True)  # no stage of the study
    assert kill.differences(straight, run, only_straight=True) == []


def test_no_notebook_is_flooded_or_failed(smoke):
    _, run, _ = smoke
    notebooks = list(run.rglob("*.ipynb"))
    assert len(notebooks) == 14
    for path in notebooks:
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                assert output.output_type != "error", path
                assert output.output_type != "stream" or len(output.text) < 500, f"{path}: {output.text[:300]}"


def test_the_same_command_again_has_nothing_to_do(smoke):
    _, run, command = smoke
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*.ipynb")}
    started = time.monotonic()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.ipynb")} == times
    assert time.monotonic() - started < 60


def test_a_run_folder_in_use_is_refused(tmp_path, capsys):
    with lock(tmp_path / "phantom-smoke"):
        assert cli.main(["study", "--profile", "smoke", "--subsets", "1", "--runs-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "is in use by another run" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (["--profile", "demoo"], "profile 'demoo' is unknown"),
        (["--profile", "smoke", "--subsets", "3"], "profile 'smoke' has 1 to 2"),
        (["--profile", "smoke", "--data", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_bad_input_to_the_study_is_one_sentence(tmp_path, capsys, options, message):
    assert cli.main(["study", "--runs-dir", str(tmp_path), *options]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_wrong_profile_is_refused_before_torch_is_imported(tmp_path):
    program = "import sys; from pcamlib import cli; print(cli.main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", program, "study", "--runs-dir", str(tmp_path), "--profile", "demoo"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "2 False\n" and "did you mean 'demo'" in done.stderr and done.stderr.count("\n") == 1


def test_the_book_renders_strictly(smoke_book):
    pages = list(smoke_book.parent.rglob("*.html"))
    assert smoke_book.exists() and len(pages) >= 20
    published, results = (
        (smoke_book.parent / "book" / "executed" / f"{page}.html").read_text() for page in ("reference", "08_results")
    )
    assert "93.54" in published, "the paper's best AUC stands beside ours"
    assert results.count("<img") >= 4 and 'alt=""' not in results
    assert "smoke" in results


def test_a_warning_fails_the_book(smoke, tmp_path):
    pytest.importorskip("jupyter_book")
    _, run, _ = smoke
    (tmp_path / "book").mkdir()
    (tmp_path / "_config.yml").write_text("title: t\nexecute: {execute_notebooks: 'off'}\nonly_build_toc_files: true\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    (tmp_path / "book" / "index.md").write_text("# T\n\n{doc}`/nowhere`\n")
    with pytest.raises(StudyError, match="the book was not built.*nowhere"):
        book.build_book(run, 1, tmp_path)
