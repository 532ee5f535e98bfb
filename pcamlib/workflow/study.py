"""The whole study as one command: Snakemake over subsets and generators, then the rendered book.

    pcamlib study [--profile demo] [--data phantom|DIR] [--subsets N] [--cores N] [--executor local|slurm|DIR]

The same command again goes on where the last one stopped, however it stopped. `train_stage` trains one stage of one
subset without its notebook, in several processes if torchrun started them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.core.files import OWNER, atomic, digest, lock, project_root, resolve
from pcamlib.core.settings import load_profile
from pcamlib.experiments import classification, features
from pcamlib.models import autoencoder, classifier, diffusion, histogan
from pcamlib.study import GENERATORS, REAL, Study, open_study
from pcamlib.workflow.notebook import GPUS

STAGES = ("autoencoder", *GENERATORS, *(f"classifiers:{g}" for g in (REAL, *GENERATORS)))


def train_stage(study: Study, stage: str) -> None:
    """Train one of STAGES as its notebook would, into the same run folder; what is finished is left alone."""
    if stage == "autoencoder":
        model, _ = autoencoder.train(study)
        autoencoder.encode_subset(study, model)
    elif stage == "histogan":
        histogan.train(study, folder=study.folder / "histogan")
    elif stage in GENERATORS:
        diffusion.train(study, stage)
    else:
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


def snakemake(command: list[str], environment: dict[str, str], patience: float) -> int:
    """Run Snakemake; returns its exit status. After Ctrl-C, which reaches it too, it has `patience` seconds to end."""
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        process.kill()
        raise


def complaints(run: Path, since: float) -> list[str]:
    """What notebooks said before they failed, once each: 'error:' lines of job logs in `run` changed after `since`."""
    logs = [p for p in sorted((run / ".snakemake" / "slurm_logs").rglob("*.log")) if p.stat().st_mtime >= since]
    return list(dict.fromkeys(line for p in logs for line in p.read_text().splitlines() if line.startswith("error:")))


def run_study(
    *,
    profile: str,
    data_root: str,
    subsets: int | None,
    cores: int,
    runs_dir: str = "runs",
    executor: str = "local",
) -> tuple[Path, int]:
    """Run every notebook that is not up to date. Returns the run folder and the number of subsets.

    `cores` counts for executor "local"; elsewhere the executor's own profile says how many jobs run (`executor_folder`).
    Raises StudyError for bad input (before anything starts), if another study holds the run folder, or if a notebook
    fails; what is finished stays.
    """
    executor, cluster = executor_folder(executor)
    if cores < 1:
        raise StudyError(f"CORES is {cores}: give the number of notebooks that may run at once, 1 or more.")
    settings = load_profile(profile)
    subsets = settings.subsets.count if subsets is None else subsets
    if not 1 <= subsets <= settings.subsets.count:
        raise StudyError(f"SUBSETS is {subsets}: profile {settings.name!r} has 1 to {settings.subsets.count}.")
    s = open_study(data_root=data_root, runs_dir=runs_dir, profile=profile, subset=0)
    for split in ("valid", "test"):
        data.labels(s.data_root, split)
    # what a late notebook would miss is missed now
    if settings.quality.inception:
        features.inception_file(settings.quality.inception)
    for space in settings.quality.timm:
        features.timm_space(space.architecture, space.weights)
    classifier.build(settings.classifier.pretrained)
    classifier.build("none", settings.quality.judge.architecture)
    config = {
        "run": str(s.root),
        "profile": str(resolve(profile)) if profile.endswith((".yml", ".yaml")) else profile,
        "data": data_root if data_root == "phantom" else str(s.data_root),
        "runs_dir": str(resolve(runs_dir)),
        "subsets": subsets,
        "threads": settings.threads,
        "python": sys.executable,
        "executor": executor,
    }
    # SLURM's jobs outlive a killed study: their names tell the next one whose they are
    prefix = f"pcamlib-{digest(str(s.root))}"
    with lock(s.root):
        if executor == "slurm" and (jobs := left_in_queue(prefix)):
            raise StudyError(
                f"{s.root} has jobs of an earlier run in SLURM's queue: wait for them, or `scancel {' '.join(jobs)}` "
                "and give the same command again."
            )
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
        if cluster:
            command += ["--profile", cluster, "--quiet", "reason", "host"]
            command += ["--slurm-jobname-prefix", prefix] if executor == "slurm" else []
        else:
            command += ["--cores", str(cores), "--quiet", "all"]
        # notebooks pin torch's threads themselves; this keeps every other library from taking the whole machine
        environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads), OWNER: str(os.getpid())}
        if not cluster and (n := torch.cuda.device_count()):
            command += ["--resources", f"gpu={n}"]
            if n > 1:
                visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n)))
                environment[GPUS] = f"{s.root / '.gpus'}:{visible}"
        started = time.time()
        # patience: jobs in a queue must be cancelled, while local ones end with their owner
        if snakemake([str(part) for part in command], environment, patience=120 if cluster else 0):
            for line in complaints(s.root, started):
                print(line, file=sys.stderr)
            logs = f" (or a job's log in {s.root}/.snakemake/slurm_logs)" if executor == "slurm" else ""
            raise StudyError(
                f"the study in {s.root} stopped: the first 'error:' line above{logs} says why; "
                "the same command goes on from here."
            )
    return s.root, subsets
