"""Frames put back: exactly at their place, nothing else touched, no seam, alpha kept."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from portraits import face_points, smooth_picture

from gaussian_head.oneshot.source.crop import Box, choose_box, cut
from gaussian_head.oneshot.source.paste import Paster
from gaussian_head.oneshot.source.source import over

WIDTH, HEIGHT = 320, 260
FACE = face_points(150, 110, 60)
BOX = choose_box(FACE, WIDTH, HEIGHT, "full")


def changed(out: np.ndarray, picture: np.ndarray) -> np.ndarray:
    return (out != picture).any(2)


@pytest.mark.parametrize("method", ["box", "face"])
@pytest.mark.parametrize("box", [BOX, Box(-30, -20, 170, 180), Box(200, 150, 380, 330)])
def test_outside_of_the_mask_nothing_changes(method: str, box: Box) -> None:
    picture = smooth_picture(WIDTH, HEIGHT)
    paster = Paster(picture, box, FACE, method)
    before = picture.copy()
    out = paster.paste(255 - cut(picture, box, 128))
    assert np.array_equal(picture, before)
    inside = box.within(WIDTH, HEIGHT)
    region = np.zeros((HEIGHT, WIDTH), bool)
    region[inside.top : inside.bottom, inside.left : inside.right] = paster.mask > 0
    assert not (changed(out, picture) & ~region).any()
    border = np.ones((HEIGHT, WIDTH), bool)
    border[max(box.top + 1, 0) : box.bottom - 1, max(box.left + 1, 0) : box.right - 1] = False
    assert not changed(out, picture)[border].any()
    assert (np.abs(np.diff(paster.mask, axis=0)).max() < 0.3) or method == "face"


def test_a_frame_lands_on_its_own_pixels() -> None:
    picture, other = smooth_picture(WIDTH, HEIGHT), smooth_picture(WIDTH, HEIGHT, seed=1)
    for box in (BOX, Box(-30, -20, 170, 180)):
        paster, inside = Paster(picture, box, FACE), box.within(WIDTH, HEIGHT)
        # as many px as the box: nothing is resampled
        assert np.array_equal(paster.paste(cut(picture, box, box.width)), picture)
        out = paster.paste(cut(other, box, box.width))[inside.top : inside.bottom, inside.left : inside.right]
        full = paster.mask == 1
        assert full.mean() > 0.5
        assert np.array_equal(out[full], other[inside.top : inside.bottom, inside.left : inside.right][full])


@pytest.mark.parametrize("side_px", [64, 256])
@pytest.mark.parametrize("shift", [0, 3])
def test_the_place_is_right_to_a_fraction_of_a_pixel(side_px: int, shift: int) -> None:
    picture = smooth_picture(WIDTH, HEIGHT)
    frame = np.roll(cut(picture, BOX, side_px), shift, 1)
    out = Paster(picture, BOX, FACE).paste(frame)
    expected = cv2.warpAffine(picture, np.array([[1, 0, shift * BOX.width / side_px], [0, 1, 0.0]]), (WIDTH, HEIGHT))
    assert np.abs(remaining_shift(out, expected)).max() < 0.05


def remaining_shift(image: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return by how much the middle of the box is displaced (x, y), px: least squares on the brightness's slopes."""
    fade = round(0.25 * BOX.width)
    middle = slice(BOX.top + fade, BOX.bottom - fade), slice(BOX.left + fade, BOX.right - fade)
    image, expected = (np.float64(x[middle].mean(2)) for x in (image, expected))
    down, along = np.gradient(expected)
    return np.linalg.lstsq(np.stack([along.ravel(), down.ravel()], 1), (expected - image).ravel(), rcond=None)[0]


def test_the_face_mask_covers_the_face_and_little_more() -> None:
    mask = Paster(smooth_picture(WIDTH, HEIGHT), BOX, FACE, "face").mask
    for x, y in np.floor(FACE - (BOX.left, BOX.top)).astype(int):
        assert mask[y, x] > 0.5
    assert 0.1 < (mask > 0).mean() < 0.6
    away = face_points(40, 230, 20)
    assert not Paster(smooth_picture(WIDTH, HEIGHT), BOX, away, "face").mask.any()  # no face in the box: nothing pasted


def test_seamless_takes_the_surrounding_colours() -> None:
    picture = smooth_picture(WIDTH, HEIGHT)
    brighter = np.uint8(np.clip(np.int16(cut(picture, BOX, 128)) + 20, 0, 255))
    out = {method: Paster(picture, BOX, FACE, method).paste(brighter) for method in ("box", "seamless")}
    region = np.zeros((HEIGHT, WIDTH), bool)
    region[BOX.top : BOX.bottom, BOX.left : BOX.right] = True
    assert not changed(out["seamless"], picture)[~region].any()
    gain = {method: np.int16(image)[region].mean() - picture[region].mean() for method, image in out.items()}
    assert gain["box"] > 12
    assert abs(gain["seamless"]) < 3


def test_alpha_stays_and_colours_under_it_come_back() -> None:
    picture = smooth_picture(WIDTH, HEIGHT)
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(alpha, (150, 120), 40, 255, -1)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 4)
    background = (255, 255, 255)
    paster = Paster(picture, BOX, FACE, "box", alpha, background)
    same = paster.paste(cut(over(picture, alpha, background), BOX, BOX.width))
    assert same.shape == (HEIGHT, WIDTH, 4)
    assert np.array_equal(same[..., 3], alpha)
    error = np.abs(np.int16(same[..., :3]) - picture)
    assert error[alpha > 127].max() <= 2
    inverted = paster.paste(255 - cut(over(picture, alpha, background), BOX, 64))
    assert np.array_equal(inverted[..., 3], alpha)
    assert np.array_equal(inverted[alpha == 0], np.dstack([picture, alpha])[alpha == 0])
    assert changed(inverted[..., :3], picture)[100:120, 140:160].all()


def test_frames_are_pasted_one_at_a_time() -> None:
    picture, taken = smooth_picture(WIDTH, HEIGHT), []

    def frames() -> object:
        for k in range(1000):
            taken.append(k)
            yield np.full((32, 32, 3), k % 256, np.uint8)

    stream = Paster(picture, BOX, FACE).stream(frames())
    first, second = next(stream), next(stream)
    assert taken == [0, 1]
    assert first is not second
