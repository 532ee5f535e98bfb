"""What patches are worth, by the probe: AUC over the number of real patches, and over the share of synthetic ones.

A point of a curve is a probe (see `probes`) trained on n real and m synthetic patches.

- Real patches only, n from few to many. Sets are nested. Beyond the subset they take rows from outside it that the
  judge has not seen, which may belong to other subsets.
- n real patches and as many synthetic ones, for n up to the subset's size. The generator was trained on the whole
  subset, so for smaller n it knows more real patches than the classifier.
- The whole subset and r times as many synthetic patches. Beyond r = 1 only the set without selection grows: further
  candidates are drawn from the generator.

Real patches are the generator that nothing can beat: the point of n real patches and as many other real ones lies on
the first curve at 2n. `results.curves` turns the curves into an exchange rate.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pcamlib import data, training
from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json
from pcamlib.data import Arrays
from pcamlib.experiments import classification, probes, selection
from pcamlib.models import generators
from pcamlib.models.image_folder import ImageFolder
from pcamlib.results.curves import regime
from pcamlib.study import REAL, SELECTIONS, Study

BATCH = 64  # of further candidates; part of what makes them reproducible


def evaluate(study: Study, generator: str) -> dict[str, Any]:
    """Measure the curves of REAL or of a generator; write results/curves-<generator>.json. A finished file is read.

    Rows: "regime" (`results.curves.regime`), "generator", "selection" (None for real patches), "n_real", "n_synthetic",
    "auc_curve" (test AUC), "valid_auc", "strength". A point for which there are too few patches is "not run", with the
    reason. StudyError if the profile has no section `curves`, or notebook 05 has not run for the generator.
    """
    settings, path = study.profile.curves, study.results / f"curves-{generator}.json"
    if settings is None:
        raise StudyError(f"profile {study.profile.name!r} measures no curves: give it a section curves.")
    if path.exists():
        return read_json(path)
    began, probe = time.monotonic(), probes.Probes.of(study)
    points = _real(study) if generator == REAL else _synthetic(study, generator)
    rows = []
    for n_real, n_synthetic, chosen, patches, reason in points:
        row = {"regime": regime(n_real, n_synthetic), "generator": None if generator == REAL else generator}
        row |= {"selection": chosen, "n_real": n_real, "n_synthetic": n_synthetic, "reason": reason}
        row |= {"status": "not run"} if patches is None else {"status": "ok"} | _measure(probe, patches)
        rows.append(row)
    about = {"network": probe.store.extractor.about, "orientations": probes.ORIENTATIONS}
    about |= {"test_n": len(probe.splits["test"].labels)}
    return study.write_result(path.stem, about | {"rows": rows}, seconds=round(time.monotonic() - began, 1))


def _measure(probe: probes.Probes, patches: Arrays) -> dict[str, float]:
    fitted, scores = probe.fit(probe.rows(patches))
    found = classification.tested(probe.splits, scores)
    return {"auc_curve": found["auc"], "valid_auc": found["valid_auc"], "strength": fitted.strength}


Point = tuple[int, int, str | None, Arrays | None, str | None]
"""Numbers of real and synthetic patches, selection, the patches, or None and the reason why there are none."""


def _real(study: Study) -> list[Point]:
    """The points of real patches only, at the profile's sizes and at the subset's times 1 + each ratio."""
    settings, n = study.profile.curves, len(study.rows)
    assert settings is not None
    sizes = sorted({*settings.sizes, n, *(n + round(ratio * n) for ratio in settings.ratios)})
    labels = data.labels(study.data_root, "train")
    free = np.setdiff1d(np.arange(len(labels)), np.concatenate([study.rows, study.judge_rows]))
    outside = nested(labels[free], study.seed)
    points: list[Point] = []
    for size in sizes:
        if size <= n:
            points.append((size, 0, None, _first(study.real, size, study.seed), None))
        elif size - n > len(outside):
            points.append((size, 0, None, None, f"only {len(outside):,} further train patches are left"))
        else:
            more = data.load(study.data_root, "train", np.sort(free[outside[: size - n]]))
            points.append((size, 0, None, _joined(study.real, more), None))
    return points


def _synthetic(study: Study, generator: str) -> list[Point]:
    """The points with patches of a generator."""
    settings, n = study.profile.curves, len(study.rows)
    assert settings is not None
    points: list[Point] = []

    @functools.cache  # the batches of a smaller ratio are the first ones of a larger one
    def batch(c: int, start: int) -> np.ndarray:
        return sampler(np.full(BATCH, c), training.derive(study.seed, generator, "curves", c, start))

    sampler = generators.find(study, generator).sampler(study)
    further = sampler if isinstance(sampler, ImageFolder) else batch
    sets = {chosen: selection.synthetic(study, generator, chosen) for chosen in SELECTIONS}
    for size in sorted(size for size in settings.sizes if size < n):
        points.append(_point(study, generator, "none", size, size, sets["none"], further))
    for chosen in SELECTIONS:
        for ratio in sorted(settings.ratios):
            if chosen == "none" or ratio <= 1:
                points.append(_point(study, generator, chosen, n, round(ratio * n), sets[chosen], further))
    return points


def _point(
    study: Study,
    generator: str,
    chosen: str,
    n_real: int,
    n_synthetic: int,
    found: Arrays | None,
    further: ImageFolder | Callable[[int, int], np.ndarray],
) -> Point:
    if found is None:
        return n_real, n_synthetic, chosen, None, selection.shortage(study, generator, chosen)
    if n_synthetic > len(found.labels) and chosen == "none":
        found = _more(further, found, n_synthetic - len(found.labels))
    if n_synthetic > len(found.labels):
        return n_real, n_synthetic, chosen, None, f"the set holds only {len(found.labels):,} patches"
    some = _first(found, n_synthetic, study.seed)
    return n_real, n_synthetic, chosen, _joined(_first(study.real, n_real, study.seed), some), None


def _more(further: ImageFolder | Callable[[int, int], np.ndarray], found: Arrays, count: int) -> Arrays:
    """A set without selection and `count` further candidates of its classes' shares, as far as there are any.

    further: the images made elsewhere, or the candidates (BATCH, 96, 96, 3) of a class from a number on.
    """
    parts = [found]
    for c in (0, 1):
        have = int((found.labels == c).sum())
        wanted = -(-count * have // len(found.labels))
        if isinstance(further, ImageFolder):
            images = further.take(c, have, min(wanted, further.counts[c] - have))
        else:
            made = [further(c, start) for start in range(0, wanted, BATCH)]
            images = np.concatenate(made)[:wanted] if made else found.images[:0]
        parts.append(Arrays(images, np.full(len(images), c, np.uint8)))
    return _joined(*parts)


def nested(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order of rows, int64 (N,), whose every beginning has the classes in the shares of all `labels`, to one
    patch."""
    rng = np.random.default_rng(training.derive(seed, "curves"))
    place = np.empty(len(labels))
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        place[rng.permutation(rows)] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")


def _first(arrays: Arrays, size: int, seed: int) -> Arrays:
    rows = np.sort(nested(arrays.labels, seed)[:size])
    return Arrays(arrays.images[rows], arrays.labels[rows])


def _joined(*parts: Arrays) -> Arrays:
    return Arrays(*map(np.concatenate, zip(*parts)))
