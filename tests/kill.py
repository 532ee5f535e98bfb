"""Kill -9 in every stage, go on, compare with a run that nobody disturbed: bit for bit, on the CPU.

    python tests/kill.py FOLDER                              one kill per stage (part of the tests)
    python tests/kill.py FOLDER --kills 100 --seed 0         random stages, random moments (make torture)

The stages are those of the smoke study, subset 0. Each runs in a process of its own, forked from this one, which has
done the slow imports and nothing else. With --kills the whole study, Snakemake and notebooks, is killed too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import h5py
from safetensors import safe_open

from pcamlib.experiments import classification, features, selection
from pcamlib.models import autoencoder, classifier, diffusion, histogan
from pcamlib.study import open_study
from pcamlib.training import loop
from pcamlib.training.progress import read_log

VOLATILE = {"seconds", "created"}  # all that may differ between two runs
SKIPPED = {"notebooks", "samples", "tensorboard", "log", "snakemake.json"}


def train_autoencoder(s):
    autoencoder.encode_subset(s, autoencoder.train(s)[0])


def train_classifier(s):
    """With a choice of the best epoch, and a small network: it saves after every step."""
    small = {"architecture": "regnetx_002", "weights": "none", "model_choice": "best-valid-auc", "epochs": 3}
    settings = s.profile.classifier.model_copy(update=small)
    classifier.train(settings, s.real, s.split("valid"), folder=s.folder / "best", seed=s.seed)


def train_arm(s):
    classification._run(s, classification.Arm("traditional"), {name: s.split(name) for name in ("valid", "test")})


def select(s):
    selection.select(s, "unet", diffusion.load(s, "unet").sample, features.gatekeeper(s))


# stage: (what it runs, what it writes in the subset's folder, after how many checkpoints the tests kill it)
STAGES = {
    "autoencoder": (train_autoencoder, ["autoencoder"], 5),
    "unet": (lambda s: diffusion.train(s, "unet"), ["unet"], 5),
    "dit": (lambda s: diffusion.train(s, "dit"), ["dit"], 5),
    "histogan": (lambda s: histogan.train(s, folder=s.folder / "histogan"), ["histogan"], 3),
    "best-valid-auc classifier": (train_classifier, ["best"], 6),
    "classifier": (train_arm, ["classifiers/traditional"], 1),
    "selection": (select, ["candidates", "synthetic", "results"], 1),
}


def start(stage: str, runs: Path, checkpoint_seconds: float) -> int:
    """The stage in a process of its own; returns its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        loop.CHECKPOINT_SECONDS = checkpoint_seconds
        STAGES[stage][0](open_study(data_root="phantom", runs_dir=str(runs), profile="smoke", subset=0))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def finish(stage: str, runs: Path) -> None:
    if os.waitpid(start(stage, runs, 60), 0)[1]:
        raise SystemExit(f"{stage}: the run did not succeed")


def outputs(stage: str, runs: Path) -> list[Path]:
    return [runs / "phantom-smoke" / "subset-0" / name for name in STAGES[stage][1]]


def files(paths: list[Path]) -> dict[Path, int]:
    found = {}
    for path in paths:
        for folder, _, names in os.walk(path):  # unlike rglob it bears folders that go meanwhile
            for file in (Path(folder) / name for name in names):
                with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                    found[file] = file.stat().st_mtime_ns
    return found


def kill(stage: str, runs: Path, moment: tuple[str, float]) -> str | None:
    """Run the stage with a checkpoint after every step, and kill it at the moment; returns where it was, None if it
    ended before.

    ("checkpoint", n): n checkpoints or batches were renamed into place; ("save", n): a file is being written, for the
    n-th time; ("time", t): t seconds have passed.
    """
    kind, amount = moment
    watched, pid, began = outputs(stage, runs), start(stage, runs, -1), time.monotonic()
    seen, saves = files(watched), 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        now = files(watched)
        new = [path for path, when in now.items() if seen.get(path) != when]
        if kind == "save":
            saves += len({path.parent for path in new if torn(path)} - {path.parent for path in seen})
        elif kind == "checkpoint":
            new = [path for path in new if not torn(path)]
            saves += sum(path.name == "checkpoint.safetensors" or path.parent.parent.name == "candidates" and
                         path.suffix == ".safetensors" for path in new)  # fmt: skip
        seen = now
        if saves >= amount if kind != "time" else time.monotonic() - began >= amount:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.0003)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status):
        if status:
            raise SystemExit(f"{stage}: the run did not succeed")
        return None
    return progress(watched)


def progress(paths: list[Path]) -> str:
    found = files(paths)
    where = f"{len([p for p in found if p.suffix == '.safetensors' and not torn(p)])} files"
    for path in paths:
        if (path / "checkpoint.safetensors").exists():
            with safe_open(path / "checkpoint.safetensors", "np") as f:
                where = f"step {json.loads(f.metadata()['state'])['step']}"
    return where + (", in the middle of a save" if any(map(torn, found)) else "")


def torn(path: Path) -> bool:
    """Whether a file lies in a folder that `pcamlib.core.files.atomic` writes in."""
    return path.parent.name.endswith(".part")


def content(path: Path) -> object:
    """What a file holds, without times."""
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as f:
            return {key: (f.get_slice(key).get_dtype(), f.get_tensor(key).tobytes()) for key in f.keys()}
    if path.suffix == ".h5":
        with h5py.File(path) as f:
            return {key: (f[key].dtype, f[key][:].tobytes()) for key in f}
    if path.suffix == ".csv":
        return steady(read_log(path.parent))
    if path.suffix == ".json":
        return steady(json.loads(path.read_text()))
    return path.read_bytes()


def steady(value: object) -> object:
    if isinstance(value, dict):
        return {key: steady(part) for key, part in value.items() if key not in VOLATILE}
    return [steady(part) for part in value] if isinstance(value, list) else value


def differences(straight: Path, killed: Path, only_straight: bool = False) -> list[str]:
    """Files under two folders that are not the same; `only_straight`: what only `killed` has is left out."""

    def names(root: Path) -> set[Path]:
        found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return {
            path
            for path in found
            if path.name not in (".lock", "study.json", "data.json")
            and not SKIPPED & {*path.parts}
            and ".snakemake" not in path.parts
        }

    ours, theirs = names(straight), names(killed)
    missing = sorted(str(path) for path in (ours - theirs if only_straight else ours ^ theirs))
    left = [str(path) for path in theirs if torn(path)]
    changed = [str(path) for path in sorted(ours & theirs) if content(straight / path) != content(killed / path)]
    return (
        [f"only in one: {n}" for n in missing]
        + [f"left behind: {n}" for n in left]
        + [f"differs: {n}" for n in changed]
    )


def check(stage: str, straight: Path, killed: Path) -> None:
    for ours, theirs in zip(outputs(stage, straight), outputs(stage, killed)):
        if found := differences(ours, theirs):
            raise SystemExit(f"{stage}: NOT IDENTICAL: {'; '.join(found)}")


def each_once(straight: Path, killed: Path) -> None:
    undisturbed, places = os.fork(), {}
    if not undisturbed:  # beside the killed ones
        for stage in STAGES:
            finish(stage, straight)
        os._exit(0)
    for stage, (_, _, after) in STAGES.items():
        if (where := kill(stage, killed, ("checkpoint", after))) is None:
            raise SystemExit(f"{stage}: ended before it was killed")
        finish(stage, killed)
        places[stage] = where
    if os.waitpid(undisturbed, 0)[1]:
        raise SystemExit("the undisturbed run did not succeed")
    for stage, where in places.items():
        check(stage, straight, killed)
        print(f"{stage}: killed at {where}, identical", flush=True)


def torture(straight: Path, killed: Path, kills: int, study_kills: int, seed: int) -> None:
    draw, counts, seconds = random.Random(seed), dict.fromkeys(STAGES, 0), {}
    print(f"seed {seed}", flush=True)
    for stage in STAGES:
        began = time.monotonic()
        finish(stage, straight)
        finish(stage, killed)
        seconds[stage] = time.monotonic() - began  # of two runs without checkpoints: about one with
        check(stage, straight, killed)
    while sum(counts.values()) < kills:
        stage, places = draw.choice(list(STAGES)), []
        for path in outputs(stage, killed):
            shutil.rmtree(path, ignore_errors=True)
        for _ in range(draw.randint(1, 4)):
            kind = draw.choice(["save", "time", "checkpoint"])
            amount = draw.uniform(0, seconds[stage]) if kind == "time" else draw.randint(1, 2 * STAGES[stage][2])
            if where := kill(stage, killed, (kind, amount)):
                places.append(where)
        finish(stage, killed)
        check(stage, straight, killed)
        counts[stage] += len(places)
        print(f"{stage}: {len(places)} kills ({'; '.join(places)}), identical", flush=True)
    if study_kills:
        counts["study"] = kill_study(straight.parent, study_kills, draw)
    summary = ", ".join(f"{stage} {n}" for stage, n in counts.items())
    print(f"{sum(counts.values())} kills: {summary}; all identical (seed {seed})")


def kill_study(folder: Path, kills: int, draw: random.Random) -> int:
    """The smoke study with Snakemake and notebooks: once undisturbed, once killed `kills` times at random moments."""
    command = [
        sys.executable,
        "-m",
        "pcamlib",
        "study",
        "--profile",
        "smoke",
        "--subsets",
        "1",
        "--cores",
        "2",
    ]
    roots, done = [folder / "study-straight", folder / "study-killed"], 0
    began = time.monotonic()
    subprocess.run([*command, "--runs-dir", str(roots[0])], check=True)
    seconds = time.monotonic() - began
    while done < kills:
        process = subprocess.Popen([*command, "--runs-dir", str(roots[1])], start_new_session=True)
        try:
            process.wait(draw.uniform(0.1, 1.5) * seconds / kills)
            break  # it ended before
        except subprocess.TimeoutExpired:
            process.kill()  # the wrapper only: its children must notice and end
            process.wait()
            done += 1
            wait_for_end(process.pid)
    subprocess.run([*command, "--runs-dir", str(roots[1])], check=True)
    if found := differences(*roots):
        raise SystemExit(f"study: NOT IDENTICAL: {'; '.join(found)}")
    print(f"study: {done} kills, identical", flush=True)
    return done


def wait_for_end(session: int) -> None:
    """Until no process of the session lives, 2 minutes at most."""
    deadline = time.monotonic() + 120
    while living := [
        line
        for line in subprocess.run(
            ["ps", "-o", "stat=,args=", "-s", str(session)], capture_output=True, text=True
        ).stdout.splitlines()
        if not line.startswith("Z")
    ]:
        assert time.monotonic() < deadline, f"processes of the killed study are still running: {living}"
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an empty folder; the run folders straight/ and killed/ stay in it")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--study-kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    straight, killed = args.folder / "straight", args.folder / "killed"
    if args.kills:
        torture(straight, killed, args.kills, args.study_kills, args.seed)
    else:
        each_once(straight, killed)


if __name__ == "__main__":
    main()
