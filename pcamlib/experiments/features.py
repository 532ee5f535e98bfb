"""Feature extractors by name: uint8 patches in, float32 features out, never floats in: their range would be a guess.

Each extractor's `about` says which weights, which size, which normalisation and which layer. Two roles that must not
meet: the *gatekeeper* is the subset's own classifier and decides which samples pass (§3.3). Quality is judged in other
spaces, the same for every subset and generator: Inception-V3 when its weights are given, else a *judge* of another
architecture with ImageNet weights; and a VGG16 with random weights, which has learned nothing from anybody (Naeem et
al. 2020).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

from pcamlib import training
from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json, resolve
from pcamlib.core.sections import ProbeSettings
from pcamlib.data import SIDE, load
from pcamlib.models import classifier, regression
from pcamlib.models.weights import package_file
from pcamlib.study import Study

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_CACHE = "weights-inception-2015-12-05-6726825d.pth"
GATEKEEPER_ARM = "traditional"
JUDGE_SEED = 4711


def _input(size: int, scale: classifier.Scale = classifier.IMAGENET) -> str:
    """What `classifier.prepare` and `classifier.normalise` do to a patch, in words."""
    pixels = f"area-averaged to {size} px" if size < SIDE else f"{SIDE} px"
    return f"{pixels}, {_scaled(scale)}"


def _scaled(scale: classifier.Scale) -> str:
    if tuple(map(tuple, scale)) == classifier.IMAGENET:
        return "ImageNet mean and sd"
    return "mean and sd " + " and ".join(", ".join(f"{v:g}" for v in dict.fromkeys(values)) for values in scale)


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A named feature space. Calling it maps uint8 (N, 96, 96, 3) to float32 (N, D); `about` says what it is."""

    name: str
    about: str
    function: Callable[[np.ndarray], np.ndarray]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features float32 (N, D). Raises ValueError for anything but uint8 images."""
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
            raise ValueError(f"{self.name}: images must be uint8 (N, 96, 96, 3), got {images.dtype} {images.shape}")
        return self.function(images)


def gatekeeper(study: Study) -> Extractor:
    """Pooled features of the subset's classifier, arm "traditional", its chosen epoch.

    The paper says only "a ResNet18 trained with the real data" (§3.3). Of its two, the augmented one: features that
    turn with the patch would measure orientation. The epoch is the one this arm is tested with, so that gatekeeper and
    classifier are one network. The layer is the pooled one before the logit, as for precision and recall in
    Kynkäänniemi et al. (2019). StudyError if notebook 07 has not run with generator "real".
    """
    path = study.need(
        study.folder / "classifiers" / GATEKEEPER_ARM / "weights.safetensors", "07_classification.md (generator real)"
    )
    settings = study.profile.classifier
    model = classifier.load(path, settings)
    epoch = read_json(path.parent / "result.json")["chosen_epoch"]
    about = (
        f"{settings.architecture} of arm '{GATEKEEPER_ARM}', subset {study.subset}, epoch {epoch};"
        f" {_input(settings.image_size, classifier.own_scale(model))}; pooled layer before the logit,"
        f" {model.num_features}-d"
    )
    name = f"gatekeeper-{settings.architecture}"
    return Extractor(name, about, lambda images: classifier.penultimate(model, images, settings))


class Judge(NamedTuple):
    """The study's judge: its feature space, and its own verdict P(tumour), float64 (N,), on uint8 patches."""

    extractor: Extractor
    predict: Callable[[np.ndarray], np.ndarray]


def judge(study: Study) -> Judge:
    """The study's judge: a frozen network, and a logistic regression on its features that knows the labels.

    The regression is fitted to the judge's rows of the train split (outside every subset), with its strength chosen on
    validation; where no rows are left it is fitted to the validation split, which its `about` says.
    """
    chosen = study.profile.quality.judge
    space = frozen(chosen.architecture, chosen.weights, chosen.image_size, "quality.judge")
    extractor = Extractor(f"judge-{chosen.architecture}", space.about, _remembering(space))

    @functools.cache
    def verdict() -> tuple[regression.Standard, regression.Regression]:
        valid = study.split("valid")
        rows = study.judge_rows
        train = load(study.data_root, "train", rows) if len(rows) else valid
        seen = extractor(train.images)
        scale = regression.standard(seen)
        check = extractor(valid.images) if len(rows) else seen
        return scale, regression.choose((scale(seen), train.labels), (scale(check), valid.labels))

    def predict(images: np.ndarray) -> np.ndarray:
        scale, fitted = verdict()
        return fitted(scale(extractor(images)))

    return Judge(extractor, predict)


def _remembering(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """`function`, keeping its last answer: the judge is asked for its features and its verdict on the same patches."""
    last: dict[str, np.ndarray] = {}

    def call(images: np.ndarray) -> np.ndarray:
        key = hashlib.sha256(np.ascontiguousarray(images)).hexdigest()
        if key not in last:
            found = function(images)
            last.clear()
            last[key] = found
        return last[key]

    return call


def probed(settings: ProbeSettings) -> Extractor:
    """The feature space of the probes."""
    s = settings
    return frozen(s.architecture, s.weights, s.image_size, "probe", layers=s.layers)


def frozen(
    architecture: str,
    weights: str,
    size: int | None,
    section: str,
    seed: int = JUDGE_SEED,
    layers: Sequence[int] | None = None,
) -> Extractor:
    """Pooled features of any timm model with weights as the profile's `section` gives them, at its own normalisation.

    size: pixels of the input, antialiased bicubic from 96; None: the size of the network's own pretraining. weights:
    see `classifier.network`; "none" draws them from `seed`. layers: None for the pooled features before the network's
    head, else the mean and standard deviation over positions of the feature maps at these places of timm's
    `forward_intermediates`. StudyError if the model or its weights cannot be had, or a layer is not there.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = classifier.network(architecture, weights, size, section)
    size = size or model.pretrained_cfg["input_size"][-1]
    device, scale = training.accelerator("fp32").device, classifier.own_scale(model)
    model = model.eval().to(device, memory_format=torch.channels_last)
    pooled, what = _pooled(model, layers, f"{section}.layers")

    @torch.no_grad()
    def extract(images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), 64):
            x = torch.from_numpy(images[start : start + 64]).permute(0, 3, 1, 2).to(device).float() / 255
            if size != SIDE:
                x = F.interpolate(x, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
            parts.append(pooled(classifier.normalise(x, scale)).float().cpu())
        return torch.cat(parts).numpy()

    about = (
        f"{architecture}, {_origin(architecture, weights, seed)}; "
        f"{f'bicubic to {size} px' if size != SIDE else f'{SIDE} px'}, {_scaled(scale)}; {what}"
    )
    return Extractor(f"timm-{architecture}", about, extract)


def _pooled(
    model: torch.nn.Module, layers: Sequence[int] | None, parameter: str
) -> tuple[Callable[[torch.Tensor], torch.Tensor], str]:
    """What turns normalised patches into features (N, D), and its name; see `frozen`."""
    if layers is None:
        return (
            lambda x: model.forward_head(model.forward_features(x), pre_logits=True),
            f"pooled, {model.num_features}-d",
        )
    # some networks give only the last map of each resolution unless they are asked for all
    every = (
        {"extra_blocks": True} if "extra_blocks" in inspect.signature(model.forward_intermediates).parameters else {}
    )

    def statistics(x: torch.Tensor) -> torch.Tensor:
        maps = model.forward_intermediates(x, indices=list(layers), stop_early=True, intermediates_only=True, **every)
        return torch.cat([moment for m in maps for moment in (m.mean((2, 3)), m.std((2, 3)))], 1)

    size = model.pretrained_cfg["input_size"]
    try:
        with torch.no_grad():
            width = statistics(torch.zeros(1, *size, device=next(model.parameters()).device)).shape[1]
    except (AssertionError, IndexError, ValueError):
        raise StudyError(
            f"{parameter}: {list(layers)} are not all layers of {model.default_cfg['architecture']}."
        ) from None
    return statistics, f"mean and sd of maps {', '.join(map(str, layers))}, {width}-d"


def _origin(architecture: str, weights: str, seed: int) -> str:
    """Where a network's weights come from, in words."""
    if weights == "none":
        return f"random weights (seed {seed})"
    if weights == "imagenet":
        return "timm's ImageNet weights"
    path = package_file(architecture) if weights == "package" else resolve(weights)
    return f"weights {path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def random_vgg16() -> Extractor:
    """Globally pooled last convolutional layer (512-d) of torchvision's VGG16 with fixed random weights, at 48 px.

    Normalised as ImageNet is, halved by area averaging: the full size costs four times as much on a CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(JUDGE_SEED)
        model = torchvision.models.vgg16(weights=None).features
    device = training.accelerator("fp32").device
    model = model.eval().to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def extract(images: np.ndarray) -> np.ndarray:
        x = classifier.prepare(images, 48)
        parts = [model(classifier.normalise(part.to(device).float() / 255)).mean((2, 3)).cpu() for part in x.split(64)]
        return torch.cat(parts).numpy()

    about = f"VGG16 with random weights (seed {JUDGE_SEED}); {_input(48)}; last convolution, averaged, 512-d"
    return Extractor("vgg16-random", about, extract)


def inception_file(weights: str) -> Path:
    """Path of the FID Inception weights, given as a path or as "cache" (their place in torch hub's cache).

    Raises StudyError if the file is missing or is not the published one (SHA-256).
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_CACHE if weights == "cache" else resolve(weights)
    if not path.is_file():
        raise StudyError(
            f"quality.inception: weights file {path} does not exist: get {INCEPTION_CACHE} from torch-fidelity's"
            " releases, or set quality.inception to null to use the judge."
        )
    # torch-fidelity unpickles the file: only the published bytes may reach it
    if hashlib.sha256(path.read_bytes()).hexdigest() != INCEPTION_SHA256:
        raise StudyError(
            f"quality.inception: {path} is not the published file (its SHA-256 differs): get {INCEPTION_CACHE} again."
        )
    return path


def inception(weights: str) -> Extractor:
    """The Inception-V3 of FID (Heusel et al. 2017) through torch-fidelity: 2048-d pool features.

    weights: see `inception_file`. torch-fidelity resizes uint8 images to 299x299 with TensorFlow's bilinear rule
    itself.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = inception_file(weights)
    device = training.accelerator("fp32").device
    model = (
        FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
        .eval()
        .to(device)
    )

    @torch.no_grad()
    def extract(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        return torch.cat([model(part.to(device))[0].cpu() for part in x.split(64)]).numpy()

    about = (
        f"Inception-V3 of FID, weights SHA-256 {INCEPTION_SHA256[:16]}; bilinear to 299 px as in TensorFlow, "
        "scaled to -1..1; pooled, 2048-d"
    )
    return Extractor("inception-v3", about, extract)


def first_space(study: Study, own: Judge | None = None) -> Extractor:
    """The feature space of the main tables: Inception-V3 if the profile names its weights, else the study's judge.

    own: the judge, if it is loaded already.
    """
    weights = study.profile.quality.inception
    return inception(weights) if weights else (own or judge(study)).extractor


def judges(study: Study, own: Judge | None = None) -> list[Extractor]:
    """All spaces in which quality is measured: `first_space`, the random VGG16, then the profile's timm models.

    own: the judge, if it is loaded already. StudyError if weights that the profile asks for are missing.
    """
    others = (frozen(space.architecture, space.weights, None, "quality.timm") for space in study.profile.quality.timm)
    return [first_space(study, own), random_vgg16(), *others]
