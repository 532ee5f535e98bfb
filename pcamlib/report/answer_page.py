"""The first chapter: the question and what the largest published run answers, on one page.

`page` and `pictures` are called by every build of the book. All numbers come from `book/reference`. A part that the
published run lacks (a device, a control, sheets of patches) is named as not run.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from pcamlib.core import paper
from pcamlib.core.text import inert
from pcamlib.data import SIDE
from pcamlib.models import generators
from pcamlib.report import claim_table, curve_plots, findings, plan_page, result_plots
from pcamlib.report.tables import listed, points, signed, span
from pcamlib.results import curves, frame, headline, rivals
from pcamlib.results.arms import MIXED, generators_of
from pcamlib.results.evidence import Measured, Printed
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.inference import LEVEL, Estimate, holm
from pcamlib.results.planning import LEAD
from pcamlib.results.published import Published, data_name, published_runs

HEADLINE, STRIP = "answer.png", "answer_patches.png"
"""Pictures of the page, beside it in the folder of generated pages."""

NO_INTERVAL = "no difference has an interval"
NO_ARMS = "no arm with generated patches was run"


def devices_of(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The results by device, only those that measured something: "classification", and "probe" where it ran."""
    there = [device for device in frame.DEVICES if device == "classification" or frame.has_probe(results)]
    return {device: frame.by_device(results, device) for device in there}


def about(results: pd.DataFrame, *, versions: bool = True) -> str:
    """What was measured on which data, in one paragraph of Markdown; versions: and by which code."""
    provenance = frame.merged_provenance(results)
    tested = listed(frame.of_kind(results, "classification")["test_n"])
    count = len(provenance["subsets"])
    code = f"; pcamlib {inert(' and '.join(provenance['version']))}.{frame.mixture(provenance)}" if versions else "."
    p = paper.PROTOCOL
    return (
        f"Data: {inert(data_name(results))}, {inert(tested)} test patches; {count} subset{'s' * (count != 1)} of"
        f" {listed(provenance['n_real'])} real patches; profile {inert(provenance['profile'])}{code} The paper: full"
        f" PCam, {p.subsets} subsets of {p.subset_size:,}, {p.test:,} test patches."
    )


# ------------------------------------------------------------------------------------------------ the sentences


def verdict(results: pd.DataFrame) -> str:
    """The answer of one device in a few words, before any number."""
    trust, rows = rivals.trust(results), [row for row in headline.differences(results) if row.generator]
    if trust.measures is not True:
        return "this run cannot say"
    tested = [row.test for row in rows if row.test and math.isfinite(row.test.high)]
    if not tested:
        return "one subset cannot say"
    sure = [t.mean for t, p in zip(tested, holm([t.p for t in tested])) if p < 1 - LEVEL]
    above, below = sum(mean > 0 for mean in sure), sum(mean < 0 for mean in sure)
    if below == len(rows):
        return f"no: all {below} uses are below the control (Holm's correction)"
    lead = "yes, in part" if above else "not shown"
    return f"{lead}: of {len(rows)} uses {above} are above the control and {below} below it (Holm's correction)"


def _with_interval(mean: float, test: Estimate | None) -> str:
    if test is None:
        return f"{points(mean)} points (one subset, no interval)"
    if math.isinf(test.high):
        return f"{points(mean)} points (the same in every subset)"
    return f"{points(mean)} points ({span(test.low, test.high)})"


def _uses(results: pd.DataFrame) -> str | None:
    rows = [row for row in headline.differences(results) if row.generator]
    if not rows:
        return None
    best = max(rows, key=lambda row: row.mean)
    return f"{verdict(results)}; the highest is {best.title}, {_with_interval(best.mean, best.test)}"


def _worth(results: pd.DataFrame) -> str | None:
    real = next((row for row in headline.differences(results) if row.title == headline.DOUBLE.title), None)
    if real is None:
        return None
    text = f"twice the real patches gain {_with_interval(real.mean, real.test)}"
    if rivals.trust(results).measures is not True:
        return f"{text}, too uncertain for an exchange rate"
    shares = {
        generator: f"{signed(rate.value)} ({signed(rate.low)} to {signed(rate.high)})"
        for generator, rate in headline.exchange_rates(results).items()
        if math.isfinite(rate.high)
    }
    said = [
        f"; {how}: {', '.join(f'{generators.label(generator)} {rate}' for generator, rate in rates.items())}"
        for how, rates in (
            ("as multiples of that gain (exchange rate), as many generated patches give", shares),
            ("by the curve of real patches, one generated patch is worth so many real ones", _by_curves(results)),
        )
        if rates
    ]
    return text + "".join(said) if said else f"{text}, too uncertain for an exchange rate"


def _by_curves(results: pd.DataFrame) -> dict[str, str]:
    """By generator, the exchange rate of as many patches without selection as real ones, from the curves of the probe;
    empty for the other device, and without curves that have intervals."""
    if not frame.is_probe(results):
        return {}
    n = curves.size(results)
    found = curves.exchange(curves.points(results), n)
    found = found[(found["n_synthetic"] == n) & (found["selection"] == "none") & found["low"].notna()]
    rates = {row.generator: curve_plots.rate(row) for row in found.itertuples()}
    return {name: rates[name] for name in generators_of(results) if name in rates}


def _device(results: pd.DataFrame) -> str:
    found = rivals.trust(results)
    if found.device is None:
        return f"{found.sentence[0].lower()}{found.sentence[1:]}, so differences between classifiers decide nothing"
    rival = paper.REGIME_NAMES[found.device.rival].lower()
    consequence = "" if found.measures else ", so differences between classifiers decide nothing"
    return (
        f"AUC {100 * found.device.auc:.1f} % against {100 * found.device.rival_auc:.1f} % by {rival},"
        f" {found.often}{consequence}"
    )


def _quality(results: pd.DataFrame) -> str:
    judges = frame.extractors(results)
    if not judges:
        return f"Quality of the images: {NOT_RUN}."
    return " ".join([findings.findings_quality(results, judges[0])[0], *findings.label_content(results)[:1]])


def _power(results: pd.DataFrame) -> str | None:
    rows = [row for row in headline.differences(results) if row.generator]
    if not rows:
        return None
    tests = [row.test for row in rows if row.test and math.isfinite(row.test.high)]
    if not tests:
        return NO_INTERVAL
    half = float(np.median([100 * (test.high - test.low) / 2 for test in tests]))
    could = "could" if half < 100 * LEAD else "could not"
    width = f"half of the 95 % interval of a use is {half:.2f} points (median)"
    return f"{width}, so the paper's largest gain ({points(LEAD)}) {could}"


def sentences(results: pd.DataFrame) -> list[str]:
    """Five sentences, plain text: the answer, the worth of real patches, the device, its power, and the images'
    quality."""
    devices = devices_of(results)
    found = []
    for heading, say, unsaid in (
        ("Do generated patches help?", _uses, f"no control of as many steps or no generated patches: {NOT_RUN}"),
        (
            "What are real patches worth?",
            _worth,
            f"twice the real patches: {NOT_RUN}, so no exchange rate either",
        ),
        ("Do the classifiers measure anything?", _device, ""),
        ("What could have been seen?", _power, NO_INTERVAL),
    ):
        said = {frame.DEVICES[device]: say(measured) for device, measured in devices.items()}
        texts = [unsaid]
        if any(said.values()):  # what was measured comes first, and once what was not
            parts = sorted(said.items(), key=lambda item: item[1] is None)
            parts = [(name, part or NO_ARMS) for name, part in parts if part or not found]
            texts = [f"{name}: {part}" if len(said) > 1 else part for name, part in parts]
        found.append(" ".join([heading, *(f"{text[0].upper()}{text[1:]}." for text in texts)]))
    return [*found, f"How good are the images? {_quality(results)}"]


# ------------------------------------------------------------------------------------------------ the page


def page(where: Path) -> str:
    """The chapter as MyST Markdown; where: the folder of published runs."""
    text = [
        "# The answer",
        "",
        "A classifier of lymph-node patches has few labelled patches, and a generator trained on these draws as many",
        "more as one likes. **Do they improve the classifier beyond what the same real patches give in as many",
        "training steps?**",
        "",
    ]
    runs = published_runs(where)
    if not runs:
        return "\n".join([*text, f"No run is published in this copy of the book: {NOT_RUN}.", ""])
    run = runs[0]
    devices = devices_of(run.results)
    alt = (
        "Differences of test AUC to the control of as many steps, with intervals: twice the real patches, traditional"
        " augmentation, and every generator by augmentation and by transfer learning. The values are in the tables of"
        " the published results."
    )
    named = {frame.DEVICES[device]: measured for device, measured in devices.items()}
    text += [bullets(run.results)]
    controls = [control.title for r in devices.values() if (control := rivals.stronger_control(r))]
    control = f" ({' and '.join(dict.fromkeys(controls))})" * bool(controls)
    text += [
        "",
        *picture(
            HEADLINE,
            alt,
            f"{result_plots.headline_takeaway(named)} A use joins the patches of a generator with real ones"
            " (augmentation) or learns from them first (transfer). Marks are means over subsets and selections, minus"
            f" the stronger control on real patches{control}; circles the subsets, lines 95 % t intervals.",
        ),
    ]
    evidence = [Printed(), *_measured(run)]
    text += [
        "The paper's claims, judged by the same rules on its own tables and on this run:",
        "",
        claim_table.linked(evidence),
        "",
    ]
    found = _sheets(run, where)
    if found:
        names = ", ".join(generators.label(g) for g in found)
        alt = f"Generated patches, a row per generator ({names}): left without tumour, right with"
        text += picture(STRIP, alt, result_plots.strip(found).get_label())
    else:
        text += [f"Generated patches of this run: {NOT_RUN} or not kept.", ""]
    text += [
        f"**On what.** {about(run.results, versions=False)} {plan_page.state(run.results, run.name, where)}".rstrip(),
        *_devices(run.results),
        "",
        "**Read on.** Tables and provenance: {doc}`reference`. Rules behind the verdicts: {doc}`claims`. The plan:",
        "{doc}`registration`. How to read it all: {doc}`/book/conclusion`. The run of this copy: {doc}`08_results`.",
        "",
    ]
    return "\n".join(text)


def _devices(results: pd.DataFrame) -> list[str]:
    """What measures, and how long the generators learned, as lines of a paragraph."""
    lines = []
    if frame.has_probe(results):
        lines += [
            "The linear probe is a logistic regression on frozen features of a network trained on photographs, the",
            "fine-tuned network one of the same kind whose weights are trained on the patches.",
        ]
    seen = frame.of_kind(results, "training")
    seen = seen.loc[seen["generator"] != "autoencoder", "value"]
    if len(seen):
        theirs = paper.PROTOCOL.generator_epochs * paper.PROTOCOL.subset_size
        lines.append(f"No generator saw more than {seen.max():,.0f} images in training; the paper's saw {theirs:,}.")
    return lines


def bullets(results: pd.DataFrame) -> str:
    """`sentences` as a Markdown list, each question bold."""
    parts = (sentence.split("? ", 1) for sentence in sentences(results))
    return "\n".join(f"- **{inert(question)}?** {inert(rest)}" for question, rest in parts)


def _measured(run: Published) -> list[Measured]:
    devices = devices_of(run.results)
    names = {d: frame.DEVICES[d] if len(devices) > 1 else "published run" for d in devices}
    return [Measured(measured, names[device]) for device, measured in devices.items()]


def picture(path: str, alt: str, caption: str) -> list[str]:
    """Lines of a MyST figure."""
    return [f":::{{figure}} {path}", f":alt: {inert(alt, 'html')}", "", inert(caption), ":::", ""]


def _sheets(run: Published, where: Path) -> dict[str, np.ndarray]:
    """The first row of every published sheet of patches as uint8 (N, 96, 96, 3), by generator."""
    found = {}
    for generator in _trained(run.results):
        path = where / "sheets" / run.name / f"{generator}.png"
        if path.exists():
            row = np.asarray(Image.open(path).convert("RGB"))[:SIDE]
            found[generator] = np.stack(np.split(row, row.shape[1] // SIDE, axis=1))
    return found


def _trained(results: pd.DataFrame) -> list[str]:
    """The generators whose classifiers a run has, in the order of every table and figure."""
    mixed = set(results.loc[results["regime"].isin((*MIXED, "synthetic")), "generator"].dropna())
    return [name for name in generators_of(results) if name in mixed]


def pictures(where: Path) -> dict[str, bytes]:
    """The page's pictures as PNG, by file name; none without a published run."""
    runs = published_runs(where)
    if not runs:
        return {}
    run = runs[0]
    named = {frame.DEVICES[device]: measured for device, measured in devices_of(run.results).items()}
    made = {HEADLINE: _png(result_plots.headline(named))}
    if found := _sheets(run, where):
        made[STRIP] = _png(result_plots.strip(found))
    return made


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
