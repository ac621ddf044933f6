"""Background: recovered where any frame shows it, continued smoothly elsewhere; never the person."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_person import DrawnPerson

from data_utils.background import background_picture, extract_background
from data_utils.filling import nearest_fill, push_pull
from data_utils.uncovered import distance_to, uncovered_median
from gaussian_head.media.image import read_rgb, write_png


@pytest.fixture
def person() -> DrawnPerson:
    return DrawnPerson(frames=12)


def test_recovers_what_the_head_uncovers(person: DrawnPerson, tmp_path: Path) -> None:
    layout = person.write(tmp_path)
    for k in person:
        write_png(layout.matte(k), np.uint8(255 * cv2.dilate(np.uint8(person.masks(k)["person"]), np.ones((3, 3)))))
    facts = extract_background(layout)
    found = np.float32(read_rgb(layout.background))
    error = np.abs(found - person.background).mean(-1)
    covered = np.stack([person.masks(k)["person"] for k in person])
    always = cv2.erode(np.uint8(covered.all(0)), np.ones((3, 3))) > 0
    never = cv2.dilate(np.uint8(covered.any(0)), np.ones((11, 11))) == 0
    sometimes = covered.any(0) & (covered.mean(0) < 0.6)
    assert error[never].mean() < 2
    assert error[sometimes].mean() < 4
    assert error[always].mean() < 25, "a smooth continuation, not the person"
    assert 0.2 < facts["uncovered_share"] < 1


def test_median_withstands_noise_and_outliers() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(40, 200, (8, 8, 3))
    frames = np.uint8(np.clip(truth + rng.normal(0, 2, (15, 8, 8, 3)), 0, 255))
    frames[:4] = 255
    seen = np.ones((15, 8, 8), bool)
    seen[:, 0, 0] = False
    seen[1:, 1, 1] = False  # seen once: not enough
    colours, known = uncovered_median(frames, seen)
    assert not known[0, 0]
    assert not known[1, 1]
    assert (colours[0, 0] == 0).all()
    assert np.abs(colours.astype(float) - truth)[known].max() < 8


def test_a_strand_close_to_the_person_is_no_background() -> None:
    frames = np.full((6, 60, 100, 3), 180, np.uint8)
    person = np.zeros((60, 100), bool)
    person[:, 50:] = True
    frames[:, person] = 90
    frames[:, :, 48:50] = 20  # beyond the matte, dark
    distances = np.repeat(distance_to(person)[None], 6, 0)
    picture, _ = background_picture(frames, distances)
    assert picture.min() > 170


def test_push_pull_keeps_the_known_and_continues_it() -> None:
    ramp = np.repeat(np.linspace(0, 100, 64, dtype=np.float32)[None, :, None], 64, 0)
    weight = np.ones((64, 64), np.float32)
    weight[20:44, 20:44] = 0
    filled = push_pull(np.where(weight[..., None] > 0, ramp, 999), weight)
    assert np.allclose(filled[weight > 0], ramp[weight > 0])
    assert np.abs(filled - ramp).max() < 20
    assert np.abs(np.diff(filled[32, :, 0])).max() < 12
    nothing = push_pull(ramp, np.zeros((64, 64), np.float32))
    assert np.isfinite(nothing).all()


def test_a_person_who_fills_the_picture_leaves_a_plain_background() -> None:
    frames = np.full((4, 20, 20, 3), 90, np.uint8)
    picture, known = background_picture(frames, np.zeros((4, 20, 20), np.float32))
    assert not known.any()
    assert np.isfinite(picture).all()
    assert picture.shape == (20, 20, 3)


def test_nearest_fill_does_not_mix_far_colours() -> None:
    picture = np.zeros((40, 60, 3), np.float32)
    picture[:, :30], picture[:, 30:] = 200, 20
    known = np.zeros((40, 60), bool)
    known[30:] = True
    filled = nearest_fill(picture, known, 1.0)
    assert np.abs(filled[:, :25] - 200).max() < 1
    assert np.abs(filled[:, 35:] - 20).max() < 1
    assert np.array_equal(filled[known], picture[known])
