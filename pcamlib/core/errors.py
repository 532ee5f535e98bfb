"""The one error a user is meant to read, and how what libraries raise on damaged weights becomes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class StudyError(ValueError):
    """Bad input, said in one sentence: the file or parameter, what is wrong with it, what to do.

    It stays one line: line breaks and control characters of a name or a library's message are written out.
    """

    def __init__(self, sentence: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence))


@contextlib.contextmanager
def loading_weights(path: str | Path, todo: str) -> Iterator[None]:
    """Around the loading of saved weights: what a damaged or foreign file raises becomes one sentence with `todo`."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # safetensors, torch and diffusers each raise kinds of their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StudyError(f"{path} is damaged or was made with other settings ({reason}): {todo}.") from None
