"""FID for infinitely many images, Vendi score and the two-sample AUC: by hand, at their limits, and on known truth."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from pcamlib import metrics


def gaussians(seed: int, n: int, d: int = 16, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def test_frechet_infinity_takes_the_bias_away():
    real, found, plain = gaussians(0, 20_000), [], []
    for seed in range(1, 9):
        fake = gaussians(seed, 400, shift=0.25)
        found.append(metrics.frechet_infinity(real=real, fake=fake, seed=0).value)
        plain.append(metrics.frechet_distance(real=real, fake=fake))
    truth = 16 * 0.25**2  # equal covariances: the squared distance of the means, 1.0
    assert np.mean(plain) > truth + 0.15, "the bias of 400 samples"
    assert np.mean(found) == pytest.approx(truth, abs=0.08)


def test_frechet_infinity_is_the_line_through_its_points():
    real, fake = gaussians(0, 500, 4), gaussians(1, 120, 4)
    found = metrics.frechet_infinity(real=real, fake=fake, sizes=6, seed=3)
    assert len(found.counts) == 6 and found.counts[0] == 60 and found.counts[-1] == 120
    assert found.distances[-1] == pytest.approx(metrics.frechet_distance(real=real, fake=fake))
    assert np.diff(1 / np.array(found.counts)) == pytest.approx(np.full(5, -1 / 600), rel=0.15)
    x = np.column_stack([np.ones(6), 1 / np.array(found.counts)])
    coefficients, squares, *_ = np.linalg.lstsq(x, np.array(found.distances))
    assert found.value == pytest.approx(coefficients[0])
    assert found.error == pytest.approx(np.sqrt(squares[0] / 4 * np.linalg.inv(x.T @ x)[0, 0]))
    assert found == metrics.frechet_infinity(real=torch.from_numpy(real), fake=torch.from_numpy(fake), sizes=6, seed=3)
    assert found.value != metrics.frechet_infinity(real=real, fake=fake, sizes=6, seed=4).value


def test_frechet_infinity_warns_once_of_few_samples():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        metrics.frechet_infinity(real=gaussians(0, 100), fake=gaussians(1, 30), seed=0)
    assert [str(w.message) for w in said] == [
        "fake: 15 samples, half of them, for d = 16 dimensions bend the line; FID∞ is an indication only."
    ]


def test_vendi_score_at_its_limits_and_by_hand():
    assert metrics.vendi_score(fake=np.ones((9, 4))) == pytest.approx(1)
    assert metrics.vendi_score(fake=np.eye(5)) == pytest.approx(5)
    assert metrics.vendi_score(fake=np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(3), "copies add nothing"
    assert metrics.vendi_score(fake=np.diag([1.0, 5.0, 1e-3])) == pytest.approx(3), "length does not count"
    angle = np.array([[1.0, 0.0], [0.6, 0.8]])  # eigenvalues of K / 2 are (1 ± 0.6) / 2
    assert metrics.vendi_score(fake=angle) == pytest.approx(np.exp(-0.8 * np.log(0.8) - 0.2 * np.log(0.2)))


@pytest.mark.parametrize("n, d", [(40, 7), (7, 40)])
def test_vendi_score_is_the_same_from_either_kernel(n, d):
    x = gaussians(5, n, d, 0.3).astype(np.float32)
    unit = x / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / n).clip(0)
    assert metrics.vendi_score(fake=x) == pytest.approx(np.exp(scipy_stats.entropy(eigenvalues)), rel=1e-6)


def test_two_sample_auc_of_the_same_and_of_shifted_sets():
    real = gaussians(0, 400, 8)
    assert metrics.two_sample_auc(real=real, fake=gaussians(1, 300, 8), seed=0) == pytest.approx(0.5, abs=0.06)
    assert metrics.two_sample_auc(real=real, fake=gaussians(1, 300, 8, 5.0), seed=0) == 1
    fake = gaussians(2, 400, 8)
    fake[:, 0] += 1  # the best classifier's AUC is the normal distribution's at 1 / sqrt(2)
    found = metrics.two_sample_auc(real=real, fake=fake, seed=0)
    assert found == pytest.approx(scipy_stats.norm.cdf(2**-0.5), abs=0.04)
    assert found == metrics.two_sample_auc(real=real, fake=fake, seed=0)
    scale = 10.0 ** np.arange(8)
    assert metrics.two_sample_auc(real=real * scale, fake=fake * scale, seed=0) == pytest.approx(found, abs=1e-3)


def test_two_sample_auc_does_not_reward_copies():
    real = gaussians(0, 200, 4)
    assert metrics.two_sample_auc(real=real, fake=real, seed=0) < 0.5


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: metrics.frechet_infinity(real=gaussians(0, 9), fake=gaussians(0, 15), seed=0),
            "fake: .* 20 rows, got 15",
        ),
        (
            lambda: metrics.frechet_infinity(real=gaussians(0, 9), fake=gaussians(0, 99), sizes=2, seed=0),
            "sizes: .* at least 3",
        ),
        (lambda: metrics.frechet_infinity(real=gaussians(0, 9, 3), fake=gaussians(0, 99), seed=0), "dimensions"),
        (lambda: metrics.vendi_score(fake=np.zeros((3, 2))), "zeros has no direction"),
        (lambda: metrics.vendi_score(fake=np.full((3, 2), np.nan)), "without NaN"),
        (lambda: metrics.two_sample_auc(real=gaussians(0, 9), fake=gaussians(0, 4), seed=0), "fake: 5 folds .* got 4"),
        (
            lambda: metrics.two_sample_auc(real=gaussians(0, 9), fake=gaussians(0, 9), seed=0, folds=1),
            "folds: .* at least 2",
        ),
        (lambda: metrics.two_sample_auc(real=gaussians(0, 9), fake=gaussians(0, 9), seed=1.5), "seed: .* whole"),
    ],
)
def test_bad_input_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()
