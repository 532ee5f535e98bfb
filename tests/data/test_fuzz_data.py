"""Files of patches and folders of images with anything in them: see fuzzing.py."""

import contextlib
import csv
import io
import shutil

import h5py
import numpy as np
from fuzzing import damage, damaged, few_and_many, fuzz
from hypothesis import strategies as st
from PIL import Image

from pcamlib import data
from pcamlib.data import convert

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


@few_and_many
def test_folders_of_all_kinds(cases, tmp_path, outcome):
    """Names, nesting, stray and torn files, splits by folder; and places for the result that are none."""
    image = next(pictures())
    known = st.sampled_from(["0", "1", "normal", "train", "val", "test", ".hidden", "a b", "é", "x.json", "x" * 250])
    text = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=6)
    part = st.one_of(known, text).filter(lambda name: name not in (".", ".."))
    stray = st.tuples(
        st.lists(part, min_size=1, max_size=4), st.sampled_from([".png", ".PNG", ".txt", ".csv", ""]), st.booleans()
    )
    dests = st.sampled_from(["out", "new/..", ".", "in", "in/out", "in/0", "a/b/c", "in/0/0.png", "x" * 300, "a\0b"])
    work = tmp_path / "case"

    def body(drawn):
        found, splits, dest = drawn
        shutil.rmtree(work, ignore_errors=True)
        for i in range(12):
            home = work / "in" / (data.SPLITS[i % 3] if splits else "") / str(i // 3 % 2)
            home.mkdir(parents=True, exist_ok=True)
            (home / f"{i}.png").write_bytes(image)
        for parts, suffix, whole in found:
            path = (work / "in").joinpath(*parts[:-1], parts[-1] + suffix)
            with contextlib.suppress(OSError):  # a name too long, a file where a folder should be
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image if whole else image[:200])
        options = {"fractions": (0.4, 0.3, 0.3), "positive": "1"}
        outcome(lambda: convert.convert(work / "in", work / dest, **options), work)

    fuzz(cases, st.tuples(st.lists(stray, max_size=5), st.booleans(), dests), body)
