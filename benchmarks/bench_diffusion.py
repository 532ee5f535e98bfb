"""A diffusion epoch from cached latents beside one that encodes on the fly: `python benchmarks/bench_diffusion.py`.

The peer is a loop like that of diffusers' training examples: float32, patches from memory, encoded by the same
autoencoder in every step, noised, the same network and batch, mean squared error, clipped gradients, AdamW, EMA.
Caching can save the encoding, bfloat16 the difference between the two networks' times: their bound is

    (encoding + float32 forward and backward + the peer's optimiser) / (forward and backward alone, in our precision).
"""

from __future__ import annotations

import statistics
import time

import side_by_side


def parts(args, family: str):
    import timing
    import torch

    from pcamlib.core.settings import load_profile

    torch.manual_seed(0)
    p = load_profile(args.profile)
    return p, timing.task_of(family, p, p.diffusion.batch_size)


def measure(family: str, ours: bool):
    def cached(args) -> dict:
        import timing
        import torch

        from pcamlib import training
        from pcamlib.core.precision import number_format

        p, task = parts(args, family)
        batch, precision = p.diffusion.batch_size, number_format(p.diffusion.precision)
        seconds, flops = timing.step_seconds(task, batch, precision, args.seconds)
        model = task.modules["denoiser"].train()
        model = training.accelerator(precision).prepare(model)
        device = training.accelerator(precision).device
        x, labels = task.latents.values[0, :batch].to(device), task.latents.labels[:batch].to(device)
        t = torch.randint(p.diffusion.timesteps, (batch,)).to(device)

        def bare() -> None:
            model.zero_grad(set_to_none=True)
            model(x, t, labels).float().pow(2).mean().backward()

        alone = timing.seconds_of(bare, args.seconds)
        rows = torch.arange(batch)
        task.accelerator = training.accelerator(precision)
        where = side_by_side.where(lambda: task.step(rows))
        return {"step": seconds, "bare": alone, "flops": flops, "batch": batch, "precision": precision} | {
            "where": where,
            "rates": side_by_side.rates(),
        }

    def on_the_fly(args) -> dict:
        import timing
        import torch
        import torch.nn.functional as F
        from diffusers import DDPMScheduler
        from diffusers.training_utils import EMAModel

        from pcamlib import training
        from pcamlib.models import autoencoder, tensors

        p, task = parts(args, family)
        device = training.accelerator("fp32").device
        vae = autoencoder.Autoencoder(p.autoencoder).eval().to(device)
        model = task.modules["denoiser"].backbone.train().to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        ema = EMAModel(model.parameters(), decay=0.9999)
        schedule = DDPMScheduler(p.diffusion.timesteps, beta_schedule="squaredcos_cap_v2")
        batch = p.diffusion.batch_size
        images, _ = timing.patches(batch)
        labels = (torch.arange(batch) % 2).to(device)
        spent: dict[str, list[float]] = {"step": [], "encoding": [], "network": []}

        def step() -> None:
            start = time.perf_counter()
            with torch.no_grad():
                latents = vae.encode(tensors.to_float(images).to(device))[0]
            timing.wait()
            encoded = time.perf_counter()
            noise = torch.randn_like(latents)
            t = torch.randint(p.diffusion.timesteps, (batch,), device=device)
            noisy = schedule.add_noise(latents, noise, t)
            begun = time.perf_counter()
            loss = F.mse_loss(model(noisy, timestep=t, class_labels=labels).sample, noise)
            loss.backward()
            timing.wait()
            trained = time.perf_counter()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.step(model.parameters())
            loss.item()
            for key, value in (
                ("encoding", encoded - start),
                ("network", trained - begun),
                ("step", time.perf_counter() - start),
            ):
                spent[key].append(value)

        step()
        while sum(spent["step"]) < args.seconds or len(spent["step"]) < 3:
            step()
        return {key: statistics.median(values[1:]) for key, values in spent.items()}

    return cached if ours else on_the_fly


PEERS = {
    f"{family}, {name}": measure(family, name == "pcamlib")
    for family in ("unet", "dit")
    for name in ("pcamlib", "peer")
}


def report(rows: dict, args) -> None:
    for family in ("unet", "dit"):
        ours, peer = rows[f"{family}, pcamlib"], rows[f"{family}, peer"]
        ratio, bound = peer["step"] / ours["step"], peer["step"] / ours["bare"]
        print(f"\nDiffusion, {family}, profile {args.profile}, batch {ours['batch']}, {args.threads} threads")
        print(
            f"encoding on the fly, fp32: {1e3 * peer['step']:.0f} ms a step, of which encoding"
            f" {1e3 * peer['encoding']:.0f}"
        )
        print(f"    and network {1e3 * peer['network']:.0f}")
        print(
            f"pcamlib, cached, {ours['precision']}: {1e3 * ours['step']:.0f} ms, of which network"
            f" {1e3 * ours['bare']:.0f}"
        )
        print(f"ratio {ratio:.2f}, bound {bound:.2f}: {ratio / bound:.0%} of it reached")
        print(f"{side_by_side.shares(ours['flops'], ours['step'], ours['rates'])}; time goes to: {ours['where']}")


if __name__ == "__main__":
    side_by_side.run(side_by_side.options(__doc__), PEERS, report)
