"""Rectified flow (Liu et al. 2023; Lipman et al. 2023) with the study's U-Net on the same latents: the worked example
of the page "Add a generator". No profile uses it unless its key `generators` lists "flow".

A patch x_0 and noise ε are joined by a straight line, x_t = (1 - t) x_0 + t ε with t in [0, 1]. The network learns
the velocity along it, ε - x_0, and sampling follows the learned velocity from t = 1 back to 0. Labels are dropped and
guided as in `diffusion`, and the settings are those of the profile's section `diffusion`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from torch import nn

from pcamlib import training
from pcamlib.core.errors import StudyError, loading_weights
from pcamlib.core.files import atomic_folder
from pcamlib.core.precision import number_format
from pcamlib.core.sections import DiffusionSettings as Settings
from pcamlib.models import autoencoder, diffusion
from pcamlib.models.diffusion import BATCH, NULL, SAMPLING, integer
from pcamlib.study import Study

NAME = "flow"


class FlowTask(training.Task):
    """Minimise E‖v_θ(x_t, t, y) - (ε - x_0)‖² with AdamW, keeping a moving average of the weights."""

    def __init__(self, settings: Settings, latents: autoencoder.Latents, decoder: autoencoder.Autoencoder):
        super().__init__()
        self.settings, self.latents, self.decoder = settings, latents, decoder
        channels, size = latents.values.shape[2:4]
        model = diffusion.build(settings, "unet", channels, size)
        self.modules["velocity"] = model
        self.optimizers["adamw"] = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, fused=True)
        self.ema["velocity"] = training.make_ema(model, settings.ema_decay)

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        device, n, values = self.accelerator.device, len(rows), self.latents.values
        # all that is random is drawn for the whole batch, then each process takes its share
        turns = torch.randint(len(values), (n,), generator=self.random)
        noise = torch.randn(n, *values.shape[2:], generator=self.random)
        t = torch.rand(n, generator=self.random)
        dropped = torch.rand(n, generator=self.random) < self.settings.label_dropout
        drawn = (rows, turns, noise, t, dropped)
        rows, turns, noise, t, dropped = map(self.share, drawn)
        x0 = values[turns, rows]
        labels = torch.where(dropped, NULL, self.latents.labels[rows])
        xt = torch.lerp(x0, noise, t.view(-1, 1, 1, 1))
        xt, t, labels = xt.to(device), t.to(device), labels.to(device)
        velocity = predict(self.modules["velocity"], xt, t, labels)
        loss = (velocity.float() - (noise - x0).to(device)).pow(2).mean()
        self.update("adamw", loss)
        return {"loss": loss.detach()}

    def sheet(self) -> np.ndarray:
        """Eight samples of each class by the averaged weights, from the same noise each time."""
        model, ema = self.accelerator.unwrap_model(self.modules["velocity"]), self.ema["velocity"]
        ema.store(model.parameters())
        ema.copy_to(model.parameters())
        images = FlowSampler(self.settings, model, self.decoder, self.latents).sample(np.repeat([0, 1], 8), seed=0)
        ema.restore(model.parameters())
        return images


def predict(model: nn.Module, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Velocity (B, C, s, s) at x of the same shape, times t float (B,) in [0, 1], labels int64 (B,) in {0, 1, NULL}."""
    return model(x, 1000 * t, class_labels=labels).sample  # the network's time embedding is made for 0 to 1000


class FlowSampler:
    """The trained network, Euler's method and the decoder: labels and a seed in, patches out."""

    def __init__(
        self, settings: Settings, model: nn.Module, decoder: autoencoder.Autoencoder, latents: autoencoder.Latents
    ):
        self.settings, self.model, self.decoder, self.latents = settings, model.eval(), decoder, latents

    @torch.no_grad()
    def latents_of(
        self, labels: torch.Tensor, seed: int, *, steps: int | None = None, guidance: float | None = None
    ) -> torch.Tensor:
        """Latents float32 (B, C, s, s) in the decoder's units for labels int64 (B,), by `steps` steps of Euler.

        By default steps and guidance are the profile's. StudyError for steps below 1 and a guidance that is not finite.
        """
        device = next(self.model.parameters()).device
        steps = self.settings.sampling_steps if steps is None else integer(steps, "steps")
        guidance = self.settings.guidance if guidance is None else guidance
        if steps < 1:
            raise StudyError(f"steps is {steps}: give 1 or more.")
        if isinstance(guidance, str) or not math.isfinite(guidance):
            raise StudyError(f"guidance is {guidance!r}: give a finite number; 1 is plain conditional sampling.")
        noise = torch.Generator().manual_seed(seed)  # on the CPU: the same start on every device
        x = torch.randn((len(labels), *self.latents.values.shape[2:]), generator=noise).to(device)
        labels = labels.to(device)
        reduced = number_format(self.settings.sampling_precision) == "bf16"
        times = torch.linspace(1, 0, steps + 1)
        for now, then in zip(times[:-1], times[1:]):
            t = now.expand(len(x)).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                velocity = predict(self.model, x, t, labels).float()
                if guidance != 1:
                    free = predict(self.model, x, t, torch.full_like(labels, NULL)).float()
                    velocity = free + guidance * (velocity - free)
            x = x + (then - now) * velocity
        return self.latents.denormalise(x)

    @torch.no_grad()
    def sample(self, labels: np.ndarray, seed: int, **options: Any) -> np.ndarray:
        """Patches uint8 (B, 96, 96, 3) for labels (B,) of 0 and 1. The same labels and seed give the same patches.

        options: those of `latents_of`. StudyError as there, and for a seed that is no integer.
        """
        seed, labels = integer(seed, "seed"), torch.as_tensor(np.asarray(labels, np.int64))
        parts = [
            self.decoder.to_images(self.latents_of(part, training.derive(seed, "batch", i * BATCH), **options))
            for i, part in enumerate(labels.split(BATCH))
        ]
        return np.concatenate(parts)


def train(study: Study) -> tuple[FlowSampler, list[dict[str, float]]]:
    """Train the subset's flow, resume, or load the finished one; returns it with its averaged weights, and the log.

    Writes flow/model in the subset's folder and results/flow.json. StudyError if notebook 02 has not run.
    """
    settings, folder = study.profile.diffusion, study.folder / NAME
    latents, decoder = autoencoder.load_latents(study), autoencoder.load(study)
    torch.manual_seed(training.derive(study.seed, NAME, "init"))
    task = FlowTask(settings, latents, decoder)
    log = training.fit(
        task,
        folder=folder,
        n=len(study.rows),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=study.seed,
        precision=settings.precision,
        identity=[study.data_sha, settings.model_dump(exclude=SAMPLING), latents.mean.tolist(), latents.std.tolist()],
    )
    with training.main_first():
        if not (folder / "model").is_dir():
            with atomic_folder(folder / "model") as tmp_path:
                task.modules["velocity"].save_pretrained(tmp_path)
            study.write_result(
                NAME,
                {"log": log},
                precision=settings.precision,
                seconds=log[-1]["seconds"],
                version=training.versions(log),
            )
    with loading_weights(folder / "model", "remove it and run notebooks/05_selection.md again"):
        model = autoencoder.pretrained(UNet2DModel, folder / "model").to(training.accelerator("fp32").device)
    return FlowSampler(settings, model, decoder, latents), log
