"""Stage landmarks on real footage: numbering, averaging, refusal."""

from pathlib import Path

import numpy as np
import pytest

from data_utils.landmarks import extract_landmarks
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import MESH_TO_68, RIGID
from gaussian_head.media.image import resize, write_jpeg
from gaussian_head.media.video import read_frames_at
from gaussian_head.networks.face_follower import Face, _without_doubles
from gaussian_head.networks.face_mesh import FaceMeshDetector

pytest.importorskip("mediapipe")
FRAMES = 20


@pytest.fixture(scope="module")
def faces(clips: Path) -> list[np.ndarray]:
    """The first frames of a real clip, 256 px."""
    frames = read_frames_at(clips / "talk_c_5s.mp4", 25)
    return [resize(next(frames), 256, 256) for _ in range(FRAMES)]


def write_frames(folder: Path, pictures: list[np.ndarray]) -> SubjectLayout:
    layout = SubjectLayout(folder)
    for k, rgb in enumerate(pictures):
        write_jpeg(layout.frame(k), rgb)
    return layout


def test_frames_without_a_face_keep_their_number(faces: list[np.ndarray], tmp_path: Path) -> None:
    grey = np.full_like(faces[0], 90)
    pictures = [grey if k in (6, 7) else rgb for k, rgb in enumerate(faces)]
    layout = write_frames(tmp_path / "x", pictures)
    layout.landmarks68(6).write_text("stale")
    facts = extract_landmarks(layout)
    landmarks = np.load(layout.mesh_landmarks)
    assert facts["invalid_frames"] == [6, 7] == np.flatnonzero(np.isnan(landmarks).any((1, 2))).tolist()
    assert landmarks.shape == (FRAMES, 478, 3)
    assert landmarks.dtype == np.float32
    assert not layout.landmarks68(6).exists()
    written = np.loadtxt(layout.landmarks68(8))
    assert np.allclose(written, landmarks[8, MESH_TO_68, :2], atol=1e-5)
    nose, chin, brow = written[30], written[8], written[27]
    assert brow[1] < nose[1] < chin[1]


@pytest.mark.parametrize(("kept", "message"), [(0, "no face found"), (12, "60% of the video's 20 frames")])
def test_too_few_faces_are_refused(faces: list[np.ndarray], tmp_path: Path, kept: int, message: str) -> None:
    grey = np.full_like(faces[0], 90)
    layout = write_frames(tmp_path / "x", faces[:kept] + [grey] * (FRAMES - kept))
    with pytest.raises(UserError, match=message):
        extract_landmarks(layout)
    assert not layout.mesh_landmarks.exists()
    assert not list(layout.frame(0).parent.glob("*.lms"))


def test_largest_of_two_faces_is_taken(
    faces: list[np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = []
    for rgb in faces[:5]:
        canvas = np.full((400, 400, 3), 90, np.uint8)
        canvas[120:376, :256] = rgb
        canvas[10:138, 264:392] = resize(rgb, 128, 128)
        pictures.append(canvas)
    layout = write_frames(tmp_path / "x", pictures)
    facts = extract_landmarks(layout)
    assert facts["two_faces"] == ("largest is taken" in caplog.text)
    landmarks = np.load(layout.mesh_landmarks)
    assert (landmarks[:, 4, 0] < 256).all()
    assert np.ptp(landmarks[0, :, 1]) > 90


def test_averaging_looks_lessens_trembling_and_does_not_shift(faces: list[np.ndarray]) -> None:
    def follow(views: tuple[tuple[float, float], ...] | None) -> np.ndarray:
        with FaceMeshDetector(*([] if views is None else [views])) as detector:
            return np.stack([detector.detect(rgb) for rgb in faces])

    bare, averaged = follow(((0.0, 1.0),)), follow(None)
    trembling = [np.abs(np.diff(points[:, RIGID, :2], n=2, axis=0)).mean() for points in (bare, averaged)]
    assert trembling[1] < trembling[0]
    assert np.abs((averaged - bare)[..., :2].mean((0, 1))).max() < 0.5


def test_the_same_face_found_twice_is_one() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (478, 3))
    face, double, other = Face(points), Face(points * 0.9 + 5), Face(points * 0.5 + (200, 0, 0))
    kept = _without_doubles([other, double, face])
    assert len(kept) == 2
    assert kept[0] is face
    assert kept[1] is other
