"""Watching: who gets a bar, the minute's line, curves and sheets while training goes, nothing of it in the weights."""

import contextlib
import importlib.util
import os
import pty
import subprocess
import sys
import termios
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from small_task import Line, fit

from pcamlib import training
from pcamlib.core import text
from pcamlib.core.errors import StudyError
from pcamlib.models import autoencoder, diffusion, histogan
from pcamlib.report import plots
from pcamlib.training import progress


class Shown(Line):
    """Looks at what is written while it trains, and has something to show."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.rows = folder, []

    def step(self, rows):
        self.rows.append(len(progress.read_log(self.folder)) if (self.folder / "log.csv").exists() else 0)
        return super().step(rows)

    def sheet(self):
        torch.rand(7)
        return np.full((10, 96, 96, 3), 90, np.uint8)


def test_curves_and_sheets_are_there_while_training_goes_and_change_nothing(tmp_path, monkeypatch, capsys):
    _, weights = fit(Line(), tmp_path / "a" / "line")
    assert not (tmp_path / "a" / "line" / "samples").exists() and capsys.readouterr().err == ""
    for name in ("CURVE_SECONDS", "SHEET_SECONDS", "LINE_SECONDS"):
        monkeypatch.setattr(progress, name, 0)
    monkeypatch.setattr(progress.Watch, "_plan_sheet", lambda self, cost: setattr(self, "next_sheet", 0))
    task = Shown(tmp_path / "b" / "line")
    log, again = fit(task, tmp_path / "b" / "line")
    assert task.rows == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9 and all(text.PROGRESS.match(line) for line in lines)
    assert lines[3].startswith("b/line: 4/9 steps, ") and lines[3].endswith(" left") and " steps/s" in lines[3]
    sheets = progress.sheets(tmp_path / "b" / "line")
    assert [path.name for path in sheets][:2] == ["step-00000001.png", "step-00000002.png"] and len(sheets) == 9
    assert Image.open(sheets[0]).size == (8 * 98 + 2, 2 * 98 + 2)
    rows = progress.read_log(tmp_path / "b" / "line")
    assert rows == log
    plt.close(plots.loss_curves(rows))


def test_a_log_that_is_not_there_yet_is_one_sentence(tmp_path):
    with pytest.raises(StudyError, match="log.csv does not exist: the first epoch has not ended"):
        progress.read_log(tmp_path)


def test_lines_come_by_the_minute_and_sheets_cost_no_more_than_their_share(tmp_path, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    drawn = []

    def sheet():
        clock[0] += 4  # seconds
        drawn.append(clock[0])
        return np.zeros((1, 96, 96, 3), np.uint8)

    with progress.Watch(tmp_path / "line", 40_000, 0, 0.0) as seen:
        for step in range(36_000):
            clock[0] += 1
            seen.step(step + 1, {"loss": 1.0}, sheet)
    assert len(capsys.readouterr().err.splitlines()) == pytest.approx(clock[0] / 60, abs=10)
    assert 10 < len(drawn) < 60 and 4 * len(drawn) < 0.02 * clock[0]
    assert all(b - a >= 4 / progress.SHEET_SHARE for a, b in zip(drawn, drawn[1:]))


@pytest.mark.parametrize("family", ["autoencoder", "unet", "histogan"])
def test_sheets_of_the_families_leave_the_training_as_it_is(open_tiny, tmp_path, monkeypatch, family):
    s = open_tiny(**{"histogan.epochs": 1, "autoencoder.epochs": 1, "diffusion.epochs": 2, "histogan.base_channels": 4})
    kind = {"autoencoder": autoencoder.AutoencoderTask, "unet": diffusion.DiffusionTask, "histogan": histogan.GanTask}
    draw, drawn = kind[family].sheet, []

    def run(folder, every_step):
        monkeypatch.setattr(
            progress.Watch, "_plan_sheet", lambda self, cost: setattr(self, "next_sheet", 0 if every_step else 1e9)
        )
        monkeypatch.setattr(kind[family], "sheet", lambda self: drawn.append(draw(self)) or drawn[-1])
        profile, identity = s.profile, family
        torch.manual_seed(0)
        if family == "autoencoder":
            task = autoencoder.AutoencoderTask(profile.autoencoder, s.real.images, 8)
        elif family == "unet":
            latents = autoencoder.Latents(
                torch.randn(1, 32, 4, 12, 12), torch.arange(32) % 2, torch.zeros(4), torch.ones(1)
            )
            task = diffusion.DiffusionTask(
                profile.diffusion, "unet", latents, autoencoder.Autoencoder(profile.autoencoder)
            )
        else:
            task = histogan.GanTask(profile.histogan, s.real.images, s.real.labels, 8)
        precision = "bf16" if family == "histogan" else "fp32"
        training.fit(task, folder=folder, n=16, epochs=1, batch_size=8, seed=0, precision=precision, identity=identity)
        return [value for module in task.modules.values() for value in module.state_dict().values()]

    plain, watched = run(tmp_path / "a" / family, False), run(tmp_path / "b" / family, True)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert len(drawn) == 2 and all(images.shape == (16, 96, 96, 3) and images.dtype == np.uint8 for images in drawn)
    assert not np.array_equal(drawn[0], drawn[-1])


CODE = (
    "import sys; from pathlib import Path; from pcamlib.training import progress as watch\nwith"
    " watch.Watch(Path(sys.argv[1]) / 'line', 50, 0, 0.0) as w:\n for i in range(50): w.step(i + 1, {'loss': 1.0},"
    " None)"
)


def test_a_terminal_gets_one_bar_and_a_file_none(tmp_path):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    environment = {key: value for key, value in os.environ.items() if key != "TQDM_DISABLE"}
    code = CODE.replace("w.step", "__import__('time').sleep(0.02); w.step")
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # what a terminal answers when its last user is gone
        while part := os.read(master, 10_000):
            shown += part
    assert process.wait() == 0
    shown = shown.decode()
    assert f"{tmp_path.name}/line:" in shown and "steps/s" in shown and "\n" not in shown.strip()
    quiet = subprocess.run([sys.executable, "-c", CODE, tmp_path], stderr=subprocess.PIPE, env=environment, check=True)
    assert quiet.stderr == b""


@pytest.mark.parametrize("allowed", [True, False])
def test_a_notebook_is_watched_if_its_front_end_could_be_asked(monkeypatch, allowed):
    shell = types.SimpleNamespace(kernel=types.SimpleNamespace(_allow_stdin=allowed))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert progress.watched() is allowed


@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="TensorBoard is not installed")
def test_tensorboard_has_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log, _ = fit(Line(), tmp_path / "line")
    events = EventAccumulator(str(tmp_path / "line" / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (row["step"], pytest.approx(row["loss"])) for row in log
    ]
