"""The rendered book: a killed build is made again whole, a full disk is called that, two builds do not meet."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pytest
from PIL import Image

from pcamlib.core.errors import StudyError
from pcamlib.core.files import lock, project_root, write_json
from pcamlib.workflow import book

pytest.importorskip("jupyter_book")
RENDER = "import sys, pathlib; from pcamlib.workflow import book; book.render(pathlib.Path(sys.argv[1]))"


def tiny_book(root, text="As in {doc}`page0`."):
    """The sources of a book of a few pages and pictures."""
    (root / "book").mkdir(parents=True)
    (root / "_config.yml").write_text("title: t\nexecute: {execute_notebooks: 'off'}\nonly_build_toc_files: true\n")
    pages = [f"page{i}" for i in range(6)]
    chapters = "".join(f"- file: book/{page}\n" for page in pages)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{chapters}")
    rng = np.random.default_rng(0)
    for page in pages:
        Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(root / "book" / f"{page}.png")
        (root / "book" / f"{page}.md").write_text(f"# Title of {page}\n\n{text}\n\n![picture]({page}.png)\n")
    (root / "book" / "index.md").write_text("# T\n\nText.\n")
    return root


def content(root):
    """What a reader gets: each file of the built book. A page that is rendered again names style sheets with their
    hash."""
    files = (path for path in (root / "_build" / "html").rglob("*") if path.is_file())
    return {
        path.relative_to(root / "_build" / "html"): re.sub(rb"(mystnb\.\w+\.css)\?v=\w+", rb"\1", path.read_bytes())
        for path in files
        if path.name != ".buildinfo"
    }


def kill_builds(tmp_path, kills, seed):
    whole = tiny_book(tmp_path / "whole")
    started = time.monotonic()
    book.render(whole)
    seconds, expected, draw = time.monotonic() - started, content(whole), random.Random(seed)
    assert len(expected) > 50
    killed, places = tiny_book(tmp_path / "killed"), []
    environment = os.environ | {"PYTHONPATH": str(project_root())}
    while len(places) < kills:
        if draw.random() < 0.5:  # a page is edited, or nothing is
            (killed / "book" / "page3.md").touch()
        process = subprocess.Popen([sys.executable, "-c", RENDER, str(killed)], env=environment, start_new_session=True)
        mark = killed / "_build" / book.UNFINISHED
        while process.poll() is None and not mark.exists():
            time.sleep(0.01)
        moment = draw.uniform(0, seconds)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            continue
        places.append(moment)
        if draw.random() < 0.3:
            continue  # killed twice before it can finish
        book.render(killed)
        assert content(killed) == expected, f"killed after {moment:.2f} s of {seconds:.2f} s (seed {seed})"
    book.render(killed)
    assert content(killed) == expected
    return places


@pytest.mark.slow
def test_a_killed_build_is_made_again_whole(tmp_path):
    kill_builds(tmp_path, 2, seed=0)


@pytest.mark.torture
def test_many_killed_builds_are_made_again_whole(tmp_path):
    places = kill_builds(tmp_path, 50, seed=1)
    print(f"50 kills after {min(places):.1f} to {max(places):.1f} s")


@pytest.mark.slow
def test_a_failed_build_fails_again_and_its_process_is_not_alone(tmp_path):
    root = tiny_book(tmp_path, text="As in {doc}`nowhere`.")
    for _ in range(2):  # Sphinx by itself would warn only of pages that it reads again
        with pytest.raises(StudyError, match="the book was not built, see .*build.log: .*nowhere"):
            book.render(root)
    assert (root / "_build" / book.UNFINISHED).exists()


@pytest.fixture
def a_run(tmp_path, monkeypatch):
    """A run folder with nothing in it, for which collect_pages has nothing to do."""
    monkeypatch.setattr(book, "collect_pages", lambda *args: None)
    (tmp_path / "_toc.yml").write_text("parts: []\n")
    return tmp_path / "run"


def test_two_builds_of_one_book_do_not_meet(a_run, tmp_path):
    with lock(tmp_path / "_build"), pytest.raises(StudyError, match="another process builds the book in"):
        book.build_book(a_run, 1, tmp_path)


def test_a_full_disk_is_called_that(a_run, tmp_path, monkeypatch):
    script = "print('OSError: [Errno 28] No space left on device: a.html'); raise SystemExit(1)"
    monkeypatch.setattr(book, "JUPYTER_BOOK", script)
    with pytest.raises(StudyError, match="no room to build the book in .*: free some space and run the same command"):
        book.build_book(a_run, 1, tmp_path)
    monkeypatch.setattr(book, "JUPYTER_BOOK", "print('x\\na CRITICAL problem\\na WARNING'); raise SystemExit(1)")
    with pytest.raises(StudyError, match="see .*build.log: a CRITICAL problem"):
        book.build_book(a_run, 1, tmp_path)


def executed_notebook(run, data):
    output = nbformat.v4.new_output
    cell = nbformat.v4.new_code_cell(
        f"data_root = '{data}'  # patches\nruns_dir = '{run.parent}'  # runs\nsubset = 0  # k"
    )
    cell.metadata["tags"] = ["parameters"]
    shown = nbformat.v4.new_code_cell("show()")
    shown.outputs = [
        output("stream", text=f"wrote {run}/subset-0/unet and {data}/y.h5\n"),
        output("display_data", {"text/html": f"<p>{run}</p>", "text/plain": str(data), "image/png": "iVBORw0KGgo="}),
    ]
    return nbformat.v4.new_notebook(cells=[cell, shown])


def test_the_books_notebooks_name_folders_without_their_place(tmp_path):
    run, data = tmp_path / "runs" / "pcam-demo", tmp_path / "disk" / "pcam"
    cleaned = book.without_paths(executed_notebook(run, data), run)
    text = nbformat.writes(cleaned)
    assert str(tmp_path) not in text
    assert cleaned.cells[0].source == "data_root = 'pcam'  # patches\nruns_dir = 'runs'  # runs\nsubset = 0  # k"
    assert cleaned.cells[1].outputs[0].text == "wrote runs/pcam-demo/subset-0/unet and pcam/y.h5\n"
    assert cleaned.cells[1].outputs[1].data["text/html"] == "<p>runs/pcam-demo</p>"


def test_files_that_the_profile_names_lose_their_place_too(tmp_path):
    run, weights = tmp_path / "runs" / "r", tmp_path / "models" / "resnet.pth"
    write_json(
        run / "study.json", {"settings": {"a": {"pretrained": str(weights)}, "generators": [{"images": "/x/mine"}]}}
    )
    notebook = executed_notebook(run, tmp_path / "pcam")
    notebook.cells[1].outputs[0].text = f"weights {weights}, images /x/mine/0.png"
    assert book.without_paths(notebook, run).cells[1].outputs[0].text == "weights resnet.pth, images mine/0.png"


def test_a_short_path_leaves_other_words_and_end_tags_alone(tmp_path):
    notebook = executed_notebook(tmp_path / "runs" / "r", "/p")
    notebook.cells[1].outputs[0].text = "either/p or </p> and /p2, but /p and /p/x"
    assert (
        book.without_paths(notebook, tmp_path / "runs" / "r").cells[1].outputs[0].text
        == "either/p or </p> and /p2, but p and p/x"
    )


def test_a_built_book_does_not_say_where_it_was_made(smoke_book, smoke):
    """Pages, their sources and the search index, against the folders of the run, of the data and of this checkout."""
    _, run, _ = smoke
    places = [str(run.parent), str(project_root())]
    for path in smoke_book.parent.rglob("*"):
        if path.suffix in (".html", ".ipynb", ".md", ".txt", ".js", ".json", ".inv"):
            text = path.read_text(errors="replace")
            assert not [place for place in places if re.search(re.escape(place) + r"\b", text)], path
