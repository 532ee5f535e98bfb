"""Foreign text in Markdown, HTML and figures: it is shown as it was written, and nothing in it acts.

Markdown is parsed as the book parses it, by MyST with the extensions of _config.yml, in every place where pages put it.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

import hostile
import pytest
import yaml
from matplotlib.figure import Figure

from pcamlib.core.files import project_root
from pcamlib.core.text import inert, printable

CALM = {"strong", "emphasis", "paragraph", "document", "#text", "table", "tgroup", "thead", "tbody", "row", "entry"}
CALM |= {"colspec", "bullet_list", "list_item", "section", "title", "literal"}
PLACES = {
    "start of a line": "{}",
    "line": "Data: {}; profile x.",
    "list": "- {}",
    "list in a list": "- a\n- {} and *more*\n\nEnd.",
    "bold": "Data set: **{}**, end.",
    "heading": "# {}",
    "cell": "| a | b |\n| --- | ---: |\n| {} | 1 |\n| x | {} |",
}
EVERY = [*hostile.VISIBLE, *hostile.INVISIBLE]


def parsed(text):
    """A page as MyST makes it, in the form of docutils."""
    from docutils.core import publish_doctree

    parser = pytest.importorskip("myst_parser.docutils_").Parser()
    extensions = yaml.safe_load((project_root() / "_config.yml").read_text())["parse"]["myst_enable_extensions"]
    settings = {"myst_enable_extensions": extensions, "report_level": 1, "halt_level": 5, "warning_stream": False}
    return publish_doctree(text, parser=parser, settings_overrides=settings | {"_disable_config": True})


@pytest.mark.parametrize("place", PLACES)
def test_in_markdown_a_name_is_text(place):
    for name in EVERY:
        template = PLACES[place]
        page = parsed(template.format(*[inert(name)] * template.count("{}")))
        assert {node.tagname for node in page.findall()} <= CALM, f"{name!r} acts: {page.pformat()}"
        shape = parsed(template.replace("{}", "word"))
        assert [n.tagname for n in page.findall()] == [n.tagname for n in shape.findall()], (
            f"{name!r}: {page.pformat()}"
        )
        as_read = re.sub(r" +", " ", printable(name).strip())
        assert page.astext() == shape.astext().replace("word", as_read), name


def test_without_it_the_same_names_act():
    """So the test above can fail: most of the names are markup of some kind where nothing is done about them."""
    acting = [name for name in EVERY if {node.tagname for node in parsed(f"- {name}").findall()} - CALM]
    changed = [name for name in EVERY if printable(name) not in parsed(f"Data: {name}").astext()]
    assert len(acting) >= 12 and len(changed) >= 16, (len(acting), len(changed))


def test_in_a_code_span_a_name_is_text():
    for name in EVERY:
        page = parsed(f"The file {inert(name, 'code')} is there.")
        assert [node.tagname for node in page.findall()] == [
            "document",
            "paragraph",
            "#text",
            "literal",
            "#text",
            "#text",
        ]
        assert page.astext() == f"The file {printable(name)} is there."


class Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_in_html_a_name_is_text():
    for name in EVERY:
        seen, safe = Seen(), inert(name, "html")
        seen.feed(f"<p title=\"{safe}\" lang='{safe}'>{safe}</p>")
        seen.close()
        shown = printable(name)
        assert seen.tags == [("p", {"title": shown, "lang": shown})] and seen.text == shown


def test_in_a_figure_a_name_is_text():
    figure = Figure()
    for name in EVERY:
        text = figure.text(0, 0, f"Data: {inert(name, 'figure')}")
        shown, mathematics = text._preprocess_math(text.get_text())
        assert not mathematics and shown == f"Data: {printable(name)}"


def test_ordinary_text_stays_as_it_is():
    sentence = (
        "Data: pcam-slice; profile reference; 5 subsets of 4,000 patches; judge-regnetx_002 (k = 3), 85.05 ± 0.43 %."
    )
    assert inert(sentence) == inert(sentence, "html") == inert(sentence, "figure") == sentence
    assert inert("0.1.0+abc") == "0.1.0+abc" and inert(7) == "7" and inert("") == ""
    assert printable("a\u00a0b\n\u202e") == "a\u00a0b\\n\\u202e"
    with pytest.raises(ValueError, match="form is 'tex'"):
        inert("x", "tex")
