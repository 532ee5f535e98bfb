"""Export data and synthetic sets as files that other programs read, and trained generators as diffusers pipelines.

    pcamlib data export SOURCE DEST --as pcam|png|generator

SOURCE is a data root, a synthetic set, or a run folder, of which every set or generator is exported. Each result comes
with a card and a licence note. `publish` keeps generators of a run in git.
"""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic_folder, plain_path, read_json, vacant, write_json
from pcamlib.core.text import inert
from pcamlib.data import card

if TYPE_CHECKING:
    import torch

FORMS = {
    "pcam": "PCam files in a folder pcam, where torchvision.datasets.PCAM(root) looks for them",
    "png": "a PNG for each patch, in a folder per class, and labels.csv",
    "generator": "the generators of a run: diffusers pipelines (unet, dit, flow, unet_pool) and HistoGAN's weights",
}
NOTICE = "LICENCE.md"
USE = {
    "pipeline": (
        """# Generate patches

```python
from pcamlib.models.pipeline import PatchPipeline

images = PatchPipeline.from_pretrained("this folder")([0, 1], seed=0)  # uint8 (2, 96, 96, 3), one per label
```

pcamlib must be installed. diffusers' own `DiffusionPipeline.from_pretrained` cannot load this folder, because it does
not know pcamlib's classes. The folder `denoiser` alone is a diffusers model and loads without pcamlib. Weights are
safetensors.
"""
    ),
    "histogan": (
        """# Generate patches

```python
from pathlib import Path

from pcamlib.models import histogan

images = histogan.sample(histogan.load(Path("this folder")), [0, 1], seed=0)  # uint8 (2, 96, 96, 3), one per label
```

pcamlib must be installed.
"""
    ),
}
HALF = "\nThe weights are stored in half precision (float16) and become float32 when they are loaded.\n"
LARGEST = 8_000_000
"""Bytes of a file that `publish` keeps in git."""
NO_CARD = "not stated, as the data have no card (PCam itself is CC0 1.0)"


def sets(source: Path) -> list[tuple[str, Path]]:
    """The sets in `source`, each as (path of the result below DEST, its folder). StudyError if there is none."""
    if not source.is_dir():
        raise StudyError(f"{source} is not a folder: give a data root, a synthetic set or a run folder.")
    if _splits(source):
        return [("", source)]
    found = [(f"{p.parents[1].name}/{p.name}", p) for p in sorted(source.glob("**/synthetic/*")) if _splits(p)]
    if not found:
        raise StudyError(
            f"{source} holds no PCam files and no synthetic sets: run notebook 05 first, or give another folder."
        )
    return found


def _splits(folder: Path) -> list[str]:
    return [split for split in data.SPLITS if data.file(folder, split, "y").exists()]


def licence(about: dict[str, Any]) -> str:
    """The licence note, Markdown, for the card `about` of a set or of a generator."""
    provenance = about.get("provenance")
    if about.get("phantom"):
        return "# Licence\n\nThe phantom, procedural images: MIT, as the software that drew them.\n"
    if provenance is None:
        return (
            "# Licence\n\nReal patches. Terms of use as stated by who converted them:"
            f" {inert(about.get('licence', NO_CARD))}.\n"
        )
    source = f"{inert(provenance['data'])} (fingerprint {inert(provenance['data_sha'])})"
    made = (
        f"pcamlib {inert(provenance['version'])} (profile {inert(provenance['profile'])}, subset"
        f" {inert(provenance['subset'])})"
    )
    if provenance.get("phantom"):
        terms = f"Learned from the phantom {source}, procedural images: MIT, as the software that drew them."
    else:
        terms = (
            f"Learned from real patches: {source}. What a model made is no patient's tissue, but it may come close to"
            " patches it was trained on, so what was agreed for those holds here too. PCam and CAMELYON16 are CC0 1.0:"
            " then this may be used as CC0 1.0. For patches of your own ask who holds their rights, and the ethics"
            " approval, before you pass this on."
        )
    return f"# Licence\n\nMade with {made}.\n\n{terms}\n\nNot for diagnosis.\n"


def export(source: Path, dest: Path, form: str) -> list[Path]:
    """Write `source` to the new folder `dest`, in a form of FORMS. Returns the folders written.

    Everything is read and checked first. Raises StudyError if the source is damaged or holds nothing of that form;
    `dest` is then not created.
    """
    source, dest = plain_path(source), vacant(dest)
    found = _generators(source) if form == "generator" else sets(source)
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise StudyError(
            f"{source} holds several runs (two have {max(names, key=names.count)}): give the folder of one."
        )
    try:
        with atomic_folder(dest, replace=False) as tmp_path:
            for name, folder in found:
                target = tmp_path / name
                target.mkdir(parents=True, exist_ok=True)
                (_generator if form == "generator" else _set)(folder, target, form)
    except OSError as error:
        raise StudyError(
            f"{dest} could not be written ({error.strerror or error}): nothing is left of it; make room or choose"
            " another folder."
        ) from None
    return [dest / name for name, _ in found]


def _set(folder: Path, target: Path, form: str) -> None:
    splits = _splits(folder)
    about = read_json(folder / data.CARD) if (folder / data.CARD).exists() else {}
    about = about | {"name": folder.name, "classes": list(data.classes(folder))} | card.describe(folder, splits)
    phantom = [data.PHANTOM] if (folder / data.PHANTOM).exists() else []
    about |= {"phantom": True} if phantom else {}
    if form == "pcam":
        (target / "pcam").mkdir()
        names = [data.file(folder, split, kind).name for split in splits for kind in "xy"]
        for name in names + phantom:
            shutil.copyfile(folder / name, target / "pcam" / name)
        write_json(target / "pcam" / data.CARD, about)  # names the classes where that folder is a data root
    else:
        _pngs(folder, splits, about["classes"], target)
    try:
        card.write(target, about)
        (target / NOTICE).write_text(licence(about), encoding="utf-8")
    except (AttributeError, KeyError, TypeError) as error:
        raise StudyError(
            f"{folder / data.CARD} is no card of a data set ({type(error).__name__}: {error}): mend or remove it."
        ) from None


def _pngs(folder: Path, splits: list[str], classes: list[str], target: Path) -> None:
    """Write <label>-<class>/<split>-<row>.png and labels.csv, from which `convert` restores the same PCam files."""
    folders = [f"{c}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}" for c, name in enumerate(classes)]
    for name in folders:
        (target / name).mkdir()
    with open(target / "labels.csv", "w", newline="", encoding="utf-8") as f:
        index = csv.writer(f)
        # one split alone is no split: who converts it will want three
        index.writerow(["file", "label", "split"][: 2 + (len(splits) > 1)])
        for split in splits:
            patches = data.Patches(folder, split)
            for start in range(0, len(patches), 256):
                rows = np.arange(start, min(start + 256, len(patches)))
                for row, image in zip(rows, patches.images(rows)):
                    label = int(patches.labels[row])
                    name = f"{folders[label]}/{split}-{row:06d}.png"
                    Image.fromarray(image).save(target / name)
                    index.writerow([name, label, split][: 2 + (len(splits) > 1)])


def _generators(source: Path) -> list[tuple[str, Path]]:
    from pcamlib.models import pipeline

    found = [p.parent for p in sorted(source.glob("**/model")) if p.parent.name in pipeline.KINDS]
    found += [p.parent for p in sorted(source.glob("**/histogan/generator.safetensors"))]
    found = [(f"{p.parent.name}/{p.name}", p) for p in found if re.fullmatch(r"subset-\d+", p.parent.name)]
    if not found:
        raise StudyError(
            f"{source} holds no trained generator: give a run folder in which notebooks 02 and 03, or 04, have run."
        )
    return found


def publish(
    run: Path, subsets: int | range, root: Path, *, weights: int | None = None, say: Callable[[str], None] = print
) -> Path:
    """`report.publish.publish_run`, with the generators of subset `weights` in half precision if it is given.

    They go to book/reference/generators/<run>/. One that has a file of more than LARGEST bytes is left out; `say` is
    told. Raises StudyError, before anything is written, as `publish_run` and for a subset without trained generators.
    """
    from pcamlib.report.publish import publish_run

    if weights is None:
        return publish_run(run, subsets, root)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "generators"
        for name, size in _half(run, weights, folder).items():
            say(
                f"{name}: left out, a file of {size / 1e6:.1f} MB is larger than the {LARGEST / 1e6:g} MB that are kept"
                f" in git; `pcamlib data export {run} DEST --as generator` writes it elsewhere."
            )
        return publish_run(run, subsets, root, folder)


def _half(run: Path, subset: int, dest: Path) -> dict[str, int]:
    """Write the generators of one subset in half precision to the new folder `dest`, and index.json, which names them.

    Returns the bytes of the largest file of each that is left out.
    """
    found = [folder for _, folder in _generators(run) if folder.parent == run / f"subset-{subset}"]
    if not found:
        raise StudyError(f"subset {subset} of {run} holds no trained generator: give another subset.")
    left_out = {}
    for folder in found:
        target = dest / folder.name
        target.mkdir(parents=True)
        _generator(folder, target, "generator", half=True)
        size = max(path.stat().st_size for path in target.rglob("*") if path.is_file())
        if size > LARGEST:
            shutil.rmtree(target)
            left_out[folder.name] = size
    provenance = read_json(found[0].parent / "results" / f"{found[0].name}.json")["provenance"]
    index = {
        "subset": subset,
        "generators": sorted(folder.name for folder in found if folder.name not in left_out),
        "left_out": left_out,
        "data_sha": provenance["data_sha"],
        "profile_sha": provenance["profile_sha"],
    }
    write_json(dest / "index.json", index)
    return left_out


def _to_half(tensor: torch.Tensor, folder: Path) -> torch.Tensor:
    """A tensor in half precision, whole numbers as they are. StudyError if a value is too large for it."""
    if not tensor.is_floating_point():
        return tensor
    small = tensor.half()
    if not small.isfinite().all():
        raise StudyError(
            f"{folder}: a weight does not fit half precision: export it with `pcamlib data export` instead."
        )
    return small


def _generator(folder: Path, target: Path, form: str, half: bool = False) -> None:
    from safetensors.torch import load_file, save_file

    from pcamlib.models import histogan, pipeline

    run, subset = folder.parents[1], int(folder.parent.name.removeprefix("subset-"))
    provenance = read_json(folder.parent / "results" / f"{folder.name}.json")["provenance"]
    if folder.name == "histogan":
        histogan.load(folder)  # whole?
        for name in (histogan.WEIGHTS, "config.json"):
            shutil.copyfile(folder / name, target / name)
        if half:
            weights = load_file(folder / histogan.WEIGHTS)
            save_file({name: _to_half(value, folder) for name, value in weights.items()}, target / histogan.WEIGHTS)
    else:
        pipe = pipeline.of_run(run, subset, folder.name)
        for part in (pipe.denoiser, pipe.decoder) if half else ():
            for value in part.state_dict().values():
                _to_half(value, folder)
            part.half()
        # weights for git are cut into files of a size that git may hold, with room for the names of the tensors
        pipe.save_pretrained(target, **({"max_shard_size": int(0.9 * LARGEST)} if half else {}))
        for path in target.rglob("*.json"):
            config = read_json(path)
            if isinstance(config, dict) and config.pop("_name_or_path", None):  # the run's folder on this machine
                write_json(path, config)
    about = {
        "name": folder.name,
        "about": "A generator of patches: label and seed in, image out.",
        "provenance": provenance,
    } | ({"weights": "float16"} if half else {})
    write_json(target / data.CARD, about | {"settings": _names_only(pipeline.profile_of(run).model_dump())})
    use = USE["histogan" if folder.name == "histogan" else "pipeline"] + HALF * half
    (target / "README.md").write_text(use, encoding="utf-8")
    (target / NOTICE).write_text(licence(about), encoding="utf-8")


def _names_only(value: Any) -> Any:
    """`value` of JSON's kinds with the last part of each absolute path in it: folders of this machine stay here."""
    if isinstance(value, str):
        return Path(value).name if Path(value).is_absolute() else value
    if isinstance(value, list | tuple):
        return [_names_only(part) for part in value]
    return {key: _names_only(part) for key, part in value.items()} if isinstance(value, dict) else value
