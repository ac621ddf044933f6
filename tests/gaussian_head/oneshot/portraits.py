"""Pictures and faces that need no detector: 68 points of a plain face, a smooth picture, a finder that is told."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gaussian_head.oneshot.source.detect import FoundFace


def face_points(x: float, y: float, size: float, turn_deg: float = 0.0) -> np.ndarray:
    """Return the 68 points of a face `size` px high from brows to chin, whose eyes' middle is at (x, y)."""
    around = np.linspace(np.pi, 2 * np.pi, 17)
    jaw = np.stack([0.45 * np.cos(around), -0.85 * np.sin(around)], 1)
    brows = [np.stack([side + np.linspace(-0.1, 0.1, 5), np.full(5, -0.15)], 1) for side in (-0.2, 0.2)]
    nose = [
        np.stack([np.zeros(4), np.linspace(0, 0.3, 4)], 1),
        np.stack([np.linspace(-0.08, 0.08, 5), np.full(5, 0.35)], 1),
    ]
    six = np.arange(6) * np.pi / 3 + np.pi
    eyes = [np.stack([side + 0.07 * np.cos(six), 0.03 * np.sin(six)], 1) for side in (-0.2, 0.2)]
    twelve, eight = np.arange(12) * np.pi / 6 + np.pi, np.arange(8) * np.pi / 4 + np.pi
    lips = [
        np.stack([a * np.cos(t), 0.55 + b * np.sin(t)], 1) for a, b, t in ((0.15, 0.08, twelve), (0.1, 0.03, eight))
    ]
    points = np.concatenate([jaw, *brows, *nose, *eyes, *lips]) * size
    cos, sin = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    return points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def smooth_picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return a picture without sharp edges, RGB."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 5)
    return np.uint8(np.clip(128 + 50 * noise / noise.std(), 0, 255))


@dataclass
class Told:
    """A finder that returns what it was told, and keeps what it was shown."""

    face: FoundFace | None
    blind_for: int = 0
    name: str = "told"

    def __post_init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def find(self, rgb: np.ndarray) -> FoundFace | None:
        self.shown.append(rgb)
        return self.face if len(self.shown) > self.blind_for else None
