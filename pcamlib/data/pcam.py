"""PCam files: open, check, read, write, split into subsets, verify.

A data root is a folder with the six official files
``camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5``: dataset "x" uint8 (N, 96, 96, 3) RGB and dataset
"y" uint8 (N, 1, 1, 1), 1 = tumour in the centre 32x32 (Veeling et al. 2018). Any length is accepted, so short
excerpts, phantoms and synthetic sets are PCam too.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch

from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, read_json
from pcamlib.data import hdf5
from pcamlib.data.names import check_name

SPLITS = ("train", "valid", "test")
SIDE = 96
CLASSES = ("no tumour", "tumour")
CARD = "card.json"  # beside the files of a converted or synthetic set: what it is
PHANTOM = "phantom.json"  # marks a data root as procedural
BLOCK = 512  # rows of images read at a time, 14 MB


class Arrays(NamedTuple):
    """Patches in memory: images uint8 (N, 96, 96, 3) RGB, labels uint8 (N,)."""

    images: np.ndarray
    labels: np.ndarray


def file(root: str | Path, split: str, kind: str) -> Path:
    """Path of one of the six files; `kind` is "x" or "y"."""
    return Path(root) / f"camelyonpatch_level_2_split_{split}_{kind}.h5"


def _open(path: Path) -> h5py.File:
    return hdf5.open_file(
        path,
        "point data_root at a folder of PCam files, make a phantom with "
        "`pcamlib phantom DIR`, convert your own patches with `pcamlib data convert SOURCE DIR`, "
        "or get PCam with `pcamlib data download DIR`",
    )


def labels(root: str | Path, split: str) -> np.ndarray:
    """All labels of a split, uint8 (N,).

    Raises StudyError if a file is missing or unreadable, x and y differ in length, a dataset has another shape or
    dtype, a label is neither 0 nor 1, or one class is absent.
    """
    x_path, y_path = file(root, split, "x"), file(root, split, "y")
    with _open(x_path) as fx, _open(y_path) as fy:
        x, y = hdf5.dataset(fx, "x", (SIDE, SIDE, 3)), hdf5.dataset(fy, "y", (1, 1, 1))
        if len(x) != len(y):  # before labels are read: a packed file may claim thousands of millions
            raise StudyError(
                f"{x_path} has {len(x):,} patches but {y_path.name} has {len(y):,} labels: they belong together, get"
                " both again."
            )
        y = hdf5.read(y, slice(None)).reshape(-1)
    if y.max() > 1:
        raise StudyError(f"{y_path}: labels must be 0 or 1, found {int(y.max())} in row {int(y.argmax())}.")
    if len(np.unique(y)) < 2:
        raise StudyError(f"{y_path}: every label is {y[0]}; both classes (0 and 1) are needed.")
    return y


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
        return hdf5.read(self._x(), int(i)), int(self.labels[i])

    def blocks(self) -> Iterator[np.ndarray]:
        """All images in order, uint8 (M, 96, 96, 3), some hundred at a time."""
        for start in range(0, len(self), BLOCK):
            yield hdf5.read(self._x(), slice(start, start + BLOCK))

    def images(self, index: np.ndarray | None = None) -> np.ndarray:
        """Rows `index` (all if None) as uint8 (M, 96, 96, 3)."""
        if index is None:
            return hdf5.read(self._x(), slice(None))
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
                out[start : start + len(rows)] = hdf5.read(self._x(), slice(low, high))[rows - low]
            else:
                for j, row in enumerate(rows):
                    out[start + j] = hdf5.read(self._x(), int(row))
        return out[inverse]


def write(root: str | Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write a split as PCam files, each renamed into place when whole (y last, so a lone x is visibly unfinished).

    images uint8 (N, 96, 96, 3), labels (N,) of 0 and 1.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3) or len(images) != len(labels):
        raise StudyError(
            f"cannot write {root}: images must be uint8 (N, 96, 96, 3) with N labels, got {images.dtype}"
            f" {images.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise StudyError(f"cannot write {root}: labels must be 0 or 1.")
    for kind, value in ("x", images), ("y", np.asarray(labels, np.uint8).reshape(-1, 1, 1, 1)):
        with atomic(file(root, split, kind)) as tmp_path, h5py.File(tmp_path, "w") as f:
            f[kind] = value


def subsets(
    labels: np.ndarray,
    n: int = 5,
    fraction: float = 0.1,
    size: int | None = None,
    seed: int = 0,
) -> list[np.ndarray]:
    """Disjoint stratified subsets of rows (§4.1).

    Each has ceil(fraction * N) rows, or `size`; the share of each class in a subset is
    its share in `labels`, to the nearest row. Returns n sorted int64 arrays. The same
    arguments give the same subsets on every machine. Raises StudyError if n subsets do
    not fit.
    """
    labels = np.asarray(labels).reshape(-1)
    size = int(np.ceil(round(fraction * len(labels), 9))) if size is None else size
    values, counts = np.unique(labels, return_counts=True)
    exact = counts * size / len(labels)
    take = np.floor(exact).astype(int)
    # largest remainders
    take[np.argsort(take - exact, kind="stable")[: size - take.sum()]] += 1
    for value, have, want in zip(values, counts, take):
        if n * want > have:
            raise StudyError(
                f"{n} subsets of {size} patches need {n * want} of class {value}, "
                f"the train split has {have}: ask for fewer or smaller subsets."
            )
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = [rng.permutation(np.flatnonzero(labels == value)) for value in values]

    def dealt(k: int) -> list[np.ndarray]:
        """The rows of subset k, by class."""
        return [of_class[k * t : (k + 1) * t] for of_class, t in zip(rows, take)]

    return [np.sort(np.concatenate(dealt(k))).astype(np.int64) for k in range(n)]


def scan(root: str | Path, splits: Sequence[str] = SPLITS) -> tuple[str, dict[str, list[bytes | None]]]:
    """Read every patch: (fingerprint, {split: one hash per patch, None for a patch of one colour}).

    The fingerprint, 16 hex digits of a SHA-256, identifies all labels and all pixels in their order, however the files
    store them. Two patches with the same hash (BLAKE2b, 16 bytes) are equal.
    """
    h, keys = hashlib.sha256(), {}
    for split in splits:
        patches = Patches(root, split)
        h.update(patches.labels.tobytes())
        keys[split] = []
        for block in patches.blocks():
            found = _keys(block)
            h.update(b"".join(found))
            even = (block == block[:, :1, :1]).all((1, 2, 3))
            keys[split] += [None if blank else key for key, blank in zip(found, even)]
    return h.hexdigest()[:16], keys


def fingerprint(root: str | Path, splits: Sequence[str] = SPLITS) -> str:
    """Identity of a data root, 16 hex digits of a hash of every label and every pixel (see `scan`).

    It reads all of the files: a minute or two for the whole of PCam. `study.open_study` does so once per run folder.
    """
    return scan(root, splits)[0]


def stamps(root: str | Path, splits: Sequence[str] = SPLITS) -> dict[str, list[int]]:
    """Size in bytes and times of the last change (content, then content or attributes; ns) of each file of a data root.

    While these are the same, so is the fingerprint.
    """
    found = {}
    for path in (file(root, split, kind) for split in splits for kind in "xy"):
        with hdf5.explain(path):
            status = path.stat()
        found[path.name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return found


def _keys(block: np.ndarray) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in block]


def _channel_sums(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sums of squares of each image's channels, int64 (M, 3), exact."""
    rows = block.reshape(len(block), SIDE, SIDE * 3)  # summed along whole rows first, which is much faster

    def by_channel(values: np.ndarray) -> np.ndarray:
        return values.sum(1, dtype=np.uint32).reshape(-1, SIDE, 3).sum(1, dtype=np.int64)

    return by_channel(rows), by_channel(np.square(rows, dtype=np.uint16))


def verify(root: str | Path, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
    """Read every patch and report per split: patches, tumour, duplicates, blanks; and duplicates across splits.

    Returns {split: {"patches", "tumour", "distinct", "duplicate_rows", "conflicting", "blank", "mean_rgb"},
    "across": {"train-valid": distinct images in both, ...}}. "conflicting" counts distinct images of the split that
    have the other label too, in any split. "blank" counts patches in which no channel's standard deviation reaches 2
    grey levels. Raises StudyError on the first file that is not PCam, or not the one that the set's card describes.
    """
    report: dict[str, Any] = {}
    labelled: dict[bytes, set[int]] = {}  # every label an image has anywhere
    seen: dict[str, set[bytes]] = {}
    for split in splits:
        patches = Patches(root, split)
        _check_card(root, split)
        blank, total, keys = 0, np.zeros(3), []
        for block in patches.blocks():
            sums, squares = _channel_sums(block)
            total += sums.sum(0)
            pixels = SIDE * SIDE
            blank += int((pixels * squares - sums**2 < 2**2 * pixels**2).all(1).sum())
            keys += _keys(block)
        for key, label in zip(keys, patches.labels.tolist()):
            labelled.setdefault(key, set()).add(label)
        seen[split] = set(keys)
        report[split] = {
            "patches": len(patches),
            "tumour": int(patches.labels.sum()),
            "distinct": len(seen[split]),
            "duplicate_rows": len(patches) - len(seen[split]),
            "conflicting": 0,  # known when every split is read
            "blank": blank,
            "mean_rgb": [round(float(v), 1) for v in total / (len(patches) * SIDE * SIDE)],
        }
    for split in splits:
        report[split]["conflicting"] = sum(len(labelled[key]) > 1 for key in seen[split])
    report["across"] = {f"{a}-{b}": len(seen[a] & seen[b]) for a, b in itertools.combinations(splits, 2)}
    return report


def _card(root: str | Path) -> Any:
    path = Path(root) / CARD
    return read_json(path) if path.is_file() else {}


def _check_card(root: str | Path, split: str) -> None:
    """Refuse a file of a split whose SHA-256 is not the one in the set's card, if that names one."""
    card = _card(root)
    known = card.get("sha256") if isinstance(card, dict) else None
    for path in (file(root, split, kind) for kind in "xy"):
        if isinstance(known, dict) and path.name in known:
            with hdf5.explain(path), open(path, "rb") as f:
                found = hashlib.file_digest(f, "sha256").hexdigest()
            if found != known[path.name]:
                raise StudyError(
                    f"{path} was changed after {CARD} was written (its SHA-256 differs): convert the patches again, or"
                    f" remove {CARD}."
                )


def classes(root: str | Path) -> tuple[str, str]:
    """What the labels 0 and 1 stand for: the names in the set's card, else PCam's.

    StudyError for a damaged card, and for a name with control characters.
    """
    path, card = Path(root) / CARD, _card(root)
    try:
        zero, one = card.get("classes") or card.get("provenance", {}).get("classes") or CLASSES
    except (AttributeError, TypeError, ValueError):
        raise StudyError(
            f"{path} is no card of a data set: mend its entry 'classes' (two names), or remove the card."
        ) from None
    for name in (zero, one):
        check_name(str(name), f"{path}: the class")
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
