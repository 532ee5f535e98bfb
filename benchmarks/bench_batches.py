"""Batches with the paper's whole augmentation, beside torchvision's: `python benchmarks/bench_batches.py [--data DIR]`.

Ours: patches in memory, flips, turns by any angle and colour jitter for a batch at once, normalised, as
`pcamlib.models.classifier` trains on them. The peer: torchvision.datasets.PCAM, DataLoader with two workers and
torchvision's transforms of the same magnitudes. 96 pixels, batches of 32, the same patches; images per second after the
first batches, and over one epoch with opening and reading included.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import side_by_side

BATCH, WORKERS = 32, 2
MAGNITUDES = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.02}


def count(args) -> int:
    return 256 if args.quick else 4096


def ours(args) -> dict:
    import timing
    import torch

    from pcamlib import training
    from pcamlib.core.sections import AugmentationSettings
    from pcamlib.models import augmentation, classifier

    _, folder = side_by_side.patches(args.data, count(args))  # made beforehand, if it is the phantom
    settings = AugmentationSettings(rotation="any", **MAGNITUDES)
    layout, device = training.layout("fp32"), training.accelerator("fp32").device
    started = time.perf_counter()
    arrays, _ = side_by_side.patches(str(folder), count(args))
    images = classifier.prepare(arrays.images, 96)
    loaded = time.perf_counter() - started

    def batch(rows):
        return classifier.normalise(
            augmentation.augment(images[rows].to(device).float() / 255, settings), layout=layout
        )

    def epoch(seed: int) -> float:
        begun = time.perf_counter()
        for rows in training.batches(len(images), BATCH, seed):
            batch(rows)
        timing.wait()
        return time.perf_counter() - begun

    first = epoch(0)
    times = [epoch(1 + i) for i in range(3)]
    seen = len(images) // BATCH * BATCH
    where = side_by_side.where(lambda: batch(torch.arange(BATCH)), 5)
    return {"images_per_s": seen / min(times), "first_epoch": seen / (first + loaded), "where": where}


def peer(args) -> dict:
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    _, folder = side_by_side.patches(args.data, count(args))
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "pcam").mkdir()
        for path in Path(folder).glob("*.h5"):
            os.symlink(path.resolve(), Path(root) / "pcam" / path.name)
        started = time.perf_counter()
        transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomRotation(180),
                transforms.ColorJitter(**MAGNITUDES),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        dataset = datasets.PCAM(root, split="train", transform=transform)
        dataset = Subset(dataset, range(min(count(args), 1024)))
        loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True)
        seen, steady = 0, 0.0
        for i, (x, _) in enumerate(loader):
            seen += len(x)
            if i == 3:  # the workers have started
                steady = time.perf_counter()
                warm = seen
        ended = time.perf_counter()
    return {"images_per_s": (seen - warm) / (ended - steady), "first_epoch": seen / (ended - started)}


def report(rows: dict, args) -> None:
    print(f"\nAugmented batches of {BATCH} at 96 px, {args.data}, {args.threads} threads")
    print(f"{'':16}{'images/s':>10}{'ours x':>8}{'first epoch':>14}{'ours x':>8}")
    mine = rows["pcamlib"]
    for name, row in rows.items():
        ratios = [mine[key] / row[key] for key in ("images_per_s", "first_epoch")]
        print(f"{name:16}{row['images_per_s']:10,.0f}{ratios[0]:8.1f}{row['first_epoch']:14,.0f}{ratios[1]:8.1f}")
    print(f"time goes to: {mine['where']}")


PEERS = {"pcamlib": ours, "torchvision": peer}

if __name__ == "__main__":
    side_by_side.run(side_by_side.options(__doc__), PEERS, report)
