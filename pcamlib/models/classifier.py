"""The downstream classifier: any timm network with one logit, its augmentation, training and test (§4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from pcamlib import metrics, training
from pcamlib.core.errors import StudyError, loading_weights
from pcamlib.core.files import atomic, digest, resolve
from pcamlib.core.sections import ClassifierSettings as Settings
from pcamlib.data import Arrays
from pcamlib.models import augmentation, formats, weights

THRESHOLD = 0.5
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of RGB


def build(settings: Settings) -> torch.nn.Module:
    """The profile's network with one output logit: `network` of the classifier's section."""
    return network(settings.architecture, settings.weights, settings.image_size, "classifier")


def network(architecture: str, start: str, size: int | None, section: str) -> torch.nn.Module:
    """A timm model with one output logit; its head is drawn from torch's seed, whatever weights it starts from.

    start: "none" (random initialisation from torch's seed), "package" (`weights.load_package`), "imagenet" (timm's
    weights from the hub or its cache), else the path of a .safetensors or .pth file of the same network.
    size: pixels, for networks that are built for one size only; None: that of their pretraining.

    Raises StudyError, naming the profile's `section`, if the network is unknown or its weights cannot be had; nothing
    is put in their place.
    """
    if not timm.is_model(architecture):
        raise StudyError(f"{section}: {architecture!r} is not a timm model: correct its architecture in the profile.")
    if start == "package":
        model = weights.load_package(architecture)
        model.reset_classifier(1)
        return model
    try:
        options = formats.size_option(architecture, size)
        model = timm.create_model(architecture, pretrained=start == "imagenet", num_classes=1, **options)
    except Exception as error:  # the hub client raises its own, requests' and the system's errors
        raise StudyError(
            f"{section}: ImageNet weights {architecture} could not be loaded ({' '.join(str(error).split())[:160]}):"
            " give the path of a weights file instead"
            + (", or 'none' for random initialisation." if section == "classifier" else ".")
        ) from None
    if start not in ("none", "imagenet"):
        load_weights(model, start, f"{section}.weights", architecture)
    return model


def load_weights(model: torch.nn.Module, path: str, parameter: str, architecture: str) -> Path:
    """Load a .safetensors or .pth file of published weights into a timm model, all but its classification head.

    Returns the file's absolute path. Raises StudyError, naming the profile's `parameter`, if the file is missing, is
    not a weights file, or holds another architecture's.
    """
    file = resolve(path)
    if not file.is_file():
        raise StudyError(f"{parameter}: weights file {file} does not exist; give another path, 'imagenet' or 'none'.")
    head = model.default_cfg["classifier"]
    try:
        if file.suffix == ".safetensors":
            found = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
        found = {key: value for key, value in found.items() if not key.startswith(f"{head}.")}
        missing, unexpected = model.load_state_dict(found, strict=False)
    except Exception as error:  # unpickling and shape errors come in many types
        raise StudyError(f"{parameter}: {file} does not hold {architecture} weights ({str(error)[:160]}).") from None
    if {key for key in missing if not key.startswith(f"{head}.")} or unexpected:
        raise StudyError(f"{parameter}: {file} does not hold {architecture} weights (other layer names).")
    return file


def prepare(images: np.ndarray | torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, 96, 96, 3) -> uint8 (N, 3, size, size), by area averaging if size < 96. What is prepared is
    returned."""
    if isinstance(images, torch.Tensor):
        return images
    parts = []
    for start in range(0, len(images), 512):
        x = torch.from_numpy(images[start : start + 512]).permute(0, 3, 1, 2)
        parts.append(
            x.contiguous()
            if size == x.shape[-1]
            else F.interpolate(x.float(), size=(size, size), mode="area").round().byte()
        )
    return torch.cat(parts)


Scale = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of RGB in [0, 1] that a network's inputs are scaled by."""


def own_scale(model: torch.nn.Module) -> Scale:
    """The scale of a timm network's own pretraining."""
    return model.pretrained_cfg["mean"], model.pretrained_cfg["std"]


def normalise(
    x: torch.Tensor, scale: Scale = IMAGENET, layout: torch.memory_format = torch.channels_last
) -> torch.Tensor:
    """float (B, 3, S, S) in [0, 1], minus mean, over standard deviation, in memory as `layout` says."""
    mean, std = (torch.tensor(values).to(x).view(3, 1, 1) for values in scale)
    return x.sub(mean).div_(std).contiguous(memory_format=layout)


class ClassifierTask(training.Task):
    """Binary cross-entropy, SGD with momentum (§4.2); `augment`: what is done to a batch, see `augmentation.KINDS`.

    With model_choice "best-valid-auc" the validation split is scored after every epoch and `tensors` keeps the best
    weights so far; with "last" validation plays no part (the paper is silent).
    """

    def __init__(self, settings: Settings, model: torch.nn.Module, train: Arrays, valid: Arrays, *, augment: str):
        super().__init__()
        self.settings, self.augment, self.valid = settings, augmentation.KINDS[augment], valid
        self.images = prepare(train.images, settings.image_size)
        self.labels = torch.from_numpy(train.labels.astype(np.float32))
        self.scale, self.layout = own_scale(model), formats.chosen(settings).memory
        self.modules["classifier"] = model.to(memory_format=self.layout)
        self.optimizers["sgd"] = torch.optim.SGD(
            model.parameters(), lr=settings.learning_rate, momentum=settings.momentum, fused=True
        )
        if settings.model_choice == "best-valid-auc":
            self.tensors = {f"best.{name}": value.clone() for name, value in model.state_dict().items()}
            self.tensors |= {"auc": torch.tensor(-1.0), "epoch": torch.tensor(0)}

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        device, rows = self.accelerator.device, self.share(rows)
        if self.settings.schedule == "cosine":
            for group in self.optimizers["sgd"].param_groups:
                group["lr"] = self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * self.progress))
        x, labels = self.images[rows].to(device).float() / 255, self.labels[rows].to(device)
        x, labels = self.augment(x, labels, self.settings.augmentation)
        logits = self.modules["classifier"](normalise(x, self.scale, self.layout)).float().squeeze(1)
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        self.update("sgd", loss)
        return {"loss": loss.detach()}

    def end_of_epoch(self, epoch: int) -> dict[str, float]:
        if self.settings.model_choice == "last":
            return {}
        # the wrapper stays: taking it off would take autocast from the epochs that follow
        model = self.accelerator.unwrap_model(self.modules["classifier"]).eval()
        scores = probabilities(model, self.valid.images, self.settings)
        auc = metrics.classification_metrics(self.valid.labels, scores, THRESHOLD)["auc"]
        if auc > float(self.tensors["auc"]):
            for name, value in model.state_dict().items():
                self.tensors[f"best.{name}"].copy_(value)
            self.tensors["auc"].fill_(auc)
            self.tensors["epoch"].fill_(epoch)
        return {"valid_auc": auc}

    def choose(self, epochs: int) -> int:
        """Put the chosen weights into the model; returns the epoch they come from (the last, or the best)."""
        if self.settings.model_choice == "last":
            return epochs
        best = {name.removeprefix("best."): value for name, value in self.tensors.items() if name.startswith("best.")}
        self.modules["classifier"].load_state_dict(best)
        return int(self.tensors["epoch"])


@torch.no_grad()
def _forward(
    model: torch.nn.Module, images: np.ndarray | torch.Tensor, settings: Settings, features: bool
) -> np.ndarray:
    device, form, scale = next(model.parameters()).device, formats.chosen(settings), own_scale(model)
    model.eval().to(memory_format=form.memory)
    parts = []
    images = prepare(images, settings.image_size)
    for start in range(0, len(images), 256):
        x = images[start : start + 256].to(device).float() / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=form.precision == "bf16"):
            maps = model.forward_features(normalise(x, scale, form.memory))
        # the head in float32: bfloat16 logits would tie neighbouring patches and blur the AUC
        out = model.forward_head(maps.float(), pre_logits=features)
        parts.append(out.float().cpu() if features else out.float().squeeze(1).sigmoid().cpu())
    return torch.cat(parts).numpy()


def probabilities(model: torch.nn.Module, images: np.ndarray | torch.Tensor, settings: Settings) -> np.ndarray:
    """P(tumour), float32 (N,), for images uint8 (N, 96, 96, 3), or as `prepare` returns them."""
    return _forward(model, images, settings, features=False)


def penultimate(model: torch.nn.Module, images: np.ndarray, settings: Settings) -> np.ndarray:
    """Globally pooled features before the last layer, float32 (N, D), for images uint8 (N, 96, 96, 3)."""
    return _forward(model, images, settings, features=True)


def train(
    settings: Settings,
    train: Arrays,
    valid: Arrays,
    *,
    folder: Path,
    seed: int,
    augment: str = "traditional",
    epochs: int | None = None,
    start: Path | None = None,
    identity: object = None,
) -> tuple[torch.nn.Module, int, list[dict[str, float]]]:
    """Train one classifier and keep its chosen weights in folder/weights.safetensors.

    start
        weights.safetensors of another classifier to fine-tune (transfer learning); None: as `settings.weights` says.

    Returns (model in eval mode, epoch chosen, log). Resumes, like everything trained by `training.fit`.
    """
    epochs = epochs or settings.epochs
    torch.manual_seed(training.derive(seed, "classifier", "init"))  # every arm of a subset starts from the same weights
    model = build(settings)
    if start is not None:
        with loading_weights(start, "remove it and run its notebook again"):
            model.load_state_dict(load_file(start))
    task = ClassifierTask(settings, model, train, valid, augment=augment)
    # synthetic patches and weights to start from are inputs: made anew, they belong to another training
    given = [digest(np.ascontiguousarray(a).data) for a in train] + [start and digest(start.read_bytes())]
    log = training.fit(
        task,
        folder=folder,
        n=len(train.labels),
        epochs=epochs,
        batch_size=settings.batch_size,
        seed=seed,
        precision=formats.chosen(settings).precision,
        identity=[settings.training, identity, augment, given],
    )
    chosen = task.choose(epochs)
    if task.accelerator.is_main_process:
        with atomic(folder / "weights.safetensors") as tmp_path:
            save_file({k: v.cpu().contiguous() for k, v in task.modules["classifier"].state_dict().items()}, tmp_path)
    return task.modules["classifier"], chosen, log


def load(path: Path, settings: Settings) -> torch.nn.Module:
    """A classifier of this profile from its weights.safetensors, eval mode, on the study's device."""
    model = build(settings.model_copy(update={"weights": "none"}))
    with loading_weights(path, "remove it and run its notebook again"):
        model.load_state_dict(load_file(path))
    return model.to(training.accelerator("fp32").device).eval()
