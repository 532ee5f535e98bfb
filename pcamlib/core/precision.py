"""The number format that a stage computes in."""

from __future__ import annotations

import functools

import torch


@functools.cache
def number_format(precision: str) -> str:
    """The format a stage computes in, "fp32" or "bf16", for the precision of its profile.

    "auto" is bf16 where the device has instructions for it and fp32 where it would be emulated: a processor without
    them trains seven times slower in bf16. Results differ between the two; every result names its format.
    """
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    known = torch.cpu.get_capabilities()
    return "bf16" if any(known.get(name) for name in ("avx512_bf16", "amx_bf16")) else "fp32"
