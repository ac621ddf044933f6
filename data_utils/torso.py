"""Stage `torso`: training targets (`gt_imgs/<k>.jpg`) and the body without the head (`torso_imgs/<k>.png`).

Outside the head's mask the torso picture laid over `bc.jpg` is the training target. Under the head the body is
continued: where other frames of the clip show it, from their mean (the plate), elsewhere smoothly; the plate is shifted
in colour so that it meets the frame's own visible body without a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from data_utils.filling import nearest_fill, push_pull
from data_utils.head_frame import FaceAxes, fill_missing
from data_utils.labels import head_mask
from data_utils.matting import read_coverage
from data_utils.stage import Progress, no_progress
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.media.image import read_rgb, write_jpeg, write_png

PLATE_FRAMES = 64
"""The plate is the mean of at most this many frames, spread over the clip."""
CLEAN_PX = 3
"""Body pixels closer than this to the head may be tinted by hair or jaw and teach nothing."""
REACH = 0.22
"""The body is continued this far under the head, in face heights, where no frame ever showed it."""
NECK_HALF_WIDTH = 0.36
"""... above the chin only this far to its sides, where the neck is."""
SOFT_PX = 2.0
PLATE_BLUR = 0.006
"""Blur of what continues the plate, in picture widths."""


def extract_torso(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write `gt_imgs/<k>.jpg` and `torso_imgs/<k>.png` of every frame.

    Args:
        layout: Subject folder with frames, parsing, mattes, mesh landmarks and background.
        progress: Wraps the loop over frames.

    Returns:
        Facts for the manifest: the share of the picture where some frame shows the body.
    """
    landmarks = fill_missing(np.load(layout.mesh_landmarks))
    background = np.float32(read_rgb(layout.background))
    plate, known = learn_plate(layout, range(len(landmarks)))
    frames = range(len(landmarks))
    for k in progress(frames, len(frames), "torso"):
        frame, matte = np.float32(read_rgb(layout.frame(k))), np.float32(read_coverage(layout, k)) / 255
        head = head_mask(read_rgb(layout.parsing(k)))
        rgba = body_without_head(frame, matte, head, plate, known, FaceAxes.from_landmarks(landmarks[k]))
        write_jpeg(layout.gt_image(k), _to_bytes(over_background(frame, matte, background)))
        write_png(layout.torso_image(k), rgba)
    return {"frames": len(frames), "plate_share": round(float(known.mean()), 4)}


def over_background(
    frame: Float[ndarray, "H W 3"], matte: Float[ndarray, "H W"], background: Float[ndarray, "H W 3"]
) -> Float[ndarray, "H W 3"]:
    """Lay a person (coverage in [0, 1]) over the static background: the training target."""
    return matte[..., None] * frame + (1 - matte[..., None]) * background


def body_without_head(
    frame: Float[ndarray, "H W 3"],
    matte: Float[ndarray, "H W"],
    head: Bool[ndarray, "H W"],
    plate: Float[ndarray, "H W 3"],
    known: Bool[ndarray, "H W"],
    axes: FaceAxes,
) -> UInt8[ndarray, "H W 4"]:
    """Continue the visible body under the head.

    Args:
        frame: RGB, 0..255.
        matte: Coverage by the person in [0, 1].
        head: Where the head is.
        plate: The body's mean colours over the clip, continued smoothly to the whole picture.
        known: Where some frame showed the body.
        axes: Of the face in this frame.

    Returns:
        Straight RGBA, 0..255; outside the head the frame's own colours with the matte as alpha.
    """
    body = (matte > 0.95) & ~head
    near = cv2.dilate(np.uint8(head), np.ones((2 * CLEAN_PX + 1,) * 2, np.uint8)) > 0
    hidden = head & (known | _reachable(body, axes))
    coverage = cv2.GaussianBlur(np.float32(hidden | body), (0, 0), SOFT_PX)
    alpha = np.where(head, np.clip(2 * coverage - 0.5, 0, 1), matte)
    colour = frame.copy()
    rows, columns = _box((alpha > 0) & head, REACH * axes.height_px)
    clean = np.float32((body & ~near)[rows, columns])
    continued = plate[rows, columns] + push_pull((frame - plate)[rows, columns], clean)
    colour[rows, columns] = np.where(head[rows, columns, None], continued, frame[rows, columns])
    return np.dstack([_to_bytes(colour), _to_bytes(255 * alpha)]) * np.uint8(alpha > 0)[..., None]


def _reachable(body: Bool[ndarray, "H W"], axes: FaceAxes) -> Bool[ndarray, "H W"]:
    """Find where the body may go on under the head: near what is seen of it, above the chin only where the neck is."""
    distance = cv2.distanceTransform(np.uint8(~body), cv2.DIST_L2, 5) / axes.height_px
    across, below = axes.coordinates(*body.shape)
    return (distance < REACH) & ((below > 0) | (np.abs(across) < NECK_HALF_WIDTH))


def _box(mask: Bool[ndarray, "H W"], margin_px: float) -> tuple[slice, slice]:
    """Return the rows and columns of a mask's bounding box, widened; empty slices for an empty mask."""
    if not mask.any():
        return slice(0, 0), slice(0, 0)
    margin = round(margin_px)
    spans = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(max(span[0] - margin, 0), span[-1] + 1 + margin) for span in spans)
    return rows, columns


def learn_plate(layout: SubjectLayout, frames: Sequence[int]) -> tuple[Float[ndarray, "H W 3"], Bool[ndarray, "H W"]]:
    """Average the visible body over these frames; return it continued to the whole picture, and where it was seen."""
    total = weight = 0.0
    keys = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, PLATE_FRAMES).round().astype(int))]
    for k in keys:
        head = head_mask(read_rgb(layout.parsing(k)))
        near = cv2.dilate(np.uint8(head), np.ones((2 * CLEAN_PX + 1,) * 2, np.uint8)) > 0
        clean = np.float32((read_coverage(layout, k) > 242) & ~near)
        total = total + clean[..., None] * read_rgb(layout.frame(k))
        weight = weight + clean
    known = weight >= max(0.02 * len(keys), 1)
    mean = total / np.maximum(weight, 1e-6)[..., None]
    return nearest_fill(mean, known, PLATE_BLUR * known.shape[1]), known


def _to_bytes(image: Float[ndarray, "H W *C"]) -> UInt8[ndarray, "H W *C"]:
    """Round to 0..255."""
    return np.uint8(np.clip(np.round(image), 0, 255))
