"""Tables of classifiers: Table 2 and what was added to it, differences, and AUC by centre."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from pcamlib.core import paper
from pcamlib.report.tables import (
    HEADINGS,
    NO_SPREAD,
    NOT_COMPARABLE,
    NOT_PRINTED,
    ONE_SUBSET,
    SMALL_N,
    WITH_PATCHES,
    Table,
    arm_rows,
    arms_of,
    cell,
    cells,
    counts,
    device_note,
    line,
    listed,
    points,
    provenance_sentence,
    signed,
    span,
)
from pcamlib.results import frame, inference, intervals, rivals
from pcamlib.results.arms import BASELINE, TRADITIONAL, Arm
from pcamlib.results.frame import CALIBRATION_BINS, NOT_RUN
from pcamlib.results.loading import ONE_CLASS


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
