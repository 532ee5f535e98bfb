"""The registry of generators, and images made elsewhere as one of them."""

import re

import numpy as np
import pytest
import yaml
from conftest import settings
from PIL import Image
from small_selection import GATE, Sampler

from pcamlib import data
from pcamlib.core import paper
from pcamlib.core.errors import StudyError
from pcamlib.core.settings import load_profile
from pcamlib.experiments import classification, selection
from pcamlib.models import generators
from pcamlib.results.arms import Arm
from pcamlib.study import REAL, SELECTIONS


def profile(tmp_path, **changes):
    path = tmp_path / "p.yml"
    path.write_text(yaml.safe_dump(settings(**changes)))
    return load_profile(str(path))


def test_the_papers_generators_are_registered_under_its_names():
    for name in paper.GENERATORS:
        entry = generators.REGISTRY[name]
        assert entry.name == name and entry.label == paper.GENERATOR_NAMES[name] and entry.after
    others = {name: entry.label for name, entry in generators.REGISTRY.items() if name not in paper.GENERATORS}
    assert others == paper.OWN_NAMES, "every registered generator has a name for readers"
    assert all(Arm("transfer", name, "none").title.startswith(paper.OWN_NAMES[name]) for name in others)
    colours = [entry.colour for entry in generators.REGISTRY.values()] + list(generators.SPARE_COLOURS)
    assert len({colour.lower() for colour in colours}) == len(colours)
    assert all(re.fullmatch("#[0-9A-F]{6}", colour) for colour in colours)


def test_the_default_list_leaves_the_profiles_hash_as_it_was(tmp_path):
    default = profile(tmp_path)
    assert default.generator_names == list(paper.GENERATORS) and default.histogan.variant == "stabilised"
    assert default.sha == load_profile("smoke").sha == "39cdfcfab89d3105"
    listed = profile(tmp_path, generators=[*paper.GENERATORS])
    fewer = profile(tmp_path, generators=["dit"])
    more = profile(tmp_path, generators=[*paper.GENERATORS, "flow"])
    folder = profile(tmp_path, generators=[*paper.GENERATORS, {"name": "mine", "images": "x"}])
    assert listed.sha == default.sha and len({default.sha, fewer.sha, more.sha, folder.sha}) == 4


@pytest.mark.parametrize(
    "value, message",
    [
        ([], "should have at least 1 item"),
        (["dit", "dit"], "'dit' is used twice"),
        (["My-GAN"], "a name of lower-case letters"),
        ([{"name": "mine"}], "{name: NAME, images: FOLDER}"),
        ([{"name": "mine", "images": "x", "colour": "red"}], "{name: NAME, images: FOLDER}"),
        ([{"name": "quality", "images": "x"}], "'quality' is used twice or has another meaning"),
        ([{"name": "dit", "images": "x"}], "'dit' is used twice or has another meaning"),
        ([3], "a name of lower-case letters"),
        ("dit", "a valid list"),
    ],
)
def test_a_list_that_cannot_be_is_refused(tmp_path, value, message):
    with pytest.raises(StudyError, match=re.escape(message)) as caught:
        profile(tmp_path, generators=value)
    assert "'generators" in str(caught.value)


def test_only_what_the_profile_lists_can_be_asked_for(open_tiny):
    s = open_tiny(generators=["dit"])
    assert generators.find(s, "dit").label == "DiT"
    with pytest.raises(StudyError, match="generator 'unet' is not in profile 'smoke': it is one of dit"):
        generators.find(s, "unet")
    with pytest.raises(StudyError, match="generator 'unet' is not in profile"):
        classification.evaluate(s, "unet")
    with pytest.raises(StudyError, match="generator 'dti' is unknown: did you mean 'dit'.*{name: dti, images: FOLDER}"):
        generators.listed(open_tiny(runs="other", generators=["dti"]).profile)


def test_labels_and_colours_cover_what_is_not_registered():
    assert generators.label("unet") == "U-Net" and generators.label("mine") == "mine"
    assert generators.label(REAL) == "real patches only"
    found = generators.colours(["mine", "dit", "theirs"])
    assert found["dit"] == generators.REGISTRY["dit"].colour and len(set(found.values())) == 3


# ------------------------------------------------------------------------------------------------ images made elsewhere


def from_folder(open_tiny, images, labels, folder, runs="elsewhere", suffix="png"):
    """A study whose one generator is a folder of these images, and its sampler."""
    for c in (0, 1):
        (folder / str(c)).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images[labels == c]):
            Image.fromarray(image).save(folder / str(c) / f"{i}.{suffix}")
    s = open_tiny(runs=runs, generators=[{"name": "mine", "images": str(folder)}], **{"selection.candidates": 4})
    return s, generators.find(s, "mine").sampler(s)


def test_images_of_one_run_give_another_run_the_same_sets(open_tiny, tmp_path):
    first = open_tiny(**{"selection.candidates": 4})
    batches = []
    sampler = Sampler(first)

    def kept(labels, seed):
        batches.append((sampler(labels, seed), labels))
        return batches[-1][0]

    here = selection.select(first, "unet", kept, GATE)
    images, labels = (np.concatenate(parts) for parts in zip(*batches))
    second, folder = from_folder(open_tiny, images, labels, tmp_path / "images")
    there = selection.select(second, "mine", folder, GATE)
    assert there["selections"] == here["selections"] and there["scores"] == here["scores"]
    assert there["images"] == {"about": folder.about, "sha": folder.sha}
    for s in SELECTIONS:
        a, b = (data.load(run.synthetic(g, s), "train") for run, g in ((first, "unet"), (second, "mine")))
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_too_few_images_are_not_run_and_the_reason_names_the_folder(open_tiny, tmp_path):
    s = open_tiny()
    images, labels = s.real
    few = np.concatenate([np.flatnonzero(labels == c)[:7] for c in (0, 1)])
    s, folder = from_folder(open_tiny, images[few], labels[few], tmp_path / "few")
    result = selection.select(s, "mine", folder, GATE)
    assert result["selections"]["none"]["kept"] == [7, 7] and result["selections"]["none"]["short"]
    reason = "too few images: kept [7, 7] of [16, 16] from the folder few with [7, 7] images"
    assert selection.shortage(s, "mine", "none") == reason and selection.synthetic(s, "mine", "none") is None
    rows = [row for row in classification.run_arms(s, "mine") if row["selection"] == "none"]
    assert len(rows) == 3 and all(row["status"] == "not run" and row["reason"] == reason for row in rows)


def test_a_folder_that_changed_is_refused_and_its_old_batches_are_not_used(open_tiny, tmp_path):
    s = open_tiny()
    s, folder = from_folder(open_tiny, *s.real, tmp_path / "images")
    result = selection.select(s, "mine", folder, GATE)
    assert selection.select(s, "mine", folder, GATE) == result
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(tmp_path / "images" / "0" / "0.png")
    with pytest.raises(StudyError, match="was made from other images than .*images holds now"):
        selection.select(s, "mine", generators.find(s, "mine").sampler(s), GATE)


def test_a_folder_that_is_not_there_is_named(open_tiny, tmp_path):
    s = open_tiny(generators=[{"name": "mine", "images": str(tmp_path / "none")}])
    with pytest.raises(StudyError, match="generators: .*none is not a folder"):
        generators.find(s, "mine").sampler(s)
