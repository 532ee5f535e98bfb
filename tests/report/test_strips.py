"""Strips show what a run's generators drew, never a patch of its data, and say what they lack."""

import io
import json
import re
import shutil

import made_up
import numpy as np
import pytest
from PIL import Image

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json, write_json
from pcamlib.models import autoencoder, diffusion
from pcamlib.report import publish, published_page, strips
from pcamlib.results import load

SCORES = [0.5, 1.5] * 15


def synthetic(run, generator, images=None, scores=SCORES, **provenance):
    """An unselected set of subset 0, by default of pure noise, which compresses worst."""
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (len(scores), 96, 96, 3), np.uint8)
    folder = run / "subset-0" / "synthetic" / f"{generator}-none"
    data.write(folder, "train", images, np.arange(len(images), dtype=np.uint8) % 2)
    card = {"provenance": made_up.provenance(0, **provenance), "scores": {"realism": list(scores)}}
    write_json(folder / "card.json", card)
    return folder


@pytest.fixture
def made_up_run(tmp_path):
    return made_up.write_run(tmp_path / "runs" / "made-up", subsets=1)


@pytest.fixture
def trained(open_tiny):
    """A run folder with a trained U-Net and DiT, which have seen real patches."""
    s = open_tiny(**{"autoencoder.epochs": 1, "diffusion.epochs": 1, "diffusion.sampling_steps": 8})
    model, _ = autoencoder.train(s)
    autoencoder.encode_subset(s, model)
    for backbone in ("unet", "dit"):
        s.write_result(backbone, {"log": diffusion.train(s, backbone)[1]})
    return s


def test_a_run_without_samples_or_networks_says_so(made_up_run, tmp_path):
    files = strips.draw(made_up_run, load(made_up_run, 1))
    assert set(files) == {strips.INDEX}
    strips.write(files, tmp_path / "reference" / "strips" / "made-up")
    found, lacks = strips.of_run("made-up", tmp_path / "reference")
    assert not found and len(lacks) == 3 * 2 + 2 * 2
    assert "U-Net, the reverse process: no trained network in the run folder." in lacks
    assert "HistoGAN, kept and dropped patches: no samples in the run folder." in lacks
    assert not [text for text in lacks if text.startswith("HistoGAN, guidance")], "a GAN has none"
    assert strips.of_run("another", tmp_path / "reference") == ([], [])


def test_strips_of_samples_are_small_and_named(made_up_run):
    synthetic(made_up_run, "unet")
    synthetic(made_up_run, "histogan", scores=[1.5] * 20)
    files = strips.draw(made_up_run, load(made_up_run, 1))
    assert set(files) - {strips.INDEX} == {
        f"{g}-{k}.png" for g in ("unet", "histogan") for k in ("samples", "selection")
    }
    assert max(map(len, files.values())) < 200_000
    index = json.loads(files[strips.INDEX])
    (kept,) = [strip for strip in index["strips"] if strip["file"] == "unet-selection.png"]
    assert kept["title"].startswith("U-Net, published run made-up: patches that realism selection keeps and drops")
    assert "The median score is 1.50 of the kept patches and 0.50 of the dropped" in kept["note"]
    assert "Data: phantom (procedural stand-in, no tissue); profile demo; subset 0" in kept["note"]
    assert kept["provenance"]["profile"] == "demo"
    (none,) = [strip for strip in index["strips"] if strip["file"] == "histogan-selection.png"]
    assert "8 patches were kept and 0 dropped" in none["note"]


def test_the_reverse_process_and_guidance_are_of_the_trained_network(trained):
    """The last picture of the reverse process is what the generator draws; guidance is that of the study."""
    source = strips.Source(trained.root, "dit")
    figure, shown, provenance = strips.KINDS["reverse"].draw(source)
    pictures = [axes.get_images()[0].get_array() for axes in figure.axes]
    assert len(pictures) == 2 * strips.MOMENTS and "above no tumour, below tumour" in shown
    sampler = diffusion.load(trained, "dit")
    latents = sampler.denoise(strips.torch.tensor([0, 1]), seed=trained.seed)[0][-1]
    np.testing.assert_array_equal(pictures[strips.MOMENTS - 1 :: strips.MOMENTS], sampler.decoder.to_images(latents))
    assert provenance["data"] == "tiny" and provenance["seed"] == trained.seed
    figure, _, _ = strips.KINDS["guidance"].draw(strips.Source(trained.root, "unet"))
    pictures = np.array([axes.get_images()[0].get_array() for axes in figure.axes])
    pictures = pictures.reshape(len(strips.SCALES), 2 * strips.EACH, 96, 96, 3)
    expected = diffusion.load(trained, "unet").sample(np.repeat([0, 1], strips.EACH), seed=trained.seed, guidance=4.0)
    np.testing.assert_array_equal(pictures[strips.SCALES.index(4)], expected)


def test_no_picture_holds_a_patch_of_the_data(trained, made_up_run):
    """Images made elsewhere may be real: they are not drawn. Nothing else than samples and networks is read."""
    real = trained.real.images
    synthetic(made_up_run, "mine", real[:30])
    made_up.edit(
        made_up_run / "subset-0" / "results" / "selection-unet.json", lambda content: content.update(generator="mine")
    )
    results = load(made_up_run, 1)
    results.loc[results["generator"] == "dit", "generator"] = "mine"
    assert "mine" in strips.generators_of(results)
    assert not [name for name in strips.draw(made_up_run, results) if "mine" in name]
    for kind in ("reverse", "guidance"):
        figure, _, _ = strips.KINDS[kind].draw(strips.Source(trained.root, "unet"))
        for axes in figure.axes:
            shown = np.asarray(axes.get_images()[0].get_array(), int)
            assert np.abs(shown - real).mean(axis=(1, 2, 3)).min() > 1, "a patch of the subset"


@pytest.mark.slow
def test_the_published_page_shows_them_and_stale_ones_leave(made_up_run, tmp_path):
    where = tmp_path / "reference"
    synthetic(made_up_run, "dit")
    publish.publish(made_up_run, 1, where)
    assert (where / "strips" / "made-up" / "dit-selection.png").exists()
    text = published_page.page(load(made_up_run, 1), {}, where)
    assert "{dropdown} Generated patches: kept and dropped patches" in text
    assert "../reference/strips/made-up/dit-selection.png" in text
    assert "{dropdown} Generated patches that are not there" in text
    assert "DiT, guidance: no trained network in the run folder" in text
    shutil.rmtree(made_up_run / "subset-0" / "synthetic" / "dit-none")
    publish.publish(made_up_run, 1, where)
    assert [path.name for path in (where / "strips" / "made-up").iterdir()] == [strips.INDEX]


def test_a_chapter_shows_the_published_strip_or_nothing(made_up_run, tmp_path, capsys):
    where = tmp_path / "reference"
    assert strips.show("selection", "unet", where) is None and not capsys.readouterr().out
    synthetic(made_up_run, "unet")
    results = load(made_up_run, 1)
    strips.write(strips.draw(made_up_run, results), where / "strips" / "a-phantom")
    synthetic(made_up_run, "unet", data="pcam", phantom=False, n_real=64)
    strips.write(strips.draw(made_up_run, results), where / "strips" / "real")
    path, strip = strips.find("selection", "unet", where)
    assert path == where / "strips" / "real" / "unet-selection.png", "real patches come first"
    shown = strips.show("selection", "unet", where)
    assert shown.data == path.read_bytes() and "HTML" in capsys.readouterr().out
    assert Image.open(io.BytesIO(shown.data)).width > 600
    assert strips.show("selection", "dit", where) is None and strips.show("reverse", "unet", where) is None
    with pytest.raises(ValueError, match="kind is 'noise'"):
        strips.show("noise", "unet", where)


def test_damaged_files_end_in_a_sentence(made_up_run, tmp_path):
    folder = synthetic(made_up_run, "unet")
    results, where = load(made_up_run, 1), tmp_path / "reference"
    strips.write(strips.draw(made_up_run, results), where / "strips" / "made-up")
    (where / "strips" / "made-up" / "unet-samples.png").unlink()
    with pytest.raises(StudyError, match="unet-samples.png is missing: restore it"):
        strips.find("selection", "unet", where)
    index = where / "strips" / "made-up" / strips.INDEX
    write_json(index, {"strips": [{"file": "x.png"}], "missing": []})
    with pytest.raises(StudyError, match=re.escape(f"{index} is no list of strips")):
        strips.find("selection", "unet", where)
    write_json(folder / "card.json", {"provenance": read_json(folder / "card.json")["provenance"]})
    with pytest.raises(StudyError, match="kept and dropped patches of unet cannot be drawn"):
        publish.publish(made_up_run, 1, tmp_path / "other")
    assert not (tmp_path / "other").exists()
