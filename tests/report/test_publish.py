"""What is published is what was run: the README's numbers are those of the file in git."""

import re
import shutil
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from pcamlib import data, metrics
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root, read_json, write_json
from pcamlib.report import answer_page, curve_plots, publish, published_page
from pcamlib.results import compact, frame, inference, intervals, load, planning
from pcamlib.results.arms import SHUFFLED, Arm
from pcamlib.results.published import published_runs

FILES = sorted((project_root() / "book" / "reference").glob("*.csv"))


@pytest.mark.slow
def test_sheets_show_generated_samples_only(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=2)
    images = np.random.default_rng(0).integers(0, 255, (2, 30, 96, 96, 3), np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 2
    for k in (0, 1):
        folder = run / f"subset-{k}" / "synthetic" / "unet-none"
        data.write(folder, "train", images[k], labels)
        card = {"provenance": made_up.provenance(k), "scores": {"realism": [1.5] * 30}}
        write_json(folder / "card.json", card)
    publish.publish(run, 2, tmp_path / "reference")
    sheets = tmp_path / "reference" / "sheets" / "made-up"
    assert [path.name for path in sheets.iterdir()] == ["unet.png"], "no samples, no sheet"
    with Image.open(sheets / "unet.png") as sheet:
        shown = np.asarray(sheet)
    assert shown.shape == (2 * 96, 2 * publish.SHEET * 96, 3)
    assert (shown[:96, 96:192] == images[0, 2]).all(), "without tumour on the left"
    assert (shown[96:, publish.SHEET * 96 :][:, :96] == images[1, 1]).all(), "subset 1 below, with tumour on the right"
    text = published_page.page(load(run, 2), {}, tmp_path / "reference")
    assert "../reference/sheets/made-up/unet.png" in text and "../reference/curves/made-up/histogan.png" in text
    shutil.rmtree(run / "subset-1" / "synthetic" / "unet-none")
    publish.publish(run, 2, tmp_path / "reference")
    assert not list(sheets.iterdir()), "a row is missing: no sheet, not an old one either"


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_published_scores_give_the_published_numbers(path):
    """AUC and intervals of every arm come again from files in git alone."""
    lines = frame.of_kind(compact.read(path), "classification").query("metric == 'auc'")
    folder, beside = (path.parent / name for name in (f"scores/{path.stem}", f"intervals/{path.stem}.json"))
    kept = {k: np.load(folder / f"subset-{k}.npz") for k in lines["subset"].unique()}
    scores: planning.Scores = {}
    for line in lines.itertuples():
        arms, arm = kept[line.subset], frame.arm_of(line)
        if arm.regime == SHUFFLED:  # a mean over several regressions keeps no scores
            assert arm.id not in arms
            continue
        assert metrics.classification_metrics(arms["labels"], arms[arm.id])["auc"] == pytest.approx(
            line.value, abs=1e-7
        )
        scores.setdefault(arm._replace(seed=0), {}).setdefault(line.subset, []).append(arms[arm.id])
    result = read_json(beside)
    groups = None  # the excerpt does not say which slide a patch is from
    assert result["slides"] is None
    again = intervals.assemble(kept[0]["labels"], scores, groups, result["provenance"])
    for key in ("auc", *(arm.name for arm in intervals.REFERENCES)):
        one, other = (
            intervals.table(found, key).drop(columns="q" if key == "auc" else []) for found in (result, again)
        )
        pd.testing.assert_frame_equal(one, other, rtol=0, atol=1e-9)
    assert [row["arm"] for row in result["power"]] == [row["arm"] for row in again["power"]]


@pytest.mark.slow
def test_published_files_do_not_say_where_they_were_made(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=2)
    path = publish.publish(run, 2, tmp_path / "reference")
    files = [path for path in (tmp_path / "reference").rglob("*") if path.is_file()]
    assert len(files) > 5 and path in files
    kept = [
        path for path in (project_root() / "book" / "reference").rglob("*") if path.suffix in (".csv", ".json", ".yml")
    ]
    for path in files + kept:
        content = path.read_bytes()
        places = [str(tmp_path), str(project_root()), str(Path.home()) + "/", "/tmp/", "/home/"]
        assert not [place for place in places if place.encode() in content], path


def test_a_run_whose_name_pages_cannot_show_is_refused(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "a <b> `c`", subsets=2)
    with pytest.raises(StudyError, match="'a <b> `c`' cannot be the name of a published run"):
        publish.publish(run, 2, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


@pytest.mark.slow
def test_scores_are_published_and_stale_ones_leave(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=2)
    saved = {"test": np.float32([0.2, 0.9]), "labels": np.uint8([0, 1])}
    for k in (0, 1):
        (run / f"subset-{k}" / "classifiers" / "traditional").mkdir(parents=True)
        save_file(saved, run / f"subset-{k}" / "classifiers" / "traditional" / inference.SCORES)
    publish.publish(run, 2, tmp_path / "reference")
    folder = tmp_path / "reference" / "scores" / "made-up"
    assert "`book/reference/scores/made-up/`" in published_page.page(load(run, 2), {}, tmp_path / "reference")
    kept = np.load(folder / "subset-1.npz")
    assert set(kept) == {"traditional", "labels"} and (kept["traditional"] == saved["test"]).all()
    publish.publish(run, 1, tmp_path / "reference")
    assert [path.name for path in folder.iterdir()] == ["subset-0.npz"]
    save_file({"test": saved["test"]}, run / "subset-0" / "classifiers" / "traditional" / inference.SCORES)
    with pytest.raises(StudyError, match="run notebook 07 again"):
        publish.publish(run, 1, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def _with_scores_and_samples(run, subsets):
    rng = np.random.default_rng(1)
    labels = np.arange(60, dtype=np.uint8) % 2
    for k in subsets:
        for arm in ("traditional", "traditional-2x", "transfer-unet-none"):
            folder = run / f"subset-{k}" / "classifiers" / arm
            folder.mkdir(parents=True)
            scores = np.float32(rng.uniform(0, 1, 60) + labels) / 2
            save_file({"test": scores, "labels": labels}, folder / inference.SCORES)
        folder = run / f"subset-{k}" / "synthetic" / "unet-none"
        data.write(folder, "train", rng.integers(0, 255, (20, 96, 96, 3), np.uint8), labels[:20])
        write_json(folder / "card.json", {"provenance": made_up.provenance(k), "scores": {"realism": [1.5] * 20}})


@pytest.mark.slow
def test_subsets_of_two_machines_are_published_as_those_of_one(tmp_path):
    here = made_up.write_run(tmp_path / "here" / "made-up", subsets=4)
    _with_scores_and_samples(here, range(4))
    elsewhere = tmp_path / "elsewhere" / "made-up"
    shutil.copytree(here, elsewhere)
    for folder, subsets in ((here, (2, 3)), (elsewhere, (0, 1))):
        for k in subsets:
            (folder / f"subset-{k}").rename(tmp_path / f"{folder.parent.name}-{k}")
    apart, at_once = tmp_path / "apart", tmp_path / "at-once"
    df = load(here, 2)
    made = intervals.assemble(
        *_scores_of(here, range(2)), None, frame.merged_provenance(frame.by_device(df, "classification"))
    )
    write_json(intervals.path_of(here, 2, "classification"), made)
    publish.publish(here, 2, apart)
    publish.publish(elsewhere, range(2, 4), apart)
    for k in (2, 3):
        (tmp_path / f"here-{k}").rename(here / f"subset-{k}")
    df = load(here, 4)
    made = intervals.assemble(
        *_scores_of(here, range(4)), None, frame.merged_provenance(frame.by_device(df, "classification"))
    )
    write_json(intervals.path_of(here, 4, "classification"), made)
    publish.publish(here, 4, at_once)
    files = {path.relative_to(at_once) for path in at_once.rglob("*") if path.is_file()}
    assert {path.relative_to(apart) for path in apart.rglob("*") if path.is_file()} == files
    one, other = (compact.read(folder / "made-up.csv") for folder in (apart, at_once))
    order = ["kind", "subset", "arm", "extractor", "seed", "metric"]
    pd.testing.assert_frame_equal(*(x.sort_values(order, ignore_index=True) for x in (one, other)), check_exact=True)
    for name in ("intervals/made-up.json", "curves/made-up/log.json"):
        assert read_json(apart / name) == read_json(at_once / name), name
    sheets = [np.asarray(Image.open(folder / "sheets" / "made-up" / "unet.png")) for folder in (apart, at_once)]
    assert sheets[0].shape[0] == 4 * 96 and (sheets[0] == sheets[1]).all()


def _scores_of(run, subsets):
    found: planning.Scores = {}
    for k in subsets:
        for path in sorted((run / f"subset-{k}" / "classifiers").iterdir()):
            regime, *more = path.name.split("-") if path.name.startswith("transfer") else [path.name]
            saved = load_file(path / inference.SCORES)
            found.setdefault(Arm(regime, *more), {})[k] = [saved["test"]]
    return saved["labels"], found


def test_later_subsets_need_the_earlier_ones_of_the_same_study(tmp_path):
    df = load(made_up.write_run(tmp_path / "runs" / "made-up", subsets=3), 3)
    first, later = df[df["subset"] < 2], df[df["subset"] == 2]
    assert len(publish.joined(first, later, range(2, 3), tmp_path)) == len(df)
    again = publish.joined(df, later, range(2, 3), tmp_path)
    assert len(again) == len(df), "published before: replaced"
    for published, match in (
        (None, "subset 0, 1 of .* has not been published"),
        (first[first["subset"] == 0], "subset 1 of .* publish the first subsets before later ones"),
        (first.assign(data_sha="other"), "has another data than the published subsets"),
        (first.assign(profile_sha="other"), "has another profile than"),
    ):
        with pytest.raises(StudyError, match=match):
            publish.joined(published, later, range(2, 3), tmp_path)


@pytest.mark.slow
def test_curves_are_published_with_their_figures(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=3)
    where = tmp_path / "reference"
    publish.publish(run, 3, where)
    assert not (where / "worth").exists() and "synthetic patches" not in published_page.page(load(run, 3), {}, where)
    made_up.write_curves(run, subsets=3)
    df = compact.read(publish.publish(run, 3, where))
    pd.testing.assert_frame_equal(df, load(run, 3), check_exact=True)
    figures = {path.stem: Image.open(path).size for path in (where / "worth" / "made-up").iterdir()}
    assert set(figures) == set(curve_plots.FIGURES) and min(w for w, _ in figures.values()) >= 700
    text = published_page.page(df, {}, where)
    for said in (
        "../reference/worth/made-up/label_fraction.png",
        "../reference/worth/made-up/ratio.png",
        "From 256 to 512 real patches the probe's mean AUC changes by +2.00 points",
        "beside 256</caption>",
        "<td>+0.50</td>",
    ):
        assert said in re.sub(r'<td class="[^"]*">', "<td>", text).replace("\\", ""), said
    for path in run.glob("subset-*/results/curves-*.json"):
        path.unlink()
    publish.publish(run, 3, where)
    assert not list((where / "worth" / "made-up").iterdir()), "no curves, no old figures either"


def test_the_readme_shows_the_published_numbers():
    readme = (project_root() / "README.md").read_text()
    shown = [p for p in FILES if f"`book/reference/{p.name}`" in readme]
    assert len(shown) == 1, "the README shows one published run"
    assert publish.into(readme, compact.read(shown[0]), shown[0].stem) == readme, "run pcamlib publish again"


def test_a_run_without_quality_is_refused_before_anything_is_written(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=1)
    (run / "subset-0" / "results" / "quality.json").unlink()
    with pytest.raises(StudyError, match="run notebook 06 first"):
        publish.publish(run, 1, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


@pytest.mark.slow
def test_publishing_a_run(tmp_path):
    run = made_up.write_run(tmp_path / "runs" / "made-up", subsets=2)
    path = publish.publish(run, 2, tmp_path / "reference")
    df = compact.read(path)
    pd.testing.assert_frame_equal(df, load(run, 2), check_exact=True)
    assert not (tmp_path / "reference" / "intervals").exists()
    assert "../reference/forest/made-up.png" in published_page.page(df, {}, tmp_path / "reference")
    logs = read_json(tmp_path / "reference" / "curves" / "made-up" / "log.json")
    assert logs["dit"]["subset 1"] == [{"epoch": 1, "images": 1000, "loss": 0.5}]
    assert (tmp_path / "reference" / "curves" / "made-up" / "dit.png").exists()
    for device in frame.DEVICES:
        provenance = frame.merged_provenance(frame.by_device(load(run, 2), device))
        kept = {"slides": None, "test_n": 2, "rows": [], "power": [], "provenance": provenance | {"seconds": -1.0}}
        file = intervals.path_of(run, 2, device)
        write_json(file, kept)
        with pytest.raises(StudyError, match=f"{file.name} is of other results"):
            publish.publish(run, 2, tmp_path / "other")
        assert not (tmp_path / "other").exists()
        write_json(file, kept | {"provenance": provenance})
        publish.publish(run, 2, tmp_path / "reference")
        assert published_runs(tmp_path / "reference")[0].intervals[device]["test_n"] == 2
    with pytest.raises(StudyError, match="must have one line"):
        publish.into("no marks", df, "made-up")


def test_the_summary_is_short_and_has_both_devices(tmp_path):
    df = load(made_up.write_run(tmp_path / "runs" / "made-up", subsets=2), 2)
    text = publish.summary(df, "made-up")
    assert text.count("\n| ") == 1 + 1 + 2 + 9 + 3 + 2 + 4 + 4 and text.count("\n| --- ") == 1
    # U-Net augmentation: 85, 85.4 and 85.2, half a point more over two subsets, against traditional at 85.5; the
    # difference is the same in both, so that it has no interval
    assert "| U-Net, augmentation | 93.38 | 85.70 ± 0.71 | +0.20 | 87.70 ± 0.71 | +0.20 |" in text
    assert "procedural patches, no tissue, 1,024 test patches; 2 subsets of 256 real patches" in text
    assert "\n- **Do the classifiers measure anything?** Fine-tuned network: AUC 85.5 % against" in text
    assert "\n- Linear probe: by augmentation," in text and "planned before" not in text
    assert "5 of 9 arms are above the stronger control" in text
    assert text.count("thirteen claims by the") == 2 and "`book/reference/made-up.csv`" in text
    assert answer_page.about(compact.read(FILES[0])).startswith(
        "Data: 26,000-patch JPEG excerpt of PCam, 3,000 test patches"
    )


def test_the_readme_says_how_much_of_a_registered_study_is_done(tmp_path):
    df = load(made_up.write_run(tmp_path / "runs" / "pcam-slice-reference", subsets=2), 2)
    shutil.copy(project_root() / "book" / "reference" / "plan.yml", tmp_path)
    later = df.assign(created="2030-01-01T00:00:00+00:00")
    text = publish.summary(later, "pcam-slice-reference", tmp_path)
    assert "planned before its first result (`book/reference/plan.yml`); finished so far: fine-tuned network " in text
    assert "Departures from the plan: " in text
    for other in (publish.summary(df, "pcam-slice-reference", tmp_path), publish.summary(later, "another", tmp_path)):
        assert "planned before" not in other, "older than the plan, or not the registered run"
