"""The whole study as one command: Snakemake over subsets and generators, then the rendered book.

    pcamlib study [--profile demo] [--data phantom|DIR] [--subsets N] [--cores N] [--executor local|slurm|DIR]

The same command again goes on where the last one stopped, however it stopped. `train_stage` trains one stage of one
subset without its notebook, in several processes if torchrun started them.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import yaml

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.core.files import OWNER, atomic, digest, lock, project_root, resolve
from pcamlib.core.settings import load_profile
from pcamlib.core.text import PROGRESS
from pcamlib.experiments import features
from pcamlib.models import classifier, generators
from pcamlib.study import REAL, Study, open_study
from pcamlib.workflow.notebook import GPUS

COUNT = re.compile(r"(\d+) of (\d+) steps \(\d+%\) done")
STAGES = ("autoencoder", *generators.REGISTRY, *(f"classifiers:{g}" for g in (REAL, *generators.REGISTRY)))


def train_stage(study: Study, stage: str) -> None:
    """Train one of STAGES as its notebook would, into the same run folder; what is finished is left alone."""
    if stage == "autoencoder":
        from pcamlib.models import autoencoder  # takes seconds, as the other import does

        model, _ = autoencoder.train(study)
        autoencoder.encode_subset(study, model)
    elif stage in generators.REGISTRY:
        generators.find(study, stage).train(study)
    else:
        from pcamlib.experiments import classification

        classification.run_arms(study, stage.removeprefix("classifiers:"))


def executor_folder(executor: str) -> tuple[str, Path | None]:
    """Name of the Snakemake executor and the folder of its Snakemake profile (none for "local").

    `executor` is "local", a folder of cluster/ by its name, or the path of a folder with a config.yaml of that kind.
    Raises StudyError if there is no such folder, or if what its executor needs is not installed.
    """
    if executor == "local":
        return executor, None
    shipped = project_root() / "cluster"
    folder = shipped / executor if (shipped / executor / "config.yaml").is_file() else resolve(executor)
    path = folder / "config.yaml"
    if not path.is_file():
        raise StudyError(
            f"executor {executor!r} is unknown: it is local, {', '.join(sorted(p.name for p in shipped.glob('*/')))}, "
            "or a folder with the config.yaml of a Snakemake profile."
        )
    try:
        name = str(yaml.safe_load(path.read_text(encoding="utf-8"))["executor"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        raise StudyError(f"{path} is not the YAML of a Snakemake profile with a line 'executor: NAME'.") from None
    if not importlib.util.find_spec(f"snakemake_executor_plugin_{re.sub('[-.]', '_', name)}"):
        raise StudyError(
            f"{path}: executor {name!r} is not installed: pip install snakemake-executor-plugin-{name} "
            "(for slurm at its tested version: pip install -c requirements.lock -e '.[cluster]')."
        )
    if name == "slurm" and not shutil.which("sbatch"):
        raise StudyError("sbatch is not on the PATH: start the study where you start SLURM jobs, on a login node.")
    return name, folder


def left_in_queue(prefix: str) -> list[str]:
    """Numbers of this user's SLURM jobs whose name starts with `prefix`. StudyError if SLURM does not answer."""
    command = ["squeue", "--me", "--noheader", "--sort=i", "--format=%i %j"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise StudyError("squeue is not on the PATH: start the study where all of SLURM's commands are.") from None
    if done.returncode:
        raise StudyError(f"squeue does not answer ({done.stderr.strip() or done.returncode}): is SLURM up?")
    jobs = (line.partition(" ") for line in done.stdout.splitlines())
    return [number for number, _, name in jobs if name.startswith(prefix)]


def snakemake(
    command: list[str], environment: dict[str, str], patience: float, everything: bool = False
) -> tuple[int, list[str]]:
    """Run Snakemake; returns its exit status and the last lines of its standard error.

    Lines of notebooks (their progress and errors) are passed on as they come, Snakemake's own only with `everything`;
    without it, its count of finished notebooks becomes a line with the time that is left.
    After Ctrl-C, which reaches Snakemake too, it has `patience` seconds to end.
    """
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
    last: collections.deque[str] = collections.deque(maxlen=20)
    began = time.monotonic()

    def pass_on() -> None:
        for line in process.stderr:  # type: ignore[union-attr]
            if not everything and (counted := COUNT.match(line)):
                sys.stderr.write(_progress(*map(int, counted.groups()), time.monotonic() - began))
                sys.stderr.flush()
                continue
            if everything or line.startswith("error:") or PROGRESS.match(line):
                sys.stderr.write(line)
                sys.stderr.flush()
            if not PROGRESS.match(line):
                last.append(line.rstrip())

    reader = threading.Thread(target=pass_on, daemon=True)
    reader.start()
    try:
        status = process.wait()
        reader.join(10)
        return status, list(last)
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        process.kill()
        raise


def _progress(done: int, every: int, seconds: float) -> str:
    """A line that says how much of the study is done, and how long the rest takes if notebooks go on as fast; "" at the
    end."""
    if done >= every - 1:  # the last one is Snakemake's target, which runs nothing
        return ""
    minutes = math.ceil(seconds / 60 * (every - 1 - done) / done)
    return f"study: {done} of {every - 1} notebooks done, about {minutes} min left\n"


def refuse_shell_characters(**paths: object) -> None:
    """Refuse what a cluster's shells would expand: the SLURM plugin puts a job's command between double quotes.

    Raises StudyError that names the path.
    """
    for name, path in paths.items():
        if found := set("$`\\\"'\n\r") & set(str(path)):
            raise StudyError(
                f"{name} {str(path)!r} has {' and '.join(sorted(map(repr, found)))}, which shells on a cluster would "
                "interpret: rename it, or run with executor local."
            )


def complaints(run: Path, since: float) -> list[str]:
    """What notebooks said before they failed, once each: 'error:' lines of job logs in `run` changed after `since`."""
    logs = [p for p in sorted((run / ".snakemake" / "slurm_logs").rglob("*.log")) if p.stat().st_mtime >= since]
    return list(dict.fromkeys(line for p in logs for line in p.read_text().splitlines() if line.startswith("error:")))


def run_study(
    *,
    profile: str,
    data_root: str,
    subsets: int | range | None,
    cores: int,
    runs_dir: str = "runs",
    executor: str = "local",
) -> tuple[Path, range]:
    """Run every notebook that is not up to date. Returns the run folder and the subsets.

    `subsets`: how many, or which (all of the profile's if None). Later ones than the first run without notebook 08,
    which puts the first ones together. `cores` counts for executor "local"; elsewhere the executor's own profile says
    how many jobs run (`executor_folder`). Raises StudyError for bad input (before anything starts), if another study
    holds the run folder, or if a notebook fails; what is finished stays.
    """
    executor, cluster = executor_folder(executor)
    if cluster:
        refuse_shell_characters(executor=cluster, python=sys.executable, checkout=project_root())
        refuse_shell_characters(data_root=data_root, runs_dir=resolve(runs_dir), profile=profile)
    if cores < 1:
        raise StudyError(f"CORES is {cores}: give the number of notebooks that may run at once, 1 or more.")
    settings = load_profile(profile)
    count = settings.subsets.count
    if not isinstance(subsets, range):
        subsets = range(count if subsets is None else subsets)
    if not subsets or subsets.stop > count:
        which = f"{subsets.start}-{subsets[-1]}" if subsets.start else f"{subsets.stop}"
        raise StudyError(
            f"SUBSETS is {which}: profile {settings.name!r} has 1 to {count}; from 0 to {count - 1} they are numbered."
        )
    s = open_study(data_root=data_root, runs_dir=runs_dir, profile=profile, subset=subsets.start)
    if set("<>") & set(str(s.root)):
        raise StudyError(f"{s.root} has a < or >, between which Snakemake looks for a variable: rename the folder.")
    if cluster:
        refuse_shell_characters(data_root=s.data_root, runs_dir=s.root)  # links followed
    for split in ("valid", "test"):
        data.labels(s.data_root, split)
    # what a late notebook would miss is missed now
    if settings.quality.inception:
        features.inception_file(settings.quality.inception)
    for space in settings.quality.timm:
        features.frozen(space.architecture, space.weights, None, "quality.timm")
    classifier.build(settings.classifier)
    for name, part in {"probe": settings.probe, "quality.judge": settings.quality.judge}.items():
        classifier.network(part.architecture, part.weights, part.image_size, name)
    listed = generators.listed(settings)
    for entry in listed.values():
        if not entry.section:  # images made elsewhere
            entry.sampler(s)
    config = {
        "run": str(s.root),
        "profile": str(resolve(profile)) if profile.endswith((".yml", ".yaml")) else profile,
        "data": data_root if data_root == "phantom" else str(s.data_root),
        "runs_dir": str(resolve(runs_dir)),
        "subsets": list(subsets),
        "threads": settings.threads,
        "generators": {name: entry.after for name, entry in listed.items()},
        "python": sys.executable,
        "executor": executor,
        "cache_home": os.environ.get("XDG_CACHE_HOME", ""),
        "targets": [str(path) for path in targets(s.root, subsets, listed)],
    }
    # SLURM's jobs outlive a killed study: their names tell the next one whose they are
    prefix = f"pcamlib-{digest(str(s.root))}"
    with lock(s.root):
        if executor == "slurm" and (jobs := left_in_queue(prefix)):
            raise StudyError(
                f"{s.root} has jobs of an earlier run in SLURM's queue: wait for them, or `scancel {' '.join(jobs)}` "
                "and give the same command again."
            )
        cost = f"study: {len(subsets)} of {count} subsets of profile {settings.name} ({settings.budget})"
        print(f"{cost}; `make estimate` times it on this machine", file=sys.stderr, flush=True)
        with atomic(s.root / "snakemake.json") as tmp_path:
            tmp_path.write_text(json.dumps(config))
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            project_root() / "Snakefile",
            "--directory",
            s.root,
        ]
        command += ["--configfile", s.root / "snakemake.json", "--scheduler", "greedy"]
        command += ["--rerun-incomplete", "--rerun-triggers", "mtime", "--nolock", "--keep-going"]
        command += ["--workflow-profile", "none"]
        if cluster:
            command += ["--profile", cluster, "--quiet", "reason", "host"]
            command += ["--slurm-jobname-prefix", prefix] if executor == "slurm" else []
        else:
            command += ["--profile", "none", "--cores", str(cores), "--quiet", "rules", "reason", "host"]
        # Snakemake settings of the user's shell are for other workflows
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE_")}
        # notebooks pin torch's threads themselves; this keeps every other library from taking the whole machine
        environment |= {"OMP_NUM_THREADS": str(settings.threads), OWNER: str(os.getpid())}
        # Snakemake keeps a cache, and the home folder may be read-only; notebooks get the user's own again
        environment["XDG_CACHE_HOME"] = str(s.root / ".snakemake" / "cache")
        if not cluster and (n := torch.cuda.device_count()):
            command += ["--resources", f"gpu={n}"]
            if n > 1:
                visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n)))
                environment[GPUS] = f"{s.root / '.gpus'}:{visible}"
        started = time.time()
        # patience: jobs in a queue must be cancelled, while local ones end with their owner
        parts = [str(part) for part in command]
        status, said = snakemake(parts, environment, patience=120 if cluster else 0, everything=bool(cluster))
        if status:
            of_jobs = complaints(s.root, started)
            for line in of_jobs:
                print(line, file=sys.stderr)
            if of_jobs or any(line.startswith("error:") for line in said):
                why = "the first 'error:' line above says why"
            else:
                why = "Snakemake's last lines above say why"
                print(*([] if cluster else said), sep="\n", file=sys.stderr)
            logs = f" (see also the jobs' logs in {s.root}/.snakemake/slurm_logs)" if executor == "slurm" else ""
            raise StudyError(f"the study in {s.root} stopped: {why}{logs}; the same command goes on from here.")
        if missing := [path for path in targets(s.root, subsets, listed) if not path.exists()]:
            raise StudyError(
                f"the study in {s.root} ended without an error, but {len(missing)} of its notebooks are missing "
                f"({missing[0]} is the first): run the same command again."
            )
    return s.root, subsets


def targets(run: Path, subsets: range, names: Iterable[str]) -> list[Path]:
    """The executed notebooks on which no other depends: Snakemake makes them and all that they need. names: of
    generators."""
    found = [run / f"subset-{k}" / "notebooks" / "01_dataset.ipynb" for k in subsets]
    if subsets.start == 0:
        return [*found, run / "notebooks" / f"08_results-{len(subsets)}.ipynb"]
    last = ("06_quality", *(f"07_classification_{name}" for name in (REAL, *names)))
    return [*found, *(run / f"subset-{k}" / "notebooks" / f"{name}.ipynb" for k in subsets for name in last)]
