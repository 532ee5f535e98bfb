"""Sentences that state what a run found, with the paper's value beside, made from the results.

Prose written this way cannot disagree with the tables. With two to five subsets none of it is a test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pcamlib.core import paper
from pcamlib.core.text import inert
from pcamlib.models import generators
from pcamlib.report.quality_tables import CALIBRATION
from pcamlib.report.tables import arms_of, cell, device_note, points, signed, span
from pcamlib.results import frame, inference, intervals, rivals
from pcamlib.results.arms import BASELINE, CONTROLS, MIXED, PSEUDO, TRADITIONAL, Arm, classifiers, generators_of
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.loading import NO_FILE

PAPER_AUC = {Arm(row.regime, row.generator, row.selection): row.auc.mean / 100 for row in paper.TABLE_2}
"""Mean AUC (0..1) of the paper's twenty arms, in the form of `auc_means`."""


def _names(results: pd.DataFrame) -> dict[str, str]:
    """What readers call the generators of these results: the paper's, then others."""
    return {name: generators.label(name) for name in generators_of(results)}


def bullets(sentences: list[str]) -> str:
    """Markdown list of sentences in plain text: what they quote does not act as markup."""
    return "\n".join(f"- {inert(sentence)}" for sentence in sentences)


def items(sentences: list[str]) -> str:
    """HTML list of sentences in plain text."""
    lines = "".join(f"<li>{inert(sentence, 'html')}</li>" for sentence in sentences)
    return f"<ul>{lines}</ul>"


def auc_means(results: pd.DataFrame, metric: str = "auc") -> dict[Arm, float]:
    """Mean AUC (0..1) of every arm that ran in all subsets: only these means differ by what the arms differ in."""
    means = frame.by_subset(results, metric).dropna(axis=1).mean()
    return {arm: means[arm.name] for arm in classifiers(generators_of(results)) if arm.name in means}


def beats_both(means: Mapping[Arm, float], generator: str) -> tuple[int, int]:
    """How many of a generator's arms with real data have a higher mean than both references, of how many."""
    arms = [arm for arm in means if arm.generator == generator and arm.regime in MIXED]
    if not {BASELINE, TRADITIONAL} <= set(means):
        return 0, 0
    return sum(means[arm] > max(means[BASELINE], means[TRADITIONAL]) for arm in arms), len(arms)


def gain(means: Mapping[Arm, float], pairs: Sequence[tuple[Arm, Arm]]) -> float | None:
    """Mean of first minus second over those pairs of arms that both ran; None if there is no such pair."""
    values = [means[a] - means[b] for a, b in pairs if a in means and b in means]
    return sum(values) / len(values) if values else None


def _gains(means: Mapping[Arm, float], what: str, names: Mapping[str, str]) -> str:
    parts = []
    for g, name in names.items():
        pairs = [(Arm("transfer", g, s), Arm("augmentation", g, s)) for s in paper.SELECTIONS]
        if what == "realism":
            pairs = [(Arm(r, g, "realism"), Arm(r, g, "none")) for r in MIXED]
        value = gain(means, pairs)
        parts.append(f"{name} {NOT_RUN if value is None else points(value)}")
    return ", ".join(parts)


def _interval(test: pd.Series) -> str:
    """The t interval of a difference of `inference.compared`, as an insertion."""
    if math.isnan(test["p"]):
        return ", one subset only"
    if math.isinf(test["high"]):
        return ", the same in every subset"
    return f", 95 % t interval {span(test['low'], test['high'])}"


def _chosen(results: pd.DataFrame, arms: Sequence[Arm], against: Arm) -> tuple[str, pd.Series | None]:
    """How an arm was chosen on validation and which one, and its difference on test as a line of
    `inference.compared`."""
    found = rivals.choice(results, arms, against)
    if found is None:
        return "too few subsets and seeds ran to choose an arm with some and report it with others", None
    how = {
        "seed": "each classifier seed chooses in turn, and the other seeds report",
        "subset": "for each subset the other subsets choose",
    }[found.by]
    times = sum(n for _, n in found.arms)
    which = ", ".join(f"{arm.title} in {n} of {times}" for arm, n in found.arms)
    test = inference.over_subsets(found.values)
    mean = sum(found.values) / len(found.values)
    line = pd.Series({"mean": mean, "low": math.nan, "high": math.nan, "p": math.nan})
    if test:
        line = pd.Series({"mean": test.mean, "low": test.low, "high": test.high, "p": test.p})
    return f"{how} ({which})", line


def findings_quality(results: pd.DataFrame, extractor: str) -> list[str]:
    """Sentences on Table 1: order of generators, what selection did to FID, the calibration rows, FID beside use by
    subset."""
    of, names, sentences = results["subset"].nunique(), _names(results), []
    plain = {Arm("quality", g, "none").name: g for g in names}
    for metric, best in (("fid", "lowest"), ("precision", "highest"), ("recall", "highest")):
        ours = frame.summary(results, metric, extractor).reindex(list(plain)).dropna(subset="mean").rename(plain)
        order = ours.sort_values("mean", ascending=best == "lowest", kind="stable")
        common = [g for g in order.index if g in paper.GENERATORS]
        printed = pd.Series(
            {g: getattr(paper.quality("none", g), metric).mean for g in ours.index if g in common}, dtype="float64"
        )
        theirs = list(printed.sort_values(ascending=best == "lowest", kind="stable").index)
        listed = ", ".join(f"{names[g]} {cell(*order.loc[g], metric, of)}" for g in order.index)
        verdict = "the paper's order is " + ", ".join(names[g] for g in theirs)
        if common == theirs:
            verdict = "the paper has the same order"
        name = "Fréchet distance" if metric == "fid" else f"{metric} (percent)"
        sentences.append(f"By {name} without selection, {best} first: {listed or NOT_RUN}; {verdict}.")
    fid = frame.by_subset(results, "fid", extractor)
    for selection in ("realism", "class"):
        parts = []
        for g, name in names.items():
            pair = fid.reindex(columns=[Arm("quality", g, selection).name, Arm("quality", g, "none").name])
            changes = (pair.iloc[:, 0] - pair.iloc[:, 1]).dropna()
            part = f"{name} {signed(changes.mean()) if len(changes) else NOT_RUN}"
            if 0 < len(changes) < of:
                part += f" in {len(changes)} of {of} subsets"
            if g in paper.GENERATORS:
                printed = paper.quality(selection, g).fid.mean - paper.quality("none", g).fid.mean
                part += f" (paper {signed(printed)})"
            parts.append(part)
        name = paper.SELECTION_NAMES[selection].capitalize()
        sentences.append(f"{name} selection changed the distance: {', '.join(parts)}.")
    distances = frame.summary(results, "fid", extractor)
    real, again = (Arm("quality", source).name for source in CALIBRATION)
    if real in distances.index and again in distances.index:
        sentences.append(
            f"For comparison: other real patches have distance {cell(*distances.loc[real], 'fid', of)}, reconstructions"
            f" by the autoencoder {cell(*distances.loc[again], 'fid', of)}. Samples of the diffusion models pass"
            " through the same autoencoder."
        )
    device = frame.fullest(results)
    parts, auc = [], frame.by_subset(frame.by_device(results, device), "auc")
    for g, name in names.items():
        columns = [fid.get(Arm("quality", g, "none").name), auc.get(Arm("synthetic", g, "none").name)]
        both = pd.concat(columns, axis=1).dropna() if all(c is not None for c in columns) else pd.DataFrame()
        pairs = [f"{distance:.1f} and {100 * value:.1f} %" for distance, value in both.itertuples(index=False)]
        parts.append(f"{name} {'; '.join(pairs) or NOT_RUN}")
    by = f" ({frame.DEVICES[device]})" * frame.has_probe(results)
    sentences.append(f"Distance and test AUC of training on these images alone{by}, by subset: {'. '.join(parts)}.")
    return sentences


def label_content(results: pd.DataFrame) -> list[str]:
    """What generated patches teach on their own, by features and by colour, beside real ones; no sentence where it was
    not measured."""
    found = {metric: frame.by_subset(results, metric).mean() for metric in ("auc_full", "auc_colour", "auc_apart_full")}

    def value(generator: str, metric: str, selection: str | None = "none") -> float:
        return 100 * found[metric].get(Arm("label-content", generator, selection).name, math.nan)

    names = {g: n for g, n in _names(results).items() if not math.isnan(value(g, "auc_full") + value(g, "auc_colour"))}
    if not names:
        return []
    parts = [f"{name} {value(g, 'auc_full'):.1f} and {value(g, 'auc_colour'):.1f} %" for g, name in names.items()]
    real = [value("real", metric, None) for metric in ("auc_full", "auc_colour")]
    parts += [f"real patches {real[0]:.1f} and {real[1]:.1f} %"] * (not math.isnan(sum(real)))
    coloured = [name for g, name in names.items() if value(g, "auc_full") < value(g, "auc_colour")]
    said = [
        "Trained on them alone, a regression on frozen features and one on colour tell the classes of real test patches"
        f" with AUC {', '.join(parts)}"
        + (f"; nothing shows that those of {', '.join(coloured)} teach more than their colours" if coloured else "")
        + "."
    ]
    apart = [value(g, "auc_apart_full") for g in names]
    if not any(map(math.isnan, apart)):
        ends = " to ".join(dict.fromkeys(f"{end:.1f}" for end in (min(apart), max(apart))))
        controls = {"autoencoder": "reconstructions of real patches by the autoencoder", "real": "other real patches"}
        beside = {name: value(g, "auc_apart_full", None) for g, name in controls.items()}
        known = [f"{name} with {auc:.1f} %" for name, auc in beside.items() if not math.isnan(auc)]
        said.append(
            f"Generated patches are told apart from real ones with AUC {ends} %{''.join(f', {k}' for k in known)}."
        )
    return said


def known_labels(results: pd.DataFrame) -> list[str]:
    """What class-based selection does to known labels of real patches; no sentence where it was not measured."""
    arm = Arm("known-labels", None, "class").name
    parts = ("passed_right", "passed_wrong", "kept_right", "passed_realism")
    right, wrong, kept, realism = (frame.by_subset(results, part).mean().get(arm, math.nan) for part in parts)
    if math.isnan(right + wrong + kept + realism):
        return []
    return [
        "Of real patches that neither generator nor selection has seen, class-based selection passes"
        f" {100 * right:.0f} % with their own label and {100 * wrong:.0f} % with the other one (realism, which asks for"
        f" no label, {100 * realism:.0f} %). If half of the labels were wrong, {100 * kept:.0f} % of those kept would"
        " be right."
    ]


def findings_classification(results: pd.DataFrame) -> list[str]:
    """Sentences on Table 2 and Figures 5 and 6; the best arm is chosen on validation, by networks that do not report
    it."""
    means, names = auc_means(results), _names(results)
    to_baseline, to_traditional = (inference.compared(results, arm) for arm in (BASELINE, TRADITIONAL))
    sentences = []
    if {BASELINE, TRADITIONAL} <= set(means):
        step = to_baseline.loc[TRADITIONAL.name]
        sentences.append(
            f"Baseline reaches AUC {100 * means[BASELINE]:.2f} %, traditional augmentation"
            f" {100 * means[TRADITIONAL]:.2f} %: {points(step['mean'])} points, paired over subsets{_interval(step)}"
            f" (paper {points(PAPER_AUC[TRADITIONAL] - PAPER_AUC[BASELINE])})."
        )
    mixed = [arm for arm in means if arm.regime in MIXED]
    if mixed:
        how, test = _chosen(results, mixed, TRADITIONAL)
        lead = (
            NOT_RUN
            if test is None
            else f"{points(test['mean'])} points against traditional augmentation{_interval(test)}"
        )
        papers = max((arm for arm in PAPER_AUC if arm.generator), key=PAPER_AUC.get)
        sentences.append(
            f"The best arm with synthetic and real images, chosen on validation and reported on test: {how}: {lead}."
            f" The paper's best is {papers.title}, {points(PAPER_AUC[papers] - PAPER_AUC[TRADITIONAL])} points."
        )
    parts = [
        "{} {} of {}".format(name, *beats_both(means, g))
        + (" (paper {} of {})".format(*beats_both(PAPER_AUC, g)) if g in paper.GENERATORS else "")
        for g, name in names.items()
    ]
    sentences.append(f"Arms with a mean AUC above baseline and traditional augmentation: {', '.join(parts)}.")
    stronger = rivals.stronger_control(results)
    if stronger in means:
        ahead = {g: [means[a] > means[stronger] for a in mixed if a.generator == g] for g in names}
        listed = ", ".join(f"{names[g]} {sum(found)} of {len(found)}" for g, found in ahead.items())
        sentences.append(f"Above the stronger step control, {stronger.title}: {listed}.")
    for what, text in (
        ("transfer", "Transfer minus augmentation, averaged over the selections that ran"),
        ("realism", "Realism selection minus none, averaged over the regimes that ran"),
    ):
        sentences.append(
            f"{text}, AUC points: {_gains(means, what, names)} (paper:"
            f" {_gains(PAPER_AUC, what, paper.GENERATOR_NAMES)})."
        )
    alone = pd.Series([m for a, m in means.items() if a.regime == "synthetic"], dtype="float64")
    alone = alone.groupby([a.generator for a in means if a.regime == "synthetic"]).mean().sort_values(ascending=False)
    listed = ", ".join(f"{names[g]} {100 * value:.2f} %" for g, value in alone.items())
    sentences.append(
        f"Trained on synthetic images only, AUC averaged over the selections that ran: {listed or NOT_RUN}; "
        "the paper's order is DiT, U-Net, HistoGAN."
    )
    return sentences


def findings_controls(results: pd.DataFrame) -> list[str]:
    """Sentences on the device and on the controls, each control against traditional augmentation, paired over
    subsets."""
    tests = inference.compared(results, TRADITIONAL)
    meaning = {
        "traditional-2x": "the same real images, as many steps as the arms with synthetic images take",
        "transfer-real": "two stages like transfer learning, both on the real images",
        "double-real": "as many further real images in place of the synthetic ones",
        "pseudo-label": "as many further real images, labelled by the traditional classifier of the subset",
        "pseudo-label-pool": "the same with more of them",
    }
    sentences = [device_note(results)]
    for arm in (*CONTROLS, *(arm for arm in PSEUDO if arm in arms_of(results))):
        value = NOT_RUN
        if arm.name in tests.index:
            test = tests.loc[arm.name]
            value = f"{points(test['mean'])} AUC points{_interval(test)}"
        sentences.append(f"{arm.title} ({meaning[arm.regime]}): {value}.")
    return sentences


def images_or_steps(results: pd.DataFrame) -> list[str]:
    """Is it the images, or the extra steps? The arms with synthetic images against every control of as many steps.

    The headline is the stronger control, by its mean. The arm that is looked at closely is chosen on validation.
    """
    controls, stronger = rivals.step_controls(results), rivals.stronger_control(results)
    if stronger is None:
        return [f"No control of as many steps was run, so images and steps cannot be told apart: {NOT_RUN}."]
    references = list(dict.fromkeys([TRADITIONAL, *controls]))
    tables = {control: inference.compared(results, control)["mean"] for control in references}
    sentences, mixed = [], []
    name = f"the {'stronger ' * (len(controls) > 1)}control"
    for regime in ("augmentation", "transfer"):
        arms = [
            a
            for a in arms_of(results)
            if a.regime == regime and all(a.name in means.index for means in tables.values())
        ]
        mixed += arms
        ahead = {c: sum(means[a.name] > 0 for a in arms) for c, means in tables.items()}
        others = "".join(f"; {n} above {c.title}" for c, n in ahead.items() if c != stronger)
        sentences.append(
            f"By {regime}, {ahead[stronger]} of {len(arms)} arms are above {name}, {stronger.title} (mean AUC{others})."
        )
    if mixed:
        how, test = _chosen(results, mixed, stronger)
        sentences.append(
            f"The arm chosen on validation, minus {name} on test: {how}"
            + (f": {_answer(results, test)}." if test is not None else f": {NOT_RUN}.")
        )
    return sentences


def _answer(results: pd.DataFrame, test: pd.Series) -> str:
    """The difference to the control, and what it means where the device can tell."""
    value, probe = f"{points(test['mean'])} points", frame.is_probe(results)
    if math.isnan(test["p"]):
        return f"{value}, one subset only, so without an interval: undecided"
    if math.isinf(test["high"]):
        return f"{value}{_interval(test)}, so without an interval: undecided"
    if not rivals.trust(results).measures:
        return f"{value}{_interval(test)}. {device_note(results).rstrip('.')}"
    if test["p"] >= 1 - inference.LEVEL:
        what = "it cannot be told from the control" if probe else "images and steps cannot be told apart"
        return f"{value}{_interval(test)}: the interval holds zero, so {what}"
    what = f"more than {'the control gives' if probe else 'its steps explain'}, so the images help"
    if test["mean"] < 0:
        what = f"less than {'the control gives' if probe else 'the same steps on real images give'}, so the images harm"
    return f"{value}{_interval(test)}: {what}"


def limits(results: pd.DataFrame, found: dict[str, Any] | None = None) -> str:
    """One paragraph on what a run of this size can and cannot say, from its provenance and the width of its
    intervals."""
    ran, provenance = frame.of_kind(results, "classification"), frame.merged_provenance(results)
    kept, subsets = intervals.table(found, "traditional"), len(provenance["subsets"])
    ends = kept if len(kept) else inference.compared(results, TRADITIONAL)[["low", "high"]]
    ends = ends.reindex([arm.name for arm in classifiers(generators_of(results)) if arm.regime in MIXED])
    widths = (ends["high"] - ends["low"]).replace(math.inf, math.nan).dropna()
    sentences = ["One subset says nothing about the next, so nothing here can be told from chance."]
    if subsets > 1:
        sentences = [
            "No arm with synthetic images has an interval of its difference to traditional augmentation, so nothing"
            " here says whether they help."
        ]
    if subsets > 1 and len(widths):
        half, lead = widths.median() / 2, max(PAPER_AUC.values()) - PAPER_AUC[TRADITIONAL]
        sentences = [
            f"Over {subsets} subsets the difference of an arm to traditional augmentation is known to about"
            f" ±{100 * half:.2f} points of AUC (half of the 95 % interval,"
            f" {'test patches included' if len(kept) else 'by t'}, median over the arms), so a lead like the paper's"
            f" {points(lead)} {'could' if half < lead else 'could not'} be told from chance here."
        ]
    if provenance["phantom"]:
        sentences.append("The patches are procedural: the run shows that the software works, and nothing about tissue.")
    else:
        share = "Subsets share slides, so they say nothing about new patients or another hospital."
        if set(results["subsets_by"].dropna()) == {"slide"}:
            share = "Subsets are of different slides, but they say nothing about another hospital."
        sentences.append(f"The results hold for patches of the slides in this data set. {share}")
    if set(ran.loc[ran["regime"] == "traditional", "pretrained"]) == {"none"}:
        sentences.append(
            "Classifiers start from random weights. Those of the paper start from ImageNet weights, which leaves less"
            " for synthetic images to add, so a gain here need not be a gain there."
        )
    images = frame.of_kind(results, "training")
    images = images.loc[images["generator"] != "autoencoder", "value"]
    if len(images):
        share = images.max() / (paper.PROTOCOL.generator_epochs * paper.PROTOCOL.subset_size)
        sentences.append(
            f"No generator saw more than {images.max():,.0f} images in training, {100 * share:.2g} % of what the"
            " paper's saw: an arm that fails may fail for that reason."
        )
    return " ".join(sentences)


def gaps(results: pd.DataFrame) -> list[str]:
    """Sentences on what the tables lack: absent result files, and arms that were not run, with the reason."""
    lacking = results[results["status"] == NOT_RUN]
    absent = lacking[lacking["reason"] == NO_FILE]["file"].unique()
    sentences = [f'{file} does not exist: its cells say "{NOT_RUN}".' for file in absent]
    arms = lacking[lacking["reason"] != NO_FILE].drop_duplicates(["kind", "subset", "arm"])
    for (kind, reason), lines in arms.groupby(["kind", "reason"], sort=False):
        subsets = lines.groupby("arm", sort=False)["subset"].agg(lambda values: " and ".join(map(str, values)))
        first = lines.drop_duplicates("arm").set_index("arm")
        names = [f"{_name(first.loc[arm])}, subset {listed}" for arm, listed in subsets.items()]
        sentences.append(f"Not run in {kind}, because {reason}: {'; '.join(names)}.")
    return sentences or ["Nothing: every cell was run for every subset."]


def _name(line: pd.Series) -> str:
    """What a reader calls the arm of a line."""
    if line["kind"] in frame.DEVICES:
        return frame.arm_of(line).title
    if pd.isna(line["generator"]):
        return paper.SELECTION_NAMES[line["selection"]]
    if pd.isna(line["selection"]):
        return CALIBRATION[line["generator"]]
    return f"{generators.label(line['generator'])} ({paper.SELECTION_NAMES[line['selection']]})"
