"""A video says something else: frames and speech in, frames with new lips out.

Frames stream through; what is held of them is bounded by the batches and by the longest gap without a face.
Source: specs/one_shot.md 6.3 (Prajwal et al. 2020); of the reference's habits that are mended here (8, 10) each is an
option's other value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice, repeat
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.time_bases import Rate
from gaussian_head.networks.wav2lip import Wav2Lip
from gaussian_head.oneshot.wav2lip.boxes import Detect, Smoothing, bridge_gaps, find_faces, pad_boxes, smooth_boxes
from gaussian_head.oneshot.wav2lip.faces import Paste, Rounding, cut_face, put_face, without_lips
from gaussian_head.oneshot.wav2lip.footage import Footage
from gaussian_head.oneshot.wav2lip.speech import Ending, SpeechWindows, speech_windows

Box = Int[ndarray, "4"]
Located = Iterator[tuple[UInt8[ndarray, "H W 3"], Box | None]]


@dataclass(frozen=True, kw_only=True)
class LipSyncConfig:
    """How faces are found and put back; the last values of the choices are the reference's (specs/one_shot.md 8)."""

    pads: tuple[int, int, int, int] = (0, 10, 0, 0)
    """Grow the face's box by so many px: TOP BOTTOM LEFT RIGHT; the chin must be inside."""
    box: tuple[int, int, int, int] | None = None
    """The face is always here, in px: TOP BOTTOM LEFT RIGHT; nothing is searched for."""
    smoothing: Smoothing = "centred"
    """Average boxes over 5 frames around each, not at all, or over each and the next 4."""
    longest_gap_s: float = 0.5
    """A face that is not found for so long is thought to have moved on a straight line; in longer gaps, frames stay as
    they are."""
    cycle: Literal["bounce", "repeat"] = "bounce"
    """A video shorter than the sound is played forth and back, or again and again."""
    paste: Paste = "feathered"
    """Only the lower part of the face is put back, with a soft rim, or the whole box (hard)."""
    rounding: Rounding = "nearest"
    """Of the drawn colours, to 0..255."""
    ending: Ending = "silence"
    """What the last frames hear behind the end of the sound: silence, or what comes before it (reference)."""
    offset_frames: int = 0
    """Frames that what a frame hears begins later; 0 is what the published weights are used with."""
    batch_size: int = 16
    """Faces that are drawn at once."""
    detector_batch_size: int = 8
    """Frames that are searched at once."""
    detector_px: int = 640
    """Longer side to which frames are shrunk for the search; 0: they are not."""

    def __post_init__(self) -> None:
        if min(self.pads) < 0:
            raise UserError(f"--pads must be 0 px or more, got {self.pads}.")
        if self.box is not None and not (0 <= self.box[0] < self.box[1] and 0 <= self.box[2] < self.box[3]):
            raise UserError(
                f"--box must be TOP BOTTOM LEFT RIGHT in px with TOP < BOTTOM and LEFT < RIGHT: {self.box}."
            )
        if not 0 <= self.longest_gap_s <= 10:
            raise UserError(f"--longest-gap-s must be 0..10 s (frames are held for so long), got {self.longest_gap_s}.")
        if min(self.batch_size, self.detector_batch_size) < 1:
            raise UserError("--batch-size and --detector-batch-size must be 1 or more.")
        if self.detector_px and self.detector_px < 64:
            raise UserError(f"--detector-px must be 64 or more, or 0 for the frame's own size, got {self.detector_px}.")


class LipPainter:
    """Draws lips into frames as they pass."""

    def __init__(self, network: Wav2Lip, detect: Detect, config: LipSyncConfig | None = None) -> None:
        """Take hold of the networks.

        Args:
            network: Ready to use, on the device where it shall run.
            detect: Finds faces in pictures.
            config: Default: the defaults.
        """
        self.config = config or LipSyncConfig()
        self._network, self._detect = network, detect

    def locate(self, frames: Iterable[UInt8[ndarray, "H W 3"]], fps: Rate) -> Located:
        """Pass frames on, each with its face's box, where it has one.

        Raises:
            UserError: The fixed box does not fit into the frames.
        """
        config = self.config
        if config.box is not None:
            return ((frame, _fixed(config.box, frame)) for frame in frames)
        found = find_faces(frames, self._detect, config.detector_batch_size)
        bridged = bridge_gaps(found, round(config.longest_gap_s * fps))
        return smooth_boxes(pad_boxes(bridged, config.pads), config.smoothing)

    def paint(self, located: Iterable[tuple[ndarray, Box | None]], windows: SpeechWindows) -> Iterator[ndarray]:
        """Draw what each frame hears; frames without a box pass as they are.

        Raises:
            UserError: At the end: not one of the frames had a box.
        """
        shown = drawn = 0
        source = iter(located)
        while batch := list(islice(source, min(self.config.batch_size, len(windows) - shown))):
            with_face = [k for k, (_, box) in enumerate(batch) if box is not None]
            new = {}
            if with_face:
                faces = np.stack([cut_face(*batch[k]) for k in with_face])
                heard = np.stack([windows.cut(shown + k) for k in with_face])
                new = dict(zip(with_face, self._draw(faces, heard), strict=True))
            for k, (frame, box) in enumerate(batch):
                yield put_face(frame, box, new[k], self.config.paste, self.config.rounding) if k in new else frame
            shown += len(batch)
            drawn += len(with_face)
        if not drawn:
            raise UserError(
                f"no face was found in any of the {shown} frames; give a video that shows one from the front, or say "
                "where it is with --box TOP BOTTOM LEFT RIGHT."
            )

    def refine(
        self, frames: Iterable[UInt8[ndarray, "H W 3"]], count: int, fps: Rate, speech: Float[ndarray, "S"]
    ) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """Draw lips into another generator's frames.

        Args:
            frames: RGB, 0..255.
            count: How many they are.
            fps: Their rate.
            speech: What is said: mono samples in [-1, 1] at 16 kHz.
        """
        windows = speech_windows(
            speech, fps, count, ending=self.config.ending, offset_frames=self.config.offset_frames
        )  # fmt: skip
        return self.paint(self.locate(frames, fps), windows)

    @torch.inference_mode()
    def _draw(
        self, faces: Float32[ndarray, "B 3 96 96"], heard: Float32[ndarray, "B 1 80 16"]
    ) -> Float32[ndarray, "B 3 96 96"]:
        device = next(self._network.parameters()).device
        seen = torch.from_numpy(np.concatenate([without_lips(faces), faces], 1)).to(device)
        return self._network(torch.from_numpy(heard).to(device), seen).cpu().numpy()


class LipSync:
    """Footage of a person that can be made to say anything: a TalkingHead."""

    def __init__(self, footage: Footage, painter: LipPainter) -> None:
        self.fps = footage.fps
        self._footage, self._painter = footage, painter

    def frames_for(self, speech: Float[ndarray, "S"]) -> int:
        """Return how many frames `speak` yields."""
        return len(self._windows(speech))

    def speak(self, speech: Float[ndarray, "S"]) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """Say something.

        Args:
            speech: Mono samples in [-1, 1] at 16 kHz.

        Yields:
            RGB frames, 0..255; a video shorter than the speech is played on as `cycle` says, a longer one is cut off.

        Raises:
            UserError: No frame shows a face, or the footage or the speech is damaged.
        """
        return self._painter.paint(self._endless(), self._windows(speech))

    def _windows(self, speech: Float[ndarray, "S"]) -> SpeechWindows:
        config = self._painter.config
        return speech_windows(speech, self.fps, ending=config.ending, offset_frames=config.offset_frames)

    def _endless(self) -> Located:
        footage = self._footage
        if footage.still:
            frame = next(footage.forwards())
            ((_, box),) = self._painter.locate([frame], self.fps)
            yield from repeat((frame, box))
        boxes = []
        for frame, box in self._painter.locate(footage.forwards(), self.fps):
            boxes.append(box)
            yield frame, box
        last = len(boxes) - 1
        bounces = self._painter.config.cycle == "bounce" and last > 0
        for turn in count():
            if bounces and turn % 2 == 0:
                yield from zip(footage.backwards(last - 1), reversed(boxes[:last]), strict=False)
            elif bounces:
                yield from zip(footage.forwards(1), boxes[1:], strict=False)
            else:
                yield from zip(footage.forwards(), boxes, strict=False)


def _fixed(box: tuple[int, int, int, int], frame: UInt8[ndarray, "H W 3"]) -> Box:
    top, bottom, left, right = box
    if bottom > frame.shape[0] or right > frame.shape[1]:
        raise UserError(
            f"--box {top} {bottom} {left} {right} reaches beyond the frame of {frame.shape[1]} x {frame.shape[0]} px."
        )
    return np.array([left, top, right, bottom])
