"""The page of the published run: its forest plot and a short table, then all else behind drop-downs, the paper beside
it.

`page` is called by every build of the book. Its numbers come from the result files and from `book/reference`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pcamlib.core import paper
from pcamlib.core.files import read_json
from pcamlib.core.text import inert, printable
from pcamlib.experiments import tuning
from pcamlib.models import generators
from pcamlib.report import (
    auc_tables,
    curve_plots,
    findings,
    plots,
    power_tables,
    published_tables,
    quality_tables,
    result_plots,
    strips,
    tables,
)
from pcamlib.report.answer_page import about, devices_of, picture
from pcamlib.report.tables import HEADINGS, Table, render
from pcamlib.results import curves, frame, rivals
from pcamlib.results import intervals as kept
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.published import Published, published_runs


def page(own: pd.DataFrame, intervals: dict[str, dict[str, Any]], where: Path) -> str:
    """The chapter as MyST Markdown.

    own: results of the reader's run; intervals: of it, by device, as `Published.intervals`; where: the folder of
    published runs.
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
        "All numbers of the largest run that is published with this book. {doc}`answer` says in five sentences what",
        "they mean, {doc}`claims` gives its verdicts, {doc}`registration` says what was planned before,",
        "{doc}`recompute` computes results again by",
        "your own choices, and {doc}`08_results` explains the tables on the run that this copy was built from."
        + (" Here both are of the same data and profile." if same else ""),
        "",
        about(run.results),
        "",
        *(f"- {inert(frame.DEVICES[d].capitalize())}: {inert(tables.device_note(r))}" for d, r in shown.items()),
        "",
        *_forest(run, where),
        render(published_tables.by_use(shown)),
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
                    auc_tables.table_2(results, run.intervals.get(device)),
                    auc_tables.table_2_more(results),
                    auc_tables.table_centres(results),
                    power_tables.table_slides(run.intervals.get(device)),
                )
                if table
            ),
        ),
        *dropdown(
            "Paired differences of every arm",
            *(
                render(table)
                for device, results in shown.items()
                for table in auc_tables.tables_differences(results, found=run.intervals.get(device))
            ),
        ),
        *dropdown(
            "What the run could have shown",
            *(
                render(table(run.intervals.get(device), f"{title}: {frame.DEVICES[device]}"))
                for device in shown
                for table, title in (
                    (power_tables.table_power, "What this run could have shown"),
                    (power_tables.table_components, "Where the spread comes from"),
                )
            ),
            *(f"\n{inert(findings.limits(r, run.intervals.get(d)))}\n" for d, r in shown.items()),
        ),
        *dropdown(
            "Image quality: sentences and Table 1",
            findings.bullets(
                [
                    *findings.findings_quality(run.results, judge),
                    *findings.label_content(run.results),
                    *findings.known_labels(run.results),
                ]
            )
            if judge
            else NOT_RUN,
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
            "Tables 1 and 2 of the paper", render(quality_tables.paper_table_1()), render(auc_tables.paper_table_2())
        ),
        *dropdown(
            "What separates the run from the paper",
            render(published_tables.protocol({"published": run.results, "this copy": own})),
        ),
        *dropdown("Beside the run of this copy", render(published_tables.beside(runs, ends))),
        *_pictures(run.name, where),
        *_tried(where / "tuning"),
        *dropdown("Where these numbers come from, and how to make them again", *_source(run, own, where)),
    ]
    return "\n".join(text)


def _worth(run: Published, shown: dict[str, pd.DataFrame], where: Path) -> list[str]:
    """What patches are worth: by the gains of whole sets, and by the curves where the run has them."""
    measured = {device: results for device, results in shown.items() if rivals.trust(results).measures is True}
    table, found = published_tables.shares(measured) if measured else None, curves.points(run.results)
    lines = [render(table)] if table else []
    if not found.empty:
        n = curves.size(run.results)
        texts = (
            (
                curve_plots.gain,
                "AUC of the probe over the number of real patches, alone and with as many synthetic ones",
            ),
            (
                curve_plots.gains,
                f"Change of the probe's AUC over further patches per real one, beside {n:,} real patches",
            ),
        )
        for name, (say, alt) in zip(curve_plots.FIGURES, texts, strict=True):
            path = where / "worth" / run.name / f"{name}.png"
            caption = f"{say(found, n)} {alt}: means over subsets, bands 95 % t intervals.".strip()
            lines += _figure(path, where, alt, caption) if path.exists() else []
        lines += ["The further real patches of the curves are others than those of the arm *Twice the real data*.", ""]
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
            (
                f"{inert(f'book/reference/scores/{run.name}/', 'code')} holds every classifier's score of every test"
                " patch, with the labels (NumPy, a"
            ),
            "file per subset): to draw the intervals again, or to compute a metric of your own, takes no patches.",
            "",
        ]
    return [
        *text,
        "The run was made and stored by these commands. They give the same numbers, bit for bit, only with the same",
        "files, version",
        "of the code, kind of processor and number of threads." + _older(run),
        "",
        "```bash",
        (
            f"make study PROFILE={shlex.quote(run.provenance['profile'])} DATA={shlex.quote(data)}"
            f" SUBSETS={len(run.provenance['subsets'])}"
        ),
        f".venv/bin/pcamlib publish runs/{run.name} {len(run.provenance['subsets'])}",
        "```",
    ]


def _older(run: Published) -> str:
    """A warning where the profile of that name has been changed since the run."""
    if frame.profile_of(run.results):
        return ""
    version = " and ".join(run.provenance["version"])
    return (
        f" The profile {inert(run.provenance['profile'], 'code')} has changed since; the settings of this run are those"
        f" of version {inert(version)}."
    )


def _forest(run: Published, where: Path) -> list[str]:
    path = where / "forest" / f"{run.name}.png"
    if not path.exists():
        return []
    alt = "Forest plot: the difference of every arm to traditional augmentation in points of AUC, with its interval"
    device = frame.fullest(run.results)
    results = frame.by_device(run.results, device)
    caption = (
        f"By the {frame.DEVICES[device]}: {result_plots.forest_takeaway(results, run.intervals.get(device))} AUC minus"
        " traditional augmentation of the same subset, in points: squares and diamonds (transfer) are means, circles"
        " the subsets, lines 95 % intervals."
    )
    return _figure(path, where, alt, caption)


def _pictures(name: str, where: Path) -> list[str]:
    """Samples and loss curves that `pcamlib.report.publish` kept beside the run's numbers, as the page shows them."""
    text = []
    sheets = {path.stem: path for path in sorted((where / "sheets" / name).glob("*.png"))}
    sheets = {g: sheets[g] for g in [*paper.GENERATORS, *sheets] if g in sheets}
    lines = [
        "The first samples of every subset, a row each, not selected: left without tumour, right with. No real",
        "patch is shown.",
        "",
    ]
    for generator, path in sheets.items():
        shown = generators.label(generator)
        alt = f"Patches by {shown}, a row per subset: left without tumour, right with"
        lines += _figure(path, where, alt, f"{shown}. {_brightness(path)}")
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


def _brightness(sheet: Path) -> str:
    """How bright the patches of a published sheet are, by class: the left half is without tumour, the right half
    with."""
    halves = np.array_split(np.asarray(Image.open(sheet).convert("RGB")), 2, axis=1)
    left, right = (half.mean() for half in halves)
    return f"The mean brightness, of 255, is {left:.0f} without tumour and {right:.0f} with."


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
    """What `pcamlib.experiments.tuning` tried and what was concluded, if it is published: folder/plan.yml and
    folder/trials.json."""
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
        f"{samples} samples a trial against all {found['n_valid']:,} validation patches; the test split was not opened."
        f" Space: {found['judge']}. Data {provenance['data']} ({provenance['data_sha']}), subset 0 of profile"
        f" {provenance['profile']} with {provenance['n_real']:,} patches, seed {provenance['seed']},"
        f" {provenance['device']}, {provenance['precision']}, {provenance['threads']} thread, pcamlib"
        f" {', '.join(versions)}. The lowest of several noisy values is biased downwards."
    )
    took = {repr((row["family"], row["changes"])): row["seconds"] for row in found["rows"] if "seconds" in row}
    notes += f" Training took {frame.duration(sum(took.values()))} in all."
    plan = tuning.read_plan(folder / "plan.yml")
    line = f"{provenance['data']}, profile {provenance['profile']}; the validation split only."
    table = Table("Trials on the validation split", pd.DataFrame(columns, index=names), notes, line)
    return dropdown("How the generators' settings were chosen", plan.conclusion, "", render(table))


def _stage(name: str) -> str:
    return generators.label(name) if name in generators.REGISTRY else name.capitalize()
