"""Teeth: found by brightness and colour between the lips, nowhere else."""

from pathlib import Path

import numpy as np
import pytest
from drawn_person import DrawnPerson, iou

from data_utils.head_frame import inner_mouth_mask
from data_utils.teeth import TeethColours, extract_teeth, find_teeth, split_teeth

NO_FACE = 5


@pytest.fixture
def person() -> DrawnPerson:
    return DrawnPerson(frames=8)


def test_finds_drawn_teeth(person: DrawnPerson, tmp_path: Path) -> None:
    layout = person.write(tmp_path, missing=(NO_FACE,))
    facts = extract_teeth(layout)
    for k in person:
        mask = np.load(layout.teeth_mask(k))
        assert mask.dtype == bool
        assert mask.shape == person.background.shape[:2]
        if k == NO_FACE or not person.opening(k):
            assert not mask.any(), k
        else:
            assert iou(mask, person.masks(k)["teeth"]) > 0.8, k
            assert not mask[~inner_mouth_mask(person.landmarks(k), *mask.shape)].any()
    assert facts["frames_with_teeth"] == sum(bool(person.opening(k)) for k in person) - 1


def test_a_clip_with_the_mouth_shut_has_thresholds_and_no_teeth(person: DrawnPerson, tmp_path: Path) -> None:
    person.opening = lambda k: 0.0  # type: ignore[method-assign]
    layout = person.write(tmp_path)
    assert extract_teeth(layout)["frames_with_teeth"] == 0
    empty = np.zeros((0, 3), np.uint8)
    assert split_teeth(empty, empty) == TeethColours(130.0, 145.0)


def test_a_mouth_outside_the_picture_is_no_error(person: DrawnPerson) -> None:
    landmarks = person.landmarks(1) + np.float32([500, 0, 0])
    assert not find_teeth(person.frame(1), landmarks, TeethColours(130.0, 145.0)).any()
