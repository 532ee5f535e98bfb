"""The strict runner, and that plain papermill runs the same notebooks."""

import subprocess
import sys
import time

import jupytext
import nbformat
import papermill
import pytest

from pcamlib import cli
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root
from pcamlib.workflow import notebook

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.md"))

TEXT = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A page

```{code-cell} ipython3
:tags: [parameters]

count = 2  # how often
name = "a"  # a name
rate = 0.5  # a rate
```

```{code-cell} ipython3
import sys
print(name * count, rate, sys.executable)
```

```{code-cell} ipython3
if count > 5:
    from pcamlib.core.errors import StudyError
    raise StudyError("count is too large: take less.")
```
"""


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(TEXT)
    return path


def outputs(path):
    return "".join(o.get("text", "") for c in nbformat.read(path, 4).cells for o in c.get("outputs", []))


def test_parameters_arrive_in_their_types_under_this_interpreter(page, tmp_path):
    out = notebook.run(page, tmp_path / "out.ipynb", {"count": "3", "name": "7"})
    assert outputs(out) == f"777 0.5 {sys.executable}\n"
    cells = nbformat.read(out, 4).cells
    assert [c.source for c in cells if "parameters" in " ".join(c.metadata.get("tags", []))] == [
        "count = 3  # how often\nname = '7'  # a name\nrate = 0.5  # a rate"
    ], "the page shows the values of this run"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.ipynb", "page.md"]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"cuont": "3"}, "no parameter 'cuont': did you mean 'count'. It has: count, name, rate"),
        ({"count": "three"}, "'count' must be int like 2, got 'three'"),
        ({"count": "3.5"}, "'count' must be int"),
        ({"rate": "__import__('os').system('true')"}, "'rate' must be float"),
    ],
)
def test_wrong_parameters_stop_before_anything_runs(page, tmp_path, given, message):
    with pytest.raises(StudyError, match=message):
        notebook.run(page, tmp_path / "out.ipynb", given)
    assert not (tmp_path / "out.ipynb").exists()


def test_places_that_are_none_end_in_a_sentence(page, tmp_path):
    with pytest.raises(StudyError, match="is no path"):
        notebook.run("x" * 300, tmp_path / "out.ipynb")
    with pytest.raises(StudyError, match="cannot be written"):
        notebook.run(page, page / "below" / "out.ipynb")
    (tmp_path / "page.json").write_text("no notebook")
    with pytest.raises(StudyError, match="page.json cannot be read"):
        notebook.run(tmp_path / "page.json", tmp_path / "out.ipynb")


def test_the_notebook_itself_and_other_files_are_never_overwritten(page, tmp_path, capsys):
    (tmp_path / "notes.md").write_text("notes")
    (tmp_path / "folder.ipynb").mkdir()
    for out in ("page.md", "notes.md", "out", "folder.ipynb"):
        with pytest.raises(StudyError, match="give a file name that ends in .ipynb"):
            notebook.run(page, tmp_path / out)
    source, link = tmp_path / "source.ipynb", tmp_path / "link.ipynb"
    jupytext.write(jupytext.read(page), source)
    link.symlink_to(source)
    before = source.read_bytes()
    for out in (source, link):
        with pytest.raises(StudyError, match="is the notebook itself: give another file"):
            notebook.run(source, out)
    assert page.read_text() == TEXT and (tmp_path / "notes.md").read_text() == "notes" and source.read_bytes() == before
    assert cli.main(["run", str(page), str(tmp_path / "out.ipynb"), "-p", "count", "1", "-p", "count", "2"]) == 2
    assert capsys.readouterr().err == "error: parameter 'count' is given twice: give it once.\n"


def test_of_two_runs_that_write_one_file_the_second_is_refused(page, tmp_path):
    page.write_text(TEXT.replace("print(", "import time; time.sleep(count)\nprint("))
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "pcamlib", "run", str(page), str(out), "-p", "count", "4"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=project_root())
    while not (tmp_path / ".out.out.ipynb").exists():
        assert first.poll() is None
        time.sleep(0.05)
    with pytest.raises(StudyError, match="another process is writing .*out.ipynb: wait until it ends"):
        notebook.run(page, out)
    assert first.wait() == 0 and "aaaa" in outputs(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.ipynb", "page.md"]


def test_a_kernel_that_dies_is_one_sentence(page, tmp_path):
    page.write_text(TEXT.replace("print(name", "import os; os._exit(9)\nprint(name"))
    with pytest.raises(StudyError, match="page.md failed: Kernel died"):
        notebook.run(page, tmp_path / "out.ipynb")
    assert [p.name for p in tmp_path.iterdir()] == ["page.md"]


def test_a_failing_cell_fails_the_command_and_keeps_the_partial_notebook(page, tmp_path):
    command = [
        sys.executable,
        "-m",
        "pcamlib",
        "run",
        str(page),
        str(tmp_path / "out.ipynb"),
        "-p",
        "count",
        "6",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: page.md failed: count is too large: take less.")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.ipynb").exists()
    assert "aaaaaa 0.5" in outputs(tmp_path / "out.failed.ipynb")


def test_exactly_one_parameters_cell_of_literals(page, tmp_path):
    page.write_text(TEXT.replace(":tags: [parameters]\n", ""))
    with pytest.raises(StudyError, match="0 cells tagged 'parameters'"):
        notebook.run(page, tmp_path / "out.ipynb")
    page.write_text(TEXT.replace("count = 2", "count = len([])"))
    with pytest.raises(StudyError, match="only `name = literal` lines"):
        notebook.run(page, tmp_path / "out.ipynb")
    with pytest.raises(StudyError, match="does not exist"):
        notebook.run(tmp_path / "none.md", tmp_path / "out.ipynb")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_studys_notebooks_declare_commented_parameters(path):
    page = jupytext.read(path)
    known = notebook.parameters(page, path.name)
    assert list(known)[:3] == ["data_root", "runs_dir", "profile"] and "subset" in known
    cell = next(c for c in page.cells if "parameters" in c.metadata.get("tags", []))
    assert all("  # " in line for line in cell.source.splitlines()), "each parameter has a trailing comment"
    assert page.cells[0].source.startswith("# "), "a notebook begins with its title"
    assert not any(c.get("outputs") for c in page.cells)


def test_plain_papermill_runs_a_notebook_too(pcam, tmp_path):
    draft, out = tmp_path / "draft.ipynb", tmp_path / "out.ipynb"
    jupytext.write(jupytext.read(project_root() / "notebooks" / "01_dataset.md"), draft)
    parameters = {"data_root": str(pcam), "runs_dir": str(tmp_path / "runs"), "profile": "smoke", "subset": 1}
    with pytest.raises(papermill.PapermillExecutionError, match="subset 7 is out of range"):
        papermill.execute_notebook(draft, out, parameters | {"subset": 7}, progress_bar=False, cwd=tmp_path)
    papermill.execute_notebook(draft, out, parameters, progress_bar=False, cwd=tmp_path)
    assert (tmp_path / "runs" / "tiny-smoke" / "subset-1" / "results" / "dataset.json").exists()


def test_lines_of_progress_reach_the_terminal_and_not_the_page(tmp_path, capsys):
    line, warning = "subset-0/unet: 120/4000 steps, 2.10 steps/s, 30:47 left\n", "UserWarning: look here\n"
    progress = notebook.Progress()
    progress.write(line + warning)
    progress.flush()
    assert capsys.readouterr().err == line
    cell = nbformat.v4.new_code_cell("1")
    cell.outputs = [nbformat.v4.new_output("stream", name="stderr", text=text) for text in (line * 2, line + warning)]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "in.ipynb")
    notebook.tidy(tmp_path / "in.ipynb", tmp_path / "out.ipynb")
    assert outputs(tmp_path / "out.ipynb") == warning
