"""Face-vid2vid as SadTalker uses it: a portrait and coefficients become frames (specs/one_shot.md 3.6, 4).

The portrait is read once. Each frame is drawn from 27 frames of coefficients, and from no other frame. T frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor

from gaussian_head.geometry.coefficients import MOTION, MOTION_WITH_CROP
from gaussian_head.networks.vid2vid_blocks import PUBLISHED, Vid2VidSize
from gaussian_head.networks.vid2vid_generator import Beyond, Generator, Source
from gaussian_head.networks.vid2vid_keypoints import KeypointDetector
from gaussian_head.networks.vid2vid_motion import OWN_ANGLES, FreeView, MappingNet, move_points
from gaussian_head.networks.weights import find_weights, load_into
from gaussian_head.oneshot.face_renderer.windows import semantic_windows, still_window

EXPRESSION = 64
"""Numbers of expression, the first of a motion vector."""


@dataclass(frozen=True)
class Vid2VidOptions:
    """How face-vid2vid draws; the defaults are SadTalker's."""

    batch: int = 2
    """Frames drawn at once: memory grows with it, the result does not depend on it."""
    expression_scale: float | int = 1
    """What expressions are multiplied by; the portrait's own is not."""
    still: bool = False
    """The head stays as in the portrait; only the expression moves."""
    yaw_deg: tuple[float | int, ...] = ()
    """Angles that the head turns through, at even speed from the first to the last; none: the motion's own."""
    pitch_deg: tuple[float | int, ...] = ()
    """Likewise."""
    roll_deg: tuple[float | int, ...] = ()
    """Likewise."""
    beyond: Beyond = "zeros"
    """What moves in from outside the portrait: nothing (dark), as the published weights were trained, or its border."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}.")
        if not np.isfinite([self.expression_scale, *self.yaw_deg, *self.pitch_deg, *self.roll_deg]).all():
            raise ValueError("expression_scale and the angles of the head must be finite numbers.")


class Look(NamedTuple):
    """What is known of a portrait before anything moves."""

    picture: Float[Tensor, "1 3 S S"]
    """RGB in [0, 1]."""
    read: Source
    canonical: Float[Tensor, "1 points 3"]
    """Its key points without pose and expression."""
    before: Float[Tensor, "1 points 3"]
    """Its key points."""


class Vid2VidRenderer:
    """Face-vid2vid with SadTalker's mapping network; a `FaceRenderer`."""

    def __init__(
        self,
        keypoints: KeypointDetector,
        generator: Generator,
        mapping: MappingNet,
        side_px: int,
        options: Vid2VidOptions = Vid2VidOptions(),  # noqa: B008 -- frozen
        device: torch.device | str = "cpu",
    ) -> None:
        """Take networks into use; they are put into evaluation mode.

        Args:
            keypoints: Finds the portrait's key points.
            generator: Draws.
            mapping: Turns coefficients into motion; of 70 or 73 numbers.
            side_px: Of the pictures it was trained on.
            options: How to draw.
            device: Where to compute.
        """
        self.device, self.side_px, self.options = torch.device(device), side_px, options
        self.keypoints, self.generator, self.mapping = (
            network.to(device).eval() for network in (keypoints, generator, mapping)
        )

    @property
    def needs_crop(self) -> bool:
        """Return whether a motion vector has 73 numbers instead of 70."""
        return self.mapping.coefficients == MOTION_WITH_CROP

    def animate(
        self,
        source: UInt8[ndarray, "S S 3"],
        first: Float32[ndarray, "M"],
        motion: Float32[ndarray, "T M"],
        moving: Float[ndarray, "S S"] | None = None,
    ) -> Iterator[UInt8[ndarray, "S S 3"]]:
        """Move a portrait; see `FaceRenderer`.

        Args:
            source: The portrait.
            first: What it shows.
            motion: Every frame's.
            moving: 1 where the frame is what was drawn, 0 where it stays the portrait, feathered between: keeps a
                background still. It must leave the head room to move. None: all is drawn.

        Raises:
            ValueError: A shape is another than this renderer's, or the mask is not within [0, 1].
        """
        side, numbers = self.side_px, self.mapping.coefficients
        if source.shape != (side, side, 3):
            raise ValueError(f"source must be {[side, side, 3]}, got {list(source.shape)}; resize the portrait.")
        if first.shape != (numbers,) or motion.shape[1:] != (numbers,):
            raise ValueError(
                f"first and motion must have {numbers} numbers a frame, got {list(first.shape)} and "
                f"{list(motion.shape)}; needs_crop says whether the crop is among them."
            )
        if moving is not None and (moving.shape != (side, side) or not (moving.min() >= 0 and moving.max() <= 1)):
            raise ValueError(f"moving must be {[side, side]} within [0, 1], got {list(moving.shape)}.")
        return self._frames(source, first, motion, moving)

    @torch.inference_mode()
    def look_at(self, picture: Float32[Tensor, "1 3 S S"], first: Float32[ndarray, "M"]) -> Look:
        """Read a portrait, once for all frames.

        Args:
            picture: The portrait, RGB in [0, 1].
            first: What it shows.
        """
        canonical = self.keypoints(picture)
        before = move_points(canonical, self.mapping(self._tensor(still_window(first)[None])))
        return Look(picture, self.generator.encode(picture), canonical, before)

    @torch.inference_mode()
    def draw(
        self, look: Look, windows: Float[ndarray, "B M 27"], view: FreeView = OWN_ANGLES
    ) -> Float32[Tensor, "B 3 S S"]:
        """Draw a few frames, RGB in [0, 1].

        Args:
            look: At the portrait.
            windows: Of each frame (`windows.semantic_windows`).
            view: Angles of each frame instead of the motion's own.
        """
        after = move_points(look.canonical, self.mapping(self._tensor(windows)), view)
        return self.generator.decode(look.read, look.before, after, self.options.beyond).pictures

    def _frames(
        self, source: ndarray, first: ndarray, motion: ndarray, moving: ndarray | None
    ) -> Iterator[UInt8[ndarray, "S S 3"]]:
        picture = torch.tensor(source, device=self.device).permute(2, 0, 1)[None].float() / 255
        look, options = self.look_at(picture, first), self.options
        motion = directed(first, motion, options)
        mask = None if moving is None else self._tensor(moving)
        paths = [pose_path(keys, len(motion)) for keys in (options.yaw_deg, options.pitch_deg, options.roll_deg)]
        for start in range(0, len(motion), options.batch):
            few = slice(start, start + options.batch)
            view = FreeView(*(None if path is None else self._tensor(path[few]) for path in paths))
            drawn = self.draw(look, semantic_windows(motion, few), view)
            if mask is not None:
                drawn = look.picture + mask * (drawn - look.picture)
            yield from to_bytes(drawn)

    def _tensor(self, numbers: ndarray) -> Float32[Tensor, "*shape"]:
        return torch.tensor(np.ascontiguousarray(numbers), device=self.device, dtype=torch.float32)


def directed(
    first: Float32[ndarray, "M"], motion: Float32[ndarray, "T M"], options: Vid2VidOptions
) -> Float32[ndarray, "T M"]:
    """Return the motion with its expressions scaled and, on demand, the portrait's pose, position and crop.

    Args:
        first: What the portrait shows.
        motion: Every frame's; it is not changed.
        options: Which of the two.
    """
    pose = np.broadcast_to(first[EXPRESSION:], (len(motion), len(first) - EXPRESSION))
    expression = motion[:, :EXPRESSION] * np.float32(options.expression_scale)
    return np.concatenate([expression, pose if options.still else motion[:, EXPRESSION:]], 1)


def pose_path(
    keys_deg: tuple[float | int, ...], frames: int, *, restart_at_keys: bool = False
) -> Float[ndarray, "T"] | None:
    """Lead an angle through key angles at an even speed; equal keys that follow each other take no time.

    Args:
        keys_deg: Key angles, degrees.
        frames: T.
        restart_at_keys: As SadTalker does: a frame meets each key but the last, which is not reached. Otherwise the
            last frame meets the last key, and the keys between may lie between frames.

    Returns:
        The angle of each frame, degrees; None where there is no key.
    """
    if not keys_deg:
        return None
    keys = np.array(keys_deg, np.float64)
    lengths = np.abs(np.diff(keys))
    if frames < 2 or not lengths.any():
        return np.full(frames, keys[0])
    step = lengths.sum() / (frames - 1)
    if not restart_at_keys:
        moves = np.append(True, lengths > 0)
        return np.interp(np.arange(frames) * step, np.append(0, lengths.cumsum())[moves], keys[moves])
    path = np.concatenate(
        [np.arange(a, b, np.copysign(step, b - a)) for a, b in zip(keys, keys[1:], strict=False) if a != b]
    )
    return path[np.minimum(np.arange(frames), len(path) - 1)]


def to_bytes(pictures: Float[Tensor, "B 3 H W"]) -> UInt8[ndarray, "B H W 3"]:
    """Round RGB in [0, 1] to bytes."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def load_vid2vid(
    side_px: Literal[256, 512] = 256,
    *,
    crop: bool = False,
    given: Path | None = None,
    mapping: Path | None = None,
    size: Vid2VidSize = PUBLISHED,
    options: Vid2VidOptions = Vid2VidOptions(),  # noqa: B008 -- frozen
    device: torch.device | str = "cpu",
) -> Vid2VidRenderer:
    """Load the public weights, or others of that form.

    Args:
        side_px: Which of the two: 256 or 512 px.
        crop: Motion vectors of 73 numbers (whole pictures) instead of 70 (cropped faces).
        given: SadTalker's safetensors file, or `facevid2vid_00189-model.pth.tar`; default: `find_weights`.
        mapping: The mapping network's file; default: likewise.
        size: Of the networks.
        options: How to draw.
        device: Where to compute.

    Raises:
        UserError: A file is missing, damaged, or another network's.
    """
    path = find_weights(f"sadtalker_{side_px}", given)
    mapping_path = find_weights("sadtalker_mapping_full" if crop else "sadtalker_mapping", mapping)
    # the older checkpoint calls the first network otherwise
    prefix = "kp_extractor." if path.suffix == ".safetensors" else "kp_detector."
    return Vid2VidRenderer(
        load_into(KeypointDetector(size), path, prefix),
        load_into(Generator(size), path, "generator."),
        load_into(MappingNet(MOTION_WITH_CROP if crop else MOTION, size), mapping_path, "mapping."),
        side_px,
        options,
        device,
    )
