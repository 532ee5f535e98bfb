"""The paper's claims with a verdict from every source: the paper itself, the published run and the reader's run.

The rules are in `pcamlib.results.claims`.
"""

from __future__ import annotations

import math
from collections import Counter
from html import escape

import pandas as pd

from pcamlib.core import paper
from pcamlib.core.settings import Profile
from pcamlib.report.tables import Table, render
from pcamlib.results import claims, frame
from pcamlib.results.claims import Rule, Statement
from pcamlib.results.evidence import Measured, Printed, Source
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.inference import LEVEL
from pcamlib.results.published import Published

WORDS = (claims.SUPPORTED, claims.CONTRADICTED, claims.UNDECIDED, claims.UNTESTABLE, claims.NO_VERDICT)


def sources(results: pd.DataFrame, runs: list[Published], profile: Profile | None = None) -> list[Source]:
    """The paper, the largest published run (if there is one) and the reader's run, in this order; a run once per device.

    profile: the settings of the reader's run.
    """
    found: list[Source] = [Printed()]
    named = [(f"published: {run.name}", run.results, None) for run in runs[:1]] + [("this run", results, profile)]
    for name, measured, settings in named:
        devices = [device for device in frame.DEVICES if device == "classification" or frame.has_probe(measured)]
        for device in devices:
            label = f"{name}, {frame.DEVICES[device]}" if len(devices) > 1 else name
            found.append(Measured(frame.by_device(measured, device), label, profile=settings))
    return found


def verdict(rule: Rule, source: Source) -> str:
    """The verdict in words. The paper's own tables leave nothing "undecided": they show a claim, or do not."""
    found = claims.verdict(rule, source)
    if not isinstance(source, Printed) or found.word != claims.UNDECIDED:
        return found.text
    if any(s.found and s.found.mean <= 0 for s in found.statements):
        return "not supported by the paper's own table: some of its differences have the other sign"
    return "not supported by the paper's own table: five subsets cannot show it"


def decidable(rule: Rule) -> str:
    """The subsets that a claim needs at the paper's effects: those of its smallest effect, with 80 % power at 5 %."""
    plan = claims.needed(rule)
    rest = " For the rest the paper prints no effect." if plan.unknown and plan.found else ""
    if not plan.found:
        return "Unknown: the paper prints no effect to plan with."
    wrong = sum(d.paired is None for d in plan.found)
    if wrong:
        return (
            f"Not at the paper's effects: {wrong} of {len(plan.found)} have the other sign, so no number of subsets would "
            f"do.{rest}"
        )
    paired, unpaired = max(d.paired for d in plan.found), [d.unpaired for d in plan.found]
    from_means = "" if None in unpaired else f", {max(unpaired):,} from means alone"
    return f"With {paired:,} subsets, arms paired{from_means}.{rest}"


def table(evidence: list[Source]) -> Table:
    """A line per claim: the claim, the rule in words, what it takes to decide it, and a verdict for every source."""
    columns = {("Rule", "in words"): [" ".join((rule.__doc__ or "").split()) for rule in claims.RULES]}
    columns |= {("Rule", "can it be decided?"): [decidable(rule) for rule in claims.RULES]}
    columns |= {("Verdict", source.name): [verdict(rule, source) for rule in claims.RULES] for source in evidence}
    names = [f"{claim.number}. {claim.text} ({claim.section})" for claim in paper.CLAIMS]
    notes = [
        f"Supported: all contrasts of the rule are positive with p < {claims.ALPHA}. Contradicted: one is negative with "
        f"p < {claims.ALPHA} divided by their number. Undecided: neither. The paper: Welch's t from its means and standard "
        "deviations, one that is printed as 0.00 taken as 0.005. Runs: Student's t over subsets, arms paired, on the same test "
        "patches. Claim 5: of the two other generators, not all contrasts are positive. Can it be decided: subsets for 80 % "
        "power at 5 % for the smallest of the paper's effects, correlation of paired arms taken to be 0.5. Claims 5 to 12 are "
        "about classifiers, and have a verdict only where the device beats the best trivial baseline."
    ]
    for source in evidence:
        if isinstance(source, Measured):
            judge = f" Images judged in the space of {source.judge}." if source.judge else ""
            notes.append(f"{_sentence_start(source.name)}: {source.about}{judge} {source.trust.sentence}.")
    return Table("The claims", pd.DataFrame(columns, index=names), " ".join(notes))


def counts(source: Source) -> str:
    """How the verdicts of a source are distributed, in one sentence."""
    found = Counter(claims.verdict(rule, source).word for rule in claims.RULES)
    if isinstance(source, Printed):
        found["not supported"] = found.pop(claims.UNDECIDED, 0)
    words = ("not supported" if w == claims.UNDECIDED and isinstance(source, Printed) else w for w in WORDS)
    return f"{_sentence_start(source.name)}: {', '.join(f'{found[w]} {w}' for w in words if found[w])}."


def details(evidence: list[Source]) -> str:
    """HTML, a folded block per claim: each contrast with its mean, interval and p value in every source."""
    blocks = []
    for claim, rule in zip(paper.CLAIMS, claims.RULES, strict=True):
        columns = {
            f"{source.name}: {verdict(rule, source)}": [_number(line) for line in rule(source).statements]
            for source in evidence
        }
        contrasts = [line.text for line in rule(evidence[0]).statements]
        numbers = Table(f"Numbers of claim {claim.number}", pd.DataFrame(columns, index=contrasts))
        blocks.append(f"<details><summary>{claim.number}. {escape(claim.text)}</summary>{render(numbers)}</details>")
    note = (
        "Contrasts are positive if the claim holds; for claim 5, those of HistoGAN and of DiT should not all be. "
        f"Mean, {100 * LEVEL:.0f} % interval, two-sided p. AUC, precision and recall as fractions, FID as it is."
    )
    return f'<div class="pcam-claims">{"".join(blocks)}<p><small>{note}</small></p></div>'


def _sentence_start(name: str) -> str:
    return name[0].upper() + name[1:]


def _number(line: Statement) -> str:
    if line.found is None:
        return f"{NOT_RUN}: {line.missing}"
    mean, low, high, p, n = line.found[:5]
    digits = 2 if abs(mean) >= 1 else 4
    interval = "the same in every subset" if math.isinf(high) else f"{low:+.{digits}f} to {high:+.{digits}f}"
    text = f"{mean:+.{digits}f} ({interval})".replace("-", "−")
    return f"{text}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}, n = {n}"
