"""The arms of a study: what they are called, and their order in Table 2."""

from __future__ import annotations

from pcamlib.core import paper
from pcamlib.results.frame import Arm


def arm_name(arm: Arm) -> str:
    """What a reader would call an arm, e.g. "U-Net transfer (realism)"."""
    regime, generator, selection = arm
    if generator is None:
        return paper.REGIME_NAMES[regime]
    name = f"{paper.GENERATOR_NAMES[generator]} {paper.REGIME_NAMES[regime]}"
    return f"{name} ({paper.SELECTION_NAMES[selection]})"


def all_arms() -> list[Arm]:
    """All 29 arms of the paper and the controls, in Table 2's order."""
    arms = [(row.regime, row.generator, row.selection) for row in paper.TABLE_2]
    arms += [("synthetic", g, selection) for selection in paper.SELECTIONS for g in paper.GENERATORS]
    return arms + [(regime, None, None) for regime in paper.CONTROLS]
