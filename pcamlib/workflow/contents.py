"""The table of contents of a book whose run has other generators than _toc.yml lists."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pcamlib.core.files import atomic
from pcamlib.models import generators

EXECUTED = "book/executed/"
TITLES = {"05_selection": "Selection", "07_classification": "Classification"}
NOT_RUN = "The profile of this run does not list this generator, so this notebook was not run."


def contents(toc: dict[str, Any], executed: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """A table of contents with a chapter for every executed notebook, and pages for chapters whose notebook did not run.

    toc: the content of _toc.yml; executed: names of notebooks without .ipynb. Returns the table, and Markdown by name.
    """
    toc, executed = copy.deepcopy(toc), set(executed)
    parts = [part["chapters"] for part in toc.get("parts", [])]
    listed = {c["file"].removeprefix(EXECUTED): c for part in parts for c in part if c["file"].startswith(EXECUTED)}
    notebooks = {name: chapter for name, chapter in listed.items() if re.match(r"\d\d_", name)}
    pages = {
        name: f"# {chapter.get('title', name)}\n\n{NOT_RUN}\n"
        for name, chapter in notebooks.items()
        if name not in executed
    }
    for name in sorted(executed - set(notebooks)):
        named = re.fullmatch(r"(\d\d_[a-z]+)_(\w+)", name)
        if not named:
            continue  # a notebook that runs once, in a table of contents that leaves it out
        kind, generator = named.groups()
        for part in parts:
            places = [i for i, chapter in enumerate(part) if chapter["file"].startswith(f"{EXECUTED}{kind}_")]
            if places:
                title = f"{TITLES[kind]}: {generators.label(generator)}"
                part.insert(places[-1] + 1, {"file": EXECUTED + name, "title": title})
    return toc, pages


def follow(root: Path) -> list[str]:
    """Make the book in `root` follow the notebooks in book/executed; returns the options that Jupyter Book needs for it."""
    toc, target = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")), root / EXECUTED
    executed = {path.stem for path in target.glob("[0-9][0-9]_*.ipynb")}
    found, pages = contents(toc, executed)
    for stale in {path.stem for path in target.glob("[0-9][0-9]_*.md")} - set(pages):
        (target / f"{stale}.md").unlink()
    for name, text in pages.items():
        page = target / f"{name}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
    if found == toc:
        return []
    path = root / "_build" / "_toc.yml"
    with atomic(path) as tmp_path:
        tmp_path.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")
    return ["--toc", str(path)]
