"""The layouts of well-known data sets of patches, told by their files; everything else is a CSV or a folder per
class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pcamlib.core.errors import StudyError
from pcamlib.data import pcam
from pcamlib.data.csv_files import csv_header, read_csv
from pcamlib.data.groups import pcam_slides
from pcamlib.data.sources import (
    LeftOut,
    Options,
    Row,
    apply_options,
    from_csv,
    from_folders,
    images_below,
    rows_of_table,
)

# ---------------------------------------------------------------------------------------------- Kaggle

KAGGLE = "train_labels.csv"


def _is_kaggle(root: Path) -> bool:
    return (root / "train").is_dir() and {"id", "label"} <= set(csv_header(root / KAGGLE))


def _kaggle(root: Path, notes: list[str]) -> list[Row]:
    table = read_csv(root / KAGGLE)
    unlabelled = sum(1 for _ in images_below(root / "test", LeftOut(root))) if (root / "test").is_dir() else 0
    if unlabelled:
        notes.append(f"images of the competition's test set, which have no labels, left out: {unlabelled:,}")
    return rows_of_table(table, [f"train/{name}.tif" for name in table.column("id")], table.column("label"))


# ---------------------------------------------------------------------------------------------- Camelyon17-WILDS

WILDS = "metadata.csv"
WILDS_COLUMNS = {"patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"}
WILDS_VALID, WILDS_TEST = "1", "2"  # centres of the official split: wilds/datasets/camelyon17_dataset.py


def _is_wilds(root: Path) -> bool:
    return set(csv_header(root / WILDS)) >= WILDS_COLUMNS


def _wilds(root: Path, notes: list[str]) -> list[Row]:
    table = read_csv(root / WILDS)
    patients = [name.zfill(3) for name in table.column("patient")]
    places = zip(patients, table.column("node"), table.column("x_coord"), table.column("y_coord"))
    files = [f"patches/patient_{p}_node_{n}/patch_patient_{p}_node_{n}_x_{x}_y_{y}.png" for p, n, x, y in places]
    centres, parts = table.column("center"), table.column("split")
    rows = rows_of_table(table, files, table.column("tumor"), group=patients, centre=centres)
    if {WILDS_VALID, WILDS_TEST} <= set(centres):
        split = {WILDS_VALID: "valid", WILDS_TEST: "test"}
        rows = [row._replace(split=split.get(row.centre, "train")) for row in rows]
        kept = [row for row, part in zip(rows, parts) if row.split != "train" or part == "0"]
        notes.append(
            f"split by centre as WILDS does it: {WILDS_VALID} is valid, {WILDS_TEST} is test, the others are train; its"
            f" validation patches of the training patients, left out: {len(rows) - len(kept):,}"
        )
        rows = kept
    else:
        notes.append("the centres of the official split are not all there: patients are assigned to splits anew")
    return rows


# ---------------------------------------------------------------------------------------------- MHIST

MHIST = "annotations.csv"
MHIST_COLUMNS = {"image name", "majority vote label", "partition"}


def _is_mhist(root: Path) -> bool:
    return set(csv_header(root / MHIST)) >= MHIST_COLUMNS


def _mhist(root: Path, notes: list[str]) -> list[Row]:
    table = read_csv(root / MHIST)
    folder = "images/" if (root / "images").is_dir() else ""
    files = [folder + name for name in table.column("image name")]
    return rows_of_table(table, files, table.column("majority vote label"), split=table.column("partition"))


# ---------------------------------------------------------------------------------------------- NCT-CRC-HE

NCT_CLASSES = {"ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"}
NCT_TEST = "CRC-VAL-HE-7K"
NCT_SPLITS = {"NCT-CRC-HE-100K": "train", "NCT-CRC-HE-100K-NONORM": "train", NCT_TEST: "test"}


def _is_nct(root: Path) -> bool:
    return bool(_nct_parts(root))


def _nct_parts(root: Path) -> dict[str, str | None]:
    """Folders that hold the nine classes, and the split that each is."""

    def nine(folder: Path) -> bool:
        return all((folder / name).is_dir() for name in NCT_CLASSES)

    if nine(root):
        return {"": None}
    found = {name: split for name, split in NCT_SPLITS.items() if nine(root / name)}
    return found if set(found.values()) == {"train", "test"} else {name: None for name in found}


def _nct(root: Path, notes: list[str]) -> list[Row]:
    rows = []
    parts = _nct_parts(root)
    if len(parts) - (NCT_TEST in parts) > 1:
        raise StudyError(
            f"{root} holds the patches both with and without normalised colours: give one of {', '.join(parts)}."
        )
    for name, split in parts.items():
        found: list[str] = []
        prefix = f"{name}/" if name else ""
        rows += [row._replace(file=prefix + row.file, split=split) for row in from_folders(root / name, found)]
        notes += [prefix + note if prefix else note for note in found]
    return rows


# ---------------------------------------------------------------------------------------------- BreakHis

# SOB_B_TA-14-4659-40-001.png: biopsy procedure, class, type, year, slide, magnification, number
BREAKHIS = re.compile(
    r"^SOB_(?P<label>[BM])_[A-Z]+-(?P<year>\d+)-(?P<slide>\d+)[A-Z]*-(?P<magnification>40|100|200|400)-\d+\."
)


def _is_breakhis(root: Path) -> bool:
    first = next(images_below(root, LeftOut(root)), None)
    return first is not None and BREAKHIS.match(first.name) is not None


def _breakhis(root: Path, notes: list[str]) -> list[Row]:
    left_out = LeftOut(root)
    rows, magnifications = [], Counter()
    for path in sorted(images_below(root, left_out)):
        if found := BREAKHIS.match(path.name):
            magnifications[f"{found['magnification']}X"] += 1
            label = "malignant" if found["label"] == "M" else "benign"
            # 22549AB and 22549CD are two blocks of one case: the letters do not make another patient
            rows.append(Row(path.relative_to(root).as_posix(), label, group=f"{found['year']}-{found['slide']}"))
        else:
            left_out.add("images whose names do not say the patient", path)
    notes += left_out.notes()
    if len(magnifications) > 1:
        shown = ", ".join(f"{name} {count:,}" for name, count in sorted(magnifications.items()))
        notes.append(f"several magnifications are mixed ({shown}): choose one, for example with --only /40X/")
    return rows


# ---------------------------------------------------------------------------------------------- PCam


def _is_pcam(root: Path) -> bool:
    return pcam.file(root, "train", "x").is_file()


def _pcam(root: Path, notes: list[str]) -> list[Row]:
    rows = []
    for split in pcam.SPLITS:
        slides = pcam_slides(root, split)
        if slides is None:
            raise StudyError(
                f"{root} holds PCam files, which need no conversion: use it as it is. To add the slides, put the three"
                " lists camelyonpatch_level_2_split_{train,valid,test}_meta.csv of the same Zenodo record beside"
                " them."
            )
        name = pcam.file(root, split, "x").name
        labels = pcam.labels(root, split)
        rows += [Row(name, str(y), split, slide, row=i) for i, (y, slide) in enumerate(zip(labels, slides))]
    return rows


# ---------------------------------------------------------------------------------------------- all


class Layout(NamedTuple):
    """A known layout: its name, a test on a folder, a reader of rows, the usual positive class, the CSV that stands for
    it."""

    name: str
    is_it: Callable[[Path], bool]
    rows: Callable[[Path, list[str]], list[Row]]
    positive: str | None = None
    csv: str | None = None


LAYOUTS = (
    Layout("PCam", _is_pcam, _pcam),
    Layout("Kaggle histopathologic-cancer-detection", _is_kaggle, _kaggle, csv=KAGGLE),
    Layout("Camelyon17-WILDS", _is_wilds, _wilds, csv=WILDS),
    Layout("MHIST", _is_mhist, _mhist, "SSA", csv=MHIST),
    Layout("NCT-CRC-HE", _is_nct, _nct, "TUM"),
    Layout("BreakHis", _is_breakhis, _breakhis, "malignant"),
)


class Found(NamedTuple):
    """What a source holds: the folder that paths start from, the rows, the layout's name and its usual positive
    class."""

    root: Path
    rows: list[Row]
    layout: str
    positive: str | None


def find(source: Path, notes: list[str], options: Options = Options()) -> Found:
    """Rows of a source: a known layout, a CSV, a folder with one, or a folder of classes, looked for in this order.

    A known layout is passed over where `options` name the columns of a CSV. Raises StudyError if nothing fits.
    """
    if not source.is_file() and not source.is_dir():
        raise StudyError(f"{source} does not exist: give a folder of images or a CSV.")
    root = source.parent if source.is_file() else source
    named = options.file_column != "file" or options.label_column != "label"
    for layout in () if named else LAYOUTS:
        if (source.is_dir() or source.name == layout.csv) and layout.is_it(root):
            rows = layout.rows(root, notes)
            return Found(root, apply_options(rows, options, notes), layout.name, layout.positive)
    if source.is_file():
        rows, name = from_csv(source, notes, options), "CSV"
    else:
        lists = [p for p in sorted(source.glob("*.csv")) if not p.name.startswith(".")]
        if len(lists) > 1:
            raise StudyError(
                f"{source} holds {len(lists)} CSV files ({', '.join(p.name for p in lists[:5])}): name the one you"
                " mean."
            )
        rows, name = (
            (from_csv(lists[0], notes, options), "CSV") if lists else (from_folders(source, notes), "folder per class")
        )
    return Found(root, apply_options(rows, options, notes), name, None)
