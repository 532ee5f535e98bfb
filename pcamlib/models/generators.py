"""The one list of generators: what each is called, how it looks in figures, how it is trained and how it makes patches.

To add a generator, write a module with a training and a sampling function and add one entry to REGISTRY; the book's
page "Add a generator" does it with `flow`. A profile's key `generators` says which of them a study uses. It may also
name a folder of images made elsewhere, `{name: mine, images: FOLDER}`, which then is a generator like the others.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from pcamlib.core import paper
from pcamlib.core.errors import StudyError
from pcamlib.core.generator_list import ImagesSettings
from pcamlib.core.settings import POOLED, Profile
from pcamlib.models.image_folder import ImageFolder
from pcamlib.study import REAL, Study

Log = list[dict[str, float]]
SPARE_COLOURS = ("#A500FF", "#3C0000", "#FF5AFF")  # of images made elsewhere, in turn


class Sampler(Protocol):
    """Maps labels (B,) of 0 and 1 to patches uint8 (B, 96, 96, 3). The same labels and seed give the same patches."""

    def __call__(self, labels: np.ndarray, seed: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Entry:
    """A generator of the registry.

    name
        What profiles, files and parameters call it: lower-case letters, digits and underscores.
    colour
        Of its lines and bars in figures. Colours suit colour-blind readers and differ in lightness. What readers call
        it, its `label`, is in `paper.GENERATOR_NAMES` or `paper.OWN_NAMES`, which titles of arms need too.
    after
        The executed notebook that must be finished before `sampler` is called. None: nothing has to run before.
    train
        Trains it for one subset, or resumes; returns the log, a dict per epoch.
    sampler
        The generator of one subset. If no notebook trains it, this does; else StudyError if it has not been trained.
    section
        The profile's section with its settings. None: it has none.
    options
        What its sampler takes beside labels and seed, for trials of settings (`pcamlib tune`).
    """

    name: str
    colour: str
    after: str | None
    train: Callable[[Study], Log]
    sampler: Callable[[Study], Sampler | ImageFolder]
    section: str | None = None
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What readers call it."""
        return label(self.name)


# the modules of models are imported when they are needed: diffusers alone takes seconds


def _train_diffusion(study: Study, backbone: str) -> Log:
    from pcamlib.models import diffusion

    return diffusion.train(study, backbone)[1]


def _diffusion(study: Study, backbone: str) -> Sampler:
    from pcamlib.models import diffusion

    return diffusion.load(study, backbone).sample


def _train_histogan(study: Study) -> Log:
    from pcamlib.models import histogan

    return histogan.train(study, folder=study.folder / "histogan")[1]


def _histogan(study: Study) -> Sampler:
    from pcamlib.models import histogan

    return partial(histogan.sample, histogan.load(study.folder / "histogan"))


def _train_flow(study: Study) -> Log:
    from pcamlib.models import flow

    return flow.train(study)[1]


def _flow(study: Study) -> Sampler:
    from pcamlib.models import flow

    return flow.train(study)[0].sample


def _train_pooled(study: Study) -> Log:
    from pcamlib.models import pooled

    return pooled.train(study)[1]


def _pooled(study: Study) -> Sampler:
    from pcamlib.models import pooled

    return pooled.train(study)[0].sample


DENOISING = ("sampler", "steps", "guidance")
REGISTRY = {
    entry.name: entry
    for entry in (
        Entry("histogan", "#E69F00", "04_histogan", _train_histogan, _histogan, "histogan"),
        Entry(
            "unet", "#A83279", "03_diffusion_unet",
            partial(_train_diffusion, backbone="unet"), partial(_diffusion, backbone="unet"), "diffusion", DENOISING,
        ),
        Entry(
            "dit", "#3B1F78", "03_diffusion_dit",
            partial(_train_diffusion, backbone="dit"), partial(_diffusion, backbone="dit"), "diffusion", DENOISING,
        ),
        Entry(
            "flow", "#B40000", "02_autoencoder", _train_flow, _flow,
            "diffusion", ("steps", "guidance"),
        ),
        Entry(POOLED, "#78964B", None, _train_pooled, _pooled, "diffusion", DENOISING),
    )
}  # fmt: skip
NAMES = tuple(REGISTRY)


def listed(profile: Profile) -> dict[str, Entry]:
    """The generators of a profile by name, in its order. StudyError for a name that is neither registered nor a
    folder."""
    found, spare = {}, colours(profile.generator_names)
    for item in profile.generators:
        if isinstance(item, ImagesSettings):
            if item.name in REGISTRY:
                raise StudyError(
                    f"profile {profile.name!r}: {item.name!r} is a generator's name: call the images otherwise."
                )
            found[item.name] = Entry(
                item.name,
                spare[item.name],
                None,
                lambda study: [],
                partial(ImageFolder.of, folder=item.images),
            )
        elif item in REGISTRY:
            found[item] = REGISTRY[item]
        else:
            near = difflib.get_close_matches(item, REGISTRY, n=1, cutoff=0)[0]
            raise StudyError(
                f"profile {profile.name!r}: generator {item!r} is unknown: did you mean {near!r}? Images made elsewhere"
                f" are listed as {{name: {item}, images: FOLDER}}."
            )
    return found


def find(study: Study, name: str) -> Entry:
    """The generator `name` of a study. StudyError if its profile does not list it."""
    found = listed(study.profile)
    if name not in found:
        raise StudyError(
            f"generator {name!r} is not in profile {study.profile.name!r}: it is one of {', '.join(found)}."
        )
    return found[name]


def label(name: str) -> str:
    """What readers call a generator, or REAL; images made elsewhere are called by their own name."""
    return "real patches only" if name == REAL else paper.generator_name(name)


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each generator: a registered one has the same everywhere, others take spare colours in turn."""
    spare = itertools.cycle(SPARE_COLOURS)
    return {name: REGISTRY[name].colour if name in REGISTRY else next(spare) for name in names}
