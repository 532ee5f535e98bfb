"""Result files as the notebooks write them, with made-up numbers that are easy to check by hand."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pcamlib.core import paper, strict_yaml
from pcamlib.core.files import read_json, write_json
from pcamlib.core.settings import load_profile
from pcamlib.results import frame
from pcamlib.results.arms import JUDGED, PROBED, Arm, of_source
from pcamlib.results.published import published_folder

JUDGES = ("judge-a", "judge-b")


def provenance(subset: int, **other: Any) -> dict[str, Any]:
    """The scale of one file; 10 s each."""
    return {
        "data": "phantom",
        "phantom": True,
        "classes": ["no tumour", "tumour"],
        "data_sha": "d0",
        "profile": "demo",
        "profile_sha": "p0",
        "subset": subset,
        "seed": subset,
        "n_real": 256,
        "device": "cpu",
        "threads": 1,
        "processor": "a processor",
        "precision": "fp32",
        "seconds": 10.0,
        "version": "0.1.0+abc",
        "torch": "2",
        "created": "2026-01-01T00:00:00+00:00",
    } | other


def fid(generator: str, selection: str | None, subset: int) -> float:
    """HistoGAN 100, U-Net 50, DiT 40, real 2, autoencoder 10; selections add 5 and 6; subset k adds k."""
    base = {"histogan": 100.0, "unet": 50.0, "dit": 40.0, "real": 2.0, "autoencoder": 10.0}[generator]
    return base + {None: 0, "none": 0, "realism": 5, "class": 6}[selection] + subset


def auc(regime: str, generator: str | None, selection: str | None, subset: int) -> float:
    """Baseline 0.80, traditional 0.85, arms around it; subset k adds 0.01 k."""
    base = {
        "baseline": 0.80,
        "traditional": 0.85,
        "traditional-2x": 0.86,
        "transfer-real": 0.855,
        "double-real": 0.90,
        "pseudo-label": 0.865,
        "pseudo-label-pool": 0.87,
        "synthetic": 0.70,
        "augmentation": 0.84,
        "transfer": 0.86,
        "colour": 0.78,
        "texture": 0.76,
        "colour-texture": 0.79,
        "random-features": 0.75,
        "shuffled-labels": 0.50,
        **dict.fromkeys(paper.STRONG, 0.855),
    }[regime]
    bonus = {None: 0, "histogan": -0.03, "unet": 0.01, "dit": 0.0}[generator]
    return base + bonus + {None: 0, "none": 0, "realism": 0.004, "class": 0.002}[selection] + 0.01 * subset


def quality_row(generator: str, selection: str | None, judge: str, subset: int) -> dict[str, Any]:
    """Judge b has ten times the FID of judge a."""
    return {
        "generator": generator,
        "selection": selection,
        "extractor": judge,
        "status": "ok",
        "reason": None,
        "fid": fid(generator, selection, subset) * (10 if judge == "judge-b" else 1),
        "precision": 0.5,
        "recall": 0.25,
        "f1": 1 / 3,
        "label_auc": 0.75,
        "kid": 0.0125,
        "kid_se": 0.0003,
        "kid_size": 125,
        "density": 1.1,
        "coverage": 0.9,
        "n_real": 256,
        "n_fake": 250,
        "k": 3,
    }


def memorisation_row(generator: str, selection: str | None) -> dict[str, Any]:
    """Only reconstructions are copies."""
    copied = generator == "autoencoder"
    return {
        "generator": generator,
        "selection": selection,
        "extractor": "judge-a",
        "status": "ok",
        "reason": None,
        "n_fake": 250,
        "n_train": 256,
        "n_new": 256,
        "nearer_train": 0.98 if copied else 0.51,
        "nearer_train_expected": 0.5,
        "nearer_train_p": 1e-9 if copied else 0.4,
        "closer_than_new": 0.99 if copied else 0.3,
        "closer_than_new_p": 1e-9 if copied else 1.0,
        "least_ratio": 0.1 if copied else 0.8,
    }


def label_content_row(generator: str) -> dict[str, Any]:
    """What generators draw teaches less at full size than at half."""
    made = generator not in ("real", "autoencoder")
    row = {"generator": generator, "status": "ok", "reason": None, "n": 250, "colour": 0.7, "half": 0.8}
    return row | {"full": 0.75 if made else 0.9, "apart_half": 0.6, "apart_full": 0.95 if made else 0.55}


def known_labels_row(c: int | None) -> dict[str, Any]:
    """Class 1 passes less often."""
    right = {0: 0.9, 1: 0.7, None: 0.8}[c]
    shares = {"right": right, "wrong": 0.2, "realism": 0.85, "kept_right": right / (right + 0.2)}
    return {"class": c, "n": 256 if c is None else 128} | shares


def arm_row(regime: str, generator: str | None, selection: str | None, subset: int) -> dict[str, Any]:
    """Validation AUC falls where test AUC rises, so that a choice on test would be another one."""
    value = auc(regime, generator, selection, subset)
    return {
        "arm": "-".join(filter(None, (regime, generator, selection))),
        "generator": generator,
        "selection": selection,
        "regime": regime,
        "control": Arm(regime, generator, selection).control,
        "status": "ok",
        "reason": None,
        "accuracy": 0.75,
        "auc": value,
        "sensitivity": 0.7,
        "specificity": 0.8,
        "ece": 0.05,
        "seed": 0,
        "valid_auc": 1.5 - value,
        "train_loss": 0.3,
        "threshold": 0.5,
        "n_real": 0 if regime == "synthetic" else 256,
        "n_synthetic": 256 if generator else 0,
        "epochs": 5,
        "steps": 80,
        "seconds": 3.0,
        "test_n": 1024,
        "chosen_epoch": 5,
        "model_choice": "last",
    }


def probe_row(regime: str, generator: str | None, selection: str | None, subset: int) -> dict[str, Any]:
    """Two points above the fine-tuned network; a regression has no steps to double."""
    row = arm_row(regime, generator, selection, subset)
    row = {key: value for key, value in row.items() if key not in ("epochs", "steps", "chosen_epoch")}
    if regime == "traditional-2x":
        kept = ("arm", "generator", "selection", "regime", "control", "seed")
        return {key: row[key] for key in kept} | {"status": "not run", "reason": "a regression has no steps"}
    return row | {"auc": row["auc"] + 0.02, "valid_auc": row["valid_auc"] - 0.02}


def write_run(root: Path, subsets: int = 2) -> Path:
    """A complete run: every file of every subset."""
    for k in range(subsets):
        results = root / f"subset-{k}" / "results"
        rows = [quality_row(generator, selection, judge, k) for judge in JUDGES for generator, selection in JUDGED]
        for generator in ("autoencoder", *paper.GENERATORS):
            write_json(
                results / f"{generator}.json",
                {"provenance": provenance(k), "log": [{"epoch": 1, "images": 1000, "loss": 0.5}]},
            )
        judges = {name: f"about {name}" for name in JUDGES}
        write_json(results / "quality.json", {"provenance": provenance(k), "judge": judges, "rows": rows})
        write_json(
            results / "memorisation.json",
            {"provenance": provenance(k), "judge": judges, "rows": [memorisation_row(*images) for images in JUDGED]},
        )
        rows = [label_content_row(generator) for generator in ("real", "autoencoder", *paper.GENERATORS)]
        about = {"network": "a frozen network", "half_px": 48, "test_n": 1024}
        write_json(results / "label-content.json", {"provenance": provenance(k), **about, "rows": rows})
        about = {"extractor": "gatekeeper", "extractor_about": "a gate", "k": 3, "unseen": "rows", "copies_left_out": 0}
        rows = [known_labels_row(c) for c in (0, 1, None)]
        write_json(results / "known-labels.json", {"provenance": provenance(k), **about, "rows": rows})
        real = [arm_row(arm.regime, None, None, k) for arm in of_source(None)]
        write_json(results / "classification-real.json", {"provenance": provenance(k), "rows": real})
        probes = [probe_row(arm.regime, None, None, k) for arm in PROBED]
        write_json(results / "probe-real.json", {"provenance": provenance(k), "rows": probes})
        for generator in paper.GENERATORS:
            rows = [
                arm_row(regime, generator, selection, k)
                for selection in paper.SELECTIONS
                for regime in ("synthetic", "transfer", "augmentation")
            ]
            write_json(results / f"classification-{generator}.json", {"provenance": provenance(k), "rows": rows})
            probes = [probe_row(row["regime"], generator, row["selection"], k) for row in rows]
            write_json(results / f"probe-{generator}.json", {"provenance": provenance(k), "rows": probes})
            counts = {"requested": [128, 128], "kept": [128, 128], "seen": [200, 300], "passed": [150, 128]}
            selections = {
                s: counts | {"acceptance": None if s == "none" else [0.75, 0.43], "short": False}
                for s in paper.SELECTIONS
            }
            write_json(
                results / f"selection-{generator}.json",
                {
                    "provenance": provenance(k),
                    "generator": generator,
                    "extractor": "gatekeeper",
                    "k": 3,
                    "cap": 4.0,
                    "candidates": 500,
                    "selections": selections,
                    "scores": {"realism": [[0.9], [1.1]], "class": [[0.8], [1.2]]},
                },
            )
    return root


WORTH = {"histogan": -0.25, "unet": 0.5, "dit": 0.25}
"""Real patches that a synthetic one of `write_curves` is worth, at the subset's size and any ratio."""


def curve(n: float, subset: int) -> float:
    """AUC after n real patches: two points for every doubling, and the level of the subset."""
    return 0.85 + 0.02 * math.log2(n / 256) + 0.01 * subset


def write_curves(root: Path, subsets: int = 2) -> None:
    """Files of curves for the made-up run, beside its 256 real patches; DiT lacks patches for the last point."""
    for k in range(subsets):
        points = {None: [(n, 0, "ok") for n in (64, 128, 256, 512, 1024)]}
        points |= {g: [(256, m, "ok") for m in (128, 256, 512)] for g in WORTH}
        points["dit"][2] = (256, 512, "not run")
        for generator, found in points.items():
            rows = []
            for n, m, status in found:
                row = {"regime": f"{n}+{m}", "generator": generator, "selection": generator and "none", "n_real": n}
                row |= {"n_synthetic": m, "status": status, "reason": None if status == "ok" else "no patches"}
                worth = n + m * WORTH.get(generator, 0)
                numbers = {"auc_curve": curve(worth, k), "valid_auc": 0.9, "strength": 1.0}
                rows.append(row | (numbers if status == "ok" else {}))
            content = {"provenance": provenance(k), "network": "a network", "test_n": 1024, "rows": rows}
            write_json(root / f"subset-{k}" / "results" / f"curves-{generator or 'real'}.json", content)


def edit(path: Path, change: Any) -> Path:
    """Rewrite a result file after `change(content)`."""
    content = read_json(path)
    change(content)
    write_json(path, content)
    return path


def not_run(path: Path, **where: Any) -> None:
    """Turn the rows of a file that match `where` into "not run" rows, without numbers, as notebooks do."""

    def change(content: dict[str, Any]) -> None:
        keep = ("arm", "generator", "selection", "regime", "control", "extractor")
        matching = [i for i, row in enumerate(content["rows"]) if where.items() <= row.items()]
        assert matching
        for i in matching:
            row = {key: value for key, value in content["rows"][i].items() if key in keep}
            content["rows"][i] = row | {"status": "not run", "reason": "kept 3 of 256"}

    edit(path, change)


def measured(values: Mapping[Arm, Sequence[float | None]], metric: str = "auc", **columns: Any) -> pd.DataFrame:
    """Results with one value per subset for each arm; None is "not run". Quality is by one judge."""
    lines = []
    for arm, by_subset in values.items():
        kind = arm.regime if arm.regime in frame.METRICS else "classification"
        line = provenance(0) | {
            "kind": kind,
            "arm": arm.name,
            **arm._asdict(),
            "control": arm.control,
            "metric": metric,
        }
        line |= {"file": f"{kind}.json", "subset_size": 256, "class_0": "no tumour", "class_1": "tumour"} | columns
        line |= {"extractor": "judge-a", "judge": "about judge-a"} if kind == "quality" else {}
        for subset, value in enumerate(by_subset):
            status = "not run" if value is None else "ok"
            file = f"subset-{subset}/results/{kind}.json"
            lines.append(line | {"subset": subset, "value": value, "status": status, "file": file})
    return frame.tidy(lines)


def registration(**changes: Any) -> dict[str, Any]:
    """A registration, as in plan.yml, of three subsets of the made-up run, with everything measured in all of them."""
    found = strict_yaml.load(published_folder() / "plan.yml")
    found |= {"registered": datetime.date(2026, 1, 1), "run": "made-up", "profile": "demo"}
    found |= {"subsets": {"count": 3, "size": 256}, "departures": []}
    found["data"] |= {"name": "procedural patches, no tissue", "test": 1024}
    for device in found["devices"].values():
        device["subsets"] = [0, 1, 2]
    return found | changes


def registered(results: pd.DataFrame) -> pd.DataFrame:
    """Results of the made-up run as if it had the settings that `registration` names."""
    return results.assign(profile_sha=load_profile("demo").sha)
