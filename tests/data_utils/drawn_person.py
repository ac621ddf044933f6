"""A drawn person whose every pixel is known: a head that moves over a still body and background."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.landmarks import FACE_OVAL, INNER_LIPS, OUTER_LIPS
from gaussian_head.media.image import write_jpeg

SIZE = 160
SKIN, HAIR, CLOTH = (215, 165, 140), (60, 40, 25), (40, 60, 130)
LIPS, CAVITY, TEETH, TONGUE = (180, 70, 80), (40, 15, 15), (235, 230, 220), (170, 90, 95)
BODY_TOP = 118


def ellipse_points(centre: np.ndarray, half: tuple[float, float], count: int, start: float, turn: int) -> np.ndarray:
    """Points around an ellipse from angle `start` (0 = right, counter-clockwise on screen for turn = 1)."""
    angles = start + turn * 2 * np.pi * np.arange(count) / count
    return np.stack([centre[0] + half[0] * np.cos(angles), centre[1] - half[1] * np.sin(angles)], 1)


class DrawnPerson:
    """Frames, landmarks and the truth about each."""

    def __init__(self, frames: int = 24, reach_px: float = 9.0) -> None:
        self.frames = frames
        self._reach = reach_px
        rng = np.random.default_rng(3)
        noise = cv2.GaussianBlur(rng.uniform(-60, 60, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 6) * 3
        ramp = np.linspace(150, 200, SIZE)[None, :, None] + np.array([-40.0, 10.0, 20.0])
        self.background = np.uint8(np.clip(ramp + noise, 0, 255))
        self._memory: list[np.ndarray] = []

    def centre(self, k: int) -> np.ndarray:
        """Centre of the face."""
        phase = 2 * np.pi * k / self.frames
        return np.array([SIZE / 2 + self._reach * np.sin(phase), 66 + 0.3 * self._reach * np.cos(phase)])

    def opening(self, k: int) -> float:
        """Half height of the inner mouth; 0 = shut."""
        return 0.0 if k % 4 == 0 else 7.0

    def landmarks(self, k: int) -> np.ndarray:
        """A mesh [478, 3] with the tables' contours where they belong."""
        centre = self.centre(k)
        points = np.random.default_rng(0).uniform(-0.6, 0.6, (478, 2)) * (27, 38) + centre
        points[FACE_OVAL] = ellipse_points(centre, (27, 38), len(FACE_OVAL), np.pi / 2, -1)
        mouth = centre + (0, 20)
        opening = self.opening(k)
        points[INNER_LIPS] = ellipse_points(mouth, (12, opening), len(INNER_LIPS), np.pi, 1)
        points[OUTER_LIPS] = ellipse_points(mouth, (15, opening + 4), len(OUTER_LIPS), np.pi, 1)
        return np.concatenate([points, np.zeros((478, 1))], 1).astype(np.float32)

    def masks(self, k: int) -> dict[str, np.ndarray]:
        """True regions: face, hair, head, neck, torso, person, mouth, teeth (bool [H, W])."""
        centre = self.centre(k)
        face = _ellipse(centre, (27, 38))
        shell = _ellipse(centre - (0, 6), (36, 42))
        strand = np.zeros((SIZE, SIZE), bool)
        strand[int(centre[1]) : 145, int(centre[0]) - 38 : int(centre[0]) - 24] = True
        torso = _ellipse(np.array([SIZE / 2, 172.0]), (74, 172 - BODY_TOP))
        neck = np.zeros((SIZE, SIZE), bool)
        neck[80:130, SIZE // 2 - 15 : SIZE // 2 + 15] = True
        hair = (shell | strand) & ~face
        head = face | hair
        mouth = _ellipse(centre + (0, 20), (12, self.opening(k))) if self.opening(k) else np.zeros_like(face)
        teeth = mouth.copy()
        teeth[int(centre[1] + 19) :] = False
        return {
            "face": face, "hair": hair, "head": head, "neck": neck & ~head, "torso": torso & ~neck & ~head,
            "person": head | neck | torso, "mouth": mouth, "teeth": teeth,
        }  # fmt: skip

    def frame(self, k: int) -> np.ndarray:
        """The picture, RGB uint8, with soft edges and noise."""
        masks, centre = self.masks(k), self.centre(k)
        picture = np.float32(self.background)
        neck_and_torso = np.where(masks["neck"][..., None], np.float32(SKIN) - 15, np.float32(CLOTH))
        body = _soft(masks["neck"] | masks["torso"] | masks["head"] & _ellipse(np.array([80.0, 172.0]), (74, 54)))
        picture = (1 - body) * picture + body * neck_and_torso
        inside = np.where(masks["face"][..., None], np.float32(SKIN), np.float32(HAIR))
        head = _soft(masks["head"])
        picture = (1 - head) * picture + head * inside
        lips = _soft(_ellipse(centre + (0, 20), (15, self.opening(k) + 4)))
        picture = (1 - lips) * picture + lips * np.float32(LIPS)
        picture[masks["mouth"]] = CAVITY
        low = masks["mouth"].copy()
        low[: int(centre[1] + 24)] = False
        picture[low] = TONGUE
        picture[masks["teeth"]] = TEETH
        return np.uint8(np.clip(picture + np.random.default_rng(k).normal(0, 2, picture.shape), 0, 255))

    def segment(self, frame: np.ndarray) -> np.ndarray:
        """Stand in for the network: the truth of the frame that looks like this, blurred."""
        if not self._memory:
            self._memory = [np.int16(self.frame(k)) for k in range(self.frames)]
        errors = [np.abs(frame - known).mean() for known in self._memory]
        return cv2.GaussianBlur(np.float32(self.masks(int(np.argmin(errors)))["person"]), (0, 0), 2)

    def write(self, root: Path, missing: tuple[int, ...] = ()) -> SubjectLayout:
        """Write frames and landmarks; `missing` frames have no face in the landmarks' file."""
        layout = SubjectLayout(root)
        rows = [self.landmarks(k) for k in range(self.frames)]
        for k in range(self.frames):
            write_jpeg(layout.frame(k), self.frame(k))
            if k in missing:
                rows[k] = np.full((478, 3), np.nan, np.float32)
        np.save(layout.mesh_landmarks, np.stack(rows))
        return layout

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.frames))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks (1 when both are empty)."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def _ellipse(centre: np.ndarray, half: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    return ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / max(half[1], 1e-3)) ** 2 <= 1


def _soft(mask: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(np.float32(mask), (0, 0), 0.7)[..., None]
