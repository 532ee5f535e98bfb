"""The page that recomputes the published run's differences and verdicts in the reader's browser.

`page` is called by every build of the book. It holds the numbers as JSON; `book/_static/recompute.js` computes with
them and `book/_static/recompute_page.js` shows them. The rules of the claims are those of `pcamlib.results.claims`:
what each of them asks is recorded here, and answered there.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pcamlib.core import paper
from pcamlib.core.text import inert
from pcamlib.report.result_plots import forest_takeaway
from pcamlib.report.tables import points
from pcamlib.results import claims, frame, inference
from pcamlib.results.arms import NO_NETWORK, TRADITIONAL, Arm, classifiers, generators_of
from pcamlib.results.evidence import MARGIN, Measured
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.published import Published, published_runs, published_scores

THRESHOLDS = np.arange(1, 100) / 100
"""Scores at or above the reader's choice of one of these are called tumour."""
ROOM = 2_900_000
"""Characters of JSON that a page holds at most."""
METRICS = ("fid", "precision", "recall", "label_auc", "auc")
"""What the rules of the claims ask for."""
ARM_FILE = re.compile(r"(?P<arm>.+?)(?:-seed(?P<seed>\d+))?")


class Curve(NamedTuple):
    """The test scores of one trained classifier, as far as metrics depend on them.

    ranks: (N,) from 0, equal for equal scores. cuts: (99,) how many different scores lie below each of THRESHOLDS: a
    patch is called tumour where its rank is at least that.
    """

    ranks: np.ndarray
    cuts: np.ndarray


def curve(scores: np.ndarray) -> Curve:
    """Scores (N,) as a curve, without any loss for ranking or for these thresholds."""
    different, ranks = np.unique(scores, return_inverse=True)
    return Curve(ranks, np.searchsorted(different.astype(np.float64), THRESHOLDS))


def packed(numbers: np.ndarray, bits: int) -> str:
    """Whole numbers below 2^bits as base64: each in `bits` bits, the lowest first, and the last byte filled with
    zeros."""
    every = (np.asarray(numbers, np.int64)[:, None] >> np.arange(bits)) & 1
    return base64.b64encode(np.packbits(every.astype(np.uint8).ravel(), bitorder="little").tobytes()).decode()


class Kept(NamedTuple):
    """The scores of a published run: labels (N,), and curves by device, subset, arm (`Arm.name`) and seed."""

    labels: np.ndarray
    curves: dict[str, dict[int, dict[tuple[str, int], Curve]]]


def kept_scores(folder: Path, name: str) -> Kept | None:
    """The files of scores of a published run; None without any. StudyError if their labels differ."""
    labels, curves = None, {device: {} for device in frame.DEVICES}
    for file, arrays in published_scores(folder, name).items():
        labels, by_arm = arrays.pop("labels"), {}
        for key, scores in arrays.items():
            arm = ARM_FILE.fullmatch(key)
            by_arm[arm["arm"], int(arm["seed"] or 0)] = curve(scores)
        _, subset, *probe = file.split("-")
        curves["probe" if probe else "classification"][int(subset)] = by_arm
    return None if labels is None else Kept(labels, curves)


def sources(run: Published, **choices: Any) -> dict[str, Measured]:
    """The run as evidence, by device. choices: margin, lead (see `Measured`)."""
    devices = [device for device in frame.DEVICES if device == "classification" or frame.has_probe(run.results)]
    return {d: Measured(frame.by_device(run.results, d), f"published: {run.name}", **choices) for d in devices}


def content(run: Published, folder: Path) -> dict[str, Any]:
    """Everything that the page computes from, in kinds of JSON of at most ROOM characters.

    "start": the device shown first, that of most arms. "devices": by name its "title", the "values" of METRICS by arm
    (`Arm.name`; a value per entry of "subsets", None where not run), the "verdicts" of the study, and the "arms" to
    choose from. "labels", "groups", "curves": of the test patches; `curves` lists device, subset, arm and seed of each
    of `packed`, which is ranks and then cuts in numbers of `bits` bits. Subsets whose curves have no room are left
    out, the later ones first. "claims": text, rule and what it asks (`claims.Statement.asked`).
    """
    subsets = [int(k) for k in sorted(run.results["subset"].unique())]
    there = sources(run)
    found: dict[str, Any] = {
        "run": run.name,
        "subsets": subsets,
        "start": frame.fullest(run.results),
        "devices": {name: _device(name, source, run, subsets) for name, source in there.items()},
        "claims": [_claim(*pair, there["classification"]) for pair in zip(paper.CLAIMS, claims.RULES, strict=True)],
        "alpha": claims.ALPHA,
        "margin": MARGIN,
        "resolution": inference.RESOLUTION,
        "traditional": TRADITIONAL.name,
        "trivial": {regime: paper.REGIME_NAMES[regime] for regime in paper.TRIVIAL},
        "thresholds": THRESHOLDS.tolist(),
        "labels": "",
        "groups": None,
        "bits": 1,
        "curves": [],
        "packed": [],
    }
    kept = kept_scores(folder, run.name)
    if kept is None:
        return found
    found["labels"] = "".join(str(int(label)) for label in kept.labels)
    groups = (run.intervals.get(device, {}).get("groups") for device in there)
    found["groups"] = next((g for g in groups if g and len(g) == len(kept.labels)), None)
    every = [c for by_subset in kept.curves.values() for arms in by_subset.values() for c in arms.values()]
    found["bits"] = int(max(c.ranks.max() + 1 for c in every)).bit_length()
    room = ROOM - len(written(found))
    for subset, device in itertools.product(subsets, there):
        arms = kept.curves[device].get(subset, {})
        names = [[device, subset, arm, seed] for arm, seed in arms]
        texts = [packed(np.concatenate(c), found["bits"]) for c in arms.values()]
        room -= len(written(names)) + len(written(texts))
        if room < 0:
            break
        found["curves"] += names
        found["packed"] += texts
    return found


def written(value: Any) -> str:
    """As JSON that may stand in a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _device(device: str, source: Measured, run: Published, subsets: list[int]) -> dict[str, Any]:
    """What `content` says of a device."""
    tables = {metric: source.tables[metric].reindex(index=subsets).astype(object) for metric in METRICS}
    values = {
        metric: {arm: column.where(column.notna(), None).tolist() for arm, column in table.items()}
        for metric, table in tables.items()
    }
    arms = [arm for arm in classifiers(generators_of(run.results)) if arm.name in values["auc"]]
    return {
        "title": frame.DEVICES[device],
        "values": values,
        "verdicts": [claims.verdict(rule, source).word for rule in claims.RULES],
        "arms": [{"name": arm.name, "title": arm.title, "group": _group(arm)} for arm in arms],
    }


def _group(arm: Arm) -> str:
    if arm.generator is None:
        return "Real patches, no network trained" if arm.regime in NO_NETWORK else "Real patches only"
    return paper.generator_name(arm.generator)


def _claim(claim: paper.Claim, rule: claims.Rule, source: Measured) -> dict[str, Any]:
    """A claim with the questions of its rule; they do not depend on what the source holds."""
    found = rule(source)
    return {
        "number": claim.number,
        "text": claim.text,
        "rule": " ".join((rule.__doc__ or "").split()),
        "of_classifiers": rule in claims.OF_CLASSIFIERS,
        "barred": found.barred,
        "parts": [
            {"every": part.every, "statements": [{"text": s.text, "asked": s.asked} for s in part.statements]}
            for part in found.parts
        ],
    }


# ------------------------------------------------------------------------------------------------ the page


def page(where: Path) -> str:
    """The chapter as MyST Markdown. where: the folder of published runs, of which the largest is shown."""
    published = published_runs(where)
    if not published:
        return f"# Recompute the results\n\nNo run is published in this copy of the book: {NOT_RUN}.\n"
    run = published[0]
    return PAGE.format(
        still=_still(run, where),
        provenance=inert(frame.provenance_note(run.provenance)),
        csv=inert(f"book/reference/{run.name}.csv", "code"),
        scores=inert(f"book/reference/scores/{run.name}/", "code"),
        answer="\n".join(f"- {line}" for line in flips(run)),
        data=written(content(run, where)),
    )


def _still(run: Published, where: Path) -> str:
    """The figure that stands for the page on paper and where no script runs."""
    if not (where / "forest" / f"{run.name}.png").exists():
        return ""
    device = frame.fullest(run.results)
    found = forest_takeaway(frame.by_device(run.results, device), run.intervals.get(device))
    return f"""\
:::{{figure}} ../reference/forest/{run.name}.png
:alt: Forest plot: the difference of every arm to traditional augmentation in points of AUC, with its interval
:figclass: recompute-still

{found} The published differences by the {frame.DEVICES[device]} to traditional augmentation, in points of AUC:
means with 95 % intervals, circles the subsets.
The page shows this figure on paper and where no JavaScript runs.
:::
"""


def flips(run: Published) -> list[str]:
    """What it takes for claim 5 to get another verdict, a sentence per choice of the reader."""
    text = []
    for device, source in sources(run).items():
        found = claims.rule_5(source)
        text.append(f"By the {frame.DEVICES[device]}: {inert(claims.verdict(claims.rule_5, source).text)}.")
        if not source.trust.measures:
            text.append(f"With the rule about the trivial baseline switched off: *{found.word}*.")
        by_level = {level: claims.at_level(found, 1 - level / 100).word for level in range(94, 49, -1)}
        level = next((level for level, word in by_level.items() if word != found.word), None)
        text.append(
            f"A confidence of {level} % makes it *{by_level[level]}*, which is a weaker proof and not a new finding."
            if level
            else "No confidence from 50 to 94 % gives it another word."
        )
        text.append(_by_lead(run, device, found.word))
    return [*text, "The margin cannot change it: claim 5 says nothing of absence, so its rule has none."]


def _by_lead(run: Published, device: str, word: str) -> str:
    for half_points in sorted(range(-10, 11), key=abs)[1:]:
        found = claims.rule_5(sources(run, lead=half_points / 200)[device]).word
        if found != word:
            return f"At 95 %, a required lead of {points(half_points / 200)} points makes it *{found}*."
    return "At 95 %, no required lead from −5 to +5 points gives it another word."


PAGE = """\
# Recompute the results

Choose a measuring device, two arms, an interval or a rule: this page computes everything again in your browser, from
the score that every classifier gave to every test patch. It needs no network and no kernel. What was published is on
{{doc}}`reference`.

{still}
```{{raw}} html
<p class="recompute-off"><strong>This page computes with JavaScript, which does not run here.</strong></p>
<form class="recompute" id="recompute-choices" aria-label="What is measured"></form>
```

## One difference

```{{raw}} html
<div class="recompute" id="recompute-difference"></div>
```

## The thirteen claims

```{{raw}} html
<div class="recompute" id="recompute-claims"></div>
```

## Exercise

Make claim 5 flip: find a choice that gives it another verdict than the study's. Which choices do, and would you defend
them in a paper? Decide first what each choice means, and then try.

:::{{dropdown}} Solution
{answer}

A choice that is made after the results are known can change many verdicts. That is why the study fixes its own in
advance.
:::

:::{{dropdown}} How it is computed
- **AUC** is the share of pairs of a tumour patch and a normal one that the scores rank correctly; ties count half. The
  value of an arm is the mean over its seeds in each subset, and then over subsets. Arms whose scores were not kept have
  the published AUC.
- **Sensitivity and specificity** call a patch tumour where its score is at least the threshold.
- **Test patches** as the unit: 1,000 times, as many patches are drawn with replacement as there are, the same for both
  arms and all subsets; the interval lies between the quantiles of the 1,000 values. It says nothing of other training
  patches. **Slides**: the same with whole slides, where the data set names them.
- **Subsets** as the unit: Student's *t* over one value per subset. It says nothing of other test patches.
- The draws come from the generator mulberry32: each adds 0x6D2B79F5 to a state of 32 bits that starts at the seed, and
  mixes the sum. The same seed gives the same draws everywhere. A draw that lacks a class is left out.
- **Verdicts** are those of {{doc}}`claims`: Student's *t* over subsets; *supported* if every contrast of the rule is
  positive with p below 1 − confidence, *contradicted* if one is negative with p below that divided by their number.
- **Margin**: a difference of AUC that is smaller counts as none. It is part of claims 8, 9 and 11.
- **Required lead**: a gain in AUC counts only by how much it exceeds this. The study requires none. It moves the
  contrasts of claims 5, 6, 7, 8 and 11.
:::

:::{{dropdown}} Where the numbers come from
{provenance} Values: {csv}. Scores: {scores}.
:::

```{{raw}} html
<script type="application/json" id="recompute-data">{data}</script>
<script src="../../_static/recompute.js"></script>
<script src="../../_static/recompute_page.js"></script>
```
"""
