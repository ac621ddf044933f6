"""Training windows from a folder of videos: `<name>.mp4` or `.wav`, each beside a `<name>.mat` of its coefficients.

`python -m data_utils.coefficients NAME.mp4 --out NAME.mat` writes the latter. Sub-folders are speakers, if there are
any; else every clip is one of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.audio import load_audio
from gaussian_head.media.mat import read_deep3d, read_mat, read_sadtalker
from gaussian_head.media.time_bases import SPEECH_HZ, Rate, mel_starts, window_rows
from gaussian_head.media.video import probe_video
from gaussian_head.media.wav2lip_mel import wav2lip_mel
from gaussian_head.oneshot.audio2coeff.streams import retimed

logger = logging.getLogger(__name__)
SOUNDS, VIDEOS = (".wav", ".flac", ".m4a"), (".mp4", ".mov", ".mkv", ".webm")
MISMATCH_S = 0.5
"""Sound and coefficients whose lengths differ by more do not belong together."""
_HELD = 256
"""Clips kept in memory."""


@dataclass(frozen=True)
class Cut:
    """How windows are cut."""

    fps: float | int
    """Frames a second of the network; clips at another rate are re-timed."""
    frames: int
    """Of a window."""
    bands: int = 80
    """Of the mel."""
    columns: int = 16
    """Mel columns of a frame."""
    offset_frames: int = 0
    """Frames that these begin after their frame."""
    stride: int = 1
    """Frames from one possible window to the next."""
    margin: int = 0
    """Frames left out at a clip's end."""

    def starts(self, frames: int) -> int:
        """Return how many windows a clip of that many frames has."""
        return max(0, (frames - self.margin - self.frames) // self.stride + 1)


@dataclass(frozen=True)
class Clip:
    """One video at the network's rate."""

    index: int
    """Among the folder's."""
    coefficients: FaceCoefficients
    mel: Float32[ndarray, "J M"]
    speaker: int
    """A number for each speaker, from 0."""


@dataclass(frozen=True)
class Window:
    """Some frames of a clip."""

    clip: Clip
    coefficients: FaceCoefficients
    mels: Float32[ndarray, "T M W"]
    """What is heard in each frame, bands first, -4..4."""


class Clips:
    """The clips of a folder."""

    def __init__(self, folder: Path, cut: Cut, wav_fps: float | int = 25.0, *, with_crop: bool = False) -> None:
        """Look through a folder. Coefficients are read at once, sounds when they are needed.

        Args:
            folder: Searched with all its sub-folders.
            cut: How windows are cut.
            wav_fps: Frames a second of coefficients that have a sound and no video beside them.
            with_crop: Whether the crop must be known.

        Raises:
            UserError: A file lacks its partner or is broken, or no clip is as long as a window; the file is named.
        """
        self.cut, self._wav_fps, self._with_crop = cut, wav_fps, with_crop
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; give one of videos, each beside a .mat of its coefficients.")
        tables = sorted(folder.rglob("*.mat"))
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in (*VIDEOS, *SOUNDS) and not path.with_suffix(".mat").is_file():
                raise UserError(
                    f"{path} has no {path.stem}.mat beside it; make it with: python -m data_utils.coefficients {path}"
                )
        if not tables:
            raise UserError(f"{folder} holds no .mat of coefficients; make them by: python -m data_utils.coefficients")
        names = sorted({self._speaker(folder, path) for path in tables})
        counts = []
        for path in tables:
            frames = len(_read_coefficients(path, with_crop=with_crop))
            counts.append(cut.starts(_frames_at(frames, self._rate(path), cut.fps)))
        self.paths = [path for path, count in zip(tables, counts, strict=True) if count]
        if short := len(tables) - len(self.paths):
            logger.warning("%s: %d of %d clips are shorter than a window (%d frames at %g/s) and not used.",
                           folder, short, len(tables), cut.frames + cut.margin, cut.fps)  # fmt: skip
        if not self.paths:
            raise UserError(
                f"{folder}: no clip is as long as a window ({cut.frames + cut.margin} frames at {cut.fps:g} a second); "
                "add longer ones."
            )
        self._speakers = [names.index(self._speaker(folder, path)) for path in self.paths]
        self._shares = np.array([count for count in counts if count], np.float64)
        self._shares /= self._shares.sum()
        self.clip = lru_cache(_HELD)(self._read)

    def draw(self, rng: np.random.Generator) -> Window:
        """Return a window; every one is as likely.

        Raises:
            UserError: Its clip's sound cannot be read, or is not as long as its coefficients.
        """
        index = int(rng.choice(len(self.paths), p=self._shares))
        clip = self.clip(index)
        frames = len(clip.coefficients)
        start = self.cut.stride * int(rng.integers(self.cut.starts(frames)))
        columns = mel_starts(self.cut.frames, self.cut.fps, self.cut.offset_frames + start)
        mels = clip.mel[window_rows(columns, self.cut.columns, len(clip.mel))].swapaxes(1, 2)
        return Window(clip, clip.coefficients.take(slice(start, start + self.cut.frames)), mels)

    def _read(self, index: int) -> Clip:
        path = self.paths[index]
        media = _beside(path, (*SOUNDS, *VIDEOS))
        speech, rate = load_audio(media), self._rate(path)
        coefficients = _read_coefficients(path, with_crop=self._with_crop)
        seconds, heard_s = len(coefficients) / rate, len(speech) / SPEECH_HZ
        if abs(seconds - heard_s) > MISMATCH_S:
            raise UserError(
                f"{path} lasts {seconds:.2f} s ({len(coefficients)} frames at {rate:g} a second), its "
                f"sound {media.name} {heard_s:.2f} s; they must agree to {MISMATCH_S} s: extract them of this clip."
            )
        mel = wav2lip_mel(speech, self.cut.bands)
        return Clip(index, _at_rate(coefficients, rate, self.cut.fps), mel, self._speakers[index])

    def _rate(self, path: Path) -> Rate:
        video = next((found for suffix in VIDEOS if (found := path.with_suffix(suffix)).is_file()), None)
        return self._wav_fps if video is None else probe_video(video).fps

    @staticmethod
    def _speaker(folder: Path, path: Path) -> str:
        return path.stem if path.parent == folder else path.relative_to(folder).parts[0]


def _beside(path: Path, suffixes: tuple[str, ...]) -> Path:
    for suffix in suffixes:
        if path.with_suffix(suffix).is_file():
            return path.with_suffix(suffix)
    raise UserError(f"{path} has no sound beside it; put {path.stem}.mp4 or {path.stem}.wav there.")


def _read_coefficients(path: Path, *, with_crop: bool) -> FaceCoefficients:
    """Read either layout that data_utils.coefficients writes."""
    _beside(path, (*SOUNDS, *VIDEOS))
    if "coeff_3dmm" in read_mat(path):
        coefficients = FaceCoefficients.from_sadtalker(*read_sadtalker(path))
    else:
        coefficients = FaceCoefficients.from_deep3d(*read_deep3d(path))
    if with_crop and coefficients.crop is None:
        raise UserError(f"{path} holds no crop (70 numbers a frame); write it again with --layout deep3d.")
    return coefficients


def _frames_at(frames: int, rate: Rate, fps: Rate) -> int:
    return frames if rate == fps else int(frames * fps / rate)


def _at_rate(coefficients: FaceCoefficients, rate: Rate, fps: Rate) -> FaceCoefficients:
    if rate == fps:
        return coefficients
    rows = coefficients.vector() if coefficients.crop is None else coefficients.pirender()
    rows = np.stack(list(retimed(iter(rows), rate, fps, _frames_at(len(rows), rate, fps))))
    return FaceCoefficients.from_vector(rows[:, :257], None if coefficients.crop is None else rows[:, 257:])
