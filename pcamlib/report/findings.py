"""Sentences that state what a run found, with the paper's value beside, made from the result rows.

Prose written this way cannot disagree with the tables. With two to five subsets none of it is a test.
"""

from __future__ import annotations

import math
from statistics import median

from pcamlib.core import paper
from pcamlib.report.quality_tables import CALIBRATION
from pcamlib.report.tables import cell, points, signed, span
from pcamlib.results import frame, inference
from pcamlib.results.arms import all_arms, arm_name
from pcamlib.results.frame import BASELINE, NOT_RUN, TRADITIONAL, Arm, Row, Summary


def bullets(sentences: list[str]) -> str:
    """Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def auc_means(rows: list[Row], metric: str = "auc") -> dict[Arm, float]:
    """Mean AUC (0..1) of every arm that ran in all subsets: only these means differ by what the arms differ in."""
    found = frame.of_kind(rows, "classification")
    values = {arm: frame.per_subset(found, arm, metric) for arm in all_arms()}
    subsets = {k for by_subset in values.values() for k in by_subset}
    return {arm: sum(v.values()) / len(v) for arm, v in values.items() if v and set(v) == subsets}


PAPER_AUC = {(row.regime, row.generator, row.selection): row.auc.mean / 100 for row in paper.TABLE_2}
"""Mean AUC (0..1) of the paper's twenty arms, in the form of `auc_means`."""


def beats_both(means: dict[Arm, float], generator: str) -> tuple[int, int]:
    """How many of a generator's arms with real data have a higher mean than both references, of how many."""
    references = [means[arm] for arm in (BASELINE, TRADITIONAL) if arm in means]
    arms = [arm for arm in means if arm[1] == generator and arm[0] in ("augmentation", "transfer")]
    if len(references) < 2:
        return 0, 0
    return sum(means[arm] > max(references) for arm in arms), len(arms)


def gain(means: dict[Arm, float], pairs: list[tuple[Arm, Arm]]) -> float | None:
    """Mean of first minus second over those pairs of arms that both ran; None if there is no such pair."""
    values = [means[a] - means[b] for a, b in pairs if a in means and b in means]
    return sum(values) / len(values) if values else None


def _pairs(generator: str, what: str) -> list[tuple[Arm, Arm]]:
    if what == "transfer":
        return [(("transfer", generator, s), ("augmentation", generator, s)) for s in paper.SELECTIONS]
    return [((r, generator, "realism"), (r, generator, "none")) for r in ("augmentation", "transfer")]


def _gains(means: dict[Arm, float], what: str) -> str:
    gains = {name: gain(means, _pairs(g, what)) for g, name in paper.GENERATOR_NAMES.items()}
    return ", ".join(f"{name} {NOT_RUN if v is None else points(v)}" for name, v in gains.items())


def _interval(difference: frame.Difference | None) -> str:
    """The t interval of a difference, as an insertion."""
    if difference is None:
        return ""
    test = inference.over_subsets(list(difference.values.values()))
    if test is None:
        return ", one subset only"
    if math.isinf(test.high):
        return ", the same in every subset"
    return f", 95 % t interval {span(test.low, test.high)}"


def _order(values: dict[str, float], best: str) -> list[str]:
    return sorted(values, key=values.get, reverse=best == "highest")


def findings_quality(rows: list[Row], extractor: str) -> list[str]:
    """Sentences on Table 1: order of generators, what selection did to FID, floor and cap, FID beside use by subset."""
    quality = [row for row in frame.of_kind(rows, "quality") if row["extractor"] == extractor]

    def get(generator: str, metric: str, selection: str | None = "none") -> Summary | None:
        return frame.summary(quality, ("quality", generator, selection), metric, extractor)

    of = len({row["subset"] for row in rows})
    sentences = []
    for metric, best in (("fid", "lowest"), ("precision", "highest"), ("recall", "highest")):
        ours = {g: get(g, metric) for g in paper.GENERATORS}
        ran = {g: value.mean for g, value in ours.items() if value}
        theirs = _order({g: getattr(paper.quality("none", g), metric).mean for g in ran}, best)
        order = _order(ran, best)
        listed = ", ".join(f"{paper.GENERATOR_NAMES[g]} {cell(ours[g], metric, of)}" for g in order)
        verdict = "the paper's order is " + ", ".join(paper.GENERATOR_NAMES[g] for g in theirs)
        if order == theirs:
            verdict = "the paper has the same order"
        name = "Fréchet distance" if metric == "fid" else metric
        unit = "" if metric == "fid" else ", in percent"
        sentences.append(f"By {name} without selection{unit}, {best} first: {listed or NOT_RUN}; {verdict}.")
    for selection in ("realism", "class"):
        parts = []
        for g, name in paper.GENERATOR_NAMES.items():
            arm, none = ("quality", g, selection), ("quality", g, "none")
            change = frame.paired(quality, arm, none, "fid", extractor)
            printed = paper.quality(selection, g).fid.mean - paper.quality("none", g).fid.mean
            parts.append(f"{name} {signed(change.mean) if change else NOT_RUN} (paper {signed(printed)})")
        name = paper.SELECTION_NAMES[selection].capitalize()
        sentences.append(f"{name} selection changed the distance: {', '.join(parts)}.")
    floor, cap = get("real", "fid", None), get("autoencoder", "fid", None)
    if floor and cap:
        sentences.append(
            f"For orientation: real patches against other real ones have distance {cell(floor, 'fid', of)}, "
            f"reconstructions by the autoencoder {cell(cap, 'fid', of)}, roughly what bounds diffusion in it."
        )
    parts, trained = [], frame.of_kind(rows, "classification")
    for g, name in paper.GENERATOR_NAMES.items():
        distance = frame.per_subset(quality, ("quality", g, "none"), "fid", extractor)
        auc = frame.per_subset(trained, ("synthetic", g, "none"), "auc")
        pairs = [f"{distance[k]:.1f} and {100 * auc[k]:.1f} %" for k in sorted(distance) if k in auc]
        parts.append(f"{name} {'; '.join(pairs) or NOT_RUN}")
    sentences.append(f"Distance and test AUC of training on these images alone, subset by subset: {'. '.join(parts)}.")
    return sentences


def findings_classification(rows: list[Row]) -> list[str]:
    """Sentences on Table 2 and Figures 5 and 6; the best arm is chosen on validation, never on test."""
    found = frame.of_kind(rows, "classification")
    means, valid = auc_means(rows), auc_means(rows, "valid_auc")
    sentences = []
    step = frame.paired(found, TRADITIONAL, BASELINE)
    if step and {BASELINE, TRADITIONAL} <= set(means):
        sentences.append(
            f"Baseline reaches AUC {100 * means[BASELINE]:.2f} %, traditional augmentation "
            f"{100 * means[TRADITIONAL]:.2f} %: {points(step.mean)} points, paired over subsets{_interval(step)} "
            f"(paper {points(PAPER_AUC[TRADITIONAL] - PAPER_AUC[BASELINE])})."
        )
    paper_best = max((arm for arm in PAPER_AUC if arm[1]), key=PAPER_AUC.get)
    mixed = [arm for arm in means if arm[1] and arm[0] != "synthetic"]
    if mixed:
        lead = PAPER_AUC[paper_best] - PAPER_AUC[TRADITIONAL]
        best = max(mixed, key=lambda arm: valid[arm])
        against = frame.paired(found, best, TRADITIONAL)
        sentences.append(
            f"Of the arms that use synthetic images with real ones, {arm_name(best)} has the highest AUC on "
            f"validation; on test it has {100 * means[best]:.2f} %, "
            f"{points(against.mean) + ' points' if against else NOT_RUN} against traditional "
            f"augmentation{_interval(against)}. "
            f"The paper's best is {arm_name(paper_best)}, {points(lead)} points."
        )
    parts = []
    for g, name in paper.GENERATOR_NAMES.items():
        ours, theirs = beats_both(means, g), beats_both(PAPER_AUC, g)
        parts.append(f"{name} {ours[0]} of {ours[1]} (paper {theirs[0]} of {theirs[1]})")
    sentences.append(f"Arms with a mean AUC above baseline and traditional augmentation: {', '.join(parts)}.")
    for what, text in (
        ("transfer", "Transfer minus augmentation, averaged over the selections that ran"),
        ("realism", "Realism selection minus none, averaged over the regimes that ran"),
    ):
        sentences.append(f"{text}, AUC points: {_gains(means, what)} (paper: {_gains(PAPER_AUC, what)}).")
    alone = {g: [v for arm, v in means.items() if arm[:2] == ("synthetic", g)] for g in paper.GENERATORS}
    alone = {g: sum(values) / len(values) for g, values in alone.items() if values}
    listed = ", ".join(f"{paper.GENERATOR_NAMES[g]} {100 * alone[g]:.2f} %" for g in _order(alone, "highest"))
    sentences.append(
        f"Trained on synthetic images only, AUC averaged over the selections that ran: {listed or NOT_RUN}; "
        "the paper's order is DiT, U-Net, HistoGAN."
    )
    return sentences


def findings_controls(rows: list[Row]) -> list[str]:
    """Sentences on the controls, each against traditional augmentation, paired over subsets."""
    found = frame.of_kind(rows, "classification")
    meaning = {
        "traditional-2x": "the same real images, as many steps as the arms with synthetic ones take",
        "transfer-real": "two stages like transfer learning, both on the real images",
        "double-real": "further real images in place of the synthetic ones, the ceiling",
    }
    sentences = []
    for regime in paper.CONTROLS:
        change = frame.paired(found, (regime, None, None), TRADITIONAL)
        value = f"{points(change.mean)} AUC points{_interval(change)}" if change else NOT_RUN
        sentences.append(f"{paper.REGIME_NAMES[regime]} ({meaning[regime]}): {value}.")
    return sentences


def images_or_steps(rows: list[Row]) -> list[str]:
    """Is it the images, or the extra steps? The mixed arms against traditional augmentation, and against their control.

    The control takes as many steps: twice the epochs for augmentation, real to real for transfer learning. The arm
    that is looked at closely is chosen on validation.
    """
    found, valid = frame.of_kind(rows, "classification"), auc_means(rows, "valid_auc")
    sentences, best, highest = [], None, 0.0
    for regime, control in (("augmentation", "traditional-2x"), ("transfer", "transfer-real")):
        pairs = []
        for arm in (a for a in all_arms() if a[0] == regime):
            plain = frame.paired(found, arm, TRADITIONAL)
            same = frame.paired(found, arm, (control, None, None))
            if plain and same:
                pairs.append((plain.mean, same.mean))
                if valid.get(arm, 0.0) > highest:
                    best, highest = (arm, control), valid[arm]
        ahead = sum(plain > 0 for plain, _ in pairs)
        kept = sum(plain > 0 and same > 0 for plain, same in pairs)
        name = paper.REGIME_NAMES[control]
        sentences.append(
            f"By {regime}, {ahead} of {len(pairs)} arms have a higher mean AUC than traditional augmentation"
            + (f", of which {kept} are also above the control of the same length ({name})." if ahead else ".")
        )
    if best:
        arm, control = best
        tested = frame.paired(found, arm, (control, None, None))
        test = inference.over_subsets(list(tested.values.values()))
        sentence = f"The mixed arm with the highest AUC on validation, {arm_name(arm)}, minus that control on test: {points(tested.mean)} points"
        if test is None:
            sentence += ", one subset only, so without an interval: undecided."
        else:
            answer = "the interval holds zero, so images and steps cannot be told apart at this scale"
            if test.p < 1 - inference.LEVEL:
                answer = "more than its steps explain, so the images help"
                if test.mean < 0:
                    answer = "less than the same steps on real images give, so the images harm"
            sentence += f"{_interval(tested)}: {answer}."
        sentences.append(sentence)
    return sentences


def limits(rows: list[Row], bootstrap: Row | None = None) -> str:
    """One paragraph on what a run of this size can and cannot say, from its scale and the width of its intervals."""
    found, provenance = frame.of_kind(rows, "classification"), frame.merged_provenance(rows)
    drawn = inference.intervals(bootstrap, "traditional")
    tests = inference.compared(found, TRADITIONAL)
    mixed = [arm for arm in all_arms() if arm[0] in ("augmentation", "transfer")]
    subsets = len(provenance["subsets"])
    ends = [(drawn[a]["low"], drawn[a]["high"]) if drawn else tests[a][1:3] for a in mixed if a in (drawn or tests)]
    ends = [(low, high) for low, high in ends if high - low < math.inf] if subsets > 1 else []
    starts = {row.get("pretrained") for row in found if row["status"] == "ok" and row["regime"] == "traditional"}
    sentences = []
    if ends:
        half = median((high - low) / 2 for low, high in ends)
        lead = max(PAPER_AUC.values()) - PAPER_AUC[TRADITIONAL]
        words = "could" if half < lead else "could not"
        sentences.append(
            f"Over {subsets} subsets the difference of an arm to traditional augmentation is known to about "
            f"±{100 * half:.2f} points of AUC (half of the 95 % interval, {'bootstrap' if drawn else 't'}, median over the "
            f"arms), so a lead like the paper's {points(lead)} {words} be told from chance here."
        )
    else:
        sentences.append("One subset says nothing about the next: nothing here can be told from chance.")
    if provenance["phantom"]:
        sentences.append(
            "The patches are procedural: the run shows that the machinery works, and nothing about tissue."
        )
    else:
        sentences.append(
            "It speaks of patches of the slides in this data set: subsets share slides, so nothing is known from it about "
            "new patients or another hospital."
        )
    if starts == {"none"}:
        sentences.append(
            "Classifiers start from random weights; those of the paper know ImageNet, which leaves less for synthetic "
            "images to add, so a gain here would not be a gain there."
        )
    images = {
        row["generator"]: row["images"]
        for row in frame.of_kind(rows, "training")
        if row["generator"] in paper.GENERATORS
    }
    if images:
        share = max(images.values()) / (paper.PROTOCOL.generator_epochs * paper.PROTOCOL.subset_size)
        sentences.append(
            f"No generator saw more than {max(images.values()):,} images in training, {100 * share:.2g} % of what the paper's "
            "saw: an arm that fails may fail for that reason."
        )
    return " ".join(sentences)


def gaps(rows: list[Row], missing: list[str]) -> list[str]:
    """Sentences on what the tables lack: absent result files, and arms that were not run, with the reason."""
    sentences = [f'`{name}` is not there: its cells say "{NOT_RUN}".' for name in missing]
    by_reason: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        if row.get("status") == NOT_RUN:
            if row["kind"] == "classification":
                name = arm_name(frame.arm_of(row))
            elif row["selection"] is None:
                name = CALIBRATION[row["generator"]]
            else:
                name = f"{paper.GENERATOR_NAMES[row['generator']]} ({paper.SELECTION_NAMES[row['selection']]})"
            subsets = by_reason.setdefault((row["kind"], row["reason"]), {}).setdefault(name, [])
            if str(row["subset"]) not in subsets:
                subsets.append(str(row["subset"]))
    for (kind, reason), names in by_reason.items():
        listed = "; ".join(f"{name}, subset {' and '.join(subsets)}" for name, subsets in names.items())
        sentences.append(f"Not run in {kind}, because {reason}: {listed}.")
    return sentences or ["Nothing: every cell was run for every subset."]
