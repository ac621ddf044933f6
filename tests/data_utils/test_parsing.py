"""Parsing: regions of a drawn person, steadiness, frames without a face."""

from pathlib import Path

import numpy as np
import pytest
from drawn_person import SIZE, DrawnPerson, iou

from data_utils.head_frame import above_jaw_mask, fill_missing, similarity, warp
from data_utils.labels import HAIR, HEAD, PALETTE, head_mask, paint
from data_utils.matting import cut_tails, fill_small_holes, read_matte, sharpen_to_edges
from data_utils.parsing import segment_frames
from gaussian_head.data.layout import (
    PARSING_BACKGROUND,
    PARSING_HAIR,
    PARSING_MOUTH,
    PARSING_NECK,
    PARSING_TORSO,
    SubjectLayout,
)
from gaussian_head.media.image import read_rgb

NO_FACE = (5, 6)


@pytest.fixture(scope="module")
def person() -> DrawnPerson:
    return DrawnPerson()


@pytest.fixture(scope="module")
def parsed(person: DrawnPerson, tmp_path_factory: pytest.TempPathFactory) -> SubjectLayout:
    layout = person.write(tmp_path_factory.mktemp("drawn"), missing=NO_FACE)
    facts = segment_frames(layout, segmenter=person.segment)
    assert facts["frames"] == person.frames
    return layout


def is_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour)).all(-1)


def test_regions_match_the_drawing(person: DrawnPerson, parsed: SubjectLayout) -> None:
    for k in person:
        picture, truth = read_rgb(parsed.parsing(k)), person.masks(k)
        assert iou(head_mask(picture), truth["head"]) > 0.9, k
        body = is_colour(picture, PARSING_NECK) | is_colour(picture, PARSING_TORSO)
        assert iou(body, truth["neck"] | truth["torso"]) > 0.9, k
        assert iou(~is_colour(picture, PARSING_BACKGROUND), truth["person"]) > 0.9, k


def test_long_hair_in_front_of_the_shoulder_is_head(person: DrawnPerson, parsed: SubjectLayout) -> None:
    for k in person:
        strand = person.masks(k)["hair"].copy()
        strand[:115] = False
        assert strand.sum() > 200
        assert is_colour(read_rgb(parsed.parsing(k)), PARSING_HAIR)[strand].mean() > 0.8, k


def test_labels_are_background_exactly_where_the_matte_is_nothing(person: DrawnPerson, parsed: SubjectLayout) -> None:
    for k in person:
        empty = read_matte(parsed.matte(k)) == 0
        assert np.array_equal(is_colour(read_rgb(parsed.parsing(k)), PARSING_BACKGROUND), empty)


def test_a_still_body_does_not_flicker(person: DrawnPerson, parsed: SubjectLayout) -> None:
    pictures = np.stack([head_mask(read_rgb(parsed.parsing(k))) for k in person])
    truth = np.stack([person.masks(k)["head"] for k in person])
    settled = np.abs(np.diff(truth.astype(int), axis=0)).sum(0) == 0
    assert np.abs(np.diff(pictures.astype(int), axis=0))[:, settled].mean() < 0.005


def test_the_mouth_is_marked_only_when_open(person: DrawnPerson, parsed: SubjectLayout) -> None:
    for k in person:
        if k in NO_FACE:
            continue
        mouth = is_colour(read_rgb(parsed.parsing(k)), PARSING_MOUTH)
        if person.opening(k):
            assert iou(mouth, person.masks(k)["mouth"]) > 0.7, k
        else:
            assert not mouth.any(), k


def test_landmarks_of_frames_without_a_face_are_interpolated() -> None:
    landmarks = np.arange(6, dtype=np.float32)[:, None, None] * np.ones((6, 478, 3), np.float32)
    gaps = landmarks.copy()
    gaps[[0, 2, 3, 5]] = np.nan
    filled = fill_missing(gaps)
    assert np.allclose(filled[1:5], landmarks[1:5])
    assert np.allclose(filled[0], 1)
    assert np.allclose(filled[5], 4)
    with pytest.raises(ValueError, match="found none"):
        fill_missing(np.full((3, 478, 3), np.nan, np.float32))


def test_similarity_carries_one_head_onto_another(person: DrawnPerson) -> None:
    a, b = person.landmarks(0), person.landmarks(6)
    matrix = similarity(a, b)
    assert np.allclose(matrix[:, :2], np.eye(2), atol=1e-3)
    assert np.allclose(matrix[:, 2], person.centre(6) - person.centre(0), atol=1e-2)
    carried = warp(np.float32(person.masks(0)["face"]), matrix) > 0.5
    assert iou(carried, person.masks(6)["face"]) > 0.97


def test_the_jaw_line_parts_face_and_neck(person: DrawnPerson) -> None:
    above = above_jaw_mask(person.landmarks(0), SIZE, SIZE)
    centre = person.centre(0)
    assert above[: int(centre[1])].all()
    assert above[person.masks(0)["face"]].mean() > 0.99
    assert not above[int(centre[1] + 38 + 4) :].any()


def test_labels_and_colours_agree() -> None:
    labels = np.arange(6, dtype=np.uint8)[None]
    assert np.array_equal(head_mask(paint(labels))[0], np.isin(labels[0], (HEAD, HAIR, 3)))
    assert len({tuple(c) for c in PALETTE.tolist()}) == 6


def test_matting_keeps_what_is_certain() -> None:
    mask = np.zeros((100, 100), np.float32)
    mask[20:80, 20:80] = 1
    mask[45:50, 45:50] = 0  # an ear-ring
    mask[20:40, 20:23] = 0.3
    filled = fill_small_holes(mask)
    assert filled[47, 47] == 1
    assert np.array_equal(filled[:, :19], mask[:, :19])
    assert cut_tails(np.array([[0.0, 0.1, 0.5, 0.9, 1.0]])).tolist() == [[0, 0, 0.5, 1, 1]]


def test_a_coarse_border_moves_onto_the_edge() -> None:
    picture = np.full((96, 96, 3), 220, np.uint8)
    picture[:, 50:] = 30
    coarse = np.zeros((96, 96), np.float32)
    coarse[:, 53:] = 1  # three pixels off
    sharp = sharpen_to_edges(coarse, picture, 8)
    assert np.abs((sharp > 0.5).argmax(1) - 50).max() <= 1


def test_real_footage_with_the_network(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    from data_utils.matting import mediapipe_segmenter
    from gaussian_head.media.video import read_frames

    _, frame = next(iter(read_frames(clips / "speech_13s.mp4")))
    matte = mediapipe_segmenter()(frame)
    assert matte.shape == frame.shape[:2]
    assert 0.4 < matte.mean() < 0.8
    assert matte[:20, :20].max() < 0.1
