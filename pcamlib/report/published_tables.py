"""Tables that set published runs, the reader's own and the paper side by side: protocol, intervals, AUC by use,
worth."""

from __future__ import annotations

import math

import pandas as pd

from pcamlib.core import paper
from pcamlib.core.settings import Profile
from pcamlib.models import generators
from pcamlib.report import findings, tables
from pcamlib.report.tables import NOT_PRINTED, SMALL_N, Table, arms_of, listed, points, signed
from pcamlib.results import frame, headline, inference
from pcamlib.results.arms import (
    BASELINE,
    CONTROLS,
    MIXED,
    PSEUDO,
    SHUFFLED,
    STRONG,
    TRADITIONAL,
    TRIVIAL,
    Arm,
    classifiers,
    generators_of,
)  # fmt: skip
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.published import EXCERPT, data_name

STARTS = {"none": "random initialisation", "package": "ImageNet weights"}
CHANGED = "not those of a profile as it is now"


def _generators(profile: Profile | None) -> tuple[str, str]:
    if profile is None:
        return CHANGED, CHANGED
    d, gan = profile.diffusion, profile.histogan
    rates = f"{d.learning_rate:g} × {d.batch_size} (diffusion), {gan.learning_rate:g} × {gan.batch_size} (HistoGAN)"
    return rates, f"{profile.orientations}, {d.guidance:g}, {d.sampler} with {d.sampling_steps} steps"


def _classifier(profile: Profile | None) -> str:
    if profile is None:
        return CHANGED
    c = profile.classifier
    return f"{c.image_size} × {c.image_size}, {c.learning_rate:g} ({c.schedule}) × {c.batch_size}"


def protocol(runs: dict[str, pd.DataFrame]) -> Table:
    """What differs between the paper and runs (results by a run's name), a line per cause with the columns that it
    moves."""
    p = paper.PROTOCOL
    printed = {
        ("Every column", "data"): "PCam as released, lossless",
        ("Every column", "subsets × real patches"): f"{p.subsets} × {p.subset_size:,}",
        (
            "Every column",
            "generators: images seen",
        ): f"{p.generator_epochs * p.subset_size:,} ({p.generator_epochs} epochs)",
        ("Every column", "generators: learning rate × batch"): f"{p.generator_lr:g} × {p.generator_batch}",
        ("Every column", "orientations shown, guidance, sampler"): "not stated",
        ("Table 1: FID", "features of the distance"): "Inception-V3, ImageNet",
        ("Table 1: FID", "images compared"): f"not stated; at most {p.subset_size:,}",
        ("Table 1: precision, recall, F1", "features, k"): "not stated",
        ("Table 2: every column", "classifier starts from"): "ImageNet weights",
        ("Table 2: every column", "epochs of a stage"): str(p.classifier_epochs),
        (
            "Table 2: every column",
            "pixels, learning rate × batch",
        ): f"{p.patch_px} × {p.patch_px}, {p.classifier_lr:g} × {p.classifier_batch}",
        ("Table 2: every column", "test patches"): f"{p.test:,}, as released",
        ("Table 2: accuracy, sensitivity, specificity", "threshold"): "not stated",
        ("Table 2: spread", "seeds of a subset"): "1",
    }
    columns = {"paper": list(printed.values())} | {name: _protocol(results) for name, results in runs.items()}
    notes = (
        "Any of these lines is reason enough for absolute values to differ. What can be compared is the order of rows"
        " within a column, and the sign and size of differences to traditional augmentation."
    )
    data = pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(printed))
    return Table(
        "Why no column here repeats a column of the paper", data, notes, "Read from the results and the profiles."
    )


def _protocol(results: pd.DataFrame) -> list[str]:
    """The column of a run in `protocol`."""
    provenance, profile = frame.merged_provenance(results), frame.profile_of(results)
    judged, ran, trained = (frame.of_kind(results, kind) for kind in ("quality", "classification", "training"))
    names = frame.extractors(results)
    jpeg = data_name(results) == EXCERPT
    data = "phantom: procedural patches, no tissue" if provenance["phantom"] else provenance["data"]
    start = ran.loc[ran["regime"].isin(("baseline", "traditional")), "pretrained"].dropna().unique()
    images = trained.groupby("generator", sort=False)["value"].last()
    return [
        data + ": 26,000 of PCam's patches, re-encoded as JPEG (quality 75, halved chroma)" * jpeg,
        f"{len(provenance['subsets'])} × {listed(provenance['n_real'])}",
        "; ".join(f"{generators.label(name)} {n:,.0f}" for name, n in images.items()) or NOT_RUN,
        *_generators(profile),
        names[0] if names else NOT_RUN,
        listed(judged["n_fake"]),
        f"{', '.join(names) or NOT_RUN}; k = {listed(judged['k'])}",
        " or ".join(STARTS.get(s, s) for s in start) or NOT_RUN,
        listed(ran["epochs"]),
        _classifier(profile),
        listed(ran["test_n"]),
        listed(ran["threshold"]),
        listed(ran.groupby(["arm", "subset"])["seed"].nunique()),
    ]


def beside(runs: dict[str, pd.DataFrame], intervals: dict[str, pd.DataFrame]) -> Table:
    """AUC minus traditional augmentation in points, arm by arm: the paper and every run, with intervals."""
    printed, reference = findings.PAPER_AUC, findings.PAPER_AUC[TRADITIONAL]
    there = {arm for results in runs.values() for arm in arms_of(results)}
    made = dict.fromkeys(name for results in runs.values() for name in generators_of(results))
    arms = [arm for arm in classifiers(made) if arm in there]
    columns = {"paper": [points(printed[a] - reference) if a in printed else NOT_PRINTED for a in arms]}
    for name, results in runs.items():
        tests = inference.compared(results, TRADITIONAL)
        own = [TRADITIONAL.name] if TRADITIONAL.name in frame.by_subset(results, "auc") else []
        ends = tests.loc[tests["n"] >= 2, ["low", "high"]]
        drawn = intervals[name][["low", "high"]]
        ends = pd.concat([drawn, ends.drop(drawn.index, errors="ignore")])
        texts = {arm: points(mean) for arm, mean in tests["mean"].items()} | {arm: points(0) for arm in own}
        texts |= {arm: f"{texts[arm]} ({tables.span(*ends.loc[arm])})" for arm in ends.index.intersection(tests.index)}
        columns[name] = [texts.get(a.name, NOT_RUN) for a in arms]
    notes = (
        "AUC minus that of traditional augmentation, in points. In brackets 95 % intervals: over subsets, seeds and"
        f" test patches where test scores were kept, else Student's t over two subsets or more. {SMALL_N}"
        f" {' '.join(f'{name[0].upper()}{name[1:]}: {tables.device_note(r)}' for name, r in runs.items())}"
    )
    data = pd.DataFrame(columns, index=[arm.title for arm in arms])
    line = "Points of AUC; the paper's differences have no interval."
    return Table("AUC: differences to traditional augmentation", data, notes, line)


def by_use(devices: dict[str, pd.DataFrame], short: bool = False) -> Table:
    """Test AUC of every way of training, means over selections, and its difference to traditional augmentation, by
    device.

    short: only those with real patches and a network as the paper trains it, and the controls.
    """
    groups = [(arm.title, [arm]) for arm in (BASELINE, TRADITIONAL)]
    for generator in dict.fromkeys(name for results in devices.values() for name in generators_of(results)):
        for regime in MIXED if short else (*MIXED, "synthetic"):
            title = f"{generators.label(generator)}, {paper.REGIME_NAMES[regime]}"
            groups.append((title, [Arm(regime, generator, s) for s in paper.SELECTIONS]))
    ours = (*CONTROLS, *PSEUDO) if short else (*CONTROLS, *PSEUDO, *STRONG, *TRIVIAL)
    groups += [(f"{a.title} (ours)", [a]) for a in ours if a.regime != SHUFFLED]
    values = {device: frame.by_subset(results, "auc") for device, results in devices.items()}
    shown = [(title, [a.name for a in arms], arms) for title, arms in groups]
    shown = [group for group in shown if any(name in table for table in values.values() for name in group[1])]
    printed = [[findings.PAPER_AUC[a] for a in arms if a in findings.PAPER_AUC] for _, _, arms in shown]
    columns = {("paper", "AUC, %"): [f"{100 * sum(p) / len(p):.2f}" if p else NOT_PRINTED for p in printed]}
    for device, table in values.items():
        texts = [_use(table, names) for _, names, _ in shown]
        columns[frame.DEVICES[device], "AUC, %"] = [auc for auc, _ in texts]
        columns[frame.DEVICES[device], "minus traditional"] = [difference for _, difference in texts]
    notes = (
        "Mean ± standard deviation over subsets; in brackets 95 % t intervals of the differences. Each generator is"
        " averaged over the selections. Only differences can be compared with the paper."
        f" {' '.join(f'{frame.DEVICES[d].capitalize()}: {tables.device_note(r)}' for d, r in devices.items())}"
        f" {tables.provenance_sentence(next(iter(devices.values())), 'classification')}"
    )
    data = pd.DataFrame(columns, index=[title for title, _, _ in shown])
    return Table(
        "AUC of each way of training", data, notes, tables.line(next(iter(devices.values())), "classification")
    )


def _use(values: pd.DataFrame, names: list[str]) -> tuple[str, str]:
    """AUC and difference to traditional augmentation of the mean of some arms, over the subsets in which all of them
    ran."""
    if not set(names) <= set(values):
        return NOT_RUN, NOT_RUN
    mean = values[names].mean(axis=1, skipna=False).dropna()
    auc = tables.cell(mean.mean(), mean.std(), len(mean), "auc", len(values)) if len(mean) else NOT_RUN
    if names == [TRADITIONAL.name] or TRADITIONAL.name not in values:
        return auc, NOT_PRINTED
    difference = (mean - values[TRADITIONAL.name]).dropna()
    if difference.empty:
        return auc, NOT_RUN
    test = inference.over_subsets(difference.tolist())
    ends = f" ({tables.span(test.low, test.high)})" if test and math.isfinite(test.high) else ""
    return auc, f"{points(difference.mean())}{ends}"


def shares(devices: dict[str, pd.DataFrame]) -> Table | None:
    """The gain by as many generated patches as a share of the gain by as many real ones, by device; None where none can
    be given."""
    found = {device: headline.exchange_rates(results) for device, results in devices.items()}
    made = dict.fromkeys(name for results in devices.values() for name in generators_of(results))
    names = [name for name in made if any(name in rates for rates in found.values())]
    if not names:
        return None
    columns = {
        frame.DEVICES[device]: [_share(rates[name]) if name in rates else NOT_RUN for name in names]
        for device, rates in found.items()
    }
    notes = (
        "Each generator's patches by augmentation, averaged over selections, and twice the real patches, both minus the"
        " stronger step control, paired by subset. In brackets Fieller's 95 % interval, which has no ends where the"
        " gain by real patches does not differ significantly from zero."
    )
    data = pd.DataFrame(columns, index=[generators.label(name) for name in names])
    line = f"Ratio of mean gains of AUC. {tables.provenance_sentence(next(iter(devices.values())), 'classification')}"
    return Table("Gain by generated patches as a share of the gain by real ones", data, notes, line)


def _share(rate: headline.Rate) -> str:
    ends = f"{signed(rate.low)} to {signed(rate.high)}" if math.isfinite(rate.high) else "no bounded interval"
    return f"{signed(rate.value)} ({ends})"
