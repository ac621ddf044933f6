"""Stage `parsing`: what a pixel belongs to (`parsing/<k>.png`) and how much of it is person (`matte/<k>.png`).

Whatever is rigid with the head (face, ears, hair all the way down) is head or hair; whatever moves with the body is
neck or torso. Soft maps are made at a working size, averaged over neighbouring frames carried along with the head, and
brought to the frame's own edges by guided filters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from data_utils.head_frame import (
    FaceAxes,
    above_jaw_mask,
    face_mask,
    fill_missing,
    inner_mouth_mask,
    similarity,
    warp,
)
from data_utils.labels import BACKGROUND, HAIR, HEAD, MOUTH, NECK, TORSO, paint
from data_utils.matting import PersonSegmenter, cut_tails, fill_small_holes, mediapipe_segmenter, sharpen_to_edges
from data_utils.person_model import PersonModel
from data_utils.region_model import RegionModel, Sample, smooth_step
from data_utils.stage import Progress, no_progress
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.image import read_rgb, write_png

WORK_PX = 256
KEY_FRAMES = 32
NEIGHBOURS = 2
"""Frames on either side that the soft maps are averaged over."""
BEND, SHIFT = 0.006, 0.03
"""... less, the more the face turned (what a similarity leaves of the landmarks' motion) or moved; picture widths."""
MOUTH_OPEN = 0.008
"""Inner lips farther apart than this (face heights) are open."""
SUPPORT = 0.02
"""Head and torso reach out to this coverage, so that what lies outside is background alone."""


@dataclass(frozen=True)
class SoftMaps:
    """Probabilities in [0, 1], at working size: of the person, and within it of the head's side, hair and skin."""

    person: Float[ndarray, "H W"]
    head: Float[ndarray, "H W"]
    hair: Float[ndarray, "H W"]
    skin: Float[ndarray, "H W"]

    def stacked(self) -> Float[ndarray, "H W 4"]:
        """All maps as one picture."""
        return np.dstack([self.person, self.head, self.hair, self.skin])


def segment_frames(
    layout: SubjectLayout, progress: Progress = no_progress, segmenter: PersonSegmenter | None = None
) -> dict[str, Any]:
    """Write `parsing/<k>.png` and `matte/<k>.png` of every frame.

    Args:
        layout: Subject folder with frames and mesh landmarks.
        progress: Wraps the loop over frames.
        segmenter: Person segmentation; MediaPipe's by default.

    Returns:
        Facts for the manifest: shares of the picture and how much they change from frame to frame.
    """
    landmarks = fill_missing(np.load(layout.mesh_landmarks))
    segment = segmenter or mediapipe_segmenter()
    models = _learn(layout, landmarks, segment)
    areas = []
    maps = _soft_maps(layout, landmarks, segment, *models)
    for k, soft in zip(progress(range(len(landmarks)), len(landmarks), "parsing"), maps, strict=True):
        frame = read_rgb(layout.frame(k))
        labels, matte = label_frame(frame, landmarks[k], soft)
        write_png(layout.matte(k), np.uint8(np.round(matte * 255)))
        write_png(layout.parsing(k), paint(labels))
        areas.append(np.isin(labels, (HEAD, HAIR, MOUTH)).mean())
    change = np.abs(np.diff(areas)) if len(areas) > 1 else np.zeros(1)
    return {
        "frames": len(areas),
        "head_share": round(float(np.mean(areas)), 4),
        "head_share_change_per_frame": round(float(np.mean(change)), 5),
    }


def label_frame(
    frame: UInt8[ndarray, "H W 3"], landmarks: Float[ndarray, "478 D"], soft: SoftMaps
) -> tuple[UInt8[ndarray, "H W"], Float[ndarray, "H W"]]:
    """Bring soft maps to the frame's edges and decide.

    Args:
        frame: RGB, 0..255.
        landmarks: Mesh in the frame's px.
        soft: Maps at any size.

    Returns:
        Labels and the person's soft coverage in [0, 1]; labels are background exactly where coverage is 0.
    """
    height, width = frame.shape[:2]
    person, head, hair, skin = (
        np.ascontiguousarray(plane)
        for plane in np.moveaxis(cv2.resize(soft.stacked(), (width, height), interpolation=cv2.INTER_LINEAR), -1, 0)
    )
    radius = max(round(width / 64), 2)
    face = face_mask(landmarks, height, width)
    matte = cut_tails(sharpen_to_edges(np.maximum(person, face), frame, radius))
    matte = fill_small_holes(_keep_connected(matte, face))
    head_side = sharpen_to_edges(np.maximum(head, face), frame, radius // 2) > 0.5
    head_side = _clean_head(head_side & (matte > SUPPORT), face, above_jaw_mask(landmarks, height, width))
    strands = cv2.dilate(np.uint8(head_side & ~face & (hair > 0.5)), np.ones((5, 5), np.uint8)) > 0
    matte[matte <= SUPPORT] = 0.0
    head_side = (head_side | strands) & (matte > 0)
    labels = np.where(matte > 0, np.where(skin > 0.5, np.uint8(NECK), np.uint8(TORSO)), np.uint8(BACKGROUND))
    labels[head_side] = HEAD
    labels[head_side & ~face & (hair > 0.5)] = HAIR
    if mouth_aperture(landmarks[:, :2]) > MOUTH_OPEN * FaceAxes.from_landmarks(landmarks).height_px:
        labels[inner_mouth_mask(landmarks, height, width) & head_side] = MOUTH
    return labels, matte


def _learn(
    layout: SubjectLayout, landmarks: Float[ndarray, "T 478 D"], segment: PersonSegmenter
) -> tuple[RegionModel, PersonModel]:
    """Fit the clip's region model on frames spread over it."""
    keys = np.unique(np.linspace(0, len(landmarks) - 1, KEY_FRAMES).round().astype(int)).tolist()
    samples = []
    for k in keys:
        frame = read_rgb(layout.frame(k))
        samples.append(_sample(frame, segment(frame), landmarks[k]))
    regions = RegionModel(samples[::2])
    return regions, PersonModel(samples, regions)


def _sample(
    frame: UInt8[ndarray, "H W 3"], person: Float[ndarray, "H W"], landmarks: Float[ndarray, "478 D"]
) -> Sample:
    """Shrink a frame, its mask and landmarks to the working size."""
    scale = min(WORK_PX / max(frame.shape[:2]), 1.0)
    size = (max(round(frame.shape[1] * scale), 1), max(round(frame.shape[0] * scale), 1))
    return Sample(
        cv2.resize(frame, size, interpolation=cv2.INTER_AREA),
        np.float32(cv2.resize(np.float32(person), size, interpolation=cv2.INTER_AREA)),
        landmarks * np.float32(scale),
    )


def _soft_maps(
    layout: SubjectLayout,
    landmarks: Float[ndarray, "T 478 D"],
    segment: PersonSegmenter,
    regions: RegionModel,
    model: PersonModel,
) -> Iterator[SoftMaps]:
    """Yield each frame's maps averaged over its neighbours, carried along with the head where the head is."""
    window: dict[int, tuple[ndarray, ndarray]] = {}
    for k in range(len(landmarks)):
        for j in range(k, min(k + NEIGHBOURS + 1, len(landmarks))):
            if j not in window:
                frame = read_rgb(layout.frame(j))
                sample = _sample(frame, segment(frame), landmarks[j])
                window[j] = (_maps_of(sample, regions, model).stacked(), sample.landmarks)
        window = {j: value for j, value in window.items() if j >= k - NEIGHBOURS}
        yield _average(window, k)


def _maps_of(sample: Sample, regions: RegionModel, model: PersonModel) -> SoftMaps:
    """Turn class probabilities into the head's side: hair, skin above the jaw line, and whatever is beside the face."""
    posterior = regions.posterior(sample)
    height, width = sample.person.shape
    face = face_mask(sample.landmarks, height, width)
    above = above_jaw_mask(sample.landmarks, height, width)
    hair, skin, cloth = posterior
    across, below = FaceAxes.from_landmarks(sample.landmarks).coordinates(height, width)
    beside = smooth_step(below, 0.0, -0.2) * smooth_step(np.abs(across), 0.3, 0.42)
    head = np.maximum(hair + above * (skin + 0.5 * cloth), beside)
    return SoftMaps(np.maximum(model.coverage(sample), face), np.maximum(head, face), hair, skin)


def _average(window: dict[int, tuple[ndarray, ndarray]], k: int) -> SoftMaps:
    """Average the window's maps, once carried to frame k's head and once as they lie; mix by the head's own map."""
    here, landmarks = window[k]
    carried, still, total = np.zeros_like(here), np.zeros_like(here), 0.0
    for j, (maps, other) in window.items():
        move = similarity(other, landmarks)
        # Neighbours of a fast turn or a cut show another outline: they count less, or nothing.
        bend = np.abs(other[:, :2] @ move[:, :2].T + move[:, 2] - landmarks[:, :2]).mean() / here.shape[1]
        shift = np.abs(other[:, :2] - landmarks[:, :2]).mean() / here.shape[1]
        weight = np.exp(-((bend / BEND) ** 2) - (shift / SHIFT) ** 2) / (1 + abs(j - k))
        carried += weight * (maps if j == k else warp(maps, move))
        still += weight * maps
        total += weight
    share = carried[..., 1:2] / total
    mixed = (share * carried + (1 - share) * still) / total
    return SoftMaps(*np.moveaxis(mixed, -1, 0))


def _keep_connected(matte: Float[ndarray, "H W"], face: Bool[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    """Drop islands of coverage that do not touch the person with this face."""
    count, labels = cv2.connectedComponents(np.uint8(matte > 0.1))
    if count <= 2 or not face.any():
        return matte
    kept = np.unique(labels[face & (labels > 0)])
    return np.where(np.isin(labels, kept), matte, 0).astype(matte.dtype)


def _clean_head(
    head: Bool[ndarray, "H W"], face: Bool[ndarray, "H W"], above: Bool[ndarray, "H W"]
) -> Bool[ndarray, "H W"]:
    """Keep what hangs together with the face; close pin-holes and pick off specks."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    smooth = cv2.morphologyEx(np.uint8(head), cv2.MORPH_CLOSE, disc)
    opened = cv2.morphologyEx(smooth, cv2.MORPH_OPEN, disc)
    smooth = np.where(above, smooth, opened)
    count, labels = cv2.connectedComponents(smooth)
    if count > 2 and face.any():
        smooth = np.isin(labels, np.unique(labels[face & (labels > 0)]))
    return fill_small_holes(np.float32(smooth)) > 0.5
