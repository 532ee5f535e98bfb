"""Nearest neighbours between two sets of features: exact decisions, bounded memory, the speed of a matrix
product.

Every distance that decides something is sqrt(sum((a - b)^2)) in float64 from the features as they were given.
Not all N x M of them are computed: a float32 matrix product on centred features first gives a lower bound of
each squared distance and its slack, and only the pairs that these leave open are computed exactly. The bounds
are worst-case rounding bounds, so the results are those of a float64 brute force, not approximations.
Why not a library: this is 2.2 times as fast as prdc at a fifth of its memory (benchmarks/bench_metrics.py).

Conventions, here and in `pcamlib.metrics`: k = 3 unless told otherwise; a point is never its own neighbour
(but a duplicate of it is another row, so a radius may be 0); a sphere includes its surface (`<=`).

The functions here expect tensors that `pcamlib.metrics` has checked.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

REALISM_CAP = 1e12  # realism of an exact copy of a real point whose radius is positive
_STRIP = 1 << 23  # elements of one strip of the distance matrix (32 MB in float32)
_HITS = 1 << 21  # elements searched for hits at a time: all of them may be hits
_CANDIDATES = 16  # nearest candidates kept per row, beyond k
_TINY = 1e-30  # absolute slack of scaled squared distances, far above underflow


@contextlib.contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Matrix products in the precision of their inputs: no autocast, no TF32 or bfloat16; and no gradient."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def mean64(x: Tensor) -> Tensor:
    """(D,) mean in float64, without a float64 copy of the whole."""
    first = x[0].double()  # sums of differences keep the digits that a large common offset would cost
    total = torch.zeros_like(first)
    for chunk in x.split(2048):
        total += (chunk.double() - first).sum(0)
    return first + total / len(x)


def pair_distances(a: Tensor, i: Tensor, b: Tensor, j: Tensor) -> Tensor:
    """Exact float64 distances of the pairs (a[i], b[j]): (P,) from index tensors (P,)."""
    size = max(64, min(1024, (1 << 19) // a.shape[1]))  # the same for every P: so is the order of summation
    out = torch.empty(len(i), dtype=torch.float64, device=a.device)
    offsets = torch.arange(size, device=a.device)
    for start in range(0, len(i), size):
        at = (start + offsets).clamp_(max=len(i) - 1)
        difference = a[i[at]].double().sub_(b[j[at]].double())
        out[start : start + size] = difference.square_().sum(1).sqrt_()[: len(i) - start]
    return out


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def _up(value: Tensor, dtype: torch.dtype) -> Tensor:
    """`value` (non-negative float64) in `dtype`, rounded so that it does not become smaller."""
    return (value * (1 + 8 * _unit(dtype))).to(dtype)


@dataclass(frozen=True)
class _Frame:
    """Coordinates of the bounds: features minus `centre`, times 2^`exponent`, so that norms are about 1 at
    most."""

    centre: Tensor
    exponent: int

    @property
    def scale(self) -> float:
        return 2.0**self.exponent

    @classmethod
    def around(cls, centre: Tensor, x: Tensor) -> _Frame:
        norm = max(float((chunk.double() - centre).square_().sum(1).max()) for chunk in x.split(2048))
        return cls(centre, -math.frexp(math.sqrt(norm))[1] if norm else 0)


class _Operand:
    """A set of features as one side of the matrix product that yields lower bounds of squared distances.

    With n = |x|^2, rows are [x, 1, (1 - c) n - tiny]; the other side of the product reads [-2 x, (1 - c) n -
    tiny, 1]. A sum of K = D + 2 products in precision u is off by at most K u times the sum of their
    magnitudes, in any order of summation, and that sum is at most 2 (n_a + n_b); rounding x and n adds 3 u
    (n_a + n_b). So with c = 2 (K + 3) u the product lies below the true value, by no more than slack_a +
    slack_b. In float64 c is doubled, because the exact distances are then rounded as coarsely.
    """

    def __init__(self, x: Tensor, frame: _Frame, dtype: torch.dtype = torch.float32) -> None:
        n, d = x.shape
        self.rows = torch.empty(n, d + 2, dtype=dtype, device=x.device)
        norms = torch.empty(n, dtype=torch.float64, device=x.device)
        for start in range(0, n, 2048):
            part = slice(start, start + 2048)
            chunk = (x[part].double() - frame.centre).mul_(frame.scale)
            self.rows[part, :d] = chunk.to(dtype)
            norms[part] = chunk.square_().sum(1)
        c = (4 if dtype == torch.float64 else 2) * (d + 5) * _unit(dtype)
        self.slack = 2 * c * norms + 2 * _TINY
        self.rows[:, d] = 1
        self.rows[:, d + 1] = (norms * (1 - c) - _TINY).to(dtype)

    def left(self, rows: slice = slice(None)) -> Tensor:
        part = self.rows[rows]
        return torch.cat([part[:, :-2] * -2, part[:, -1:], part[:, -2:-1]], dim=1)

    def low(self, left: Tensor, start: int = 0) -> Tensor:
        """(rows from `start`, len(left)) lower bounds of scaled squared distances: the long side first, because that
        way round, with a multiple of 64 on the other side, a matrix library comes nearest to the machine's rate."""
        return self.rows[start:] @ left.T


def _strip(rows: int) -> int:
    return max(64, _STRIP // rows // 64 * 64)


def _hits(low: Tensor, limit: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns where low <= limit, a bounded number at a time; `limit` is (rows, 1) or (1,
    columns)."""
    step = max(1, _HITS // low.shape[1])
    for start in range(0, len(low), step):
        part = slice(start, start + step)
        i, j = (low[part] <= (limit[part] if len(limit) > 1 else limit)).nonzero(as_tuple=True)
        yield i + start, j


def _below(low: Tensor, limit: Tensor, keep: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some rows at a time, what is below their limit (rows, 1): values and columns, the `keep` smallest or all, filled
    up with infinity. Where few entries are below, finding them costs less than sorting."""
    step = max(1, _HITS // low.shape[1])
    for start in range(0, len(low), step):
        some = slice(start, min(len(low), start + step))
        part = low[some]
        i, j = (part < limit[some]).nonzero(as_tuple=True)
        counts = torch.bincount(i, minlength=len(part))
        width = int(counts.max())
        if width > 4 * keep:
            yield some, *part.topk(min(keep, part.shape[1]), largest=False)
        elif width:
            place = torch.arange(len(i), device=i.device) - (counts.cumsum(0) - counts)[i]
            values = torch.full((len(part), width), math.inf, device=low.device)
            columns = torch.zeros((len(part), width), dtype=torch.int64, device=low.device)
            values[i, place], columns[i, place] = part[i, j], j
            yield some, values, columns


def _merge(values: Tensor, indices: Tensor, more: Tensor, more_indices: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest of both lists per row, sorted, as many as `values` holds."""
    values, at = torch.cat([values, more], 1).topk(values.shape[1], largest=False)
    return values, torch.cat([indices, more_indices], 1).gather(1, at)


def knn_radii(x: Tensor, k: int) -> Tensor:
    """(N,) float64 distances to the k-th nearest other row. Half of the symmetric matrix is computed."""
    n = len(x)
    with exact_arithmetic(x.device):
        frame = _Frame.around(mean64(x), x)
        operand = _Operand(x, frame)
        keep = min(k + _CANDIDATES, n - 1)
        low = torch.full((n, keep), math.inf, device=x.device)
        index = torch.zeros((n, keep), dtype=torch.int64, device=x.device)
        start = 0
        while start < n:
            # low strips: what lies left of the diagonal in the strip's own square is computed twice
            stop = min(n, start + min(_strip(n - start), max(256, n // 1024 * 64)))
            block = operand.low(operand.left(slice(start, stop)), start)
            block.diagonal().fill_(math.inf)
            for rows, part in ((slice(start, stop), block.T.contiguous()), (slice(stop, n), block[stop - start :])):
                for some, values, at in _below(part, low[rows, -1:], keep):
                    some = slice(rows.start + some.start, rows.start + some.stop)
                    low[some], index[some] = _merge(low[some], index[some], values, at + start)
            start = stop
        low = low.double()
        high = low + operand.slack[:, None] + operand.slack[index]
        del operand, block, part
        # the k-th distance lies between the k-th smallest low and the k-th smallest high
        low_k, high_k = low[:, k - 1 : k], high.kthvalue(k, dim=1, keepdim=True).values
        i, column = ((high >= low_k) & (low <= high_k)).nonzero(as_tuple=True)
        distance = torch.where(high < low_k, -math.inf, torch.full_like(low, math.inf))
        distance[i, column] = pair_distances(x, i, x, index[i, column])
        radii = distance.kthvalue(k, dim=1).values
        if keep < n - 1:  # could a row outside the list be nearer?
            proven = (low[:, -1] >= _up((radii * frame.scale).square(), torch.float64)) | (radii == 0)
            rows = (~proven).nonzero()[:, 0]
            for some in rows.split(max(1, _HITS // n)) if len(rows) else ():
                radii[some] = _exact_radii(x, some, radii[some], k, frame)
    return radii


def _exact_radii(x: Tensor, rows: Tensor, radii: Tensor, k: int, frame: _Frame) -> Tensor:
    """Radii of some rows, of which `radii` are upper bounds: every pair that may be as near is computed
    exactly."""
    i, j = _open_pairs(x, rows, frame, (radii * frame.scale).square())
    other = rows[i] != j
    i, j = i[other], j[other]
    distances = pair_distances(x, rows[i], x, j)
    order = distances.argsort()
    order = order[i[order].argsort(stable=True)]  # by row, then by distance
    counts = torch.bincount(i, minlength=len(rows))
    return distances[order[counts.cumsum(0) - counts + k - 1]]


def _open_pairs(x: Tensor, rows: Tensor, frame: _Frame, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (place in rows, row of x) whose scaled squared distance may be within limit[i]."""
    left = _Operand(x[rows], frame, torch.float64).left()
    limit = _up(limit, torch.float64)[:, None]
    found = []
    for start in range(0, len(x), 4096):
        near = left @ _Operand(x[start : start + 4096], frame, torch.float64).rows.T <= limit
        found.append(near.nonzero() + torch.tensor([0, start], device=x.device))
    return torch.cat(found).unbind(1)


def _ratio(radii: Tensor, distances: Tensor) -> Tensor:
    """Realism of pairs: radius / distance, the distance floored at radius / REALISM_CAP; 0 / 0 is 1.

    In IEEE arithmetic r / d >= 1 if and only if d <= r, and neither the floor nor 0 / 0 changes that.
    """
    ratio = (radii / distances).clamp_(max=REALISM_CAP)
    return torch.where((radii == 0) & (distances == 0), 1.0, ratio)


@dataclass
class Spheres:
    """What one pass over the distances between N real and M fake points finds."""

    score: Tensor  # (M,) float64 realism; distance to the nearest real point where the screen has no radii
    index: Tensor  # (M,) int64, the real point that gives the score; of equals, the first
    containing: Tensor | None = None  # (M,) int64, number of real spheres around the fake
    covered: Tensor | None = None  # (N,) bool, the real sphere holds a fake
    recalled: Tensor | None = None  # (N,) bool, the real point lies in a fake sphere


class Screen:
    """A real set (N, D), with the radii (N,) of its spheres or without, made ready once for batches of fakes.

    It keeps the features and a float32 copy of them.
    """

    def __init__(self, real: Tensor, radii: Tensor | None) -> None:
        self.real, self.radii = real, radii
        self._frame = _Frame.around(mean64(real), real)
        self._operand = _Operand(real, self._frame)

    def sweep(self, fake: Tensor, fake_radii: Tensor | None = None, spheres: bool = False) -> Spheres:
        """One pass over the M x N distances, in strips. `spheres` adds `containing` and `covered`;
        `fake_radii`, `recalled`."""
        with exact_arithmetic(self.real.device):
            frame = _Frame.around(self._frame.centre, fake)
            if self._frame.exponent - frame.exponent > 20:  # fakes so far outside that float32 might overflow
                self._frame, self._operand = frame, _Operand(self.real, frame)
            return self._sweep(fake, fake_radii, spheres)

    def _sweep(self, fake: Tensor, fake_radii: Tensor | None, spheres: bool) -> Spheres:
        radii, scale, n, m = self.radii, self._frame.scale, len(self.real), len(fake)
        zeros = partial(torch.zeros, device=self.real.device)
        found = Spheres(zeros(m, dtype=torch.float64), zeros(m, dtype=torch.int64))
        if spheres:
            found.containing, found.covered = zeros(m, dtype=torch.int64), zeros(n, dtype=torch.bool)
        if fake_radii is not None:
            found.recalled = zeros(n, dtype=torch.bool)
        if radii is not None:
            squared = (radii * scale).square()
            # distance^2 / radius^2 stays a lower bound when the factor is rounded down
            factor = ((1 - 8 * _unit(torch.float32)) / squared.clamp(min=_TINY)).float()
        step = _strip(n)
        for start in range(0, m, step):
            rows = slice(start, start + step)
            part = fake[rows]
            side = _Operand(part, self._frame)
            low = self._operand.low(side.left())  # (N, step)
            if fake_radii is not None:
                own = fake_radii[rows]
                limit = (own * scale).square()
                for j, i in _hits(low, _up(limit, torch.float32)[None]):
                    new = ~found.recalled[j]
                    j, i = j[new], i[new]
                    found.recalled[j[self._inside(low, side, part, i, j, limit[i], own[i])]] = True
            if spheres:
                for j, i in _hits(low, _up(squared, torch.float32)[:, None]):
                    inside = self._inside(low, side, part, i, j, squared[j], radii[j])
                    found.covered[j[inside]] = True
                    found.containing[rows] += torch.bincount(i[inside], minlength=len(part))
            if radii is not None:
                low *= factor[:, None]
            found.score[rows], found.index[rows] = self._best(low, part)
        return found

    def _inside(
        self, low: Tensor, side: _Operand, part: Tensor, i: Tensor, j: Tensor, squared: Tensor, radii: Tensor
    ) -> Tensor:
        """(P,) bool: distance(part[i], real[j]) <= radii. From the bounds where they decide, else exactly."""
        high = low[j, i].double() + side.slack[i] + self._operand.slack[j]
        inside = high <= squared * (1 - 8 * _unit(torch.float64))
        open_ = (~inside).nonzero()[:, 0]
        inside[open_] = pair_distances(part, i[open_], self.real, j[open_]) <= radii[open_]
        return inside

    def _best(self, low: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        """Per row of part the real point of greatest radius / distance (least distance without radii): value and index.

        `low` (N, rows) are lower bounds of the scaled squared distances, divided by the squared radii, if there are
        any. The exact value of the lowest bound is a limit that no better point's bound can exceed.
        """
        reached, _ = self._exact_best(low, low.amin(0), part)
        limit = (reached * self._frame.scale).square() if self.radii is None else reached.pow(-2).clamp(max=1e280)
        return self._exact_best(low, _up(limit, torch.float32), part)

    def _exact_best(self, low: Tensor, limit: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        """Over the pairs with low <= limit (rows,): best exact value per row of part, and the first index that has
        it."""
        sign = 1.0 if self.radii is None else -1.0  # the least distance, or the greatest ratio
        best = torch.full((len(part),), math.inf, dtype=torch.float64, device=part.device)
        index = torch.zeros(len(part), dtype=torch.int64, device=part.device)
        for j, i in _hits(low, limit[None]):
            value = pair_distances(part, i, self.real, j)
            if self.radii is not None:
                value = -_ratio(self.radii[j], value)
            before = best.clone()
            best.scatter_reduce_(0, i, value, "amin")
            index[best < before] = len(self.real)
            hit = value == best[i]
            index.scatter_reduce_(0, i[hit], j[hit], "amin")
        return sign * best, index
