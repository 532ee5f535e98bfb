"""Hostile names in every field of results and cards, at every door: pages, README, tables, claims, cards, licences,
figures.

A page with them must have the same elements as the page with a plain word in their place, and show them as written.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

import hostile
import pytest
from made_up import write_run
from matplotlib.text import Text

from pcamlib.core.text import inert, printable
from pcamlib.data import card
from pcamlib.report import (
    answer_page,
    auc_tables,
    claim_table,
    findings,
    plots,
    publish,
    published_page,
    published_tables,
    quality_tables,
    tables,
)
from pcamlib.results import compact, frame, load
from pcamlib.results.published import published_runs
from pcamlib.workflow import export

pytest.importorskip("myst_parser")
pytestmark = pytest.mark.slow
WORD = "wordless"
FIELDS = ("data", "profile", "device", "precision", "version", "class_0", "class_1", "judge", "processor")
NAMES = {"visible": " ".join(hostile.VISIBLE), "invisible": " ".join(hostile.INVISIBLE)}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """results(name): those of a made-up run where every text from outside is `name`; some arms were not run."""
    df = load(write_run(tmp_path_factory.mktemp("run") / "phantom-demo", 2), 2)

    def named(name):
        found = df.assign(**dict.fromkeys(FIELDS, name), phantom=False)
        found.loc[found["extractor"] == "judge-a", "extractor"] = name
        missing = found["arm"].eq("synthetic-unet-realism")
        found.loc[missing, ["status", "reason", "value"]] = ["not run", name, None]
        return found

    return named


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, tuple(name for name, _ in attributes if (tag, name) != ("td", "class"))))

    def handle_data(self, data):
        self.text += data


def elements(text):
    """The elements of a Markdown page, those of its HTML too, and what a reader sees, blanks as single spaces."""
    from docutils.core import publish_doctree
    from myst_parser.docutils_ import Parser

    settings = {
        "myst_enable_extensions": ["dollarmath", "amsmath", "colon_fence", "attrs_inline", "attrs_block", "deflist"]
    }
    settings |= {
        "report_level": 5,
        "halt_level": 5,
        "warning_stream": False,
        "line_length_limit": 10**8,
        "myst_highlight_code_blocks": False,
        "_disable_config": True,
    }
    found, seen = [], []
    for node in publish_doctree(text, parser=Parser(), settings_overrides=settings).findall():
        found.append(node.tagname)
        if node.tagname == "raw":
            html = Elements(node.astext())
            found += html.found
            seen.append(html.text)
        elif node.tagname == "#text" and node.parent.tagname != "raw":
            seen.append(node.astext())
    return found, re.sub(" +", " ", " ".join("".join(seen).split(" ")))


def check(make, sightings=1):
    plain, _ = elements(make(WORD))
    for name in NAMES.values():
        text = make(name)
        found, seen = elements(text)
        assert found == plain
        assert seen.count(re.sub(" +", " ", printable(name))) >= sightings


def test_the_page_of_published_results(results, tmp_path):
    def page(name):
        compact.write(results(name), tmp_path / "phantom-demo.csv")
        return published_page.page(results(name), {}, tmp_path)

    check(page, sightings=10)


def test_the_readme(results):
    check(lambda name: publish.summary(results(name), "phantom-demo"), sightings=3)


def test_sentences(results):
    def page(name):
        df = results(name)
        evidence = claim_table.sources(df, [])
        lines = [*findings.gaps(df), *findings.findings_quality(df, name), *findings.findings_classification(df)]
        lines += [claim_table.counts(source) for source in evidence]
        return findings.bullets(lines) + "\n\n" + findings.limits(df)

    check(page)


def test_tables(results):
    def page(name):
        df = results(name)
        evidence = claim_table.sources(df, [])
        made = [quality_tables.table_1(df, name), quality_tables.table_1_more(df, name), auc_tables.table_2(df)]
        made += [quality_tables.table_memorisation(df), *auc_tables.tables_differences(df), tables.table_provenance(df)]
        made += [quality_tables.table_1_distances(df, name), auc_tables.table_2_more(df)]
        made += [claim_table.table(evidence), claim_table.numbers(1, evidence), published_tables.protocol({name: df})]
        return "\n\n".join(map(tables.render, made))

    check(page, sightings=20)


def test_the_pages_of_the_answer_and_of_the_claims(results, tmp_path):
    def page(name):
        compact.write(results(name), tmp_path / "phantom-demo.csv")
        evidence = claim_table.sources(results(name), published_runs(tmp_path))
        return f"{answer_page.page(tmp_path)}\n{claim_table.page(evidence)}"

    check(page, sightings=10)


def test_the_card_and_the_licence():
    counts = {"patches": 2, "tumour": 1, "duplicate_rows": 0, "conflicting": 0, "blank": 0, "mean_rgb": [1.0, 2.0, 3.0]}

    def made(name):
        return {
            "name": name,
            "classes": [name, name],
            "report": {"train": counts, "across": {}},
            "source": name,
            name: name,
            "notes": [name, name],
            "converted": {name: 3},
            "labels": {name: {"class": name, "images": 5}},
            "sha256": {},
            "licence": name,
        }

    def provenance(name):
        return dict.fromkeys(("data", "data_sha", "version", "profile", "subset"), name)

    check(lambda name: card.markdown(made(name)), sightings=11)
    check(lambda name: export.licence(made(name)))
    check(lambda name: export.licence({"provenance": provenance(name)}), sightings=5)
    check(lambda name: export.licence({"provenance": provenance(name) | {"phantom": True}}), sightings=5)


def test_figures():
    for name in [*hostile.VISIBLE, *hostile.INVISIBLE]:
        figure, _ = plots.new_figure(1, 1, 1.0, f"Data: {name}; twice {name}")
        (note,) = [text for text in figure.findobj(Text) if text.get_text().startswith("Data:")]
        shown, mathematics = note._preprocess_math(note.get_text())
        assert not mathematics and shown.replace("\n", " ").split() == printable(f"Data: {name}; twice {name}").split()


def test_the_captions_of_a_styled_frame_are_escaped_as_in_notebook_08(results):
    note = frame.provenance_note(frame.merged_provenance(results(NAMES["visible"])))
    html = results("word").head(2)[["arm"]].style.set_caption(inert(note, "html")).to_html()
    plain = results("word").head(2)[["arm"]].style.set_caption("word").to_html()
    assert [tag for tag, _ in Elements(html).found] == [tag for tag, _ in Elements(plain).found]
