"""Metrics against a float64 brute force, and the conventions they promise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pcamlib import metrics
from pcamlib.metrics import neighbours
from pcamlib.metrics.agreement import brute_force, exact_distances, exact_radii


def brute(real: np.ndarray, fake: np.ndarray, k: int) -> dict:
    """Every metric from whole float64 distance matrices, straight from the definitions."""
    r, d = exact_radii(real, k), exact_distances(fake, real)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((d == 0) & (r[None] == 0), 1.0, np.minimum(r[None] / d, 1e12))
    return brute_force(real, fake, k) | {
        "radii": r,
        "realism": ratio.max(1),
        "inside": (d <= r[None]).any(1),
        "nearest": d.min(1),
        "nearest_index": d.argmin(1),
    }


def check(real: np.ndarray, fake: np.ndarray, k: int = 3) -> None:
    expected, found = brute(real, fake, k), metrics.neighbour_metrics(real=real, fake=fake, k=k)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=1e-12), name
    np.testing.assert_allclose(found.realism, expected["realism"], rtol=1e-13)
    np.testing.assert_array_equal(found.realism >= 1, expected["inside"])
    np.testing.assert_allclose(metrics.radii(real, k), expected["radii"], rtol=1e-13)
    distance, index = metrics.nearest(real=real, fake=fake)
    np.testing.assert_allclose(distance, expected["nearest"], rtol=1e-13)
    np.testing.assert_array_equal(index, expected["nearest_index"])


def normal(n: int, m: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 1.1 + 0.1


def hard_case(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    a, b = normal(90, 70, 12)
    if name == "ties":
        a, b = rng.integers(0, 3, (90, 6)).astype(float), rng.integers(0, 3, (70, 6)).astype(float)
    elif name == "duplicates of radius 0":
        a[:40], b[:30] = a[0], a[0]
        b[30:33] = a[50:53]
    elif name == "exact copies":
        b = a[rng.permutation(90)[:70]]
    elif name == "copies of the third neighbour":
        order = exact_distances(a, a).argsort(1)
        b = a[order[:70, 3]]
    elif name == "all fakes equal":
        b[:] = a[5]
    elif name == "all reals equal":
        a[:] = b[5]
    elif name == "offset":
        a, b = a * 1e-3 + 1e4, b * 1e-3 + 1e4
        b[:5] = a[:5]
    elif name == "huge offset":
        a, b = a * 1e-4 + 1e8, b * 1e-4 + 1e8
    elif name == "two tight clusters":  # inside a cluster float32 cannot tell distances apart
        a, b = a * 1e-5, b * 1e-5
        a[::2] += 1
        b[::2] += 1
    elif name == "fakes far outside":
        b *= 1e30
    elif name == "one fake far outside":
        b[3] *= 1e25
    elif name == "tiny":
        a, b = a * 1e-40, b * 1e-40
    elif name == "large":
        a, b = a * 1e40, b * 1e40
    elif name == "radii of many sizes":
        a, b = a * 10.0 ** rng.integers(-8, 8, (90, 1)), b * 10.0 ** rng.integers(-8, 8, (70, 1))
    elif name == "fewer rows than dimensions":
        a, b = normal(20, 15, 300)
    elif name == "one dimension":
        a, b = normal(90, 70, 1)
    elif name == "smallest sets":
        a, b = normal(4, 4, 3)
    return a, b


CASES = [
    "plain", "ties", "duplicates of radius 0", "exact copies", "copies of the third neighbour",
    "all fakes equal", "all reals equal", "offset", "huge offset", "two tight clusters", "fakes far outside",
    "one fake far outside", "tiny", "large", "radii of many sizes", "fewer rows than dimensions",
    "one dimension", "smallest sets",
]  # fmt: skip


@pytest.mark.parametrize("strip", [None, 700])
@pytest.mark.parametrize("case", CASES)
def test_equals_brute_force(case, strip, monkeypatch):
    if strip:  # many strips, and hits in many parts
        monkeypatch.setattr(neighbours, "_STRIP", strip)
        monkeypatch.setattr(neighbours, "_HITS", 300)
    check(*hard_case(case))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_equals_brute_force_for_every_dtype_and_k(dtype, k):
    real, fake = (x.astype(dtype) for x in normal(150, 130, 40))
    check(real, fake, k)


grid = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=60, deadline=None)
@given(grid, st.integers(4, 40), st.integers(4, 40), st.integers(1, 4), st.integers(1, 4))
def test_equals_brute_force_on_grids(rng, n, m, d, levels):
    """Grids are all ties and duplicates, and their float64 sums are exact."""
    check(*(rng.integers(0, levels + 1, (rows, d)).astype(float) for rows in (n, m)))


values = st.floats(-100, 100, width=32) | st.sampled_from([0.0, -0.0, 1.0, 1 + 2**-20])


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (9, 3), elements=values), arrays(np.float32, (8, 3), elements=values))
def test_inside_if_and_only_if_realism_is_at_least_one(real, fake):
    d = exact_distances(fake, real)
    inside = (d <= exact_radii(real, 3)[None]).any(1)  # not torch's: its root may differ in the last bit
    scores = metrics.realism(real=real, fake=fake)
    np.testing.assert_array_equal(scores >= 1, inside)
    assert np.isfinite(scores).all() and (scores >= 0).all()
    assert metrics.precision_recall(real=real, fake=fake)[0] == inside.mean()


@settings(max_examples=25, deadline=None)
@given(grid, st.integers(0, 2**16))
def test_row_order_and_batches_change_nothing(rng, seed):
    real, fake = hard_case(CASES[seed % len(CASES)])
    whole = metrics.neighbour_metrics(real=real, fake=fake)
    p, q = rng.permutation(len(real)), rng.permutation(len(fake))
    shuffled = metrics.neighbour_metrics(real=real[p], fake=fake[q])
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(shuffled, name) == getattr(whole, name)
    np.testing.assert_array_equal(shuffled.realism, whole.realism[q])
    manifold = metrics.Manifold(real)
    parts = [manifold.score(part) for part in np.array_split(fake, rng.integers(1, len(fake) + 1))]
    np.testing.assert_array_equal(np.concatenate(parts), whole.realism)
    streamed = metrics.Manifold(real, radii=metrics.radii(real)).score(fake)
    np.testing.assert_array_equal(streamed, whole.realism)


@pytest.mark.parametrize("case", CASES)
def test_swapping_the_sets_swaps_precision_and_recall(case):
    real, fake = hard_case(case)
    forth, back = (metrics.precision_recall(real=a, fake=b) for a, b in ((real, fake), (fake, real)))
    assert forth == back[::-1]


def test_strip_size_changes_no_bit(monkeypatch):
    real, fake = (x.astype(np.float32) for x in normal(300, 250, 64))
    whole = metrics.neighbour_metrics(real=real, fake=fake)
    for strip, hits in ((1, 1), (5000, 777), (1 << 22, 1 << 20)):
        monkeypatch.setattr(neighbours, "_STRIP", strip)
        monkeypatch.setattr(neighbours, "_HITS", hits)
        again = metrics.neighbour_metrics(real=real, fake=fake)
        np.testing.assert_array_equal(again.realism, whole.realism)
        for name in ("precision", "recall", "density", "coverage"):
            assert getattr(again, name) == getattr(whole, name)


def test_collapse_has_high_precision_and_low_recall():
    real, _ = normal(400, 4, 8)
    rng = np.random.default_rng(2)
    collapsed = real[0] * 0.5 + rng.normal(size=(400, 8)) * 1e-3
    precision, recall = metrics.precision_recall(real=real, fake=collapsed)
    assert precision == 1 and recall <= 0.01
    assert metrics.density_coverage(real=real, fake=collapsed)[1] < 0.1


def test_same_distribution_scores_high_and_a_shifted_one_zero():
    real, fake = np.random.default_rng(3).normal(size=(2, 500, 4))
    same = metrics.neighbour_metrics(real=real, fake=fake)
    assert min(same.precision, same.recall, same.coverage, same.f1) > 0.8 and 0.8 < same.density < 1.2
    shifted = metrics.neighbour_metrics(real=real, fake=fake + 50)
    assert shifted.precision == shifted.recall == shifted.density == shifted.coverage == shifted.f1 == 0


def test_realism_of_copies():
    real = np.array([[0.0], [0], [0], [0], [1], [2], [4]])
    assert metrics.radii(real).tolist() == [0, 0, 0, 0, 1, 2, 4]
    scores = metrics.realism(real=real, fake=np.array([[0.0], [1.0], [1e-9], [9.0]]))
    assert scores.tolist() == [1, 1e12, 1 / (1 - 1e-9), 0.8]
    lone = np.zeros((5, 2))
    assert metrics.realism(real=lone, fake=np.array([[0.0, 0], [0, 1e-300], [1, 1]])).tolist() == [1, 1, 0]


def test_pruning_drops_radii_above_the_median():
    real, fake = normal(61, 50, 6)
    real[0] = 9
    radii = metrics.radii(real)
    keep = radii <= np.median(radii)
    expected = (radii[keep] / exact_distances(fake, real[keep])).max(1)
    np.testing.assert_allclose(metrics.realism(real=real, fake=fake, prune=True), expected, rtol=1e-13)
    assert keep.sum() == 31 and len(metrics.Manifold(real, prune=True).radii) == 31
    assert metrics.realism(real=real, fake=real[:1])[0] == 1e12
    assert metrics.realism(real=real, fake=real[:1], prune=True)[0] < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_bounds_are_bounds(case, dtype):
    a, b = (torch.from_numpy(x) for x in hard_case(case))
    centre = neighbours.mean64(a)
    frame = neighbours._Frame(centre, min(neighbours._Frame.around(centre, x).exponent for x in (a, b)))
    one, other = (neighbours._Operand(x, frame, dtype) for x in (a, b))
    low = (one.left() @ other.rows.T).double()
    exact = torch.from_numpy(exact_distances(a.numpy(), b.numpy()) * frame.scale).square()
    assert bool((low <= exact * (1 + 1e-15)).all())
    assert bool((exact <= (low + one.slack[:, None] + other.slack) * (1 + 1e-15)).all())


def test_tight_clusters_need_the_second_look(monkeypatch):
    """The case above would be worthless if float32 candidates settled it."""
    seen = []
    original = neighbours._open_pairs
    monkeypatch.setattr(neighbours, "_open_pairs", lambda *a: seen.append(len(a[1])) or original(*a))
    check(*hard_case("two tight clusters"))
    assert sum(seen) > 100


def test_reduced_precision_settings_have_no_effect():
    real, fake = (torch.from_numpy(x).float() for x in normal(200, 200, 64))
    expected = metrics.neighbour_metrics(real=real, fake=fake)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with neighbours.exact_arithmetic(torch.device("cpu")):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        with torch.autocast("cpu", torch.bfloat16):
            found = metrics.neighbour_metrics(real=real.requires_grad_(), fake=fake)
            distance = metrics.frechet_distance(real=real, fake=fake)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found.realism, expected.realism)
    assert distance == metrics.frechet_distance(real=real, fake=fake)


def test_kinds_of_input_agree():
    real, fake = (x.astype(np.float32) for x in normal(80, 70, 6))
    expected = metrics.realism(real=real, fake=fake)
    frozen, wide = real.copy(), np.zeros((80, 12), np.float32)
    frozen.flags.writeable = False
    wide[:, ::2] = real
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backwards = real[::-1].copy()[::-1]
        for kind in (torch.from_numpy(real), frozen, wide[:, ::2], backwards, real.astype(">f4")):
            np.testing.assert_array_equal(metrics.realism(real=kind, fake=fake), expected)
    half = metrics.realism(real=torch.from_numpy(real).bfloat16(), fake=torch.from_numpy(fake).bfloat16())
    rounded = (torch.from_numpy(x).bfloat16().double().numpy() for x in (real, fake))
    np.testing.assert_array_equal(half, metrics.realism(**dict(zip(("real", "fake"), rounded, strict=True))))


GOOD = np.random.default_rng(0).normal(size=(10, 3))
BAD = {
    "NaN": np.where(np.arange(30).reshape(10, 3) == 7, np.nan, GOOD),
    "infinite": np.where(np.arange(30).reshape(10, 3) == 7, -np.inf, GOOD),
    "too large": GOOD * 1e101,
    "three axes": GOOD[None],
    "one axis": GOOD[0],
    "no rows": GOOD[:0],
    "no columns": GOOD[:, :0],
    "integers": np.ones((10, 3), np.int64),
    "integer tensor": torch.ones(10, 3, dtype=torch.int32),
    "other dimensions": GOOD[:, :2],
}
CALLS = [
    metrics.frechet_distance, metrics.kernel_distance, metrics.precision_recall, metrics.realism,
    metrics.density_coverage, metrics.neighbour_metrics, metrics.nearest,
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", BAD)
def test_bad_features(call, bad):
    with pytest.raises(ValueError, match=r"^fake: features .*\.$"):
        call(real=GOOD, fake=BAD[bad])
    with pytest.raises(ValueError, match=r"^(real|fake): features .*\.$"):
        call(real=BAD[bad], fake=GOOD)


@pytest.mark.parametrize("k", [0, -1, 10, 2.0, True])
def test_bad_k(k):
    with pytest.raises(ValueError, match=r"^k: must be an integer from 1 to (9|19), .* of (real|fake)"):
        metrics.precision_recall(real=GOOD, fake=np.concatenate([GOOD, GOOD]), k=k)
    with pytest.raises(ValueError, match=r"^k: .* of fake"):
        metrics.precision_recall(real=np.concatenate([GOOD, GOOD]), fake=GOOD, k=k)
    for call in (metrics.realism, metrics.density_coverage):
        with pytest.raises(ValueError, match="^k: .* of real"):
            call(real=GOOD, fake=GOOD, k=k)


def test_bad_radii():
    for bad in (np.ones(9), -np.ones(10), np.full(10, np.nan)):
        with pytest.raises(ValueError, match="^radii: "):
            metrics.Manifold(GOOD, radii=bad)


def test_f1():
    assert metrics.improved_f1(0, 0) == 0
    assert metrics.improved_f1(0.5, 0) == 0
    assert metrics.improved_f1(0.4370, 0.0631) == pytest.approx(0.1103, abs=1e-4)
    assert metrics.improved_f1(1, 1) == 1
