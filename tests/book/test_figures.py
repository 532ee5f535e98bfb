"""The words of the drawn figures stay in their boxes and in the picture, in the fonts of this machine. Skipped without
Chromium."""

import pytest
from browser import CHROMIUM, playwright

from pcamlib.core.files import project_root

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
FIGURES = sorted((project_root() / "book" / "figures").glob("*.svg"))
OUTSIDE = """() => {
  const width = document.querySelector("svg").viewBox.baseVal.width;
  const boxes = [...document.querySelectorAll("rect")].map((e) => e.getBBox());
  return [...document.querySelectorAll("text")].filter((text) => {
    const t = text.getBBox(), x = t.x + t.width / 2, y = t.y + t.height / 2;
    const around = boxes.filter((b) => x > b.x && x < b.x + b.width && y > b.y && y < b.y + b.height)
      .sort((a, b) => a.width * a.height - b.width * b.height)[0];
    return t.x < 0 || t.x + t.width > width || (around && (t.x < around.x || t.x + t.width > around.x + around.width));
  }).map((text) => text.textContent);
}"""


def test_words_stay_in_their_boxes():
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        found = {}
        for path in FIGURES:
            page.set_content(path.read_text(encoding="utf-8"))
            found[path.name] = page.evaluate(OUTSIDE)
        page.set_content(
            '<svg viewBox="0 0 99 99"><rect width="9" height="50" x="40"/><text x="30" y="30">wide</text></svg>'
        )
        known = page.evaluate(OUTSIDE)
        chromium.close()
    assert len(found) >= 7 and not {name: words for name, words in found.items() if words}
    assert known == ["wide"]
