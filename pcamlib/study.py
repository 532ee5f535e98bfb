"""One study at one scale: which data, which profile, which subset, where results go, what every number carries."""

from __future__ import annotations

import dataclasses
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg  # noqa: F401  (its BLAS is not NumPy's, and only a loaded one can be pinned)
import torch
from threadpoolctl import threadpool_limits

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.core.files import code_version, digest, lock, now, processor, read_json, resolve, write_json
from pcamlib.core.paper import GENERATORS, SELECTIONS  # noqa: F401  (the one list of each)
from pcamlib.core.precision import number_format
from pcamlib.core.settings import Profile, load_profile, resolve_parameter
from pcamlib.data import phantom
from pcamlib.data.names import check_name

REAL = "real"  # where a generator is asked for: real patches only


@dataclasses.dataclass(frozen=True)
class Study:
    """An opened study: see `open_study`. Paths are absolute; row numbers refer to the train split."""

    data_root: Path
    data: str
    data_sha: str
    profile: Profile
    subset: int
    root: Path
    rows: np.ndarray
    others: np.ndarray
    judge_rows: np.ndarray
    pool_rows: np.ndarray
    opened: float

    @property
    def folder(self) -> Path:
        """The subset's folder, runs/<data>-<profile>/subset-<k>."""
        return self.root / f"subset-{self.subset}"

    @property
    def results(self) -> Path:
        """Where the subset's result files (JSON) lie."""
        return self.folder / "results"

    @property
    def seed(self) -> int:
        """Seed of this subset: the profile's seed and the subset number, mixed."""
        return self.profile.seed * 1000 + self.subset

    @cached_property
    def real(self) -> data.Arrays:
        """The subset's patches: images uint8 (N, 96, 96, 3), labels uint8 (N,)."""
        return data.load(self.data_root, "train", self.rows)

    @cached_property
    def other_real(self) -> data.Arrays:
        """As many real train patches outside this subset, unseen by judge and generators (empty if there are too
        few)."""
        return data.load(self.data_root, "train", self.others)

    def split(self, name: str) -> data.Arrays:
        """The whole "valid" or "test" split."""
        return data.load(self.data_root, name)

    @cached_property
    def test_centres(self) -> np.ndarray | None:
        """Centre (hospital or scanner) of each test patch, str (N,); None if the data do not say."""
        return data.centres(self.data_root, "test")

    def synthetic(self, generator: str, selection: str) -> Path:
        """Folder of a synthetic set, itself a PCam train split."""
        return self.folder / "synthetic" / f"{generator}-{selection}"

    def provenance(self, precision: str = "fp32", **extra: Any) -> dict[str, Any]:
        """What every number must carry: data, profile, subset, seed, counts, machine, threads, seconds, versions."""
        return {
            "data": self.data,
            "data_sha": self.data_sha,
            "phantom": (self.data_root / data.PHANTOM).exists(),
            "classes": list(data.classes(self.data_root)),
            "profile": self.profile.name,
            "profile_sha": self.profile.sha,
            "subset": self.subset,
            "seed": self.seed,
            "n_real": len(self.rows),
            "subsets_by": self.profile.subsets.by,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "precision": number_format(precision),
            "seconds": round(time.monotonic() - self.opened, 1),
            "version": code_version(),
            "torch": torch.__version__,
            "created": now(),
        } | extra

    def write_result(self, name: str, value: dict[str, Any], **provenance: Any) -> dict[str, Any]:
        """Write results/<name>.json with the scale of this run in front; returns what was written."""
        value = {"provenance": self.provenance(**provenance)} | value
        write_json(self.results / f"{name}.json", value)
        return value

    def need(self, path: Path, notebook: str) -> Path:
        """`path` if it exists, else a StudyError that names the notebook to run first."""
        if not path.exists():
            raise StudyError(f"{path} is missing: run notebooks/{notebook} for subset {self.subset} first.")
        return path


def open_study(*, data_root: str, runs_dir: str, profile: str, subset: int) -> Study:
    """Open (and on first use lay out) the run folder runs_dir/<data>-<profile> for one subset.

    data_root
        Folder of PCam files, or "phantom": the phantom of the profile's size, made under data/ if it is not there.
    profile
        Name of a profile or path of a YAML file.
    subset
        0 .. profile.subsets.count - 1.

    Pins torch and BLAS to the profile's thread count: results differ between counts. The first opening reads every
    patch, later ones only if the files changed. Raises StudyError for a parameter of the wrong type, bad data, an
    unknown profile, a subset out of range, a subset or split with too few (different) patches of a class, subsets of
    slides where these are not known or too large, or a run folder made from other data or another profile.
    """
    opened = time.monotonic()
    settings = load_profile(profile)
    torch.set_num_threads(settings.threads)
    threadpool_limits(settings.threads)
    if not isinstance(subset, int) or isinstance(subset, bool) or not 0 <= subset < settings.subsets.count:
        raise StudyError(
            f"subset {subset!r} is out of range: profile {settings.name!r} has subsets 0 to"
            f" {settings.subsets.count - 1}."
        )
    if data_root == "phantom":
        p = settings.phantom
        root = resolve(f"data/phantom-v{phantom.VERSION}-{p.train}-{p.valid}-{p.test}-{p.seed}")
        with lock(root, wait=True):
            phantom.write(root, train=p.train, valid=p.valid, test=p.test, seed=p.seed)
        name = "phantom"
    else:
        root = resolve_parameter("data_root", data_root)
        name = root.name
        if not root.is_dir() or not name:
            raise StudyError(f'data_root {root} is not a folder: give a folder of PCam files, or "phantom".')
        check_name(name, "data_root: the folder's name")
    labels = {split: data.labels(root, split) for split in data.SPLITS}
    slides = data.groups(root, "train") if settings.subsets.by == "slide" else None
    parts = _subsets(labels["train"], slides, settings, root)
    _require(labels, parts, settings, root)
    judge_rows, others, pool_rows = _outside(labels["train"], parts, subset, settings)
    run = resolve_parameter("runs_dir", runs_dir) / f"{name}-{settings.name}"
    if any(sign in str(run) for sign in "{}\n"):
        raise StudyError(
            f"{str(run)!r} has a brace or a line break, which Snakemake would read as a pattern: rename the folder."
        )
    identity = {"data": name, "data_sha": "", "profile": settings.name, "profile_sha": settings.sha}
    if slides is not None:
        identity["slides_sha"] = digest(slides.tolist())
    try:
        with lock(run / ".claim", wait=True):
            identity["data_sha"] = sha = _fingerprint(run, root, labels, parts, settings)
            _claim(run, identity, settings, parts, labels["train"], slides)
    except OSError as error:
        raise StudyError(f"{run} cannot be written ({error.strerror or error}): choose another runs_dir.") from None
    return Study(root, name, sha, settings, subset, run, parts[subset], others, judge_rows, pool_rows, opened)


def _subsets(labels: np.ndarray, slides: np.ndarray | None, settings: Profile, root: Path) -> list[np.ndarray]:
    """The subsets' rows, of patches or of whole slides as the profile says."""
    s = settings.subsets
    if s.by == "patch":
        return data.subsets(labels, n=s.count, fraction=s.fraction, size=s.size, seed=s.seed)
    if slides is None:
        raise StudyError(
            f"profile {settings.name!r} draws subsets by slide, but {data.groups_file(root, 'train')} does not exist:"
            " write it (header group, one line per patch), convert with --group-from, or set subsets.by to patch."
        )
    return data.slide_subsets(labels, slides, n=s.count, fraction=s.fraction, size=s.size, seed=s.seed)


def _outside(
    labels: np.ndarray, parts: list[np.ndarray], subset: int, settings: Profile
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows for the judge (outside every subset), as many others as the subset has (outside it and the judge), and the
    pool.

    The first two are empty when there are not enough rows. The pool is all that is outside every subset and the judge.
    Where generators learn from it, the others are from other subsets only: they serve as patches that no generator has
    seen.
    """

    def draw(pool: np.ndarray, size: int, seed: int) -> np.ndarray:
        try:
            return pool[data.subsets(labels[pool], n=1, size=size, seed=seed)[0]] if len(pool) else pool
        except StudyError:
            return pool[:0]

    reserve = np.setdiff1d(np.arange(len(labels)), np.concatenate(parts))
    judge = draw(reserve, settings.quality.judge.size, settings.subsets.seed + 1)
    free = np.setdiff1d(np.arange(len(labels)), np.concatenate([parts[subset], judge]))
    pool = np.setdiff1d(reserve, judge)
    if settings.pool is not None:
        free = np.setdiff1d(free, pool)
    others = draw(free, len(parts[subset]), settings.subsets.seed + 2 + subset)
    return judge, others, pool


def _require(
    labels: dict[str, np.ndarray],
    parts: list[np.ndarray],
    settings: Profile,
    root: Path,
    keys: dict[str, list[bytes | None]] | None = None,
) -> None:
    """Raise StudyError unless every subset and split has k + 1 patches of each class, which k nearest neighbours need.

    With the `keys` of `data.scan` only different patches count that are not of one colour.
    """
    least = max(settings.selection.k, settings.quality.k) + 1
    what = "patches" if keys is None else "different patches of more than one colour"
    named = [(f"subset {k} of the train split", "train", rows) for k, rows in enumerate(parts)]
    named += [(f"the {split} split", split, np.arange(len(labels[split]))) for split in ("valid", "test")]
    for name, split, rows in named:
        for c, of_class in enumerate(data.classes(root)):
            found = rows[labels[split][rows] == c]
            count = len(found) if keys is None else len({keys[split][row] for row in found} - {None})
            if count < least:
                raise StudyError(
                    f"{root}: {name} has {count} {what} of class {c} ({of_class}); the study needs at least {least} of"
                    f" each class (k = {least - 1} neighbours and the patch itself): add patches or choose larger"
                    " subsets."
                )


def _fingerprint(
    run: Path, root: Path, labels: dict[str, np.ndarray], parts: list[np.ndarray], settings: Profile
) -> str:
    """The data's fingerprint, kept in the run folder until one of the files changes: reading PCam takes minutes.

    Raises StudyError if subsets or splits have too few different patches, or if the files change while they are read.
    """
    path = run / "data.json"
    now_there = {"root": digest(str(root)), "files": data.stamps(root)}
    held = read_json(path) if path.exists() else None
    if isinstance(held, dict) and held == now_there | {"fingerprint": held.get("fingerprint")}:
        return held["fingerprint"]
    sha, keys = data.scan(root)
    _require(labels, parts, settings, root, keys)
    if data.stamps(root) != now_there["files"]:
        raise StudyError(f"{root} was changed while it was read: wait until the files are complete, and run again.")
    write_json(path, now_there | {"fingerprint": sha})
    return sha


def _claim(
    run: Path, identity: dict, settings: Profile, parts: list[np.ndarray], labels: np.ndarray, slides: np.ndarray | None
) -> None:
    """Write study.json and subsets.json once; refuse a folder that another study made."""
    path = run / "study.json"
    if path.exists():
        held = read_json(path)
        for key, value in identity.items():
            if held.get(key) != value:
                reason = {
                    "data_sha": " (the patches or labels are others)",
                    "slides_sha": " (groups_train.csv is another)",
                }
                raise StudyError(
                    f"{run} was made with {key} {held.get(key)!r}, this run has {value!r}{reason.get(key, '')}: choose"
                    " another runs_dir, remove it, or give a changed profile another name."
                )
        return
    write_json(
        run / "subsets.json",
        {
            "seed": settings.subsets.seed,
            "train_rows": len(labels),
            "by": settings.subsets.by,
            "subsets": [
                {
                    "sha": digest(rows.astype("<i8").tobytes()),
                    "patches": len(rows),
                    "tumour": int(labels[rows].sum()),
                    **({} if slides is None else {"slides": len(np.unique(slides[rows]))}),
                    "rows": rows.tolist(),
                }
                for rows in parts
            ],
        },
    )
    write_json(path, identity | {"settings": settings.model_dump(), "version": code_version(), "created": now()})
