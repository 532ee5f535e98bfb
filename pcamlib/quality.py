"""Table 1 for one subset: 3 generators x 3 selections and the two calibration rows, in every judging space (§4.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pcamlib import autoencoder, features, metrics, selection
from pcamlib.data import Arrays
from pcamlib.study import GENERATORS, SELECTIONS, Study

LEAST_SHARE = 0.5  # a set with less than half of what was asked for is "not run": at its count no row would mean much


def evaluate(study: Study) -> dict[str, Any]:
    """Compute and write results/quality.json: FID, precision, recall, F1 per set and extractor; and label_auc.

    label_auc is the AUC of the judge, a classifier of real patches, for the class each image was asked to show: does
    the label steer the sample? It does not depend on the extractor.

    Every set, and the real reference (the subset's own patches), is cut to one common count per class, the smallest
    among the sets that are run, because all these metrics depend on sample size.
    """
    k = study.profile.quality.k
    sets: dict[tuple[str, str | None], Arrays] = {}
    reasons: dict[tuple[str, str | None], str] = {}
    for g in GENERATORS:
        for s in SELECTIONS:
            images, counts = selection.synthetic(study, g, s)
            if images is None or min(np.divide(counts["kept"], counts["requested"])) < LEAST_SHARE:
                reasons[g, s] = f"kept {sum(counts['kept'])} of {sum(counts['requested'])} at the candidate cap"
            else:
                sets[g, s] = images
    if len(study.others):
        sets["real", None] = study.other_real
    else:
        reasons["real", None] = "no real patches are left outside the subset"
    reconstructed = autoencoder.reconstruct(autoencoder.load(study), study.real.images)
    sets["autoencoder", None] = Arrays(reconstructed, study.real.labels)
    common = np.min([np.bincount(a.labels, minlength=2) for a in sets.values()], axis=0)

    rows = []
    weights = study.profile.quality.inception
    judge = features.judge(study)
    extractors = [features.inception(weights) if weights else judge.extractor, features.random_vgg16()]
    for extractor in extractors:
        real = extractor(first_per_class(study.real, common).images)
        for key in [(g, s) for s in SELECTIONS for g in GENERATORS] + [("real", None), ("autoencoder", None)]:
            row: dict[str, Any] = {"generator": key[0], "selection": key[1], "extractor": extractor.name, "k": k}
            if key in reasons:
                rows.append(row | {"status": "not run", "reason": reasons[key]})
                continue
            shown = first_per_class(sets[key], common)
            fake = extractor(shown.images)
            near = metrics.neighbour_metrics(real=real, fake=fake, k=k)
            rows.append(
                row
                | {"status": "ok", "reason": None, "n_real": len(real), "n_fake": len(fake)}
                | {"fid": metrics.frechet_distance(real=real, fake=fake)}
                | {"precision": near.precision, "recall": near.recall, "f1": near.f1}
                | {"label_auc": metrics.classification_metrics(shown.labels, judge.verdict(shown.images))["auc"]}
            )
    return study.write_result(
        "quality",
        {"judge": {e.name: e.about for e in extractors}, "reference": "the subset's own real patches", "rows": rows},
        extractor=[e.name for e in extractors],
    )


def first_per_class(arrays: Arrays, counts: np.ndarray) -> Arrays:
    """The first counts[c] patches of each class."""
    rows = np.concatenate([np.flatnonzero(arrays.labels == c)[: counts[c]] for c in (0, 1)])
    return Arrays(arrays.images[rows], arrays.labels[rows])
