"""Tracks and crops: when a track goes on, when it counts, and what is cut out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import medfilt

from gaussian_head.evaluation.face_track import PADDING, crop_face, medians, overlap, track_faces

BOX = np.array([20.0, 30.0, 140.0, 150.0])
NONE = np.zeros((0, 4))


def test_a_face_must_be_seen_in_more_than_a_hundred_frames() -> None:
    assert track_faces([BOX[None]] * 100) == []
    (track,) = track_faces([BOX[None]] * 101)
    assert (track.first, track.last, track.detections) == (0, 100, 101)


def test_gaps_are_interpolated_and_do_not_count() -> None:
    moved = BOX + (12, -12, 12, -12)
    frames = [NONE] * 3 + [BOX[None]] * 60 + [NONE] * 3 + [moved[None]] * 41
    (track,) = track_faces(frames)
    assert (track.first, track.last, track.detections) == (3, 106, 101)
    np.testing.assert_allclose(track.boxes[60:63], [BOX + (d, -d, d, -d) for d in (3, 6, 9)])
    assert track_faces(frames[:-1]) == []


@pytest.mark.parametrize(("missing", "tracks"), [(24, 1), (25, 2)])
def test_a_face_may_be_lost_for_a_second(missing: int, tracks: int) -> None:
    frames = [BOX[None]] * 101 + [NONE] * missing + [BOX[None]] * 101
    assert len(track_faces(frames)) == tracks


def test_a_jump_begins_a_new_track_and_faces_keep_theirs() -> None:
    other = BOX + 200
    frames = [np.stack([BOX, other]), np.stack([other, BOX])] * 51 + [np.stack([BOX + 120, other])] * 101
    tracks = track_faces(frames)
    assert [track.first for track in tracks] == [0, 0, 102]
    np.testing.assert_array_equal([track.boxes[-1] for track in tracks], [BOX, other, BOX + 120])


def follow_one_after_the_other(detections: list[np.ndarray]) -> list[list[tuple[int, tuple[float, ...]]]]:
    """Faces as the original finds them: all of the clip for one track, then all that is left for the next."""
    left = [[tuple(box) for box in boxes] for boxes in detections]
    tracks = []
    while any(left):
        track: list[tuple[int, tuple[float, ...]]] = []
        for frame, boxes in enumerate(left):
            if track and frame - track[-1][0] > 25:
                break
            box = next((b for b in boxes if not track or overlap(np.array(b), np.array(track[-1][1])) > 0.5), None)
            if box is not None:
                track.append((frame, box))
                boxes.remove(box)
        tracks.append(track)
    return tracks


def test_one_pass_finds_the_tracks_of_many() -> None:
    rng = np.random.default_rng(2)
    paths = np.cumsum(rng.normal(size=(200, 4, 1)) * 12, 0) + 150 * np.arange(4)[:, None] + BOX  # they meet and part
    seen = rng.random((200, 4)) > np.where(np.arange(200) // 30 % 2, 0.9, 0.1)[:, None]
    frames = [boxes[rng.permutation(4)][: seen[i].sum()] for i, boxes in enumerate(paths)]
    expected = follow_one_after_the_other(frames)
    tracks = track_faces(frames, min_detections=0, min_size_px=0.0)
    assert len(tracks) == len(expected) > 10
    for track, found in zip(tracks, expected, strict=True):
        assert (track.first, track.last, track.detections) == (found[0][0], found[-1][0], len(found))
        for frame, box in found:
            assert tuple(track.boxes[frame - track.first]) == box


def test_small_faces_do_not_count() -> None:
    narrow = np.array([0.0, 0.0, 40.0, 101.0])
    assert len(track_faces([narrow[None]] * 101)) == 1
    assert track_faces([narrow[None] - (0, 0, 0, 1)] * 101) == []
    assert len(track_faces([narrow[None]] * 30, min_detections=20, min_size_px=100.0)) == 1


def test_overlap() -> None:
    assert overlap(BOX, BOX) == 1
    assert overlap(BOX, BOX + 500) == 0
    assert overlap(BOX, BOX + (60, 0, 60, 0)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("length", [13, 40, 101])
def test_medians_are_scipys(length: int) -> None:
    values = np.random.default_rng(0).uniform(-5, 50, length)
    np.testing.assert_array_equal(medians(values, 13), medfilt(values, 13))


def test_crop_shows_the_box_and_grey_beyond_the_picture() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[80:120, 130:170] = (250, 120, 10)
    crop = crop_face(picture, 150.0, 100.0, 80.0)  # rows 20..244, columns 38..262: no resizing
    assert crop.shape == (224, 224, 3)
    np.testing.assert_array_equal(crop[60:100, 92:132], picture[80:120, 130:170])
    assert (crop[180:] == PADDING).all()
    assert crop.sum() == 40 * 40 * 380 + 44 * 224 * 3 * PADDING


def test_a_box_beside_the_picture_shows_grey() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    for x, y in ((-900.0, 100.0), (100.0, -900.0), (1900.0, 100.0)):
        assert (crop_face(picture, x, y, 60.0) == PADDING).all()
