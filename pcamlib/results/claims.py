"""The paper's thirteen claims: for each a rule in code, to be put to the paper's own tables or to the results of a run.

A rule is a list of statements "this contrast is positive", where a contrast is a weighted sum of arms. In a run it has
one value per subset, so arms are paired, and is tested by Student's t over subsets. The paper prints a mean and a
deviation over five subsets for every arm and not the pairs, so there it is tested by Welch's t.

One rule turns statements into a verdict. *Supported*: every contrast is positive with p < 0.05; that many have to hold
together makes this strict and needs no correction. *Contradicted*: at least one is negative with p < 0.05 divided by
the number of statements, since one of many would be by chance. Anything else, a statement that cannot be tested
included, is *undecided at this scale*. A claim of absence has a margin, the smallest difference that would matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
from scipy import stats as scipy_stats

from pcamlib.core import paper
from pcamlib.results import frame
from pcamlib.results.arms import ARMS, BASELINE, IMAGE_SETS, MIXED, TRADITIONAL, Arm
from pcamlib.results.inference import Estimate, over_subsets, welch

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided at this scale"
ALPHA = 0.05
COLLAPSED = 0.01  # recall below this is called zero: one real patch in a hundred
MARGIN = 0.001  # of AUC: a gain below a tenth of a point is called none
WEAK = 0.5  # a rank correlation below it is called none: under a quarter of the ranks' variance
Weights = dict[Arm, float]
Ranked = tuple[float, list[Weights], str, list[Weights], str]
"""A weight for the rank correlation of contrasts in a metric with other contrasts in another metric."""


class Statement(NamedTuple):
    """What should be positive if the claim holds, and what was found (None: it cannot be tested, `missing` says why)."""

    text: str
    found: Estimate | None
    missing: str = ""


class Printed:
    """The paper's tables as evidence."""

    name, word = "paper", "the paper prints no number for it"

    def __init__(self) -> None:
        self.values = {Arm("quality", r.generator, r.selection): r for r in paper.TABLE_1}
        self.values |= {Arm(r.regime, r.generator, r.selection): r for r in paper.TABLE_2}

    def contrast(self, weights: Weights, metric: str, offset: float = 0.0) -> Estimate | None:
        """Weighted sum of printed means plus offset, by Welch; fractions, FID as is. None if an arm is not printed."""
        rows = {arm: self.values.get(arm) for arm in weights}
        if not all(hasattr(row, metric) for row in rows.values()):
            return None
        unit = 1 if metric == "fid" else 100
        printed = [(w, getattr(rows[arm], metric)) for arm, w in weights.items()]
        return welch([(1, offset, 0), *((w, v.mean / unit, v.sd / unit) for w, v in printed)], paper.PROTOCOL.subsets)

    def ranks(self, *pairs: Ranked, offset: float = 0.0) -> Estimate | None:
        """Printed means have one rank correlation and no spread of it: nothing to test."""
        return None


class Measured:
    """The results of a run as evidence, `about` their provenance. judge: whose quality counts, the first extractor by default."""

    word = "an arm was not run, or in one subset only"

    def __init__(self, results: pd.DataFrame, name: str, judge: str | None = None) -> None:
        self.name = name
        self.about = "nothing was run."
        if results["data"].notna().any():
            self.about = frame.provenance_note(frame.merged_provenance(results))
        self.judge = judge or next(iter(frame.extractors(results)), None)
        quality = (frame.of_kind(results, "quality", self.judge), ("fid", "precision", "recall", "label_auc"))
        self.tables = {
            metric: frame.by_subset(lines, metric)
            for lines, metrics in (quality, (frame.of_kind(results, "classification"), ("auc",)))
            for metric in metrics
        }

    def values(self, weights: Weights, metric: str) -> pd.Series:
        """The contrast by subset, for those in which all of its arms ran."""
        table, names = self.tables[metric], [arm.name for arm in weights]
        return (table.reindex(columns=names) * list(weights.values())).sum(axis=1, skipna=False).dropna()

    def contrast(self, weights: Weights, metric: str, offset: float = 0.0) -> Estimate | None:
        """Student's t over subsets of the contrast plus offset; None with fewer than two subsets."""
        return over_subsets((self.values(weights, metric) + offset).tolist())

    def ranks(self, *pairs: Ranked, offset: float = 0.0) -> Estimate | None:
        """Student's t over subsets of a weighted sum of Spearman's rank correlations of two lists of contrasts, plus offset.

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


def judged(statements: Sequence[Statement]) -> str:
    """The verdict on "all of these are positive" (see the module)."""
    tested = [s.found for s in statements if s.found]
    if any(e.mean < 0 and e.p < ALPHA / len(tested) for e in tested):
        return CONTRADICTED
    all_positive = all(s.found and s.found.mean > 0 and s.found.p < ALPHA for s in statements)
    return SUPPORTED if all_positive else UNDECIDED


def joined(verdicts: Sequence[str]) -> str:
    """The verdict on several claims held together."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if set(verdicts) == {SUPPORTED} else UNDECIDED


def negated(verdict: str) -> str:
    """The verdict on the opposite."""
    return {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED}.get(verdict, UNDECIDED)


# ------------------------------------------------------------------------------------------------ the rules

Found = tuple[str, list[Statement]]
Rule = Callable[[Source], Found]
G, NAMES = paper.GENERATORS, paper.GENERATOR_NAMES
BETTER = {"fid": -1, "precision": 1, "recall": 1}
"""The metrics of Table 1 that claims speak of, and which way is better."""


def _less(a: Arm, b: Arm, sign: float = 1) -> Weights:
    return {a: sign, b: -sign}


def _mean(arms: Sequence[Arm], sign: float = 1) -> Weights:
    return {arm: sign / len(arms) for arm in arms}


def _state(source: Source, text: str, weights: Weights, metric: str, offset: float = 0.0) -> Statement:
    return Statement(text, source.contrast(weights, metric, offset), source.word)


def _all(statements: list[Statement]) -> Found:
    return judged(statements), statements


def _beats(source: Source, a: str, b: str) -> list[Statement]:
    """Generator a beats b, without selection, on every metric of BETTER."""
    words = {"fid": "FID of {b} − {a}", "precision": "precision of {a} − {b}", "recall": "recall of {a} − {b}"}
    arms = Arm("quality", a, "none"), Arm("quality", b, "none")
    return [
        _state(source, words[m].format(a=NAMES[a], b=NAMES[b]), _less(*arms, sign), m) for m, sign in BETTER.items()
    ]


def rule_1(source: Source) -> Found:
    """U-Net and DiT each beat HistoGAN on FID, precision and recall, without selection."""
    return _all(_beats(source, "unet", "histogan") + _beats(source, "dit", "histogan"))


def rule_2(source: Source) -> Found:
    """HistoGAN's recall without selection is below 1 %."""
    return _all(
        [_state(source, "1 % − recall of HistoGAN", {Arm("quality", "histogan", "none"): -1.0}, "recall", COLLAPSED)]
    )


def rule_3(source: Source) -> Found:
    """DiT beats U-Net on FID, precision and recall, without selection."""
    return _all(_beats(source, "dit", "unet"))


def rule_4(source: Source) -> Found:
    """Either selection raises FID and lowers precision, for each generator."""
    found = []
    for m in ("fid", "precision"):
        for g, s in IMAGE_SETS:
            if s != "none":
                text = f"{NAMES[g]}, {paper.SELECTION_NAMES[s]}: " + (
                    "rise of FID" if m == "fid" else "fall of precision"
                )
                found.append(
                    _state(source, text, _less(Arm("quality", g, s), Arm("quality", g, "none"), -BETTER[m]), m)
                )  # fmt: skip
    return _all(found)


def rule_5(source: Source) -> Found:
    """Each of the U-Net's six mixed arms beats baseline and traditional; for HistoGAN and for DiT the same is contradicted."""
    verdicts, found = [], []
    for g in ("unet", "histogan", "dit"):
        arms = [Arm(r, g, s) for r in MIXED for s in paper.SELECTIONS]
        lines = [
            _state(source, f"AUC of {arm.title} − {reference.name}", _less(arm, reference), "auc")
            for arm in arms
            for reference in (BASELINE, TRADITIONAL)
        ]
        verdicts.append(judged(lines) if g == "unet" else negated(judged(lines)))
        found += lines
    return joined(verdicts), found


def rule_6(source: Source) -> Found:
    """Averaged over selections, transfer beats augmentation for U-Net and DiT, and loses to it for HistoGAN."""
    found = []
    for g in G:
        a, b = ("augmentation", "transfer") if g == "histogan" else ("transfer", "augmentation")
        weights = _mean([Arm(a, g, s) for s in paper.SELECTIONS]) | _mean([Arm(b, g, s) for s in paper.SELECTIONS], -1)
        found.append(_state(source, f"{NAMES[g]}: AUC of {a} − {b}", weights, "auc"))
    return _all(found)


def rule_7(source: Source) -> Found:
    """DiT beats U-Net, and U-Net beats HistoGAN: in FID without selection, and in AUC of synthetic-only training averaged
    over selections."""
    found = []
    for a, b in (("dit", "unet"), ("unet", "histogan")):
        better = _less(Arm("quality", a, "none"), Arm("quality", b, "none"), BETTER["fid"])
        found.append(_state(source, f"FID of {NAMES[b]} − {NAMES[a]}", better, "fid"))
        arms = [[Arm("synthetic", g, s) for s in paper.SELECTIONS] for g in (a, b)]
        found.append(
            _state(
                source, f"synthetic only: AUC of {NAMES[a]} − {NAMES[b]}", _mean(arms[0]) | _mean(arms[1], -1), "auc"
            )
        )
    return _all(found)


def rule_8(source: Source) -> Found:
    """Realism selection raises the AUC of HistoGAN's and U-Net's mixed arms; that of DiT's by less than 0.1 points."""
    found = []
    for g in G:
        arms = [[Arm(r, g, s) for r in MIXED] for s in ("realism", "none")]
        sign = -1 if g == "dit" else 1
        text = f"{'0.1 points − ' * (g == 'dit')}gain in AUC of {NAMES[g]} by realism selection"
        weights = _mean(arms[0], sign) | _mean(arms[1], -sign)
        found.append(_state(source, text, weights, "auc", MARGIN if g == "dit" else 0.0))
    return _all(found)


def rule_9(source: Source) -> Found:
    """For each generator the arm that the paper names beats its five other mixed arms."""
    best = {
        "histogan": Arm("augmentation", "histogan", "realism"),
        "unet": Arm("transfer", "unet", "realism"),
        "dit": Arm("transfer", "dit", "none"),
    }
    others = [(best[g], Arm(r, g, s)) for g in G for r in MIXED for s in paper.SELECTIONS if Arm(r, g, s) != best[g]]
    return _all([_state(source, f"AUC of {a.title} − {b.title}", _less(a, b), "auc") for a, b in others])


def rule_10(source: Source) -> Found:
    """Over the nine image sets, the rank correlation of quality (−FID) with AUC is positive alone, larger than when mixed,
    and below 0.5 when mixed."""
    quality: list[Weights] = [{Arm("quality", g, s): -1.0} for g, s in IMAGE_SETS]
    alone: list[Weights] = [{Arm("synthetic", g, s): 1.0} for g, s in IMAGE_SETS]
    mixed = [_mean([Arm(r, g, s) for r in MIXED]) for g, s in IMAGE_SETS]
    first, second = (1.0, quality, "fid", alone, "auc"), (-1.0, quality, "fid", mixed, "auc")
    return _all(
        [
            Statement("rank correlation with AUC alone", source.ranks(first), source.word),
            Statement("that − rank correlation with AUC mixed", source.ranks(first, second), source.word),
            Statement(f"{WEAK} − rank correlation with AUC mixed", source.ranks(second, offset=WEAK), source.word),
        ]
    )


def rule_11(source: Source) -> Found:
    """U-Net transfer with realism beats both references and the seventeen other mixed arms."""
    best = Arm("transfer", "unet", "realism")
    others = [BASELINE, TRADITIONAL, *(arm for arm in ARMS if arm.regime in MIXED and arm != best)]
    return _all([_state(source, f"AUC of {best.title} − {b.title}", _less(best, b), "auc") for b in others])


def rule_12(source: Source) -> Found:
    """Over the nine image sets, the rank correlation of the AUC of synthetic-only training with that of transfer is positive."""
    alone, transfer = ([{Arm(r, g, s): 1.0} for g, s in IMAGE_SETS] for r in ("synthetic", "transfer"))
    found = source.ranks((1.0, alone, "auc", transfer, "auc"))
    return _all([Statement("rank correlation of synthetic only with transfer", found, source.word)])


def rule_13(source: Source) -> Found:
    """For each generator the judge, a classifier of real patches standing in for the unknown true label, agrees better
    with the labels of the class-based set than with those of the unselected one (label AUC)."""
    return _all(
        [
            _state(
                source,
                f"{NAMES[g]}: rise of label AUC",
                _less(Arm("quality", g, "class"), Arm("quality", g, "none")),
                "label_auc",
            )
            for g in G
        ]
    )


RULES: tuple[Rule, ...] = (
    rule_1, rule_2, rule_3, rule_4, rule_5, rule_6, rule_7, rule_8, rule_9, rule_10, rule_11, rule_12, rule_13,
)  # fmt: skip
"""The rules in the order of `paper.CLAIMS`; a docstring says what its rule asks."""
