"""Stage frames: number, size, crop, replacement."""

from pathlib import Path

import numpy as np
import pytest

from data_utils.frames import Box, check_video, choose_box, extract_frames, head_box
from data_utils.stage import count_frames
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.audio import write_wav
from gaussian_head.media.image import read_rgb
from gaussian_head.media.video import VideoWriter


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """A clip of 72 frames at 30 fps (2.4 s), 96 x 64 px, growing brighter, with sound."""
    write_wav(tmp_path / "tone.wav", 0.3 * np.sin(np.arange(40_000) * 0.2), 16_000)
    with VideoWriter(tmp_path / "ramp.mp4", 30, 96, 64, audio=tmp_path / "tone.wav") as writer:
        for k in range(72):
            writer.write(np.full((64, 96, 3), 20 + 3 * k, np.uint8))
    return tmp_path / "ramp.mp4"


def test_frames_show_their_time(ramp: Path, tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path / "ramp")
    facts = extract_frames(ramp, layout, 48, "none")
    assert facts["frames"] == count_frames(layout) == 60
    assert facts["size"] == [48, 32]
    levels = np.array([read_rgb(layout.frame(k)).mean() for k in range(60)])
    source_frames = (levels - 20) / 3
    assert np.abs(source_frames / 30 - np.arange(60) / 25).max() < 0.5 / 30 + 0.02


def test_frames_of_an_earlier_run_are_replaced(ramp: Path, tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path / "ramp")
    layout.frame(0).parent.mkdir(parents=True)
    for stale in (layout.frame(500), layout.landmarks68(3)):
        stale.write_text("stale")
    (layout.frame(0).parent / "note.txt").write_text("the user's own")
    extract_frames(ramp, layout, 48, "none")
    assert not layout.frame(500).exists()
    assert not layout.landmarks68(3).exists()
    assert (layout.frame(0).parent / "note.txt").exists()
    assert not list(tmp_path.glob("ramp/.*"))


def test_missing_frame_is_named(ramp: Path, tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path / "ramp")
    extract_frames(ramp, layout, 48, "none")
    layout.frame(17).unlink()
    with pytest.raises(UserError, match=r"17\.jpg is missing"):
        count_frames(layout)


def test_square_pictures_are_left_whole(ramp: Path) -> None:
    assert choose_box(ramp, 300, 300, "auto") == Box(0, 0, 300, 300)
    assert choose_box(ramp, 96, 64, "none") == Box(0, 0, 96, 64)


def test_head_box_is_generous_square_and_inside() -> None:
    face = np.array([[400.0, 300.0, 640.0, 540.0]])
    box = head_box(face, 1080, 1920)
    assert box.width == box.height
    assert 0.42 < 240 / box.height < 0.52
    assert box.left + box.width / 2 == pytest.approx(520, abs=2)
    roaming = np.array([[100.0, 300.0, 340.0, 540.0], [700.0, 300.0, 940.0, 540.0]])
    wide = head_box(roaming, 1080, 1920)
    assert wide.left <= 120
    assert wide.left + wide.width >= 920
    corner = head_box(face - (390, 290, 390, 290), 1080, 1920)
    assert (corner.left, corner.top) == (0, 0)
    large = head_box(np.array([[50.0, 20.0, 430.0, 460.0]]), 640, 480)
    assert large.height == 480
    assert 0 <= large.left <= 640 - 480


def test_vertical_footage_is_cropped_around_the_head(clips: Path) -> None:
    pytest.importorskip("mediapipe")
    box = choose_box(clips / "kitchen_20s_vertical.mp4", 1080, 1920, "auto")
    assert box.width == box.height
    assert 450 < box.width < 800
    assert box.left < 440
    assert box.left + box.width > 680
    assert box.top < 330
    assert box.top + box.height > 600


def test_short_clip_is_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "tone.wav", 0.3 * np.sin(np.arange(40_000) * 0.2), 16_000)
    with VideoWriter(tmp_path / "short.mp4", 25, 32, 32, audio=tmp_path / "tone.wav") as writer:
        for _ in range(49):
            writer.write(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"has 49 frames .* at least 50"):
        check_video(tmp_path / "short.mp4")
