"""The rendered book: executed notebooks, generated pages, a strict build."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, read_json
from pcamlib.metrics import agreement
from pcamlib.report import published_page
from pcamlib.results import frame


def executed(run: Path, subsets: int) -> dict[str, Path]:
    """The executed notebooks the book shows, by their name there: subset 0's, and the results over all subsets."""
    found = {
        path.name: path
        for path in sorted((run / "subset-0" / "notebooks").glob("0*.ipynb"))
        if ".failed" not in path.name
    }
    return found | {"08_results.ipynb": run / "notebooks" / f"08_results-{subsets}.ipynb"}


def build_book(run: Path, subsets: int, root: Path) -> Path:
    """Render the book that lies in `root` (_config.yml, _toc.yml, book/) with a run's notebooks; returns its index page.

    Strict: any warning of Sphinx is an error. Raises StudyError if the build fails.
    """
    target = root / "book" / "executed"
    target.mkdir(parents=True, exist_ok=True)
    wanted = executed(run, subsets)
    for stale in {path.name for path in target.glob("*.ipynb")} - set(wanted):
        (target / stale).unlink()
    for name, source in wanted.items():
        # untouched files keep their time, and Sphinx does not read them again
        if not (target / name).exists() or not filecmp.cmp(source, target / name, shallow=False):
            with atomic(target / name) as tmp_path:
                shutil.copyfile(source, tmp_path)
    rows, drawn = frame.collect(run, subsets), run / "results" / f"bootstrap-{subsets}.json"
    beside = published_page.page(rows, read_json(drawn) if drawn.exists() else None, root / "book" / "reference")
    for name, text in (("agreement", agreement.page()), ("reference", beside)):
        page = target / f"{name}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            with atomic(page) as tmp_path:
                tmp_path.write_text(text, encoding="utf-8")
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    if not jupyter_book.exists():
        raise StudyError(
            "jupyter-book is not installed: install the extra 'book' (pip install -c requirements.lock -e '.[book]')."
        )
    log = root / "_build" / "build.log"
    log.parent.mkdir(exist_ok=True)
    with open(log, "w") as f:
        command = [str(jupyter_book), "build", str(root), "-n", "-W", "--keep-going"]
        code = subprocess.run(command, stdout=f, stderr=subprocess.STDOUT).returncode
    index = root / "_build" / "html" / "index.html"
    if code or not index.exists():
        complaints = [line for line in log.read_text().splitlines() if "WARNING" in line or "ERROR" in line]
        raise StudyError(f"the book was not built, see {log}: {(complaints or ['no warning was printed'])[0].strip()}")
    return index
