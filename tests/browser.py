"""Headless Chromium for tests of pages: from disk, with the network cut. Without playwright the tests are skipped."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

from pcamlib.core.files import project_root

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = project_root() / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE = 120_000
"""Milliseconds: a busy machine is slow, not wrong."""
playwright.expect.set_options(timeout=PATIENCE)
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

WIDER = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
  [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
    .slice(0, 5).map((e) => `${e.tagName}.${e.className}`)"""
AUDIT = """async (options) => (await axe.run(document, options)).violations
  .filter((v) => ["serious", "critical"].includes(v.impact))
  .map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).slice(0, 4).join(" | ")}`)"""


@contextmanager
def opened(chromium, **options):
    """A page without a network: its address requests, errors and warnings go to page.asked and page.complaints."""
    context = chromium.new_context(**{"viewport": WIDE, "reduced_motion": "reduce"} | options)
    context.set_offline(True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else page.asked.append(r.url))
    page.on("requestfailed", lambda r: page.complaints.append(f"failed: {r.url[:200]}"))
    page.on("console", lambda m: page.complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: page.complaints.append(str(e)))
    try:
        yield page
    finally:
        context.close()
