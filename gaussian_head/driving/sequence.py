"""What moves a head: one object, whether it was tracked, predicted from sound, borrowed or made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gaussian_head.data.layout import VIDEO_FPS
from gaussian_head.data.subject import Subject
from gaussian_head.driving.features import load_features
from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing
from gaussian_head.model.audio_code import audio_windows

FORMAT = "driving-sequence-1"
FORMAT_WITH_FADES = "driving-sequence-2"
"""Of sequences that cross-fade torso pictures; without, they are written in format 1, which older versions read."""
FORMAT_WITH_AUDIO = "driving-sequence-3"
"""Of sequences with audio features, with or without fades."""


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
    fade_index: Int[Tensor, " T"] | None = None
    """The subject's frame that the torso fades into; None: it never fades."""
    fade: Float[Tensor, " T"] | None = None
    """How far it has: 0 is the picture of `frame_index` alone, 1 that of `fade_index`."""
    audio: Float[Tensor, "T 8 W C"] | None = None
    """Audio features of the frames around each, for heads that hear (`audio_code.audio_windows`)."""
    PARTS: ClassVar = ("viewmats", "landmarks", "action_units", "hair", "frame_index")
    FADE_PARTS: ClassVar = ("fade_index", "fade")

    def __post_init__(self) -> None:
        """Refuse parts of different lengths.

        Raises:
            UserError: Some parts have more frames than others, or one of the two that make a fade is missing.
        """
        if (self.fade_index is None) != (self.fade is None):
            raise UserError("a driving sequence that fades needs both fade_index and fade, got one; give both or none.")
        lengths = {name: len(part) for name, part in self.parts().items()}
        if len(set(lengths.values())) != 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UserError(
                f"a driving sequence needs as many frames in each part, got {told}; cut them to one length."
            )

    @classmethod
    def from_subject(cls, subject: Subject, frames: list[int], extractor: str | None = None) -> DrivingSequence:
        """Take the tracked motion of some of a subject's frames.

        Args:
            subject: The person.
            frames: Numbers of the frames.
            extractor: Audio features to take along (`HeadConfig.audio_features`); None: none.

        Raises:
            FileNotFoundError: The subject has no such features.
            UserError: They do not fit the subject, or are another extractor's.
        """
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
            audio=None if extractor is None else audio_windows(load_features(subject, extractor))[index],
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
                known = (FORMAT, FORMAT_WITH_FADES, FORMAT_WITH_AUDIO)
                if told.get("format") not in known:
                    raise UserError(
                        f"{path} must be one of {', '.join(known)}, got {told.get('format')}; "
                        "write it with this version."
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
        except SafetensorError as error:
            raise UserError(f"{path} is damaged or no safetensors file ({error}); write it again.") from error
        missing = sorted({*cls.PARTS, "K"} - set(tensors))
        if missing:
            raise UserError(f"{path} lacks {', '.join(missing)}; write it with DrivingSequence.save.")
        return cls(**tensors, width=int(told["width"]), height=int(told["height"]), fps=float(told["fps"]))

    def save(self, path: Path) -> None:
        """Write everything into one safetensors file, atomically."""
        form = FORMAT if self.fade is None else FORMAT_WITH_FADES
        form = form if self.audio is None else FORMAT_WITH_AUDIO
        scalars = {"width": str(self.width), "height": str(self.height), "fps": str(self.fps), "format": form}
        tensors = {name: part.contiguous() for name, part in {**self.parts(), "K": self.K}.items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=scalars)

    def __len__(self) -> int:
        """Return T."""
        return len(self.frame_index)

    def parts(self) -> dict[str, Tensor]:
        """Return what has a row for each frame, by name."""
        names = self.PARTS if self.fade is None else self.PARTS + self.FADE_PARTS
        names = names if self.audio is None else (*names, "audio")
        return {name: getattr(self, name) for name in names}

    def frame(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Return what drives a head in frame i: the arguments of `LandmarkSpace.condition`."""
        audio = None if self.audio is None else self.audio[i]
        return self.landmarks[i], self.action_units[i], self.hair[i], self.viewmats[i], audio

    @classmethod
    def join(cls, chunks: Sequence[DrivingSequence]) -> DrivingSequence:
        """Return one sequence of several that follow each other, of the same picture size and the same parts."""
        names = chunks[0].parts()
        return replace(chunks[0], **{name: torch.cat([chunk.parts()[name] for chunk in chunks]) for name in names})

    def with_landmarks(self, landmarks: Float[Tensor, "T 478 3"]) -> DrivingSequence:
        """Return the same motion with another face."""
        return replace(self, landmarks=landmarks)

    def blended(self, a: Int[Tensor, " R"], b: Int[Tensor, " R"], share: Float[Tensor, " R"]) -> DrivingSequence:
        """Return frames between two of this sequence's, the torso's pictures cross-faded; heard is the nearer frame.

        Args:
            a: For each new frame, one frame here.
            b: The other.
            share: How much the new frame is of the second, 0..1.
        """
        return replace(
            self,
            viewmats=poses_between(self.viewmats[a], self.viewmats[b], share),
            landmarks=torch.lerp(self.landmarks[a], self.landmarks[b], share[:, None, None]),
            action_units=torch.lerp(self.action_units[a], self.action_units[b], share[:, None]),
            hair=torch.lerp(self.hair[a], self.hair[b], share[:, None, None]),
            frame_index=self.frame_index[a],
            fade_index=self.frame_index[b],
            fade=share,
            audio=None if self.audio is None else self.audio[torch.where(share < 0.5, a, b)],
        )

    def stretched(self, positions: Float[Tensor, " R"]) -> DrivingSequence:
        """Play the motion along other frame positions, between frames by interpolation; the torso's are the nearest.

        Args:
            positions: Where in the sequence each new frame is, in frames, 0..T-1.
        """
        low = positions.floor().long().clamp(0, len(self) - 1)
        high = (low + 1).clamp_max(len(self) - 1)
        between = self.blended(low, high, positions - low)
        nearest = self.frame_index[positions.round().long().clamp(0, len(self) - 1)]
        return replace(between, frame_index=nearest, fade_index=None, fade=None)


def poses_between(
    a: Float[Tensor, "T 4 4"], b: Float[Tensor, "T 4 4"], share: Float[Tensor, " T"]
) -> Float[Tensor, "T 4 4"]:
    """Interpolate neighbouring poses: lerp, then the nearest rotation (exact enough for a few degrees)."""
    pose = torch.lerp(a, b, share[:, None, None])
    u, _, vh = torch.linalg.svd(pose[:, :3, :3])
    pose[:, :3, :3] = u @ vh
    return pose
