"""The one error a user is meant to read."""

from __future__ import annotations


class StudyError(ValueError):
    """Bad input, said in one sentence: the file or parameter, what is wrong with it, what to do."""
