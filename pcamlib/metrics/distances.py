"""Image-set metrics on features, and a classifier's scores on labels.

Features are (N, D), NumPy arrays or tensors of any float dtype, on CPU or GPU, `real` and `fake` by keyword;
plain numbers and NumPy arrays come back. Conventions, which differ between published implementations: k = 3
unless told otherwise; a point is never its own neighbour (self excluded), but a duplicate of it is another
row (PCam has hundreds: radius 0); a sphere includes its surface (`<=`); no epsilon is added to distances.
Decisions are those of a float64 brute force (`pcamlib.metrics.neighbours` says how).

Every function raises ValueError, one sentence that names the argument, for NaN or infinite features, wrong
shapes or dtypes, sets of different D, and k outside 1 to N - 1.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcamlib.metrics.neighbours import Screen, exact_arithmetic, knn_radii, mean64

Features = np.ndarray | Tensor
_LIMIT = 1e100  # squares of squares of larger numbers overflow float64


def _features(features: Features, name: str) -> Tensor:
    if isinstance(features, Tensor):
        x = features.detach()
        known = x.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    else:
        array = np.asarray(features)
        known = array.dtype.kind == "f" and array.dtype.itemsize <= 8
        if known:
            array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
            x = torch.from_numpy(array if array.flags.writeable else array.copy())
    if not known:
        raise ValueError(f"{name}: features must be floating point of 16 to 64 bits, got {features.dtype}.")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name}: features must have shape (N, D), neither 0, got {tuple(x.shape)}.")
    low, high = (float(v) for v in torch.aminmax(x))
    if math.isnan(low + high) or max(-low, high) > _LIMIT:
        raise ValueError(f"{name}: features must be finite, without NaN, and at most {_LIMIT:g} in size.")
    return x


def _pair(real: Features, fake: Features) -> tuple[Tensor, Tensor]:
    real, fake = _features(real, "real"), _features(fake, "fake")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"fake: features have {fake.shape[1]} dimensions, but real has {real.shape[1]}.")
    return real, fake.to(real.device)


def _radii(x: Tensor, k: int, name: str) -> Tensor:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k < len(x):
        raise ValueError(f"k: must be an integer from 1 to {len(x) - 1}, one below the rows of {name}, got {k!r}.")
    return knn_radii(x, int(k))


def _known_radii(radii: Features, x: Tensor, name: str) -> Tensor:
    r = _features(np.reshape(radii, (1, -1)), name)[0].double().to(x.device)
    if r.shape != x.shape[:1] or bool((r < 0).any()):
        raise ValueError(f"{name}: must be {len(x)} distances, one per row of real.")
    return r


def radii(features: Features, k: int = 3) -> np.ndarray:
    """(N,) float64 distances from each row to its k-th nearest other row (self excluded; 0 among k + 1
    duplicates)."""
    return _radii(_features(features, "features"), k, "features").cpu().numpy()


class Manifold:
    """The k-NN spheres of a real set (k = 3, self excluded), computed once to score any number of batches of
    fakes.

    real: features (N, D). prune: keep only the spheres whose radius is at most the median radius, the variant
    of Kynkäänniemi et al. (2019, arXiv 1904.06991, section 5) and their code, which Eq. 11 of the study's
    paper does not have. radii: (N,) from `radii` on the same rows, if they are known already; k then has no
    effect.
    """

    def __init__(self, real: Features, k: int = 3, prune: bool = False, *, radii: Features | None = None) -> None:
        x = _features(real, "real")
        if radii is None:
            r = _radii(x, k, "real")
        else:
            r = _known_radii(radii, x, "radii")
        if prune:
            keep = r <= float(np.median(r.cpu().numpy()))
            x, r = x[keep], r[keep]
        self._screen = Screen(x, r)

    @property
    def radii(self) -> np.ndarray:
        """(N,) float64 radii of the spheres; with prune, of those kept."""
        return self._screen.radii.cpu().numpy()

    def score(self, fake: Features) -> np.ndarray:
        """(M,) float64 realism of fakes (M, D), see `realism`."""
        _, fake = _pair(self._screen.real[:1], fake)
        return self._screen.sweep(fake).score.cpu().numpy()


def realism(*, real: Features, fake: Features, k: int = 3, prune: bool = False) -> np.ndarray:
    """(M,) float64 realism, 0 to 1e12: the greatest k-NN radius / distance over the real points (Eq. 11).

    k = 3, self excluded. A fake lies in the real manifold (`<=`) if and only if its realism is at least 1:
    the distance is floored at 1e-12 of the radius, so an exact copy of a real point scores 1e12, and 0 / 0 (a
    copy of a real point of radius 0) is 1. prune: the reference code's variant, see `Manifold`.
    """
    real, fake = _pair(real, fake)
    return Manifold(real, k, prune).score(fake)


@dataclass(frozen=True)
class NeighbourMetrics:
    """Precision, recall and coverage, 0 to 1; density, at least 0 and above 1 in crowds; realism (M,)
    float64."""

    precision: float
    recall: float
    density: float
    coverage: float
    realism: np.ndarray
    k: int
    n_real: int
    n_fake: int

    @property
    def f1(self) -> float:
        return improved_f1(self.precision, self.recall)


def neighbour_metrics(
    *, real: Features, fake: Features, k: int = 3, real_radii: Features | None = None
) -> NeighbourMetrics:
    """All k-NN metrics (k = 3, `<=`, self excluded) in one pass over the real-fake distances, in bounded
    memory.

    Improved precision: share of fakes in the real spheres; improved recall: share of reals in the fake
    spheres (Kynkäänniemi et al. 2019). Density: mean number of real spheres around a fake, over k; coverage:
    share of real spheres that hold a fake (Naeem et al. 2020; their code compares with `<` and their k is 5).
    Realism: `realism`. real_radii: (N,) from `radii(real, k)`, if they are known already: a third of the work. Memory
    above the inputs: a float32 copy of each set and some 0.3 GB.
    """
    real, fake = _pair(real, fake)
    fake_radii = _radii(fake, k, "fake")
    r = _radii(real, k, "real") if real_radii is None else _known_radii(real_radii, real, "real_radii")
    found = Screen(real, r).sweep(fake, fake_radii, spheres=True)
    return NeighbourMetrics(
        precision=float((found.containing > 0).double().mean()),
        recall=float(found.recalled.double().mean()),
        density=float(found.containing.double().mean()) / k,
        coverage=float(found.covered.double().mean()),
        realism=found.score.cpu().numpy(),
        k=int(k),
        n_real=len(real),
        n_fake=len(fake),
    )


def precision_recall(*, real: Features, fake: Features, k: int = 3) -> tuple[float, float]:
    """(improved precision, improved recall), each 0 to 1; k = 3, `<=`, self excluded. See
    `neighbour_metrics`."""
    found = neighbour_metrics(real=real, fake=fake, k=k)
    return found.precision, found.recall


def density_coverage(*, real: Features, fake: Features, k: int = 3) -> tuple[float, float]:
    """(density, coverage); k = 3, `<=`, self excluded; `fake` may have any number of rows. See
    `neighbour_metrics`."""
    real, fake = _pair(real, fake)
    found = Screen(real, _radii(real, k, "real")).sweep(fake, spheres=True)
    return float(found.containing.double().mean()) / k, float(found.covered.double().mean())


def improved_f1(precision: float, recall: float) -> float:
    """Harmonic mean of improved precision and recall (Eq. 12), 0 where both are 0."""
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def nearest(*, real: Features, fake: Features) -> tuple[np.ndarray, np.ndarray]:
    """((M,) float64 distances, (M,) int64 rows) of the nearest real point of each fake; of equals, the first.

    A set against itself finds each row at distance 0; `radii(features, k=1)` leaves self out.
    """
    real, fake = _pair(real, fake)
    found = Screen(real, None).sweep(fake)
    return found.score.cpu().numpy(), found.index.cpu().numpy()


def frechet_distance(*, real: Features, fake: Features) -> float:
    """Fréchet distance of Gaussians fitted to the sets (Eq. 13), at least 0:
    ``|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))``.

    Means and unbiased covariances in float64. With factors S = A'A and S' = B'B the trace of the root is the
    sum of the singular values of A B', so no matrix root is taken and no imaginary part dropped. A set with N
    <= D is its own factor (the Gram side). UserWarning, with n and d, if a set has no more samples than
    dimensions: the value is finite, but biased upwards and comparable at equal n only. Each set needs 2 rows.
    """
    real, fake = _pair(real, fake)
    d = real.shape[1]
    for x, name in ((real, "real"), (fake, "fake")):
        if len(x) < 2:
            raise ValueError(f"{name}: a covariance needs at least 2 rows, got {len(x)}.")
        if len(x) <= d:
            text = f"{name}: n = {len(x)} samples for d = {d} dimensions bias the Fréchet distance upwards."
            warnings.warn(text, stacklevel=2)
    with exact_arithmetic(real.device):
        mean_a, factor_a, trace_a, regular_a = _gaussian(real)
        mean_b, factor_b, trace_b, regular_b = _gaussian(fake)
        product = factor_a @ factor_b.T
        if regular_a and regular_b:
            overlap = float(torch.linalg.eigvalsh(product @ product.T).clamp(min=0).sqrt().sum())
        else:  # slower, but the root of a rounding error, where an eigenvalue is 0, would be no small number
            overlap = float(torch.linalg.svdvals(product).sum())
        distance = float((mean_a - mean_b).square().sum()) + trace_a + trace_b - 2 * overlap
    return max(0.0, distance)


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor, float, bool]:
    """Mean (D,), a factor A (R, D) of the covariance A'A, its trace, and whether it is regular, in
    float64."""
    n, d = x.shape
    mean = mean64(x)
    if n <= d:
        factor = (x.double() - mean) / (n - 1) ** 0.5
        return mean, factor, float(factor.square().sum()), False
    covariance = torch.zeros(d, d, dtype=torch.float64, device=x.device)
    for chunk in x.split(4096):
        centred = chunk.double() - mean
        for start in range(0, d, 256):  # on and right of the diagonal only: it is symmetric
            part = slice(start, start + 256)
            covariance[part, start:].addmm_(centred[:, part].T, centred[:, start:])
    covariance = covariance.triu_() + covariance.triu(1).T
    covariance /= n - 1
    trace = float(covariance.trace())
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return mean, lower.T, trace, True
    values, vectors = torch.linalg.eigh(covariance)  # singular, as with a feature that never changes
    return mean, values.clamp(min=0).sqrt()[:, None] * vectors.T, trace, False


def kernel_distance(
    *, real: Features, fake: Features, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """(KID, its standard error): mean over random subsets of the unbiased squared MMD with kernel (x.y / D +
    1)^3.

    Bińkowski et al. 2018 (arXiv 1801.01401), in float64; may be slightly negative. Subsets are drawn without
    replacement from each set by `numpy.random.default_rng(seed)`. The standard error is sd / sqrt(subsets):
    how well the mean over subsets is known, not how much it would change with other images. ValueError if a
    set has fewer than subset_size rows, or subsets < 2.
    """
    real, fake = _pair(real, fake)
    smaller = min(len(real), len(fake))
    if subsets < 2:
        raise ValueError(f"subsets: a standard error needs at least 2, got {subsets}.")
    if not 2 <= subset_size <= smaller:
        raise ValueError(f"subset_size: must be from 2 to {smaller}, the smaller set, got {subset_size}.")
    rng = np.random.default_rng(seed)
    values = np.empty(subsets)
    with exact_arithmetic(real.device):
        for row in range(subsets):
            picks = [torch.from_numpy(rng.choice(len(x), subset_size, replace=False)) for x in (real, fake)]
            x, y = (x[pick.to(x.device)].double() for x, pick in zip((real, fake), picks, strict=True))
            values[row] = _mmd(x, y)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(subsets))


def _mmd(x: Tensor, y: Tensor) -> float:
    m, d = x.shape
    xx, yy, xy = ((a @ b.T / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = xx.sum() - xx.trace() + yy.sum() - yy.trace()
    return float(within / (m * (m - 1)) - 2 * xy.mean())


def classification_metrics(
    labels: np.ndarray | Tensor,
    probabilities: np.ndarray | Tensor,
    threshold: float = 0.5,
    *,
    logits: np.ndarray | Tensor | None = None,
) -> dict[str, float]:
    """Accuracy, AUC, sensitivity and specificity, each 0 to 1, of a binary classifier; label 1 = tumour.

    labels: (N,) of 0 and 1; probabilities: (N,) of class 1, 0 to 1. A patch is called tumour if and only if
    its probability is at least the threshold (torchmetrics' own thresholding would ask for more than it); the
    AUC has no threshold. logits: (N,) finite, what the probabilities are the sigmoid of, if at hand: the AUC then
    ranks by them. Probabilities tie at 1 from logits of 17 on in float32, of 37 on in float64, and logits do not.
    ValueError if a class is absent, for then the AUC is not defined.
    """
    from torchmetrics.functional import classification  # seconds, and most that import this module do without

    y, p = (torch.as_tensor(v).detach().cpu() for v in (labels, probabilities))
    if y.ndim != 1 or y.shape != p.shape or not len(y):
        raise ValueError(
            f"probabilities: must have the shape (N,) of labels, got {tuple(p.shape)} and {tuple(y.shape)}."
        )
    if not bool(((y == 0) | (y == 1)).all()):
        raise ValueError("labels: must be 0 (normal) or 1 (tumour).")
    y, p = y.long(), p.double()
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError("probabilities: must lie between 0 and 1, without NaN.")
    score = p if logits is None else torch.as_tensor(logits).detach().cpu().double()
    if score.shape != y.shape or not bool(score.isfinite().all()):
        raise ValueError(f"logits: must be finite and have the shape (N,) of labels, got {tuple(score.shape)}.")
    if int(y.sum()) in (0, len(y)):
        raise ValueError(f"labels: class {1 - int(y[0])} is absent, so the AUC is not defined.")
    called = (p >= threshold).long()
    # torchmetrics puts whatever lies outside 0 to 1 through a sigmoid: ranks order and tie as the scores do
    rank = score.unique(return_inverse=True)[1].double()
    return {
        "accuracy": float(classification.binary_accuracy(called, y)),
        "auc": float(classification.binary_auroc(rank / rank.max().clamp(min=1), y)),
        "sensitivity": float(classification.binary_recall(called, y)),
        "specificity": float(classification.binary_specificity(called, y)),
    }
