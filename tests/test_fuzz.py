"""Whatever a file or a parameter holds, a reader of this project says one sentence about it or takes it.

Every test here makes its cases with hypothesis: a few in the daily run, hundreds with `make torture`. In each the call ends
in a StudyError of one line or in success; nothing else is raised, no file appears or goes, and no memory is taken beyond a
limit set for the process.
"""

import csv
import io
import resource
import struct

import h5py
import numpy as np
import pytest
import safetensors.numpy
import torch
import yaml
from conftest import settings as smoke
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from pcamlib import autoencoder, convert, data, histogan, profiles, run, study, training
from pcamlib.errors import StudyError

HEADROOM = 1 << 30  # bytes a call may take: all of it for what a few kB claim would be far more

few_and_many = pytest.mark.parametrize("cases", [8, pytest.param(250, marks=pytest.mark.torture)])


def fuzz(cases, strategy, body):
    """Run `body` on `cases` examples of `strategy`."""
    phases = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
    calm = settings(
        max_examples=cases, deadline=None, database=None, phases=phases, suppress_health_check=list(HealthCheck)
    )
    calm(given(strategy)(body))()


@pytest.fixture
def outcome():
    """outcome(call, folder) -> "taken" or "refused", after checking what this page promises."""
    limit = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

    def files(folder):
        return sorted((p.relative_to(folder).as_posix(), p.is_file() and p.stat().st_size) for p in folder.rglob("*"))

    def check(call, folder):
        before = files(folder)
        resource.setrlimit(resource.RLIMIT_AS, (in_use + HEADROOM, limit[1]))
        try:
            call()
            result = "taken"
        except StudyError as error:
            text = str(error)
            assert "\n" not in text and 20 < len(text) < 1200, text
            result = "refused"
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)
        if result == "refused":
            assert files(folder) == before
        return result

    return check


# ---------------------------------------------------------------------------------------------- HDF5


def x_values(n):
    return np.random.default_rng(n).integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)


def y_values(n):
    return (np.arange(n) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)


KINDS = st.sampled_from(
    ["u1", "i1", "u2", "i8", "f4", "f8", "bool", "S3", "c8", "vlen", "string", "compound", "enum", "ref"]
)
SHAPES = st.one_of(
    st.lists(st.integers(0, 5), max_size=5).map(tuple),
    st.sampled_from([(6, 96, 96, 3), (6, 1, 1, 1), (6, 3, 96, 96), (6, 96, 96), (6,), (6, 96, 96, 4), (6, 1)]),
)
HUGE = st.sampled_from([10**6, 10**9, 10**12, 2**40, 2**62 // 27648, 2**62])


def put(f, name, how, kind, shape, fill, huge):
    """Put something called `name` into an HDF5 file that is not what PCam has there."""
    tail = (96, 96, 3) if name == "x" else (1, 1, 1)
    if how == "group":
        f.create_group(name)
    elif how == "link":
        f[name] = h5py.SoftLink("/nowhere")
    elif how == "elsewhere":
        f[name] = h5py.ExternalLink("other.h5", "/x")
    elif how == "null":
        f[name] = h5py.Empty("u1")
    elif how == "claims":
        f.create_dataset(name, (huge, *tail), "u1", chunks=(1, *tail))
    elif how == "claims packed":
        f.create_dataset(name, (huge, *tail), "u1", chunks=(1, *tail), compression="gzip")
    elif how == "chunks":
        f.create_dataset(
            name, (6, *tail), "u1", maxshape=(None, *tail), chunks=(min(huge, (2**32 - 1) // int(np.prod(tail))), *tail)
        )
    elif how == "external":
        f.create_dataset(name, (6, *tail), "u1", external=[("/etc/hostname", 0, 6 * int(np.prod(tail)))])
    elif how == "virtual":
        layout = h5py.VirtualLayout((6, *tail), "u1")
        layout[:] = h5py.VirtualSource("other.h5", name, (6, *tail))
        f.create_virtual_dataset(name, layout)
    elif how == "values":
        f[name] = np.full(
            (6, *tail), fill if kind == "f4" else np.nan_to_num(fill, posinf=3), "f4" if kind == "f4" else "u1"
        )
    else:
        types = {
            "vlen": h5py.vlen_dtype(np.uint8),
            "string": h5py.string_dtype(),
            "compound": np.dtype([("a", "u1"), ("b", "f4")]),
        }
        types |= {"enum": h5py.enum_dtype({"NO": 0, "YES": 1}), "ref": h5py.ref_dtype}
        f.create_dataset(name, shape, types.get(kind, kind))


HOW = st.sampled_from(
    [
        "group",
        "link",
        "elsewhere",
        "null",
        "claims",
        "claims packed",
        "chunks",
        "external",
        "virtual",
        "values",
        "type",
        "type",
    ]
)


def read_all(root):
    data.load(root, "train")
    data.Patches(root, "train")[0]
    data.verify(root, ["train"])


@few_and_many
def test_hdf5_files_of_another_build(cases, tmp_path, outcome):
    case = st.tuples(
        st.sampled_from("xy"), st.sampled_from(["same", "X", "images", "y ", "data/x"]), HOW, KINDS, SHAPES,
        st.sampled_from([0.0, 1.0, 2.0, 255.0, float("nan"), float("inf")]), HUGE,
    )  # fmt: skip

    def body(drawn):
        kind, name, how, *rest = drawn
        for k, values in ("x", x_values(6)), ("y", y_values(6)):
            with h5py.File(data.file(tmp_path, "train", k), "w") as f:
                if k == kind:
                    put(f, k if name == "same" else name, how, *rest)
                else:
                    f[k] = values
        outcome(lambda: read_all(tmp_path), tmp_path)

    fuzz(cases, case, body)


def damage():
    """How bytes are damaged: ("cut", where), ("flip", where, mask, how many), ("zero", where, how many), ("more", what)."""
    where = st.one_of(st.integers(0, 2500), st.integers(0, 10**6))
    return st.one_of(
        st.tuples(st.just("cut"), where, st.just(0), st.just(0)),
        st.tuples(st.just("flip"), where, st.integers(1, 255), st.integers(1, 8)),
        st.tuples(st.just("zero"), where, st.just(0), st.integers(1, 600)),
        st.tuples(st.just("ones"), where, st.just(255), st.integers(1, 16)),
        st.tuples(st.just("more"), where, st.integers(0, 255), st.integers(1, 4000)),
    )


def damaged(whole, how, where, value, count):
    """`whole` bytes, damaged."""
    where %= len(whole) + 1
    changed = bytearray(whole)
    if how == "cut":
        return whole[:where]
    if how == "more":
        return whole + bytes([value]) * count
    for i in range(where, min(where + count, len(whole))):
        changed[i] = changed[i] ^ value if how == "flip" else value
    return bytes(changed)


@few_and_many
def test_hdf5_files_with_damaged_bytes(cases, tmp_path, outcome):
    whole = {}
    for packed in (None, "gzip"):
        for k, values in ("x", x_values(4)), ("y", y_values(4)):
            buffer = io.BytesIO()
            with h5py.File(buffer, "w") as f:
                f.create_dataset(k, data=values, compression=packed)
            whole[packed, k] = buffer.getvalue()

    def body(drawn):
        packed, kind, how = drawn
        for k in "xy":
            content = whole[packed, k]
            data.file(tmp_path, "train", k).write_bytes(damaged(content, *how) if k == kind else content)
        outcome(lambda: read_all(tmp_path), tmp_path)

    fuzz(cases, st.tuples(st.sampled_from([None, "gzip"]), st.sampled_from("xy"), damage()), body)


# ---------------------------------------------------------------------------------------------- profiles

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just(""), st.just("é" * 300),
    st.sampled_from([-1, 0, 10**30, "1", "none", "../x", "a b", "!!python/object/apply:os.system [echo]"]),
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)), max_leaves=6)  # fmt: skip


def paths(tree, at=()):
    for key, value in tree.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from paths(value, (*at, key))


@few_and_many
def test_profiles_with_other_values(cases, tmp_path, outcome):
    known = list(paths(smoke()))
    case = st.lists(
        st.tuples(
            st.sampled_from(known),
            st.sampled_from(["set", "set", "drop", "add", "rename"]),
            VALUES,
            st.text(max_size=12),
        ),
        min_size=1,
        max_size=3,
    )

    def body(changes):
        content = smoke()
        for path, how, value, word in changes:
            section = content
            for part in path[:-1]:
                section = section.get(part) if isinstance(section, dict) else None
            if not isinstance(section, dict):
                continue
            if how == "set":
                section[path[-1]] = value
            elif how == "add":
                section[word] = value
            elif path[-1] in section:
                old = section.pop(path[-1])
                if how == "rename":
                    section[word] = old
        (tmp_path / "p.yml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        outcome(lambda: profiles.load(str(tmp_path / "p.yml")), tmp_path)

    fuzz(cases, case, body)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)
TEXTS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from(
        [
            "[" * 5000,
            "{a: " * 3000,
            BOMB,
            "!!python/object/apply:os.system ['true']",
            "&a [*a]",
            "a: *b",
            "- 1",
            "a: b: c",
            "? {}",
            "name: !!binary x",
        ]
    ).map(str.encode),
)


@few_and_many
def test_profiles_that_are_any_text(cases, tmp_path, outcome):
    def body(content):
        (tmp_path / "p.yml").write_bytes(content)
        assert outcome(lambda: profiles.load(str(tmp_path / "p.yml")), tmp_path) == "refused"

    fuzz(cases, TEXTS, body)


# ---------------------------------------------------------------------------------------------- notebook parameters

WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["(" * 3000, "[" * 500 + "]" * 500, "9" * 6000, "1e999", "nan", "True", "0x10", "1_0", "1 if 1 else 2", "__import__('os')", "\0", "$(touch x)", "';touch x;'",
         "-" * 4000 + "1", "None", "1j", "b'a'", "'a'"]
    ),
)  # fmt: skip


@few_and_many
def test_parameters_given_on_the_command_line(cases, tmp_path, outcome):
    known = {"subset": 0, "rate": 0.5, "name": "demo", "flag": True}

    def body(drawn):
        got = {}
        result = outcome(lambda: got.update(run.check(drawn, known, "page.md")), tmp_path)
        if result == "taken":
            assert all(type(got[key]) is type(known[key]) for key in drawn)
            assert all(np.isfinite(value) for value in got.values() if isinstance(value, float))

    fuzz(cases, st.dictionaries(st.one_of(st.sampled_from(list(known)), st.text(max_size=10)), WORDS, max_size=3), body)


@few_and_many
def test_parameter_cells_of_a_notebook(cases, tmp_path, outcome):
    lines = st.lists(
        st.one_of(st.text(max_size=30), WORDS.map(lambda w: f"x = {w}"), st.just("a = 1"), st.just("import os")),
        max_size=3,
    )

    def body(drawn):
        cell = {"source": "\n".join(drawn), "metadata": {"tags": ["parameters"]}}
        page = run.nbformat.from_dict({"cells": [cell]})
        outcome(lambda: run.parameters(page, "page.md"), tmp_path)

    fuzz(cases, lines, body)


@few_and_many
def test_places_and_names_a_study_is_opened_with(cases, tmp_path, pcam, outcome):
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(smoke(**{"subsets.size": 32, "quality.judge.size": 32})))
    good = {
        "data_root": str(pcam),
        "runs_dir": str(tmp_path / "runs"),
        "profile": str(tmp_path / "tiny.yml"),
        "subset": 0,
    }
    study.open_study(**good)
    names = st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            [
                "",
                "\0",
                "~nobody-here/x",
                "x" * 300,
                "x" * 300 + ".yml",
                "\0.yml",
                "/.yml",
                "/",
                "/proc/1/fd",
                "/dev/null/x",
                "..",
            ]
        ),
    )
    case = st.one_of(
        st.tuples(st.sampled_from(["data_root", "profile"]), names),
        st.tuples(st.just("runs_dir"), st.sampled_from(["\0", "x" * 300, "/dev/null/x", "/proc/none"])),
        st.tuples(
            st.just("subset"),
            st.one_of(st.integers(2), st.integers(max_value=-1), st.text(max_size=3), st.none(), st.floats()),
        ),
    )

    def body(drawn):
        key, value = drawn
        assert outcome(lambda: study.open_study(**good | {key: value}), tmp_path) == "refused"

    fuzz(cases, case, body)


# ---------------------------------------------------------------------------------------------- saved weights


def cut_tensors(whole, drawn):
    """A safetensors file, its bytes or its content damaged."""
    what, how, pick, shape = drawn
    if what == "bytes":
        return damaged(whole, *how)
    tensors = safetensors.numpy.load(whole)
    (length,) = struct.unpack("<Q", whole[:8])
    meta = yaml.safe_load(whole[8 : 8 + length]).get("__metadata__") or {}
    name = sorted(tensors)[pick % len(tensors)]
    if what == "drop":
        del tensors[name]
    elif what == "rename":
        tensors[name + "/x"] = tensors.pop(name)
    elif what == "shape":
        tensors[name] = np.zeros(shape, np.float32)
    elif what == "nan":
        tensors[name] = np.full_like(tensors[name], np.nan if tensors[name].dtype.kind == "f" else 99)
    elif what == "meta" and meta:
        key = sorted(meta)[pick % len(meta)]
        meta[key] = ["", "{}", "[1]", "null", "x"][shape[0] % 5] if shape else ""
    return safetensors.numpy.save(tensors, meta)


WEIGHTS = st.tuples(
    st.sampled_from(["bytes", "bytes", "drop", "rename", "shape", "nan", "meta"]),
    damage(),
    st.integers(0, 200),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
)


class Line(training.Task):
    """y = a x + b, the smallest thing the loop trains."""

    def __init__(self):
        super().__init__()
        self.modules["line"] = torch.nn.Linear(1, 1)
        self.optimizers["adam"] = torch.optim.Adam(self.modules["line"].parameters())
        self.ema["line"] = training.make_ema(self.modules["line"], 0.9)
        self.tensors["seen"] = torch.zeros(3)

    def step(self, rows):
        loss = self.modules["line"](rows.float().view(-1, 1)).pow(2).mean()
        self.update("adam", loss)
        return {"loss": loss.detach()}


@few_and_many
def test_checkpoints(cases, tmp_path, outcome, checkpoint_always):
    options = dict(folder=tmp_path / "stage", n=8, epochs=2, batch_size=4, seed=0, precision="fp32", identity=1)
    training.fit(Line(), **options)
    path = tmp_path / "stage" / "checkpoint.safetensors"
    whole = path.read_bytes()

    def body(drawn):
        path.write_bytes(cut_tensors(whole, drawn))
        outcome(lambda: training.fit(Line(), **options), tmp_path)

    fuzz(cases, WEIGHTS, body)


@few_and_many
def test_weights_of_generators(cases, tmp_path, outcome, open_tiny):
    s = open_tiny()
    model, _ = autoencoder.train(s)
    autoencoder.encode_subset(s, model)
    gan = histogan.Generator(4, 2)
    folder = tmp_path / "gan"
    histogan.write_json(folder / "config.json", {"generator": {"noise_dim": 4, "base_channels": 2}})
    (folder / histogan.WEIGHTS).write_bytes(safetensors.numpy.save({k: v.numpy() for k, v in gan.state_dict().items()}))
    places = {
        folder / histogan.WEIGHTS: lambda: histogan.load(folder),
        s.folder / "autoencoder" / "latents.safetensors": lambda: autoencoder.load_latents(s),
        s.folder / "autoencoder" / "model" / "shortcut.safetensors": lambda: autoencoder.load(s),
        s.folder / "autoencoder" / "model" / "vae" / "diffusion_pytorch_model.safetensors": lambda: autoencoder.load(s),
    }
    whole = {path: path.read_bytes() for path in places}

    def body(drawn):
        which, how = drawn
        path = list(places)[which]
        path.write_bytes(cut_tensors(whole[path], how))
        try:
            outcome(places[path], tmp_path)
        finally:
            path.write_bytes(whole[path])

    fuzz(cases // 4, st.tuples(st.integers(0, 3), WEIGHTS), body)  # a case is a whole network


# ---------------------------------------------------------------------------------------------- convert


@few_and_many
def test_lists_of_images(cases, tmp_path, outcome):
    source = tmp_path / "in"
    source.mkdir()
    for i in range(6):
        Image.fromarray(x_values(6)[i]).save(source / f"{i}.png")
    cell = st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            [f"{i}.png" for i in range(6)]
            + ["0", "1", "train", "valid", "test", "", "../in/0.png", "a\nb", "x" * 300, "\0"]
        ),
    )
    row = st.one_of(
        st.lists(cell, max_size=5),
        st.tuples(st.integers(0, 5), st.integers(0, 1)).map(
            lambda t: [f"{t[0]}.png", str(t[1]), data.SPLITS[t[0] % 3], f"g{t[0]}"]
        ),
    )
    header = st.one_of(
        st.sampled_from(
            [
                ["file", "label"],
                ["file", "label", "split"],
                ["file", "label", "split", "group"],
                ["label", "file"],
                ["\ufefffile", "label"],
            ]
        ),
        st.lists(st.text(max_size=8), max_size=4),
    )
    lists = st.tuples(header, st.lists(row, max_size=8))

    def body(drawn):
        if isinstance(drawn, bytes):
            (source / "list.csv").write_bytes(drawn)
        else:
            with open(source / "list.csv", "w", newline="", encoding="utf-8", errors="replace") as f:
                csv.writer(f, escapechar="\\").writerows([drawn[0], *drawn[1]])
        options = {"fractions": (0.4, 0.3, 0.3)}
        if outcome(lambda: convert.convert(source, tmp_path / "out", **options), tmp_path) == "taken":
            convert.shutil.rmtree(tmp_path / "out")

    fuzz(cases, st.one_of(lists, st.binary(max_size=120)), body)


def pictures():
    """Small whole image files of every format taken."""
    image = Image.fromarray(x_values(1)[0])
    for form, options in {"PNG": {}, "JPEG": {}, "WEBP": {}, "TIFF": {"compression": "tiff_lzw"}, "GIF": {}}.items():
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        yield buffer.getvalue()
    buffer = io.BytesIO()
    image.convert("P").save(buffer, "PNG")
    yield buffer.getvalue()


@few_and_many
def test_damaged_images(cases, tmp_path, outcome):
    whole = list(pictures())
    source = tmp_path / "in"
    for i in range(6):
        (source / str(i % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(x_values(6)[i]).save(source / str(i % 2) / f"{i}.png")

    def body(drawn):
        which, how, size, colours = drawn
        (source / "0" / "damaged.png").write_bytes(damaged(whole[which], *how))
        options = {"fractions": (0.4, 0.3, 0.3), "size": size, "colours": colours}
        if outcome(lambda: convert.convert(source, tmp_path / "out", **options), tmp_path) == "taken":
            convert.shutil.rmtree(tmp_path / "out")

    sizes = st.sampled_from([None, "resize", "crop", "tile"])
    colours = st.sampled_from([(), ("palette", "grey", "alpha", "16bit", "cmyk")])
    fuzz(cases, st.tuples(st.integers(0, len(whole) - 1), damage(), sizes, colours), body)
