"""Corrects the network's mask of the person by what the whole clip knows.

Near the border a pixel's colour is compared with the static background, which other frames show, and with the
person's colours; and the person is expected where it usually is, in the head's frame and, below the chin, in the
picture's. All three are added up as log odds.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from data_utils.filling import push_pull
from data_utils.head_frame import FaceAxes, similarity, warp
from data_utils.region_model import RegionModel, Sample, smooth_step
from data_utils.uncovered import distance_to, uncovered_median

SURELY_UNCOVERED = 0.03
CLEARANCE = 0.015
"""Distance from the person (picture widths) at which a pixel teaches the background's colour."""
NOISE = 4.0
"""Least standard deviation of a background pixel's CIELAB colour: compression, flicker."""
LARGEST_SPREAD = 20.0
GUESS_GROWTH = 400.0
"""Where no frame shows the background it is continued from around; its deviation grows so much per picture width."""
UNIFORM = np.log(1 / (256.0 * 128 * 128))
"""Log density of a colour nobody expects."""
LIMIT = 4.0
"""The colours may shift the log odds of the network by at most this much."""
BAND = 0.06
"""They count only this near the network's border, in picture widths."""
HABIT = 0.7
"""Weight of the log odds of where the person usually is."""


class PersonModel:
    """Background, colours and usual outline of the person in one clip."""

    def __init__(self, samples: Sequence[Sample], regions: RegionModel) -> None:
        """Learn from frames spread over the clip; `regions` knows the person's colours."""
        self._regions = regions
        self._learn_background(samples)
        self._reference = samples[len(samples) // 2].landmarks
        carried = [warp(s.person, similarity(s.landmarks, self._reference)) for s in samples]
        self._head_habit = np.float32(np.mean(carried, axis=0))
        self._picture_habit = np.float32(np.mean([s.person for s in samples], axis=0))

    def coverage(self, sample: Sample) -> Float[ndarray, "H W"]:
        """Correct the network's coverage of one frame; in [0, 1]."""
        height, width = sample.person.shape
        person = np.clip(sample.person, 0.005, 0.995)
        border = distance_to(person > 0.5) + distance_to(person <= 0.5)
        near = np.exp(-((border / BAND) ** 2))
        _, below = FaceAxes.from_landmarks(sample.landmarks).coordinates(height, width)
        body = smooth_step(below, 0.0, 0.3)
        habit = warp(self._head_habit, similarity(self._reference, sample.landmarks))
        habit = (1 - body) * habit + body * self._picture_habit
        odds = _log_odds(person) + near * self._colour_evidence(sample.frame)
        odds += HABIT * _log_odds(np.clip(habit, 0.03, 0.97))
        return np.float32(1 / (1 + np.exp(-odds)))

    def _colour_evidence(self, frame: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "H W"]:
        """Compare how well the person's colours and the background explain each pixel (log ratio, limited)."""
        distance = (np.float32(_lab(frame)) - self._colours) / self._deviation
        normal = -0.5 * (distance**2).sum(-1) - np.log(self._deviation).sum(-1) - 1.5 * np.log(2 * np.pi)
        behind = np.logaddexp(np.log(0.9) + normal, np.log(0.1) + UNIFORM)
        evidence = np.clip(self._regions.log_density(frame) - behind, -LIMIT, LIMIT)
        return cv2.GaussianBlur(np.float32(evidence), (0, 0), 0.7)

    def _learn_background(self, samples: Sequence[Sample]) -> None:
        """Find the background's CIELAB colours and their deviation, guessed where the person always covers it."""
        frames = np.stack([_lab(sample.frame) for sample in samples])
        uncovered = np.stack([distance_to(s.person > SURELY_UNCOVERED) > CLEARANCE for s in samples])
        colours, known = uncovered_median(frames, uncovered)
        departure = (np.abs(np.float32(frames) - colours) * uncovered[..., None]).sum(0)
        spread = np.minimum(1.25 * departure / np.maximum(uncovered.sum(0), 1)[..., None], LARGEST_SPREAD)
        # What half a pixel's shift would change at the background's own edges, and what guessing costs.
        disc = np.ones((3, 3), np.uint8)
        edges = np.float32(cv2.dilate(colours, disc)) - cv2.erode(colours, disc)
        guess = GUESS_GROWTH * distance_to(known)[..., None]
        trust = np.float32(known)
        self._colours = push_pull(np.float32(colours), trust)
        noise = push_pull(np.sqrt(NOISE**2 + spread**2 + (0.25 * edges) ** 2), trust)
        self._deviation = np.sqrt(noise**2 + guess**2)


def _log_odds(probability: Float[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    return np.log(probability / (1 - probability))


def _lab(frame: UInt8[ndarray, "H W 3"]) -> UInt8[ndarray, "H W 3"]:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
