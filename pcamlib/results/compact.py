"""Results in two small CSV files, for keeping in git: values, and where they come from.

<folder>/<name>.csv has a line per subset, arm, seed and feature space, with a column per metric. Its column `origin` is
a line of <folder>/provenance/<name>.csv, which has everything that many values share: result file, data, profile,
processor, counts and settings. `read` joins the two and gives back an equal frame.
"""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import pandas as pd

from pcamlib.core.errors import StudyError, system_advice
from pcamlib.core.files import atomic
from pcamlib.results.arms import Arm
from pcamlib.results.frame import BY_CENTRE, COLUMNS, LATER, METRICS, tidy

KEYS = ("kind", "subset", "regime", "generator", "selection", "seed", "extractor", "status", "arm_created", "centre")
ORDER = tuple(dict.fromkeys(itertools.chain(*METRICS.values(), BY_CENTRE)))
NEWER = {
    *LATER,
    *METRICS["label-content"],
    *METRICS["known-labels"],
    *METRICS["curves"],
    *BY_CENTRE,
    "centre",
    "subsets_by",
}
"""Columns that are left out where nothing has a value for them, and so from older files."""
DERIVED = ("arm", "control", "metric", "value")
SHARED = tuple(name for name in COLUMNS if name not in (*KEYS, *DERIVED))
NO_VALUE = "nan"  # a line without a value, which is not the same as no line


def provenance_file(path: Path) -> Path:
    """Beside the values at `path`, the file that says where they come from."""
    return path.parent / "provenance" / path.name


def write(results: pd.DataFrame, path: Path) -> None:
    """Write results to `path` and `provenance_file(path)`, each atomically. Floats keep all their digits."""
    lines = results.astype(object).where(results.notna(), None).to_dict("records")
    absent = {name for name in ("centre", "subsets_by") if results[name].isna().all()}
    keys, own = ([name for name in names if name not in absent] for names in (KEYS, SHARED))
    origins: dict[tuple, int] = {}
    rows: list[tuple[tuple, dict[str, str]]] = []
    for line in lines:
        origin = origins.setdefault(tuple(line[name] for name in own), len(origins))
        key = (origin, *(line[name] for name in keys))
        place = ORDER.index(line["metric"])
        if not rows or rows[-1][0] != key or place <= ORDER.index(next(reversed(rows[-1][1]))):
            rows.append((key, {}))
        rows[-1][1][line["metric"]] = NO_VALUE if line["value"] is None else repr(line["value"])
    order = [metric for metric in ORDER if metric not in NEWER or any(metric in cells for _, cells in rows)]
    values = [[*key, *(cells.get(metric) for metric in order)] for key, cells in rows]
    _write(path, ("origin", *keys, *order), values)
    _write(provenance_file(path), ("origin", *own), [[i, *shared] for shared, i in origins.items()])


def read(path: Path) -> pd.DataFrame:
    """Results from the two files that `write` made; StudyError if they are not such files."""
    shared = {row["origin"]: row for row in _read(provenance_file(path), ("origin", *SHARED))}
    lines: list[dict[str, Any]] = []
    for row in _read(path, ("origin", *KEYS, *ORDER)):
        try:
            line = {name: _typed(name, row.get(name, "")) for name in KEYS}
            line |= {name: _typed(name, shared[row["origin"]].get(name, "")) for name in SHARED}
            arm = Arm(line["regime"], line["generator"], line["selection"], line["seed"])
            line |= {"arm": arm.name, "control": arm.control}
            cells = {metric: float(row[metric]) for metric in ORDER if row.get(metric, "") != ""}
        except (KeyError, ValueError, TypeError) as error:
            raise _foreign(path, f"line of {row.get('regime')}: {error}") from None
        found = ((metric, None if math.isnan(value) else value) for metric, value in cells.items())
        lines += [line | {"metric": metric, "value": value} for metric, value in found]
    return tidy(lines)


def _typed(name: str, text: str) -> Any:
    if text == "":
        return None
    kind = COLUMNS[name].lower()
    if kind.startswith("bool"):
        return {"True": True, "False": False}[text]
    return int(text) if kind == "int64" else float(text) if kind == "float64" else text


def _write(path: Path, header: tuple[str, ...], rows: list[list[Any]]) -> None:
    with atomic(path) as tmp_path, open(tmp_path, "w", encoding="utf-8", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows([header, *rows])


def _read(path: Path, header: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as f:
            found = csv.DictReader(f)
            rows, columns = list(found), tuple(found.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        if advice := system_advice(error):
            raise StudyError(f"{path} cannot be read ({advice}).") from None
        raise _foreign(path, str(error)) from None
    expected = tuple(name for name in header if name not in NEWER or name in columns)
    if columns != expected or any(None in row or None in row.values() for row in rows):
        raise _foreign(path, "its columns are others")
    return rows


def _foreign(path: Path, why: str) -> StudyError:
    return StudyError(f"{path} cannot be read as published results ({why}): restore it, or publish the run again.")
