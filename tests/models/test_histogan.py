from __future__ import annotations

import itertools
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pcamlib import data, training
from pcamlib.core.errors import StudyError
from pcamlib.core.sections import HistoGANSettings
from pcamlib.models import histogan, tensors

SETTINGS = HistoGANSettings(
    noise_dim=6,
    base_channels=4,
    epochs=2,
    batch_size=4,
    learning_rate=1e-3,
    label_flip=0.1,
    input_dropout=0.1,
    ema_decay=0.9,
)

PUBLISHED = HistoGANSettings(
    variant="published",
    noise_dim=6,
    base_channels=2,
    epochs=2,
    batch_size=4,
    learning_rate=1e-3,
    label_flip=0.5,
    input_dropout=0.25,
    ema_decay=0,
)
VARIANTS = pytest.mark.parametrize("settings", [SETTINGS, PUBLISHED], ids=["stabilised", "published"])


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def study(n: int = 18, *, settings: HistoGANSettings = SETTINGS) -> types.SimpleNamespace:
    """The attributes of a Study that training reads: dark patches of class 0, light ones of class 1."""
    labels = np.arange(n, dtype=np.uint8) % 2
    noise = np.random.default_rng(0).integers(-40, 41, (n, 96, 96, 3))
    images = (noise + np.where(labels == 1, 200, 60)[:, None, None, None]).astype(np.uint8)
    profile = types.SimpleNamespace(histogan=settings, orientations=8)
    return types.SimpleNamespace(profile=profile, real=data.Arrays(images, labels), data_sha="0", seed=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, histogan.Generator, list[dict]]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained") / "histogan"
    return folder, *histogan.train(study(), folder=folder)


def build(settings: HistoGANSettings):
    """Generator and discriminator of a variant."""
    generator, discriminator = histogan.networks(settings.variant)
    return generator(settings.noise_dim, settings.base_channels), discriminator(settings.base_channels, 0.1)


@VARIANTS
def test_shapes_and_ranges(settings):
    generator, discriminator = build(settings)
    images = generator(torch.randn(3, 6), torch.tensor([0, 1, 1]))
    assert images.shape == (3, 3, 96, 96)
    assert images.min() >= -1 and images.max() <= 1
    assert discriminator(images, torch.tensor([0, 1, 1])).shape == (3,)


@VARIANTS
def test_both_networks_use_the_label(settings):
    torch.manual_seed(0)
    generator, discriminator = (network.eval() for network in build(settings))
    noise = torch.randn(2, 6)
    zero, one = torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64)
    images = generator(noise, zero)
    assert torch.equal(images, generator(noise, zero))
    assert not torch.allclose(images, generator(noise, one))
    assert not torch.allclose(discriminator(images, zero), discriminator(images, one))


@VARIANTS
def test_the_label_can_change_the_order_of_two_images(settings):
    """A label that only shifted every logit by the same amount could not steer the generator."""
    torch.manual_seed(0)
    discriminator = build(settings)[1].eval()
    images = torch.rand(2, 3, 96, 96) * 2 - 1
    images[1] *= 0.1
    with torch.no_grad():
        logits = [discriminator(images, torch.full((2,), label)) for label in (0, 1)]
    shift = logits[1] - logits[0]
    assert abs(float(shift[0] - shift[1])) > 1e-3 * abs(float(shift.mean()))


def test_a_label_alone_places_nothing():
    """A generator whose label could, gave every sample of a class the same layout."""
    torch.manual_seed(0)
    generator = histogan.Generator(6, 4).eval()
    with torch.no_grad():
        image = generator(torch.zeros(1, 6), torch.tensor([1]))[0]
    inner = image[:, 32:56, 32:56]
    assert torch.allclose(inner, image[:, 40:64, 40:64], atol=1e-6) and inner.std() > 1e-4


def test_the_discriminator_sees_how_much_the_images_of_its_part_differ():
    torch.manual_seed(0)
    discriminator, labels = histogan.Discriminator(4, 0.0).eval(), torch.tensor([0, 1, 0, 1])
    varied = torch.rand(4, 3, 96, 96) * 2 - 1
    same = varied[:1].expand(4, -1, -1, -1).clone().requires_grad_()
    alike = discriminator(same, labels)
    assert not torch.allclose(alike[0], discriminator(varied, labels)[0], atol=1e-6)
    both = discriminator(torch.cat([varied, same]), labels.repeat(2), parts=2)
    assert torch.allclose(both, torch.cat([discriminator(varied, labels), alike]), atol=1e-6)
    alike.sum().backward()
    assert same.grad.isfinite().all()


def test_input_dropout_acts_in_training_only():
    discriminator = histogan.Discriminator(4, 0.5)
    images, labels = torch.rand(1, 3, 96, 96), torch.tensor([1])
    assert not torch.equal(discriminator(images, labels), discriminator(images, labels))
    discriminator.eval()
    assert torch.equal(discriminator(images, labels), discriminator(images, labels))


@VARIANTS
def test_training_moves_every_part_of_both_networks(tmp_path, settings):
    histogan.train(study(settings=settings), folder=tmp_path / "histogan")
    moved = load_file(tmp_path / "histogan" / "checkpoint.safetensors")
    torch.manual_seed(training.derive(3, "histogan", "init"))
    task = histogan.GanTask(settings, study().real.images, study().real.labels, 8)
    for name, module in task.modules.items():
        for key, value in module.named_parameters():
            assert not torch.equal(moved[f"module/{name}/{key}"], value), f"{name}: {key}"
            if key.endswith("embedding.weight"):
                assert (moved[f"module/{name}/{key}"] != value).any(1).all()  # both labels


def test_log_and_artefacts(trained):
    folder, _, log = trained
    assert [row["epoch"] for row in log] == [1, 2]
    assert {"d_loss", "g_loss", "d_real", "d_fake"} <= set(log[0])
    assert {path.name for path in folder.iterdir()} >= {"generator.safetensors", "config.json", "log.csv"}


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused(trained, tmp_path, finished):
    folder, _, _ = trained
    other = tmp_path / "histogan"
    shutil.copytree(folder, other)
    if not finished:
        (other / "generator.safetensors").unlink()
    with pytest.raises(StudyError, match="another profile"):
        histogan.train(study(settings=SETTINGS.model_copy(update={"label_flip": 0.2})), folder=other)


def test_a_finished_generator_needs_no_checkpoint(trained, tmp_path, monkeypatch):
    folder, generator, log = trained
    other = tmp_path / "histogan"
    shutil.copytree(folder, other)
    (other / "checkpoint.safetensors").unlink()
    monkeypatch.setattr(training, "fit", lambda *a, **k: pytest.fail("trained again"))
    again, same_log = histogan.train(study(), folder=other)
    assert same_log == log
    labels = np.array([0, 1])
    assert np.array_equal(histogan.sample(generator, labels, 0), histogan.sample(again, labels, 0))


def test_sample_is_a_function_of_seed_and_labels(trained, monkeypatch):
    folder, generator, _ = trained
    labels = np.array([0, 1, 1, 0, 1], np.uint8)
    torch.manual_seed(1)
    images = histogan.sample(generator, labels, seed=5)
    assert images.shape == (5, 96, 96, 3) and images.dtype == np.uint8
    torch.manual_seed(2)
    generator.train()  # sampling must not depend on the mode it finds
    assert np.array_equal(images, histogan.sample(generator, labels, seed=5))
    assert not np.array_equal(images, histogan.sample(generator, labels, seed=6))
    monkeypatch.setattr(histogan, "BATCH", 2)
    in_twos = histogan.sample(generator, labels, seed=5)
    assert np.abs(images.astype(int) - in_twos).max() <= 1


def test_load_names_a_missing_and_a_damaged_file(tmp_path, trained):
    with pytest.raises(StudyError, match="04_histogan.md"):
        histogan.load(tmp_path)
    folder, _, _ = trained
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "generator.safetensors").write_bytes((folder / "generator.safetensors").read_bytes()[:-100])
    with pytest.raises(StudyError, match="damaged"):
        histogan.load(tmp_path)


def test_settled_statistics_are_those_of_the_weights():
    torch.manual_seed(0)
    generator = histogan.Generator(6, 4)
    norm = generator.first[0]
    norm.running_mean.fill_(7.0)
    histogan.recompute_batchnorm_stats(generator, torch.tensor([0, 1]), seed=0, batches=20)
    assert norm.momentum == 0.1 and not generator.training
    with torch.no_grad():
        start = generator.start(torch.randn(4000, 6)).view(4000, -1, 12, 12)
    assert torch.allclose(norm.running_mean, start.mean((0, 2, 3)), atol=0.02)
    assert torch.allclose(norm.running_var, start.var((0, 2, 3)), rtol=0.1)


def test_parts_do_not_share_statistics_in_the_published_discriminator():
    torch.manual_seed(0)
    discriminator, labels = build(PUBLISHED)[1], torch.tensor([0, 1])
    discriminator.dropout.p = 0.0
    real, fake = torch.rand(2, 3, 96, 96), -torch.rand(2, 3, 96, 96)
    both = discriminator(torch.cat([real, fake]), labels.repeat(2), parts=2)
    assert torch.allclose(both, torch.cat([discriminator(real, labels), discriminator(fake, labels)]), atol=1e-5)
    assert not torch.allclose(both, discriminator(torch.cat([real, fake]), labels.repeat(2)), atol=1e-3)


def one_step(label_flip: float):
    """One step of the published training on four patches: the task and its losses."""
    settings = PUBLISHED.model_copy(update={"label_flip": label_flip, "input_dropout": 0.0})
    torch.manual_seed(0)
    task = histogan.PublishedTask(settings, study(8).real.images, study(8).real.labels, 8)
    task.accelerator, task.random, task.progress = training.accelerator("fp32"), training.generator("step"), 0.0
    return task, task.step(torch.arange(4))


def test_the_published_loss_flips_half_of_the_real_targets_and_no_others(monkeypatch):
    calls = []
    forward = histogan.PublishedDiscriminator.forward

    def watched(self, images, labels, parts=1):
        logits = forward(self, images, labels, parts)
        calls.append(logits.detach().double())
        return logits

    monkeypatch.setattr(histogan.PublishedDiscriminator, "forward", watched)
    for share, flipped in ((0.0, 0), (0.5, 2)):
        calls.clear()
        _, losses = one_step(share)
        judged, p = calls[0], torch.sigmoid(calls[1])
        assert float(losses["g_loss"]) == pytest.approx(float(-torch.log(torch.sigmoid(judged)).mean()), rel=1e-4)
        fakes = -torch.log(1 - p[4:]).mean()
        choices = [
            -torch.log(0.9 * torch.where(torch.tensor([i in which for i in range(4)]), 1 - p[:4], p[:4])).mean() + fakes
            for which in itertools.combinations(range(4), flipped)
        ]
        assert min(abs(float(losses["d_loss"] - choice)) for choice in choices) < 1e-4
        assert len({round(float(choice), 4) for choice in choices}) == len(choices)


def test_both_published_gradients_come_before_either_update(monkeypatch):
    """The generator's step must not see the new discriminator, nor the discriminator the new generator's images."""
    order = []
    update = histogan.PublishedTask.update

    def watched(self, name, loss):
        order.append((name, {key: value.clone() for key, value in self.modules["discriminator"].state_dict().items()}))
        update(self, name, loss)

    monkeypatch.setattr(histogan.PublishedTask, "update", watched)
    task, _ = one_step(0.5)
    (first, before), (second, between) = order
    assert (first, second) == ("generator-adam", "discriminator-adam")
    weights = [key for key in before if key.endswith("weight")]
    assert all(torch.equal(before[key], between[key]) for key in weights)
    assert not any(torch.equal(between[key], task.modules["discriminator"].state_dict()[key]) for key in weights)
    for optimizer in task.optimizers.values():
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.999) and optimizer.param_groups[0]["lr"] == 1e-3


def test_published_images_are_mirrored_but_not_turned():
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(4, -1, -1, -1)
    expected = [image[0], image[0].flip(2), image[0].flip(1), image[0].flip(1, 2)]
    turned = tensors.orient(image, histogan.FLIPS)
    assert {t.numpy().tobytes() for t in turned} == {e.numpy().tobytes() for e in expected}


@VARIANTS
def test_a_cut_training_resumes_to_the_same_generator(tmp_path, monkeypatch, checkpoint_always, settings):
    whole, log = histogan.train(study(settings=settings), folder=tmp_path / "whole" / "histogan")
    task = histogan.PublishedTask if settings is PUBLISHED else histogan.GanTask
    step, count = task.step, itertools.count()

    def cut(self, rows):
        if next(count) == 5:
            raise KeyboardInterrupt
        return step(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(task, "step", cut)
        with pytest.raises(KeyboardInterrupt):
            histogan.train(study(settings=settings), folder=tmp_path / "cut" / "histogan")
    again, log_again = histogan.train(study(settings=settings), folder=tmp_path / "cut" / "histogan")
    labels = np.array([0, 1, 1])
    np.testing.assert_array_equal(histogan.sample(whole, labels, seed=1), histogan.sample(again, labels, seed=1))
    assert [row["d_loss"] for row in log] == [row["d_loss"] for row in log_again]
    assert isinstance(histogan.load(tmp_path / "cut" / "histogan"), histogan.networks(settings.variant)[0])


def test_settings_that_a_variant_does_not_have_are_refused():
    with pytest.raises(ValueError, match="label_flip of 0.5 tells the stabilised discriminator nothing"):
        HistoGANSettings(**SETTINGS.model_dump() | {"label_flip": 0.5})
    with pytest.raises(ValueError, match="variant published averages no weights"):
        HistoGANSettings(**PUBLISHED.model_dump() | {"ema_decay": 0.9})
