"""A clip of 20 frames whose coefficients say what is seen: a head that moves about and opens its mouth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gaussian_head.media.mat import write_deep3d
from gaussian_head.media.video import VideoWriter

FRAMES, SIDE = 20, 64


def write_clip(folder: Path, name: str = "clip", seed: int = 0) -> Path:
    """Write `<name>.mp4` and `<name>.mat`; return the folder."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    phase = np.arange(FRAMES) / FRAMES * 2 * np.pi
    across, mouth = 7 * np.sin(phase), 2.5 + 2.5 * np.sin(3 * phase)
    skin = random.integers(120, 220, 3)
    with VideoWriter(folder / f"{name}.mp4", 25, SIDE, SIDE, crf=8) as writer:
        for x, gap in zip(across, mouth, strict=True):
            writer.write(draw_face(x, gap, skin))
    coefficients = np.zeros((FRAMES, 257))
    coefficients[:, 80] = (mouth - 2.5) / 2.5
    coefficients[:, 225] = across / 14
    coefficients[:, 254] = across / 14
    write_deep3d(folder / f"{name}.mat", coefficients, np.tile([SIDE, SIDE, 1.0, 0.5, 0.5], (FRAMES, 1)))
    return folder


def draw_face(x: float, gap: float, skin: np.ndarray) -> np.ndarray:
    """Draw the head `x` px right of the middle, its lips `gap` px apart."""
    picture = np.full((SIDE * 4, SIDE * 4, 3), (40, 70, 110), np.uint8)
    picture[: 2 * SIDE] += 30  # something in the background that does not move
    middle = np.array([SIDE / 2 + x, SIDE / 2])

    def ellipse(dx: float, dy: float, wide: float, high: float, colour: tuple[int, ...]) -> None:
        centre = tuple(int(4 * value) for value in middle + (dx, dy))
        cv2.ellipse(picture, centre, (int(4 * wide), int(4 * high)), 0, 0, 360, colour, -1)

    ellipse(0, 0, 16, 21, tuple(map(int, skin)))
    ellipse(-6, -6, 3, 2, (250, 250, 250))
    ellipse(6, -6, 3, 2, (250, 250, 250))
    ellipse(0, 10, 7, 1 + gap, (90, 20, 30))
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
