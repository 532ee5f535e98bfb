"""Classifiers that need no learned network: colour, texture, random features; and shuffled labels, which must fail.

A measuring device that a colour histogram beats measures nothing. Each baseline is a logistic regression on fixed
features of the subset's real patches, its strength chosen on the validation split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import skimage.color
import skimage.feature

from pcamlib import metrics, training
from pcamlib.core.errors import StudyError
from pcamlib.data import Arrays
from pcamlib.experiments import features
from pcamlib.models import regression
from pcamlib.results.arms import SHUFFLED
from pcamlib.study import Study

BINS = 32
NEIGHBOURS = {1: 8, 2: 16, 3: 24}  # by radius in pixels, as in Ojala et al. 2002
SHUFFLES = 20
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


class Fitted(NamedTuple):
    """Scores P(tumour) by split, float64 (N,), the strength, and the mean log loss on the training patches."""

    scores: dict[str, np.ndarray]
    strength: float
    loss: float


class Baselines:
    """The baselines of one subset; `splits` are "valid" and "test" at 96 px. Features are computed when first
    needed."""

    def __init__(self, study: Study, splits: Mapping[str, Arrays]):
        self.study, self.splits = study, splits
        self.spaces: dict[str, dict[str, np.ndarray]] = {}

    def seen(self, regime: str) -> dict[str, np.ndarray]:
        """Features (N, D) of "train", "valid" and "test", scaled by mean and standard deviation of "train"."""
        if regime not in self.spaces:
            if regime == "colour-texture":
                parts = [self.seen("colour"), self.seen("texture")]
                self.spaces[regime] = {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}
            else:
                space = {"colour": colour, "texture": texture, "random-features": self._random}[regime]
                found = {n: space(arrays.images) for n, arrays in {"train": self.study.real, **self.splits}.items()}
                scale = regression.standard(found["train"])
                self.spaces[regime] = {name: scale(x) for name, x in found.items()}
        return self.spaces[regime]

    def _random(self, images: np.ndarray) -> np.ndarray:
        c = self.study.profile.classifier
        return features.frozen(c.architecture, "none", c.image_size, "classifier", self.study.seed)(images)

    def fit(self, regime: str) -> Fitted:
        """One baseline, fitted to the subset."""
        seen, valid = self.seen(regime), self.splits["valid"].labels
        fitted = regression.choose((seen["train"], self.study.real.labels), (seen["valid"], valid))
        return self._fitted(fitted, seen, self.study.real.labels)

    def _fitted(self, fitted: regression.Regression, seen: dict[str, np.ndarray], labels: np.ndarray) -> Fitted:
        scores = {name: fitted(seen[name]) for name in self.splits}
        return Fitted(scores, fitted.strength, fitted.loss(seen["train"], labels))

    def shuffled(self, strength: float) -> list[Fitted]:
        """SHUFFLES regressions on colour and texture whose training labels were permuted.

        One shuffle's AUC may lie far from one half, because a random direction can be near the true one; the mean must
        not. Raises StudyError if the mean test AUC is further from one half than MARGIN and four standard errors: then
        labels reach the classifier by another way than its training set.
        """
        seen, found = self.seen("colour-texture"), []
        for i in range(SHUFFLES):
            rng = np.random.default_rng(training.derive(self.study.seed, SHUFFLED, i))
            labels = rng.permutation(self.study.real.labels)
            found.append(self._fitted(regression.fit(seen["train"], labels, strength), seen, labels))
        test = self.splits["test"].labels
        check([metrics.classification_metrics(test, fitted.scores["test"])["auc"] for fitted in found])
        return found


def check(aucs: list[float]) -> None:
    """StudyError unless the mean of the AUCs with shuffled labels is one half, up to chance."""
    off, error = abs(np.mean(aucs) - 0.5), np.std(aucs, ddof=1) / np.sqrt(len(aucs))
    if off > max(MARGIN, 4 * error):
        raise StudyError(
            f"classifiers trained on shuffled labels reach a mean test AUC of {100 * np.mean(aucs):.1f} instead of 50: "
            "labels leak from the test split into training; check the data set with `pcamlib data verify`."
        )
