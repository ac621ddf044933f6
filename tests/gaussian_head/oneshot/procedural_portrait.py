"""The procedural subject as a portrait: its picture, who is in it, and where MediaPipe found its face; no detector.

Made once from `data_utils.synthetic` (seed 0, at rest, 512 px), then shrunk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gaussian_head.media.image import read_rgba, resize
from gaussian_head.oneshot.mesh.head import Portrait

FOLDER = Path(__file__).parent


def procedural_portrait(size: int = 224) -> Portrait:
    """Return the portrait at a size."""
    rgba = resize(read_rgba(FOLDER / "procedural_face.png"), size, size)
    landmarks = np.load(FOLDER / "procedural_face.npy").astype(np.float64) * size
    return Portrait(np.ascontiguousarray(rgba[..., :3]), landmarks, rgba[..., 3] / 255)
