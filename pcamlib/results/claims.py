"""The paper's thirteen claims: for each a rule in code, to be put to the paper's own tables or to the results of a run.

A rule is a list of statements "this contrast is positive", where a contrast is a weighted sum of arms. In a run it has
one value per subset, so arms are paired, and is tested by Student's t over subsets. The paper prints a mean and a
deviation over five subsets for every arm and not the pairs, so there it is tested by Welch's t.

One rule turns statements into a verdict. *Supported*: every contrast is positive with p < 0.05; that many have to hold
together makes this strict and needs no correction. *Contradicted*: at least one is negative with p < 0.05 divided by
the number of statements, since one of many would be by chance. *Not testable here*: a statement lacks its arms, the
generator is another one than the paper's, or too few subsets were run. Anything else is *undecided*. A claim of absence
has a margin, the smallest difference that would matter. Claims about classifiers have no verdict where the device that
measured them does not beat the best trivial baseline (`rivals.trust`).

`needed` plans: how many subsets show each statement, if its effect is as large as the paper prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pcamlib.core import paper
from pcamlib.results.arms import ARMS, BASELINE, IMAGE_SETS, MIXED, TRADITIONAL, Arm
from pcamlib.results.evidence import Measured, Planned, Printed, Ranked, Source, Weights
from pcamlib.results.inference import Estimate

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
UNTESTABLE, NO_VERDICT = "not testable here", "no verdict"
ALPHA = 0.05
COLLAPSED = 0.01  # recall below this is called zero: one real patch in a hundred
WEAK = 0.5  # a rank correlation below it is called none: under a quarter of the ranks' variance
TOP = 2 / 3  # an arm that is called the best beats this share of the others at least; a lead below MARGIN is half a win


class Statement(NamedTuple):
    """What should be positive if the claim holds, and what was found (None: it cannot be tested, `missing` says why).

    `asked`: the question that was put to the source, in kinds of JSON; arms by `Arm.name`. "kind" is one of

    - "contrast": a weighted sum ("weights", by arm) of a "metric", plus "offset"; with "absence" the margin takes the
      place of the offset, and otherwise an AUC must exceed the lead (see `evidence.Measured`),
    - "share": the share of "rivals" whose AUC is behind that of "arm", plus "offset",
    - "ranks": the sum over "pairs" of "weight" times the rank correlation of two lists of contrasts, plus "offset".
    """

    text: str
    found: Estimate | None
    missing: str = ""
    asked: dict[str, Any] | None = None


class Part(NamedTuple):
    """Statements of which all should be positive (`every`), or not all."""

    every: bool
    statements: list[Statement]


class Verdict(NamedTuple):
    """The verdict on a claim, the statements behind it, and for UNTESTABLE and NO_VERDICT the reason.

    `parts`: the same statements as the rule takes them together. `barred`: why the rule as a whole cannot be put to
    this source, if so.
    """

    word: str
    statements: list[Statement]
    because: str = ""
    parts: tuple[Part, ...] = ()
    barred: str = ""

    @property
    def text(self) -> str:
        """Word and reason, for example "not testable here because HistoGAN was not run"."""
        if not self.because:
            return self.word
        return f"{self.word}: {self.because}" if self.word == NO_VERDICT else f"{self.word} because {self.because}"


def judged(statements: Sequence[Statement], alpha: float = ALPHA) -> Verdict:
    """The verdict on "all of these are positive" (see the module)."""
    statements = list(statements)
    parts = (Part(True, statements),)
    tested = [s.found for s in statements if s.found]
    if any(e.mean < 0 and e.p < alpha / len(tested) for e in tested):
        return Verdict(CONTRADICTED, statements, parts=parts)
    if missing := list(dict.fromkeys(s.missing for s in statements if s.found is None)):
        return Verdict(UNTESTABLE, statements, "; ".join(missing), parts)
    all_positive = all(e.mean > 0 and e.p < alpha for e in tested)
    return Verdict(SUPPORTED if all_positive else UNDECIDED, statements, parts=parts)


def not_all_positive(statements: Sequence[Statement], alpha: float = ALPHA) -> Verdict:
    """The verdict on "not all of these are positive", a claim of a counterexample: one mean that is not above zero will
    do.

    Contradicted if all are positive with p < alpha, undecided if all means are positive but not surely so.
    """
    found = judged(statements, alpha)
    found = found._replace(parts=(Part(False, found.statements),))
    if any(s.found and s.found.mean <= 0 for s in statements):
        return found._replace(word=SUPPORTED, because="")
    return found._replace(word=CONTRADICTED) if found.word == SUPPORTED else found


def joined(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on several claims held together."""
    statements = [s for v in verdicts for s in v.statements]
    parts = tuple(part for v in verdicts for part in v.parts)
    for word in (CONTRADICTED, UNTESTABLE, UNDECIDED):
        because = [v.because for v in verdicts if v.word == word]
        if because:
            return Verdict(word, statements, "; ".join(dict.fromkeys(filter(None, because))), parts)
    return Verdict(SUPPORTED, statements, parts=parts)


def at_level(found: Verdict, alpha: float) -> Verdict:
    """The verdict that a rule gives from the same estimates with `alpha` in the place of ALPHA."""
    again = joined([(judged if part.every else not_all_positive)(part.statements, alpha) for part in found.parts])
    return _barred(again, found.barred) if found.barred else again


def _barred(found: Verdict, why: str) -> Verdict:
    return found._replace(word=UNTESTABLE, because=why, barred=why)


def verdict(rule: Rule, source: Source) -> Verdict:
    """A rule's verdict; NO_VERDICT on classifiers of a run whose device measures nothing, or where nobody knows."""
    found = rule(source)
    if isinstance(source, Measured) and rule in OF_CLASSIFIERS and not source.trust.measures:
        return found._replace(word=NO_VERDICT, because=source.trust.sentence)
    return found


def needed(rule: Rule) -> Planned:
    """What each statement of a rule needs at the paper's printed effects; `unknown` counts those it prints no number
    for."""
    plan = Planned()
    rule(plan)
    return plan


# ------------------------------------------------------------------------------------------------ the rules

Rule = Callable[[Source], Verdict]
G, NAMES = paper.GENERATORS, paper.GENERATOR_NAMES
BETTER = {"fid": -1, "precision": 1, "recall": 1}
"""The metrics of Table 1 that claims speak of, and which way is better."""


def _less(a: Arm, b: Arm, sign: float = 1) -> Weights:
    return {a: sign, b: -sign}


def _mean(arms: Sequence[Arm], sign: float = 1) -> Weights:
    return {arm: sign / len(arms) for arm in arms}


def _named(weights: Weights) -> dict[str, float]:
    return {arm.name: weight for arm, weight in weights.items()}


def _state(
    source: Source, text: str, weights: Weights, metric: str, offset: float = 0.0, *, absence: bool = False
) -> Statement:
    asked = {"kind": "contrast", "weights": _named(weights), "metric": metric, "offset": offset, "absence": absence}
    offset = source.margin if absence else offset - source.lead * (metric == "auc")
    return Statement(text, source.contrast(weights, metric, offset), source.why(weights, metric), asked)


def _best(source: Source, arm: Arm, rivals: Sequence[Arm]) -> Statement:
    """That an arm beats more than TOP of its rivals, on average over subsets."""
    why = source.why(dict.fromkeys((arm, *rivals), 1.0), "auc")
    text = f"share of {len(rivals)} others that {arm.title} beats − 2/3"
    asked = {"kind": "share", "arm": arm.name, "rivals": [rival.name for rival in rivals], "offset": -TOP}
    return Statement(text, source.share(arm, rivals, offset=-TOP), why, asked)


def _correlated(source: Source, text: str, why: str, *pairs: Ranked, offset: float = 0.0) -> Statement:
    """A weighted sum of rank correlations."""
    keys = ("weight", "first", "first_metric", "second", "second_metric")
    named = [[[_named(w) for w in part] if isinstance(part, list) else part for part in pair] for pair in pairs]
    asked = {"kind": "ranks", "pairs": [dict(zip(keys, pair)) for pair in named], "offset": offset}
    return Statement(text, source.ranks(*pairs, offset=offset), why, asked)


def _why_ranks(source: Source, *lists: tuple[list[Weights], str]) -> str:
    """The first reason why one of the lists of contrasts is missing, else that ranks are too few or all alike."""
    if isinstance(source, Printed):
        return "the paper prints no values by subset"
    for contrasts, metric in lists:
        weights = {arm: w for contrast in contrasts for arm, w in contrast.items()}
        if len(source.values(weights, metric)) < 2:
            return source.why(weights, metric)
    return "fewer than two subsets have ranks that differ"


def _beats(source: Source, a: str, b: str) -> list[Statement]:
    """Generator a beats b, without selection, on every metric of BETTER."""
    words = {"fid": "FID of {b} − {a}", "precision": "precision of {a} − {b}", "recall": "recall of {a} − {b}"}
    arms = Arm("quality", a, "none"), Arm("quality", b, "none")
    return [
        _state(source, words[m].format(a=NAMES[a], b=NAMES[b]), _less(*arms, sign), m) for m, sign in BETTER.items()
    ]


def rule_1(source: Source) -> Verdict:
    """U-Net and DiT each beat HistoGAN on FID, precision and recall, without selection."""
    return judged(_beats(source, "unet", "histogan") + _beats(source, "dit", "histogan"))


def rule_2(source: Source) -> Verdict:
    """HistoGAN's recall without selection is below 1 %. Only the published variant is the paper's GAN."""
    recall = {Arm("quality", "histogan", "none"): -1.0}
    found = judged([_state(source, "1 % − recall of HistoGAN", recall, "recall", COLLAPSED)])
    if found.word == UNTESTABLE or source.histogan == "published":
        return found
    because = f"its HistoGAN is the {source.histogan} variant, made so that modes do not collapse"
    if source.histogan == "unknown":
        because = "the variant of its HistoGAN is not recorded"
    return _barred(found, because)


def rule_3(source: Source) -> Verdict:
    """DiT beats U-Net on FID, precision and recall, without selection."""
    return judged(_beats(source, "dit", "unet"))


def rule_4(source: Source) -> Verdict:
    """Either selection raises FID and lowers precision and recall, for each generator. A recall of HistoGAN that is
    near zero cannot fall, so there a rise of less than 1 % is enough."""
    found = []
    for m, words in (("fid", "rise of FID"), ("precision", "fall of precision"), ("recall", "fall of recall")):
        for g, s in IMAGE_SETS:
            if s != "none":
                spared = (g, m) == ("histogan", "recall")
                text = f"{NAMES[g]}, {paper.SELECTION_NAMES[s]}: {words}{' + 1 %' * spared}"
                worse = _less(Arm("quality", g, s), Arm("quality", g, "none"), -BETTER[m])
                found.append(_state(source, text, worse, m, COLLAPSED if spared else 0.0))
    return judged(found)


def rule_5(source: Source) -> Verdict:
    """Each of the U-Net's six mixed arms beats baseline and traditional; of HistoGAN's and of DiT's, not all do."""
    verdicts = []
    for g in ("unet", "histogan", "dit"):
        lines = [
            _state(source, f"AUC of {arm.title} − {reference.name}", _less(arm, reference), "auc")
            for arm in (Arm(r, g, s) for r in MIXED for s in paper.SELECTIONS)
            for reference in (BASELINE, TRADITIONAL)
        ]
        if isinstance(source, Planned) and g == "unet":
            return judged(lines)  # counterexamples need no plan
        verdicts.append(judged(lines) if g == "unet" else not_all_positive(lines))
    return joined(verdicts)


def rule_6(source: Source) -> Verdict:
    """Averaged over selections, transfer minus augmentation is larger for U-Net and for DiT than for HistoGAN (an
    interaction of generator and regime)."""
    found = []
    for g in ("unet", "dit"):
        weights: Weights = {}
        for generator, sign in ((g, 1), ("histogan", -1)):
            weights |= _mean([Arm("transfer", generator, s) for s in paper.SELECTIONS], sign)
            weights |= _mean([Arm("augmentation", generator, s) for s in paper.SELECTIONS], -sign)
        found.append(_state(source, f"AUC of transfer − augmentation: {NAMES[g]} − HistoGAN", weights, "auc"))
    return judged(found)


def rule_7(source: Source) -> Verdict:
    """DiT beats U-Net, and U-Net beats HistoGAN: in FID without selection, and in AUC of synthetic-only training
    averaged over selections."""
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
    return judged(found)


def rule_8(source: Source) -> Verdict:
    """Realism selection raises the AUC of HistoGAN's and U-Net's mixed arms; that of DiT's by less than 0.1 points."""
    found = []
    for g in G:
        arms = [[Arm(r, g, s) for r in MIXED] for s in ("realism", "none")]
        sign = -1 if g == "dit" else 1
        text = f"{'0.1 points − ' * (g == 'dit')}gain in AUC of {NAMES[g]} by realism selection"
        weights = _mean(arms[0], sign) | _mean(arms[1], -sign)
        found.append(_state(source, text, weights, "auc", absence=g == "dit"))
    return judged(found)


def rule_9(source: Source) -> Verdict:
    """For each generator the arm that the paper names beats more than two thirds of its five other mixed arms, on
    average over subsets; a lead below 0.1 points counts half."""
    best = [
        Arm("augmentation", "histogan", "realism"),
        Arm("transfer", "unet", "realism"),
        Arm("transfer", "dit", "none"),
    ]
    return judged(
        [
            _best(source, a, [b for r in MIXED for s in paper.SELECTIONS if (b := Arm(r, a.generator, s)) != a])
            for a in best
        ]
    )


def rule_10(source: Source) -> Verdict:
    """Over the nine image sets, the rank correlation of quality (−FID) with AUC is positive alone, larger than when
    mixed, and below 0.5 when mixed."""
    quality: list[Weights] = [{Arm("quality", g, s): -1.0} for g, s in IMAGE_SETS]
    alone: list[Weights] = [{Arm("synthetic", g, s): 1.0} for g, s in IMAGE_SETS]
    mixed = [_mean([Arm(r, g, s) for r in MIXED]) for g, s in IMAGE_SETS]
    why = _why_ranks(source, (quality, "fid"), (alone, "auc"), (mixed, "auc"))
    first, second = (1.0, quality, "fid", alone, "auc"), (-1.0, quality, "fid", mixed, "auc")
    return judged(
        [
            _correlated(source, "rank correlation with AUC alone", why, first),
            _correlated(source, "that − rank correlation with AUC mixed", why, first, second),
            _correlated(source, f"{WEAK} − rank correlation with AUC mixed", why, second, offset=WEAK),
        ]
    )


def rule_11(source: Source) -> Verdict:
    """U-Net transfer with realism beats both references, and more than two thirds of the seventeen other mixed arms, on
    average over subsets; a lead below 0.1 points counts half."""
    best = Arm("transfer", "unet", "realism")
    references = [
        _state(source, f"AUC of {best.title} − {b.title}", _less(best, b), "auc") for b in (BASELINE, TRADITIONAL)
    ]
    return judged([*references, _best(source, best, [a for a in ARMS if a.regime in MIXED and a != best])])


def rule_12(source: Source) -> Verdict:
    """Over the nine image sets, the rank correlation of the AUC of synthetic-only training with that of transfer is
    positive."""
    alone, transfer = ([{Arm(r, g, s): 1.0} for g, s in IMAGE_SETS] for r in ("synthetic", "transfer"))
    why = _why_ranks(source, (alone, "auc"), (transfer, "auc"))
    pair = (1.0, alone, "auc", transfer, "auc")
    return judged([_correlated(source, "rank correlation of synthetic only with transfer", why, pair)])


def rule_13(source: Source) -> Verdict:
    """For each generator the judge, a classifier of real patches standing in for the unknown true label, agrees better
    with the labels of the class-based set than with those of the unselected one (label AUC)."""
    return judged(
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

OF_CLASSIFIERS = (rule_5, rule_6, rule_7, rule_8, rule_9, rule_10, rule_11, rule_12)
"""Rules that compare classifiers; the others are about images only."""
