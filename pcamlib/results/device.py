"""Whether the classifiers of a subset can measure anything: they must beat the best trivial baseline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pcamlib.core import paper


class Device(NamedTuple):
    """Test AUC, 0 to 1, of the traditional arm (mean over its seeds) beside the best trivial baseline, by its
    regime."""

    auc: float
    rival: str
    rival_auc: float

    @property
    def measures(self) -> bool:
        """Whether the device is above the best trivial baseline."""
        return self.auc > self.rival_auc


def device(rows: Iterable[dict[str, Any]]) -> Device | None:
    """The device of one subset, from the rows of its classification-real.json or of its probes and baselines.

    None if the traditional arm or every baseline is missing: then nothing can be said.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["status"] == "ok" and row["regime"] in ("traditional", *paper.TRIVIAL):
            found.setdefault(row["regime"], []).append(row["auc"])
    means = {regime: sum(values) / len(values) for regime, values in found.items()}
    ours = means.pop("traditional", None)
    if ours is None or not means:
        return None
    rival = max(means, key=means.__getitem__)
    return Device(ours, rival, means[rival])
