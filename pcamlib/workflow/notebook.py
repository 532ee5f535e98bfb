"""Strict papermill: a text notebook in, an executed notebook out.

    pcamlib run notebooks/03_diffusion.md OUT.ipynb -p subset 2 -p backbone dit

What plain papermill leaves to chance is settled here: an unknown parameter is an error, values must have the type of
the notebook's own, the kernel is this interpreter, progress goes to the terminal and not into the file, a failing cell
fails the command and keeps the partial notebook aside as OUT.failed.ipynb.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import fcntl
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError

from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, lock, plain_path, project_root
from pcamlib.core.text import PROGRESS

Literal = int | float | str | bool | None
GPUS = "PCAMLIB_GPUS"  # environment variable FOLDER:0,1: GPUs that the study shares out, and where their locks lie
# what Python's parser raises
NOT_LITERAL = (AttributeError, TypeError, ValueError, SyntaxError, MemoryError, RecursionError)


def parameters(notebook: nbformat.NotebookNode, name: str) -> dict[str, Literal]:
    """The literals of a notebook's one cell tagged "parameters". StudyError if there is not exactly one such cell."""
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise StudyError(f"{name} has {len(cells)} cells tagged 'parameters', it needs exactly one.")
    found: dict[str, Literal] = {}
    try:
        for node in ast.parse(cells[0].source).body:
            (target,) = node.targets  # type: ignore[attr-defined]
            found[target.id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    except NOT_LITERAL:
        raise StudyError(f"{name}: the parameters cell may hold only `name = literal` lines.") from None
    return found


def check(given: dict[str, str], known: dict[str, Literal], name: str) -> dict[str, Literal]:
    """Values from the command line in the types of the notebook's defaults; StudyError for an unknown or ill-typed
    one."""
    values: dict[str, Literal] = {}
    for key, text in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise StudyError(
                f"{name} has no parameter {key[:60]!r}: did you mean '{near[0]}'? It has: {', '.join(known)}."
            )
        kind = type(known[key])
        if kind is str:
            values[key] = text
            continue
        try:
            value = ast.literal_eval(text)
        except NOT_LITERAL:
            value = text
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise StudyError(
                f"{name}: parameter '{key}' must be {kind.__name__} like {known[key]!r}, got {text[:60]!r}."
            )
        values[key] = value
    return values


def run(source: str | Path, target: str | Path, given: dict[str, str] | None = None) -> Path:
    """Execute the text notebook `source` into `target` (.ipynb, written when whole). Returns `target`'s path.

    Raises StudyError for a bad notebook or parameter, and for a failing cell: then the message is the cell's own
    last line and the partial notebook is kept beside `target`.
    """
    source, target = plain_path(Path(source)), plain_path(Path(target))
    if not source.is_file():
        raise StudyError(f"notebook {source} does not exist.")
    try:
        notebook = jupytext.read(source)
    except Exception as error:  # jupytext's readers raise kinds of their own
        raise StudyError(
            f"notebook {source} cannot be read ({' '.join(str(error).split())[:160]}): give a text notebook."
        ) from None
    values = check(given or {}, parameters(notebook, source.name), source.name)
    # the notebook must run where this command runs, whatever kernels the user has registered under "python3"
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    if target.suffix != ".ipynb" or target.is_dir():
        raise StudyError(f"{target} cannot be the executed notebook: give a file name that ends in .ipynb.")
    if target.exists() and target.samefile(source):
        raise StudyError(f"{target} is the notebook itself: give another file for the executed notebook.")
    failed = target.with_name(f"{target.stem}.failed.ipynb")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{target} cannot be written ({error.strerror}): choose another place.") from None
    root = str(project_root())
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    os.environ["TQDM_DISABLE"] = "1"
    # fixed names: what a killed run leaves behind, the next one overwrites and removes
    draft, work = (target.with_name(f".{target.stem}.{end}.ipynb") for end in ("in", "out"))
    with _only_writer(draft, target), atomic(target) as tmp_path:
        failed.unlink(missing_ok=True)
        try:
            nbformat.write(notebook, draft)
            papermill.execute_notebook(
                draft,
                work,
                values,
                cwd=root,
                progress_bar=False,
                log_output=False,
                stderr_file=Progress(),
                kernel_manager_class=ThisInterpreter,
            )
            tidy(work, tmp_path)
        except PapermillExecutionError as error:
            tidy(work, failed)
            raise StudyError(f"{source.name} failed: {_last_line(error)} (partial notebook: {failed})") from None
        except RuntimeError as error:  # of the kernel's client: it did not start, or died
            raise StudyError(
                f"{source.name} failed: {error} (out of memory, or no folder that it may write to)."
            ) from None
        finally:
            work.unlink(missing_ok=True)
    return target


@contextlib.contextmanager
def _only_writer(draft: Path, target: Path) -> Iterator[None]:
    """Hold the file `draft` as the only process that writes `target`, and remove it; StudyError if another holds it."""
    with contextlib.ExitStack() as held:
        while True:
            file = held.enter_context(open(draft, "a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StudyError(
                    f"another process is writing {target}: wait until it ends, or give another file."
                ) from None
            except OSError as error:  # a file system without locks
                raise StudyError(
                    f"{target} is on a file system without locks ({error.strerror}): give another."
                ) from None
            try:
                if draft.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    break
            except FileNotFoundError:
                pass  # its last holder has just removed it
        try:
            yield
        finally:
            draft.unlink(missing_ok=True)


class ThisInterpreter(AsyncKernelManager):
    """A kernel of this very interpreter: a kernelspec "python3" that the user has registered may point elsewhere."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # the kernel's own warnings (loopback without encryption) would stand before the study's messages
        return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=40"]))


@contextlib.contextmanager
def one_gpu() -> Iterator[None]:
    """Among the GPUs that the environment variable GPUS names wait for one that no other notebook holds; hold it.

    torch sees only that one, in the notebook as well. Without GPUS nothing is held or hidden.
    """
    folder, _, names = os.environ.get(GPUS, "").rpartition(":")
    with contextlib.ExitStack() as held:
        waiting = bool(names)
        while waiting:
            for name in names.split(","):
                try:
                    held.enter_context(lock(Path(folder) / name))
                except StudyError:
                    continue  # another notebook's
                os.environ["CUDA_VISIBLE_DEVICES"] = name
                waiting = False
                break
            else:
                time.sleep(1)
        yield


class Progress:
    """Passes on what a kernel says about its progress, as it says it."""

    def write(self, text: str) -> None:
        """Print those lines of `text` that `training.progress.Watch` made."""
        for line in filter(PROGRESS.match, text.splitlines()):
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """`write` leaves nothing to flush."""


def _last_line(error: PapermillExecutionError) -> str:
    return f"{error.ename}: {error.evalue}".removeprefix("StudyError: ").strip().rstrip(".") + "."


def tidy(source: Path, target: Path) -> None:
    """Show the reader one parameters cell, with the values of this run; drop papermill's marks and lines of
    progress."""
    notebook = nbformat.read(source, as_version=4)
    cells = [c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    injected = [c for c in cells if "injected-parameters" in c.metadata.get("tags", [])]
    lines = [node for c in injected for node in ast.parse(c.source).body]
    values = {node.targets[0].id: node.value for node in lines}  # type: ignore[attr-defined]
    for cell in cells:
        cell.metadata.pop("papermill", None)
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                output.text = "".join(line for line in output.text.splitlines(True) if not PROGRESS.match(line))
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.text]
        if "parameters" in cell.metadata.get("tags", []):
            lines = cell.source.splitlines()
            for i, line in enumerate(lines):
                name, _, rest = line.partition(" = ")
                if name in values:
                    lines[i] = (
                        f"{name} = {ast.unparse(values[name])}  {rest[rest.find('# ') :] * ('# ' in rest)}".rstrip()
                    )
            cell.source = "\n".join(lines)
    notebook.cells = [c for c in cells if c not in injected]
    notebook.metadata.pop("papermill", None)
    nbformat.write(notebook, target)
