"""A drawn person whose mouth opens with the loudness of the sound, and someone who finds the face by its colour."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from gaussian_head.media.audio import write_wav
from gaussian_head.media.time_bases import SPEECH_HZ
from gaussian_head.media.video import VideoWriter

HEIGHT, WIDTH = 120, 160
SKIN = (224, 172, 140)
FACE_RADII = (24, 32)


def openness(frames: int, fps: float) -> ndarray:
    """How far the mouth is open in each frame, 0..1: uneven syllables."""
    t = np.arange(frames) / fps
    return np.clip(np.sin(2 * np.pi * 2.7 * t) + 0.5 * np.sin(2 * np.pi * 0.7 * t + 1), 0, 1)


def draw_person(frame: int, opened: float, *, shown: bool = True) -> ndarray:
    """One RGB frame; the face drifts to the right, 1 px a frame."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.stack([60 + x / 2, 90 + y / 2, 160 - x / 3], -1).astype(np.uint8)  # a wall with a gradient
    picture[(x // 8 + y // 8) % 2 == 0] += 9
    cv2.rectangle(picture, (40, 100), (120, 120), (30, 40, 90), -1)
    if shown:
        centre = (55 + frame % 50, 58)
        cv2.ellipse(picture, centre, FACE_RADII, 0, 0, 360, SKIN, -1)
        for side in (-9, 9):
            cv2.circle(picture, (centre[0] + side, centre[1] - 8), 3, (40, 40, 60), -1)
        cv2.ellipse(picture, (centre[0], centre[1] + 16), (9, 1 + round(6 * opened)), 0, 0, 360, (90, 20, 30), -1)
    return picture


def speech_of(frames: int, fps: float, opened: ndarray | None = None) -> ndarray:
    """A hum as loud as the mouth is open."""
    t = np.arange(round(frames / fps * SPEECH_HZ)) / SPEECH_HZ
    loud = np.interp(t, np.arange(frames) / fps, openness(frames, fps) if opened is None else opened)
    return (0.4 * loud * np.sign(np.sin(2 * np.pi * 150 * t))).astype(np.float32)


def write_person(path: Path, frames: int, fps: float, hidden: tuple[int, ...] = ()) -> Path:
    """Write a video with sound; in the `hidden` frames there is no face."""
    sound = path.with_suffix(".wav")
    write_wav(sound, speech_of(frames, fps), SPEECH_HZ)
    with VideoWriter(path, fps, WIDTH, HEIGHT, audio=sound) as writer:
        for k, opened in enumerate(openness(frames, fps)):
            writer.write(draw_person(k, opened, shown=k not in hidden))
    return path


def find_skin(pictures: list[ndarray]) -> list[ndarray]:
    """The box around what has the colour of the face, in each picture."""
    found = []
    for picture in pictures:
        rows, columns = np.nonzero(np.abs(picture.astype(int) - SKIN).max(-1) < 14)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) > 300 else []
        found.append(np.array(box, float).reshape(-1, 4))
    return found
