"""Sphinx extension: the book's JavaScript comes from installed packages, so that it opens from disk with no network.

MathJax 3 lies in `sphinx-mathjax-offline`, the widgets of the installed ipywidgets in `widgetsnbextension`. Only what
a page loads is copied into the book's `_static`; `book/_static/widgets.js` shows a page's widgets without a kernel.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FILES = {
    "mathjax/tex-mml-chtml.js": ("sphinx-mathjax-offline", "static/mathjax/tex-mml-chtml.js"),
    "mathjax/output/chtml/fonts": ("sphinx-mathjax-offline", "static/mathjax/output/chtml/fonts"),
    "mathjax/input/tex/extensions": ("sphinx-mathjax-offline", "static/mathjax/input/tex/extensions"),
    "jupyter-widgets.js": ("widgetsnbextension", "static/extension.js"),
}
"""Path under the book's `_static`: package, and file or folder in it."""


def source(package: str, path: str) -> Path:
    """Where a file or folder of an installed package lies. FileNotFoundError, naming the package, if it is not
    there."""
    spec = importlib.util.find_spec(package)
    found = Path(spec.origin).parent / path if spec and spec.origin else None
    if found is None or not found.exists():
        raise FileNotFoundError(f"the book needs {path} of the package {package}: install the extra 'book'.")
    return found


def copy(app: Sphinx) -> None:
    from sphinx.util.fileutil import copy_asset

    for target, place in FILES.items():
        path, to = source(*place), Path(app.outdir, "_static", target)
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            copy_asset(str(path), str(to))
        else:
            to.write_bytes(path.read_bytes())


def without_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Leave out sphinx-thebe's scripts, which Jupyter Book adds twice, an error in every page: nothing here uses
    them."""
    context["script_files"] = [
        file
        for file in context.get("script_files", [])
        if "thebe" not in f"{file.filename} {file.attributes.get('body', '')}".lower()
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.config.mathjax_path = "mathjax/tex-mml-chtml.js"
    app.connect("builder-inited", copy)
    app.connect("html-page-context", without_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
