"""One image file in, patches out: which formats, sizes and colours are taken, and which only when asked by name."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

from pcamlib.core.errors import StudyError, system_advice
from pcamlib.data.pcam import SIDE

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")  # nothing that starts another program, as Pillow's EPS does
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
SIZES = {
    "resize": "square images are scaled to 96x96 (antialiased)",
    "crop": "the centre 96x96 is cut out",
    "tile": "cut into as many whole 96x96 tiles as fit, from the top left; each gets the image's label",
}
CONVERSIONS = {
    "grey": "one channel is copied to three",
    "palette": "indexed colours are converted to RGB",
    "cmyk": "by the plain formula, without a colour profile",
    "alpha": "composited on white",
    "16bit": "the high byte of each value is kept",
}
NEEDS = {
    "RGB": (),
    "1": ("grey",),
    "L": ("grey",),
    "LA": ("grey", "alpha"),
    "P": ("palette",),
    "PA": ("palette", "alpha"),
}
NEEDS |= {"RGBA": ("alpha",), "CMYK": ("cmyk",)} | {f"I;16{end}": ("grey", "16bit") for end in ("", "B", "L", "N")}
LIMIT = (
    1 << 24
)  # pixels of one image, 4096 x 4096 (about 300 MB while it is read); beyond, it is a slide and not a patch
PNG_METADATA = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type")  # where a PNG may say its orientation
BITS, PHOTOMETRIC, PLANES = (
    258,
    262,
    284,
)  # TIFF's tags: bits per sample; 0 where white is zero; 2 for a plane per colour


class ImageInfo(NamedTuple):
    """What an image's header tells: width and height in pixels as viewers show it, the conversions it needs, the
    patches it gives, and whether an orientation tag turns or mirrors it."""

    width: int
    height: int
    needs: tuple[str, ...]
    patches: int
    turned: bool = False


class _Bounded(io.BufferedReader):
    """A file that is asked for no more than it holds: Pillow reads as many bytes as a damaged chunk claims to have, and
    Python would reserve memory for all of them.
    """

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; whether the pixels are whole is checked
            with _Bounded(io.FileIO(path)) as file, Image.open(file, formats=FORMATS) as image:
                yield image
    except StudyError:
        raise
    except FileNotFoundError:
        raise StudyError(f"{path} is missing: correct the list, or put the image there.") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        if isinstance(error, OSError) and error.errno is not None:  # from the system; Pillow's own have no number
            reason = system_advice(error) or error.strerror or str(error)
            raise StudyError(f"{path} could not be opened ({reason}).") from None
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
        raise StudyError(f"{path} cannot be read as PNG, JPEG, TIFF or WebP ({reason}): repair or remove it.") from None


def _needs(image: Image.Image) -> tuple[str, ...] | None:
    """The conversions an image needs to be 8-bit RGB, from its header; None if there is none for it."""
    needs = NEEDS.get(image.mode)
    if needs is None:
        return None
    # Pillow opens 16-bit colour as 8-bit "RGB" and says nothing: only the decoder's arguments and TIFF's tags tell
    args = image.tile[0][3] if image.tile else ""
    raw = str(args if isinstance(args, str) or not args else args[0])
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, ())
    if "16bit" not in needs and ("16" in raw or max(bits if isinstance(bits, tuple) else (bits,), default=8) > 8):
        needs += ("16bit",)
    if "transparency" in image.info and "alpha" not in needs:
        needs += ("alpha",)
    # read wrongly without a word: bytes of planes mixed up, negatives, the transparent value lost
    if "16bit" in needs and (tags.get(PLANES) == 2 or tags.get(PHOTOMETRIC) == 0):
        return None
    if image.mode.startswith("I;16") and "alpha" in needs:
        return None
    return needs


def inspect_image(path: Path, size: str | None, convert: Collection[str]) -> ImageInfo:
    """Read an image's header and check it against the choices made: `size` of SIZES or None, `convert` of CONVERSIONS.

    Raises StudyError for a file that is no image, has several pages, or needs a choice that was not made.
    """
    with _opened(path) as image:
        (width, height), pages, needs = image.size, getattr(image, "n_frames", 1), _needs(image)
        orientation = _orientation(image, path) if width * height <= LIMIT else 1  # it may decode the pixels
    if orientation > 4 and image.format != "TIFF":  # of a TIFF, Pillow tells the upright size
        width, height = height, width
    if pages != 1:
        raise StudyError(f"{path} holds {pages} pages: save the one you mean as a file of its own.")
    if needs is None:
        raise StudyError(
            f"{path} has colour mode {image.mode}, which cannot be converted to RGB as it is stored here: save it as"
            " 8-bit RGB."
        )
    missing = [name for name in needs if name not in convert]
    if missing:
        raise StudyError(
            f"{path} is not 8-bit RGB ({image.mode}: {', '.join(needs)}): save it as RGB, or add --convert"
            f" {','.join(needs)} ({'; '.join(f'{name}: {CONVERSIONS[name]}' for name in needs)})."
        )
    if width * height > LIMIT:
        raise StudyError(f"{path} is {width}x{height} pixels, a slide rather than a patch: cut it into patches first.")
    patches = 1
    if (width, height) != (SIDE, SIDE):
        if size is None:
            raise StudyError(f"{path} is {width}x{height}, a patch is {SIDE}x{SIDE}: choose --size {', '.join(SIZES)}.")
        if size == "resize" and width != height:
            raise StudyError(f"{path} is {width}x{height}; resizing would distort it: choose --size crop or tile.")
        if size != "resize" and min(width, height) < SIDE:
            raise StudyError(f"{path} is {width}x{height}, too small for --size {size}: leave it out, or resize.")
        patches = (width // SIDE) * (height // SIDE) if size == "tile" else 1
    return ImageInfo(width, height, needs, patches, orientation > 1)


def _orientation(image: Image.Image, path: Path) -> int:
    """The image's orientation tag, 1 (upright) to 8, from EXIF, TIFF tags or XMP; 1 without one or if it cannot be
    read."""
    if image.format == "PNG":  # Pillow would decode all pixels to look for tags behind them
        content = path.read_bytes()
        if not any(name in content for name in PNG_METADATA):
            return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata, which viewers pass over too; the pixels are checked on their own
        return 1
    return value if value in range(1, 9) else 1


def _check_jpeg(path: Path) -> None:
    """StudyError where libjpeg warns of damaged data, which Pillow decodes to wrong pixels without a word.

    A changed byte after which all codes are still valid gives no warning and cannot be told; nor can damage in JPEG
    data inside a TIFF.
    """
    content = path.read_bytes()
    try:
        colours = simplejpeg.decode_jpeg_header(content)[2]
        simplejpeg.decode_jpeg(content, "CMYK" if colours == "CMYK" else "GRAY", strict=True)
    except ValueError as error:
        raise StudyError(
            f"{path} has damaged JPEG data ({' '.join(str(error).split())[:160]}): get it again, or remove it."
        ) from None


def patches(path: Path, info: ImageInfo, size: str | None) -> np.ndarray:
    """Decode an image that `inspect_image` accepted: uint8 (info.patches, 96, 96, 3) RGB, upright as its orientation
    tag says.

    Raises StudyError if its pixels are damaged.
    """
    with _opened(path) as image:
        if image.format == "JPEG":
            _check_jpeg(path)
        image.load()
        known = _needs(image) is not None
        _orientation(image, path)  # so that damaged metadata do not stop the next line
        image = ImageOps.exif_transpose(image)
        if image.size != info[:2] or not known:
            raise StudyError(f"{path} changed while it was read: let nothing write there, and start again.")
        image = _rgb(image, info.needs)
        if size == "resize" and image.size != (SIDE, SIDE):
            image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        pixels = np.asarray(image)
    rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    if size == "crop":
        top, left = (pixels.shape[0] - SIDE) // 2, (pixels.shape[1] - SIDE) // 2
        return pixels[None, top : top + SIDE, left : left + SIDE]
    tiles = pixels[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE, 3)
    return tiles.swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)


def _rgb(image: Image.Image, needs: tuple[str, ...]) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "alpha" in needs:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
