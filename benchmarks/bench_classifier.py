"""The training of a profile's classifier as pcamlib does it beside plain float32: `python
benchmarks/bench_classifier.py [--data DIR]`.

Forward and backward of one batch, and the AUC after short trainings of several seeds on 500 patches. The peer is the
same network and recipe in float32, contiguous. Ours takes the number format and memory layout that a measurement found
fastest for this network here (`pcamlib.models.formats`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import side_by_side


def trained(precision: str | None):
    """precision: that of the peer, or None for the profile's own."""

    def measure(args) -> dict:
        import timing
        from torch.utils.flop_counter import FlopCounterMode

        from pcamlib import data, metrics, training
        from pcamlib.core.settings import load_profile
        from pcamlib.models import classifier, formats

        settings = load_profile(args.profile).classifier
        settings = settings.model_copy(update={"model_choice": "last", "precision": precision or settings.precision})
        form = formats.Format(precision, "contiguous") if precision else formats.chosen(settings)
        formats.chosen = lambda _: form
        _, folder = side_by_side.patches(args.data, 1024)
        labels = data.labels(folder, "train")
        train_rows, test_rows = data.subsets(labels, n=2, size=100 if args.quick else 500, seed=0)
        train, test = (data.load(folder, "train", rows) for rows in (train_rows, test_rows))
        model = classifier.build(settings)
        task = classifier.ClassifierTask(settings, model, train, train, augment="traditional")
        device = training.accelerator("fp32").device
        x = classifier.normalise(task.images[: settings.batch_size].to(device).float() / 255, task.scale, task.layout)
        model = training.accelerator(form.precision).prepare(task.modules["classifier"]).train()

        def both() -> None:
            model.zero_grad(set_to_none=True)
            model(x).float().mean().backward()

        with FlopCounterMode(display=False) as counter:
            both()
        row = {"seconds": timing.seconds_of(both, args.seconds), "flops": counter.get_total_flops()}
        row |= {"batch": len(x), "size": settings.image_size, "where": side_by_side.where(both)}
        row |= {"network": settings.architecture, "precision": form.precision, "layout": form.layout, "auc": []}
        for seed in range(2 if args.quick else 5):
            with tempfile.TemporaryDirectory() as runs:
                options = {"epochs": 1} if args.quick else {}
                found, _, _ = classifier.train(settings, train, test, folder=Path(runs) / "arm", seed=seed, **options)
            scores = classifier.probabilities(found, test.images, settings)
            row["auc"].append(metrics.classification_metrics(test.labels, scores)["auc"])
        return row | {"rates": side_by_side.rates()}

    return measure


PEERS = {"pcamlib": trained(None), "plain float32": trained("fp32")}


def report(rows: dict, args) -> None:
    ours = rows["pcamlib"]
    print(
        f"\n{ours['network']} at {ours['size']} px, batch {ours['batch']}, forward and backward, {args.threads}"
        f" threads, {args.data}"
    )
    for name, row in rows.items():
        auc = f"{np.mean(row['auc']):.3f} ± {np.std(row['auc'], ddof=1):.3f} ({len(row['auc'])} seeds)"
        print(
            f"{name:14}{row['batch'] / row['seconds']:8.1f} images/s, ours x{row['seconds'] / ours['seconds']:.2f}; AUC"
            f" {auc}; {row['precision']}, {row['layout']}"
        )
    print(f"{side_by_side.shares(ours['flops'], ours['seconds'], ours['rates'])}; time goes to: {ours['where']}")


if __name__ == "__main__":
    side_by_side.run(side_by_side.options(__doc__), PEERS, report)
