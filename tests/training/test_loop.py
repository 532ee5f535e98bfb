"""The loop: exact resume after an interruption at any step, what a checkpoint must be, a full disk. Kills:
test_kill.py."""

import contextlib
import functools
import hashlib
import json
import os
import resource
import subprocess

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_task import Line, fit

from pcamlib import training
from pcamlib.core.errors import StudyError
from pcamlib.training import checkpoint, loop


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


class Maps(Line):
    """Convolutions in channels_last under a fused optimiser, as with bf16 or on a GPU."""

    def __init__(self, optimizer, fail_at=None):
        super().__init__(fail_at)
        model = torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, 2, 2)),
            torch.nn.Conv2d(1, 8, 2, padding=1),
            torch.nn.Conv2d(8, 4, 3),
            torch.nn.Flatten(),
            torch.nn.Linear(4, 1),
        )
        self.modules["line"] = model.to(memory_format=torch.channels_last)
        self.optimizers["adam"] = optimizer(model.parameters(), lr=0.01, fused=True)
        self.ema["line"] = training.make_ema(model, 0.9)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, functools.partial(torch.optim.SGD, momentum=0.9)])
def test_a_moment_comes_back_to_its_own_weight(tmp_path, checkpoint_always, optimizer):
    """Checkpoints are contiguous, and a fused optimiser goes through memory: order must be that of the parameter."""
    _, weights = fit(Maps(optimizer), tmp_path / "a" / "maps")
    with pytest.raises(KeyboardInterrupt):
        fit(Maps(optimizer, fail_at=4), tmp_path / "b" / "maps")
    _, again = fit(Maps(optimizer), tmp_path / "b" / "maps")
    assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_a_finished_stage_is_loaded_not_trained(tmp_path):
    _, weights = fit(Line(), tmp_path)
    task = Line()
    _, again = fit(task, tmp_path)
    assert not task.seen and all(torch.equal(weights[key], again[key]) for key in weights)
    assert (tmp_path / "log.csv").read_text().splitlines()[0] == "epoch,step,images,loss,seconds,version"


def test_an_epoch_shows_each_row_at_most_once_and_epochs_differ():
    first, second = training.batches(20, 6, 0, "s", 0), training.batches(20, 6, 0, "s", 1)
    assert first.shape == (3, 6) and len(first.unique()) == 18
    assert not torch.equal(first, second) and torch.equal(first, training.batches(20, 6, 0, "s", 0))
    assert training.batches(4, 6, 0).shape == (1, 4)


def held(task):
    """Everything a checkpoint could change, as bytes."""
    return [p.numpy().tobytes() for p in task.modules["line"].state_dict().values()] + [
        p.numpy().tobytes() for p in [*task.ema["line"].shadow_params, *task.tensors.values()]
    ]


def rewritten(path, change, **meta):
    """The checkpoint with other tensors or metadata and a right checksum: what another program or version leaves."""
    with safe_open(path, "pt") as f:
        old, tensors = dict(f.metadata()), {key: f.get_tensor(key) for key in f.keys()}
    old.pop("sha256")
    change(tensors)
    save_file(tensors, path, metadata=old | meta | {"sha256": checkpoint._sum(old | meta, tensors)})


def other_shape(tensors):
    tensors["module/line/0.weight"] = torch.zeros(9, 4)


def other_type(tensors):
    tensors["ema/line/0"] = tensors["ema/line/0"].double()


def one_missing(tensors):
    del tensors["module/line/3.bias"]


def one_too_many(tensors):
    tensors["optimizer/adam/9/exp_avg"] = torch.zeros(1)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:3]), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (
            lambda path: path.write_bytes(
                path.read_bytes()[:-5] + bytes([path.read_bytes()[-5] ^ 1]) + path.read_bytes()[-4:]
            ),
            "is damaged .its checksum differs",
        ),
        (lambda path: torch.save({"step": 1}, path), "is damaged"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), "is not a checkpoint of this program's format"),
        (lambda path: rewritten(path, dict, family="GanTask"), "other data or another profile"),
        (
            lambda path: rewritten(path, other_shape, version="9"),
            "by pcamlib 9 for another network .module/line/0.weight is .9, 4.",
        ),
        (lambda path: rewritten(path, other_type), "for another network .ema/line/0 is"),
        (lambda path: rewritten(path, one_missing), "for another network .it has no module/line/3.bias"),
        (lambda path: rewritten(path, one_too_many), "for another network .optimizer/adam/9/exp_avg does not belong"),
    ],
)
def test_a_spoilt_checkpoint_is_refused_before_anything_is_loaded(tmp_path, spoil, message):
    fit(Line(), tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    spoil(path)
    found, task = path.read_bytes(), Line()
    before = held(task)
    with pytest.raises(StudyError, match=message) as error:
        fit(task, tmp_path)
    assert held(task) == before and "\n" not in str(error.value)
    assert path.read_bytes() == found, "a refused checkpoint is left for the user to look at"


def test_a_checkpoint_that_the_system_refuses_is_not_called_damaged(tmp_path):
    fit(Line(), tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(StudyError) as refused:
            checkpoint.load(path, Line(), "any")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert f"{path} cannot be read" in str(refused.value) and "damaged" not in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changes", [{"identity": "b"}, {"epochs": 4}, {"batch_size": 5}, {"seed": 2}, {"precision": "bf16"}]
)
def test_a_foreign_checkpoint_is_refused(tmp_path, changes):
    fit(Line(), tmp_path)
    with pytest.raises(StudyError, match="other data or another profile"):
        fit(Line(), tmp_path, **changes)


def test_another_version_goes_on_and_is_recorded(tmp_path, checkpoint_always, monkeypatch):
    _, weights = fit(Line(), tmp_path / "a" / "line")
    monkeypatch.setattr(loop, "code_version", lambda: "older")
    with pytest.raises(KeyboardInterrupt):
        fit(Line(fail_at=5), tmp_path / "b" / "line")
    monkeypatch.setattr(loop, "code_version", lambda: "newer")
    log, again = fit(Line(), tmp_path / "b" / "line")
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert [row["version"] for row in log] == ["older", "newer", "newer"]
    assert training.versions(log) == "older and newer"


class Heavy(Line):
    def __init__(self, **options):
        super().__init__(**options)
        self.tensors["ballast"] = torch.zeros(250_000)


def full(folder, fill):
    """A checkpoint, then a disk without room, then room again."""
    _, weights = fit(Heavy(), folder.parent / "undisturbed" / "line")
    with pytest.raises(KeyboardInterrupt):
        fit(Heavy(fail_at=4), folder)
    old = (folder / "checkpoint.safetensors").read_bytes()
    with (
        fill(),
        pytest.raises(StudyError, match=r"no room to write .*checkpoint.safetensors .*: free some space") as error,
    ):
        fit(Heavy(), folder)
    assert "\n" not in str(error.value)
    assert (folder / "checkpoint.safetensors").read_bytes() == old
    assert not list(folder.glob(".*.part"))
    task = Heavy()
    _, again = fit(task, folder)
    assert len(task.seen) == 5 and all(torch.equal(weights[key], again[key]) for key in weights)


def test_a_file_size_limit_is_one_sentence_and_nothing_is_lost(tmp_path, checkpoint_always):
    @contextlib.contextmanager
    def limited():
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    full(tmp_path / "line", limited)


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(tmp_path, checkpoint_always):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root may mount the small disk this needs")

    @contextlib.contextmanager
    def filled():
        ballast = disk / "ballast"
        with open(ballast, "wb", buffering=0) as f, contextlib.suppress(OSError):
            while f.write(bytes(4096)):
                pass
        os.truncate(ballast, ballast.stat().st_size - 700_000)  # room for half a checkpoint
        try:
            yield
        finally:
            ballast.unlink()

    try:
        full(disk / "line", filled)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_loss_that_is_not_finite_is_an_error(tmp_path):
    class Diverging(Line):
        def step(self, rows):
            return {"loss": float("nan")}

    with pytest.raises(StudyError, match="'loss' became nan at step 0: lower the learning rate"):
        fit(Diverging(), tmp_path)


def test_a_loss_is_reported_with_its_step_and_never_saved(tmp_path, checkpoint_always):
    class Diverging(Line):
        def step(self, rows):
            done = len(self.seen)
            return super().step(rows) | {"other": float("inf") if done >= 4 else 1.0}

    with pytest.raises(StudyError, match="'other' became inf at step 4: lower"):
        fit(Diverging(), tmp_path)
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as f:
        assert json.loads(f.metadata()["state"])["step"] == 4


def test_losses_leave_the_device_now_and_then_and_add_up_as_one_by_one(tmp_path, monkeypatch):
    class Recorded(Line):
        def step(self, rows):
            found = super().step(rows)
            self.losses = [*getattr(self, "losses", []), found["loss"].clone()]
            return found | {"constant": 0.1}

    asked, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: asked.append(len(self)) or tolist(self))
    task = Recorded()
    monkeypatch.setattr(loop, "LOSS_STEPS", 4)
    log, _ = fit(task, tmp_path, epochs=2, batch_size=2)
    assert asked == [8, 8, 4] * 2, "two losses of four steps at a time, and what is left of the epoch's ten"
    for epoch, row in enumerate(log):
        assert row["loss"] == sum(float(loss) for loss in task.losses[10 * epoch :][:10]) / 10
        assert row["constant"] == sum([float(torch.tensor(0.1))] * 10) / 10


def test_a_seed_depends_on_values_not_on_types():
    # the values of version 0.1.0, so that its runs can be made again
    assert training.derive(0) == int.from_bytes(hashlib.sha256(b"(0,)").digest()[:8], "big") >> 1
    assert (
        training.derive(3, "unet", ("a", 1))
        == int.from_bytes(hashlib.sha256(b"(3, 'unet', ('a', 1))").digest()[:8], "big") >> 1
    )
    for one in (np.int64(1), np.uint8(1), True, torch.tensor(1)):
        assert training.derive(one, "x") == training.derive(1, "x")
    assert training.derive(1, np.str_("x")) == training.derive(1, "x") != training.derive("1", "x")
    assert training.derive([1, 2]) == training.derive((np.int64(1), 2)) != training.derive(1, 2)
    for wrong in (None, 0.0, np.float32(1), b"x", {1}, torch.tensor(0.5)):
        with pytest.raises(StudyError, match="a seed is made of whole numbers and text, got"):
            training.derive(wrong)


def test_bf16_and_fp32_may_follow_each_other_in_one_process(tmp_path):
    fit(Line(), tmp_path / "a", precision="bf16")
    fit(Line(), tmp_path / "b", precision="fp32")
    assert training.accelerator("bf16").mixed_precision == "bf16"
