"""A trained generator of latents, diffusion or flow, as one diffusers pipeline: labels and a seed in, patches out,
without the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, DiffusionPipeline, DiTTransformer2DModel, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file

from pcamlib.core.errors import StudyError, loading_weights
from pcamlib.core.files import read_json
from pcamlib.core.sections import AutoencoderSettings as Settings
from pcamlib.core.settings import Profile
from pcamlib.models import autoencoder, diffusion, flow, pooled

KINDS = {"unet": UNet2DModel, "dit": DiTTransformer2DModel, flow.NAME: UNet2DModel, pooled.NAME: UNet2DModel}
"""The network of each generator that can be a pipeline, by the generator's name."""


class PatchDecoder(ModelMixin, ConfigMixin):
    """The autoencoder of a study with the mean, standard deviation and range of its training latents.

    settings: the profile's section `autoencoder`. channels, size: shape of the latents, (channels, size, size).
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, settings: dict[str, Any], channels: int, size: int):
        super().__init__()
        self.size = size
        self.autoencoder = autoencoder.Autoencoder(Settings(**settings))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(1))
        self.register_buffer("range", torch.zeros(2, channels))  # lowest and highest training latent

    @property
    def latents(self) -> autoencoder.Latents:
        """Two latents that stand in for the training set: the lowest and the highest value of every channel."""
        values = self.range.cpu().view(1, 2, -1, 1, 1).expand(1, 2, -1, self.size, self.size)
        return autoencoder.Latents(values, torch.tensor([0, 1]), self.mean.cpu(), self.std.cpu())


class PatchPipeline(DiffusionPipeline):
    """Denoiser and decoder of one subset as a pipeline with diffusers' `from_pretrained` and `save_pretrained`.

    denoiser: diffusers' UNet2DModel or DiTTransformer2DModel. decoder: see `PatchDecoder`. process: "diffusion" if the
    network estimates noise, "flow" if it estimates the velocity of a rectified flow. The other arguments are the
    profile's diffusion settings. It computes in float32, also where the study drew its patches in bfloat16.
    """

    def __init__(
        self, denoiser: UNet2DModel | DiTTransformer2DModel, decoder: PatchDecoder,
        timesteps: int = 1000, sampler: str = "dpm-solver++", sampling_steps: int = 25, guidance: float = 1.0,
        process: str = "diffusion",
    ):  # fmt: skip
        super().__init__()
        if process not in ("diffusion", flow.NAME):
            raise StudyError(f"process is {process!r}: it is 'diffusion' or 'flow'.")
        diffusion.no_label_dropout(denoiser)
        self.register_modules(denoiser=denoiser, decoder=decoder)
        self.register_to_config(
            timesteps=timesteps, sampler=sampler, sampling_steps=sampling_steps, guidance=guidance, process=process
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> PatchPipeline:
        """diffusers' `from_pretrained`, but weights are read from safetensors files only, never from a pickle.

        Weights stored in half precision become float32, unless options give another dtype.
        """
        return super().from_pretrained(folder, **options | {"use_safetensors": True})

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """diffusers' `save_pretrained`, without the path from which the parts were loaded on this machine."""
        for part in (self, self.denoiser, self.decoder):
            part.register_to_config(_name_or_path="")
        super().save_pretrained(folder, **options)

    def __call__(
        self,
        labels: Sequence[int],
        seed: int = 0,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Patches uint8 (N, 96, 96, 3) RGB for N labels of 0 and 1: a function of labels, seed and options.

        sampler, steps, guidance: as in `diffusion.DiffusionSampler.denoise`; by default those of the study. A flow has
        no choice of sampler. Raises StudyError for other labels, options out of range, and a pipeline that was
        converted to half precision.
        """
        labels = np.asarray(labels)
        if labels.ndim != 1 or not len(labels) or not np.isin(labels, (0, 1)).all():
            raise StudyError(f"labels must be a list of 0 and 1, got {labels.tolist()!r}.")
        generator = self.sampler()
        if isinstance(generator, diffusion.DiffusionSampler):
            return generator.sample(labels, seed, sampler=sampler, steps=steps, guidance=guidance)
        if sampler is not None:
            raise StudyError(f"sampler is {sampler!r}: a flow is followed by Euler's method, leave it out.")
        return generator.sample(labels, seed, steps=steps, guidance=guidance)

    def sampler(self) -> diffusion.DiffusionSampler | flow.FlowSampler:
        """The generator with the study's settings, which also gives the states on the way. StudyError in half
        precision."""
        for part in (self.denoiser, self.decoder):
            if part.dtype != torch.float32:
                raise StudyError(
                    f"the pipeline is in {part.dtype} and computes in torch.float32: load it without torch_dtype, or"
                    " call .to(torch.float32)."
                )
        settings = SimpleNamespace(
            **{k: self.config[k] for k in ("timesteps", "sampler", "sampling_steps", "guidance")},
            sampling_precision="fp32",
        )
        if self.config["process"] == flow.NAME:
            return flow.FlowSampler(settings, self.denoiser, self.decoder.autoencoder, self.decoder.latents)
        model = diffusion.Denoiser(self.denoiser, settings).to(self.device)
        return diffusion.DiffusionSampler(settings, model, self.decoder.autoencoder, self.decoder.latents)


def of_run(run: Path, subset: int, backbone: str) -> PatchPipeline:
    """The trained generator `backbone` (of KINDS) of one subset of a run folder, as a pipeline.

    StudyError if it is missing or damaged.
    """
    profile = profile_of(run)
    folder = run / f"subset-{subset}"
    path, home = folder / backbone / "model", folder / "autoencoder"
    code, notebooks = home / "latents.safetensors", "notebooks 02 and 03"
    if backbone == pooled.NAME:  # the autoencoder is the pool's
        home, code, notebooks = run / "pool" / "autoencoder", folder / backbone / "latents.safetensors", "notebook 05"
    for needed in (path, code):
        if not needed.exists():
            raise StudyError(f"{needed} is missing: run {notebooks} for subset {subset} first.")
    with loading_weights(path, f"remove it and run notebooks/{diffusion.NOTEBOOK} again"):
        denoiser = autoencoder.pretrained(KINDS[backbone], path)
    with loading_weights(code, f"remove it and run notebooks/{autoencoder.NOTEBOOK} again"):
        latents = autoencoder.Latents(**load_file(code))
    channels, size = latents.values.shape[2:4]
    decoder = PatchDecoder(profile.autoencoder.model_dump(), channels, size)
    decoder.autoencoder = autoencoder.read(home / "model", profile.autoencoder)
    decoder.mean.copy_(latents.mean)
    decoder.std.copy_(latents.std)
    decoder.range.copy_(torch.stack(latents.values.transpose(0, 2).flatten(1).aminmax(dim=1)))
    s, process = profile.diffusion, flow.NAME if backbone == flow.NAME else "diffusion"
    return PatchPipeline(denoiser.eval(), decoder.eval(), s.timesteps, s.sampler, s.sampling_steps, s.guidance, process)


def profile_of(run: Path) -> Profile:
    """The profile that a run folder was made with, read from its study.json. StudyError if that file is not ours."""
    try:
        return Profile.model_validate(read_json(run / "study.json")["settings"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, StudyError):
            raise
        raise StudyError(
            f"{run / 'study.json'} was not written by this version: run the study in a new folder."
        ) from None
