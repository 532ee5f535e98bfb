"""Table 1 for one subset: every generator and selection and two calibration rows, in every feature space (§4.3)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pcamlib import data, metrics
from pcamlib.data import Arrays
from pcamlib.experiments import features, selection
from pcamlib.experiments.selection import LEAST_SHARE
from pcamlib.models import autoencoder
from pcamlib.study import SELECTIONS, Study

FEW = "fewer images than dimensions"  # half of them must be more: a line in 1 / N is bent below that
KID_SIZE = 1000  # Bińkowski et al. 2018; halves of smaller sets, since subsets that are the whole set have no spread


def evaluate(study: Study) -> dict[str, Any]:
    """Compute the quality of every synthetic set and write results/quality.json; returns its content.

    Rows hold FID, KID, precision, recall, F1, density and coverage per set and extractor, and label_auc: the AUC of the
    judge, a classifier of real patches, for the class that each image was asked to show. It measures whether the label
    steers the sample and does not depend on the extractor. "fid_0" and "fid_1" are the distances within a class,
    "fid_held_out" that to validation patches, "fid_infinity" the extrapolation to infinitely many images and "vendi"
    the Vendi score. The distance to validation patches and the extrapolation are None where there are too few images,
    the Vendi score where an image has features of zero only.

    The reconstructions are those of real patches outside the subset, the ones of the row of real patches. So no row is
    compared with its own originals, and the step from that row to this one is the autoencoder's loss.

    All these metrics depend on sample size. So every set, and the real reference (the subset's own patches), is cut to
    one common count per class, the smallest among the sets that are evaluated. A set with less than half of the real
    count is "not run". Raises StudyError if notebook 02 or 05 has not run.
    """
    k = study.profile.quality.k
    # loaded one at a time: a set of the paper's size is 0.7 GB
    sets: dict[tuple[str, str | None], Callable[[], Arrays]] = {}
    sizes = [np.bincount(study.real.labels, minlength=2)]
    reasons: dict[tuple[str, str | None], str] = {}
    generators = study.profile.generator_names
    for g in generators:
        for s in SELECTIONS:
            # a filtered folder is nearly always short, and would cut every other set to its count
            least = 1.0 if s != "none" and selection.made_elsewhere(study, g) else LEAST_SHARE
            if reason := selection.shortage(study, g, s, least):
                reasons[g, s] = reason
            else:
                sets[g, s] = partial(data.load, study.synthetic(g, s), "train")
                sizes.append(np.array(selection.counts(study, g, s)["kept"]))
    other = np.bincount(data.labels(study.data_root, "train")[study.others], minlength=2)
    if not len(study.others):
        reasons["real", None] = "no real patches are left outside the subset"
    elif min(other / sizes[0]) < LEAST_SHARE:
        reasons["real", None] = f"only {other.tolist()} real patches per class are left outside the subset"
    else:
        sets["real", None] = lambda: study.other_real
        sizes.append(other)
    decoder = autoencoder.load(study)

    def rebuilt(patches: Arrays) -> Arrays:
        return Arrays(autoencoder.reconstruct(decoder, patches.images), patches.labels)

    if ("real", None) in reasons:
        reasons["autoencoder", None] = reasons["real", None]
    else:
        sets["autoencoder", None] = lambda: rebuilt(first_per_class(study.other_real, common))
    common = np.min(sizes, axis=0)

    judge = features.judge(study)
    extractors = features.judges(study, judge)
    real = {e.name: e(first_per_class(study.real, common).images) for e in extractors}
    radii = {name: metrics.radii(x, k) for name, x in real.items()}
    held = first_per_class(study.split("valid"), common).images
    held_out = {e.name: e(held) if len(held) == common.sum() else None for e in extractors}
    rows = []
    for key in [(g, s) for s in SELECTIONS for g in generators] + [("real", None), ("autoencoder", None)]:
        blank: dict[str, Any] = {"generator": key[0], "selection": key[1], "k": k}
        if key in reasons:
            rows += [blank | {"extractor": e.name, "status": "not run", "reason": reasons[key]} for e in extractors]
            continue
        shown = first_per_class(sets[key](), common)
        label_auc = metrics.classification_metrics(shown.labels, judge.predict(shown.images))["auc"]
        for e in extractors:
            row = blank | {"extractor": e.name, "status": "ok", "reason": None, "label_auc": label_auc}
            fake = e(shown.images)
            rows.append(row | _compare(real[e.name], radii[e.name], fake, k))
            rows[-1] |= _further(real[e.name], held_out[e.name], fake, common[0], study.seed)
    rows.sort(key=lambda row: [e.name for e in extractors].index(row["extractor"]))
    return study.write_result(
        "quality",
        {
            "judge": {e.name: e.about for e in extractors},
            "reference": "the subset's own real patches",
            "held_out": "the validation split",
            "common_count": common.tolist(),
            "rows": rows,
        },
        extractor=[e.name for e in extractors],
    )


def _compare(real: np.ndarray, radii: np.ndarray, fake: np.ndarray, k: int) -> dict[str, Any]:
    """All metrics of one row, from features (N, D) and (M, D); `radii` (N,) are those of `real`."""
    near = metrics.neighbour_metrics(real=real, fake=fake, k=k, real_radii=radii)
    return {
        "n_real": len(real),
        "n_fake": len(fake),
        "dims": real.shape[1],
        **distances(real, fake),
        "precision": near.precision,
        "recall": near.recall,
        "f1": near.f1,
        "density": near.density,
        "coverage": near.coverage,
    }


def _further(real: np.ndarray, held_out: np.ndarray | None, fake: np.ndarray, first: int, seed: int) -> dict[str, Any]:
    """What is in none of the paper's columns, from features (N, D) of sets in which class 0 has the first `first` rows.

    held_out: other real patches, or None if there are too few.
    """
    found: dict[str, Any] = {"fid_infinity": None, "fid_infinity_reason": None}
    directed = bool(fake.any(1).all())  # the cosine with a row of zeros is not defined; a white patch can have one
    found |= {"vendi": metrics.vendi_score(fake=fake) if directed else None}
    if len(fake) // 2 > fake.shape[1]:
        found["fid_infinity"] = metrics.frechet_infinity(real=real, fake=fake, seed=seed).value
    else:
        found["fid_infinity_reason"] = FEW
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer images than dimensions
        for c, rows in enumerate((slice(first), slice(first, None))):
            found[f"fid_{c}"] = metrics.frechet_distance(real=real[rows], fake=fake[rows])
        found["fid_held_out"] = None if held_out is None else metrics.frechet_distance(real=held_out, fake=fake)
    return found


def distances(real: np.ndarray, fake: np.ndarray) -> dict[str, Any]:
    """Fréchet distance, KID, KID's standard error and its subset size, for features (N, D) and (M, D).

    Fewer images than dimensions bias the Fréchet distance upwards; counts are reported beside every value.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer images than dimensions
        fid = metrics.frechet_distance(real=real, fake=fake)
    size = min(KID_SIZE, min(len(real), len(fake)) // 2)
    kid, kid_se = metrics.kernel_distance(real=real, fake=fake, subset_size=size)
    return {"fid": fid, "kid": kid, "kid_se": kid_se, "kid_size": size}


def first_per_class(arrays: Arrays, counts: np.ndarray) -> Arrays:
    """The first counts[c] patches of each class c, class 0 first; all there are if there are fewer."""
    rows = np.concatenate([np.flatnonzero(arrays.labels == c)[: counts[c]] for c in (0, 1)])
    return Arrays(arrays.images[rows], arrays.labels[rows])
