"""The two networks of HistoGAN as published: the MATLAB source of Krause et al. 2021 (github.com/jnkather/histoGAN,
06c8fc45).

Theirs exist for 64, 128, 256 and 512 pixels. These are the ones for 128 pixels with two changes that give 96: the first
transposed convolution grows the map from 4x4 to 6x6 instead of 8x8, and the discriminator's last convolution covers a
3x3 map instead of a 4x4 one. The widths, `base_channels` = 64 in the source, come from the profile. Weights start as
MATLAB's do: Glorot's uniform distribution, biases zero, embeddings normal.
"""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 2
EMBEDDING = 50  # size of a label's embedding
START = 4  # side of the generator's first map


class LabelMap(nn.Module):
    """Labels int64 (B,) -> one learned map (B, 1, side, side): an embedding and a linear layer."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side
        self.embedding = nn.Embedding(CLASSES, EMBEDDING)
        self.linear = nn.Linear(EMBEDDING, side * side)

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        return self.linear(self.embedding(labels)).view(-1, 1, self.side, self.side)


class PublishedGenerator(nn.Module):
    """Noise (B, noise_dim) and labels int64 (B,) in {0, 1} to images.

    Images are (B, 3, 96, 96) in [-1, 1]. The noise is projected to 16 base_channels
    maps of 4x4, and the label's map joins them there.
    """

    def __init__(self, noise_dim: int, base_channels: int):
        super().__init__()
        self.noise_dim, self.base_channels = noise_dim, base_channels
        b = base_channels
        self.start = nn.Linear(noise_dim, 16 * b * START**2)
        self.label = LabelMap(START)
        # 4 -> 6 -> 12 -> 24 -> 48 -> 96 pixels
        layers: list[nn.Module] = [nn.ConvTranspose2d(16 * b + 1, 8 * b, 5, 1, 1)]
        for wide, narrow in ((8 * b, 4 * b), (4 * b, 2 * b), (2 * b, b), (b, 3)):
            up = nn.ConvTranspose2d(wide, narrow, 5, 2, 2, 1)
            layers += [nn.BatchNorm2d(wide, eps=5e-5), nn.ReLU(), up]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        initialise(self)

    def forward(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.start(noise).view(len(noise), -1, START, START)
        return self.layers(torch.cat([x, self.label(labels).to(x)], 1))


class PublishedDiscriminator(nn.Module):
    """Images (B, 3, 96, 96) in [-1, 1] and labels int64 (B,) to logits (B,).

    A logit answers: a real image with its label? The label's map joins the image, after
    dropout, as a fourth channel. The batch is `parts` equal parts one after another
    (real images, generated ones), and batch normalisation treats each part as a batch
    of its own, as in the source.
    """

    def __init__(self, base_channels: int, input_dropout: float):
        super().__init__()
        b = base_channels
        self.dropout, self.label = nn.Dropout(input_dropout), LabelMap(96)
        # 96 -> 48 -> 24 -> 12 -> 6 -> 3 pixels
        layers: list[nn.Module] = [nn.Conv2d(4, b, 5, 2, 2), nn.LeakyReLU(0.2)]
        widths = [b, 2 * b, 4 * b, 6 * b, 8 * b]
        for narrow, wide in zip(widths, widths[1:]):
            down = nn.Conv2d(narrow, wide, 5, 2, 2)
            layers += [down, nn.BatchNorm2d(wide), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * b, 1, 3))
        initialise(self)

    def forward(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        parts: int = 1,
    ) -> torch.Tensor:
        x = self.dropout(images)
        x = torch.cat([x, self.label(labels).to(x)], 1)
        return torch.cat([self.layers(part) for part in x.chunk(parts)]).flatten()


def initialise(network: nn.Module) -> None:
    """Glorot & Bengio 2010 for every linear and convolutional layer, zero biases; embeddings keep N(0, 1)."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
