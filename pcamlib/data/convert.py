"""Your own patches as PCam files: a folder per class, or images and a CSV, become a data root with a card.

    pcamlib data convert SOURCE DEST [--size …] [--convert …] [--positive NAME] [--fractions …] [--seed N]

The header of every image is read first, so what is wrong is said before anything is written. Rows keep the order of the
CSV (or of the sorted paths) within each split: the order decides which rows a subset holds.
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

from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic_folder, plain_path, vacant
from pcamlib.data import card, image_files, pcam
from pcamlib.data.sources import Row, find

BLOCK = 256  # patches in memory while writing
FRACTIONS = (0.8, 0.1, 0.1)


def binary(names: Sequence[str], positive: str | None) -> tuple[np.ndarray, tuple[str, str]]:
    """Labels uint8 (N,) and the names of classes 0 and 1. `positive` is class 1; with more classes than two, all others are 0.

    Raises StudyError if there is one class only, or `positive` is not among the names, or is needed and None.
    """
    found = sorted(set(names))
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    if len(found) < 2:
        raise StudyError(f"every label is {shown!r}: the study needs two classes.")
    if positive is None:
        if set(found) != {"0", "1"}:
            which = "which one is the positive class (1)" if len(found) == 2 else "one class against all others"
            raise StudyError(
                f"labels are {len(found)} classes ({shown}), the study has 0 and 1: say {which} with --positive NAME."
            )
        return np.array([int(name) for name in names], np.uint8), pcam.CLASSES
    if positive not in found:
        raise StudyError(f"--positive {positive!r} is no label here: it is one of {shown}.")
    others = [name for name in found if name != positive]
    negative = others[0] if len(others) == 1 else f"not {positive}"
    return np.array([name == positive for name in names], np.uint8), (negative, positive)


def deal(
    groups: Sequence[Any], labels: np.ndarray, weights: np.ndarray, fractions: Sequence[float], seed: int
) -> np.ndarray:
    """Split number (0, 1, 2) of each image, int64 (N,): whole groups, shares and class balance as near as they allow.

    Groups go one by one, the large ones first and equal ones in seeded order, to the split that brings the counts of both
    classes (in patches: `weights`) nearest to `fractions` of the total; the last groups that hold a class go to splits that
    lack it. The same arguments give the same splits.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.stack([np.bincount(member, weights * (labels == c)) for c in (0, 1)], axis=1)
    total = counts.sum(0)
    wanted, have = np.outer(fractions, total), np.zeros((len(fractions), 2))
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    place, left = np.empty(len(counts), np.int64), (counts > 0).sum(0)
    for g in order:
        cost = (((have + counts[g] - wanted) ** 2 - (have - wanted) ** 2) / np.maximum(total, 1) ** 2).sum(1)
        for c in np.flatnonzero(counts[g]):
            lacking = have[:, c] == 0
            if lacking.sum() >= left[c]:
                cost[lacking] -= 1e9
        place[g] = int(cost.argmin())
        have[place[g]] += counts[g]
        left -= counts[g] > 0
    return place[member]


def _check_groups(rows: Sequence[Row]) -> None:
    home: dict[str, Row] = {}
    for row in rows:
        first = home.setdefault(row.group, row)
        if first.split != row.split:
            raise StudyError(
                f"group {row.group!r} is in two splits ({first.file}: {first.split}, {row.file}: {row.split}): a slide or patient "
                "must stay in one; correct the column 'split', or drop it and let convert deal the groups out."
            )


def _splits(
    rows: list[Row], labels: np.ndarray, weights: np.ndarray, fractions: Sequence[float], seed: int, notes: list[str]
) -> tuple[np.ndarray, str]:
    """Split number of each row, and how it came about; every split must hold both classes."""
    grouped = rows[0].group is not None
    if given := rows[0].split is not None:
        if grouped:
            _check_groups(rows)
        place = np.array([pcam.SPLITS.index(row.split) for row in rows])
        how = "given"
    else:
        if len(fractions) != 3 or min(fractions) <= 0 or not abs(sum(fractions) - 1) < 1e-6:
            raise StudyError(
                f"--fractions {' '.join(map(str, fractions))}: give three shares above 0 that add up to 1."
            )
        if seed < 0:
            raise StudyError(f"--seed {seed} must be 0 or more.")
        place = deal([row.group if grouped else row.file for row in rows], labels, weights, fractions, seed)
        how = f"dealt out {'by group' if grouped else 'by image'} with shares {', '.join(f'{x:g}' for x in fractions)}, seed {seed}"
    for s, name in enumerate(pcam.SPLITS):
        held = [int(weights[(place == s) & (labels == c)].sum()) for c in (0, 1)]
        if min(held) == 0:
            raise StudyError(
                f"the {name} split would hold {held[0]} patches of class 0 and {held[1]} of class 1, each split needs both: "
                + (
                    "correct the column or folders that give the split."
                    if given
                    else "there are too few images or groups; give more, or a split of your own."
                )
            )
        share = sum(held) / weights.sum()
        if not given and abs(share - fractions[s]) > 0.05:
            notes.append(
                f"the {name} split holds {share:.0%} of the patches instead of {fractions[s]:.0%}: groups are large"
            )
    if not grouped:
        notes.append(
            "no groups: "
            + (
                "whether a slide or patient is in two splits was not checked"
                if given
                else "patches of one slide or patient may be in two splits, and scores then too good; add a column 'group'"
            )
        )
    return place, how


def convert(
    source: Path, dest: Path, *, size: str | None = None, colours: Sequence[str] = (), positive: str | None = None,
    fractions: Sequence[float] = FRACTIONS, seed: int = 0, licence: str | None = None, warn: Callable[[str], None] = lambda note: None,
) -> dict[str, Any]:  # fmt: skip
    """Write the images of `source` into the new folder `dest` as PCam files, with rows.csv, card.json and card.md.

    Parameters
    ----------
    source
        A folder with a sub-folder per class, or a CSV (or a folder with one) with file, label, and perhaps split and group.
    size, colours
        Choices of `images.SIZES` and `images.CONVERSIONS` for images that are not 96x96 8-bit RGB.
    positive, fractions, seed
        As in `binary` and `deal`; the last two only where no split is given.
    licence
        Terms of use, kept in the card.
    warn
        Called with each sentence a user should read; they stand in the card too.

    Memory does not grow with the pixels, only with the list of names. Returns the card. Raises StudyError for anything
    wrong with the source, before `dest` appears.
    """
    source, dest = plain_path(source), vacant(dest)
    notes: list[str] = []
    root, rows = find(source, notes)
    labels, classes = binary([row.label for row in rows], positive)
    if classes == pcam.CLASSES:
        classes = pcam.classes(root)  # of patches that `export` wrote, which are listed as 0 and 1
    infos = _inspect(root, rows, size, colours)
    weights = np.array([seen.patches for seen in infos])
    place, how = _splits(rows, labels, weights, fractions, seed, notes)
    need = int(weights.sum()) * pcam.SIDE * pcam.SIDE * 3
    parent = next(p for p in dest.parents if p.exists())
    if (free := shutil.disk_usage(parent).free) < need * 1.02 + 1e6:
        raise StudyError(
            f"{dest} needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free there: make room or choose another disk."
        )
    if size == "tile":
        notes.append("each tile has its image's label, whether or not the tile shows it")
    try:
        with atomic_folder(dest, replace=False) as tmp_path:
            _write(root, rows, labels, infos, place, size, tmp_path)
            used = Counter(name for seen in infos for name in seen.needs)
            made = card.describe(tmp_path, pcam.SPLITS) | {
                "name": dest.name, "classes": list(classes), "licence": licence or "not stated", "source": root.absolute().name,
                "images": len(rows), "groups": len({row.group for row in rows}) if rows[0].group is not None else None, "split": how,
                "size": size, "resized_or_cut": sum(seen[:2] != (pcam.SIDE, pcam.SIDE) for seen in infos), "converted": dict(used),
            }  # fmt: skip
            notes += card.concerns(made["report"])
            made["notes"] = notes
            card.write(tmp_path, made)
    except OSError as error:
        raise StudyError(
            f"{dest} could not be written ({error.strerror or error}): nothing is left of it; make room or choose another folder."
        ) from None
    for note in notes:
        warn(note)
    return made


def _inspect(root: Path, rows: Sequence[Row], size: str | None, colours: Sequence[str]) -> list[image_files.ImageInfo]:
    for name, known in ((size, image_files.SIZES), *((name, image_files.CONVERSIONS) for name in colours)):
        if name is not None and name not in known:
            raise StudyError(f"{name!r} is unknown: choose from {', '.join(known)}.")
    infos, first, bad = [], None, 0
    for row in tqdm(rows, "headers", unit=" images", disable=None):
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
    root: Path,
    rows: list[Row],
    labels: np.ndarray,
    infos: list[image_files.ImageInfo],
    place: np.ndarray,
    size: str | None,
    folder: Path,
) -> None:
    """The six files and rows.csv, a block of patches at a time."""
    with (
        open(folder / "rows.csv", "w", newline="", encoding="utf-8") as f,
        tqdm(total=len(rows), unit=" images", disable=None) as bar,
    ):
        index = csv.writer(f)
        index.writerow(["split", "row", "file", "tile", "label", "group"])
        for s, split in enumerate(pcam.SPLITS):
            chosen = np.flatnonzero(place == s)
            weights = np.array([infos[i].patches for i in chosen])
            with h5py.File(pcam.file(folder, split, "y"), "w") as y:
                y["y"] = np.repeat(labels[chosen], weights).reshape(-1, 1, 1, 1)
            with h5py.File(pcam.file(folder, split, "x"), "w") as out:
                x = out.create_dataset("x", (int(weights.sum()), pcam.SIDE, pcam.SIDE, 3), np.uint8)
                block, start, row = [], 0, 0
                for i in chosen:
                    block.append(image_files.patches(root / rows[i].file, infos[i], size))
                    for tile in range(len(block[-1])):
                        index.writerow([split, row, rows[i].file, tile, rows[i].label, rows[i].group or ""])
                        row += 1
                    if row - start >= BLOCK or i == chosen[-1]:
                        x[start:row] = np.concatenate(block)
                        block, start = [], row
                    bar.update()
