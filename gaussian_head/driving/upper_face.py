"""What the face does above the mouth: blinks, brows and gaze, in the subject's own way (specs/gaussian_head.md g).

Blinks are cut out of the footage, landmarks and action units together, and come again at times of their own. Brows
drift at random with the footage's shapes, spread and pace. Whatever is put in was taken out of the footage before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.geometry.landmarks import (
    EXPRESSION_ACTION_UNITS,
    LEFT_BROW,
    LEFT_EYE,
    LEFT_IRIS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
)

Gaze = Literal["footage", "camera"]

EYE_UNITS = [EXPRESSION_ACTION_UNITS.index(unit) for unit in (5, 6, 7, 45)]
"""Action units of the lids, which a blink moves with them."""
BLINK_UNIT = EXPRESSION_ACTION_UNITS.index(45)
BROW_UNITS = [EXPRESSION_ACTION_UNITS.index(unit) for unit in (1, 4)]
LID_REACH_M = 0.012
"""The skin around an eye moves with its lids, less and less up to this distance."""
BROW_REACH_M = 0.025
UPPER_LID, LOWER_LID = slice(15, 8, -1), slice(1, 8)
"""Of the loops RIGHT_EYE and LEFT_EYE: the lids' points, pair by pair."""
PAIR = slice(2, 5)
"""Of those pairs, the middle ones."""

CLOSED = 0.5
"""A blink closes the eye at least so far: 0 is as open as in the median frame, 1 shut."""
OPEN = 0.15
LONGEST = 16
"""A blink takes at most so many frames; eyes shut for longer do something else."""
OWN_RATE_NEEDS = 3
"""So many blinks in the footage tell the subject's own rate; fewer do not."""
USUAL_RATE = 17.0
"""Blinks a minute of people in conversation."""
RATE_RANGE = (8.0, 30.0)
INTERVAL_SIGMA = 0.6
"""Standard deviation of the logarithm of the time between two blinks."""
LEAST_PAUSE = 3
"""Frames between two blinks, at least."""
LID_COURSE = (0.25, 0.75, 1.0, 0.85, 0.55, 0.28, 0.1)
"""How far a made-up blink closes the eye, frame by frame: shut in 100 ms, open again in 200."""
LID_SHARE = 0.9
"""The upper lid's share of the way; the lower comes up for the rest."""

BROW_COMPONENTS = 3
PACE_RANGE_S = (0.6, 3.0)
SOFTENING_S = 0.16
"""Brows have mass: the random drift is smoothed by this time constant."""
WITH_LOUDNESS = 0.3
"""Correlation of the brows' height with the loudness of the sound."""
LOUDNESS_S = 0.4
LOUDNESS_MEAN, LOUDNESS_SPREAD = 0.6, 0.25
"""Of running speech, as `silence.loudness` measures it."""
BROW_LIMIT = 2.5
"""Standard deviations that the brows may leave their mean."""

EYE_RADIUS_M = 0.012
GAZE_LIMIT_M = 0.004
"""An iris is not moved farther than this from the middle."""


class Blink(NamedTuple):
    """One blink of the subject."""

    lids: Float[Tensor, "D 478 3"]
    """Displacement against the open eye, metres; 0 away from the eyes."""
    units: Float[Tensor, "D 4"]
    """Change of EYE_UNITS."""


def without_blinks(motion: DrivingSequence) -> tuple[DrivingSequence, list[Blink]]:
    """Take the blinks out of footage: the eyes stay open across them.

    Returns:
        The footage without, and its blinks; putting one back where it was gives the footage again.
    """
    closure = eye_closure(motion)
    weights = around(motion.landmarks.mean(0), EYES, LID_REACH_M)[:, None]
    landmarks, units = motion.landmarks.clone(), motion.action_units.clone()
    blinks = []
    for first, last in find_closures(closure):
        share = torch.linspace(0, 1, last - first + 1)[:, None]
        inside = slice(first, last + 1)
        # Footage may begin or end with shut eyes: then the open ones of the other side stand for them.
        before = first if closure[first] <= closure[last] or first > 0 else last
        behind = last if closure[last] <= closure[first] or last < len(closure) - 1 else first
        open_eyes = torch.lerp(motion.landmarks[before], motion.landmarks[behind], share[..., None])
        resting = torch.lerp(motion.action_units[before], motion.action_units[behind], share)
        lids = (motion.landmarks[inside] - open_eyes) * weights
        change = (motion.action_units[inside] - resting)[:, EYE_UNITS]
        landmarks[inside] -= lids
        units[inside, EYE_UNITS] = resting[:, EYE_UNITS]
        if max(closure[first], closure[last]) <= OPEN and last - first <= LONGEST:
            blinks.append(Blink(lids[1:-1], change[1:-1]))
    return replace(motion, landmarks=landmarks, action_units=units), blinks


def eye_closure(motion: DrivingSequence) -> Float[np.ndarray, " T"]:
    """Measure how far the eyes are shut: 0 as open as in the median frame, 1 shut.

    From the lids' landmarks; where these never show a closed eye, from action unit 45.
    """
    gaps = []
    for eye in (RIGHT_EYE, LEFT_EYE):
        points = motion.landmarks.numpy()[:, eye]
        gap = np.linalg.norm(points[:, UPPER_LID][:, PAIR] - points[:, LOWER_LID][:, PAIR], axis=-1).mean(1)
        gaps.append(gap / np.maximum(np.linalg.norm(points[:, 0] - points[:, 8], axis=-1), 1e-6))
    opening = np.mean(gaps, axis=0)
    closure = 1 - opening / max(float(np.median(opening)), 1e-6)
    return closure if closure.max() >= CLOSED else motion.action_units[:, BLINK_UNIT].numpy() / 2


def find_closures(closure: Float[np.ndarray, " T"]) -> list[tuple[int, int]]:
    """Find where the eyes shut: the last open frame before and the first one behind each time, or the footage's end."""
    found: list[tuple[int, int]] = []
    for frame in np.flatnonzero(closure >= CLOSED):
        if found and frame <= found[-1][1]:
            continue
        first = last = int(frame)
        while first > 0 and closure[first] > OPEN:
            first -= 1
        while last < len(closure) - 1 and closure[last] > OPEN:
            last += 1
        found.append((first, last))
    return found


def made_up_blink(motion: DrivingSequence) -> Blink:
    """Make a blink for a subject whose footage shows none: the upper lid comes down, the lower a little up."""
    face = motion.landmarks.mean(0)
    shut = torch.zeros_like(face)
    for eye in (RIGHT_EYE, LEFT_EYE):
        upper, lower = torch.from_numpy(eye[UPPER_LID].copy()), torch.from_numpy(eye[LOWER_LID].copy())
        way = face[lower] - face[upper]
        shut[upper], shut[lower] = LID_SHARE * way, (LID_SHARE - 1) * way
    course = torch.tensor(LID_COURSE)
    units = torch.zeros(len(course), len(EYE_UNITS))
    units[:, EYE_UNITS.index(BLINK_UNIT)] = 2 * course
    return Blink(course[:, None, None] * shut, units)


def own_blink_rate(blinks: list[Blink], seconds: float | int) -> float:
    """Return the subject's blinks a minute, kept within RATE_RANGE; USUAL_RATE where too few were seen."""
    if len(blinks) < OWN_RATE_NEEDS:
        return USUAL_RATE
    return float(np.clip(60 * len(blinks) / seconds, *RATE_RANGE))


class Blinking:
    """Blinks that come again and again: a renewal process with log-normal intervals."""

    def __init__(self, blinks: list[Blink], per_minute: float | int, fps: float | int, seed: int) -> None:
        """Start with open eyes.

        Args:
            blinks: What a blink looks like; one or more.
            per_minute: Mean number of blinks a minute; 0: none.
            fps: Frames a second.
            seed: Decides when and which.
        """
        self._blinks = blinks
        self._interval = 60 * fps / per_minute if per_minute else np.inf
        self._random = np.random.default_rng(seed)
        self._course = self._play()

    def take(self, frames: int) -> tuple[Float[Tensor, "T 478 3"], Float[Tensor, "T 4"]]:
        """Return what blinking adds to the landmarks (metres) and to EYE_UNITS of the next frames."""
        lids, units = torch.zeros(frames, 478, 3), torch.zeros(frames, len(EYE_UNITS))
        for frame, shown in enumerate(islice(self._course, frames)):
            if shown is not None:
                blink, k = shown
                lids[frame], units[frame] = self._blinks[blink].lids[k], self._blinks[blink].units[k]
        return lids, units

    def _play(self) -> Iterator[tuple[int, int] | None]:
        if not np.isfinite(self._interval):
            while True:
                yield None
        lasted, last = 0, -1
        while True:
            log_mean = np.log(self._interval) - INTERVAL_SIGMA**2 / 2
            interval = self._random.lognormal(log_mean, INTERVAL_SIGMA)
            yield from (None for _ in range(max(LEAST_PAUSE, round(interval) - lasted)))
            others = [k for k in range(len(self._blinks)) if k != last] or [last]
            last = int(self._random.choice(others))
            lasted = len(self._blinks[last].units)
            yield from ((last, k) for k in range(lasted))


class Brows:
    """The subject's brows: principal components of their motion, with the action units that go along."""

    def __init__(self, motion: DrivingSequence) -> None:
        """Learn from footage (`without_blinks`)."""
        mean = motion.landmarks.mean(0)
        weights = around(mean, BROWS, BROW_REACH_M) * (1 - around(mean, EYES, LID_REACH_M))
        self._weights = weights[:, None]
        self._mean = mean
        deviations = ((motion.landmarks - mean) * self._weights).flatten(1)
        _, singular, vh = torch.linalg.svd(deviations, full_matrices=False)
        held = min(BROW_COMPONENTS, len(vh))
        self.spread = singular[:held] / len(deviations) ** 0.5
        rise = vh[:held].unflatten(1, (478, 3))[:, BROWS, 1].mean(1)
        self.basis = vh[:held] * torch.where(rise < 0, -1.0, 1.0)[:, None]
        self.rise = rise.abs() * self.spread
        """How much one standard deviation of each component lifts the brows, metres."""
        codes = deviations @ self.basis.T
        units = motion.action_units[:, BROW_UNITS]
        self._units_mean = units.mean(0)
        # A component without motion tells nothing of the action units.
        self._slope = (codes.T @ (units - self._units_mean)) / (codes.square().sum(0)[:, None] + 1e-9)
        self.pace_s = float(np.clip(_correlation_time(codes[:, 0].numpy()) / motion.fps, *PACE_RANGE_S))

    def placed(
        self, landmarks: Float[Tensor, "T 478 3"], units: Float[Tensor, "T 6"], codes: Float[Tensor, "T K"]
    ) -> tuple[Float[Tensor, "T 478 3"], Float[Tensor, "T 6"]]:
        """Replace the brows' motion.

        Args:
            landmarks: Whose brows move as in the footage, metres.
            units: Likewise.
            codes: New motion, standard deviations of each component.
        """
        old = ((landmarks - self._mean) * self._weights).flatten(1) @ self.basis.T
        new = codes * self.spread
        moved = landmarks + ((new - old) @ self.basis).unflatten(1, (478, 3))
        changed = units.clone()
        changed[:, BROW_UNITS] = (self._units_mean + new @ self._slope).clamp(0, 5)
        return moved, changed


class BrowDrift:
    """Brows that drift at random (an Ornstein-Uhlenbeck process, smoothed), a little higher where it is loud."""

    def __init__(self, brows: Brows, fps: float | int, seed: int) -> None:
        """Start somewhere usual."""
        self._random = np.random.default_rng(seed)
        self._keep = np.exp(-1 / (np.array([brows.pace_s, SOFTENING_S, LOUDNESS_S]) * fps))
        lift = brows.rise.numpy()
        self._lift = lift / max(float(np.linalg.norm(lift)), 1e-9)
        self._drift = self._random.standard_normal(len(lift))
        self._soft = self._drift.copy()
        self._loud = 0.0
        pace, soft, _ = self._keep
        # Smoothing by `soft` leaves this share of an autoregressive process's variance.
        self._undo = np.sqrt((1 + soft) * (1 - soft * pace) / ((1 - soft) * (1 + soft * pace)))

    def take(self, loudness: Float[np.ndarray, " T"]) -> Float[Tensor, "T K"]:
        """Return the next frames' codes, standard deviations of each component.

        Args:
            loudness: Of those frames, as `silence.loudness` measures it.
        """
        pace, soft, slow = self._keep
        noise = self._random.standard_normal((len(loudness), len(self._drift))) * np.sqrt(1 - pace**2)
        codes = np.zeros_like(noise)
        own = np.sqrt(1 - (WITH_LOUDNESS * self._lift) ** 2)
        for k, level in enumerate((np.asarray(loudness) - LOUDNESS_MEAN) / LOUDNESS_SPREAD):
            self._drift = pace * self._drift + noise[k]
            self._soft = soft * self._soft + (1 - soft) * self._drift
            self._loud = slow * self._loud + (1 - slow) * level
            codes[k] = own * self._undo * self._soft + WITH_LOUDNESS * self._loud * self._lift
        return torch.from_numpy(np.clip(codes, -BROW_LIMIT, BROW_LIMIT)).float()


def look_at_camera(
    motion: DrivingSequence, mean_face: Float[Tensor, "478 3"], mean_eye: Float[Tensor, "3"]
) -> Float[Tensor, "T 478 3"]:
    """Turn the irises so that the eyes keep looking at the camera while the head moves.

    Where the camera is for an eye at its middle is not known; taken is that the subject looks at it on the whole.

    Args:
        motion: Where the head is.
        mean_face: The subject's mean landmarks, metres.
        mean_eye: The footage's mean direction to the camera, in the head's frame.

    Returns:
        The motion's landmarks with other irises.
    """
    landmarks = motion.landmarks.clone()
    shift = EYE_RADIUS_M * (camera_direction(motion.viewmats) - mean_eye)
    shift = (shift * torch.tensor([1.0, 1.0, 0.0])).clamp(-GAZE_LIMIT_M, GAZE_LIMIT_M)
    irises = torch.from_numpy(IRISES)
    landmarks[:, irises] = mean_face[irises] + shift[:, None]
    return landmarks


def camera_direction(viewmats: Float[Tensor, "T 4 4"]) -> Float[Tensor, "T 3"]:
    """Return the unit vector from the head's origin to the camera, in the head's frame."""
    return torch.nn.functional.normalize(-(viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:])[..., 0], dim=-1)


EYES = np.concatenate([RIGHT_EYE, LEFT_EYE, RIGHT_IRIS, LEFT_IRIS])
BROWS = np.concatenate([RIGHT_BROW, LEFT_BROW])
IRISES = np.concatenate([RIGHT_IRIS, LEFT_IRIS])


def around(face: Float[Tensor, "478 3"], points: np.ndarray, reach_m: float) -> Float[Tensor, " 478"]:
    """Weigh landmarks by their distance from some of them: 1 on them, falling smoothly to 0 at `reach_m`."""
    distance = torch.cdist(face, face[torch.from_numpy(points)]).amin(1)
    share = (1 - distance / reach_m).clamp(0, 1)
    return share * share * (3 - 2 * share)


def _correlation_time(signal: Float[np.ndarray, " T"]) -> float:
    """Return after how many frames a signal's autocorrelation has fallen to 1 / e."""
    smooth = gaussian_filter1d(signal - signal.mean(), 1.0)
    power = np.correlate(smooth, smooth, "full")[len(smooth) - 1 :]
    fallen = np.flatnonzero(power < power[0] / np.e)
    return float(fallen[0]) if len(fallen) else float(len(signal))
