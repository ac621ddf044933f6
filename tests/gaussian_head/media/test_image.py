"""Pictures on disk keep their channels, and half a file never appears."""

from pathlib import Path

import numpy as np
import pytest

from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing
from gaussian_head.media.image import lacks_end, read_rgb, read_rgba, read_size, resize, write_jpeg, write_png


def test_png_keeps_channels(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (7, 9, 4), dtype=np.uint8)
    write_png(tmp_path / "a folder" / "x.png", rgba)
    assert np.array_equal(read_rgba(tmp_path / "a folder" / "x.png"), rgba)
    write_png(tmp_path / "grey.png", rgba[..., 0])
    assert np.array_equal(read_rgb(tmp_path / "grey.png"), np.repeat(rgba[..., :1], 3, -1))
    assert (read_rgba(tmp_path / "grey.png")[..., 3] == 255).all()


def test_jpeg_is_rgb_and_keeps_chroma(tmp_path: Path) -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:, 7] = (255, 0, 0)
    write_jpeg(tmp_path / "x.jpg", rgb)
    error = np.abs(read_rgb(tmp_path / "x.jpg").astype(int) - rgb)
    assert error.max() < 40
    assert error.mean() < 5


def test_missing_and_damaged_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"17\.jpg is missing.*data_utils\.process"):
        read_rgb(tmp_path / "17.jpg")
    for content in (b"", b"no picture"):
        (tmp_path / "18.jpg").write_bytes(content)
        with pytest.raises(UserError, match=r"18\.jpg is not a readable picture"):
            read_rgb(tmp_path / "18.jpg")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resize_keeps_mean_and_type(dtype: type) -> None:
    image = (np.random.default_rng(0).random((64, 48, 3)) * 255).astype(dtype)
    small = resize(image, 24, 32)
    assert small.shape == (32, 24, 3)
    assert small.dtype == dtype
    assert abs(small.mean() - image.mean()) < 1
    assert np.allclose(small, image.reshape(32, 2, 24, 2, 3).mean((1, 3)), atol=1)
    assert resize(image, 48, 64) is image


def test_replacing_leaves_the_earlier_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("earlier")
    with pytest.raises(TypeError), replacing(path) as temporary:
        temporary.write_text(None)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_size_and_end_are_read_without_decoding(tmp_path: Path, name: str) -> None:
    path, picture = tmp_path / name, np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    (write_jpeg if path.suffix == ".jpg" else write_png)(path, picture)
    assert read_size(path) == (47, 31)
    assert not lacks_end(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert lacks_end(path)
    path.write_bytes(b"no picture, however long the file may be")
    with pytest.raises(UserError, match="is not a readable picture"):
        read_size(path)
    with pytest.raises(FileNotFoundError):
        read_size(tmp_path / "none.png")
