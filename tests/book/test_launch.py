"""One setting puts a button on every executed chapter that opens its notebook on Binder; without it there is none."""

import os
import re
import subprocess
import sys

import launch
import pytest
import yaml

from pcamlib.core.files import project_root

REPOSITORY = "https://github.com/someone/pcam.study"


def test_addresses():
    binder = "https://mybinder.org/v2/gh/someone/pcam.study/HEAD?urlpath=lab/tree/notebooks"
    for page, name in {
        "01_dataset": "01_dataset",
        "03_diffusion_unet": "03_diffusion",
        "08_results": "08_results",
    }.items():
        assert launch.address(REPOSITORY, f"book/executed/{page}") == (binder, f"{name}.md")
        assert (project_root() / "notebooks" / f"{name}.md").exists()
    assert launch.address(REPOSITORY + ".git", "book/executed/04_histogan") == (binder, "04_histogan.md")
    assert launch.address(REPOSITORY, "book/index") is launch.address(REPOSITORY, "book/executed/answer") is None


def test_a_double_click_opens_a_notebook_on_binder(tmp_path):
    """What repo2docker runs, with a Python of its own prefix."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\necho {tmp_path}\n")
    python.chmod(0o755)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([project_root() / "postBuild"], cwd=project_root(), env=os.environ | {"PATH": path}, check=True)
    placed = tmp_path / "etc" / "jupyter" / "labconfig" / "default_setting_overrides.json"
    assert placed.read_bytes() == (project_root() / "lab" / "labconfig" / placed.name).read_bytes()


@pytest.mark.parametrize(
    "wrong", ["github.com/a/b", "https://github.com/a", "https://example.org/a/b", "https://github.com/a/b c"]
)
def test_what_is_no_repository_is_refused(wrong):
    with pytest.raises(ValueError, match="give https://github.com/OWNER/NAME"):
        launch.address(wrong, "book/executed/01_dataset")


def test_the_book_has_the_setting_and_it_is_off():
    sphinx = yaml.safe_load((project_root() / "_config.yml").read_text())["sphinx"]
    assert sphinx["local_extensions"]["launch"] == "book/_ext" and sphinx["config"]["launch_repository"] == ""


@pytest.mark.parametrize("setting, buttons", [(REPOSITORY, 1), ("", 0)])
def test_a_page_with_the_theme_has_the_button(tmp_path, setting, buttons):
    pytest.importorskip("sphinx_book_theme")
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.append({str(project_root() / 'book' / '_ext')!r})\n"
        f"extensions = ['launch']\nhtml_theme = 'sphinx_book_theme'\nlaunch_repository = {setting!r}\n"
    )
    chapter = tmp_path / "book" / "executed" / "03_diffusion_dit.rst"
    chapter.parent.mkdir(parents=True)
    chapter.write_text("Chapter\n=======\n")
    (tmp_path / "index.rst").write_text("Book\n====\n\n.. toctree::\n\n   book/executed/03_diffusion_dit\n")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(tmp_path), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    link = re.escape(launch.address(REPOSITORY, "book/executed/03_diffusion_dit")[0])
    page = (tmp_path / "html" / "book" / "executed" / "03_diffusion_dit.html").read_text()
    assert len(re.findall(f'<a href="{link}"', page)) == buttons
    assert "mybinder" not in (tmp_path / "html" / "index.html").read_text()
