"""Profiles: named scales of the same study, one YAML file each, validated before anything runs."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from pcamlib.core import paper, strict_yaml
from pcamlib.core.errors import StudyError
from pcamlib.core.files import digest, resolve
from pcamlib.core.generator_list import ImagesSettings, check

FOLDER = Path(__file__).parents[1] / "profiles"

Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Widths = Annotated[list[Positive], Field(min_length=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["auto", "fp32", "bf16"]


@functools.cache
def number_format(precision: str) -> str:
    """The format a stage computes in, "fp32" or "bf16", for the precision of its profile.

    "auto" is bf16 where the device has instructions for it and fp32 where it would be emulated: a processor without
    them trains seven times slower in bf16. Results differ between the two; every result names its format.
    """
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    known = torch.cpu.get_capabilities()
    return "bf16" if any(known.get(name) for name in ("avx512_bf16", "amx_bf16")) else "fp32"


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
    """Latent diffusion (§3.2), the same recipe for both denoisers."""

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

    @model_validator(mode="after")
    def _guidance_needs_a_null_class(self) -> DiffusionSettings:
        if self.guidance != 1 and self.label_dropout == 0:
            raise ValueError("guidance other than 1 needs label_dropout above 0, or no null class is learned")
        return self


class HistoGANSettings(Section):
    """Class-conditional GAN of Krause et al. 2021, adapted to 96x96.

    `variant`: "stabilised", adjusted so that short training works, or "published", the recipe of the authors' source, which
    averages no weights and may flip half of the real labels.
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
    or the path of a weights file. `precision` "auto" is measured for each network and device. Arms whose name matches a pattern of `seeded` (``"*"`` is all of them, ``"transfer-unet-*"`` some) are trained with
    `seeds` seeds, the others with one.
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

    @property
    def training(self) -> dict[str, Any]:
        """What decides one training; how many there are does not."""
        return self.model_dump(exclude={"seeds", "seeded"})


class ProbeSettings(Section):
    """The frozen network whose features the probes use; `weights` as in the classifier's section.

    Patches are enlarged to `image_size` pixels: networks trained at 224 see more in them then. `layers`: see
    `features.frozen`; null for the pooled features before the network's head.
    """

    architecture: str
    weights: str
    image_size: Annotated[int, Field(ge=32)]
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None


class SelectionSettings(Section):
    """Realism selection (§3.3). At most `candidates` times the real count is generated per class."""

    k: Positive = 3
    prune: bool = False
    candidates: Annotated[float, Field(ge=1)]


class JudgeSettings(Section):
    """The network whose features measure quality when Inception is not used; never seen by selection.

    `weights` as in the classifier's section. Its verdict on labels is a logistic regression on these features, fitted to
    `size` train patches outside every subset.
    """

    architecture: str
    weights: str
    image_size: Annotated[int, Field(ge=32)] = 96
    size: Positive


class TimmSpace(Section):
    """One more space to judge quality in: any timm model, its pooled features. `weights` is "imagenet" or a file's path."""

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


class Profile(Section):
    """Every setting of a study at one scale: the data, the subsets, each model, how images are selected and judged.

    `budget` tells a reader who needs this profile and how long it runs; it changes nothing. `threads` is the number of
    processor threads of one notebook run. With `orientations` 8 the generators see every patch in its eight rotations
    and reflections, with 1 as it is. `generators` lists names of pcamlib.models.generators, or folders of images.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # becomes part of the run folder's name
    budget: str
    seed: Seed
    threads: Positive
    orientations: Literal[1, 8]
    phantom: PhantomSettings
    subsets: SubsetsSettings
    autoencoder: AutoencoderSettings
    diffusion: DiffusionSettings
    histogan: HistoGANSettings
    classifier: ClassifierSettings
    probe: ProbeSettings
    selection: SelectionSettings
    quality: QualitySettings
    generators: Annotated[list[str | ImagesSettings], Field(min_length=1)] = list(paper.GENERATORS)

    _usable = field_validator("generators", mode="before")(check)

    @property
    def generator_names(self) -> list[str]:
        """The generators by name, in the profile's order."""
        return [item if isinstance(item, str) else item.name for item in self.generators]

    @model_validator(mode="after")
    def _the_judge_is_not_the_gatekeeper(self) -> Profile:
        judge = self.quality.judge.architecture
        if judge == self.classifier.architecture:
            raise ValueError(f"quality.judge.architecture must not be the classifier's, {judge}, which selects images")
        return self

    @model_validator(mode="after")
    def _some_arm_matches(self) -> Profile:
        regimes = dict.fromkeys(["synthetic", *(row.regime for row in paper.TABLE_2 if row.generator)])
        names = [row.regime for row in paper.TABLE_2 if not row.generator] + [*paper.CONTROLS, *paper.STRONG]
        names += [f"{r}-{g}-{s}" for r in regimes for g in self.generator_names for s in paper.SELECTIONS]
        for pattern in self.classifier.seeded:
            if not fnmatch.filter(names, pattern):
                near = difflib.get_close_matches(pattern, names, n=1, cutoff=0)[0]
                raise ValueError(f"classifier.seeded: no arm is called {pattern!r}: did you mean {near!r}?")
        return self

    @property
    def sha(self) -> str:
        """Hash of every setting that can change a result. A setting that came later is left out while it has its default."""
        seeds: set[str] = {"seeds", "seeded"} if self.classifier.seeds == 1 else set()
        variant: set[str] = {"variant"} if self.histogan.variant == "stabilised" else set()
        by: set[str] = {"by"} if self.subsets.by == "patch" else set()
        late: dict[str, Any] = {"generators": True} if self.generators == list(paper.GENERATORS) else {}
        late |= {"probe": {"layers"}} if self.probe.layers is None else {}
        return digest(
            self.model_dump(exclude={"budget": True, "classifier": seeds, "histogan": variant, "subsets": by} | late)
        )


def profile_names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(p.stem for p in FOLDER.glob("*.yml"))


def resolve_parameter(name: str, path: str) -> Path:
    """Absolute path for the parameter `name`: relative to the project's root, symbolic links resolved.

    Raises StudyError if `path` is not text, or not a name that the file system accepts.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(path := os.fspath(path), str):
        raise StudyError(f"{name} must be text, got {path!r}: put it in quotes (papermill: -r {name} {path}).")
    try:
        found = resolve(path).resolve()
        found.exists()  # raises for a name that no file system takes
        return found
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyError(f"{name} {path[:60]!r} is no path ({reason}): give another.") from None


def load_profile(profile: str) -> Profile:
    """Load a profile by name ("demo") or from a YAML file's path ("mine.yml").

    Raises StudyError naming the file, the key and, for an unknown key, the nearest known one.
    """
    if not isinstance(profile, str):
        raise StudyError(f"profile must be text, a name or the path of a YAML file, got {profile!r}: put it in quotes.")
    if profile.endswith((".yml", ".yaml")):
        path = resolve_parameter("profile", profile)
        if not path.is_file():
            raise StudyError(
                f"profile file {path} does not exist: give a name ({', '.join(profile_names())}) or a file."
            )
    else:
        path = FOLDER / f"{profile}.yml"
        if profile not in profile_names():
            near = difflib.get_close_matches(profile, profile_names(), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise StudyError(
                f"profile {profile[:60]!r} is unknown: {hint}known are {', '.join(profile_names())}, or a .yml file."
            )
    content = strict_yaml.load(path)
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path}: {_explain(error.errors()[0])}") from None


def _explain(error: dict) -> str:
    """One sentence for pydantic's first complaint, with the nearest key for an unknown one."""
    where = ".".join(str(part) for part in error["loc"]) or "the profile"
    if error["type"] == "missing":
        return f"the key '{where}' is missing: add it (the other profiles show it)."
    if error["type"] == "extra_forbidden":
        section: Any = Profile
        for part in error["loc"][:-1]:
            # the item of a list is known by its number
            section = get_args(section)[0] if isinstance(part, int) else section.model_fields[part].annotation
        near = difflib.get_close_matches(str(error["loc"][-1]), list(section.model_fields), n=1, cutoff=0)
        return f"the key '{where}' is unknown: did you mean '{near[0]}'?"
    message = error["msg"].removeprefix("Value error, ")
    value = "" if isinstance(error["input"], dict) else f" is {error['input']!r}"[:80]
    return f"'{where}'{value}: {message[0].lower()}{message[1:]}."
