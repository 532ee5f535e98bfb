"""Published runs: the files of book/reference, written by `pcamlib.report.publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pcamlib.core.files import project_root, read_json
from pcamlib.results import frame


class Published(NamedTuple):
    """A published run: its file's name, its results, and what `inference.evaluate` found (None: no scores were kept)."""

    name: str
    results: pd.DataFrame
    bootstrap: dict[str, Any] | None

    @property
    def provenance(self) -> dict[str, Any]:
        return frame.merged_provenance(self.results)


def published_folder() -> Path:
    """Where published runs lie."""
    return project_root() / "book" / "reference"


def published_runs(where: Path | None = None) -> list[Published]:
    """All published runs, the largest first: real before phantom patches, several subsets before one (which has no
    verdicts), then by patches of all subsets together."""
    where = where or published_folder()
    found = []
    for path in sorted(where.glob("*.csv")):
        beside = where / "bootstrap" / f"{path.stem}.json"
        found.append(Published(path.stem, frame.read(path), read_json(beside) if beside.exists() else None))

    def size(run: Published) -> tuple[bool, bool, int, str]:
        patches = run.results.groupby("subset")["subset_size"].max()
        return not run.provenance["phantom"], len(patches) > 1, patches.sum(), run.results["created"].max()

    return sorted(found, key=size, reverse=True)
