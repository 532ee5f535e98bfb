"""Classifiers that need no learned network: colour, texture, random features; and shuffled labels, which must fail.

A measuring device that a colour histogram beats measures nothing. Each baseline is a logistic regression on fixed
features of the subset's real patches, its strength chosen on the validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import skimage.color
import skimage.feature

from pcamlib import metrics, training
from pcamlib.core.errors import StudyError
from pcamlib.data import Arrays
from pcamlib.experiments import features
from pcamlib.models import regression
from pcamlib.study import Study

BINS = 32
NEIGHBOURS = {1: 8, 2: 16, 3: 24}  # by radius in pixels, as in Ojala et al. 2002
SHUFFLES = 20
SHUFFLED = "shuffled-labels"
MARGIN = 0.05  # of the mean AUC with shuffled labels around one half; four standard errors if that is more


def colour(images: np.ndarray) -> np.ndarray:
    """Square roots of the histogram of each colour channel, float32 (N, 96): BINS equally wide bins, shares of pixels.

    images: uint8 (N, H, W, 3). Where a colour lies is not seen.
    """
    bins = (images // (256 // BINS)).reshape(len(images), -1, 3)
    counts = np.stack([[np.bincount(image[:, c], minlength=BINS) for c in range(3)] for image in bins])
    return np.sqrt(counts.reshape(len(images), -1) / bins.shape[1]).astype(np.float32)


def texture(images: np.ndarray) -> np.ndarray:
    """Square roots of the histograms of uniform local binary patterns, float32 (N, 54): shares of pixels.

    images: uint8 (N, H, W, 3), seen in grey. Rotation-invariant uniform patterns (Ojala et al. 2002) of 8, 16 and 24
    neighbours at 1, 2 and 3 pixels, by scikit-image.
    """
    rows = []
    for image in images:
        grey = np.round(255 * skimage.color.rgb2gray(image)).astype(np.uint8)
        found = []
        for radius, points in NEIGHBOURS.items():
            codes = skimage.feature.local_binary_pattern(grey, points, radius, method="uniform").astype(int)
            found.append(np.bincount(codes.ravel(), minlength=points + 2) / grey.size)
        rows.append(np.sqrt(np.concatenate(found)))
    return np.asarray(rows, np.float32)


def both(images: np.ndarray) -> np.ndarray:
    """Colour and texture, float32 (N, 150)."""
    return np.concatenate([colour(images), texture(images)], 1)


class Fitted(NamedTuple):
    """Scores P(tumour) by split, float64 (N,), and the strength that validation chose."""

    scores: dict[str, np.ndarray]
    strength: float


def run(study: Study, regime: str, splits: Mapping[str, Arrays]) -> Fitted:
    """Fit one baseline to the subset; `splits` are "valid" and "test" at 96 px."""
    settings = study.profile.classifier
    spaces: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "colour": colour,
        "texture": texture,
        "colour-texture": both,
    }
    if regime == "random-features":
        spaces[regime] = features.frozen(settings.architecture, "none", settings.image_size, "classifier", study.seed)
    seen = {name: spaces[regime](arrays.images) for name, arrays in (splits | {"train": study.real}).items()}
    scale = regression.standard(seen["train"])
    seen = {name: scale(x) for name, x in seen.items()}
    fitted = regression.choose((seen["train"], study.real.labels), (seen["valid"], splits["valid"].labels))
    return Fitted({name: fitted(seen[name]) for name in splits}, fitted.strength)


def shuffled(study: Study, splits: Mapping[str, Arrays], strength: float) -> list[dict[str, np.ndarray]]:
    """Scores by split of `SHUFFLES` regressions on colour and texture whose training labels were permuted.

    One shuffle's AUC may lie far from one half, because a random direction can be near the true one; the mean must not.
    Raises StudyError if the mean test AUC is further from one half than MARGIN and four standard errors: then labels
    reach the classifier by another way than its training set.
    """
    scale = regression.standard(train := both(study.real.images))
    seen, found = {name: scale(both(arrays.images)) for name, arrays in splits.items()}, []
    for i in range(SHUFFLES):
        rng = np.random.default_rng(training.derive(study.seed, SHUFFLED, i))
        fitted = regression.fit(scale(train), rng.permutation(study.real.labels), strength)
        found.append({name: fitted(x) for name, x in seen.items()})
    check([metrics.classification_metrics(splits["test"].labels, scores["test"])["auc"] for scores in found])
    return found


def check(aucs: list[float]) -> None:
    """StudyError unless the mean of the AUCs with shuffled labels is one half, up to chance."""
    off, error = abs(np.mean(aucs) - 0.5), np.std(aucs, ddof=1) / np.sqrt(len(aucs))
    if off > max(MARGIN, 4 * error):
        raise StudyError(
            f"classifiers trained on shuffled labels reach a mean test AUC of {100 * np.mean(aucs):.1f} instead of 50: "
            "labels leak from the test split into training; check the data set with `pcamlib data verify`."
        )
