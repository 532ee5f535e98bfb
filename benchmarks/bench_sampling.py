"""The fast solver beside 1000 ancestral steps, and in bfloat16: `python benchmarks/bench_sampling.py [--data DIR]`.

Time: a batch of 64 samples of each backbone at the profile's sizes, guidance and decoding included, on an untrained
network (its weights do not matter); of the ancestral steps, which all cost the same, some are timed. Quality: a U-Net
of a quarter of the cost is trained for some minutes on a subset of `--data`, and both samplers draw from it, without
guidance, three sets each; the Fréchet distance to the subset's real patches is in the space of a random VGG16.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import side_by_side

SETS, EACH, ANCESTRAL = 3, 64, 1000


def timed(family: str):
    def measure(args) -> dict:
        import timing
        import torch

        from pcamlib import training
        from pcamlib.core.settings import load_profile
        from pcamlib.models import autoencoder, diffusion

        p = load_profile(args.profile)
        task = timing.task_of(family, p, p.diffusion.batch_size)
        task.accelerator = training.accelerator("fp32")
        device = task.accelerator.device
        decoder = autoencoder.Autoencoder(p.autoencoder).eval().to(device)
        generator = diffusion.DiffusionSampler(p.diffusion, task.modules["denoiser"].to(device), decoder, task.latents)
        labels = torch.arange(EACH) % 2
        generator.settings = p.diffusion.model_copy(update={"sampling_precision": "bf16"})
        reduced = timing.seconds_of(lambda: generator.sample(labels.numpy(), 0), args.seconds)
        generator.settings = p.diffusion.model_copy(update={"sampling_precision": "fp32"})
        fast = timing.seconds_of(lambda: generator.sample(labels.numpy(), 0), args.seconds)
        some = 5
        step = timing.seconds_of(lambda: generator.denoise(labels, 0, sampler="ddpm", steps=some), args.seconds) / some
        decode = timing.seconds_of(lambda: decoder.to_images(task.latents.values[0, :EACH]), 1)
        row = {
            "fast": fast,
            "reduced": reduced,
            "steps": p.diffusion.sampling_steps,
            "ancestral": ANCESTRAL * step + decode,
            "decode": decode,
        }
        where = side_by_side.where(lambda: generator.denoise(labels, 0, sampler="dpm-solver++", steps=2))
        return row | {"sampler": p.diffusion.sampler, "guidance": p.diffusion.guidance, "where": where}

    return measure


def quality(args) -> dict:
    import warnings

    import yaml

    from pcamlib import metrics, study
    from pcamlib.core.settings import load_profile
    from pcamlib.experiments import features
    from pcamlib.models import autoencoder, diffusion

    warnings.simplefilter("ignore")
    content = load_profile(args.profile).model_dump()
    content |= {"name": "sampling", "threads": args.threads}
    content["diffusion"]["unet"]["block_channels"] = [32, 64]
    steps, each, epochs = (100, 16, 1) if args.quick else (ANCESTRAL, EACH, content["diffusion"]["epochs"])
    content["diffusion"] |= {"timesteps": steps, "epochs": epochs}
    content["autoencoder"]["epochs"] = min(epochs, 8)
    content["phantom"] |= {"train": 1500, "valid": 64, "test": 64}
    content["subsets"] = {"count": 1, "size": 100 if args.quick else 500}
    with tempfile.TemporaryDirectory() as runs:
        path = Path(runs) / "sampling.yml"
        path.write_text(yaml.safe_dump(content))
        _, folder = side_by_side.patches(args.data, 1500)
        s = study.open_study(data_root=str(folder), runs_dir=runs, profile=str(path), subset=0)
        autoencoder.encode_subset(s, autoencoder.train(s)[0])
        generator, log = diffusion.train(s, "unet")
        space = features.random_vgg16()
        real = space(s.real.images)
        samplers = {"fast": {}, "ancestral": {"sampler": "ddpm", "steps": steps}}
        row: dict = {"extractor": space.name, "n_real": len(real), "each": each, "images_seen": log[-1]["images"]}
        for name, options in samplers.items():
            sets = [space(generator.sample(np.arange(each) % 2, seed, guidance=1.0, **options)) for seed in range(SETS)]
            row[name] = [metrics.frechet_distance(real=real, fake=fake) for fake in sets]
            row[f"{name}, all"] = metrics.frechet_distance(real=real, fake=np.concatenate(sets))
        generator.settings = s.profile.diffusion.model_copy(update={"sampling_precision": "bf16"})
        sets = [space(generator.sample(np.arange(each) % 2, seed, guidance=1.0)) for seed in range(SETS)]
        row["bf16"] = [metrics.frechet_distance(real=real, fake=fake) for fake in sets]
        row["bf16, all"] = metrics.frechet_distance(real=real, fake=np.concatenate(sets))
    return row


PEERS = {"unet": timed("unet"), "dit": timed("dit"), "quality": quality}


def report(rows: dict, args) -> None:
    for family in ("unet", "dit"):
        row = rows[family]
        print(
            f"\nSampling {EACH} patches, {family}, profile {args.profile}, guidance {row['guidance']}, {args.threads}"
            " threads"
        )
        print(f"{ANCESTRAL} ancestral steps: {row['ancestral']:.0f} s (by the step)")
        ratio = row["ancestral"] / row["fast"]
        print(
            f"{row['sampler']}, {row['steps']} steps: {row['fast']:.2f} s, x{ratio:.0f}; decoding {row['decode']:.2f} s"
        )
        print(f"the same in bf16: {row['reduced']:.2f} s, x{row['fast'] / row['reduced']:.2f}")
        print(f"time goes to: {row['where']}")
    q = rows["quality"]
    print(
        f"\nFréchet distance ({q['extractor']}) of {SETS} sets of {q['each']} to {q['n_real']} real patches,"
        f" {args.data}"
    )
    for name in ("fast", "bf16", "ancestral"):
        spread = f"{np.mean(q[name]):.4g} ± {np.std(q[name], ddof=1):.2g}"
        print(f"{name:10} {spread} a set; all together {q[f'{name}, all']:.4g}")


if __name__ == "__main__":
    side_by_side.run(side_by_side.options(__doc__), PEERS, report)
