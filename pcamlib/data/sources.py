"""What a folder of somebody's patches holds: one row for each image, from a CSV or from the names of the folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from pcamlib.core.errors import StudyError, system_advice
from pcamlib.core.files import plain_path
from pcamlib.core.text import printable
from pcamlib.data import image_files
from pcamlib.data.csv_files import Table, read_csv
from pcamlib.data.names import name_key, split_name

TOOL_FOLDERS = ("__MACOSX", "lost+found", "$RECYCLE.BIN", "#recycle")  # beside all that start with "." or "@"
COLUMNS = ("split", "group", "centre")


class Row(NamedTuple):
    """One patch or image of the source.

    Its path within the source (for PCam files: the HDF5 file and the row in it), its label as written, and split, group
    (slide or patient) and centre where they are given.
    """

    file: str
    label: str
    split: str | None = None
    group: str | None = None
    centre: str | None = None
    row: int | None = None


class Options(NamedTuple):
    """How to read a source that says things in its own way; see `convert.convert`."""

    file_column: str = "file"
    label_column: str = "label"
    suffix: str = ""
    group_from: str | None = None
    only: str | None = None


class LeftOut:
    """Counts what a walk through folders passes over, so that nothing is dropped in silence."""

    def __init__(self, root: Path):
        self.root = root
        self.found: dict[str, list[str]] = {}

    def add(self, reason: str, path: Path) -> None:
        self.found.setdefault(reason, []).append(path.relative_to(self.root).as_posix())

    def notes(self) -> list[str]:
        return [
            f"{reason}, left out: {len(paths):,} (the first: {printable(min(paths))})"
            for reason, paths in self.found.items()
        ]


HIDDEN = "hidden files and folders of the system or of tools"
LINKS = "linked folders that lead to a folder read before"
OTHER = "files that are no PNG, JPEG, TIFF or WebP by name"
STRAY = "images outside a folder of a class"


def images_below(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """Every image file below a folder, in no order. Linked folders are followed, each real folder is read once."""
    waiting, seen = [folder], set()
    while waiting:
        here = waiting.pop()
        if (real := os.path.realpath(here)) in seen:
            left_out.add(LINKS, here)
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise StudyError(f"{here} cannot be opened ({system_advice(error) or error.strerror or error}).") from None
        for entry in entries:
            path = here / entry.name
            if entry.name[0] in ".@" or entry.name in TOOL_FOLDERS:
                left_out.add(HIDDEN, path)
            elif os.path.isdir(path):
                waiting.append(path)
            elif path.suffix.lower() in image_files.SUFFIXES:
                yield path
            else:
                left_out.add(OTHER, path)


def from_csv(path: Path, notes: list[str], options: Options = Options()) -> list[Row]:
    """Rows of a CSV with a header: file, label and, if wished, split, group and centre. Other columns are named in
    `notes`.

    Raises StudyError for a column or cell that is missing, a file listed twice or outside the CSV's folder.
    """
    table = read_csv(path)
    files = table.column(options.file_column, "--file-column NAME")
    labels = table.column(options.label_column, "--label-column NAME")
    used = {options.file_column.lower(), options.label_column.lower(), *COLUMNS}
    if other := [name for name in table.header if name not in used]:
        notes.append(f"columns not used: {printable(', '.join(other))[:200]}")
    given = {name: table.column(name) for name in COLUMNS if name in table.header}
    files = [name if name.lower().endswith(options.suffix.lower()) else name + options.suffix for name in files]
    return rows_of_table(table, files, labels, **given)


def rows_of_table(
    table: Table, files: list[str], labels: list[str], split: list[str] | None = None, group: list[str] | None = None,
    centre: list[str] | None = None,
) -> list[Row]:  # fmt: skip
    """Rows from columns of a CSV, each checked: nothing empty, no file twice, none outside the CSV's folder."""
    n = len(files)
    if not n:
        raise StudyError(f"{table.path} lists no image: give it a line for each.")
    nothing = [None] * n
    rows, seen = [], {}
    for number, *cells in zip(table.numbers, files, labels, split or nothing, group or nothing, centre or nothing):
        row = Row(*cells)
        for name, value in row._asdict().items():
            if value == "":
                raise StudyError(
                    f"{table.path}, line {number}: '{name}' is empty: fill it in, or drop the whole column."
                )
        if PurePath(row.file).is_absolute() or ".." in PurePath(row.file).parts or "\0" in row.file:
            raise StudyError(
                f"{table.path}, line {number}: file {row.file!r} must be a path inside {table.path.parent}."
            )
        key = str(PurePath(row.file))
        if key in seen:
            raise StudyError(
                f"{table.path}, line {number}: file {row.file!r} is listed in line {seen[key]} too: keep one."
            )
        seen[key] = number
        if row.split is not None:
            if (known := split_name(row.split)) is None:
                raise StudyError(
                    f"{table.path}, line {number}: split is {row.split!r}, it must be train, valid or test."
                )
            row = row._replace(split=known)
        rows.append(row)
    return rows


def from_folders(root: Path, notes: list[str]) -> list[Row]:
    """Rows of a folder with a sub-folder for each class; train, valid and test may stand above or below the classes.

    Raises StudyError if some names are splits and others are not, because nothing tells classes from splits then.
    """
    left_out = LeftOut(root)
    paths = sorted(images_below(root, left_out))
    parts = [path.relative_to(root).parts for path in paths]
    skip = 0  # folders around the whole set, as archives unpack to
    while (
        len({p[skip] for p in parts}) == 1 and all(len(p) > skip + 2 for p in parts) and not split_name(parts[0][skip])
    ):
        skip += 1
    if skip:
        notes.append(f"classes were looked for in the one folder {printable('/'.join(parts[0][:skip]))}/")
    place = os.path.join(root, *parts[0][:skip]) if parts else root
    tops = {p[skip] for p in parts if len(p) > skip + 1}
    seconds = {p[skip + 1] for p in parts if len(p) > skip + 2}
    depth, at = skip + 1, None  # of the folder of a class; of the folder of a split
    if _all_splits(tops, f"folders in {place}"):
        depth, at = skip + 2, skip
    elif _all_splits(seconds, f"folders in the classes of {place}"):
        at = skip + 1
        if any(len(p) == skip + 2 for p in parts):
            raise StudyError(
                f"{place}: some images of a class are in folders of splits and some are not: sort them all."
            )
    rows = []
    for path, p in zip(paths, parts):
        if len(p) <= depth:
            left_out.add(STRAY, path)
            continue
        plain_path(path)
        rows.append(Row("/".join(p), p[depth - 1], split_name(p[at]) if at is not None else None))
    notes += left_out.notes()
    if not rows:
        raise StudyError(
            f"{root} holds no image in a sub-folder: give a folder with one sub-folder per class, or a CSV with the"
            " columns file and label beside the images."
        )
    return rows


def _all_splits(names: set[str], what: str) -> bool:
    """Whether names of folders are names of splits: all True, none False, StudyError for some or for two of one
    split."""
    splits = sorted(name for name in names if split_name(name))
    if not splits:
        return False
    if others := sorted(names - set(splits)):
        looks = "look like splits" if len(splits) > 1 else "looks like a split"
        raise StudyError(
            f"{what}: {', '.join(splits)} {looks}, but {', '.join(others[:5])}{' …' if len(others) > 5 else ''}"
            f" {'does' if len(others) == 1 else 'do'} not: move away what does not belong there, rename, or list the"
            " images in a CSV."
        )
    for name in splits:
        if same := [other for other in splits if other != name and split_name(other) == split_name(name)]:
            raise StudyError(
                f"{what}: {name} and {same[0]} both stand for the {split_name(name)} split: put them into one."
            )
    return True


def apply_options(rows: list[Row], options: Options, notes: list[str]) -> list[Row]:
    """`only` and `group_from`, which work on paths whatever the layout."""
    if options.only is not None:
        pattern = _pattern(options.only, "--only")
        kept = [row for row in rows if pattern.search(row.file)]
        if not kept:
            raise StudyError(f"--only {options.only!r} fits none of {len(rows):,} images, such as {rows[0].file!r}.")
        notes.append(f"images whose path does not fit {printable(options.only)!r}, left out: {len(rows) - len(kept):,}")
        rows = kept
    if options.group_from is not None:
        pattern, grouped = _pattern(options.group_from, "--group-from"), []
        for row in rows:
            found = pattern.search(row.file)
            name = found and (found[1] if pattern.groups else found[0])
            if not name:
                raise StudyError(
                    f"--group-from {options.group_from!r} finds no group in {row.file!r}: its first bracket must fit a"
                    " part of every path."
                )
            grouped.append(row._replace(group=name))
        count = len({name_key(row.group) for row in grouped})
        notes.append(f"groups taken from the paths: {count:,} (the first: {printable(grouped[0].group)})")
        rows = grouped
    return rows


def _pattern(text: str, option: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise StudyError(f"{option} {text[:80]!r} is not a regular expression ({error}).") from None
