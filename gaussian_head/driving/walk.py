"""An endless walk through tracked footage: played forward, with cross-faded jumps between moments that look alike.

The jumps are found as video textures find them (Schoedl et al., Video Textures, SIGGRAPH 2000): two frames may follow
each other where the frames around them move alike. Footage without such moments is played forth and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.driving.ping_pong import ping_pong
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import RIGID
from gaussian_head.media.image import read_rgba, resize

FADE = 12
"""Frames of a cross-fade, in which both moments play on."""
HALF = FADE // 2
APART = 25
"""A jump skips at least so many frames, and at least so many are played between two jumps."""
LIMIT_STEPS = 2.5
"""The moments of a jump differ at most this much, in large steps (95th percentile) of the footage itself.

Faded over FADE frames with a slope of at most 1.5 / FADE, that adds less than half of such a step to a frame's motion.
"""
CROWDED = 6
"""Jumps whose frames are both closer than this are one jump."""
CANDIDATES = 120
"""So many of the best jumps are looked at as pictures of the torso."""
SEARCHED = 2000
"""Longer footage is searched in strides, with at most so many moments."""
THUMBNAIL_PX = 96


class Loop(NamedTuple):
    """A place where the walk may leave and enter the footage again."""

    leave: int
    """Frame in the middle of the cross-fade, of the moment that is left."""
    enter: int
    """Its counterpart in the moment that is entered."""
    distance_px: float
    """How far the two moments are apart: head, hair and torso together."""


class Steps(NamedTuple):
    """Which frames of the footage make up each frame of a walk: `share` of the second, the rest of the first."""

    first: Int[Tensor, " R"]
    second: Int[Tensor, " R"]
    share: Float[Tensor, " R"]


class Walk:
    """Endless frames of footage; the same seed walks the same way, however it is cut into pieces."""

    def __init__(self, frames: int, loops: list[Loop], seed: int) -> None:
        """Start a walk.

        Args:
            frames: Of the footage.
            loops: Where it may jump, from `find_loops`; none: it is played forth and back.
            seed: Decides which jumps are taken.
        """
        self.frames = frames
        self.loops = loops
        self._random = np.random.default_rng(seed)
        self._taken = 0
        self._steps = self._play() if loops else None

    def take(self, frames: int) -> Steps:
        """Return the next frames of the walk."""
        start, self._taken = self._taken, self._taken + frames
        if self._steps is None:
            positions = ping_pong(self.frames, frames, start)
            first = positions.floor().long().clamp(0, self.frames - 1)
            # Within a thousandth of a frame of one picture, no second one needs to be read.
            share = torch.where((positions - positions.round()).abs() < 1e-3, 0.0, positions - first)
            first = torch.where(share > 0, first, positions.round().long())
            return Steps(first, (first + 1).clamp_max(self.frames - 1), share)
        first, second, share = zip(*islice(self._steps, frames), strict=True) if frames else ((), (), ())
        return Steps(torch.tensor(first, dtype=torch.long), torch.tensor(second, dtype=torch.long), torch.tensor(share))

    def _play(self) -> Iterator[tuple[int, int, float]]:
        at, last, uses = 0, None, dict.fromkeys(self.loops, 0)
        while True:
            last = self._choose(at, last, uses)
            uses[last] += 1
            left, entered = last.leave - HALF, last.enter - HALF
            yield from ((k, k, 0.0) for k in range(at, left))
            for k in range(FADE):
                t = (k + 1) / (FADE + 1)
                yield left + k, entered + k, t * t * (3 - 2 * t)
            at = entered + FADE

    def _choose(self, at: int, last: Loop | None, uses: dict[Loop, int]) -> Loop:
        """Choose where to jump next: the rarely taken ones sooner, the one just taken only where it is the only one."""
        ahead = [loop for loop in self.loops if loop.leave - HALF >= at + APART]
        others = [loop for loop in ahead if loop != last] or ahead
        weights = np.array([1 / (1 + uses[loop]) ** 2 for loop in others])
        return others[self._random.choice(len(others), p=weights / weights.sum())]


def longest_run(frame_index: Int[Tensor, " T"]) -> slice:
    """Return the longest stretch of frames that follow each other without a gap."""
    breaks = (frame_index.diff() != 1).nonzero()[:, 0] + 1
    bounds = [0, *breaks.tolist(), len(frame_index)]
    start, stop = max(zip(bounds[:-1], bounds[1:], strict=True), key=lambda run: run[1] - run[0])
    return slice(start, stop)


def find_loops(motion: DrivingSequence, torso: Callable[[int], Float[np.ndarray, "h w 4"]] | None = None) -> list[Loop]:
    """Find where footage may jump without being seen to.

    Args:
        motion: The footage, frames that follow each other.
        torso: Gives a small picture of the torso in one of the subject's frames (`torso_thumbnail`); None: jumps are
            judged by head and hair alone.

    Returns:
        Jumps from which the walk can go on for ever, nearest moments first; none where the footage has none.
    """
    frames = len(motion)
    if frames < 2 * FADE + APART:
        return []
    places = surface_px(motion)
    steps = np.sqrt(np.square(np.diff(places, axis=0)).sum(1))
    limit = LIMIT_STEPS * float(np.quantile(steps, 0.95))
    loops = _thinned(_near_moments(places, limit))[:CANDIDATES]
    if torso is not None:
        loops = [
            loop._replace(distance_px=np.hypot(loop.distance_px, _torso_px(motion, loop, torso))) for loop in loops
        ]
        loops = sorted((loop for loop in loops if loop.distance_px <= limit), key=lambda loop: loop.distance_px)
    return _going_on(loops)


def surface_px(motion: DrivingSequence) -> Float[np.ndarray, "T D"]:
    """Describe poses by where they show the head's surface and by how the hair lies.

    Returns:
        Vectors whose distance is the root mean square displacement of the head's surface in px (and of the hair on the
        head, as a further dimension).
    """
    viewmats, K = motion.viewmats.double().numpy(), motion.K.double().numpy()
    rigid = motion.landmarks.double().numpy().mean(0)[RIGID]
    places = project(np.broadcast_to(rigid, (len(viewmats), *rigid.shape)), viewmats, K)[0] / np.sqrt(len(rigid))
    parts = [places.reshape(len(viewmats), -1)]
    hair = motion.hair.double().numpy()
    if hair.shape[1]:
        mean = np.broadcast_to(hair.mean(0), hair.shape)
        swing = project(hair, viewmats, K)[0] - project(mean, viewmats, K)[0]
        parts.append(swing.reshape(len(viewmats), -1) / np.sqrt(hair.shape[1]))
    return np.concatenate(parts, 1)


def torso_thumbnail(layout: SubjectLayout, k: int) -> Float[np.ndarray, "h w 4"]:
    """Read the torso of frame k, at most THUMBNAIL_PX on the longer side, colours multiplied by alpha, in [0, 1]."""
    rgba = read_rgba(layout.torso_image(k)).astype(np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    scale = min(1, THUMBNAIL_PX / max(rgba.shape[:2]))
    return resize(rgba, max(1, round(rgba.shape[1] * scale)), max(1, round(rgba.shape[0] * scale)))


def _near_moments(places: Float[np.ndarray, "T D"], limit_px: float) -> list[Loop]:
    """Compare all moments: the frames before, in and after the middle of a fade, so position and velocity alike."""
    middles = np.arange(FADE, len(places) - FADE, -(-len(places) // SEARCHED))
    moments = np.concatenate([places[middles + offset] for offset in (-HALF, 0, HALF)], 1) / np.sqrt(3)
    moments -= moments.mean(0)
    square = np.square(moments).sum(1)
    distance = np.sqrt(np.maximum(square[:, None] + square - 2 * moments @ moments.T, 0))
    velocity = places[middles + HALF] - places[middles - HALF]
    alike = (distance <= limit_px) & (np.abs(middles[:, None] - middles) >= APART)
    leave, enter = np.nonzero(alike)
    together = np.einsum("nd,nd->n", velocity[leave], velocity[enter]) >= 0
    leave, enter = leave[together], enter[together]
    order = np.argsort(distance[leave, enter], kind="stable")
    return [
        Loop(int(middles[a]), int(middles[b]), float(distance[a, b]))
        for a, b in zip(leave[order], enter[order], strict=True)
    ]


def _thinned(loops: list[Loop]) -> list[Loop]:
    """Of jumps between the same moments keep the nearest."""
    taken: set[tuple[int, int]] = set()
    kept = []
    for loop in loops:
        cell = (loop.leave // CROWDED, loop.enter // CROWDED)
        around = {(cell[0] + i, cell[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
        if not around & taken:
            taken.add(cell)
            kept.append(loop)
    return kept


def _torso_px(motion: DrivingSequence, loop: Loop, torso: Callable[[int], np.ndarray]) -> float:
    """Estimate how far apart two torsos are, px: a shifted picture changes by shift times gradient."""
    a, b = (torso(int(motion.frame_index[k])) for k in (loop.leave, loop.enter))
    slope = np.abs(np.diff(a, axis=0)).sum() + np.abs(np.diff(a, axis=1)).sum()
    shift = np.abs(a - b).sum() / max(float(slope), 1e-6)
    return float(shift * max(motion.width, motion.height) / max(a.shape[:2]))


def _going_on(loops: list[Loop]) -> list[Loop]:
    """Keep the largest set of jumps of which each can be followed, sooner or later, by every other and by itself."""
    leave, landing = (np.array([getattr(loop, end) for loop in loops], int) for end in ("leave", "enter"))
    follows = leave - HALF >= (landing - HALF + FADE + APART)[:, None]
    _, group = connected_components(follows, connection="strong")
    for members in sorted((np.flatnonzero(group == g) for g in set(group)), key=len, reverse=True):
        # One jump alone goes on only if it can follow itself. The walk begins with the footage, before any jump.
        if follows[np.ix_(members, members)].any() and leave[members].max() - HALF >= APART:
            return [loops[k] for k in members]
    return []
