"""The whole study as one command: Snakemake over subsets and generators, then the rendered book.

    python -m pcamlib.workflow study|book [--profile demo] [--data phantom|DIR] [--subsets N] [--cores N]

The same command again goes on where the last one stopped, however it stopped.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from pcamlib import agreement, classifier, data, features, profiles
from pcamlib.errors import StudyError
from pcamlib.store import OWNER, atomic, die_with_owner, lock, project_root, resolve
from pcamlib.study import open_study


def study(*, profile: str, data_root: str, subsets: int | None, cores: int, runs_dir: str = "runs") -> tuple[Path, int]:
    """Run every notebook that is not up to date. Returns the run folder and the number of subsets.

    Raises StudyError for bad input (before anything starts), if another study holds the run folder, or if a notebook
    fails; what is finished stays.
    """
    settings = profiles.load(profile)
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
    }
    with lock(s.root):
        with atomic(s.root / "snakemake.json") as aside:
            aside.write_text(json.dumps(config))
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            project_root() / "Snakefile",
            "--directory",
            s.root,
        ]
        command += ["--configfile", s.root / "snakemake.json", "--cores", str(cores), "--scheduler", "greedy"]
        command += ["--rerun-incomplete", "--rerun-triggers", "mtime", "--nolock", "--keep-going", "--quiet", "all"]
        if torch.cuda.is_available():
            command += ["--resources", f"gpu={torch.cuda.device_count()}"]
        # notebooks pin torch's threads themselves; this keeps every other library from taking the whole machine
        environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads), OWNER: str(os.getpid())}
        if subprocess.run([str(part) for part in command], env=environment).returncode:
            raise StudyError(
                f"the study in {s.root} stopped: the first 'error:' line above says why; the same command goes on from here."
            )
    return s.root, subsets


def executed(run: Path, subsets: int) -> dict[str, Path]:
    """The executed notebooks the book shows, by their name there: subset 0's, and the results over all subsets."""
    found = {
        path.name: path
        for path in sorted((run / "subset-0" / "notebooks").glob("0*.ipynb"))
        if ".failed" not in path.name
    }
    return found | {"08_results.ipynb": run / "notebooks" / f"08_results-{subsets}.ipynb"}


def book(run: Path, subsets: int, root: Path) -> Path:
    """Render the book that lies in `root` (_config.yml, _toc.yml, book/) with a run's notebooks; returns its index page.

    Strict: any warning of Sphinx is an error. Raises StudyError if the build fails.
    """
    target = root / "book" / "executed"
    target.mkdir(parents=True, exist_ok=True)
    wanted = executed(run, subsets)
    for stale in {path.name for path in target.glob("*.ipynb")} - set(wanted):
        (target / stale).unlink()
    for name, source in wanted.items():
        # untouched files keep their time, and Sphinx does not read them again
        if not (target / name).exists() or not filecmp.cmp(source, target / name, shallow=False):
            with atomic(target / name) as aside:
                shutil.copyfile(source, aside)
    checks = agreement.page()
    page = target / "agreement.md"
    if not page.exists() or page.read_text(encoding="utf-8") != checks:
        with atomic(page) as aside:
            aside.write_text(checks, encoding="utf-8")
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    if not jupyter_book.exists():
        raise StudyError(
            "jupyter-book is not installed: install the extra 'book' (pip install -c requirements.lock -e '.[book]')."
        )
    log = root / "_build" / "build.log"
    log.parent.mkdir(exist_ok=True)
    with open(log, "w") as f:
        command = [str(jupyter_book), "build", str(root), "-n", "-W", "--keep-going"]
        code = subprocess.run(command, stdout=f, stderr=subprocess.STDOUT).returncode
    index = root / "_build" / "html" / "index.html"
    if code or not index.exists():
        complaints = [line for line in log.read_text().splitlines() if "WARNING" in line or "ERROR" in line]
        raise StudyError(f"the book was not built, see {log}: {(complaints or ['no warning was printed'])[0].strip()}")
    return index


def main(argv: list[str] | None = None) -> int:
    """`study` runs the notebooks, `book` runs them and renders the book."""
    parser = argparse.ArgumentParser(prog="python -m pcamlib.workflow", description=main.__doc__)
    parser.add_argument("command", choices=["study", "book"])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--subsets", type=int)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--runs-dir", default="runs")
    args = parser.parse_args(argv)
    started = time.monotonic()
    die_with_owner()
    try:
        run, subsets = study(
            profile=args.profile, data_root=args.data, subsets=args.subsets, cores=args.cores, runs_dir=args.runs_dir
        )
        print(f"study: {run} ({time.monotonic() - started:.0f} s)", flush=True)
        if args.command == "book":
            index = book(run, subsets, project_root())
            print(f"book: {index} ({time.monotonic() - started:.0f} s in all)")
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
