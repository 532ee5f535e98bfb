"""The card of a data set: what was counted in its files, as JSON for programs and as a page for people."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcamlib.data import pcam
from pcamlib.core.files import atomic, code_version, now, write_json


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def describe(root: Path, splits: Sequence[str]) -> dict[str, Any]:
    """Read every patch of `splits`: `verify`'s report, SHA-256 of each file, fingerprint, version, time."""
    paths = [pcam.file(root, split, kind) for split in splits for kind in "xy"]
    return {
        "report": pcam.verify(root, splits),
        "sha256": {path.name: sha256(path) for path in paths},
        "fingerprint": pcam.fingerprint(root, splits),
        "version": code_version(),
        "created": now(),
    }


def concerns(report: dict[str, Any]) -> list[str]:
    """What in a report of `verify` a user should think about."""
    found = [
        f"{count:,} images are in both {pair.replace('-', ' and ')}: scores will be too good"
        for pair, count in report["across"].items()
        if count
    ]
    for split, r in report.items():
        if split != "across" and r["conflicting"]:
            found.append(f"{r['conflicting']:,} images of {split} carry both labels")
    return found


def write(root: Path, made: dict[str, Any]) -> None:
    """card.json and card.md."""
    write_json(root / pcam.CARD, made)
    with atomic(root / "card.md") as tmp_path:
        tmp_path.write_text(markdown(made), encoding="utf-8")


def markdown(made: dict[str, Any]) -> str:
    """The card as a short page: title, counts by split, then every other entry but long ones."""
    zero, one = made["classes"]
    lines = [
        f"# {made['name']}",
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
            lines.append(f"- {key.replace('_', ' ')}: {value}")
        elif key == "converted" and value:
            lines.append(
                "- colours converted: " + ", ".join(f"{name} in {count:,} images" for name, count in value.items())
            )
    lines += [f"- note: {note}" for note in made.get("notes", ())]
    lines += [
        "",
        "| file | SHA-256 |",
        "| --- | --- |",
        *(f"| `{name}` | `{value}` |" for name, value in made["sha256"].items()),
    ]
    return "\n".join(lines) + "\n"
