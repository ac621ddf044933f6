"""Any picture a person may have: turned, grey, deep, transparent; and files that are none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from portraits import smooth_picture

from gaussian_head.errors import UserError
from gaussian_head.media.image import read_upright, write_png

PICTURE = smooth_picture(60, 40)
UPRIGHT = {
    1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1), 7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}  # fmt: skip
"""What EXIF's eight orientations ask for."""


def exif(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_turns_a_jpeg(tmp_path: Path, orientation: int) -> None:
    content = cv2.imencode(".jpg", PICTURE[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    segment = b"Exif\0\0" + exif(orientation)
    path = tmp_path / "a.jpg"
    path.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:])
    assert np.abs(np.int16(read_upright(path)) - UPRIGHT[orientation](PICTURE)).max() < 12


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_turns_alpha_with_its_colours(tmp_path: Path, orientation: int) -> None:
    rgba = np.dstack([PICTURE, smooth_picture(60, 40, seed=2)[..., 0]])
    write_png(tmp_path / "a.png", rgba)
    content, chunk = (tmp_path / "a.png").read_bytes(), b"eXIf" + exif(orientation)
    with_exif = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content[:33] + with_exif + content[33:])
    assert np.array_equal(read_upright(tmp_path / "a.png"), UPRIGHT[orientation](rgba))


def test_grey_deep_and_opaque_pictures_become_rgb(tmp_path: Path) -> None:
    grey = PICTURE[..., 0]
    for name, stored in {
        "grey.png": grey, "grey16.png": np.uint16(grey) * 257, "rgb16.png": np.uint16(PICTURE[..., ::-1]) * 257,
        "opaque.png": np.dstack([PICTURE[..., ::-1], np.full((40, 60), 255, np.uint8)]),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(cv2.imencode(".png", stored)[1].tobytes())
        expected = np.dstack([grey] * 3) if name.startswith("grey") else PICTURE
        assert np.array_equal(read_upright(tmp_path / name), expected), name


def test_deep_alpha_is_kept(tmp_path: Path) -> None:
    alpha = smooth_picture(60, 40, seed=2)[..., :1]
    deep = np.uint16(np.dstack([PICTURE[..., ::-1], alpha])) * 257
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    assert np.array_equal(read_upright(tmp_path / "a.png"), np.dstack([PICTURE, alpha]))


@pytest.mark.parametrize("content", [b"", b"no picture at all", cv2.imencode(".png", PICTURE)[1].tobytes()[:60]])
def test_files_that_are_no_pictures(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png is no picture that can be read"):
        read_upright(tmp_path / "a.png")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.png does not exist"):
        read_upright(tmp_path / "a.png")
