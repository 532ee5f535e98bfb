"""PCam from Zenodo: resumed where it was cut, checked against published checksums, unpacked in bounded memory.

    pcamlib data download DIR

pooch checks the files and puts them in place, urllib3 decides what is tried again and when. pooch's own downloader
starts a cut file again from nothing, so `Resume` replaces it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import pooch
import requests
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Retry

from pcamlib.core.errors import StudyError, system_advice
from pcamlib.core.files import atomic, disk_full_as_error, lock
from pcamlib.data import pcam
from pcamlib.data.checks import sniff_format
from pcamlib.data.groups import groups_file, meta_file, pcam_slides, write_groups

ZENODO = "https://zenodo.org/records/2546921/files/"
STORE = ".download"  # folder in the data root for what is not whole yet
TIMEOUT = 30  # seconds without a byte, after which a connection counts as dead
TRIES = 5  # without a byte of progress
BACKOFF = 1.0  # seconds before the third try; doubles up to a minute
LONGEST_LIST = 1 << 27  # bytes; the lists of slides have no published length


def _retries() -> Retry:
    """Five tries, for answers that a busy server gives too, with growing pauses or those the server asks for."""
    return Retry(
        total=TRIES - 1,
        backoff_factor=BACKOFF,
        backoff_max=60,
        retry_after_max=60,
        status_forcelist=(408, 429, 500, 502, 503, 504),
        raise_on_status=False,
    )


class Archive(NamedTuple):
    """An archive <name>.h5.gz of the Zenodo record: its MD5 and length, and the MD5 and approximate length of the file
    in it, in bytes."""

    md5: str
    size: int
    file_md5: str
    file_size: int


# Archives: MD5 as in Zenodo's record and torchvision.datasets.PCAM (0.29), bytes as in TensorFlow Datasets' checksums
# for the same addresses. (The table in the README of github.com/basveeling/pcam has valid and test the other way
# round.) Files in them: MD5 as in kaiko-ai/eva, src/eva/vision/data/datasets/classification/patch_camelyon.py; two
# public DVC records of the unpacked files, made by others, name the same six.
PCAM = {
    "train_x": Archive(
        "1571f514728f59376b705fc836ff4b63", 6421353462, "01844da899645b4d6f84946d417ba453", 262144 * 27648
    ),
    "train_y": Archive("35c2d7259d906cfc8143347bb8e05be7", 21378, "0781386bf6c2fb62d58ff18891466aca", 262144),
    "valid_x": Archive(
        "d5b63470df7cfa627aeec8b9dc0c066e", 805965320, "81cf9680f1724c40673f10dc88e909b1", 32768 * 27648
    ),
    "valid_y": Archive("2b85f58b927af9964a4c15b8f7e8f179", 3038, "94d8aacc249253159ce2a2e78a86e658", 32768),
    "test_x": Archive("d8c2d60d490dbd479f8199bdfa0cf6ec", 800875929, "2614b2e6717d6356be141d9d6dbfcb7e", 32768 * 27648),
    "test_y": Archive("60a7035772fbdb7f34eb86d4420cf66a", 3040, "11ed647efe9fe457a4eb45df1dba19ba", 32768),
}


# Lists of where each patch was cut: MD5 as in the README of github.com/basveeling/pcam; their length is published
# nowhere.
SLIDES = {
    "train": "5a3dd671e465cfd74b5b822125e65b0a",
    "valid": "67589e00a4a37ec317f2d1932c7502ca",
    "test": "3455fd69135b66734e1008f3af684566",
}


def md5(path: Path) -> str:
    """MD5 of a file, hex."""
    return pooch.file_hash(str(path), alg="md5")


class Resume:
    """A pooch downloader that keeps what has arrived in `part` and asks for the rest.

    `size` is the published length in bytes; None takes the length that the server announces.
    """

    def __init__(self, part: Path, size: int | None):
        self.part, self.size = part, size

    def __call__(self, url: str, output_file: str, mother: Any, check_only: bool = False) -> None:
        # without a terminal a line a minute, for the log of a cluster job
        interval = 0.2 if sys.stderr.isatty() else 60
        have, retries = self._have(), _retries()
        with (
            requests.Session() as session,
            tqdm(total=self.size, desc=url.rsplit("/", 1)[-1], unit="B", unit_scale=True, mininterval=interval) as bar,
        ):
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=_retries()))
            while self.size is None or have < self.size:
                bar.n = have
                bar.refresh()
                error: Exception = HTTPError("the connection ended early")
                try:
                    self._fetch(session, url, have, bar)
                except requests.HTTPError as refusal:
                    if refusal.response.status_code in _retries().status_forcelist:  # five times
                        raise self._given_up(have, refusal) from None
                    raise
                except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as cut:
                    if isinstance(cut.args[0] if cut.args else None, MaxRetryError):
                        raise self._given_up(have, cut) from None
                    error = cut  # in the middle of the file, which urllib3 leaves to its caller
                if (now := self._have()) > have:
                    have, retries = now, _retries()
                if self.size is not None and have >= self.size:
                    break
                try:
                    retries = retries.increment("GET", url, error=HTTPError(str(error)))
                except MaxRetryError:
                    raise self._given_up(have, error) from None
                retries.sleep()
        if have > self.size:
            self.part.unlink()
            raise StudyError("the server sent more bytes than the archive has")
        os.replace(self.part, output_file)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _given_up(self, have: int, error: Exception) -> StudyError:
        reason = " ".join(str(error).split())[:160]
        of = f"{self.size:,}" if self.size is not None else "an unknown number of"
        return StudyError(f"after {TRIES} tries {reason}, {have:,} of {of} bytes are kept")

    def _fetch(self, session: requests.Session, url: str, have: int, bar: tqdm) -> None:
        """One request; what arrives goes to the end of `part`, or replaces it if the server starts from the
        beginning."""
        # identity: a server that packs or unpacks on the way would change the bytes
        headers = {"Accept-Encoding": "identity", "User-Agent": "pcamlib (pooch)"} | (
            {"Range": f"bytes={have}-"} if have else {}
        )
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:
                self.part.unlink()
                raise requests.ConnectionError("the server does not know the part asked for")
            answer.raise_for_status()
            resumed = answer.status_code == 206
            if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise StudyError("the server sent another part of the file than was asked for")
            done = have if resumed else 0
            length = answer.headers.get("Content-Length", "")
            claimed = int(length) + done if length.isdecimal() else self.size
            if self.size is None and (claimed is None or claimed > LONGEST_LIST):
                raise StudyError(f"the server announces {claimed or 'no number of'} bytes")
            self.size = claimed if self.size is None else self.size
            chunks = answer.iter_content(1 << 16)
            first = next(chunks, b"")
            # before what is there is touched: an answer of another kind must not cost what has come already
            if not first:
                return
            if done == 0 and (found := sniff_format(first[:4096])) and not found.startswith("it is still"):
                raise StudyError(f"what came is no archive: {found}")
            if claimed != self.size:
                raise StudyError(f"the server announces {claimed:,} bytes, the archive has {self.size:,}")
            with disk_full_as_error(self.part), open(self.part, "ab" if resumed else "wb") as out:
                for chunk in itertools.chain([first], chunks):
                    done += len(chunk)
                    out.write(chunk)
                    bar.update(len(chunk))
                    if done > self.size:
                        return


def download(root: str | Path, base: str = ZENODO) -> None:
    """Fetch PCam (8 GB packed, 9 GB unpacked) and the lists of its slides from `base` into `root`.

    Files and archives that are there are checked, not fetched again; a cut archive is resumed where it was cut. Every
    archive, every file in it and every list must have its published MD5. The slides are written to groups_{split}.csv,
    a line for each patch. Raises StudyError, with the steps by hand, when the network, a checksum or the disk fails.
    What is left then is whole files and, in the hidden folder .download, what the next call resumes.
    """
    root = Path(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with lock(root):
            store = root / STORE
            store.mkdir(exist_ok=True)
            for stale in store.glob("tmp*"):  # pooch's own, where a kill left one
                stale.unlink()
            try:
                missing = {
                    key: archive
                    for key, archive in PCAM.items()
                    if not _is_verified(_file(root, key), archive.file_md5)
                }
                _check_room(root, missing)
                for key, archive in missing.items():
                    _unpack(_archive(root, key, archive, base), _file(root, key), archive)
                for split in SLIDES:
                    _slides(root, split, base)
            finally:
                with contextlib.suppress(OSError):  # stays while there is something in it
                    store.rmdir()
    except OSError as error:
        reason = system_advice(error) or error.strerror or error
        raise StudyError(
            f"{root} cannot be written ({reason}): make room or choose another folder, then run the command again; it"
            " resumes."
        ) from None


def _is_verified(target: Path, published: str) -> bool:
    """Whether a file is there; StudyError if its MD5 is not the published one."""
    if not target.exists():
        return False
    if md5(target) == published:
        print(f"{target} is there")
        return True
    with open(target, "rb") as f:
        found = sniff_format(f.read(4096))
    raise StudyError(
        f"{target} is not PCam's file ({found or 'its MD5 differs'}): remove it and run the command again, or choose"
        " another folder."
    )


def _file(root: Path, key: str) -> Path:
    return pcam.file(root, *key.split("_"))


def _packed(root: Path, key: str) -> list[Path]:
    """Where an archive or its beginning may be: put there by hand, fetched, being fetched."""
    name = _file(root, key).name + ".gz"
    return [root / name, root / STORE / name, root / STORE / f"{name}.part"]


def _check_room(root: Path, missing: dict[str, Archive]) -> None:
    """All files, and the largest archive beside its file: archives go once their file stands."""
    if not missing:
        return
    here = sum(p.stat().st_size for key in missing for p in _packed(root, key) if p.exists())
    need = sum(a.file_size for a in missing.values()) + max(a.size for a in missing.values()) - here
    if (free := shutil.disk_usage(root).free) < need:
        raise StudyError(
            f"{root} needs {need / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free there: make room or choose another"
            " disk."
        )


def _archive(root: Path, key: str, archive: Archive, base: str) -> Path:
    """The checked archive in `root`, fetched unless it is there."""
    ours = _packed(root, key)[0]
    name = ours.name
    if ours.exists():
        if md5(ours) == archive.md5:
            return ours
        with open(ours, "rb") as f:
            found = sniff_format(f.read(4096))
        found = found if found and not found.startswith("it is still") else "its MD5 is not the published one"
        raise StudyError(f"{ours} is not PCam's archive ({found}): remove it and run the command again.")
    return _fetch_checked(root, name, archive.md5, archive.size, base)


def _fetch_checked(root: Path, name: str, published: str, size: int | None, base: str) -> Path:
    """A file of the record in the store of `root`, with its published MD5."""
    part = root / STORE / f"{name}.part"
    by_hand = (
        f"get {base}{name} with a browser or `curl -C - -LO`, put it into {root} as it is, and run the command again"
    )
    try:
        pooch.get_logger().setLevel("WARNING")
        found = pooch.retrieve(base + name, f"md5:{published}", name, part.parent, downloader=Resume(part, size))
    except (requests.RequestException, StudyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StudyError(
            f"{name} could not be fetched ({reason}): run the command again, it resumes, or {by_hand}."
        ) from None
    except ValueError:  # how pooch says that the hash is another one; it has removed the file
        raise StudyError(
            f"{name} came with other bytes than PCam's (MD5 differs) and was removed: run the command again, or"
            f" {by_hand}."
        ) from None
    return Path(found)


def _slides(root: Path, split: str, base: str) -> None:
    """The list of where the patches of a split were cut, and the slides in it as groups_{split}.csv."""
    target = meta_file(root, split)
    if not _is_verified(target, SLIDES[split]):
        os.replace(_fetch_checked(root, target.name, SLIDES[split], None, base), target)
        print(f"{target} fetched and checked")
    if not groups_file(root, split).exists():
        slides = pcam_slides(root, split)
        assert slides is not None
        write_groups(root, split, slides)


def _unpack(packed: Path, target: Path, archive: Archive) -> None:
    digest = hashlib.md5()
    try:
        with atomic(target) as tmp_path:
            with gzip.open(packed) as source, open(tmp_path, "wb") as out:
                while block := source.read(1 << 20):
                    digest.update(block)
                    out.write(block)
            if digest.hexdigest() != archive.file_md5:
                raise StudyError(
                    f"{packed} unpacks to another file than PCam's (MD5 differs): remove it and run the command again."
                )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise StudyError(
            f"{packed} is not a complete archive ({error}): remove it and run the command again."
        ) from None
    if packed.parent.name == STORE:  # one put there by hand is its owner's
        packed.unlink()
    print(f"{target} fetched and checked")
