"""What is done to the patches of a training batch: the paper's four transforms, and stronger kinds as our controls.

Every kind maps patches float (B, 3, S, S) in [0, 1] and labels float (B,) to the same. All randomness is torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import skimage.color
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from pcamlib.core.sections import AugmentationSettings
from pcamlib.models.tensors import orient, to_float, to_uint8

STAIN = 0.1  # of the factors and offsets of haematoxylin, eosin and residual; Tellez et al. 2019 try 0.05 and 0.2
RANDAUGMENT = v2.RandAugment(num_ops=2, magnitude=9)  # torchvision's defaults, those of Cubuk et al. 2020 for ImageNet
MIXUP = 0.2  # alpha of the Beta distribution, Zhang et al. 2018 on ImageNet
CENTRE = 1 / 3  # of the side: PCam's label is that of the central 32 of 96 pixels


def augment(x: torch.Tensor, settings: AugmentationSettings) -> torch.Tensor:
    """Per image: flips along both axes, rotation, colour jitter (§4.2).

    x float (B, 3, S, S) in [0, 1]; returns the same. All that is random is drawn from
    torch's generator. Brightness, contrast, saturation and hue are each an affine map
    of RGB, so the jitter is one 3x3 matrix and one offset per image: torchvision's
    ranges and formulas for the first three (applied in that order, clipped once), hue
    as a turn of the chroma plane (YIQ) instead of HSV. Why not torchvision's
    transforms: one pass over the whole batch is 13 times as fast
    (benchmarks/bench_batches.py).
    """
    n, device = len(x), x.device
    flip = torch.rand(2, n) < 0.5  # horizontal, vertical
    if settings.rotation == "any":
        x = rotate(x, torch.rand(n) * 2 * math.pi, flip)
    else:  # a vertical flip is a horizontal one and half a turn
        turning = settings.rotation == "right-angles"
        turns = torch.randint(4, (n,)) if turning else torch.zeros(n, dtype=torch.int64)
        x = orient(x, 4 * (flip[0] ^ flip[1]) + (turns + 2 * flip[1]) % 4)
    matrix, offset = jitter(n, settings, x.mean((2, 3)).cpu())
    offset, matrix = offset.to(device).unsqueeze(2), matrix.to(device)
    return torch.baddbmm(offset, matrix, x.flatten(2)).view_as(x).clamp_(0, 1)


def copies(patch: np.ndarray, count: int, settings: AugmentationSettings, seed: int) -> np.ndarray:
    """`count` augmented copies of a patch uint8 (96, 96, 3), to be looked at: uint8 (count, 96, 96, 3)."""
    x = to_float(patch[None]).add(1).div(2).expand(count, -1, -1, -1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return to_uint8(augment(x, settings).mul(2).sub(1))


def rotate(x: torch.Tensor, angle: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Images (n, 3, S, S) flipped where flip (2, n: horizontal, vertical) says so, then turned by angle (n,) radians.

    Bilinear, mirrored at the edge, in one pass. The sampling grid is a row plus a column of points per image:
    `affine_grid` multiplies every point by a 2x3 matrix, which takes as long as the sampling.
    """
    n, size = len(x), x.shape[-1]
    sign = 1.0 - 2.0 * flip
    cos, sin = angle.cos(), angle.sin()
    points = (torch.arange(size) * 2 + 1) / size - 1
    across = torch.stack([sign[0] * cos, sign[1] * sin], 1).view(n, 2, 1, 1) * points
    down = torch.stack([sign[0] * -sin, sign[1] * cos], 1).view(n, 2, 1, 1) * points.view(-1, 1)
    grid = across.to(x.device) + down.to(x.device)
    return F.grid_sample(x, grid.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False)


def jitter(n: int, settings: AugmentationSettings, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour jitter of n images as RGB' = M RGB + o: M (n, 3, 3), o (n, 3); `mean` (n, 3) is each image's mean RGB."""
    luma = torch.tensor([0.299, 0.587, 0.114])
    eye = torch.eye(3).expand(n, 3, 3)

    def factor(width: float) -> torch.Tensor:
        return (1 + width * (2 * torch.rand(n) - 1)).view(n, 1, 1)

    b, c, s = factor(settings.brightness), factor(settings.contrast), factor(settings.saturation)
    turn = (settings.hue * (2 * torch.rand(n) - 1) * 2 * math.pi).view(n)
    grey_mean = (b.view(n) * (mean @ luma)).view(n, 1)
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    rotate = torch.zeros(n, 3, 3)
    rotate[:, 0, 0] = 1
    rotate[:, 1, 1] = rotate[:, 2, 2] = turn.cos()
    rotate[:, 2, 1], rotate[:, 1, 2] = turn.sin(), -turn.sin()
    hue = torch.linalg.inv(to_yiq) @ rotate @ to_yiq
    saturation = s * eye + (1 - s) * luma.expand(3, 3)
    matrix = hue @ saturation @ (b * c * eye)
    offset = (hue @ saturation @ ((1 - c).view(n, 1) * grey_mean).expand(n, 3).unsqueeze(2)).squeeze(2)
    return matrix, offset


Kind = Callable[[torch.Tensor, torch.Tensor, AugmentationSettings], tuple[torch.Tensor, torch.Tensor]]


def nothing(x: torch.Tensor, labels: torch.Tensor, _: AugmentationSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches as they are (the baseline)."""
    return x, labels


def traditional(
    x: torch.Tensor, labels: torch.Tensor, settings: AugmentationSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The paper's four transforms, see `augment`."""
    return augment(x, settings), labels


def stain(x: torch.Tensor, labels: torch.Tensor, settings: AugmentationSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """The four transforms, after each stain of each patch was scaled and shifted (`hed_jitter`)."""
    return augment(hed_jitter(x, STAIN), settings), labels


def hed_jitter(x: torch.Tensor, width: float) -> torch.Tensor:
    """Stain jitter in haematoxylin-eosin-residual space (Tellez et al. 2019), per patch and stain.

    Optical density is unmixed by Ruifrok and Johnston's matrix (scikit-image's); each stain s becomes a s + b with a
    drawn from 1 ± width and b from ± width times the patch's mean absolute density of that stain.
    """
    unmix, mix = (
        torch.tensor(matrix, dtype=x.dtype, device=x.device)
        for matrix in (skimage.color.hed_from_rgb, skimage.color.rgb_from_hed)
    )
    density = -x.clamp(min=1e-3).log().flatten(2).transpose(1, 2)  # (B, pixels, 3)
    stains = density @ unmix
    factor, shift = (width * (2 * torch.rand(2, len(x), 1, 3) - 1)).to(x)
    stains = stains * (1 + factor) + shift * stains.abs().mean(1, keepdim=True)
    return (stains @ mix).neg().exp().transpose(1, 2).reshape(x.shape).clamp(0, 1)


def randaugment(
    x: torch.Tensor, labels: torch.Tensor, settings: AugmentationSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """RandAugment (Cubuk et al. 2020, torchvision's) on each patch, after its flips and rotation by `augment`."""
    plain = settings.model_copy(update={"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0})
    images = (255 * augment(x, plain)).round().byte().cpu()
    return torch.stack([RANDAUGMENT(image) for image in images]).to(x.device).to(x.dtype) / 255, labels


def mixup(x: torch.Tensor, labels: torch.Tensor, settings: AugmentationSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """The four transforms, then mixup (Zhang et al. 2018, torchvision's): one share per batch, labels mixed alike."""
    mixed, both = v2.MixUp(alpha=MIXUP, num_classes=2)(augment(x, settings), labels.long())
    return mixed, both[:, 1].to(labels.dtype)


def cutmix(x: torch.Tensor, labels: torch.Tensor, settings: AugmentationSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """The four transforms, then a CutMix (Yun et al. 2019) that keeps labels true.

    A patch is labelled by its central third. Around it a box is drawn, what lies outside comes from another patch of
    the batch, and the label stays that of the centre. Half of the patches are left whole.
    """
    x, n, side = augment(x, settings), len(x), x.shape[-1]
    margin = side * (1 - CENTRE) / 2
    first = (torch.rand(2, n, 1) * (math.floor(margin) + 1)).floor()
    last = side - (torch.rand(2, n, 1) * (math.floor(margin) + 1)).floor()
    at = torch.arange(side)
    rows, columns = (first <= at) & (at < last)
    inside = rows.unsqueeze(2) & columns.unsqueeze(1) | (torch.rand(n, 1, 1) < 0.5)
    return torch.where(inside.unsqueeze(1).to(x.device), x, x[torch.randperm(n).to(x.device)]), labels


KINDS: dict[str, Kind] = {
    "none": nothing,
    "traditional": traditional,
    "stain": stain,
    "randaugment": randaugment,
    "mixup": mixup,
    "cutmix": cutmix,
}
"""By the name that a regime gives (`classification.REGIMES`)."""
