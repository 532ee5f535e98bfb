"""The one training loop: seeded per step, checkpointed, resumed exactly, on whatever device Accelerate finds.

All randomness is a function of (seed, stage, step): the loop reseeds torch before every step and derives each
epoch's order from (seed, stage, epoch). A run killed at any moment therefore continues from its last checkpoint to
the same weights it would have reached undisturbed (the recipe of NVlabs/edm2).
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pcamlib.errors import StudyError
from pcamlib.profiles import number_format
from pcamlib.store import atomic, code_version, digest, lock

CHECKPOINT_SECONDS = float(os.environ.get("PCAMLIB_CHECKPOINT_SECONDS", 60))
PROGRESS_SECONDS = 60


def derive(*parts: Any) -> int:
    """A 63-bit seed from any values, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


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
    """The memory format in which convolutions of this precision are fastest here: on a CPU, float32 is not channels_last."""
    fast = torch.accelerator.is_available() or number_format(precision) == "bf16"
    return torch.channels_last if fast else torch.contiguous_format


def accelerator(precision: str) -> Accelerator:
    """Accelerate's device and autocast for a profile's precision. A second call in one process may change it."""
    wanted = {"fp32": "no", "bf16": "bf16"}[number_format(precision)]
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != wanted:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=wanted)


class Task:
    """What a model family gives the loop. Subclasses set the attributes and define `step`.

    modules, optimizers: everything whose state a checkpoint must hold; ema: running averages of modules' weights,
    updated after every step; tensors: anything else that must survive a kill (changed in place only); step(rows) does
    one optimisation step on the data rows `rows` (int64 (B,)) and returns losses to log; end_of_epoch(epoch) may return
    further values (validation). `fit` sets `accelerator`, and before every step `progress`, the share of steps done.
    """

    accelerator: Accelerator
    progress: float

    def __init__(self) -> None:
        self.modules: dict[str, torch.nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.ema: dict[str, EMAModel] = {}
        self.tensors: dict[str, torch.Tensor] = {}

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor | float]:
        raise TypeError(f"{type(self).__name__} does not define step")

    def end_of_epoch(self, epoch: int) -> dict[str, float]:
        """Called after epoch `epoch` (from 1); the default adds nothing to the log."""
        return {}

    def update(self, optimizer: str, loss: torch.Tensor) -> None:
        """Back-propagate `loss` and step one optimiser."""
        self.optimizers[optimizer].zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.optimizers[optimizer].step()


def make_ema(module: torch.nn.Module, decay: float) -> EMAModel:
    """diffusers' EMA with its warm-up (1 + n) / (10 + n), so that short runs are not averages of their start."""
    return EMAModel(module.parameters(), decay=decay)


def fit(
    task: Task, *, folder: Path, n: int, epochs: int, batch_size: int, seed: Any, precision: str, identity: Any
) -> list[dict[str, float]]:
    """Train `task` for `epochs` over n rows; resume from `folder`/checkpoint.safetensors if it is there.

    Writes folder/log.csv (a row per epoch: epoch, step, images seen, mean losses, seconds) and folder/progress.log
    (a line a minute). `identity` is anything JSON that must not differ between a checkpoint and the run that
    resumes it (profile section, data rows). Returns the rows of the log. Raises StudyError for a damaged or foreign
    checkpoint and for a loss that is not finite.
    """
    with lock(folder):  # two runs of one stage would overwrite each other's checkpoint
        for torn in folder.glob(".checkpoint.safetensors.*.part"):  # a kill in the middle of a save leaves one
            torn.unlink()
        return _fit(
            task,
            folder,
            n,
            epochs,
            batch_size,
            seed,
            precision,
            digest([identity, epochs, batch_size, number_format(precision), seed, n]),
        )


def _fit(
    task: Task, folder: Path, n: int, epochs: int, batch_size: int, seed: Any, precision: str, tag: str
) -> list[dict[str, float]]:
    task.accelerator = accelerator(precision)
    names = list(task.modules) + list(task.optimizers)
    prepared = task.accelerator.prepare(*task.modules.values(), *task.optimizers.values())
    for name, value in zip(names, prepared):
        (task.modules if name in task.modules else task.optimizers)[name] = value
    for ema in task.ema.values():
        ema.to(task.accelerator.device)

    stage = folder.name
    steps_per_epoch = n // min(batch_size, n)
    total = epochs * steps_per_epoch
    path = folder / "checkpoint.safetensors"
    state = _restore(path, task, tag) if path.exists() else {"step": 0, "sums": {}, "log": [], "seconds": 0.0}
    started, saved, said = time.monotonic() - state["seconds"], time.monotonic(), time.monotonic()
    order = batches(n, batch_size, seed, stage, "epoch", state["step"] // steps_per_epoch)
    for step in range(state["step"], total):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0:
            order = batches(n, batch_size, seed, stage, "epoch", epoch)
            state["sums"] = {}
        torch.manual_seed(derive(seed, stage, "step", step))
        for module in task.modules.values():
            module.train()
        task.progress = step / total
        for key, value in task.step(order[position]).items():
            value = float(value)
            if not torch.isfinite(torch.tensor(value)):
                raise StudyError(
                    f"{stage}: '{key}' became {value} at step {step}: lower the learning rate in the profile."
                )
            state["sums"][key] = state["sums"].get(key, 0.0) + value
        for name, ema in task.ema.items():
            ema.step(task.modules[name].parameters())
        state["step"] = step + 1
        if position == steps_per_epoch - 1:
            torch.manual_seed(derive(seed, stage, "end of epoch", epoch))
            extra = task.end_of_epoch(epoch + 1)
            state["seconds"] = time.monotonic() - started
            state["log"].append(
                {"epoch": epoch + 1, "step": step + 1, "images": (step + 1) * order.shape[1]}
                | {key: value / steps_per_epoch for key, value in state["sums"].items()}
                | extra
                | {"seconds": round(state["seconds"], 1)}
            )
        clock = time.monotonic()
        if clock - saved > CHECKPOINT_SECONDS and step + 1 < total:
            state["seconds"] = clock - started
            _save(path, task, tag, state)
            saved = clock
        if clock - said > PROGRESS_SECONDS:
            _progress(folder, state["step"], total, clock - started)
            said = clock
    _save(path, task, tag, state)
    _write_csv(folder / "log.csv", state["log"])
    for name in task.modules:
        task.modules[name] = task.accelerator.unwrap_model(task.modules[name], keep_fp32_wrapper=False).eval()
    for name, ema in task.ema.items():
        ema.copy_to(task.modules[name].parameters())
    return state["log"]


def _tensors(task: Task) -> Iterator[tuple[str, torch.Tensor]]:
    for name, module in task.modules.items():
        for key, value in task.accelerator.unwrap_model(module).state_dict().items():
            yield f"module/{name}/{key}", value
    for name, ema in task.ema.items():
        for i, value in enumerate(ema.shadow_params):
            yield f"ema/{name}/{i}", value
    for name, value in task.tensors.items():
        yield f"tensor/{name}/", value
    for name, optimizer in task.optimizers.items():
        for i, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                if value is not None:  # SGD without momentum keeps None
                    yield f"optimizer/{name}/{i}/{key}", torch.as_tensor(value)


def _save(path: Path, task: Task, tag: str, state: dict) -> None:
    """Everything in one safetensors file, so that one rename makes the checkpoint whole."""
    meta = {
        "tag": tag,
        "version": code_version(),
        "state": json.dumps(state),
        "ema_steps": json.dumps({name: ema.optimization_step for name, ema in task.ema.items()}),
    }
    # safetensors refuses channels_last and shared memory: contiguous copies on the CPU
    tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in _tensors(task)}
    with atomic(path) as aside:
        save_file(tensors, aside, metadata=meta)


def _restore(path: Path, task: Task, tag: str) -> dict:
    try:
        with safe_open(path, framework="pt") as f:
            meta = f.metadata() or {}
            if meta.get("tag") != tag:
                raise StudyError(
                    f"{path} was made with other data or another profile: remove it or choose another runs_dir."
                )
            tensors = {key: f.get_tensor(key) for key in f.keys()}
            state, ema_steps = json.loads(meta["state"]), json.loads(meta["ema_steps"])
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise StudyError(f"{path} is damaged ({error}): remove it and run again, this stage starts afresh.") from None
    parts: dict[str, dict] = {}
    for key, value in tensors.items():
        kind, name, rest = key.split("/", 2)
        parts.setdefault(f"{kind}/{name}", {})[rest] = value
    for name, module in task.modules.items():
        task.accelerator.unwrap_model(module).load_state_dict(parts[f"module/{name}"])
    for name, value in task.tensors.items():
        value.copy_(parts[f"tensor/{name}"][""])
    for name, ema in task.ema.items():
        values = parts[f"ema/{name}"]
        for i, shadow in enumerate(ema.shadow_params):
            shadow.copy_(values[str(i)])
        ema.optimization_step = ema_steps[name]
    for name, optimizer in task.optimizers.items():
        per_parameter: dict[int, dict] = {}
        for rest, value in parts.get(f"optimizer/{name}", {}).items():
            i, key = rest.split("/", 1)
            per_parameter.setdefault(int(i), {})[key] = value
        optimizer.load_state_dict({"state": per_parameter, "param_groups": optimizer.state_dict()["param_groups"]})
    return state


def _write_csv(path: Path, log: list[dict[str, float]]) -> None:
    with atomic(path) as aside, open(aside, "w", newline="") as f:
        writer = csv.DictWriter(f, fieldnames=list(log[0]))
        writer.writeheader()
        writer.writerows(log)


def _progress(folder: Path, step: int, total: int, seconds: float) -> None:
    """A line a minute in a file: printed, it would flood the executed notebook."""
    left = seconds / step * (total - step)
    with open(folder / "progress.log", "a") as f:
        f.write(f"{folder.name}: step {step}/{total}, {step / seconds:.2f} steps/s, {left / 60:.1f} min left\n")
