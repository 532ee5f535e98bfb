"""The table of contents of a book whose run has other generators than _toc.yml lists."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pcamlib.core.files import atomic
from pcamlib.models import generators

EXECUTED = "book/executed/"
TITLES = {"05_selection": "05 Selection", "07_classification": "07 Classification"}
MAIN = {"03_diffusion": "unet", "05_selection": "unet", "07_classification": "real"}
"""Of the notebooks that run several times: whose page keeps what is the same in all of them."""
ONCE = {"03_diffusion": ("The forward process: from a patch to noise", "The denoiser")}
"""Sections that are the same for all generators, by notebook. Those with summary and exercises are so everywhere."""
NOT_RUN = "The profile of this run does not list this generator, so this notebook was not run."


def _lists(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """A list of chapters and the lists of sections below them, at any depth."""
    yield entries
    for entry in entries:
        yield from _lists(entry.get("sections", []))


def contents(toc: dict[str, Any], executed: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """A table of contents with a chapter for every executed notebook, and pages for chapters whose notebook did not
    run.

    toc: the content of _toc.yml; executed: names of notebooks without .ipynb. Returns the table, and Markdown by name.
    """
    toc, executed = copy.deepcopy(toc), set(executed)
    parts = [entries for part in toc.get("parts", []) for entries in _lists(part["chapters"])]
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
        for part in reversed(parts):  # behind the last of its kind
            places = [i for i, chapter in enumerate(part) if chapter["file"].startswith(f"{EXECUTED}{kind}_")]
            if places:
                title = f"{TITLES[kind]}: {generators.label(generator)}"
                part.insert(places[-1] + 1, {"file": EXECUTED + name, "title": title})
                break
    return toc, pages


def with_title(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    """An executed notebook (JSON) whose title ends in the generator, where its name does; changed in place.

    name: of the notebook without .ipynb. 05_selection_unet becomes "Notebook 05: Selection while generating, U-Net".
    """
    named = re.fullmatch(r"\d\d_[a-z]+_(\w+)", name)
    if named:
        of = "real patches" if named[1] == "real" else generators.label(named[1])
        cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "markdown")
        cell["source"] = re.sub(r"\A# .+", lambda heading: f"{heading[0]}, {of}", "".join(cell["source"]))
    return notebook


def told_once(notebook: dict[str, Any], name: str, executed: Iterable[str]) -> dict[str, Any]:
    """An executed notebook (JSON) without what is the same for all generators, if the page of another generator, linked
    instead, has it; changed in place.

    The code of these sections stays in the file, unseen. name: of the notebook without .ipynb; executed: the names of
    all.
    """
    kind = re.match(r"\d\d_[a-z]+|", name)[0]
    page = f"{kind}_{MAIN.get(kind)}"
    if name == page or page not in executed:
        return notebook
    there = f"on the page {{doc}}`/{EXECUTED}{page}`.\n\n"
    summary = re.compile(r"^## Summary\n.*?(?=^\*\*What comes next)", re.M | re.S)
    seen, within = [], False
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = summary.sub(f"Summary and exercises are {there}", "".join(cell["source"]))
            if heading := re.match(r"## (.+)", cell["source"]):
                within = heading[1] in ONCE.get(kind, ())
                if within:
                    seen.append({**cell, "source": f"“{heading[1]}” is {there}"})
            if within:
                continue
        elif within:
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", []), "remove-cell"]
        seen.append(cell)
    notebook["cells"] = seen
    return notebook


def follow(root: Path) -> list[str]:
    """Make the book in `root` follow the notebooks in book/executed; returns the options that Jupyter Book needs for
    it."""
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
