"""Sphinx extension: a button on every executed chapter that opens JupyterLab with the text notebooks on Binder.

One setting switches it on, `launch_repository` in `_config.yml` (under sphinx: config:), the address of the repository
on GitHub. The theme's own launch buttons cannot be used: they open the file that a page was made from, and executed
notebooks are not in the repository. JupyterLab opens in the folder of the notebooks and not with one of them, because
an address opens a text notebook as text; a double click, after `postBuild`, opens it as a notebook.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ADDRESS = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
CHAPTER = re.compile(r"book/executed/(\d\d_[a-z]+)(?:_[a-z]+)?")
"""The name of an executed chapter: that of its notebook, and what it was run for."""


def address(repository: str, page: str) -> tuple[str, str] | None:
    """Where Binder opens the notebooks, and the file name of a page's notebook; None for a page that is not a chapter.

    `repository` is https://github.com/OWNER/NAME, else ValueError.
    """
    found = ADDRESS.fullmatch(repository)
    if not found:
        raise ValueError(f"launch_repository is {repository!r}: give https://github.com/OWNER/NAME, or nothing.")
    chapter = CHAPTER.fullmatch(page)
    if not chapter:
        return None
    return f"https://mybinder.org/v2/gh/{found[1]}/{found[2]}/HEAD?urlpath=lab/tree/notebooks", f"{chapter[1]}.md"


def check(app: Sphinx, config: Any) -> None:
    """End a build whose setting is wrong before the first page."""
    from sphinx.errors import ConfigError

    if config.launch_repository:
        try:
            address(config.launch_repository, "")
        except ValueError as error:
            raise ConfigError(str(error)) from None


def add_button(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Put the button in front of the others."""
    if app.config.launch_repository and (found := address(app.config.launch_repository, page)):
        tooltip = f"Run on Binder: double-click {found[1]}"
        button = {"type": "link", "url": found[0], "tooltip": tooltip, "icon": "fas fa-rocket"}
        context["header_buttons"].insert(0, button)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("launch_repository", "", "html", types=[str])
    app.connect("config-inited", check)
    app.connect("html-page-context", add_button, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
