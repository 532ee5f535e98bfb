"""A disk without room, or without permission to write: one sentence, status 2, and nothing that is half written."""

import errno
import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from pcamlib import cli
from pcamlib.core.errors import StudyError
from pcamlib.workflow import book


@pytest.fixture
def disk(tmp_path):
    """disk(size, read_only): a folder on a file system of its own, of that size; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str, read_only: bool = False):
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
        ).returncode:
            pytest.skip("only root may mount the small disk this needs")
        if read_only:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", folder], capture_output=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two classes of 60 images each."""
    root, rng = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        for i in range(60):
            Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def commands(source, pcam, place):
    """What writes to `place`, by name."""
    return {
        "phantom": ["phantom", str(place / "phantom"), "--train", "64", "--valid", "16", "--test", "16"],
        "convert": ["data", "convert", str(source), str(place / "converted"), "--positive", "b"],
        "export pcam": ["data", "export", str(pcam), str(place / "pcam"), "--as", "pcam"],
        "export png": ["data", "export", str(pcam), str(place / "png"), "--as", "png"],
    }


@pytest.mark.parametrize("name", ["phantom", "convert", "export pcam", "export png"])
@pytest.mark.parametrize("read_only", [False, True], ids=["full", "read-only"])
def test_a_command_says_it_in_one_sentence_and_leaves_nothing_half_written(disk, source, pcam, capfd, name, read_only):
    place = disk("50m" if read_only else "600k", read_only)
    assert cli.main(commands(source, pcam, place)[name]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1 and said[-1] == errors[0] and "Traceback" not in "\n".join(said), said
    reasons = [os.strerror(errno.EROFS)] if read_only else [os.strerror(errno.ENOSPC), "no room to write", "make room"]
    assert any(reason in errors[0] for reason in reasons) and str(place) in errors[0]
    left = [path.relative_to(place) for path in place.rglob("*") if path.is_file() and path.name != ".lock"]
    if name == "phantom":  # it goes on from whole files: these are whole
        assert not [path for path in left if ".part" in str(path) or path.name.endswith("_x.h5")], left
    else:
        assert not list(place.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("read_only", [False, True], ids=["full", "read-only"])
def test_a_notebook_says_it_in_one_sentence(disk, tmp_path, capfd, read_only):
    place = disk("600k", read_only)
    run = ["run", "notebooks/01_dataset.md", str(tmp_path / "01.ipynb"), "-p", "profile", "smoke"]
    assert cli.main([*run, "-p", "runs_dir", str(place / "runs")]) == (2 if read_only else 0), "01 writes little"
    run[2] = str(place / "01.ipynb")
    assert cli.main([*run, "-p", "runs_dir", str(tmp_path / "runs")]) == 2
    said = capfd.readouterr().err
    assert os.strerror(errno.EROFS if read_only else errno.ENOSPC) in said and "Traceback" not in said
    assert not list(place.rglob("*.ipynb")) and not list(place.rglob("*.part"))


def tiny_book(root):
    (root / "book").mkdir(parents=True)
    (root / "_config.yml").write_text("title: t\nexecute: {execute_notebooks: 'off'}\nonly_build_toc_files: true\n")
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    (root / "book" / "index.md").write_text("# T\n\nText.\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("read_only", [False, True], ids=["full", "read-only"])
def test_the_book_says_it_in_one_sentence_and_is_built_whole_with_room(disk, tmp_path, read_only):
    pytest.importorskip("jupyter_book")
    root, place = tiny_book(tmp_path / "book"), disk("600k")
    (root / "_build").symlink_to(place)
    if read_only:
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    with pytest.raises(StudyError) as error:
        book.render(root)
    reason = os.strerror(errno.EROFS if read_only else errno.ENOSPC)
    assert reason in str(error.value) and "\n" not in str(error.value) and str(root / "_build") in str(error.value)
    subprocess.run(["mount", "-o", "remount,rw,size=200m", place], check=True)
    whole = tiny_book(tmp_path / "whole")
    pages = [
        {p.relative_to(r / "_build"): p for p in (r / "_build" / "html").rglob("*.html")}
        for r in (root, whole)
        if book.render(r)
    ]
    assert list(pages[0]) and set(pages[0]) == set(pages[1]) and not (place / book.UNFINISHED).exists()
