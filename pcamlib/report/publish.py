"""Numbers of a run that are kept in git, and the README's summary of them.

    pcamlib publish RUN SUBSETS [--weights K]

writes book/reference/<run folder's name>.csv (all results; their provenance is in provenance/, see
`pcamlib.results.compact`), beside it in intervals/ what notebook 08 found from the test scores, in scores/ these scores
with the labels, so that a reader without patches can compute the intervals again or another metric, in forest/ the
figure of all differences, in worth/ those of AUC over numbers of real and generated patches, in curves/ the training
logs as numbers and figures, in sheets/ generated samples of every subset, in strips/ what `strips` draws of subset 0,
and puts the summary between the marks in README.md. SUBSETS is how many, or which: 3-5 adds these to the subsets before
them, which were published earlier, perhaps from another machine. Then the intervals are computed here, from the
published scores of all of them. With --weights, generators/ gets the weights of subset K's generators, and the summary
says how to draw patches with them. No patch of the data set leaves the run folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import load_file

from pcamlib import data
from pcamlib.core.errors import StudyError, loading_weights
from pcamlib.core.files import atomic, atomic_folder, read_json, write_json
from pcamlib.core.text import inert
from pcamlib.data.image_files import SIDE
from pcamlib.models import generators
from pcamlib.report import (
    answer_page,
    claim_table,
    curve_plots,
    findings,
    plan_page,
    plots,
    published_tables,
    result_plots,
    strips,
)
from pcamlib.report.tables import listed
from pcamlib.results import compact, curves, frame, intervals, load, planning
from pcamlib.results.arms import generators_of
from pcamlib.results.evidence import Measured
from pcamlib.results.loading import check
from pcamlib.results.published import (
    check_published_name,
    data_name,
    intervals_file,
    published_folder,
    published_scores,
)

START, END = "<!-- results: written by pcamlib publish -->", "<!-- end of results -->"
SHEET = 4  # samples per class and subset


def publish(run: Path, subsets: int | range, folder: Path) -> Path:
    """Write the results of some subsets of `run` to folder/<run's name>.csv; returns that path.

    subsets: the number of first ones, which take the place of all that was published of the run; or which later ones,
    which are added to the published ones before them. Raises StudyError, before anything is written, if no images of
    the run have been judged, its intervals are older, its name cannot be that of a published run, scores are damaged,
    or subsets are added to none or to those of other data or another profile.
    """
    check_published_name(run.name)
    results = load(run, subsets)
    subsets = range(subsets) if isinstance(subsets, int) else subsets
    if not frame.extractors(results):
        raise StudyError(f"{run} has no numbers on the quality of images: run notebook 06 first, or `make study`.")
    path, by_subset = folder / f"{run.name}.csv", folder / "scores" / run.name
    scores: dict[str, dict[str, np.ndarray]] = {}
    for device in frame.DEVICES:
        scores |= _scores(run, frame.by_device(results, device), device)
    earlier = range(subsets.start)
    if earlier:
        results = joined(compact.read(path) if path.exists() else None, results, subsets, run)
        scores |= {f"{name}.npz": arms for name, arms in published_scores(folder, run.name, earlier).items()}
    found = {}
    for device in frame.DEVICES:
        measured = frame.by_device(results, device)
        if earlier:
            found[device] = _intervals(scores, measured, device, intervals_file(folder, run.name, device))
            continue
        file = intervals.path_of(run, len(subsets), device)
        found[device] = read_json(file) if file.exists() else None
        if found[device] and found[device]["provenance"] != frame.merged_provenance(measured):
            raise StudyError(f"{file} is of other results than those in {run}: run notebook 08 again, or `make study`.")
    drawn = None if earlier else strips.draw(run, results)
    compact.write(results, path)
    for stale in by_subset.glob("*.npz"):
        stale.unlink()
    for name, arms in scores.items():
        with atomic(by_subset / name) as tmp_path, open(tmp_path, "wb") as f:
            np.savez_compressed(f, **arms)
    for device, kept in found.items():
        beside = intervals_file(folder, run.name, device)
        if kept:
            write_json(beside, kept)
        else:
            beside.unlink(missing_ok=True)
    provenance = frame.merged_provenance(results)
    note = frame.provenance_note(provenance | ({} if provenance["phantom"] else {"data": data_name(results)}))
    device = frame.fullest(results)
    by = f"By the {frame.DEVICES[device]}. {note}"
    _figure(
        result_plots.forest(frame.by_device(results, device), found[device], by),
        folder / "forest" / f"{run.name}.png",
        dpi=120,
    )
    _worth(results, folder / "worth" / run.name, note)
    _curves(run, subsets, generators_of(results), folder / "curves" / run.name, note)
    for generator in generators_of(results):
        sets = [run / f"subset-{k}" / "synthetic" / f"{generator}-none" for k in subsets]
        _sheet(sets, folder / "sheets" / run.name / f"{generator}.png", earlier)
    if drawn is not None:
        strips.write(drawn, folder / "strips" / run.name)
    return path


def joined(published: pd.DataFrame | None, results: pd.DataFrame, subsets: range, run: Path) -> pd.DataFrame:
    """The published lines of the subsets before `subsets`, and `results` of these.

    StudyError if one of them was not published, or if they do not belong in one table.
    """
    there = set() if published is None else set(published["subset"])
    if lacking := sorted(set(range(subsets.start)) - there):
        raise StudyError(
            f"subset {listed([str(k) for k in lacking])} of {run.name} has not been published: publish the first"
            " subsets before later ones."
        )
    kept = published[published["subset"] < subsets.start]
    for column, what in (("data_sha", "data"), ("profile_sha", "profile")):
        if set(kept[column].dropna()) != set(results[column].dropna()):
            raise StudyError(
                f"{run} has another {what} than the published subsets of {run.name}: subsets of one study have the same"
                " data and the same profile."
            )
    both = pd.concat([kept, results], ignore_index=True)
    check(both, run)
    return both


def _intervals(
    scores: dict[str, dict[str, np.ndarray]], results: pd.DataFrame, device: str, published: Path
) -> dict[str, Any] | None:
    """What `intervals.evaluate` finds, from the scores in files; slides are those of the `published` intervals."""
    every: planning.Scores = {}
    labels = None
    for line in frame.of_kind(results, "classification").drop_duplicates(["subset", "arm", "seed"]).itertuples():
        arm, arms = frame.arm_of(line), scores.get(_file(line.subset, device), {})
        if arm.id in arms:
            labels = arms["labels"]
            every.setdefault(arm._replace(seed=0), {}).setdefault(line.subset, []).append(arms[arm.id])
    if labels is None:
        return None
    groups = read_json(published).get("groups") if published.exists() else None
    return intervals.assemble(
        labels, every, None if groups is None else np.array(groups), frame.merged_provenance(results)
    )


def _file(subset: int, device: str) -> str:
    return f"subset-{subset}{'-probe' * (device == 'probe')}.npz"


def _scores(run: Path, results: pd.DataFrame, device: str) -> dict[str, dict[str, np.ndarray]]:
    """By file name, a subset each: test scores by the classifier's name, float32 (N,), and "labels", uint8 (N,)."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for path, line in intervals.score_files(run, results):
        with loading_weights(path, f"remove {path.parent} and run notebook 07 again"):
            saved = load_file(path)
            arms = {frame.arm_of(line).id: saved["test"], "labels": saved["labels"]}
        found.setdefault(_file(line.subset, device), {}).update(arms)
    return found


def _worth(results: pd.DataFrame, folder: Path, note: str) -> None:
    """The figures of the curves, `curve_plots.FIGURES`; none where the run measured no curves, not old ones either."""
    found = curves.points(results)
    if found.empty:
        for name in curve_plots.FIGURES:
            (folder / f"{name}.png").unlink(missing_ok=True)
        return
    figures = curve_plots.label_fraction(found, note), curve_plots.ratio(found, curves.size(results), note)
    for name, figure in zip(curve_plots.FIGURES, figures, strict=True):
        _figure(figure, folder / f"{name}.png", dpi=160)


def _curves(run: Path, subsets: range, names: list[str], folder: Path, note: str) -> None:
    """The training logs of the autoencoder and of the generators `names`: folder/log.json, and a figure each, a line
    per subset. Those of subsets before `subsets` are in log.json already."""
    kept = read_json(folder / "log.json") if subsets.start and (folder / "log.json").exists() else {}
    logs: dict[str, dict[str, list[dict]]] = {}
    for stage in ("autoencoder", *names):
        paths = {f"subset {k}": run / f"subset-{k}" / "results" / f"{stage}.json" for k in subsets}
        earlier = {f"subset {k}": kept.get(stage, {}).get(f"subset {k}") for k in range(subsets.start)}
        logs[stage] = {name: log for name, log in earlier.items() if log}
        logs[stage] |= {name: read_json(path)["log"] for name, path in paths.items() if path.exists()}
        if logs[stage]:
            _figure(plots.loss_curves(logs[stage], note=note), folder / f"{stage}.png", dpi=100)
    write_json(folder / "log.json", logs)


def _figure(figure: Figure, path: Path, dpi: int) -> None:
    with atomic(path) as tmp_path:
        tmp_path.write_bytes(plots.few_colours(figure, dpi))


def _sheet(sets: list[Path], path: Path, earlier: range) -> None:
    """The first samples of synthetic sets as a PNG, a row per set: left without, right with tumour. None unless all are
    there.

    earlier: the subsets whose rows stay as they are in the PNG.
    """
    found = [data.load(synthetic, "train") for synthetic in sets if synthetic.is_dir()]
    n = min((SHEET, *(np.sum(y == c) for _, y in found for c in (0, 1))))
    rows = [np.concatenate([*x[y == 0][:n], *x[y == 1][:n]], axis=1) for x, y in found]
    if earlier and path.exists():
        with Image.open(path) as image:
            rows = [np.asarray(image)[: len(earlier) * SIDE], *rows]
    sheet = (len(earlier) + len(sets)) * SIDE
    if len({row.shape[1] for row in rows}) != 1 or sum(map(len, rows)) != sheet:
        path.unlink(missing_ok=True)
        return
    with atomic(path) as tmp_path:
        Image.fromarray(np.concatenate(rows)).save(tmp_path, format="PNG", optimize=True)


def summary(results: pd.DataFrame, published: str, where: Path | None = None) -> str:
    """Markdown for the file book/reference/<published>.csv: the data, the answer in five sentences, how much of the
    registered study is done, the AUC of each way of training with its difference to traditional augmentation, the
    verdicts, and how to draw patches with the published weights. where: the folder of published runs."""
    where = where or published_folder()
    devices = answer_page.devices_of(results)
    lines = [answer_page.about(results), "", answer_page.bullets(results), ""]
    if state := plan_page.state(results, published, where):
        lines += [state, ""]
    lines += [*_table(devices), ""]
    for device, measured in devices.items():
        name = frame.DEVICES[device].capitalize()
        verdicts = claim_table.counts(Measured(measured, f"the paper's thirteen claims by the {name.lower()}"))
        steps = [f"{name}: {said[0].lower()}{said[1:]}" for said in findings.images_or_steps(measured)]
        lines += [findings.bullets([*steps, verdicts])]
    tables = "the book's page *Published results* has all tables"
    lines += ["", f"Numbers: {inert(f'book/reference/{published}.csv', 'code')}; {tables}."]
    return "\n".join([*lines, *_draw(published, where)])


DRAW = {
    "pipeline": (
        """from PIL import Image
from pcamlib.models.pipeline import PatchPipeline
images = PatchPipeline.from_pretrained("{folder}")([0, 1], seed=0)
for label, image in enumerate(images):  # 0 without tumour, 1 with
    Image.fromarray(image).save(f"patch-{{label}}.png")"""
    ),
    "histogan": (
        """from pathlib import Path
from PIL import Image
from pcamlib.models import histogan
for label, image in enumerate(histogan.sample(histogan.load(Path("{folder}")), [0, 1], seed=0)):
    Image.fromarray(image).save(f"patch-{{label}}.png")  # 0 without tumour, 1 with"""
    ),
}


def _draw(name: str, where: Path) -> list[str]:
    """How to draw patches with the weights published with a run; no lines without any."""
    folder = where / "generators" / name
    index = _weights_index(folder)
    if not index or not index["generators"]:
        return []
    # a latent diffusion model before the GAN
    first = min(index["generators"], key=lambda generator: generator == "histogan")
    lines = DRAW["histogan" if first == "histogan" else "pipeline"].format(
        folder=f"book/reference/generators/{name}/{first}"
    )
    there = listed([generators.label(generator) for generator in index["generators"]])
    left_out = [f"{generators.label(g)} ({size / 1e6:.1f} MB)" for g, size in index["left_out"].items()]
    return [
        "",
        "### Draw patches without training",
        "",
        (
            f"The weights of generators of subset {index['subset']} are in"
            f" {inert(f'book/reference/generators/{name}/', 'code')}: {inert(there)}, in half precision, each with a"
            " card and a licence note. After the installation these lines draw two patches, offline. They are generated"
            " and not for diagnosis; a test for copies is on the book's page *Published results*."
        ),
        "",
        "```python",
        lines,
        "```",
        *(
            ["", f"Left out, because a file is too large to be kept here: {inert(listed(left_out))}."]
            if left_out
            else []
        ),
    ]


def _weights_index(folder: Path) -> dict[str, Any] | None:
    """What weights are published in `folder`; None if none are. StudyError if the list is damaged."""
    path = folder / "index.json"
    if not path.exists():
        return None
    index = read_json(path)
    try:
        whole = all((folder / name).is_dir() for name in index["generators"])
        [index[key] for key in ("subset", "left_out", "data_sha", "profile_sha")]
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise StudyError(f"{path} does not list the weights beside it: restore them, or publish them again.")
    return index


def _keep_weights(made: Path | None, folder: Path, results: pd.DataFrame) -> None:
    """Put new weights in the place of old ones; without new ones, old ones of other data or another profile go."""
    if made:
        with atomic_folder(folder) as tmp_path:
            shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    elif index := _weights_index(folder):
        if any(set(results[key].dropna()) != {index[key]} for key in ("data_sha", "profile_sha")):
            shutil.rmtree(folder)


def _table(devices: dict[str, pd.DataFrame]) -> list[str]:
    """Test AUC of every way of training and its difference to traditional augmentation, by device, in Markdown."""
    table = published_tables.by_use(devices).data
    headings = [f"{name}: {heading}" for name, heading in table.columns]
    lines = [f"| training | {' | '.join(headings)} |", "| --- |" + " --- |" * len(headings)]
    lines += [f"| {inert(title)} | {' | '.join(texts)} |" for title, *texts in table.itertuples()]
    note = (
        "Mean ± standard deviation over subsets, generators averaged over the three selections; in brackets 95 % t"
        " intervals."
    )
    return [*lines, "", note]


def into(readme: str, results: pd.DataFrame, name: str, where: Path | None = None) -> str:
    """The README's text with the summary between its marks; StudyError if the marks are not there. where: as in
    `summary`."""
    if readme.count(START) != 1 or readme.count(END) != 1:
        raise StudyError(f"README.md must have one line '{START}' and one line '{END}'.")
    before, rest = readme.split(START)
    return f"{before}{START}\n\n{summary(results, name, where)}\n\n{END}{rest.split(END)[1]}"


def publish_run(run: Path, subsets: int | range, root: Path, weights: Path | None = None) -> Path:
    """Keep a run's numbers in book/reference/ of the checkout `root`, their summary in its README.md; returns the CSV
    file.

    weights: a folder of generators to be kept, as `workflow.export` makes it. Without it those kept before stay, if
    they are of the same data and profile. Raises StudyError for an incomplete run, or where `root` is no checkout.
    """
    readme = root / "README.md"
    if not readme.is_file():
        raise StudyError(f"{readme} does not exist: run this in a checkout of the repository.")
    where = root / "book" / "reference"
    path = publish(run, subsets, where)
    results = compact.read(path)
    _keep_weights(weights, where / "generators" / run.name, results)
    text = into(readme.read_text(encoding="utf-8"), results, path.stem, where)
    with atomic(readme) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")
    return path
