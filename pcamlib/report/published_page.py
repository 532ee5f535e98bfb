"""The page of the published run: its forest plot and a short table, then all else behind drop-downs, the paper beside it.

`page` is called by every build of the book. Its numbers come from the result files and from `book/reference`.
"""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from pcamlib.core import paper
from pcamlib.core.files import read_json
from pcamlib.core.settings import Profile
from pcamlib.core.text import inert, printable
from pcamlib.experiments import tuning
from pcamlib.models import generators
from pcamlib.report import curve_plots, findings, plots, quality_tables, result_plots, strips, tables
from pcamlib.report.answer_page import about, devices_of, picture
from pcamlib.report.tables import HEADINGS, NOT_PRINTED, SMALL_N, Table, arms_of, listed, points, render, signed
from pcamlib.results import curves, frame, headline, inference, rivals
from pcamlib.results import intervals as kept
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
from pcamlib.results.published import EXCERPT, Published, data_name, published_runs

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
    """What differs between the paper and runs (results by a run's name), a line per cause with the columns that it moves."""
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
        ("Table 2: every column", "pixels, learning rate × batch"): (
            f"{p.patch_px} × {p.patch_px}, {p.classifier_lr:g} × {p.classifier_batch}"
        ),
        ("Table 2: every column", "test patches"): f"{p.test:,}, as released",
        ("Table 2: accuracy, sensitivity, specificity", "threshold"): "not stated",
        ("Table 2: spread", "seeds of a subset"): "1",
    }
    columns = {"paper": list(printed.values())} | {name: _protocol(results) for name, results in runs.items()}
    notes = (
        "Any of these lines is reason enough for absolute values to differ. What can be compared is the order of rows within a "
        "column, and the sign and size of differences to traditional augmentation."
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
        " or ".join("random initialisation" if s == "none" else s for s in start) or NOT_RUN,
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
        "AUC minus that of traditional augmentation, in points. In brackets 95 % intervals: over subsets, seeds and test patches "
        f"where test scores were kept, else Student's t over two subsets or more. {SMALL_N} "
        f"{' '.join(f'{name[0].upper()}{name[1:]}: {tables.device_note(r)}' for name, r in runs.items())}"
    )
    data = pd.DataFrame(columns, index=[arm.title for arm in arms])
    line = "Points of AUC; the paper's differences have no interval."
    return Table("AUC: differences to traditional augmentation", data, notes, line)


def by_use(devices: dict[str, pd.DataFrame], short: bool = False) -> Table:
    """Test AUC of every way of training, means over selections, and its difference to traditional augmentation, by device.

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
        "Mean ± standard deviation over subsets; each generator is averaged over the selections. Only differences can be compared "
        f"with the paper. {' '.join(f'{frame.DEVICES[d].capitalize()}: {tables.device_note(r)}' for d, r in devices.items())} "
        f"{tables.provenance_sentence(next(iter(devices.values())), 'classification')}"
    )
    data = pd.DataFrame(columns, index=[title for title, _, _ in shown])
    return Table("AUC by way of training", data, notes, tables.line(next(iter(devices.values())), "classification"))


def _use(values: pd.DataFrame, names: list[str]) -> tuple[str, str]:
    """AUC and difference to traditional augmentation of the mean of some arms, over the subsets in which all of them ran."""
    if not set(names) <= set(values):
        return NOT_RUN, NOT_RUN
    mean = values[names].mean(axis=1, skipna=False).dropna()
    auc = tables.cell(mean.mean(), mean.std(), len(mean), "auc", len(values)) if len(mean) else NOT_RUN
    if names == [TRADITIONAL.name] or TRADITIONAL.name not in values:
        return auc, NOT_PRINTED
    difference = (mean - values[TRADITIONAL.name]).dropna()
    spread = f" ± {100 * difference.std():.2f}" if len(difference) > 1 else ""
    return auc, f"{points(difference.mean())}{spread}" if len(difference) else NOT_RUN


def page(own: pd.DataFrame, intervals: dict[str, dict[str, Any]], where: Path) -> str:
    """The chapter as MyST Markdown.

    own: results of the reader's run; intervals: of it, by device, as `Published.intervals`; where: the folder of published
    runs.
    """
    published = published_runs(where)
    text = ["# Published results", ""]
    if not published:
        return "\n".join([*text, f"No run is published in this copy of the book: {NOT_RUN}.", ""])
    run: Published = published[0]
    shown = devices_of(run.results)
    runs, ends = {}, {}
    for name, results, found in (("published", run.results, run.intervals), ("this copy", own, intervals)):
        for device, measured in devices_of(results).items():
            label = f"{name}, {frame.DEVICES[device]}" if frame.has_probe(results) else name
            runs[label] = measured
            ends[label] = kept.table(found.get(device), "traditional")
    same = all(set(own[sha].dropna()) == set(run.results[sha].dropna()) for sha in ("data_sha", "profile_sha"))
    judge = next(iter(frame.extractors(run.results)), None)
    text += [
        "All numbers of the largest run that is published with this book. {doc}`answer` says in five sentences what they mean,",
        "{doc}`claims` gives its verdicts, {doc}`registration` says what was planned before, {doc}`recompute` computes results again by",
        "your own choices, and {doc}`08_results` explains the tables on the run that this copy was built from."
        + (" Here both are of the same data and profile." if same else ""),
        "",
        about(run.results),
        "",
        *(f"- {inert(frame.DEVICES[d].capitalize())}: {inert(tables.device_note(r))}" for d, r in shown.items()),
        "",
        *_forest(run, where),
        render(by_use(shown)),
        "",
        *_worth(run, shown, where),
        *dropdown("Is it the images, or the additional steps?", *_devices(shown, _steps)),
        *dropdown("Classification in sentences", *_devices(shown, _classified)),
        *dropdown(
            "Table 2: every arm",
            *(
                render(table)
                for device, results in shown.items()
                for table in (
                    tables.table_2(results, run.intervals.get(device)),
                    tables.table_2_more(results),
                    tables.table_centres(results),
                    tables.table_slides(run.intervals.get(device)),
                )
                if table
            ),
        ),
        *dropdown(
            "Paired differences of every arm",
            *(
                render(table)
                for device, results in shown.items()
                for table in tables.tables_differences(results, found=run.intervals.get(device))
            ),
        ),
        *dropdown(
            "What the run could have shown",
            *(
                render(table(run.intervals.get(device), f"{title}: {frame.DEVICES[device]}"))
                for device in shown
                for table, title in (
                    (tables.table_power, "What this run could have shown"),
                    (tables.table_components, "Where the spread comes from"),
                )
            ),
            *(f"\n{inert(findings.limits(r, run.intervals.get(d)))}\n" for d, r in shown.items()),
        ),
        *dropdown(
            "Image quality: sentences and Table 1",
            findings.bullets(findings.findings_quality(run.results, judge)) if judge else NOT_RUN,
            "",
            *(
                render(table)
                for extractor in frame.extractors(run.results)
                for table in quality_tables.of_judge(run.results, extractor)
            ),
            *(
                render(table(run.results))
                for kind, table in (
                    ("label-content", quality_tables.table_label_content),
                    ("known-labels", quality_tables.table_known_labels),
                )
                if len(frame.of_kind(run.results, kind))
            ),
            render(quality_tables.table_accepted(run.results)),
            render(quality_tables.table_memorisation(run.results)),
        ),
        *dropdown(
            "Tables 1 and 2 of the paper", render(quality_tables.paper_table_1()), render(tables.paper_table_2())
        ),
        *dropdown(
            "What separates the run from the paper", render(protocol({"published": run.results, "this copy": own}))
        ),
        *dropdown("Beside the run of this copy", render(beside(runs, ends))),
        *_pictures(run.name, where),
        *_tried(where / "tuning"),
        *dropdown("Where these numbers come from, and how to make them again", *_source(run, own, where)),
    ]
    return "\n".join(text)


def shares(devices: dict[str, pd.DataFrame]) -> Table | None:
    """The gain by as many generated patches as a share of the gain by as many real ones, by device; None where none can be given."""
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
        "Each generator's patches by augmentation, averaged over selections, and twice the real patches, both minus the stronger step "
        "control, paired by subset. In brackets Fieller's 95 % interval, which has no ends where the gain by real patches is not told "
        "from zero."
    )
    data = pd.DataFrame(columns, index=[generators.label(name) for name in names])
    line = f"Ratio of mean gains of AUC. {tables.provenance_sentence(next(iter(devices.values())), 'classification')}"
    return Table("Gain by generated patches as a share of the gain by real ones", data, notes, line)


def _share(rate: headline.Rate) -> str:
    ends = f"{signed(rate.low)} to {signed(rate.high)}" if math.isfinite(rate.high) else "no bounded interval"
    return f"{signed(rate.value)} ({ends})"


def _worth(run: Published, shown: dict[str, pd.DataFrame], where: Path) -> list[str]:
    """What patches are worth: by the gains of whole sets, and by the curves where the run has them."""
    measured = {device: results for device, results in shown.items() if rivals.trust(results).measures is True}
    table, found = shares(measured) if measured else None, curves.points(run.results)
    lines = [render(table)] if table else []
    if not found.empty:
        n = curves.size(run.results)
        texts = (
            (
                curve_plots.gain,
                "AUC of the probe over the number of real patches, alone and with as many synthetic ones",
            ),
            (curve_plots.gains, f"AUC of the probe over synthetic patches per real one, beside {n:,} real patches"),
        )
        for name, (say, alt) in zip(curve_plots.FIGURES, texts, strict=True):
            path = where / "worth" / run.name / f"{name}.png"
            caption = f"{say(found, n)} {alt}: means over subsets, bands 95 % t intervals.".strip()
            lines += _figure(path, where, alt, caption) if path.exists() else []
        rates = curve_plots.table(found, n)
        lines += [render(rates)] if rates else []
    return dropdown("What real and generated patches are worth", *lines) if lines else []


def dropdown(title: str, *lines: str) -> list[str]:
    """Lines of a closed MyST drop-down."""
    return [f"::::{{dropdown}} {inert(title)}", *lines, "::::", ""]


def _devices(shown: dict[str, pd.DataFrame], say: Any) -> list[str]:
    """Bullets of each device below its name."""
    lines = []
    for device, results in shown.items():
        lines += [f"{frame.DEVICES[device].capitalize()}:", "", findings.bullets(say(results)), ""]
    return lines


def _steps(results: pd.DataFrame) -> list[str]:
    return [*findings.findings_controls(results)[1:], *findings.images_or_steps(results)]


def _classified(results: pd.DataFrame) -> list[str]:
    return findings.findings_classification(results)


def _source(run: Published, own: pd.DataFrame, where: Path) -> list[str]:
    data = printable(f"/path/to/{run.provenance['data']}")
    text = [
        f"The numbers are in {inert(f'book/reference/{run.name}.csv', 'code')}, their provenance in",
        f"{inert(f'book/reference/provenance/{run.name}.csv', 'code')}.",
        "",
        f"- Published. {inert(frame.provenance_note(run.provenance))}",
        f"- This copy. {inert(frame.provenance_note(frame.merged_provenance(own)))}",
        "",
    ]
    if (where / "scores" / run.name).is_dir():
        text += [
            f"{inert(f'book/reference/scores/{run.name}/', 'code')} holds every classifier's score of every test patch, with the labels (NumPy, a",
            "file per subset): to draw the intervals again, or to compute a metric of your own, takes no patches.",
            "",
        ]
    return [
        *text,
        "The run was made and stored by these commands. They give the same numbers, bit for bit, only with the same files, version",
        "of the code, kind of processor and number of threads." + _older(run),
        "",
        "```bash",
        f"make study PROFILE={shlex.quote(run.provenance['profile'])} DATA={shlex.quote(data)} SUBSETS={len(run.provenance['subsets'])}",
        f".venv/bin/pcamlib publish runs/{run.name} {len(run.provenance['subsets'])}",
        "```",
    ]


def _older(run: Published) -> str:
    """A warning where the profile of that name has been changed since the run."""
    if frame.profile_of(run.results):
        return ""
    version = " and ".join(run.provenance["version"])
    return f" The profile {inert(run.provenance['profile'], 'code')} has changed since; the settings of this run are those of version {inert(version)}."


def _forest(run: Published, where: Path) -> list[str]:
    path = where / "forest" / f"{run.name}.png"
    if not path.exists():
        return []
    alt = "Forest plot: the difference of every arm to traditional augmentation in points of AUC, with its interval"
    results = frame.by_device(run.results, "classification")
    caption = (
        f"{result_plots.forest_takeaway(results, run.intervals.get('classification'))} AUC minus traditional augmentation of the same "
        "subset, in points: squares and diamonds (transfer) are means, circles the subsets, lines 95 % intervals."
    )
    return _figure(path, where, alt, caption)


def _pictures(name: str, where: Path) -> list[str]:
    """Samples and loss curves that `pcamlib.report.publish` kept beside the run's numbers, as the page shows them."""
    text = []
    sheets = {path.stem: path for path in sorted((where / "sheets" / name).glob("*.png"))}
    sheets = {g: sheets[g] for g in [*paper.GENERATORS, *sheets] if g in sheets}
    lines = [
        "The first samples of every subset, a row each, not selected: left without tumour, right with. No real patch is shown.",
        "",
    ]
    for generator, path in sheets.items():
        shown = generators.label(generator)
        lines += _figure(path, where, f"Patches by {shown}, a row per subset: left without tumour, right with", shown)
    if sheets:
        text += dropdown("Generated patches", *lines)
    text += _strips(name, where)
    drawn = sorted((where / "curves" / name).glob("*.png"))
    lines = [f"As numbers: {inert(f'book/reference/curves/{name}/log.json', 'code')}.", ""]
    for path in drawn:
        shown = _stage(path.stem)
        lines += _figure(
            path, where, f"Training curves of {shown}, a line per subset", f"{shown}. {_trend(where, name, path.stem)}"
        )
    if drawn:
        text += dropdown("How training went", *lines)
    return text


def _strips(name: str, where: Path) -> list[str]:
    """The published strips of generated patches, a drop-down per kind, and what the run lacks of them."""
    found, lacks = strips.of_run(name, where)
    text = []
    for kind, (title, _, _) in strips.KINDS.items():
        lines = []
        for path, strip in found:
            # the first samples are on the sheets of every subset
            if strip["kind"] == kind != "samples":
                lines += _figure(path, where, strip["alt"], f"{strip['title']} {strip['note']}")
        if lines:
            text += dropdown(f"Generated patches: {title}", *lines)
    if lacks:
        text += dropdown("Generated patches that are not there", findings.bullets(lacks))
    return text


def _trend(where: Path, name: str, stage: str) -> str:
    """How the first quantity of a published training log went."""
    path = where / "curves" / name / "log.json"
    logs = read_json(path).get(stage) if path.exists() else None
    return plots.loss_curves(logs).get_label() if logs else ""


def _figure(path: Path, where: Path, alt: str, caption: str) -> list[str]:
    return picture(f"../reference/{path.relative_to(where).as_posix()}", alt, caption)


def _tried(folder: Path) -> list[str]:
    """What `pcamlib.experiments.tuning` tried and what was concluded, if it is published: folder/plan.yml and folder/trials.json."""
    if not (folder / "trials.json").exists():
        return []
    found = read_json(folder / "trials.json")
    provenance = found["provenance"]
    rows = found["rows"]
    columns = {
        HEADINGS["fid"]: [f"{row['fid']:.2f}" for row in rows],
        HEADINGS["kid"]: [f"{1000 * row['kid']:.1f} ± {1000 * row['kid_se']:.1f}" for row in rows],
        HEADINGS["label_auc"]: [f"{100 * row['label_auc']:.1f}" for row in rows],
        "images seen": [f"{row['images']:,.0f}" if "images" in row else "–" for row in rows],
        "seconds to train": [f"{row['seconds']:,.0f}" if "seconds" in row else "–" for row in rows],
    }
    stages = ["Training patches" if row["family"] == "real" else _stage(row["family"]) for row in rows]
    names = pd.MultiIndex.from_arrays([stages, [tuning.changed(row) for row in rows]])
    samples = max(row.get("samples", 0) for row in found["rows"])
    versions = sorted({row["version"] for row in found["rows"] if "version" in row})
    notes = (
        f"{samples} samples a trial against all {found['n_valid']:,} validation patches; the test split was not opened. "
        f"Space: {found['judge']}. Data {provenance['data']} ({provenance['data_sha']}), subset 0 of profile {provenance['profile']} with "
        f"{provenance['n_real']:,} patches, seed {provenance['seed']}, {provenance['device']}, {provenance['precision']}, "
        f"{provenance['threads']} thread, pcamlib {', '.join(versions)}. The lowest of several noisy values is biased downwards."
    )
    took = {repr((row["family"], row["changes"])): row["seconds"] for row in found["rows"] if "seconds" in row}
    notes += f" Training took {frame.duration(sum(took.values()))} in all."
    plan = tuning.read_plan(folder / "plan.yml")
    line = f"{provenance['data']}, profile {provenance['profile']}; the validation split only."
    table = Table("Trials on the validation split", pd.DataFrame(columns, index=names), notes, line)
    return dropdown("How the generators' settings were chosen", plan.conclusion, "", render(table))


def _stage(name: str) -> str:
    return generators.label(name) if name in generators.REGISTRY else name.capitalize()
