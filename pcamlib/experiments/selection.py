"""Selection while generating (§3.3): one stream of candidates per generator, from which every selection takes its patches.

Candidates are generated class by class in batches; a batch is a function of (seed, generator, class, batch number).
"none" keeps the first candidates. "realism" keeps those with R >= 1 (Eq. 11) against all real patches, "class" those with
R >= 1 against the real patches of the class that was asked for. Each stops when it has as many patches as the real data,
or when the cap on candidates is reached. Every batch is stored in a file of its own, so an interrupted selection resumes.
The PCam files are written last, because an interrupted HDF5 file cannot be read.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pcamlib import data, metrics, training
from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, read_json, write_json
from pcamlib.experiments.features import Extractor
from pcamlib.study import SELECTIONS, Study

BATCH = 64
THRESHOLD = 1.0  # a candidate passes with R >= 1 (§3.3)
SCORES_KEPT = 2000  # per selection and class, for the histogram


class Sampler(Protocol):
    """Maps labels (B,) of 0 and 1 to patches uint8 (B, 96, 96, 3). The same labels and seed give the same patches."""

    def __call__(self, labels: np.ndarray, seed: int) -> np.ndarray: ...


def manifolds(study: Study, gatekeeper: Extractor) -> dict[str, list[metrics.Manifold]]:
    """The real manifold per selection and class, in the gatekeeper's feature space, with the profile's k and pruning.

    "realism" compares with all real patches, so both classes share one manifold; "class" has one per class.
    """
    k, prune = study.profile.selection.k, study.profile.selection.prune
    features, labels = gatekeeper(study.real.images), study.real.labels
    everything = metrics.Manifold(features, k=k, prune=prune)
    return {
        "realism": [everything, everything],
        "class": [metrics.Manifold(features[labels == c], k=k, prune=prune) for c in (0, 1)],
    }


def select(study: Study, generator: str, sample: Sampler, gatekeeper: Extractor) -> dict[str, Any]:
    """Generate and select for one generator; write the three synthetic sets and results/selection-<generator>.json.

    Returns the result (schema in the file itself): per selection the counts requested, kept, seen and passed per
    class, the acceptance rate passed / seen, and whether it ended short at the cap; "scores" holds the realism of the
    candidates by selection and class, thinned out, for a histogram.
    """
    settings = study.profile.selection
    name = f"selection-{generator}"
    if (study.results / f"{name}.json").exists() and all(
        data.file(study.synthetic(generator, s), "train", "y").exists() for s in SELECTIONS
    ):
        shutil.rmtree(study.folder / "candidates" / generator, ignore_errors=True)  # a kill may have left it
        return read_json(study.results / f"{name}.json")
    gates = manifolds(study, gatekeeper)
    requested = np.bincount(study.real.labels, minlength=2)
    tally = {s: {"requested": requested.tolist(), "kept": [0, 0], "seen": [0, 0], "passed": [0, 0]} for s in SELECTIONS}
    scores: dict[str, list[list[float]]] = {s: [[], []] for s in gates}
    shards: list[list[Path]] = [[], []]
    generated = [0, 0]
    for c in (0, 1):
        cap = int(np.ceil(settings.candidates * requested[c]))
        while generated[c] < cap and any(tally[s]["kept"][c] < requested[c] for s in SELECTIONS):
            size = min(BATCH, cap - generated[c])
            path = study.folder / "candidates" / generator / f"{c}-{generated[c]:07d}.safetensors"
            wanted = {s: int(requested[c]) - tally[s]["kept"][c] for s in SELECTIONS}
            shard = _shard(path) or _make(path, c, size, wanted, study, generator, sample, gatekeeper, gates)
            shards[c].append(path)
            generated[c] += size
            for s in SELECTIONS:
                if wanted[s] <= 0:
                    continue
                tally[s]["seen"][c] += size
                tally[s]["passed"][c] += size if s == "none" else int((shard[f"{s}_score"] >= THRESHOLD).sum())
                tally[s]["kept"][c] += int(shard[f"{s}_keep"].sum())
            for s in scores:
                scores[s][c] += _stored(shard[f"{s}_score"])
    for s in SELECTIONS:
        _assemble(study.synthetic(generator, s), s, shards, study, generator, tally[s])
    result = study.write_result(
        name,
        {
            "generator": generator,
            "extractor": gatekeeper.name,
            "extractor_about": gatekeeper.about,
            "k": settings.k,
            "prune": settings.prune,
            "cap": settings.candidates,
            "candidates": int(sum(generated)),
            "selections": {s: tally[s] | _rates(s, tally[s]) for s in SELECTIONS},
            "scores": {s: [x[:: len(x) // SCORES_KEPT + 1] for x in by_class] for s, by_class in scores.items()},
        },
    )
    shutil.rmtree(study.folder / "candidates" / generator)
    return result


def _stored(scores: np.ndarray) -> list[float]:
    """Scores (N,) as they are stored: four decimals, at most 1e6, and below 1 where the score itself is below 1."""
    rounded = np.minimum(scores, 1e6).round(4)
    # R = 0.99996 was dropped; stored as 1.0 it would read as kept
    return np.where((scores < THRESHOLD) & (rounded >= THRESHOLD), 0.9999, rounded).tolist()


def _rates(selection: str, counts: dict[str, list[int]]) -> dict[str, Any]:
    rates = [p / s if s else None for p, s in zip(counts["passed"], counts["seen"])]
    return {"acceptance": None if selection == "none" else rates, "short": counts["kept"] != counts["requested"]}


def _shard(path: Path) -> dict[str, np.ndarray] | None:
    if not path.exists():
        return None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise StudyError(f"{path} is damaged ({error}): remove it and run again, this batch is made anew.") from None


def _make(
    path: Path,
    c: int,
    size: int,
    wanted: dict[str, int],
    study: Study,
    generator: str,
    sample: Sampler,
    gatekeeper: Extractor,
    gates: dict[str, list[metrics.Manifold]],
) -> dict[str, np.ndarray]:
    """One batch: scores of all candidates, which selections keep which, and the images at least one keeps."""
    labels = np.full(size, c)
    images = sample(labels, training.derive(study.seed, generator, "candidates", c, path.stem))
    features = gatekeeper(images)
    shard: dict[str, np.ndarray] = {"none_keep": np.arange(size) < wanted["none"]}
    for s, manifold in gates.items():
        shard[f"{s}_score"] = manifold[c].score(features)
        passed = shard[f"{s}_score"] >= THRESHOLD
        shard[f"{s}_keep"] = passed & (np.cumsum(passed) <= wanted[s])
    kept = np.logical_or.reduce([shard[f"{s}_keep"] for s in SELECTIONS])
    # safetensors writes a NumPy array's memory as it lies: what is not contiguous would come back scrambled
    shard["images"], shard["row"] = np.ascontiguousarray(images[kept]), np.flatnonzero(kept)
    with atomic(path) as tmp_path:
        save_file(shard, tmp_path)
    return shard


def _assemble(
    folder: Path, selection: str, shards: list[list[Path]], study: Study, generator: str, counts: dict[str, list[int]]
) -> None:
    """Write one synthetic set as a PCam train split with a card that says what it is."""
    images, labels, scores = [], [], {"realism": [], "class": []}
    for c in (0, 1):
        for path in shards[c]:
            shard = load_file(path)
            keep = shard[f"{selection}_keep"]
            images.append(shard["images"][keep[shard["row"]]])
            labels += [c] * int(keep.sum())
            for s in scores:
                scores[s] += _stored(shard[f"{s}_score"][keep])
    write_json(
        folder / "card.json",
        {
            "about": f"Synthetic patches made by {generator}, selection {selection}: no patient's tissue.",
            "provenance": study.provenance(),
            "counts": counts,
            "scores": scores,
        },
    )
    data.write(folder, "train", np.concatenate(images), np.array(labels))


def counts(study: Study, generator: str, selection: str) -> dict[str, Any]:
    """Counts of one selection (see `select`). StudyError if notebook 05 has not run for this generator."""
    path = study.need(study.results / f"selection-{generator}.json", f"05_selection.md (generator {generator})")
    return read_json(path)["selections"][selection]


def synthetic(study: Study, generator: str, selection: str) -> data.Arrays | None:
    """A synthetic set, or None when a class has no image (the arm is "not run"). StudyError as `counts`."""
    if min(counts(study, generator, selection)["kept"]) == 0:
        return None
    return data.load(study.synthetic(generator, selection), "train")
