"""Drawing for the phantom: noise banks, nuclei, fat, fibres and the two-stain optics.

Everything here is a function of the arrays and the ``numpy.random.Generator`` it is given. Lengths are pixels
of 0.97 um (PCam, level 2); concentrations are optical densities along a unit stain vector (natural
logarithm). Maps are (128, 128): the patch with a margin of 16 pixels, so that what lies outside can reach
into it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

SIZE = 96  # a PCam patch
PAD = 16  # nuclei centred this far outside still reach into the patch
FULL = SIZE + 2 * PAD
LYMPHOCYTE, TUMOUR, PALE, SPINDLE = range(4)  # kinds of nuclei; PALE is benign: germinal centre, histiocyte

# Absorption (red, green, blue) of the stains in the two looks that PCam patches have, from CAMELYON16's two
# centres: blue-purple, brown-pink. Near the medians over pixels of nuclei and of stroma in PCam patches.
HAEMATOXYLIN = np.array([[0.51, 0.80, 0.31], [0.49, 0.73, 0.48]])
EOSIN = np.array([[0.26, 0.93, 0.26], [0.32, 0.79, 0.51]])

_BANK = 320  # side of a noise tile
_TORUS = 40.0  # side of the point pattern, in units of the mean spacing
_GRID = np.arange(FULL, dtype=np.float32) - PAD


@dataclass(frozen=True)
class Banks:
    """Noise tiles and a blue-noise point pattern; patches crop them at random, so one costs milliseconds.

    ``coarse``, ``medium``, ``fine``, ``grain`` and ``white`` are float32 (320, 320) of zero mean and unit
    variance, noise smoothed over 14, 5, 1.6, 0.7 and 0 pixels; ``fibres`` is float32 (12, 320, 320), tile i
    running at ``pi * i / 12``; ``points`` is float64 (1600, 2) in [0, 40), one point per unit area, few pairs
    nearer than 0.8.
    """

    coarse: np.ndarray
    medium: np.ndarray
    fine: np.ndarray
    grain: np.ndarray
    white: np.ndarray
    fibres: np.ndarray
    points: np.ndarray


def make_banks(rng: np.random.Generator) -> Banks:
    """Draw the banks (about 0.3 s)."""

    def smooth(sigma: float) -> np.ndarray:
        return _unit(gaussian_filter(rng.standard_normal((_BANK, _BANK)), sigma, mode="wrap"))

    fields = [smooth(sigma) for sigma in (14, 5, 1.6, 0.7, 0)]
    return Banks(*fields, _fibre_bank(rng), _blue_noise(rng))


def _unit(field: np.ndarray) -> np.ndarray:
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _fibre_bank(rng: np.random.Generator, n: int = 12) -> np.ndarray:
    """Oriented noise, bent by a slow displacement; float32 (n, 320, 320), tile i at ``pi * i / n`` from x."""
    frequency = np.fft.fftfreq(_BANK)
    fy, fx = frequency[:, None], frequency[None, :]
    grid = np.indices((_BANK, _BANK))
    tiles = []
    for i in range(n):
        angle = np.pi * i / n
        along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
        keep = np.exp(-0.5 * (along / 0.012) ** 2) * np.exp(-0.5 * ((np.abs(across) - 0.07) / 0.06) ** 2)
        tile = np.fft.ifft2(np.fft.fft2(rng.standard_normal((_BANK, _BANK))) * keep).real
        bend = gaussian_filter(rng.standard_normal((_BANK, _BANK)), 16, mode="wrap")
        bend = np.rint(5 * bend / bend.std()).astype(int)
        shift_y, shift_x = np.rint(bend * np.cos(angle)), np.rint(-bend * np.sin(angle))
        tiles.append(tile[(grid[0] + shift_y.astype(int)) % _BANK, (grid[1] + shift_x.astype(int)) % _BANK])
    return np.stack([_unit(tile) for tile in tiles])


def _blue_noise(rng: np.random.Generator) -> np.ndarray:
    """Points pushed apart on a torus until crowded but irregular, as packed nuclei are; float64 (1600, 2)."""
    points = rng.uniform(0, _TORUS, (int(_TORUS**2), 2))
    for _ in range(25):
        pairs = cKDTree(points, boxsize=_TORUS).query_pairs(0.98, output_type="ndarray")
        gap = points[pairs[:, 0]] - points[pairs[:, 1]]
        gap -= _TORUS * np.rint(gap / _TORUS)
        length = np.linalg.norm(gap, axis=1, keepdims=True) + 1e-9
        push = 0.3 * gap / length * (0.98 - length)
        np.add.at(points, pairs[:, 0], push)
        np.add.at(points, pairs[:, 1], -push)
        points %= _TORUS
    return points


def crop(rng: np.random.Generator, tile: np.ndarray) -> np.ndarray:
    """A random view of a noise tile, (128, 128): the patch with its margin."""
    y, x = rng.integers(0, _BANK - FULL, 2)
    return tile[y : y + FULL, x : x + FULL]


def scatter(rng: np.random.Generator, banks: Banks, spacing: float, jitter: float = 0.08) -> np.ndarray:
    """Random places about ``spacing`` pixels apart on the patch and around it; float64 (n, 2), (y, x)."""
    y, x = (banks.points + rng.uniform(0, _TORUS, 2)).T
    y, x = y - _TORUS * (y >= _TORUS) - _TORUS / 2, x - _TORUS * (x >= _TORUS) - _TORUS / 2
    margin = PAD - 4
    reach = (SIZE / 2 + margin) / spacing
    near = y * y + x * x < 2 * reach * reach
    y, x = y[near], x[near]
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    shift = rng.normal(0, jitter, (2, len(y)))
    y, x = c * y + s * x + shift[0], c * x - s * y + shift[1]
    inside = np.maximum(np.abs(y), np.abs(x)) < reach
    return spacing * np.column_stack([y[inside], x[inside]]) + SIZE / 2


def at(field: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values of a (128, 128) field at the given (y, x) places, nearest pixel."""
    index = np.clip(np.rint(places).astype(int) + PAD, 0, FULL - 1)
    return field[index[:, 0], index[:, 1]]


def draw_nuclei(
    rng: np.random.Generator,
    banks: Banks,
    nuclei: dict[str, np.ndarray],
    canvas: np.ndarray,
    tumour: np.ndarray,
) -> None:
    """Stamp nuclei onto ``canvas`` (haematoxylin), cover of the tumour ones onto ``tumour``; both (128, 128).

    ``nuclei`` holds float arrays (n,): ``y``, ``x`` (centre), ``radius`` (of the circle of equal area),
    ``aspect`` (long to short axis), ``angle`` (of the long axis), ``density`` (concentration), ``hollow``
    (0..1, how much paler the middle is than the rim), ``texture`` (relative), ``ragged`` (relative radius),
    ``nucleolus`` (concentration), and int ``kind``.
    """
    reach = nuclei["radius"] * np.sqrt(nuclei["aspect"]) * (1 + 1.5 * nuclei["ragged"]) + 1
    outside = np.maximum(np.abs(nuclei["y"] - SIZE / 2), np.abs(nuclei["x"] - SIZE / 2)) > SIZE / 2 + reach
    for half, least, most in ((6, 0, 6), (9, 6, 9), (14, 9, np.inf)):
        picked = np.flatnonzero((reach > least) & (reach <= most) & ~outside)
        if not len(picked):
            continue
        part = {name: values[picked] for name, values in nuclei.items()}
        top = (np.rint(part["y"]).astype(int) - half + PAD).tolist()
        left = (np.rint(part["x"]).astype(int) - half + PAD).tolist()
        density, cover = _sprites(rng, banks, part, half)
        side, malignant = 2 * half + 1, (part["kind"] == TUMOUR).tolist()
        for i in range(len(picked)):
            y0, x0 = max(top[i], 0), max(left[i], 0)
            y1, x1 = min(top[i] + side, FULL), min(left[i] + side, FULL)
            if y1 <= y0 or x1 <= x0:
                continue
            inside = (slice(y0 - top[i], y1 - top[i]), slice(x0 - left[i], x1 - left[i]))
            window = canvas[y0:y1, x0:x1]
            np.maximum(window, density[i][inside], out=window)
            if malignant[i]:
                window = tumour[y0:y1, x0:x1]
                np.maximum(window, cover[i][inside], out=window)


def _sprites(
    rng: np.random.Generator, banks: Banks, nuclei: dict[str, np.ndarray], half: int
) -> tuple[np.ndarray, np.ndarray]:
    """Density and cover of each nucleus in a window of its own; two float32 (n, 2 half + 1, 2 half + 1)."""
    n, side = len(nuclei["y"]), 2 * half + 1
    value = {name: array.astype(np.float32)[:, None, None] for name, array in nuclei.items()}
    axis = np.arange(-half, half + 1, dtype=np.float32)
    dy = axis[None, :, None] - (value["y"] - np.rint(value["y"]))
    dx = axis[None, None, :] - (value["x"] - np.rint(value["x"]))
    c, s, stretch = np.cos(value["angle"]), np.sin(value["angle"]), np.sqrt(value["aspect"])
    u = (c * dx + s * dy) / (value["radius"] * stretch)
    v = (c * dy - s * dx) * (stretch / value["radius"])
    rho = np.sqrt(u * u + v * v) + np.float32(1e-3)
    u, v = u / rho, v / rho  # cosine and sine of the direction
    wave = rng.normal(0, 1, (4, n, 1, 1)).astype(np.float32)
    uu, vv = u * u, v * v
    lobes = wave[0] * (uu - vv) + 2 * wave[1] * u * v
    lobes += wave[2] * u * (uu - 3 * vv) + wave[3] * v * (3 * uu - vv)
    edge = 1 + 0.5 * value["ragged"] * lobes  # second and third harmonics of the direction
    rho /= np.maximum(edge, 0.5)
    cover = np.clip((1 - rho) * value["radius"] / 0.9 + 0.5, 0, 1)
    window = np.lib.stride_tricks.sliding_window_view(banks.fine if half > 8 else banks.grain, (side, side))
    place = rng.integers(0, _BANK - side, (2, n))
    density = value["density"] * (1 - value["hollow"] * (1 - np.minimum(rho * rho, 1)))
    density *= 1 + value["texture"] * window[place[0], place[1]]
    spots = np.flatnonzero(nuclei["nucleolus"] > 0)
    if len(spots):
        shift = rng.normal(0, 0.25, (2, len(spots), 1, 1)).astype(np.float32) * value["radius"][spots]
        distance = (dy[spots] - shift[0]) ** 2 + (dx[spots] - shift[1]) ** 2
        density[spots] += value["nucleolus"][spots] * np.exp(-distance / 2.2)
    return np.maximum(density, 0) * cover, cover


def fat_cells(rng: np.random.Generator, banks: Banks, wobble: np.ndarray, spare: float = 0) -> np.ndarray:
    """Fat: cells round where alone, polygons where packed; float32 (128, 128), 1 inside a cell.

    ``wobble`` (128, 128), of about unit variance, bends the walls. With ``spare`` no cell has its centre
    within that many pixels of the patch's middle and none reaches half-way to it.
    """
    centres = scatter(rng, banks, rng.uniform(34, 58))
    centres = centres[rng.random(len(centres)) < rng.uniform(0.3, 1.0)]
    middle = np.full(2, SIZE / 2)
    centres = centres[np.linalg.norm(centres - middle, axis=1) >= spare]
    wall, reach = rng.uniform(1.5, 5), rng.uniform(15, 38)
    if not len(centres):
        return np.zeros((FULL, FULL), np.float32)

    def distance(places: np.ndarray) -> np.ndarray:
        dy = _GRID[:, None] + 2 * wobble - places[:, 0, None, None].astype(np.float32)
        dx = _GRID[None, :] + 2 * wobble.T - places[:, 1, None, None].astype(np.float32)
        return np.sqrt(dx * dx + dy * dy)

    near, second = distance(centres), np.float32(np.inf)
    if len(centres) > 1:
        near, second = np.partition(near, 1, axis=0)[:2]
    else:
        near = near[0]
    if spare:
        second = np.minimum(second, distance(middle[None])[0])
    return np.clip((second - near - wall) / 1.5, 0, 1) * np.clip((reach - near) / 1.2, 0, 1)


def red_cells(rng: np.random.Generator, banks: Banks) -> np.ndarray:
    """A vessel's worth of red cells; eosin concentration, float32 (128, 128)."""
    cells = scatter(rng, banks, rng.uniform(5.5, 7.0))
    middle, reach = rng.uniform(0, SIZE, 2), rng.uniform(6, 18)
    cells = cells[((cells - middle) ** 2).sum(1) < reach**2]
    if not len(cells):
        return np.zeros((FULL, FULL), np.float32)
    return rng.uniform(1.1, 1.7) * np.minimum(2.2 * cone_map(cells[:, 0], cells[:, 1], 4.5), 1)


def expose(
    rng: np.random.Generator,
    banks: Banks,
    haematoxylin: np.ndarray,
    eosin: np.ndarray,
    vectors: np.ndarray,
    light: np.ndarray,
    blur: float,
    noise: float,
) -> np.ndarray:
    """Beer-Lambert: two (128, 128) concentrations to uint8 (96, 96, 3).

    ``vectors`` (2, 3) are the unit absorption vectors of haematoxylin and eosin, ``light`` (3,) the white of
    the slide (0..255), ``blur`` the standard deviation of the point spread in pixels, ``noise`` that of the
    sensor in grey levels.
    """
    keep, inner = slice(PAD - 6, PAD + SIZE + 6), slice(6, -6)
    stains = np.empty((2, SIZE, SIZE), np.float32)
    for i, stain in enumerate((haematoxylin, eosin)):
        stains[i] = gaussian_filter(stain[keep, keep], blur, truncate=2.5)[inner, inner]
    density = np.tensordot(stains, vectors.astype(np.float32), axes=(0, 0))
    image = light.astype(np.float32) * np.exp(-density)
    shared, *own = (crop(rng, banks.white)[:SIZE, :SIZE] for _ in range(4))
    for channel in range(3):
        image[:, :, channel] += noise * (np.float32(0.85) * shared + np.float32(0.5) * own[channel])
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def cone_map(y: np.ndarray, x: np.ndarray, reach: float = 13.0) -> np.ndarray:
    """Highest of cones, 1 at a cell's centre, 0 at ``reach`` pixels; valleys: borders; float32 (128, 128)."""
    half = int(np.ceil(reach))
    axis = np.arange(-half, half + 1, dtype=np.float32)
    cone = np.maximum(1 - np.hypot(axis[:, None], axis[None, :]) / reach, 0)
    wide = np.zeros((FULL + 2 * half, FULL + 2 * half), np.float32)
    for top, left in zip((np.rint(y).astype(int) + PAD).tolist(), (np.rint(x).astype(int) + PAD).tolist()):
        if 0 <= top < FULL and 0 <= left < FULL:
            window = wide[top : top + 2 * half + 1, left : left + 2 * half + 1]
            np.maximum(window, cone, out=window)
    return wide[half:-half, half:-half]


def ground(rng: np.random.Generator, banks: Banks, tissue: dict, nuclei: dict) -> tuple[np.ndarray, np.ndarray]:
    """Concentrations of haematoxylin and eosin outside the nuclei; two float32 (128, 128).

    ``tissue`` is that of `phantom_tissue.lay_tissue`, ``nuclei`` as in `draw_nuclei`. Tumour cells bring their
    cytoplasm, and so do pale cells where ``tissue["histiocytes"]`` is true.
    """
    medium, fine, grain = crop(rng, banks.medium), crop(rng, banks.fine), crop(rng, banks.grain)
    fibres = crop(rng, banks.fibres[tissue["fibres"]])
    stroma, tumour = tissue["stroma"], tissue["tumour"]
    rest = 1 - stroma - tumour
    level = rng.uniform(0.25, 0.6)
    eosin = rest * np.maximum(level * (1 + 0.3 * medium + 0.35 * fine + 0.25 * grain), 0.02)
    fibre_level = rng.uniform(0.35, 0.85)
    strands = fibre_level * (1 + 0.30 * fibres + 0.12 * fine + 0.12 * grain)
    strands *= np.clip(1.5 * (fibres + rng.uniform(0.2, 3.0)), 0.05, 1)  # clefts between the bundles
    eosin += stroma * np.maximum(strands, 0)
    haematoxylin = 0.12 * rest * (1 + 0.5 * medium) + 0.04 * stroma
    big = np.isin(nuclei["kind"], (TUMOUR, PALE) if tissue["histiocytes"] else (TUMOUR,))
    if big.any():
        bodies = cone_map(nuclei["y"][big], nuclei["x"][big])
        cytoplasm = np.maximum(tumour, np.minimum(2.5 * bodies, 1))
        eosin *= 1 - cytoplasm
        mottle = 0.7 + 0.5 * bodies + 0.12 * (medium + fine + grain)
        eosin += cytoplasm * rng.uniform(0.3, 0.65) * mottle
        haematoxylin *= 1 - cytoplasm
        haematoxylin += cytoplasm * rng.uniform(0.10, 0.30)
    loose = np.clip(2.0 * (0.75 * fine + 0.6 * medium - rng.uniform(0.1, 1.8)), 0, 0.95) * (1 - stroma)
    eosin *= 1 - loose
    haematoxylin *= 1 - loose
    if rng.random() < 0.15:
        eosin = np.maximum(eosin, red_cells(rng, banks))
    return haematoxylin, eosin
