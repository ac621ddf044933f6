"""Pictures on disk: RGB in memory, whatever the order of the codec."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.files import write_bytes

REMEDY = "make it with: python -m data_utils.process VIDEO (it skips what is up to date)"

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_TAIL = 64
"""Bytes at the end of a file that hold its end marker, and perhaps a little after it."""


def read_rgb(path: Path) -> UInt8[ndarray, "H W 3"]:
    """Read a picture as RGB in 0..255; an alpha channel is dropped, grey becomes RGB.

    Raises:
        FileNotFoundError: The file is missing.
        UserError: The file is no picture.
    """
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_rgba(path: Path) -> UInt8[ndarray, "H W 4"]:
    """Read a picture as RGB with straight (not premultiplied) alpha in 0..255; a picture without alpha is opaque.

    Raises:
        FileNotFoundError: The file is missing.
        UserError: The file is no picture.
    """
    image = _decode(path, cv2.IMREAD_UNCHANGED)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGBA)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGBA)


def read_upright(path: Path) -> UInt8[ndarray, "H W C"]:
    """Read any picture a person may have: turned as its EXIF data say, grey made RGB, 16 bits made 8.

    Returns:
        RGB; RGBA with straight alpha where some of it is transparent.

    Raises:
        FileNotFoundError: The file is missing.
        UserError: The file is no picture that OpenCV reads.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist (or is no file); give the path of a picture.")
    content = np.fromfile(path, np.uint8)
    try:
        color = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
        may_have_alpha = color is not None and content[:2].tobytes() != _JPEG
        whole = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if may_have_alpha else None
    except cv2.error as error:  # among others: more than 2 ** 30 pixels
        raise UserError(f"{path} cannot be read as a picture ({error.err}).") from error
    if color is None:
        raise UserError(f"{path} is no picture that can be read (JPEG, PNG, WebP, TIFF, BMP), or is damaged.")
    rgb = cv2.cvtColor(color, cv2.COLOR_BGR2RGB)
    if whole is None or whole.ndim == 2 or whole.shape[2] != 4:
        return rgb
    alpha = np.uint8(whole[:, :, 3] >> (8 * whole.itemsize - 8))
    return rgb if (alpha == 255).all() else np.dstack([rgb, _turn_alike(alpha, whole[:, :, :3], color)])


def _turn_alike(alpha: ndarray, stored: ndarray, upright: ndarray) -> ndarray:
    """Turn what OpenCV read with alpha, as stored, like what it read without, upright: it turns no picture with alpha.

    EXIF knows eight orientations; the one that makes the colours equal is meant.
    """
    stored = np.uint8(stored >> (8 * stored.itemsize - 8))
    for mirrored in (False, True):
        for quarters in range(4):
            colors, mask = (np.rot90(x[:, ::-1] if mirrored else x, quarters) for x in (stored, alpha))
            if colors.shape == upright.shape and np.array_equal(colors, upright):
                return np.ascontiguousarray(mask)
    return alpha


def read_size(path: Path) -> tuple[int, int]:
    """Read a picture's width and height in px, of JPEG and PNG from their headers alone.

    Raises:
        FileNotFoundError: The file is missing.
        UserError: The file is no picture.
    """
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            size = _size_in_header(file)
        if size is not None:
            return size
    height, width = read_rgb(path).shape[:2]
    return width, height


def lacks_end(path: Path) -> bool:
    """Tell whether a JPEG or PNG seems to lack its end, as a copy does that was broken off, without decoding it."""
    with Path(path).open("rb") as file:
        start = file.read(8)
        file.seek(max(0, Path(path).stat().st_size - _TAIL))
        tail = file.read()
    return (start == _PNG and b"IEND" not in tail) or (start[:2] == _JPEG and b"\xff\xd9" not in tail)


def write_jpeg(path: Path, rgb: UInt8[ndarray, "H W 3"], quality: int = 97) -> None:
    """Write a JPEG atomically, without chroma subsampling (thin red lip edges survive).

    Args:
        path: Where; parent folders are made.
        rgb: RGB in 0..255.
        quality: 1..100.
    """
    write_bytes(path, encode_jpeg(rgb, quality))


def encode_jpeg(rgb: UInt8[ndarray, "H W 3"], quality: int = 97) -> bytes:
    """Return a picture as JPEG, without chroma subsampling; see `write_jpeg`."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)


def write_png(path: Path, image: UInt8[ndarray, "H W *C"]) -> None:
    """Write a PNG atomically: grey [H, W], RGB [H, W, 3] or RGBA [H, W, 4], 0..255."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    write_bytes(path, _encode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3]))


def resize(image: ndarray, width: int, height: int) -> ndarray:
    """Resize a float or uint8 picture [H, W] or [H, W, C]: area averaging when it shrinks, cubic when it grows.

    Values keep their type and range (cubic overshoot of uint8 is clipped; of float it is not).
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = width * height < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def premultiply(rgba: UInt8[ndarray, "H W 4"]) -> UInt8[ndarray, "H W 4"]:
    """Multiply the colours of a picture with straight alpha by it, rounded to the nearest of 0..255."""
    alpha = cv2.extractChannel(rgba, 3)
    return cv2.multiply(rgba, cv2.merge([alpha, alpha, alpha, np.full_like(alpha, 255)]), scale=1 / 255)


def _size_in_header(file: BinaryIO) -> tuple[int, int] | None:
    start = file.read(24)
    if len(start) < 24:
        return None
    if start[:8] == _PNG:
        return struct.unpack(">II", start[16:24])
    if start[:2] != _JPEG:
        return None
    file.seek(2)
    while len(segment := file.read(4)) == 4 and segment[0] == 0xFF:
        marker, length = segment[1], int.from_bytes(segment[2:])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame, no table
            frame = file.read(5)
            return (int.from_bytes(frame[3:5]), int.from_bytes(frame[1:3])) if len(frame) == 5 else None
        file.seek(length - 2, 1)
    return None


def _decode(path: Path, flags: int) -> ndarray:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {REMEDY}.")
    image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), flags) if path.stat().st_size else None
    if image is None:
        raise UserError(f"{path} is not a readable picture (empty or damaged); delete it and {REMEDY}.")
    return image


def _encode(suffix: str, image: ndarray, options: list[int]) -> bytes:
    done, buffer = cv2.imencode(suffix, image, options)
    if not done:
        raise ValueError(f"cannot encode an array of shape {image.shape} and type {image.dtype} as {suffix}.")
    return buffer.tobytes()


def fill_polygon(points: ndarray, width: int, height: int) -> ndarray:
    """Rasterize a polygon given by [N, 2] (x, y) px with pixel centres at + 0.5; bool [height, width]."""
    mask = np.zeros((height, width), np.uint8)
    shift = 4  # OpenCV's fixed point: sixteenths of a pixel, centres at integers
    vertices = np.rint((np.asarray(points) - 0.5) * (1 << shift)).astype(np.int32)
    cv2.fillPoly(mask, [vertices], 1, shift=shift)
    return mask.astype(bool)


def grow(mask: ndarray, radius: int) -> ndarray:
    """Grow a uint8 mask [H, W] by `radius` px in every direction (a square window); a negative radius shrinks it."""
    kernel = np.ones((2 * abs(radius) + 1,) * 2, np.uint8)
    return (cv2.dilate if radius > 0 else cv2.erode)(mask, kernel)
