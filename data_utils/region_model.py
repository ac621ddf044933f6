"""Tells hair, skin and cloth apart: colours and places of one clip, learned from the clip itself.

One model serves all frames, so a pixel changes its class only when its colour or the head's place does. Per class it
holds a colour density (a smoothed CIELAB histogram) and two maps of where the class is seen: one fixed to the head
(hair, face) and one fixed to the picture (neck, cloth). They are found by a few rounds of expectation-maximization
from priors placed by the face's axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from data_utils.head_frame import FaceAxes, face_mask, similarity, warp

HAIR, SKIN, CLOTH = range(3)
CLASSES = 3
BINS = 32
BIN_VOLUME = 8 * 4 * 4
BIN_BLUR = 1.0
FLOOR = 2e-6
"""Least density of a colour (one bin of 32 768 is 3e-5 when nothing is known)."""
ROUNDS = 4
MAP_BLUR = 0.06
"""Blur of the place maps, in face heights."""
MAP_FLOOR = 0.02
WITNESSES = 5
"""Frames of other poses that each frame is compared with."""
WITNESS_SHIFTS = (0.02, 0.05)
"""They count from nothing to fully as the head has moved by this much (picture widths)."""
WITNESS_CONTRAST = 25.0
WITNESS_LIMIT = 5.0


@dataclass(frozen=True)
class Sample:
    """One frame at working size: RGB 0..255, person coverage [0, 1], landmarks in its pixels."""

    frame: UInt8[ndarray, "H W 3"]
    person: Float[ndarray, "H W"]
    landmarks: Float[ndarray, "478 D"]


def smooth_step(x: Float[ndarray, "H W"], start: float, end: float) -> Float[ndarray, "H W"]:
    """Rise smoothly from 0 at `start` to 1 at `end` (or fall, where end < start)."""
    t = np.clip((x - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def colour_bins(frame: UInt8[ndarray, "H W 3"]) -> Int[ndarray, "H W"]:
    """Index each pixel's colour in the CIELAB histogram."""
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.int32)
    # Most colours lie near grey: give a and b the range 64..192 only.
    a, b = (np.clip((lab[..., i] - 64) // 4, 0, BINS - 1) for i in (1, 2))
    return (lab[..., 0] // 8 * BINS + a) * BINS + b


def place_prior(landmarks: Float[ndarray, "478 D"], height: int, width: int) -> Float[ndarray, "3 H W"]:
    """Say how likely each class is at a pixel of the person, from the face's place alone (sums to 1)."""
    axes = FaceAxes.from_landmarks(landmarks)
    across, below = axes.coordinates(height, width)
    face = face_mask(landmarks, height, width).astype(np.float32)
    face = cv2.GaussianBlur(face, (0, 0), 0.03 * axes.height_px)
    neck = smooth_step(np.abs(across), 0.44, 0.2) * smooth_step(below, -0.15, 0.02) * smooth_step(below, 1.2, 0.5)
    low = smooth_step(below, -0.2, 0.45)
    prior = np.stack([
        (0.75 - 0.45 * low) * (1 - 0.8 * neck),
        0.24 + 0.10 * low + 0.45 * neck,
        (0.01 + 0.35 * low) * (1 - 0.6 * neck),
    ])  # fmt: skip
    in_face = np.array([0.10, 0.895, 0.005], np.float32)[:, None, None]
    prior = (1 - face) * prior + face * in_face
    return np.float32(prior / prior.sum(0))


class RegionModel:
    """Colours and places of hair, skin and cloth in one clip."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        """Learn from a few frames spread over the clip, all of one size.

        Raises:
            ValueError: No samples.
        """
        if not samples:
            raise ValueError("region model: expected at least one frame with a face, got none.")
        self._reference = samples[len(samples) // 2].landmarks
        height, width = samples[0].person.shape
        self._head_map = self._picture_map = np.ones((CLASSES, height, width), np.float32)
        self._colours = _first_colours(samples)
        motions = [motion_evidence(sample, samples) for sample in samples]
        for _ in range(ROUNDS):
            posteriors = [_tilt(self.posterior(s), motion) for s, motion in zip(samples, motions, strict=True)]
            self._colours = _densities(samples, [p * s.person for p, s in zip(posteriors, samples, strict=True)])
            self._learn_places(samples, posteriors)

    def posterior(self, sample: Sample) -> Float[ndarray, "3 H W"]:
        """Return per pixel the probability of hair, skin and cloth, given that it is the person (sums to 1)."""
        height, width = sample.person.shape
        belief = place_prior(sample.landmarks, height, width)
        to_frame = similarity(self._reference, sample.landmarks)
        belief = belief * np.moveaxis(warp(np.moveaxis(self._head_map, 0, -1), to_frame), -1, 0) * self._picture_map
        belief *= self._colours[:, colour_bins(sample.frame)]
        return belief / belief.sum(0)

    def log_density(self, frame: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "H W"]:
        """Return the log density of each pixel's colour among all the person's, per unit of CIELAB (0..255 each)."""
        return np.log(self._colours.mean(0) / BIN_VOLUME)[colour_bins(frame)]

    def _learn_places(self, samples: Sequence[Sample], posteriors: Sequence[ndarray]) -> None:
        """Average the posteriors in the head's frame and in the picture's, blurred."""
        height, width = samples[0].person.shape
        sums = np.zeros((2, CLASSES + 1, height, width), np.float32)
        blur = MAP_BLUR * FaceAxes.from_landmarks(self._reference).height_px
        for sample, posterior in zip(samples, posteriors, strict=True):
            weighted = np.concatenate([posterior * sample.person, sample.person[None]])
            sums[1] += weighted
            carried = warp(np.moveaxis(weighted, 0, -1), similarity(sample.landmarks, self._reference))
            sums[0] += np.moveaxis(carried, -1, 0)
        for i, total in enumerate(sums):
            smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), blur) for plane in total])
            share = (smooth[:CLASSES] + 0.3 / CLASSES) / (smooth[CLASSES:] + 0.3)
            relative = np.sqrt(np.maximum(share, MAP_FLOOR))  # half the weight: two maps and a prior vote
            if i == 0:
                self._head_map = relative
            else:
                self._picture_map = relative


def motion_evidence(sample: Sample, witnesses: Sequence[Sample]) -> Float[ndarray, "H W"]:
    """Compare each pixel with other poses: does the same colour lie there carried along with the head, or still?

    Returns:
        Log odds of moving with the head, within WITNESS_LIMIT; 0 where the head hardly moves.
    """
    height, width = sample.person.shape
    shifts = [float(np.abs(w.landmarks - sample.landmarks)[:, :2].mean()) / width for w in witnesses]
    total = np.zeros((height, width), np.float32)
    for i in np.argsort(shifts)[::-1][:WITNESSES]:
        other = witnesses[i]
        still = cv2.absdiff(sample.frame, other.frame).max(-1)
        carried = cv2.absdiff(sample.frame, warp(other.frame, similarity(other.landmarks, sample.landmarks))).max(-1)
        trust = np.clip((shifts[i] - WITNESS_SHIFTS[0]) / (WITNESS_SHIFTS[1] - WITNESS_SHIFTS[0]), 0, 1)
        total += trust * np.clip(np.float32(still) - carried, -WITNESS_CONTRAST, WITNESS_CONTRAST)
    total = cv2.GaussianBlur(total, (0, 0), 0.01 * width) / (WITNESS_CONTRAST * WITNESSES)
    return WITNESS_LIMIT * total


def _tilt(posterior: Float[ndarray, "3 H W"], motion: Float[ndarray, "H W"]) -> Float[ndarray, "3 H W"]:
    """Shift the odds of hair against cloth by what moves with the head."""
    hair, skin, cloth = posterior
    share = hair * np.exp(0.5 * motion) / (hair * np.exp(0.5 * motion) + cloth * np.exp(-0.5 * motion) + 1e-9)
    return np.stack([(1 - skin) * share, skin, (1 - skin) * (1 - share)])


def _densities(samples: Sequence[Sample], weights: Sequence[Float[ndarray, "3 H W"]]) -> Float[ndarray, "3 C"]:
    """Estimate the colour density of each class from weighted pixels."""
    counts = np.zeros((CLASSES, BINS**3))
    for sample, weight in zip(samples, weights, strict=True):
        bins = colour_bins(sample.frame).ravel()
        for c in range(CLASSES):
            counts[c] += np.bincount(bins, weight[c].ravel(), BINS**3)
    counts = counts.reshape(CLASSES, BINS, BINS, BINS)
    smooth = np.stack([gaussian_filter(plane, BIN_BLUR) for plane in counts]).reshape(CLASSES, -1)
    return np.float32(smooth / np.maximum(smooth.sum(1, keepdims=True), 1e-9) + FLOOR)


def _first_colours(samples: Sequence[Sample]) -> Float[ndarray, "3 C"]:
    """Take skin from the lower face, hair from around the forehead, cloth from what is low and like neither."""
    seeds = []
    for sample in samples:
        height, width = sample.person.shape
        axes = FaceAxes.from_landmarks(sample.landmarks)
        _, below = axes.coordinates(height, width)
        face = np.uint8(face_mask(sample.landmarks, height, width))
        margin = max(int(0.06 * axes.height_px), 1)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
        core = cv2.erode(np.uint8(sample.person > 0.9), disc) > 0
        skin = (cv2.erode(face, disc) > 0) & (below > -0.6)
        hair = core & (cv2.dilate(face, disc) == 0) & (below < -0.55)
        seeds.append(np.stack([hair, skin, core & (below > 0.25)]).astype(np.float32))
    first = _densities(samples, seeds)
    for sample, seed in zip(samples, seeds, strict=True):
        bins = colour_bins(sample.frame)
        hair, skin = first[HAIR, bins], first[SKIN, bins]
        seed[HAIR] *= hair / (hair + skin)
        seed[CLOTH] *= (hair < 4 * FLOOR) & (skin < 4 * FLOOR)
    return _densities(samples, seeds)
