"""SadTalker's motion: sound and a portrait's coefficients -> expression and head pose of every frame.

Zhang et al. 2023; specs/one_shot.md 2, 3. The networks run at 25 frames/s, whatever is asked for. Where the reference
fails or jumps, this does not; options bring its behaviour back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.time_bases import SPEECH_HZ, frames_in_speech
from gaussian_head.media.wav2lip_mel import SILENCE
from gaussian_head.networks.sadtalker_expression import ExpressionNetwork, load_expression_network
from gaussian_head.networks.sadtalker_pose import STYLES, PoseNetwork, load_pose_network
from gaussian_head.oneshot.audio2coeff.blinks import Blinks, closed_eyes
from gaussian_head.oneshot.audio2coeff.head_motion import HeadMotion, latents
from gaussian_head.oneshot.audio2coeff.hearing import Constant, Hearing, Speech
from gaussian_head.oneshot.audio2coeff.references import Loop, repeated, with_pose_of
from gaussian_head.oneshot.audio2coeff.streams import Row, in_blocks, retimed, smoothed

NETWORK_FPS = 25
WINDOW_OFFSET_FRAMES = -2
"""SadTalker's windows begin two frames before their own."""
_CHUNK = 32
"""Frames whose windows the expression network hears at once: a matter of memory alone."""


@dataclass(frozen=True)
class SadTalkerOptions:
    """How a portrait is moved."""

    fps: float | int = 25
    """Frames a second of the motion; others than 25 are re-timed."""
    style: int = 0
    """Which of 46 people of the training set the head moves like, 0..45."""
    seed: int = 0
    """Of blinks and head motion: the same seed, the same motion."""
    expression_scale: float | int = 1.0
    """Factor of the expression, above 1 for a livelier face."""
    still: bool = False
    """Keep the portrait's head pose."""
    blinks: Blinks = "random"
    """When the eyes close."""
    chunks: Literal["faded", "independent"] = "faded"
    """How chunks of head motion are joined: cross-faded, or side by side as in the reference, which jumps there."""
    reference_pose: Literal["add", "replace"] = "add"
    """Whether the pose of a reference video comes on top of the head motion (as in the reference) or in its place."""
    loop: Loop = "bounce"
    """How a reference video that is too short goes on: back from its end, or from its beginning (as in the reference,
    which jumps there)."""
    idle_sound: Literal["silence", "zeros"] = "silence"
    """What is heard in idle mode: silence, or, as in the reference, a mel of zeros, which is a middling noise."""

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            UserError: A value is beyond them.
        """
        if not 0 < self.fps <= 240:
            raise UserError(f"fps must lie above 0 and be at most 240, got {self.fps}.")
        if not 0 <= self.style < STYLES:
            raise UserError(f"style must be 0 to {STYLES - 1}, got {self.style}.")


@dataclass(frozen=True)
class References:
    """Videos whose pose or blinks the portrait follows, as coefficients of their frames."""

    pose: FaceCoefficients | None = None
    """Its head motion, relative to its own first frame, is the portrait's."""
    blinks: FaceCoefficients | None = None
    """Its expressions stand in for the portrait's at rest, and no other blinks are made."""
    fps: float | int = 25
    """Frames a second of both."""


class SadTalkerMotion:
    """Makes motion from sound."""

    def __init__(
        self, expression: ExpressionNetwork, pose: PoseNetwork | None, options: SadTalkerOptions | None = None
    ) -> None:
        """Take networks that are ready to use.

        Args:
            expression: Moves the face.
            pose: Moves the head; None: the head stays, or follows a reference video alone.
            options: See there.
        """
        self.expression, self.pose, self.options = expression.eval(), pose.eval() if pose else None, options
        self.options = options or SadTalkerOptions()
        self.fps = self.options.fps

    @classmethod
    def load(
        cls, options: SadTalkerOptions | None = None, expression: Path | None = None, pose: Path | None = None
    ) -> SadTalkerMotion:
        """Load the public weights, of the pose network only where it is needed.

        Args:
            options: See there.
            expression: File of the expression network; default: see `networks.weights.find_weights`.
            pose: Likewise of the pose network.

        Raises:
            UserError: A file is missing, damaged, or another network's.
        """
        options = options or SadTalkerOptions()
        return cls(load_expression_network(expression), None if options.still else load_pose_network(pose), options)

    def move(
        self,
        speech: Float[ndarray, "S"],
        first: FaceCoefficients,
        *,
        crop: bool = False,
        references: References | None = None,
    ) -> Iterator[Float32[ndarray, "n M"]]:
        """Return what moves the portrait while something is said, in blocks that follow each other.

        Memory does not grow with the length of the sound.

        Args:
            speech: Mono samples in [-1, 1] at 16 kHz.
            first: Of the portrait; its first frame counts.
            crop: Whether the portrait's crop is added to each row.
            references: Videos to follow.

        Yields:
            Motion vectors (`FaceCoefficients.motion`) of 70 or 73 numbers, of as many whole frames as the sound covers.

        Raises:
            UserError: The sound is shorter than a frame or not finite, or a reference is empty.
        """
        heard = Speech(speech, NETWORK_FPS, offset_frames=WINDOW_OFFSET_FRAMES)
        frames = max(1, frames_in_speech(len(speech), self.fps))
        return self._move(heard, frames, first, crop, references or References())

    def idle(
        self, seconds: float | int, first: FaceCoefficients, *, crop: bool = False, references: References | None = None
    ) -> Iterator[Float32[ndarray, "n M"]]:
        """Return what moves the portrait while nothing is said; arguments and errors as of `move`."""
        frames = int(seconds * NETWORK_FPS) if np.isfinite(seconds) else 0
        if frames < 1:
            raise UserError(f"idle: expected at least {1 / NETWORK_FPS} seconds, got {seconds}.")
        heard = Constant(frames, SILENCE if self.options.idle_sound == "silence" else 0.0)
        wanted = max(1, frames_in_speech(round(seconds * SPEECH_HZ), self.fps))
        return self._move(heard, wanted, first, crop, references or References())

    def _move(
        self, heard: Hearing, frames: int, first: FaceCoefficients, crop: bool, references: References
    ) -> Iterator[Float32[ndarray, "n M"]]:
        for name in ("pose", "blinks"):
            if (video := getattr(references, name)) is not None and not len(video):
                raise UserError(f"the reference video of {name} has no frame; give coefficients of one at least.")
        portrait = np.float32(first.motion(crop)[0])
        rows = (
            np.concatenate([expression, pose, portrait[70:]])
            for expression, pose in zip(
                self._expressions(heard, portrait, references), self._poses(heard, portrait, references), strict=False
            )
        )
        return in_blocks(retimed(rows, NETWORK_FPS, self.fps, frames))

    def _expressions(self, heard: Hearing, portrait: Row, references: References) -> Iterator[Row]:
        if references.blinks is None:
            rest = repeat(portrait[:64])
            closed = closed_eyes(heard.frames, self.options.blinks, self.options.seed)
        else:
            rest = self._follow(references.blinks.expression, references.fps)
            closed = repeat(0.0)
        for start in range(0, heard.frames, _CHUNK):
            end = min(start + _CHUNK, heard.frames)
            pairs = list(zip(range(start, end), rest, closed, strict=False))
            at_rest = np.float32([row for _, row, _ in pairs])
            blink = np.float32([[value] for *_, value in pairs])
            yield from self.options.expression_scale * self._express(heard.windows(start, end), at_rest, blink)

    @torch.inference_mode()
    def _express(
        self, windows: Float32[ndarray, "n 80 16"], rest: Float32[ndarray, "n 64"], blink: Float32[ndarray, "n 1"]
    ) -> Float32[ndarray, "n 64"]:
        device = next(self.expression.parameters()).device
        inputs = (torch.from_numpy(part).to(device) for part in (windows[:, None], rest, blink))
        return self.expression(*inputs).cpu().numpy()

    def _poses(self, heard: Hearing, portrait: Row, references: References) -> Iterator[Row]:
        start, options = portrait[64:70], self.options
        if options.still:
            return repeat(start, heard.frames)
        moved: Iterator[Row] = repeat(start, heard.frames)
        if self.pose is not None and (references.pose is None or options.reference_pose == "add"):
            motion = HeadMotion(self.pose, heard, start, options.style)
            chunks = motion.faded if options.chunks == "faded" else motion.independent
            moved = smoothed((start + row for row in chunks(latents(options.seed))), heard.frames)
        if references.pose is None:
            return moved
        poses = references.pose.motion(crop=False)[:, 64:70]
        return with_pose_of(moved, poses, options.loop, references.fps, NETWORK_FPS)

    def _follow(self, rows: Float[ndarray, "N M"], fps: float | int) -> Iterator[Row]:
        return repeated(np.float32(rows), self.options.loop, fps, NETWORK_FPS)
