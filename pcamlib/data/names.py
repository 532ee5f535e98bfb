"""Names that people give to classes, slides, patients and splits: which are the same, and which are no names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Context, Decimal

from pcamlib.core.errors import StudyError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("valid", "validation", "validate", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "tst", "evaluation", "eval"), "test"),
}
"""What people call the three splits, in lower case. "Evaluation" is the test split beside training and validation."""

NO_LABEL = (
    "",
    "nan",
    "na",
    "n/a",
    "#n/a",
    "none",
    "null",
    "nil",
    "-1",
    "?",
    "-",
    "unlabelled",
    "unlabeled",
    "unknown",
    "undefined",
    "missing",
    "not labelled",
    "not labeled",
)
"""Words for "nobody looked at this patch", as `name_key` gives them."""

EXACT = Context(prec=100)
NUMBER = re.compile(
    r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})(e[+-]\d{1,3})?"
)  # "1e5" without a sign may be part of a hash


def split_name(name: str) -> str | None:
    """The split (train, valid or test) that `name` stands for, None if it is no name of a split."""
    return SPLIT_NAMES.get(name_key(name))


def name_key(name: str) -> str:
    """What is the same for all spellings of a name: letter case, blanks, Unicode form and number format do not count.

    "Tumour", "tumour " and "TUMOUR" share a key; so do 7, 7.0, 07 and 7e+00.
    """
    key = " ".join(unicodedata.normalize("NFKC", name).split())
    key = unicodedata.normalize("NFKC", key.casefold())
    if NUMBER.fullmatch(key):
        value = Decimal(key).normalize(EXACT)
        key = format(value, "f") if value else "0"
    return key


def check_name(name: str, what: str) -> None:
    """Refuse characters that break lines, control a terminal or cannot be seen; StudyError names the first of them."""
    for c in name:
        if not c.isprintable() and unicodedata.category(c) != "Zs":  # Zs: blanks of other widths, which can be seen
            word = unicodedata.name(c, "a control character")
            raise StudyError(
                f"{what} {name[:60]!r} contains {word} (U+{ord(c):04X}), which cannot be seen: remove it from the name."
            )


def unify(names: Sequence[str]) -> tuple[list[str], dict[str, Counter[str]]]:
    """The names with one spelling each, and what was merged.

    Of several spellings of a name (see `name_key`) the most frequent one stands for all, of equals the first. Returns
    the N names, and for each name with several spellings their counts.
    """
    spellings: dict[str, Counter[str]] = {}
    keys = {name: name_key(name) for name in dict.fromkeys(names)}
    for name in names:
        spellings.setdefault(keys[name], Counter())[name] += 1
    chosen = {key: counts.most_common(1)[0][0] for key, counts in spellings.items()}
    merged = {chosen[key]: counts for key, counts in spellings.items() if len(counts) > 1}
    return [chosen[keys[name]] for name in names], merged


def merge_note(what: str, merged: dict[str, Counter[str]]) -> str:
    """A sentence for the user that lists the spellings taken as one."""
    shown = ["; ".join(f"{a!r} {n:,} times" for a, n in counts.most_common(6)) for counts in list(merged.values())[:4]]
    more = f" and {len(merged) - 4:,} more" if len(merged) > 4 else ""
    return f"{what} written in several ways, each taken as one: {' | '.join(shown)}{more}"
