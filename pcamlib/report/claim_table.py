"""The paper's claims with a verdict from every source: the paper itself, the published run and the reader's run.

The rules are in `pcamlib.results.claims`.
"""

from __future__ import annotations

import math
from collections import Counter
from html import escape

import pandas as pd

from pcamlib.core import paper
from pcamlib.report.tables import Table, render
from pcamlib.results import claims
from pcamlib.results.claims import Measured, Printed, Source, Statement
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.inference import LEVEL, TOO_NARROW
from pcamlib.results.published import Published


def sources(results: pd.DataFrame, runs: list[Published]) -> list[Source]:
    """The paper, the largest published run (if there is one) and the reader's run, in this order."""
    published = [Measured(runs[0].results, f"published: {runs[0].name}")] if runs else []
    return [Printed(), *published, Measured(results, "this run")]


def table(evidence: list[Source]) -> Table:
    """A line per claim: the claim, the rule in words, and a verdict for every source."""
    columns = {("Rule", "in words"): [" ".join((rule.__doc__ or "").split()) for rule in claims.RULES]}
    columns |= {("Verdict", source.name): [rule(source)[0] for rule in claims.RULES] for source in evidence}
    names = [f"{claim.number}. {claim.text} ({claim.section})" for claim in paper.CLAIMS]
    notes = [
        f"Supported: all contrasts of the rule are positive with p < {claims.ALPHA}. Contradicted: one is negative with "
        f"p < {claims.ALPHA} divided by their number. The paper: Welch's t from its means and standard deviations. Runs: "
        "Student's t over subsets, arms paired. Claim 5 asks the same of three generators, and is supported if that holds "
        "for one and is contradicted for the two others."
    ]
    for source in evidence:
        if isinstance(source, Measured):
            judge = f" Images judged in the space of {source.judge}." if source.judge else ""
            notes.append(f"{_sentence_start(source.name)}: {source.about}{judge}")
    return Table("The claims", pd.DataFrame(columns, index=names), " ".join([*notes, TOO_NARROW]))


def counts(source: Source) -> str:
    """How the verdicts of a source are distributed, in one sentence."""
    judged = [rule(source) for rule in claims.RULES]
    found = Counter(verdict for verdict, _ in judged)
    untested = sum(v == claims.UNDECIDED and any(s.found is None for s in lines) for v, lines in judged)
    listed = ", ".join(f"{found[v]} {v}" for v in (claims.SUPPORTED, claims.CONTRADICTED, claims.UNDECIDED))
    why = f", {untested} of them for lack of numbers" if untested else ""
    return f"{_sentence_start(source.name)}: {listed}{why}."


def details(evidence: list[Source]) -> str:
    """HTML, a folded block per claim: each contrast with its mean, interval and p value in every source."""
    blocks = []
    for claim, rule in zip(paper.CLAIMS, claims.RULES, strict=True):
        found = {source.name: rule(source) for source in evidence}
        columns = {f"{name}: {verdict}": [_number(line) for line in lines] for name, (verdict, lines) in found.items()}
        contrasts = [line.text for line in next(iter(found.values()))[1]]
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
