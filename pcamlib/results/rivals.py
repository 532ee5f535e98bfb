"""What an arm must beat before a gain counts, and which arm is looked at: the device, the controls, the choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pcamlib.core import paper
from pcamlib.results import frame
from pcamlib.results.arms import AGAIN, TRADITIONAL, TWICE, Arm
from pcamlib.results.device import Device, device
from pcamlib.results.nested import chosen_then_reported


class Trust(NamedTuple):
    """Whether a run's classifiers can measure anything: `measures` is None where that is unknown, `sentence` says why.
    `device`: the means behind it; `often`: in how many subsets it measures."""

    measures: bool | None
    sentence: str
    device: Device | None = None
    often: str = ""


def trust(results: pd.DataFrame) -> Trust:
    """Whether traditional augmentation beats the best trivial baseline (`paper.TRIVIAL`) in mean AUC over common
    subsets.

    results: of one device. Where it does not, or where it is unknown, differences between arms have no verdict.
    """
    values = frame.by_subset(results, "auc")
    trivial = [regime for regime in paper.TRIVIAL if regime in values]
    if not trivial:
        return Trust(None, "No trivial baseline was run")
    if TRADITIONAL.name not in values:
        return Trust(None, "Traditional augmentation was not run")
    common = values[[TRADITIONAL.name, *trivial]].dropna()
    found = [_device(line) for _, line in common.iterrows()]
    whole = _device(common.mean()) if found else None
    if whole is None:
        return Trust(None, "No subset has both traditional augmentation and the trivial baselines")
    ahead = sum(d.measures for d in found)
    often = f"above in {ahead} of {len(found)} subset{'s' * (len(found) != 1)}"
    return Trust(
        whole.measures,
        f"Traditional augmentation reaches AUC {100 * whole.auc:.2f} %, {'above' if whole.measures else 'not above'}"
        f" the best trivial baseline ({paper.REGIME_NAMES[whole.rival].lower()}, {100 * whole.rival_auc:.2f} %),"
        f" {often}",
        whole,
        often,
    )


def _device(line: pd.Series):  # noqa: ANN202
    return device({"status": "ok", "regime": regime, "auc": value} for regime, value in line.items())


def step_controls(results: pd.DataFrame) -> list[Arm]:
    """The controls that an arm with synthetic images must beat: real images only, for as many steps, in one or two
    stages.

    A probe has no steps, so that traditional augmentation is its control of equal steps. Only those that ran.
    """
    ran = frame.by_subset(results, "auc")
    return [arm for arm in (TRADITIONAL if frame.is_probe(results) else TWICE, AGAIN) if arm.name in ran]


def stronger_control(results: pd.DataFrame) -> Arm | None:
    """The step control with the higher mean AUC over the subsets in which both ran; None if neither ran."""
    arms = step_controls(results)
    if len(arms) < 2:
        return arms[0] if arms else None
    values = frame.by_subset(results, "auc")[[arm.name for arm in arms]].dropna()
    return max(arms, key=lambda arm: values[arm.name].mean()) if len(values) else arms[0]


class Choice(NamedTuple):
    """An arm chosen on validation. `values`: its difference on test to the reference, one per subset (fractions).
    `arms`: the arms chosen with how often, most often first. `by`: what chose, "seed" or "subset" (see
    `chosen_then_reported`)."""

    values: list[float]
    arms: list[tuple[Arm, int]]
    by: str


def choice(results: pd.DataFrame, arms: Sequence[Arm], against: Arm) -> Choice | None:
    """The best of `arms` by validation AUC, reported on test by networks that had no part in choosing it.

    Where all of them have several seeds, each seed chooses in turn and the others report. Else the other subsets choose
    for each subset. None if that needs more subsets than there are, or if no arm or `against` ran in all of them.
    """
    lines = frame.of_kind(results, "classification")
    tables = [
        lines[lines["metric"] == metric].pivot(index=["arm", "subset"], columns="seed", values="value")
        for metric in ("valid_auc", "auc")
    ]
    reference = frame.by_subset(results, "auc").get(against.name)
    subsets = sorted(results["subset"].unique())
    if reference is None or reference.reindex(subsets).isna().any():
        return None
    whole = tables[1].notna().any(axis=1)
    there = [arm for arm in arms if all(whole.get((arm.name, k), False) for k in subsets)]
    if not there:
        return None
    index = pd.MultiIndex.from_product([[arm.name for arm in there], subsets])
    valid, test = (table.reindex(index) for table in tables)
    seeds = valid.notna().all(axis=0) & test.notna().all(axis=0)
    if seeds.sum() > 1:
        by, parts = "seed", [table.loc[:, seeds].to_numpy() for table in (valid, test)]
    elif len(subsets) > 1:
        by, parts = "subset", [table.mean(axis=1).to_numpy() for table in (valid, test)]
    else:
        return None
    valid_values, test_values = (part.reshape(len(there), len(subsets), -1) for part in parts)
    values, chosen = chosen_then_reported(
        valid_values, test_values - reference.reindex(subsets).to_numpy()[None, :, None], by=by
    )
    counted = Counter(there[i] for i in chosen).most_common()
    return Choice([float(v) for v in np.asarray(values)], counted, by)
