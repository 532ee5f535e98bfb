from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from pcamlib import cli, data
from pcamlib.core.errors import StudyError
from pcamlib.data import phantom


@pytest.fixture(scope="module")
def sample():
    return phantom.generate(400, seed=0, split="train")


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.iterdir())}


def test_layout_and_types(sample):
    images, labels, factors = sample
    assert images.shape == (400, 96, 96, 3) and images.dtype == np.uint8
    assert labels.shape == (400,) and labels.dtype == np.uint8 and set(labels) == {0, 1}
    assert factors.shape == (400,) and factors.dtype == phantom.FACTORS


def test_same_seed_same_bytes_and_a_short_set_begins_a_long_one(sample):
    images, labels, factors = phantom.generate(40, seed=0, split="train")
    np.testing.assert_array_equal(images, sample[0][:40])
    np.testing.assert_array_equal(labels, sample[1][:40])
    np.testing.assert_array_equal(factors, sample[2][:40])


def test_global_random_state_plays_no_part():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    images, _, _ = phantom.generate(3, seed=5)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    np.testing.assert_array_equal(phantom.generate(3, seed=5)[0], images)


def test_other_seed_and_other_split_share_no_patch(sample):
    seen = {image.tobytes() for image in sample[0]}
    assert len(seen) == 400
    for seed, split in ((1, "train"), (0, "valid"), (0, "test")):
        assert not seen & {image.tobytes() for image in phantom.generate(30, seed, split)[0]}


def test_splits_have_their_own_slides():
    slides = {split: set(phantom.generate(60, 0, split)[2]["slide"].tolist()) for split in phantom.SLIDES}
    for split, ids in slides.items():
        assert ids <= set(phantom.SLIDES[split]) and len(ids) > 5
    assert not slides["train"] & slides["valid"] and not slides["train"] & slides["test"]
    assert not slides["valid"] & slides["test"]


def test_a_slide_keeps_its_scanner(sample):
    factors = sample[2]
    for slide in np.unique(factors["slide"]):
        assert len(np.unique(factors["scanner"][factors["slide"] == slide])) == 1
    assert set(factors["scanner"]) == {0, 1}


def test_the_centre_alone_decides_the_label(sample):
    _, labels, factors = sample
    np.testing.assert_array_equal(labels, factors["n_tumour"] > 0)
    np.testing.assert_array_equal(labels, factors["label"])
    assert (factors["n_tumour_patch"] >= factors["n_tumour"]).all()
    negative = labels == 0
    assert (factors["n_tumour_patch"][negative] > 0).sum() >= 5, "tumour around some negatives"
    # a nucleus centred outside the middle square may reach into it, by fewer pixels than the smallest positive has
    assert factors["tumour_fraction"][negative].max() < 0.035 < factors["tumour_fraction"][~negative].min()
    assert factors["tumour_radius"][negative].max() == 0 and factors["tumour_radius"][~negative].min() > 2


def test_about_half_are_positive(sample):
    assert 0.42 < sample[1].mean() < 0.58  # 400 fair coins: 0.5 +- 3.2 standard errors


def test_colours_are_those_of_haematoxylin_and_eosin(sample):
    images, labels, _ = sample
    red, green, blue = images.reshape(-1, 3).mean(0, dtype=np.float64)
    # real PCam: 177, 137, 175 on average; haematoxylin and eosin both absorb green most
    assert 150 < red < 200 and 110 < green < 160 and 150 < blue < 200
    assert green < red - 20 and green < blue - 20
    for label in (0, 1):
        means = images[labels == label].mean((1, 2))
        assert (means.std(0) > 10).all(), "stain and tissue vary between patches"


def test_known_nuclei_are_in_the_picture(sample):
    images, labels, factors = sample
    middle = images[:, 32:64, 32:64].astype(float)
    clear = (factors["fat"] + factors["blank"] < 0.05) & (factors["blur"] < 0.8)
    darkness = -np.log((middle[..., 0] + 1) / 256).mean((1, 2)) / factors["haematoxylin"]
    lymphoid = clear & (labels == 0)
    correlation = np.corrcoef(darkness[lymphoid], factors["n_lymphocytes"][lymphoid])[0, 1]
    # the stain of the ground varies on purpose and hides part of this
    assert correlation > 0.3, "more lymphocytes, more haematoxylin"
    assert factors["n_lymphocytes"][lymphoid].mean() > 2 * factors["n_lymphocytes"][labels == 1].mean()


def test_fat_and_blank_are_bright(sample):
    images, _, factors = sample
    empty = factors["fat"] + factors["blank"]
    white = (images.min(-1) > 215).mean((1, 2))
    assert (empty > 0.3).any()
    assert white[empty > 0.3].min() > 0.2
    assert white[empty == 0].mean() < 0.15


@pytest.mark.slow
def test_a_linear_model_beats_chance_and_is_not_perfect(sample):
    images, labels, _ = sample

    def features(x: np.ndarray) -> np.ndarray:
        centre = -np.log((x[:, 32:64, 32:64].astype(np.float64) + 1) / 256)
        quantiles = np.quantile(centre.reshape(len(x), -1, 3), [0.1, 0.3, 0.5, 0.7, 0.9], axis=1)
        grey = centre.mean(-1)
        edges = [np.abs(np.diff(grey, axis=a)).mean((1, 2)) for a in (1, 2)]
        return np.column_stack([quantiles.transpose(1, 0, 2).reshape(len(x), -1), *edges])

    test_images, test_labels, _ = phantom.generate(300, seed=0, split="test")
    train, test = features(images), features(test_images)
    mean, spread = train.mean(0), train.std(0)
    design = np.column_stack([(train - mean) / spread, np.ones(len(train))])
    weights = np.linalg.solve(design.T @ design + 5 * np.eye(design.shape[1]), design.T @ (2.0 * labels - 1))
    scores = np.column_stack([(test - mean) / spread, np.ones(len(test))]) @ weights
    ahead = scores[test_labels == 1][:, None] > scores[test_labels == 0][None, :]
    assert 0.6 < ahead.mean() < 0.97


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((5, 0, "training"), "training"), ((0, 0, "train"), "train"), ((5, -1, "train"), "seed")],
)
def test_bad_arguments_name_the_parameter(arguments, named):
    with pytest.raises(StudyError, match=named):
        phantom.generate(*arguments)


def test_written_files_are_pcam_files_with_factors_beside_them(tmp_path):
    phantom.write(tmp_path, train=7, valid=5, test=6, seed=3)
    for split, n in (("train", 7), ("valid", 5), ("test", 6)):
        images, labels, factors = phantom.generate(n, 3, split)
        with h5py.File(tmp_path / f"camelyonpatch_level_2_split_{split}_x.h5") as f:
            assert list(f) == ["x"] and f["x"].dtype == np.uint8
            np.testing.assert_array_equal(f["x"][:], images)
        with h5py.File(tmp_path / f"camelyonpatch_level_2_split_{split}_y.h5") as f:
            assert list(f) == ["y"] and f["y"].shape == (n, 1, 1, 1) and f["y"].dtype == np.uint8
        loaded = data.load(tmp_path, split)
        np.testing.assert_array_equal(loaded.images, images)
        np.testing.assert_array_equal(loaded.labels, labels)
        stored = phantom.read_factors(tmp_path, split)
        for name in phantom.FACTORS.names:
            np.testing.assert_array_equal(stored[name], factors[name])
    card = json.loads((tmp_path / "phantom.json").read_text())
    assert card == {"phantom": phantom.VERSION, "seed": 3, "train": 7, "valid": 5, "test": 6}


def test_factors_of_a_data_set_that_is_no_phantom(tmp_path):
    with pytest.raises(StudyError, match="phantom_factors_train"):
        phantom.read_factors(tmp_path, "train")


def test_a_cut_run_is_completed_to_the_same_files(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    phantom.write(whole, 4, 3, 3)
    phantom.write(cut, 4, 3, 3)
    data.file(cut, "train", "x").unlink()
    data.file(cut, "valid", "y").unlink()
    data.file(cut, "test", "x").unlink()
    data.file(cut, "test", "y").unlink()
    (cut / "phantom_factors_test.h5").unlink()
    phantom.write(cut, 4, 3, 3)
    for split in phantom.SLIDES:
        for kept, made in zip(data.load(whole, split), data.load(cut, split)):
            np.testing.assert_array_equal(kept, made)
    assert {p.name for p in whole.iterdir()} == {p.name for p in cut.iterdir()}


def test_command_writes_once_and_then_leaves_the_files_alone(tmp_path):
    arguments = (tmp_path, "--train", 4, "--valid", 2, "--test", 2, "--seed", 1)
    assert cli.main(["phantom", *map(str, arguments)]) == 0
    before = state(tmp_path)
    assert sum(name.endswith("_x.h5") for name in before) == 3
    assert cli.main(["phantom", *map(str, arguments)]) == 0
    assert state(tmp_path) == before


def test_command_refuses_another_phantom_in_one_sentence(tmp_path, capsys):
    phantom.write(tmp_path, 2, 2, 2, seed=0)
    before = state(tmp_path)
    arguments = ["--train", "2", "--valid", "2", "--test", "2", "--seed", "1"]
    assert cli.main(["phantom", str(tmp_path), *arguments]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1 and str(tmp_path) in said
    assert state(tmp_path) == before


def test_files_that_are_no_phantom_are_never_overwritten(tmp_path):
    real = data.file(tmp_path, "valid", "x")
    real.write_bytes(b"somebody's slides")
    with pytest.raises(StudyError, match="not a phantom"):
        phantom.write(tmp_path, 2, 2, 2)
    assert [p.name for p in tmp_path.iterdir()] == [real.name] and real.read_bytes() == b"somebody's slides"


def test_a_file_in_place_of_the_folder(tmp_path, capsys):
    (tmp_path / "here").write_text("a file")
    assert cli.main(["phantom", str(tmp_path / "here")]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1 and "not a folder" in message
    assert (tmp_path / "here").read_text() == "a file"


def test_a_bad_size_writes_nothing(tmp_path, capsys):
    assert cli.main(["phantom", str(tmp_path / "new"), "--train", "0"]) == 2
    assert "train" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_slides_and_scanners_are_written_as_groups(tmp_path):
    """Also beside a phantom of an earlier version, which had none."""
    phantom.write(tmp_path, train=6, valid=4, test=4)
    held = phantom.read_factors(tmp_path, "train")
    assert list(data.groups(tmp_path, "train")) == [f"slide {i}" for i in held["slide"]]
    assert list(data.centres(tmp_path, "train")) == [f"scanner {i}" for i in held["scanner"]]
    for split in data.SPLITS:
        data.groups_file(tmp_path, split).unlink()
    phantom.write(tmp_path, train=6, valid=4, test=4)
    assert data.groups(tmp_path, "test") is not None
