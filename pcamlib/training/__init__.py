"""The one training loop, and what a model family gives it."""

from pcamlib.training.loop import accelerator, batches, derive, fit, generator, layout, main_first, versions
from pcamlib.training.progress import read_log
from pcamlib.training.task import Task, make_ema

__all__ = [
    "Task",
    "accelerator",
    "batches",
    "derive",
    "fit",
    "generator",
    "layout",
    "main_first",
    "versions",
    "make_ema",
    "read_log",
]
