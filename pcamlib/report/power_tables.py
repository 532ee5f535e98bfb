"""Tables of what a run can show: what slides do to the test, detectable effects, and where the spread comes from."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from pcamlib.report.tables import NOT_PRINTED, Table, arm_rows, points
from pcamlib.results import frame
from pcamlib.results.arms import TRADITIONAL, Arm
from pcamlib.results.planning import LEAD


def table_slides(found: dict[str, Any] | None, title: str = "What slides do to the test") -> Table | None:
    """Intraclass correlation and effective sample size by arm, from a result of `intervals.evaluate`; None without
    slides.

    Of the arms with synthetic images those without selection are shown.
    """
    rows = [row for row in (found or {}).get("design") or [] if row["selection"] in (None, "none")]
    if not rows:
        return None
    columns: dict[tuple[str, str], list[str]] = {}
    for key, words in (("auc", "AUC"), (TRADITIONAL.name, "Difference to traditional augmentation")):
        values = [row[key] for row in rows]
        for name, heading, form in (
            ("icc", "ICC", "{:.3f}"),
            ("effect", "design effect", "{:.2f}"),
            ("effective", "effective patches", "{:,.0f}"),
        ):
            known = [None if v is None else v[name] for v in values]
            columns[words, heading] = [NOT_PRINTED if x is None else form.format(x).replace("-", "−") for x in known]
    arms = [Arm(row["regime"], row["generator"], row["selection"]) for row in rows]
    notes = (
        f"{found['test_n']:,} test patches of {found['slides']:,} slides. ICC: intraclass correlation of what each"
        " patch adds to the AUC, within slides. Design effect: variance over slides divided by that over patches."
        " Effective patches: how many independent patches would know as much; more than there are where slides cancel"
        f" out. Means over subsets and seeds. {frame.provenance_note(found['provenance'])}"
    )
    line = f"{found['test_n']:,} test patches of {found['slides']:,} slides."
    return Table(title, pd.DataFrame(columns, index=arm_rows(arms)), notes, line)


def table_coverage(found: dict[str, float], about: str) -> Table:
    """How often 95 % intervals over slides and over patches hold the truth, from `clusters.coverage`; about: what was
    simulated."""
    columns = {
        words: [f"{100 * found[f'{unit}{what}']:.1f}" for unit in ("slide", "patch")]
        for words, what in (("AUC, % of studies", ""), ("Difference of two arms, % of studies", " difference"))
    }
    error = 100 * math.sqrt(0.95 * 0.05 / found["studies"])
    notes = (
        f"Share of {found['studies']:,.0f} simulated studies whose 95 % interval holds the true value: 95 is right; a"
        f" share of 95 has a standard error of {error:.1f}. {about}"
    )
    index = ["Over slides", "Over patches, as if each were from a slide of its own"]
    line = f"{found['studies']:,.0f} simulated studies."
    return Table("Coverage of 95 % intervals", pd.DataFrame(columns, index=index), notes, line)


def table_power(found: dict[str, Any] | None, title: str = "What this run could have shown") -> Table:
    """Minimum detectable effects by arm, in points of AUC, from a result of `intervals.evaluate`."""
    rows = found["power"] if found else []
    columns = {"subsets, seeds": [f"{row['subsets']:.0f}, {row['seeds']:.0f}" for row in rows]}
    columns |= {
        words: _hundredths(rows, key)
        for words, key in (
            ("sd over subsets", "sd"),
            ("detectable", "detectable"),
            ("… with 18 arms", "detectable_all"),
            ("… on new patches", "new_patches"),
        )
    }
    columns[f"subsets needed for {points(LEAD)}"] = [
        NOT_PRINTED if row["needed"] is None else f"{row['needed']:,.0f}" for row in rows
    ]
    notes = (
        "Difference to traditional augmentation, in points of AUC. sd: of one subset's difference. Detectable: the"
        " smallest effect found with 80 % power at 5 %, by a t test over the subsets of this run. With 18 arms: with"
        " Bonferroni's correction for the paper's eighteen arms with synthetic and real images. New patches: as a"
        f" statement about other test patches too. {points(LEAD)}: the paper's largest gain."
    )
    return _power(found, title, columns, notes)


def table_components(found: dict[str, Any] | None, title: str = "Where the spread comes from") -> Table:
    """Components of variance of every arm's difference to traditional augmentation, in points of AUC; `found` as
    above."""
    parts = (
        ("subsets", "subset"),
        ("seeds", "seed"),
        ("patches, by subset", "patch_subset"),
        ("patches, alike", "patch"),
    )
    columns = {f"sd: {words}": _hundredths(found["power"] if found else [], key) for words, key in parts}
    notes = (
        "Standard deviations of the parts of a difference to traditional augmentation, in points of AUC. A component of"
        " 0.00 was estimated at or below zero; with one seed, subsets include what seeds add."
    )
    return _power(found, title, columns, notes)


def _hundredths(rows: list[dict[str, Any]], key: str) -> list[str]:
    return [NOT_PRINTED if row[key] is None else f"{100 * row[key]:.2f}" for row in rows]


def _power(found: dict[str, Any] | None, title: str, columns: dict[str, list[str]], notes: str) -> Table:
    rows = found["power"] if found else []
    arms = [Arm(row["regime"], row["generator"], row["selection"]) for row in (found["rows"] if found else [])]
    titles = {arm.name: arm.title for arm in arms}
    line = "Points of AUC, from the kept test scores."
    if not rows:
        notes, line = "", "No test scores of two subsets were kept, so the components of variance are unknown."
    return Table(title, pd.DataFrame(columns, index=[titles[row["arm"]] for row in rows]), notes, line)
