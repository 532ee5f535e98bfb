"""The variational autoencoder between pixels and latents (§3.2; Kingma & Welling 2013; Rombach et al. 2022).

diffusers' AutoencoderKL with two changes for small machines, both named in the profile. *patchify*: pixels are folded
into channels first, because at 96x96 a convolutional VAE spends its time at full resolution. *pca_shortcut*: a linear
map of square blocks around each half of the network, set to the blocks' principal components, so that training
starts from the best linear code and learns only what is missing; after 3,000 images a network without it still
shows fog where 16 components show nuclei.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn

from pcamlib import training
from pcamlib.profiles import Autoencoder as Settings
from pcamlib.store import atomic, atomic_folder
from pcamlib.study import Study

NOTEBOOK = "02_autoencoder.md"


def to_float(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 (B, H, W, 3) in 0..255 -> float32 (B, 3, H, W) in [-1, 1]."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """float (B, 3, H, W), clipped to [-1, 1] -> uint8 (B, H, W, 3)."""
    return images.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def orient(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Turn each square image of x (B, C, S, S) to orientation which[i] in 0..7: quarter turns, 4..7 mirrored first.

    Tissue on a slide has no up: all eight are equally likely, and every generator may learn from them.
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for k in which.unique().tolist():
        rows = (which == k).nonzero().squeeze(1).to(x.device)
        out[rows] = torch.rot90(x[rows].flip(3) if k >= 4 else x[rows], k % 4, (2, 3))
    return out


class Autoencoder(nn.Module):
    """Images (B, 3, 96, 96) in [-1, 1] <-> latents (B, latent_channels, s, s), s = 96 / patchify / 2^(levels - 1)."""

    def __init__(self, settings: Settings):
        super().__init__()
        levels = len(settings.block_channels)
        self.patchify = settings.patchify
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
            block = settings.patchify * 2 ** (levels - 1)
            self.encode_linear = nn.Conv2d(3, settings.latent_channels, block, stride=block)
            self.decode_linear = nn.ConvTranspose2d(settings.latent_channels, 3, block, stride=block)

    @torch.no_grad()
    def set_shortcut(self, images: np.ndarray) -> None:
        """Principal components of all square blocks of `images` (N, 96, 96, 3) into the shortcut; silence the rest.

        Component i is scaled by its standard deviation to the power -1/2, all together to unit variance: half-way
        between the plain components (the first dwarfs the others) and white ones (fine texture weighs as much as
        colour).
        """
        k, _, block, _ = self.encode_linear.weight.shape
        x = F.unfold(to_float(images), block, stride=block).transpose(1, 2).reshape(-1, 3 * block * block).double()
        mean = x.mean(0)
        variance, basis = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        variance, basis = variance.flip(0)[:k].clamp_min(1e-12), basis.flip(1)[:, :k]
        scale = variance**0.25 * (variance**0.5).mean() ** 0.5
        self.encode_linear.weight.copy_((basis / scale).T.reshape(k, 3, block, block))
        self.encode_linear.bias.copy_(-(basis / scale).T @ mean)
        self.decode_linear.weight.copy_((basis * scale).T.reshape(k, 3, block, block))
        self.decode_linear.bias.zero_()
        # the mean block is not constant over its pixels, a bias is: the network's last layer carries it
        nn.init.zeros_(self.vae.decoder.conv_out.weight)
        mean_block = F.pixel_unshuffle(mean.reshape(1, 3, block, block), self.patchify).mean((0, 2, 3))
        self.vae.decoder.conv_out.bias.copy_(mean_block)
        nn.init.zeros_(self.vae.quant_conv.weight)
        self.vae.quant_conv.bias.copy_(
            torch.cat([torch.zeros(k), torch.full((k,), -6.0)])
        )  # start almost without noise

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of q(z | x)."""
        posterior = self.vae.encode(F.pixel_unshuffle(images, self.patchify)).latent_dist
        linear = self.encode_linear(images) if hasattr(self, "encode_linear") else 0
        return posterior.mean + linear, posterior.logvar

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, 96, 96), not clipped."""
        linear = self.decode_linear(latents) if hasattr(self, "decode_linear") else 0
        return F.pixel_shuffle(self.vae.decode(latents).sample, self.patchify) + linear

    @torch.no_grad()
    def to_images(self, latents: torch.Tensor) -> np.ndarray:
        """Decoded and clipped patches, uint8 (B, 96, 96, 3)."""
        return to_uint8(self.decode(latents.to(next(self.parameters()).device)))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction from one draw z ~ q(z | x), with the mean and log-variance of q."""
        mean, logvar = self.encode(images)
        z = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape).to(mean)
        return self.decode(z), mean, logvar


class AutoencoderTask(training.Task):
    """Evidence lower bound with a Laplace likelihood (L1) and a small KL weight; Adam (§4.2); no labels."""

    def __init__(self, settings: Settings, images: np.ndarray, orientations: int):
        super().__init__()
        self.settings, self.orientations = settings, orientations
        self.images = torch.from_numpy(images)
        self.modules["autoencoder"] = Autoencoder(settings)
        if settings.pca_shortcut:
            self.modules["autoencoder"].set_shortcut(images)
        self.optimizers["adam"] = torch.optim.Adam(self.modules["autoencoder"].parameters(), lr=settings.learning_rate, fused=True)

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        x = orient(to_float(self.images[rows]), torch.randint(self.orientations, (len(rows),)))
        x = x.to(self.accelerator.device)
        reconstruction, mean, logvar = self.modules["autoencoder"](x)
        l1 = (reconstruction.float() - x).abs().mean()
        mean, logvar = mean.float(), logvar.float()
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        self.update("adam", l1 + self.settings.kl_weight * kl)
        return {"l1": l1.detach(), "kl": kl.detach()}


def train(study: Study) -> tuple[Autoencoder, list[dict[str, float]]]:
    """Train the subset's autoencoder; a finished or cut training goes on from its checkpoint. Returns it and its log."""
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
    if not (folder / "model").is_dir():
        with atomic_folder(folder / "model") as aside:
            model.vae.save_pretrained(aside / "vae")
            save_file(
                {k: v.cpu() for k, v in model.state_dict().items() if "_linear" in k}, aside / "shortcut.safetensors"
            )
    return model, log


def load(study: Study) -> Autoencoder:
    """The subset's trained autoencoder, eval mode; StudyError if notebook 02 has not run."""
    path = study.need(study.folder / "autoencoder" / "model", NOTEBOOK)
    model = Autoencoder(study.profile.autoencoder)
    model.vae = AutoencoderKL.from_pretrained(path / "vae")
    model.load_state_dict(load_file(path / "shortcut.safetensors"), strict=False)
    return model.eval().to(training.accelerator("fp32").device)


@torch.no_grad()
def reconstruct(model: Autoencoder, images: np.ndarray) -> np.ndarray:
    """Images through the mean of q(z | x) and back: uint8 (N, 96, 96, 3) in and out. The cap on every latent sample."""
    device = next(model.parameters()).device
    parts = [
        to_uint8(model.decode(model.encode(to_float(images[i : i + 64]).to(device))[0]))
        for i in range(0, len(images), 64)
    ]
    return np.concatenate(parts)


class Latents:
    """A subset's normalised latents: values float32 (orientations, N, C, s, s), labels int64 (N,).

    mean float32 (C,) per channel and std float32 (1,) over all: measured on this subset and removed, so that diffusion
    sees unit variance; the 0.18215 of Stable Diffusion belongs to another autoencoder and other data.
    """

    def __init__(self, values: torch.Tensor, labels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor):
        self.values, self.labels, self.mean, self.std = values, labels, mean, std

    def denormalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, s, s) as the decoder knows them."""
        return latents * self.std.to(latents).view(1, -1, 1, 1) + self.mean.to(latents).view(1, -1, 1, 1)


@torch.no_grad()
def encode_subset(study: Study, model: Autoencoder) -> Latents:
    """Encode the subset once (every orientation) to the posterior mean, normalise, keep in latents.safetensors."""
    path = study.folder / "autoencoder" / "latents.safetensors"
    if not path.exists():
        device = next(model.parameters()).device
        x = to_float(study.real.images)
        z = torch.stack(
            [
                torch.cat(
                    [
                        model.encode(orient(part, torch.full((len(part),), k)).to(device))[0].cpu()
                        for part in x.split(64)
                    ]
                )
                for k in range(study.profile.orientations)
            ]
        ).float()
        mean = z.mean((0, 1, 3, 4))
        std = (z - mean.view(-1, 1, 1)).std().view(1)
        tensors = {
            "values": (z - mean.view(-1, 1, 1)) / std.view(-1, 1, 1),
            "labels": torch.from_numpy(study.real.labels.astype(np.int64)),
            "mean": mean,
            "std": std,
        }
        with atomic(path) as aside:
            save_file(tensors, aside)
    return load_latents(study)


def load_latents(study: Study) -> Latents:
    """The subset's latents; StudyError if notebook 02 has not run."""
    return Latents(**load_file(study.need(study.folder / "autoencoder" / "latents.safetensors", NOTEBOOK)))
