"""Rectified flow: what it learns, how it samples, that it resumes."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pcamlib import training
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root, read_json
from pcamlib.models import autoencoder, flow, generators
from pcamlib.models.diffusion import NULL


class Known(torch.nn.Module):
    """The exact velocity where every patch of class y is the constant y: the line from noise leads straight to it."""

    def __init__(self):
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.zeros(1))
        self.times = []

    def forward(self, x, t, class_labels):
        self.times.append(t)
        target = torch.where(class_labels == NULL, 0.5, class_labels.float()).view(-1, 1, 1, 1)
        return type("Output", (), {"sample": (x - target) / (t / 1000).view(-1, 1, 1, 1)})


def latents(n=64):
    labels = torch.arange(n) % 2
    values = (2.0 * labels - 1).view(1, n, 1, 1, 1) + 0.3 * torch.randn(
        1, n, 4, 12, 12, generator=training.generator(0)
    )
    return autoencoder.Latents(values, labels, torch.zeros(4), torch.ones(1))


@pytest.mark.parametrize("guidance, expected", [(1.0, (0.0, 1.0)), (3.0, (-1.0, 2.0)), (0.0, (0.5, 0.5))])
def test_sampling_follows_the_velocity_to_the_data(open_tiny, guidance, expected):
    settings = open_tiny().profile.diffusion.model_copy(update={"guidance": guidance, "sampling_steps": 4})
    model = Known()
    sampler = flow.FlowSampler(settings, model, None, latents())
    out = sampler.latents_of(torch.tensor([0, 1]), seed=3)
    torch.testing.assert_close(out, torch.tensor(expected).view(2, 1, 1, 1).expand_as(out), atol=1e-4, rtol=0)
    seen = [float(t[0]) for t in model.times]
    assert sorted(set(seen), reverse=True) == [1000, 750, 500, 250]


def test_the_label_steers(open_tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(flow.FlowTask, "sheet", lambda self: None)  # there is no decoder
    settings = open_tiny(**{"diffusion.epochs": 40, "diffusion.learning_rate": 3e-3}).profile.diffusion
    torch.manual_seed(0)
    task = flow.FlowTask(settings, latents(), None)
    options = {"n": 64, "epochs": 40, "batch_size": 16, "seed": 0, "precision": "fp32", "identity": "x"}
    log = training.fit(task, folder=tmp_path / "flow", **options)
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]
    settings = settings.model_copy(update={"guidance": 1.0, "sampling_steps": 10})
    labels = torch.tensor([0, 1] * 8)
    means = flow.FlowSampler(settings, task.modules["velocity"], None, latents()).latents_of(labels, 3).mean((1, 2, 3))
    assert float(means[labels == 1].mean() - means[labels == 0].mean()) > 1.2, "class means are 2 apart in the data"


def test_flow_is_trained_when_it_is_asked_for_and_resumes(open_tiny, monkeypatch, checkpoint_always):
    s = open_tiny(generators=["flow"])
    entry = generators.find(s, "flow")
    with pytest.raises(StudyError, match="run notebooks/02_autoencoder.md for subset 0 first"):
        entry.sampler(s)
    autoencoder.encode_subset(s, autoencoder.train(s)[0])
    step, count = flow.FlowTask.step, itertools.count()

    def cut(self, rows):
        if next(count) == 3:
            raise KeyboardInterrupt
        return step(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(flow.FlowTask, "step", cut)
        with pytest.raises(KeyboardInterrupt):
            entry.train(s)
    sample, labels = entry.sampler(s), np.array([0, 1, 1])
    images = sample(labels, seed=5)
    assert images.shape == (3, 96, 96, 3) and images.dtype == np.uint8
    assert read_json(s.results / "flow.json")["log"][-1]["step"] == 4 * 2
    np.testing.assert_array_equal(images, entry.sampler(s)(labels, seed=5))
    assert not np.array_equal(images, sample(labels, seed=6))
    straight = open_tiny(runs="straight", generators=["flow"])
    autoencoder.encode_subset(straight, autoencoder.train(straight)[0])
    np.testing.assert_array_equal(images, generators.find(straight, "flow").sampler(straight)(labels, seed=5))


def test_the_page_shows_the_code_that_runs():
    """Every line of Python on the page "Add a generator" stands in the package, in the same order."""
    page = (project_root() / "book" / "add_a_generator.md").read_text(encoding="utf-8")
    source = Path(flow.__file__).read_text(encoding="utf-8") + Path(generators.__file__).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3

    def plain(text):
        return re.sub(r"-> [^:]*|: torch\.Tensor|\s|#[^\n]*", "", text.replace('"#B40000"', "COLOUR"))

    for block in blocks:
        rows = iter(plain(line) for line in source.splitlines())
        for line in filter(None, map(plain, block.splitlines())):
            assert any(line in row for row in rows), line
