"""Numbers of a study: collected, compared, tested against the paper's claims."""
