"""Sound: any container in, float samples out, and wav files."""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing

logger = logging.getLogger(__name__)

SILENT_PEAK = 1e-4
"""A sound that never exceeds this is silent."""
CLIPPED_LEVEL, CLIPPED_SHARE = 0.999, 1e-3
"""A sound is clipped where more than this share of its samples reaches this level."""


def load_audio(path: Path, rate: int = 16_000) -> Float32[ndarray, "S"]:
    """Read the sound of any file PyAV can open, mixed to one channel.

    Sample 0 is the moment of the first video frame where the file has a picture, else the first sample of the sound.

    Args:
        path: A sound or video file.
        rate: Sample rate wanted, Hz.

    Returns:
        Samples in [-1, 1].

    Raises:
        FileNotFoundError: The file is missing.
        UserError: The file is empty, unreadable or has no sound.
    """
    return np.concatenate(list(read_audio(path, rate)))


def read_audio(path: Path, rate: int) -> Generator[Float32[ndarray, "S"], None, None]:
    """Read sound in blocks that follow each other, a second or less each; see `load_audio`."""
    import av
    import soxr

    from gaussian_head.media.video import open_container

    with open_container(path) as container:
        if not container.streams.audio:
            raise UserError(f"{path} has no sound; give a file with an audio track.")
        stream = container.streams.audio[0]
        start = float((stream.start_time or 0) * stream.time_base)
        origin = start
        if container.streams.video:
            video = container.streams.video[0]
            origin = float((video.start_time or 0) * video.time_base)
        delay = round((start - origin) * stream.rate)
        planar = av.AudioResampler(format="fltp")
        rated = soxr.ResampleStream(stream.rate, rate, 1, dtype="float32")
        decoded = 0

        def at_rate(block: ndarray, *, last: bool = False) -> ndarray:
            return np.clip(rated.resample_chunk(block, last=last) if rate != stream.rate else block, -1, 1)

        if delay > 0:
            yield at_rate(np.zeros(delay, np.float32))
        try:
            for frame in container.decode(stream):
                for part in planar.resample(frame):
                    block = part.to_ndarray().mean(0).astype(np.float32)
                    dropped = min(max(0, -delay - decoded), len(block))
                    decoded += len(block)
                    yield at_rate(np.ascontiguousarray(block[dropped:]))
        except av.error.FFmpegError as error:
            raise UserError(f"{path}: its sound cannot be decoded ({error.strerror}); re-encode the file.") from error
        if not decoded:
            raise UserError(f"{path} has an audio track without a single sample; give a file with sound.")
        yield at_rate(np.zeros(0, np.float32), last=True)


class SoundReader:
    """A file's sound, taken in pieces of any length; behind its end there is silence."""

    def __init__(self, path: Path, rate: int) -> None:
        """Open the file; arguments and errors as of `load_audio`."""
        self._blocks = read_audio(path, rate)
        self._held = next(self._blocks)

    def take(self, samples: int) -> Float32[ndarray, "S"]:
        """Return the next samples, in [-1, 1]."""
        parts = [self._held]
        while sum(map(len, parts)) < samples and (block := next(self._blocks, None)) is not None:
            parts.append(block)
        found = np.concatenate(parts)
        self._held = found[samples:]
        return fit_length(found, samples)

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()


def warn_of_faults(speech: Float[ndarray, "S"], path: Path) -> None:
    """Log that a sound is silent or clipped: it can be used, but the mouth makes little of it.

    Args:
        speech: Samples in [-1, 1].
        path: The file they are from.
    """
    level = np.abs(speech)
    if level.max(initial=0.0) < SILENT_PEAK:
        logger.warning("%s is silent: the mouth stays closed.", path)
    elif (share := float(np.mean(level >= CLIPPED_LEVEL))) > CLIPPED_SHARE:
        logger.warning("%s is clipped (%.1f %% of its samples): record it at a lower level.", path, 100 * share)


def resample(speech: Float[ndarray, "S"], source_rate: int, rate: int) -> Float32[ndarray, "R"]:
    """Change the sample rate (band-limited)."""
    if source_rate == rate:
        return np.asarray(speech, np.float32)
    import soxr

    return soxr.resample(np.asarray(speech, np.float32), source_rate, rate).astype(np.float32)


def write_wav(path: Path, speech: Float[ndarray, "S"], rate: int) -> None:
    """Write 16-bit PCM wav atomically; samples beyond [-1, 1] are clipped."""
    import soundfile

    with replacing(path) as temporary:
        soundfile.write(temporary, np.clip(speech, -1, 1), rate, subtype="PCM_16", format="WAV")


def fit_length(speech: Float[ndarray, "S"], samples: int) -> Float[ndarray, "R"]:
    """Trim at the end, or pad with silence, to exactly `samples`."""
    return np.pad(speech[:samples], (0, max(0, samples - len(speech))))
