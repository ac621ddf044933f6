"""A portrait moved by coefficients: what reaches the renderer, what comes out, and which generator is taken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from portraits import Told, face_points, smooth_picture

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_alignment import fit_alignment
from gaussian_head.media.image import write_png
from gaussian_head.media.mat import write_deep3d
from gaussian_head.networks.weight_table import TABLE
from gaussian_head.networks.weights import WeightsMissingError
from gaussian_head.oneshot import coefficient_head
from gaussian_head.oneshot.audio2coeff.sadtalker import References
from gaussian_head.oneshot.coefficient_head import CoefficientHead, CoefficientOptions, open_coefficient_head
from gaussian_head.oneshot.pipelines import PIPELINES, choose_pipeline
from gaussian_head.oneshot.source import source as source_module
from gaussian_head.oneshot.source.detect import FoundFace
from gaussian_head.oneshot.source.source import SourceOptions, open_source
from gaussian_head.talking_head import TalkingHead

SIDE = 64
FACE = face_points(100, 90, 80)


class Nod:
    """Motion that raises the pitch by 0.01 a frame, in blocks of three."""

    fps = 25

    def move(
        self, speech: np.ndarray, first: FaceCoefficients, *, crop: bool = False, references: References | None = None
    ) -> Iterator[np.ndarray]:
        frames = len(speech) // 640
        rows = np.repeat(first.motion(crop), frames, 0).astype(np.float32)
        rows[:, 64] += 0.01 * np.arange(frames)
        for start in range(0, frames, 3):
            yield rows[start : start + 3]


class Shade:
    """A renderer that shades the portrait by the pitch; keeps what it was told."""

    side_px = SIDE

    def __init__(self, needs_crop: bool) -> None:
        self.needs_crop = needs_crop

    def animate(self, source: np.ndarray, first: np.ndarray, motion: np.ndarray) -> Iterator[np.ndarray]:
        self.first, self.motion = first, motion
        for row in motion:
            yield np.uint8(np.clip(source * (1 - (row[64] - first[64])), 0, 255))


def coefficients(points: np.ndarray, width: int, height: int) -> FaceCoefficients:
    transform = fit_alignment(points - 0.5, width, height)[None]
    return FaceCoefficients.from_deep3d(np.zeros((1, 257), np.float32), np.float32(transform))


def head(folder: Path, *, needs_crop: bool = False, **options: object) -> tuple[CoefficientHead, Shade]:
    write_png(folder / "p.png", smooth_picture(240, 200))
    source = open_source(folder / "p.png", SourceOptions(side_px=SIDE, **options), Told(FoundFace(FACE, 1)))
    renderer = Shade(needs_crop)
    return CoefficientHead(source, coefficients(source.landmarks, SIDE, SIDE), Nod(), renderer), renderer


@pytest.mark.parametrize("needs_crop", [False, True])
def test_motion_reaches_the_renderer_whole_and_frames_follow_it(tmp_path: Path, needs_crop: bool) -> None:
    talking, renderer = head(tmp_path, needs_crop=needs_crop)
    assert isinstance(talking, TalkingHead)
    frames = list(talking.speak(np.zeros(640 * 10 + 5)))
    assert len(frames) == 10
    assert renderer.motion.shape == (10, 73 if needs_crop else 70)
    np.testing.assert_allclose(renderer.motion[:, 64], 0.01 * np.arange(10), atol=1e-6)
    np.testing.assert_array_equal(renderer.first, talking.first.motion(needs_crop)[0])
    np.testing.assert_array_equal(frames[0], talking.source.crop)
    brightness = [frame.mean() for frame in frames]
    assert brightness == sorted(brightness, reverse=True)


def test_in_a_whole_picture_only_the_crop_changes(tmp_path: Path) -> None:
    talking, _ = head(tmp_path, mode="full")
    picture, box = talking.source.picture, talking.source.box.within(240, 200)
    *_, last = talking.speak(np.zeros(640 * 30))
    assert last.shape == picture.shape
    outside = np.ones(picture.shape[:2], bool)
    outside[int(box.top) : int(box.bottom) + 1, int(box.left) : int(box.right) + 1] = False
    assert outside.any()
    np.testing.assert_array_equal(last[outside], picture[outside])
    assert np.abs(np.int16(last) - picture)[~outside].mean() > 5


def test_transparent_pictures_become_opaque_frames(tmp_path: Path) -> None:
    picture = np.dstack([smooth_picture(240, 200), np.full((200, 240), 255, np.uint8)])
    picture[:20, :, 3] = 0
    write_png(tmp_path / "q.png", picture)
    source = open_source(tmp_path / "q.png", SourceOptions("full", SIDE), Told(FoundFace(FACE, 1)))
    talking = CoefficientHead(source, coefficients(source.landmarks, SIDE, SIDE), Nod(), Shade(needs_crop=False))
    frame = next(talking.speak(np.zeros(1280)))
    assert frame.shape == (200, 240, 3)
    assert (frame[:15, :10] == 255).all()


class Unsharp:
    def enhance(self, rgb: np.ndarray) -> np.ndarray:
        return 255 - rgb


def test_an_enhancer_sees_each_frame(tmp_path: Path) -> None:
    talking, _ = head(tmp_path)
    plain = list(talking.speak(np.zeros(1280)))
    changed = CoefficientHead(talking.source, talking.first, Nod(), Shade(needs_crop=False), enhancer=Unsharp())
    for before, after in zip(plain, changed.speak(np.zeros(1280)), strict=True):
        np.testing.assert_array_equal(after, 255 - before)


@pytest.fixture
def opened_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A portrait whose face is told, and a motion that needs no weights."""
    write_png(tmp_path / "p.png", smooth_picture(240, 200))
    monkeypatch.setattr(source_module, "open_finder", lambda: Told(FoundFace(FACE, 1)))
    monkeypatch.setattr(coefficient_head.SadTalkerMotion, "load", lambda options: Nod())
    return tmp_path / "p.png"


def test_given_coefficients_are_checked_against_the_portrait(
    opened_by_hand: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = open_source(opened_by_hand, SourceOptions(side_px=SIDE))
    for name, shift, warns in (("right", 0, False), ("wrong", 12, True)):
        face = coefficients(cut.landmarks + shift, SIDE, SIDE)
        transform = np.float32([[SIDE, SIDE, *face.crop[0]]])
        path = opened_by_hand.with_name(f"{name}.mat")
        write_deep3d(path, face.vector(), transform)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            talking = open_coefficient_head(
                opened_by_hand, Shade(needs_crop=True), CoefficientOptions(coefficients=path)
            )
        assert any("will move the face as well" in record.message for record in caplog.records) == warns
        np.testing.assert_allclose(talking.first.crop, face.crop)
    assert len(list(talking.speak(np.zeros(6400)))) == 10


@pytest.mark.usefixtures("opened_by_hand")
def test_what_is_missing_is_named_before_anything_is_drawn(
    opened_by_hand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsMissingError, match=r"epoch_20\.pth, see scripts/prepare\.sh"):
        open_coefficient_head(opened_by_hand, Shade(needs_crop=False), CoefficientOptions())
    with pytest.raises(UserError, match="there is no enhancer sharper"):
        open_coefficient_head(opened_by_hand, Shade(needs_crop=False), CoefficientOptions(enhancer="sharper"))


def test_auto_takes_the_best_renderer_whose_weights_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert choose_pipeline()[0] == "mesh"
    with pytest.raises(WeightsMissingError, match="needs SadTalker_V0"):
        choose_pipeline("vid2vid")
    for name, needed in (("pirender", PIPELINES["pirender"].weights), ("vid2vid", PIPELINES["vid2vid"].weights)):
        for part in needed:
            (tmp_path / TABLE[part].file).touch()
        assert choose_pipeline()[0] == name
    assert choose_pipeline("mesh")[0] == "mesh"
    with pytest.raises(UserError, match="must be auto or one of vid2vid, pirender, mesh, got x"):
        choose_pipeline("x")
