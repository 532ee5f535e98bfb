"""Augmentation: the four transforms against torchvision, and what stronger kinds keep."""

import numpy as np
import pytest
import skimage.color
import torch
import torchvision.transforms.v2.functional as tv

from pcamlib.core.sections import AugmentationSettings
from pcamlib.models import augmentation

NONE = {"rotation": "none", "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
OFF = AugmentationSettings(**NONE)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_is_torchvisions(name):
    torch.manual_seed(0)
    x = 0.3 + 0.4 * torch.rand(5, 3, 12, 12)
    matrix, offset = augmentation.jitter(5, AugmentationSettings(**NONE | {name: 0.2}), x.mean((2, 3)))
    ours = torch.einsum("nij,njhw->nihw", matrix, x) + offset.view(5, 3, 1, 1)
    torch.manual_seed(0)
    torch.rand(5, 3, 12, 12)
    draws = [torch.rand(5) for _ in range(3)]
    factors = 1 + 0.2 * (2 * draws[["brightness", "contrast", "saturation"].index(name)] - 1)
    theirs = torch.stack([getattr(tv, f"adjust_{name}")(image, float(f)) for image, f in zip(x, factors)])
    # torchvision rounds its luma weights to four digits
    assert (ours - theirs).abs().max() < 2e-3 and (ours - x).abs().max() > 0.01


def test_hue_turns_colour_and_keeps_grey_and_luma():
    torch.manual_seed(0)
    x = torch.rand(4, 3, 8, 8)
    x[0] = x[0, :1]
    matrix, offset = augmentation.jitter(4, AugmentationSettings(**NONE | {"hue": 0.1}), x.mean((2, 3)))
    out = torch.einsum("nij,njhw->nihw", matrix, x) + offset.view(4, 3, 1, 1)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    assert (out[0] - x[0]).abs().max() < 1e-3
    assert ((out - x) * luma).sum(1).abs().max() < 1e-3 and (out[1] - x[1]).abs().max() > 0.02


def test_augmentation_is_per_image_in_range_and_off_when_off():
    x = torch.rand(64, 3, 16, 16)
    full = AugmentationSettings(rotation="right-angles", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)
    torch.manual_seed(0)
    out = augmentation.augment(x[:1].repeat(64, 1, 1, 1), full)
    assert out.min() >= 0 and out.max() <= 1 and len({o.numpy().tobytes() for o in out}) > 40
    torch.manual_seed(0)
    turned = augmentation.augment(
        x[:1].repeat(64, 1, 1, 1), AugmentationSettings(**NONE | {"rotation": "right-angles"})
    )
    assert len({o.mul(1000).round().numpy().tobytes() for o in turned}) == 8, "flips and quarter turns: eight pictures"
    anyhow = augmentation.augment(x, AugmentationSettings(**NONE | {"rotation": "any"}))
    assert anyhow.shape == x.shape and anyhow.min() >= 0


@pytest.mark.parametrize("kind", list(augmentation.KINDS))
def test_every_kind_is_torchs_randomness_in_range_and_leaves_its_input_alone(kind):
    x, y = torch.rand(8, 3, 24, 24), torch.tensor([0.0, 1.0] * 4)
    before = x.clone()
    full = AugmentationSettings(rotation="right-angles", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(augmentation.KINDS[kind](x, y, full))
    (a, labels), (b, same), (c, _) = results
    assert torch.equal(a, b) and torch.equal(labels, same) and torch.equal(x, before)
    assert torch.equal(a, c) == (kind == "none")
    assert a.shape == x.shape and a.dtype == x.dtype and a.min() >= 0 and a.max() <= 1
    assert labels.shape == y.shape and (kind == "mixup" or torch.equal(labels, y))


def test_stain_jitter_of_no_width_changes_nothing_and_one_stain_moves_alone():
    torch.manual_seed(0)
    x = 0.1 + 0.8 * torch.rand(4, 3, 16, 16)
    assert (augmentation.hed_jitter(x, 0.0) - x).abs().max() < 1e-4
    pink = torch.from_numpy(skimage.color.hed2rgb(np.full((1, 8, 8, 3), [0.0, 0.1, 0.0]))).permute(0, 3, 1, 2).float()
    jittered = augmentation.hed_jitter(pink.repeat(16, 1, 1, 1), 0.2)
    eosin = skimage.color.rgb2hed(jittered.permute(0, 2, 3, 1).numpy())
    assert eosin[..., 1].std() > 0.005 and np.abs(eosin[..., [0, 2]]).max() < 0.01


def test_mixup_mixes_images_and_labels_by_one_share():
    torch.manual_seed(3)
    x, y = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 8, 8) / 6, torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    mixed, labels = augmentation.mixup(x, y, OFF)
    shares = ((mixed - x.roll(1, 0)) / (x - x.roll(1, 0)))[:, 0, 0, 0]
    assert (shares - shares[0]).abs().max() < 1e-5 and 0 < shares[0] < 1
    assert torch.allclose(labels, shares[0] * y + (1 - shares[0]) * y.roll(1), atol=1e-6)


def test_cutmix_keeps_every_centre_with_its_label():
    torch.manual_seed(0)
    x = (torch.arange(64.0) / 64).view(64, 1, 1, 1).expand(64, 3, 96, 96)
    out, labels = augmentation.cutmix(x, torch.ones(64), OFF)
    out = (64 * out).round() / 64  # transforms of no width may change the last bit, on some processors
    assert torch.equal(out[:, :, 32:64, 32:64], x[:, :, 32:64, 32:64]) and labels.eq(1).all()
    changed = (out != x).any(1).flatten(1).any(1)
    assert 20 < changed.sum() < 44, "half are left whole"
    assert (out[changed] != x[changed]).float().mean() > 0.2
    assert all(len(image.unique()) <= 2 for image in out), "the surroundings come from one other patch"


def test_copies_of_a_patch_differ_and_leave_the_random_numbers_alone():
    patch = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    settings, before = AugmentationSettings(**NONE | {"hue": 0.1}), torch.get_rng_state()
    copies = augmentation.copies(patch, 5, settings, seed=1)
    assert copies.shape == (5, 96, 96, 3) and copies.dtype == np.uint8
    assert len({copy.tobytes() for copy in copies}) == 5
    assert (copies == augmentation.copies(patch, 5, settings, seed=1)).all()
    assert (torch.get_rng_state() == before).all()
