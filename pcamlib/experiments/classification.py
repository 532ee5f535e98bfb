"""The protocol of Table 2 for one subset: which classifiers are trained on what, and how they do on the test split."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file

from pcamlib import data, metrics, training
from pcamlib.core.files import atomic, code_version, now, read_json, write_json
from pcamlib.core.sections import ClassifierSettings
from pcamlib.data import Arrays
from pcamlib.experiments import baselines, features, selection
from pcamlib.models import classifier, formats, generators
from pcamlib.results.arms import NO_NETWORK, SHUFFLED, TRIVIAL, Arm, of_source
from pcamlib.results.frame import CALIBRATION_BINS
from pcamlib.results.inference import SCORES
from pcamlib.study import REAL, Study


class Regime(NamedTuple):
    """What one regime trains on and for how long; which weights it starts from says `Arm.source`.

    real: how many sets of real patches (the subset, then as many others); synthetic: whether synthetic patches join
    them; pool: whether real patches of `Study.pool_rows` do, with labels that a probe gave them (`probes`); augment:
    the kind of augmentation (`augmentation.KINDS`); epochs: in multiples of the profile's.
    """

    real: int = 1
    synthetic: bool = False
    pool: bool = False
    augment: str = "traditional"
    epochs: int = 1


REGIMES = {
    "baseline": Regime(augment="none"),
    "traditional": Regime(),
    "traditional-2x": Regime(epochs=2),
    "transfer-real": Regime(),
    "double-real": Regime(real=2),
    "pseudo-label": Regime(pool=True),
    "pseudo-label-pool": Regime(pool=True),
    "synthetic": Regime(real=0, synthetic=True),
    "transfer": Regime(),
    "augmentation": Regime(synthetic=True),
    "strong-stain": Regime(augment="stain"),
    "strong-randaugment": Regime(augment="randaugment"),
    "strong-mixup": Regime(augment="mixup"),
    "strong-cutmix": Regime(augment="cutmix"),
}
STARTED_FROM = {"traditional", "synthetic"}
"""Regimes whose weights another arm needs."""


def arms(generator: str) -> list[Arm]:
    """The arms of one notebook run: "real" has the paper's 2 and our controls, each generator 3 regimes x 3 selections.

    Controls, because the paper confounds them: transfer and augmentation also take more steps than "traditional"; and
    because stronger augmentation of real patches costs nothing: what do generators add to that?
    """
    return [arm for arm in of_source(None if generator == REAL else generator) if arm.regime not in NO_NETWORK]


def runs(generator: str, settings: ClassifierSettings) -> list[Arm]:
    """All trainings of one notebook run: `arms`, each once per seed.

    An arm has `settings.seeds` seeds if its name matches one of the patterns of `settings.seeded`, or if that holds for
    an arm that starts from its weights; else one. What starts from weights comes after them.
    """

    def seeded(arm: Arm) -> bool:
        return any(fnmatch.fnmatchcase(arm.name, pattern) for pattern in settings.seeded)

    every = arms(generator)
    several = {a.name for a in every if seeded(a)} | {a.source.name for a in every if seeded(a) and a.source}
    return [arm._replace(seed=seed) for arm in every for seed in range(settings.seeds if arm.name in several else 1)]


def baseline_arms(generator: str) -> list[Arm]:
    """The arms that train no network: the trivial baselines and shuffled labels with REAL, none with a generator."""
    return list(TRIVIAL) if generator == REAL else []


def evaluate(study: Study, generator: str) -> dict[str, Any]:
    """Train and test the arms of `generator`; write results/classification-<generator>.json. Finished arms are kept."""
    settings, rows = study.profile.classifier, run_arms(study, generator)
    return study.write_result(
        f"classification-{generator}",
        {
            "architecture": settings.architecture,
            "pretrained": Path(settings.weights).name,  # of a file its name: results leave this machine
            "format": str(formats.chosen(settings)),
            "test_n": len(data.labels(study.data_root, "test")),
            "image_size": settings.image_size,
            "rows": rows,
        },
        precision=formats.chosen(settings).precision,
        seconds=round(sum(row.get("seconds", 0) for row in rows), 1),
    )


def run_arms(study: Study, generator: str) -> list[dict[str, Any]]:
    """Train and test what is not finished of the arms of `generator`; a row each, as in the result of `evaluate`.

    The arms that train no network follow, in rows of the same form with 0 epochs and 0 steps.
    """
    if generator != REAL:
        generators.find(study, generator)
    plain, splits = {name: study.split(name) for name in ("valid", "test")}, {}
    for name, (images, labels) in plain.items():
        small = classifier.prepare(images, study.profile.classifier.image_size)
        splits[name] = Arrays(small, labels)  # type: ignore[arg-type]
    rows = [_run(study, arm, splits) for arm in runs(generator, study.profile.classifier)]
    trivial = baselines.Baselines(study, plain)
    for arm in baseline_arms(generator):
        with training.main_first():
            rows.append(_run_baseline(study, arm, trivial))
    return rows


def _run(study: Study, arm: Arm, splits: dict[str, Arrays]) -> dict[str, Any]:
    settings, folder = study.profile.classifier, study.folder / "classifiers" / arm.id
    result = folder / "result.json"
    if result.exists():
        _discard(arm, folder)
        return read_json(result)
    regime, row = (
        REGIMES[arm.regime],
        {"arm": arm.id, **arm._asdict(), "control": arm.control, "status": "ok", "reason": None},
    )
    if reason := _left_out(study, arm) or reason_not_to_run(study, arm):
        return row | {"status": "not run", "reason": reason}
    start = study.folder / "classifiers" / arm.source.id / "weights.safetensors" if arm.source else None
    epochs = settings.epochs * regime.epochs
    model, chosen, log = classifier.train(
        settings,
        training_set(study, arm),
        splits["valid"],
        folder=folder,
        seed=training.derive(study.seed, "classifier", arm.seed) if arm.seed else study.seed,
        augment=regime.augment,
        epochs=epochs,
        start=start,
        identity=[study.data_sha, arm.id],
    )
    row |= {
        "threshold": classifier.THRESHOLD,
        "n_real": len(study.rows) * regime.real,
        "n_synthetic": sum(selection.counts(study, arm.generator, arm.selection)["kept"]) if arm.generator else 0,
        "test_n": len(splits["test"].labels),
        "epochs": epochs,
        "steps": int(log[-1]["step"]),
        "pretrained": start.parent.name if start else Path(settings.weights).name,
        "architecture": settings.architecture,
        "format": str(formats.chosen(settings)),
        "model_choice": settings.model_choice,
        "chosen_epoch": chosen,
        "train_loss": log[-1]["loss"],
        "log": [{k: row[k] for k in ("epoch", "loss", "valid_auc") if k in row} for row in log],
        "seconds": log[-1]["seconds"],  # of training, kills and resumptions included
        "version": training.versions(log),
        "created": now(),
    }
    with training.main_first():
        if not result.exists():
            scores = {name: classifier.probabilities(model, split.images, settings) for name, split in splits.items()}
            write_json(result, row | tested(splits, scores, folder / SCORES, study.test_centres))
            _discard(arm, folder)
    return read_json(result)


def _run_baseline(study: Study, arm: Arm, trivial: baselines.Baselines) -> dict[str, Any]:
    splits, folder = trivial.splits, study.folder / "classifiers" / arm.id
    if (folder / "result.json").exists():
        return read_json(folder / "result.json")
    began = time.monotonic()
    row: dict[str, Any] = {"arm": arm.id, **arm._asdict(), "control": arm.control, "status": "ok", "reason": None}
    row |= {"threshold": classifier.THRESHOLD, "n_real": len(study.rows), "n_synthetic": 0}
    row |= {"test_n": len(splits["test"].labels), "epochs": 0, "steps": 0, "pretrained": "none"}
    if arm.regime == SHUFFLED:
        strength = read_json(study.folder / "classifiers" / "colour-texture" / "result.json")["strength"]
        each = [tested(splits, fit.scores) | {"train_loss": fit.loss} for fit in trivial.shuffled(strength)]
        found = {key: float(np.mean([values[key] for values in each])) for key in each[0]} | {"shuffles": len(each)}
    else:
        scores, strength, loss = trivial.fit(arm.regime)
        found = tested(splits, scores, folder / SCORES, study.test_centres) | {"train_loss": loss}
    row |= {"strength": strength, "seconds": round(time.monotonic() - began, 1), "version": code_version()}
    write_json(folder / "result.json", row | {"created": now()} | found)
    return read_json(folder / "result.json")


def tested(
    splits: Mapping[str, Arrays],
    scores: dict[str, np.ndarray],
    keep: Path | None = None,
    centres: np.ndarray | None = None,
) -> dict[str, Any]:
    """All metrics of the test split and "valid_auc", from P(tumour) (N,) by split; test scores go to the file `keep`.

    With the `centres` (N,) of the test patches also "centres", see `by_centre`.
    """
    scores = {name: values.astype(np.float32) for name, values in scores.items()}
    valid, found = (
        metrics.classification_metrics(splits[name].labels, scores[name], classifier.THRESHOLD)
        for name in ("valid", "test")
    )
    if keep:
        with atomic(keep) as tmp_path:
            save_file({"test": scores["test"], "labels": splits["test"].labels.astype(np.uint8)}, tmp_path)
    return found | {
        "ece": calibration_error(splits["test"].labels, scores["test"]),
        "valid_auc": valid["auc"],
        **({} if centres is None else {"centres": by_centre(splits["test"].labels, scores["test"], centres)}),
    }


def by_centre(labels: np.ndarray, scores: np.ndarray, centres: np.ndarray) -> dict[str, dict[str, Any]]:
    """For each centre by name, how many "patches" are from it and their "auc", None if they are of one class.

    labels (N,) of 0 and 1, scores (N,) of class 1, centres (N,).
    """
    found = {}
    for name in np.unique(centres):
        rows = centres == name
        both = len(np.unique(labels[rows])) == 2
        auc = metrics.classification_metrics(labels[rows], scores[rows])["auc"] if both else None
        found[str(name)] = {"patches": int(rows.sum()), "auc": auc}
    return found


def _left_out(study: Study, arm: Arm) -> str | None:
    """Why the profile does not fine-tune an arm in this subset, or None."""
    subsets = study.profile.classifier.subsets
    if subsets is None or study.subset in subsets or arm.id == features.GATEKEEPER_ARM:
        return None
    return f"the profile fine-tunes this arm in subsets {', '.join(map(str, subsets))} only"


def reason_not_to_run(study: Study, arm: Arm) -> str | None:
    """Why an arm cannot be trained in this subset, or None."""
    if arm.generator:
        return selection.shortage(study, arm.generator, arm.selection)
    short = REGIMES[arm.regime].real == 2 and not len(study.others)
    return "no real patches are left outside the subset" if short else None


def training_set(study: Study, arm: Arm) -> Arrays:
    """The patches an arm trains on, as `REGIMES` says; batches mix them at random."""
    regime = REGIMES[arm.regime]
    parts = []
    if regime.real:
        parts.append(study.real)
    if regime.real == 2:
        parts.append(study.other_real)
    if regime.synthetic:
        parts.append(data.load(study.synthetic(arm.generator, arm.selection), "train"))
    return Arrays(*map(np.concatenate, zip(*parts)))


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error, 0 to 1: mean gap between confidence and accuracy, over bins weighted by their size.

    labels: (N,) of 0 and 1; probabilities: (N,) of class 1; equally wide bins of the probability.
    """
    from torchmetrics.functional.classification import binary_calibration_error  # seconds

    p, y = torch.from_numpy(probabilities).double(), torch.from_numpy(labels.astype(np.int64))
    return float(binary_calibration_error(p, y, n_bins=CALIBRATION_BINS))


def _discard(arm: Arm, folder: Path) -> None:
    """Remove what nobody starts from once the arm's result stands: 90 MB of checkpoint, and most weights."""
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    if arm.regime not in STARTED_FROM | ({"baseline"} if not arm.seed else set()):
        (folder / "weights.safetensors").unlink(missing_ok=True)
