"""Profiles, notebook parameters and saved weights with anything in them: see fuzzing.py."""

import struct

import numpy as np
import safetensors.numpy
import torch
import yaml
from conftest import settings as smoke
from fuzzing import damage, damaged, few_and_many, fuzz
from hypothesis import strategies as st

from pcamlib import study, training
from pcamlib.core.settings import load_profile
from pcamlib.models import autoencoder, histogan
from pcamlib.workflow import notebook

# ---------------------------------------------------------------------------------------------- profiles

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just(""), st.just("é" * 300),
    st.sampled_from([-1, 0, 10**30, "1", "none", "../x", "a b", "!!python/object/apply:os.system [echo]"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


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
        outcome(lambda: load_profile(str(tmp_path / "p.yml")), tmp_path)

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
        assert outcome(lambda: load_profile(str(tmp_path / "p.yml")), tmp_path) == "refused"

    fuzz(cases, TEXTS, body)


# ---------------------------------------------------------------------------------------------- notebook parameters

WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "(" * 3000,
            "[" * 500 + "]" * 500,
            "9" * 6000,
            "1e999",
            "nan",
            "True",
            "0x10",
            "1_0",
            "1 if 1 else 2",
            "__import__('os')",
            "\0",
            "$(touch x)",
            "';touch x;'",
            "-" * 4000 + "1",
            "None",
            "1j",
            "b'a'",
            "'a'",
        ]
    ),
)


@few_and_many
def test_parameters_given_on_the_command_line(cases, tmp_path, outcome):
    known = {"subset": 0, "rate": 0.5, "name": "demo", "flag": True}

    def body(drawn):
        got = {}
        result = outcome(lambda: got.update(notebook.check(drawn, known, "page.md")), tmp_path)
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
        page = notebook.nbformat.from_dict({"cells": [cell]})
        outcome(lambda: notebook.parameters(page, "page.md"), tmp_path)

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
