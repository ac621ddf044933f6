"""Faces cut out and put back: what changes, what does not, and how colours are rounded."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_talker import draw_person

from gaussian_head.oneshot.wav2lip.faces import FADE_START, cut_face, mouth_mask, put_face, without_lips

BOX = np.array([31, 26, 80, 98])


def test_a_face_put_back_as_it_was_changes_nothing_visible() -> None:
    frame = cv2.GaussianBlur(draw_person(0, 0.5), (0, 0), 3)
    frame = cv2.resize(frame, (800, 600))
    box = 5 * BOX
    again = put_face(frame, box, cut_face(frame, box))
    assert np.abs(again.astype(int) - frame).max() <= 6
    assert np.abs(again.astype(int) - frame).mean() < 0.1


@pytest.mark.parametrize("side", [8, 33, 96, 500])
def test_outside_the_mask_every_pixel_keeps_its_value(side: int) -> None:
    rng = np.random.default_rng(side)
    frame = rng.integers(0, 256, (520, 530, 3), dtype=np.uint8)
    box = np.array([11, 7, 11 + side, 7 + side])
    drawn = np.ones((3, 96, 96), np.float32)
    out = put_face(frame, box, drawn)
    mask = np.zeros(frame.shape[:2], np.float32)
    mask[7 : 7 + side, 11 : 11 + side] = mouth_mask(side, side)
    np.testing.assert_array_equal(out[mask == 0], frame[mask == 0])
    assert (out[mask == 1] == 255).all()
    assert (mask == 1).sum() > 0.2 * side * side
    hard = put_face(frame, box, drawn, "hard")
    assert (hard[7 : 7 + side, 11 : 11 + side] == 255).all()
    assert (hard != 255).any()


def test_the_mask_is_soft_and_below_the_eyes() -> None:
    mask = mouth_mask(200, 160)
    assert mask.min() == 0
    assert mask.max() == 1
    assert not mask[: int(200 * FADE_START)].any()
    assert max(mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 0.02
    assert mask[150, 80] == mask[150, 45] == 1  # a mouth's middle and corner
    assert mask[185, 80] > 0.6  # a chin
    assert max(np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max()) < 0.2
    np.testing.assert_allclose(mask, mask[:, ::-1], atol=1e-6)


def test_colours_are_rounded_or_cut_off_and_keep_their_order() -> None:
    frame = np.zeros((120, 120, 3), np.uint8)
    drawn = np.stack([np.full((96, 96), value / 255, np.float32) for value in (10.7, 100.4, 200.6)])
    middle = [put_face(frame, np.array([10, 10, 110, 110]), drawn, "hard", how)[60, 60].tolist()
              for how in ("nearest", "truncate")]  # fmt: skip
    assert middle == [[201, 100, 11], [200, 100, 10]]
    face = cut_face(np.full((50, 50, 3), (255, 128, 0), np.uint8), np.array([0, 0, 50, 50]))
    np.testing.assert_allclose(face[:, 50, 50], [0, 128 / 255, 1])
    hidden = without_lips(np.stack([face, face]))
    assert not hidden[:, :, 48:].any()
    np.testing.assert_array_equal(hidden[:, :, :48], np.stack([face, face])[:, :, :48])
