"""`python -m pcamlib` is the command `pcamlib`."""

import sys

from pcamlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
