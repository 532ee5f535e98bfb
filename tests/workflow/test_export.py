"""Out of a run again: files that torchvision, Pillow and diffusers open, with the same content."""

import re
import shutil
from pathlib import Path

import conftest
import made_up
import numpy as np
import pytest
import torch
import yaml
from diffusers import DiTTransformer2DModel, UNet2DModel
from PIL import Image
from safetensors.torch import load_file, save_file
from small_selection import GATE, Sampler
from torchvision.datasets import PCAM

from pcamlib import cli, data, study
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root, read_json, write_json
from pcamlib.data import convert
from pcamlib.experiments import selection
from pcamlib.models import autoencoder, diffusion, flow, histogan, pipeline
from pcamlib.report import publish
from pcamlib.results import load
from pcamlib.workflow import export

LABELS = np.array([0, 1, 1])


@pytest.fixture
def run(open_tiny):
    """A run folder with a synthetic set for each selection, and its study."""
    s = open_tiny()
    selection.select(s, "unet", Sampler(s), GATE)
    return s


def says_nothing_of(folder, *places):
    """Every file of `folder`, weights and pictures too."""
    for path in folder.rglob("*"):
        for place in places:
            assert path.is_dir() or str(place).encode() not in path.read_bytes(), f"{path} says where it was made"


def test_synthetic_sets_leave_as_files_that_torchvision_opens(run, tmp_path, capsys):
    assert cli.main(["data", "export", str(run.root), str(tmp_path / "out"), "--as", "pcam"]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out/subset-0" / f"unet-{s}") for s in ("class", "none", "realism")
    ]
    out = tmp_path / "out" / "subset-0" / "unet-none"
    images, labels = data.load(run.synthetic("unet", "none"), "train")
    theirs = PCAM(out, split="train")
    assert len(theirs) == len(labels) == 32
    for i in (0, 7, 31):
        image, label = theirs[i]
        assert label == labels[i]
        np.testing.assert_array_equal(np.asarray(image), images[i])
    card = read_json(out / "card.json")
    assert card["provenance"]["data"] == "tiny" and card["classes"] == ["no tumour", "tumour"] and "scores" in card
    assert card["report"]["train"]["patches"] == 32 and "| train | 32 |" in (out / "card.md").read_text()
    says_nothing_of(tmp_path / "out", tmp_path, run.data_root.parent)
    note = (out / "LICENCE.md").read_text()
    assert "Learned from real patches: tiny" in note and card["provenance"]["data_sha"] in note


def test_pngs_come_back_as_they_left(run, pcam, tmp_path):
    export.export(run.synthetic("unet", "none"), tmp_path / "set", "png")
    images, labels = data.load(run.synthetic("unet", "none"), "train")
    lines = (tmp_path / "set" / "labels.csv").read_text().split()
    assert lines[0] == "file,label" and len(lines) == 33
    for i, line in enumerate(lines[1:]):
        name, label = line.split(",")
        assert int(label) == labels[i] and name.startswith(("0-no-tumour/", "1-tumour/")[labels[i]])
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "set" / name)), images[i])
    export.export(pcam, tmp_path / "all", "png")
    convert.convert(tmp_path / "all", tmp_path / "back")
    for split in data.SPLITS:
        for kind in "xy":
            assert data.file(tmp_path / "back", split, kind).read_bytes() == data.file(pcam, split, kind).read_bytes()
    assert "not stated" in (tmp_path / "all" / "LICENCE.md").read_text()
    for folder in ("set", "all", "back"):
        says_nothing_of(tmp_path / folder, tmp_path, pcam.parent)


def test_generators_leave_as_pipelines_and_sample_what_they_sampled(open_tiny, tmp_path, monkeypatch):
    own = str(tmp_path / "images made elsewhere")
    s = open_tiny(generators=["histogan", "unet", "dit", "flow", {"name": "mine", "images": own}])
    model, log = autoencoder.train(s)
    autoencoder.encode_subset(s, model)
    labels = np.array([0, 1, 1])
    expected = {}
    for backbone in ("unet", "dit"):
        generator, log = diffusion.train(s, backbone)
        s.write_result(backbone, {"log": log})
        expected[backbone] = generator.sample(labels, seed=5)
    expected["flow"] = flow.train(s)[0].sample(labels, seed=5)
    gan, log = histogan.train(s, folder=s.folder / "histogan")
    s.write_result("histogan", {"log": log})
    written = export.export(s.root, tmp_path / "generators", "generator")
    assert [p.relative_to(tmp_path / "generators").as_posix() for p in written] == [
        "subset-0/dit", "subset-0/flow", "subset-0/unet", "subset-0/histogan"
    ]  # fmt: skip
    for backbone, kind in {"unet": UNet2DModel, "dit": DiTTransformer2DModel, "flow": UNet2DModel}.items():
        folder = tmp_path / "generators" / "subset-0" / backbone
        pipe = pipeline.PatchPipeline.from_pretrained(folder)
        np.testing.assert_array_equal(pipe(labels, seed=5), expected[backbone])
        assert isinstance(pipe.denoiser, kind) and isinstance(kind.from_pretrained(folder / "denoiser"), kind)
        kind.from_pretrained(s.folder / backbone / "model")  # and straight from the run folder
        assert read_json(folder / "card.json")["provenance"]["data"] == "tiny" and (folder / "LICENCE.md").exists()
    gan_folder = tmp_path / "generators" / "subset-0" / "histogan"
    np.testing.assert_array_equal(
        histogan.sample(histogan.load(gan_folder), labels, 5), histogan.sample(gan, labels, 5)
    )
    with pytest.raises(StudyError, match="labels must be a list of 0 and 1"):
        pipe([0, 2])
    says_nothing_of(tmp_path / "generators", tmp_path, s.data_root.parent)
    assert read_json(gan_folder / "card.json")["settings"]["generators"][-1]["images"] == "images made elsewhere"
    assert "DiffusionPipeline.from_pretrained` cannot load" in (folder / "README.md").read_text()

    # the README's own lines
    readme = (project_root() / "README.md").read_text()
    (lines,) = [
        block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "generators/subset-0" in block
    ]
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(lines, scope)
    assert scope["images"].shape == (2, 96, 96, 3) and scope["images"].dtype == np.uint8

    weights = s.folder / "unet" / "model" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(StudyError, match="unet/model is damaged.*run notebooks/03_diffusion.md again"):
        export.export(s.root, tmp_path / "broken", "generator")
    assert not list(tmp_path.glob("*broken*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pcam):
    """A run folder with made-up results and a trained U-Net, DiT, flow and HistoGAN, and what each draws from seed
    5."""
    folder = tmp_path_factory.mktemp("trained")
    profile = conftest.settings(**{"subsets.size": 32, "quality.judge.size": 32})
    profile["generators"] = ["histogan", "unet", "dit", "flow"]
    (folder / "tiny.yml").write_text(yaml.safe_dump(profile))
    s = study.open_study(data_root=str(pcam), runs_dir=str(folder / "runs"), profile=str(folder / "tiny.yml"), subset=0)
    autoencoder.encode_subset(s, autoencoder.train(s)[0])
    drawn = {backbone: diffusion.train(s, backbone)[0].sample(LABELS, seed=5) for backbone in ("unet", "dit")}
    drawn["flow"] = flow.train(s)[0].sample(LABELS, seed=5)
    gan = histogan.train(s, folder=s.folder / "histogan")[0]
    drawn["histogan"] = histogan.sample(gan, LABELS, seed=5)
    made_up.write_run(s.root, subsets=1)
    made_up.edit(s.results / "flow.json", lambda content: content.update(provenance=made_up.provenance(0)))
    return s.root, drawn


@pytest.fixture
def half(trained, tmp_path):
    """The same run folder, to be changed."""
    root, drawn = trained
    return Path(shutil.copytree(root, tmp_path / "runs" / root.name)), drawn


def published(folder, generator):
    if generator == "histogan":
        return histogan.sample(histogan.load(folder), LABELS, seed=5)
    return pipeline.PatchPipeline.from_pretrained(folder)(LABELS, seed=5)


def test_half_precision_draws_nearly_the_same_and_says_nothing_of_its_origin(half, trained, tmp_path):
    run, drawn = half
    assert export._half(run, 0, tmp_path / "half") == {}
    index = read_json(tmp_path / "half" / "index.json")
    assert index["generators"] == sorted(drawn) and index["subset"] == 0 and index["left_out"] == {}
    for name, expected in drawn.items():
        folder = tmp_path / "half" / name
        for path in folder.rglob("*.safetensors"):
            kinds = {value.dtype for value in load_file(path).values()}
            assert kinds <= {torch.float16, torch.int64} and torch.float16 in kinds
        found = published(folder, name)
        off = np.abs(found.astype(int) - expected)
        assert not np.array_equal(found, expected) and off.mean() < 0.5 and off.max() <= 8, (
            name,
            off.mean(),
            off.max(),
        )
        assert "half precision" in (folder / "README.md").read_text() and (folder / "LICENCE.md").exists()
        card = read_json(folder / "card.json")
        assert card["weights"] == "float16" and card["provenance"]["data"] == "phantom"
    says_nothing_of(tmp_path / "half", tmp_path, trained[0].parents[1], project_root())
    kinds = {path.suffix for path in (tmp_path / "half").rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json", ".md"}, "no pickle"


def test_a_generator_that_is_too_large_or_does_not_fit_is_not_kept(half, tmp_path, monkeypatch):
    run, _ = half
    monkeypatch.setattr(export, "LARGEST", 800_000)
    left_out = export._half(run, 0, tmp_path / "small")
    assert list(left_out) == ["histogan"] and left_out["histogan"] > 800_000
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["dit", "flow", "index.json", "unet"]
    assert read_json(tmp_path / "small" / "index.json")["left_out"] == left_out
    with pytest.raises(StudyError, match="subset 1 of .* holds no trained generator: give another subset"):
        export._half(run, 1, tmp_path / "none")
    weights = load_file(run / "subset-0" / "histogan" / histogan.WEIGHTS)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] = 1e6
    save_file(weights, run / "subset-0" / "histogan" / histogan.WEIGHTS)
    with pytest.raises(StudyError, match="a weight does not fit half precision"):
        export._half(run, 0, tmp_path / "large")


def test_large_weights_are_cut_into_files_that_git_may_hold(half, tmp_path, monkeypatch):
    run, drawn = half
    assert export._half(run, 0, tmp_path / "whole") == {}
    monkeypatch.setattr(export, "LARGEST", 375_000)
    left_out = export._half(run, 0, tmp_path / "cut")
    kept = sorted(set(drawn) - set(left_out))
    assert [name for name in kept if list((tmp_path / "cut" / name).rglob("*-00002-of-*.safetensors"))]
    for name in kept:
        assert max(path.stat().st_size for path in (tmp_path / "cut" / name).rglob("*")) <= 375_000
        np.testing.assert_array_equal(
            published(tmp_path / "cut" / name, name), published(tmp_path / "whole" / name, name)
        )


def draws(markdown, root, monkeypatch):
    """Run the one listing of `markdown` in `root`, where it must draw two patches."""
    (lines,) = re.findall(r"```python\n(.*?)```", markdown, re.DOTALL)
    assert len(lines.strip().splitlines()) == 5
    monkeypatch.chdir(root)
    exec(lines, {})
    images = [np.asarray(Image.open(root / f"patch-{c}.png")) for c in (0, 1)]
    for c, image in enumerate(images):
        assert image.shape == (96, 96, 3) and image.std() > 1
        (root / f"patch-{c}.png").unlink()
    assert not np.array_equal(*images)


def test_five_lines_draw_patches_from_what_is_kept(half, tmp_path, monkeypatch):
    run, _ = half
    where = tmp_path / "checkout" / "book" / "reference"
    kept = where / "generators" / "some-run"
    assert publish._draw("some-run", where) == []
    export._half(run, 0, kept)
    text = "\n".join(publish._draw("some-run", where))
    assert "subset 0 are in `book/reference/generators/some-run/`: DiT, HistoGAN, Rectified flow, U-Net" in text
    draws(text, tmp_path / "checkout", monkeypatch)
    index = read_json(kept / "index.json")
    write_json(kept / "index.json", index | {"generators": ["histogan"], "left_out": {"unet": 12_605_792}})
    text = "\n".join(publish._draw("some-run", where))
    assert text.endswith("Left out, because a file is too large to be kept here: U-Net (12.6 MB).")
    draws(text, tmp_path / "checkout", monkeypatch)
    write_json(kept / "index.json", index | {"generators": []})
    assert publish._draw("some-run", where) == [], "no section that names what is not there"
    for damage in ({"generators": ["gone"]}, {"left_out": None, "generators": 3}):
        write_json(kept / "index.json", index | damage)
        with pytest.raises(StudyError, match="does not list the weights beside it"):
            publish._draw("some-run", where)


@pytest.mark.slow
def test_weights_are_published_with_the_numbers(half, trained, tmp_path, monkeypatch):
    run, _ = half
    root, said = tmp_path / "checkout", []
    (root / "book").mkdir(parents=True)
    readme = root / "README.md"
    readme.write_text(f"# A\n\n{publish.START}\n\nold\n\n{publish.END}\n")
    kept = root / "book" / "reference" / "generators" / run.name
    monkeypatch.setattr(export, "LARGEST", 800_000)
    export.publish(run, 1, root, weights=0, say=said.append)
    assert len(said) == 1 and said[0].startswith("histogan: left out, a file of 1.0 MB is larger than the 0.8 MB")
    text = readme.read_text()
    assert "### Draw patches without training" in text and text.index(publish.END) > text.index("without training")
    assert publish.into(text, load(run, 1), run.name, root / "book" / "reference") == text
    export.publish(run, 1, root)
    assert readme.read_text() == text, "weights of the same data and profile stay"
    says_nothing_of(kept, tmp_path, trained[0].parents[1])
    write_json(kept / "index.json", read_json(kept / "index.json") | {"profile_sha": "another"})
    export.publish(run, 1, root)
    assert not kept.exists() and "without training" not in readme.read_text()
    (run / "subset-0" / "results" / "quality.json").unlink()
    with pytest.raises(StudyError, match="run notebook 06 first"):
        export.publish(run, 1, root, weights=0, say=said.append)
    assert not kept.exists()


def test_names_of_classes_and_what_the_phantom_is_go_along(pcam, tmp_path):
    named = tmp_path / "named"
    shutil.copytree(pcam, named)
    write_json(named / "card.json", {"classes": ["normal", "adenoma"]})
    (named / "phantom.json").write_text("{}")
    export.export(named, tmp_path / "out", "pcam")
    assert data.classes(tmp_path / "out" / "pcam") == ("normal", "adenoma")
    assert (tmp_path / "out" / "pcam" / "phantom.json").exists()
    assert "phantom" in (tmp_path / "out" / "LICENCE.md").read_text()
    export.export(named, tmp_path / "pngs", "png")
    convert.convert(tmp_path / "pngs", tmp_path / "back")
    assert data.classes(tmp_path / "back") == ("normal", "adenoma")
    (named / "phantom.json").unlink()
    for card in ({"classes": ["a", "b"], "provenance": "x"}, {"provenance": {}}, {"classes": ["a", "b"], "notes": 5}):
        write_json(named / "card.json", card)
        with pytest.raises(StudyError, match="is no card of a data set"):
            export.export(named, tmp_path / "bad", "pcam")
    assert not (tmp_path / "bad").exists()


def test_a_folder_of_runs_is_refused_before_one_overwrites_another(run, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(run.root, tmp_path / "runs" / name)
    with pytest.raises(StudyError, match="holds several runs"):
        export.export(tmp_path / "runs", tmp_path / "out", "pcam")
    assert not (tmp_path / "out").exists()


def test_what_cannot_leave_says_why(open_tiny, pcam, tmp_path):
    s = open_tiny()
    with pytest.raises(StudyError, match="holds no PCam files and no synthetic sets: run notebook 05"):
        export.export(s.root, tmp_path / "out", "png")
    with pytest.raises(StudyError, match="holds no trained generator"):
        export.export(s.root, tmp_path / "out", "generator")
    with pytest.raises(StudyError, match="is not a folder"):
        export.export(tmp_path / "none", tmp_path / "out", "png")
    with pytest.raises(StudyError, match="exists: choose another folder"):
        export.export(pcam, pcam, "pcam")
    assert not (tmp_path / "out").exists()
