"""Atomic writes, locks and hashes."""

import errno
import os
import signal
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from pcamlib.core import files
from pcamlib.core.errors import StudyError


def test_atomic_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_removes_what_a_killed_writer_left(tmp_path):
    path = tmp_path / "weights.safetensors"
    child = os.fork()
    if not child:  # safetensors writes to a file of its own beside the path that it is given
        with files.atomic(path) as aside:
            (aside.parent / ".tmpAbCdEf").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [".tmpAbCdEf"]
    with files.atomic(path) as aside:
        aside.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"] and path.read_text() == "whole"


def test_atomic_folder_replaces_whole(tmp_path):
    path = tmp_path / "model"
    for content in ("one", "two"):
        with files.atomic_folder(path) as aside:
            (aside / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), files.atomic_folder(path) as aside:
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), files.atomic_folder(tmp_path / "new" / "newer" / "model") as aside:
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["model"], "folders made for a result that never came go with it"


def test_json_round_trip_and_errors(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [1, 0.1]})
    assert files.read_json(path) == {"a": [1, 0.1]}
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    assert files.read_json(path) == {"a": [1, 0.1]}
    path.write_text("{")
    with pytest.raises(StudyError, match="not valid JSON"):
        files.read_json(path)
    with pytest.raises(StudyError, match="does not exist"):
        files.read_json(tmp_path / "b.json")


def test_lock_excludes_another_process_and_is_released_by_its_death(tmp_path):
    code = (
        f"from pcamlib.core import files\nwith files.lock({str(tmp_path)!r}):\n print('held', flush=True)\n import"
        " time; time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match=f"in use by another run .process {holder.pid}"), files.lock(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    with files.lock(tmp_path):
        pass


def test_lock_waits_for_its_holder(tmp_path):
    code = f"from pcamlib.core import files\nwith files.lock({str(tmp_path)!r}):\n print('held', flush=True)\n input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        waiter = os.fork()
        if not waiter:
            with files.lock(tmp_path, wait=True):
                (tmp_path / "entered").touch()
            os._exit(0)
        with pytest.raises(StudyError, match="in use"), files.lock(tmp_path):
            pass
        assert os.waitpid(waiter, os.WNOHANG) == (0, 0) and not (tmp_path / "entered").exists()
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert os.waitpid(waiter, 0)[1] == 0 and (tmp_path / "entered").exists()


def test_a_lock_on_a_full_disk_holds_without_its_note_and_one_that_cannot_be_made_says_why(tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", no_room)
        with files.lock(tmp_path), pytest.raises(StudyError, match="in use by another run .unknown process"):
            with files.lock(tmp_path):
                pass
    (tmp_path / "folder").write_text("")
    with pytest.raises(OSError), files.lock(tmp_path / "folder"):
        pass


@pytest.mark.parametrize("umask, file, folder", [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)])
def test_the_umask_decides_who_may_read_what_is_written(tmp_path, umask, file, folder):
    old = os.umask(umask)
    try:
        with files.atomic(tmp_path / "a.safetensors") as aside:
            save_file({"x": torch.zeros(1)}, aside)  # safetensors itself makes it 0600
        with files.atomic_folder(tmp_path / "model") as aside:
            (aside / "vae").mkdir(0o700)
            save_file({"x": torch.zeros(1)}, aside / "vae" / "b.safetensors")
        files.write_json(tmp_path / "c.json", 1)
        with files.lock(tmp_path):
            pass
    finally:
        os.umask(old)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert modes == {
        **dict.fromkeys(("a.safetensors", "b.safetensors", "c.json", ".lock"), file),
        **dict.fromkeys(("model", "vae"), folder),
    }


def test_two_processes_may_write_one_folder(tmp_path):
    path = tmp_path / "model"
    with files.atomic_folder(path) as aside:
        (aside / "a").write_text("ours")
        other = os.fork()
        if not other:
            with files.atomic_folder(path) as theirs:
                (theirs / "b").write_text("theirs")
            os._exit(0)
        assert os.waitpid(other, 0)[1] == 0
        assert [p.name for p in path.iterdir()] == ["b"] and (aside / "a").exists()
    assert [p.name for p in path.iterdir()] == ["a"] and [p.name for p in tmp_path.iterdir()] == ["model"]


def test_digest_does_not_depend_on_key_order():
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1}) != files.digest({"a": 1, "b": 3})
