"""A small training task for tests of the loop."""

import torch

from pcamlib import training


class Line(training.Task):
    """A small network with dropout and momentum: forgets nothing only if everything is checkpointed."""

    def __init__(self, fail_at=None):
        super().__init__()
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
        )
        self.modules["line"] = model
        self.optimizers["adam"] = torch.optim.Adam(model.parameters(), lr=0.01)
        self.ema["line"] = training.make_ema(model, 0.9)
        self.tensors["count"] = torch.tensor(0)
        self.x, self.fail_at, self.seen = torch.randn(20, 4, generator=training.generator("x")), fail_at, []

    def step(self, rows):
        if self.fail_at is not None and int(self.tensors["count"]) == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append(rows)
        self.tensors["count"] += 1
        loss = (self.modules["line"](self.x[rows]).squeeze(1) - self.x[rows].sum(1)).pow(2).mean()
        self.update("adam", loss)
        return {"loss": loss.detach()}


def fit(task, folder, identity="a", **changes):
    options = {"n": 20, "epochs": 3, "batch_size": 6, "seed": 1, "precision": "fp32"} | changes
    log = training.fit(task, folder=folder, identity=identity, **options)
    return log, {k: v.clone() for k, v in task.modules["line"].state_dict().items()}
