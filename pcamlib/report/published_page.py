"""The page that shows the paper, the published run and the reader's run beside each other, and how they differ.

`page` is called by every build of the book. Its numbers come from the result files and from `book/reference`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pcamlib.core import paper
from pcamlib.core.files import read_json
from pcamlib.core.settings import Profile, load_profile, profile_names
from pcamlib.experiments import tuning
from pcamlib.report import findings, quality_tables, tables
from pcamlib.report.tables import HEADINGS, NOT_PRINTED, Table, cells, listed, points, render
from pcamlib.results import frame, inference
from pcamlib.results.arms import ARMS, TRADITIONAL
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.published import Published, published_runs

JPEG_SLICE = ("27330f0e6e0ded51", "c5af6480e2c8191e")
"""Fingerprints of the excerpt of PCam that the published runs use, whose patches were re-encoded.

The first is of every row; the second, in results published before that, is of 64 rows of each split.
"""
CHANGED = "not those of a profile as it is now"


def _profile(results: pd.DataFrame) -> Profile | None:
    """The package's profile that a run was made with; None if that profile has been changed since, or was another."""
    name = frame.merged_provenance(results)["profile"]
    profile = load_profile(name) if name in profile_names() else None
    return profile if profile and set(results["profile_sha"].dropna()) == {profile.sha} else None


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
    provenance, profile = frame.merged_provenance(results), _profile(results)
    judged, ran, trained = (frame.of_kind(results, kind) for kind in ("quality", "classification", "training"))
    names = frame.extractors(results)
    jpeg = bool(set(results["data_sha"]) & set(JPEG_SLICE))
    data = "phantom: procedural patches, no tissue" if provenance["phantom"] else provenance["data"]
    start = ran.loc[ran["regime"].isin(("baseline", "traditional")), "pretrained"].dropna().unique()
    images = trained.groupby("generator", sort=False)["value"].last()
    return [
        data + ": 26,000 of PCam's patches, re-encoded as JPEG (quality 75, halved chroma)" * jpeg,
        f"{len(provenance['subsets'])} × {listed(provenance['n_real'])}",
        "; ".join(f"{paper.GENERATOR_NAMES.get(name, name)} {n:,.0f}" for name, n in images.items()) or NOT_RUN,
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
    columns = {
        ("minus traditional", "paper"): [points(printed[a] - reference) if a in printed else NOT_PRINTED for a in ARMS]
    }
    for name, results in runs.items():
        tests = inference.compared(results, TRADITIONAL)
        own = [TRADITIONAL.name] if TRADITIONAL.name in frame.by_subset(results, "auc") else []
        ends = tests.loc[tests["n"] >= 3, ["low", "high"]]
        drawn = intervals[name][["low", "high"]]
        ends = pd.concat([drawn, ends.drop(drawn.index, errors="ignore")])
        texts = {arm: points(mean) for arm, mean in tests["mean"].items()} | {arm: points(0) for arm in own}
        texts |= {arm: f"{texts[arm]} ({tables.span(*ends.loc[arm])})" for arm in ends.index.intersection(tests.index)}
        columns["minus traditional", name] = [texts.get(a.name, NOT_RUN) for a in ARMS]
    columns |= {(HEADINGS["auc"], name): cells(results, "auc", ARMS) for name, results in runs.items()}
    notes = (
        "In brackets 95 % intervals: bootstrap over subsets, seeds and test patches where test scores were kept, else "
        f"Student's t over three subsets or more. {inference.TOO_NARROW}"
    )
    data = pd.DataFrame(columns, index=[arm.title for arm in ARMS])
    return Table("AUC: differences to traditional augmentation", data, notes)


def page(own: pd.DataFrame, bootstrap: dict[str, Any] | None, where: Path) -> str:
    """The chapter as MyST Markdown. own: results of the reader's run; bootstrap: of it; where: the folder of published runs."""
    published = published_runs(where)
    text = ["# Published results", ""]
    if not published:
        return "\n".join([*text, f"No run is published in this copy of the book: {NOT_RUN}.", ""])
    run: Published = published[0]
    name = f"published: {run.name}"
    runs = {name: run.results, "this run": own}
    intervals = {
        name: inference.intervals(run.bootstrap, "traditional"),
        "this run": inference.intervals(bootstrap, "traditional"),
    }
    same = all(set(own[sha].dropna()) == set(run.results[sha].dropna()) for sha in ("data_sha", "profile_sha"))
    judge = frame.extractors(run.results)[0]
    text += [
        f"The numbers of the largest run that is published with this book (`book/reference/{run.name}.csv`), and beside",
        "them those of the run that this copy of the book was built from. Every build writes this page."
        + (" Here both are of the same data and profile." if same else ""),
        "",
        f"- Published. {frame.provenance_note(run.provenance)}",
        f"- This run. {frame.provenance_note(frame.merged_provenance(own))}",
        "",
        "The published run was made and stored by these commands. They give the same numbers, bit for bit, only with the same",
        "files, version of the code, kind of processor and number of threads." + _older(run),
        "",
        "```bash",
        f"make study PROFILE={run.provenance['profile']} DATA=/path/to/{run.provenance['data']} SUBSETS={len(run.provenance['subsets'])}",
        f".venv/bin/pcamlib publish runs/{run.name} {len(run.provenance['subsets'])}",
        "```",
        "",
        *_scores(run.name, where),
        "## What separates the columns",
        "",
        render(protocol(runs)),
        "",
        "## Beside each other",
        "",
        render(beside(runs, intervals)),
        "",
        "## What the published run found",
        "",
        findings.bullets(findings.findings_quality(run.results, judge)),
        findings.bullets(findings.findings_classification(run.results)),
        "",
        *_forest(run.name, where),
        "Is it the images, or the extra steps? The controls, which see no synthetic image, against traditional augmentation:",
        "",
        findings.bullets(findings.findings_controls(run.results)),
        "",
        "And the arms that do:",
        "",
        findings.bullets(findings.images_or_steps(run.results)),
        "",
        "## What it can say, and what not",
        "",
        findings.limits(run.results, run.bootstrap),
        "",
        "Its verdicts on the paper's claims are a column of {doc}`08_results`.",
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
        render(tables.table_2(run.results, run.bootstrap)),
        render(tables.table_differences(run.results, bootstrap=run.bootstrap)),
        "",
    ]
    return "\n".join(text)


def _older(run: Published) -> str:
    """A warning where the profile of that name has been changed since the run."""
    if _profile(run.results):
        return ""
    version = " and ".join(run.provenance["version"])
    return f" The profile `{run.provenance['profile']}` has changed since; the settings of this run are those of version {version}."


def _scores(name: str, where: Path) -> list[str]:
    if not (where / "scores" / name).is_dir():
        return []
    return [
        f"`book/reference/scores/{name}/` holds every classifier's score of every test patch, with the labels (NumPy, a file",
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
        f"circles the subsets, lines 95 % intervals. {inference.TOO_NARROW}"
    )
    return _figure(path, where, alt, caption)


def _pictures(name: str, where: Path) -> list[str]:
    """Samples and loss curves that `pcamlib.report.publish` kept beside the run's numbers, as the page shows them."""
    text = []
    sheets = {g: where / "sheets" / name / f"{g}.png" for g in paper.GENERATORS}
    if any(path.exists() for path in sheets.values()):
        text += ["## Generated patches", ""]
        text += [
            "The first samples of every subset, a row each, not selected: left without tumour, right with. No real patch",
            "is shown.",
            "",
        ]
    for generator, path in sheets.items():
        if path.exists():
            shown = paper.GENERATOR_NAMES[generator]
            text += _figure(
                path, where, f"Patches by {shown}, a row per subset: left without tumour, right with", shown
            )
    curves = sorted((where / "curves" / name).glob("*.png"))
    if curves:
        text += ["## How training went", "", f"As numbers: `book/reference/curves/{name}/log.json`.", ""]
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
    return paper.GENERATOR_NAMES.get(name, name.capitalize())
