"""Text from outside (names of classes, folders and profiles, cards, results) as pages, tables and figures may show
it."""

from __future__ import annotations

import html
import re
import unicodedata

_MARKUP = re.compile(r"[\\`*{}\[\]<>|$&#~^]|(?<![^\W_])_|_(?![^\W_])")  # within a word "_" is no markup
PROGRESS = re.compile(r"\S+: *\d+/\d+ steps, .* left$")  # a line of `training.progress.Watch` when nobody watches
_AT_THE_START = re.compile(r"[-+=:%(]|\d+(?=[.)](?:\s|$))")


def printable(text: str) -> str:
    """`text` on one line: line breaks, control and formatting characters are written as escapes such as ``\\n``."""
    # Zs: blanks of other widths, which can be seen
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text)


def inert(text: object, form: str = "markdown") -> str:
    """`text` so that it is shown as it was written and nothing in it acts, on one line (see `printable`).

    form
        "markdown": for a line of Markdown or MyST, a cell of its tables included: no markup, HTML, role, directive,
        formula, list or fence. "code": the same as a code span (not within a table). "html": for the content of an
        element or a quoted attribute. "figure": for a text of matplotlib, which takes what stands between two dollar
        signs as a formula.

    Raises ValueError for another form. Each page escapes what it shows, and files keep what was given.
    """
    plain = printable(str(text))
    if form == "html":
        return html.escape(plain)
    if form == "figure":
        return plain.replace("$", r"\$")
    if form == "code":
        fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
        pad = " " if plain[:1] in ("`", " ", "") or plain[-1:] in ("`", " ") else ""
        return f"{fence}{pad}{plain}{pad}{fence}"
    if form != "markdown":
        raise ValueError(f'form is {form!r}: give "markdown", "code", "html" or "figure"')
    line = _MARKUP.sub(r"\\\g<0>", re.sub(" +", " ", plain).strip(" "))  # four spaces would begin a block of code
    first = _AT_THE_START.match(line)
    if first and first[0].isdigit():
        return f"{first[0]}\\{line[first.end() :]}"
    return f"\\{line}" if first else line
