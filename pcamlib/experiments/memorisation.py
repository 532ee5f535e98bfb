"""Memorisation: are generated patches nearer to the training patches than new real patches are?

A generator that copies its training set scores well in every table of quality. Two questions, asked in the space of
the first judge, tell copying from learning. Both compare with *new* patches: real ones that no generator has seen.

*Nearer to training*: does the nearest real patch of a sample, of all training and new patches, belong to the training
set? Whoever learned the distribution and not the patches hits it as often as its share of them. The test permutes which
real patches count as training ones, since samples that share a nearest patch are not independent.
*Closer than new*: is a sample closer to the training set than a new patch is? One half where samples are as far from
it as new patches, less where they lie off the manifold (Mann-Whitney test; Meehan et al. 2020, arXiv 2004.05675). It is
what someone asks whose patients are in the training set, but blur alone raises it: a bland sample is near to everything.
The first question is fair to poor samples too, so copying is a high value of both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from pcamlib import data, metrics
from pcamlib.experiments import features, selection
from pcamlib.experiments.features import Extractor
from pcamlib.models import autoencoder
from pcamlib.study import GENERATORS, SELECTIONS, Study

PERMUTATIONS = 999
PAIRS = 6  # nearest pairs kept per generator, for the figure


class Nearest(NamedTuple):
    """Of each sample: distance float64 (M,) to the nearest patch, its row int64 (M,), its orientation int64 (M,)."""

    distance: np.ndarray
    row: np.ndarray
    turn: np.ndarray


class Indexed:
    """Real patches uint8 (N, 96, 96, 3) in a feature space, in `turns` orientations: 1, or 8 with turned and mirrored."""

    def __init__(self, space: Extractor, images: np.ndarray, turns: int):
        self.n = len(images)
        self.features = np.concatenate([space(oriented(images, turn)) for turn in range(turns)])

    def nearest(self, features: np.ndarray) -> Nearest:
        """The nearest patch in any orientation of each row of features (M, D)."""
        distance, index = metrics.nearest(real=self.features, fake=features)
        return Nearest(distance, index % self.n, index // self.n)


def oriented(images: np.ndarray, turn: int) -> np.ndarray:
    """Patches (N, 96, 96, 3) in orientation 0..7 as `tensors.orient` counts: quarter turns, 4..7 mirrored first."""
    images = images[:, :, ::-1] if turn >= 4 else images
    return np.ascontiguousarray(np.rot90(images, turn % 4, (1, 2)))


def evaluate(study: Study) -> dict[str, Any]:
    """Compute and write results/memorisation.json: a row per generator and selection, and two controls.

    The controls say what the numbers mean here: patches of the validation split, from other slides (nothing copied),
    and the autoencoder's reconstructions of the training patches (everything copied). Where generators also learn from
    turned and mirrored patches, the nearest patch is looked for in all eight orientations. New patches that equal a
    training patch byte for byte, as PCam's sampling with replacement has them, are left out.
    """
    space, turns = features.first_space(study), study.profile.orientations
    fresh, source, copies = new_patches(study)
    train = Indexed(space, study.real.images, turns)
    new = Indexed(space, fresh, turns)
    baseline = train.nearest(new.features[: new.n]).distance
    decoder = autoencoder.load(study)
    sets: dict[tuple[str, str | None], Callable[[], np.ndarray | None]] = {
        (g, s): partial(_synthetic, study, g, s) for s in SELECTIONS for g in GENERATORS
    }
    sets["real", None] = lambda: data.load(study.data_root, "valid", _validation_rows(study)[0]).images
    sets["autoencoder", None] = lambda: autoencoder.reconstruct(decoder, study.real.images)
    rows, pairs = [], {}
    for (generator, chosen), load in sets.items():
        row = {"generator": generator, "selection": chosen, "extractor": space.name}
        images = load()
        if images is None:
            rows.append(row | {"status": "not run", "reason": "a class has no image"})
            continue
        found = space(images)
        near, other = train.nearest(found), new.nearest(found)
        rows.append(row | {"status": "ok", "reason": None} | compare(near, other, baseline, train.n))
        if chosen == "none":
            pairs[generator] = _closest(near, other)
    return study.write_result(
        "memorisation",
        {
            "judge": {space.name: space.about},
            "new": source,
            "n_new": new.n,
            "copies_left_out": copies,
            "orientations": turns,
            "rows": rows,
            "pairs": pairs,
        },
        extractor=space.name,
    )


def compare(near: Nearest, other: Nearest, new_to_train: np.ndarray, n_train: int) -> dict[str, float | int]:
    """The two questions of this module, from distances.

    near, other: of each sample, the nearest of the n_train training patches and the nearest new patch; new_to_train:
    (n_new,) distance of each new patch to its nearest training patch. Returns shares 0..1 (ties count half) with their
    one-sided p values, and the least ratio of the two distances.
    """
    n_new = len(new_to_train)
    hits = (near.distance < other.distance) + (near.distance == other.distance) / 2
    # how many samples each real patch is the nearest one of: a few central patches may serve many bland samples
    served = np.bincount(near.row, hits, n_train), np.bincount(other.row, 1 - hits, n_new)
    test = scipy_stats.mannwhitneyu(new_to_train, near.distance, alternative="greater")
    return {
        "n_fake": len(hits),
        "n_train": n_train,
        "n_new": n_new,
        "nearer_train": float(hits.mean()),
        "nearer_train_expected": n_train / (n_train + n_new),
        "nearer_train_p": _permutation_p(*served),
        "closer_than_new": float(test.statistic) / (len(hits) * n_new),
        "closer_than_new_p": float(test.pvalue),
        "least_ratio": float(_ratio(near, other).min()),
    }


def _permutation_p(train: np.ndarray, new: np.ndarray) -> float:
    """P(as many samples at the training patches, if which real patches were trained on had been drawn at random)."""
    rng, pool = np.random.default_rng(0), np.concatenate([train, new])
    drawn = [rng.permutation(pool)[: len(train)].sum() for _ in range(PERMUTATIONS)]
    return (1 + int((np.array(drawn) >= train.sum()).sum())) / (1 + PERMUTATIONS)


def new_patches(study: Study) -> tuple[np.ndarray, str, int]:
    """Real patches that no generator of this subset has seen: uint8 (N, 96, 96, 3), where from, copies left out.

    Other rows of the train split, as many as the subset has. If too few are left, validation patches, none of which is
    in the control.
    """
    if len(study.others):
        images, source = study.other_real.images, "other rows of the train split"
    else:
        images = data.load(study.data_root, "valid", _validation_rows(study)[1]).images
        source = "half of the validation split, because no train rows are left"
    known = {image.tobytes() for image in study.real.images}
    keep = np.array([image.tobytes() not in known for image in images])
    return images[keep], source, int((~keep).sum())


def _synthetic(study: Study, generator: str, chosen: str) -> np.ndarray | None:
    made = selection.synthetic(study, generator, chosen)
    return None if made is None else made.images


def _validation_rows(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the validation split: for the control, and for the new patches if no train rows are left (else none)."""
    labels = data.labels(study.data_root, "valid")
    parts = 1 if len(study.others) else 2
    size = min(len(labels) // parts, len(study.rows))
    control, *new = data.subsets(labels, n=parts, size=size, seed=study.profile.subsets.seed)
    return control, new[0] if new else control[:0]


def _ratio(near: Nearest, other: Nearest) -> np.ndarray:
    return near.distance / np.maximum(other.distance, 1e-12)


def _closest(near: Nearest, other: Nearest) -> list[dict[str, float | int]]:
    """The samples that are nearest to a training patch, compared with how near a new one comes."""
    ratio = _ratio(near, other)
    return [
        {"sample": int(i), "row": int(near.row[i]), "turn": int(near.turn[i]), "ratio": float(ratio[i])}
        for i in np.argsort(ratio, kind="stable")[:PAIRS]
    ]


def pair_images(study: Study, generator: str, pairs: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(samples, training patches turned to match), each uint8 (P, 96, 96, 3), of `pairs` in memorisation.json."""
    made = selection.synthetic(study, generator, "none").images
    near = [oriented(study.real.images[pair["row"]][None], pair["turn"])[0] for pair in pairs]
    return made[[pair["sample"] for pair in pairs]], np.stack(near)
