"""Faces cut out of frames as the generator takes them, and its faces put back.

Source: specs/one_shot.md 6.2, 6.3 (4-6).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, Int, UInt8
from numpy import ndarray

from gaussian_head.networks.wav2lip import SIDE

Paste = Literal["feathered", "hard"]
Rounding = Literal["nearest", "truncate"]
ROUNDNESS, RIM = 3, 0.12
"""The mask's outline, |x|^ROUNDNESS + |y|^ROUNDNESS = 1 in the box, and the share of the way to it that is faded."""
FADE_START, FADE_END = 0.40, 0.52
"""The mask begins to show at this share of the box's height, and is whole at that: below the eyes."""


def cut_face(frame: UInt8[ndarray, "H W 3"], box: Int[ndarray, "4"]) -> Float32[ndarray, "3 96 96"]:
    """Cut a face out of an RGB frame: BGR in [0, 1]."""
    left, top, right, bottom = box
    face = cv2.resize(frame[top:bottom, left:right], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return to_network(face)


def to_network(face: UInt8[ndarray, "96 96 3"]) -> Float32[ndarray, "3 96 96"]:
    """Turn an RGB picture into the generator's BGR in [0, 1]."""
    return np.ascontiguousarray(face[..., ::-1].transpose(2, 0, 1), np.float32) / np.float32(255)


def without_lips(faces: Float32[ndarray, "*B 3 96 96"]) -> Float32[ndarray, "*B 3 96 96"]:
    """Return faces whose lower half is black: what the generator shall draw."""
    upper = faces.copy()
    upper[..., SIDE // 2 :, :] = 0
    return upper


def put_face(
    frame: UInt8[ndarray, "H W 3"],
    box: Int[ndarray, "4"],
    drawn: Float32[ndarray, "3 96 96"],
    paste: Paste = "feathered",
    rounding: Rounding = "nearest",
) -> UInt8[ndarray, "H W 3"]:
    """Return a frame with a face put in.

    Args:
        frame: RGB, 0..255.
        box: Where the face was cut out.
        drawn: The generator's: BGR in [0, 1].
        paste: feathered: where `mouth_mask` says, everything else keeps its exact value. hard: the whole box, as the
            reference does.
        rounding: nearest: once, at the end. truncate: before the face is resized, as the reference does.
    """
    left, top, right, bottom = box.tolist()
    face = 255 * drawn.transpose(1, 2, 0)[..., ::-1]
    face = np.ascontiguousarray(face.astype(np.uint8) if rounding == "truncate" else face)
    face = cv2.resize(face, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    out = frame.copy()
    behind = out[top:bottom, left:right]
    if paste == "feathered":
        mask = mouth_mask(bottom - top, right - left)[..., None]
        face = mask * face + (1 - mask) * behind
    behind[...] = np.clip(np.rint(face), 0, 255).astype(np.uint8)
    return out


@lru_cache(maxsize=64)
def mouth_mask(height: int, width: int) -> Float32[ndarray, "H W"]:
    """Return how much of a drawn face shows, in [0, 1]: its lower part in a rounded outline, faded to 0 at the rim."""
    y, x = ((np.arange(side) + 0.5) / side for side in (height, width))
    distance = (np.abs(2 * y[:, None] - 1) ** ROUNDNESS + np.abs(2 * x - 1) ** ROUNDNESS) ** (1 / ROUNDNESS)
    below = _smooth_step((y - FADE_START) / (FADE_END - FADE_START))[:, None]
    return np.float32(below * _smooth_step((1 - distance) / RIM))


def _smooth_step(x: ndarray) -> ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
