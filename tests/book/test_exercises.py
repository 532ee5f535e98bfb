"""Every chapter keeps its contract, and the code of every solution runs on a finished study and is right."""

import ast
import os
import re
import shutil
import sys
import types

import jupytext
import matplotlib
import pytest

from pcamlib.core.files import project_root
from pcamlib.workflow.notebook import parameters

NOTEBOOKS = sorted((project_root() / "notebooks").glob("0*.md"))
NAMES = [path.stem for path in NOTEBOOKS]
CONTRACT = ["You will learn", "You need first", "Time", "In the paper"]
SOLUTION = re.compile(r"^:::\{dropdown\} Solution\n(.*?)^:::$", re.M | re.S)
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
VARIANTS = [(stem, {}) for stem in NAMES if stem != "08_results"] + [
    ("08_results", {"subsets": 1}),
    ("03_diffusion", {"backbone": "dit"}),
    ("05_selection", {"generator": "histogan"}),
    ("07_classification", {"generator": "unet"}),
]


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_chapter_keeps_its_contract(path):
    notebook = jupytext.read(path)
    first = notebook.cells[0].source
    assert first.startswith(f"# Notebook {path.stem[:2]}: ")
    assert re.findall(r"^\| \*\*(.+?)\*\* \| .+ \|$", first, re.M) == CONTRACT
    assert "§" in first.split("**In the paper**")[1] and "minutes to read" in first
    text = prose(notebook)
    order = [text.index(f"\n## {title}\n") for title in ("Change this and run again", "Summary", "Exercises")]
    assert order == sorted(order) and text.rindex("**What comes next.**") > order[-1]
    exercises = re.split(r"^### Exercise ", text[order[-1] :], flags=re.M)[1:]
    assert len(exercises) >= 3
    for number, exercise in enumerate(exercises, 1):
        assert exercise.startswith(f"{int(path.stem[:2])}.{number}: ")
        question, answer = exercise.split(":::{dropdown} Solution", 1)
        assert question.strip() and answer.strip() and len(SOLUTION.findall(exercise)) == 1
    tagged = [cell for cell in notebook.cells if "change-this" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and "write_result" not in tagged[0].source


def test_solutions_claim_something():
    """A solution with code ends in assertions; of each chapter at least three have code."""
    for path in NOTEBOOKS:
        codes = ["".join(CODE.findall(solution)) for solution in SOLUTION.findall(prose(jupytext.read(path)))]
        codes = [code for code in codes if code]
        assert len(codes) >= 3, path
        for code in codes:
            assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code))), f"{path}:\n{code}"


@pytest.fixture(scope="module")
def copy(smoke, tmp_path_factory):
    """runs_dir of a copy of the smoke run (hard links: whatever writes renames), for notebooks to run on again."""
    _, finished, _ = smoke
    runs = tmp_path_factory.mktemp("exercises") / "runs"
    shutil.copytree(finished, runs / finished.name, copy_function=os.link)
    return runs


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("stem, given", VARIANTS, ids=["-".join([s, *map(str, g.values())]) for s, g in VARIANTS])
def test_solutions_are_right(copy, monkeypatch, stem, given):
    """Cells of the notebook, in order, in one namespace; then each solution in a copy of it. Nothing is written
    anew."""
    monkeypatch.chdir(project_root())
    notebook = jupytext.read(project_root() / "notebooks" / f"{stem}.md")
    module = types.ModuleType("__main__")  # inspect.getsource and pickling look a class's module up
    monkeypatch.setitem(sys.modules, "notebook_under_test", module)
    namespace = module.__dict__
    changed = {"runs_dir": str(copy), "profile": "smoke"} | given
    assert set(changed) <= set(parameters(notebook, stem))
    with matplotlib.rc_context():
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            tags = cell.metadata.get("tags", [])
            before = files(copy) if "change-this" in tags else None
            exec(compile(cell.source, f"{stem}: cell", "exec"), namespace)
            if "parameters" in tags:
                namespace.update(changed)
            if before is not None:
                assert files(copy) == before, f"{stem}: the cell to change writes over the study"
        before = files(copy)
        for number, solution in enumerate(SOLUTION.findall(prose(notebook)), 1):
            code = "\n".join(CODE.findall(solution))
            exec(compile(code, f"{stem}: solution {number}", "exec"), dict(namespace))
        assert files(copy) == before, f"{stem}: a solution writes over the study"


@pytest.mark.slow
@pytest.mark.parametrize("name, count", [("labs", 6), ("power", 3), ("conclusion", 1)])
def test_pages_with_code_run_from_top_to_bottom(name, count):
    """The blocks of a page, in order, in one namespace; every exercise and every part with code claims something."""
    text = (project_root() / "book" / f"{name}.md").read_text(encoding="utf-8")
    namespace = {}
    for code in CODE.findall(text):
        exec(compile(code, name, "exec"), namespace)
    exercises = re.split(r"^### Exercise ", text, flags=re.M)[1:]
    assert len(exercises) == count
    for exercise in exercises:
        (solution,) = SOLUTION.findall(exercise)
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse("".join(CODE.findall(solution)))))


def test_quoted_messages_are_said():
    """Troubleshooting quotes messages with … for what differs; every piece of one must stand in the source."""
    said = [(project_root() / "Makefile").read_text()]
    for path in (project_root() / "pcamlib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                said.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    page = (project_root() / "book" / "troubleshooting.md").read_text()
    quoted = re.findall(r"^\| `(.+?)` \|", page, re.M)
    assert len(quoted) > 30
    for message in quoted:
        pieces = [piece.strip(" ,:;'()") for piece in message.split("…")]
        assert any(all(piece in text for piece in pieces) for text in said), message
