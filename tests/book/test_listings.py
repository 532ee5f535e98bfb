"""All code that the book shows fits its column: 88 characters in a window of 1,280 pixels, measured with
book/_static/book.css.

`test_measure_pages.py` measures the same in the rendered book.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest

from pcamlib import data
from pcamlib.core.files import project_root
from pcamlib.models import augmentation, autoencoder, diffusion, histogan

FITS = 88
"""Characters of 13 pixels in the narrowest listing of a page that is 1,280 pixels wide, a solution's: 89 of them
fit."""
HIDDEN = {"remove-cell", "remove-input"}
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.M | re.S)
INCLUDED = re.compile(
    r"^```\{literalinclude\} (\S+)\n(?:^:language:.*\n)?(?::start-at: \"(.*)\"\n:end-before: \"(.*)\"\n)?", re.M
)
GETSOURCE = {
    "data.subsets": [data.subsets],
    "autoencoder.Autoencoder": [autoencoder.Autoencoder],
    "autoencoder.AutoencoderTask": [autoencoder.AutoencoderTask],
    "diffusion.build": [diffusion.build],
    "diffusion.DiffusionTask": [diffusion.DiffusionTask],
    "network": [network for variant in ("stabilised", "published") for network in histogan.networks(variant)],
    "augmentation.augment": [augmentation.augment],
}
"""What notebooks show of the library, by the argument of `inspect.getsource`."""
PAGES = sorted((project_root() / "notebooks").glob("0*.md")) + sorted((project_root() / "book").glob("*.md"))


def listings(page: Path) -> Iterator[str]:
    """The code that a page shows, with the lines that it includes from other files."""
    text = page.read_text(encoding="utf-8")
    if page.parent.name == "notebooks":
        cells = jupytext.reads(text, fmt="md:myst").cells
        yield from (
            cell.source
            for cell in cells
            if cell.cell_type == "code" and not HIDDEN & set(cell.metadata.get("tags", []))
        )
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    yield from (code for _, language, code in FENCE.findall(text) if not language.startswith("{"))
    for name, start, end in INCLUDED.findall(text):
        included = (page.parent / name).read_text(encoding="utf-8")
        if start:
            included = included[included.index(start) :]
            included = included[: included.index(end)]
        yield included


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_line_is_longer_than_its_column(page):
    assert not [line for code in listings(page) for line in code.splitlines() if len(line) > FITS]


def test_all_kinds_of_listings_are_found():
    found = {page.stem: "\n".join(listings(page)) for page in PAGES}
    assert "open_study(" in found["01_dataset"] and "assert leaks ==" in found["01_dataset"]
    assert "write_result" not in found["01_dataset"]
    assert "make study" in found["running"] and "epochs: 1000" in found["open_choices"]
    assert "@misc{benitodelvalle2024" in found["cite"] and "@article" not in found["cite"]


def test_shown_source_of_the_library_fits():
    asked = set()
    for page in (project_root() / "notebooks").glob("0*.md"):
        for code in listings(page):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "inspect.getsource":
                    asked.add(ast.unparse(node.args[0]))
    assert asked == set(GETSOURCE)
    for shown in (one for several in GETSOURCE.values() for one in several):
        assert not [line for line in inspect.getsource(shown).splitlines() if len(line) > FITS], shown
