"""Training windows of Wav2Lip: fifths of a second of faces and speech, out of folders of clips.

A clip is a folder of numbered face crops at 25 frames a second (0.jpg, 1.jpg ...) and audio.wav, as
`gaussian_head.oneshot.wav2lip.prepare` and Wav2Lip's own preprocess.py leave them. Source: specs/one_shot.md 6.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Int
from numpy import ndarray
from torch import Tensor

from gaussian_head.errors import UserError
from gaussian_head.media.audio import load_audio
from gaussian_head.media.image import read_rgb
from gaussian_head.media.time_bases import SPEECH_HZ, mel_starts, window_rows
from gaussian_head.media.wav2lip_mel import wav2lip_mel
from gaussian_head.networks.wav2lip import SIDE
from gaussian_head.networks.wav2lip_blocks import MEL_COLUMNS
from gaussian_head.networks.wav2lip_expert import FRAMES
from gaussian_head.oneshot.wav2lip.faces import to_network, without_lips

CLIP_FPS = 25
SOUND = "audio.wav"
SHORTEST_CLIP = 3 * FRAMES + 1
"""Frames."""
HELD_OUT_EVERY = 20
"""Each so many-th clip is kept for judging (the first one, of fewer)."""
_OPEN_CLIPS = 2048
_TRIES = 200


def numbered(frame: int) -> str:
    """Return the name of a frame's face crop."""
    return f"{frame}.jpg"


@dataclass(frozen=True)
class ExpertBatch:
    """What the expert learns from."""

    speech: Float32[Tensor, "B 1 80 16"]
    clips: Float32[Tensor, "B 3 5 96 96"]
    """Whole faces, BGR in [0, 1]."""
    together: Float32[Tensor, "B"]
    """1 where speech and faces are of one moment, 0 where the faces are of another moment of the clip."""


@dataclass(frozen=True)
class LipsBatch:
    """What the generator learns from."""

    heard: Float32[Tensor, "B 5 1 80 16"]
    """Of each frame."""
    speech: Float32[Tensor, "B 1 80 16"]
    """Of all five frames, for the expert."""
    faces: Float32[Tensor, "B 6 5 96 96"]
    """The frames without lips, and five other frames of the clip."""
    truth: Float32[Tensor, "B 3 5 96 96"]


@dataclass(frozen=True)
class _Clip:
    mel: Float32[ndarray, "J 80"]
    starts: Int[ndarray, "K"]
    """Frames at which a window can begin: its faces and its speech are there."""


class TrainingClips:
    """Draws training windows; the same ones for the same random generator."""

    def __init__(self, folders: Sequence[Path], offset_frames: int = 0) -> None:
        """Take hold of clips; they are read when they are drawn.

        Args:
            folders: Of the clips.
            offset_frames: Frames that what a single frame hears begins after it; Wav2Lip was trained with -1 and is
                used with 0.
        """
        self._folders, self._offset = list(folders), offset_frames
        self._open = lru_cache(_OPEN_CLIPS)(self._read)
        self._readers = ThreadPoolExecutor(4)

    def expert_batch(self, rng: np.random.Generator, size: int) -> ExpertBatch:
        """Draw windows; of about half of them the faces are of another moment than the speech."""
        drawn = [self._draw(rng) for _ in range(size)]
        together = rng.random(size) < 0.5
        clips = self._faces([(folder, start if same else other)
                             for (folder, start, other), same in zip(drawn, together, strict=True)])  # fmt: skip
        speech = np.stack([self._speech(folder, start) for folder, start, _ in drawn])
        return ExpertBatch(torch.from_numpy(speech), clips, torch.from_numpy(np.float32(together)))

    def lips_batch(self, rng: np.random.Generator, size: int) -> LipsBatch:
        """Draw windows."""
        drawn = [self._draw(rng) for _ in range(size)]
        truth = self._faces([(folder, start) for folder, start, _ in drawn])
        others = self._faces([(folder, other) for folder, _, other in drawn])
        hidden = torch.from_numpy(without_lips(truth.transpose(1, 2).numpy())).transpose(1, 2)
        heard = [[self._speech(folder, start + k, self._offset) for k in range(FRAMES)] for folder, start, _ in drawn]
        speech = [self._speech(folder, start) for folder, start, _ in drawn]
        return LipsBatch(
            torch.from_numpy(np.array(heard)), torch.from_numpy(np.array(speech)), torch.cat([hidden, others], 1), truth
        )  # fmt: skip

    def _draw(self, rng: np.random.Generator) -> tuple[Path, int, int]:
        """Draw a clip, where its window starts, and where another window of it does."""
        for _ in range(_TRIES):
            folder = self._folders[rng.integers(len(self._folders))]
            starts = self._open(folder).starts
            if len(starts) > 1:
                start, other = rng.choice(starts, 2, replace=False)
                return folder, int(start), int(other)
        raise UserError(
            f"{_TRIES} clips drawn from {self._folders[0].parent} had no two windows of {FRAMES} faces in a row with "
            "sound; make clips with: python -m gaussian_head.oneshot.wav2lip.prepare VIDEOS OUT"
        )

    def _read(self, folder: Path) -> _Clip:
        there = {int(file.stem) for file in folder.glob("*.jpg") if file.stem.isdigit()}
        mel = wav2lip_mel(load_audio(folder / SOUND, SPEECH_HZ), padding="reflect")
        last = len(mel) - MEL_COLUMNS
        heard = mel_starts(max(there, default=0) + FRAMES, CLIP_FPS).tolist()

        def usable(start: int) -> bool:
            first, final = start + min(0, self._offset), start + FRAMES - 1 + max(0, self._offset)
            whole = first >= 0 and final < len(heard) and heard[final] <= last
            return whole and all(start + k in there for k in range(FRAMES))

        return _Clip(mel, np.array([start for start in sorted(there) if usable(start)], np.int64))

    def _speech(self, folder: Path, frame: int, offset: int = 0) -> Float32[ndarray, "1 80 16"]:
        mel = self._open(folder).mel
        start = mel_starts(frame + 1, CLIP_FPS, offset)[-1:]
        return mel[window_rows(start, MEL_COLUMNS, len(mel), "flush")[0]].T[None]

    def _faces(self, windows: list[tuple[Path, int]]) -> Float32[Tensor, "B 3 5 96 96"]:
        files = [folder / numbered(start + k) for folder, start in windows for k in range(FRAMES)]
        faces = np.stack(list(self._readers.map(_read_face, files)))
        return torch.from_numpy(faces.reshape(len(windows), FRAMES, 3, SIDE, SIDE)).transpose(1, 2)


def find_clips(root: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders of clips to learn from and of those to judge by.

    Raises:
        UserError: There are none.
    """
    folders = sorted(
        sound.parent for sound in root.rglob(SOUND)
        if not any(part.startswith(".") for part in sound.relative_to(root).parts)  # left by a run that was killed
        and sum(1 for _ in sound.parent.glob("*.jpg")) >= SHORTEST_CLIP
    )  # fmt: skip
    if not folders:
        raise UserError(
            f"{root} holds no clips of {SHORTEST_CLIP} faces or more; make some with: "
            "python -m gaussian_head.oneshot.wav2lip.prepare VIDEOS OUT"
        )
    learned = [folder for k, folder in enumerate(folders) if k % HELD_OUT_EVERY]
    return learned or folders, folders[::HELD_OUT_EVERY]


def _read_face(file: Path) -> Float32[ndarray, "3 96 96"]:
    return to_network(cv2.resize(read_rgb(file), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
