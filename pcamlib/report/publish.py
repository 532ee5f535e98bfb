"""Numbers of a run that are kept in git, and the README's summary of them.

    pcamlib publish RUN SUBSETS

writes book/reference/<run folder's name>.csv (all results with their provenance, see `pcamlib.results.frame`), beside it
in bootstrap/ what notebook 08 drew from the test scores, in scores/ these scores with the labels, so that a reader without
patches can draw again or compute another metric, in forest/ the figure of all differences, in curves/ the training logs
as numbers and figures, in sheets/ generated samples of every subset, and puts the summary between the marks in README.md.
No patch of the data set leaves the run folder.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import load_file

from pcamlib import data
from pcamlib.core import paper
from pcamlib.core.errors import StudyError, loading_weights
from pcamlib.core.files import atomic, read_json, write_json
from pcamlib.report import claim_table, findings, plots, result_plots
from pcamlib.report.tables import cells
from pcamlib.results import claims, frame, load
from pcamlib.results.arms import BASELINE, CONTROLS, TRADITIONAL, Arm
from pcamlib.results.inference import SCORES
from pcamlib.study import GENERATORS

START, END = "<!-- results: written by pcamlib publish -->", "<!-- end of results -->"
SHEET = 4  # samples per class and subset
STAGES = ("autoencoder", *GENERATORS)
REGIMES = {"augmentation": "augmentation", "transfer": "transfer learning", "synthetic": "synthetic only"}


def publish(run: Path, subsets: int, folder: Path) -> Path:
    """Write the results of `run` over its first `subsets` subsets to folder/<run's name>.csv; returns that path.

    Raises StudyError, before anything is written, if no images of the run have been judged, its bootstrap is older, or
    scores are damaged.
    """
    results = load(run, subsets)
    if not frame.extractors(results):
        raise StudyError(f"{run} has no numbers on the quality of images: run notebook 06 first, or `make study`.")
    path = folder / f"{run.name}.csv"
    drawn, beside = run / "results" / f"bootstrap-{subsets}.json", folder / "bootstrap" / f"{run.name}.json"
    bootstrap = read_json(drawn) if drawn.exists() else None
    provenance = frame.merged_provenance(results)
    if bootstrap and bootstrap["provenance"] != provenance:
        raise StudyError(f"{drawn} is of other results than those in {run}: run notebook 08 again, or `make study`.")
    scores, by_subset = _scores(run, results), folder / "scores" / run.name
    frame.write(results, path)
    for stale in by_subset.glob("*.npz"):
        stale.unlink()
    for name, arms in scores.items():
        with atomic(by_subset / name) as tmp_path, open(tmp_path, "wb") as f:
            np.savez_compressed(f, **arms)
    if bootstrap:
        write_json(beside, bootstrap)
    else:
        beside.unlink(missing_ok=True)
    note = frame.provenance_note(provenance)
    _figure(result_plots.forest(results, bootstrap, note), folder / "forest" / f"{run.name}.png", dpi=120)
    _curves(run, subsets, folder / "curves" / run.name, note)
    for generator in GENERATORS:
        sets = [run / f"subset-{k}" / "synthetic" / f"{generator}-none" for k in range(subsets)]
        _sheet(sets, folder / "sheets" / run.name / f"{generator}.png")
    return path


def _scores(run: Path, results: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """By file name, a subset each: test scores by the classifier's name, float32 (N,), and "labels", uint8 (N,)."""
    found: dict[str, dict[str, np.ndarray]] = {}
    ran = frame.of_kind(results, "classification").drop_duplicates(["subset", "arm", "seed"])
    for line in ran.itertuples():
        arm = frame.arm_of(line).id
        path = run / f"subset-{line.subset}" / "classifiers" / arm / SCORES
        if path.exists():
            with loading_weights(path, f"remove {path.parent} and run notebook 07 again"):
                saved = load_file(path)
                arms = {arm: saved["test"], "labels": saved["labels"]}
            found.setdefault(f"subset-{line.subset}.npz", {}).update(arms)
    return found


def _curves(run: Path, subsets: int, folder: Path, note: str) -> None:
    """The training logs of every stage: as numbers, folder/log.json, and a figure each, a line per subset."""
    logs: dict[str, dict[str, list[dict]]] = {}
    for stage in STAGES:
        paths = {f"subset {k}": run / f"subset-{k}" / "results" / f"{stage}.json" for k in range(subsets)}
        logs[stage] = {name: read_json(path)["log"] for name, path in paths.items() if path.exists()}
        if logs[stage]:
            _figure(plots.loss_curves(logs[stage], note=note), folder / f"{stage}.png", dpi=100)
    write_json(folder / "log.json", logs)


def _figure(figure: Figure, path: Path, dpi: int) -> None:
    """The figure as a PNG of 128 colours: more than it has hues, and a third of the bytes of full colour."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    with atomic(path) as tmp_path:
        Image.open(buffer).convert("RGB").quantize(128).save(tmp_path, format="PNG", optimize=True)


def _sheet(sets: list[Path], path: Path) -> None:
    """The first samples of synthetic sets as a PNG, a row per set: left without, right with tumour. None unless all are there."""
    if not all(synthetic.is_dir() for synthetic in sets):
        path.unlink(missing_ok=True)
        return
    found = [data.load(synthetic, "train") for synthetic in sets]
    n = min(SHEET, *(np.sum(y == c) for _, y in found for c in (0, 1)))
    rows = [np.concatenate([*x[y == 0][:n], *x[y == 1][:n]], axis=1) for x, y in found]
    with atomic(path) as tmp_path:
        Image.fromarray(np.concatenate(rows)).save(tmp_path, format="PNG", optimize=True)


def summary(results: pd.DataFrame, published: str) -> str:
    """Markdown for the file book/reference/<published>.csv: Table 1 without selection and the AUC of Table 2 and Figure 6,
    the paper beside this run; the controls; how many of the paper's claims hold."""
    judge = frame.extractors(results)[0]
    lines = [
        f"Paper / this run. {frame.provenance_note(frame.merged_provenance(results))} The paper: full PCam, 5 subsets of 26,215, ImageNet",
        "weights, 1000 epochs. Absolute values are not comparable; the order of rows may be.",
        "",
        f"Images without selection; our distance, precision and recall in the space of {judge}, not Inception-V3:",
        "",
        "| generator | Fréchet distance | precision, % | recall, % | label AUC, % |",
        "| --- | --- | --- | --- | --- |",
    ]
    arms = [Arm("quality", generator, "none") for generator in paper.GENERATORS]
    metrics = ("fid", "precision", "recall", "label_auc")
    ours = zip(arms, *(cells(results, metric, arms, judge) for metric in metrics))
    for arm, *texts, label in ours:
        printed = paper.quality("none", arm.generator)
        both = [f"{getattr(printed, metric).printed} / {text}" for metric, text in zip(metrics, texts)]
        lines.append(f"| {paper.GENERATOR_NAMES[arm.generator]} | {' | '.join(both)} | – / {label} |")
    lines += [
        "",
        "Test AUC, %, by selection:",
        "",
        "| training | none | realism | class-based |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {arm.name} | {_auc(results, [arm])} | | |" for arm in (BASELINE, TRADITIONAL)]
    for generator, name in paper.GENERATOR_NAMES.items():
        for regime, words in REGIMES.items():
            arms = [Arm(regime, generator, selection) for selection in paper.SELECTIONS]
            lines.append(f"| {name}, {words} | {_auc(results, arms)} |")
    lines += [f"| {arm.name} (our control) | {_auc(results, [arm])} | | |" for arm in CONTROLS]
    lines += [
        "",
        "Is it the images, or the extra steps? Against traditional augmentation:",
        "",
        findings.bullets([*findings.findings_controls(results), *findings.images_or_steps(results)]),
        "",
        claim_table.counts(claims.Measured(results, "the paper's thirteen claims, by rules in code")),
        "",
        f"All results with their provenance: `book/reference/{published}.csv`.",
    ]
    return "\n".join(lines)


def _auc(results: pd.DataFrame, arms: list[Arm]) -> str:
    """AUC of the paper and of the run for each arm, as cells of a line."""
    printed = {Arm(row.regime, row.generator, row.selection): row.auc.printed for row in paper.TABLE_2}
    return " | ".join(f"{printed.get(a, '–')} / {text}" for a, text in zip(arms, cells(results, "auc", arms)))


def into(readme: str, results: pd.DataFrame, name: str) -> str:
    """The README's text with the summary between its marks; StudyError if the marks are not there."""
    if readme.count(START) != 1 or readme.count(END) != 1:
        raise StudyError(f"README.md must have one line '{START}' and one line '{END}'.")
    before, rest = readme.split(START)
    return f"{before}{START}\n\n{summary(results, name)}\n\n{END}{rest.split(END)[1]}"


def publish_run(run: Path, subsets: int, root: Path) -> Path:
    """Keep a run's numbers in book/reference/ of the checkout `root`, their summary in its README.md; returns the CSV file.

    Raises StudyError for an incomplete run, or where `root` is no checkout.
    """
    readme = root / "README.md"
    if not readme.is_file():
        raise StudyError(f"{readme} does not exist: run this in a checkout of the repository.")
    path = publish(run, subsets, root / "book" / "reference")
    text = into(readme.read_text(encoding="utf-8"), frame.read(path), path.stem)
    with atomic(readme) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")
    return path
