"""Made-up image files for tests of sources."""

import csv

import numpy as np
from PIL import Image

from pcamlib import data
from pcamlib.core.files import read_json


def put(path, seed=None, size=(96, 96), **options):
    """A picture of coloured noise; without `seed`, one that the path decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(str(path).encode()) if seed is None else seed)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path, **options)


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([header, *rows])
    return path


def rows_csv(dest):
    with open(dest / "rows.csv", newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def counts(dest):
    """(patches, positives) of each split, from the files."""
    return {s: (len(y := data.labels(dest, s)), int(y.sum())) for s in data.SPLITS}


def card_of(dest):
    return read_json(dest / "card.json")
