"""Hostile names in a book that is built strictly with the real configuration, and opened in a browser."""

from __future__ import annotations

import re
import shutil

import hostile
import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from made_up import registration, write_run

from pcamlib.core.files import project_root
from pcamlib.core.text import inert, printable
from pcamlib.report import answer_page, claim_table, findings, plan_page, published_page, recompute, tables
from pcamlib.results import compact, load
from pcamlib.results.published import published_runs
from pcamlib.workflow import book

pytest.importorskip("jupyter_book")
pytestmark = pytest.mark.slow
EVERY = [*hostile.VISIBLE, *hostile.INVISIBLE]
PAGES = ("registration", "answer", "reference", "claims", "08_results")
SCRIPTED = ("recompute", *PAGES)
"""With the page that has forms and a script of our own."""
FIELDS = ("data", "profile", "device", "version", "class_0", "class_1", "judge")


def named(df, name):
    found = df.assign(**dict.fromkeys(FIELDS, name), phantom=False)
    found.loc[found["extractor"] == "judge-a", "extractor"] = name
    return found


def executed(df):
    """A notebook as papermill leaves it: each name as Markdown, as the notebooks write it, and in a table."""
    new, outputs = nbformat.v4.new_output, []
    for name in EVERY:
        outputs.append(
            new("display_data", {"text/markdown": f"Data set: **{inert(name)}**, file {inert(name, 'code')}."})
        )
        outputs.append(new("display_data", {"text/markdown": f"| name | n |\n| --- | ---: |\n| {inert(name)} | 1 |"}))
    outputs.append(new("display_data", {"text/markdown": findings.bullets(EVERY)}))
    outputs.append(new("display_data", {"text/html": tables.render(tables.table_provenance(df))}))
    outputs.append(
        new(
            "display_data",
            {"text/html": tables.render(tables.Table("$a$", df.head(len(EVERY))[["judge"]].assign(judge=EVERY)))},
        )
    )
    cell = nbformat.v4.new_code_cell("show()", outputs=outputs)
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    python["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return nbformat.v4.new_notebook(metadata=python, cells=[nbformat.v4.new_markdown_cell("# Executed"), cell])


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The folder of the built book: a page of published results and an executed notebook."""
    root = tmp_path_factory.mktemp("hostile")
    df = named(load(write_run(root / "runs" / "phantom-demo", 2), 2), " ".join(EVERY).replace("\0", "\x01"))
    shutil.copy(project_root() / "_config.yml", root)
    for name in ("_ext", "_static"):
        shutil.copytree(project_root() / "book" / name, root / "book" / name)
    shutil.copy(project_root() / "book" / "references.bib", root / "book")
    pages = "".join(f"- file: book/executed/{name}\n" for name in SCRIPTED) + "- file: book/conclusion\n"
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{pages}")
    for name in ("index", "conclusion"):
        (root / "book" / f"{name}.md").write_text("# Book\n\nText.\n")
    target = root / "book" / "executed"
    target.mkdir()
    compact.write(df, root / "phantom-demo.csv")
    evidence = claim_table.sources(df, published_runs(root))
    (target / "answer.md").write_text(answer_page.page(root), encoding="utf-8")
    (target / "claims.md").write_text(claim_table.page(evidence), encoding="utf-8")
    (target / "reference.md").write_text(published_page.page(df, {}, root), encoding="utf-8")
    hostile_plan = registration(run="phantom-demo", question=" ".join(hostile.VISIBLE), later=hostile.VISIBLE)
    (root / "plan.yml").write_text(yaml.safe_dump(hostile_plan, allow_unicode=True), encoding="utf-8")
    (target / "registration.md").write_text(plan_page.page(root), encoding="utf-8")
    (target / "recompute.md").write_text(recompute.page(root), encoding="utf-8")
    for name, content in answer_page.pictures(root).items():
        (target / name).write_bytes(content)
    nbformat.write(executed(df), target / "08_results.ipynb")
    return book.render(root).parent


def test_in_a_strict_build_names_are_text(html):
    for name in PAGES:
        page = BeautifulSoup((html / "book" / "executed" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        article = page.find("article")
        assert not article.find_all(["iframe", "form", "object", "embed"])
        assert not article.select("svg:not(.sd-octicon)"), "the arrow of a drop-down is the theme's"
        assert not [s for s in article.find_all("script") if hostile.SCRIPT in s.text]
        assert not [tag for tag in article.find_all(True) for key in tag.attrs if key.startswith("on")]
        assert not [a["href"] for a in article.find_all("a") if "javascript:" in a.get("href", "").lower()]
        assert not [i["src"] for i in article.find_all("img") if "example.org" in i["src"]]
        assert "root:x:0:0" not in page.text, "a system file was included"
    cells = [re.sub(" +", " ", td.text) for td in article.select(".pcam-table td")]
    for name in EVERY:
        assert re.sub(" +", " ", printable(name)) in cells


def test_in_a_browser_no_script_runs(html):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.context.set_offline(True)
        page.set_default_timeout(120_000)
        for name in SCRIPTED:
            page.goto((html / "book" / "executed" / f"{name}.html").as_uri())
            page.evaluate("async () => { if (window.MathJax?.startup) await MathJax.startup.promise }")
            page.evaluate(
                "() => document.querySelectorAll('article *').forEach(e => e.dispatchEvent(new Event('mouseover')))"
            )
            assert page.evaluate("window.broken") is None
            assert page.evaluate("document.querySelectorAll('article mjx-container').length") == 0, (
                "a name became a formula"
            )
        page.evaluate(hostile.SCRIPT)
        assert page.evaluate("window.broken") == 1, "the script would leave its mark"
        browser.close()
