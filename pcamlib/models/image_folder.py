"""Images made elsewhere, in a folder, as a study's generator: candidates come from it in order."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.core.files import resolve
from pcamlib.data import image_files
from pcamlib.study import Study


class ImageFolder:
    """96x96 RGB images of the two classes in `folder`, read when they are needed.

    folder
        PCam files of a train split (or a folder `pcam` that holds them, as `export` writes it), or a sub-folder of
        image files for each class. A sub-folder's name is 0 or 1, the name of the class, or both ("1-tumour"); its
        images are taken in the order of their names, numbers in them by value.
    classes
        Names of class 0 and class 1.

    counts: images per class, [n0, n1]. about: a sentence part that names the folder and what it holds.
    Raises StudyError for a folder that is neither, or that has no image of a class.
    """

    def __init__(self, folder: Path, classes: tuple[str, str]):
        self.folder = folder
        root = next((path for path in (folder, folder / "pcam") if data.file(path, "train", "y").exists()), None)
        self._pcam = data.Patches(root, "train") if root else None
        left_out = 0
        if self._pcam:
            self._images = [np.flatnonzero(self._pcam.labels == c).tolist() for c in (0, 1)]
        else:
            folders = _class_folders(folder, classes)
            self._images = [_files(path) for path in folders]
            left_out = sum(len(list(path.iterdir())) for path in folders) - sum(map(len, self._images))
        self.counts = [len(images) for images in self._images]
        if not all(self.counts):
            raise StudyError(f"{folder} has {self.counts} images of classes {classes}: both classes are needed.")
        self.about = f"the folder {folder.name} with {self.counts} images" + (
            f" ({left_out} other files left out)" if left_out else ""
        )

    @classmethod
    def of(cls, study: Study, folder: str) -> ImageFolder:
        """The images of a profile's `folder`, with the classes of the study's data."""
        path = resolve(folder)
        if not path.is_dir():
            raise StudyError(f"generators: {path} is not a folder: give one with a sub-folder per class or PCam files.")
        return cls(path, data.classes(study.data_root))

    @property
    def sha(self) -> str:
        """SHA-256 of all image files, their order and classes: the first 16 hex digits."""
        if self._pcam:
            return data.fingerprint(self._pcam.root, ("train",))
        found = hashlib.sha256()
        for c, paths in enumerate(self._images):
            for path in paths:
                found.update(f"{c} {path.name} ".encode() + hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()[:16]

    def take(self, label: int, start: int, size: int) -> np.ndarray:
        """Images `start` to `start + size` of class `label`, uint8 (size, 96, 96, 3). StudyError if one is no patch."""
        wanted = self._images[label][start : start + size]
        if self._pcam:
            return self._pcam.images(np.array(wanted))
        images = [image_files.patches(path, image_files.inspect_image(path, None, ()), None) for path in wanted]
        return np.concatenate(images)


def _class_folders(folder: Path, classes: tuple[str, str]) -> list[Path]:
    """The sub-folders of class 0 and of class 1."""
    names = [_plain(name) for name in classes]
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    found: list[list[Path]] = [[], []]
    for path in inside:
        name = _plain(path.name)
        number = re.fullmatch(r"([01])(?: (.*))?", name)
        if number and number[2] in (None, names[int(number[1])]):
            found[int(number[1])].append(path)
        elif name in names:
            found[names.index(name)].append(path)
    if [len(paths) for paths in found] != [1, 1] or len(inside) != 2:
        raise StudyError(
            f"{folder} must hold PCam files, or two sub-folders named 0 and 1 or after the classes {classes[0]!r} and "
            f"{classes[1]!r}; it has: {', '.join(path.name for path in inside)[:200] or 'no sub-folder'}."
        )
    return [found[0][0], found[1][0]]


def _plain(name: str) -> str:
    """A name without case, and with a blank for whatever is neither letter nor digit."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()


def _files(folder: Path) -> list[Path]:
    """The image files of a folder by name, with numbers in names by value: 9.png before 10.png."""

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted((path for path in files if path.suffix.lower() in image_files.SUFFIXES), key=key)
