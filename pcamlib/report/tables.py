"""Table 2 with the paper beside our run, paired differences, and how tables are made and rendered.

A table is a data frame of text that pandas' Styler renders as HTML. Table 1 is in `quality_tables`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pandas.io.formats.style import Styler

from pcamlib.core import paper
from pcamlib.core.files import digest
from pcamlib.core.text import inert
from pcamlib.models import generators
from pcamlib.results import frame, inference, intervals, rivals
from pcamlib.results.arms import BASELINE, CONTROLS, NO_NETWORK, TRADITIONAL, Arm, classifiers, generators_of
from pcamlib.results.frame import CALIBRATION_BINS, NOT_RUN
from pcamlib.results.loading import ONE_CLASS

NOT_PRINTED = "–"
WITH_PATCHES = "95 % interval with patches"
SMALL_N = (
    "An interval over subsets, a p value and a verdict need two subsets: with one there is none, and with two the t"
    " interval is very wide."
)
"""The rule for few subsets, the same for tables, figures, sentences and verdicts."""
ONE_SUBSET = "one subset: none"
NO_SPREAD = "none: the same in every subset"
NOT_COMPARABLE = "of another protocol, so it is not comparable with ours in absolute value"
HEADINGS = {
    "fid": "Fréchet distance (FID) ↓",
    "precision": "Precision, % ↑",
    "recall": "Recall, % ↑",
    "f1": "F1, % ↑",
    "fid_infinity": "FID∞ ↓",
    "fid_held_out": "Fréchet distance to held-out patches ↓",
    "vendi": "Vendi score ↑",
    "label_auc": "Label AUC, % ↑",
    "kid": "KID × 1000 ↓",
    "density": "Density ↑",
    "coverage": "Coverage, % ↑",
    "accuracy": "Accuracy, % ↑",
    "auc": "AUC, % ↑",
    "sensitivity": "Sensitivity, % ↑",
    "specificity": "Specificity, % ↑",
    "ece": "Calibration error, % ↓",
}


class Table(NamedTuple):
    """A table of text. `data` has its rows by name, or by (section, name), its columns by heading, or by (group,
    heading)."""

    title: str
    data: pd.DataFrame
    notes: str = ""
    """What is needed to read the numbers, in full; shown on demand below `line`."""
    line: str = ""
    """What is always seen below the table: a few words on where its numbers come from."""


# ------------------------------------------------------------------------------------------------ as HTML

STYLES = {
    "": "font-variant-numeric: tabular-nums; font-size: 0.8em",
    "caption": "caption-side: top; text-align: left; font-weight: bold; max-width: 85vw; position: sticky; left: 0",
    "th, td": "padding: 0.2em 0.35em; text-align: left; white-space: normal",
    "td.pcam-number": "white-space: nowrap",  # words may break, or a column of verdicts would crowd out the rules
    "th[scope=colgroup]": "text-align: center",
    "th[scope=rowgroup] span": "position: sticky; left: 0.5em",
    "th[scope=row], thead td": (
        "position: sticky; left: 0; min-width: min(9em, 35vw); "
        "background: var(--pst-color-background, var(--jp-layout-color0, Canvas))"
    ),
}
"""By selector within the table. The book's theme styles the class `dataframe` in light and dark mode, as pandas'
own."""


_Styler = Styler.from_custom_template(str(Path(__file__).parent), html_table="table.tpl")


def render(table: Table) -> str:
    """HTML of a table. Wide ones scroll within their box, while the names of the rows stay in view."""
    styler = _Styler(table.data, uuid=digest([table.title, table.data.to_csv()]), cell_ids=False)
    as_html = functools.partial(inert, form="html")
    styler.format(as_html).format_index(as_html, axis=0).format_index(as_html, axis=1)
    styler.set_caption(as_html(table.title))
    styler.set_table_styles([{"selector": selector, "props": props} for selector, props in STYLES.items()])
    texts = {"notes": as_html(table.notes), "line": as_html(table.line)}
    html = styler.to_html(sparse_index=True, sparse_columns=True, **texts)
    return " ".join(html.split())  # in Markdown, HTML ends at a blank line


def folded(title: str, *html: str) -> str:
    """HTML behind a line that opens it: the title is plain text."""
    return f'<details class="pcam-more"><summary>{inert(title, "html")}</summary>{" ".join(html)}</details>'


# ------------------------------------------------------------------------------------------------ cells


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return signed(100 * value)


def signed(value: float) -> str:
    """Two decimals with a sign, the minus a real one."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0 turns −0.00 into +0.00


def span(low: float, high: float) -> str:
    """An interval of differences of fractions, in percentage points; values without spread have none."""
    return f"{points(low)} to {points(high)}" if math.isfinite(high - low) else NO_SPREAD


def cell(mean: float, sd: float, n: int, metric: str, of: int) -> str:
    """Text like "85.05 ± 0.43", percent for what is a share, KID times 1000, with n where it is one or fewer than `of`
    subsets."""
    factor = {"density": 1, "vendi": 1, "kid": 1000}.get(metric, 1 if metric.startswith("fid") else 100)
    digits = 3 if metric.startswith("fid") and abs(mean) < 10 else 2  # in a judge's space distances can be small
    spread = f" ± {factor * sd:.{digits}f}" if n > 1 else ""
    return f"{factor * mean:.{digits}f}{spread}" + ("" if n == of and n > 1 else f" (n = {n:.0f})")


def cells(
    results: pd.DataFrame, metric: str, arms: Iterable[Arm], extractor: str | None = None, missing: str = NOT_RUN
) -> list[str]:
    """Mean and standard deviation of a metric for each arm (see `cell`)."""
    found, of = frame.summary(results, metric, extractor), results["subset"].nunique()
    return [cell(*found.loc[arm.name], metric, of) if arm.name in found.index else missing for arm in arms]


def counts(lines: pd.DataFrame, column: str) -> dict[str, str]:
    """Counts by arm, for example "256"; a range where subsets differ."""
    found = lines.groupby("arm")[column].agg(["min", "max"])
    return {arm: f"{low:,}" if low == high else f"{low:,}–{high:,}" for arm, low, high in found.itertuples()}


def listed(values: Iterable[Any], separator: str = ", ", missing: str = NOT_RUN) -> str:
    """The distinct values in ascending order, for example "1,000, 1,200"."""
    found = sorted({value for value in values if not pd.isna(value)})
    texts = [f"{v:,}" if isinstance(v, Integral) else f"{v:g}" if isinstance(v, float) else v for v in found]
    return separator.join(texts) or missing


def provenance_sentence(results: pd.DataFrame, kind: str) -> str:
    """Where the numbers of one kind come from."""
    files = results[(results["kind"] == kind) & results["data"].notna()]
    return frame.provenance_note(frame.merged_provenance(files)) if len(files) else "Nothing was run yet."


def arms_of(results: pd.DataFrame) -> list[Arm]:
    """The arms that tables show: the paper's and the controls, and of our other arms those that the results have."""
    there = set(results.loc[results["kind"] == "classification", "arm"])
    arms = classifiers(generators_of(results))
    return [arm for arm in arms if not arm.control or arm in CONTROLS or arm.name in there]


def line(results: pd.DataFrame, kind: str) -> str:
    """The line below a table of one kind of results: what its values are, of which data and code; no more than fits a
    line."""
    files = results[(results["kind"] == kind) & results["data"].notna()]
    if files.empty:
        return "Nothing was run yet."
    made = frame.merged_provenance(files)
    count = len(made["subsets"])
    values = f"Mean ± standard deviation over {count} subsets" if count > 1 else "One subset"
    data = "phantom (no tissue)" if made["phantom"] else made["data"]
    return (
        f"{values}; {data}, {listed(made['n_real'])} patches; profile {made['profile']}; pcamlib"
        f" {listed(made['version'])}."
    )


def device_note(results: pd.DataFrame) -> str:
    """Whether the classifiers measure anything; without that there is no verdict, and this sentence is in its place."""
    found = rivals.trust(results)
    return f"{'' if found.measures else 'No verdict. '}{found.sentence}."


def arm_rows(arms: Sequence[Arm]) -> pd.MultiIndex:
    """Section and name of each arm; a name leaves out what its section says."""
    names = []
    for arm in arms:
        selection = f" ({paper.SELECTION_NAMES.get(arm.selection)})"
        if arm.regime in NO_NETWORK:
            names.append(("Trivial baselines (ours)", arm.title))
        elif arm.regime in paper.STRONG:
            names.append(("Stronger augmentation of real images (ours)", arm.title))
        elif arm.control:
            names.append(("Controls (ours, not in the paper)", arm.title))
        elif arm.generator is None:
            names.append(("Real images only", arm.title))
        elif arm.regime == "synthetic":
            names.append(("Synthetic images only", generators.label(arm.generator) + selection))
        else:
            names.append(
                (
                    paper.SELECTION_HEADINGS[arm.selection],
                    f"{generators.label(arm.generator)} {paper.REGIME_NAMES[arm.regime]}",
                )
            )
    return pd.MultiIndex.from_tuples(names)


# ------------------------------------------------------------------------------------------------ the tables


def table_2(results: pd.DataFrame, found: dict[str, Any] | None = None) -> Table:
    """Our Table 2 in the paper's order, then synthetic-only training (its Figure 6), then our controls.

    results: as one device measured them (`frame.by_device`). found: the result of `intervals.evaluate`, for the
    intervals of the AUC; without, they are Student's t.
    """
    ran, ends, arms = frame.of_kind(results, "classification"), intervals.table(found, "auc"), arms_of(results)
    real, synthetic = counts(ran, "n_real"), counts(ran, "n_synthetic")
    seeds = ran.groupby(["arm", "subset"])["seed"].nunique()
    images = [f"{real.get(a.name)} + {synthetic.get(a.name)}" if a.generator else real.get(a.name) for a in arms]
    values = frame.by_subset(ran, "auc")
    columns = {
        "real + synthetic images": [x if a.name in real else NOT_RUN for a, x in zip(arms, images)],
        "seeds": [listed(seeds[a.name], "–") if a.name in real else NOT_RUN for a in arms],
        HEADINGS["auc"]: cells(results, "auc", arms),
        "95 % interval of the AUC": [
            _auc_interval(values[a.name].dropna().tolist(), ends, a) if a.name in values else NOT_RUN for a in arms
        ],
    }
    how = f"over subsets, seeds and test patches. {intervals.caution(found)}"
    if not len(ends):
        how = "Student's t over subsets, on the same test patches."
    notes = (
        f"{device_note(results)} {_tested(ran)} Intervals: {how} {SMALL_N}"
        f" {provenance_sentence(results, 'classification')} The paper's Table 2 is {NOT_COMPARABLE}."
    )
    title = "Table 2. AUC on the test split"
    if frame.is_probe(results):
        title = "Table 2 by probes. AUC of regressions on frozen features, on the test split"
    return Table(title, pd.DataFrame(columns, index=arm_rows(arms)), notes, _classified(results))


def table_2_more(results: pd.DataFrame) -> Table:
    """The other metrics of our Table 2, in the same rows, at one decision threshold; and the calibration error."""
    arms = arms_of(results)
    columns = {HEADINGS[m]: cells(results, m, arms) for m in ("accuracy", "sensitivity", "specificity", "ece")}
    notes = (
        f"{device_note(results)} {_tested(frame.of_kind(results, 'classification'))} Calibration error (not in the"
        f" paper): expected gap between probability and share of tumour, {CALIBRATION_BINS} equal bins."
        f" {provenance_sentence(results, 'classification')}"
    )
    title = f"Table 2{' by probes' * frame.is_probe(results)}, continued. Other metrics on the test split"
    return Table(title, pd.DataFrame(columns, index=arm_rows(arms)), notes, _classified(results))


def _tested(ran: pd.DataFrame) -> str:
    return (
        f"Mean ± standard deviation over subsets, on {listed(ran['test_n'], ' or ', 'no')} test patches, decision"
        f" threshold {listed(ran['threshold'], ' or ', '–')}. Where an arm was trained with several seeds, a subset's"
        " value is their mean."
    )


def _classified(results: pd.DataFrame) -> str:
    """The line below a table of classifiers."""
    return "No verdict. " * (not rivals.trust(results).measures) + line(results, "classification")


def paper_table_2() -> Table:
    """Table 2 as the paper prints it, in percent."""
    arms = [Arm(row.regime, row.generator, row.selection) for row in paper.TABLE_2]
    metrics = ("auc", "accuracy", "sensitivity", "specificity")
    columns = {HEADINGS[metric]: [getattr(row, metric).printed for row in paper.TABLE_2] for metric in metrics}
    notes = (
        "ResNet18 pretrained on ImageNet, full PCam, five subsets of 26,215 patches, 100 epochs. We read ± as the"
        " standard deviation over subsets. The paper shows training on synthetic images only as a figure (6), without"
        " numbers."
    )
    title = "Table 2 of the paper. Classification of the test split"
    return Table(title, pd.DataFrame(columns, index=arm_rows(arms)), notes, "As printed in the paper.")


def _auc_interval(values: list[float], ends: pd.DataFrame, arm: Arm) -> str:
    """The interval of an AUC in percent, or Student's t over two subsets or more, cut off at 0 and 100."""
    if arm.name in ends.index:
        low, high = ends.loc[arm.name, ["low", "high"]]
    elif len(values) < 2:
        return ONE_SUBSET
    else:
        low, high = inference.over_subsets(values)[1:3]
    return f"{100 * max(low, 0):.2f} to {100 * min(high, 1):.2f}" if math.isfinite(high - low) else NO_SPREAD


def tables_differences(results: pd.DataFrame, metric: str = "auc", found: dict[str, Any] | None = None) -> list[Table]:
    """Every arm minus a reference, paired by subset, in percentage points: a table each for traditional augmentation,
    for the stronger step control and for the baseline.

    results, found: as for `table_2`; the intervals of `found` are of the AUC, so for other metrics they are not shown.
    """
    ran, of, arms = frame.of_kind(results, "classification"), results["subset"].nunique(), arms_of(results)
    found = found if metric == "auc" else None
    references = {TRADITIONAL: "traditional augmentation"}
    stronger = rivals.stronger_control(results)
    if stronger and stronger != TRADITIONAL:
        references[stronger] = f"the stronger control ({stronger.title})"
    references[BASELINE] = "baseline"
    how = "No test scores were kept, so no interval covers test patches. q: p values of the t test"
    if found:
        how = (
            f"{WITH_PATCHES}: a t interval over subsets, seeds and the {found['test_n']:,} test patches, each source of"
            " variance counted once; with one subset, of seeds and patches only; with one seed, nothing of the spread"
            f" of seeds. {intervals.caution(found)} q: its p values"
        )
    notes = (
        f"{device_note(results)} Differences of {HEADINGS[metric].split(',')[0]} in percentage points to the reference"
        f" trained on the same subset. {provenance_sentence(results, 'classification')} {SMALL_N} t intervals: over"
        f" subsets alone, on the same test patches. Exact p: two-sided, at best {2 / 2**of:.3g} with {of}"
        f" subset{'s' * (of != 1)}. g: mean over standard deviation, corrected for few subsets (Hedges), from three"
        f" subsets on. {how}, adjusted (Benjamini and Hochberg) for the number of arms of its family: real and"
        " synthetic images, synthetic only, real only. Differences that are equal in all subsets have no interval, and"
        " the exact p. Stronger control: of the arms on real images with as many steps, the one with the higher mean."
    )
    below, made = _classified(results), []
    for against, name in references.items():
        tests, each = inference.compared(ran, against, metric), frame.differences(ran, against, metric)
        ends = intervals.table(found, against.name)
        q = ends["q"].dropna().to_dict()
        if not len(ends):
            tested = [a for a in arms if a.name in tests.index and tests.loc[a.name, "n"] >= 2]
            adjusted = inference.false_discovery({a: tests.loc[a.name, "p"] for a in tested})
            q = {a.name: p for a, p in adjusted.items()}
        texts = [_difference(a, against, tests, each, ends, q, of) for a in arms]
        headings = ("mean ± sd", WITH_PATCHES, "q", "95 % t interval", "exact p", "g")
        columns = {heading: list(column) for heading, column in zip(headings, zip(*texts), strict=True)}
        title = f"Paired differences{' of probes' * frame.is_probe(results)}: minus {name}"
        made.append(Table(title, pd.DataFrame(columns, index=arm_rows(arms)), notes, below))
    return made


def _difference(
    arm: Arm, against: Arm, tests: pd.DataFrame, each: pd.DataFrame, ends: pd.DataFrame, q: dict[str, float], of: int
) -> list[str]:
    """The six cells of an arm in the table of differences to `against`."""
    if arm == against:
        return ["reference", *[""] * 5]
    if arm.name not in tests.index:
        return [NOT_RUN] * 6
    test, values = tests.loc[arm.name], each[arm.name].dropna()
    no_q = ONE_SUBSET
    if len(ends):
        no_q = NOT_RUN if arm.name not in ends.index else NOT_PRINTED if len(values) > 1 else ONE_SUBSET
    fewer = "" if len(values) == of else f" (n = {len(values)})"
    return [
        points(test["mean"]) + (f" ± {100 * test['sd']:.2f}" if len(values) > 1 else "") + fewer,
        span(*ends.loc[arm.name, ["low", "high"]]) if arm.name in ends.index else NOT_RUN,
        f"{q[arm.name]:.3f}" if arm.name in q else no_q,
        ONE_SUBSET if len(values) < 2 else span(test["low"], test["high"]),
        ONE_SUBSET if len(values) < 2 else NOT_PRINTED if math.isnan(test["flip_p"]) else f"{test['flip_p']:.3g}",
        NOT_PRINTED if math.isnan(test["effect"]) else signed(test["effect"]),
    ]


def table_centres(results: pd.DataFrame) -> Table | None:
    """AUC of every arm by the centre of the test patches; None where centres are not known or nothing was tested by
    them.

    results: as one device measured them (`frame.by_device`).
    """
    ran = frame.of_kind(results, "classification")
    auc, patches = (ran[ran["metric"] == metric] for metric in frame.BY_CENTRE)
    sizes = patches.groupby("centre")["value"].max()
    if sizes.empty:
        return None
    arms, of, columns = arms_of(results), results["subset"].nunique(), {}
    for centre, size in sizes.items():
        found = frame.summary(auc[auc["centre"] == centre], "auc_centre")
        columns[f"{centre} ({size:,.0f} patches)"] = [
            cell(*found.loc[arm.name], "auc", of) if arm.name in found.index else NOT_RUN for arm in arms
        ]
    one_class = results.loc[results["reason"] == ONE_CLASS, "centre"].dropna().unique()
    lacking = f" Without an AUC, because their test patches are of one class: {', '.join(sorted(one_class))}." * bool(
        len(one_class)
    )
    notes = (
        f"{device_note(results)} AUC in percent on the test patches of each centre, mean ± standard deviation over"
        f" subsets. Centres differ in stain, scanner and difficulty, so compare within a column.{lacking}"
        f" {provenance_sentence(results, 'classification')}"
    )
    title = "AUC by centre" + ", by probes" * frame.is_probe(results)
    return Table(title, pd.DataFrame(columns, index=arm_rows(arms)), notes, _classified(results))


def table_provenance(results: pd.DataFrame) -> Table:
    """What the numbers of this run are, one fact a line."""
    provenance = frame.merged_provenance(results)
    judged, ran = frame.of_kind(results, "quality"), frame.of_kind(results, "classification")
    phantom = "phantom: procedural patches, so nothing here is a finding about tissue"
    facts = {
        "data": (phantom if provenance["phantom"] else provenance["data"], "PatchCamelyon, 327,680 patches"),
        "subsets": (str(len(provenance["subsets"])), str(paper.PROTOCOL.subsets)),
        "real patches per subset": (listed(provenance["n_real"]), f"{paper.PROTOCOL.subset_size:,}"),
        "test patches": (listed(ran["test_n"]), f"{paper.PROTOCOL.test:,}"),
        "classifier epochs": (listed(ran["epochs"]), f"{paper.PROTOCOL.classifier_epochs}"),
        "quality judged by": (", ".join(frame.extractors(results)) or NOT_RUN, "Inception-V3 for FID; else not stated"),
        "k of the manifolds": (listed(judged["k"]), "not stated"),
        "device": (listed(provenance["device"]), "NVIDIA TITAN X"),
        "time, all stages added up": (frame.duration(provenance["seconds"]), "not stated"),
        "profile and version": (f"{provenance['profile']}, pcamlib {listed(provenance['version'])}", "–"),
    }
    return Table("This run and the paper's", pd.DataFrame(facts, index=["this run", "paper"]).T)
