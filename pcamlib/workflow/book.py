"""The rendered book: executed notebooks, generated pages, a strict build."""

from __future__ import annotations

import ast
import contextlib
import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcamlib.core.errors import StudyError
from pcamlib.core.files import OWNER, atomic, disk_full_as_error, lock, project_root, read_json
from pcamlib.core.settings import Profile
from pcamlib.metrics import agreement
from pcamlib.report import answer_page, claim_table, plan_page, published_page, recompute
from pcamlib.results import frame, intervals, load
from pcamlib.results.published import published_runs
from pcamlib.workflow import contents

UNFINISHED = "unfinished"  # file in _build/ while a build runs: found by the next, it means a full build


def executed(run: Path, subsets: int) -> dict[str, Path]:
    """The executed notebooks the book shows, by their name there: subset 0's, and the results over all subsets."""
    found = {
        path.name: path
        for path in sorted((run / "subset-0" / "notebooks").glob("0*.ipynb"))
        if ".failed" not in path.name
    }
    return found | {"08_results.ipynb": run / "notebooks" / f"08_results-{subsets}.ipynb"}


# jupyter-book, which ends with the process that started it
JUPYTER_BOOK = "from pcamlib.core.files import die_with_owner as d; d(); from jupyter_book.cli.main import main; main()"


def need_jupyter_book() -> None:
    """Raise StudyError if Jupyter Book is not installed."""
    if not importlib.util.find_spec("jupyter_book"):
        raise StudyError(
            "jupyter-book is not installed: install the extra 'book' (pip install -c requirements.lock -e '.[book]')."
        )


def build_book(run: Path, subsets: int, root: Path) -> Path:
    """Render the book that lies in `root` (_config.yml, _toc.yml, book/) with a run's notebooks; returns its index
    page.

    Strict: any warning of Sphinx is an error. Raises StudyError if the build fails, if the disk is full, or if another
    process builds the same book. After a build that was killed or failed, the next one starts from nothing.
    """
    need_jupyter_book()
    with _one_at_a_time(root):
        collect_pages(run, subsets, root / "book" / "executed", root / "book" / "reference")
        return render(root, contents.follow(root))


@contextlib.contextmanager
def _one_at_a_time(root: Path) -> Any:
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock(root / "_build"))
        except StudyError as error:
            if "in use" not in str(error):
                raise
            raise StudyError(f"another process builds the book in {root}: wait until it ends.") from None
        yield


def collect_pages(run: Path, subsets: int, target: Path, published: Path) -> None:
    """Put a run's executed notebooks, without absolute paths, and the generated pages into the folder `target`.

    Files that are the same already keep their time, and Sphinx does not read them again.
    """
    files = {device: intervals.path_of(run, subsets, device) for device in frame.DEVICES}
    kept = {device: read_json(path) for device, path in files.items() if path.exists()}
    own = load(run, subsets)
    pages: dict[str, str | bytes] = {
        "agreement.md": agreement.page(),
        "answer.md": answer_page.page(published),
        "claims.md": claim_table.page(claim_table.sources(own, published_runs(published), _profile(run))),
        "recompute.md": recompute.page(published),
        "registration.md": plan_page.page(published),
        "reference.md": published_page.page(own, kept, published),
    }
    pages |= answer_page.pictures(published)
    notebooks = executed(run, subsets)
    stems = {source.stem for source in notebooks.values()}
    for name, source in notebooks.items():
        notebook = contents.with_title(without_paths(read_json(source), run), source.stem)
        notebook = contents.told_once(notebook, source.stem, stems)
        pages[name] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    target.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in target.iterdir() if path.suffix in (".ipynb", ".png")} - set(pages):
        (target / stale).unlink()
    for name, content in pages.items():
        page, written = target / name, content.encode() if isinstance(content, str) else content
        if not page.exists() or page.read_bytes() != written:
            with atomic(page) as tmp_path:
                tmp_path.write_bytes(written)


def _profile(run: Path) -> Profile | None:
    """The settings of a run; None if another version wrote them, which the page of claims then says."""
    try:
        return Profile.model_validate(read_json(run / "study.json")["settings"])
    except (KeyError, TypeError, ValueError):
        return None


def _absolute(value: Any) -> set[Path]:
    """Every absolute path that is a text in `value`, of JSON's kinds."""
    if isinstance(value, str):
        return {Path(value)} if os.path.isabs(value) else set()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(_absolute, parts))


def without_paths(notebook: dict[str, Any], run: Path) -> dict[str, Any]:
    """An executed notebook (JSON) whose texts name folders of this machine without what lies above them.

    /home/me/runs/pcam-demo/subset-0 becomes runs/pcam-demo/subset-0, and the data folder /disk/pcam becomes pcam.
    """
    folders = {run.parent, project_root(), Path(sys.prefix), Path(os.path.expanduser("~"))}
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            values = (node.value for node in ast.parse("".join(cell["source"])).body if isinstance(node, ast.Assign))
            given = [ast.literal_eval(value) for value in values]
            folders |= {Path(value) for value in given if isinstance(value, str) and os.path.isabs(value)}
    if (study := run / "study.json").exists():  # its settings name weights and folders of images
        folders |= _absolute(read_json(study))
    # a link and what it points to
    names = {str(path): path.name for folder in folders for path in (folder, folder.resolve()) if path.name}
    # the longest first, so that a folder in another keeps its own name; whole paths only, and no HTML end tags
    known = "|".join(re.escape(path) for path in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.~<-])(?:{known})(?![\w.-])")

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda match: names[match[0]], value)
        if isinstance(value, list):
            return [clean(part) for part in value]
        return {key: clean(part) for key, part in value.items()} if isinstance(value, dict) else value

    for cell in notebook["cells"]:
        cell["source"] = clean(cell["source"])
        for output in cell.get("outputs", []):
            for kind, value in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    output["data"][kind] = clean(value)
            if "text" in output:
                output["text"] = clean(output["text"])
    return notebook


def render(root: Path, options: Sequence[str] = ()) -> Path:
    """Build the Jupyter Book in `root` strictly, with further `options` of its command, and return its index page.

    While it runs, a file marks the build as unfinished; it goes when the build has succeeded. A build that finds the
    mark removes what is there and renders every page again. Raises StudyError, with the first complaint, if the build
    fails.
    """
    build = root / "_build"
    index, mark, log = build / "html" / "index.html", build / UNFINISHED, build / "build.log"
    try:
        with disk_full_as_error(build):
            if mark.exists():
                for name in ("html", ".doctrees"):
                    shutil.rmtree(build / name, ignore_errors=True)
            build.mkdir(exist_ok=True)
            mark.touch()
    except OSError as error:
        raise StudyError(
            f"the book cannot be written to {build} ({error.strerror}): build it in a checkout that can be written."
        ) from None
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root), "-n", "-W", "--keep-going", *options]
    path = os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {OWNER: str(os.getpid()), "PYTHONPATH": path}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    done = subprocess.run(command, env=environment, **output)
    with contextlib.suppress(OSError):
        log.write_text(done.stdout, encoding="utf-8")
    if done.returncode or not index.exists():
        full = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT)]
        if reason := next((text for text in full if text in done.stdout), None):
            raise StudyError(
                f"no room to build the book in {build} ({reason}): free some space and run the same command again."
            )
        plain = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)  # Sphinx colours what it complains of
        lines = [line.strip() for line in plain.splitlines() if line.strip()]
        levels = ("CRITICAL", "ERROR", "WARNING")
        complaints = [line for level in levels for line in lines if level in line] or lines[-1:]
        raise StudyError(f"the book was not built, see {log}: {(complaints or ['nothing was printed'])[0]}")
    mark.unlink()
    return index
