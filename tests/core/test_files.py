"""Atomic writes, locks and hashes."""

import os
import signal
import subprocess
import sys

import pytest

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
    code = f"from pcamlib import store\nwith store.lock({str(tmp_path)!r}):\n print('held', flush=True)\n import time; time.sleep(60)"
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


def test_digest_does_not_depend_on_key_order():
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1}) != files.digest({"a": 1, "b": 3})
