"""Pictures to rows of an image model, with the preprocessing that its manifest names.

    decode, turn upright, to L or RGB (transparent parts on white)
    resize   "squash": to height x width
             "crop":   shorter side to `resize_shorter` (or what just covers), centre cut out
    x = (pixel * scale - mean) / std for each channel, pixel 0..255; an integer input gets the
    pixels as they are; BGR turns the channels round; layout CHW or HWC

A picture announces its size before its pixels: one of more than `max_pixels` is refused before
any of them is decoded, and what its pixels take is counted before they are made:

    bytes = width * height * (bytes of a pixel in Pillow: 1, 2 or 4) * (2 if it is turned)
          + width * height * 2 * channels, of a progressive JPEG: its coefficients
          + all rows that are made of the pictures of a request, twice

What is made of them is small: a large picture is made plain and narrow by bands of rows, as
Pillow's own resizing does it (the width, then the height, with 8 bits between). Of some tall
pictures Pillow takes the height first: then a value may differ by 1 of 255.

Needs the extra `images` (Pillow).
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from service.errors import ImageTooLarge, InvalidImage, UnsupportedMediaType, WrongType
from service.manifest import Preprocessing, TensorSpec
from service.signature import NUMPY_DTYPES, check_size

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # of Exif
# What Pillow keeps of a pixel; 4 bytes in every other mode, RGB among them.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_BAND_PIXELS = 1_000_000  # a band of rows, while it is made plain and narrow

_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
# Anything else may be wrong with a file from outside: Pillow's decoders raise of all sorts.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError)


def rows(
    files: list[bytes],
    how: Preprocessing,
    spec: TensorSpec,
    max_pixels: int,
    charge: Callable[[int], object] = lambda _: None,
) -> np.ndarray:
    """Pictures as rows: four axes, of the dtype of `spec`.

    Args:
        files: PNG or JPEG, at least one.
        max_pixels: width times height before the resizing, of all files together.
        charge: told how many bytes the next picture takes while it is decoded; may raise.

    Raises:
        UnsupportedMediaType: Pillow is not installed.
        InvalidImage: a file cannot be decoded.
        ImageTooLarge: more than `max_pixels`.
        WrongType: the input is of a dtype that has no pixels.
    """
    dtype = NUMPY_DTYPES[spec.dtype]
    if dtype.kind not in "fui" or dtype == np.int8:
        raise WrongType(f"The input {spec.name!r} is {spec.dtype}, not made for pixels.")
    shape = [len(files), 1 if how.channels == "L" else 3, how.height, how.width]
    check_size(spec, shape)
    rows_bytes = 2 * math.prod(shape) * dtype.itemsize
    made = []
    for file in files:
        image, count = _open(file, how, max_pixels, lambda size: charge(size + rows_bytes))
        max_pixels -= count
        made.append(_row(image, how, dtype))
    return np.stack(made)


def _row(pixels: np.ndarray, how: Preprocessing, dtype: np.dtype) -> np.ndarray:
    """uint8 of height x width [x channels] to what the model expects."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if how.channels == "BGR":
        pixels = pixels[:, :, ::-1]
    if dtype.kind == "f":
        scale, mean, std = (np.asarray(v, np.float64) for v in (how.scale, how.mean, how.std))
        # (pixel * scale - mean) / std as one product and one sum
        pixels = pixels.astype(np.float32) * np.float32(scale / std) - np.float32(mean / std)
    if how.layout == "CHW":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels, dtype)


def _open(
    file: bytes, how: Preprocessing, max_pixels: int, charge: Callable[[int], object]
) -> tuple[np.ndarray, int]:
    """The picture as height x width [x 3] of uint8, and how many pixels the file had."""
    pil = _pillow()
    kind = next((kind for magic, kind in _MAGIC.items() if file.startswith(magic)), None)
    if kind is None:
        raise InvalidImage("The file is neither PNG nor JPEG.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is of no interest here
            with pil.open(io.BytesIO(file), formats=[kind]) as image:
                count = image.width * image.height
                if count > max_pixels:
                    raise ImageTooLarge(
                        f"An image has {image.width} x {image.height} pixels, "
                        f"{max_pixels} more are read in this request."
                    )
                size = count * _PIXEL_BYTES.get(image.mode, 4)
                charge(size + _coefficients_bytes(image, count))
                image.load()
                # Only now: a PNG may say it behind its pixels.
                if image.getexif().get(_ORIENTATION, 1) != 1:
                    charge(2 * size)
                    _turn_upright(image)
                return np.asarray(_sized(image, how)), count
    except (pil.DecompressionBombError, pil.DecompressionBombWarning):
        raise ImageTooLarge(f"An image has more than {max_pixels} pixels.") from None
    except _BROKEN:
        raise InvalidImage(f"The {kind} file is broken or incomplete.") from None


def _coefficients_bytes(image: Image.Image, count: int) -> int:
    """What libjpeg keeps of a picture that comes in several scans: two bytes for each sample."""
    return 2 * count * len(image.getbands()) if image.info.get("progressive") else 0


def _turn_upright(image: Image.Image) -> None:
    from PIL import ImageOps

    ImageOps.exif_transpose(image, in_place=True)


def _plain(image: Image.Image, how: Preprocessing) -> Image.Image:
    """To L or RGB; what can be seen through gets a white ground, 16 bits become 8."""
    pil = _pillow()
    mode = "L" if how.channels == "L" else "RGB"
    if image.mode.startswith("I"):
        image = pil.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        ground = pil.new("RGBA", seen.size, "white")
        image = pil.alpha_composite(ground, seen)
    return image.convert(mode)


def _sized(image: Image.Image, how: Preprocessing) -> Image.Image:
    """Plain, and of the size that the model expects."""
    target = (how.width, how.height)
    shorter = how.resize_shorter
    if image.size == target and (how.resize == "squash" or shorter is None):
        return _plain(image, how)
    if how.resize == "squash":
        return _resized(image, target, how)
    if shorter is None:
        factor = max(how.width / image.width, how.height / image.height)
    else:
        factor = shorter / min(image.size)
    width = max(how.width, math.floor(image.width * factor + 1e-6))
    height = max(how.height, math.floor(image.height * factor + 1e-6))
    if width * height > 64 * max(image.width * image.height, how.width * how.height):
        raise InvalidImage(f"The image of {image.width} x {image.height} is too narrow to scale.")
    resized = _resized(image, (width, height), how)
    left, top = round((width - how.width) / 2), round((height - how.height) / 2)
    return resized.crop((left, top, left + how.width, top + how.height))


def _resized(image: Image.Image, size: tuple[int, int], how: Preprocessing) -> Image.Image:
    """Plain and of `size`, as `_plain(image).resize(size)` is, without a copy of many pixels."""
    pil = _pillow()
    if image.width * image.height <= _BAND_PIXELS:
        return _plain(image, how).resize(size, pil.Resampling.BILINEAR)
    width = size[0]
    high = max(1, _BAND_PIXELS // max(image.width, width))
    narrow: Image.Image | None = None
    for top in range(0, image.height, high):
        bottom = min(top + high, image.height)
        band = _plain(image.crop((0, top, image.width, bottom)), how)
        band = band.resize((width, bottom - top), pil.Resampling.BILINEAR)
        if narrow is None:
            narrow = pil.new(band.mode, (width, image.height))
        narrow.paste(band, (0, top))
    assert narrow is not None
    return narrow.resize(size, pil.Resampling.BILINEAR)


@lru_cache(maxsize=1)
def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError:
        raise UnsupportedMediaType(
            "This server was installed without images.",
            hint="Install the extra: pip install 'foldserve[images]'. Or send JSON.",
        ) from None
    return Image
