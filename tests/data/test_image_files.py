"""Formats, sizes and colours of one image: taken as they are, converted by name, or refused."""

import collections
import errno
import io
import os
import struct
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image, ImageOps

from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root
from pcamlib.data import image_files

REAL = project_root().parent / "shared" / "pcam" / "valid.jpeg.h5"


def rgb(size=(96, 96)):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def mode(name):
    return Image.fromarray(rgb()).convert(name)


def see_through():
    """Left half opaque, right half not there: white."""
    pixels = np.dstack([rgb(), np.full((96, 96), 255, np.uint8)])
    pixels[:, 48:, 3] = 0
    return Image.fromarray(pixels)


def deep():
    return Image.fromarray((rgb()[..., 0].astype(np.uint16) << 8) | 7)


@pytest.mark.parametrize(
    "image, suffix, needs",
    [
        (mode("L"), "png", "grey"),
        (mode("1"), "tif", "grey"),
        (mode("P"), "png", "palette"),
        (mode("CMYK"), "jpg", "cmyk"),
        (mode("CMYK"), "tif", "cmyk"),
        (see_through(), "webp", "alpha"),
        (mode("LA"), "png", "grey,alpha"),
        (deep(), "png", "grey,16bit"),
        (deep(), "tif", "grey,16bit"),
    ],
)
def test_colours_are_refused_or_converted_by_name(tmp_path, image, suffix, needs):
    path = tmp_path / f"a.{suffix}"
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    with pytest.raises(StudyError, match=f"is not 8-bit RGB .*add --convert {needs} "):
        image_files.inspect_image(path, None, ())
    found = image_files.patches(path, image_files.inspect_image(path, None, needs.split(",")), None)
    assert found.shape == (1, 96, 96, 3) and found.dtype == np.uint8
    if "16bit" in needs:
        np.testing.assert_array_equal(found[0], np.repeat(rgb()[..., :1], 3, 2))
    elif suffix == "webp":
        np.testing.assert_array_equal(found[0, :, :48], rgb()[:, :48])
        assert (found[0, :, 48:] == 255).all()
    elif suffix != "jpg":
        np.testing.assert_array_equal(found[0], np.asarray(image.convert("RGB")))


def tiff(path, channels, tags):
    """A 16-bit TIFF of 96x96 zeros, written by hand: Pillow writes no planes and no negatives."""
    planes = channels if tags.get(284) == 2 else 1
    data_size = 96 * 96 * 2 * channels
    offsets = [8 + data_size // planes * i for i in range(planes)]
    sizes = [data_size // planes] * planes
    after = 8 + data_size
    entries = {256: (4, [96]), 257: (4, [96]), 258: (3, [16] * channels), 259: (3, [1])}
    entries |= {262: (3, [tags.get(262, 2 if channels == 3 else 1)]), 273: (4, offsets), 277: (3, [channels])}
    entries |= {278: (4, [96]), 279: (4, sizes), 284: (3, [tags.get(284, 1)])}
    out, tail = b"", b""
    at = after + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        body = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(body) > 4:
            out += struct.pack("<HHII", tag, kind, len(values), at + len(tail))
            tail += body
        else:
            out += struct.pack("<HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    ifd = struct.pack("<H", len(entries)) + out + struct.pack("<I", 0) + tail
    path.write_bytes(b"II*\0" + struct.pack("<I", after) + bytes(data_size) + ifd)


def test_what_pillow_would_pass_over_in_silence(tmp_path):
    """16-bit colour that Pillow opens as "RGB", see-through colour, several pages, no way to RGB, a slide."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    deep_rgb = (rgb().astype(">u2") * 257).tobytes()
    lines = b"".join(b"\0" + deep_rgb[i * 576 : (i + 1) * 576] for i in range(96))
    header = struct.pack(">IIBBBBB", 96, 96, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )
    with pytest.raises(StudyError, match="--convert 16bit"):
        image_files.inspect_image(path, None, ())
    np.testing.assert_array_equal(
        image_files.patches(path, image_files.inspect_image(path, None, ["16bit"]), None)[0], rgb()
    )
    Image.fromarray(rgb()).save(tmp_path / "key.png", transparency=(0, 0, 0))
    with pytest.raises(StudyError, match="--convert alpha"):
        image_files.inspect_image(tmp_path / "key.png", None, ())
    mode("RGB").save(tmp_path / "pages.tif", save_all=True, append_images=[mode("RGB")])
    with pytest.raises(StudyError, match="holds 2 pages"):
        image_files.inspect_image(tmp_path / "pages.tif", None, ())
    mode("L").convert("F").save(tmp_path / "float.tif")
    with pytest.raises(StudyError, match="colour mode F"):
        image_files.inspect_image(tmp_path / "float.tif", None, list(image_files.CONVERSIONS))
    for name, channels, tags in (("planes.tif", 3, {284: 2}), ("negative.tif", 1, {262: 0})):
        tiff(tmp_path / name, channels, tags)
        with pytest.raises(StudyError, match="cannot be converted to RGB as it is stored"):
            image_files.inspect_image(tmp_path / name, None, list(image_files.CONVERSIONS))
    tiff(tmp_path / "grey16.tif", 1, {})
    assert image_files.inspect_image(tmp_path / "grey16.tif", None, list(image_files.CONVERSIONS)).needs == (
        "grey",
        "16bit",
    )
    deep = Image.fromarray((rgb()[..., 0].astype(np.uint16) * 257))
    deep.save(tmp_path / "key16.png", transparency=0)
    with pytest.raises(StudyError, match="cannot be converted to RGB as it is stored"):
        image_files.inspect_image(tmp_path / "key16.png", None, list(image_files.CONVERSIONS))
    Image.new("1", (9000, 9000)).save(tmp_path / "slide.png")
    with pytest.raises(StudyError, match="a slide rather than a patch"):
        image_files.inspect_image(tmp_path / "slide.png", "tile", ["grey"])


def test_sizes_by_name(tmp_path):
    pixels = rgb((200, 300))
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    for size, message in {None: "choose --size resize, crop, tile", "resize": "distort"}.items():
        with pytest.raises(StudyError, match=f"is 300x200.*{message}"):
            image_files.inspect_image(tmp_path / "wide.png", size, ())
    tiles = image_files.patches(
        tmp_path / "wide.png", image_files.inspect_image(tmp_path / "wide.png", "tile", ()), "tile"
    )
    assert len(tiles) == 6
    np.testing.assert_array_equal(tiles[4], pixels[96:192, 96:192])
    crop = image_files.patches(
        tmp_path / "wide.png", image_files.inspect_image(tmp_path / "wide.png", "crop", ()), "crop"
    )
    np.testing.assert_array_equal(crop[0], pixels[52:148, 102:198])
    Image.fromarray(np.full((256, 256, 3), 77, np.uint8)).save(tmp_path / "square.png")
    small = image_files.patches(
        tmp_path / "square.png", image_files.inspect_image(tmp_path / "square.png", "resize", ()), "resize"
    )
    assert small.shape == (1, 96, 96, 3) and (small == 77).all()
    Image.fromarray(rgb((60, 96))).save(tmp_path / "small.png")
    with pytest.raises(StudyError, match="too small for --size tile"):
        image_files.inspect_image(tmp_path / "small.png", "tile", ())


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_tag_means_the_same_in_every_container(tmp_path, orientation):
    """What viewers show, from PNG, JPEG, WebP and TIFF alike; pixels of PNG, WebP and TIFF exactly."""
    stored = Image.fromarray(np.vstack([smooth(0), smooth(1)]))
    turned = ImageOps.exif_transpose(with_exif(stored, orientation))
    for name, options in {
        "a.png": {},
        "a.webp": {"lossless": True},
        "a.jpg": {"quality": 95},
        "a.tif": {},
        "b.tif": {"compression": "tiff_lzw"},
        "c.tif": {"compression": "tiff_adobe_deflate"},
    }.items():
        stored.save(tmp_path / name, exif=exif(orientation), **options)
        info = image_files.inspect_image(tmp_path / name, "tile", ())
        assert info == (*turned.size, (), 2, orientation > 1), name
        found = image_files.patches(tmp_path / name, info, "tile")
        expected = (
            np.asarray(turned).reshape(2, 96, 96, 3)
            if turned.size == (96, 192)
            else np.stack(np.split(np.asarray(turned), 2, 1))
        )
        if name == "a.jpg":
            assert np.abs(found.astype(int) - expected).mean() < 8  # any other turn is off by more than 30
        else:
            np.testing.assert_array_equal(found, expected)


def with_exif(image, orientation):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif(orientation))
    return Image.open(buffer)


def test_an_orientation_tag_behind_the_pixels_or_unreadable(tmp_path):
    stored = Image.fromarray(rgb((192, 96)))
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif(6))
    whole = buffer.getvalue()
    at = whole.index(b"eXIf") - 4
    length = struct.unpack(">I", whole[at : at + 4])[0] + 12
    late = whole[:at] + whole[at + length : -12] + whole[at : at + length] + whole[-12:]
    (tmp_path / "late.png").write_bytes(late)
    info = image_files.inspect_image(tmp_path / "late.png", "tile", ())
    assert info[:2] == (192, 96) and info.turned
    np.testing.assert_array_equal(
        np.hstack(image_files.patches(tmp_path / "late.png", info, "tile")),
        np.asarray(ImageOps.exif_transpose(with_exif(stored, 6))),
    )
    stored.save(tmp_path / "odd.png", exif=b"Exif\0\0nonsense")
    info = image_files.inspect_image(tmp_path / "odd.png", "tile", ())
    assert not info.turned and len(image_files.patches(tmp_path / "odd.png", info, "tile")) == 2


def smooth(seed):
    """A picture that JPEG packs as it packs tissue."""
    coarse = np.random.default_rng(seed).integers(60, 240, (13, 13, 3), dtype=np.uint8)
    fine = np.random.default_rng(seed + 100).normal(0, 6, (96, 96, 3))
    image = np.asarray(Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)) + fine
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def damaged_jpegs(image, options):
    """(name, bytes) of an image as JPEG: whole, and damaged in ways that Pillow decodes without a word."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    whole = buffer.getvalue()
    start, n = whole.index(b"\xff\xda") + 14, len(whole)
    third, middle = (n - start) // 3, (start + n) // 2
    yield "whole", whole
    yield "cut", whole[: n - third]
    yield "cut and ended", whole[: n - third] + b"\xff\xd9"
    yield "zero tail", whole[: n - third] + bytes(third)
    yield "zeros", whole[:middle] + bytes(64) + whole[middle + 64 :]


def jpegs_taken(path, images, options):
    """How many of the images are taken in each state."""
    taken = collections.Counter()
    for image in images:
        for name, content in damaged_jpegs(image, options):
            path.write_bytes(content)
            try:
                found = image_files.patches(path, image_files.inspect_image(path, None, ()), None)
            except StudyError as error:
                assert "damaged JPEG data" in str(error) or "cannot be read" in str(error)
            else:
                taken[name] += 1
                if name == "whole":
                    np.testing.assert_array_equal(found[0], np.asarray(Image.open(path)))
    return taken


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}])
def test_damaged_jpeg_data_that_the_decoder_warns_of_are_refused(tmp_path, options):
    """Zeros in the middle may leave codes that are valid to the end; that cannot be told, so they are not counted
    here."""
    taken = jpegs_taken(tmp_path / "a.jpg", [smooth(seed) for seed in range(20)], options)
    assert taken["whole"] == 20 and taken["cut"] == taken["cut and ended"] == taken["zero tail"] == 0


@pytest.mark.skipif(not REAL.exists(), reason="needs the excerpt of real PCam beside the project")
def test_damaged_jpegs_of_real_patches(tmp_path):
    with h5py.File(REAL) as f:
        blob, offset = f["jpeg"][: f["offset"][40]], f["offset"][:41]
    images = [Image.open(io.BytesIO(blob[a:b].tobytes())).convert("RGB") for a, b in zip(offset[:-1], offset[1:])]
    taken = jpegs_taken(tmp_path / "a.jpg", images, {})
    assert (
        taken["whole"] == 40
        and taken["cut"] == taken["cut and ended"] == taken["zero tail"] == 0
        and taken["zeros"] <= 4
    )


@pytest.mark.parametrize(
    "number, message",
    [
        (errno.EACCES, "Permission denied"),
        (errno.ESTALE, "Stale file handle"),
        (errno.EAGAIN, "temporarily unavailable"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_what_the_system_refuses_is_not_called_damage(tmp_path, monkeypatch, number, message):
    mode("RGB").save(tmp_path / "a.png")

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(image_files.Image, "open", refuse)
    with pytest.raises(StudyError, match=f"could not be opened .*{message}") as caught:
        image_files.inspect_image(tmp_path / "a.png", None, ())
    assert not any(word in str(caught.value) for word in ("remove", "damage", "repair", "cannot be read as"))


def test_a_chunk_that_claims_a_gigabyte_takes_no_memory(tmp_path, outcome):
    """Pillow asks for the whole length that a PNG chunk claims."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(buffer, "PNG")
    damaged = bytearray(buffer.getvalue())
    damaged[33] ^= 66  # the first byte of the length of the pixels' chunk
    (tmp_path / "big.png").write_bytes(damaged)

    def read():
        info = image_files.inspect_image(tmp_path / "big.png", None, ())
        image_files.patches(tmp_path / "big.png", info, None)

    outcome(read, tmp_path)
