"""PCam files: reading, subsets, verification, and one clear sentence for each kind of bad file."""

import contextlib
import errno
import os
import pickle
import resource
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcamlib import cli, data
from pcamlib.core.errors import StudyError
from pcamlib.data import card


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


def test_one_picture_with_both_labels_in_two_splits_is_a_conflict(tmp_path, patches):
    images, labels = patches.images[:60], patches.labels[:60]
    data.write(tmp_path, "train", images[:20], labels[:20])
    data.write(tmp_path, "valid", images[20:40], labels[20:40])
    data.write(
        tmp_path, "test", np.concatenate([images[:20], images[40:60]]), np.concatenate([1 - labels[:20], labels[40:]])
    )
    report = data.verify(tmp_path)
    assert {split: report[split]["conflicting"] for split in data.SPLITS} == {"train": 20, "valid": 0, "test": 20}
    assert data.verify(tmp_path, ["train"])["train"]["conflicting"] == 0


def test_blank_is_counted_by_channel(tmp_path):
    colours = [(240, 235, 240), (255, 255, 255), (230, 220, 235), (200, 150, 190)]
    even = np.stack([np.full((96, 96, 3), colour, np.uint8) for colour in colours])
    red = np.repeat(even[:1], 2, 0)
    red[0, ::2, :, 0] += 3  # standard deviation 1.5 in one channel: blank
    red[1, ::2, :, 0] += 5  # 2.5: not
    data.write(tmp_path, "train", np.concatenate([even, red]), np.array([0, 1] * 3))
    assert data.verify(tmp_path, ["train"])["train"]["blank"] == 5


def test_a_file_that_is_not_the_one_of_its_card_is_refused(tmp_path, patches):
    data.write(tmp_path, "train", patches.images, patches.labels)
    card.write(tmp_path, card.describe(tmp_path, ["train"]) | {"name": "mine", "classes": ["a", "b"]})
    assert data.verify(tmp_path, ["train"])["train"]["patches"] == 192
    data.write(tmp_path, "train", 255 - patches.images, patches.labels)
    with pytest.raises(StudyError, match="_train_x.h5 was changed after card.json was written"):
        data.verify(tmp_path, ["train"])


def test_the_fingerprint_changes_with_any_pixel_or_label_and_with_nothing_else(tmp_path, patches):
    images, labels = patches.images[:130].copy(), patches.labels[:130].copy()
    before = {}

    def stored(name, images, labels, **options):
        for split in data.SPLITS:
            data.write(
                tmp_path / name,
                split,
                images if split == "train" else patches.images,
                labels if split == "train" else patches.labels,
            )
        if options:
            with h5py.File(data.file(tmp_path / name, "train", "x"), "w") as f:
                f.create_dataset("x", data=images, **options)
        return data.fingerprint(tmp_path / name)

    before = stored("a", images, labels)
    assert stored("packed", images, labels, compression="gzip", chunks=(7, 96, 96, 3)) == before
    found = {before}
    for row, pixel in ((1, (0, 0, 0)), (64, (95, 95, 2)), (129, (40, 3, 1))):
        changed = images.copy()
        changed[row][pixel] ^= 1
        found.add(stored("b", changed, labels))
    found.add(stored("b", images[::-1], labels[::-1]))
    found.add(stored("b", images, 1 - labels))
    assert len(found) == 6


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
    assert cli.main(["data", "verify", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_labels_that_claim_thousands_of_millions_take_no_memory(pcam, tmp_path):
    shutil.copytree(pcam, tmp_path / "root")
    path = data.file(tmp_path / "root", "train", "y")
    with h5py.File(path, "w") as f:
        f.create_dataset("y", (2_000_000_000, 1, 1, 1), np.uint8, chunks=(1 << 20, 1, 1, 1), compression="gzip")
        f.create_dataset("padding", data=np.random.default_rng(0).integers(0, 256, 2_000_000, dtype=np.uint8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StudyError, match="has 128 patches but .*_train_y.h5 has 2,000,000,000 labels"):
        data.labels(tmp_path / "root", "train")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kB"


def refused(root):
    with pytest.raises(StudyError) as caught:
        data.load(root, "test")
    message = str(caught.value)
    assert (
        not any(word in message for word in ("damaged", "truncated", "again;", "get it again")) and "\n" not in message
    )
    return message


def test_a_file_that_another_process_writes_is_called_locked(pcam, tmp_path):
    shutil.copytree(pcam, tmp_path / "root")
    path = data.file(tmp_path / "root", "test", "x")
    code = f"import h5py\nwith h5py.File({str(path)!r}, 'r+') as f:\n print('open', flush=True)\n input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as writer:
        assert writer.stdout.readline() == "open\n"
        message = refused(tmp_path / "root")
        writer.communicate("\n")
    assert "another process holds a lock" in message and "HDF5_USE_FILE_LOCKING=FALSE" in message
    assert len(data.load(tmp_path / "root", "test").labels) == 32


@pytest.mark.parametrize("free", [0, 1])
def test_too_few_file_descriptors_are_called_that(pcam, free):
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 4, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(free):
            os.close(held.pop())
        message = refused(pcam)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "too many files are open" in message and "ulimit -n" in message


@pytest.mark.parametrize(
    "number, words",
    [(errno.EACCES, "ask its owner for the permission"), (errno.ESTALE, "remount"), (errno.EIO, "disk")],
)
@pytest.mark.parametrize("where", ["pathlib.Path.is_file", "builtins.open", "h5py.File"])
def test_what_the_system_refuses_is_not_damage(pcam, monkeypatch, number, words, where):
    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(where, fails)
    message = refused(pcam)
    monkeypatch.undo()
    assert "camelyonpatch_level_2_split_test_x.h5 cannot be read" in message and words in message
