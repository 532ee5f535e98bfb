"""Published runs: the files of book/reference, written by `pcamlib.report.publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pcamlib.core.files import project_root, read_json
from pcamlib.results import frame
from pcamlib.results.frame import Row


class Published(NamedTuple):
    """A published run: its file's name, its rows, and what `inference.evaluate` found (None: no scores were kept)."""

    name: str
    rows: list[Row]
    bootstrap: dict[str, Any] | None

    @property
    def provenance(self) -> Row:
        return frame.merged_provenance(self.rows)


def published_folder() -> Path:
    """Where published runs lie."""
    return project_root() / "book" / "reference"


def published_runs(where: Path | None = None) -> list[Published]:
    """All published runs, the largest first: real before phantom patches, several subsets before one (which has no
    verdicts), then by patches of all subsets together."""
    where = where or published_folder()
    found = []
    for path in sorted(where.glob("*.json")):
        beside = where / "bootstrap" / path.name
        found.append(Published(path.stem, read_json(path), read_json(beside) if beside.exists() else None))

    def size(run: Published) -> tuple[bool, bool, int, str]:
        patches = {row["subset"]: row["provenance"]["n_real"] for row in run.rows}
        newest = max(row["provenance"]["created"] for row in run.rows)
        return not run.provenance["phantom"], len(patches) > 1, sum(patches.values()), newest

    return sorted(found, key=size, reverse=True)
