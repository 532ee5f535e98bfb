"""The sections of a profile: their keys, types and ranges."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Widths = Annotated[list[Positive], Field(min_length=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["auto", "fp32", "bf16"]


class Section(BaseModel):
    """A part of a profile: unknown keys are errors, numbers are finite, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_values_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML 1.1 reads yes, no, on and off as truth values, and Python takes those for 1 and 0."""
        values = value if isinstance(value, list) else [value]
        if cls.model_fields[str(info.field_name)].annotation is not bool and any(isinstance(v, bool) for v in values):
            raise ValueError("yes, no, on, off, true and false are truth values; a number or text is due here")
        return value


def complaint(error: ValidationError, model: type[BaseModel], where_shown: str) -> str:
    """One sentence for pydantic's first complaint about a `model`, with the nearest key for an unknown one.

    where_shown: where a reader finds a key that is missing, as a clause.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "missing":
        return f"the key '{where}' is missing: add it ({where_shown})."
    if first["type"] == "extra_forbidden":
        keys = _keys(model)
        for part in first["loc"][:-1]:
            if isinstance(part, str):  # the items of a list have numbers
                keys = _keys(_section(keys[part].annotation))
        near = difflib.get_close_matches(str(first["loc"][-1]), list(keys), n=1, cutoff=0)
        return f"the key '{where}' is unknown: did you mean '{near[0]}'?"
    message = first["msg"].removeprefix("Value error, ")
    value = "" if isinstance(first["input"], dict) else f" is {first['input']!r}"[:80]
    return f"'{where}'{value}: {message[0].lower()}{message[1:]}."


def _keys(section: Any) -> dict[str, Any]:
    """The fields of a model by the key that stands in the file."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _section(annotation: Any) -> Any:
    """The model in an annotation such as ``Model | None`` or ``list[Model]``; None if there is none."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_section, get_args(annotation))), None)


class PhantomSettings(Section):
    """Sizes of the phantom data set made when `data_root` is "phantom"."""

    train: Positive
    valid: Positive
    test: Positive
    seed: Seed = 0


class SubsetsSettings(Section):
    """Disjoint stratified subsets of the train split (§4.1): `size` rows each, or ceil(fraction * N).

    `by` "slide" draws whole slides, so that no slide is in two subsets; the data must say which slide a patch is from.
    """

    count: Positive
    size: Positive | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    seed: Seed = 0
    by: Literal["patch", "slide"] = "patch"


class AutoencoderSettings(Section):
    """VAE (§3.2): diffusers' AutoencoderKL behind a pixel-unshuffle by `patchify`, with or without a PCA shortcut."""

    patchify: Literal[1, 2, 4]
    pca_shortcut: bool
    block_channels: Widths
    layers_per_block: Positive
    latent_channels: Positive
    kl_weight: Rate
    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    precision: Precision = "fp32"


class UNetSettings(Section):
    """U-Net denoiser (diffusers' UNet2DModel), attention at the coarsest level."""

    block_channels: Widths
    layers_per_block: Positive


class DiTSettings(Section):
    """Transformer denoiser (diffusers' DiTTransformer2DModel)."""

    layers: Positive
    heads: Positive
    head_dim: Positive
    patch_size: Positive


class DiffusionSettings(Section):
    """Latent diffusion (§3.2), the same recipe for both denoisers.

    `precision` is that of training, `sampling_precision` that of the trained network when it draws patches.
    """

    unet: UNetSettings
    dit: DiTSettings
    timesteps: Positive = 1000
    label_dropout: Share
    ema_decay: Share
    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    sampler: Literal["ddpm", "dpm-solver++"]
    sampling_steps: Positive
    guidance: Annotated[float, Field(ge=0)]
    precision: Precision = "fp32"
    sampling_precision: Precision = "fp32"

    @model_validator(mode="after")
    def _guidance_needs_a_null_class(self) -> DiffusionSettings:
        if self.guidance != 1 and self.label_dropout == 0:
            raise ValueError("guidance other than 1 needs label_dropout above 0, or no null class is learned")
        return self


class HistoGANSettings(Section):
    """Class-conditional GAN of Krause et al. 2021, adapted to 96x96.

    `variant`: "stabilised", adjusted so that short training works, or "published", the recipe of the authors' source,
    which averages no weights and may flip half of the real labels.
    """

    variant: Literal["stabilised", "published"] = "stabilised"
    noise_dim: Positive = 100
    base_channels: Positive
    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    label_flip: Annotated[float, Field(ge=0, le=0.5)]
    input_dropout: Annotated[float, Field(ge=0, lt=1)]
    ema_decay: Share
    precision: Precision = "fp32"

    @model_validator(mode="after")
    def _what_a_variant_allows(self) -> HistoGANSettings:
        if self.variant == "stabilised" and self.label_flip == 0.5:
            raise ValueError(
                "label_flip of 0.5 tells the stabilised discriminator nothing: give less, or variant published"
            )
        if self.variant == "published" and self.ema_decay:
            raise ValueError("variant published averages no weights: set ema_decay to 0")
        return self


class AugmentationSettings(Section):
    """The paper's four transforms (§4.2); their magnitudes are ours, the paper gives none."""

    rotation: Literal["right-angles", "any", "none"]
    brightness: Share
    contrast: Share
    saturation: Share
    hue: Annotated[float, Field(ge=0, le=0.5)]


class ClassifierSettings(Section):
    """The classifier (§4.2): any timm model, started from `weights`.

    `weights` is "none", "package" (from the registry's weight packages), "imagenet" (timm's, from the hub or its cache)
    or the path of a weights file. `precision` "auto" is measured for each network and device. Arms whose name matches a
    pattern of `seeded` (``"*"`` is all of them, ``"transfer-unet-*"`` some) are trained with `seeds` seeds, the others
    with one. `subsets`: the numbers of the subsets in which all arms are trained, null for every subset; in the others
    only "traditional" is, which selection needs.
    """

    architecture: str
    weights: str
    image_size: Annotated[int, Field(ge=32, le=96)] = 96
    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    momentum: Share = 0.9
    augmentation: AugmentationSettings
    schedule: Literal["constant", "cosine"]
    model_choice: Literal["last", "best-valid-auc"]
    precision: Precision = "fp32"
    seeds: Positive = 1
    seeded: list[str] = ["*"]
    subsets: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None

    @property
    def training(self) -> dict[str, Any]:
        """What decides one training; how many there are does not."""
        return self.model_dump(exclude={"seeds", "seeded", "subsets"})


class ProbeSettings(Section):
    """The frozen network whose features the probes use; `weights` as in the classifier's section.

    Patches are enlarged to `image_size` pixels: networks trained at 224 see more in them then. `layers`: see
    `features.frozen`; null for the pooled features before the network's head.
    """

    architecture: str
    weights: str
    image_size: Annotated[int, Field(ge=32)]
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None


class CurvesSettings(Section):
    """Points of the curves of `experiments.curves`: numbers of real patches, and synthetic patches per real one."""

    sizes: Annotated[tuple[Annotated[int, Field(ge=8)], ...], Field(min_length=1)]
    ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]


class PoolSettings(Section):
    """Regime B: epochs over the patches outside every subset, without labels, before a generator sees a subset.

    All other settings are those of the sections `autoencoder` and `diffusion`.
    """

    autoencoder_epochs: Positive
    epochs: Positive


class SelectionSettings(Section):
    """Realism selection (§3.3). At most `candidates` times the real count is generated per class."""

    k: Positive = 3
    prune: bool = False
    candidates: Annotated[float, Field(ge=1)]


class JudgeSettings(Section):
    """The network whose features measure quality when Inception is not used; never seen by selection.

    `weights` as in the classifier's section. Its verdict on labels is a logistic regression on these features, fitted
    to `size` train patches outside every subset.
    """

    architecture: str
    weights: str
    image_size: Annotated[int, Field(ge=32)] = 96
    size: Positive


class TimmSpace(Section):
    """One more space to judge quality in: any timm model, its pooled features. `weights` is "imagenet" or a file's
    path."""

    architecture: str
    weights: str


class QualitySettings(Section):
    """Image quality (§4.3). `inception`: path of the FID Inception-V3 weights, "cache", or null: then the judge only.

    The random VGG16 always judges beside it; `timm` adds spaces, each with its own table.
    """

    k: Positive = 3
    inception: str | None = None
    judge: JudgeSettings
    timm: list[TimmSpace] = []
