"""How long the pages of a rendered book are and what is cut off in them, in headless Chromium.

    python benchmarks/measure_pages.py [--html _build/html] [--width 1400 --width 1280 --width 390] [PAGE ...]

For every page and window width (pixels) it prints the height of the page in pixels and its visible words, with
drop-downs closed, and then, with everything opened, how many tables, listings and equations are wider than their boxes,
so that a reader must scroll sideways.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Page, sync_playwright

from pcamlib.core.errors import StudyError

WIDTHS = (1400, 1280, 390)
HEIGHT = 900
READY = """async () => {
  if (window.MathJax?.startup) await MathJax.startup.promise;
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
}"""
SIZE = """() => {
  const article = document.querySelector("article") ?? document.body;
  const shown = (node) => {
    for (let e = node.parentElement; e && e !== article.parentElement; e = e.parentElement) {
      if (e.tagName === "DETAILS" && !e.open && !node.parentElement.closest("summary")) return false;
      if (["SCRIPT", "STYLE", "MJX-ASSISTIVE-MML"].includes(e.tagName)) return false;
      if (getComputedStyle(e).display === "none") return false;
    }
    return true;
  };
  const walk = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  let words = 0;
  while (walk.nextNode())
    if (shown(walk.currentNode)) words += walk.currentNode.data.split(/\\s+/).filter(Boolean).length;
  return { height: document.documentElement.scrollHeight, words };
}"""
OPEN = """() => {
  for (const e of document.querySelectorAll("details")) e.open = true;
  const style = document.createElement("style");
  style.textContent = ".sd-tab-content { display: block !important }";
  document.head.append(style);
}"""
CUT = """() => {
  const article = document.querySelector("article") ?? document.body;
  const left = (e) => e.getBoundingClientRect().left + e.clientLeft;
  const inside = (e, box) => e.getBoundingClientRect().right <= left(box) + box.clientWidth + 1;
  const scrolls = (e) => ["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX);
  const cut = (e) => {
    for (let box = e; box && box !== article.parentElement; box = box.parentElement) {
      if (scrolls(box) && box.scrollWidth > box.clientWidth + 1) return true;
      if (box !== e && scrolls(box)) return !inside(e, box);
    }
    return !inside(e, article);
  };
  const name = (e) => (e.querySelector("caption") ?? e).textContent.trim().replace(/\\s+/g, " ").slice(0, 60);
  const found = (selector) => [...article.querySelectorAll(selector)].filter((e) => e.offsetWidth && cut(e)).map(name);
  // MathJax's element inside the box is the one that scrolls
  const equations = "div.math:not(:has(mjx-container)), div.math mjx-container";
  return { tables: found("table"), listings: found("pre"), equations: found(equations) };
}"""


class Measured(NamedTuple):
    """A page at one width: its height in pixels, its visible words, and the beginnings of what is cut."""

    page: str
    width: int
    height: int
    words: int
    tables: list[str]
    listings: list[str]
    equations: list[str]


def look(page: Page, path: Path, width: int) -> dict[str, Any]:
    """Measure one file in an open page; leaves everything in it opened."""
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.goto(path.resolve().as_uri())
    page.evaluate(READY)
    size = page.evaluate(SIZE)
    page.evaluate(OPEN)
    return size | page.evaluate(CUT)


def measure(html: Path, names: Sequence[str] = (), widths: Sequence[int] = WIDTHS) -> Iterator[Measured]:
    """Every page of the book in the folder `html`, or those whose paths end with one of `names`, at each width.

    Raises StudyError where there is no Chromium or no such page.
    """
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise StudyError("Chromium is not installed: install the package chromium, or put google-chrome on the PATH.")
    pages = sorted(p for p in html.rglob("*.html") if "_static" not in p.parts)
    pages = [p for p in pages if 'http-equiv="Refresh"' not in p.read_text(encoding="utf-8")]
    if names:
        pages = [p for p in pages if p.relative_to(html).as_posix().endswith(tuple(names))]
    if not pages:
        raise StudyError(f"{html} holds no page{' named so' if names else ''}: build the book first (make book).")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(reduced_motion="reduce", offline=True)
        page = context.new_page()
        page.set_default_timeout(120_000)
        for path in pages:
            for width in widths:
                yield Measured(path.relative_to(html).as_posix(), width, **look(page, path, width))
        browser.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line per page and width."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="*", help="ends of page names, all by default")
    parser.add_argument("--html", type=Path, default=Path("_build/html"), help="folder of the rendered book")
    parser.add_argument("--width", type=int, action="append", help="window width in pixels, repeatable")
    parser.add_argument("--name-cut", action="store_true", help="also print what is cut")
    given = parser.parse_args(arguments)
    print(f"{'page':48} {'width':>5} {'height':>7} {'words':>6} {'tables':>6} {'listings':>8} {'equations':>9}  (cut)")
    try:
        for m in measure(given.html, given.pages, given.width or WIDTHS):
            cut = [m.tables, m.listings, m.equations]
            counts = "{:6} {:8} {:9}".format(*map(len, cut))
            print(f"{m.page:48} {m.width:5} {m.height:7,} {m.words:6,} {counts}", flush=True)
            for what in (x for part in cut for x in part if given.name_cut):
                print(f"    {what}")
    except StudyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
