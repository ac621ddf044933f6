"""Finders on real footage, large and small, alone and in company; and which finder is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from portraits import Told, face_points, smooth_picture

from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.media.image import resize
from gaussian_head.media.video import read_frames
from gaussian_head.networks.fan import Fan
from gaussian_head.networks.retinaface import RetinaFace
from gaussian_head.networks.weights import WeightsMissingError
from gaussian_head.oneshot.source import detect
from gaussian_head.oneshot.source.detect import FoundFace, MediaPipeFinder, RetinaFaceFinder, open_finder, shrunken


@pytest.fixture(scope="module")
def frame(clips: Path) -> np.ndarray:
    pytest.importorskip("mediapipe")
    return next(rgb for _, rgb in read_frames(clips / "talk_a_5s.mp4"))


@pytest.fixture(scope="module")
def found(frame: np.ndarray) -> FoundFace:
    face = MediaPipeFinder().find(frame)
    assert face is not None
    assert face.faces == 1
    return face


@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_the_points_do_not_depend_on_the_pictures_size(frame: np.ndarray, found: FoundFace, scale: float) -> None:
    height, width = frame.shape[:2]
    other = MediaPipeFinder().find(resize(frame, round(width * scale), round(height * scale)))
    error = np.linalg.norm(other.landmarks / scale - found.landmarks, axis=1)
    assert error.mean() < 0.03 * found.size_px
    assert np.array_equal(other.mesh[MESH_TO_68, :2], other.landmarks)


def test_the_largest_of_several_is_taken(frame: np.ndarray, found: FoundFace) -> None:
    height, width = frame.shape[:2]
    small = resize(frame, width // 2, height // 2)
    canvas = np.full((height, width + width // 2, 3), 127, np.uint8)
    canvas[: height // 2, : width // 2], canvas[:, width // 2 :] = small, frame
    both = MediaPipeFinder().find(canvas)
    assert both.faces == 2
    assert np.linalg.norm(both.landmarks - found.landmarks - (width // 2, 0), axis=1).mean() < 0.03 * found.size_px


def test_a_face_cut_off_by_the_border_is_found(frame: np.ndarray, found: FoundFace) -> None:
    start = int(found.landmarks[:, 0].min() + 0.12 * found.size_px)
    other = MediaPipeFinder().find(np.ascontiguousarray(frame[:, start:]))
    eyes = slice(42, 48)
    assert np.abs(other.landmarks[eyes] + (start, 0) - found.landmarks[eyes]).max() < 0.08 * found.size_px


def test_a_small_face_in_a_large_picture_is_found(frame: np.ndarray, found: FoundFace) -> None:
    scale = 36 / found.size_px
    small = resize(frame, round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    canvas = np.full((900, 1400, 3), 110, np.uint8)
    canvas[500 : 500 + small.shape[0], 1000 : 1000 + small.shape[1]] = small
    face = MediaPipeFinder().find(canvas)
    assert np.abs(face.landmarks - found.landmarks * scale - (1000, 500)).mean() < 2
    assert face.faces == 1


def test_windows_cover_every_pixel() -> None:
    for length, side in ((100, 100), (100, 50), (101, 25), (640, 480), (7, 2)):
        starts = np.array(detect._starts(length, side))
        assert starts[0] == 0
        assert starts[-1] == length - side
        assert (np.diff(starts) <= side / 2 + 1).all()


def test_nothing_is_found_in_no_face() -> None:
    pytest.importorskip("mediapipe")
    assert MediaPipeFinder().find(smooth_picture(200, 160)) is None
    assert MediaPipeFinder().find(np.full((5, 3, 3), 200, np.uint8)) is None


def test_large_pictures_are_shrunk_for_the_search() -> None:
    small, scale = shrunken(np.zeros((3000, 6000, 3), np.uint8))
    assert small.shape[:2] == (640, 1280)
    assert scale == pytest.approx(1280 / 6000)
    same, scale = shrunken(np.zeros((30, 60, 3), np.uint8))
    assert same.shape[:2] == (30, 60)
    assert scale == 1


class Boxes(RetinaFace):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def detect(self, rgb: np.ndarray, *, min_score: float = 0.97) -> tuple[np.ndarray, ...]:
        height, width = rgb.shape[:2]
        boxes = np.array([[0.1, 0.1, 0.2, 0.2], [0.5, 0.4, 0.9, 0.8]]) * (width, height, width, height)
        return boxes, np.array([0.999, 0.98]), np.zeros((2, 5, 2))


class Points(Fan):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def find(self, rgb: np.ndarray, box: np.ndarray) -> np.ndarray:
        self.box = box
        return np.tile(box[:2], (98, 1)) + np.arange(98)[:, None]


def test_retinaface_is_taken_where_both_its_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"retinaface"}

    def find_weights(name: str) -> Path:
        if name not in present:
            raise WeightsMissingError(name)
        return Path(name)

    monkeypatch.setattr(detect, "find_weights", find_weights)
    monkeypatch.setattr(detect, "load_retinaface", Boxes)
    monkeypatch.setattr(detect, "load_fan", Points)
    monkeypatch.setattr(detect, "MediaPipeFinder", lambda: Told(None))
    assert open_finder().name == "told"
    present.add("fan")
    finder = open_finder()
    assert isinstance(finder, RetinaFaceFinder)
    face = finder.find(np.zeros((3000, 2000, 3), np.uint8))  # searched at 1280 px, told in the picture's own
    assert face.faces == 2
    assert np.allclose(finder.aligner.box, (1000, 1200, 1800, 2400), atol=3)
    assert face.landmarks.shape == (68, 2)
    assert face.mesh is None


def test_without_weights_retinaface_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsMissingError, match=r"needs detection_Resnet50_Final\.pth, see scripts/prepare\.sh"):
        open_finder("retinaface")


def test_size_is_from_the_brows_to_the_chin() -> None:
    assert FoundFace(face_points(0, 0, 100), 1).size_px == pytest.approx(100)
