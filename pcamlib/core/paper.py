"""The paper as data: its two results tables, its protocol and its claims.

Source: Benito-Del-Valle, Alvarez-Gila, Eguskiza and Saratxaga, *Unleashing the Potential of Synthetic
Images: A Study on Histopathology Image Classification*, arXiv 2409.16002. Numbers are as printed (mean and
standard deviation over five subsets; all in percent but the FID). The wording of the claims is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pcamlib.core.errors import StudyError

GENERATORS = ("histogan", "unet", "dit")
SELECTIONS = ("none", "realism", "class")
GENERATOR_NAMES = {"histogan": "HistoGAN", "unet": "U-Net", "dit": "DiT"}
OWN_NAMES = {"flow": "Rectified flow", "unet_pool": "U-Net (unlabelled pool)"}
"""What readers call the registered generators that the paper lacks (`models.generators.REGISTRY`)."""
SELECTION_NAMES = {"none": "none", "realism": "realism", "class": "class-based"}
SELECTION_HEADINGS = {
    "none": "No image selection",
    "realism": "Realism score",
    "class": "Class-based realism score",
}
REGIME_NAMES = {
    "baseline": "Baseline",
    "traditional": "Traditional augmentation",
    "augmentation": "augmentation",
    "transfer": "transfer",
    "synthetic": "synthetic only",
    "traditional-2x": "Traditional, twice the steps",
    "transfer-real": "Transfer, real to real",
    "double-real": "Twice the real data",
    "pseudo-label": "Pseudo-labels, as many as real",
    "pseudo-label-pool": "Pseudo-labels, up to 4,000",
    "strong-stain": "Stain jitter",
    "strong-randaugment": "RandAugment",
    "strong-mixup": "Mixup",
    "strong-cutmix": "CutMix around the centre",
    "colour": "Colour histogram",
    "texture": "Texture (local binary patterns)",
    "colour-texture": "Colour and texture",
    "random-features": "Random network, regression",
    "shuffled-labels": "Shuffled labels",
}
CONTROLS = ("traditional-2x", "transfer-real", "double-real")
"""Our own arms: the paper's comparisons change the images and the number of steps at once, these do not."""
PSEUDO = ("pseudo-label", "pseudo-label-pool")
"""Our own arms: unlabelled real patches that the subset's own classifier labels, the rival of a generator that sees
them."""
STRONG = ("strong-stain", "strong-randaugment", "strong-mixup", "strong-cutmix")
"""Our own arms: real patches with stronger augmentation, which costs no generator."""
TRIVIAL = ("colour", "texture", "colour-texture", "random-features")
"""Our controls that learn no network: a classifier that one of them beats measures nothing."""


def generator_name(name: str) -> str:
    """What readers call a generator; images made elsewhere are called by their own name."""
    return (GENERATOR_NAMES | OWN_NAMES).get(name, name)


class Value(NamedTuple):
    """A mean and standard deviation over the paper's five subsets, with the text that was printed."""

    mean: float
    sd: float
    printed: str


@dataclass(frozen=True)
class QualityRow:
    """A row of Table 1. `fid` is a distance, the others are percent."""

    selection: str
    generator: str
    fid: Value
    precision: Value
    recall: Value
    f1: Value


@dataclass(frozen=True)
class ClassificationRow:
    """A row of Table 2, all percent. Baseline and traditional have neither generator nor selection."""

    regime: str
    generator: str | None
    selection: str | None
    accuracy: Value
    auc: Value
    sensitivity: Value
    specificity: Value


class Claim(NamedTuple):
    """A statement of the paper that a run can check, in our words."""

    number: int
    section: str
    text: str


@dataclass(frozen=True)
class Protocol:
    """What §4.1 and §4.2 state. Whatever is not here, the paper leaves open."""

    train: int = 262_144
    valid: int = 32_768
    test: int = 32_768
    patch_px: int = 96
    subsets: int = 5
    fraction: float = 0.1
    subset_size: int = 26_215
    generator_epochs: int = 1000
    generator_lr: float = 1e-4
    generator_batch: int = 64
    autoencoder_optimizer: str = "Adam"
    diffusion_optimizer: str = "AdamW"
    classifier: str = "ResNet18"
    classifier_weights: str = "ImageNet"
    classifier_epochs: int = 100
    classifier_optimizer: str = "SGD"
    classifier_momentum: float = 0.9
    classifier_lr: float = 1e-4
    classifier_batch: int = 32
    realism_threshold: float = 1.0
    synthetic_per_real: int = 1


PROTOCOL = Protocol()

_TABLE_1 = """
none     histogan | 126.71 ± 17.13 | 11.60 ± 3.03 | 0.00 ± 0.00  | 0.00 ± 0.00
none     unet     | 49.08 ± 5.96   | 43.70 ± 1.78 | 6.31 ± 1.13  | 10.98 ± 1.70
none     dit      | 35.70 ± 2.55   | 45.17 ± 2.67 | 11.17 ± 0.55 | 17.9 ± 0.72
realism  histogan | 132.80 ± 14.64 | 8.53 ± 3.04  | 0.00 ± 0.00  | 0.00 ± 0.00
realism  unet     | 51.94 ± 6.07   | 42.27 ± 2.41 | 3.42 ± 0.63  | 6.32 ± 1.09
realism  dit      | 40.02 ± 1.78   | 41.08 ± 2.10 | 6.83 ± 0.28  | 11.72 ± 0.49
class    histogan | 129.87 ± 13.65 | 8.69 ± 3.48  | 0.02 ± 0.04  | 0.04 ± 0.08
class    unet     | 52.36 ± 5.83   | 41.94 ± 2.40 | 3.44 ± 0.52  | 6.35 ± 0.90
class    dit      | 40.34 ± 1.78   | 40.99 ± 2.01 | 6.85 ± 0.38  | 11.74 ± 0.62
"""

_TABLE_2 = """
-        -        baseline     | 82.16 ± 0.23 | 90.17 ± 0.20 | 81.32 ± 1.53 | 82.99 ± 1.42
-        -        traditional  | 85.05 ± 0.43 | 92.99 ± 0.26 | 81.15 ± 1.50 | 88.95 ± 1.13
none     histogan augmentation | 84.47 ± 0.49 | 93.02 ± 0.37 | 76.35 ± 1.2  | 92.59 ± 0.39
none     unet     augmentation | 85.22 ± 0.39 | 93.28 ± 0.30 | 81.24 ± 1.13 | 89.19 ± 1.11
none     dit      augmentation | 84.95 ± 0.74 | 92.86 ± 0.49 | 81.32 ± 1.82 | 88.58 ± 0.49
none     histogan transfer     | 85.03 ± 0.48 | 92.98 ± 0.22 | 80.84 ± 1.65 | 89.21 ± 0.81
none     unet     transfer     | 85.47 ± 0.36 | 93.37 ± 0.29 | 81.40 ± 1.11 | 89.54 ± 0.58
none     dit      transfer     | 85.58 ± 0.57 | 93.32 ± 0.32 | 81.79 ± 0.80 | 89.38 ± 1.02
realism  histogan augmentation | 85.19 ± 0.94 | 93.37 ± 0.71 | 77.44 ± 2.26 | 92.94 ± 1.09
realism  unet     augmentation | 85.78 ± 0.62 | 93.45 ± 0.36 | 82.23 ± 1.85 | 89.33 ± 0.72
realism  dit      augmentation | 84.74 ± 0.79 | 92.51 ± 0.58 | 80.08 ± 1.41 | 89.40 ± 0.55
realism  histogan transfer     | 85.38 ± 0.56 | 93.18 ± 0.34 | 82.10 ± 1.48 | 88.66 ± 0.98
realism  unet     transfer     | 85.87 ± 0.64 | 93.54 ± 0.38 | 83.30 ± 1.80 | 88.45 ± 0.62
realism  dit      transfer     | 85.06 ± 0.38 | 93.04 ± 0.08 | 80.68 ± 1.41 | 89.44 ± 0.73
class    histogan augmentation | 84.82 ± 0.85 | 93.20 ± 0.51 | 76.44 ± 2.71 | 93.2 ± 1.17
class    unet     augmentation | 85.64 ± 0.65 | 93.40 ± 0.33 | 82.20 ± 2.48 | 89.07 ± 1.42
class    dit      augmentation | 84.98 ± 0.43 | 92.77 ± 0.30 | 82.69 ± 2.15 | 87.27 ± 1.46
class    histogan transfer     | 85.00 ± 0.53 | 92.97 ± 0.28 | 80.60 ± 2.00 | 89.40 ± 1.22
class    unet     transfer     | 85.57 ± 0.65 | 93.31 ± 0.51 | 82.12 ± 0.77 | 89.02 ± 0.95
class    dit      transfer     | 85.07 ± 0.50 | 93.04 ± 0.30 | 81.19 ± 0.72 | 88.94 ± 0.63
"""


def _parse(text: str) -> list[tuple[list[str | None], list[Value]]]:
    """Split one of the printed tables into the keys and the four values of each row."""
    rows = []
    for line in text.strip().splitlines():
        keys, *cells = (part.strip() for part in line.split("|"))
        values = [Value(*map(float, cell.split(" ± ")), printed=cell) for cell in cells]
        rows.append(([None if key == "-" else key for key in keys.split()], values))
    return rows


TABLE_1 = tuple(QualityRow(*keys, *values) for keys, values in _parse(_TABLE_1))
"""The nine rows of Table 1, in print order."""

TABLE_2 = tuple(
    ClassificationRow(regime, generator, selection, *values)
    for (selection, generator, regime), values in _parse(_TABLE_2)
)
"""The twenty rows of Table 2, in print order."""

CLAIMS = (
    Claim(1, "§5.1", "Diffusion models beat the GAN on FID, precision and recall."),
    Claim(2, "§5.1", "The GAN's recall is zero: its modes have collapsed."),
    Claim(3, "§5.1", "DiT beats the U-Net on FID, precision and recall."),
    Claim(4, "§5.1, Table 1", "Selecting images worsens FID and precision of every generator."),
    Claim(
        5,
        "§5.2",
        "The U-Net is the only generator whose images improve on both baseline and traditional augmentation "
        "in every regime and under every selection.",
    ),
    Claim(
        6,
        "§5.2",
        "Diffusion images serve better by transfer learning, GAN images by augmentation. (The paper's own "
        "class-based U-Net rows go the other way.)",
    ),
    Claim(7, "§5.2, Fig. 6", "With synthetic data only, AUC follows image quality: DiT, U-Net, GAN."),
    Claim(8, "§5.2", "The convolutional generators (GAN, U-Net) gain from realism selection, DiT does not."),
    Claim(
        9,
        "§5.2",
        "The best use differs by generator: GAN by augmentation with realism, U-Net by transfer with "
        "realism, DiT by transfer without selection.",
    ),
    Claim(10, "§5.2, §6", "Image quality predicts usefulness alone, not when real data is mixed in."),
    Claim(
        11,
        "Table 2",
        "The best arm of all is U-Net, transfer, realism: AUC 93.54 against 92.99 for traditional "
        "augmentation and 90.17 for the baseline.",
    ),
    Claim(12, "§5.2", "As a hypothesis: how good synthetic-only training is explains how good transfer is."),
    Claim(13, "§3.3", "Class-based selection removes images that carry the wrong label."),
)


def quality(selection: str, generator: str) -> QualityRow:
    """The row of Table 1 for one selection and generator; StudyError if the paper has none."""
    for row in TABLE_1:
        if (row.selection, row.generator) == (selection, generator):
            return row
    raise StudyError(
        f"Table 1 of the paper has no row for selection {selection!r} and generator {generator!r}: "
        f"choose from {SELECTIONS} and {GENERATORS}."
    )


def classification(selection: str | None, generator: str | None, regime: str) -> ClassificationRow:
    """The row of Table 2 for one selection, generator and regime; StudyError if the paper has none.

    `classification(None, None, "baseline")` and `"traditional"` are the rows without synthetic images.
    Synthetic-only training is in the paper's Figure 6 alone, so it has no row: `has_classification` tells.
    """
    for row in TABLE_2:
        if (row.selection, row.generator, row.regime) == (selection, generator, regime):
            return row
    raise StudyError(
        f"Table 2 of the paper has no row for selection {selection!r}, generator {generator!r} and regime {regime!r}."
    )


def has_classification(selection: str | None, generator: str | None, regime: str) -> bool:
    """Whether Table 2 prints a row for this arm."""
    return (selection, generator, regime) in {(row.selection, row.generator, row.regime) for row in TABLE_2}
