"""A profile's list of generators: names, or folders of images made elsewhere."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict

from pcamlib.core import paper

# names of files and folders of a run, which no generator may have
RESERVED = {"autoencoder", "candidates", "classification", "classifiers", "memorisation", "notebooks", "quality"}
RESERVED |= {"probe", "probes", "real", "results", "selection", "synthetic"}


class ImagesSettings(BaseModel):
    """Images made elsewhere: `images` is a folder with a sub-folder for each class, or of PCam files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    images: str


def check(generators: Any) -> Any:
    """The list as it was given. ValueError for entries of another form, and names that are used twice or are taken."""
    items = generators if isinstance(generators, list) else [generators]
    names = [item["name"] if isinstance(item, dict) and item.keys() == {"name", "images"} else item for item in items]
    for name, item in zip(names, items):
        if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise ValueError("each is a name of lower-case letters, digits and _, or {name: NAME, images: FOLDER}")
        if name in RESERVED or (name != item and name in paper.GENERATORS) or names.count(name) > 1:
            raise ValueError(f"{name!r} is used twice or has another meaning: choose another name")
    return generators
