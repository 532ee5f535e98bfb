"""Number format and memory layout of a network: what trains fastest on this machine, measured once and kept.

Neither bfloat16 nor channels_last is faster everywhere: on processors with bfloat16 instructions a ResNet18 gains from
both, while the depthwise convolutions of an EfficientNet are fastest in float32 and channels_last. Both change
rounding, so the choice must not change between two runs: it is kept in the user's cache folder, and every result names
it.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import NamedTuple

import pooch
import timm
import torch

from pcamlib import training
from pcamlib.core.errors import StudyError
from pcamlib.core.files import lock, processor, read_json, write_json
from pcamlib.core.precision import number_format
from pcamlib.core.sections import ClassifierSettings

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
ROUNDS = 4
HOPELESS = 1.5  # times the fastest step so far: such a candidate is not measured again


class Format(NamedTuple):
    """A number format, "fp32" or "bf16", and the name of a memory layout in LAYOUTS."""

    precision: str
    layout: str

    @property
    def memory(self) -> torch.memory_format:
        return LAYOUTS[self.layout]

    def __str__(self) -> str:
        return f"{self.precision}, {self.layout}"


def chosen(settings: ClassifierSettings) -> Format:
    """The format in which the profile's classifier trains fastest here, of those its `precision` allows.

    "auto" allows float32, and bfloat16 where the device has instructions for it. Measured on first use and kept in
    <cache>/formats.json, by network, image size, batch, threads, device and torch version. StudyError if that file
    cannot be written.
    """
    allowed = ("fp32", number_format("auto")) if settings.precision == "auto" else (settings.precision,)
    return _chosen(
        settings.architecture,
        settings.image_size,
        settings.batch_size,
        tuple(dict.fromkeys(allowed)),
        torch.get_num_threads(),
    )


@functools.cache
def _chosen(architecture: str, size: int, batch: int, allowed: tuple[str, ...], threads: int) -> Format:
    parts = [architecture, f"{size} px", f"batch {batch}", " or ".join(allowed), f"{threads} threads", device_name()]
    key, path = ", ".join([*parts, f"torch {torch.__version__}"]), Path(pooch.os_cache("pcamlib")) / "formats.json"
    try:
        with lock(path.parent / "formats", wait=True):
            known = read_json(path) if path.exists() else {}
            if key not in known:
                candidates = [Format(precision, layout) for precision in allowed for layout in LAYOUTS]
                found = measure(architecture, size, batch, candidates)
                best = min(found, key=found.__getitem__)
                rates = {str(form): round(batch / seconds, 1) for form, seconds in found.items()}
                known[key] = best._asdict() | {"images_per_second": rates}
                write_json(path, known)
    except OSError as error:
        raise StudyError(
            f"{path} cannot be written ({error.strerror or error}): set XDG_CACHE_HOME to a folder that can."
        ) from None
    return Format(known[key]["precision"], known[key]["layout"])


def device_name() -> str:
    """The accelerator's name, else the processor's with its widest instructions."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{processor()} {torch.backends.cpu.get_cpu_capability()}"


def measure(architecture: str, size: int, batch: int, candidates: list[Format]) -> dict[Format, float]:
    """Seconds of the fastest of a few training steps in each format, on noise; torch's random state stays as it was.

    The candidates take turns, so that other load on the machine meets all of them.
    """
    device = training.accelerator("fp32").device
    best: dict[Format, float] = {}
    with torch.random.fork_rng():
        model = timm.create_model(architecture, num_classes=1, **size_option(architecture, size)).to(device).train()
        x = torch.randn(batch, 3, size, size, device=device)
        for turn in range(ROUNDS + 1):  # the first warms up
            for form in candidates:
                if turn > 1 and best[form] > HOPELESS * min(best.values()):
                    continue
                seconds = _step(model.to(memory_format=form.memory), x.contiguous(memory_format=form.memory), form)
                best[form] = seconds if turn < 2 else min(best[form], seconds)
    return best


@torch.enable_grad()  # it may be asked for where nothing is being trained
def _step(model: torch.nn.Module, x: torch.Tensor, form: Format) -> float:
    started = time.perf_counter()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=form.precision == "bf16"):
        out = model(x)
    out.float().mean().backward()
    if x.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def size_option(architecture: str, size: int | None) -> dict[str, int]:
    """timm's `img_size` for networks that are built for one size of image (transformers), nothing for the others."""
    config = timm.get_pretrained_cfg(architecture)
    return {"img_size": size} if size and config and config.fixed_input_size else {}
