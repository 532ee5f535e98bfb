"""FID, KID and classification scores by their definitions, and every metric against published
implementations."""

from __future__ import annotations

import warnings

import numpy as np
import prdc
import pytest
import scipy.linalg
import sklearn.metrics
import torch
from torch_fidelity import metric_prc

from pcamlib import metrics
from pcamlib.metrics import agreement


def correlated(n: int, m: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) / d**0.5
    return rng.normal(size=(n, d)) @ mix, rng.normal(size=(m, d)) @ (mix + 0.1) + 0.2


def by_definition(real, fake) -> float:
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(a)
    root = scipy.linalg.sqrtm(root @ b @ root).real
    return float(((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root))


def test_fid_agrees_with_the_definition_torchmetrics_and_torch_fidelity():
    real, fake = correlated(400, 350, 48)
    found = metrics.frechet_distance(real=real, fake=fake)
    assert found == pytest.approx(by_definition(real, fake), rel=1e-9)
    assert found == pytest.approx(agreement.fidelity_fid(real, fake)["FID"], rel=1e-9)
    assert found == pytest.approx(agreement.torchmetrics_fid(real, fake)["FID"], rel=1e-9)
    assert found == pytest.approx(metrics.frechet_distance(real=fake, fake=real), rel=1e-12)


def test_fid_of_one_dimension_is_the_closed_form():
    a, b = np.random.default_rng(0).normal(size=(2, 500, 1)) * [[[1.0]], [[3.0]]] + [[[0.0]], [[5.0]]]
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert metrics.frechet_distance(real=a, fake=b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 300), (300, 20), (48, 49)])
def test_fid_with_fewer_samples_than_dimensions_warns_and_is_right(n, m):
    real, fake = correlated(n, m, 48)
    with pytest.warns(UserWarning, match=r"n = (20|30|48) samples for d = 48 dimensions"):
        found = metrics.frechet_distance(real=real, fake=fake)
    assert found == pytest.approx(agreement.fidelity_fid(real, fake)["FID"], rel=1e-5)  # it takes roots of noise


def test_fid_of_enough_samples_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.frechet_distance(real=correlated(60, 60, 48)[0], fake=correlated(60, 60, 48)[1])


@pytest.mark.filterwarnings("ignore:.*dimensions bias")
@pytest.mark.parametrize("n", [20, 200])
def test_fid_of_a_set_and_itself_is_zero_and_never_negative(n):
    real, _ = correlated(n, 5, 48)
    for x in (real, real[::-1], real[:, :1].repeat(48, 1), np.zeros_like(real)):
        found = metrics.frechet_distance(real=x, fake=x.copy())
        assert 0 <= found <= 1e-6 * np.trace(np.cov(real, rowvar=False))


def test_fid_of_equal_fakes_and_of_features_that_never_change():
    real, fake = correlated(400, 350, 30)
    point = np.repeat(fake[:1], 350, 0)
    expected = ((real.mean(0) - fake[0]) ** 2).sum() + real.var(0, ddof=1).sum()
    assert metrics.frechet_distance(real=real, fake=point) == pytest.approx(expected, rel=1e-6)
    plain = metrics.frechet_distance(real=real, fake=fake)
    padded = [np.concatenate([np.full((len(x), 3), 7.0), x, x[:, :1] * 0], 1) for x in (real, fake)]
    assert metrics.frechet_distance(real=padded[0], fake=padded[1]) == pytest.approx(plain, rel=1e-6)


def test_fid_survives_a_large_common_offset_in_float32():
    real, fake = (np.float32(x + 1e4) for x in correlated(400, 350, 30))
    small = [x.astype(np.float64) - 1e4 for x in (real, fake)]
    found = metrics.frechet_distance(real=real, fake=fake)
    assert found == pytest.approx(metrics.frechet_distance(real=small[0], fake=small[1]), rel=1e-9)


def test_fid_needs_two_rows():
    with pytest.raises(ValueError, match="^fake: a covariance needs at least 2 rows, got 1"):
        metrics.frechet_distance(real=np.zeros((5, 2)), fake=np.zeros((1, 2)))


def loops(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD, one pair at a time."""
    m, d = x.shape
    kernel = lambda a, b: (float(a @ b) / d + 1) ** 3  # noqa: E731
    within = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(m) for j in range(m) if i != j)
    across = sum(kernel(a, b) for a in x for b in y)
    return within / (m * (m - 1)) - 2 * across / m**2


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception")
def test_kid_agrees_with_the_definition_torchmetrics_and_torch_fidelity():
    real, fake = correlated(40, 40, 10)
    found, error = metrics.kernel_distance(real=real, fake=fake, subsets=2, subset_size=40)
    assert found == pytest.approx(loops(real, fake), rel=1e-10)
    assert error == pytest.approx(0, abs=1e-12)  # every subset is the whole
    assert found == pytest.approx(agreement.torchmetrics_kid(real, fake)["KID"], rel=1e-6)
    assert found == pytest.approx(agreement.fidelity_kid(real, fake)["KID"], rel=1e-9)


def test_kid_subsets_seed_and_standard_error():
    real, fake = correlated(500, 400, 10)
    call = lambda **k: metrics.kernel_distance(real=real, fake=fake, subset_size=100, **k)  # noqa: E731
    assert call() == call(seed=0) != call(seed=1)
    many, few = call(subsets=400, seed=2), call(subsets=25, seed=3)
    assert few[1] / many[1] == pytest.approx(4, rel=0.5)
    assert abs(few[0] - many[0]) < 5 * few[1]
    assert many[0] == pytest.approx(loops(real[:400], fake), abs=5 * few[1])
    same = metrics.kernel_distance(real=real[:250], fake=real[250:], subsets=50, subset_size=200)
    assert abs(same[0]) < many[0] / 10


def test_kid_arguments():
    real, fake = correlated(50, 40, 5)
    for size in (1, 41):
        with pytest.raises(ValueError, match="^subset_size: must be from 2 to 40"):
            metrics.kernel_distance(real=real, fake=fake, subset_size=size)
    with pytest.raises(ValueError, match="^subsets: "):
        metrics.kernel_distance(real=real, fake=fake, subset_size=5, subsets=1)


@pytest.mark.parametrize("d", [4, 16, 128])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbours_agree_with_prdc_and_torch_fidelity(d, k, capsys):
    real, fake = correlated(300, 260, d, seed=d)
    found = metrics.neighbour_metrics(real=real, fake=fake, k=k)
    other = prdc.compute_prdc(real, fake, k)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(other[name], abs=1e-12)
    options = {"prc_neighborhood": k, "prc_batch_size": 100, "save_cpu_ram": False, "verbose": False}
    third = metric_prc.prc_features_to_metric(*(torch.from_numpy(x) for x in (fake, real)), **options)
    assert (found.precision, found.recall) == pytest.approx((third["precision"], third["recall"]), abs=1e-6)
    assert found.f1 == pytest.approx(third["f_score"], abs=1e-5)
    assert 0 < found.precision and 0 < found.recall  # else the comparison would say little


def test_a_point_on_the_surface_is_inside_for_us_and_outside_for_prdc(capsys):
    real = np.array([[-1.0], [0], [1], [2], [3]])
    fake = np.array([[6.0], [6], [6], [6], [6]])  # 3 away from the last real point, whose radius is 3
    assert metrics.precision_recall(real=real, fake=fake)[0] == 1
    assert metrics.density_coverage(real=real, fake=fake) == (1 / 3, 1 / 5)
    assert prdc.compute_prdc(real, fake, 3)["precision"] == 0


def test_classification_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    probabilities = np.round(np.clip(rng.normal(0.3 + 0.3 * labels, 0.3), 0, 1), 2)  # many ties
    for threshold in (0.5, 0.31):
        found = metrics.classification_metrics(labels, probabilities, threshold)
        called = probabilities >= threshold
        assert (probabilities == threshold).any()
        assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, called), abs=1e-6)
        assert found["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, probabilities), abs=1e-6)
        assert found["sensitivity"] == pytest.approx(sklearn.metrics.recall_score(labels, called), abs=1e-6)
        negative = sklearn.metrics.recall_score(labels, called, pos_label=0)
        assert found["specificity"] == pytest.approx(negative, abs=1e-6)


def test_classification_by_hand():
    labels, probabilities = torch.tensor([1, 1, 1, 0, 0]), torch.tensor([0.5, 0.9, 0.2, 0.1, 0.7])
    found = metrics.classification_metrics(labels, probabilities)
    expected = {"accuracy": 3 / 5, "auc": 4 / 6, "sensitivity": 2 / 3, "specificity": 1 / 2}
    assert found == pytest.approx(expected, abs=1e-6)
    assert metrics.classification_metrics([0, 1], [0.0, 1.0])["accuracy"] == 1


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([1, 1], [0.5, 0.5], "labels: class 0 is absent"),
        ([0, 0], [0.5, 0.5], "labels: class 1 is absent"),
        ([0, 2], [0.5, 0.5], "labels: must be 0"),
        ([0, 1], [0.5, 1.5], "probabilities: must lie"),
        ([0, 1], [0.5, np.nan], "probabilities: must lie"),
        ([0, 1], [0.5], "probabilities: must have the shape"),
        ([], [], "probabilities: must have the shape"),
    ],
)
def test_classification_arguments(labels, probabilities, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        metrics.classification_metrics(np.array(labels), np.array(probabilities))


@pytest.mark.slow
def test_the_page_of_checks_finds_agreement_on_easy_features_and_says_where_there_is_none():
    page = agreement.page()
    plain, copies = (page[page.index(f"## {name}") :].split("## ")[1] for name in ("Plain", "Every real patch twice"))
    for metric in ("precision", "recall", "density", "coverage", "FID", "KID"):
        values = [float(cell) for cell in _cells(plain, metric)[1:] if cell != "–"]
        assert len(values) >= 2 and max(values) < 1e-5, metric
    brute, prdc_, *_ = _cells(copies, "density")[1:]
    assert float(brute) == 0 and float(prdc_) > 0.1  # its `<` does not see the copies


def _cells(table: str, name: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
    return line.strip("| ").split(" | ")[1:]


@pytest.mark.parametrize("case", agreement.cases())
def test_hard_cases_agree_with_the_definitions(case):
    real, fake = agreement.cases()[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = agreement.ours(real, fake)
    for name, value in (agreement.brute_force(real, fake) | agreement.brute_force_kid(real, fake)).items():
        assert found[name] == pytest.approx(value, rel=1e-6 if name == "KID" else 1e-12), name
