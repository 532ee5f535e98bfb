"""Watching a training: a bar for a person, a line a minute for a log, curves and sample sheets in the run folder.

Nothing here is needed to resume, and nothing here draws from the training's random numbers.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, resolve

LINE_SECONDS = 60
CURVE_SECONDS = 5  # between two writings of log.csv
SHEET_SECONDS = 60  # until the first sample sheet; later ones are rarer
SHEET_SHARE = 0.02  # of the time, at most, goes into sheets
Log = list[dict[str, Any]]


def watched() -> bool:
    """Whether a person looks on: a terminal, or a notebook whose front end could also be asked for input.

    papermill and nbconvert run notebooks without input; JupyterLab and its relatives allow it.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    return bool(kernel._allow_stdin) if kernel else sys.stderr.isatty()


def read_log(folder: str | Path) -> Log:
    """The rows of folder/log.csv so far, numbers as numbers: curves of a training that still runs.

    StudyError if there is none: it is written when the first epoch ends.
    """

    def value(text: str) -> int | float | str:
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(text)
        return text

    path = resolve(folder) / "log.csv"
    if not path.exists():
        raise StudyError(f"{path} does not exist: the first epoch has not ended, or nothing was trained there.")
    with open(path, newline="") as f:
        return [{key: value(text) for key, text in row.items() if text} for row in csv.DictReader(f)]


def sheets(folder: str | Path) -> list[Path]:
    """The sample sheets (PNG) written so far for the training in `folder`, oldest first."""
    return sorted((resolve(folder) / "samples").glob("step-*.png"))


class Watch:
    """Shows and writes down how the training in `folder` goes; use as a context manager around its loop.

    total, done: steps in all and before this session; seconds: spent before this session. With `active` False (a
    process that only helps) nothing is shown or written. TensorBoard's event files are written if it is installed.
    """

    def __init__(self, folder: Path, total: int, done: int, seconds: float, active: bool = True):
        self.folder, self.total, self.first, self.active = folder, total, done, active and done < total
        self.started = time.monotonic() - seconds
        self.opened = self.said = time.monotonic()
        self.wrote = -CURVE_SECONDS  # the first epoch is written at once
        self._plan_sheet(cost=0)
        name = f"{folder.parent.name}/{folder.name}"
        self.bar = tqdm(
            total=total, initial=done, desc=name, unit=" steps", disable=not (self.active and watched()), leave=False
        )
        self.name, self.board = name, None
        if self.active and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()
        if self.board:
            self.board.close()

    @property
    def seconds(self) -> float:
        """Spent on this training, all its sessions together."""
        return time.monotonic() - self.started

    def step(self, done: int, losses: dict[str, float], sheet: Callable[[], np.ndarray | None]) -> None:
        """After every step: move the bar or print the minute's line; draw a sample sheet if one is due."""
        if not self.active:
            return
        self.bar.update()
        clock = time.monotonic()
        if self.bar.disable and clock - self.said >= LINE_SECONDS:
            self.said = clock
            # tqdm's own arithmetic, without the bar
            line = tqdm.format_meter(
                done, self.total, clock - self.opened, prefix=f"{self.name}: ", unit=" steps", initial=self.first,
                bar_format="{desc}{n_fmt}/{total_fmt} steps, {rate_fmt}, {remaining} left",
            )  # fmt: skip
            print(line, file=sys.stderr, flush=True)
        elif not self.bar.disable and done % 10 == 0:
            self.bar.set_postfix({key: f"{value:.4g}" for key, value in losses.items()}, refresh=False)
        if self.seconds >= self.next_sheet:
            images = sheet()
            if images is not None:
                self._write_sheet(images, done)
            self._plan_sheet(cost=time.monotonic() - clock)

    def epoch(self, log: Log) -> None:
        """After every epoch, or with the whole log at the end: log.csv is rewritten, if the last writing is not
        fresh."""
        if not self.active or not log:
            return
        if self.board:
            for key in log[-1].keys() - {"epoch", "step", "version"}:
                self.board.add_scalar(key, log[-1][key], log[-1]["step"])
        last = log[-1]["step"] == self.total
        if last or time.monotonic() - self.wrote >= CURVE_SECONDS:
            with atomic(self.folder / "log.csv") as tmp_path, open(tmp_path, "w", newline="") as f:
                writer = csv.DictWriter(f, fieldnames=list(dict.fromkeys(key for row in log for key in row)))
                writer.writeheader()
                writer.writerows(log)
            self.wrote = time.monotonic()
            if self.board:
                self.board.flush()

    def _plan_sheet(self, cost: float) -> None:
        """Sheets come at ever longer distances, a tenth of the time so far, and never more often than their share
        allows."""
        self.next_sheet = self.seconds + max(SHEET_SECONDS, self.seconds / 10, cost / SHEET_SHARE)

    def _write_sheet(self, images: np.ndarray, done: int) -> None:
        import torch
        from PIL import Image
        from torchvision.utils import make_grid

        grid = make_grid(torch.from_numpy(images).permute(0, 3, 1, 2), nrow=8, pad_value=255)
        sheet = grid.permute(1, 2, 0).numpy()
        with atomic(self.folder / "samples" / f"step-{done:08d}.png") as tmp_path:
            Image.fromarray(sheet).save(tmp_path, "PNG")
        if self.board:
            self.board.add_image("samples", sheet, done, dataformats="HWC")
