"""Intervals of every arm from the kept test scores, over subsets, seeds and test patches (see `nested`).

Where the data set says which slide a patch is from, patches of a slide are taken together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from pcamlib import data
from pcamlib.core.errors import loading_weights
from pcamlib.core.files import write_json
from pcamlib.results import clusters, frame
from pcamlib.results.arms import AGAIN, BASELINE, TRADITIONAL, TWICE, Arm
from pcamlib.results.inference import RESOLUTION, SCORES, false_discovery
from pcamlib.results.nested import nested_interval
from pcamlib.results.planning import Scores, power_table
from pcamlib.study import Study

REFERENCES = (BASELINE, TRADITIONAL, TWICE, AGAIN)
TOO_NARROW = (
    "Test patches count as independent. Those of one slide are not, and this data set does not say which slide a patch"
    " is from, so intervals and p values are too narrow."
)


def compare(labels: np.ndarray, scores: Scores, groups: np.ndarray | None = None) -> dict[Arm, dict[str, Any]]:
    """Each arm's AUC and its differences to REFERENCES, with `nested_interval` over the subsets that both have.

    labels: (N,) of 0 and 1; groups: (N,) slide ids, or None. Returns, by arm: "auc" and the name of each reference,
    each with "mean", "low", "high" (95 %) and "p" (two-sided, of zero; None for "auc" and with one subset), all in
    fractions, and how many "subsets" and "seeds" (fewest and most) there were. A reference that did not run gives None.
    A standard error below RESOLUTION is printed as 0.00 and is no certainty: "low", "high" and "p" are then None.
    """
    found = {}
    for arm, by_subset in scores.items():
        seeds = [len(runs) for runs in by_subset.values()]
        found[arm] = {"auc": _line(labels, by_subset, None, groups), "subsets": len(by_subset)}
        found[arm] |= {"seeds": [min(seeds), max(seeds)]}
        for reference in REFERENCES:
            there = reference in scores and arm != reference
            found[arm][reference.name] = _line(labels, by_subset, scores[reference], groups) if there else None
    return found


def _line(
    labels: np.ndarray,
    scores: dict[int, list[np.ndarray]],
    reference: dict[int, list[np.ndarray]] | None,
    groups: np.ndarray | None,
) -> dict[str, float | None] | None:
    common = sorted(set(scores) & set(scores if reference is None else reference))
    if not common:
        return None
    other = None if reference is None else [np.stack(reference[k]) for k in common]
    found = nested_interval(labels, [np.stack(scores[k]) for k in common], other, groups=groups)
    if found.error < RESOLUTION:
        return {"mean": found.mean, "low": None, "high": None, "p": None}
    return {"mean": found.mean, "low": found.low, "high": found.high, "p": None if reference is None else found.p}


def saved_scores(study: Study, results: pd.DataFrame) -> Scores:
    """The test scores kept beside the classifiers or probes of a run folder; StudyError for a damaged file.

    Arms whose scores were removed, or that keep none, are left out and have no interval.
    """
    found: Scores = {}
    for path, line in score_files(study.root, results):
        with loading_weights(path, f"remove {path.parent} and run notebook 07 again"):
            scores = load_file(path)["test"]
        arm = frame.arm_of(line)._replace(seed=0)
        found.setdefault(arm, {}).setdefault(line.subset, []).append(scores)
    return found


def score_files(run: Path, results: pd.DataFrame) -> list[tuple[Path, Any]]:
    """The files of test scores that exist for the arms of one device (see `frame.by_device`), each with a line of
    results."""
    ran = frame.of_kind(results, "classification").drop_duplicates(["subset", "arm", "seed"])
    found = []
    for line in ran.itertuples():
        folder = "probes" if Path(line.file).name.startswith("probe-") else "classifiers"
        path = run / f"subset-{line.subset}" / folder / frame.arm_of(line).id / SCORES
        if path.exists():
            found.append((path, line))
    return found


def path_of(run: Path, subsets: int, device: str) -> Path:
    """Where `evaluate` writes: <run>/results/intervals-<subsets>.json, for probes intervals-probe-<subsets>.json."""
    return run / "results" / f"intervals-{'probe-' * (device == 'probe')}{subsets}.json"


def evaluate(study: Study, results: pd.DataFrame, subsets: int) -> dict[str, Any] | None:
    """The intervals of a run as one device measured it, written to `path_of` and returned; None if no scores were kept.

    results: of one device (see `frame.by_device`). "rows" has one entry per arm: "regime", "generator", "selection",
    what `compare` returns for it, and in each reference the p value adjusted within its family of arms ("q"; None where
    there is no p). "slides": how many, None where the data set does not say or a class has fewer than two. "groups": a
    number from 0 for the slide of every test patch, or None. "power": the rows of `planning.power_table`. "design":
    what slides do to each arm, see `designs`; None without slides.
    """
    path = path_of(study.root, subsets, "probe" if frame.is_probe(results) else "classification")
    scores = saved_scores(study, results)
    if not scores:
        path.unlink(missing_ok=True)  # of results that were there before
        return None
    labels, groups = data.labels(study.data_root, "test"), data.groups(study.data_root, "test")
    result = assemble(labels, scores, groups, frame.merged_provenance(results))
    write_json(path, result)
    return result


def assemble(
    labels: np.ndarray, scores: Scores, groups: np.ndarray | None, provenance: dict[str, Any]
) -> dict[str, Any]:
    """What `evaluate` writes, from scores in memory."""
    if groups is not None and min(len(np.unique(groups[labels == c])) for c in (0, 1)) < 2:
        groups = None
    found = compare(labels, scores, groups)
    for reference in REFERENCES:
        rows = {arm: row[reference.name] for arm, row in found.items() if row[reference.name]}
        adjusted = false_discovery({arm: row["p"] for arm, row in rows.items() if row["p"] is not None})
        for arm, row in rows.items():
            row["q"] = adjusted.get(arm)
    power = power_table(labels, scores, groups)
    return {
        "provenance": provenance,
        "test_n": len(labels),
        "slides": None if groups is None else len(np.unique(groups)),
        "groups": None if groups is None else clusters.codes_of(groups, len(labels)).tolist(),
        "design": None if groups is None else designs(labels, scores, groups),
        "power": [{"arm": arm, **row} for arm, row in power.astype(object).where(power.notna(), None).T.items()],
        "rows": [dict(zip(("regime", "generator", "selection"), arm)) | row for arm, row in found.items()],
    }


def designs(labels: np.ndarray, scores: Scores, groups: np.ndarray) -> list[dict[str, Any]]:
    """For each arm, what slides do to its AUC ("auc") and to its difference to TRADITIONAL (None for itself or without
    it).

    labels (N,), groups (N,) slide ids. Both have "icc", "effect" and "effective" of `clusters.design`, means over
    subsets and seeds ("effective" None where slides cancel out); a difference takes the traditional run of the same
    subset with its first seed.
    """

    def mean(runs: list[clusters.Design]) -> dict[str, float | None]:
        icc, effect = (float(np.mean([getattr(run, key) for run in runs])) for key in ("icc", "effect"))
        return {"icc": icc, "effect": effect, "effective": len(labels) / effect if effect else None}

    found, reference = [], scores.get(TRADITIONAL, {})
    for arm, by_subset in scores.items():
        runs = [clusters.design(labels, s, groups=groups) for seeds in by_subset.values() for s in seeds]
        pairs = [(s, reference[k][0]) for k, seeds in by_subset.items() if k in reference for s in seeds]
        pairs = [pair for pair in pairs if arm != TRADITIONAL and not np.array_equal(*pair)]
        against = [clusters.design(labels, s, groups=groups, reference=other) for s, other in pairs]
        row = {"arm": arm.name, "auc": mean(runs), TRADITIONAL.name: mean(against) if against else None}
        found.append(dict(zip(("regime", "generator", "selection"), arm)) | row)
    return found


def table(result: dict[str, Any] | None, key: str) -> pd.DataFrame:
    """From a result of `evaluate`, by arm (`Arm.name`): mean, low, high, p and q of its "auc", or of its difference to
    one of REFERENCES by name. low and high are NaN where there is no spread; empty without a result."""
    rows = [row for row in (result["rows"] if result else []) if row.get(key)]
    names = [Arm(row["regime"], row["generator"], row["selection"]).name for row in rows]
    columns = ["mean", "low", "high", "p", "q"]
    return pd.DataFrame([row[key] for row in rows], index=names, columns=columns, dtype="float64")


def caution(result: dict[str, Any] | None) -> str:
    """One sentence: whether patches of a slide were taken together."""
    if result and result.get("slides"):
        return f"Test patches are taken together by slide ({result['slides']:,} slides)."
    return TOO_NARROW
