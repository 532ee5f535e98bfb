"""What one step of every stage costs on this device: the study's own tasks at a profile's sizes, on synthetic inputs.

    python benchmarks/timing.py FAMILY PROFILE [--seconds S]

prints one JSON line. A family is timed in a process of its own, because the peak of memory is a process's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from pcamlib import data, metrics, training
from pcamlib.core.errors import StudyError
from pcamlib.core.precision import number_format
from pcamlib.core.settings import Profile, load_profile
from pcamlib.data import phantom
from pcamlib.experiments import features
from pcamlib.models import autoencoder, classifier, diffusion, flow, formats, histogan, pooled, tensors

STEPS = 12  # at most; one more warms up
BACKBONES = ("unet", "dit")
DENOISERS = {"unet": "unet", "dit": "dit", pooled.NAME: pooled.BACKBONE}
GENERATORS = (*DENOISERS, "histogan", flow.NAME)
TRAINED = ("autoencoder", *GENERATORS, "classifier-plain", "classifier")
FAMILIES = (*TRAINED, "features", "metrics", "data")


class _Enough(Exception):
    """Ends a training that has been timed long enough."""


def wait() -> None:
    """Until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object], budget: float) -> float:
    """Median seconds of `call`, repeated for about `budget` seconds after one call that warms up."""
    call()
    times: list[float] = []
    while not times or sum(times) < budget and len(times) < STEPS:
        wait()
        started = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def step_seconds(task: training.Task, batch: int, precision: str, budget: float) -> tuple[float, int]:
    """Median seconds of one turn of `training.fit`, seeding, optimiser and EMA included; and the FLOP of its products.

    The first turn warms up. FLOP are those of matrix products and convolutions, forward and backward.
    """
    starts: list[float] = []
    flops, step = 0, task.step

    def watched(rows: torch.Tensor) -> dict[str, Any]:
        nonlocal flops
        wait()
        starts.append(time.perf_counter())
        if len(starts) > STEPS + 1 or len(starts) > 2 and starts[-1] - starts[1] > budget:
            raise _Enough
        if len(starts) > 1:
            return step(rows)
        with FlopCounterMode(display=False) as counter:
            losses = step(rows)
        flops = counter.get_total_flops()
        return losses

    task.step = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        training.fit(
            task,
            folder=Path(folder) / "timing",
            n=batch * (STEPS + 2),
            epochs=1,
            batch_size=batch,
            seed=0,
            precision=precision,
            identity="timing",
        )
    task.step = step  # type: ignore[method-assign]
    return statistics.median(np.diff(starts[1:]).tolist()), flops


def patches(n: int) -> data.Arrays:
    """Noise: what a network computes does not depend on what it sees."""
    rng = np.random.default_rng(0)
    return data.Arrays(rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 2)


def latents(p: Profile, n: int) -> autoencoder.Latents:
    """Normal latents of the profile's shape."""
    channels = p.autoencoder.latent_channels
    side = 96 // p.autoencoder.patchify // 2 ** (len(p.autoencoder.block_channels) - 1)
    values = torch.randn(p.orientations, n, channels, side, side)
    return autoencoder.Latents(values, torch.arange(n) % 2, torch.zeros(channels), torch.ones(1))


def task_of(family: str, p: Profile, batch: int) -> training.Task:
    """The training task of a family, with rows for a few steps of `batch`."""
    rows = batch * (STEPS + 2)
    if family in DENOISERS:
        return diffusion.DiffusionTask(p.diffusion, DENOISERS[family], latents(p, rows))
    if family == flow.NAME:
        return flow.FlowTask(p.diffusion, latents(p, rows), None)  # type: ignore[arg-type]
    real = patches(rows)
    if family == "autoencoder":
        return autoencoder.AutoencoderTask(p.autoencoder, real.images, p.orientations)
    if family == "histogan":
        return histogan.GanTask(p.histogan, real.images, real.labels, p.orientations)
    settings = p.classifier.model_copy(update={"model_choice": "last", "weights": "none"})
    model = classifier.build(settings)
    return classifier.ClassifierTask(
        settings, model, real, real, augment="none" if family == "classifier-plain" else "traditional"
    )


def section(family: str, p: Profile) -> Any:
    """The part of a profile that holds a trained family's batch size and precision."""
    if family in (*DENOISERS, flow.NAME):
        return p.diffusion
    return {"autoencoder": p.autoencoder, "histogan": p.histogan}.get(family, p.classifier)


def measure(family: str, p: Profile, budget: float) -> dict[str, Any]:
    """Seconds per unit of work, FLOP per step and peak bytes of one family (see FAMILIES) on this device.

    Units: "step" (one optimisation step), "image" (one image through the trained network in evaluation), "denoise" (one
    image through one step of the profile's sampler, guidance included), "neighbours" and "distance" (all neighbour
    metrics and one Fréchet distance at `rows` features against as many), "load" (one patch from a PCam file).
    """
    torch.set_num_threads(p.threads)
    units: dict[str, Any] = {}
    if family in TRAINED:
        settings = section(family, p)
        batch, precision = settings.batch_size, settings.precision
        if family.startswith("classifier"):
            precision = formats.chosen(settings).precision
        task = task_of(family, p, batch)
        units["step"], units["flops"] = step_seconds(task, batch, precision, budget)
        units |= {"batch": batch, "precision": number_format(precision)}
        units |= _evaluated(family, p, task, budget / 2)
    elif family == "features":
        images = patches(64).images
        judge = p.quality.judge
        frozen = features.frozen(judge.architecture, "none", judge.image_size, "quality.judge")
        networks = {"vgg16": features.random_vgg16(), "judge": frozen} | (
            {"inception": _inception()} if p.quality.inception else {}
        )
        units = {name: seconds_of(partial(network, images), budget / 2) / 64 for name, network in networks.items()}
    elif family == "metrics":
        rows = min(4096, _subset(p))
        dims = 2048 if p.quality.inception else 512
        real, fake = (np.random.default_rng(i).normal(size=(rows, dims)).astype(np.float32) for i in (0, 1))
        units = {"rows": rows, "dims": dims}
        units["neighbours"] = seconds_of(lambda: metrics.neighbour_metrics(real=real, fake=fake), 0)
        units["distance"] = seconds_of(lambda: metrics.frechet_distance(real=real, fake=fake), 0)
    else:
        with tempfile.TemporaryDirectory() as folder:
            phantom.write(Path(folder), train=256, valid=8, test=8, seed=0)
            units["load"] = seconds_of(lambda: data.load(folder, "train"), budget / 2) / 256
    # ru_maxrss is in kilobytes, on macOS in bytes
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return units | {"bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else host}


def _evaluated(family: str, p: Profile, task: training.Task, budget: float) -> dict[str, float]:
    """Seconds per image of the trained network in use."""
    device = task.accelerator.device
    name, module = next(iter(task.modules.items()))
    module = task.accelerator.unwrap_model(module, keep_fp32_wrapper=False).eval()
    n = 64
    with torch.no_grad():
        if family == "autoencoder":
            images, codes = tensors.to_float(patches(n).images).to(device), latents(p, n).values[0].to(device)
            return {
                "encode": seconds_of(lambda: module.encode(images), budget) / n,
                "decode": seconds_of(lambda: module.to_images(codes), budget) / n,
            }
        if family in DENOISERS:
            generator = diffusion.DiffusionSampler(p.diffusion, module, None, task.latents)  # type: ignore[arg-type]
            labels = torch.arange(n) % 2
            return {"denoise": seconds_of(lambda: generator.denoise(labels, 0, steps=4), budget) / n / 4}
        if family == flow.NAME:
            sampler = flow.FlowSampler(p.diffusion, module, None, task.latents)  # type: ignore[arg-type, attr-defined]
            labels = torch.arange(n) % 2
            return {"denoise": seconds_of(lambda: sampler.latents_of(labels, 0, steps=4), budget) / n / 4}
        if family == "histogan":
            labels = np.arange(n) % 2
            return {"image": seconds_of(lambda: histogan.sample(module, labels, 0), budget) / n}
        images = patches(256).images
        return {"image": seconds_of(lambda: classifier.probabilities(module, images, p.classifier), budget) / 256}


def _inception() -> Callable[[np.ndarray], np.ndarray]:
    """torchvision's Inception-V3 with random weights at 299 px: the size and cost of FID's, which may not be at
    hand."""
    model = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=False).eval()
    model.fc = torch.nn.Identity()
    device = training.accelerator("fp32").device
    model.to(device)

    @torch.no_grad()
    def extract(images: np.ndarray) -> np.ndarray:
        x = tensors.to_float(images).to(device)
        return model(torch.nn.functional.interpolate(x, (299, 299), mode="bilinear")).cpu().numpy()

    return extract


def _subset(p: Profile) -> int:
    return p.subsets.size or int(np.ceil(p.subsets.fraction * p.phantom.train))


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP per second of the best of a few square matrix products on the device, with the threads now set."""
    device = training.accelerator("fp32").device
    a = torch.randn(size, size, device=device).to(dtype)
    times = []
    for _ in range(4):
        wait()
        started = time.perf_counter()
        a @ a
        wait()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


def main(argv: list[str] | None = None) -> int:
    """Time one family and print a JSON line."""
    parser = argparse.ArgumentParser(prog="timing.py", description=main.__doc__)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("profile")
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args(argv)
    try:
        found = measure(args.family, load_profile(args.profile), args.seconds)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
