"""Autoencoder and diffusion: shapes, schedules, guidance, resume, and that the label reaches the sample."""

import numpy as np
import pytest
import torch

from pcamlib import training
from pcamlib.core.errors import StudyError
from pcamlib.models import autoencoder, diffusion, tensors


def test_uint8_float_round_trip_is_exact():
    images = np.arange(256, dtype=np.uint8).repeat(96 * 96 * 3 // 256 + 1)[: 96 * 96 * 3].reshape(1, 96, 96, 3)
    x = tensors.to_float(images)
    assert x.shape == (1, 3, 96, 96) and x.min() >= -1 and x.max() <= 1
    np.testing.assert_array_equal(tensors.to_uint8(x), images)


def test_the_eight_orientations_are_distinct_and_keep_the_centre():
    x = torch.rand(1, 3, 96, 96).repeat(8, 1, 1, 1)
    turned = tensors.orient(x, torch.arange(8))
    assert torch.equal(turned[0], x[0])
    assert len({t.numpy().tobytes() for t in turned}) == 8
    centre = turned[:, :, 32:64, 32:64].flatten(1).sort(1).values
    assert torch.equal(centre, centre[:1].expand_as(centre)), "the centre decides the label: its pixels must stay in it"


def test_the_shortcut_starts_as_the_best_linear_code(open_tiny, patches):
    settings = open_tiny(**{"autoencoder.latent_channels": 12}).profile.autoencoder
    torch.manual_seed(0)
    model = autoencoder.Autoencoder(settings)
    model.set_shortcut(patches.images[:64])
    with torch.no_grad():
        x = tensors.to_float(patches.images[:64])
        mean, logvar = model.encode(x)
        out = model.decode(mean)
    assert mean.shape == logvar.shape == (64, 12, 12, 12) and float(logvar.max()) < -5
    blocks = torch.nn.functional.unfold(x, 8, stride=8).transpose(1, 2).reshape(-1, 192)
    centred = blocks - blocks.mean(0)
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[:12]
    best = (centred - centred @ basis.T @ basis).pow(2).mean()
    assert float((out - x).pow(2).mean()) == pytest.approx(float(best), rel=0.02)


def test_autoencoder_trains_loads_and_normalises(open_tiny):
    s = open_tiny()
    model, log = autoencoder.train(s)
    assert len(log) == s.profile.autoencoder.epochs
    again = autoencoder.load(s)
    images = s.real.images[:4]
    np.testing.assert_array_equal(autoencoder.reconstruct(model, images), autoencoder.reconstruct(again, images))
    latents = autoencoder.encode_subset(s, again)
    assert latents.values.shape == (8, 32, 4, 12, 12)
    assert float(latents.values.std()) == pytest.approx(1, abs=0.01)
    assert latents.values.mean((0, 1, 3, 4)).abs().max() < 1e-3
    np.testing.assert_array_equal(latents.labels.numpy(), s.real.labels)


@pytest.mark.parametrize("backbone", ["unet", "dit"])
def test_a_missing_stage_names_its_notebook(open_tiny, backbone):
    with pytest.raises(StudyError, match="run notebooks/02_autoencoder.md for subset 0 first"):
        diffusion.train(open_tiny(), backbone)


def fake_latents(n=64):
    """Latents whose mean tells the class."""
    labels = torch.arange(n) % 2
    values = torch.randn(1, n, 4, 12, 12, generator=training.generator("latents")) * 0.3 + (2.0 * labels - 1).view(
        1, n, 1, 1, 1
    )
    return autoencoder.Latents(values, labels, torch.zeros(4), torch.ones(1))


@pytest.mark.parametrize("backbone", ["unet", "dit"])
def test_denoisers_start_and_count_as_designed(open_tiny, backbone):
    settings = open_tiny().profile.diffusion
    model = diffusion.Denoiser(diffusion.build(settings, backbone, 4, 12), settings)
    x, t = torch.randn(6, 4, 12, 12), torch.randint(100, (6,))
    labels = torch.tensor([0, 1, diffusion.NULL] * 2)
    model.train()
    torch.manual_seed(0)
    first = model(x, t, labels)
    assert first.shape == x.shape
    assert torch.equal(first, model(x, t, labels)), "no dropout of labels inside the network"
    if backbone == "dit":
        sigma = (1 - model.alphas_cumprod[t]).sqrt().view(-1, 1, 1, 1)
        torch.testing.assert_close(first, sigma * x, msg="adaLN-Zero: the untrained network adds nothing")


@pytest.mark.parametrize("backbone", ["unet", "dit"])
def test_the_label_steers_as_far_as_guidance_lets_it(open_tiny, tmp_path, backbone):
    settings = open_tiny(**{"diffusion.epochs": 40, "diffusion.learning_rate": 3e-3}).profile.diffusion
    torch.manual_seed(0)
    task = diffusion.DiffusionTask(settings, backbone, fake_latents())
    log = training.fit(
        task, folder=tmp_path / backbone, n=64, epochs=40, batch_size=16, seed=0, precision="fp32", identity=backbone
    )
    assert log[-1]["l_simple"] < 0.7 * log[0]["l_simple"]
    generator = diffusion.DiffusionSampler(settings, task.modules["denoiser"], None, fake_latents())
    labels = torch.tensor([0, 1] * 8)

    def gap(**options):
        means = generator.denoise(labels, seed=3, **options)[0][-1].mean((1, 2, 3))
        return float(means[labels == 1].mean() - means[labels == 0].mean())

    assert gap(guidance=1, steps=10) > 1.2, "class means are 2 apart in the data"
    assert gap(guidance=1, sampler="ddpm") > 1.2

    def swapped(guidance):
        """How far the samples of one noise move when their labels are swapped."""
        one, other = (generator.denoise(y, seed=3, steps=10, guidance=guidance)[0][-1] for y in (labels, 1 - labels))
        return float((one - other).abs().mean())

    assert swapped(0) < 1e-4, "without guidance towards a label the label must not matter"
    assert swapped(0.3) < swapped(1)
    kept, times = generator.denoise(labels, seed=3, keep=3)
    assert len(kept) == len(times) == 4 and times[0] > times[1] > times[-1] == 0
    assert torch.equal(kept[-1], generator.denoise(labels, seed=3)[0][-1])


def test_the_fast_solver_keeps_unit_variance_on_the_cosine_schedule(open_tiny):
    """With the exact score of N(0, 1) data, samples must have standard deviation 1 (unclipped the solver gave 30)."""
    settings = open_tiny(**{"diffusion.timesteps": 1000}).profile.diffusion
    for name, steps in (("dpm-solver++", 20), ("ddpm", 1000)):
        schedule = diffusion.scheduler(settings, name)
        schedule.set_timesteps(steps)
        g = torch.Generator().manual_seed(0)
        x = torch.randn(20000, generator=g).view(-1, 1, 1, 1)
        for t in schedule.timesteps:
            eps = (1 - schedule.alphas_cumprod[t]) ** 0.5 * x  # E[eps | x_t] for standard normal data
            x = schedule.step(eps, t, x, generator=g).prev_sample
        assert float(x.std()) == pytest.approx(1, abs=0.06), name


@pytest.mark.parametrize("backbone", ["unet", "dit"])
def test_samples_in_bf16_are_nearly_those_in_fp32(open_tiny, backbone):
    settings = open_tiny().profile.diffusion
    torch.manual_seed(0)
    task = diffusion.DiffusionTask(settings, backbone, fake_latents())
    for weights in task.modules["denoiser"].parameters():  # an untrained DiT says zero, in any format
        weights.data += 0.02 * torch.randn(weights.shape)
    labels, drawn = torch.tensor([0, 1] * 4), {}
    for precision in ("fp32", "bf16"):
        chosen = settings.model_copy(update={"sampling_precision": precision})
        generator = diffusion.DiffusionSampler(chosen, task.modules["denoiser"], None, fake_latents())
        one, again = (generator.denoise(labels, seed=1)[0][-1] for _ in range(2))
        assert one.dtype == torch.float32 and torch.equal(one, again)
        drawn[precision] = one
    apart = (drawn["fp32"] - drawn["bf16"]).abs().mean()
    assert 0 < apart < 0.05 * drawn["fp32"].std()
