"""What the repository promises about itself: pins, environment, files named in the README, no artefacts in git."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from pcamlib.core.files import project_root
from pcamlib.core.settings import profile_names
from pcamlib.workflow.export import LARGEST

ROOT = project_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement):
    return re.split(r"[<>=!~ ;\[]", requirement)[0].lower().replace("_", "-")


def test_every_requirement_is_pinned_within_its_range():
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements.lock").read_text().split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in lines), "name==version only, no addresses"
    pins = {name_of(line): line.split("==")[1] for line in lines}
    wanted = PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[name_of(requirement.name)]), requirement


def test_environment_yml_is_in_step():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, steps = content["dependencies"]
    version = python.removeprefix("python=")
    from packaging.specifiers import SpecifierSet

    assert pip == "pip" and SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert steps["pip"][0] == "--constraint requirements.lock"
    makefile = (ROOT / "Makefile").read_text()
    extras = re.search(r"--editable '(\.\[.*?\])'", makefile).group(1)
    assert steps["pip"][1] == f"--editable {extras}" and steps["pip"][2:] == []
    assert set(extras[2:-1].split(",")) <= set(PROJECT["optional-dependencies"])


def test_paths_and_commands_the_readme_names_exist():
    readme = (ROOT / "README.md").read_text()
    for path in re.findall(r"`((?:notebooks|pcamlib|book|benchmarks|tests)/[\w./-]+)`", readme):
        made = "executed" in path
        assert made or (ROOT / path).exists(), path
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake (\w+)", readme)) <= targets
    for profile in re.findall(r"PROFILE=([\w.]+)", readme):
        assert profile in profile_names() or profile.endswith(".yml")


def test_the_joss_paper_is_complete():
    """https://joss.readthedocs.io/en/latest/paper.html: 750 to 1,750 words, these sections, and references that
    exist."""
    _, head, body = (ROOT / "paper.md").read_text(encoding="utf-8").split("---\n", 2)
    head, citation = yaml.safe_load(head), yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert [author["name"] for author in head["authors"]] == [author["name"] for author in citation["authors"]]
    assert {"title", "tags", "affiliations", "date"} <= set(head)
    assert 750 <= len(body.split()) <= 1500
    sections = re.findall(r"^# (.+)$", body, re.M)
    assert sections[:4] == ["Summary", "Statement of need", "State of the field", "Functionality"]
    assert sections[-1] == "References"
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / head["bibliography"]).read_text(encoding="utf-8"), re.M))
    cited = set(re.findall(r"@([a-z]+\d{4}\w*)", body))
    assert len(cited) > 10 and cited <= known


def test_git_holds_sources_only():
    try:
        files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )[:-1]
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    weights = [f for f in files if f.startswith("book/reference/generators/")]
    others = [f for f in files if f not in weights]
    assert not [f for f in others if f.endswith((".ipynb", ".h5", ".pth", ".safetensors"))]
    assert {Path(f).suffix for f in weights} <= {".safetensors", ".json", ".md"}
    for part, largest in ((others, 1_000_000), (weights, LARGEST)):
        assert not [f for f in part if (ROOT / f).exists() and (ROOT / f).stat().st_size > largest]


def test_every_page_is_in_the_sidebar_and_every_module_in_the_reference():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    chapters += [section for chapter in chapters for section in chapter.get("sections", [])]
    listed = {toc["root"], *(chapter["file"] for chapter in chapters)}
    pages = {p.relative_to(ROOT).with_suffix("").as_posix() for p in (ROOT / "book").rglob("*.md")}
    pages = {p for p in pages if not p.startswith("book/reference/generators/")}  # cards of weights
    assert {p for p in listed if "executed" not in p} == {p for p in pages if "executed" not in p}
    reference = "".join(p.read_text() for p in (ROOT / "book" / "api").glob("*.md"))
    documented = re.findall(r"^\.\. automodule:: (pcamlib[\w.]+)$", reference, re.M)
    modules = {
        p.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for p in (ROOT / "pcamlib").rglob("*.py")
        if not p.stem.startswith("__")
    }
    assert sorted(documented) == sorted(modules), "each module belongs on one page of book/api"
