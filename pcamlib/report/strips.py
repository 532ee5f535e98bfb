"""Strips of generated patches that are published with a run: samples, the reverse process, guidance, kept and dropped
patches.

book/reference/strips/<run>/ holds a PNG of each, <generator>-<kind>.png, and index.json: title, note, alternative text
and provenance of every strip, and what the run lacks, with the reason. All of them are of subset 0. Only generators of
the registry are drawn: no patch of the data set is shown, and no image made elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Image, display
from matplotlib.figure import Figure

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic_folder, read_json
from pcamlib.core.settings import POOLED
from pcamlib.core.text import inert
from pcamlib.data import CLASSES
from pcamlib.experiments import selection
from pcamlib.models import generators
from pcamlib.report import patch_plots, plots
from pcamlib.results import frame
from pcamlib.results.arms import generators_of
from pcamlib.results.published import data_name, published_folder

INDEX = "index.json"
MOMENTS = 8
"""Pictures in a line of the reverse process, the finished patch included; fewer where the solver takes fewer steps."""
SCALES = (0, 1, 2, 4)
"""Guidance, a line each; 0 ignores the label, 1 is the plain conditional model."""
EACH = 4  # patches of a class in a line
DPI = 120
SIDES = f"left {CLASSES[0]}, right {CLASSES[1]}"


class Missing(Exception):
    """What a strip needs is not there; the text says what."""


class Source:
    """What a generator left in subset 0 of a run folder."""

    def __init__(self, run: Path, generator: str):
        self.run, self.generator = run, generator

    @cached_property
    def made(self) -> tuple[data.Arrays, dict[str, Any]]:
        """The patches that were not selected, and their card."""
        folder = self.run / "subset-0" / "synthetic" / f"{self.generator}-none"
        if not data.file(folder, "train", "y").exists():
            raise Missing("no samples in the run folder")
        return data.load(folder, "train"), read_json(folder / "card.json")

    @cached_property
    def sampler(self) -> tuple[Any, dict[str, Any]]:
        """The trained generator, and the provenance of its training."""
        folder = self.run / "subset-0"
        if not (folder / self.generator / "model").exists():
            raise Missing("no trained network in the run folder")
        from pcamlib.models import pipeline  # diffusers takes seconds

        provenance = read_json(folder / "results" / f"{self.generator}.json")["provenance"]
        return pipeline.of_run(self.run, 0, self.generator).sampler(), provenance


Drawn = tuple[Figure, str, dict[str, Any]]  # the figure, what it shows, its provenance


def _samples(source: Source) -> Drawn:
    made, card = source.made
    rows = [np.flatnonzero(made.labels == c)[: 2 * EACH] for c in (0, 1)]
    if not all(map(len, rows)):
        raise Missing("no samples of one class")
    figure = patch_plots.patch_grid(
        made.images[np.concatenate(rows)], made.labels[np.concatenate(rows)], columns=2 * EACH
    )
    return figure, "the first samples of each class, not selected", card["provenance"]


def _reverse(source: Source) -> Drawn:
    sampler, provenance = source.sampler
    path, times = sampler.denoise(torch.tensor([0, 1]), seed=provenance["seed"], keep=MOMENTS - 1)
    frames = np.stack([sampler.decoder.to_images(latents) for latents in path], axis=1)
    shown = f"the reverse process from noise to patch, above {CLASSES[0]}, below {CLASSES[1]}"
    return patch_plots.forward_noise(frames, times), shown, provenance


def _guidance(source: Source) -> Drawn:
    sampler, provenance = source.sampler
    labels = np.repeat([0, 1], EACH)
    drawn = {g: sampler.sample(labels, seed=provenance["seed"], guidance=float(g)) for g in SCALES}
    shown = f"samples from the same noise at several guidance scales, {SIDES}"
    return patch_plots.guidance_scales(drawn), shown, provenance


def _selection(source: Source) -> Drawn:
    made, card = source.made
    scores = np.array(card["scores"]["realism"])
    if not len(scores):
        raise Missing("no samples in the run folder")
    kept, dropped = selection.examples(scores)
    figure = patch_plots.accepted_rejected(made.images[kept], made.images[dropped], (scores[kept], scores[dropped]))
    return figure, "patches that realism selection keeps and drops, with their scores", card["provenance"]


class Kind(NamedTuple):
    """A kind of strip: what it is called, how it is drawn, and by which generators."""

    title: str
    draw: Callable[[Source], Drawn]
    of: tuple[str, ...]


KINDS = {
    "samples": Kind("samples", _samples, generators.NAMES),
    "reverse": Kind("the reverse process", _reverse, ("unet", "dit", POOLED)),
    "guidance": Kind("guidance", _guidance, ("unet", "dit", "flow", POOLED)),
    "selection": Kind("kept and dropped patches", _selection, generators.NAMES),
}
"""By name in files; a GAN has no reverse process and no guidance."""


def draw(run: Path, results: pd.DataFrame) -> dict[str, bytes]:
    """The files of a run's strips by name, INDEX among them.

    results: the run's, which say what its generators and its data are called. StudyError if a network or a card is
    damaged.
    """
    files: dict[str, bytes] = {}
    drawn, missing = [], []
    of_data = data_name(results)
    for name in generators_of(results):
        source = Source(run, name)
        for kind, (title, make, of) in KINDS.items():
            about = {"kind": kind, "generator": name}
            if name not in of:
                continue
            try:
                figure, shown, provenance = make(source)
            except Missing as why:
                missing.append(about | {"reason": str(why)})
                continue
            except (KeyError, TypeError, IndexError) as error:
                raise StudyError(
                    f"{run / 'subset-0'}: {title} of {name} cannot be drawn ({type(error).__name__}: {error}): remove"
                    " its results and run its notebooks again."
                ) from None
            file = f"{name}-{kind}.png"
            files[file] = plots.few_colours(figure, DPI)
            note = frame.provenance_note(provenance | ({} if provenance["phantom"] else {"data": of_data}))
            who = f"{generators.label(name)}, published run {run.name}"
            drawn.append(
                about
                | {
                    "file": file,
                    "alt": f"Generated patches ({who}): {shown}",
                    "title": f"{who}: {shown}.",
                    "note": f"{figure.get_label()} {note}",
                    "provenance": provenance,
                }
            )
    files[INDEX] = (json.dumps({"strips": drawn, "missing": missing}, indent=1, ensure_ascii=False) + "\n").encode()
    return files


def write(files: dict[str, bytes], folder: Path) -> None:
    """Replace `folder` by one that holds these files."""
    with atomic_folder(folder) as tmp_path:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)


def _indexes(where: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The published folders of strips, each with its index; StudyError if one is damaged."""
    for path in sorted((where / "strips").glob(f"*/{INDEX}")):
        index = read_json(path)
        try:
            named = [path.parent / strip["file"] for strip in index["strips"]]
            [
                (s["kind"], s["generator"], s["alt"], s["title"], s["note"], s["provenance"]["n_real"])
                for s in index["strips"]
            ]
            [(m["kind"], m["generator"], m["reason"]) for m in index["missing"]]
        except (KeyError, TypeError):
            raise StudyError(f"{path} is no list of strips: restore it, or publish the run again.") from None
        if absent := [file for file in named if not file.is_file()]:
            raise StudyError(f"{absent[0]} is missing: restore it, or publish the run again.")
        yield path.parent, index


def find(kind: str, generator: str, where: Path | None = None) -> tuple[Path, dict[str, Any]] | None:
    """The picture and the entry of a published strip; None if there is none.

    kind: of KINDS. where: the folder of published runs. Of several runs the one on real patches comes before one on the
    phantom, then the one with the largest subsets, then the newest.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: it is one of {', '.join(KINDS)}")
    found = [
        (folder / strip["file"], strip)
        for folder, index in _indexes(where or published_folder())
        for strip in index["strips"]
        if (strip["kind"], strip["generator"]) == (kind, generator)
    ]

    def size(item: tuple[Path, dict[str, Any]]) -> tuple[bool, int, str]:
        provenance = item[1]["provenance"]
        return not provenance["phantom"], provenance["n_real"], provenance["created"]

    return max(found, key=size, default=None)


def show(kind: str, generator: str, where: Path | None = None) -> Image | None:
    """Displays title and note of a published strip (see `find`) and returns its picture, for the last line of a
    notebook cell.

    Without a published strip nothing is displayed, and None is returned.
    """
    found = find(kind, generator, where)
    if not found:
        return None
    path, strip = found
    title, note = (inert(strip[key], "html") for key in ("title", "note"))
    display(HTML(f'<p class="pcam-takeaway">{title}</p><p><small>{note}</small></p>'))
    return Image(data=path.read_bytes(), format="png")


def of_run(name: str, where: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """The strips of a published run, each a picture and its entry, and a sentence for each that it lacks."""
    for folder, index in _indexes(where):
        if folder.name == name:
            lacks = [
                f"{generators.label(m['generator'])}, {KINDS[m['kind']].title}: {m['reason']}."
                for m in index["missing"]
                if m["kind"] in KINDS
            ]
            return [(folder / strip["file"], strip) for strip in index["strips"]], lacks
    return [], []
