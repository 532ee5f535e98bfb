"""The protocol of Table 2 for one subset: which classifiers are trained on what, and how they do on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pcamlib import classifier, metrics, selection, training
from pcamlib.data import Arrays
from pcamlib.store import now, read_json, write_json
from pcamlib.study import REAL, SELECTIONS, Study, name_of


class Arm(NamedTuple):
    """One classifier: its regime, where its synthetic patches come from, and whether it is our control."""

    regime: str
    generator: str | None = None
    selection: str | None = None
    control: bool = False

    @property
    def id(self) -> str:
        """Folder name: the regime, then generator and selection if any."""
        return "-".join(filter(None, (self.regime, self.generator, self.selection)))


def arms(generator: str) -> list[Arm]:
    """The arms of one notebook run: "real" has the paper's 2 and our 3 controls, each generator 3 regimes x 3 selections.

    Controls, because the paper confounds them: transfer and augmentation also take more steps than "traditional".
    """
    if generator == REAL:
        return [
            Arm("baseline"),
            Arm("traditional"),
            Arm("traditional-2x", control=True),
            Arm("transfer-real", control=True),
            Arm("double-real", control=True),
        ]
    name_of(generator)
    return [Arm(regime, generator, s) for s in SELECTIONS for regime in ("synthetic", "transfer", "augmentation")]


def evaluate(study: Study, generator: str) -> dict[str, Any]:
    """Train and test the arms of `generator`; write results/classification-<generator>.json. Finished arms are kept."""
    settings, rows = study.profile.classifier, run_arms(study, generator)
    return study.write_result(
        f"classification-{generator}",
        {
            "pretrained": settings.pretrained,
            "test_n": len(study.split("test").labels),
            "image_size": settings.image_size,
            "rows": rows,
        },
        precision=settings.precision,
        seconds=round(sum(row.get("seconds", 0) for row in rows), 1),
    )


def run_arms(study: Study, generator: str) -> list[dict[str, Any]]:
    """Train and test what is not finished of the arms of `generator`; a row each, as in the result of `evaluate`."""
    splits = {}
    for name in ("valid", "test"):
        images, labels = study.split(name)
        splits[name] = Arrays(classifier.prepare(images, study.profile.classifier.image_size), labels)  # type: ignore[arg-type]
    return [_run(study, arm, splits) for arm in arms(generator)]


def _run(study: Study, arm: Arm, splits: dict[str, Arrays]) -> dict[str, Any]:
    settings, folder = study.profile.classifier, study.folder / "classifiers" / arm.id
    result = folder / "result.json"
    if result.exists():
        _discard(arm, folder)
        return read_json(result)
    row: dict[str, Any] = {"arm": arm.id, **arm._asdict(), "status": "ok", "reason": None}
    real, extra, start, epochs, n_synthetic = study.real, None, None, settings.epochs, 0
    if arm.generator:
        extra = selection.synthetic(study, arm.generator, arm.selection)
        if extra is None:
            kept = selection.counts(study, arm.generator, arm.selection)["kept"]
            return row | {
                "status": "not run",
                "reason": f"a class has no image: kept {kept} at the candidate cap",
            }
        n_synthetic = len(extra.labels)
    if arm.regime == "double-real":
        extra = study.other_real
        if not len(extra.labels):
            return row | {"status": "not run", "reason": "no real patches are left outside the subset"}
    if arm.regime == "traditional-2x":
        epochs *= 2
    if arm.regime == "transfer":
        start = study.folder / "classifiers" / Arm("synthetic", arm.generator, arm.selection).id / "weights.safetensors"
    if arm.regime == "transfer-real":
        start = study.folder / "classifiers" / "traditional" / "weights.safetensors"
    if arm.regime == "synthetic":
        train = extra
    elif arm.regime in ("augmentation", "double-real"):
        train = joined(real, extra)
    else:
        train = real
    model, chosen, log = classifier.train(
        settings,
        train,
        splits["valid"],
        folder=folder,
        seed=study.seed,
        augmented=arm.regime != "baseline",
        epochs=epochs,
        start=start,
        identity=[study.data_sha, arm.id],
    )
    row |= {
        "threshold": classifier.THRESHOLD,
        "n_real": 0 if arm.regime == "synthetic" else len(real.labels) * (2 if arm.regime == "double-real" else 1),
        "n_synthetic": n_synthetic,
        "test_n": len(splits["test"].labels),
        "epochs": epochs,
        "steps": int(log[-1]["step"]),
        "pretrained": start.parent.name if start else settings.pretrained,
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
            valid, tested = (
                metrics.classification_metrics(splits[name].labels, scores[name], classifier.THRESHOLD)
                for name in ("valid", "test")
            )
            write_json(result, row | tested | {"valid_auc": valid["auc"]})
            _discard(arm, folder)
    return read_json(result)


def _discard(arm: Arm, folder: Path) -> None:
    """Remove what nobody starts from once the arm's result stands: 90 MB of checkpoint, and most weights."""
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    if arm.regime not in ("baseline", "traditional", "synthetic"):
        (folder / "weights.safetensors").unlink(missing_ok=True)


def joined(a: Arrays, b: Arrays) -> Arrays:
    """Two sets of patches as one; batches mix them at random."""
    return Arrays(np.concatenate([a.images, b.images]), np.concatenate([a.labels, b.labels]))
