"""Downloads that cannot lie: a local server that cuts, stalls, refuses, sends other bytes or another length; a full
disk."""

import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.data import download
from pcamlib.data.groups import meta_file

QUOTA = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>Too many users</body></html>"
)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by name; `faults` is a list of words for the next answers (see Handler), `asked` what was asked
    for."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.asked = files, [], []
        self.faulty = "train_x.h5.gz"  # the end of the name that `faults` are for
        self.base = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request, client_address):
        pass  # the client hung up, as it should


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, name = self.server, self.path[1:]
        body, fault = server.files[name], ""
        if name.endswith(server.faulty) and server.faults:
            fault = (
                server.faults.pop(0)
                if len(server.faults) > 1 or not server.faults[0].startswith("always ")
                else server.faults[0][7:]
            )
        asked = self.headers.get("Range")
        server.asked.append((name, asked))
        start = int(asked.split("=")[1].rstrip("-")) if asked and fault != "no ranges" else 0
        if fault in ("503", "429", "404"):
            self.send_response(int(fault))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "quota":
            body, start = QUOTA, 0
        elif fault == "other bytes":
            body = body[: -len(body) // 2] + bytes(len(body) - len(body[: -len(body) // 2]))
        elif fault == "too long":
            body += bytes(100)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start + (fault == 'other part')}-{len(body) - 1}/{len(body)}")
        announced = len(body) - start - (100 if fault == "too short" else 0)
        if fault != "endless":
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        part = body[start : start + announced]
        if fault == "cut":
            part = part[: len(part) // 2]
        elif fault == "stall":
            self.wfile.write(part[:200_000])
            self.wfile.flush()
            time.sleep(3)
            return
        elif fault == "slow":
            for i in range(0, len(part), len(part) // 8):
                self.wfile.write(part[i : i + len(part) // 8])
                self.wfile.flush()
                time.sleep(0.05)
            return
        elif fault == "endless":
            part = part + bytes(1 << 20)
        self.wfile.write(part)


@pytest.fixture
def server(monkeypatch, pcam):
    """PCam as Zenodo has it, of the tiny files, on this machine; short waits."""
    files, table = {}, {}
    for key in download.PCAM:
        path = data.file(pcam, *key.split("_"))
        packed = gzip.compress(path.read_bytes(), 1)
        files[path.name + ".gz"] = packed
        table[key] = download.Archive(
            hashlib.md5(packed).hexdigest(),
            len(packed),
            hashlib.md5(path.read_bytes()).hexdigest(),
            path.stat().st_size,
        )
    lists, filler = {}, "x" * 3000  # long enough to be cut between two blocks
    for split in data.SPLITS:
        name = meta_file("", split).name
        lines = [
            f"{i},0,0,{bool(y)},{bool(y)},slide {split} {i // 8},{filler}"
            for i, y in enumerate(data.labels(pcam, split))
        ]
        files[name] = "\n".join([",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi,more", *lines, ""]).encode()
        lists[split] = hashlib.md5(files[name]).hexdigest()
    monkeypatch.setattr(download, "SLIDES", lists)
    monkeypatch.setattr(download, "PCAM", table)
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(download, "TIMEOUT", 1)
    server = Server(files)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def left(root):
    """All files below `root`, and folders that are empty."""
    return sorted(
        p.relative_to(root).as_posix()
        for p in root.rglob("*")
        if p.name != ".lock" and (p.is_file() or not any(p.iterdir()))
    )


WHOLE = sorted(
    [data.file("", s, k).name for s in data.SPLITS for k in "xy"]
    + [meta_file("", s).name for s in data.SPLITS] + [data.groups_file("", s).name for s in data.SPLITS]
)  # fmt: skip
FIRST = "camelyonpatch_level_2_split_train_x.h5"
PART = f".download/{FIRST}.gz.part"


@pytest.mark.parametrize(
    "faults",
    [[], ["503", "429"], ["cut", "cut", "cut"], ["stall"], ["slow"], ["cut", "no ranges"]],
    ids=lambda faults: "+".join(faults) or "none",
)
def test_what_passes_by_itself(server, tmp_path, pcam, capsys, faults):
    server.faults = list(faults)
    download.download(tmp_path / "pcam", server.base)
    assert data.fingerprint(tmp_path / "pcam") == data.fingerprint(pcam)
    assert left(tmp_path / "pcam") == WHOLE
    assert list(data.groups(tmp_path / "pcam", "valid")) == [f"slide valid {i // 8}" for i in range(32)]
    resumed = [asked for name, asked in server.asked if asked]
    assert len(resumed) == sum(f in ("cut", "stall") for f in faults)
    if faults != []:
        return
    server.asked.clear()
    download.download(tmp_path / "pcam", server.base)
    assert not server.asked and "is there" in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["quota", "too short"])
def test_an_answer_of_another_kind_does_not_cost_what_has_come(server, tmp_path, pcam, answer):
    server.faults = ["cut", answer]
    with pytest.raises(StudyError, match="run the command again, it resumes"):
        download.download(tmp_path / "pcam", server.base)
    assert (tmp_path / "pcam" / PART).stat().st_size > 0
    server.asked.clear()
    download.download(tmp_path / "pcam", server.base)
    assert server.asked[0][1] and data.fingerprint(tmp_path / "pcam") == data.fingerprint(pcam)


@pytest.mark.parametrize(
    "fault, message",
    [
        (
            "always 503",
            "after 5 tries 503 Server Error.*0 of .* bytes are kept.*run the command again, it resumes, or get http",
        ),
        ("404", "could not be fetched .404 Client Error.*or get http.*put it into"),
        ("other bytes", "came with other bytes than PCam's .MD5 differs. and was removed"),
        ("too short", "the server announces .* bytes, the archive has"),
        ("too long", "the server announces .* bytes, the archive has"),
        ("endless", "the server sent more bytes than the archive has"),
        ("quota", "Google Drive's notice that the file's quota is used up"),
        ("always stall", None),
    ],
)
def test_what_does_not_pass_ends_in_one_sentence(server, tmp_path, pcam, fault, message):
    root = tmp_path / "pcam"
    server.faults = [fault]
    if message is None:  # killed while it waits: what has come in is kept, and the next call goes on from it
        entry = tuple(download.PCAM["train_x"])
        code = (
            f"from pcamlib.data import download as d; d.SLIDES = {{}}; d.PCAM = {{'train_x': d.Archive(*{entry})}};"
            f" d.download({str(root)!r}, {server.base!r})"
        )
        victim = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not ((root / PART).exists() and (root / PART).stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        victim.kill()
        victim.wait()
    else:
        with pytest.raises(StudyError, match=message) as caught:
            download.download(root, server.base)
        assert "\n" not in str(caught.value) and f"{server.base}{FIRST}.gz" in str(caught.value)
    found = left(root)
    if message is None:  # pooch's own, which the next call removes
        found = [name for name in found if "/tmp" not in name]
    assert found == ([PART] if message is None else [])
    server.faults = []
    server.asked.clear()
    download.download(root, server.base)
    assert data.fingerprint(root) == data.fingerprint(pcam)
    assert bool(server.asked[0][1]) == (message is None)
    assert left(root) == WHOLE


def test_files_put_there_by_hand_are_checked(server, tmp_path, pcam):
    root = tmp_path / "pcam"
    root.mkdir()
    archive, target = root / f"{FIRST}.gz", root / FIRST
    archive.write_bytes(server.files[archive.name])
    download.download(root, server.base)
    assert archive.name not in [name for name, _ in server.asked] and archive.exists()
    archive.unlink()
    for path, content, message in [
        (target, QUOTA, f"{FIRST} is not PCam's file .it is Google Drive's notice"),
        (target, b"\x1f\x8b123", f"{FIRST} is not PCam's file .it is still packed"),
        (target, target.read_bytes()[:-9], f"{FIRST} is not PCam's file .its MD5 differs"),
        (archive, QUOTA, f"{FIRST}.gz is not PCam's archive .it is Google Drive's notice"),
        (archive, b"<html>login</html>", f"{FIRST}.gz is not PCam's archive .it is a web page"),
        (archive, b"\x1f\x8b123", f"{FIRST}.gz is not PCam's archive .its MD5 is not"),
    ]:
        target.unlink(missing_ok=True)
        path.write_bytes(content)
        with pytest.raises(StudyError, match=message):
            download.download(root, server.base)
        assert path.read_bytes() == content  # what is yours is not removed
        if path == target:
            with pytest.raises(StudyError):
                data.load(root, "train")
        path.unlink()


def test_the_archive_is_whole_but_not_what_it_should_hold(server, tmp_path, monkeypatch):
    wrong = {k: a._replace(file_md5="0" * 32) for k, a in download.PCAM.items()}
    monkeypatch.setattr(download, "PCAM", wrong)
    with pytest.raises(StudyError, match="unpacks to another file than PCam's"):
        download.download(tmp_path, server.base)
    cut = server.files[f"{FIRST}.gz"][:-20]
    (tmp_path / f"{FIRST}.gz").write_bytes(cut)
    monkeypatch.setattr(
        download, "PCAM", {k: a._replace(md5=hashlib.md5(cut).hexdigest()) for k, a in wrong.items() if k == "train_x"}
    )
    with pytest.raises(StudyError, match="is not a complete archive"):
        download.download(tmp_path, server.base)
    assert left(tmp_path) == [f".download/{FIRST}.gz", f"{FIRST}.gz"]


def test_room_is_looked_for_first(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(StudyError, match="needs 0.0 GB more, 0.0 GB are free there"):
        download.download(tmp_path, server.base)
    assert not server.asked and not left(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", "-l", place])


def test_a_disk_that_fills_up_on_the_way(server, small_disk, tmp_path, pcam, monkeypatch):
    """Room was there when it was looked for, and another program took it."""
    monkeypatch.setattr(download, "_check_room", lambda root, missing: None)
    with pytest.raises(StudyError, match="no room to write .*disk/pcam.*No space left on device.*: free some space"):
        download.download(small_disk / "pcam", server.base)
    names = left(small_disk / "pcam")
    assert not any(name.endswith(".h5") for name in names) and all(name.startswith(".download/") for name in names)
    from pcamlib.data import convert
    from pcamlib.workflow import export

    export.export(pcam, tmp_path / "png", "png")
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9})())
    with pytest.raises(StudyError, match="no room to write .*disk/mine.*free some space"):
        convert.convert(tmp_path / "png", small_disk / "mine")
    assert [p.name for p in small_disk.iterdir()] == ["pcam"]


def test_memory_does_not_grow_with_the_archive(server, tmp_path, monkeypatch):
    """64 MB of zeros pass through; the peak of Python's own allocations stays at a few blocks."""
    import tracemalloc

    packed = gzip.compress(bytes(64 << 20), 1)
    server.files[f"{FIRST}.gz"] = packed
    md5 = hashlib.md5(bytes(64 << 20)).hexdigest()
    monkeypatch.setattr(
        download, "PCAM", {"train_x": download.Archive(hashlib.md5(packed).hexdigest(), len(packed), md5, 64 << 20)}
    )
    monkeypatch.setattr(download, "SLIDES", {})
    tracemalloc.start()
    download.download(tmp_path, server.base)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20 and np.memmap(tmp_path / FIRST, mode="r").size == 64 << 20


def test_the_published_table_is_the_one_torchvision_checks():
    from torchvision.datasets import PCAM

    theirs = {data.file("", *key.split("_")).name: archive.md5 for key, archive in download.PCAM.items()}
    assert theirs == {name: md5 for split in PCAM._FILES.values() for name, _, md5 in split.values()}


LIST = "camelyonpatch_level_2_split_train_meta.csv"


def test_lists_of_slides_are_checked_and_resumed_like_archives(server, tmp_path, pcam):
    """A cut list is resumed although its length is not published; another list is refused and what is yours stays."""
    root = tmp_path / "pcam"
    server.faulty, server.faults = LIST, ["cut", "503"]
    download.download(root, server.base)
    assert left(root) == WHOLE and [asked for name, asked in server.asked if name == LIST and asked]
    assert (root / LIST).read_bytes() == server.files[LIST]
    data.groups_file(root, "train").unlink()
    (root / LIST).write_bytes(QUOTA)
    with pytest.raises(StudyError, match="train_meta.csv is not PCam's file .it is Google Drive's notice"):
        download.download(root, server.base)
    assert (root / LIST).read_bytes() == QUOTA
    (root / LIST).unlink()
    for fault, message in (
        ("other bytes", "MD5 differs"),
        ("404", "404 Client Error"),
        ("endless", "the server announces no number of bytes"),
    ):
        server.faults = [fault]
        with pytest.raises(StudyError, match=f"train_meta.csv .*{message}.*or get http.*put it into"):
            download.download(root, server.base)
        assert not (root / LIST).exists()
    server.faults = []
    download.download(root, server.base)
    assert left(root) == WHOLE


def test_a_server_that_is_not_there_ends_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    with pytest.raises(StudyError, match="after 5 tries .*0 of 6,421,353,462 bytes are kept.*it resumes, or get http"):
        monkeypatch.setattr(download, "_check_room", lambda root, missing: None)
        download.download(tmp_path, "http://127.0.0.1:9/")
    assert not left(tmp_path)
