"""The floors of pcamlib, checked by import-linter with the contracts in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pcamlib.core.files import project_root

pytest.importorskip("importlinter")


def lint(root: Path) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(root)})


def test_packages_import_only_lower_floors_and_no_circle():
    done = lint(project_root())
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module, line, broken",
    [
        ("core/paper.py", "from pcamlib.results import claims", "A package imports only lower floors BROKEN"),
        ("core/errors.py", "from pcamlib.core import files", "No circles between modules BROKEN"),
    ],
)
def test_an_upward_import_or_a_circle_is_reported(tmp_path, module, line, broken):
    shutil.copytree(project_root() / "pcamlib", tmp_path / "pcamlib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(project_root() / "pyproject.toml", tmp_path)
    path = tmp_path / "pcamlib" / module
    path.write_text(path.read_text() + f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and broken in done.stdout, done.stdout
