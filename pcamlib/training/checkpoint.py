"""One training's whole state in one safetensors file: written aside and renamed, refused if anything about it is
wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pcamlib.core.errors import StudyError, load_error
from pcamlib.core.files import atomic, code_version

if TYPE_CHECKING:
    from pcamlib.training.task import Task

FORMAT = "pcamlib-checkpoint-1"


def save(path: Path, task: Task, tag: str, state: dict) -> None:
    """Write modules, averages, optimisers and tensors of `task`, and `state` (JSON) with them, in one renamed file.

    `tag` identifies the training (see `load`). Raises StudyError if the disk is full; the old file then stays.
    """
    # safetensors refuses channels_last and shared memory: contiguous copies on the CPU
    tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in _tensors(task)}
    tensors |= {key: value.detach().to("cpu", copy=True).contiguous() for key, value in _optimizer_tensors(task)}
    meta = {
        "format": FORMAT,
        "family": type(task).__name__,
        "tag": tag,
        "version": code_version(),
        "state": json.dumps(state),
        "ema_steps": json.dumps({name: ema.optimization_step for name, ema in task.ema.items()}),
    }
    with atomic(path) as tmp_path:
        save_file(tensors, tmp_path, metadata=meta | {"sha256": _sum(meta, tensors)})


def load(path: Path, task: Task, tag: str) -> dict:
    """Put a checkpoint into `task` and return its state. Another version of the code may have written it.

    Raises StudyError, with nothing loaded, if the file cannot be read, is damaged, or is not a checkpoint of this
    training: other format, model family, data, profile or network.
    """
    try:
        with safe_open(path, framework="pt") as f:
            meta = dict(f.metadata() or {})
            if meta.get("format") != FORMAT:
                raise StudyError(
                    f"{path} is not a checkpoint of this program's format ({FORMAT}): remove it and run again."
                )
            if (meta.get("family"), meta.get("tag")) != (type(task).__name__, tag):
                raise StudyError(
                    f"{path} was made with other data or another profile: remove it or choose another runs_dir."
                )
            tensors = {key: f.get_tensor(key) for key in f.keys()}
        if meta.pop("sha256", None) != _sum(meta, tensors):
            raise SafetensorError("its checksum differs")
    except (SafetensorError, OSError) as error:
        raise load_error(path, error, "remove it and run again, this stage starts afresh") from None
    if difference := _difference(task, tensors):
        raise StudyError(
            f"{path} was made by pcamlib {meta['version']} for another network ({difference}): "
            "go on with that version, or remove it and run again."
        )
    with torch.no_grad():
        for key, value in _tensors(task):
            value.copy_(tensors[key])
    for name, steps in json.loads(meta["ema_steps"]).items():
        task.ema[name].optimization_step = steps
    for name, optimizer in task.optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer/{name}/"):
                _, _, i, what = key.split("/", 3)
                p = parameters[int(i)]
                # fused optimisers read memory as it lies: a moment must lie as its parameter does (channels_last)
                state.setdefault(int(i), {})[what] = torch.empty_like(p).copy_(value) if value.dim() else value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return json.loads(meta["state"])


def _tensors(task: Task) -> Iterator[tuple[str, torch.Tensor]]:
    """Everything that exists from the start, by name; the tensors are the task's own."""
    for name, module in task.modules.items():
        for key, value in task.accelerator.unwrap_model(module).state_dict().items():
            yield f"module/{name}/{key}", value
    for name, ema in task.ema.items():
        for i, value in enumerate(ema.shadow_params):
            yield f"ema/{name}/{i}", value
    for name, value in task.tensors.items():
        yield f"tensor/{name}", value


def _optimizer_tensors(task: Task) -> Iterator[tuple[str, torch.Tensor]]:
    """What optimisers make at their first step."""
    for name, optimizer in task.optimizers.items():
        for i, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                if value is not None:  # SGD without momentum keeps None
                    yield f"optimizer/{name}/{i}/{key}", torch.as_tensor(value)


def _difference(task: Task, found: dict[str, torch.Tensor]) -> str | None:
    """The first tensor that is missing, unknown, or of another shape or type than `task` has; None if all fit."""
    expected = {key: (value.shape, value.dtype) for key, value in _tensors(task)}
    for key, (shape, dtype) in expected.items():
        if key not in found:
            return f"it has no {key}"
        if (found[key].shape, found[key].dtype) != (shape, dtype):
            return f"{key} is {tuple(found[key].shape)} {found[key].dtype}, not {tuple(shape)} {dtype}"
    parameters = {
        f"optimizer/{name}/{i}": p.shape
        for name, optimizer in task.optimizers.items()
        for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])
    }
    for key in found.keys() - expected.keys():
        shape = parameters.get(key.rpartition("/")[0])
        if shape is None or found[key].shape not in (shape, torch.Size()):  # a moment, or a count of steps
            return f"{key} does not belong to it"
    return None


def _sum(meta: dict[str, str], tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes: safetensors itself notices a cut, not a flipped bit."""
    h = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for key in sorted(tensors):
        h.update(f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)}".encode())
        h.update(tensors[key].reshape(-1).view(torch.uint8).numpy())
    return h.hexdigest()
