"""The one training loop: seeded per step, checkpointed, resumed exactly, on whatever devices Accelerate finds.

All randomness is a function of (seed, stage, step): the loop reseeds torch before every step and derives each
epoch's order from (seed, stage, epoch). A run killed at any moment therefore continues from its last checkpoint to
the same weights it would have reached undisturbed (the recipe of NVlabs/edm2).

Several processes (torchrun) share every batch: each takes its rows of it, and draws what is random for the whole batch
before it does, so that a row meets the same noise in whichever process it lands. Gradients are averaged over
processes, the profile's batch size stays the size of the whole batch, and only the main process writes.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import math
import operator
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs, PartialState
from accelerate.state import AcceleratorState

from pcamlib.core.errors import StudyError
from pcamlib.core.files import code_version, digest, lock
from pcamlib.core.precision import number_format
from pcamlib.training import checkpoint
from pcamlib.training.progress import Watch
from pcamlib.training.task import Task

# between checkpoints; a checkpoint that takes n seconds, n > 1, is made n times more rarely
CHECKPOINT_SECONDS = float(os.environ.get("PCAMLIB_CHECKPOINT_SECONDS", 60))
LOSS_STEPS = 10  # between transfers of losses to the CPU: each one waits until the device has done its work
PATIENCE = datetime.timedelta(hours=2)  # of processes that wait for what the main one does alone


def derive(*parts: Any) -> int:
    """A 63-bit seed from whole numbers, text and tuples of them, the same on every machine.

    Equal values give equal seeds whatever their type: 1, True, numpy.int64(1) and a tensor that holds 1 are one value.
    Anything else (None, 1.0, an object) raises StudyError: its text differs between types and library versions.
    """
    return int.from_bytes(hashlib.sha256(repr(_plain(parts)).encode()).digest()[:8], "big") >> 1


def _plain(part: Any) -> int | str | tuple:
    """`part` in Python's own types, whose repr never changes."""
    if isinstance(part, str):
        return "".join(part)  # of a subclass, such as numpy.str_, the text alone
    if isinstance(part, tuple | list):
        return tuple(map(_plain, part))
    try:
        return operator.index(part)
    except TypeError:
        raise StudyError(
            f"a seed is made of whole numbers and text, got {part!r:.60} ({type(part).__name__}): give a whole number."
        ) from None


def generator(*parts: Any) -> torch.Generator:
    """A CPU generator seeded by `derive(*parts)`."""
    return torch.Generator().manual_seed(derive(*parts))


def batches(n: int, batch_size: int, *seed: Any) -> torch.Tensor:
    """One epoch's row numbers, int64 (steps, batch): a seeded permutation of n, its ragged tail left out.

    A batch larger than n becomes n. The tail differs from epoch to epoch, so no row is always left out.
    """
    batch_size = min(batch_size, n)
    steps = n // batch_size
    return torch.randperm(n, generator=generator(*seed))[: steps * batch_size].reshape(steps, batch_size)


def layout(precision: str) -> torch.memory_format:
    """The memory format in which convolutions of this precision are fastest here: on a CPU, float32 is not
    channels_last."""
    fast = torch.accelerator.is_available() or number_format(precision) == "bf16"
    return torch.channels_last if fast else torch.contiguous_format


def accelerator(precision: str) -> Accelerator:
    """Accelerate's device and autocast for a profile's precision. A second call in one process may change it."""
    wanted = {"fp32": "no", "bf16": "bf16"}[number_format(precision)]
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != wanted:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=wanted, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the block while the others wait; when they enter, what it makes is there to be found."""
    with PartialState().main_process_first():
        yield


def versions(log: list[dict[str, Any]]) -> str:
    """The code that made a log and its results: all versions its epochs ran with, and the present one."""
    return " and ".join(dict.fromkeys([*(row["version"] for row in log), code_version()]))


def fit(
    task: Task, *, folder: Path, n: int, epochs: int, batch_size: int, seed: Any, precision: str, identity: Any
) -> list[dict[str, Any]]:
    """Train `task` for `epochs` over n rows; resume from `folder`/checkpoint.safetensors if it is there.

    Writes folder/log.csv as epochs end (a row each: epoch, step, images seen, mean losses, seconds, code version) and
    now and then ``folder/samples/step-*.png``. `identity` is anything JSON that must not differ between a checkpoint
    and the run that resumes it (profile section, data rows). Returns the rows of the log. Raises StudyError for a
    damaged or foreign checkpoint, a full disk, a loss that is not finite, and a batch that does not divide over the
    processes.
    """
    task.accelerator = accelerator(precision)
    processes, batch_size = task.accelerator.num_processes, min(batch_size, n)
    if batch_size % processes:
        raise StudyError(
            f"{folder.name}: a batch of {batch_size} does not divide over {processes} processes: start a number that "
            "divides it, or change batch_size in a copy of the profile."
        )
    tag = digest([folder.name, identity, epochs, batch_size, number_format(precision), seed, n])
    main = task.accelerator.is_main_process
    # two runs of one stage would overwrite each other's checkpoint
    with lock(folder) if main else contextlib.nullcontext():
        return _fit(task, folder, n, epochs, batch_size, seed, tag)


def _fit(task: Task, folder: Path, n: int, epochs: int, batch_size: int, seed: Any, tag: str) -> list[dict[str, Any]]:
    accelerate = task.accelerator
    main, helper = accelerate.is_main_process, [accelerate.process_index] * (not accelerate.is_main_process)
    names = list(task.modules) + list(task.optimizers)
    prepared = accelerate.prepare(*task.modules.values(), *task.optimizers.values())
    for name, value in zip(names, prepared):
        (task.modules if name in task.modules else task.optimizers)[name] = value
    for ema in task.ema.values():
        ema.to(accelerate.device)

    stage = folder.name
    steps_per_epoch = n // batch_size
    total = epochs * steps_per_epoch
    path = folder / "checkpoint.safetensors"
    accelerate.wait_for_everyone()  # until the main process holds the folder
    state: dict[str, Any] = {"step": 0, "sums": {}, "log": [], "seconds": 0.0}
    if path.exists():
        state = checkpoint.load(path, task, tag)
    first, saved, pause = state["step"], time.monotonic(), CHECKPOINT_SECONDS
    pending: list[tuple[int, dict[str, torch.Tensor]]] = []
    losses: dict[str, float] = {}
    with Watch(folder, total, first, state["seconds"], active=main) as watch:
        for step in range(first, total):
            epoch, position = divmod(step, steps_per_epoch)
            if position == 0:
                state["sums"] = {}
            if position == 0 or step == first:
                order = batches(n, batch_size, seed, stage, "epoch", epoch)
            task.random = generator(seed, stage, "batch", step)
            torch.manual_seed(derive(seed, stage, "step", step, *helper))
            for module in task.modules.values():
                module.train()
            task.progress = step / total
            pending.append((step, _mean(task, task.step(order[position]))))
            for name, ema in task.ema.items():
                ema.step(task.modules[name].parameters())
            state["step"] = step + 1
            save = main and (step + 1 == total or time.monotonic() - saved > pause)
            if save or position == steps_per_epoch - 1 or len(pending) == LOSS_STEPS:
                losses = _transfer(pending, state["sums"], stage)
            if position == steps_per_epoch - 1:
                torch.manual_seed(derive(seed, stage, "end of epoch", epoch))
                extra = task.end_of_epoch(epoch + 1) if main else {}
                state["log"].append(
                    {"epoch": epoch + 1, "step": step + 1, "images": (step + 1) * batch_size}
                    | {key: value / steps_per_epoch for key, value in state["sums"].items()}
                    | extra
                    | {"seconds": round(watch.seconds, 1), "version": code_version()}
                )
                watch.epoch(state["log"])
            watch.step(step + 1, losses, task.sheet)
            if save:
                state["seconds"], saved = watch.seconds, time.monotonic()
                checkpoint.save(path, task, tag, state)
                pause = CHECKPOINT_SECONDS * max(1.0, time.monotonic() - saved)
                saved = time.monotonic()
    for name in task.modules:
        task.modules[name] = accelerate.unwrap_model(task.modules[name], keep_fp32_wrapper=False).eval()
    for name, ema in task.ema.items():
        ema.copy_to(task.modules[name].parameters())
    return state["log"]


def _mean(task: Task, losses: dict[str, torch.Tensor | float]) -> dict[str, torch.Tensor]:
    """Losses of the whole batch, float32 scalars on the device: the mean over the processes' equal shares."""
    device = task.accelerator.device
    scalars = [
        # filled on the device: a copy to it would wait
        (
            v.detach().to(device, torch.float32)
            if isinstance(v, torch.Tensor)
            else torch.full((), v, dtype=torch.float32, device=device)
        )
        for v in losses.values()
    ]
    return dict(zip(losses, task.accelerator.reduce(torch.stack(scalars), "mean").unbind()))


def _transfer(
    pending: list[tuple[int, dict[str, torch.Tensor]]], sums: dict[str, float], stage: str
) -> dict[str, float]:
    """Add the losses of the `pending` steps to the epoch's `sums`, step by step, and empty it; returns the last step's.

    Raises StudyError for the first loss that is not finite, with its step.
    """
    values = torch.stack([value for _, losses in pending for value in losses.values()]).tolist()
    names = [(step, key) for step, losses in pending for key in losses]
    for (step, key), value in zip(names, values, strict=True):
        if not math.isfinite(value):
            raise StudyError(f"{stage}: '{key}' became {value} at step {step}: lower the learning rate in the profile.")
        sums[key] = sums.get(key, 0.0) + value
    last = dict(zip(pending[-1][1], values[-len(pending[-1][1]) :]))
    pending.clear()
    return last
