"""Which slide or patient each patch is from: `groups_{split}.csv` beside the PCam files, a line for each HDF5 row.

The header is `group`, or `group,centre` where the hospital or scanner is known too. `convert` and `download` write
these files; `groups` and `centres` read them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic
from pcamlib.data import hdf5, pcam
from pcamlib.data.csv_files import read_csv
from pcamlib.data.names import check_name, unify


def groups_file(root: str | Path, split: str) -> Path:
    """Path of the groups of a split."""
    return Path(root) / f"groups_{split}.csv"


def groups(root: str | Path, split: str) -> np.ndarray | None:
    """Slide or patient of each row of a split, str (N,); None if the data root does not say.

    Raises StudyError if the file cannot be read, has another number of lines than the split has patches, or an empty
    cell. Names that `names.name_key` takes as one come back in one spelling.
    """
    return _column(root, split, "group")


def centres(root: str | Path, split: str) -> np.ndarray | None:
    """Centre (hospital or scanner) of each row of a split, str (N,); None if the data root does not say."""
    return _column(root, split, "centre")


def _column(root: str | Path, split: str, name: str) -> np.ndarray | None:
    path = groups_file(root, split)
    if not path.exists():
        return None
    table = read_csv(path)
    values = table.column("group")
    if name != "group":
        if name not in table.header:
            return None
        values = table.column(name)
    n = len(pcam.labels(root, split))
    if len(values) != n:
        raise StudyError(
            f"{path} has {len(values):,} lines below its header, the {split} split has {n:,} patches: one line for each"
            " row."
        )
    for value in dict.fromkeys(values):
        if not value:
            raise StudyError(f"{path}: a cell of column '{name}' is empty: fill it in, or remove the file.")
        check_name(value, f"{path}: {name}")
    return np.array(unify(values)[0], str)


def write_groups(root: str | Path, split: str, groups: Sequence[str], centres: Sequence[str] | None = None) -> None:
    """Write the groups (N,) of a split, and its centres (N,) if they are known."""
    with atomic(groups_file(root, split)) as tmp_path, open(tmp_path, "w", newline="", encoding="utf-8") as f:
        out = csv.writer(f)
        out.writerow(["group"] if centres is None else ["group", "centre"])
        out.writerows(zip(groups) if centres is None else zip(groups, centres))


def meta_file(root: str | Path, split: str) -> Path:
    """Path of PCam's own list of where its patches were cut: row i belongs to row i of the HDF5 files."""
    return Path(root) / f"camelyonpatch_level_2_split_{split}_meta.csv"


def pcam_slides(root: str | Path, split: str) -> list[str] | None:
    """Slide of each row of a PCam split, from its meta CSV; None without one.

    For an excerpt, whose HDF5 file keeps the rows of the official split as dataset "pcam_index", these rows are taken.
    The column center_tumor_patch must agree with the labels, else the two files do not belong together: StudyError.
    """
    path = meta_file(root, split)
    if not path.exists():
        return None
    table, labels = read_csv(path), pcam.labels(root, split)
    slides, tumour = np.array(table.column("wsi"), str), np.array(table.column("center_tumor_patch"), str)
    rows = _official_rows(pcam.file(root, split, "y"), len(labels))
    if rows is None and len(slides) != len(labels) or rows is not None and rows.max() >= len(slides):
        raise StudyError(
            f"{path} has {len(slides):,} lines, the {split} split has {len(labels):,} patches: they do not match."
        )
    if rows is not None:
        slides, tumour = slides[rows], tumour[rows]
    known = np.isin(np.char.lower(tumour), ("true", "1", "1.0"))
    if wrong := int((known != labels.astype(bool)).sum()):
        raise StudyError(
            f"{path}: center_tumor_patch differs from the labels in {wrong:,} of {len(labels):,} rows: the list and the"
            f" {split} split do not belong together."
        )
    return slides.tolist()


def _official_rows(path: Path, n: int) -> np.ndarray | None:
    """Dataset "pcam_index" of a label file: for each of its `n` rows the row of PCam's own split; None without it."""
    with hdf5.explain(path), h5py.File(path, "r") as f:
        found = f.get("pcam_index")
        if found is None:
            return None
        rows = found[:] if found.shape == (n,) and found.dtype.kind in "iu" else None
    if rows is None or rows.min() < 0:
        raise StudyError(f"{path}: 'pcam_index' must hold {n:,} row numbers of the official split.")
    return rows.astype(np.int64)
