"""Published runs: the files of book/reference, written by `pcamlib.report.publish`."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pcamlib.core.errors import StudyError, loading_weights
from pcamlib.core.files import project_root, read_json
from pcamlib.results import compact, frame

EXCERPT = "26,000-patch JPEG excerpt of PCam"
JPEG_SLICE = ("27330f0e6e0ded51", "c5af6480e2c8191e")
"""Fingerprints of the excerpt of PCam that the published runs use, whose patches were re-encoded.

The first is of every row; the second, in results published before that, is of 64 rows of each split.
"""


def data_name(results: pd.DataFrame) -> str:
    """What readers call the data of a run: EXCERPT for that excerpt, by its fingerprint, else the name that was
    given."""
    if set(results["data_sha"]) & set(JPEG_SLICE):
        return EXCERPT
    provenance = frame.merged_provenance(results)
    return "procedural patches, no tissue" if provenance["phantom"] else provenance["data"]


class Published(NamedTuple):
    """A published run: its file's name, its results, and by device (`frame.DEVICES`) what `intervals.evaluate` found; a
    device of which no scores were kept is absent."""

    name: str
    results: pd.DataFrame
    intervals: dict[str, dict[str, Any]]

    @property
    def provenance(self) -> dict[str, Any]:
        return frame.merged_provenance(self.results)


def check_published_name(name: str) -> None:
    """StudyError for the name of a run that cannot be that of its files, paths in pages and Markdown alike."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise StudyError(
            f"{name[:60]!r} cannot be the name of a published run, which becomes that of files and stands in pages:"
            " rename the folder or file with letters, digits, '_', '.' and '-'."
        )


def published_folder() -> Path:
    """Where published runs lie."""
    return project_root() / "book" / "reference"


def intervals_file(where: Path, name: str, device: str) -> Path:
    """Where the intervals of a published run lie, by device."""
    return where / "intervals" / f"{name}{'-probe' * (device == 'probe')}.json"


def published_scores(where: Path, name: str, subsets: Container[int] | None = None) -> dict[str, dict[str, np.ndarray]]:
    """The files of test scores of a published run by name, "subset-<k>" or "subset-<k>-probe", in some subsets or all.

    Each has scores float32 (N,) by `Arm.id`, and "labels", uint8 (N,). StudyError for a damaged file, or if labels
    differ.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted((where / "scores" / name).glob("subset-*.npz")):
        subset = re.fullmatch(r"subset-(\d+)(-probe)?", path.stem)
        if not subset or subsets is not None and int(subset[1]) not in subsets:
            continue
        with loading_weights(path, "restore it, or publish the run again"), np.load(path) as file:
            found[path.stem] = {key: file[key] for key in file.files}
        if not np.array_equal(found[path.stem]["labels"], next(iter(found.values()))["labels"]):
            raise StudyError(f"{path} has other labels than the files beside it: restore it, or publish the run again.")
    return found


def published_runs(where: Path | None = None) -> list[Published]:
    """All published runs, the largest first: real before phantom patches, several subsets before one (which has no
    verdicts), then by patches of all subsets together."""
    where = where or published_folder()
    found = []
    for path in sorted(where.glob("*.csv")):
        check_published_name(path.stem)
        beside = {device: intervals_file(where, path.stem, device) for device in frame.DEVICES}
        kept = {device: read_json(file) for device, file in beside.items() if file.exists()}
        found.append(Published(path.stem, compact.read(path), kept))

    def size(run: Published) -> tuple[bool, bool, int, str]:
        patches = run.results.groupby("subset")["subset_size"].max()
        return not run.provenance["phantom"], len(patches) > 1, patches.sum(), run.results["created"].max()

    return sorted(found, key=size, reverse=True)
