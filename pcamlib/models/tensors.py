"""Conversion between uint8 patches and float tensors, and the eight orientations of a square patch."""

from __future__ import annotations

import numpy as np
import torch


def to_float(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 (B, H, W, 3) in 0..255 -> float32 (B, 3, H, W) in [-1, 1]."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """float (B, 3, H, W), clipped to [-1, 1] -> uint8 (B, H, W, 3)."""
    x = images.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return x.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def orient(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Bring image i of x (B, C, S, S) into orientation which[i] of `which`, int64 (B,).

    0 to 3: that many quarter turns counter-clockwise; 4 to 7: mirrored left to right first, then which - 4 quarter
    turns. Tissue on a slide has no preferred orientation, so all eight are equally likely. Returns a new tensor.
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for k in which.unique().tolist():
        rows = (which == k).nonzero().squeeze(1).to(x.device)
        out[rows] = torch.rot90(x[rows].flip(3) if k >= 4 else x[rows], k % 4, (2, 3))
    return out
