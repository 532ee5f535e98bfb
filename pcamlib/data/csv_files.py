"""CSV files that somebody else wrote: a header in the first line, cells as text."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from pcamlib.core.errors import StudyError, system_advice


class Table(NamedTuple):
    """A CSV: its path, column names in lower case, and for each line its number in the file and its cells."""

    path: Path
    header: list[str]
    numbers: list[int]
    cells: list[list[str]]

    def column(self, name: str, option: str | None = None) -> list[str]:
        """Cells of a column. StudyError if there is none; `option` is then offered as the way to name another."""
        if name.lower() not in self.header:
            way = f", or name another with {option}" if option else ""
            raise StudyError(
                f"{self.path} has no column {name!r} (it has: {', '.join(self.header)[:200] or 'nothing'}): the first"
                " line must name the columns file, label and, if wished, split, group and centre, separated by"
                f" commas{way}."
            )
        at = self.header.index(name.lower())
        return [cells[at] for cells in self.cells]


def csv_header(path: Path) -> list[str]:
    """Column names of a CSV in lower case; none if it cannot be read as one."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            return [name.strip().lower() for name in next(csv.reader(f), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def read_csv(path: Path) -> Table:
    """Read a CSV. Blanks around cells go, and so do empty lines.

    Raises StudyError if the file cannot be read, is not comma-separated UTF-8, names a column twice, or if a line has
    another number of cells than the header.
    """
    numbers, lines, kept = [], [], {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            reader = csv.reader(f, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            if len(set(header)) < len(header):
                raise StudyError(f"{path} names a column twice ({', '.join(header)[:200]}): give each its own name.")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise StudyError(
                        f"{path}, line {reader.line_num}: it has another number of cells than the header: correct the"
                        " line."
                    )
                numbers.append(reader.line_num)
                lines.append(
                    [kept.setdefault(cell, cell) for cell in map(str.strip, cells)]
                )  # equal texts once in memory
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({system_advice(error) or error.strerror or error}).") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path} cannot be read as CSV ({error}): save it as comma-separated UTF-8 text.") from None
    return Table(path, header, numbers, lines)
