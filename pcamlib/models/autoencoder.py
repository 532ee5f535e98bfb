"""The variational autoencoder that maps pixels to latents and back (§3.2; Kingma & Welling 2013; Rombach et al. 2022).

It is diffusers' AutoencoderKL with two changes for small machines, both set in the profile.

- *patchify* folds blocks of pixels into channels first. A convolutional VAE at 96x96 spends most of its time at full
  resolution, and this avoids it.
- *pca_shortcut* adds a linear map of square blocks beside the encoder and the decoder, initialised with the blocks'
  principal components. Training then starts from the best linear code. After 3,000 images a network without it still
  reconstructed blurred patches, while 16 components alone already showed nuclei.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ModelMixin
from safetensors.torch import load_file, save_file
from torch import nn

from pcamlib import training
from pcamlib.core.errors import loading_weights
from pcamlib.core.files import atomic, atomic_folder
from pcamlib.core.sections import AutoencoderSettings as Settings
from pcamlib.models.tensors import orient, to_float, to_uint8
from pcamlib.study import Study

NOTEBOOK = "02_autoencoder.md"
SHORTCUT = 2048  # images from which the principal components are computed at most: they are few and memory is not free


class Autoencoder(nn.Module):
    """Images float32 (B, 3, 96, 96) in [-1, 1] to latents (B, latent_channels, s, s).

    s = 96 / patchify / 2^(levels - 1), where block_channels has `levels` entries.
    """

    def __init__(self, settings: Settings):
        super().__init__()
        levels = len(settings.block_channels)
        self.patchify = settings.patchify
        side = 96 // settings.patchify // 2 ** (levels - 1)
        self.latent_shape = (settings.latent_channels, side, side)
        self.vae = AutoencoderKL(
            in_channels=3 * settings.patchify**2,
            out_channels=3 * settings.patchify**2,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            block_out_channels=settings.block_channels,
            layers_per_block=settings.layers_per_block,
            latent_channels=settings.latent_channels,
            norm_num_groups=min(16, min(settings.block_channels)),
            mid_block_add_attention=False,
            sample_size=96 // settings.patchify,
        )
        if settings.pca_shortcut:
            channels = settings.latent_channels
            block = settings.patchify * 2 ** (levels - 1)
            self.encode_linear = nn.Conv2d(3, channels, block, stride=block)
            self.decode_linear = nn.ConvTranspose2d(channels, 3, block, stride=block)

    @torch.no_grad()
    def set_shortcut(self, images: np.ndarray) -> None:
        """Initialise the shortcut with the principal components of blocks of `images`.

        `images` are uint8 (N, 96, 96, 3), the blocks square. Of more than SHORTCUT
        images, evenly spaced ones are used. The last layers of the network are set to
        zero, so that only the linear code acts at first. Component i is divided by the
        square root of its standard deviation, and all are scaled together to unit mean
        variance. This is half-way between plain components, where the first dwarfs the
        others, and whitened ones, where fine texture weighs as much as colour.
        """
        k, _, block, _ = self.encode_linear.weight.shape
        images = images[:: -(-len(images) // SHORTCUT)]
        x = F.unfold(to_float(images), block, stride=block).transpose(1, 2)
        x = x.reshape(-1, 3 * block * block).double()
        mean = x.mean(0)
        variance, basis = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        variance, basis = variance.flip(0)[:k].clamp_min(1e-12), basis.flip(1)[:, :k]
        scale = variance**0.25 * (variance**0.5).mean() ** 0.5
        self.encode_linear.weight.copy_((basis / scale).T.reshape(k, 3, block, block))
        self.encode_linear.bias.copy_(-(basis / scale).T @ mean)
        self.decode_linear.weight.copy_((basis * scale).T.reshape(k, 3, block, block))
        self.decode_linear.bias.zero_()
        # the mean block differs between pixels, which the shortcut's bias cannot: the
        # network's last layer carries it
        nn.init.zeros_(self.vae.decoder.conv_out.weight)
        mean_block = F.pixel_unshuffle(mean.reshape(1, 3, block, block), self.patchify)
        self.vae.decoder.conv_out.bias.copy_(mean_block.mean((0, 2, 3)))
        nn.init.zeros_(self.vae.quant_conv.weight)
        # start almost without noise
        bias = torch.cat([torch.zeros(k), torch.full((k,), -6.0)])
        self.vae.quant_conv.bias.copy_(bias)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of q(z | x), each (B, latent_channels, s, s).

        `images` are (B, 3, 96, 96) in [-1, 1].
        """
        folded = F.pixel_unshuffle(images, self.patchify)
        posterior = self.vae.encode(folded).latent_dist
        linear = self.encode_linear(images) if hasattr(self, "encode_linear") else 0
        return posterior.mean + linear, posterior.logvar

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images float (B, 3, 96, 96), not clipped to [-1, 1].

        `latents` are (B, latent_channels, s, s).
        """
        linear = self.decode_linear(latents) if hasattr(self, "decode_linear") else 0
        return F.pixel_shuffle(self.vae.decode(latents).sample, self.patchify) + linear

    @torch.no_grad()
    def to_images(self, latents: torch.Tensor) -> np.ndarray:
        """Clipped patches uint8 (B, 96, 96, 3) of latents (B, channels, s, s)."""
        return to_uint8(self.decode(latents.to(next(self.parameters()).device)))

    def forward(
        self,
        images: torch.Tensor,
        noise: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction from z = μ + σ · noise; mean and log-variance of q(z | x).

        `noise` is ``(B, *latent_shape)``.
        """
        mean, logvar = self.encode(images)
        z = mean + torch.exp(0.5 * logvar) * noise.to(mean)
        return self.decode(z), mean, logvar


class AutoencoderTask(training.Task):
    """L1 reconstruction error plus `kl_weight` times the KL divergence from N(0, I).

    Adam, no labels (§4.2). The weight is far below that of the evidence lower bound, as
    usual for latent diffusion (Rombach et al. 2022).
    """

    def __init__(self, settings: Settings, images: np.ndarray, orientations: int):
        super().__init__()
        self.settings, self.orientations = settings, orientations
        self.images = torch.from_numpy(images)
        model = Autoencoder(settings)
        if settings.pca_shortcut:
            model.set_shortcut(images)
        self.modules["autoencoder"], self.latent_shape = model, model.latent_shape
        weights, rate = model.parameters(), settings.learning_rate
        self.optimizers["adam"] = torch.optim.Adam(weights, lr=rate, fused=True)

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        device, n = self.accelerator.device, len(rows)
        turns = torch.randint(self.orientations, (n,), generator=self.random)
        noise = torch.randn(n, *self.latent_shape, generator=self.random)
        rows, turns, noise = map(self.share, (rows, turns, noise))
        x = orient(to_float(self.images[rows]), turns).to(device)
        reconstruction, mean, logvar = self.modules["autoencoder"](x, noise.to(device))
        l1 = (reconstruction.float() - x).abs().mean()
        mean, logvar = mean.float(), logvar.float()
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        self.update("adam", l1 + self.settings.kl_weight * kl)
        return {"l1": l1.detach(), "kl": kl.detach()}

    def sheet(self) -> np.ndarray:
        """Eight patches above their reconstructions."""
        images = self.images[:8].numpy()
        model = self.accelerator.unwrap_model(self.modules["autoencoder"]).eval()
        return np.concatenate([images, reconstruct(model, images)])


def train(study: Study) -> tuple[Autoencoder, list[dict[str, float]]]:
    """Train the subset's autoencoder, or resume its training from the last checkpoint.

    Returns the model and its log, a dict per epoch. Writes autoencoder/model in the subset's folder.
    """
    settings, folder = study.profile.autoencoder, study.folder / "autoencoder"
    torch.manual_seed(training.derive(study.seed, "autoencoder", "init"))
    task = AutoencoderTask(settings, study.real.images, study.profile.orientations)
    log = training.fit(
        task,
        folder=folder,
        n=len(study.rows),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=study.seed,
        precision=settings.precision,
        identity=[study.data_sha, settings.model_dump(), study.profile.orientations],
    )
    model = task.modules["autoencoder"]
    with training.main_first():
        if not (folder / "model").is_dir():
            with atomic_folder(folder / "model") as tmp_path:
                model.vae.save_pretrained(tmp_path / "vae")
                save_file(
                    {k: v.cpu() for k, v in model.state_dict().items() if "_linear" in k},
                    tmp_path / "shortcut.safetensors",
                )
    return model, log


def load(study: Study) -> Autoencoder:
    """The subset's trained autoencoder in eval mode. StudyError if notebook 02 has not run or the files are damaged."""
    path = study.need(study.folder / "autoencoder" / "model", NOTEBOOK)
    return read(path, study.profile.autoencoder).to(training.accelerator("fp32").device)


def pretrained(kind: type[ModelMixin], folder: Path) -> ModelMixin:
    """diffusers' `from_pretrained` for safetensors files only.

    A missing or unexpected tensor raises ValueError instead of being initialised. No pickle is ever read.
    """
    model, info = kind.from_pretrained(folder, output_loading_info=True, use_safetensors=True)
    if wrong := [key for keys in info.values() for key in keys]:
        raise ValueError(f"{len(wrong)} tensors do not fit, {str(wrong[0])[:80]} among them")
    return model


def read(folder: Path, settings: Settings) -> Autoencoder:
    """The autoencoder saved in `folder`, in eval mode. StudyError if it is damaged or was made with other settings."""
    with loading_weights(folder, f"remove it and run notebooks/{NOTEBOOK} again"):
        model = Autoencoder(settings)
        model.vae = pretrained(AutoencoderKL, folder / "vae")
        model.load_state_dict(load_file(folder / "shortcut.safetensors"), strict=False)
    return model.eval()


@torch.no_grad()
def reconstruct(model: Autoencoder, images: np.ndarray) -> np.ndarray:
    """Encode and decode images through the mean of q(z | x): uint8 (N, 96, 96, 3) in and out.

    No sample of a latent diffusion model can be expected to be better than these reconstructions.
    """
    device = next(model.parameters()).device
    parts = [
        to_uint8(model.decode(model.encode(to_float(images[i : i + 64]).to(device))[0]))
        for i in range(0, len(images), 64)
    ]
    return np.concatenate(parts)


class Latents:
    """A subset's normalised latents: values float32 (orientations, N, C, s, s), labels int64 (N,).

    `values` have mean 0 in each channel and unit variance over all, unless they were normalised by another scale.
    `mean` float32 (C,) and `std` float32 (1,) are what was subtracted and divided by. (Stable Diffusion's constant
    0.18215 belongs to another autoencoder.)
    """

    def __init__(self, values: torch.Tensor, labels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor):
        self.values, self.labels, self.mean, self.std = values, labels, mean, std

    def denormalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Undo the normalisation of latents (B, C, s, s): the decoder's input."""
        return latents * self.std.to(latents).view(1, -1, 1, 1) + self.mean.to(latents).view(1, -1, 1, 1)


@torch.no_grad()
def encode_subset(
    study: Study,
    model: Autoencoder,
    *,
    folder: Path | None = None,
    scale: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Latents:
    """Encode every patch of the subset in every orientation to its posterior mean, normalise, and store the result.

    Writes latents.safetensors in `folder`, by default autoencoder in the subset's folder, on the first call and reads
    it afterwards. scale: mean (C,) and std (1,) by which to normalise; by default those of the subset's latents.
    """
    path = (folder or study.folder / "autoencoder") / "latents.safetensors"
    with training.main_first():
        if not path.exists():
            device = next(model.parameters()).device
            images = study.real.images
            z = torch.stack(
                [
                    torch.cat(
                        [
                            model.encode(orient(part, torch.full((len(part),), k)).to(device))[0].cpu()
                            for part in (to_float(images[i : i + 64]) for i in range(0, len(images), 64))
                        ]
                    )
                    for k in range(study.profile.orientations)
                ]
            ).float()
            if scale is None:
                mean = z.mean((0, 1, 3, 4))
                scale = mean, (z - mean.view(-1, 1, 1)).std().view(1)
            mean, std = scale
            tensors = {
                "values": (z - mean.view(-1, 1, 1)) / std.view(-1, 1, 1),
                "labels": torch.from_numpy(study.real.labels.astype(np.int64)),
                "mean": mean,
                "std": std,
            }
            with atomic(path) as tmp_path:
                save_file(tensors, tmp_path)
    return load_latents(study, folder)


def load_latents(study: Study, folder: Path | None = None) -> Latents:
    """The subset's stored latents (see `encode_subset`). StudyError if notebook 02 has not run or the file is
    damaged."""
    path = study.need((folder or study.folder / "autoencoder") / "latents.safetensors", NOTEBOOK)
    with loading_weights(path, f"remove it and run notebooks/{NOTEBOOK} again"):
        return Latents(**load_file(path))
