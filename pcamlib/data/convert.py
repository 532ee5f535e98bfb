"""Your own patches as PCam files: a known data set, a folder per class, or images and a CSV become a data root with a
card.

    pcamlib data convert SOURCE DEST [--size …] [--convert …] [--positive NAME] [--fractions …] [--seed N]

The header of every image is read first, so that what is wrong is said before anything is written. Rows keep the order
of the CSV (or of the sorted paths) within each split: the order decides which rows a subset holds.
"""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm.auto import tqdm

from pcamlib.core.errors import StudyError, system_advice
from pcamlib.core.files import atomic_folder, plain_path, vacant
from pcamlib.core.text import printable
from pcamlib.data import assignment, card, image_files, layouts, pcam
from pcamlib.data.groups import write_groups
from pcamlib.data.image_files import ImageInfo
from pcamlib.data.names import check_name
from pcamlib.data.sources import Options, Row

BLOCK = 256  # patches in memory while writing
FRACTIONS = (0.8, 0.1, 0.1)
USED_BITS = 14  # 16-bit files whose values all fit in so many bits come from a camera and would turn out dark


def convert(
    source: Path, dest: Path, *, size: str | None = None, colours: Sequence[str] = (), positive: str | None = None,
    fractions: Sequence[float] = FRACTIONS, seed: int = 0, licence: str | None = None, file_column: str = "file",
    label_column: str = "label", suffix: str = "", group_from: str | None = None, only: str | None = None,
    leave_out: Sequence[str] = (), warn: Callable[[str], None] = lambda note: None,
) -> dict[str, Any]:  # fmt: skip
    """Write the images of `source` into the new folder `dest` as PCam files, with rows.csv, groups, card.json and
    card.md.

    Parameters
    ----------
    source
        A folder in one of the layouts of `layouts.LAYOUTS`, a folder with a sub-folder per class, or a CSV (or a folder
        with one) with the columns file, label, and if known split, group and centre.
    size, colours
        Choices of `image_files.SIZES` and `image_files.CONVERSIONS` for images that are not 96x96 8-bit RGB.
    positive
        The label that becomes class 1; see `assignment.binary`. Known layouts have one of their own.
    fractions, seed
        Shares of train, valid and test and the seed of `assignment.assign_splits`, where no split is given. If train
        and test are given without valid, a part of train becomes valid.
    licence
        Terms of use, kept in the card.
    file_column, label_column
        Columns of a CSV that name the image and its label.
    suffix
        Added to the names in the CSV that do not end with it, such as ".tif".
    group_from
        Regular expression; what its first bracket (without one: all of it) fits in an image's path is the image's
        group.
    only
        Regular expression; images whose path it does not fit are left out.
    leave_out
        Labels whose images are left out, such as "nan" for patches that nobody labelled.
    warn
        Called with each sentence a user should read; they stand in the card too.

    Memory does not grow with the pixels, only with the list of names. Returns the card. Raises StudyError for anything
    wrong with the source, before `dest` appears.
    """
    source, dest = plain_path(source), vacant(dest)
    check_name(dest.name, "the folder")
    check_name(licence or "", "--licence")
    notes: list[str] = []
    found = layouts.find(source, notes, Options(file_column, label_column, suffix, group_from, only))
    root = found.root
    spelled = assignment.leave_out(found.rows, leave_out, notes)
    if positive is None and found.positive:
        positive = found.positive
        notes.append(f"class 1 is {positive}, as is usual for {found.layout}")
    y, classes, used = assignment.binary([row.label for row in spelled], positive, notes)
    rows = assignment.unify_groups(spelled, notes)
    if classes == pcam.CLASSES:
        classes = pcam.classes(root)  # of patches that `export` wrote, which are listed as 0 and 1
    infos = _inspect(root, rows, size, colours)
    weights = np.array([info.patches for info in infos])
    place, how = assignment.place_rows(rows, y, weights, fractions, seed, notes, spelled)
    need = int(weights.sum()) * pcam.SIDE * pcam.SIDE * 3
    parent = next(p for p in dest.parents if p.exists())
    if (free := shutil.disk_usage(parent).free) < need * 1.02 + 1e6:
        raise StudyError(
            f"{dest} needs {need / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free there: make room or choose another disk."
        )
    if size == "tile":
        notes.append("each tile has its image's label, whether or not the tile shows it")
    if turned := sum(info.turned for info in infos):
        notes.append(
            f"turned or mirrored as their orientation tag says, so that they stand as viewers show them: {turned:,}"
            " images"
        )
    try:
        with atomic_folder(dest, replace=False) as tmp_path:
            _write(root, rows, spelled, y, infos, place, size, tmp_path)
            groups, centres = ({getattr(row, what) for row in rows} - {None} for what in ("group", "centre"))
            made = card.describe(tmp_path, pcam.SPLITS) | {
                "name": dest.name, "classes": list(classes), "labels": used, "licence": licence or "not stated",
                "source": printable(root.absolute().name), "layout": found.layout, "images": len(rows),
                "groups": len(groups) or None, "centres": len(centres) or None, "split": how, "size": size,
                "resized_or_cut": sum(info[:2] != (pcam.SIDE, pcam.SIDE) for info in infos), "turned": turned,
                "converted": dict(Counter(name for info in infos for name in info.needs)),
            }  # fmt: skip
            notes += card.concerns(made["report"])
            made["notes"] = notes
            card.write(tmp_path, made)
    except OSError as error:
        if dest.exists() and any(dest.iterdir()):
            raise StudyError(
                f"{dest} was written by another process in the meantime: its content stays, nothing of this one was put"
                " there; choose another folder."
            ) from None
        reason = system_advice(error) or error.strerror or error
        raise StudyError(
            f"{dest} could not be written ({reason}): nothing is left of it; make room or choose another folder."
        ) from None
    for note in notes:
        warn(note)
    return made


def _inspect(root: Path, rows: Sequence[Row], size: str | None, colours: Sequence[str]) -> list[ImageInfo]:
    for name, known in ((size, image_files.SIZES), *((name, image_files.CONVERSIONS) for name in colours)):
        if name is not None and name not in known:
            raise StudyError(f"{name!r} is unknown: choose from {', '.join(known)}.")
    infos, first, bad = [], None, 0
    for row in tqdm(rows, "headers", unit=" images", disable=None):
        if row.row is not None:
            infos.append(ImageInfo(pcam.SIDE, pcam.SIDE, (), 1))
            continue
        try:
            infos.append(image_files.inspect_image(root / row.file, size, colours))
        except StudyError as error:
            first, bad = first or error, bad + 1
    if first:
        raise StudyError(
            f"{first}" + (f" ({bad:,} of {len(rows):,} images are refused; this is the first.)" if bad > 1 else "")
        )
    return infos


def _write(
    root: Path, rows: list[Row], spelled: list[Row], y: np.ndarray, infos: list[ImageInfo], place: np.ndarray,
    size: str | None, folder: Path,
) -> None:  # fmt: skip
    """The six files, the groups and rows.csv (labels and groups as they were `spelled`), a block of patches at a
    time."""
    deepest, deep = 0, 0
    with (
        open(folder / "rows.csv", "w", newline="", encoding="utf-8") as f,
        tqdm(total=len(rows), unit=" images", disable=None) as bar,
    ):
        index = csv.writer(f)
        centred = rows[0].centre is not None
        index.writerow(["split", "row", "file", "tile", "label", "group"] + ["centre"] * centred)
        for s, split in enumerate(pcam.SPLITS):
            chosen = np.flatnonzero(place == s)
            weights = np.array([infos[i].patches for i in chosen])
            stored = pcam.Patches(root, split) if rows[chosen[0]].row is not None else None
            with h5py.File(pcam.file(folder, split, "y"), "w") as out:
                out["y"] = np.repeat(y[chosen], weights).reshape(-1, 1, 1, 1)
            with h5py.File(pcam.file(folder, split, "x"), "w") as out:
                x = out.create_dataset("x", (int(weights.sum()), pcam.SIDE, pcam.SIDE, 3), np.uint8)
                block, start, row = [], 0, 0
                for i in chosen:
                    if stored is not None:
                        block.append(stored[rows[i].row][0][None])
                    else:
                        block.append(image_files.patches(root / rows[i].file, infos[i], size))
                    if "16bit" in infos[i].needs:
                        deepest, deep = max(deepest, int(block[-1].max())), deep + 1
                    for tile in range(len(block[-1])):
                        source = spelled[i]
                        number = rows[i].row if stored is not None else tile
                        cells = [split, row, source.file, number, source.label, source.group or ""]
                        index.writerow(cells + [source.centre] * centred)
                        row += 1
                    if row - start >= BLOCK or i == chosen[-1]:
                        x[start:row] = np.concatenate(block)
                        block, start = [], row
                    bar.update()
            if rows[0].group is not None:
                of = np.repeat(chosen, weights)
                write_groups(
                    folder, split, [rows[i].group for i in of], [rows[i].centre for i in of] if centred else None
                )
    if deep and deepest < 1 << (USED_BITS - 8):
        raise StudyError(
            f"the {deep:,} 16-bit images of {root} have no value above {deepest * 256 + 255:,} of 65,535: they hold"
            " fewer than 16 bits, as many cameras do, and would come out dark; scale them to the full range and"
            " convert again."
        )
