"""What a run could have shown: components of variance and the smallest detectable effect of each of its arms."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from pcamlib.core import paper
from pcamlib.results import power
from pcamlib.results.arms import MIXED, TRADITIONAL, Arm

Scores = dict[Arm, dict[int, list[np.ndarray]]]
"""Test scores float32 (N,) by arm and subset, one array per classifier seed."""
LEAD = 0.0055
"""The paper's largest gain of AUC over traditional augmentation (U-Net, transfer, realism), as a fraction."""
ARMS_TESTED = len([row for row in paper.TABLE_2 if row.generator])


def power_table(
    labels: np.ndarray, scores: Scores, groups: np.ndarray | None = None, against: Arm = TRADITIONAL
) -> pd.DataFrame:
    """Power of a run, a line per arm that uses synthetic images with real ones, against a reference; AUC in fractions.

    Columns: "subsets" and "seeds" that both have (the fewest seeds of a subset); "mean" difference; "subset", "seed",
    "patch_subset" and "patch", the standard deviations of `power.variance_components` (of one subset, one seed, and
    one test set of this size; "seed" is NaN with one seed); "sd" of one subset's difference; "detectable", the
    smallest effect that these subsets show with 80 % power at 5 %, on this test set; "detectable_all", the same with
    Bonferroni's correction for the paper's eighteen arms; "new_patches", as "detectable" for other test patches too;
    "needed", subsets for the paper's lead (LEAD), NaN where no number would do. Arms with fewer than two common
    subsets are left out.
    """
    lines = {}
    for arm, by_subset in scores.items():
        common = sorted(set(by_subset) & set(scores.get(against, {})))
        if arm.regime not in MIXED or len(common) < 2:
            continue
        seeds = min(len(side[k]) for side in (by_subset, scores[against]) for k in common)
        ours, theirs = (np.array([side[k][:seeds] for k in common]) for side in (by_subset, scores[against]))
        c = power.variance_components(labels, ours, theirs, groups=groups)
        k, plan = len(common), (seeds, c.n, c.m, c.rho)
        single = math.sqrt(power.variance_of_mean(c, 1, *plan, new_patches=False))
        new = math.sqrt(power.variance_of_mean(c, k, *plan))
        shared = c.patch * max(1 + (c.m - 1) * c.rho, 0) / c.n
        error = single / math.sqrt(k)
        lines[arm.name] = {
            "subsets": k, "seeds": seeds, "mean": c.mean,
            "subset": math.sqrt(c.subset), "seed": math.nan if c.seed is None else math.sqrt(c.seed),
            "patch_subset": math.sqrt(c.patch_subset), "patch": math.sqrt(shared), "sd": single,
            "detectable": power.minimum_detectable_effect(error, k - 1),
            "detectable_all": power.minimum_detectable_effect(error, k - 1, tests=ARMS_TESTED),
            "new_patches": power.minimum_detectable_effect(new, power.freedom(c, k, *plan)) if new else 0.0,
            "needed": power.subsets_needed(LEAD, single) or math.nan,
        }  # fmt: skip
    columns = ["subsets", "seeds", "mean", "subset", "seed", "patch_subset", "patch", "sd"]
    columns += ["detectable", "detectable_all", "new_patches", "needed"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns, dtype="float64")
