"""StudyError, the one exception a user is meant to read, and what turns a library's exception into it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pcamlib.core.text import printable


class StudyError(ValueError):
    """Bad input in one sentence: the file or parameter, what is wrong with it, what to do.

    The message stays on one line: line breaks and control characters in a name or a library's message are escaped.
    """

    def __init__(self, sentence: str):
        super().__init__(printable(sentence))


_LOCKED = (
    "another process holds a lock on it: wait until it ends, or set HDF5_USE_FILE_LOCKING=FALSE if nothing writes to it"
)
_DENIED = "this user may not read it: ask its owner for the permission, or copy it to a folder of your own"
_FILES = "too many files are open: raise the limit, for example with `ulimit -n 4096`, and run again"
_SERVER = (
    "the file system lost it: run again, and remount the file system or ask its administrator if that does not help"
)
_DEVICE = "the disk or the network gave an error: try again, and have the disk checked if that does not help"
SYSTEM_ADVICE = {
    errno.EAGAIN: _LOCKED,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOLCK: "the file system has no locks: set HDF5_USE_FILE_LOCKING=FALSE",
    errno.ENOSYS: "the file system has no locks: set HDF5_USE_FILE_LOCKING=FALSE",
    errno.ESTALE: _SERVER,
    errno.ENOTCONN: _SERVER,
    errno.EHOSTDOWN: _SERVER,
    errno.ETIMEDOUT: _SERVER,
    errno.EIO: _DEVICE,
    errno.ENOMEM: "there is not enough memory: close other programs or use a machine with more",
}
"""By error number of the operating system: why a file could not be read though nothing is wrong with its content."""


def system_advice(error: BaseException) -> str | None:
    """Why the system refused a file and what to do, as a clause; None if `error` is about the file's content.

    A locked, forbidden or unreachable file is not a damaged one, and must not be called so. The error number is the
    exception's own, or the one that HDF5 ("errno = 11") or safetensors ("os error 13") put into its message.
    """
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"(?:errno = |os error |\[Errno )(\d+)", str(error))):
        number = int(found[1])
    advice = SYSTEM_ADVICE.get(number) if number is not None else None
    if advice is not None and "unable to lock file" in str(error) and number == errno.EACCES:
        advice = _LOCKED
    return advice and f"{os.strerror(number)}; {advice}"  # type: ignore[arg-type]


@contextlib.contextmanager
def loading_weights(path: str | Path, todo: str) -> Iterator[None]:
    """Around the loading of saved weights: what a damaged or foreign file raises becomes one sentence that ends in
    `todo`."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # safetensors, torch and diffusers each raise kinds of their own
        raise load_error(path, error, todo, "is damaged or was made with other settings") from None


def load_error(path: str | Path, error: Exception, todo: str, verdict: str = "is damaged") -> StudyError:
    """What to raise when `error` stopped the loading of a file: a file that the system refused "cannot be read", any
    other is what `verdict` says, and the sentence ends in `todo`.
    """
    if advice := system_advice(error) or _opening(path):
        return StudyError(f"{path} cannot be read ({advice}).")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return StudyError(f"{path} {verdict} ({reason}): {todo}.")


def _opening(path: str | Path) -> str | None:
    """What `system_advice` says of opening `path`: safetensors calls every file that it cannot open missing."""
    try:
        with open(path, "rb"):
            return None
    except OSError as error:
        return system_advice(error)
