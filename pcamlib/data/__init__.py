"""PCam files: read, written, divided into subsets, checked, made, converted."""

from pcamlib.data.pcam import (
    CARD,
    CLASSES,
    PHANTOM,
    SIDE,
    SPLITS,
    Arrays,
    Patches,
    classes,
    file,
    fingerprint,
    labels,
    load,
    subsets,
    summary,
    verify,
    write,
)

__all__ = [
    "CARD",
    "CLASSES",
    "PHANTOM",
    "SIDE",
    "SPLITS",
    "Arrays",
    "Patches",
    "classes",
    "file",
    "fingerprint",
    "labels",
    "load",
    "subsets",
    "summary",
    "verify",
    "write",
]
