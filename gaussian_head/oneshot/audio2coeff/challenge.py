"""The motion of a ViCo 2023 challenge entry: sound and a first frame's coefficients -> expression and head pose.

specs/one_shot.md 7. The networks run at 30 frames/s on at most 90 frames. The entry set blocks of 90 side by side; here
they overlap, each starting from what the one before made of the frame before it, and are cross-faded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.time_bases import frames_in_speech
from gaussian_head.networks.challenge_expression import (
    FRAMES,
    MEL_BANDS,
    MEL_COLUMNS,
    ChallengeExpression,
    load_challenge_expression,
)
from gaussian_head.networks.challenge_pose import ChallengePose, load_challenge_pose
from gaussian_head.oneshot.audio2coeff.hearing import Hearing, Speech
from gaussian_head.oneshot.audio2coeff.streams import Row, cross_faded, in_blocks, retimed

NETWORK_FPS = 30


@dataclass(frozen=True)
class ChallengeOptions:
    """How a first frame is moved."""

    fps: float | int = 30
    """Frames a second of the motion; others than 30 are re-timed."""
    overlap: int = 30
    """Frames that blocks of 90 share while one goes out and the next comes in, 0 to 45. 0: side by side, as the entry's
    were."""
    moves: Literal["rotation", "all"] = "rotation"
    """What the pose network moves: the angles alone, as in the entry, or translation and crop, too."""
    window_offset_frames: int = 0
    """Frames that a window of the mel begins after its own: 0 as in training; the entry tested with -1."""
    expression_scale: float | int = 1.0
    """Factor of the expression."""

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            UserError: A value is beyond them.
        """
        if not 0 < self.fps <= 240:
            raise UserError(f"fps must lie above 0 and be at most 240, got {self.fps}.")
        if not 0 <= self.overlap <= FRAMES // 2:
            raise UserError(f"overlap must be 0 to {FRAMES // 2}, got {self.overlap}.")


class ChallengeMotion:
    """Makes motion from sound."""

    def __init__(
        self,
        expression: ChallengeExpression | None,
        pose: ChallengePose | None,
        options: ChallengeOptions | None = None,
    ) -> None:
        """Take networks that are ready to use.

        Args:
            expression: Moves the face; None: expressions are given to `move`.
            pose: Moves the head; None: it stays as in the first frame.
            options: See there.
        """
        self.expression, self.pose = (network.eval() if network else None for network in (expression, pose))
        self.options = options or ChallengeOptions()
        self.fps = self.options.fps

    @classmethod
    def load(
        cls,
        options: ChallengeOptions | None = None,
        expression: Path | None = None,
        pose: Path | None = None,
        *,
        still: bool = False,
    ) -> ChallengeMotion:
        """Load weights of your own training; the entry's were never published.

        Args:
            options: See there.
            expression: File of the expression network; default: see `networks.weights.find_weights`.
            pose: Likewise of the pose network.
            still: Without the pose network: the head stays.

        Raises:
            UserError: A file is missing, damaged, or another network's.
        """
        return cls(load_challenge_expression(expression), None if still else load_challenge_pose(pose), options)

    def move(
        self,
        speech: Float[ndarray, "S"],
        first: FaceCoefficients,
        *,
        crop: bool = True,
        expressions: Float[ndarray, "N 64"] | None = None,
    ) -> Iterator[Float32[ndarray, "n M"]]:
        """Return what moves the first frame while something is said, in blocks that follow each other.

        Memory does not grow with the length of the sound. The head starts as it is in the first frame: poses are taken
        relative to what the network makes of frame 0.

        Args:
            speech: Mono samples in [-1, 1] at 16 kHz.
            first: Of the first frame; its row 0 counts. The pose network also needs its crop.
            crop: Whether the crop is added to each row.
            expressions: At 30 frames/s, used in place of the expression network's (the last one stays): those of a
                video that Wav2Lip made, in the entry's second method.

        Yields:
            Motion vectors (`FaceCoefficients.motion`) of 70 or 73 numbers, of as many whole frames as the sound covers.

        Raises:
            UserError: The sound is shorter than a frame or not finite.
            ValueError: There is neither an expression network nor expressions, or the crop is wanted and not known.
        """
        if expressions is None and self.expression is None:
            raise ValueError("move: expected expressions, for there is no expression network.")
        if expressions is not None and not len(expressions):
            raise ValueError("move: expected at least one row of expressions, got none.")
        heard = Speech(
            speech, NETWORK_FPS, bands=MEL_BANDS, width=MEL_COLUMNS, offset_frames=self.options.window_offset_frames
        )
        frames = max(1, frames_in_speech(len(speech), self.fps))
        start = np.float32(first.motion(crop or self.pose is not None)[0])
        rows = self._rows(heard, start, None if expressions is None else np.float32(expressions))
        width = 73 if crop else 70
        return in_blocks(retimed((row[:width] for row in rows), NETWORK_FPS, self.fps, frames))

    def _rows(self, heard: Hearing, start: Row, given: Float32[ndarray, "N 64"] | None) -> Iterator[Row]:
        def predict(first: int, last: int, before: Row | None) -> Float32[ndarray, "n M"]:
            windows = heard.windows(first, last)
            state = start if before is None else before
            if given is None:
                expression = self._express(windows, state[:64])
            else:
                expression = given[np.minimum(np.arange(first, last), len(given) - 1)]
            return np.concatenate([expression, self._turn(windows, expression, state[64:])], 1)

        moving = slice(64, 67 if self.options.moves == "rotation" else None)
        origin = None
        for row in cross_faded(predict, heard.frames, FRAMES, self.options.overlap):
            origin = row if origin is None else origin
            moved = start.copy()
            moved[:64] = self.options.expression_scale * row[:64]
            moved[moving] += row[moving] - origin[moving]
            yield moved

    @torch.inference_mode()
    def _express(self, windows: Float32[ndarray, "n 40 5"], before: Float32[ndarray, "64"]) -> Float32[ndarray, "n 64"]:
        device = next(self.expression.parameters()).device
        inputs = (torch.from_numpy(np.ascontiguousarray(part))[None].to(device) for part in (windows, before))
        return self.expression(*inputs)[0].cpu().numpy()

    @torch.inference_mode()
    def _turn(
        self, windows: Float32[ndarray, "n 40 5"], expression: Float32[ndarray, "n 64"], before: Float32[ndarray, "P"]
    ) -> Float32[ndarray, "n P"]:
        if self.pose is None:
            return np.repeat(before[None], len(windows), 0)
        device = next(self.pose.parameters()).device
        driven = np.concatenate([expression, windows.reshape(len(windows), -1)], 1)
        inputs = (torch.from_numpy(np.ascontiguousarray(part))[None].to(device) for part in (before, driven))
        return self.pose(*inputs)[0].cpu().numpy()
