"""Our metrics beside published implementations, on features made to be easy and to be hard: the book's page of checks.

Every adapter takes real and fake features, float arrays (N, D) and (M, D), and returns plain numbers by metric name.
They import their library when called: prdc comes with the extras `book`, `test` and `bench` only.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable

import numpy as np
import torch

from pcamlib.metrics import distances

K = 3
Values = dict[str, float]


def ours(real: np.ndarray, fake: np.ndarray) -> Values:
    """This library: precision, recall, density, coverage, FID, and KID on one subset that is the whole smaller set."""
    near = distances.neighbour_metrics(real=real, fake=fake, k=K)
    size = min(len(real), len(fake))
    return {
        "precision": near.precision,
        "recall": near.recall,
        "density": near.density,
        "coverage": near.coverage,
        "FID": distances.frechet_distance(real=real, fake=fake),
        "KID": distances.kernel_distance(real=real[:size], fake=fake[:size], subsets=2, subset_size=size)[0],
    }


def exact_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (N, M): the distance of each row of `x` (N, D) to each row of `y` (M, D)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.stack([np.sqrt(((row - y) ** 2).sum(1)) for row in x])


def exact_radii(x: np.ndarray, k: int = K) -> np.ndarray:
    """float64 (N,): the distance of each row of `x` (N, D) to its k-th nearest other row."""
    own = exact_distances(x, x)
    np.fill_diagonal(own, np.inf)
    return np.sort(own, axis=1)[:, k - 1]


def brute_force(real: np.ndarray, fake: np.ndarray, k: int = K) -> Values:
    """The definitions of the neighbour metrics written out, on whole distance matrices."""
    between, r, s = exact_distances(fake, real), exact_radii(real, k), exact_radii(fake, k)
    inside = between <= r[None]
    return {
        "precision": float(inside.any(1).mean()),
        "recall": float((between <= s[:, None]).any(0).mean()),
        "density": float(inside.sum(1).mean() / k),
        "coverage": float(inside.any(0).mean()),
    }


def brute_force_kid(real: np.ndarray, fake: np.ndarray) -> Values:
    """The definition of KID written out, on whole kernels in extended precision."""

    def kernel_mean(x: np.ndarray, y: np.ndarray, same: bool) -> np.longdouble:
        kernel = (x @ y.T / x.shape[1] + 1) ** 3
        return (kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)) if same else kernel.mean()

    size = min(len(real), len(fake))
    x, y = (z[:size].astype(np.longdouble) for z in (real, fake))  # cubes of squares need the digits
    return {"KID": float(kernel_mean(x, x, True) + kernel_mean(y, y, True) - 2 * kernel_mean(x, y, False))}


def prdc(real: np.ndarray, fake: np.ndarray) -> Values:
    """Naeem et al.'s code: `<` where ours has `<=`, distances by scikit-learn."""
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return {key: float(value) for key, value in compute_prdc(real, fake, K).items()}


def fidelity_prc(real: np.ndarray, fake: np.ndarray) -> Values:
    """torch-fidelity's precision and recall (`<=`, distances by `torch.cdist`)."""
    from torch_fidelity import metric_prc

    options = {"prc_neighborhood": K, "prc_batch_size": 10000, "save_cpu_ram": True, "verbose": False}
    found = metric_prc.prc_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), **options)
    return {"precision": float(found["precision"]), "recall": float(found["recall"])}


def fidelity_fid(real: np.ndarray, fake: np.ndarray) -> Values:
    """torch-fidelity's FID (matrix root by SciPy)."""
    from torch_fidelity import metric_fid

    one, other = (metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (fake, real))
    return {"FID": float(metric_fid.fid_statistics_to_metric(one, other, False)["frechet_inception_distance"])}


def fidelity_kid(real: np.ndarray, fake: np.ndarray) -> Values:
    """torch-fidelity's KID on one subset that is the whole smaller set."""
    from torch_fidelity import metric_kid

    size = min(len(real), len(fake))
    sets = (torch.from_numpy(x[:size]) for x in (fake, real))
    found = metric_kid.kid_features_to_metric(*sets, kid_subsets=2, kid_subset_size=size, verbose=False)
    return {"KID": float(found["kernel_inception_distance_mean"])}


class _Identity(torch.nn.Module):
    """torchmetrics takes an extractor: this one gives it the features themselves."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.num_features = d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _torchmetrics(metric: torch.nn.Module, real: np.ndarray, fake: np.ndarray) -> torch.Tensor:
    metric.set_dtype(torch.float64)
    for x, is_real in ((real, True), (fake, False)):
        metric.update(torch.from_numpy(x), real=is_real)
    return metric.compute()


def torchmetrics_fid(real: np.ndarray, fake: np.ndarray) -> Values:
    """torchmetrics' FID in float64 (eigenvalues of the product of the covariances)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    return {"FID": float(_torchmetrics(FrechetInceptionDistance(feature=_Identity(real.shape[1])), real, fake))}


def torchmetrics_kid(real: np.ndarray, fake: np.ndarray) -> Values:
    """torchmetrics' KID on one subset that is the whole smaller set."""
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(real), len(fake))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of its memory
        metric = KernelInceptionDistance(feature=_Identity(real.shape[1]), subsets=2, subset_size=size)
    with torch.random.fork_rng(devices=[]):  # it draws the order of the whole set, and float32 sums follow it
        torch.manual_seed(0)
        return {"KID": float(_torchmetrics(metric, real[:size], fake[:size])[0])}


REFERENCES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Values], ...]] = {
    "brute force": (brute_force, brute_force_kid),
    "prdc": (prdc,),
    "torch-fidelity": (fidelity_prc, fidelity_fid, fidelity_kid),
    "torchmetrics": (torchmetrics_fid, torchmetrics_kid),
}


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(real, fake) float32 features by name; the hard ones have broken one implementation or another."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(64, 64)) / 8
    real, fake = rng.normal(size=(600, 64)) @ mix, rng.normal(size=(500, 64)) @ (mix + 0.05) + 0.1
    twice = real.copy()
    twice[300:] = twice[:300]
    heaps = np.repeat(real[:100], 6, axis=0)
    copies = fake.copy()
    copies[:250] = real[:250]
    pairs = {
        "plain": (real, fake),
        "every real patch twice": (twice, copies),
        "every real patch six times": (heaps, copies),
        "common offset of 1000": (real + 1000, fake + 1000),
        "fewer rows (40) than dimensions": (real[:40], fake[:40]),
    }
    return {name: (a.astype(np.float32), b.astype(np.float32)) for name, (a, b) in pairs.items()}


def relative(found: float, reference: float) -> float:
    """``|found - reference| / |reference|``; 0 where both are 0."""
    return abs(found - reference) / abs(reference) if reference else float(found != 0)


def _printed(difference: float) -> str:
    """A relative difference for the table; none is "0"."""
    return f"{difference:.1e}" if difference else "0"


def _values(
    calls: tuple[Callable[[np.ndarray, np.ndarray], Values], ...], real: np.ndarray, fake: np.ndarray
) -> Values:
    return {key: value for call in calls for key, value in call(real, fake).items()}


def page() -> str:
    """The page in MyST Markdown: a table per case of the relative difference of each reference to our value."""
    lines = [
        "# Our metrics beside others",
        "",
        "*Written anew by every build of this book.*",
        "",
        "Published implementations of the same metric differ in small conventions, and some lose digits. Each table",
        "takes one pair of feature sets, made to be easy or hard: our value, and how far each reference is from it,",
        f"relative to the reference. Neighbours: $k = {K}$. A dash: the reference does not have the metric.",
        "",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer rows than dimensions, which one case is about
        for name, (real, fake) in cases().items():
            mine = ours(real, fake)
            theirs = {name: _values(calls, real, fake) for name, calls in REFERENCES.items()}
            lines += [f"## {name[0].upper()}{name[1:]}", ""]
            lines += [f"{len(real)} real, {len(fake)} generated, {real.shape[1]} dimensions, float32.", ""]
            lines += ["| | ours | " + " | ".join(theirs) + " |", "| --- |" + " ---: |" * (1 + len(theirs))]
            for key, value in mine.items():
                cells = [_printed(relative(value, found[key])) if key in found else "–" for found in theirs.values()]
                lines.append(f"| {key} | {value:.6g} | " + " | ".join(cells) + " |")
            lines.append("")
    return "\n".join(lines + [WHY])


WHY = """## Why they differ

*prdc* asks for a distance strictly smaller than the radius, so a generated patch that *is* a real one lies in no
sphere of radius zero. Where real patches occur twice, its density and coverage miss the copies; where they occur six
times all radii are zero and nothing is left. PatchCamelyon draws tumour patches with replacement: such patches are no
invention.

*torch-fidelity* includes the surface, as we do. Its distances come from a float32 product, which loses the digits
that a common offset does not leave; so do its means in float32, from which the Fréchet distance is made.

*KID* is the same polynomial everywhere. It does not forgive an offset, since the kernel is not a function of
differences: there, values in float32 are noise, whatever the library.

The *Fréchet distances* agree otherwise, although each takes another road to the root of the covariances' product: a
matrix root, eigenvalues, or, as here, the singular values of the product of two factors.
"""
