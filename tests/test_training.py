"""The loop: exact resume after an interruption at any step, refusal of foreign and damaged checkpoints."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from pcamlib import training
from pcamlib.errors import StudyError


class Line(training.Task):
    """A small network with dropout and momentum: forgets nothing only if everything is checkpointed."""

    def __init__(self, fail_at=None):
        super().__init__()
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
        )
        self.modules["line"] = model
        self.optimizers["adam"] = torch.optim.Adam(model.parameters(), lr=0.01)
        self.ema["line"] = training.make_ema(model, 0.9)
        self.tensors["count"] = torch.tensor(0)
        self.x, self.fail_at, self.seen = torch.randn(20, 4, generator=training.generator("x")), fail_at, []

    def step(self, rows):
        if self.fail_at is not None and int(self.tensors["count"]) == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append(rows)
        self.tensors["count"] += 1
        loss = (self.modules["line"](self.x[rows]).squeeze(1) - self.x[rows].sum(1)).pow(2).mean()
        self.update("adam", loss)
        return {"loss": loss.detach()}


def fit(task, folder, identity="a", **changes):
    options = {"n": 20, "epochs": 3, "batch_size": 6, "seed": 1, "precision": "fp32"} | changes
    log = training.fit(task, folder=folder, identity=identity, **options)
    return log, {k: v.clone() for k, v in task.modules["line"].state_dict().items()}


@pytest.mark.parametrize("at", range(1, 9))
def test_an_interruption_changes_nothing(tmp_path, checkpoint_always, at):
    log, weights = fit(Line(), tmp_path / "a" / "line")
    with pytest.raises(KeyboardInterrupt):
        fit(Line(fail_at=at), tmp_path / "b" / "line")
    task = Line()
    resumed, again = fit(task, tmp_path / "b" / "line")
    assert len(task.seen) == 9 - at, "finished steps must not run again"
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in resumed] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in log
    ]


def test_a_finished_stage_is_loaded_not_trained(tmp_path):
    _, weights = fit(Line(), tmp_path)
    task = Line()
    _, again = fit(task, tmp_path)
    assert not task.seen and all(torch.equal(weights[key], again[key]) for key in weights)
    assert (tmp_path / "log.csv").read_text().splitlines()[0] == "epoch,step,images,loss,seconds"


def test_an_epoch_shows_each_row_at_most_once_and_epochs_differ():
    first, second = training.batches(20, 6, 0, "s", 0), training.batches(20, 6, 0, "s", 1)
    assert first.shape == (3, 6) and len(first.unique()) == 18
    assert not torch.equal(first, second) and torch.equal(first, training.batches(20, 6, 0, "s", 0))
    assert training.batches(4, 6, 0).shape == (1, 4)


def test_foreign_and_damaged_checkpoints_are_refused(tmp_path, checkpoint_always):
    fit(Line(), tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    for changes in ({"identity": "b"}, {"epochs": 4}, {"batch_size": 5}, {"seed": 2}):
        with pytest.raises(StudyError, match="other data or another profile"):
            fit(Line(), tmp_path, **changes)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StudyError, match="is damaged"):
        fit(Line(), tmp_path)
    assert path.read_bytes() == whole[: len(whole) // 2], "a refused checkpoint is left for the user to look at"


def test_a_loss_that_is_not_finite_is_an_error(tmp_path):
    class Diverging(Line):
        def step(self, rows):
            return {"loss": float("nan")}

    with pytest.raises(StudyError, match="'loss' became nan at step 0: lower the learning rate"):
        fit(Diverging(), tmp_path)


def test_bf16_and_fp32_may_follow_each_other_in_one_process(tmp_path):
    fit(Line(), tmp_path / "a", precision="bf16")
    fit(Line(), tmp_path / "b", precision="fp32")
    assert training.accelerator("bf16").mixed_precision == "bf16"


KILLED = """
import sys; sys.path.insert(0, {tests!r})
import time, pathlib, conftest, test_training
from pcamlib import training
training.CHECKPOINT_SECONDS = -1
class Slow(test_training.Line):
    def step(self, rows):
        time.sleep(2)
        return super().step(rows)
test_training.fit(Slow(), pathlib.Path({folder!r}))
"""


def test_kill_9_changes_nothing(tmp_path):
    _, weights = fit(Line(), tmp_path / "a" / "line")
    folder = tmp_path / "b" / "line"
    code = KILLED.format(tests=os.path.dirname(__file__), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the process must die in the middle, not end by itself"
    load_file(folder / "checkpoint.safetensors")
    task = Line()
    _, again = fit(task, folder)
    assert 0 < len(task.seen) < 9 and all(torch.equal(weights[key], again[key]) for key in weights)
