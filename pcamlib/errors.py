"""The one error a user is meant to read, and how what libraries raise on damaged weights becomes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class StudyError(ValueError):
    """Bad input, said in one sentence: the file or parameter, what is wrong with it, what to do."""


@contextlib.contextmanager
def weights(path: str | Path, todo: str) -> Iterator[None]:
    """Around the loading of saved weights: what a damaged or foreign file raises becomes one sentence with `todo`."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # safetensors, torch and diffusers each raise kinds of their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StudyError(f"{path} is damaged or was made with other settings ({reason}): {todo}.") from None
