"""What a folder of somebody's patches holds: one row for each image, from a CSV or from the folders' names."""

from __future__ import annotations

import csv
from pathlib import Path, PurePath
from typing import NamedTuple

from pcamlib.data import image_files
from pcamlib.core.errors import StudyError
from pcamlib.core.files import plain_path

SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}
COLUMNS = ("file", "label", "split", "group")


class Row(NamedTuple):
    """One image of the source: path within it, label as written, and split and group where they are given."""

    file: str
    label: str
    split: str | None = None
    group: str | None = None


def from_csv(path: Path, notes: list[str]) -> list[Row]:
    """Rows of a CSV with a header: file, label and, if wished, split and group. Other columns are named in `notes`.

    Raises StudyError for a column or cell that is missing, a file listed twice or outside the CSV's folder.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f, strict=True)
            header = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            for name in ("file", "label"):
                if name not in header:
                    raise StudyError(
                        f"{path} has no column '{name}' (it has: {', '.join(header)[:200] or 'nothing'}): the first line must "
                        "name the columns file, label and, if wished, split and group, separated by commas."
                    )
            if len(set(header)) < len(header):
                raise StudyError(f"{path} names a column twice ({', '.join(header)[:200]}): give each its own name.")
            reader.fieldnames = header
            found = [(reader.line_num, cells) for cells in reader]  # blank lines give no cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path} cannot be read as CSV ({error}): save it as comma-separated UTF-8 text.") from None
    if other := [name for name in header if name not in COLUMNS]:
        notes.append(f"columns not used: {', '.join(other)[:200]}")
    rows, seen = [], {}
    for number, cells in found:
        row = Row(*((cells[name] or "").strip() if name in header else None for name in COLUMNS))
        if None in cells or any(cells[name] is None for name in header):
            raise StudyError(f"{path}, line {number}: it has another number of cells than the header: mend the line.")
        for name, value in row._asdict().items():
            if value == "":
                raise StudyError(f"{path}, line {number}: '{name}' is empty: fill it in, or drop the whole column.")
        if PurePath(row.file).is_absolute() or ".." in PurePath(row.file).parts or "\0" in row.file:
            raise StudyError(f"{path}, line {number}: file {row.file!r} must be a path inside {path.parent}.")
        key = str(PurePath(row.file))
        if key in seen:
            raise StudyError(f"{path}, line {number}: file {row.file!r} is listed in line {seen[key]} too: keep one.")
        seen[key] = number
        if row.split is not None:
            if row.split.lower() not in SPLIT_NAMES:
                raise StudyError(f"{path}, line {number}: split is {row.split!r}, it must be train, valid or test.")
            row = row._replace(split=SPLIT_NAMES[row.split.lower()])
        rows.append(row)
    if not rows:
        raise StudyError(f"{path} lists no image: give it a line for each.")
    return rows


def from_folders(root: Path, notes: list[str]) -> list[Row]:
    """Rows of a folder with a sub-folder for each class, or with train, valid and test that each hold such."""
    folders = [p for p in sorted(root.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    split = {p: SPLIT_NAMES.get(p.name.lower()) for p in folders}
    outside = [root]
    if folders and all(split.values()):
        outside += folders
        folders = [(split[p], c) for p in folders for c in sorted(p.iterdir()) if c.is_dir() and c.name[0] != "."]
    else:
        folders = [(None, p) for p in folders]
    stray = [
        p
        for home in outside
        for p in sorted(home.iterdir())
        if p.suffix.lower() in image_files.SUFFIXES and p.is_file()
    ]
    if stray:
        first = stray[0].relative_to(root).as_posix()
        notes.append(f"images outside a folder of a class, left out: {len(stray)} (the first: {first})")
    rows, other = [], []
    for name, folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.name.startswith(".") or path.is_dir():
                continue
            if path.suffix.lower() in image_files.SUFFIXES:
                plain_path(path)
                rows.append(Row(path.relative_to(root).as_posix(), folder.name, name))
            else:
                other.append(path.relative_to(root).as_posix())
    if other:
        notes.append(
            f"files that are no PNG, JPEG, TIFF or WebP by name, left out: {len(other)} (the first: {other[0]})"
        )
    if not rows:
        raise StudyError(
            f"{root} holds no image in a sub-folder: give a folder with one sub-folder per class, or a CSV with the columns "
            "file and label beside the images."
        )
    return rows


def find(source: Path, notes: list[str]) -> tuple[Path, list[Row]]:
    """The folder that file names start from, and the rows: `source` is a CSV, a folder with one, or a folder of classes."""
    if source.is_file():
        return source.parent, from_csv(source, notes)
    if not source.is_dir():
        raise StudyError(f"{source} does not exist: give a folder of images or a CSV.")
    lists = [p for p in sorted(source.glob("*.csv")) if not p.name.startswith(".")]
    if len(lists) > 1:
        raise StudyError(
            f"{source} holds {len(lists)} CSV files ({', '.join(p.name for p in lists[:5])}): name the one you mean."
        )
    return source, from_csv(lists[0], notes) if lists else from_folders(source, notes)
