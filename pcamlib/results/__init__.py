"""Numbers of a study: loaded as a data frame, compared, tested against the paper's claims."""

from pcamlib.results.loading import load

__all__ = ["load"]
