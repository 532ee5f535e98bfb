"""What a phantom patch consists of: the look of its slide, its tissue and its nuclei. `phantom_render` draws them.

Colour and texture must not give the label away. So stain, sharpness, chromatin and the density of cells vary from
slide to slide and from patch to patch whatever the label, tumour nuclei may be as dark as lymphocytes or paler, and
most negative patches hold, about their middle, a nest of pale benign cells of the same shape as the nest of tumour
in a positive patch. Only the nuclei tell the two apart: tumour nuclei are larger and more irregular.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from pcamlib.data.phantom_render import (
    EOSIN,
    FULL,
    HAEMATOXYLIN,
    LYMPHOCYTE,
    PALE,
    SIZE,
    SPINDLE,
    TUMOUR,
    Banks,
    at,
    crop,
    fat_cells,
    scatter,
)  # fmt: skip

_OFFSET = np.abs(np.arange(FULL) - (FULL - 1) / 2)
# distances from the middle of the patch, Chebyshev and Euclidean
_SQUARE = np.maximum(_OFFSET[:, None], _OFFSET[None, :]).astype(np.float32)
_ROUND = np.hypot(_OFFSET[:, None], _OFFSET[None, :]).astype(np.float32)
_BUMP = np.exp(-0.5 * (_ROUND / 15) ** 2)
HALF_CENTRE = 16  # half the side of the square that decides the label


def slide_look(rng: np.random.Generator) -> dict[str, float | np.ndarray]:
    """What the patches of a slide share: scanner, stain vectors and strengths, and how its cells look."""
    scanner = int(rng.integers(2))
    vectors = np.stack([HAEMATOXYLIN[scanner], EOSIN[scanner]])
    vectors = vectors * rng.normal(1, [[0.07, 0.03, 0.10], [0.14, 0.03, 0.16]])
    light = np.array([[236, 234, 239], [254, 251, 253]][scanner]) + rng.normal(0, [7, 1][scanner])
    return {
        "scanner": scanner,
        "vectors": vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        "light": light + rng.normal(0, 2, 3),
        "haematoxylin": rng.lognormal(-0.1, 0.22),
        "eosin": rng.lognormal(-0.1, 0.28),
        "lymphocyte_radius": rng.uniform(3.1, 4.3),
        "tumour_radius": rng.uniform(6.2, 8.2),
        "pleomorphism": rng.uniform(0.14, 0.30),
        "tumour_density": rng.uniform(0.36, 0.80),
        "chromatin": rng.uniform(0.4, 1.7),
        "hollow": rng.uniform(0.2, 0.7),
        "nucleolus": rng.uniform(0.2, 1.5),
        "focus": rng.uniform(0.35, 0.6),
    }


def lay_tissue(rng: np.random.Generator, banks: Banks, positive: bool) -> dict[str, np.ndarray | float]:
    """What lies where in a patch.

    Maps in [0, 1], float32 (128, 128): `stroma`, `germinal` (pale benign cells), `tumour`, `fat`, `blank` and `glass`
    (fat or blank). Beside them `few`, a number of stray tumour cells wanted in the middle; `histiocytes`, whether the
    pale cells have cytoplasm like the tumour's; `fibres`, the index of the fibres' direction.
    """
    field = 0.85 * crop(rng, banks.coarse) + 0.5 * crop(rng, banks.medium)
    other = 0.85 * crop(rng, banks.coarse) + 0.35 * crop(rng, banks.medium)
    third = crop(rng, banks.coarse) + 0.3 * crop(rng, banks.medium)
    zero = np.zeros((FULL, FULL), np.float32)

    scene = rng.choice(["lymphoid", "stroma", "fat", "edge"], p=[0.54, 0.26, 0.09, 0.11])
    stroma_levels = {"lymphoid": (0.7, 2.5), "stroma": (-2.5, -0.3), "fat": (-1.5, 0.5), "edge": (0, 2.5)}
    stroma = np.clip(3 * (field - rng.uniform(*stroma_levels[scene])) + 0.5, 0, 1)
    covered = positive or rng.random() < 0.75  # tissue over the middle square
    fatty = scene == "fat" or rng.random() < 0.06
    fat = fat_cells(rng, banks, third, spare=36 if covered else 0) if fatty else zero
    blank = zero
    if scene == "edge" or rng.random() < 0.05:
        blank = np.clip(3 * (third - 3 * _BUMP * covered - rng.uniform(0.0, 1.2)) + 0.5, 0, 1)
        if covered:
            blank *= np.clip((_ROUND - np.sqrt(2) * HALF_CENTRE) / 4, 0, 1)

    # A nest about the middle: tumour in positives; in negatives benign, or tumour with a gap in the middle, or nothing.
    extent = rng.choice(["few", "nest", "sheet"], p=[0.16, 0.46, 0.38])
    level = rng.uniform(0.0, 1.0) if extent == "nest" else rng.uniform(-1.8, -0.8)
    nest = zero if extent == "few" else np.clip(6 * (other + 1.7 * _BUMP - level) + 0.5, 0, 1)
    inner = "tumour" if positive else rng.choice(["germinal", "tumour", "none"], p=[0.62, 0.08, 0.30])
    # Away from the middle the label plays no part.
    outer = rng.choice(["germinal", "tumour", "none"], p=[0.30, 0.08, 0.62])
    beyond = np.clip(6 * (-other - rng.uniform(-0.5, 0.8)) + 0.5, 0, 1)
    germinal, tumour = (np.maximum(nest * (inner == kind), beyond * (outer == kind)) for kind in ("germinal", "tumour"))
    if not positive:
        tumour *= (_SQUARE > HALF_CENTRE + 7) * np.clip((_ROUND - 27 - 4 * field) / 3, 0, 1)
    few = int(rng.integers(1, 6)) if positive and extent == "few" else 0
    return {
        "stroma": stroma * (1 - tumour),
        "germinal": germinal * (1 - stroma) * (1 - tumour),
        "tumour": tumour,
        "fat": fat,
        "blank": blank * (1 - fat),
        "glass": np.maximum(fat, blank),
        "few": few,
        "histiocytes": bool(rng.random() < 0.5),
        "fibres": int(rng.integers(12)),
    }


def place_nuclei(
    rng: np.random.Generator, banks: Banks, slide: dict, tissue: dict, positive: bool
) -> dict[str, np.ndarray]:
    """Place and describe the nuclei of a patch; see `draw_nuclei` for the columns."""
    lymph_radius, tumour_radius = slide["lymphocyte_radius"], slide["tumour_radius"]

    def place(spacing: float, chance: np.ndarray, kind: int) -> np.ndarray:
        places = scatter(rng, banks, spacing)
        places = places[rng.random(len(places)) < at(chance * (1 - tissue["glass"]), places)]
        return np.column_stack([places, np.full(len(places), kind)])

    stroma, germinal = tissue["stroma"], tissue["germinal"]
    lymphoid = (1 - stroma) * (1 - tissue["tumour"]) * (1 - germinal)
    tumour = place(2 * tumour_radius * rng.uniform(0.98, 1.45), tissue["tumour"], TUMOUR)
    wanted = tissue["few"] if tissue["few"] else int(positive)
    have = (np.abs(tumour[:, :2] - SIZE / 2).max(1) <= HALF_CENTRE).sum() if len(tumour) else 0
    if wanted > have:
        tumour = np.concatenate([tumour, _cluster(rng, wanted, tumour_radius)])
    pale = place(rng.uniform(9.5, 12), germinal * 0.85 + lymphoid * rng.choice([0.02, 0.10]), PALE)
    spindle = place(13, stroma * rng.uniform(0.25, 0.8) + 0.05, SPINDLE)
    infiltrate, crowd = rng.uniform(0, 0.5) ** 1.5, rng.uniform(0.35, 1.0)
    chance = lymphoid * crowd + germinal * 0.4 + stroma * rng.uniform(0, 0.15) + tissue["tumour"] * infiltrate
    lymph = place(lymph_radius * rng.uniform(2.05, 2.7), chance, LYMPHOCYTE)

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
    room = HALF_CENTRE - 1.0
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
    size = choose(slide["lymphocyte_radius"], slide["tumour_radius"], rng.uniform(4.2, 5.2), 3.2)
    size = size * np.exp(choose(0.07, pleomorphism, 0.13, 0.15) * rng.standard_normal(n))
    dark = choose(
        rng.uniform(0.7, 1.05), slide["tumour_density"] * rng.lognormal(0, 0.12), rng.uniform(0.4, 0.85), 0.85
    )
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
        "texture": choose(0.22, 0.24, 0.22, 0.18) * slide["chromatin"],
        "ragged": choose(0.05, 0.03 + 0.5 * pleomorphism, 0.06, 0.05),
        "nucleolus": choose(0, slide["nucleolus"], 0.35, 0) * (rng.random(n) < 0.7),
    }
