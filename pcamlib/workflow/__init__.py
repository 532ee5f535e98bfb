"""How notebooks, a whole study and the book are run, and how results leave a run."""

import sys

# jsonschema, which nbformat imports, builds a parser for internationalised addresses as soon as it is imported: a
# second of each process. No schema of a notebook has such an address, and without this module jsonschema goes on.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
