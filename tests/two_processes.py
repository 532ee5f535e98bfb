"""What tests/test_processes.py starts with torchrun: `pcamlib train`, and what each process holds at the end of a
stage.

    torchrun --nproc_per_node 2 tests/two_processes.py RUNS OTHER_RUNS ARGUMENTS…

Trains every family in RUNS; goes on with the U-Net in OTHER_RUNS, whose checkpoint one process has left; and leaves a
checkpoint of the DiT there, after two thirds of its steps.
"""

import hashlib
import os
import sys

from accelerate import PartialState

from pcamlib import cli, training
from pcamlib.experiments import classification
from pcamlib.models import diffusion
from pcamlib.training import checkpoint, loop

fit, save, step, arms = training.fit, checkpoint.save, diffusion.DiffusionTask.step, classification.arms


def say(line):
    """In one write: both processes have one standard output, and print may write the end of a line by itself."""
    os.write(1, f"{line}\n".encode())


def fit_and_say(task, *, folder, **options):
    log = fit(task, folder=folder, **options)
    weights = [p for module in task.modules.values() for p in module.parameters()]
    weights += [p for ema in task.ema.values() for p in ema.shadow_params]
    held = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in weights)).hexdigest()
    say(f"held {folder.name} {held}")
    return log


def save_and_say(path, *args):
    say(f"saved {path.parent.name} by {PartialState().process_index}")
    save(path, *args)


def stop_late(self, rows):
    if self.progress >= 0.66:
        raise KeyboardInterrupt
    return step(self, rows)


def main(runs, others, *arguments):
    training.fit, checkpoint.save, classification.arms = fit_and_say, save_and_say, lambda g: arms(g)[:1]
    stages = ["autoencoder", "unet", "dit", "histogan", "classifiers:real"]
    code = cli.main(["train", *stages, "--runs-dir", runs, *arguments])
    code = code or cli.main(["train", "unet", "--runs-dir", others, *arguments])
    loop.CHECKPOINT_SECONDS, diffusion.DiffusionTask.step = -1, stop_late
    return code or cli.main(["train", "dit", "--runs-dir", others, *arguments]) != 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
