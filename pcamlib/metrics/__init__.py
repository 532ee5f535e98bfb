"""Pure functions on feature arrays: distances between sets of images, and neighbour metrics. Keyword-only real=,
fake=."""

from pcamlib.metrics.distances import (
    Manifold,
    NeighbourMetrics,
    classification_metrics,
    density_coverage,
    frechet_distance,
    improved_f1,
    kernel_distance,
    nearest,
    neighbour_metrics,
    precision_recall,
    radii,
    realism,
)
from pcamlib.metrics.extrapolate import Extrapolated, frechet_infinity, two_sample_auc, vendi_score

__all__ = [
    "Extrapolated",
    "Manifold",
    "NeighbourMetrics",
    "classification_metrics",
    "density_coverage",
    "frechet_distance",
    "frechet_infinity",
    "improved_f1",
    "kernel_distance",
    "nearest",
    "neighbour_metrics",
    "precision_recall",
    "radii",
    "realism",
    "two_sample_auc",
    "vendi_score",
]
