"""How notebooks, a whole study and the book are run, and how results leave a run."""
