"""The plug-in of enhancers: own ones; and how GFPGAN is called, by a stand-in for its package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from gaussian_head.errors import UserError
from gaussian_head.networks.weights import WeightsMissingError
from gaussian_head.oneshot.source import enhance
from gaussian_head.oneshot.source.enhance import Enhancer, Gfpgan, enhanced, open_enhancer, register_enhancer

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


class Doubler:
    """Twice as large, and darker."""

    def enhance(self, rgb: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(rgb // 2, 2, 0), 2, 1)


def test_users_register_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enhance, "ENHANCERS", dict(enhance.ENHANCERS))
    register_enhancer("doubler", Doubler)
    enhancer = open_enhancer("doubler")
    assert isinstance(enhancer, Enhancer)
    with pytest.raises(ValueError, match="registered already"):
        register_enhancer("doubler", Doubler)
    with pytest.raises(UserError, match="there is no enhancer nothing; known: doubler, gfpgan"):
        open_enhancer("nothing")


def test_frames_are_enhanced_and_keep_size_and_alpha() -> None:
    rgba = np.dstack([RGB, np.full((20, 30), 77, np.uint8)])
    [same] = enhanced([rgba], Doubler())
    assert np.array_equal(same, np.dstack([RGB // 2, rgba[..., 3]]))
    [large] = enhanced([rgba], Doubler(), keep_size=False)
    assert large.shape == (40, 60, 4)
    assert (large[..., 3] == 77).all()


def test_what_enhancers_return_is_checked() -> None:
    class Wrong:
        def enhance(self, rgb: np.ndarray) -> np.ndarray:
            return rgb[..., 0]

    with pytest.raises((ValueError, TypeError)):
        next(enhanced([RGB], Wrong()))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write files of GFPGAN's names into a working folder of our own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAUSSIAN_HEAD_GFPGAN", str(tmp_path / "GFPGANv1.4.pth"))
    torch.save({"params_ema": {"a": torch.zeros(2)}}, tmp_path / "GFPGANv1.4.pth")
    Gfpgan.FOLDER.mkdir(parents=True)
    for name in Gfpgan.HELPERS:
        (Gfpgan.FOLDER / name).touch()
    return tmp_path


def test_gfpgan_is_called_as_its_package_wants(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        def __init__(self, **options: object) -> None:
            self.options = options

        def enhance(self, bgr: np.ndarray, **how: bool) -> tuple[list, list, np.ndarray]:
            assert how == {"has_aligned": False, "only_center_face": False, "paste_back": True}
            self.shown = bgr
            return [], [], cv2.resize(bgr, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)

    monkeypatch.setitem(sys.modules, "gfpgan", SimpleNamespace(GFPGANer=Stub))
    enhancer = open_enhancer("gfpgan")
    out = enhancer.enhance(RGB)
    assert np.array_equal(enhancer._network.shown, RGB[..., ::-1])
    assert np.array_equal(out[::2, ::2], RGB)
    assert enhancer._network.options == {
        "model_path": str(files / "GFPGANv1.4.pth"), "upscale": 2, "arch": "clean", "channel_multiplier": 2,
        "bg_upsampler": None,
    }  # fmt: skip


def test_gfpgan_tells_what_it_lacks(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gfpgan", None)
    with pytest.raises(UserError, match="needs the package gfpgan"):
        open_enhancer("gfpgan")
    (Gfpgan.FOLDER / Gfpgan.HELPERS[1]).unlink()
    with pytest.raises(WeightsMissingError, match=r"parsing_parsenet\.pth .*would download them by itself"):
        open_enhancer("gfpgan")
    (files / "GFPGANv1.4.pth").unlink()
    with pytest.raises(WeightsMissingError, match=r"GFPGANv1\.4\.pth"):
        open_enhancer("gfpgan")
