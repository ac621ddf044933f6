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
"""Which of a subject's features a head is trained with, where several were made here."""


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
    """Return the audio features of a subject folder that a head is trained with.

    That is the first of PREFERRED that was made here, as its description tells: new sound can be heard alike.
    Without any, mel; without mel, the first array there is.

    Raises:
        FileNotFoundError: There is none.
    """
    found = [name for name in PREFERRED if layout.audio_features(name).is_file()]
    told = [described_extractor(layout.audio_features(name)) for name in found]
    made_here = [extractor for name, extractor in zip(found, told, strict=True) if _is_of(extractor, name)]
    if found:
        return next(iter(made_here), "mel" if "mel" in found else found[0])
    raise FileNotFoundError(
        f"{layout.audio_features('mel')} is missing; run: python -m data_utils.process {layout.video}"
    )


def _is_of(extractor: str | None, name: str) -> bool:
    return extractor is not None and extractor.partition("/")[0] == name
