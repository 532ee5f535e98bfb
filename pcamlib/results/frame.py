"""Results of a study over its subsets: collected, checked, summarised, compared pairwise.

Result files hold fractions. What is reported is the mean and standard deviation over subsets (§4.2 averages
five), together with how many subsets there were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from scipy import stats as scipy_stats

from pcamlib.core import paper
from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json
from pcamlib.data import CLASSES

Row = dict[str, Any]
Arm = tuple[str, str | None, str | None]
"""(regime, generator, selection); generator and selection are None for arms without synthetic images."""

BASELINE: Arm = ("baseline", None, None)
TRADITIONAL: Arm = ("traditional", None, None)
METRICS = {
    "quality": ("fid", "precision", "recall", "f1", "label_auc", "kid", "density", "coverage"),
    "memorisation": ("nearer_train", "closer_than_new"),
    "classification": ("accuracy", "auc", "sensitivity", "specificity", "ece"),
}
ADDED = ("kid", "density", "coverage", "ece")
"""Metrics that results of earlier versions lack; there they are "not run"."""
FILES = (
    "autoencoder.json",
    *(f"{generator}.json" for generator in paper.GENERATORS),
    *(f"selection-{generator}.json" for generator in paper.GENERATORS),
    "quality.json",
    "memorisation.json",
    *(f"classification-{source}.json" for source in ("real", *paper.GENERATORS)),
)
NOT_RUN = "not run"
CALIBRATION_BINS = 15
"""Of the calibration error ("ece"): equally wide bins of confidence, Guo et al. 2017, arXiv 1706.04599."""


class Summary(NamedTuple):
    """Mean and sample standard deviation (n - 1) over subsets; `sd` is None when there is one subset only."""

    mean: float
    sd: float | None
    values: tuple[float, ...]


class Difference(NamedTuple):
    """Paired differences over subsets: one value per subset that has both arms, and their summary.

    `low` and `high` bound Student's 95 % t interval; None with fewer than 3 subsets, where it means little.
    """

    mean: float
    sd: float | None
    values: dict[int, float]
    low: float | None
    high: float | None


def mean_sd(values: Iterable[float]) -> Summary:
    """Mean and standard deviation with n - 1; ValueError without values."""
    values = tuple(values)
    if not values:
        raise ValueError("a mean needs at least one value")
    return Summary(mean(values), stdev(values) if len(values) > 1 else None, values)


# ------------------------------------------------------------------------------------------------ collecting


def collect(run_root: str | Path, subsets: int | Iterable[int]) -> list[Row]:
    """Rows of all result files of a run folder, each with its "kind", "subset", "file" and "scale".

    Parameters
    ----------
    run_root
        The folder runs/<data>-<profile>, with the JSON files of subset-<k>/results in it.
    subsets
        How many (0, 1, …), or which.

    Returns
    -------
    Plain dicts of kind "training", "selection", "quality", "memorisation" or "classification", in file order. An
    absent file gives no rows: its cells are "not run" (see `missing`).

    Raises StudyError if a subset has no results at all, if a file is damaged, and if files disagree about
    data, profile, extractor or judge: such numbers do not belong in one table.
    """
    run_root = Path(run_root)
    wanted = list(range(subsets)) if isinstance(subsets, int) else list(subsets)
    if not wanted:
        raise StudyError(f"subsets is {subsets!r}: give a number of at least 1.")
    rows: list[Row] = []
    for subset in wanted:
        folder = run_root / f"subset-{subset}" / "results"
        found = [folder / name for name in FILES if (folder / name).exists()]
        if not found:
            raise StudyError(
                f"{folder} holds no results: run notebooks 01 to 07 with -p subset {subset} first, "
                "or give a smaller number of subsets."
            )
        for path in found:
            rows += _read(path, subset)
    _check_same_provenance(rows)
    _check_unique(rows)
    return rows


def missing(run_root: str | Path, subsets: int) -> list[str]:
    """Result files that a complete study of this many subsets would have and this one has not."""
    names = [f"subset-{subset}/results/{name}" for subset in range(subsets) for name in FILES]
    return [name for name in names if not (Path(run_root) / name).exists()]


def of_kind(rows: Iterable[Row], kind: str) -> list[Row]:
    """The rows of one kind."""
    return [row for row in rows if row["kind"] == kind]


def extractors(rows: Iterable[Row]) -> list[str]:
    """Names of the feature spaces in which quality was judged, in order of appearance."""
    return list(dict.fromkeys(row["extractor"] for row in of_kind(rows, "quality")))


def _read(path: Path, subset: int) -> list[Row]:
    """The rows of one result file, checked."""
    content = read_json(path)
    kind = path.stem.split("-")[0]
    shared = {"kind": kind, "subset": subset, "file": str(path)}
    try:
        shared["provenance"] = content["provenance"]
        if content["provenance"]["subset"] != subset:
            raise StudyError(
                f"{path} says that it is of subset {content['provenance']['subset']}: it was copied or moved; "
                "remove it and run its notebook again."
            )
        if kind == "selection":
            shared |= {key: content[key] for key in ("generator", "extractor", "k")}
            return [{**shared, "selection": name, **row} for name, row in content["selections"].items()]
        if "log" in content:
            return [
                shared
                | {"kind": "training", "generator": kind, "selection": None, "images": content["log"][-1]["images"]}
            ]
        rows = [{**shared, **row} for row in content["rows"]]
        for row in rows:
            if "extractor" in row:
                row["judge"] = content["judge"][row["extractor"]]
            if row["status"] == "ok":
                _check_numbers(path, row, METRICS[kind])
    except (KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{path} does not have the form of a result file ({type(error).__name__}: {error}): "
            "remove it and run its notebook again."
        ) from None
    return rows


def _check_numbers(path: Path, row: Row, metrics: tuple[str, ...]) -> None:
    for metric in metrics:
        if metric in ADDED and metric not in row:
            continue
        value = row[metric]
        high = math.inf if metric in ("fid", "kid", "density") else 1
        low = -math.inf if metric == "kid" else 0  # KID is unbiased: below zero where there is no difference
        if not isinstance(value, (int, float)) or not math.isfinite(value) or not low <= value <= high:
            raise StudyError(
                f"{path}: {metric} is {value!r} in a row with status ok, which is not a number in its range: "
                "run its notebook again."
            )


def _check_same_provenance(rows: list[Row]) -> None:
    """Refuse to mix data, profiles, extractors or judges."""
    first: dict[str, tuple[Any, str]] = {}
    for row in rows:
        facts = {f"scale {key}": row["provenance"].get(key) for key in ("data_sha", "profile_sha")}
        if row["kind"] == "quality":
            names = {r["extractor"] for r in rows if r["file"] == row["file"]}
            facts |= {"quality extractors": sorted(names), f"judge {row['extractor']}": row["judge"]}
        if row["kind"] == "selection":
            facts["selection extractor"] = row["extractor"]
        for name, value in facts.items():
            known, file = first.setdefault(name, (value, row["file"]))
            if known != value:
                raise StudyError(
                    f"{row['file']}: {name} is {value!r} but {known!r} in {file}: results of different "
                    "scales do not belong in one table; remove the older one or use another runs_dir."
                )


def _check_unique(rows: list[Row]) -> None:
    seen: dict[tuple, str] = {}
    for row in rows:
        key = (row["kind"], row["subset"], arm_of(row), row.get("extractor"), row.get("seed", 0))
        if key in seen:
            raise StudyError(f"{row['file']} repeats an arm that is already in {seen[key]}: {arm_of(row)}.")
        seen[key] = row["file"]


# ------------------------------------------------------------------------------------------------ summaries


def arm_of(row: Row) -> Arm:
    """(regime, generator, selection) of a row; the regime of a quality or selection row is its kind."""
    return row.get("regime", row["kind"]), row["generator"], row["selection"]


def per_subset(rows: Iterable[Row], arm: Arm, metric: str, extractor: str | None = None) -> dict[int, float]:
    """Value of `metric` by subset, for the subsets where this arm ran; FID as is, all else a fraction.

    Of an arm that was trained with several classifier seeds it is the mean over them.
    """
    found: dict[int, list[float]] = {}
    for row in rows:
        if arm_of(row) == arm and row["status"] == "ok" and extractor in (None, row.get("extractor")) and metric in row:
            found.setdefault(row["subset"], []).append(row[metric])
    return {subset: mean(values) for subset, values in found.items()}


def seeds(rows: Iterable[Row], arm: Arm) -> list[int]:
    """How many classifier seeds an arm was trained with, in each subset where it ran."""
    count: dict[int, int] = {}
    for row in rows:
        if arm_of(row) == arm and row["status"] == "ok":
            count[row["subset"]] = count.get(row["subset"], 0) + 1
    return list(count.values())


def summary(rows: Iterable[Row], arm: Arm, metric: str, extractor: str | None = None) -> Summary | None:
    """Mean and standard deviation of an arm over subsets, or None if it ran for none."""
    values = per_subset(rows, arm, metric, extractor)
    return mean_sd(values.values()) if values else None


def paired(
    rows: Iterable[Row], arm: Arm, against: Arm, metric: str = "auc", extractor: str | None = None
) -> Difference | None:
    """`arm` minus `against`, subset by subset; None if no subset has both. Units are the metric's own."""
    rows = list(rows)
    ours = per_subset(rows, arm, metric, extractor)
    theirs = per_subset(rows, against, metric, extractor)
    values = {subset: ours[subset] - theirs[subset] for subset in ours if subset in theirs}
    if not values:
        return None
    centre, sd, _ = mean_sd(values.values())
    low = high = None
    if len(values) >= 3:
        half = float(scipy_stats.t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
        low, high = centre - half, centre + half
    return Difference(centre, sd, values, low, high)


# ------------------------------------------------------------------------------------------------ scale


def merged_provenance(rows: Iterable[Row]) -> Row:
    """One scale for many rows: lists of what may differ between files, "subsets", "seconds" of all files."""
    files = {row["file"]: row for row in rows}
    if not files:
        raise StudyError("there are no results to state a scale for: run notebooks 05 to 07 first.")
    scales = [row["provenance"] for row in files.values()]
    merged = {key: scales[0].get(key) for key in ("data", "phantom", "classes", "profile")}
    merged["subsets"] = sorted({row["subset"] for row in files.values()})
    for key in ("n_real", "device", "precision", "threads", "version"):
        merged[key] = sorted({provenance[key] for provenance in scales})
    merged["seconds"] = sum(provenance["seconds"] for provenance in scales)
    return merged


def duration(seconds: float) -> str:
    """A span of time as one would say it: "48 s", "12 min 5 s", "3 h 10 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def provenance_note(provenance: Row) -> str:
    """One line that says where numbers come from, for captions and figure footnotes.

    Takes the "scale" of a result file or the merged one of `scale_of`.
    """

    def several(key: str) -> str:
        value = provenance[key]
        return " and ".join(map(str, value)) if isinstance(value, list) else str(value)

    data = f"{provenance['data']} (procedural stand-in, no tissue)" if provenance.get("phantom") else provenance["data"]
    classes = tuple(provenance.get("classes") or CLASSES)
    if classes != CLASSES:  # figures and tables speak of PCam's classes
        data += f' ("{CLASSES[0]}" is {classes[0]}, "{CLASSES[1]}" is {classes[1]})'
    count = len(provenance.get("subsets", ()))
    subsets = f"{count} subset{'s' * (count != 1)}" if count else f"subset {provenance['subset']}"
    return (
        f"Data: {data}; profile {provenance['profile']}; {subsets} of {several('n_real')} patches; "
        f"{several('device')}, {several('precision')}; {duration(provenance['seconds'])}; "
        f"pcamlib {several('version')}."
    )
