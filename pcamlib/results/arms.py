"""The arms of a study: every way in which a classifier is trained, and every set of images that is judged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pcamlib.core import paper

if TYPE_CHECKING:
    import pandas as pd


class Arm(NamedTuple):
    """One arm of the comparison.

    `regime`: how the classifier is trained, or "quality", "memorisation", "selection" or "training" for numbers about
    images and generators. `generator` and `selection`: where synthetic images come from, None without any. `seed`: the
    seed of the classifier; comparisons average over seeds and name an arm by seed 0.
    """

    regime: str
    generator: str | None = None
    selection: str | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """Regime, generator and selection, for example "transfer-unet-realism"; the same for all seeds."""
        return "-".join(filter(None, (self.regime, self.generator, self.selection)))

    @property
    def id(self) -> str:
        """Folder name: the arm's name, with the seed if it is not the first."""
        return self.name + (f"-seed{self.seed}" if self.seed else "")

    @property
    def control(self) -> bool:
        """Whether the arm is a control of ours and not an arm of the paper."""
        return self.generator is None and self.regime not in ("baseline", "traditional", "known-labels")

    @property
    def source(self) -> Arm | None:
        """The arm of the same seed whose weights this one starts from, for the two transfer regimes."""
        regime = {"transfer": "synthetic", "transfer-real": "traditional"}.get(self.regime)
        return self._replace(regime=regime) if regime else None

    @property
    def title(self) -> str:
        """The arm's name for readers, for example "U-Net transfer (realism)"."""
        if self.generator is None:
            return paper.REGIME_NAMES[self.regime]
        name = f"{paper.generator_name(self.generator)} {paper.REGIME_NAMES[self.regime]}"
        return f"{name} ({paper.SELECTION_NAMES[self.selection]})"


BASELINE, TRADITIONAL = Arm("baseline"), Arm("traditional")
TWICE, AGAIN = Arm("traditional-2x"), Arm("transfer-real")
"""The two step controls: real images only, with as many steps as the arms that use synthetic images with them."""
SHUFFLED = "shuffled-labels"
PLANTED = ("planted-5", "planted-10", "planted-20")
"""Image sets of the memorisation test: real patches with this percentage of planted copies. Older results lack them."""
NO_NETWORK = (*paper.TRIVIAL, SHUFFLED)
"""Regimes that train no network: regressions on fixed features, the same for every measuring device."""
CONTROLS, PSEUDO = (tuple(Arm(regime) for regime in regimes) for regimes in (paper.CONTROLS, paper.PSEUDO))
STRONG, TRIVIAL = ([Arm(regime) for regime in regimes] for regimes in (paper.STRONG, NO_NETWORK))
MIXED = ("augmentation", "transfer")
"""Regimes that use synthetic images together with real ones."""


def image_sets(generators: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(generator, selection) of all synthetic sets of these generators, in the order of Table 1."""
    generators = tuple(generators)
    return tuple((generator, selection) for selection in paper.SELECTIONS for generator in generators)


def judged(generators: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
    """All image sets that are judged: the synthetic ones and the two calibration sets."""
    return (*image_sets(generators), ("real", None), ("autoencoder", None))


def classifiers(generators: Iterable[str]) -> tuple[Arm, ...]:
    """All classifiers: those of Table 2 in its order, with other generators in their sections, of Figure 6, controls,
    and what else is ours."""
    images = image_sets(generators)
    found = [Arm(row.regime, row.generator, row.selection) for row in paper.TABLE_2]
    for regime in MIXED:
        for generator, selection in images:
            if Arm(regime, generator, selection) not in found:
                alike = [i for i, arm in enumerate(found) if (arm.regime, arm.selection) == (regime, selection)]
                found.insert(alike[-1] + 1, Arm(regime, generator, selection))
    return (*found, *(Arm("synthetic", *pair) for pair in images), *CONTROLS, *PSEUDO, *STRONG, *TRIVIAL)


def generators_of(results: pd.DataFrame) -> list[str]:
    """The paper's generators, then the other ones that a frame of results has."""
    known = ("real", "autoencoder", *PLANTED)
    others = [name for name in results["generator"].dropna().unique() if name not in known]
    return list(dict.fromkeys([*paper.GENERATORS, *others]))


IMAGE_SETS, JUDGED, ARMS = (of(paper.GENERATORS) for of in (image_sets, judged, classifiers))
"""Those of the paper's three generators: nine synthetic sets, eleven judged ones, 29 classifiers and those of ours."""
PROBED = (BASELINE, TRADITIONAL, *CONTROLS, *PSEUDO)
"""The arms on real images that are measured by linear probes; those of `PSEUDO` by nothing else."""


def of_source(generator: str | None) -> list[Arm]:
    """The fine-tuned arms of one generator in the order of training (those that start from weights come later); None:
    real images."""
    if generator is None:
        return [BASELINE, TRADITIONAL, *CONTROLS, *STRONG, *TRIVIAL]
    return [Arm(r, generator, s) for s in paper.SELECTIONS for r in ("synthetic", "transfer", "augmentation")]
