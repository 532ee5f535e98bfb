"""The command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pcamlib.core.errors import StudyError
from pcamlib.data import convert, download
from pcamlib.data.pcam import summary, verify
from pcamlib.workflow import export


def main(argv: list[str] | None = None) -> int:
    """Bring data in, look at them, take them out."""

    parser = argparse.ArgumentParser(prog="python -m pcamlib.cli", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    look = commands.add_parser("verify", help="read every patch of a data root and say what it holds")
    look.add_argument("dir", type=Path)
    look.set_defaults(run=lambda args: print(summary(verify(args.dir))))
    for room in (download, convert, export):
        room.add_command(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
