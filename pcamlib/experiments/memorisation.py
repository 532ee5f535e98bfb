"""Memorisation: do generated patches resemble the training patches more than new real patches do?

A generator that copies its training set scores well in every table of quality. Two measures separate copying from
learning. Both use the main feature space and compare with *new* patches: real ones that the generators have not seen.

*Nearer to training* is the share of samples whose nearest real patch, among training and new patches together, is a
training patch. A generator that has learned the distribution is expected to reach the training set's share of these
patches. The permutation test permutes which real patches count as training patches, because samples that share a
nearest patch are not independent.

*Closer than new* is the probability that a sample is closer to the training set than a new patch is (Mann-Whitney test;
Meehan et al. 2020, arXiv 2004.05675). It is 1/2 if samples are as far from it as new patches, and less if they lie off
the manifold. Blur alone raises it, because a bland image is near to everything. The first measure does not have this
weakness, so copying shows as a high value of both.

*Planted copies* say how much copying the test can find: among patches that are no copies, a known share is replaced by
training patches that are turned, mirrored and slightly changed in brightness.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from pcamlib import data, metrics, training
from pcamlib.experiments import features, selection
from pcamlib.experiments.features import Extractor
from pcamlib.models import autoencoder
from pcamlib.results.arms import PLANTED
from pcamlib.study import SELECTIONS, Study

PERMUTATIONS = 999
PLANTED_SHARES = dict(zip(PLANTED, (0.05, 0.1, 0.2)))
JITTER = 0.05  # a planted copy's brightness changes by up to this share
PAIRS = 6  # nearest pairs kept per generator, for the figure


class Nearest(NamedTuple):
    """For each of M samples: the distance float64 (M,) to its nearest real patch, that patch's row and orientation
    int64 (M,)."""

    distance: np.ndarray
    row: np.ndarray
    turn: np.ndarray


class Indexed:
    """Real patches uint8 (N, 96, 96, 3) as features, ready for nearest-neighbour searches.

    turns: 1 for the patches as they are, 8 for every rotated and mirrored version too.
    """

    def __init__(self, space: Extractor, images: np.ndarray, turns: int):
        self.n = len(images)
        self.features = np.concatenate([space(oriented(images, turn)) for turn in range(turns)])

    def nearest(self, features: np.ndarray) -> Nearest:
        """The nearest real patch, in any orientation, for each row of features (M, D)."""
        distance, index = metrics.nearest(real=self.features, fake=features)
        return Nearest(distance, index % self.n, index // self.n)


def oriented(images: np.ndarray, turn: int) -> np.ndarray:
    """Patches (N, 96, 96, 3) in orientation `turn`, 0 to 7, numbered as in `tensors.orient`."""
    images = images[:, :, ::-1] if turn >= 4 else images
    return np.ascontiguousarray(np.rot90(images, turn % 4, (1, 2)))


def evaluate(study: Study) -> dict[str, Any]:
    """Compute both measures for every synthetic set and write results/memorisation.json; returns its content.

    Two controls calibrate them: patches of the validation split, from other slides (nothing is copied), and the
    autoencoder's reconstructions of the training patches (everything is copied). The rows of `PLANTED` are the first of
    them with a share of planted copies (see `planted`), so their p values are the test's detection limit. If the
    profile lets generators learn from rotated and mirrored patches, the nearest patch is searched in all eight
    orientations. New patches that equal a training patch byte for byte, which PCam's sampling with replacement
    produces, are left out and counted.
    """
    space, turns = features.first_space(study), study.profile.orientations
    fresh, source, copies = new_patches(study)
    train = Indexed(space, study.real.images, turns)
    new = Indexed(space, fresh, turns)
    baseline = train.nearest(new.features[: new.n]).distance
    decoder = autoencoder.load(study)
    sets: dict[tuple[str, str | None], Callable[[], np.ndarray | None]] = {
        (g, s): partial(_synthetic, study, g, s) for s in SELECTIONS for g in study.profile.generator_names
    }
    sets["real", None] = lambda: data.load(study.data_root, "valid", _validation_rows(study)[0]).images
    sets["autoencoder", None] = lambda: autoencoder.reconstruct(decoder, study.real.images)
    rows, pairs = [], {}
    for (generator, chosen), load in sets.items():
        row = {"generator": generator, "selection": chosen, "extractor": space.name}
        images = load()
        if images is None:
            rows.append(row | {"status": "not run", "reason": selection.shortage(study, generator, chosen)})
            continue
        found = space(images)
        near, other = train.nearest(found), new.nearest(found)
        rows.append(row | {"status": "ok", "reason": None} | compare(near, other, baseline, train.n))
        if chosen == "none":
            pairs[generator] = _closest(near, other)
        if generator == "real":
            control = found
    for name, share in PLANTED_SHARES.items():
        copies_made = planted(study.real.images, max(1, round(share * len(control))), turns, study.seed)
        mixed = np.concatenate([space(copies_made), control[len(copies_made) :]])
        row = {"generator": name, "selection": None, "extractor": space.name, "n_copies": len(copies_made)}
        near, other = train.nearest(mixed), new.nearest(mixed)
        rows.append(row | {"status": "ok", "reason": None} | compare(near, other, baseline, train.n))
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


def planted(images: np.ndarray, n: int, turns: int, seed: int) -> np.ndarray:
    """n copies, uint8 (n, 96, 96, 3), of different patches among `images`: turned, mirrored, a little darker or
    lighter.

    turns: as for `Indexed`, the orientations among which one is drawn for each copy. The factor of brightness is drawn
    from 1 ± JITTER. n is at most the number of patches.
    """
    rng = np.random.default_rng(training.derive(seed, "planted"))
    rows, which = rng.permutation(len(images))[:n], rng.integers(turns, size=n)
    factors = rng.uniform(1 - JITTER, 1 + JITTER, n)
    copies = [oriented(images[row][None], turn)[0] * factor for row, turn, factor in zip(rows, which, factors)]
    return np.clip(np.rint(np.reshape(copies, (n, *images.shape[1:]))), 0, 255).astype(np.uint8)


def compare(near: Nearest, other: Nearest, new_to_train: np.ndarray, n_train: int) -> dict[str, float | int]:
    """Both measures of this module, from distances.

    near, other
        For each sample, its nearest among the n_train training patches and its nearest new patch.
    new_to_train
        (n_new,) distance of each new patch to its nearest training patch.

    Returns shares from 0 to 1 (ties count half) with one-sided p values, the counts, and the least ratio of the two
    distances of a sample.
    """
    n_new = len(new_to_train)
    hits = (near.distance < other.distance) + (near.distance == other.distance) / 2
    # how many samples each real patch is the nearest one of: a few central patches may be nearest to many bland samples
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
    """P value of the number of samples nearest to a training patch, if the training patches were a random choice.

    train (n_train,), new (n_new,): how many samples each real patch is the nearest one of.
    """
    rng, pool = np.random.default_rng(0), np.concatenate([train, new])
    drawn = [rng.permutation(pool)[: len(train)].sum() for _ in range(PERMUTATIONS)]
    return (1 + int((np.array(drawn) >= train.sum()).sum())) / (1 + PERMUTATIONS)


def new_patches(study: Study) -> tuple[np.ndarray, str, int]:
    """Real patches that no generator of this subset has seen.

    Returns the patches uint8 (N, 96, 96, 3), a phrase that says where they are from, and how many copies were left out.
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
    """The PAIRS samples with the smallest ratio of the distances to their nearest training and nearest new patch."""
    ratio = _ratio(near, other)
    return [
        {"sample": int(i), "row": int(near.row[i]), "turn": int(near.turn[i]), "ratio": float(ratio[i])}
        for i in np.argsort(ratio, kind="stable")[:PAIRS]
    ]


def pair_images(study: Study, generator: str, pairs: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Samples and their nearest training patches in the matching orientation, each uint8 (P, 96, 96, 3).

    pairs: a generator's list in memorisation.json. StudyError if notebook 05 has not run for it.
    """
    made = selection.synthetic(study, generator, "none").images
    near = [oriented(study.real.images[pair["row"]][None], pair["turn"])[0] for pair in pairs]
    return made[[pair["sample"] for pair in pairs]], np.stack(near)
