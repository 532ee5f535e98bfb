"""The few differences that answer the question: each use of each generator, and twice the real patches, minus the
control.

The control is the stronger step control (`rivals.stronger_control`): real patches only, for as many steps. Every
difference has one value per subset and is tested by Student's t over subsets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from pcamlib.core import paper
from pcamlib.results import frame, rivals
from pcamlib.results.arms import MIXED, TRADITIONAL, Arm, generators_of
from pcamlib.results.inference import LEVEL, Estimate, over_subsets

DOUBLE = Arm("double-real")


class Difference(NamedTuple):
    """A row of the headline: `generator` is None for arms on real patches; `values`, one per subset, are fractions of
    AUC. `test` is None with fewer than two subsets."""

    title: str
    generator: str | None
    values: list[float]
    test: Estimate | None

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))


def differences(results: pd.DataFrame) -> list[Difference]:
    """Twice the real patches, traditional augmentation, and each generator by each use, averaged over its selections;
    minus the stronger step control.

    results: of one device. Only what ran in some subset together with the control; empty without a control.
    """
    control, values = rivals.stronger_control(results), frame.by_subset(results, "auc")
    if control is None:
        return []
    rows = [(DOUBLE.title, None, [DOUBLE]), (TRADITIONAL.title, None, [TRADITIONAL])]
    for generator in generators_of(results):
        for regime in MIXED:
            arms = [Arm(regime, generator, selection) for selection in paper.SELECTIONS]
            there = [arm for arm in arms if arm.name in values]
            if there:
                title = f"{paper.generator_name(generator)} {paper.REGIME_NAMES[regime]}"
                rows.append((title, generator, there))
    found = []
    for title, generator, arms in rows:
        if control in arms or any(arm.name not in values for arm in arms):
            continue
        mean = values[[arm.name for arm in arms]].mean(axis=1, skipna=False)
        each = (mean - values[control.name]).dropna().tolist()
        if each:
            found.append(Difference(title, generator, each, over_subsets(each)))
    return found


class Rate(NamedTuple):
    """How many real patches one generated patch is worth. `low`, `high`: the 95 % interval, infinite where none can be
    given."""

    value: float
    low: float
    high: float


def exchange_rate(synthetic: Sequence[float], real: Sequence[float]) -> Rate | None:
    """The gain by as many generated patches divided by the gain by as many further real ones, with Fieller's interval.

    synthetic, real: gains over the control, one per subset and paired. The interval holds every rate r for which the
    mean of synthetic − r × real is not told from zero by a t test. It is a bounded one only where the gain by real
    patches is itself told from zero; elsewhere both ends are infinite. None with fewer than two subsets, or where real
    patches gain nothing.
    """
    a, d = np.asarray(synthetic, float), np.asarray(real, float)
    if a.shape != d.shape or a.ndim != 1:
        raise ValueError(f"one gain per subset is needed on both sides, got {a.shape} and {d.shape}")
    n = len(a)
    if n < 2 or d.mean() <= 0:
        return None
    t2 = scipy_stats.t.ppf((1 + LEVEL) / 2, n - 1) ** 2 / n
    (aa, ad), (_, dd) = np.cov(a, d, ddof=1)
    # (mean a - r mean d)^2 <= t2 (aa - 2 r ad + r^2 dd), a quadratic in r
    two, one, zero = d.mean() ** 2 - t2 * dd, -2 * (a.mean() * d.mean() - t2 * ad), a.mean() ** 2 - t2 * aa
    value = float(a.mean() / d.mean())
    if two <= 0:
        return Rate(value, -math.inf, math.inf)
    half = math.sqrt(max(one**2 - 4 * two * zero, 0.0))
    return Rate(value, float((-one - half) / (2 * two)), float((-one + half) / (2 * two)))


def exchange_rates(results: pd.DataFrame) -> dict[str, Rate]:
    """By generator, the exchange rate of its patches used as augmentation, averaged over its selections
    (`exchange_rate`).

    Only over the subsets that have the control, twice the real patches and the generator; empty without them.
    """
    control, values = rivals.stronger_control(results), frame.by_subset(results, "auc")
    if control is None or DOUBLE.name not in values:
        return {}
    found = {}
    for generator in generators_of(results):
        names = [name for s in paper.SELECTIONS if (name := Arm("augmentation", generator, s).name) in values]
        if names:
            mean = values[names].mean(axis=1, skipna=False)
            gains = pd.concat(
                [mean - values[control.name], values[DOUBLE.name] - values[control.name]], axis=1
            ).dropna()
            rate = exchange_rate(gains[0].tolist(), gains[1].tolist())
            if rate:
                found[generator] = rate
    return found
