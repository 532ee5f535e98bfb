"""The second measuring device: Table 2 as logistic regressions on frozen ImageNet features (linear probes).

Deterministic and cheap: a set of patches goes through the network once, and an arm is a regression that takes seconds.
So many subsets can be measured. An arm trains on all eight orientations of its patches (the baseline on one), its
strength is chosen on validation, and transfer is a regression whose prior is centred at the synthetic-only solution.

Two arms are measured here only. *Pseudo-labelling* (Lee 2013) adds real patches whose labels nobody knows, and that lie
outside every subset and unseen by the judge: the traditional arm of the subset labels them. They are the rival of a
generator that sees such patches without labels.
"""

from __future__ import annotations

import functools
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pcamlib import data, training
from pcamlib.core.errors import load_error, loading_weights
from pcamlib.core.files import atomic, code_version, digest, now, read_json, write_json
from pcamlib.experiments import classification, features
from pcamlib.experiments.classification import REGIMES
from pcamlib.models import regression
from pcamlib.models.classifier import THRESHOLD
from pcamlib.models.tensors import orient
from pcamlib.results.arms import PSEUDO, TRADITIONAL, Arm
from pcamlib.results.inference import SCORES
from pcamlib.study import REAL, Study

ORIENTATIONS = 8
BLOCK = 128  # patches that are computed and kept at once
POOL = 4000  # unlabelled patches that are used at most: their features in eight orientations take minutes
REGRESSION = "regression.safetensors"


class Features:
    """Features of patches in one frozen network, kept in a folder by the patches' content and never computed twice."""

    def __init__(self, folder: Path, extractor: features.Extractor):
        self.folder, self.extractor = folder / digest(extractor.about), extractor

    def __call__(self, images: np.ndarray, orientations: int = ORIENTATIONS) -> np.ndarray:
        """float32 (N, orientations, D) for images uint8 (N, 96, 96, 3): the first `orientations` of `tensors.orient`.

        Kept as float16. StudyError for a damaged file.
        """
        keys = [hashlib.sha256(image.tobytes()).digest()[:16] for image in np.ascontiguousarray(images)]
        folder, wanted = self.folder / str(orientations), set(keys)
        known: dict[bytes, np.ndarray] = {}
        for path in sorted(folder.glob("*.safetensors")):
            known |= _read(path, wanted)
        new = {key: row for row, key in enumerate(keys) if key not in known}
        for start in range(0, len(new), BLOCK):
            some = list(new)[start : start + BLOCK]
            found = self._compute(images[[new[key] for key in some]], orientations)
            rows = {"keys": np.frombuffer(b"".join(some), np.uint8).reshape(-1, 16).copy(), "features": found}
            with atomic(folder / f"{digest(rows['keys'].tobytes())}.safetensors") as tmp_path:
                save_file(rows, tmp_path)
            known |= dict(zip(some, found))
        return np.stack([known[key] for key in keys]).astype(np.float32)

    def _compute(self, images: np.ndarray, orientations: int) -> np.ndarray:
        x, found = torch.from_numpy(images).permute(0, 3, 1, 2), []
        for which in range(orientations):
            turned = orient(x, torch.full((len(x),), which)).permute(0, 2, 3, 1)
            found.append(self.extractor(np.ascontiguousarray(turned.numpy())))
        return np.stack(found, 1).astype(np.float16)


def _read(path: Path, wanted: set[bytes]) -> dict[bytes, np.ndarray]:
    """Those rows of one kept file that are wanted, by their patch's key."""
    try:
        kept = load_file(path)
        return {key: row for k, row in zip(kept["keys"], kept["features"]) if (key := k.tobytes()) in wanted}
    except (SafetensorError, OSError, KeyError) as error:
        raise load_error(path, error, "remove it and run again, its features are made anew") from None


def arms(generator: str) -> list[Arm]:
    """The arms of one notebook run that a regression can be: all but those of stronger augmentation, and
    pseudo-labels."""
    tuned = [arm for arm in classification.arms(generator) if REGIMES[arm.regime].augment in ("none", "traditional")]
    return [*tuned, *(PSEUDO if generator == REAL else ())]


def unlabelled(study: Study, arm: Arm) -> np.ndarray:
    """The rows of the pool, int64 (M,) ascending, that an arm of `PSEUDO` adds: as many as the subset has, or up to
    POOL.

    Drawn without a look at their labels. Fewer if the pool has fewer. The smaller draw is part of the larger one.
    """
    wanted = len(study.rows) if arm.regime == "pseudo-label" else POOL
    drawn = np.random.default_rng(training.derive(study.seed, "pool")).permutation(study.pool_rows)
    return np.sort(drawn[:wanted])


def reason_not_to_run(study: Study, arm: Arm) -> str | None:
    """Why an arm cannot be measured by a regression in this subset, or None."""
    if REGIMES[arm.regime].epochs > 1:
        return "a regression has no steps, it would be the same arm"
    if not REGIMES[arm.regime].pool:
        return classification.reason_not_to_run(study, arm)
    found, size = len(unlabelled(study, arm)), len(study.rows)
    if found < size:
        return f"only {found:,} train patches are left outside every subset and the judge"
    return "it would use no more patches than pseudo-label" if found == size and arm.regime != "pseudo-label" else None


def evaluate(study: Study, generator: str) -> dict[str, Any]:
    """Fit and test the probe of every arm of `generator`; write results/probe-<generator>.json. Finished arms are kept.

    Rows are those of `classification.evaluate` with "strength" instead of steps and epochs; there are no seeds.
    Features of all arms are scaled by mean and standard deviation of the subset's own real patches.
    """
    probes = Probes.of(study)
    rows = [probes.run(arm) for arm in arms(generator)]
    return study.write_result(
        f"probe-{generator}",
        {
            "network": probes.store.extractor.about,
            "orientations": ORIENTATIONS,
            "test_n": len(data.labels(study.data_root, "test")),
            "rows": rows,
        },
        seconds=round(sum(row.get("seconds", 0) for row in rows), 1),
    )


class Probes:
    """One subset's features, and the regressions on them."""

    def __init__(self, study: Study, store: Features):
        self.study, self.store = study, store
        self.splits = {name: study.split(name) for name in ("valid", "test")}

    @classmethod
    def of(cls, study: Study) -> Probes:
        """The probes of a study's subset, with features in the run folder."""
        return cls(study, Features(study.root / "features", features.probed(study.profile.probe)))

    @functools.cached_property
    def scale(self) -> regression.Standard:
        """From the subset's real patches, turned and mirrored."""
        return regression.standard(_flat(self.store(self.study.real.images)))

    @functools.cached_property
    def seen(self) -> dict[str, np.ndarray]:
        """Scaled features (N, D) of validation and test patches, as they are."""
        return {name: self.scale(self.store(part.images, 1)[:, 0]) for name, part in self.splits.items()}

    def rows(self, patches: data.Arrays, orientations: int = ORIENTATIONS) -> tuple[np.ndarray, np.ndarray]:
        """Scaled features (N x orientations, D) and labels of patches, each in its first `orientations`."""
        return self.scale(_flat(self.store(patches.images, orientations))), np.repeat(patches.labels, orientations)

    def fit(
        self, rows: tuple[np.ndarray, np.ndarray], prior: regression.Regression | None = None
    ) -> tuple[regression.Regression, dict[str, np.ndarray]]:
        """The regression on `rows` whose strength is best on validation, and its P(tumour) of each split, float64
        (N,)."""
        fitted = regression.choose(rows, (self.seen["valid"], self.splits["valid"].labels), prior)
        return fitted, {name: fitted(seen) for name, seen in self.seen.items()}

    def pseudo_labelled(self, arm: Arm) -> tuple[data.Arrays, float]:
        """The patches of `unlabelled`, labelled by the subset's traditional arm, and the share of labels that are
        right.

        The share is for readers: no training sees a true label from outside the subset. The traditional arm must have
        run.
        """
        patches = data.load(self.study.data_root, "train", unlabelled(self.study, arm))
        chance = self._load(TRADITIONAL)(self.scale(self.store(patches.images)[:, 0]))
        labels = (chance >= THRESHOLD).astype(patches.labels.dtype)
        return data.Arrays(patches.images, labels), float((labels == patches.labels).mean())

    def run(self, arm: Arm) -> dict[str, Any]:
        """The row of one arm, from its folder if it is there."""
        folder = self.study.folder / "probes" / arm.id
        if (folder / "result.json").exists():
            return read_json(folder / "result.json")
        row: dict[str, Any] = {"arm": arm.id, **arm._asdict(), "control": arm.control, "status": "ok", "reason": None}
        regime = REGIMES[arm.regime]
        if reason := reason_not_to_run(self.study, arm):
            return row | {"status": "not run", "reason": reason}
        patches, n_real = classification.training_set(self.study, arm), len(self.study.rows) * regime.real
        if regime.pool:
            more, row["right_labels"] = self.pseudo_labelled(arm)
            patches, n_real = data.Arrays(*map(np.concatenate, zip(patches, more))), n_real + len(more.labels)
        orientations = 1 if regime.augment == "none" else ORIENTATIONS
        self.seen  # noqa: B018  before the clock starts: other arms share it
        x, y = self.rows(patches, orientations)
        began = time.monotonic()
        fitted, scores = self.fit((x, y), self._load(arm.source) if arm.source else None)
        with atomic(folder / REGRESSION) as tmp_path:
            save_file({"weights": fitted.weights, "rest": np.array([fitted.intercept, fitted.strength])}, tmp_path)
        row |= {
            "threshold": THRESHOLD,
            "n_real": n_real,
            "n_synthetic": len(patches.labels) - n_real,
            "test_n": len(self.splits["test"].labels),
            "orientations": orientations,
            "strength": fitted.strength,
            "train_loss": fitted.loss(x, y),
            "pretrained": arm.source.id if arm.source else Path(self.study.profile.probe.weights).name,
            # of the regressions; features are computed once for all arms
            "seconds": round(time.monotonic() - began, 1),
            "version": code_version(),
            "created": now(),
        }
        found = classification.tested(self.splits, scores, folder / SCORES, self.study.test_centres)
        write_json(folder / "result.json", row | found)
        return read_json(folder / "result.json")

    def _load(self, arm: Arm) -> regression.Regression:
        path = self.study.folder / "probes" / arm.id / REGRESSION
        with loading_weights(path, f"remove {path.parent} and run notebook 07 again"):
            kept = load_file(path)
            return regression.Regression(kept["weights"], *map(float, kept["rest"]))


def _flat(found: np.ndarray) -> np.ndarray:
    """(N, orientations, D) -> (N x orientations, D), the orientations of a patch in a row."""
    return found.reshape(-1, found.shape[-1])
