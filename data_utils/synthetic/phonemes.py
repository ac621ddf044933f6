"""The sounds the procedural person makes, and what each does to the mouth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Phoneme:
    """One speech sound.

    Args:
        formants_hz: Centre frequencies of the first three resonances.
        voicing: Strength of the voice, 0..1.
        noise: Strength of the hiss, 0..1.
        noise_hz: Centre of the hiss.
        duration_s: Typical length.
        aperture: Gap of the lips, cm.
        jaw: Lowering of the jaw, cm.
        width: Mouth width relative to rest.
        protrusion: Rounding, 0..1.
        tuck: Lips pressed, or lower lip under the teeth, 0..1.
        tongue: Tongue tip, 0 low .. 1 at the teeth.
        closure: The lips must meet.
    """

    formants_hz: tuple[float, float, float]
    voicing: float
    noise: float
    noise_hz: float
    duration_s: float
    aperture: float
    jaw: float
    width: float
    protrusion: float = 0.0
    tuck: float = 0.0
    tongue: float = 0.0
    closure: bool = False


VOWELS = {
    "a": Phoneme((730.0, 1180.0, 2550.0), 1.0, 0.0, 0.0, 0.17, 1.45, 1.15, 1.00),
    "ae": Phoneme((660.0, 1700.0, 2420.0), 1.0, 0.0, 0.0, 0.16, 1.20, 0.95, 1.09),
    "e": Phoneme((500.0, 1880.0, 2500.0), 0.95, 0.0, 0.0, 0.14, 0.85, 0.65, 1.10, tongue=0.2),
    "i": Phoneme((300.0, 2250.0, 2950.0), 0.85, 0.0, 0.0, 0.14, 0.48, 0.35, 1.17, tongue=0.4),
    "o": Phoneme((480.0, 880.0, 2420.0), 0.95, 0.0, 0.0, 0.16, 0.85, 0.75, 0.80, protrusion=0.8),
    "u": Phoneme((320.0, 780.0, 2300.0), 0.85, 0.0, 0.0, 0.15, 0.42, 0.45, 0.70, protrusion=1.0),
    "schwa": Phoneme((500.0, 1450.0, 2480.0), 0.8, 0.0, 0.0, 0.10, 0.65, 0.50, 1.00),
}
CONSONANTS = {
    "m": Phoneme((260.0, 1100.0, 2200.0), 0.45, 0.0, 0.0, 0.09, 0.0, 0.22, 0.98, tuck=0.5, closure=True),
    "b": Phoneme((220.0, 900.0, 2200.0), 0.18, 0.0, 0.0, 0.09, 0.0, 0.25, 0.98, tuck=0.5, closure=True),
    "p": Phoneme((300.0, 900.0, 2200.0), 0.0, 0.02, 1200.0, 0.10, 0.0, 0.25, 0.97, tuck=0.6, closure=True),
    "n": Phoneme((270.0, 1500.0, 2500.0), 0.45, 0.0, 0.0, 0.08, 0.38, 0.30, 1.03, tongue=1.0),
    "l": Phoneme((360.0, 1300.0, 2700.0), 0.6, 0.0, 0.0, 0.08, 0.55, 0.42, 1.02, tongue=0.9),
    "r": Phoneme((380.0, 1150.0, 1650.0), 0.6, 0.0, 0.0, 0.08, 0.50, 0.40, 0.88, protrusion=0.45),
    "w": Phoneme((300.0, 650.0, 2200.0), 0.55, 0.0, 0.0, 0.09, 0.24, 0.28, 0.68, protrusion=1.0),
    "d": Phoneme((250.0, 1700.0, 2600.0), 0.25, 0.12, 3500.0, 0.07, 0.35, 0.25, 1.03, tongue=1.0),
    "t": Phoneme((300.0, 1700.0, 2600.0), 0.0, 0.35, 4000.0, 0.08, 0.32, 0.22, 1.03, tongue=1.0),
    "k": Phoneme((300.0, 1900.0, 2400.0), 0.0, 0.30, 2000.0, 0.08, 0.60, 0.42, 1.02),
    "s": Phoneme((300.0, 1700.0, 2600.0), 0.0, 0.75, 5600.0, 0.11, 0.26, 0.10, 1.10, tongue=0.7),
    "sh": Phoneme((300.0, 1800.0, 2500.0), 0.0, 0.80, 3000.0, 0.11, 0.42, 0.18, 0.84, protrusion=0.6, tongue=0.4),
    "f": Phoneme((300.0, 1400.0, 2500.0), 0.0, 0.35, 4800.0, 0.10, 0.10, 0.20, 1.02, tuck=0.9),
}
SILENCE = Phoneme((500.0, 1500.0, 2500.0), 0.0, 0.0, 0.0, 0.4, 0.0, 0.03, 1.0)
SHAPE_FIELDS = ("aperture", "jaw", "width", "protrusion", "tuck", "tongue")


@dataclass(frozen=True)
class Segment:
    """A phoneme in time."""

    phoneme: Phoneme
    start_s: float
    stop_s: float
    accent: float
    """Loudness and pitch of its syllable, about 1."""


def compose(rng: np.random.Generator, seconds: float) -> list[Segment]:
    """Make up an utterance: phrases of syllables with pauses between them, silent at both ends.

    Args:
        rng: Source of chance.
        seconds: Length to fill exactly.
    """
    segments: list[Segment] = []
    clock = 0.0

    def add(phoneme: Phoneme, length_s: float, accent: float = 1.0) -> None:
        nonlocal clock
        stop = min(clock + length_s, seconds)
        if stop > clock:
            segments.append(Segment(phoneme, clock, stop, accent))
        clock = stop

    add(SILENCE, 0.32)
    while clock < seconds - 0.6:
        for _ in range(int(rng.integers(4, 10))):
            if clock > seconds - 0.6:
                break
            accent = float(rng.uniform(0.8, 1.15))
            pace = float(rng.uniform(0.9, 1.3))
            if rng.random() < 0.92:
                consonant = CONSONANTS[str(rng.choice(list(CONSONANTS)))]
                add(consonant, consonant.duration_s * pace, accent)
            vowel = VOWELS[str(rng.choice(list(VOWELS)))]
            add(vowel, vowel.duration_s * pace * float(rng.uniform(0.9, 1.4)), accent)
        add(SILENCE, float(rng.uniform(0.28, 0.65)))
    add(SILENCE, seconds)
    return segments
