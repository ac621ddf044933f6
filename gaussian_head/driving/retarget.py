"""Another person's motion on this head: faces carried over region by region, within what this subject was seen to do.

A face is carried over as its deviation from the driver's own mean face, so that who the driver is stays behind. Each
region's deviation is scaled by how lively the two people are there, and what the subject's footage never shows is cut
off, component by component of the space in which the head reads faces. Openings that people look at (lips, lids) are
then set exactly: closed is mapped to closed and wide open to wide open, whatever the two people's measures are.

Both clips' landmarks lie in head frames of one kind: origin amid the face's oval, x from ear to ear, y from chin to
forehead, and a face 0.14 m wide (docs/formats.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gaussian_head.data.action_units import BLINK_LIMIT
from gaussian_head.driving.retarget_pose import nearest_torsos, transfer_pose
from gaussian_head.driving.seen_faces import SeenFaces
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.speech import CHUNK
from gaussian_head.driving.upper_face import (
    BLINK_UNIT,
    BROW_REACH_M,
    BROWS,
    CLOSED,
    IRISES,
    LID_COURSE,
    LID_REACH_M,
    LOWER_LID,
    PAIR,
    UPPER_LID,
    around,
    made_up_blink,
)
from gaussian_head.driving.walk import Walk, find_loops, longest_run
from gaussian_head.geometry.landmarks import (
    LEFT_EYE,
    LOWER_INNER_LIP,
    MOUTH_CORNERS,
    RIGHT_EYE,
    UPPER_INNER_LIP,
)
from gaussian_head.geometry.speech_points import speech_weights

DrivePose = Literal["transfer", "own"]

GAINS = (1 / 3, 2.0)
"""A driver's motion is never scaled by less or more: what is made much larger is mostly the tracker's noise."""
LOW, HIGH = 0.05, 0.95
"""Quantiles that stand for the closed and the wide open mouth, and for weak and strong motion."""
CLOSED_M = (0.001, 0.003)
"""Lips this far apart are closed: the first, or what a person's closest lips measure, if that is less than the second.

The 5 % quantile alone would call half open lips closed for those who hardly ever close them.
"""
SHUT_QUANTILE = 0.01
"""Eyes are shut in few frames: this quantile of their opening is a shut eye, if it lies below CLOSED of the usual."""
SHUT_OPENING = 0.25
"""Opening of a shut eye in the mesh, of the usual opening, for people whose footage shows none."""

LEAST_HEIGHT_M = 1e-4
"""Eyes that are lower in the footage are no eyes that can be shut."""


class Gap(NamedTuple):
    """A distance between points of the face that people look at: positive, or negative where the points cross over."""

    ends: np.ndarray
    """Mesh points, paired with those of `starts`."""
    starts: np.ndarray
    axis: int
    """Of the head frame, along which it is measured: so it is linear in the landmarks."""

    def measure(self, landmarks: Float[np.ndarray, "T 478 3"]) -> Float[np.ndarray, " T"]:
        """Return its mean over the pairs, metres."""
        return (landmarks[:, self.ends, self.axis] - landmarks[:, self.starts, self.axis]).mean(1)


MOUTH = (Gap(UPPER_INNER_LIP, LOWER_INNER_LIP, axis=1), Gap(MOUTH_CORNERS[1:], MOUTH_CORNERS[:1], axis=0))
EYES = tuple(Gap(eye[UPPER_LID][PAIR], eye[LOWER_LID][PAIR], axis=1) for eye in (RIGHT_EYE, LEFT_EYE))


class Scale(NamedTuple):
    """How a gap of the driver becomes one of the subject: two straight lines that meet in one point, within limits."""

    driver: float
    """The gap that becomes `subject`, metres."""
    subject: float
    below: float
    """Slope for smaller gaps."""
    above: float
    least: float
    """The subject's own smallest gap, metres."""
    most: float

    @classmethod
    def of_lips(cls, driver: Float[np.ndarray, " T"], subject: Float[np.ndarray, " N"]) -> Scale:
        """Map closed lips to closed ones, wide open ones (HIGH) to wide open ones."""
        closed, own_closed = _closed(driver), _closed(subject)
        slope = _gain(np.quantile(subject, HIGH) - own_closed, np.quantile(driver, HIGH) - closed)
        return cls(closed, own_closed, slope, slope, float(subject.min()), float(subject.max()))

    @classmethod
    def of_width(cls, driver: Float[np.ndarray, " T"], subject: Float[np.ndarray, " N"]) -> Scale:
        """Map the narrow mouth (LOW) to the narrow, the wide one (HIGH) to the wide."""
        (low, high), (own_low, own_high) = (np.quantile(gap, (LOW, HIGH)) for gap in (driver, subject))
        slope = _gain(own_high - own_low, high - low)
        return cls(float(low), float(own_low), slope, slope, float(subject.min()), float(subject.max()))

    @classmethod
    def of_eye(cls, driver: Float[np.ndarray, " T"], subject: Float[np.ndarray, " N"]) -> Scale:
        """Map the usual opening (median) to the usual, the shut eye to the shut."""
        (usual, high), (own_usual, own_high) = (np.quantile(gap, (0.5, HIGH)) for gap in (driver, subject))
        shut, own_shut = _shut(driver), _shut(subject)
        below = (own_usual - own_shut) / max(usual - shut, 1e-6)
        above = _gain(own_high - own_usual, high - usual)
        least, most = min(float(subject.min()), own_shut), float(subject.max())
        return cls(float(usual), float(own_usual), float(below), above, least, most)

    def __call__(self, gap: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
        """Return the subject's gap for the driver's."""
        away = gap - self.driver
        return np.clip(self.subject + np.where(away < 0, self.below, self.above) * away, self.least, self.most)


class FaceTransfer:
    """Turns one person's landmarks and action units into another's."""

    def __init__(self, driver: DrivingSequence, footage: DrivingSequence) -> None:
        """Measure both people.

        Args:
            driver: All of the motion that will be carried over.
            footage: The subject's, the more the better: what it does not show is not asked of the head.
        """
        own = footage.landmarks
        self._mean, self._driver_mean = own.mean(0), driver.landmarks.mean(0)
        self._mouth = torch.from_numpy(speech_weights(self._mean.numpy())).index_fill(0, torch.from_numpy(IRISES), 0.0)
        self._gains = self._measure_gains(driver.landmarks, own)
        self._seen = SeenFaces(footage)
        gaps = MOUTH + EYES
        scales = (Scale.of_lips, Scale.of_width, Scale.of_eye, Scale.of_eye)
        theirs = driver.landmarks.numpy()
        self._scales = [
            scale(gap.measure(theirs), gap.measure(own.numpy())) for gap, scale in zip(gaps, scales, strict=True)
        ]
        self._ways = np.stack([*self._mouth_ways(own.numpy()), *(self._lid_way(footage, gap) for gap in EYES)])
        self._unit_gains, self._unit_limits = _unit_scales(driver.action_units, footage.action_units)

    def landmarks(self, landmarks: Float[Tensor, "T 478 3"]) -> Float[Tensor, "T 478 3"]:
        """Carry over some frames' landmarks, metres."""
        codes = self._seen.encode(self._mean + self._gains * (landmarks - self._driver_mean))
        faces = self._seen.decode(self._seen.limited(codes)).numpy()
        given = landmarks.numpy()
        missing = np.stack([
            scale(gap.measure(given)) - gap.measure(faces)
            for gap, scale in zip(MOUTH + EYES, self._scales, strict=True)
        ], 1)  # fmt: skip
        return torch.from_numpy((faces + np.tensordot(missing, self._ways, 1)).astype(np.float32))

    def action_units(self, units: Float[Tensor, "T 6"]) -> Float[Tensor, "T 6"]:
        """Carry over some frames' action units, 0..5."""
        return torch.minimum(units * self._unit_gains, self._unit_limits)

    def _measure_gains(self, driver: Float[Tensor, "T 478 3"], own: Float[Tensor, "N 478 3"]) -> Float[Tensor, "478 1"]:
        """Return what each point's deviation is multiplied by: the gains of the face's regions, smoothly joined."""
        irises = torch.zeros(len(self._mouth)).index_fill(0, torch.from_numpy(IRISES), 1.0)
        lids = around(self._mean, np.concatenate([RIGHT_EYE, LEFT_EYE]), LID_REACH_M) * (1 - self._mouth) * (1 - irises)
        brows = around(self._mean, BROWS, BROW_REACH_M) * (1 - self._mouth - irises - lids).clamp_min(0)
        rest = (1 - self._mouth - irises - lids - brows).clamp_min(0)
        # Eyes turn by angles: an iris goes as far as the eye is large, whatever the subject usually looks at.
        gains = irises * (_eye_width(self._mean) / _eye_width(self._driver_mean))
        for weights, most in ((self._mouth, np.inf), (lids, np.inf), (brows, np.inf), (rest, 1.0)):
            gains += weights * min(_gain(_liveliness(own, weights), _liveliness(driver, weights)), most)
        return gains[:, None]

    def _mouth_ways(self, own: Float[np.ndarray, "N 478 3"]) -> Float[np.ndarray, "2 478 3"]:
        """Find how the subject's face moves with each gap of the mouth while the other stays (linear regression)."""
        moved = (own - own.mean(0)) * self._mouth.numpy()[:, None]
        gaps = np.stack([gap.measure(own) for gap in MOUTH], 1)
        return np.tensordot(np.linalg.pinv(gaps - gaps.mean(0), rcond=1e-4), moved, 1)

    def _lid_way(self, footage: DrivingSequence, gap: Gap) -> Float[np.ndarray, "478 3"]:
        """Find how the subject's lids move with the opening of one eye; where no blink shows it, straight."""
        own = footage.landmarks.numpy()
        opening = gap.measure(own)
        eye = next(eye for eye in (RIGHT_EYE, LEFT_EYE) if gap.ends[0] in eye)
        weights = around(self._mean, eye, LID_REACH_M).numpy()[:, None]
        weights[IRISES] = 0
        if opening.min() < CLOSED * np.median(opening):
            away = opening - opening.mean()
            return np.tensordot(away, (own - own.mean(0)) * weights, 1) / np.square(away).sum()
        shut = made_up_blink(footage).lids[int(np.argmax(LID_COURSE))].numpy() * weights
        opens = float(gap.measure(shut[None])[0])
        return shut / opens if opens < -LEAST_HEIGHT_M else np.zeros_like(shut)


def retarget(
    driver: DrivingSequence,
    footage: DrivingSequence,
    pose: DrivePose = "transfer",
    torso: Callable[[int], Float[np.ndarray, "h w 4"]] | None = None,
    *,
    own_face: bool = False,
    chunk: int = CHUNK,
) -> Iterator[DrivingSequence]:
    """Move a subject as another person moves, frame by frame.

    Args:
        driver: The other person's motion, at the footage's rate.
        footage: The subject's training frames.
        pose: `transfer`: the head turns and moves as the driver's does, before the torso of the footage's nearest
            pose; `own`: it walks through its footage, and only the face is the driver's.
        torso: With `own`: small pictures of the footage's torso (`walk.torso_thumbnail`).
        own_face: The driver's landmarks and action units are the subject's already (`driving.coefficients`).
        chunk: Frames of each piece; changes nothing else.

    Yields:
        Pieces that follow each other, as many frames in all as the driver has.
    """
    face = None if own_face else FaceTransfer(driver, footage)
    run = longest_run(footage.frame_index)
    walked = replace(footage, **{name: part[run] for name, part in footage.parts().items()})
    if pose == "own":
        walk = Walk(len(walked), find_loops(walked, torso), seed=0)
    else:
        viewmats = transfer_pose(driver.viewmats, footage.viewmats)
        torsos = nearest_torsos(viewmats, walked)
    for start in range(0, len(driver), chunk):
        now = slice(start, min(start + chunk, len(driver)))
        if pose == "own":
            body = walked.blended(*walk.take(now.stop - now.start))
        else:
            body = replace(walked, **{name: part[torsos[now]] for name, part in walked.parts().items()})
            body = replace(body, viewmats=viewmats[now])
        landmarks, units = driver.landmarks[now], driver.action_units[now]
        if face is not None:
            landmarks, units = face.landmarks(landmarks), face.action_units(units)
        yield replace(body, landmarks=landmarks, action_units=units)


def _gain(own: float | np.floating, theirs: float | np.floating) -> float:
    """Return how much to scale the driver's motion so that it varies as the subject's, within GAINS."""
    return float(np.clip(own / max(theirs, 1e-9), *GAINS))


def _liveliness(landmarks: Float[Tensor, "T 478 3"], weights: Float[Tensor, " 478"]) -> float:
    """Return the root of a region's total variance, metres."""
    return float((landmarks.var(0, correction=0).sum(1) * weights.square()).sum().sqrt())


def _eye_width(face: Float[Tensor, "478 3"]) -> float:
    """Return the mean distance of an eye's corners (the first and the ninth point of its loop), metres."""
    return float(np.mean([(face[eye[0]] - face[eye[8]]).norm() for eye in (RIGHT_EYE, LEFT_EYE)]))


def _closed(gap: Float[np.ndarray, " T"]) -> float:
    """Return the gap of a person's closed lips, metres."""
    closed, at_most = CLOSED_M
    return float(np.clip(closed, min(gap.min(), at_most), np.quantile(gap, LOW)))


def _shut(gap: Float[np.ndarray, " T"]) -> float:
    """Return the opening of a person's shut eye, metres."""
    usual, least = np.quantile(gap, (0.5, SHUT_QUANTILE))
    return float(least if least < CLOSED * usual else SHUT_OPENING * usual)


def _unit_scales(
    driver: Float[Tensor, "T 6"], own: Float[Tensor, "N 6"]
) -> tuple[Float[Tensor, "6"], Float[Tensor, "6"]]:
    """Return gains and largest values of the action units. A shut eye counts alike in everybody."""
    strong, own_strong = driver.quantile(HIGH, 0), own.quantile(HIGH, 0)
    gains = (own_strong / strong.clamp_min(1e-3)).clamp(*GAINS)
    limits = own.amax(0)
    gains[BLINK_UNIT], limits[BLINK_UNIT] = 1.0, BLINK_LIMIT
    return gains, limits
