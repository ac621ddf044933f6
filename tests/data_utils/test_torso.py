"""Torso and training targets: composition is exact outside the head, no holes under it."""

import cv2
import numpy as np
import pytest
from drawn_person import CLOTH, SIZE, SKIN, DrawnPerson

from data_utils.background import extract_background
from data_utils.head_frame import FaceAxes
from data_utils.labels import head_mask
from data_utils.parsing import segment_frames
from data_utils.torso import body_without_head, extract_torso
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.media.image import read_rgb, read_rgba


@pytest.fixture(scope="module")
def person() -> DrawnPerson:
    return DrawnPerson(frames=16)


@pytest.fixture(scope="module")
def made(person: DrawnPerson, tmp_path_factory: pytest.TempPathFactory) -> SubjectLayout:
    layout = person.write(tmp_path_factory.mktemp("drawn"), missing=(3,))
    segment_frames(layout, segmenter=person.segment)
    extract_background(layout)
    facts = extract_torso(layout)
    assert 0.1 < facts["plate_share"] < 0.6
    return layout


def composed(layout: SubjectLayout, k: int) -> np.ndarray:
    rgba = np.float32(read_rgba(layout.torso_image(k)))
    alpha = rgba[..., 3:] / 255
    return alpha * rgba[..., :3] + (1 - alpha) * read_rgb(layout.background)


def test_torso_over_background_is_the_target_outside_the_head(person: DrawnPerson, made: SubjectLayout) -> None:
    for k in person:
        outside = ~head_mask(read_rgb(made.parsing(k)))
        target = np.float32(read_rgb(made.gt_image(k)))
        difference = np.abs(composed(made, k) - target)[outside]
        assert difference.mean() < 2, k
        assert np.percentile(difference, 99) < 12, k


def test_target_is_the_frame_on_the_person(person: DrawnPerson, made: SubjectLayout) -> None:
    for k in person:
        inner = cv2.erode(np.uint8(person.masks(k)["person"]), np.ones((7, 7))) > 0
        assert np.abs(np.float32(read_rgb(made.gt_image(k))) - person.frame(k))[inner].mean() < 3


def test_the_neck_goes_on_under_the_jaw(person: DrawnPerson, made: SubjectLayout) -> None:
    neck_colour = np.float32(SKIN) - 15
    for k in person:
        rgba = read_rgba(made.torso_image(k))
        chin = int(person.centre(k)[1] + 38)
        under = rgba[chin - 7 : chin, SIZE // 2 - 9 : SIZE // 2 + 9]
        assert (under[..., 3] == 255).all(), k
        assert np.abs(under[..., :3] - neck_colour).mean() < 25, k


def test_other_frames_show_the_shoulder_behind_the_hair(person: DrawnPerson, made: SubjectLayout) -> None:
    seen = np.mean([person.masks(k)["torso"] for k in person], axis=0)
    for k in person:
        hidden = person.masks(k)["hair"] & (seen > 0.3)
        hidden[:130] = False
        rgba = read_rgba(made.torso_image(k))[hidden]
        if len(rgba) > 30:
            assert (rgba[:, 3] > 250).mean() > 0.95, k
            assert np.abs(np.median(rgba[:, :3], axis=0) - CLOTH).max() < 30, k


def test_no_body_in_sight_leaves_the_background() -> None:
    head = np.ones((40, 40), bool)
    axes = FaceAxes(np.array([20.0, 30.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0]), 25.0)
    nothing = np.zeros((40, 40), bool)
    frame = np.full((40, 40, 3), 100, np.float32)
    rgba = body_without_head(frame, np.ones((40, 40), np.float32), head, np.zeros_like(frame), nothing, axes)
    assert (rgba == 0).all()
