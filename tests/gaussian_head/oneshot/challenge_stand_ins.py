"""Workers without networks: coefficients are drawn into pictures as grey squares, and read from them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy import ndarray

from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.time_bases import frames_in_speech

SIDE = 64
ROWS = {"lips": slice(2, 14), "brow": slice(18, 30), "yaw": slice(34, 46), "face": slice(50, 62)}
SMEAR = (slice(0, 64), slice(48, 64))
POINTS = np.random.default_rng(0).uniform(10, 50, (68, 2)).round(3)


def put(picture: ndarray, name: str, value: float) -> None:
    picture[ROWS[name], 4:28] = np.clip(round(128 + 100 * value), 0, 255)


def get(picture: ndarray, name: str) -> float:
    return (float(picture[ROWS[name], 4:28].mean()) - 128) / 100


def portrait(lips: float = 0.1, brow: float = -0.2, yaw: float = 0.3, *, face: bool = True) -> ndarray:
    """A 'photo': squares that tell its coefficients, one that tells that there is a face, and its own colour."""
    picture = np.full((SIDE, SIDE, 3), (200, 150, 120), np.uint8)
    for name, value in {"lips": lips, "brow": brow, "yaw": yaw, "face": 1.0 if face else -1.0}.items():
        put(picture, name, value)
    return picture


class Extractor:
    def __init__(self) -> None:
        self.calls = 0

    def landmarks(self, pictures: Iterable[ndarray]) -> Iterator[ndarray | None]:
        self.calls += 1
        for picture in pictures:
            yield POINTS if get(picture, "face") > 0 else None

    def coefficients(self, pictures: Iterable[ndarray], landmarks: Sequence[ndarray | None]) -> FaceCoefficients:
        rows, crops = [], []
        for picture, points in zip(pictures, landmarks, strict=True):
            row = np.full(257, 0.01, np.float32)
            row[80], row[81], row[225] = get(picture, "lips"), get(picture, "brow"), get(picture, "yaw")
            rows.append(row)
            crops.append((0.5, *(POINTS if points is None else points).mean(0)))
        return FaceCoefficients.from_vector(np.stack(rows), np.float32(crops))


class Expression:
    """Moves the brow, and the lips too little."""

    def __init__(self) -> None:
        self.calls = 0

    def move(self, speech: ndarray, first: FaceCoefficients, *, crop: bool = True, expressions=None):  # noqa: ANN201
        assert expressions is None
        self.calls += 1
        count = frames_in_speech(len(speech), 30)
        motion = np.repeat(first.motion(crop), count, 0)
        motion[:, 1] = brow_at(np.arange(count))
        motion[:, 0] = 0
        yield from np.array_split(motion, 3)


class Pose:
    """Turns the head from where it is, and takes expressions as they come."""

    def __init__(self) -> None:
        self.calls = 0

    def move(self, speech: ndarray, first: FaceCoefficients, *, crop: bool = True, expressions=None):  # noqa: ANN201
        self.calls += 1
        motion = np.repeat(first.motion(crop), len(expressions), 0)
        motion[:, :64] = expressions
        motion[:, 65] += turn_at(np.arange(len(motion)))
        yield motion


def brow_at(frames: ndarray) -> ndarray:
    return 0.4 * np.sin(frames / 5)


def turn_at(frames: ndarray) -> ndarray:
    return -0.5 * (1 - np.cos(frames / 7)) / 2


class Renderer:
    side_px, needs_crop = SIDE, True

    def __init__(self) -> None:
        self.calls = 0

    def animate(self, source: ndarray, first: ndarray, motion: ndarray) -> Iterator[ndarray]:
        self.calls += 1
        assert first.shape == (73,)
        assert abs(first[0] - get(source, "lips")) < 0.02, "the first coefficients must be the source's"
        for row in motion:
            picture = source.copy()
            for name, value in {"lips": row[0], "brow": row[1], "yaw": row[65]}.items():
                put(picture, name, float(value))
            yield picture


class Lips:
    """Opens the lips as loud as the sound is, smears a rim of the picture, and loses one face."""

    lost = 3

    def __init__(self) -> None:
        self.calls = 0

    def refine(self, frames: Iterable[ndarray], count: int, fps: float, speech: ndarray) -> Iterator[ndarray]:
        self.calls += 1
        for k, frame in enumerate(frames):
            made = frame.copy()
            put(made, "lips", loudness(speech, count)[k])
            made[SMEAR] = 0
            if k == self.lost:
                put(made, "face", -1)
            yield made


def loudness(speech: ndarray, count: int) -> ndarray:
    return np.array([np.abs(part).mean() for part in np.split(speech[: count * 533], count)])


class Workers:
    side_px = SIDE

    def __init__(self, folder: Path) -> None:
        self.extractor, self.expression, self.pose = Extractor(), Expression(), Pose()
        self.renderer, self.lips = Renderer(), Lips()
        self.folder = folder

    def weights(self, name: str) -> list[Path]:
        return [self.folder / f"{name}.weights"]

    def calls(self) -> dict[str, int]:
        names = ("extractor", "expression", "pose", "renderer", "lips")
        return {name: getattr(self, name).calls for name in names}
