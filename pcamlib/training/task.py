"""What a model family gives the training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel


class Task:
    """What a model family gives the loop. Subclasses set the attributes and define `step`.

    modules, optimizers: everything whose state a checkpoint must hold; ema: running averages of modules' weights,
    updated after every step; tensors: anything else that must survive a kill (changed in place only); step(rows) does
    one optimisation step on the data rows `rows` (int64 (B,), the whole batch) and returns losses to log;
    end_of_epoch(epoch) may return further values (validation), sheet() images to look at. `fit` sets `accelerator`,
    and before every step `progress`, the share of steps done, and `random`, the generator for everything that a step
    draws: for the whole batch, then `share` it. Torch's own generator (dropout) differs between processes.
    """

    accelerator: Accelerator
    progress: float
    random: torch.Generator

    def __init__(self) -> None:
        self.modules: dict[str, torch.nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.ema: dict[str, EMAModel] = {}
        self.tensors: dict[str, torch.Tensor] = {}

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor | float]:
        raise TypeError(f"{type(self).__name__} does not define step")

    def end_of_epoch(self, epoch: int) -> dict[str, float]:
        """Called in the main process after epoch `epoch` (from 1); the default adds nothing to the log."""
        return {}

    def sheet(self) -> np.ndarray | None:
        """Images uint8 (N, 96, 96, 3) of the state of training, the same N each time; None: nothing to see."""
        return None

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """This process's rows of something with a row for each of the whole batch."""
        size = len(batch) // self.accelerator.num_processes
        return batch[self.accelerator.process_index * size :][:size]

    def update(self, optimizer: str, loss: torch.Tensor) -> None:
        """Back-propagate `loss` and step one optimiser."""
        self.optimizers[optimizer].zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.optimizers[optimizer].step()


def make_ema(module: torch.nn.Module, decay: float) -> EMAModel:
    """diffusers' EMA with its warm-up (1 + n) / (10 + n), so that short runs are not averages of their start."""
    from diffusers.training_utils import EMAModel  # takes seconds, and classifiers do without it

    return EMAModel(module.parameters(), decay=decay)
