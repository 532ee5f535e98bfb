"""The book's chapters follow the notebooks that were run."""

import re
import shutil

import yaml

from pcamlib.core.files import project_root
from pcamlib.workflow import contents

TOC = yaml.safe_load((project_root() / "_toc.yml").read_text())


def entries(listed):
    return [found for entry in listed for found in (entry, *entries(entry.get("sections", [])))]


def chapters(toc):
    return [entry["file"] for part in toc["parts"] for entry in entries(part["chapters"])]


def notebooks(toc=TOC):
    names = [file.removeprefix("book/executed/") for file in chapters(toc) if file.startswith("book/executed/0")]
    return set(names)


def test_the_default_run_changes_nothing():
    assert contents.contents(TOC, notebooks()) == (TOC, {})


def test_other_generators_get_chapters_and_absent_ones_a_page_that_says_so():
    executed = {name for name in notebooks() if not name.endswith(("_unet", "_dit", "histogan"))}
    executed |= {f"{kind}_{name}" for kind in ("05_selection", "07_classification") for name in ("flow", "my_gan")}
    toc, pages = contents.contents(TOC, executed)
    assert set(chapters(TOC)) < set(chapters(toc)) and len(chapters(toc)) == len(chapters(TOC)) + 4
    files = chapters(toc)
    at = files.index("book/executed/05_selection_flow")
    assert (
        files[at - 1].startswith("book/executed/05_selection_") and files[at + 1] == "book/executed/05_selection_my_gan"
    )
    titles = {c["file"]: c.get("title") for part in toc["parts"] for c in entries(part["chapters"])}
    assert titles["book/executed/07_classification_flow"] == "07 Classification: Rectified flow"
    assert titles["book/executed/05_selection_my_gan"] == "05 Selection: my_gan"
    assert pages["05_selection_dit"] == f"# 05 Selection: DiT\n\n{contents.NOT_RUN}\n" and "04_histogan" in pages
    assert not set(pages) & executed


def test_pages_come_and_go_with_the_notebooks(tmp_path):
    target = tmp_path / "book" / "executed"
    target.mkdir(parents=True)
    shutil.copy(project_root() / "_toc.yml", tmp_path)
    for name in notebooks() - {"05_selection_dit"}:
        (target / f"{name}.ipynb").touch()
    assert contents.follow(tmp_path) == [] and (target / "05_selection_dit.md").exists()
    (target / "05_selection_dit.ipynb").touch()
    (target / "05_selection_flow.ipynb").touch()
    option, path = contents.follow(tmp_path)
    assert option == "--toc" and not (target / "05_selection_dit.md").exists()
    assert "book/executed/05_selection_flow" in chapters(yaml.safe_load(open(path)))


def test_a_table_without_notebooks_stays_as_it_is():
    toc = {"format": "jb-book", "root": "book/index"}
    assert contents.contents(toc, {"01_dataset", "05_selection_dit"}) == (toc, {})


def test_titles_tell_the_pages_of_a_notebook_apart():
    def title(name):
        cells = [{"cell_type": "markdown", "source": ["# Notebook 05: Selection\n", "\n", "# and text"]}]
        return "".join(contents.with_title({"cells": cells}, name)["cells"][0]["source"])

    assert title("05_selection_unet") == "# Notebook 05: Selection, U-Net\n\n# and text"
    assert title("05_selection_my_gan") == "# Notebook 05: Selection, my_gan\n\n# and text"
    assert title("07_classification_real").startswith("# Notebook 05: Selection, real patches\n")
    assert title("06_quality") == title("08_results-2") == "# Notebook 05: Selection\n\n# and text"


def test_the_same_exercises_stand_on_one_page_only():
    executed = {"03_diffusion_unet", "03_diffusion_dit", "06_quality", "07_classification_dit"}

    def told(name):
        text = "## Summary\n\n- one\n\n## Exercises\n\n### Exercise 3.1: A\n\n**What comes next.** The end."
        cells = [{"cell_type": "code", "source": [text]}, {"cell_type": "markdown", "source": [text]}]
        code, prose = contents.told_once({"cells": cells}, name, executed)["cells"]
        assert code["source"] == [text]
        return "".join(prose["source"])

    assert "Exercise 3.1" not in told("03_diffusion_dit") and told("03_diffusion_dit").endswith(
        "**What comes next.** The end."
    )
    assert "page {doc}`/book/executed/03_diffusion_unet`." in told("03_diffusion_dit")
    for name in ("03_diffusion_unet", "06_quality", "07_classification_dit", "08_results-2"):
        assert "Exercise 3.1" in told(name), "the page that others link to, and one whose main page was not run"


def test_sections_that_are_the_same_are_left_out_and_their_code_is_kept():
    def cell(kind, source):
        return {"cell_type": kind, "metadata": {"tags": ["hide-input"]}, "source": [source]}

    cells = [
        cell("markdown", "# Notebook 03"),
        cell("markdown", "## The denoiser\n\nIt learns."),
        cell("code", "a = 1"),
    ]
    cells += [cell("markdown", "More of it."), cell("markdown", "## Training\n\nNow."), cell("code", "b = a")]
    executed = {"03_diffusion_unet", "03_diffusion_dit"}
    found = contents.told_once({"cells": cells}, "03_diffusion_dit", executed)["cells"]
    assert ["".join(c["source"]).split(" is on")[0] for c in found] == [
        "# Notebook 03", "“The denoiser”", "a = 1", "## Training\n\nNow.", "b = a",
    ]  # fmt: skip
    assert [c["metadata"]["tags"] for c in found if c["cell_type"] == "code"] == [
        ["hide-input", "remove-cell"], ["hide-input"],
    ]  # fmt: skip
    headings = re.findall(r"^## (.+)$", (project_root() / "notebooks" / "03_diffusion.md").read_text(), re.M)
    assert set(contents.ONCE["03_diffusion"]) <= set(headings)


def test_every_notebook_that_runs_several_times_has_a_main_page():
    kinds = [name.rsplit("_", 1)[0] for name in notebooks()]
    assert set(contents.MAIN) == {kind for kind in kinds if kinds.count(kind) > 1}
    assert {f"{kind}_{name}" for kind, name in contents.MAIN.items()} <= notebooks()
