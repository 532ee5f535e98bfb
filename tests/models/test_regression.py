"""Logistic regression: scikit-learn's without a prior, the exact minimum with one, strength by validation."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import make_classification

from pcamlib.core.errors import StudyError
from pcamlib.models import regression


@pytest.fixture
def problem():
    x, y = make_classification(300, 12, n_informative=6, flip_y=0.1, random_state=3)
    return x[:200].astype(np.float32), y[:200], x[200:].astype(np.float32), y[200:]


def loss(values, x, y, strength, centre):
    w, b = values[:-1], values[-1]
    return strength * np.logaddexp(0, -(2 * y - 1) * (x @ w + b)).sum() + 0.5 * ((w - centre) ** 2).sum()


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10])
def test_with_a_prior_it_is_the_minimum_of_the_stated_objective(problem, strength):
    x, y, _, _ = problem
    prior = regression.Regression(np.linspace(-1, 1, 12), 0.3, 1.0)
    found = regression.fit(x, y, strength, prior)
    direct = minimize(
        loss, np.zeros(13), (x.astype(float), y, strength, prior.weights), method="Powell",
        options={"xtol": 1e-9, "ftol": 1e-14, "maxiter": 100_000, "maxfev": 1_000_000},
    )  # fmt: skip
    ours = loss(np.append(found.weights, found.intercept), x.astype(float), y, strength, prior.weights)
    assert ours <= direct.fun + 1e-8 * abs(direct.fun)
    np.testing.assert_allclose(np.append(found.weights, found.intercept), direct.x, atol=2e-4)


def test_a_prior_at_zero_is_no_prior(problem):
    x, y, _, _ = problem
    plain = regression.fit(x, y, 0.5)
    centred = regression.fit(x, y, 0.5, regression.Regression(np.zeros(12), 0.0, 1.0))
    np.testing.assert_allclose(plain.weights, centred.weights, atol=1e-3)
    np.testing.assert_allclose(plain(x), centred(x), atol=1e-3)


def test_a_weak_strength_stays_at_the_prior_and_a_strong_one_leaves_it(problem):
    x, y, _, _ = problem
    prior = regression.Regression(np.linspace(-1, 1, 12), 0.0, 1.0)
    near, far = (np.abs(regression.fit(x, y, c, prior).weights - prior.weights).max() for c in (1e-8, 1e2))
    assert near < 1e-4 < 0.1 < far


def test_strength_is_chosen_on_validation_and_again_the_same(problem):
    x, y, valid_x, valid_y = problem
    chosen = regression.choose((x, y), (valid_x, valid_y))
    from sklearn.metrics import roc_auc_score

    aucs = {c: roc_auc_score(valid_y, regression.fit(x, y, c)(valid_x)) for c in regression.STRENGTHS}
    assert aucs[chosen.strength] == max(aucs.values())
    assert chosen.strength == min(c for c in aucs if aucs[c] == max(aucs.values()))
    np.testing.assert_array_equal(chosen.weights, regression.choose((x, y), (valid_x, valid_y)).weights)


def test_one_class_is_refused_and_a_constant_column_is_no_division_by_zero(problem):
    with pytest.raises(StudyError, match="one class"):
        regression.fit(problem[0], np.zeros(200, int), 1.0)
    x = np.concatenate([problem[0], np.ones((200, 1), np.float32)], 1)
    scaled = regression.standard(x)(x)
    assert np.isfinite(scaled).all() and np.abs(scaled[:, :-1].std(0) - 1).max() < 1e-4 and scaled.dtype == np.float32
