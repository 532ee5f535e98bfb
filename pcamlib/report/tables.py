"""Table 2 with the paper beside our run, paired differences, and how a table becomes HTML; Table 1 is `quality_tables`.

Tables are lists of plain row dicts of text, rendered as HTML that scrolls within its own box.
"""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from pcamlib.core import paper
from pcamlib.results import frame, inference
from pcamlib.results.arms import all_arms, arm_name
from pcamlib.results.frame import BASELINE, METRICS, NOT_RUN, TRADITIONAL, Arm, Row, Summary

NOT_PRINTED = "–"
HEADINGS = {
    "fid": "Fréchet distance (FID) ↓",
    "precision": "Precision, % ↑",
    "recall": "Recall, % ↑",
    "f1": "F1, % ↑",
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
    """Rows of text. Each has "section", "label" and one entry per column key; `head` names the columns.

    `head` is a list of (heading, {column key: sub-heading}).
    """

    title: str
    head: list[tuple[str, dict[str, str]]]
    rows: list[Row]
    caption: str


def cell(summary: Summary | None, metric: str, of: int) -> str:
    """Text like "85.05 ± 0.43", percent for what is a share, KID times 1000, with n where it is one or fewer than `of` subsets."""
    if summary is None:
        return NOT_RUN
    factor = {"fid": 1, "density": 1, "kid": 1000}.get(metric, 100)
    n = len(summary.values)
    digits = 3 if metric == "fid" and summary.mean < 10 else 2  # in a judge's space distances can be small
    spread = "–" if summary.sd is None else f"{factor * summary.sd:.{digits}f}"
    count = "" if n == of and n > 1 else f" (n = {n})"
    return f"{factor * summary.mean:.{digits}f} ± {spread}{count}"


def image_counts(rows: list[Row], arm: Arm, *keys: str) -> str:
    """Image counts of an arm, e.g. "256 + 256"; a range where subsets differ."""
    found = [row for row in rows if frame.arm_of(row) == arm and row["status"] == "ok"]
    if not found:
        return NOT_RUN
    spans = [(min(row[key] for row in found), max(row[key] for row in found)) for key in keys]
    return " + ".join(f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in spans)


def table_2(rows: list[Row], bootstrap: Row | None = None) -> Table:
    """Table 2 in the paper's order, then synthetic-only training (its Figure 6), then our controls.

    bootstrap: the result of `inference.evaluate`, for the intervals of the AUC; without, they are Student's t.
    """
    drawn = inference.intervals(bootstrap, "auc")
    found = frame.of_kind(rows, "classification")
    metrics = METRICS["classification"]
    of = len({row["subset"] for row in rows})

    lines = []
    for arm in all_arms():
        regime, generator, selection = arm
        printed = None
        if paper.has_classification(selection, generator, regime):
            printed = paper.classification(selection, generator, regime)
        counts = ("n_real", "n_synthetic") if generator else ("n_real",)
        row = {"section": _section(arm), "label": _label(arm), "images": image_counts(found, arm, *counts)}
        row["seeds"] = "–".join(str(n) for n in sorted(set(frame.seeds(found, arm)))) or NOT_RUN
        for metric in metrics:
            row[f"{metric} paper"] = getattr(printed, metric).printed if hasattr(printed, metric) else NOT_PRINTED
            row[metric] = cell(frame.summary(found, arm, metric), metric, of)
        row["auc interval"] = _auc_interval(frame.summary(found, arm, "auc"), drawn.get(arm))
        lines.append(row)
    head = [("Training", {"images": "real + synthetic images", "seeds": "seeds"})]
    head += [(HEADINGS[metric], {f"{metric} paper": "paper", metric: "ours"}) for metric in metrics]
    dict(head)[HEADINGS["auc"]]["auc interval"] = "95 % interval"
    dict(head)[HEADINGS["ece"]].pop("ece paper")
    ran = [row for row in found if row["status"] == "ok"]
    tests = " or ".join(f"{n:,}" for n in sorted({row["test_n"] for row in ran})) or "no"
    thresholds = " or ".join(f"{t:g}" for t in sorted({row["threshold"] for row in ran})) or "–"
    caption = (
        f"Mean ± standard deviation over subsets, on {tests} test patches, decision threshold {thresholds}; where an arm was "
        "trained with several seeds, a subset's value is the mean over them. Calibration error: expected gap between "
        f"the probability of tumour and the share of tumour in {frame.CALIBRATION_BINS} equal bins, not in the paper. Intervals: "
        f"{'bootstrap over subsets, seeds and test patches' if drawn else 't over subsets'}. {inference.TOO_NARROW} "
        f"Ours: {provenance_sentence(found)} Paper: ResNet18 pretrained on ImageNet, full PCam, five subsets of 26,215, "
        "100 epochs, so its columns are not comparable with ours in absolute value: compare differences to "
        "traditional augmentation. It shows synthetic-only training in its Figure 6 alone, without numbers."
    )
    return Table("Table 2. Classification of the test split", head, lines, caption)


def _auc_interval(summary: Summary | None, drawn: Row | None) -> str:
    """The bootstrap's interval of an AUC in percent, or Student's t over three subsets or more, cut off at 0 and 100."""
    if summary is None:
        return NOT_RUN
    if drawn:
        return f"{100 * max(drawn['low'], 0):.2f} to {100 * min(drawn['high'], 1):.2f}"
    n = len(summary.values)
    if n < 3:
        return f"n = {n} < 3"
    test = inference.over_subsets(summary.values)
    return f"{100 * max(test.low, 0):.2f} to {100 * min(test.high, 1):.2f}"


def table_differences(rows: list[Row], metric: str = "auc", bootstrap: Row | None = None) -> Table:
    """Every arm minus baseline and minus traditional augmentation, paired by subset, in percentage points.

    bootstrap: the result of `inference.evaluate`; it is of the AUC, so for other metrics it is not shown.
    """
    found = frame.of_kind(rows, "classification")
    of = len({row["subset"] for row in rows})
    bootstrap = bootstrap if metric == "auc" else None
    lines = [{"section": _section(arm), "label": _label(arm)} for arm in all_arms()]
    columns = {
        "mean": "mean ± sd", "each": "each subset", "interval": "95 % t interval", "flip": "exact p (sign flips)",
        "effect": "effect size g", "bootstrap": "95 % bootstrap interval", "q": "q among its like",
    }  # fmt: skip
    for against in (BASELINE, TRADITIONAL):
        key, tests = against[0], inference.compared(found, against, metric)
        drawn = inference.intervals(bootstrap, key)
        if drawn:
            q = {arm: row["q"] for arm, row in drawn.items() if row["q"] is not None}
        else:
            q = inference.false_discovery({arm: test.p for arm, test in tests.items() if test.n >= 3})
        for arm, row in zip(all_arms(), lines, strict=True):
            row |= dict.fromkeys((f"{key} {column}" for column in columns), NOT_RUN if arm != against else "")
            row[f"{key} mean"] = NOT_RUN if arm != against else "reference"
            difference = frame.paired(found, arm, against, metric) if arm != against else None
            if not difference:
                continue
            row[f"{key} mean"] = f"{points(difference.mean)} ± " + (
                "–" if difference.sd is None else f"{100 * difference.sd:.2f}"
            )
            each = {k: points(value) for k, value in difference.values.items()}
            row[f"{key} each"] = ", ".join(
                each.values() if len(each) == of else (f"subset {k}: {value}" for k, value in each.items())
            )
            few = f"n = {len(difference.values)} < 3"
            row[f"{key} interval"] = few if difference.low is None else span(difference.low, difference.high)
            test = tests.get(arm)
            row[f"{key} flip"] = few if test is None else NOT_PRINTED if test.flip_p is None else f"{test.flip_p:.3g}"
            row[f"{key} effect"] = f"{signed(test.effect)}" if test and test.effect is not None else NOT_PRINTED
            row[f"{key} bootstrap"] = span(drawn[arm]["low"], drawn[arm]["high"]) if arm in drawn else NOT_RUN
            row[f"{key} q"] = f"{q[arm]:.3f}" if arm in q else NOT_RUN if drawn and arm not in drawn else few
    head = [
        (f"minus {name}", {f"{key} {column}": text for column, text in columns.items()})
        for key, name in (("baseline", "baseline"), ("traditional", "traditional augmentation"))
    ]
    if bootstrap:
        how = (
            f"Bootstrap: {bootstrap['draws']:,} redraws of subsets, classifier seeds and the {bootstrap['test_n']:,} test "
            "patches at once, with one subset of the two latter only; of an arm with one seed it shows nothing of the "
            "seed's spread. q: its p values,"
        )
    else:
        how = "No bootstrap: test scores were not kept. q: p values of the t test (three subsets or more),"
    caption = (
        f"Differences of {HEADINGS[metric].split(',')[0]} in percentage points, each arm against the "
        f"reference trained on the same subset. {provenance_sentence(found)} g: mean over standard deviation, corrected for few "
        f"subsets (Hedges). Exact p: two-sided, at best {2 / 2**of:.3g} with {of} subset{'s' * (of != 1)}. {how} adjusted for the "
        f"number of arms of its kind: with real and synthetic images, synthetic only, real only (Benjamini and Hochberg). t intervals cover the choice of the subset only. {inference.TOO_NARROW}"
    )
    return Table("Paired differences", head, lines, caption)


def table_provenance(rows: list[Row]) -> Table:
    """What the numbers of this run are, one fact a line."""
    provenance = frame.merged_provenance(rows)
    judged = [row for row in frame.of_kind(rows, "quality") if row["status"] == "ok"]
    ran = [row for row in frame.of_kind(rows, "classification") if row["status"] == "ok"]

    def listed(values: object) -> str:
        return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in values) or NOT_RUN

    epochs = sorted({row["epochs"] for row in ran})
    facts = {
        "data": (
            "phantom: procedural patches, a stand-in; nothing here is a finding about tissue"
            if provenance["phantom"]
            else provenance["data"],
            "PatchCamelyon, 327,680 patches",
        ),
        "subsets": (str(len(provenance["subsets"])), str(paper.PROTOCOL.subsets)),
        "real patches per subset": (listed(provenance["n_real"]), f"{paper.PROTOCOL.subset_size:,}"),
        "test patches": (listed(sorted({row["test_n"] for row in ran})), f"{paper.PROTOCOL.test:,}"),
        "classifier epochs": (listed(epochs), f"{paper.PROTOCOL.classifier_epochs}"),
        "quality judged by": (listed(frame.extractors(rows)), "Inception-V3 for FID; else not stated"),
        "k of the manifolds": (listed(sorted({row["k"] for row in judged})), "not stated"),
        "device": (listed(provenance["device"]), "NVIDIA TITAN X"),
        "time, all stages added up": (frame.duration(provenance["seconds"]), "not stated"),
        "profile and version": (f"{provenance['profile']}, pcamlib {listed(provenance['version'])}", "–"),
    }
    lines = [{"section": "", "label": name, "ours": us, "paper": they} for name, (us, they) in facts.items()]
    return Table("This run and the paper's", [("", {"ours": "this run", "paper": "paper"})], lines, "")


def render(table: Table) -> str:
    """HTML of a table; wide ones scroll within their box while the row names stay in view.

    The class `dataframe` makes Jupyter Book's theme style it in light and dark mode, as it does for pandas.
    """
    sticky = (
        "position:sticky;left:0;min-width:min(12.5em,35vw);padding:0.2em 0.6em;text-align:left;"
        "background:var(--pst-color-background,var(--jp-layout-color0,Canvas))"
    )
    keys = [key for _, columns in table.head for key in columns]
    head = [f'<tr><th rowspan="2" style="{sticky}"></th>']
    head += [
        f'<th colspan="{len(columns)}" scope="colgroup" style="text-align:center">{escape(heading)}</th>'
        for heading, columns in table.head
    ]
    head += ["</tr><tr>"]
    head += [
        f'<th scope="col" style="padding:0.2em 0.6em;text-align:left">{escape(text)}</th>'
        for _, columns in table.head
        for text in columns.values()
    ]
    body, section = [], ""
    for row in table.rows:
        if row["section"] != section:
            section = row["section"]
            body.append(
                f'<tr class="pcam-section"><th colspan="{len(keys) + 1}" style="text-align:left">'
                f'<span style="position:sticky;left:0.5em">{escape(section)}</span></th></tr>'
            )
        cells = "".join(_td(row[key], key) for key in keys)
        name = f'<th scope="row" style="{sticky}">{escape(row["label"])}</th>'
        body.append(f"<tr>{name}{cells}</tr>")
    caption = f'<p class="pcam-caption"><small>{escape(table.caption)}</small></p>' if table.caption else ""
    return (
        f'<div class="pcam-table"><p class="pcam-title"><strong>{escape(table.title)}</strong></p>'
        f'<div role="region" tabindex="0" aria-label="{escape(table.title)}" '
        'style="overflow-x:auto;max-width:100%">'
        '<table class="dataframe" style="font-variant-numeric:tabular-nums;font-size:0.85em">'
        f"<thead>{''.join(head)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{caption}</div>"
    )


def _td(text: str, key: str) -> str:
    # Numbers stay on a line; words may break, or a column of verdicts would take the room of the rules beside it.
    wrap = "nowrap" if len(text) < 28 and any(map(str.isdigit, text)) else "normal"
    source = "paper" if key.endswith("paper") else "ours"
    style = f"padding:0.2em 0.6em;text-align:left;white-space:{wrap}"
    return f'<td class="pcam-{source}" style="{style}">{escape(text)}</td>'


def _label(arm: Arm) -> str:
    """The arm's name without what the heading of its section says."""
    regime, generator, selection = arm
    if regime == "synthetic":
        return f"{paper.GENERATOR_NAMES[generator]} ({paper.SELECTION_NAMES[selection]})"
    return arm_name(arm).removesuffix(f" ({paper.SELECTION_NAMES.get(selection)})")


def _section(arm: Arm) -> str:
    if arm[0] in paper.CONTROLS:
        return "Controls (ours, not in the paper)"
    if arm[1] is None:
        return "Real images only"
    return "Synthetic images only" if arm[0] == "synthetic" else paper.SELECTION_HEADINGS[arm[2]]


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return signed(100 * value)


def span(low: float, high: float) -> str:
    """An interval of differences of fractions, in percentage points."""
    return f"{points(low)} to {points(high)}"


def signed(value: float) -> str:
    """Two decimals with a sign, the minus a real one."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0 turns −0.00 into +0.00


def provenance_sentence(rows: list[Row]) -> str:
    return frame.provenance_note(frame.merged_provenance(rows)) if rows else "Nothing was run yet."
