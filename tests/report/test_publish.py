"""What is published is what was run: the README's numbers are those of the file in git."""

import shutil

import made_up
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import save_file

from pcamlib import data, metrics
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root, read_json, write_json
from pcamlib.report import publish, published_page
from pcamlib.results import frame, inference, load
from pcamlib.results.arms import Arm
from pcamlib.results.published import published_runs

FILES = sorted((project_root() / "book" / "reference").glob("*.csv"))


def test_sheets_show_generated_samples_only(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=2)
    images = np.random.default_rng(0).integers(0, 255, (2, 30, 96, 96, 3), np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 2
    for k in (0, 1):
        data.write(run / f"subset-{k}" / "synthetic" / "unet-none", "train", images[k], labels)
    publish.publish(run, 2, tmp_path / "reference")
    sheets = tmp_path / "reference" / "sheets" / "made-up"
    assert [path.name for path in sheets.iterdir()] == ["unet.png"], "no samples, no sheet"
    with Image.open(sheets / "unet.png") as sheet:
        shown = np.asarray(sheet)
    assert shown.shape == (2 * 96, 2 * publish.SHEET * 96, 3)
    assert (shown[:96, 96:192] == images[0, 2]).all(), "without tumour on the left"
    assert (shown[96:, publish.SHEET * 96 :][:, :96] == images[1, 1]).all(), "subset 1 below, with tumour on the right"
    text = published_page.page(load(run, 2), None, tmp_path / "reference")
    assert "../reference/sheets/made-up/unet.png" in text and "../reference/curves/made-up/histogan.png" in text
    shutil.rmtree(run / "subset-1" / "synthetic" / "unet-none")
    publish.publish(run, 2, tmp_path / "reference")
    assert not list(sheets.iterdir()), "a row is missing: no sheet, not an old one either"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_published_scores_give_the_published_numbers(path):
    """AUC and intervals of every arm come again from files in git alone."""
    lines = frame.of_kind(frame.read(path), "classification").query("metric == 'auc'")
    folder, beside = (path.parent / name for name in (f"scores/{path.stem}", f"bootstrap/{path.stem}.json"))
    kept = {k: np.load(folder / f"subset-{k}.npz") for k in lines["subset"].unique()}
    scores: inference.Scores = {}
    for line in lines.itertuples():
        arms, arm = kept[line.subset], frame.arm_of(line)
        assert metrics.classification_metrics(arms["labels"], arms[arm.id])["auc"] == pytest.approx(
            line.value, abs=1e-7
        )
        scores.setdefault(arm._replace(seed=0), {}).setdefault(line.subset, []).append(arms[arm.id])
    result = read_json(beside)
    found = inference.bootstrap(kept[0]["labels"], scores, result["draws"], result["seed"])
    for key in ("auc", "baseline", "traditional"):
        for row in result["rows"]:
            again = found[Arm(row["regime"], row["generator"], row["selection"])][key]
            for name in ("mean", "low", "high") if row[key] else ():
                assert again[name] == pytest.approx(row[key][name], abs=1e-9)


def test_scores_are_published_and_stale_ones_leave(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=2)
    saved = {"test": np.float32([0.2, 0.9]), "labels": np.uint8([0, 1])}
    for k in (0, 1):
        (run / f"subset-{k}" / "classifiers" / "traditional").mkdir(parents=True)
        save_file(saved, run / f"subset-{k}" / "classifiers" / "traditional" / inference.SCORES)
    publish.publish(run, 2, tmp_path / "reference")
    folder = tmp_path / "reference" / "scores" / "made-up"
    assert "`book/reference/scores/made-up/`" in published_page.page(load(run, 2), None, tmp_path / "reference")
    kept = np.load(folder / "subset-1.npz")
    assert set(kept) == {"traditional", "labels"} and (kept["traditional"] == saved["test"]).all()
    publish.publish(run, 1, tmp_path / "reference")
    assert [path.name for path in folder.iterdir()] == ["subset-0.npz"]
    save_file({"test": saved["test"]}, run / "subset-0" / "classifiers" / "traditional" / inference.SCORES)
    with pytest.raises(StudyError, match="run notebook 07 again"):
        publish.publish(run, 1, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_readme_shows_the_published_numbers():
    readme = (project_root() / "README.md").read_text()
    shown = [p for p in FILES if f"`book/reference/{p.name}`" in readme]
    assert len(shown) == 1, "the README shows one published run"
    assert publish.into(readme, frame.read(shown[0]), shown[0].stem) == readme, "run pcamlib publish again"


def test_a_run_without_quality_is_refused_before_anything_is_written(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=1)
    (run / "subset-0" / "results" / "quality.json").unlink()
    with pytest.raises(StudyError, match="run notebook 06 first"):
        publish.publish(run, 1, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


def test_publishing_a_run(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=2)
    path = publish.publish(run, 2, tmp_path / "reference")
    df = frame.read(path)
    pd.testing.assert_frame_equal(df, load(run, 2), check_exact=True)
    text = publish.summary(df, "made-up")
    assert (
        "93.54 ± 0.38 / " in text
        and "| baseline | 90.17 ± 0.20 / " in text
        and text.count("\n| ") == (2 + 3) + (2 + 2 + 9 + 3)
    )
    assert "\n- Transfer, real to real (" in text and "\nThe paper's thirteen claims, by rules in code: " in text
    assert not (tmp_path / "reference" / "bootstrap").exists()
    assert "../reference/forest/made-up.png" in published_page.page(df, None, tmp_path / "reference")
    logs = read_json(tmp_path / "reference" / "curves" / "made-up" / "log.json")
    assert logs["dit"]["subset 1"] == [{"epoch": 1, "images": 1000, "loss": 0.5}]
    assert (tmp_path / "reference" / "curves" / "made-up" / "dit.png").exists()
    drawn = {
        "draws": 1,
        "test_n": 2,
        "rows": [],
        "provenance": frame.merged_provenance(load(run, 2)) | {"seconds": -1.0},
    }
    write_json(run / "results" / "bootstrap-2.json", drawn)
    with pytest.raises(StudyError, match="is of other results"):
        publish.publish(run, 2, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    write_json(run / "results" / "bootstrap-2.json", drawn | {"provenance": frame.merged_provenance(load(run, 2))})
    publish.publish(run, 2, tmp_path / "reference")
    assert published_runs(tmp_path / "reference")[0].bootstrap["draws"] == 1
    with pytest.raises(StudyError, match="must have one line"):
        publish.into("no marks", df, "made-up")
