"""The downstream classifier: ResNet18, its augmentation, training and test (§4.2)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from pcamlib import metrics, training
from pcamlib.data import Arrays
from pcamlib.errors import StudyError, weights
from pcamlib.profiles import Augmentation
from pcamlib.profiles import Classifier as Settings
from pcamlib.store import atomic, resolve

ARCHITECTURE = "resnet18.tv_in1k"  # torchvision's weights, those of the paper's time; bare "resnet18" is a newer recipe
THRESHOLD = 0.5
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)  # ImageNet's, as its pretrained weights expect
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def build(pretrained: str, architecture: str = ARCHITECTURE) -> torch.nn.Module:
    """A timm model with one output logit.

    pretrained
        "none": random initialisation from torch's seed; "imagenet": timm's weights from the hub or its cache; else
        the path of a .safetensors or .pth file of timm's or torchvision's ResNet18 weights.

    Raises StudyError if weights are asked for and cannot be had; nothing is put in their place.
    """
    if not timm.is_model(architecture):
        raise StudyError(f"{architecture!r} is not a timm model: correct quality.judge.architecture in the profile.")
    if pretrained in ("none", "imagenet"):
        try:
            return timm.create_model(architecture, pretrained=pretrained == "imagenet", num_classes=1)
        except Exception as error:  # the hub client raises its own, requests' and the system's errors
            raise StudyError(
                f"ImageNet weights {architecture} could not be loaded ({' '.join(str(error).split())[:160]}): set "
                "classifier.pretrained to the path of a weights file, or to 'none' for random initialisation."
            ) from None
    path = resolve(pretrained)
    if not path.is_file():
        raise StudyError(
            f"classifier.pretrained: weights file {path} does not exist; give another path, 'imagenet' or 'none'."
        )
    try:
        found = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        found = {key: value for key, value in found.items() if not key.startswith("fc.")}  # 1000-class head
        model = timm.create_model(architecture, pretrained=False, num_classes=1)
        missing, unexpected = model.load_state_dict(found, strict=False)
    except Exception as error:  # unpickling and shape errors come in many types
        raise StudyError(
            f"classifier.pretrained: {path} does not hold {architecture} weights ({str(error)[:160]})."
        ) from None
    if set(missing) - {"fc.weight", "fc.bias"} or unexpected:
        raise StudyError(f"classifier.pretrained: {path} does not hold {architecture} weights (other layer names).")
    return model


def prepare(images: np.ndarray | torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, 96, 96, 3) -> uint8 (N, 3, size, size), by area averaging if size < 96. What is prepared is returned."""
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


def augment(x: torch.Tensor, settings: Augmentation) -> torch.Tensor:
    """Per image: horizontal flip, vertical flip, rotation, colour jitter (§4.2), drawn from torch's generator.

    x float (B, 3, S, S) in [0, 1]; returns the same. Brightness, contrast, saturation and hue are each an affine map
    of RGB, so the jitter is one 3x3 matrix and one offset per image: torchvision's ranges and formulas for the first
    three (applied in that order, clipped once), hue as a turn of the chroma plane (YIQ) instead of HSV.
    """
    n, device = len(x), x.device
    coin = torch.rand(2, n)
    x = torch.where((coin[0] < 0.5).view(-1, 1, 1, 1).to(device), x.flip(3), x)
    x = torch.where((coin[1] < 0.5).view(-1, 1, 1, 1).to(device), x.flip(2), x)
    if settings.rotation == "right-angles":
        turns = torch.randint(4, (n,)).tolist()
        x = torch.stack([torch.rot90(image, k, (1, 2)) for image, k in zip(x, turns)])
    elif settings.rotation == "any":
        a = (torch.rand(n) * 2 * math.pi).to(device)
        zero = torch.zeros_like(a)
        theta = torch.stack([a.cos(), -a.sin(), zero, a.sin(), a.cos(), zero], 1).view(n, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), False), padding_mode="reflection", align_corners=False)
    matrix, offset = jitter(n, settings, x.mean((2, 3)).cpu())
    x = torch.einsum("nij,njhw->nihw", matrix.to(device), x) + offset.to(device).view(n, 3, 1, 1)
    return x.clamp_(0, 1)


def jitter(n: int, settings: Augmentation, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour jitter of n images as RGB' = M RGB + o: M (n, 3, 3), o (n, 3); `mean` (n, 3) is each image's mean RGB."""
    luma = torch.tensor([0.299, 0.587, 0.114])
    eye = torch.eye(3).expand(n, 3, 3)

    def factor(width: float) -> torch.Tensor:
        return (1 + width * (2 * torch.rand(n) - 1)).view(n, 1, 1)

    b, c, s = factor(settings.brightness), factor(settings.contrast), factor(settings.saturation)
    turn = (settings.hue * (2 * torch.rand(n) - 1) * 2 * math.pi).view(n)
    grey_mean = (b.view(n) * (mean @ luma)).view(n, 1)
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    rotate = torch.zeros(n, 3, 3)
    rotate[:, 0, 0] = 1
    rotate[:, 1, 1] = rotate[:, 2, 2] = turn.cos()
    rotate[:, 2, 1], rotate[:, 1, 2] = turn.sin(), -turn.sin()
    hue = torch.linalg.inv(to_yiq) @ rotate @ to_yiq
    saturation = s * eye + (1 - s) * luma.expand(3, 3)
    matrix = hue @ saturation @ (b * c * eye)
    offset = (hue @ saturation @ ((1 - c).view(n, 1) * grey_mean).expand(n, 3).unsqueeze(2)).squeeze(2)
    return matrix, offset


def normalise(x: torch.Tensor) -> torch.Tensor:
    """float (B, 3, S, S) in [0, 1] -> zero mean and unit variance by ImageNet's statistics, channels last."""
    return ((x - MEAN.to(x)) / STD.to(x)).contiguous(memory_format=torch.channels_last)


class ClassifierTask(training.Task):
    """Binary cross-entropy, SGD with momentum (§4.2); `augmented` turns the paper's four transforms on.

    With model_choice "best-valid-auc" the validation split is scored after every epoch and `tensors` keeps the best
    weights so far; with "last" validation plays no part (the paper is silent).
    """

    def __init__(self, settings: Settings, model: torch.nn.Module, train: Arrays, valid: Arrays, *, augmented: bool):
        super().__init__()
        self.settings, self.augmented, self.valid = settings, augmented, valid
        self.images = prepare(train.images, settings.image_size)
        self.labels = torch.from_numpy(train.labels.astype(np.float32))
        self.modules["classifier"] = model.to(memory_format=torch.channels_last)
        self.optimizers["sgd"] = torch.optim.SGD(
            model.parameters(), lr=settings.learning_rate, momentum=settings.momentum
        )
        if settings.model_choice == "best-valid-auc":
            self.tensors = {f"best.{name}": value.clone() for name, value in model.state_dict().items()}
            self.tensors |= {"auc": torch.tensor(-1.0), "epoch": torch.tensor(0)}

    def step(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        device = self.accelerator.device
        if self.settings.schedule == "cosine":
            for group in self.optimizers["sgd"].param_groups:
                group["lr"] = self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * self.progress))
        x = self.images[rows].to(device).float() / 255
        if self.augmented:
            x = augment(x, self.settings.augmentation)
        logits = self.modules["classifier"](normalise(x)).float().squeeze(1)
        loss = F.binary_cross_entropy_with_logits(logits, self.labels[rows].to(device))
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
    device = next(model.parameters()).device
    model.eval()
    parts = []
    images = prepare(images, settings.image_size)
    for start in range(0, len(images), 256):
        x = images[start : start + 256].to(device).float() / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            maps = model.forward_features(normalise(x))
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
    augmented: bool = True,
    epochs: int | None = None,
    start: Path | None = None,
    architecture: str = ARCHITECTURE,
    identity: object = None,
) -> tuple[torch.nn.Module, int, list[dict[str, float]]]:
    """Train one classifier and keep its chosen weights in folder/weights.safetensors.

    start
        weights.safetensors of another classifier to fine-tune (transfer learning); None: as `settings.pretrained` says.

    Returns (model in eval mode, epoch chosen, log). Resumes, like everything trained by `training.fit`.
    """
    epochs = epochs or settings.epochs
    torch.manual_seed(training.derive(seed, "classifier", "init"))  # every arm of a subset starts from the same weights
    model = build(settings.pretrained if architecture == ARCHITECTURE else "none", architecture)
    if start is not None:
        with weights(start, "remove it and run its notebook again"):
            model.load_state_dict(load_file(start))
    task = ClassifierTask(settings, model, train, valid, augmented=augmented)
    log = training.fit(
        task,
        folder=folder,
        n=len(train.labels),
        epochs=epochs,
        batch_size=settings.batch_size,
        seed=seed,
        precision=settings.precision,
        identity=[settings.model_dump(), identity, augmented, architecture],
    )
    chosen = task.choose(epochs)
    with atomic(folder / "weights.safetensors") as aside:
        save_file({k: v.cpu().contiguous() for k, v in task.modules["classifier"].state_dict().items()}, aside)
    return task.modules["classifier"], chosen, log


def load(path: Path, architecture: str = ARCHITECTURE) -> torch.nn.Module:
    """A classifier from its weights.safetensors, eval mode, on the study's device."""
    model = timm.create_model(architecture, pretrained=False, num_classes=1)
    with weights(path, "remove it and run its notebook again"):
        model.load_state_dict(load_file(path))
    return model.to(training.accelerator("fp32").device, memory_format=torch.channels_last).eval()
