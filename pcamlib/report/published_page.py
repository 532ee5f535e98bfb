"""The page that shows the paper, the published run and the reader's run beside each other, and how they differ.

`page` is called by every build of the book. Its numbers come from the result files and from `book/reference`.
"""

from __future__ import annotations

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
from pcamlib.report import findings, quality_tables, tables
from pcamlib.report.tables import HEADINGS, NOT_PRINTED, Table, arms_of, cells, listed, points, render
from pcamlib.results import frame, inference
from pcamlib.results import intervals as kept
from pcamlib.results.arms import TRADITIONAL, classifiers, generators_of
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.published import Published, published_runs

JPEG_SLICE = ("27330f0e6e0ded51", "c5af6480e2c8191e")
"""Fingerprints of the excerpt of PCam that the published runs use, whose patches were re-encoded.

The first is of every row; the second, in results published before that, is of 64 rows of each split.
"""
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
    return Table("Why no column here repeats a column of the paper", data, notes)


def _protocol(results: pd.DataFrame) -> list[str]:
    """The column of a run in `protocol`."""
    provenance, profile = frame.merged_provenance(results), frame.profile_of(results)
    judged, ran, trained = (frame.of_kind(results, kind) for kind in ("quality", "classification", "training"))
    names = frame.extractors(results)
    jpeg = bool(set(results["data_sha"]) & set(JPEG_SLICE))
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
    columns = {
        ("minus traditional", "paper"): [points(printed[a] - reference) if a in printed else NOT_PRINTED for a in arms]
    }
    for name, results in runs.items():
        tests = inference.compared(results, TRADITIONAL)
        own = [TRADITIONAL.name] if TRADITIONAL.name in frame.by_subset(results, "auc") else []
        ends = tests.loc[tests["n"] >= 3, ["low", "high"]]
        drawn = intervals[name][["low", "high"]]
        ends = pd.concat([drawn, ends.drop(drawn.index, errors="ignore")])
        texts = {arm: points(mean) for arm, mean in tests["mean"].items()} | {arm: points(0) for arm in own}
        texts |= {arm: f"{texts[arm]} ({tables.span(*ends.loc[arm])})" for arm in ends.index.intersection(tests.index)}
        columns["minus traditional", name] = [texts.get(a.name, NOT_RUN) for a in arms]
    columns |= {(HEADINGS["auc"], name): cells(results, "auc", arms) for name, results in runs.items()}
    notes = (
        "In brackets 95 % intervals: over subsets, seeds and test patches where test scores were kept, else Student's t over "
        f"three subsets or more. {' '.join(f'{name[0].upper()}{name[1:]}: {tables.device_note(r)}' for name, r in runs.items())}"
    )
    data = pd.DataFrame(columns, index=[arm.title for arm in arms])
    return Table("AUC: differences to traditional augmentation", data, notes)


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
    runs, ends = {}, {}
    for name, results, found in ((f"published: {run.name}", run.results, run.intervals), ("this run", own, intervals)):
        for device in frame.DEVICES:
            if device == "classification" or frame.has_probe(results):
                label = name + ", probe" * (device == "probe")
                runs[label] = frame.by_device(results, device)
                ends[label] = kept.table(found.get(device), "traditional")
    same = all(set(own[sha].dropna()) == set(run.results[sha].dropna()) for sha in ("data_sha", "profile_sha"))
    judge = frame.extractors(run.results)[0]
    where_data = printable(f"/path/to/{run.provenance['data']}")
    text += [
        f"The numbers of the largest run that is published with this book ({inert(f'book/reference/{run.name}.csv', 'code')}, with their provenance",
        f"in {inert(f'book/reference/provenance/{run.name}.csv', 'code')}), and beside them those of the run that this copy of the book was built",
        "from. Every build writes this page." + (" Here both are of the same data and profile." if same else ""),
        "",
        f"- Published. {inert(frame.provenance_note(run.provenance))}",
        f"- This run. {inert(frame.provenance_note(frame.merged_provenance(own)))}",
        "",
        "The published run was made and stored by these commands. They give the same numbers, bit for bit, only with the same",
        "files, version of the code, kind of processor and number of threads." + _older(run),
        "",
        "```bash",
        f"make study PROFILE={shlex.quote(run.provenance['profile'])} DATA={shlex.quote(where_data)} SUBSETS={len(run.provenance['subsets'])}",
        f".venv/bin/pcamlib publish runs/{run.name} {len(run.provenance['subsets'])}",
        "```",
        "",
        *_scores(run.name, where),
        "## What separates the columns",
        "",
        render(protocol({f"published: {run.name}": run.results, "this run": own})),
        "",
        "## Beside each other",
        "",
        render(beside(runs, ends)),
        "",
        "## What the published run found",
        "",
        findings.bullets(findings.findings_quality(run.results, judge)),
        "",
        *_forest(run.name, where),
    ]
    shown = {device: frame.by_device(run.results, device) for device in frame.DEVICES}
    if not frame.has_probe(run.results):
        del shown["probe"]
    for device, results in shown.items():
        found = run.intervals.get(device)
        text += [
            f"### Measured by a {frame.DEVICES[device]}",
            "",
            "What it could have shown:",
            "",
            render(tables.table_power(found)),
            "",
            "Is it the images, or the extra steps? The device and the controls, which see no synthetic image, then the arms that do:",
            "",
            findings.bullets([*findings.findings_controls(results), *findings.images_or_steps(results)]),
            "",
            "Further:",
            "",
            findings.bullets(findings.findings_classification(results)),
            "",
            findings.limits(results, found),
            "",
        ]
    text += [
        "Its verdicts on the paper's claims are columns of {doc}`08_results`.",
        "",
        *_pictures(run.name, where),
        *_tried(where / "tuning"),
        "## Tables 1 and 2 of the published run",
        "",
        *(
            render(table(run.results, extractor))
            for extractor in frame.extractors(run.results)
            for table in (quality_tables.table_1, quality_tables.table_1_more)
        ),
        render(quality_tables.table_memorisation(run.results)),
        *(
            render(table(results, found=run.intervals.get(device)))
            for device, results in shown.items()
            for table in (tables.table_2, tables.table_differences)
        ),
        "",
    ]
    return "\n".join(text)


def _older(run: Published) -> str:
    """A warning where the profile of that name has been changed since the run."""
    if frame.profile_of(run.results):
        return ""
    version = " and ".join(run.provenance["version"])
    return f" The profile {inert(run.provenance['profile'], 'code')} has changed since; the settings of this run are those of version {inert(version)}."


def _scores(name: str, where: Path) -> list[str]:
    if not (where / "scores" / name).is_dir():
        return []
    return [
        f"{inert(f'book/reference/scores/{name}/', 'code')} holds every classifier's score of every test patch, with the labels (NumPy, a file",
        "per subset): to draw the intervals again, or to compute a metric of your own, takes no patches.",
        "",
    ]


def _forest(name: str, where: Path) -> list[str]:
    path = where / "forest" / f"{name}.png"
    if not path.exists():
        return []
    alt = "Forest plot: the difference of every arm to traditional augmentation in points of AUC, with its interval"
    caption = (
        "AUC minus traditional augmentation of the same subset, in points: squares and diamonds (transfer) are means, "
        "circles the subsets, lines 95 % intervals."
    )
    return _figure(path, where, alt, caption)


def _pictures(name: str, where: Path) -> list[str]:
    """Samples and loss curves that `pcamlib.report.publish` kept beside the run's numbers, as the page shows them."""
    text = []
    found = [path.stem for path in sorted((where / "sheets" / name).glob("*.png"))]
    order = [*paper.GENERATORS, *(g for g in found if g not in paper.GENERATORS)]
    sheets = {g: where / "sheets" / name / f"{g}.png" for g in order}
    if found:
        text += ["## Generated patches", ""]
        text += [
            "The first samples of every subset, a row each, not selected: left without tumour, right with. No real patch",
            "is shown.",
            "",
        ]
    for generator, path in sheets.items():
        if path.exists():
            shown = _stage(generator)
            text += _figure(
                path, where, f"Patches by {shown}, a row per subset: left without tumour, right with", shown
            )
    curves = sorted((where / "curves" / name).glob("*.png"))
    if curves:
        text += [
            "## How training went",
            "",
            f"As numbers: {inert(f'book/reference/curves/{name}/log.json', 'code')}.",
            "",
        ]
    for path in curves:
        shown = _stage(path.stem)
        text += _figure(path, where, f"Training curves of {shown}, a line per subset", shown)
    return text


def _figure(path: Path, where: Path, alt: str, caption: str) -> list[str]:
    return [f":::{{figure}} ../reference/{path.relative_to(where).as_posix()}", f":alt: {alt}", "", caption, ":::", ""]


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
    table = Table("Trials on the validation split", pd.DataFrame(columns, index=names), notes)
    return ["## How the generators' settings were chosen", "", plan.conclusion, "", render(table), ""]


def _stage(name: str) -> str:
    return generators.label(name) if name in generators.REGISTRY else name.capitalize()
