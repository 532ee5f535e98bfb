"""Selection while generating (§3.3): one stream of candidates per generator, from which every selection takes its
patches.

Candidates are generated class by class in batches; a batch is a function of (seed, generator, class, batch number).
"none" keeps the first candidates. "realism" keeps those with R >= 1 (Eq. 11) against all real patches, "class" those
with R >= 1 against the real patches of the class that was asked for. Each stops when it has as many patches as the real
data, or when the cap on candidates is reached. Every batch is stored in a file of its own, so an interrupted selection
resumes. The PCam files are written last, because an interrupted HDF5 file cannot be read.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pcamlib import data, metrics, training
from pcamlib.core.errors import StudyError, load_error
from pcamlib.core.files import atomic, read_json, write_json
from pcamlib.experiments.features import Extractor
from pcamlib.models import generators
from pcamlib.models.generators import Sampler
from pcamlib.models.image_folder import ImageFolder
from pcamlib.study import SELECTIONS, Study

BATCH = 64
THRESHOLD = 1.0  # a candidate passes with R >= 1 (§3.3)
LEAST_SHARE = 0.5  # a set below this share of the real count says too little to be compared
SCORES_KEPT = 2000  # per selection and class, for the histogram


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


def select(study: Study, generator: str, sample: Sampler | ImageFolder, gatekeeper: Extractor) -> dict[str, Any]:
    """Generate and select for one generator; write the three synthetic sets and results/selection-<generator>.json.

    sample: makes candidates from labels and a seed, or holds images made elsewhere, which are then read in order.

    Returns the result: per selection the counts requested, kept, seen and passed per class, the acceptance rate passed
    / seen, and whether it ended short of the real count; "scores" holds the realism of the candidates by selection and
    class, thinned out, for a histogram. A finished selection is read, not repeated. Raises StudyError if it was made
    from other images than the folder holds now.
    """
    settings = study.profile.selection
    name = f"selection-{generator}"
    images = {"about": sample.about, "sha": sample.sha} if isinstance(sample, ImageFolder) else None
    shard_folder = study.folder / "candidates" / generator
    if images:
        shard_folder /= images["sha"]  # what an interrupted run scored of other images is not mixed with these
    if (study.results / f"{name}.json").exists() and all(
        data.file(study.synthetic(generator, s), "train", "y").exists() for s in SELECTIONS
    ):
        shutil.rmtree(study.folder / "candidates" / generator, ignore_errors=True)  # a kill may have left it
        found = read_json(study.results / f"{name}.json")
        if images and found.get("images", {}).get("sha") != images["sha"]:
            raise StudyError(
                f"{study.results / name}.json was made from other images than {sample.folder} holds now: list the new"
                " images under another name, or choose another runs_dir."
            )
        return found
    gates = manifolds(study, gatekeeper)
    requested = np.bincount(study.real.labels, minlength=2)
    tally = {s: {"requested": requested.tolist(), "kept": [0, 0], "seen": [0, 0], "passed": [0, 0]} for s in SELECTIONS}
    scores: dict[str, list[list[float]]] = {s: [[], []] for s in gates}
    shards: list[list[Path]] = [[], []]
    generated = [0, 0]
    for c in (0, 1):
        cap = int(np.ceil(settings.candidates * requested[c]))
        if isinstance(sample, ImageFolder):
            cap = min(cap, sample.counts[c])
        while generated[c] < cap and any(tally[s]["kept"][c] < requested[c] for s in SELECTIONS):
            size = min(BATCH, cap - generated[c])
            path = shard_folder / f"{c}-{generated[c]:07d}.safetensors"
            wanted = {s: int(requested[c]) - tally[s]["kept"][c] for s in SELECTIONS}
            shard = _shard(path) or _make(
                path, c, generated[c], size, wanted, study, generator, sample, gatekeeper, gates
            )
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
        }
        | ({"images": images} if images else {}),
        precision=_precision(study, generator),
    )
    shutil.rmtree(study.folder / "candidates" / generator)
    return result


def _precision(study: Study, generator: str) -> str:
    """The precision in which a generator draws patches, as in its profile."""
    known = generators.REGISTRY.get(generator)
    return study.profile.diffusion.sampling_precision if known and known.section == "diffusion" else "fp32"


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
    except (SafetensorError, OSError) as error:
        raise load_error(path, error, "remove it and run again, this batch is made anew") from None


def _make(
    path: Path,
    c: int,
    start: int,
    size: int,
    wanted: dict[str, int],
    study: Study,
    generator: str,
    sample: Sampler | ImageFolder,
    gatekeeper: Extractor,
    gates: dict[str, list[metrics.Manifold]],
) -> dict[str, np.ndarray]:
    """One batch: scores of all candidates, which selections keep which, and the images at least one keeps."""
    if isinstance(sample, ImageFolder):
        images = sample.take(c, start, size)
    else:
        images = sample(np.full(size, c), training.derive(study.seed, generator, "candidates", c, path.stem))
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
            "provenance": study.provenance(_precision(study, generator)),
            "counts": counts,
            "scores": scores,
        },
    )
    data.write(folder, "train", np.concatenate(images), np.array(labels))


def examples(scores: np.ndarray, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Rows of at most `count` patches that pass with these scores (N,), the last ones, and of those that score lowest
    among the rest."""
    dropped = np.argsort(scores)[:count]
    return np.flatnonzero(scores >= THRESHOLD)[-count:], dropped[scores[dropped] < THRESHOLD]


def _result(study: Study, generator: str) -> dict[str, Any]:
    path = study.need(study.results / f"selection-{generator}.json", f"05_selection.md (generator {generator})")
    return read_json(path)


def counts(study: Study, generator: str, selection: str) -> dict[str, Any]:
    """Counts of one selection (see `select`). StudyError if notebook 05 has not run for this generator."""
    return _result(study, generator)["selections"][selection]


def made_elsewhere(study: Study, generator: str) -> bool:
    """Whether a generator is a folder of images. StudyError as `counts`."""
    return "images" in _result(study, generator)


def shortage(study: Study, generator: str, selection: str, least: float = 0.0) -> str | None:
    """Why a synthetic set cannot be used ("not run"), or None if it can. StudyError as `counts`.

    A set needs images of both classes, and at least a share `least` of what was asked for in each. Of a folder of
    images made elsewhere it is LEAST_SHARE in any case, because no more of them can be drawn.
    """
    found = _result(study, generator)
    kept, requested = (found["selections"][selection][key] for key in ("kept", "requested"))
    share = min(np.divide(kept, requested))
    if "images" in found and share < max(least, LEAST_SHARE):
        return f"too few images: kept {kept} of {requested} from {found['images']['about']}"
    if share < least:
        return f"kept {sum(kept)} of {sum(requested)} at the candidate cap"
    return f"a class has no image: kept {kept} at the candidate cap" if share == 0 else None


def synthetic(study: Study, generator: str, selection: str) -> data.Arrays | None:
    """A synthetic set, or None if there is a `shortage` (the arm is "not run"). StudyError as `counts`."""
    if shortage(study, generator, selection):
        return None
    return data.load(study.synthetic(generator, selection), "train")
