"""Numbers of a study: loaded as a data frame, compared, tested against the paper's claims."""

from pcamlib.results.loading import load
from pcamlib.results.planning import power_table

__all__ = ["load", "power_table"]
