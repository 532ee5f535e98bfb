"""What carries the label: what a classifier can learn from samples through colour, at half and at full size.

A sample can show its class in its colours and mislead in its fine structure. So a logistic regression is trained on the
samples of a generator, without selection, and tested on real patches, in three spaces: colour histograms, which see no
structure at all; frozen features of patches that were averaged down to 48 px and scaled up again; and the same features
at full size. How well real patches and samples are told apart (classifier two-sample test, Lopez-Paz and Oquab 2017)
says which size betrays the samples.

*Known labels* is a check of class-based selection (§3.3) with the truth at hand: it is asked to pass unseen real
patches once with their own label and once with the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pcamlib import metrics
from pcamlib.data import SIDE, Arrays
from pcamlib.experiments import baselines, features, selection
from pcamlib.experiments.features import Extractor
from pcamlib.models import autoencoder, regression
from pcamlib.results.frame import HALF
from pcamlib.study import Study

STRENGTHS = regression.STRENGTHS[::3]  # 1e-6 to 1
FOLDS = 5


def halved(images: np.ndarray) -> np.ndarray:
    """Patches uint8 (N, 96, 96, 3) averaged over squares of 2 x 2 pixels: the same size, without what is smaller."""
    step = SIDE // HALF
    mean = images.reshape(len(images), HALF, step, HALF, step, 3).mean((2, 4))
    return np.rint(mean).astype(np.uint8).repeat(step, 1).repeat(step, 2)


def evaluate(study: Study) -> dict[str, Any]:
    """Measure every generator without selection and write results/label-content.json; returns its content.

    Rows: "real" (the subset's patches, the reference), "autoencoder" (reconstructions of real patches outside the
    subset), and each generator. "colour", "half" and "full" are test AUCs of a regression that is trained on the row's
    images, its strength chosen on validation. "apart_half" and "apart_full" are two-sample AUCs of the row's images and
    the subset's real patches; for "real" they compare other real patches with these. A set that cannot be measured is
    "not run", with the reason. StudyError if notebook 02 or 05 has not run.
    """
    network = features.probed(study.profile.probe)
    spaces: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "colour": baselines.colour,
        "half": lambda images: network(halved(images)),
        "full": network,
    }
    splits = {name: study.split(name) for name in ("valid", "test")}
    seen = {name: {s: space(splits[s].images) for s in splits} for name, space in spaces.items()}
    real = {name: space(study.real.images) for name, space in spaces.items()}
    others = {name: spaces[name](study.other_real.images) for name in ("half", "full")} if len(study.others) else None
    decoder = autoencoder.load(study)
    rows = [_row("real", study.real.labels, real, seen, splits) | _apart(real, others, study.seed)]
    for generator in ("autoencoder", *study.profile.generator_names):
        images, reason = _images(study, generator, decoder)
        if images is None:
            rows.append({"generator": generator, "status": "not run", "reason": reason})
            continue
        found = {name: space(images.images) for name, space in spaces.items()}
        rows.append(_row(generator, images.labels, found, seen, splits) | _apart(real, found, study.seed))
    return study.write_result(
        "label-content",
        {"network": network.about, "half_px": HALF, "test_n": len(splits["test"].labels), "rows": rows},
    )


def _images(study: Study, generator: str, decoder: autoencoder.Autoencoder) -> tuple[Arrays | None, str | None]:
    """The images of one row, or None and the reason why there are none."""
    if generator != "autoencoder":
        return selection.synthetic(study, generator, "none"), selection.shortage(study, generator, "none")
    if not len(study.others):
        return None, "no real patches are left outside the subset"
    return Arrays(autoencoder.reconstruct(decoder, study.other_real.images), study.other_real.labels), None


def _row(
    generator: str,
    labels: np.ndarray,
    train: Mapping[str, np.ndarray],
    seen: Mapping[str, Mapping[str, np.ndarray]],
    splits: Mapping[str, Arrays],
) -> dict[str, Any]:
    """Test AUC by space of regressions on features (N, D) with labels (N,)."""
    found: dict[str, Any] = {"generator": generator, "status": "ok", "reason": None, "n": len(labels)}
    for name, x in train.items():
        scale = regression.standard(x)
        valid = scale(seen[name]["valid"]), splits["valid"].labels
        fitted = regression.choose((scale(x), labels), valid, strengths=STRENGTHS)
        scores = fitted(scale(seen[name]["test"]))
        found[name] = metrics.classification_metrics(splits["test"].labels, scores)["auc"]
    return found


def _apart(real: Mapping[str, np.ndarray], fake: Mapping[str, np.ndarray] | None, seed: int) -> dict[str, float | None]:
    """Two-sample AUC at half and full size; None without a second set, or with fewer images than folds."""
    return {
        f"apart_{name}": (
            None
            if fake is None or min(len(real[name]), len(fake[name])) < FOLDS
            else metrics.two_sample_auc(real=real[name], fake=fake[name], seed=seed, folds=FOLDS)
        )
        for name in ("half", "full")
    }


def known_labels(study: Study, gatekeeper: Extractor) -> dict[str, Any]:
    """What class-based selection passes of right and of wrong labels; writes results/known-labels.json, returns its
    content.

    Real patches that no generator and no gatekeeper has seen are scored against the real manifold of their own class
    ("right") and of the other one ("wrong"). Rows per class of the patch, and for both: the count, the shares that
    pass, the share that realism without labels passes ("realism"), and what share of labels would be right after
    selection if half of them were wrong before ("kept_right", None if nothing passes).
    """
    unseen, source, copies = _unseen(study)
    gates, found = selection.manifolds(study, gatekeeper), gatekeeper(unseen.images)
    passed = np.stack([gate.score(found) >= selection.THRESHOLD for gate in gates["class"]], 1)
    any_class = gates["realism"][0].score(found) >= selection.THRESHOLD
    labels = unseen.labels.astype(int)
    right, wrong = (passed[np.arange(len(labels)), which] for which in (labels, 1 - labels))
    rows = []
    for c, which in ((0, labels == 0), (1, labels == 1), (None, labels >= 0)):
        shares = [float(values[which].mean()) for values in (right, wrong, any_class)]
        row = {"class": c, "n": int(which.sum())} | dict(zip(("right", "wrong", "realism"), shares))
        rows.append(row | {"kept_right": shares[0] / sum(shares[:2]) if sum(shares[:2]) else None})
    about = {"extractor": gatekeeper.name, "extractor_about": gatekeeper.about, "k": study.profile.selection.k}
    return study.write_result("known-labels", about | {"unseen": source, "copies_left_out": copies, "rows": rows})


def _unseen(study: Study) -> tuple[Arrays, str, int]:
    """Patches outside the subset, of the train split or, if none are left, of validation; what they are; copies left
    out."""
    if len(study.others):
        found, source = study.other_real, "other rows of the train split"
    else:
        found, source = study.split("valid"), "the validation split, because no train rows are left"
    known = {image.tobytes() for image in study.real.images}
    keep = np.array([image.tobytes() not in known for image in found.images])
    return Arrays(found.images[keep], found.labels[keep]), source, int((~keep).sum())
