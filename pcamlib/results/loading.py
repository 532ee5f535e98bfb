"""The result files of a run folder, checked and put together as one data frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pcamlib.core import paper
from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json
from pcamlib.results.arms import PROBED, Arm, judged, of_source
from pcamlib.results.frame import (
    BY_CENTRE,
    KNOWN_LABELS,
    LABEL_CONTENT,
    LATER,
    METRICS,
    NOT_RUN,
    OPTIONAL,
    PER_CLASS,
    PROVENANCE,
    ROW,
    extractors,
    tidy,
)

NO_FILE = "its result file does not exist"
ONE_CLASS = "the test patches of this centre are of one class"


def files(generators: Iterable[str], folders: Iterable[str] = ()) -> dict[str, list[Arm]]:
    """The result files of a subset, without ".json", and the arms of each; `folders` are generators that are not
    trained."""
    generators, folders = tuple(generators), tuple(folders)
    return {
        **{name: [Arm("training", name)] for name in ("autoencoder", *generators) if name not in folders},
        **{f"selection-{g}": [Arm("selection", g, s) for s in paper.SELECTIONS] for g in generators},
        "quality": [Arm("quality", *images) for images in judged(generators)],
        "memorisation": [Arm("memorisation", *images) for images in judged(generators)],
        "label-content": [
            Arm("label-content", *images) for images in judged(generators) if images[1] in (None, "none")
        ],
        "known-labels": [Arm("known-labels", None, "class")],
        "classification-real": of_source(None),
        **{f"classification-{g}": of_source(g) for g in generators},
        "probe-real": list(PROBED),
        **{f"probe-{g}": of_source(g) for g in generators},
        # only profiles that ask for curves measure them, at points of their own: none is missed
        **{f"curves-{g}": [] for g in ("real", *generators)},
    }


FILES = files(paper.GENERATORS)


def _files_of_run(run: Path) -> dict[str, list[Arm]]:
    """`files` of the paper's generators and of the other ones that the run's profile lists."""
    path = run / "study.json"
    settings = read_json(path).get("settings", {}) if path.exists() else {}
    listed = settings.get("generators", [])
    folders = [item["name"] for item in listed if not isinstance(item, str)]
    names = [item if isinstance(item, str) else item["name"] for item in listed]
    return files(dict.fromkeys([*paper.GENERATORS, *names]), folders)


_UNBOUNDED = {"patches_centre", "fid", "kid_se", "density", "least_ratio", "train_loss", "train_seconds", "images"}
_UNBOUNDED |= {*LATER} | {f"{name}_{c}" for name in PER_CLASS[:-1] for c in (0, 1)}


def load(run_folder: str | Path, subsets: int | Iterable[int] | None = None) -> pd.DataFrame:
    """The results of a run, one line per subset, arm, seed, feature space and metric (see `COLUMNS`).

    Parameters
    ----------
    run_folder
        The folder runs/<data>-<profile>, with result files in subset-<k>/results.
    subsets
        How many (0, 1, …), or which. All subsets that have results by default.

    Arms of a result file that does not exist have status "not run". Raises StudyError if a subset has no results, if a
    file is damaged or holds a number out of range, if an arm occurs twice, and if files differ in data, profile,
    feature spaces or judge, since such numbers do not belong in one table.
    """
    run = Path(run_folder)
    if subsets is None:
        wanted = sorted(
            int(p.name[7:]) for p in run.glob("subset-*") if p.name[7:].isdigit() and _files(run, p.name[7:])
        )
    else:
        wanted = list(range(subsets)) if isinstance(subsets, int) else list(subsets)
    if not wanted and subsets is None:
        raise StudyError(f"{run} holds no results: run notebooks 01 to 07 first.")
    if not wanted:
        raise StudyError(f"subsets is {subsets!r}: give a number of at least 1.")
    lines: list[dict[str, Any]] = []
    for subset in wanted:
        if not _files(run, subset):
            raise StudyError(
                f"{run / f'subset-{subset}' / 'results'} holds no results: run notebooks 01 to 07 with -p subset"
                f" {subset} first, or give a smaller number of subsets."
            )
        for path in _files(run, subset):
            lines += _read(path, subset, run)
    found = tidy(lines)
    check(found, run)
    spaces = extractors(found) or [None]
    for subset in wanted:
        for name, arms in _files_of_run(run).items():
            path = _path(run, subset, name)
            if not path.exists():
                file = path.relative_to(run).as_posix()
                lines += [x for arm in arms for x in _absent(_kind(name), arm, subset, file, spaces)]
    return tidy(lines)


def _path(run: Path, subset: int | str, name: str) -> Path:
    return run / f"subset-{subset}" / "results" / f"{name}.json"


def _files(run: Path, subset: int | str) -> list[Path]:
    """The result files of a subset that exist."""
    return [path for path in (_path(run, subset, name) for name in _files_of_run(run)) if path.exists()]


def _kind(file: str) -> str:
    kind = file if file in METRICS else file.split("-")[0]
    return kind if kind in METRICS else "training"


def _read(path: Path, subset: int, run: Path) -> list[dict[str, Any]]:
    """The lines of one result file."""
    content, kind = read_json(path), _kind(path.stem)
    try:
        provenance = content["provenance"]
        if provenance["subset"] != subset:
            raise StudyError(
                f"{path} says that it is of subset {provenance['subset']}: it was copied or moved. "
                "Remove it and run its notebook again."
            )
        if kind == "training":
            rows = [{"generator": path.stem, "selection": None, "images": content["log"][-1]["images"]}]
        elif kind == "selection":
            shared = {key: content[key] for key in ("generator", "extractor", "k")}
            rows = [shared | {"selection": name} | _per_class(row) for name, row in content["selections"].items()]
        elif kind == "label-content":
            rows = [_label_content(row, content) for row in content["rows"]]
        elif kind == "known-labels":
            rows = [_known_labels(content)]
        elif kind == "curves":  # the regime tells the counts
            rows = [{k: v for k, v in row.items() if not k.startswith("n_")} for row in content["rows"]]
        else:
            rows = content["rows"]
            for row in rows:
                row["judge"] = content["judge"][row["extractor"]] if "extractor" in row else None
        file = path.relative_to(run).as_posix()
        return [line for row in rows for line in row_lines(kind, row, provenance, file, path)]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise StudyError(
            f"{path} does not have the form of a result file ({type(error).__name__}: {error}): "
            "remove it and run its notebook again."
        ) from None


def _label_content(row: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """A row of results/label-content.json under the names of METRICS. Its images are those without selection."""
    calibration = row["generator"] in ("real", "autoencoder")
    found = {"generator": row["generator"], "selection": None if calibration else "none", "judge": content["network"]}
    found |= {"status": row["status"], "reason": row["reason"], "n_fake": row.get("n"), "test_n": content["test_n"]}
    return found | {metric: row[name] for name, metric in LABEL_CONTENT.items() if name in row}


def _known_labels(content: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of results/known-labels.json, of each class and of both, as one, under the names of METRICS."""
    found = {"generator": None, "selection": "class", "extractor": content["extractor"], "k": content["k"]}
    found |= {"judge": f"{content['extractor_about']}; patches: {content['unseen']}"}
    for row in content["rows"]:
        of = "" if row["class"] is None else f"_{row['class']}"
        found |= {metric + of: row[name] for name, metric in KNOWN_LABELS.items()}
        found |= {"n_new": row["n"]} if row["class"] is None else {}
    return found


def _per_class(row: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of a selection, per class, under the names of METRICS."""
    values = {name: row[name] for name in PER_CLASS[:-1]}
    if row["acceptance"] is not None:
        values["accepted"] = row["acceptance"]
    return {f"{name}_{c}": value[c] for name, value in values.items() for c in (0, 1)}


def row_lines(
    kind: str, row: Mapping[str, Any], provenance: Mapping[str, Any], file: str, path: Path
) -> list[dict[str, Any]]:
    """The lines of one row of a result file, one per metric. file: its path in the run folder; path: for messages."""
    arm = Arm(row.get("regime", kind), row["generator"], row["selection"], row.get("seed", 0))
    status = row.get("status", "ok")
    line = {"kind": kind, "subset": provenance["subset"], "arm": arm.name, "control": arm.control, **arm._asdict()}
    line |= {name: row.get(name) for name in ("extractor", "reason", "judge", *ROW)} | {"status": status}
    line |= {"arm_version": row.get("version"), "arm_created": row.get("created")}
    line |= {name: provenance[name] for name in PROVENANCE} | dict(zip(("class_0", "class_1"), provenance["classes"]))
    line |= {"subset_size": provenance["n_real"], "study_seed": provenance["seed"]}
    line |= {"processor": provenance.get("processor"), "subsets_by": provenance.get("subsets_by"), "file": file}
    values = row if "seconds" not in row else {**row, "train_seconds": row["seconds"]}
    metrics = [m for m in METRICS[kind] if values.get(m) is not None or m not in OPTIONAL]
    lines = [line | {"metric": m, "value": _number(values[m], m, path) if status == "ok" else None} for m in metrics]
    for centre, found in row.get("centres", {}).items():
        lines += [line | {"centre": centre} | more for more in _of_centre(found, path)]
    return lines


def _of_centre(found: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """Metric, value and status of the lines of one centre, from an entry of `classification.by_centre`."""
    auc, patches = BY_CENTRE
    lines = [{"metric": patches, "value": _number(found["patches"], patches, path)}]
    if found["auc"] is None:
        return [*lines, {"metric": auc, "value": None, "status": NOT_RUN, "reason": ONE_CLASS}]
    return [*lines, {"metric": auc, "value": _number(found["auc"], auc, path)}]


def _number(value: Any, metric: str, path: Path) -> float:
    signed = metric in ("kid", "fid_infinity")  # without bias: below zero where there is no difference
    high = math.inf if metric in _UNBOUNDED or signed else 1
    low = -math.inf if signed else 0
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not low <= value <= high:
        raise StudyError(
            f"{path}: {metric} is {value!r} in a row with status ok, which is not a number in its range. "
            "Run its notebook again."
        )
    return float(value)


def _absent(kind: str, arm: Arm, subset: int, file: str, spaces: list[str | None]) -> list[dict[str, Any]]:
    """The lines of an arm whose result file does not exist; quality once per feature space."""
    line = {"kind": kind, "subset": subset, "arm": arm.name, "control": arm.control, **arm._asdict()}
    line |= {"status": NOT_RUN, "reason": NO_FILE, "file": file}
    lacking = {*LATER, *(("accepted_0", "accepted_1") if arm.selection == "none" else ())}
    metrics = [m for m in METRICS[kind] if m not in lacking]
    spaces = spaces if kind == "quality" else [None]
    return [line | {"extractor": space, "metric": metric} for space in spaces for metric in metrics]


def check(found: pd.DataFrame, run: Path) -> None:
    """Refuse an arm that occurs twice, and lines of different data, profiles, feature spaces or judges."""
    keys = ["kind", "subset", "arm", "extractor", "seed", "centre", "metric"]
    for line in found[found.duplicated(keys)].itertuples():
        first = found[
            (found[keys] == found.loc[line.Index, keys]).drop(columns=["extractor", "centre"]).all(axis=1)
        ].iloc[0]
        raise StudyError(f"{run / line.file} repeats an arm that is already in {run / first['file']}: {line.arm}.")
    for column in ("data_sha", "profile_sha"):
        _agree(found[column], column, found["file"], run)
    quality, selection = (found[found["kind"] == kind] for kind in ("quality", "selection"))
    spaces = quality.groupby("file", sort=False)["extractor"].agg(lambda names: ", ".join(sorted(set(names))))
    _agree(spaces, "quality extractors", spaces.index.to_series(), run)
    for name, lines in quality.groupby("extractor", sort=False):
        _agree(lines["judge"], f"judge {name}", lines["file"], run)
    _agree(selection["extractor"], "selection extractor", selection["file"], run)


def _agree(values: pd.Series, what: str, files: pd.Series, run: Path) -> None:
    """StudyError, naming both files, if not all values are the same."""
    different = values != values.iloc[0] if len(values) else values.astype(bool)
    if different.any():
        at = different.argmax()
        raise StudyError(
            f"{run / files.iloc[at]}: {what} is {values.iloc[at]!r} but {values.iloc[0]!r} in {run / files.iloc[0]}."
            " Results of different scales do not belong in one table: remove the older one or use another runs_dir."
        )
