"""What several tests need: a tiny phantom, a tiny profile, a study on them. Offline, two cores, seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported: its BLAS reads it then
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network must fail, not wait

import fuzzing
import numpy as np
import pytest
import torch
import yaml

from pcamlib import data
from pcamlib.core import settings as profile_settings
from pcamlib.core.files import project_root

# models and the workflow take seconds to import: fixtures that need them import them
torch.set_num_threads(1)
outcome = fuzzing.outcome
SLOW = {"smoke", "smoke_book", "kills"}  # fixtures that take minutes


def pytest_collection_modifyitems(items):
    for item in items:
        if SLOW & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def patches():
    """192 coloured-noise patches whose centre tells the class, enough to learn from in seconds."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 96).astype(np.uint8)
    images = rng.integers(90, 160, (192, 96, 96, 3), dtype=np.uint8)
    images[labels == 1, 32:64, 32:64] //= 2
    return data.Arrays(images, labels)


@pytest.fixture(scope="session")
def pcam(tmp_path_factory, patches):
    """A folder of PCam files: 128 train, 32 valid, 32 test."""
    root = tmp_path_factory.mktemp("pcam") / "tiny"
    for split, rows in {"train": slice(0, 128), "valid": slice(128, 160), "test": slice(160, 192)}.items():
        data.write(root, split, patches.images[rows], patches.labels[rows])
    return root


def settings(**changes):
    """The smoke profile as a dict, with dotted changes: settings(**{"subsets.size": 32})."""
    content = yaml.safe_load((profile_settings.FOLDER / "smoke.yml").read_text())
    for key, value in changes.items():
        *path, last = key.split(".")
        section = content
        for part in path:
            section = section[part]
        section[last] = value
    return content


@pytest.fixture
def open_tiny(tmp_path, pcam):
    """open_tiny(**dotted changes) -> Study on the tiny files with a changed smoke profile, in a folder of its own."""
    from pcamlib import study

    def open_it(subset=0, runs="runs", root=pcam, **changes):
        changes = {"subsets.size": 32, "quality.judge.size": 32} | changes
        path = tmp_path / "tiny.yml"
        path.write_text(yaml.safe_dump(settings(**changes)))
        return study.open_study(data_root=str(root), runs_dir=str(tmp_path / runs), profile=str(path), subset=subset)

    return open_it


@pytest.fixture
def checkpoint_always(monkeypatch):
    """A checkpoint after every step."""
    from pcamlib.training import loop

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)


@pytest.fixture(scope="session")
def kills(tmp_path_factory):
    """tests/kill.py, one kill per stage: its folder, with the run straight/ that nobody disturbed, and its lines."""
    folder = tmp_path_factory.mktemp("kills")
    command = [sys.executable, str(Path(__file__).with_name("kill.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout.splitlines()


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The smoke study on the phantom through the command line, killed once on its way."""
    import kill

    folder = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "-m", "pcamlib", "study", "--profile", "smoke", "--subsets", "1"]
    command += ["--runs-dir", str(folder / "runs"), "--cores", "2"]
    run = folder / "runs" / "phantom-smoke"
    user = os.environ | {"SNAKEMAKE_PROFILE": "nobodys"}  # of other workflows, and nothing to this one
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen(command, start_new_session=True, env=user, **quiet)
    finished = run / "subset-0" / "notebooks" / "02_autoencoder.ipynb"
    deadline = time.monotonic() + 600
    # 03 starts when Snakemake has taken note that 02 is finished
    while not list(finished.parent.glob(".03_*")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert finished.exists(), "the study did not get as far as notebook 02"
    os.kill(killed.pid, signal.SIGKILL)  # the wrapper only: its children must notice and end
    assert killed.wait() == -signal.SIGKILL, "the study must be killed on its way, not end by itself"
    kill.wait_for_end(killed.pid)
    before = (run / "subset-0" / "notebooks" / "02_autoencoder.ipynb").stat().st_mtime_ns
    done = subprocess.run(command, env=user, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (run / "subset-0" / "notebooks" / "02_autoencoder.ipynb").stat().st_mtime_ns == before, (
        "finished work was redone"
    )
    return folder, run, command


@pytest.fixture(scope="session")
def smoke_book(smoke):
    """The smoke study's book, rendered strictly from a copy of its sources: the path of its index page."""
    pytest.importorskip("jupyter_book")
    from pcamlib.workflow.book import build_book

    folder, run, _ = smoke
    root = folder / "book"
    root.mkdir()
    for name in ("_config.yml", "_toc.yml", "CITATION.cff"):
        shutil.copy(project_root() / name, root)
    shutil.copytree(project_root() / "book", root / "book", ignore=shutil.ignore_patterns("executed"))
    shutil.copytree(project_root() / "pcamlib" / "profiles", root / "pcamlib" / "profiles")  # a page prints them
    shutil.copytree(project_root() / "cluster", root / "cluster")
    return build_book(run, 1, root)
