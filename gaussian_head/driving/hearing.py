"""What a head hears: audio features of any sound, and whether ready-made ones are those of its training.

An extractor's name says all that must agree: `mel`, `wavlm` (its last layer), `wavlm/9` (another layer), `wavlm/mix`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gaussian_head.data.layout import AUDIO_FEATURE_FILES, SPEECH_HZ, VIDEO_FPS, SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.mel import log_mel, mel_windows
from gaussian_head.networks.pretrained_speech import FAMILIES, load_encoder

PREFERRED = tuple(dict.fromkeys([*FAMILIES, "mel", *AUDIO_FEATURE_FILES]))
"""Which of a subject's features a head is trained with, where there are several."""


def hear(extractor: str, speech: Float[np.ndarray, "S"]) -> Float[np.ndarray, "T W C"]:
    """Turn speech (16 kHz) into audio features, 25 rows a second, as many as it takes to cover it.

    Raises:
        UserError: They cannot be computed here, or the encoder's weights are not on disk.
    """
    frames = math.ceil(len(speech) * VIDEO_FPS / SPEECH_HZ)
    if extractor == "mel":
        return mel_windows(log_mel(speech), frames)
    name, _, layers = extractor.partition("/")
    if name in FAMILIES:
        return load_encoder(name, layers or "last").features(speech, frames)
    raise UserError(f"this head hears {extractor} features, which are made outside; give --audio an x.npy of them.")


def refuse_others(path: Path, extractor: str) -> None:
    """Refuse an array whose `.json` says that it holds another extractor's features than those wanted.

    Args:
        path: The npy; an array without a description is not refused.
        extractor: What is wanted.

    Raises:
        UserError: It does.
    """
    found = described_extractor(path)
    if found is not None and found != extractor:
        raise UserError(
            f"{path} holds {found} features, but this head was trained with {extractor}; give it the sound itself, "
            f"or {extractor} features of it."
        )


def described_extractor(path: Path) -> str | None:
    """Return the extractor that the `.json` beside an array of features names; None where there is no such file."""
    try:
        document = json.loads(path.with_suffix(".json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    found = document.get("extractor") if isinstance(document, dict) else None
    return found if isinstance(found, str) else None


def choose_extractor(layout: SubjectLayout) -> str:
    """Return the audio features of a subject folder that a head is trained with: the first of PREFERRED that it has.

    Raises:
        FileNotFoundError: It has none.
    """
    for extractor in PREFERRED:
        path = layout.audio_features(extractor)
        if path.is_file():
            return described_extractor(path) or extractor
    raise FileNotFoundError(
        f"{layout.audio_features('mel')} is missing; run: python -m data_utils.process {layout.video}"
    )
