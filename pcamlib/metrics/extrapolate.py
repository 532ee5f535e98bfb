"""Measures of image sets: FID for infinitely many images, diversity, and how well two sets are told apart.

Features are as in `pcamlib.metrics.distances`: (N, D), NumPy arrays or tensors of any float dtype, and the same
ValueError for bad ones.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats as scipy_stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pcamlib.metrics.distances import Features, _features, _pair, frechet_distance
from pcamlib.metrics.neighbours import exact_arithmetic


class Extrapolated(NamedTuple):
    """An intercept, its standard error, and the line's points: numbers of fakes and their Fréchet distances."""

    value: float
    error: float
    counts: tuple[int, ...]
    distances: tuple[float, ...]


def _whole(value: int, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def frechet_infinity(*, real: Features, fake: Features, sizes: int = 5, seed: int) -> Extrapolated:
    """FID∞, the Fréchet distance for infinitely many fakes: the intercept of a line in 1 / N over several sizes N.

    Chong and Forsyth 2020 (arXiv 1911.07023): the bias of FID falls with 1 / N at a rate that differs between
    generators. As there, all reals are kept and only fakes are drawn (without replacement, by
    `numpy.random.default_rng(seed)`), so the bias that the reals' number brings stays: compare at equal reals.
    `sizes`, at least 3, are spaced evenly in 1 / N, from half the fakes to all of them: where N is not far above D
    the line is straight only near its end. The value may be slightly negative. The standard error is that of the
    line's intercept. The draws overlap, so it says how well the line fits, and is less than how much other fakes
    would change it. ValueError with fewer than 4 x `sizes` fakes, or 16. UserWarning if half the fakes are no more
    than D: then the line is bent and the value an indication.
    """
    real, fake = _pair(real, fake)
    sizes, n, d = _whole(sizes, "sizes", 3), len(fake), fake.shape[1]
    if n < max(16, 4 * sizes):
        raise ValueError(f"fake: a line through {sizes} sizes needs at least {max(16, 4 * sizes)} rows, got {n}.")
    if n // 2 <= d:
        text = (
            f"fake: {n // 2} samples, half of them, for d = {d} dimensions bend the line; FID∞ is an indication only."
        )
        warnings.warn(text, stacklevel=2)
    rng = np.random.default_rng(seed)
    counts = np.round(1 / np.linspace(2 / n, 1 / n, sizes)).astype(int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fake: n = ")  # said above, once
        found = [
            frechet_distance(
                real=real, fake=fake[torch.from_numpy(np.sort(rng.permutation(n)[:count])).to(fake.device)]
            )
            for count in counts
        ]
    line = scipy_stats.linregress(1 / counts, found)
    points = tuple(int(count) for count in counts), tuple(found)
    return Extrapolated(float(line.intercept), float(line.intercept_stderr), *points)


def vendi_score(*, fake: Features) -> float:
    """Vendi score of a set, 1 (all alike) to min(N, D): the number of different images that would be as diverse.

    The exponential of the entropy of the eigenvalues of K / N, where K holds the cosines between rows (Friedman and
    Dieng 2023, arXiv 2210.02410, definition 3.1). K / N and X'X / N, of rows X of length 1, share their eigenvalues
    above 0, so the smaller of the two is decomposed, in float64. It grows with N: compare sets of equal size.
    ValueError for a row of zeros, which has no direction.
    """
    x = _features(fake, "fake").double()
    with exact_arithmetic(x.device):
        norms = x.norm(dim=1, keepdim=True)
        if not bool((norms > 0).all()):
            raise ValueError("fake: a row of zeros has no direction, so its cosines are not defined.")
        x = x / norms
        kernel = (x @ x.T if len(x) <= x.shape[1] else x.T @ x) / len(x)
        values = torch.linalg.eigvalsh(kernel).clamp(min=0)
    values = values / values.sum()
    return float(torch.special.entr(values).sum().exp())


def two_sample_auc(*, real: Features, fake: Features, seed: int, folds: int = 5) -> float:
    """How well real and fake are told apart: the cross-validated AUC of a classifier, 0.5 (not at all) to 1 (always).

    Classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv 1610.06545), by AUC in place of accuracy: it needs
    no threshold, and no equal numbers. Logistic regression with scikit-learn's default penalty (C = 1) on features
    that are standardised within each training fold. Folds are stratified and shuffled by `seed`; the AUC is that of
    each fold's held-out rows, averaged over folds. By chance it can be a little below 0.5. A linear classifier sees
    only what the features make linear, so 0.5 is no proof of equality. A duplicate of a row in both sets counts
    against it. ValueError if a set has fewer rows than `folds`, which are at least 2.
    """
    real, fake = _pair(real, fake)
    folds, seed = _whole(folds, "folds", 2), _whole(seed, "seed", 0)
    if min(len(real), len(fake)) < folds:
        name = "real" if len(real) < len(fake) else "fake"
        raise ValueError(f"{name}: {folds} folds need at least {folds} rows, got {min(len(real), len(fake))}.")
    x = torch.cat([real.double(), fake.double()]).cpu().numpy()
    y = np.repeat([0, 1], [len(real), len(fake)])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y))
    scores = cross_val_predict(model, x, y, cv=splits, method="decision_function")
    return float(np.mean([roc_auc_score(y[held], scores[held]) for _, held in splits]))
