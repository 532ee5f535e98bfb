"""The paper's claims with a verdict from every source: the paper itself, the published run and the reader's run.

`table` is the short form; `page` is the chapter with a section per claim, which every build of the book writes. The
rules are in `pcamlib.results.claims`.
"""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd

from pcamlib.core import paper
from pcamlib.core.settings import Profile
from pcamlib.core.text import inert
from pcamlib.report.tables import SMALL_N, Table, folded, render
from pcamlib.results import claims, frame
from pcamlib.results.claims import Rule, Statement
from pcamlib.results.evidence import Measured, Printed, Source
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.inference import LEVEL
from pcamlib.results.published import Published

WORDS = (claims.SUPPORTED, claims.CONTRADICTED, claims.UNDECIDED, claims.UNTESTABLE, claims.NO_VERDICT)


def sources(results: pd.DataFrame, runs: list[Published], profile: Profile | None = None) -> list[Source]:
    """The paper, the largest published run (if there is one) and the reader's run, in this order; a run once per
    device.

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


def word(rule: Rule, source: Source) -> str:
    """The verdict in a word or two. The paper's own tables leave nothing "undecided": they show a claim, or do not."""
    found = claims.verdict(rule, source).word
    return "not supported" if isinstance(source, Printed) and found == claims.UNDECIDED else found


def verdict(rule: Rule, source: Source) -> str:
    """The verdict with its reason."""
    found = claims.verdict(rule, source)
    if not isinstance(source, Printed) or found.word != claims.UNDECIDED:
        return found.text
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
            f"Not at the paper's effects: {wrong} of {len(plan.found)} have the other sign, so no number of subsets"
            f" would do.{rest}"
        )
    paired, unpaired = max(d.paired for d in plan.found), [d.unpaired for d in plan.found]
    from_means = "" if None in unpaired else f", {max(unpaired):,} from means alone"
    return f"From {paired:,} subsets on for its smallest effect, arms paired{from_means}.{rest}"


TITLES = (
    "Diffusion beats the GAN in quality",
    "The GAN has collapsed",
    "DiT beats the U-Net in quality",
    "Selection worsens FID and precision",
    "Only the U-Net improves in every setting",
    "Diffusion by transfer, GAN by augmentation",
    "Alone, usefulness follows quality",
    "Convolutional generators gain from selection",
    "The best use differs by generator",
    "Quality predicts usefulness alone, not mixed",
    "U-Net, transfer, realism is the best arm",
    "Synthetic-only training explains transfer",
    "Class-based selection removes wrong labels",
)
"""The thirteen claims in a few words."""
HOW = (
    f"Supported: all contrasts of the rule are positive with p < {claims.ALPHA}. Contradicted: one is negative with p <"
    f" {claims.ALPHA} divided by their number. Undecided: neither. The paper: Welch's t from its means and standard"
    " deviations, one that is printed as 0.00 taken as 0.005. Runs: Student's t over subsets, arms paired, on the same"
    " test patches. Claim 5: of the two other generators, not all contrasts are positive. Can it be decided: subsets"
    " for 80 % power at 5 % for the smallest of the paper's effects, correlation of paired arms taken to be 0.5."
    " Claims 5 to 12 are about classifiers, and have a verdict only where the device beats the best trivial baseline."
)


def table(evidence: list[Source]) -> Table:
    """A line per claim, a verdict in a word for every source."""
    columns = {source.name: [word(rule, source) for rule in claims.RULES] for source in evidence}
    names = [f"{claim.number}. {title}" for claim, title in zip(paper.CLAIMS, TITLES, strict=True)]
    return Table("The claims", pd.DataFrame(columns, index=names), " ".join([HOW, SMALL_N, *_abouts(evidence)]), LINE)


LINE = "By rules in code; how they decide, and the provenance of the numbers."


def _abouts(evidence: list[Source]) -> list[str]:
    notes = []
    for source in evidence:
        if isinstance(source, Measured):
            judge = f" Images judged in the space of {source.judge}." if source.judge else ""
            notes.append(f"{_sentence_start(source.name)}: {source.about}{judge} {source.trust.sentence}.")
    return notes


def linked(evidence: list[Source]) -> str:
    """`table` in MyST Markdown: each claim links to its section of `page`."""
    names = [inert(source.name) for source in evidence]
    lines = [f"| Claim of the paper | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for claim, title, rule in zip(paper.CLAIMS, TITLES, claims.RULES, strict=True):
        words = " | ".join(word(rule, source) for source in evidence)
        lines.append(f"| {{ref}}`{claim.number}. {title} <claim-{claim.number}>` | {words} |")
    return "\n".join([":::{div} pcam-compact", *lines, ":::"])


def counts(source: Source) -> str:
    """How the verdicts of a source are distributed, in one sentence."""
    found = Counter(word(rule, source) for rule in claims.RULES)
    listed = ", ".join(f"{found[w]} {w}" for w in (*WORDS, "not supported") if found[w])
    return f"{_sentence_start(source.name)}: {listed}."


def numbers(number: int, evidence: list[Source]) -> Table:
    """Every contrast of one claim with its mean, interval and p value in every source: a section per contrast."""
    rule = claims.RULES[number - 1]
    found = [rule(source).statements for source in evidence]
    rows, index = [], []
    for each in zip(*found, strict=True):
        for source, statement in zip(evidence, each):
            rows.append(_numbers(statement))
            index.append((each[0].text, source.name))
    columns = ("mean", f"{100 * LEVEL:.0f} % interval", "p", "n")
    notes = (
        "Contrasts are positive if the claim holds; for claim 5, those of HistoGAN and of DiT should not all be. p:"
        f" two-sided. n: subsets. AUC, precision and recall as fractions, FID as it is. {' '.join(_abouts(evidence))}"
    )
    data = pd.DataFrame(rows, columns=columns, index=pd.MultiIndex.from_tuples(index))
    return Table(f"Numbers of claim {number}", data, notes, "Student's t over subsets; the paper by Welch's t.")


def page(evidence: list[Source]) -> str:
    """The chapter as MyST Markdown: a section per claim with its rule, what it takes, its verdicts and their
    numbers."""
    text = [
        "# The claims",
        "",
        "The book tests thirteen statements of the paper. Each has a rule in code, which was checked on made-up",
        "results of every outcome. The same rule is applied to the paper's own tables, to the largest run published",
        "with this book and to the run that this copy was built from, to a run once per measuring device.",
        "",
        "\n".join(f"- {inert(counts(source))}" for source in evidence),
        "",
        ":::{dropdown} How a rule decides",
        f"{inert(HOW)} {inert(SMALL_N)} “The best arm” (claims 9 and 11) is judged by rank: the arm must beat more",
        "than two thirds of the others on average, where a lead below a tenth of a point counts half. Claim 2 speaks",
        "of the published HistoGAN, so it is tested only where that variant was trained. Many of the paper's",
        "differences of AUC cannot be shown by five subsets, so its own table does not support them, which is no",
        "evidence against them. Claim 13 concerns labels: the true class of a generated patch is unknown, so a",
        "classifier trained on real patches that selection did not use takes the place of the truth.",
        ":::",
        "",
    ]
    for claim, title, rule in zip(paper.CLAIMS, TITLES, claims.RULES, strict=True):
        text += [
            f"(claim-{claim.number})=",
            f"## {claim.number}. {title}",
            "",
            f"{inert(claim.text)} ({claim.section})",
            "",
        ]
        text += [f"- *Rule.* {inert(' '.join((rule.__doc__ or '').split()))}"]
        text += [f"- *Can it be decided?* {inert(decidable(rule))}"]
        text += [f"- *{inert(_sentence_start(source.name))}:* {inert(verdict(rule, source))}." for source in evidence]
        text += ["", folded(f"The numbers of claim {claim.number}", render(numbers(claim.number, evidence))), ""]
    return "\n".join(text)


def _sentence_start(name: str) -> str:
    return name[0].upper() + name[1:]


def _numbers(line: Statement) -> list[str]:
    """The cells of a contrast in one source."""
    if line.found is None:
        return [f"{NOT_RUN}: {line.missing}", "", "", ""]
    mean, low, high, p, n = line.found[:5]
    digits = 2 if abs(mean) >= 1 else 4
    interval = "the same in every subset" if math.isinf(high) else f"{low:+.{digits}f} to {high:+.{digits}f}"
    texts = [f"{mean:+.{digits}f}", interval, "< 0.001" if p < 0.001 else f"{p:.3f}", str(n)]
    return [text.replace("-", "−") for text in texts]
