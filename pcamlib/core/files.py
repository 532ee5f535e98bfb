"""Files of a run: atomic writes, locks, hashes, and which code on which machine made them."""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import glob
import hashlib
import json
import os
import platform
import shutil
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pcamlib import __version__
from pcamlib.core.errors import StudyError, system_advice


@functools.cache
def project_root() -> Path:
    """The checkout that holds notebooks/ and pcamlib/, or the working directory for an installed package.

    Relative paths given to notebooks and commands start here, because papermill's working directory is the
    caller's and JupyterLab's is notebooks/.
    """
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def resolve(path: str | Path) -> Path:
    """Absolute path; relative ones start at the project's root, `~` is the home folder."""
    return project_root() / Path(path).expanduser()


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path near `path`; rename it into place if the block succeeds, else remove it.

    A reader therefore sees the old file, the whole new file, or none. Works for files only. The data reach the
    disk before the rename, so a crash of the machine cannot leave an empty file under the final name. The file gets
    the permissions that the umask gives a new file. Raises StudyError if the disk is full.
    """
    path = Path(path)
    # a folder of its own: safetensors writes beside the path it is given, to a name that nobody else would remove
    with disk_full_as_error(path), _private_folder(path) as folder:
        tmp_path = folder / path.name
        yield tmp_path
        _apply_umask(folder)
        with open(tmp_path, "rb") as f:
            os.fsync(f.fileno())
        os.replace(tmp_path, path)


@contextlib.contextmanager
def _private_folder(path: Path) -> Iterator[Path]:
    """An empty folder of this process beside `path`, removed at the end, as are those that killed processes left."""
    host = socket.gethostname()
    for stale in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(host)}.*.part"):
        owner = int(stale.name.split(".")[-2])
        if owner == os.getpid() or not alive(owner):
            shutil.rmtree(stale, ignore_errors=True)
    folder = path.with_name(f".{path.name}.{host}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _apply_umask(folder: Path) -> None:
    """Give all that lies in `folder` the permissions that the umask gave `folder`; safetensors writes 0600 by
    itself."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            with contextlib.suppress(PermissionError):  # file systems without permissions
                path.chmod(mode if path.is_dir() else mode & 0o666)


@contextlib.contextmanager
def disk_full_as_error(path: Path) -> Iterator[None]:
    """Turn a disk, quota or file size limit that `path` meets in the block into a StudyError."""
    try:
        yield
    except Exception as error:  # safetensors and HDF5 wrap the system's error in their own
        text, number = str(error), getattr(error, "errno", None)
        codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if number in codes or any(os.strerror(code) in text for code in codes):
            raise StudyError(
                f"no room to write {path} ({text.splitlines()[0]}): free some space; what was there before is whole, "
                "and the same command goes on from it."
            ) from None
        raise


def alive(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinities are refused: they are not JSON."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with atomic(path) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; StudyError if it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path} does not exist: run the notebook that makes it first.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} is not valid JSON ({error}): remove it and run its notebook again.") from None
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({system_advice(error) or error.strerror}).") from None


@contextlib.contextmanager
def lock(folder: str | Path, wait: bool = False) -> Iterator[None]:
    """Hold `folder`/.lock for this process (flock, so the system releases it however the process ends).

    With `wait` block until it is free; otherwise raise StudyError at once if another process holds it. Raises
    StudyError on a file system without locks.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def sign(descriptor: int) -> None:
        with contextlib.suppress(OSError):  # on a full disk the lock holds without its note
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())

    held = FileLock(folder / ".lock", blocking=wait, fallback_to_soft=False, on_acquired=sign)
    try:
        held.acquire()
    except Timeout:
        holder = (folder / ".lock").read_text(errors="replace").strip() or "unknown process"
        raise StudyError(
            f"{folder} is in use by another run ({holder}): wait until it ends, stop it, or choose another runs_dir."
        ) from None
    except OSError as error:
        if error.filename is not None:  # the file could not be opened
            raise
        # Lustre mounted without the option flock, some parallel and FUSE file systems
        raise StudyError(
            f"{folder} is on a file system without locks ({error.strerror}): put runs_dir on one that has them, "
            "or ask for the mount option 'flock'."
        ) from None
    try:
        yield
    finally:
        held.release()


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of bytes (or memory), or of a value's canonical JSON."""
    if not isinstance(value, bytes | memoryview):
        value = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()
    return hashlib.sha256(value).hexdigest()[:16]


@functools.cache
def code_version() -> str:
    """Package version, with the commit when the code runs from a git checkout ('+abc1234', '.dirty' if edited)."""

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # an unrelated repository around an installed package says nothing about this code
        if Path(git("rev-parse", "--show-toplevel")) != Path(__file__).resolve().parents[2]:
            return __version__
        dirty = ".dirty" if git("status", "--porcelain", "--", "pcamlib", "notebooks") else ""
        return f"{__version__}+{git('rev-parse', '--short', 'HEAD')}{dirty}"
    except (OSError, subprocess.CalledProcessError):
        return __version__


@functools.cache
def processor() -> str:
    """Name of this machine's processor, such as "AMD EPYC 7B13"; its architecture where the system does not tell
    more."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def now() -> str:
    """Current time, UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def plain_path(path: Path) -> Path:
    """`path` made absolute and free of ".."; StudyError if it is not UTF-8 or not a name the file system accepts."""
    try:
        path = Path(os.path.abspath(path))
        str(path).encode()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(path)  # raises for a name that no file system takes
    except (OSError, ValueError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or error
        raise StudyError(f"{str(path)[:60]!r} is no path ({reason}): give another, or rename it.") from None
    return path


def vacant(path: Path) -> Path:
    """`plain_path` of a folder that does not exist yet, or is empty; StudyError if something is there."""
    path = plain_path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StudyError(f"{path} exists: choose another folder, or remove it.")
    return path


@contextlib.contextmanager
def atomic_folder(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `path`; rename it into place if the block succeeds, else leave nothing behind.

    With `replace` an old folder gives way, else only an empty one does, and OSError is raised for any other. Each
    process writes to a folder of its own. Permissions are those that the umask gives new files and folders.
    """
    path = Path(path)
    above = [folder for folder in path.parents if not folder.exists()]
    try:
        with disk_full_as_error(path), _private_folder(path) as tmp_path:
            yield tmp_path
            _apply_umask(tmp_path)
            if replace:
                shutil.rmtree(path, ignore_errors=True)
            os.replace(tmp_path, path)
    except BaseException:
        for folder in above:
            with contextlib.suppress(OSError):  # not made after all, or no longer empty
                folder.rmdir()
        raise


OWNER = "PCAMLIB_OWNER"  # environment variable: the process whose death must end this one


def die_with_owner() -> None:
    """End this process soon after the one that OWNER names is gone; without OWNER do nothing.

    A process killed with -9 leaves its children running, and the next run would meet them at the same checkpoint.
    """
    if OWNER not in os.environ:
        return
    owner = int(os.environ[OWNER])

    def watch() -> None:
        while alive(owner):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
