"""A procedural stand-in for PCam: H&E-like lymph-node patches whose nuclei are known, in PCam's own files.

Two stains absorb light (Beer-Lambert); lymphocytes, pale benign nuclei (germinal centres, histiocytes),
spindle nuclei of the stroma and tumour nuclei lie on tissue with fibres, fat, gaps and blank glass. A patch
is positive when at least one tumour nucleus has its centre inside the middle 32x32 pixels; tumour may lie
around the middle of a negative patch, as in PCam. Stain and density of cells say little about the label
(`phantom_tissue`). It is no substitute for tissue: it exists so that the study
runs anywhere and so that a generator can be asked whether it drew the right nuclei.
Command line: ``pcamlib phantom DIR [--train N --valid N --test N --seed S]``.
"""

from __future__ import annotations

import functools
from pathlib import Path

import h5py
import numpy as np

from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, read_json, write_json
from pcamlib.data import pcam
from pcamlib.data.groups import groups_file, write_groups
from pcamlib.data.phantom_render import (
    FULL,
    LYMPHOCYTE,
    PAD,
    SIZE,
    TUMOUR,
    Banks,
    draw_nuclei,
    expose,
    ground,
    make_banks,
)
from pcamlib.data.phantom_tissue import HALF_CENTRE, lay_tissue, place_nuclei, slide_look

VERSION = 2  # of the images: changes when the same seed gives other bytes
SLIDES = {"train": range(0, 60), "valid": range(60, 80), "test": range(80, 100)}
FACTORS = np.dtype(
    [
        ("label", "u1"),
        ("slide", "i2"),
        ("scanner", "u1"),
        ("n_tumour", "i2"),
        ("n_lymphocytes", "i2"),
        ("n_tumour_patch", "i2"),
        ("tumour_fraction", "f4"),
        ("tumour_radius", "f4"),
        ("haematoxylin", "f4"),
        ("eosin", "f4"),
        ("fat", "f4"),
        ("blank", "f4"),
        ("blur", "f4"),
    ]
)


def generate(n: int, seed: int = 0, split: str = "train") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first `n` patches of a split of the phantom with this seed.

    Patch i depends on (seed, split, i) alone, so a shorter set is the beginning of a longer one. Slides, and
    with them the stains and the look of the tumour, are not shared between splits.

    Returns images uint8 (n, 96, 96, 3) RGB, labels uint8 (n,) and factors (n,), a structured array with the
    fields `label`; `slide`; `scanner` (0 blue-purple, 1 brown-pink); `n_tumour` and `n_lymphocytes`, nuclei
    centred in the middle 32x32; `n_tumour_patch`, tumour nuclei centred anywhere in the patch;
    `tumour_fraction`, share of the middle 32x32 covered by tumour nuclei; `tumour_radius`, mean over the
    tumour nuclei in the middle, in pixels (0 if none); `haematoxylin` and `eosin`, stain strengths (about 1);
    `fat` and `blank`, shares of the patch; `blur`, standard deviation of the point spread in pixels. Raises
    StudyError for an unknown split, a negative seed or n below 1.
    """
    _check(n, seed, split)
    split_id = list(SLIDES).index(split)
    banks = _banks(seed, split_id)
    slides = {i: slide_look(_rng(seed, 1, i)) for i in SLIDES[split]}
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    factors = np.zeros(n, FACTORS)
    for i in range(n):
        rng = _rng(seed, 2, split_id, i)
        slide = int(rng.choice(SLIDES[split]))
        factors["slide"][i] = slide
        images[i] = _patch(rng, banks, slides[slide], factors[i])
    return images, factors["label"].copy(), factors


@functools.lru_cache(maxsize=len(SLIDES))
def _banks(seed: int, split_id: int) -> Banks:
    return make_banks(_rng(seed, 0, split_id))


def _check(n: int, seed: int, split: str) -> None:
    if split not in SLIDES:
        raise StudyError(f"phantom split {split!r} does not exist: use one of {', '.join(SLIDES)}.")
    if n < 1:
        raise StudyError(f"phantom {split} must have at least 1 patch, got {n}: ask for a positive number.")
    if seed < 0:
        raise StudyError(f"phantom seed must be 0 or more, got {seed}: choose a non-negative integer.")


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _patch(rng: np.random.Generator, banks: Banks, slide: dict, factors: np.void) -> np.ndarray:
    """Draw one patch, uint8 (96, 96, 3), and fill in its factors."""
    positive = bool(rng.integers(2))
    tissue = lay_tissue(rng, banks, positive)
    nuclei = place_nuclei(rng, banks, slide, tissue, positive)
    strength_h = slide["haematoxylin"] * rng.lognormal(0, 0.12)
    strength_e = slide["eosin"] * rng.lognormal(0, 0.17)

    chromatin, tumour = np.zeros((2, FULL, FULL), np.float32)
    draw_nuclei(rng, banks, nuclei, chromatin, tumour)
    haematoxylin, eosin = ground(rng, banks, tissue, nuclei)
    cover = np.minimum(chromatin / 0.7, 1)
    haematoxylin = np.maximum(chromatin, haematoxylin * (1 - cover))
    eosin *= 1 - 0.5 * cover
    haematoxylin *= 1 - tissue["glass"]
    eosin *= 1 - tissue["glass"]
    blur = slide["focus"] + (rng.uniform(0.3, 1.3) if rng.random() < 0.07 else 0)
    image = expose(
        rng, banks, strength_h * haematoxylin, strength_e * eosin, slide["vectors"],
        slide["light"] + rng.normal(0, 1.5, 3), blur, 1.5 * 4.7 ** rng.random(),
    )  # fmt: skip

    inside = np.maximum(np.abs(nuclei["y"] - SIZE / 2), np.abs(nuclei["x"] - SIZE / 2))
    core, patch = inside <= HALF_CENTRE, inside <= SIZE / 2
    is_tumour = nuclei["kind"] == TUMOUR
    middle = slice(FULL // 2 - HALF_CENTRE, FULL // 2 + HALF_CENTRE)
    view = slice(PAD, PAD + SIZE)
    factors["scanner"] = slide["scanner"]
    factors["n_tumour"] = (is_tumour & core).sum()
    factors["n_lymphocytes"] = ((nuclei["kind"] == LYMPHOCYTE) & core).sum()
    factors["n_tumour_patch"] = (is_tumour & patch).sum()
    factors["label"] = factors["n_tumour"] > 0
    factors["tumour_fraction"] = tumour[middle, middle].mean()
    factors["tumour_radius"] = nuclei["radius"][is_tumour & core].mean() if factors["label"] else 0
    factors["haematoxylin"], factors["eosin"], factors["blur"] = strength_h, strength_e, blur
    factors["fat"], factors["blank"] = tissue["fat"][view, view].mean(), tissue["blank"][view, view].mean()
    return image


def write(root: str | Path, train: int = 2048, valid: int = 512, test: int = 1024, seed: int = 0) -> None:
    """Write the phantom as six PCam files; beside them ``phantom.json``, ``phantom_factors_<split>.h5`` and the slides
    and scanners, ``groups_<split>.csv``.

    Each file appears whole or not at all; a run that was cut short continues, one that is complete does
    nothing. Raises StudyError if `root` holds PCam files that are not this phantom, or for a bad size or
    seed.
    """
    root = Path(root)
    sizes = {"train": train, "valid": valid, "test": test}
    for split, n in sizes.items():
        _check(n, seed, split)
    card = {"phantom": VERSION, "seed": seed, **sizes}
    note = root / pcam.PHANTOM
    if root.exists() and not root.is_dir():
        raise StudyError(f"{root} is a file, not a folder: choose another folder.")
    if note.exists():
        found = read_json(note)
        if found != card:
            raise StudyError(f"{root} holds another phantom ({found}): choose another folder or remove it.")
    else:
        for path in [pcam.file(root, split, kind) for split in sizes for kind in "xy"]:
            if path.exists():
                raise StudyError(f"{path} exists and is not a phantom: choose another folder.")
        write_json(note, card)
    for split, n in sizes.items():
        known = root / f"phantom_factors_{split}.h5"
        if not all(path.exists() for path in (known, pcam.file(root, split, "x"), pcam.file(root, split, "y"))):
            images, labels, factors = generate(n, seed, split)
            with atomic(known) as tmp_path, h5py.File(tmp_path, "w") as f:
                for name in FACTORS.names:
                    f[name] = factors[name]
            pcam.write(root, split, images, labels)
        if not groups_file(root, split).exists():
            held = read_factors(root, split)
            centres = [f"scanner {scanner}" for scanner in held["scanner"]]
            write_groups(root, split, [f"slide {slide}" for slide in held["slide"]], centres)


def read_factors(root: str | Path, split: str) -> dict[str, np.ndarray]:
    """Known factors of a written phantom, arrays (N,) by name as in `generate`; StudyError if none."""
    path = Path(root) / f"phantom_factors_{split}.h5"
    if not path.is_file():
        raise StudyError(f"{path} is missing: only a phantom has known factors, make one with `pcamlib phantom DIR`.")
    with h5py.File(path, "r") as f:
        return {name: f[name][:] for name in FACTORS.names}
