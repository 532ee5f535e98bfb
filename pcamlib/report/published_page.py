"""The page on which paper, published run and reader's run stand beside each other, and what separates their columns.

`page` is called by every build of the book. Its numbers come from the result files and from `book/reference`.
"""

from __future__ import annotations

from pathlib import Path

from pcamlib.core import paper
from pcamlib.core.files import read_json
from pcamlib.core.settings import Profile, load_profile, profile_names
from pcamlib.experiments import tuning
from pcamlib.report import findings, quality_tables, tables
from pcamlib.report.tables import HEADINGS, NOT_PRINTED, Table, cell, points, render
from pcamlib.results import frame, inference
from pcamlib.results.arms import all_arms, arm_name
from pcamlib.results.frame import NOT_RUN, TRADITIONAL, Arm, Row
from pcamlib.results.published import Published, published_runs

JPEG_SLICE = ("27330f0e6e0ded51", "c5af6480e2c8191e")
"""Fingerprints of the excerpt of PCam that the published runs use, whose patches were re-encoded.

The first is of every row; the second, in results published before that, is of 64 rows of each split.
"""


def _listed(values: list) -> str:
    return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in values) or NOT_RUN


CHANGED = "not those of a profile as it is now"


def _profile(rows: list[Row]) -> Profile | None:
    """The package's profile that a run was made with; None if that profile has been changed since, or was another."""
    name = frame.merged_provenance(rows)["profile"]
    profile = load_profile(name) if name in profile_names() else None
    return profile if profile and {row["provenance"]["profile_sha"] for row in rows} == {profile.sha} else None


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


def protocol(runs: dict[str, list[Row]]) -> Table:
    """What differs between the paper and runs (rows by a run's name), a line per cause with the columns that it moves."""
    p = paper.PROTOCOL
    lines = {
        ("Every column", "data"): ["PCam as released, lossless"],
        ("Every column", "subsets × real patches"): [f"{p.subsets} × {p.subset_size:,}"],
        ("Every column", "generators: images seen"): [f"{p.generator_epochs * p.subset_size:,} ({p.generator_epochs} epochs)"],
        ("Every column", "generators: learning rate × batch"): [f"{p.generator_lr:g} × {p.generator_batch}"],
        ("Every column", "orientations shown, guidance, sampler"): ["not stated"],
        ("Table 1: FID", "features of the distance"): ["Inception-V3, ImageNet"],
        ("Table 1: FID", "images compared"): [f"not stated; at most {p.subset_size:,}"],
        ("Table 1: precision, recall, F1", "features, k"): ["not stated"],
        ("Table 2: every column", "classifier starts from"): ["ImageNet weights"],
        ("Table 2: every column", "epochs of a stage"): [str(p.classifier_epochs)],
        ("Table 2: every column", "pixels, learning rate × batch"): [
            f"{p.patch_px} × {p.patch_px}, {p.classifier_lr:g} × {p.classifier_batch}"
        ],
        ("Table 2: every column", "test patches"): [f"{p.test:,}, as released"],
        ("Table 2: accuracy, sensitivity, specificity", "threshold"): ["not stated"],
        ("Table 2: spread", "seeds of a subset"): ["1"],
    }  # fmt: skip
    for rows in runs.values():
        provenance, profile = frame.merged_provenance(rows), _profile(rows)
        jpeg = any(row["provenance"]["data_sha"] in JPEG_SLICE for row in rows)
        data = "phantom: procedural patches, no tissue" if provenance["phantom"] else provenance["data"]
        judged = [row for row in frame.of_kind(rows, "quality") if row["status"] == "ok"]
        ran = [row for row in frame.of_kind(rows, "classification") if row["status"] == "ok"]
        start = [
            row["pretrained"] for row in ran if row["regime"] in ("baseline", "traditional") and "pretrained" in row
        ]
        images = {row["generator"]: row["images"] for row in frame.of_kind(rows, "training")}
        names = frame.extractors(rows)
        seeds = sorted({n for arm in all_arms() for n in frame.seeds(ran, arm)})
        values = [
            data + ": 26,000 of PCam's patches, re-encoded as JPEG (quality 75, halved chroma)" * jpeg,
            f"{len(provenance['subsets'])} × {_listed(provenance['n_real'])}",
            "; ".join(f"{paper.GENERATOR_NAMES.get(name, name)} {n:,}" for name, n in images.items()) or NOT_RUN,
            *_generators(profile),
            names[0] if names else NOT_RUN,
            _listed(sorted({row["n_fake"] for row in judged})),
            f"{_listed(names)}; k = {_listed(sorted({row['k'] for row in judged}))}",
            " or ".join("random initialisation" if s == "none" else s for s in dict.fromkeys(start)) or NOT_RUN,
            _listed(sorted({row["epochs"] for row in ran})),
            _classifier(profile),
            _listed(sorted({row["test_n"] for row in ran})),
            _listed(sorted({row["threshold"] for row in ran})),
            _listed(seeds),
        ]
        for cells, value in zip(lines.values(), values, strict=True):
            cells.append(value)
    names = {"paper": "paper", **{f"run {i}": name for i, name in enumerate(runs)}}
    rows = [
        {"section": section, "label": label} | dict(zip(names, cells, strict=True))
        for (section, label), cells in lines.items()
    ]
    caption = (
        "Each line alone is reason enough that absolute values differ. What can be set beside each other is the order of "
        "rows within a column, and the sign and size of differences to traditional augmentation."
    )
    return Table("Why no column here repeats a column of the paper", [("", names)], rows, caption)


def beside(runs: dict[str, list[Row]], intervals: dict[str, dict[Arm, dict]]) -> Table:
    """AUC minus traditional augmentation in points, arm by arm: the paper and every run, with intervals."""
    printed = {(r.regime, r.generator, r.selection): r.auc.mean / 100 for r in paper.TABLE_2}
    lines = []
    for arm in all_arms():
        row = {"section": "", "label": arm_name(arm), "paper": NOT_PRINTED}
        if arm in printed:
            row["paper"] = points(printed[arm] - printed[TRADITIONAL])
        for i, (name, rows) in enumerate(runs.items()):
            found = frame.of_kind(rows, "classification")
            own = frame.summary(found, arm, "auc")
            if own is None:
                row[f"run {i}"] = NOT_RUN
                continue
            difference = frame.paired(found, arm, TRADITIONAL)
            drawn = intervals[name].get(arm)
            low, high = (drawn["low"], drawn["high"]) if drawn else difference[3:] if difference else (None, None)
            text = points(difference.mean) if difference else NOT_RUN
            row[f"run {i}"] = text + (f" ({tables.span(low, high)})" if low is not None and arm != TRADITIONAL else "")
            row[f"auc {i}"] = cell(own, "auc", len({r["subset"] for r in rows}))
        for i in range(len(runs)):
            row.setdefault(f"auc {i}", NOT_RUN)
        lines.append(row)
    head = [("minus traditional", {"paper": "paper", **{f"run {i}": name for i, name in enumerate(runs)}})]
    head.append((HEADINGS["auc"], {f"auc {i}": name for i, name in enumerate(runs)}))
    caption = (
        "In brackets 95 % intervals: bootstrap over subsets, seeds and test patches where test scores were kept, else "
        f"Student's t over three subsets or more. {inference.TOO_NARROW}"
    )
    return Table("AUC: differences to traditional augmentation", head, lines, caption)


def page(own: list[Row], bootstrap: Row | None, where: Path) -> str:
    """The chapter as MyST Markdown. own: rows of the reader's run; bootstrap: of it; where: the folder of published runs."""
    published = published_runs(where)
    text = ["# Published results", ""]
    if not published:
        return "\n".join([*text, f"No run is published in this copy of the book: {NOT_RUN}.", ""])
    run: Published = published[0]
    name = f"published: {run.name}"
    runs = {name: run.rows, "this run": own}
    intervals = {
        name: inference.intervals(run.bootstrap, "traditional"),
        "this run": inference.intervals(bootstrap, "traditional"),
    }
    same = {(r["provenance"]["data_sha"], r["provenance"]["profile_sha"]) for r in own} == {
        (r["provenance"]["data_sha"], r["provenance"]["profile_sha"]) for r in run.rows
    }
    judge = frame.extractors(run.rows)[0]
    text += [
        f"The numbers of the largest run that is published with this book (`book/reference/{run.name}.json`), and beside",
        "them those of the run that this copy of the book was built from. Every build writes this page."
        + (" Here both are of the same data and profile." if same else ""),
        "",
        f"- Published. {frame.provenance_note(run.provenance)}",
        f"- This run. {frame.provenance_note(frame.merged_provenance(own))}",
        "",
        "The published run was made and kept by these commands. Its numbers come again, bit for bit, only with the same files,",
        "version of the code, kind of processor and number of threads." + _older(run),
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
        findings.bullets(findings.findings_quality(run.rows, judge)),
        findings.bullets(findings.findings_classification(run.rows)),
        "",
        *_forest(run.name, where),
        "Is it the images, or the extra steps? The controls, which see no synthetic image, against traditional augmentation:",
        "",
        findings.bullets(findings.findings_controls(run.rows)),
        "",
        "And the arms that do:",
        "",
        findings.bullets(findings.images_or_steps(run.rows)),
        "",
        "## What it can say, and what not",
        "",
        findings.limits(run.rows, run.bootstrap),
        "",
        "Its verdicts on the paper's claims are a column of {doc}`08_results`.",
        "",
        *_pictures(run.name, where),
        *_tried(where / "tuning"),
        "## Tables 1 and 2 of the published run",
        "",
        *(
            render(table(run.rows, extractor))
            for extractor in frame.extractors(run.rows)
            for table in (quality_tables.table_1, quality_tables.table_1_more)
        ),
        render(quality_tables.table_memorisation(run.rows)),
        render(tables.table_2(run.rows, run.bootstrap)),
        render(tables.table_differences(run.rows, bootstrap=run.bootstrap)),
        "",
    ]
    return "\n".join(text)


def _older(run: Published) -> str:
    """A warning where the profile of that name has been changed since the run."""
    if _profile(run.rows):
        return ""
    version = " and ".join(run.provenance["version"])
    return f" The profile `{run.provenance['profile']}` has changed since: its settings then are those of version {version}."


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
    lines = []
    for row in found["rows"]:
        label = "Training patches" if row["family"] == "real" else _stage(row["family"])
        line = {"section": "", "label": label, "what": tuning.changed(row)}
        line |= {"fid": f"{row['fid']:.2f}", "kid": f"{1000 * row['kid']:.1f} ± {1000 * row['kid_se']:.1f}"}
        line["auc"] = f"{100 * row['label_auc']:.1f}"
        line |= {key: f"{row[key]:,.0f}" if key in row else "–" for key in ("images", "seconds")}
        lines.append(line)
    columns = {
        "what": "changed in the profile",
        "fid": HEADINGS["fid"],
        "kid": HEADINGS["kid"],
        "auc": HEADINGS["label_auc"],
    }
    columns |= {"images": "images seen", "seconds": "seconds to train"}
    samples = max(row.get("samples", 0) for row in found["rows"])
    versions = sorted({row["version"] for row in found["rows"] if "version" in row})
    caption = (
        f"{samples} samples a trial against all {found['n_valid']:,} validation patches; the test split was not opened. "
        f"Space: {found['judge']}. Data {provenance['data']} ({provenance['data_sha']}), subset 0 of profile {provenance['profile']} with "
        f"{provenance['n_real']:,} patches, seed {provenance['seed']}, {provenance['device']}, {provenance['precision']}, "
        f"{provenance['threads']} thread, pcamlib {', '.join(versions)}. The lowest of several noisy values flatters itself."
    )
    took = {repr((row["family"], row["changes"])): row["seconds"] for row in found["rows"] if "seconds" in row}
    caption += f" Training took {frame.duration(sum(took.values()))} in all."
    plan = tuning.read_plan(folder / "plan.yml")
    table = Table("Trials on the validation split", [("", columns)], lines, caption)
    return ["## How the generators' settings were chosen", "", plan.conclusion, "", render(table), ""]


def _stage(name: str) -> str:
    return paper.GENERATOR_NAMES.get(name, name.capitalize())
