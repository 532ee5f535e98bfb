"""HistoGAN: the class-conditional GAN of Krause et al. 2021 (J. Pathol. 254:70), with which the paper compares.

Two public sources exist and differ. In the authors' MATLAB code (github.com/jnkather/histoGAN) the embedded label
becomes one more map beside the 4x4 maps made from 100-d noise, and one more channel at the discriminator's input; it
uses dropout of 0.25 on that input, batch normalisation in both networks, and flips the discriminator's output for half
of the real images. In a co-author's PyTorch port (github.com/mjendrusch/pytorch-histogan) the label is joined with the
noise and, by default, enters the discriminator after the last convolution. The paper does not say which one it used.

`variant: published` follows the MATLAB code (`histogan_published` has its networks, `PublishedTask` its training).

`variant: stabilised` is ours. It follows neither source exactly, and was chosen on 500 real patches so that short
training works:

- The first map is 12x12, so three transposed convolutions reach 96 pixels and every 8x8 pixels, about a
  nucleus, have features of their own. Grown from 6x6, samples were one tile repeated 36 times.
- The label's embedding joins the first map with the same value everywhere. Joined with the noise, it can place tissue,
  and after 60 epochs all samples of a class had one layout.
- The discriminator gets the label before its last convolution. It also sees how much the images of its batch differ
  (minibatch standard deviation, Karras et al. 2018, section 3). The effect of both on the Fréchet distance is in
  book/reference/tuning/plan.yml.
- Spectral norm in the discriminator (Miyato et al. 2018) instead of batch normalisation. Without it samples of a class
  were nearly alike in the trials; its effect was not separated from that of the learning rate and the initialisation.
- Adam with β1 = 0; the learning rate falls linearly to zero over the second half of training. At a constant rate the
  colours of all samples oscillated, and averaged weights (EMA) were worse than the last ones; with the falling rate
  both nearly agree, and the averaged ones are sampled.
- Patches are rotated and mirrored as the profile's `orientations` says.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from pcamlib import training
from pcamlib.core.errors import StudyError, load_error
from pcamlib.core.files import atomic, digest, read_json, write_json
from pcamlib.core.sections import HistoGANSettings as Settings
from pcamlib.models.histogan_published import PublishedDiscriminator, PublishedGenerator
from pcamlib.models.tensors import orient, to_float, to_uint8
from pcamlib.study import Study

CLASSES = 2
EMBEDDING = 16  # size of the label's embedding beside the first map
START = 12  # the generator's first map: 12 -> 24 -> 48 -> 96 pixels
BATCH = 64  # of sampling and of the batch-norm statistics
SMOOTHING = 0.9  # of the published variant
FLIPS = torch.tensor([0, 2, 4, 6])  # of the orientations, those that mirroring along one or both axes gives
WEIGHTS = "generator.safetensors"
NOTEBOOK = "04_histogan.md"


class Generator(nn.Module):
    """Noise (B, noise_dim) and labels int64 (B,) in {0, 1} to images.

    Images are (B, 3, 96, 96) in [-1, 1].
    """

    def __init__(self, noise_dim: int, base_channels: int):
        super().__init__()
        self.noise_dim, self.base_channels = noise_dim, base_channels
        widths = [4 * base_channels, 2 * base_channels, base_channels]
        self.embedding = nn.Embedding(CLASSES, EMBEDDING)
        # no bias: what stands where is the noise's alone
        self.start = nn.Linear(noise_dim, widths[0] * START**2, bias=False)
        self.first = nn.Sequential(nn.BatchNorm2d(widths[0]), nn.ReLU())
        layers: list[nn.Module] = []
        for wide, narrow in zip([widths[0] + EMBEDDING, widths[1]], widths[1:]):
            up = nn.ConvTranspose2d(wide, narrow, 5, 2, 2, 1, bias=False)
            layers += [up, nn.BatchNorm2d(narrow), nn.ReLU()]
        last = nn.ConvTranspose2d(widths[-1], 3, 5, 2, 2, 1)
        self.layers = nn.Sequential(*layers, last, nn.Tanh())

    def forward(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.first(self.start(noise).view(len(noise), -1, START, START))
        y = self.embedding(labels).to(x)[:, :, None, None].expand(-1, -1, START, START)
        return self.layers(torch.cat([x, y], 1))


class Discriminator(nn.Module):
    """Images (B, 3, 96, 96) in [-1, 1] and labels int64 (B,) to logits (B,).

    A logit answers: a real image with its label? The batch is `parts` equal parts one
    after another (real ones, generated ones); an image is compared with its part.
    """

    def __init__(self, base_channels: int, input_dropout: float):
        super().__init__()
        b = base_channels
        widths = [3, b, 2 * b, 4 * b, 8 * b]  # 96 -> 6 pixels
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        for narrow, wide in zip(widths, widths[1:]):
            down = spectral_norm(nn.Conv2d(narrow, wide, 5, 2, 2))
            layers += [down, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.embedding = nn.Embedding(CLASSES, widths[-1])
        # before the last convolution: in the final linear layer it would shift every
        # image's logit alike
        self.join = spectral_norm(nn.Conv2d(2 * widths[-1] + 1, 4 * b, 5, 2, 2))
        self.out = spectral_norm(nn.Linear(4 * b * 3 * 3, 1))

    def forward(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        parts: int = 1,
    ) -> torch.Tensor:
        x = self.layers(images)
        y = self.embedding(labels).to(x)[:, :, None, None].expand_as(x)
        variance = x.unflatten(0, (parts, -1)).var(1, correction=0)
        # the epsilon keeps the root's gradient finite where a part's images are equal
        spread = (variance + 1e-8).sqrt().mean((1, 2, 3))
        spread = spread.repeat_interleave(len(x) // parts)[:, None, None, None]
        spread = spread.expand(-1, 1, *x.shape[2:])
        x = F.leaky_relu(self.join(torch.cat([x, y, spread], 1)), 0.2)
        return self.out(x.flatten(1)).squeeze(1)


class GanTask(training.Task):
    """Training of the stabilised variant: the non-saturating loss (Goodfellow et al. 2014), both networks in turn.

    A share `label_flip` of the discriminator's targets, real or fake, is swapped.
    Logged: d_loss, g_loss, and the shares of real and of generated images that the discriminator classifies correctly
    (d_real, d_fake).
    """

    betas = (0.0, 0.999)

    def __init__(self, settings: Settings, images: np.ndarray, labels: np.ndarray, orientations: int):
        super().__init__()
        self.settings, self.orientations = settings, orientations
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
        makes_images, judges_images = networks(settings.variant)
        generator = makes_images(settings.noise_dim, settings.base_channels)
        discriminator = judges_images(settings.base_channels, settings.input_dropout)
        for name, module in (("generator", generator), ("discriminator", discriminator)):
            self.modules[name] = module.to(memory_format=training.layout(settings.precision))
            self.optimizers[f"{name}-adam"] = torch.optim.Adam(
                module.parameters(), lr=settings.learning_rate, betas=self.betas, fused=True
            )
        self.ema["generator"] = training.make_ema(generator, settings.ema_decay)

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        generator, discriminator = self.modules["generator"], self.modules["discriminator"]
        device, n = self.accelerator.device, len(rows)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * min(1.0, 2 * (1 - self.progress))
        # all that is random is drawn on the CPU, the same on every device (dropout apart)
        turns = torch.randint(self.orientations, (n,), generator=self.random)
        noise = torch.randn(n, self.settings.noise_dim, generator=self.random)
        flipped = torch.rand(n, 2, generator=self.random) < self.settings.label_flip
        rows, turns, noise, flipped = map(self.share, (rows, turns, noise, flipped))
        n = len(rows)
        real = orient(to_float(self.images[rows]), turns).to(device)
        labels = self.labels[rows].to(device)
        fake = generator(noise.to(device), labels).float()

        truth = torch.cat([torch.ones(n), torch.zeros(n)])
        targets = torch.where(flipped.T.reshape(-1), 1 - truth, truth)
        logits = discriminator(torch.cat([real, fake.detach()]), labels.repeat(2), parts=2).float()
        d_loss = F.binary_cross_entropy_with_logits(logits, targets.to(device))
        self.update("discriminator-adam", d_loss)

        # past the wrapper of several processes, which would wait for gradients that this pass does not make
        discriminator = self.accelerator.unwrap_model(discriminator)
        discriminator.requires_grad_(False)
        g_loss = F.softplus(-discriminator(fake, labels).float()).mean()
        self.update("generator-adam", g_loss)
        discriminator.requires_grad_(True)
        return {
            "d_loss": d_loss.detach(),
            "g_loss": g_loss.detach(),
            "d_real": (logits[:n] > 0).float().mean(),
            "d_fake": (logits[n:] <= 0).float().mean(),
        }

    def sheet(self) -> np.ndarray:
        """Eight samples of each class by the averaged weights, from the same noise each time."""
        generator = self.accelerator.unwrap_model(self.modules["generator"])
        live = {name: value.clone() for name, value in generator.state_dict().items()}
        self.ema["generator"].copy_to(generator.parameters())
        recompute_batchnorm_stats(generator, self.labels, seed=0, batches=1)
        images = sample(generator, np.repeat([0, 1], 8), seed=0)
        generator.load_state_dict(live)
        return images


class PublishedTask(GanTask):
    """Training of the published variant, as in the MATLAB source's modelGradients.m and ganLoss.m.

    The gradients of both networks are taken before either is updated. For exactly a share `label_flip` of the real
    images the discriminator's probability p is replaced by 1 - p; generated images keep their targets. The real term is
    -log(0.9 p): the smoothing factor inside the logarithm adds a constant and changes no gradient. Adam with β1 = 0.5
    at a constant learning rate; images are mirrored along both axes at random, if the profile's `orientations` is 8.
    """

    betas = (0.5, 0.999)

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        generator, discriminator = self.modules["generator"], self.modules["discriminator"]
        device, n = self.accelerator.device, len(rows)
        turns = FLIPS[torch.randint(len(FLIPS) if self.orientations == 8 else 1, (n,), generator=self.random)]
        noise = torch.randn(n, self.settings.noise_dim, generator=self.random)
        sign = torch.ones(n)
        sign[torch.randperm(n, generator=self.random)[: int(self.settings.label_flip * n)]] = -1.0
        rows, turns, noise, sign = map(self.share, (rows, turns, noise, sign))
        n = len(rows)
        real = orient(to_float(self.images[rows]), turns).to(device)
        labels = self.labels[rows].to(device)
        fake = generator(noise.to(device), labels).float()

        # the generator first: its gradient then comes from the discriminator as it is, and `fake` is not drawn again
        judge = self.accelerator.unwrap_model(discriminator)
        judge.requires_grad_(False)
        g_loss = F.softplus(-judge(fake, labels).float()).mean()
        self.update("generator-adam", g_loss)
        judge.requires_grad_(True)

        logits = discriminator(torch.cat([real, fake.detach()]), labels.repeat(2), parts=2).float()
        d_loss = F.softplus(-sign.to(device) * logits[:n]).mean() - math.log(SMOOTHING) + F.softplus(logits[n:]).mean()
        self.update("discriminator-adam", d_loss)
        return {
            "d_loss": d_loss.detach(),
            "g_loss": g_loss.detach(),
            "d_real": (logits[:n] > 0).float().mean(),
            "d_fake": (logits[n:] <= 0).float().mean(),
        }


def networks(variant: str) -> tuple[type[nn.Module], type[nn.Module]]:
    """Classes of the generator and the discriminator of "stabilised" or "published"."""
    return {"stabilised": (Generator, Discriminator), "published": (PublishedGenerator, PublishedDiscriminator)}[
        variant
    ]


@torch.no_grad()
def recompute_batchnorm_stats(generator: nn.Module, labels: torch.Tensor, seed: int, batches: int = 16) -> None:
    """Recompute the batch-norm statistics from `batches` batches of 64 noise vectors, with labels drawn from `labels`.

    The averaged weights (EMA) never ran in training, so the running statistics belong to other weights. These are the
    "standing statistics" of Brock et al. 2019.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain mean over all batches
    device, draw = next(generator.parameters()).device, torch.Generator().manual_seed(seed)
    generator.train()
    for _ in range(batches):
        y = labels[torch.randint(len(labels), (BATCH,), generator=draw)].to(device)
        generator(torch.randn(BATCH, generator.noise_dim, generator=draw).to(device), y)
    generator.eval()
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def train(study: Study, *, folder: Path) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train on the subset's patches, resume, or load a finished generator from `folder`.

    Returns the generator (averaged weights, eval mode) and the log, a dict per epoch. Writes generator.safetensors and
    config.json to `folder`, beside the files of `training.fit`. Raises StudyError if `folder` holds a generator made
    with other data or another profile.
    """
    settings, images, labels = study.profile.histogan, study.real.images, study.real.labels
    identity = [study.data_sha, settings.model_dump(), study.profile.orientations, study.seed]
    if (folder / WEIGHTS).exists():
        config = read_json(folder / "config.json")
        if config.get("identity") != digest(identity):
            raise StudyError(
                f"{folder} was made with other data or another profile: remove it or choose another runs_dir."
            )
        return load(folder), config["log"]
    torch.manual_seed(training.derive(study.seed, "histogan", "init"))
    task_class = PublishedTask if settings.variant == "published" else GanTask
    task = task_class(settings, images, labels, study.profile.orientations)
    log = training.fit(
        task,
        folder=folder,
        n=len(images),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=study.seed,
        precision=settings.precision,
        identity=identity,
    )
    generator = task.modules["generator"]
    with training.main_first():
        if not (folder / WEIGHTS).exists():
            recompute_batchnorm_stats(generator, task.labels, training.derive(study.seed, "histogan", "settle"))
            shape = {"noise_dim": settings.noise_dim, "base_channels": settings.base_channels}
            about = {"variant": settings.variant, "generator": shape}
            write_json(folder / "config.json", about | {"identity": digest(identity), "log": log})
            # the weights come last: where they are, all is there
            with atomic(folder / WEIGHTS) as tmp_path:
                save_file({name: value.cpu().contiguous() for name, value in generator.state_dict().items()}, tmp_path)
    return load(folder), log


def load(folder: Path) -> nn.Module:
    """The generator saved in `folder`, in eval mode on the study's device. StudyError if it is missing or damaged."""
    path = folder / WEIGHTS
    if not path.exists():
        raise StudyError(f"{path} is missing: run notebooks/{NOTEBOOK} for this subset first.")
    config = read_json(folder / "config.json")
    generator = networks(config.get("variant", "stabilised"))[0](**config["generator"])
    try:
        generator.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise load_error(path, error, f"remove it, rerun notebooks/{NOTEBOOK}") from None
    return generator.to(training.accelerator("fp32").device).eval()


@torch.no_grad()
def sample(generator: nn.Module, labels: np.ndarray, seed: int) -> np.ndarray:
    """Patches uint8 (B, 96, 96, 3) for labels (B,) of 0 and 1. The same seed and labels give the same patches."""
    device = next(generator.parameters()).device
    labels = torch.as_tensor(np.asarray(labels, np.int64))
    draw = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
    noise = torch.randn(len(labels), generator.noise_dim, generator=draw)
    generator.eval()
    parts = zip(noise.split(BATCH), labels.split(BATCH))
    return np.concatenate([to_uint8(generator(z.to(device), y.to(device))) for z, y in parts])
