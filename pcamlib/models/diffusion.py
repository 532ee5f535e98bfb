"""Latent diffusion with two denoisers, U-Net and DiT (§3.2, Fig. 2): noise schedule, loss, guidance and sampling."""

from __future__ import annotations

import math
import operator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel, DPMSolverMultistepScheduler, UNet2DModel
from diffusers.models.embeddings import LabelEmbedding
from torch import nn

from pcamlib import training
from pcamlib.core.errors import StudyError, loading_weights
from pcamlib.core.files import atomic_folder, digest
from pcamlib.core.precision import number_format
from pcamlib.core.sections import DiffusionSettings as Settings
from pcamlib.models import autoencoder
from pcamlib.study import Study

SAMPLING = {"sampling_precision"}
"""Settings that training does not see."""
CLASSES = 2
NULL = CLASSES  # the "no label" class that makes guidance possible
SAMPLERS = ("ddpm", "dpm-solver++")
BATCH = 64  # of sampling; part of what makes a sample reproducible
NOTEBOOK = "03_diffusion.md"


def scheduler(settings: Settings, name: str | None = None) -> DDPMScheduler | DPMSolverMultistepScheduler:
    """The cosine noise schedule (Nichol & Dhariwal 2021) with ε-prediction, for the sampler `name`.

    name
        "ddpm": the ancestral sampler of Eq. 2, in as many steps as in training. "dpm-solver++": the ODE solver of Lu et
        al. 2022, in few steps. None: the profile's.

    StudyError for another name.
    """
    if (name := name or settings.sampler) not in SAMPLERS:
        raise StudyError(f"sampler {name!r} is unknown: it is one of {', '.join(SAMPLERS)}.")
    common = dict(num_train_timesteps=settings.timesteps, beta_schedule="squaredcos_cap_v2", prediction_type="epsilon")
    if name == "ddpm":
        # the default clips x_0 to [-1, 1]; latents of unit variance go well beyond it
        return DDPMScheduler(**common, clip_sample=False)
    # without the clip the cosine schedule's last steps, almost pure noise, blow samples up by a factor of thirty
    return DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", lambda_min_clipped=-5.1)


def build(settings: Settings, backbone: str, channels: int, size: int) -> nn.Module:
    """An untrained network for latents (B, channels, size, size).

    `backbone` is "unet" or "dit", else StudyError.
    """
    if backbone == "unet":
        levels = len(settings.unet.block_channels)
        return UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            down_block_types=["DownBlock2D"] * (levels - 1) + ["AttnDownBlock2D"],
            up_block_types=["AttnUpBlock2D"] + ["UpBlock2D"] * (levels - 1),
            block_out_channels=settings.unet.block_channels,
            layers_per_block=settings.unet.layers_per_block,
            norm_num_groups=min(16, min(settings.unet.block_channels)),
            num_class_embeds=CLASSES + 1,
        )
    if backbone != "dit":
        raise StudyError(f"backbone {backbone!r} is unknown: it is 'unet' or 'dit'.")
    model = DiTTransformer2DModel(
        num_attention_heads=settings.dit.heads,
        attention_head_dim=settings.dit.head_dim,
        num_layers=settings.dit.layers,
        patch_size=settings.dit.patch_size,
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        num_embeds_ada_norm=CLASSES,
    )
    no_label_dropout(model)
    # adaLN-Zero: every block starts as the identity (Peebles & Xie 2023, §3.2);
    # diffusers leaves this to the loader
    for block in model.transformer_blocks:
        nn.init.zeros_(block.norm1.linear.weight)
        nn.init.zeros_(block.norm1.linear.bias)
    for layer in (model.proj_out_1, model.proj_out_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def integer(value: Any, name: str) -> int:
    """`value` as an int, whatever integer type it has; StudyError that names the argument if it is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise StudyError(f"{name} is {value!r}: give an integer.") from None


def no_label_dropout(model: nn.Module) -> None:
    """Turn off the DiT's own label dropout: each block would drop different labels. `DiffusionTask` drops them
    instead."""
    for module in model.modules():
        if isinstance(module, LabelEmbedding):
            module.dropout_prob = 0.0


def read(folder: Path, backbone: str) -> nn.Module:
    """The trained network saved in `folder`. StudyError if it is damaged."""
    kind = {"unet": UNet2DModel, "dit": DiTTransformer2DModel}[backbone]
    with loading_weights(folder, f"remove it and run notebooks/{NOTEBOOK} again"):
        model = autoencoder.pretrained(kind, folder)
    no_label_dropout(model)
    return model


@torch.no_grad()
def start_from(model: nn.Module, trained: nn.Module) -> None:
    """Give `model` the weights of a network that was trained without labels. Both labels start as its NULL.

    Their own embeddings are as random as they were: no patch had a label.
    """
    model.load_state_dict(trained.state_dict())
    tables = [m.embedding_table for m in model.modules() if isinstance(m, LabelEmbedding)]
    for table in tables or [model.class_embedding]:
        table.weight[:CLASSES] = table.weight[NULL].clone()


class Denoiser(nn.Module):
    """ε_θ(x_t, t, y): x (B, C, s, s), t int64 (B,) in 0..T-1, labels int64 (B,) in {0, 1, NULL} -> (B, C, s, s).

    The network F is used as ε_θ = σ_t x_t + α_t F(x_t, t, y), with α_t² = ᾱ_t and σ_t² = 1 - ᾱ_t. Where x_t
    is nearly pure noise, an untrained network then already predicts that noise. Without this, F would first have to
    learn to copy its input, and the solver would divide its error at these steps by the small α_t. F predicts the v
    of Salimans & Ho 2022, but the loss and the returned value are the paper's ε.
    """

    def __init__(self, backbone: nn.Module, settings: Settings):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("alphas_cumprod", scheduler(settings, "ddpm").alphas_cumprod, persistent=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if isinstance(self.backbone, DiTTransformer2DModel):
            f = self.backbone(x, timestep=t, class_labels=labels).sample
        else:
            f = self.backbone(x, t, class_labels=labels).sample
        alpha_bar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (1 - alpha_bar).sqrt() * x + alpha_bar.sqrt() * f.float()


class DiffusionTask(training.Task):
    """Minimise L_simple (Eq. 9) on stored latents with AdamW (§4.2).

    Keeps a moving average (EMA) of the weights. A share `label_dropout` of the labels
    is replaced by NULL, which guidance needs (Ho & Salimans 2021). start: the folder of
    a network trained without labels, see `start_from`.
    """

    def __init__(
        self,
        settings: Settings,
        backbone: str,
        latents: autoencoder.Latents,
        decoder: autoencoder.Autoencoder | None = None,
        start: Path | None = None,
    ):
        super().__init__()
        self.settings, self.latents, self.decoder = settings, latents, decoder
        channels, size = latents.values.shape[2:4]
        network = build(settings, backbone, channels, size)
        if start:
            start_from(network, read(start, backbone))
        model = Denoiser(network, settings)
        self.modules["denoiser"] = model
        weights, rate = model.parameters(), settings.learning_rate
        self.optimizers["adamw"] = torch.optim.AdamW(weights, lr=rate, fused=True)
        self.ema["denoiser"] = training.make_ema(model, settings.ema_decay)
        self.schedule = scheduler(settings, "ddpm")

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        device, n = self.accelerator.device, len(rows)
        values = self.latents.values
        turns = torch.randint(len(values), (n,), generator=self.random)
        noise = torch.randn(n, *values.shape[2:], generator=self.random)
        t = torch.randint(self.settings.timesteps, (n,), generator=self.random)
        dropped = torch.rand(n, generator=self.random) < self.settings.label_dropout
        drawn = (rows, turns, noise, t, dropped)
        rows, turns, noise, t, dropped = map(self.share, drawn)
        x0 = values[turns, rows]
        labels = torch.where(dropped, NULL, self.latents.labels[rows])
        xt = self.schedule.add_noise(x0, noise, t)
        xt, t, labels = xt.to(device), t.to(device), labels.to(device)
        prediction = self.modules["denoiser"](xt, t, labels)
        loss = (prediction.float() - noise.to(device)).pow(2).mean()
        self.update("adamw", loss)
        return {"l_simple": loss.detach()}

    def sheet(self) -> np.ndarray | None:
        """Eight samples of each class by the averaged weights, from constant noise.

        Where no label is learned, 16 without one.
        """
        if self.decoder is None:
            return None
        learned = self.settings.label_dropout < 1
        labels = np.repeat([0, 1] if learned else [NULL, NULL], 8)
        model = self.accelerator.unwrap_model(self.modules["denoiser"])
        ema = self.ema["denoiser"]
        ema.store(model.parameters())
        ema.copy_to(model.parameters())
        sampler = DiffusionSampler(self.settings, model, self.decoder, self.latents)
        images = sampler.sample(labels, seed=0)
        ema.restore(model.parameters())
        return images


Code = tuple[autoencoder.Latents, autoencoder.Autoencoder]


def train(
    study: Study, backbone: str, *, name: str | None = None, code: Code | None = None, start: Path | None = None
) -> tuple[DiffusionSampler, list[dict[str, float]]]:
    """Train the subset's denoiser, or resume its training from the last checkpoint.

    name
        Its folder in the subset's, by default the backbone's name. Writes <name>/model.
    code
        The latents it learns and their autoencoder; by default those of notebook 02.
    start
        Folder of a network trained without labels to start from (`start_from`); else from random weights.

    Returns the generator with the averaged weights and the log, a dict per epoch.
    """
    settings, folder = study.profile.diffusion, study.folder / (name or backbone)
    latents, decoder = code = code or (autoencoder.load_latents(study), autoencoder.load(study))
    torch.manual_seed(training.derive(study.seed, folder.name, "init"))
    task = DiffusionTask(settings, backbone, latents, decoder, start)
    started = [digest(path.read_bytes()) for path in sorted(start.glob("*.safetensors"))] if start else []
    log = training.fit(
        task,
        folder=folder,
        n=len(study.rows),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=study.seed,
        precision=settings.precision,
        # the latents are an input of this stage, so their statistics belong to its identity
        identity=[
            study.data_sha,
            settings.model_dump(exclude=SAMPLING),
            latents.mean.tolist(),
            latents.std.tolist(),
            *started,
        ],
    )
    with training.main_first():
        if not (folder / "model").is_dir():
            with atomic_folder(folder / "model") as tmp_path:
                task.modules["denoiser"].backbone.save_pretrained(tmp_path)
    return load(study, backbone, name=name, code=code), log


def load(study: Study, backbone: str, *, name: str | None = None, code: Code | None = None) -> DiffusionSampler:
    """The subset's trained generator; arguments as in `train`. StudyError if notebook 03 has not run or files are
    damaged."""
    path = study.need(study.folder / (name or backbone) / "model", NOTEBOOK)
    model = read(path, backbone).eval().to(training.accelerator("fp32").device)
    settings = study.profile.diffusion
    latents, decoder = code or (autoencoder.load_latents(study), autoencoder.load(study))
    return DiffusionSampler(settings, Denoiser(model, settings).to(model.device), decoder, latents)


class DiffusionSampler:
    """A generator made of denoiser, solver and decoder: labels and a seed in, patches out."""

    def __init__(
        self, settings: Settings, model: Denoiser, decoder: autoencoder.Autoencoder, latents: autoencoder.Latents
    ):
        self.settings, self.model, self.decoder, self.latents = settings, model.eval(), decoder, latents
        self.low, self.high = (v.view(1, -1, 1, 1) for v in latents.values.transpose(0, 2).flatten(1).aminmax(dim=1))

    @torch.no_grad()
    def denoise(
        self,
        labels: torch.Tensor,
        seed: int,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        keep: int = 0,
    ) -> tuple[list[torch.Tensor], list[int]]:
        """Run the reverse process for one batch of labels int64 (B,).

        sampler, steps, guidance
            Name of the sampler (see `scheduler`), number of steps, guidance scale; by default the profile's. With
            guidance g the noise estimate is ε_∅ + g (ε_y − ε_∅) (Ho & Salimans 2021); g = 1 is plain
            conditional sampling.
        keep
            How many evenly spaced intermediate states to return beside the final one.

        Returns `keep` intermediate latents followed by the final ones, each float32 (B, C, s, s) in the decoder's
        units, and their time steps. StudyError for an unknown sampler, steps that are no integer from 1 to the number
        of training steps, and a guidance that is not finite.
        """
        settings = self.settings
        guidance = settings.guidance if guidance is None else guidance
        if isinstance(guidance, str) or not math.isfinite(guidance):
            raise StudyError(f"guidance is {guidance!r}: give a finite number; 1 is plain conditional sampling.")
        schedule = scheduler(settings, sampler)
        if steps is None:
            steps = settings.timesteps if (sampler or settings.sampler) == "ddpm" else settings.sampling_steps
        if not 1 <= integer(steps, "steps") <= settings.timesteps:
            raise StudyError(f"steps is {steps}: this model was trained with {settings.timesteps}, give 1 to as many.")
        schedule.set_timesteps(integer(steps, "steps"))
        device = next(self.model.parameters()).device
        noise = torch.Generator().manual_seed(seed)  # on the CPU: the same start on every device
        x = torch.randn((len(labels), *self.latents.values.shape[2:]), generator=noise).to(device)
        labels = labels.to(device)
        null = torch.full_like(labels, NULL)
        reduced = number_format(settings.sampling_precision) == "bf16"
        marks = set(np.linspace(0, len(schedule.timesteps) - 1, keep).astype(int)) if keep else set()
        kept, times = [], []
        for i, t in enumerate(schedule.timesteps):
            if i in marks:
                kept.append(self.latents.denormalise(x))
                times.append(int(t))
            tt = torch.full((len(labels),), int(t), device=device)
            with torch.autocast(device.type, torch.bfloat16, enabled=reduced):  # the network; its solver is float32
                if guidance == 1:
                    eps = self.model(x, tt, labels)
                else:
                    both = self.model(torch.cat([x, x]), torch.cat([tt, tt]), torch.cat([labels, null]))
                    eps_y, eps_null = both.chunk(2)
                    eps = eps_null + guidance * (eps_y - eps_null)
            x = schedule.step(self._within_range(eps, x, t), t, x, generator=noise).prev_sample
        return [*kept, self.latents.denormalise(x)], [*times, 0]

    def _within_range(self, eps: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Change ε so that the x_0 it implies lies within the range of the training latents, channel by channel.

        DDPM clips x_0 to the range of pixels (Ho et al. 2020); this does the same for latents. It keeps guidance and an
        imperfect denoiser from producing latents that the decoder has never seen.
        """
        alpha_bar = self.model.alphas_cumprod[int(t)]
        x0 = (x - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
        x0 = x0.clamp(self.low.to(x), self.high.to(x))
        return (x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()

    @torch.no_grad()
    def sample(self, labels: np.ndarray, seed: int, **options: object) -> np.ndarray:
        """Patches uint8 (B, 96, 96, 3) for labels (B,) of 0 and 1, a function of labels, seed and the options of
        `denoise`.

        StudyError as `denoise`, and for a seed that is no integer.
        """
        seed = integer(seed, "seed")
        labels = torch.as_tensor(np.asarray(labels, np.int64))
        parts = []
        for i in range(0, len(labels), BATCH):
            latents = self.denoise(labels[i : i + BATCH], training.derive(seed, "batch", i), **options)[0][-1]
            parts.append(self.decoder.to_images(latents))
        return np.concatenate(parts)
