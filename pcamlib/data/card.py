"""The card of a data set: what was counted in its files, as JSON for programs and as a page for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pooch

from pcamlib.core.files import atomic, code_version, now, write_json
from pcamlib.core.text import inert
from pcamlib.data import pcam
from pcamlib.data.groups import groups_file
from pcamlib.data.names import check_name

MANY_BLANK = 0.05  # share of blank patches from which a user is told


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return pooch.file_hash(str(path), alg="sha256")


def describe(root: Path, splits: Sequence[str]) -> dict[str, Any]:
    """Read every patch of `splits`: `verify`'s report, SHA-256 of each file, fingerprint, version, time."""
    paths = [pcam.file(root, split, kind) for split in splits for kind in "xy"]
    paths += [path for split in splits if (path := groups_file(root, split)).exists()]
    return {
        "report": pcam.verify(root, splits),
        "sha256": {path.name: sha256(path) for path in paths},
        "fingerprint": pcam.fingerprint(root, splits),
        "version": code_version(),
        "created": now(),
    }


def concerns(report: dict[str, Any]) -> list[str]:
    """What in a report of `verify` a user should think about, a sentence each."""
    found = [
        f"{count:,} images are in both {pair.replace('-', ' and ')}: scores will be too good"
        for pair, count in report["across"].items()
        if count
    ]
    for split, r in report.items():
        if split == "across":
            continue
        if r["conflicting"]:
            found.append(f"{r['conflicting']:,} images of {split} carry both labels, in this split or in another")
        if r["blank"] > MANY_BLANK * r["patches"]:
            share = r["blank"] / r["patches"]
            found.append(
                f"{r['blank']:,} patches of {split} ({share:.0%}) are blank, every channel nearly even: background, or"
                " images that were read wrongly"
            )
    return found


def write(root: Path, made: dict[str, Any]) -> None:
    """Write card.json and card.md. StudyError for control characters in any text of the card."""
    for text in _texts(made):
        check_name(text, f"{root.name}/{pcam.CARD}: the text")
    write_json(root / pcam.CARD, made)
    with atomic(root / "card.md") as tmp_path:
        tmp_path.write_text(markdown(made), encoding="utf-8")


def _texts(value: Any) -> Iterator[str]:
    """Every text in a card, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, content in value.items():
            yield str(key)
            yield from _texts(content)
    elif isinstance(value, list | tuple):
        for content in value:
            yield from _texts(content)


def markdown(made: dict[str, Any]) -> str:
    """The card as a short page: title, counts by split, then every other entry but long ones."""
    zero, one = map(inert, made["classes"])
    lines = [
        f"# {inert(made['name'])}",
        "",
        f"| split | patches | 0: {zero} | 1: {one} | copies | both labels | blank | mean RGB |",
    ]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for split, r in made["report"].items():
        if split != "across":
            cells = [
                r["patches"],
                r["patches"] - r["tumour"],
                r["tumour"],
                r["duplicate_rows"],
                r["conflicting"],
                r["blank"],
            ]
            mean = ", ".join(map(str, r["mean_rgb"]))
            lines.append(f"| {split} | " + " | ".join(f"{cell:,}" for cell in cells) + f" | {mean} |")
    across = [f"{pair}: {count:,}" for pair, count in made["report"]["across"].items()]
    lines += ["", f"Images in two splits: {', '.join(across)}." if across else "One split only.", ""]
    for key, value in made.items():
        if isinstance(value, (str, int, float)) and key != "name":
            lines.append(f"- {inert(key.replace('_', ' '))}: {inert(value)}")
        elif key == "converted" and value:
            lines.append(
                "- colours converted: "
                + ", ".join(f"{inert(name)} in {count:,} images" for name, count in value.items())
            )
    lines += [f"- note: {inert(note)}" for note in made.get("notes", ())]
    if used := made.get("labels"):
        lines += ["", "| label as given | class | images |", "| --- | ---: | ---: |"]
        lines += [f"| {inert(name)} | {inert(entry['class'])} | {entry['images']:,} |" for name, entry in used.items()]
    lines += [
        "",
        "| file | SHA-256 |",
        "| --- | --- |",
        *(f"| `{name}` | `{value}` |" for name, value in made["sha256"].items()),
    ]
    return "\n".join(lines) + "\n"
