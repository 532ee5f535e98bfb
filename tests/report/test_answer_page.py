"""The first chapter says what the published numbers say, and names what the run lacks."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from made_up import write_curves, write_run
from PIL import Image

from pcamlib.report import answer_page
from pcamlib.results import compact, frame, headline, load, rivals
from pcamlib.results.published import published_folder, published_runs


@pytest.fixture
def df(tmp_path):
    return load(write_run(tmp_path / "phantom-demo", 3), 3)


def vary(df, **gains):
    """The results with a share of a point more in the arms named, different in each subset."""
    df = df.copy()
    for arm, by_subset in gains.items():
        for k, gain in enumerate(by_subset):
            lines = df["arm"].str.startswith(arm.replace("_", "-")) & (df["metric"] == "auc") & (df["subset"] == k)
            df.loc[lines, "value"] += gain
    return df


def kept(df, folder):
    compact.write(df, folder / "made-up.csv")
    return folder


@pytest.mark.slow
def test_the_page_of_the_published_run():
    text = answer_page.page(published_folder())
    assert text.startswith("# The answer\n") and "No verdict" not in text.split("|")[0]
    assert len(answer_page.sentences(published_runs()[0].results)) == 5
    assert all(f"<claim-{n}>`" in text for n in range(1, 14)) and "JPEG excerpt of PCam" in text
    pictures = answer_page.pictures(published_folder())
    assert set(pictures) == {answer_page.HEADLINE, answer_page.STRIP}
    for name, content in pictures.items():
        assert f":::{{figure}} {name}" in text
        assert Image.open(io.BytesIO(content)).width >= 700
    assert pictures == answer_page.pictures(published_folder()), "a page is the same when it is built again"


def test_all_numbers_of_the_sentences_are_those_of_the_run(df, tmp_path):
    changed = vary(df, double_real=(0.0, 0.01, 0.02), transfer_unet=(0.0, 0.004, 0.008))
    text = " ".join(answer_page.sentences(changed))
    tuned = frame.by_device(changed, "classification")
    rows = {row.title: row for row in headline.differences(tuned)}
    for title in ("Twice the real data", "U-Net transfer"):
        assert f"{100 * rows[title].mean:+.2f} points (" in text
    assert "Linear probe: " in text
    kept(changed, tmp_path)
    assert rivals.stronger_control(tuned).title in answer_page.page(tmp_path)


@pytest.mark.parametrize(
    ("gain", "says"), [(0.05, "yes, in part: "), (-0.5, "no: all 6 uses are below the control"), (None, "cannot say")]
)
def test_the_verdict_follows_the_numbers(df, gain, says):
    changes = {
        f"{regime}_{g}": (gain or 0, (gain or 0) + 0.001, (gain or 0) - 0.001)
        for regime in ("transfer", "augmentation")
        for g in ("unet", "dit", "histogan")
    }
    tuned = frame.by_device(vary(df, **changes), "classification")
    if gain is None:
        tuned = tuned[~tuned["regime"].isin(("colour", "texture", "colour-texture", "random-features"))]
    assert says in answer_page.verdict(tuned)


def test_an_exchange_rate_only_from_a_device_that_measures_and_a_sure_gain(df):
    sure = vary(df, double_real=(0.02, 0.021, 0.019), augmentation_dit=(0.02, 0.021, 0.018))
    tuned = frame.by_device(sure, "classification")
    assert "(exchange rate), as many generated patches give: HistoGAN" in answer_page._worth(tuned)
    trivial = tuned["regime"].isin(("colour", "texture", "colour-texture", "random-features"))
    assert "too uncertain for an exchange rate" in answer_page._worth(tuned[~trivial])


def test_the_probe_reads_exchange_rates_from_its_curves_as_well(tmp_path):
    root = write_run(tmp_path / "phantom-demo", 6)
    write_curves(root, 6)
    sure = vary(load(root, 6), double_real=(0.02, 0.021, 0.019, 0.02, 0.021, 0.019))
    probe, tuned = (frame.by_device(sure, device) for device in ("probe", "classification"))
    read = "by the curve of real patches, one generated patch is worth so many real ones: "
    rates = "HistoGAN −0.25 (−0.25 to −0.25), U-Net +0.50 (+0.50 to +0.50), DiT +0.25 (+0.25 to +0.25)"
    assert "(exchange rate), as many generated patches give: HistoGAN" in answer_page._worth(probe)
    assert answer_page._worth(probe).endswith(f"; {read}{rates}")
    assert read not in answer_page._worth(tuned), "the curves are the probe's"
    few = probe[(probe["kind"] != "curves") | (probe["subset"] < 5)]
    assert read not in answer_page._worth(few), "five subsets give no interval"


def test_what_a_run_lacks_is_said(df, tmp_path):
    without = df[~df["regime"].isin(("double-real",)) & ~df["kind"].isin(("quality", "probe"))]
    text = answer_page.page(kept(without, tmp_path))
    assert "twice the real patches: not run" in text.lower() and "Quality of the images: not run" in text
    assert "Generated patches of this run: not run or not kept." in text and "probe" not in text
    only_real = df[df["generator"].isna()]
    assert (
        "no control of as many steps or no generated patches: not run"
        in " ".join(answer_page.sentences(only_real)).lower()
    )


def test_the_device_that_measured_generated_patches_speaks_first(df, tmp_path):
    """All arms by the probe, fine-tuned only the real patches: no sentence of a network that was not trained."""
    some = df[(df["kind"] != "classification") | (df["regime"] == "traditional")]
    said = answer_page.sentences(some)
    assert all("? Linear probe: " in sentence for sentence in (said[0], said[1], said[3]))
    assert said[0].endswith(" Fine-tuned network: no arm with generated patches was run.")
    assert "Fine-tuned" not in said[1] + said[3], "said once"
    page = answer_page.page(kept(some, tmp_path))
    assert "is above the control: 0 of 6; twice the real patches: +" in page, "one device, so it is not named"


def test_without_a_published_run_the_page_says_so(tmp_path):
    assert "No run is published" in answer_page.page(tmp_path) and answer_page.pictures(tmp_path) == {}


def test_the_strip_is_the_first_row_of_each_sheet(df, tmp_path):
    where = kept(df, tmp_path)
    sheet = np.zeros((2 * 96, 4 * 96, 3), np.uint8)
    sheet[:96, 96:192] = 200
    (where / "sheets" / "made-up").mkdir(parents=True)
    Image.fromarray(sheet).save(where / "sheets" / "made-up" / "dit.png")
    (run,) = published_runs(where)
    found = answer_page._sheets(run, where)
    assert list(found) == ["dit"] and found["dit"].shape == (4, 96, 96, 3)
    assert [int(x.mean()) for x in found["dit"]] == [0, 200, 0, 0]
    caption = re.search(r"The first (\d) patches.*left (\d) without tumour, right (\d) with", answer_page.page(where))
    assert caption.groups() == ("4", "2", "2")
