"""PCam files: open, check, read, write, split into subsets, verify.

A data root is a folder with the six official files
``camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5``: dataset "x" uint8 (N, 96, 96, 3) RGB and dataset
"y" uint8 (N, 1, 1, 1), 1 = tumour in the centre 32x32 (Veeling et al. 2018). Any length is accepted, so short
excerpts, phantoms and synthetic sets are PCam too. `python -m pcamlib.cli` is the one command for data: verify,
download, convert, export.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch

from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, read_json
from pcamlib.data.checks import sniff_format

SPLITS = ("train", "valid", "test")
SIDE = 96
CLASSES = ("no tumour", "tumour")
CARD = "card.json"  # beside the files of a converted or synthetic set: what it is
PHANTOM = "phantom.json"  # marks a data root as procedural
CHUNK = 1 << 28  # bytes; HDF5 unpacks whole chunks, so a larger one is refused rather than allocated


class Arrays(NamedTuple):
    """Patches in memory: images uint8 (N, 96, 96, 3) RGB, labels uint8 (N,)."""

    images: np.ndarray
    labels: np.ndarray


def file(root: str | Path, split: str, kind: str) -> Path:
    """Path of one of the six files; `kind` is "x" or "y"."""
    return Path(root) / f"camelyonpatch_level_2_split_{split}_{kind}.h5"


@contextlib.contextmanager
def _damage(path: str | Path) -> Iterator[None]:
    """Say in one sentence what h5py raises on a file that is not whole."""
    try:
        yield
    except StudyError:
        raise
    # the kinds of error h5py passes on from a damaged file: see the tests that cut and flip bytes
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StudyError(
            f"{path} cannot be read as HDF5 ({reason}): it is truncated, damaged or not an HDF5 file; get it again."
        ) from None


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise StudyError(
            f"{path} is missing: point data_root at a folder of PCam files, make a phantom with "
            "`python -m pcamlib.cli.phantom DIR`, convert your own patches with `python -m pcamlib.cli convert SOURCE DIR`, "
            "or get PCam with `python -m pcamlib.cli download DIR`."
        )
    with _damage(path):
        with open(path, "rb") as f:
            found = sniff_format(f.read(4096))
        if found:
            todo = "gunzip it" if "packed" in found else "remove it and get the file again"
            raise StudyError(f"{path} is not an HDF5 file: {found}; {todo}.")
        return h5py.File(path, "r")


def _dataset(f: h5py.File, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    path = f.filename
    with _damage(path):
        if (
            name not in f
            or not isinstance(f.get(name, getlink=True), h5py.HardLink)
            or not isinstance(f[name], h5py.Dataset)
        ):
            raise StudyError(
                f"{path} has no dataset '{name}' (it has: {', '.join(f)[:200] or 'nothing'}): it is not a PCam file."
            )
        d = f[name]
        if d.dtype != np.uint8:
            raise StudyError(f"{path}: dataset '{name}' is {d.dtype}, PCam has uint8: convert it.")
        if not d.shape or d.shape[1:] != shape or not d.shape[0]:
            wanted = ", ".join(("N", *map(str, shape)))
            raise StudyError(f"{path}: dataset '{name}' has shape {d.shape}, PCam has ({wanted}) with N at least 1.")
        _validate_storage(d)
        return d


def _validate_storage(d: h5py.Dataset) -> None:
    """Refuse what would read another file, or take memory for rows that the file does not hold."""
    if d.is_virtual or d.external:
        raise StudyError(
            f"{d.file.filename}: dataset '{d.name}' keeps its rows in other files: write them into one file."
        )
    if d.chunks and math.prod(d.chunks) > CHUNK:
        raise StudyError(f"{d.file.filename}: dataset '{d.name}' has chunks of {d.chunks}: write it with smaller ones.")
    packed = 1032 if d.id.get_create_plist().get_nfilters() else 1  # deflate's limit
    if math.prod(d.shape) > packed * os.path.getsize(d.file.filename):
        raise StudyError(
            f"{d.file.filename}: dataset '{d.name}' claims {d.shape[0]:,} rows, more than a file of this size can hold: it is "
            "truncated or damaged; get it again."
        )


def labels(root: str | Path, split: str) -> np.ndarray:
    """All labels of a split, uint8 (N,).

    Raises StudyError if a file is missing or unreadable, x and y differ in length, a dataset has another shape or
    dtype, a label is neither 0 nor 1, or one class is absent.
    """
    x_path, y_path = file(root, split, "x"), file(root, split, "y")
    with _open(x_path) as fx, _open(y_path) as fy:
        n_x = len(_dataset(fx, "x", (SIDE, SIDE, 3)))
        y = _read(_dataset(fy, "y", (1, 1, 1)), slice(None)).reshape(-1)
    if n_x != len(y):
        raise StudyError(
            f"{x_path} has {n_x} patches but {y_path.name} has {len(y)} labels: they belong together, get both again."
        )
    if y.max() > 1:
        raise StudyError(f"{y_path}: labels must be 0 or 1, found {int(y.max())} in row {int(y.argmax())}.")
    if len(np.unique(y)) < 2:
        raise StudyError(f"{y_path}: every label is {y[0]}; both classes (0 and 1) are needed.")
    return y


def _read(d: h5py.Dataset, rows: Any) -> np.ndarray:
    with _damage(d.file.filename):
        return d[rows]


def load(root: str | Path, split: str, index: np.ndarray | None = None) -> Arrays:
    """Read patches into memory.

    Parameters
    ----------
    root, split
        Data root and "train", "valid" or "test".
    index
        Row numbers (M,), any order; None reads all rows.

    Returns images uint8 (M, 96, 96, 3) and labels uint8 (M,). Raises StudyError as `labels` does, and for a row
    number out of range.
    """
    y = labels(root, split)
    return Arrays(Patches(root, split).images(index), y if index is None else y[np.asarray(index)])


class Patches(torch.utils.data.Dataset):
    """A split, read lazily: item i is (image uint8 (96, 96, 3), label int).

    The HDF5 handle is opened on first use in each process and never pickled, so DataLoader workers are safe
    (HDF5 handles do not survive a fork).
    """

    def __init__(self, root: str | Path, split: str):
        self.root, self.split = Path(root), split
        self.labels = labels(root, split)
        self._file: h5py.File | None = None
        self._pid = -1

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_file": None, "_pid": -1}

    def __len__(self) -> int:
        return len(self.labels)

    def _x(self) -> h5py.Dataset:
        if self._pid != os.getpid():
            self._file, self._pid = _open(file(self.root, self.split, "x")), os.getpid()
        return self._file["x"]

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return _read(self._x(), int(i)), int(self.labels[i])

    def images(self, index: np.ndarray | None = None) -> np.ndarray:
        """Rows `index` (all if None) as uint8 (M, 96, 96, 3)."""
        if index is None:
            return _read(self._x(), slice(None))
        index = np.asarray(index, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            raise StudyError(f"{file(self.root, self.split, 'x')}: row numbers must lie in 0..{len(self) - 1}.")
        unique, inverse = np.unique(index, return_inverse=True)  # HDF5 wants increasing rows without repeats
        out = np.empty((len(unique), SIDE, SIDE, 3), np.uint8)
        # h5py's own fancy indexing selects row by row and takes seconds for thousands; runs of blocks do not
        for start in range(0, len(unique), 256):
            rows = unique[start : start + 256]
            low, high = rows[0], rows[-1] + 1
            if high - low <= 4 * len(rows):
                out[start : start + len(rows)] = _read(self._x(), slice(low, high))[rows - low]
            else:
                for j, row in enumerate(rows):
                    out[start + j] = _read(self._x(), int(row))
        return out[inverse]


def write(root: str | Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write a split as PCam files, each renamed into place when whole (y last, so a lone x is visibly unfinished).

    images uint8 (N, 96, 96, 3), labels (N,) of 0 and 1.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3) or len(images) != len(labels):
        raise StudyError(
            f"cannot write {root}: images must be uint8 (N, 96, 96, 3) with N labels, got {images.dtype} {images.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise StudyError(f"cannot write {root}: labels must be 0 or 1.")
    for kind, value in ("x", images), ("y", np.asarray(labels, np.uint8).reshape(-1, 1, 1, 1)):
        with atomic(file(root, split, kind)) as tmp_path, h5py.File(tmp_path, "w") as f:
            f[kind] = value


def subsets(
    labels: np.ndarray, n: int = 5, fraction: float = 0.1, size: int | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Disjoint stratified subsets of rows (§4.1).

    Each has ceil(fraction * N) rows, or `size`; the share of each class in a subset is its share in `labels`, to
    the nearest row. Returns n sorted int64 arrays. The same arguments give the same subsets on every machine.
    Raises ValueError if n subsets do not fit.
    """
    labels = np.asarray(labels).reshape(-1)
    size = int(np.ceil(round(fraction * len(labels), 9))) if size is None else size
    values, counts = np.unique(labels, return_counts=True)
    exact = counts * size / len(labels)
    take = np.floor(exact).astype(int)
    take[np.argsort(take - exact, kind="stable")[: size - take.sum()]] += 1  # largest remainders
    for value, have, want in zip(values, counts, take):
        if n * want > have:
            raise StudyError(
                f"{n} subsets of {size} patches need {n * want} of class {value}, the train split has {have}: "
                "ask for fewer or smaller subsets."
            )
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = [rng.permutation(np.flatnonzero(labels == value)) for value in values]
    return [
        np.sort(np.concatenate([r[k * t : (k + 1) * t] for r, t in zip(rows, take)])).astype(np.int64) for k in range(n)
    ]


def fingerprint(root: str | Path, splits: Sequence[str] = SPLITS) -> str:
    """Identity of a data root: SHA-256 (16 hex digits) of every label and of 64 spread rows of images per split.

    Reading all of PCam would take minutes at each start; `verify` does that.
    """
    h = hashlib.sha256()
    for split in splits:
        patches = Patches(root, split)
        h.update(patches.labels.tobytes())
        for i in np.linspace(0, len(patches) - 1, 64).astype(int):
            h.update(patches[i][0].tobytes())
    return h.hexdigest()[:16]


def verify(root: str | Path, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
    """Read every patch and report per split: patches, tumour, duplicates, blanks; and duplicates across splits.

    Returns {split: {"patches", "tumour", "distinct", "duplicate_rows", "conflicting", "blank", "mean_rgb"},
    "across": {"train-valid": distinct images in both, ...}}. "conflicting" counts distinct images that carry both
    labels. Raises StudyError on the first file that is not PCam.
    """
    report: dict[str, Any] = {}
    seen: dict[str, dict[bytes, int]] = {}
    for split in splits:
        patches = Patches(root, split)
        found: dict[bytes, int] = {}
        blank, total, conflicting = 0, np.zeros(3), set()
        for start in range(0, len(patches), 1024):
            rows = np.arange(start, min(start + 1024, len(patches)))
            block = patches.images(rows)
            total += block.reshape(-1, 3).sum(0, dtype=np.float64)
            blank += int((block.reshape(len(block), -1).std(1) < 2).sum())
            for image, label in zip(block, patches.labels[rows]):
                key = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
                if found.setdefault(key, int(label)) != label:
                    conflicting.add(key)
        seen[split] = found
        report[split] = {
            "patches": len(patches),
            "tumour": int(patches.labels.sum()),
            "distinct": len(found),
            "duplicate_rows": len(patches) - len(found),
            "conflicting": len(conflicting),
            "blank": blank,
            "mean_rgb": [round(float(v), 1) for v in total / (len(patches) * SIDE * SIDE)],
        }
    report["across"] = {f"{a}-{b}": len(seen[a].keys() & seen[b].keys()) for a, b in itertools.combinations(splits, 2)}
    return report


def classes(root: str | Path) -> tuple[str, str]:
    """What the labels 0 and 1 stand for: the names in the set's card, else PCam's. StudyError for a damaged card."""
    path = Path(root) / CARD
    card = read_json(path) if path.is_file() else {}
    try:
        zero, one = card.get("classes") or card.get("provenance", {}).get("classes") or CLASSES
    except (AttributeError, TypeError, ValueError):
        raise StudyError(
            f"{path} is no card of a data set: mend its entry 'classes' (two names), or remove the card."
        ) from None
    return str(zero), str(one)


def summary(report: dict[str, Any]) -> str:
    """The report of `verify` as lines of text."""
    lines = [
        f"{split:5}  {r['patches']:7,} patches  {r['tumour']:7,} tumour  {r['distinct']:7,} distinct "
        f"({r['duplicate_rows']:,} duplicate rows, {r['conflicting']:,} images with both labels)  "
        f"{r['blank']:,} blank  mean RGB {r['mean_rgb']}"
        for split, r in report.items()
        if split != "across"
    ]
    for pair, count in report["across"].items():
        lines.append(f"{pair}: {count:,} images in both" + ("  <- leaks between splits" if count else ""))
    return "\n".join(lines)
