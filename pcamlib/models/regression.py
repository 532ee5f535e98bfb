"""Logistic regression on fixed features: its strength chosen on validation, its prior centred at zero or elsewhere.

With features x, labels y in {-1, 1}, weights w, intercept b and strength C it minimises scikit-learn's objective

    C Σ log(1 + exp(-y (w·x + b))) + ½ ‖w - w₀‖²

where w₀ is zero, or the weights of an earlier regression whose solution is the better guess: what fine-tuning is to a
network, the prior is to a regression. The intercept is not penalised.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from pcamlib import metrics
from pcamlib.core.errors import StudyError

STRENGTHS = tuple(float(f"{value:.0e}") for value in np.logspace(-6, 1, 15))  # two a decade: 1e-6, 3e-6, 1e-5, ...
ITERATIONS = 5000
PATIENCE = 4  # strengths in a row that may be worse on validation than the best: two decades


class Regression(NamedTuple):
    """A fitted logistic regression: weights float64 (D,), intercept, and the strength C it was fitted with."""

    weights: np.ndarray
    intercept: float
    strength: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """P(tumour), float64 (N,), for features (N, D)."""
        return expit(features @ self.weights + self.intercept)

    def loss(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Mean of -log P(label) over features (N, D) and labels (N,) of 0 and 1."""
        margin = (2.0 * labels - 1) * (features @ self.weights + self.intercept)
        return float(np.logaddexp(0, -margin).mean())


def fit(features: np.ndarray, labels: np.ndarray, strength: float, prior: Regression | None = None) -> Regression:
    """Minimise the objective above for features (N, D) and labels (N,) of 0 and 1; deterministic.

    With a prior, L-BFGS runs over the difference to its weights, from its solution. StudyError if a class is absent.
    """
    if len(np.unique(labels)) < 2:
        raise StudyError(f"all {len(labels)} patches are of one class: a classifier needs both.")
    if prior is None:
        model = LogisticRegression(C=strength, max_iter=ITERATIONS, solver="lbfgs").fit(features, labels)
        return Regression(model.coef_[0].astype(np.float64), float(model.intercept_[0]), strength)
    x, sign = features.astype(np.float64), 2.0 * labels - 1
    offset = x @ prior.weights + prior.intercept

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (offset + x @ values[:-1] + values[-1])
        slope = -strength * sign * expit(-margin)
        value = strength * np.logaddexp(0, -margin).sum() + 0.5 * values[:-1] @ values[:-1]
        return value, np.append(x.T @ slope + values[:-1], slope.sum())

    options = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "gtol": 1e-6, "ftol": 1e-12}
    found = minimize(objective, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options=options).x
    return Regression(prior.weights + found[:-1], prior.intercept + float(found[-1]), strength)


def choose(
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    prior: Regression | None = None,
    strengths: tuple[float, ...] = STRENGTHS,
) -> Regression:
    """The regression whose strength gives the highest AUC on validation; of equal ones the most regularised.

    train, valid: features (N, D) and labels (N,). Strengths are tried in rising order until PATIENCE in a row were no
    better: the largest take the most iterations and only overfit.
    """
    best, best_auc, worse = None, -1.0, 0
    for strength in sorted(strengths):
        fitted = fit(*train, strength, prior)
        auc = metrics.classification_metrics(valid[1], fitted(valid[0]))["auc"]
        if auc > best_auc:
            best, best_auc, worse = fitted, auc, 0
        elif (worse := worse + 1) == PATIENCE:
            break
    assert best is not None
    return best


class Standard(NamedTuple):
    """Mean and standard deviation (D,) of a set of features; calling it scales others by them."""

    mean: np.ndarray
    std: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) / self.std


def standard(features: np.ndarray) -> Standard:
    """The scale of features (N, D); a column that never changes is only centred."""
    std = features.std(0)
    return Standard(features.mean(0), np.where(std > 0, std, 1).astype(features.dtype))
