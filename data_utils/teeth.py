"""Stage `teeth`: which pixels between the lips are teeth (`teeth_mask/<k>.npy`).

Teeth are brighter than the cavity and less red than lips and tongue; how bright and how red is learned from the clip.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from data_utils.head_frame import inner_mouth_mask, polygon_mask
from data_utils.stage import Progress, no_progress
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.landmarks import INNER_LIPS, OUTER_LIPS, mouth_aperture
from gaussian_head.media.files import write_bytes
from gaussian_head.media.image import read_rgb

SAMPLE_FRAMES = 48
"""Thresholds are learned from at most this many of the widest-open mouths."""
LEAST_APERTURE_PX = 2.0


@dataclass(frozen=True)
class TeethColours:
    """A tooth is lighter than `lightness` and less red than `redness` (CIELAB L and a, 0..255 as OpenCV has them)."""

    lightness: float
    redness: float


def extract_teeth(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write `teeth_mask/<k>.npy` of every frame; nothing is marked where the mouth is shut or no face was found.

    Args:
        layout: Subject folder with frames and mesh landmarks.
        progress: Wraps the loop over frames.

    Returns:
        Facts for the manifest: the thresholds and the share of frames that show teeth.
    """
    landmarks = np.load(layout.mesh_landmarks)
    colours = learn_teeth_colours(layout, landmarks)
    shown = 0
    frames = range(len(landmarks))
    for k in progress(frames, len(frames), "teeth"):
        frame = read_rgb(layout.frame(k))
        if np.isfinite(landmarks[k]).all() and mouth_aperture(landmarks[k, :, :2]) > LEAST_APERTURE_PX:
            teeth = find_teeth(frame, landmarks[k], colours)
        else:
            teeth = np.zeros(frame.shape[:2], bool)
        shown += bool(teeth.any())
        write_teeth(layout, k, teeth)
    return {
        "frames": len(frames),
        "frames_with_teeth": shown,
        "lightness_from": round(colours.lightness, 1),
        "redness_to": round(colours.redness, 1),
    }


def write_teeth(layout: SubjectLayout, k: int, teeth: Bool[ndarray, "H W"]) -> None:
    """Write frame k's mask atomically."""
    buffer = io.BytesIO()
    np.save(buffer, teeth)
    write_bytes(layout.teeth_mask(k), buffer.getvalue())


def learn_teeth_colours(layout: SubjectLayout, landmarks: Float[ndarray, "T 478 3"]) -> TeethColours:
    """Split the pixels between the lips of the clip's widest-open mouths into teeth and the rest.

    Args:
        layout: Subject folder with frames.
        landmarks: Mesh in px, NaN where no face was found.
    """
    aperture = np.nan_to_num(mouth_aperture(landmarks[..., :2]))
    widest = [k for k in np.argsort(-aperture)[:SAMPLE_FRAMES].tolist() if aperture[k] > LEAST_APERTURE_PX]
    inside, lips = [np.zeros((0, 3), np.uint8)], [np.zeros((0, 3), np.uint8)]
    for k in widest:
        frame = read_rgb(layout.frame(int(k)))
        lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
        mouth = inner_mouth_mask(landmarks[k], *frame.shape[:2])
        inside.append(lab[mouth])
        lips.append(lab[polygon_mask(landmarks[k, OUTER_LIPS, :2], *frame.shape[:2]) & ~mouth])
    return split_teeth(np.concatenate(inside), np.concatenate(lips))


def split_teeth(inside: UInt8[ndarray, "P 3"], lips: UInt8[ndarray, "Q 3"]) -> TeethColours:
    """Choose the thresholds from CIELAB colours between the lips and of the lips.

    Returns:
        Thresholds; with nothing to learn from, those of an average face.
    """
    if len(inside) < 50 or len(lips) < 50:
        return TeethColours(130.0, 145.0)
    lip_redness = float(np.median(lips[:, 1]))
    # The least red tenth of the lighter half are teeth if any are seen; half-way from there to the lips is the border.
    light = inside[inside[:, 0] >= np.median(inside[:, 0])]
    tooth_redness = float(np.percentile(light[:, 1], 10))
    redness = tooth_redness + 0.45 * max(lip_redness - tooth_redness, 4.0)
    otsu, _ = cv2.threshold(np.ascontiguousarray(inside[:, :1]), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    # The split of dark and light may fall among the tongue's greys: go part of the way to the teeth's own lightness.
    tooth_lightness = float(np.median(light[light[:, 1] <= max(tooth_redness, light[:, 1].min()), 0]))
    return TeethColours(float(otsu) + 0.35 * max(tooth_lightness - float(otsu), 0.0), redness)


def find_teeth(
    frame: UInt8[ndarray, "H W 3"], landmarks: Float[ndarray, "478 D"], colours: TeethColours
) -> Bool[ndarray, "H W"]:
    """Mark the teeth of one frame.

    Args:
        frame: RGB, 0..255.
        landmarks: Mesh in the frame's px.
        colours: Thresholds of the clip.

    Returns:
        True on teeth, always inside the inner-lip polygon.
    """
    height, width = frame.shape[:2]
    left, top = np.clip(np.floor(landmarks[INNER_LIPS, :2].min(0)).astype(int) - 2, 0, (width, height))
    right, bottom = np.clip(np.ceil(landmarks[INNER_LIPS, :2].max(0)).astype(int) + 3, 0, (width, height))
    teeth = np.zeros((height, width), bool)
    if right <= left or bottom <= top:
        return teeth
    crop = np.ascontiguousarray(frame[top:bottom, left:right])
    lab = cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_RGB2LAB), (3, 3), 0)
    mouth = inner_mouth_mask(landmarks - np.array([left, top] + [0] * (landmarks.shape[1] - 2)), *crop.shape[:2])
    light = np.uint8(mouth & (lab[..., 0] > colours.lightness) & (lab[..., 1] < colours.redness))
    light = cv2.morphologyEx(light, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) & np.uint8(mouth)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(light, connectivity=8)
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] < 0.02 * mouth.sum() + 3:
            light[labels == label] = 0
    teeth[top:bottom, left:right] = light > 0
    return teeth
