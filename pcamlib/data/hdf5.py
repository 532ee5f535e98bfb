"""HDF5 datasets from files nobody vouches for: opened, checked and read, with one sentence for each way it fails."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pcamlib.core.errors import StudyError, system_advice
from pcamlib.data.checks import sniff_format

CHUNK = 1 << 28  # bytes; HDF5 unpacks whole chunks, so a larger one is refused rather than allocated


@contextlib.contextmanager
def explain(path: str | Path) -> Iterator[None]:
    """Turn what h5py raises in the block into a StudyError about `path`.

    What the system refuses (a lock, a permission, too many open files, a stale handle) is told apart from a file whose
    content is damaged: only the latter is worth getting again.
    """
    try:
        yield
    except StudyError:
        raise
    # the kinds of error h5py passes on from a damaged file: see the tests that cut and flip bytes
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, UnicodeError) as error:
        if advice := system_advice(error):
            raise StudyError(f"{path} cannot be read ({advice}).") from None
        reason = " ".join(str(error).split())[:200]
        raise StudyError(
            f"{path} cannot be read as HDF5 ({reason}): it is truncated, damaged or not an HDF5 file; get it again."
        ) from None


def open_file(path: Path, missing: str) -> h5py.File:
    """Open an HDF5 file for reading; StudyError if it cannot be, which ends in `missing` if it does not exist."""
    with explain(path):
        if not path.is_file():
            raise StudyError(f"{path} is missing: {missing}.")
        with open(path, "rb") as f:
            found = sniff_format(f.read(4096))
        if found:
            todo = "gunzip it" if "packed" in found else "remove it and get the file again"
            raise StudyError(f"{path} is not an HDF5 file: {found}; {todo}.")
        return h5py.File(path, "r")


def dataset(f: h5py.File, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    """The uint8 dataset `name` of shape ``(N, *shape)``, N at least 1; StudyError if it is absent or unsafe to read."""
    path = f.filename
    with explain(path):
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
            f"{d.file.filename}: dataset '{d.name}' claims {d.shape[0]:,} rows, more than a file of this size can hold:"
            " it is truncated or damaged; get it again."
        )


def read(d: h5py.Dataset, rows: Any) -> np.ndarray:
    """Rows of a dataset as an array; StudyError if they cannot be read."""
    with explain(d.file.filename):
        return d[rows]
