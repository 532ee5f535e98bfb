"""PCam files: reading, subsets, verification, and one clear sentence for each kind of bad file."""

import pickle

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcamlib import cli
from pcamlib import data
from pcamlib.core.errors import StudyError


def test_load_returns_the_rows_asked_for_in_their_order(pcam, patches):
    index = np.array([7, 3, 3, 100, 0])
    images, labels = data.load(pcam, "train", index)
    assert images.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(images, patches.images[index])
    np.testing.assert_array_equal(labels, patches.labels[index])
    assert len(data.load(pcam, "test").labels) == 32
    with pytest.raises(StudyError, match="row numbers"):
        data.load(pcam, "train", np.array([128]))


def test_patches_work_in_worker_processes(pcam, patches):
    dataset = data.Patches(pcam, "train")
    dataset[0]  # the handle is open before the workers fork
    assert len(pickle.loads(pickle.dumps(dataset))) == 128
    loader = torch.utils.data.DataLoader(dataset, batch_size=32, num_workers=2)
    images = np.concatenate([batch[0].numpy() for batch in loader])
    np.testing.assert_array_equal(images, patches.images[:128])


def test_subsets_of_full_pcam():
    labels = np.tile([0, 1], 131072)
    parts = data.subsets(labels)
    assert [len(p) for p in parts] == [26215] * 5
    assert len(np.unique(np.concatenate(parts))) == 5 * 26215
    assert all(abs(int(labels[p].sum()) - 13107.5) == 0.5 for p in parts)


@settings(deadline=None)
@given(
    st.integers(1, 4), st.integers(2, 40), st.lists(st.integers(0, 1), min_size=200, max_size=300), st.integers(0, 5)
)
def test_subsets_are_disjoint_sorted_stratified_and_repeatable(n, size, labels, seed):
    labels = np.array(labels)
    try:
        parts = data.subsets(labels, n=n, size=size, seed=seed)
    except ValueError as error:
        assert "ask for fewer or smaller" in str(error)
        return
    joined = np.concatenate(parts)
    assert len(np.unique(joined)) == len(joined) == n * size
    for part, again in zip(parts, data.subsets(labels, n=n, size=size, seed=seed)):
        assert (np.diff(part) > 0).all()
        np.testing.assert_array_equal(part, again)
        assert abs(labels[part].sum() - size * labels.mean()) <= 1
    # a subset does not depend on how many there are
    np.testing.assert_array_equal(parts[0], data.subsets(labels, n=1, size=size, seed=seed)[0])


def test_subsets_that_do_not_fit():
    with pytest.raises(ValueError, match="3 subsets of 50 patches need 75 of class 0, the train split has 50"):
        data.subsets(np.tile([0, 1], 50), n=3, size=50)


def test_verify_counts_duplicates_within_and_across(tmp_path, patches):
    images, labels = patches.images[:40].copy(), patches.labels[:40].copy()
    images[4] = images[2]  # a copy, same class
    images[5] = images[2]  # a copy with the other label
    images[6] = 255  # blank
    data.write(tmp_path, "train", images[:20], labels[:20])
    data.write(tmp_path, "valid", images[20:30], labels[20:30])
    data.write(tmp_path, "test", np.concatenate([images[30:39], images[2:3]]), labels[30:40])
    report = data.verify(tmp_path)
    assert report["train"] | {"mean_rgb": None} == {
        "patches": 20, "tumour": 10, "distinct": 18, "duplicate_rows": 2, "conflicting": 1, "blank": 1, "mean_rgb": None
    }  # fmt: skip
    assert report["across"] == {"train-valid": 0, "train-test": 1, "valid-test": 0}


def break_missing(root):
    data.file(root, "test", "x").unlink()


def break_truncated(root):
    path = data.file(root, "test", "x")
    path.write_bytes(path.read_bytes()[:5000])


def rewrite(kind, value, name=None):
    def change(root):
        with h5py.File(data.file(root, "test", kind), "w") as f:
            f[name or kind] = value

    return change


def x(n=32, side=96, dtype=np.uint8):
    return np.zeros((n, side, side, 3), dtype)


def y(values):
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    "change, message",
    [
        (break_missing, "_test_x.h5 is missing: point data_root"),
        (break_truncated, "_test_x.h5 cannot be read as HDF5"),
        (rewrite("x", x(31)), "has 31 patches but .*_test_y.h5 has 32 labels"),
        (rewrite("x", x(side=64)), "has shape .32, 64, 64, 3., PCam has .N, 96, 96, 3."),
        (rewrite("x", x(dtype=np.float32)), "is float32, PCam has uint8"),
        (rewrite("x", x(), name="images"), "has no dataset 'x' .it has: images."),
        (rewrite("y", np.zeros(32, np.uint8)), "has shape .32,."),
        (rewrite("y", y([0, 1, 2, 1] * 8)), "must be 0 or 1, found 2 in row 2"),
        (rewrite("y", y([1] * 32)), "both classes .0 and 1. are needed"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path, patches, capsys, change, message):
    for split in data.SPLITS:
        data.write(tmp_path, split, patches.images[:32], patches.labels[:32])
    change(tmp_path)
    with pytest.raises(StudyError, match=message) as caught:
        data.load(tmp_path, "test")
    assert "\n" not in str(caught.value)
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
