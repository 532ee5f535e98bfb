"""Images made elsewhere: which folders are taken, in which order, and what is refused."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.models.image_folder import ImageFolder

CLASSES = ("no tumour", "tumour")


def flat(value, side=96):
    return np.full((side, side, 3), value, np.uint8)


def fill(folder, names, first=0, side=96):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(flat(first + i, side)).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    """Twelve images of class 0, three of class 1; the grey value is the place in the order."""
    fill(tmp_path / "mine" / "0-no-tumour", [f"sample {i}.png" for i in range(12)])
    fill(tmp_path / "mine" / "1", ["a.png", "B.PNG", "c.png"], first=100)
    return tmp_path / "mine"


def test_images_come_in_the_order_of_their_names(folder):
    images = ImageFolder(folder, CLASSES)
    assert images.counts == [12, 3] and images.about == "the folder mine with [12, 3] images"
    assert images.take(0, 0, 12)[:, 0, 0, 0].tolist() == list(range(12)), "9 comes before 10"
    part = images.take(0, 8, 3)
    assert part.shape == (3, 96, 96, 3) and part.dtype == np.uint8 and part[:, 5, 5, 1].tolist() == [8, 9, 10]
    assert sorted(images.take(1, 0, 3)[:, 0, 0, 0].tolist()) == [100, 101, 102]


def test_class_folders_may_bear_the_names_of_the_classes(tmp_path):
    fill(tmp_path / "a" / "Tumour", ["x.png"], first=7)
    fill(tmp_path / "a" / "no_tumour", ["x.png"], first=3)
    images = ImageFolder(tmp_path / "a", CLASSES)
    assert images.take(0, 0, 1)[0, 0, 0, 0] == 3 and images.take(1, 0, 1)[0, 0, 0, 0] == 7


def test_pcam_files_are_taken_in_their_order_also_from_an_export(pcam, patches, tmp_path):
    for root in (pcam, tmp_path):
        if root is tmp_path:
            shutil.copytree(pcam, tmp_path / "pcam")
        images = ImageFolder(root, CLASSES)
        assert images.counts == [64, 64]
        train, labels = patches.images[:128], patches.labels[:128]
        np.testing.assert_array_equal(images.take(1, 3, 20), train[labels == 1][3:23])


def test_the_hash_is_that_of_content_order_and_class(folder, tmp_path):
    before = ImageFolder(folder, CLASSES).sha
    assert before == ImageFolder(shutil.copytree(folder, tmp_path / "copy"), CLASSES).sha
    Image.fromarray(flat(55)).save(folder / "1" / "a.png")
    changed = ImageFolder(folder, CLASSES).sha
    (folder / "1" / "a.png").rename(folder / "1" / "z.png")
    assert len({before, changed, ImageFolder(folder, CLASSES).sha}) == 3


def test_what_is_no_image_is_left_out_and_counted(folder):
    (folder / "1" / "notes.txt").write_text("x")
    (folder / "1" / ".hidden.png").write_text("x")
    assert ImageFolder(folder, CLASSES).about.endswith("[12, 3] images (2 other files left out)")


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "it has: no sub-folder"),
        (["0"], "it has: 0"),
        (
            ["0", "normal"],
            "two sub-folders named 0 and 1 or after the classes 'no tumour' and 'tumour'; it has: 0, normal",
        ),
        (["0", "1", "2"], "it has: 0, 1, 2"),
        (["0", "1-no-tumour"], "it has: 0, 1-no-tumour"),
        (["tumour", "1"], "it has: 1, tumour"),
    ],
)
def test_folders_that_leave_the_classes_open_are_refused(tmp_path, names, message):
    (tmp_path / "x").mkdir()
    for name in names:
        fill(tmp_path / "x" / name, ["a.png"])
    with pytest.raises(StudyError, match=re.escape(message)):
        ImageFolder(tmp_path / "x", CLASSES)


def test_empty_classes_and_wrong_images_are_refused(folder):
    fill(folder / "1", ["d.png"], side=64)
    with pytest.raises(StudyError, match=r"d\.png is 64x64, a patch is 96x96"):
        ImageFolder(folder, CLASSES).take(1, 0, 4)
    shutil.rmtree(folder / "1")
    (folder / "1").mkdir()
    with pytest.raises(StudyError, match=r"has \[12, 0\] images .*: both classes are needed"):
        ImageFolder(folder, CLASSES)


def test_an_export_reads_back_as_it_was(pcam, tmp_path):
    from pcamlib.workflow import export

    export.export(pcam, tmp_path / "out", "png")
    for split in ("valid", "test"):
        for path in (tmp_path / "out").glob(f"*/{split}-*.png"):
            path.unlink()
    images, labels = data.load(pcam, "train")
    made = ImageFolder(tmp_path / "out", CLASSES)
    for c in (0, 1):
        np.testing.assert_array_equal(made.take(c, 0, 64), images[labels == c])
