"""Two processes follow one: losses, images seen, equal weights, one writer, and checkpoints that either count goes on
from."""

import os
import shutil
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import settings

from pcamlib import cli, training
from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json
from pcamlib.experiments import classification
from pcamlib.models import diffusion
from pcamlib.training import loop
from pcamlib.training.progress import read_log

FAMILIES = ["autoencoder", "unet", "dit", "histogan"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pcam):
    """Run folders of one process, of two, and of one after the other; and what the two said."""
    root = tmp_path_factory.mktemp("processes")
    fp32 = {f"{family}.precision": "fp32" for family in ("autoencoder", "diffusion", "histogan", "classifier")}
    best = {"classifier.model_choice": "best-valid-auc", "classifier.epochs": 2}
    (root / "two.yml").write_text(
        yaml.safe_dump(settings(**fp32, **best, **{"subsets.size": 32, "quality.judge.size": 32}))
    )
    arguments = ["--data", str(pcam), "--profile", str(root / "two.yml")]
    inner = Path("tiny-smoke") / "subset-0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "arms", lambda g, arms=classification.arms: arms(g)[:1])
        assert cli.main(["train", *FAMILIES, "classifiers:real", "--runs-dir", str(root / "one"), *arguments]) == 0
        shutil.copytree(
            root / "one" / "tiny-smoke" / "subset-0" / "autoencoder", root / "mixed" / inner / "autoencoder"
        )
        patch.setattr(loop, "CHECKPOINT_SECONDS", -1)
        step = diffusion.DiffusionTask.step

        def stop_early(self, rows):
            if self.progress >= 0.33:
                raise KeyboardInterrupt
            return step(self, rows)

        patch.setattr(diffusion.DiffusionTask, "step", stop_early)
        assert cli.main(["train", "unet", "--runs-dir", str(root / "mixed"), *arguments]) == 130
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [str(Path(__file__).parents[1] / "two_processes.py"), str(root / "two"), str(root / "mixed"), *arguments]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cli.main(["train", "dit", "--runs-dir", str(root / "mixed"), *arguments])
    return *(root / name / inner for name in ("one", "two", "mixed")), done.stdout.splitlines()


@pytest.mark.parametrize("family", ["autoencoder", "unet", "dit"])
def test_two_processes_follow_the_loss_curve_of_one(runs, family):
    one, two, _, _ = (read_log(folder / family) if isinstance(folder, Path) else None for folder in runs)
    assert [row["images"] for row in one] == [row["images"] for row in two]
    for a, b in zip(one, two, strict=True):
        for key in a.keys() - {"seconds", "version"}:
            assert a[key] == pytest.approx(b[key], rel=1e-4), (family, key)


def test_batch_norm_and_dropout_differ_within_their_spread(runs):
    one, two, _, _ = runs
    for folder, keys in (("histogan", ["d_loss", "g_loss"]), ("classifiers/baseline", ["loss"])):
        a, b = read_log(one / folder), read_log(two / folder)
        assert [row["images"] for row in a] == [row["images"] for row in b]
        # the first epoch starts from the same weights; later, batch norm over half the batch goes its own way
        assert all(a[0][key] == pytest.approx(b[0][key], abs=0.15) for key in keys), folder
    a, b = (read_json(folder / "classifiers" / "baseline" / "result.json") for folder in (one, two))
    assert a.keys() == b.keys() and a["steps"] == b["steps"] and a["test_n"] == b["test_n"]


def test_processes_hold_the_same_and_one_of_them_writes(runs):
    _, two, mixed, said = runs
    held = Counter(line for line in said if line.startswith("held"))
    assert len(held) == 6 and all(count == 2 for line, count in held.items() if "baseline" not in line)
    saved = [line.split() for line in said if line.startswith("saved")]
    assert len(saved) > 6 and all(process == "0" for *_, process in saved)
    assert Counter(line.split(":")[0] for line in said if line.endswith("subset-0")) == dict.fromkeys(
        [*FAMILIES, "unet", "classifiers"], 1
    ) | {"unet": 2}
    assert not [path for path in two.parent.rglob("*.part")]


@pytest.mark.parametrize("family", ["unet", "dit"])
def test_a_checkpoint_goes_on_in_another_number_of_processes(runs, family):
    one, _, mixed, _ = runs
    a, b = read_log(one / family), read_log(mixed / family)
    for x, y in zip(a, b, strict=True):
        assert x["step"] == y["step"] and x["l_simple"] == pytest.approx(y["l_simple"], rel=1e-4)
    assert (mixed / family / "model").is_dir()


def test_a_batch_that_does_not_divide_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "accelerator", lambda precision: types.SimpleNamespace(num_processes=3))
    with pytest.raises(
        StudyError, match="a batch of 16 does not divide over 3 processes: start a number that divides it"
    ):
        training.fit(
            training.Task(),
            folder=tmp_path / "unet",
            n=64,
            epochs=1,
            batch_size=16,
            seed=0,
            precision="fp32",
            identity=0,
        )
    assert not (tmp_path / "unet").exists()
