"""What the challenge gives, and the folder in which the steps hand files over (specs/vico.md 1.1, one_shot.md 7).

A clip is `<uuid>.speaker`: `audios/<uuid>.wav`, and `first_frames/<uuid>.speaker.png` (or .jpg), or in training data
the first picture of `videos/<uuid>.speaker.mp4`. A table (`data.csv`) with a column `uuid` says which clips are meant.
"""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jaxtyping import Float32, UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.audio import load_audio
from gaussian_head.media.image import read_rgb
from gaussian_head.media.time_bases import SPEECH_HZ, frames_in_speech
from gaussian_head.media.video import read_frames

FPS = 30
ROLE = "speaker"
PICTURES = (".png", ".jpg", ".jpeg")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """One sound and one first frame."""

    uuid: str
    audio: Path
    picture: Path
    """A picture, or a video whose first one counts."""

    @property
    def name(self) -> str:
        """Return the name of its files, without suffix."""
        return f"{self.uuid}.{ROLE}"

    def speech(self) -> Float32[ndarray, "S"]:
        """Read the sound: mono samples in [-1, 1] at 16 kHz.

        Raises:
            FileNotFoundError: It is missing.
            UserError: It is unreadable.
        """
        return load_audio(self.audio, SPEECH_HZ)

    @cached_property
    def frames(self) -> int:
        """Return how many frames the clip has: as many as its sound covers, one at least."""
        return max(1, frames_in_speech(len(self.speech()), FPS))

    def first_frame(self) -> UInt8[ndarray, "H W 3"]:
        """Read the first frame, RGB.

        Raises:
            FileNotFoundError: It is missing.
            UserError: It is unreadable.
        """
        if self.picture.suffix.lower() in PICTURES:
            return read_rgb(self.picture)
        return next(picture for _, picture in read_frames(self.picture))


def find_clips(data: Path) -> list[Clip]:
    """List the clips of a challenge folder, by uuid; those without a first frame are named by the step that misses it.

    Args:
        data: Holds `audios/`, and `first_frames/` or `videos/`, and perhaps `data.csv` (or one other table).

    Raises:
        UserError: It holds no sound, or a table without a column `uuid`, or more than one table and no data.csv.
    """
    audios = {path.stem: path for path in sorted((data / "audios").glob("*.wav"))}
    if not audios:
        raise UserError(f"{data / 'audios'} holds no .wav file; give a folder with audios/ and first_frames/.")
    wanted = _read_table(data)
    uuids = sorted(audios) if wanted is None else wanted
    if skipped := len(set(audios) - set(uuids)):
        logger.info("%d sounds are not in the table and are left out.", skipped)
    return [Clip(uuid, data / "audios" / f"{uuid}.wav", _picture(data, uuid)) for uuid in uuids]


def _read_table(data: Path) -> list[str] | None:
    tables = [data / "data.csv"] if (data / "data.csv").is_file() else sorted(data.glob("*.csv"))
    if not tables:
        return None
    if len(tables) > 1:
        raise UserError(f"{data} holds {len(tables)} tables ({', '.join(t.name for t in tables)}); name one data.csv.")
    with tables[0].open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    uuids = [(row.get("uuid") or "").strip() for row in rows]
    if not uuids or not all(uuids):
        raise UserError(f"{tables[0]} must have a column uuid with a value in every row.")
    if broken := next((uuid for uuid in uuids if Path(uuid).name != uuid), None):
        raise UserError(f"{tables[0]}: uuid {broken!r} must be the name of a file in audios/, without .wav.")
    return sorted(set(uuids))


def _picture(data: Path, uuid: str) -> Path:
    names = (f"{uuid}.{ROLE}", uuid)
    frames = [data / "first_frames" / f"{name}{suffix}" for name in names for suffix in PICTURES]
    videos = [data / "videos" / f"{name}.mp4" for name in names]
    return next((path for path in (*frames, *videos) if path.is_file()), frames[0])


@dataclass(frozen=True)
class Handover:
    """Where the steps of one run put their files: OUT."""

    root: Path
    method: int

    def first_frame(self, clip: Clip) -> Path:
        """Return the first frame as the renderer takes it."""
        return self.root / "first_frames" / f"{clip.name}.png"

    def keypoints(self, stage: str, clip: Clip) -> Path:
        """Return a text of 136 numbers a frame: 68 x, y in px, or -1 where no face was found.

        Args:
            stage: `first_frames` or `wav2lip_gan`.
            clip: The clip.
        """
        return self.root / "keypoints" / stage / f"{clip.name}.txt"

    def coefficients(self, stage: str, clip: Clip) -> Path:
        """Return `coeff` and `transform_params` of every frame.

        Args:
            stage: `first_frames`, `audio` (predicted), `wav2lip_gan`, or that of the result, see `result`.
            clip: The clip.
        """
        return self.root / "recons" / stage / f"{clip.name}.mat"

    def video(self, stage: str, clip: Clip) -> Path:
        """Return a video without sound.

        Args:
            stage: `audio`, `wav2lip_gan`, or that of the result, see `result`.
            clip: The clip.
        """
        return self.root / "videos" / stage / f"{clip.name}.mp4"

    @property
    def result(self) -> str:
        """Return the stage of the last rendering."""
        return f"method{self.method}"

    def submission(self, clip: Clip) -> Path:
        """Return the video with sound."""
        return self.root / "submissions" / self.result / f"{clip.name}.mp4"
