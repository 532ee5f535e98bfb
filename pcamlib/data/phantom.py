"""A procedural stand-in for PCam: H&E-like lymph-node patches whose nuclei are known, in PCam's own files.

Two stains absorb light (Beer-Lambert); lymphocytes, pale benign nuclei (germinal centres, histiocytes),
spindle nuclei of the stroma and tumour nuclei lie on tissue with fibres, fat, gaps and blank glass. A patch
is positive when at least one tumour nucleus has its centre inside the middle 32x32 pixels; tumour may lie
around the middle of a negative patch, as in PCam. It is no substitute for tissue: it exists so that the study
runs anywhere and so that a generator can be asked whether it drew the right nuclei.
Command line: ``pcamlib phantom DIR [--train N --valid N --test N --seed S]``.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from scipy.spatial.distance import cdist

from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, read_json, write_json
from pcamlib.data import pcam
from pcamlib.data.phantom_render import (
    EOSIN,
    FULL,
    HAEMATOXYLIN,
    LYMPHOCYTE,
    PAD,
    PALE,
    SIZE,
    SPINDLE,
    TUMOUR,
    Banks,
    at,
    crop,
    draw_nuclei,
    expose,
    fat_cells,
    ground,
    make_banks,
    scatter,
)

VERSION = 1  # of the images: changes when the same seed gives other bytes
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

_OFFSET = np.abs(np.arange(FULL) - (FULL - 1) / 2)
# distances from the middle of the patch, Chebyshev and Euclidean
_SQUARE = np.maximum(_OFFSET[:, None], _OFFSET[None, :]).astype(np.float32)
_ROUND = np.hypot(_OFFSET[:, None], _OFFSET[None, :]).astype(np.float32)
_BUMP = np.exp(-0.5 * (_ROUND / 15) ** 2)
_HALF_CENTRE = 16


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
    banks = make_banks(_rng(seed, 0, split_id))
    slides = {i: _slide(_rng(seed, 1, i)) for i in SLIDES[split]}
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    factors = np.zeros(n, FACTORS)
    for i in range(n):
        rng = _rng(seed, 2, split_id, i)
        slide = int(rng.choice(SLIDES[split]))
        factors["slide"][i] = slide
        images[i] = _patch(rng, banks, slides[slide], factors[i])
    return images, factors["label"].copy(), factors


def _check(n: int, seed: int, split: str) -> None:
    if split not in SLIDES:
        raise StudyError(f"phantom split {split!r} does not exist: use one of {', '.join(SLIDES)}.")
    if n < 1:
        raise StudyError(f"phantom {split} must have at least 1 patch, got {n}: ask for a positive number.")
    if seed < 0:
        raise StudyError(f"phantom seed must be 0 or more, got {seed}: choose a non-negative integer.")


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _slide(rng: np.random.Generator) -> dict[str, float | np.ndarray]:
    """What the patches of a slide share: scanner, stain vectors and strengths, and how its cells look."""
    scanner = int(rng.integers(2))
    vectors = np.stack([HAEMATOXYLIN[scanner], EOSIN[scanner]])
    vectors = vectors * rng.normal(1, [[0.05, 0.03, 0.07], [0.10, 0.02, 0.12]])
    light = np.array([[236, 234, 239], [254, 251, 253]][scanner]) + rng.normal(0, [7, 1][scanner])
    return {
        "scanner": scanner,
        "vectors": vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        "light": light + rng.normal(0, 2, 3),
        "haematoxylin": rng.lognormal(-0.1, 0.15),
        "eosin": rng.lognormal(-0.1, 0.22),
        "lymphocyte_radius": rng.uniform(3.4, 4.0),
        "tumour_radius": rng.uniform(5.6, 7.6),
        "pleomorphism": rng.uniform(0.10, 0.24),
        "tumour_density": rng.uniform(0.36, 0.66),
        "hollow": rng.uniform(0.2, 0.7),
        "nucleolus": rng.uniform(0.2, 1.5),
        "focus": rng.uniform(0.35, 0.6),
    }


def _patch(rng: np.random.Generator, banks: Banks, slide: dict, factors: np.void) -> np.ndarray:
    """Draw one patch, uint8 (96, 96, 3), and fill in its factors."""
    positive = bool(rng.integers(2))
    tissue = _tissue(rng, banks, positive)
    nuclei = _nuclei(rng, banks, slide, tissue, positive)
    strength_h = slide["haematoxylin"] * rng.lognormal(0, 0.08)
    strength_e = slide["eosin"] * rng.lognormal(0, 0.12)

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
        slide["light"] + rng.normal(0, 1.5, 3), blur, rng.uniform(2, 6),
    )  # fmt: skip

    inside = np.maximum(np.abs(nuclei["y"] - SIZE / 2), np.abs(nuclei["x"] - SIZE / 2))
    core, patch = inside <= _HALF_CENTRE, inside <= SIZE / 2
    is_tumour = nuclei["kind"] == TUMOUR
    middle = slice(FULL // 2 - _HALF_CENTRE, FULL // 2 + _HALF_CENTRE)
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


def _tissue(rng: np.random.Generator, banks: Banks, positive: bool) -> dict[str, np.ndarray | float]:
    """What lies where: maps in [0, 1], float32 (128, 128), a count of stray tumour cells, a fibre direction.

    The maps are `stroma`, `germinal` (pale benign cells), `tumour`, `fat`, `blank` and `glass`, fat or blank.
    """
    field = 0.85 * crop(rng, banks.coarse) + 0.5 * crop(rng, banks.medium)
    other = 0.85 * crop(rng, banks.coarse) + 0.35 * crop(rng, banks.medium)
    third = crop(rng, banks.coarse) + 0.3 * crop(rng, banks.medium)
    zero = np.zeros((FULL, FULL), np.float32)

    kind = rng.choice(4, p=[0.50, 0.36, 0.06, 0.08] if positive else [0.53, 0.17, 0.18, 0.12])
    stroma_levels = {"lymphoid": (0.7, 2.5), "stroma": (-2.5, -0.3), "fat": (-1.5, 0.5), "edge": (0, 2.5)}
    scene = list(stroma_levels)[kind]
    stroma = np.clip(3 * (field - rng.uniform(*stroma_levels[scene])) + 0.5, 0, 1)
    fatty = scene == "fat" or rng.random() < 0.06
    fat = fat_cells(rng, banks, third, spare=36 if positive else 0) if fatty else zero
    blank = zero
    if scene == "edge" or rng.random() < 0.05:
        blank = np.clip(3 * (third - 3 * _BUMP * positive - rng.uniform(0.0, 1.2)) + 0.5, 0, 1)
        if positive:  # no glass over the middle square, where the nuclei that make the label are
            blank *= np.clip((_ROUND - np.sqrt(2) * _HALF_CENTRE) / 4, 0, 1)
    germinal = np.clip(3 * (other - rng.uniform(-1.5, 1.0)), 0, 1) if rng.random() < 0.15 else zero

    tumour = zero
    few = 0
    if positive:
        extent = rng.choice(3, p=[0.43, 0.44, 0.13])
        if extent == 2:
            few = int(rng.integers(1, 6))
        else:
            level = rng.uniform(-1.8, -0.8) if extent == 0 else rng.uniform(0.0, 1.0)
            tumour = np.clip(6 * (other + 1.7 * _BUMP - level) + 0.5, 0, 1)
    elif rng.random() < 0.14:
        tumour = np.clip(6 * (other - rng.uniform(-0.5, 0.8)) + 0.5, 0, 1) * (_SQUARE > _HALF_CENTRE + 7)
    return {
        "stroma": stroma * (1 - tumour),
        "germinal": germinal * (1 - stroma) * (1 - tumour),
        "tumour": tumour,
        "fat": fat,
        "blank": blank * (1 - fat),
        "glass": np.maximum(fat, blank),
        "few": few,
        "fibres": int(rng.integers(12)),
    }


def _nuclei(rng: np.random.Generator, banks: Banks, slide: dict, tissue: dict, positive: bool) -> dict[str, np.ndarray]:
    """Place and describe the nuclei of a patch; see `draw_nuclei` for the columns."""
    lymph_radius, tumour_radius = slide["lymphocyte_radius"], slide["tumour_radius"]

    def place(spacing: float, chance: np.ndarray, kind: int) -> np.ndarray:
        places = scatter(rng, banks, spacing)
        places = places[rng.random(len(places)) < at(chance * (1 - tissue["glass"]), places)]
        return np.column_stack([places, np.full(len(places), kind)])

    stroma, germinal = tissue["stroma"], tissue["germinal"]
    lymphoid = (1 - stroma) * (1 - tissue["tumour"]) * (1 - germinal)
    tumour = place(2 * tumour_radius * rng.uniform(1.0, 1.35), tissue["tumour"], TUMOUR)
    wanted = tissue["few"] if tissue["few"] else int(positive)
    have = (np.abs(tumour[:, :2] - SIZE / 2).max(1) <= _HALF_CENTRE).sum() if len(tumour) else 0
    if wanted > have:
        tumour = np.concatenate([tumour, _cluster(rng, wanted, tumour_radius)])
    pale = place(rng.uniform(9.5, 12), germinal * 0.85 + lymphoid * rng.choice([0.02, 0.10]), PALE)
    spindle = place(13, stroma * rng.uniform(0.25, 0.8) + 0.05, SPINDLE)
    infiltrate, crowd = rng.uniform(0, 0.3) ** 1.5, 1 - rng.uniform(0, 0.5) ** 2
    chance = lymphoid * crowd + germinal * 0.4 + stroma * rng.uniform(0, 0.15) + tissue["tumour"] * infiltrate
    lymph = place(lymph_radius * rng.uniform(2.05, 2.45), chance, LYMPHOCYTE)

    kept = tumour
    for group, room in ((pale, 0.95), (spindle, 0.9), (lymph, 0.85)):
        for other, reach in ((TUMOUR, tumour_radius), (PALE, 4.6)):
            crowding = kept[kept[:, 2] == other]
            if len(crowding) and len(group):
                group = group[cdist(group[:, :2], crowding[:, :2]).min(1) > room * (reach + 2.0)]
        kept = np.concatenate([kept, group])
    return _describe(rng, slide, tissue, kept)


def _cluster(rng: np.random.Generator, n: int, radius: float) -> np.ndarray:
    """`n` tumour nuclei side by side inside the middle 32x32; float64 (n, 3), rows are (y, x, TUMOUR)."""
    room = _HALF_CENTRE - 1.0
    places = SIZE / 2 + rng.uniform(-room, room, (1, 2))
    for _ in range(200):
        if len(places) == n:
            break
        angle, step = rng.uniform(0, 2 * np.pi), 2 * radius * rng.uniform(0.95, 1.3)
        new = places[rng.integers(len(places))] + step * np.array([np.sin(angle), np.cos(angle)])
        if np.abs(new - SIZE / 2).max() < room and ((places - new) ** 2).sum(1).min() > (1.8 * radius) ** 2:
            places = np.concatenate([places, new[None]])
    return np.column_stack([places, np.full(len(places), TUMOUR)])


def _describe(rng: np.random.Generator, slide: dict, tissue: dict, placed: np.ndarray) -> dict[str, np.ndarray]:
    """Size, shape and chromatin of nuclei placed at rows (y, x, kind)."""
    kind = placed[:, 2].astype(int)
    n = len(kind)

    def choose(lymph: float, tumour: float, pale: float, spindle: float) -> np.ndarray:
        return np.array([lymph, tumour, pale, spindle])[kind]

    pleomorphism = slide["pleomorphism"]
    size = choose(slide["lymphocyte_radius"], slide["tumour_radius"], 4.4, 3.2)
    size = size * np.exp(choose(0.07, pleomorphism, 0.13, 0.15) * rng.standard_normal(n))
    dark = choose(1.0, slide["tumour_density"], rng.uniform(0.5, 0.85), 0.85)
    aspect = 1 + np.abs(rng.normal(0, 1, n)) * choose(0.10, 0.25, 0.25, 0.3) + choose(0.02, 0.05, 0.05, 1.4)
    along = np.pi * tissue["fibres"] / 12 + rng.normal(0, 0.25, n)
    return {
        "kind": kind,
        "y": placed[:, 0],
        "x": placed[:, 1],
        "radius": np.clip(size, 2.2, 10),
        "aspect": np.minimum(aspect, 3.2),
        "angle": np.where(kind == SPINDLE, along, rng.uniform(0, np.pi, n)),
        "density": 2.5 * dark * np.exp(choose(0.12, 0.15, 0.15, 0.15) * rng.standard_normal(n)),
        "hollow": np.clip(choose(0.15, slide["hollow"], 0.35, 0.1) + rng.normal(0, 0.08, n), 0, 0.7),
        "texture": choose(0.22, 0.24, 0.22, 0.18),
        "ragged": choose(0.05, 0.03 + 0.5 * pleomorphism, 0.06, 0.05),
        "nucleolus": choose(0, slide["nucleolus"], 0.35, 0) * (rng.random(n) < 0.7),
    }


def write(root: str | Path, train: int = 2048, valid: int = 512, test: int = 1024, seed: int = 0) -> None:
    """Write the phantom as six PCam files, beside them ``phantom.json`` and ``phantom_factors_<split>.h5``.

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
        if all(path.exists() for path in (known, pcam.file(root, split, "x"), pcam.file(root, split, "y"))):
            continue
        images, labels, factors = generate(n, seed, split)
        with atomic(known) as tmp_path, h5py.File(tmp_path, "w") as f:
            for name in FACTORS.names:
                f[name] = factors[name]
        pcam.write(root, split, images, labels)


def read_factors(root: str | Path, split: str) -> dict[str, np.ndarray]:
    """Known factors of a written phantom, arrays (N,) by name as in `generate`; StudyError if none."""
    path = Path(root) / f"phantom_factors_{split}.h5"
    if not path.is_file():
        raise StudyError(f"{path} is missing: only a phantom has known factors, make one with `pcamlib phantom DIR`.")
    with h5py.File(path, "r") as f:
        return {name: f[name][:] for name in FACTORS.names}
