"""Stage `audio`: the video's sound as `aud.wav`, 16 kHz mono, exactly as long as the frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS, SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.audio import SILENT_PEAK, fit_length, load_audio, write_wav
from gaussian_head.media.video import resampled_frame_count


def extract_audio(video: Path, layout: SubjectLayout) -> dict[str, Any]:
    """Write `aud.wav`.

    Args:
        video: The raw video.
        layout: Where to.

    Returns:
        Facts: samples, rate_hz, peak, padded_samples (silence added at the end, negative: trimmed).

    Raises:
        FileNotFoundError: No such video.
        UserError: The video is unreadable or has no sound, or only silence.
    """
    speech = load_audio(video, SPEECH_HZ)
    peak = float(np.abs(speech).max(initial=0.0))
    if peak < SILENT_PEAK:
        raise UserError(f"{video} has a sound track that is silent; give a video in which the person can be heard.")
    samples = resampled_frame_count(video, VIDEO_FPS) * SPEECH_HZ // VIDEO_FPS
    write_wav(layout.speech, fit_length(speech, samples), SPEECH_HZ)
    return {"samples": samples, "rate_hz": SPEECH_HZ, "peak": round(peak, 4), "padded_samples": samples - len(speech)}
