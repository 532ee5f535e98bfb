"""pcamlib.train under torchrun, as a user starts it, which also says what every process holds at the end.

    torchrun --nproc_per_node 2 tests/two_processes.py STOPPED ARGUMENTS OF pcamlib.train

A stage named STOPPED is cut off after two thirds of its steps, with a checkpoint.
"""

import hashlib
import sys

from accelerate import PartialState

from pcamlib import checkpoint, train, training

stopped, fit, save = sys.argv[1], training.fit, checkpoint.save


def said(task, *, folder, **options):
    log = fit(task, folder=folder, **options)
    weights = [*(p for m in task.modules.values() for p in m.parameters())]
    weights += [p for ema in task.ema.values() for p in ema.shadow_params]
    held = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in weights)).hexdigest()
    print(f"held {folder.name} {held}", flush=True)
    return log


def saved(path, task, tag, state):
    print(f"saved {path.parent.name} by {PartialState().process_index}", flush=True)
    save(path, task, tag, state)


def step(self, rows):
    if self.progress > 0.66:
        raise KeyboardInterrupt
    return step_(self, rows)


training.fit, checkpoint.save = said, saved
if stopped:
    training.CHECKPOINT_SECONDS = -1
    kind = train.diffusion.DiffusionTask
    kind.step, step_ = step, kind.step
sys.exit(train.main(sys.argv[2:]))
