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
from pcamlib.results import frame, rivals
from pcamlib.results.arms import CONTROLS, NO_NETWORK, Arm, classifiers, generators_of
from pcamlib.results.frame import NOT_RUN

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
