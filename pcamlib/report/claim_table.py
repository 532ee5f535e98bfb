"""The ledger of claims as it is printed, and the published runs it stands beside.

The rules are in `claims`. A published run is a file of `book/reference`, written by `pcamlib.report.publish`.
"""

from __future__ import annotations

import math
from collections import Counter
from html import escape

from pcamlib.core import paper
from pcamlib.report.tables import Table
from pcamlib.results import claims
from pcamlib.results.claims import Measured, Printed, Source, Statement
from pcamlib.results.frame import NOT_RUN, Row
from pcamlib.results.inference import LEVEL, TOO_NARROW
from pcamlib.results.published import Published


def sources(rows: list[Row], runs: list[Published]) -> list[Source]:
    """The paper, the largest published run (if there is one) and the reader's run, in this order."""
    reference = [Measured(runs[0].rows, f"published: {runs[0].name}")] if runs else []
    return [Printed(), *reference, Measured(rows, "this run")]


def table(evidence: list[Source]) -> Table:
    """A line per claim: the claim, the rule in words, and a verdict for every source."""
    lines = []
    for claim, rule in zip(paper.CLAIMS, claims.RULES, strict=True):
        line = {"section": "", "label": f"{claim.number}. {claim.text} ({claim.section})"}
        line["rule"] = " ".join((rule.__doc__ or "").split())
        lines.append(line | {f"verdict {i}": rule(source)[0] for i, source in enumerate(evidence)})
    names = {f"verdict {i}": source.name for i, source in enumerate(evidence)}
    parts = [
        f"Supported: all of the rule's contrasts are positive with p < {claims.ALPHA}. Contradicted: one is negative with "
        f"p < {claims.ALPHA} divided by their number. The paper by Welch's t from its means and deviations of five subsets, "
        "runs by Student's t over their subsets, arms paired. Claim 5 is the exception: it asks the same of three "
        "generators, and wants it supported for one and contradicted for the others."
    ]
    for source in evidence:
        if isinstance(source, Measured):
            judge = f" Images judged in the space of {source.judge}." if source.judge else ""
            parts.append(f"{source.name[0].upper()}{source.name[1:]}: {source.about}{judge}")
    return Table(
        "The claims", [("Rule", {"rule": "in words"}), ("Verdict", names)], lines, " ".join([*parts, TOO_NARROW])
    )


def counts(source: Source) -> str:
    """How the verdicts of a source are distributed, in one sentence."""
    judged = [rule(source) for rule in claims.RULES]
    found = Counter(verdict for verdict, _ in judged)
    untested = sum(v == claims.UNDECIDED and any(s.found is None for s in lines) for v, lines in judged)
    listed = ", ".join(f"{found[v]} {v}" for v in (claims.SUPPORTED, claims.CONTRADICTED, claims.UNDECIDED))
    why = f", {untested} of them for want of numbers" if untested else ""
    return f"{source.name[0].upper()}{source.name[1:]}: {listed}{why}."


def details(evidence: list[Source]) -> str:
    """HTML, a folded block per claim: each contrast with its mean, interval and p value in every source."""
    blocks = []
    for claim, rule in zip(paper.CLAIMS, claims.RULES, strict=True):
        found = [rule(source) for source in evidence]
        head = "".join(f"<th>{escape(source.name)}: {verdict}</th>" for source, (verdict, _) in zip(evidence, found))
        body = "".join(
            f"<tr><th>{escape(lines[0].text)}</th>{''.join(f'<td>{_number(line)}</td>' for line in lines)}</tr>"
            for lines in zip(*(statements for _, statements in found), strict=True)
        )
        blocks.append(
            f"<details><summary>{claim.number}. {escape(claim.text)}</summary>"
            f'<div role="region" tabindex="0" aria-label="Numbers of claim {claim.number}" style="overflow-x:auto">'
            f'<table class="dataframe" style="font-size:0.85em"><thead><tr><th>contrast</th>{head}</tr>'
            f"</thead><tbody>{body}</tbody></table></div></details>"
        )
    note = "Positive if the claim holds; but in claim 5 those of HistoGAN and of DiT should not all be. "
    note += f"Mean, {100 * LEVEL:.0f} % interval, p two-sided. AUC, precision and recall as fractions, FID as it is."
    return f'<div class="pcam-claims">{"".join(blocks)}<p><small>{note}</small></p></div>'


def _number(line: Statement) -> str:
    if line.found is None:
        return f"{NOT_RUN}: {escape(line.missing)}"
    mean, low, high, p, n = line.found[:5]
    digits = 2 if abs(mean) >= 1 else 4
    interval = "the same in every subset" if math.isinf(high) else f"{low:+.{digits}f} to {high:+.{digits}f}"
    text = f"{mean:+.{digits}f} ({interval})".replace("-", "−")
    return f"{text}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}, n = {n}"
