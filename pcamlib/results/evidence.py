"""What a claim can be put to: the paper's printed tables, the same as effects to plan with, or the results of a run.

Each source answers the same questions: a contrast (a weighted sum of arms), how often an arm is ahead of others, and
rank correlations. None stands for what it cannot test, and `why` says why.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from pcamlib.core import paper
from pcamlib.core.settings import Profile
from pcamlib.results import frame, power
from pcamlib.results.arms import Arm
from pcamlib.results.inference import Estimate, over_subsets, welch
from pcamlib.results.power import Decidable
from pcamlib.results.rivals import trust

MARGIN = 0.001  # of AUC: a gain below a tenth of a point is called none
DRAWS = 4000  # made-up subsets for the planning of ranks
Weights = dict[Arm, float]
Ranked = tuple[float, list[Weights], str, list[Weights], str]
"""A weight for the rank correlation of contrasts in a metric with other contrasts in another metric."""


class Printed:
    """The paper's tables as evidence. histogan: the variant of its GAN. margin, lead: as in `Measured`."""

    name, histogan = "paper", "published"
    margin, lead = MARGIN, 0.0

    def __init__(self) -> None:
        self.values = {Arm("quality", r.generator, r.selection): r for r in paper.TABLE_1}
        self.values |= {Arm(r.regime, r.generator, r.selection): r for r in paper.TABLE_2}

    def why(self, weights: Weights, metric: str) -> str:
        """Why a contrast, or ranks of arms, cannot be tested."""
        return f"the paper prints no {'values by subset' if self._printed(weights, metric) else 'number for it'}"

    def _printed(self, weights: Weights, metric: str) -> list[tuple[float, float, float]]:
        """(weight, mean, sd) of each arm, fractions, FID as is; empty if one is not printed."""
        rows = {arm: self.values.get(arm) for arm in weights}
        if not all(hasattr(row, metric) for row in rows.values()):
            return []
        unit = 1 if metric == "fid" else 100
        printed = [(w, getattr(rows[arm], metric)) for arm, w in weights.items()]
        return [(w, v.mean / unit, v.sd / unit) for w, v in printed]

    def contrast(self, weights: Weights, metric: str, offset: float = 0.0) -> Estimate | None:
        """Weighted sum of printed means plus offset, by Welch. None if an arm is not printed."""
        printed = self._printed(weights, metric)
        return welch([(1, offset, None), *printed], paper.PROTOCOL.subsets) if printed else None

    def share(self, arm: Arm, rivals: Sequence[Arm], metric: str = "auc", offset: float = 0.0) -> Estimate | None:
        """Without the values of a subset nobody knows which arm was ahead in it."""
        return None

    def ranks(self, *pairs: Ranked, offset: float = 0.0) -> Estimate | None:
        """Printed means have one rank correlation and no spread of it: nothing to test."""
        return None


class Planned(Printed):
    """The paper's tables as effects to plan with: records what each statement needs, and tests nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Decidable] = []
        self.unknown = 0

    def contrast(self, weights: Weights, metric: str, offset: float = 0.0) -> None:
        printed = self._printed(weights, metric)
        if printed:
            self.found.append(power.decidable([(1, offset, 0), *printed]))
        else:
            self.unknown += 1

    def share(self, arm: Arm, rivals: Sequence[Arm], metric: str = "auc", offset: float = 0.0) -> None:
        """From made-up subsets: normal values with the printed means and deviations, arms correlated by one half."""
        printed = np.array(self._printed(dict.fromkeys((arm, *rivals), 1.0), metric))
        rng = np.random.default_rng(0)
        common, own = rng.normal(size=(DRAWS, 1)), rng.normal(size=(DRAWS, len(printed)))
        drawn = printed[:, 1] + printed[:, 2] * (common + own) / 2**0.5
        won = _share(drawn[:, :1] - drawn[:, 1:], self.margin) + offset
        effect, sd = float(won.mean()), float(won.std(ddof=1))
        self.found.append(Decidable(effect, sd, None, power.subsets_needed(effect, sd) if effect > 0 else None))

    def ranks(self, *pairs: Ranked, offset: float = 0.0) -> None:
        self.unknown += 1


def _share(leads: np.ndarray, margin: float) -> np.ndarray:
    """(subsets, rivals) -> (subsets,): share of rivals that are behind, a lead within the margin counted half."""
    return ((leads > margin) + 0.5 * (abs(leads) <= margin)).mean(axis=1)


class Measured:
    """The results of a run as evidence, as one device measured it, `about` their provenance.

    judge: whose quality counts, the first extractor by default. profile: the run's settings, by default found by name
    and fingerprint; they say which `histogan` it trained. margin: the difference of AUC below which two arms count as
    equal. lead: the difference of AUC that a gain must exceed; 0 in every verdict of the study, and a reader's choice
    on the page that recomputes.
    """

    def __init__(
        self,
        results: pd.DataFrame,
        name: str,
        judge: str | None = None,
        profile: Profile | None = None,
        *,
        margin: float = MARGIN,
        lead: float = 0.0,
    ) -> None:
        self.name, self.margin, self.lead = name, margin, lead
        self.about = "nothing was run."
        if results["data"].notna().any():
            self.about = frame.provenance_note(frame.merged_provenance(results))
            profile = profile or frame.profile_of(results)
        self.trust = trust(results)
        self.histogan = getattr(profile.histogan, "variant", "stabilised") if profile else "unknown"
        self.judge = judge or next(iter(frame.extractors(results)), None)
        quality = (frame.of_kind(results, "quality", self.judge), ("fid", "precision", "recall", "label_auc"))
        trained = frame.of_kind(results, "classification")
        self.generated = bool(trained.loc[trained["metric"] == "auc", "generator"].notna().any())
        self.tables = {
            metric: frame.by_subset(lines, metric)
            for lines, metrics in (quality, (trained, ("auc",)))
            for metric in metrics
        }

    def why(self, weights: Weights, metric: str) -> str:
        """Why a contrast, or ranks of arms, cannot be tested: what was not run, or in too few subsets."""
        absent = [arm for arm in weights if arm.name not in self.tables[metric]]
        if not absent:
            return f"{max(len(self.values(weights, metric)), 1)} subset has all of its arms, and two are needed"
        if metric == "auc" and not self.generated:
            return "no classifier was trained with generated patches"
        ran = {arm.generator for arm in weights if arm not in absent}
        names = [paper.GENERATOR_NAMES.get(a.generator, a.name) if a.generator not in ran else a.name for a in absent]
        listed = list(dict.fromkeys(names))
        return f"{' and '.join(listed)} {'was' if len(listed) == 1 else 'were'} not run"

    def values(self, weights: Weights, metric: str) -> pd.Series:
        """The contrast by subset, for those in which all of its arms ran."""
        table, names = self.tables[metric], [arm.name for arm in weights]
        return (table.reindex(columns=names) * list(weights.values())).sum(axis=1, skipna=False).dropna()

    def contrast(self, weights: Weights, metric: str, offset: float = 0.0) -> Estimate | None:
        """Student's t over subsets of the contrast plus offset; None with fewer than two subsets."""
        return over_subsets((self.values(weights, metric) + offset).tolist())

    def share(self, arm: Arm, rivals: Sequence[Arm], metric: str = "auc", offset: float = 0.0) -> Estimate | None:
        """Student's t over subsets of the share of rivals that the arm beats, plus offset; a lead within the margin is
        half."""
        leads = pd.concat([self.values({arm: 1.0, rival: -1.0}, metric) for rival in rivals], axis=1).dropna()
        return over_subsets((_share(leads.to_numpy(), self.margin) + offset).tolist()) if len(leads) else None

    def ranks(self, *pairs: Ranked, offset: float = 0.0) -> Estimate | None:
        """Student's t over subsets of a weighted sum of Spearman's rank correlations of two lists of contrasts, plus
        offset.

        Each pair is (weight, contrasts, their metric, other contrasts, their metric). Subsets in which one is missing
        or all values of a list are equal are left out.
        """
        total = offset
        for weight, contrasts, metric, others, other_metric in pairs:
            a = pd.concat([self.values(w, metric) for w in contrasts], axis=1).dropna()
            b = pd.concat([self.values(w, other_metric) for w in others], axis=1).dropna()
            rhos = {
                k: float(scipy_stats.spearmanr(a.loc[k], b.loc[k]).statistic)
                for k in a.index.intersection(b.index)
                if a.loc[k].nunique() > 1 and b.loc[k].nunique() > 1
            }
            total = total + weight * pd.Series(rhos, dtype="float64")
        return over_subsets(total.dropna().tolist())


Source = Printed | Measured
