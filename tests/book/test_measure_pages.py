"""The book is as short as it says, and nothing in it is cut off at the right edge: `benchmarks/measure_pages.py`.

The book is the smoke study's, or the one whose html folder BOOK_HTML names. Skipped where there is no Chromium.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
import measure_pages  # noqa: E402

from pcamlib.core.errors import StudyError  # noqa: E402

CHROMIUM = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")
ANSWER, CLAIMS, RESULTS = (
    "executed/answer.html",
    "executed/claims.html",
    ("executed/08_results.html", "executed/reference.html"),
)


@pytest.fixture(scope="module")
def html(request) -> Path:
    given = os.environ.get("BOOK_HTML")
    return Path(given).resolve() if given else request.getfixturevalue("smoke_book").parent


@needs_chromium
def test_the_answer_is_one_page(html):
    (answer,) = measure_pages.measure(html, [ANSWER], [1400])
    assert answer.height <= 2500


@needs_chromium
def test_the_results_are_short(html):
    for page in measure_pages.measure(html, RESULTS, [1400]):
        assert page.height <= 8000 and page.words <= 2500, page


@needs_chromium
def test_no_page_cuts_a_table_a_listing_or_an_equation(html):
    found = list(measure_pages.measure(html, widths=[1280]))
    assert len(found) >= 20
    assert not {page.page: page.tables for page in found if page.tables}
    assert not {page.page: page.listings for page in found if page.listings}
    assert not {page.page: page.equations for page in found if page.equations}


@needs_chromium
def test_equations_fit_a_telephone(html):
    found = list(measure_pages.measure(html, ["method_diffusion.html", "metrics.html", "02_autoencoder.html"], [390]))
    assert len(found) == 3
    assert not {page.page: page.equations for page in found if page.equations}


@needs_chromium
def test_what_is_measured(tmp_path):
    """A page made by hand: what is folded has no words, and is cut all the same."""
    wide = "x" * 400
    (tmp_path / "page.html").write_text(
        "<!doctype html><style>body { margin: 0 } article { width: 300px } .box { overflow-x: auto"
        " }</style><article><p style='height: 2000px'>three short words</p><details><summary>more</summary>not"
        f" counted<div class='box'><table><caption>wide</caption><tr><td>{wide}</td></tr></table></div></details><pre"
        f" style='overflow-x: auto'>{wide}</pre><pre>short</pre><table><tr><td>fits</td></tr></table><div class='math'"
        f" style='overflow-x: auto'>{wide}</div><div class='math'><mjx-container style='display: block; overflow:"
        f" auto'>{wide}</mjx-container></div></article>"
    )
    (page,) = measure_pages.measure(tmp_path, widths=[1280])
    assert page.words == 3 + 1 + 1 + 1 + 1 + 1 + 1 and page.height > 2000
    assert page.tables == ["wide"] and len(page.listings) == 1 and len(page.equations) == 2


def test_a_folder_without_pages_is_named(tmp_path, capsys):
    if CHROMIUM:
        with pytest.raises(StudyError, match="holds no page: build the book first"):
            list(measure_pages.measure(tmp_path))
    with pytest.raises(SystemExit, match="holds no page|Chromium is not installed"):
        measure_pages.main(["--html", str(tmp_path)])
