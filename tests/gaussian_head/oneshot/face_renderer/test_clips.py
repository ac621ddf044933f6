"""Pairs of frames of one clip, decoded when they are drawn."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from talking_clip import FRAMES, SIDE, write_clip

from gaussian_head.errors import UserError
from gaussian_head.media.mat import read_deep3d, write_deep3d, write_sadtalker
from gaussian_head.media.video import VideoWriter, frame_times, read_frames, read_frames_numbered
from gaussian_head.oneshot.face_renderer import data
from gaussian_head.oneshot.face_renderer.data import PairedClips
from gaussian_head.oneshot.face_renderer.windows import semantic_windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder, "a", seed=1)
    return write_clip(folder, "b", seed=2)


def test_numbered_frames_are_those_that_reading_gives(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with VideoWriter(path, 30, SIDE, SIDE) as writer:
        for i in range(300):  # longer than x264's distance between key frames
            writer.write(np.full((SIDE, SIDE, 3), (i // 2, 255 - i // 2, 8 * (i % 30)), np.uint8))
    every = [frame for _, frame in read_frames(path)]
    times = frame_times(path)
    for wanted in ([0], [299], [7, 260], [251, 249, 250]):
        found = read_frames_numbered(path, times, wanted)
        assert sorted(found) == sorted(wanted)
        for number, picture in found.items():
            assert np.array_equal(picture, every[number])
    assert read_frames_numbered(path, times, []) == {}


def test_pairs_are_of_one_clip_with_their_own_windows(folder: Path) -> None:
    clips = PairedClips(folder, SIDE, crop=True, cache_mb=100)
    batch = clips.draw(np.random.default_rng(3), 12)
    assert batch.source.shape == batch.target.shape == (12, SIDE, SIDE, 3)
    pictures = [[frame for _, frame in read_frames(folder / f"{name}.mp4")] for name in "ab"]
    motions = [clips.clips[i].motion for i in range(2)]
    seen = set()
    for source, target, *windows in zip(*batch, strict=True):
        places = [
            next((c, i) for c in range(2) for i in range(FRAMES) if np.array_equal(pictures[c][i], picture))
            for picture in (source, target)
        ]
        (clip, i), (other, j) = places
        assert clip == other
        assert i != j
        seen |= {clip}
        for frame, window in zip((i, j), windows, strict=True):
            assert np.array_equal(window, semantic_windows(motions[clip], np.array([frame]))[0])
    assert seen == {0, 1}
    again = clips.draw(np.random.default_rng(3), 12)
    assert all(np.array_equal(*pair) for pair in zip(batch, again, strict=True))
    assert not np.array_equal(clips.draw(np.random.default_rng(4), 12).source, batch.source)


def test_frames_are_resized_and_the_crop_is_left_out(folder: Path) -> None:
    clips = PairedClips(folder, 32, crop=False, cache_mb=1)
    (picture,) = clips.frames(0, [4])
    whole = [frame for _, frame in read_frames(folder / "a.mp4")][4]
    assert np.array_equal(picture, cv2.resize(whole, (32, 32), interpolation=cv2.INTER_AREA))
    assert clips.draw(np.random.default_rng(0), 1).source_windows.shape == (1, 70, 27)


def test_memory_is_bounded_and_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    read = data.read_frames_numbered
    monkeypatch.setattr(
        data, "read_frames_numbered", lambda path, times, wanted: decoded.extend(wanted) or read(path, times, wanted)
    )
    clips = PairedClips(folder, SIDE, crop=True, cache_mb=3 * SIDE**2 * 4 / 1e6)  # four frames
    clips.frames(0, [0, 1])
    clips.frames(0, [1, 2])
    assert decoded == [0, 1, 2]
    for number in range(3, FRAMES):
        clips.frames(0, [number])
        assert len(clips._kept) <= 4
    decoded.clear()
    clips.frames(0, [FRAMES - 1, 0])
    assert decoded == [0]
    nothing_kept = PairedClips(folder, SIDE, crop=True, cache_mb=0)
    assert len(nothing_kept.frames(1, [3, 5])) == 2


def test_what_cannot_be_learnt_from_is_named(folder: Path, tmp_path: Path) -> None:
    def open_folder() -> PairedClips:
        return PairedClips(tmp_path, SIDE, crop=True, cache_mb=1)

    with pytest.raises(UserError, match=r"holds no \.mp4; give a folder of videos"):
        open_folder()
    shutil.copy(folder / "a.mp4", tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError, match=r"a\.mat is missing; make it with"):
        open_folder()
    coefficients, transforms = read_deep3d(folder / "a.mat")
    write_deep3d(tmp_path / "a.mat", coefficients[:-1], transforms[:-1])
    with pytest.raises(UserError, match=r"a\.mat has 19 rows, a\.mp4 has 20 frames; extract them again"):
        open_folder()
    write_sadtalker(tmp_path / "a.mat", np.zeros((FRAMES, 70)), np.zeros((1, 257)))
    with pytest.raises(UserError, match=r"a\.mat has no crop"):
        open_folder()
    for frames, width, message in ((1, SIDE, "has one frame"), (2, 2 * SIDE, "is 128 x 64 px; cut it square")):
        with VideoWriter(tmp_path / "a.mp4", 25, width, SIDE) as writer:
            for _ in range(frames):
                writer.write(np.zeros((SIDE, width, 3), np.uint8))
        write_deep3d(tmp_path / "a.mat", coefficients[:frames], transforms[:frames])
        with pytest.raises(UserError, match=message):
            open_folder()
