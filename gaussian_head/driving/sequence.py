"""What moves a head: one object, whether it was tracked, predicted from sound, borrowed or made by hand."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gaussian_head.data.layout import VIDEO_FPS
from gaussian_head.data.subject import Subject
from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing

FORMAT = "driving-sequence-1"


@dataclass(frozen=True)
class DrivingSequence:
    """Pose, expression and surroundings of T frames."""

    viewmats: Float[Tensor, "T 4 4"]
    """World (head frame, metres) to camera, OpenCV axes: the head's motion is the camera's."""
    K: Float[Tensor, "3 3"]
    """Intrinsics in px of a picture of `width` x `height`."""
    landmarks: Float[Tensor, "T 478 3"]
    """Face mesh, head frame, metres."""
    action_units: Float[Tensor, "T 6"]
    """Intensities 0..5 of EXPRESSION_ACTION_UNITS."""
    hair: Float[Tensor, "T G 3"]
    """Points that the hair follows, head frame, metres."""
    frame_index: Int[Tensor, " T"]
    """The subject's frame that supplies torso and background."""
    width: int
    height: int
    fps: float | int = VIDEO_FPS
    PARTS: ClassVar = ("viewmats", "landmarks", "action_units", "hair", "frame_index")

    def __post_init__(self) -> None:
        """Refuse parts of different lengths.

        Raises:
            UserError: Some parts have more frames than others.
        """
        lengths = {name: len(getattr(self, name)) for name in self.PARTS}
        if len(set(lengths.values())) != 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UserError(
                f"a driving sequence needs as many frames in each part, got {told}; cut them to one length."
            )

    @classmethod
    def from_subject(cls, subject: Subject, frames: list[int]) -> DrivingSequence:
        """Take the tracked motion of some of a subject's frames."""
        index = torch.tensor(frames, dtype=torch.long)
        return cls(
            viewmats=subject.viewmats[index],
            K=subject.K,
            landmarks=subject.landmarks[index],
            action_units=subject.action_units[index],
            hair=subject.hair[index],
            frame_index=index,
            width=subject.width,
            height=subject.height,
        )

    @classmethod
    def load(cls, path: Path) -> DrivingSequence:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: No such file.
            UserError: It is no driving sequence.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; give a driving sequence written by DrivingSequence.save.")
        try:
            with safe_open(str(path), framework="pt") as file:
                told = file.metadata() or {}
                if told.get("format") != FORMAT:
                    raise UserError(f"{path} must be a {FORMAT}, got {told.get('format')}; write it with this version.")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
        except SafetensorError as error:
            raise UserError(f"{path} is damaged or no safetensors file ({error}); write it again.") from error
        missing = sorted({f.name for f in fields(cls)} - {"width", "height", "fps"} - set(tensors))
        if missing:
            raise UserError(f"{path} lacks {', '.join(missing)}; write it with DrivingSequence.save.")
        return cls(**tensors, width=int(told["width"]), height=int(told["height"]), fps=float(told["fps"]))

    def save(self, path: Path) -> None:
        """Write everything into one safetensors file, atomically."""
        scalars = {"width": str(self.width), "height": str(self.height), "fps": str(self.fps), "format": FORMAT}
        tensors = {
            f.name: value.contiguous() for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=scalars)

    def __len__(self) -> int:
        """Return T."""
        return len(self.frame_index)

    def with_landmarks(self, landmarks: Float[Tensor, "T 478 3"]) -> DrivingSequence:
        """Return the same motion with another face."""
        return replace(self, landmarks=landmarks)

    def stretched(self, positions: Float[Tensor, " R"]) -> DrivingSequence:
        """Play the motion along other frame positions, between frames by interpolation.

        Args:
            positions: Where in the sequence each new frame is, in frames, 0..T-1.
        """
        low = positions.floor().long().clamp(0, len(self) - 1)
        high = (low + 1).clamp_max(len(self) - 1)
        share = positions - low
        return replace(
            self,
            viewmats=_between(self.viewmats[low], self.viewmats[high], share),
            landmarks=torch.lerp(self.landmarks[low], self.landmarks[high], share[:, None, None]),
            action_units=torch.lerp(self.action_units[low], self.action_units[high], share[:, None]),
            hair=torch.lerp(self.hair[low], self.hair[high], share[:, None, None]),
            frame_index=self.frame_index[positions.round().long().clamp(0, len(self) - 1)],
        )


def _between(
    a: Float[Tensor, "T 4 4"], b: Float[Tensor, "T 4 4"], share: Float[Tensor, " T"]
) -> Float[Tensor, "T 4 4"]:
    """Interpolate neighbouring poses: lerp, then the nearest rotation (exact enough for a few degrees)."""
    pose = torch.lerp(a, b, share[:, None, None])
    u, _, vh = torch.linalg.svd(pose[:, :3, :3])
    pose[:, :3, :3] = u @ vh
    return pose
