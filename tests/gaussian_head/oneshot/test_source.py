"""Portraits from file to renderer and back, with finders that are told where the face is."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from portraits import Told, face_points, smooth_picture

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_alignment import align_points
from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.media.image import write_png
from gaussian_head.media.video import VideoWriter
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor
from gaussian_head.oneshot.source import coefficients
from gaussian_head.oneshot.source.crop import Box, cut
from gaussian_head.oneshot.source.detect import FoundFace
from gaussian_head.oneshot.source.source import Source, SourceOptions, open_reference, open_source, over

WIDTH, HEIGHT = 400, 300
PICTURE = smooth_picture(WIDTH, HEIGHT)


class Toy(CoefficientRegressor):
    """Stands in for the regressor: means over parts of the picture."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(faces, (8, 11)).flatten(1)[:, :257]


def opened(
    folder: Path, face: np.ndarray | None, picture: np.ndarray = PICTURE, faces: int = 1, **options: object
) -> Source:
    write_png(folder / "p.png", picture)
    found = None if face is None else FoundFace(face, faces)
    return open_source(folder / "p.png", SourceOptions(**options), Told(found))


@pytest.mark.parametrize("mode", ["crop", "extcrop", "resize", "full", "extfull"])
@pytest.mark.parametrize("border", ["pad", "clamp"])
def test_sizes_are_what_comes_out(tmp_path: Path, mode: str, border: str) -> None:
    source = opened(tmp_path, face_points(100, 90, 110), mode=mode, border=border, side_px=128)
    assert source.crop.shape == (128, 128, 3)
    assert (source.box.width == source.box.height) == (border == "pad")
    [out] = source.finish([source.crop])
    assert out.shape == (source.size[1], source.size[0], 3)
    if "full" in mode:
        assert source.size == (WIDTH, HEIGHT)
        assert np.abs(np.int16(out) - PICTURE).mean() < 6
    else:
        inside = source.box.within(WIDTH, HEIGHT)
        assert source.size[0] / source.size[1] == pytest.approx(inside.width / inside.height, rel=0.04)
        # what was padded is gone: the frame shows the picture alone
        again = cut(PICTURE, inside, 128)[::127, ::127]
        assert np.abs(np.int16(out[:: len(out) - 1, :: out.shape[1] - 1]) - again).max() < 30


def test_points_are_told_in_px_of_the_crop(tmp_path: Path) -> None:
    write_png(tmp_path / "p.png", PICTURE)
    mesh = np.random.default_rng(0).uniform(50, 250, (478, 3))
    face = FoundFace(face_points(200, 120, 80), 1, mesh)
    source = open_source(tmp_path / "p.png", SourceOptions(side_px=64), Told(face))
    scale = 64 / source.box.width
    assert np.allclose(source.landmarks, (face.landmarks - (source.box.left, source.box.top)) * scale)
    assert np.allclose(source.mesh[:, 2], mesh[:, 2] * scale)
    assert np.allclose(source.mesh[:, :2], (mesh[:, :2] - (source.box.left, source.box.top)) * scale)
    assert source.coefficients is None


def test_remarks_are_made_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert opened(tmp_path, face_points(200, 120, 110)).remarks == ()
    small = opened(tmp_path, face_points(200, 120, 50), faces=3)
    assert [remark.partition(": ")[2] for remark in small.remarks] == [
        "shows 3 faces; the largest is taken.",
        "the face is small (50 px from the brows to the chin): enlarged, it will be blurred.",
    ]
    assert caplog.messages == list(small.remarks)
    assert "is tilted by 40 degrees" in opened(tmp_path, face_points(200, 150, 100, 40)).remarks[0]
    assert "reaches beyond the picture" in opened(tmp_path, face_points(30, 120, 110)).remarks[0]
    assert "stretched to a square" in opened(tmp_path, face_points(30, 120, 110), border="clamp").remarks[0]
    assert "squeezed" in opened(tmp_path, face_points(200, 120, 110), mode="resize", border="clamp").remarks[0]
    assert opened(tmp_path, face_points(200, 120, 110), mode="resize").remarks == ()


def test_bad_portraits_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no face found in .*p\.png; give a picture of a face"):
        opened(tmp_path, None)
    with pytest.raises(UserError, match=r"is 20 px from the brows to the chin; 32 px are needed"):
        opened(tmp_path, face_points(200, 120, 20))
    with VideoWriter(tmp_path / "v.mp4", 25, 64, 48) as writer:
        for _ in range(3):
            writer.write(PICTURE[:48, :64])
    (tmp_path / "v.png").write_bytes((tmp_path / "v.mp4").read_bytes())  # whatever it is called
    for name in ("v.mp4", "v.png"):
        with pytest.raises(UserError, match="is a video; a picture is wanted: give one of its frames"):
            open_source(tmp_path / name, finder=Told(None))
    (tmp_path / "t.png").write_text("a text")
    with pytest.raises(UserError, match="is no picture that can be read"):
        open_source(tmp_path / "t.png", finder=Told(None))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_source(tmp_path / "absent.png", finder=Told(None))


def test_alpha_is_laid_over_a_colour_and_comes_back(tmp_path: Path) -> None:
    alpha = smooth_picture(WIDTH, HEIGHT, seed=3)[..., 0]
    alpha[:, :100] = 0
    write_png(tmp_path / "p.png", np.dstack([PICTURE, alpha]))
    finder, background = Told(FoundFace(face_points(200, 120, 80), 1)), (10, 200, 30)
    source = open_source(tmp_path / "p.png", SourceOptions(mode="full", background=background), finder)
    seen = over(PICTURE, alpha, background)
    assert np.array_equal(finder.shown[0], seen)
    assert (seen[:, :100] == background).all()
    assert np.array_equal(source.crop, cut(seen, source.box, 256))
    [out] = source.finish([source.crop])
    assert np.array_equal(out[..., 3], alpha)
    changed = (out[..., :3] != PICTURE).any(2)
    changed[source.box.top : source.box.bottom, source.box.left : source.box.right] = False
    assert not changed.any()


def test_coefficients_are_the_crops(tmp_path: Path) -> None:
    write_png(tmp_path / "p.png", PICTURE)
    face = face_points(200, 120, 80)
    source = open_source(tmp_path / "p.png", SourceOptions(side_px=256), Told(FoundFace(face, 1)), Toy())
    assert isinstance(source.coefficients, FaceCoefficients)
    assert len(source.coefficients) == 1
    assert source.coefficients.motion(crop=True).shape == (1, 73)
    _, transform = source.coefficients.deep3d(256, 256)
    aligned = align_points(source.landmarks - 0.5, transform[0])
    # the regressor expects the face in the middle of its 224 px, eyes above mouth (y up)
    assert np.abs(aligned.mean(0) - 112).max() < 40
    assert aligned[36:48, 1].mean() > aligned[48:, 1].mean() + 30
    larger = open_source(tmp_path / "p.png", SourceOptions(side_px=512), Told(FoundFace(face, 1)), Toy())
    assert larger.coefficients.crop[0, 0] == pytest.approx(source.coefficients.crop[0, 0] / 2, rel=0.02)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Write 20 frames at 10 fps: a picture that wanders to the right."""
    with VideoWriter(tmp_path / "clip.mp4", 10, WIDTH, HEIGHT, crf=8) as writer:
        for k in range(20):
            writer.write(np.roll(PICTURE, 2 * k, 1))
    return tmp_path / "clip.mp4"


def test_a_reference_is_cut_as_its_first_face(clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    finder = Told(FoundFace(face_points(200, 120, 80), 1), blind_for=2)
    reference = open_reference(clip, SourceOptions(side_px=96), fps=25, finder=finder)
    assert len(finder.shown) == 3
    assert "a face is first seen after 1.0 s" in caplog.text
    crops = list(reference.crops())
    assert len(crops) == 50
    assert np.abs(np.int16(crops[0]) - cut(PICTURE, reference.box, 96)).mean() < 4
    assert np.abs(np.int16(crops[-1]) - cut(np.roll(PICTURE, 38, 1), reference.box, 96)).mean() < 4
    with pytest.raises(UserError, match="no face found in the first 60 s of"):
        open_reference(clip, finder=Told(None))


class Follower:
    """Stands in for MediaPipe's mesh: a face that moves, unseen in the fourth frame."""

    def __init__(self) -> None:
        self.frame = -1

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def detect(self, rgb: np.ndarray) -> np.ndarray | None:
        self.frame += 1
        mesh = np.zeros((478, 3))
        mesh[MESH_TO_68, :2] = face_points(48 + self.frame, 40, 30)
        return None if self.frame == 3 else mesh


def test_a_references_coefficients_follow_its_frames(
    clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(coefficients, "FaceMeshDetector", Follower)
    finder = Told(FoundFace(face_points(200, 120, 80), 1))
    reference = open_reference(clip, SourceOptions(side_px=96), fps=10, finder=finder)
    with caplog.at_level(logging.WARNING):
        found = reference.coefficients(Toy())
    assert len(found) == 20
    assert "1 of 20 frames show no face" in caplog.text
    places = found.crop[:, 1]
    assert np.allclose(np.diff(places)[4:], 1, atol=1e-3)
    assert places[3] == places[2]


def test_boxes_reach_where_they_say() -> None:
    assert Box(-5, 3, 40, 60).within(30, 50) == Box(0, 3, 30, 50)
