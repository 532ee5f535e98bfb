"""Profiles: named scales of the same study, one YAML file each, validated before anything runs."""

from __future__ import annotations

import difflib
import fnmatch
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from pcamlib.core import paper, strict_yaml
from pcamlib.core.errors import StudyError
from pcamlib.core.files import digest, resolve
from pcamlib.core.generator_list import ImagesSettings, check
from pcamlib.core.sections import (
    AutoencoderSettings,
    ClassifierSettings,
    CurvesSettings,
    DiffusionSettings,
    HistoGANSettings,
    PhantomSettings,
    PoolSettings,
    Positive,
    ProbeSettings,
    QualitySettings,
    Section,
    Seed,
    SelectionSettings,
    SubsetsSettings,
    complaint,
)

POOLED = "unet_pool"  # the generator of regime B, see `models.pooled`
FOLDER = Path(__file__).parents[1] / "profiles"


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
    curves: CurvesSettings | None = None
    pool: PoolSettings | None = None
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
    def _a_pool_for_what_learns_from_it(self) -> Profile:
        if POOLED in self.generator_names and self.pool is None:
            raise ValueError(f"generator {POOLED} needs a section pool: add pool: {{autoencoder_epochs: N, epochs: N}}")
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

    @model_validator(mode="after")
    def _subsets_exist(self) -> Profile:
        beyond = [k for k in self.classifier.subsets or [] if k >= self.subsets.count]
        if beyond:
            raise ValueError(f"classifier.subsets names subset {beyond[0]}, but subsets.count is {self.subsets.count}")
        return self

    @property
    def sha(self) -> str:
        """Hash of every setting that can change a result. A setting that came later is left out while it has its
        default."""
        seeds: set[str] = {"seeds", "seeded"} if self.classifier.seeds == 1 else set()
        seeds |= {"subsets"} if self.classifier.subsets is None else set()
        variant: set[str] = {"variant"} if self.histogan.variant == "stabilised" else set()
        by: set[str] = {"by"} if self.subsets.by == "patch" else set()
        late: dict[str, Any] = {"generators": True} if self.generators == list(paper.GENERATORS) else {}
        late |= {"diffusion": {"sampling_precision"}} if self.diffusion.sampling_precision == "fp32" else {}
        late |= {"probe": {"layers"}} if self.probe.layers is None else {}
        late |= {name: True for name in ("curves", "pool") if getattr(self, name) is None}
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
        raise StudyError(f"{path}: {complaint(error, Profile, 'the other profiles show it')}") from None
