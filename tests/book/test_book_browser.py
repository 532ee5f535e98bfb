"""Every page of the rendered book in headless Chromium, from disk, with the network cut.

The book is the smoke study's, or the one whose html folder BOOK_HTML names. Skipped where there is no Chromium;
the accessibility check also where axe-core is not installed (npm install --no-save axe-core).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from browser import AUDIT, AXE, CHROMIUM, NARROW, WIDE, WIDER, opened, playwright

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

READY = """async () => {
  if (window.MathJax?.startup) await MathJax.startup.promise;
  const widgets = document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]');
  for (let i = 0; widgets && document.documentElement.dataset.widgets !== "ready" && i < 100; i++)
    await new Promise((done) => setTimeout(done, 100));
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
}"""
LOOK = """() => ({
  links: [...document.querySelectorAll("a[href]")].map((a) => a.href),
  ids: [...document.querySelectorAll("[id], a[name]")].flatMap((e) => [e.id, e.getAttribute("name")]).filter(Boolean),
  broken: [...document.images].filter((i) => !i.naturalWidth).map((i) => i.src.slice(0, 200)),
  silent: [...document.images].filter((i) => !i.alt.trim()).map((i) => i.src.slice(0, 200)),
  untypeset: [...document.querySelectorAll(".math")].filter((e) => !e.querySelector("mjx-container"))
    .map((e) => e.textContent),
  wrong: [...document.querySelectorAll("mjx-merror")].map((e) => e.textContent),
  formulas: document.querySelectorAll("mjx-container").length,
  sliders: document.querySelectorAll(".linked-frames [role=slider]").length,
  views: document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length,
})"""


@dataclass
class Visit:
    """What one page showed."""

    seen: dict
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    wider: list[str] = field(default_factory=list)
    audit: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def html(request) -> Path:
    given = os.environ.get("BOOK_HTML")
    return Path(given).resolve() if given else request.getfixturevalue("smoke_book").parent


@pytest.fixture(scope="module")
def chromium(html):
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def pages(html: Path) -> list[str]:
    """Every page by its path; the root's index.html only forwards to the first of them."""
    found = sorted(p.relative_to(html).as_posix() for p in html.rglob("*.html") if "_static" not in p.parts)
    return [name for name in found if 'http-equiv="Refresh"' not in (html / name).read_text()]


@pytest.fixture(scope="module")
def visits(html, chromium) -> dict[str, Visit]:
    """Each page looked at once: wide and light, wide and dark, narrow."""
    found = {}
    with opened(chromium) as page:
        for name in pages(html):
            page.asked.clear()
            page.complaints.clear()
            page.set_viewport_size(WIDE)
            page.goto((html / name).as_uri())
            page.evaluate(READY)
            visit = found[name] = Visit(page.evaluate(LOOK))
            if AXE.exists():
                page.add_script_tag(content=AXE.read_text())
                visit.audit["light"] = page.evaluate(AUDIT, {"preload": False, "resultTypes": ["violations"]})
                page.evaluate("document.documentElement.dataset.theme = 'dark'")
                visit.audit["dark"] = page.evaluate(
                    AUDIT, {"preload": False, "runOnly": ["color-contrast", "link-in-text-block"]}
                )
            page.set_viewport_size(NARROW)
            visit.wider = page.evaluate(WIDER)
            visit.asked, visit.complaints = list(page.asked), list(page.complaints)
    assert len(found) >= 25
    return found


def faults(visits: dict[str, Visit], of) -> str:
    """One line per page with something to say, for a message that can be acted on."""
    return "\n".join(f"{name}: {what}" for name, visit in visits.items() if (what := of(visit)))


def test_nothing_is_asked_of_a_network(visits):
    assert not faults(visits, lambda v: v.asked)


def test_no_page_complains(visits):
    assert not faults(visits, lambda v: v.complaints)


def test_every_picture_is_there_and_described(visits):
    assert not faults(visits, lambda v: v.seen["broken"])
    assert not faults(visits, lambda v: v.seen["silent"])


def test_every_link_leads_somewhere(html, visits):
    ids = {(html / name).as_uri(): set(visit.seen["ids"]) for name, visit in visits.items()}

    def dead(link: str) -> bool:
        address, anchor = urldefrag(link)
        if address not in ids:
            return not Path(unquote(address.removeprefix("file://"))).exists()
        return bool(anchor) and unquote(anchor) not in ids[address]

    assert not faults(visits, lambda v: [x for x in v.seen["links"] if x.startswith("file:") and dead(x)])


def test_all_mathematics_is_typeset(visits):
    assert not faults(visits, lambda v: v.seen["untypeset"] + v.seen["wrong"])
    assert visits["book/method_diffusion.html"].seen["formulas"] > 20


def test_no_page_scrolls_sideways_on_a_telephone(visits):
    assert not faults(visits, lambda v: v.wider)


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core: npm install --no-save axe-core")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_barrier(visits, theme):
    assert not faults(visits, lambda v: v.audit[theme])


def test_every_widget_moves_without_a_kernel(html, chromium, visits):
    shown = {name: visit.seen["views"] for name, visit in visits.items() if visit.seen["views"]}
    assert sum(shown.values()) == 3 + 2 + 3 and all(visits[name].seen["sliders"] == n for name, n in shown.items())
    for name in shown:
        with opened(chromium) as page:
            page.goto((html / name).as_uri())
            page.evaluate(READY)
            for box in page.locator(".linked-frames").all():
                picture, caption, slider = box.locator("img"), box.locator("figcaption"), box.get_by_role("slider")
                before = caption.inner_text()
                slider.press("ArrowRight" if slider.get_attribute("aria-valuenow") == "0.0" else "ArrowLeft")
                playwright.expect(caption).not_to_have_text(before)
                # neighbours may look alike (the same patches pass two thresholds), the two ends do not
                slider.press("End")
                before = picture.get_attribute("src"), picture.get_attribute("alt")
                slider.press("Home")
                assert picture.get_attribute("src") != before[0] and picture.get_attribute("alt") != before[1]
                at_start = caption.inner_text()
                box.get_by_role("button", name="Play").click()
                playwright.expect(caption).not_to_have_text(at_start)
            assert not page.complaints and not page.asked


def test_search_finds_without_a_server(html, chromium):
    with opened(chromium) as page:
        page.goto((html / "search.html").as_uri() + "?q=guidance")
        # results come in one by one
        playwright.expect(page.locator("#search-results ul.search a[href*=method_diffusion]").first).to_be_visible()
        assert not page.asked


def test_the_keyboard_reaches_the_text(html, chromium):
    with opened(chromium) as page:
        page.goto((html / "book" / "introduction.html").as_uri())
        page.keyboard.press("Tab")
        assert "Skip to main content" in page.evaluate("document.activeElement.textContent")
        page.keyboard.press("Enter")
        assert page.evaluate("location.hash") == "#main-content"


def test_without_scripts_and_on_paper_there_are_still_figures(html, chromium):
    name = "book/executed/03_diffusion_unet.html"
    with opened(chromium, java_script_enabled=False) as page:
        page.goto((html / name).as_uri())
        assert page.locator(".cell_output img").count() >= 5
    with opened(chromium) as page:
        page.goto((html / name).as_uri())
        page.evaluate(READY)
        page.emulate_media(media="print")
        assert page.locator(".linked-frames").first.is_hidden() and page.locator(".bd-sidebar-primary").is_hidden()
        assert page.locator(".cell_output img:visible").count() >= 5
        page.set_viewport_size({"width": 720, "height": 1000})  # A4 less its margins
        assert not page.evaluate(WIDER)
