"""The arms of a study: every way in which a classifier is trained, and every set of images that is judged."""

from __future__ import annotations

from typing import NamedTuple

from pcamlib.core import paper


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
        return self.regime in paper.CONTROLS

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
        name = f"{paper.GENERATOR_NAMES[self.generator]} {paper.REGIME_NAMES[self.regime]}"
        return f"{name} ({paper.SELECTION_NAMES[self.selection]})"


BASELINE, TRADITIONAL = Arm("baseline"), Arm("traditional")
CONTROLS = tuple(Arm(regime) for regime in paper.CONTROLS)
MIXED = ("augmentation", "transfer")
"""Regimes that use synthetic images together with real ones."""
IMAGE_SETS = tuple((generator, selection) for selection in paper.SELECTIONS for generator in paper.GENERATORS)
"""(generator, selection) of the nine synthetic sets, in the order of Table 1."""
JUDGED = (*IMAGE_SETS, ("real", None), ("autoencoder", None))
"""All image sets that are judged: the synthetic ones and the two calibration sets."""
ARMS = (
    *(Arm(row.regime, row.generator, row.selection) for row in paper.TABLE_2),
    *(Arm("synthetic", *images) for images in IMAGE_SETS),
    *CONTROLS,
)
"""All classifiers: the twenty of Table 2 in its order, the nine of Figure 6, and the controls."""


def of_source(generator: str | None) -> list[Arm]:
    """The arms of one generator in the order of training (those that start from weights come later); None: real images."""
    if generator is None:
        return [BASELINE, TRADITIONAL, *CONTROLS]
    return [Arm(r, generator, s) for s in paper.SELECTIONS for r in ("synthetic", "transfer", "augmentation")]
