"""Sound: any container in, float samples out, and wav files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing

logger = logging.getLogger(__name__)
SILENT_PEAK = 1e-4
"""A sound that nowhere exceeds this is silent."""
CLIPPED_LEVEL = 0.999
CLIPPED_SHARE = 1e-3
"""A sound with more samples than this share at CLIPPED_LEVEL or above is clipped."""


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
    import av

    from gaussian_head.media.video import open_container

    with open_container(path) as container:
        if not container.streams.audio:
            raise UserError(f"{path} has no sound; give a file with an audio track.")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        try:
            chunks = [f.to_ndarray().mean(0) for frame in container.decode(stream) for f in resampler.resample(frame)]
        except av.error.FFmpegError as error:
            raise UserError(f"{path}: its sound cannot be decoded ({error.strerror}); re-encode the file.") from error
        start = float((stream.start_time or 0) * stream.time_base)
        origin = start
        if container.streams.video:
            video = container.streams.video[0]
            origin = float((video.start_time or 0) * video.time_base)
        source_rate = stream.rate
    if not chunks:
        raise UserError(f"{path} has an audio track without a single sample; give a file with sound.")
    speech = _shift(np.concatenate(chunks).astype(np.float32), round((start - origin) * source_rate))
    return np.clip(resample(speech, source_rate, rate), -1, 1)


def warn_of_faults(speech: Float[ndarray, "S"], path: Path) -> None:
    """Say in the log that a sound is silent or clipped: it can be used, but not much can be heard from it.

    Args:
        speech: Samples in [-1, 1].
        path: Where they are from.
    """
    level = np.abs(speech)
    if level.max(initial=0.0) < SILENT_PEAK:
        logger.warning("%s is silent: the mouth will hardly move.", path)
    elif (share := float(np.mean(level >= CLIPPED_LEVEL))) > CLIPPED_SHARE:
        logger.warning("%s is clipped (%.1f %% of its samples): record it more softly.", path, 100 * share)


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


def _shift(speech: ndarray, samples: int) -> ndarray:
    """Delay by `samples` (pad in front); a negative number drops the beginning."""
    return np.pad(speech, (samples, 0)) if samples > 0 else speech[-samples:]
