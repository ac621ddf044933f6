"""WER: share of the words said that a lip reader gets wrong (specs/metrics.md, section 10).

No lip reader comes with the project. What was read is given as a transcript, or a caller brings a `LipReader`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from gaussian_head.evaluation.metric import ClipFacts, Entry, Figure, Metric, Pair, Unavailable


class LipReader(Protocol):
    """Reads one clip: frames in, words out."""

    def see(self, rgb: UInt8[np.ndarray, "H W 3"]) -> None:
        """Take the next frame, RGB 0..255."""

    def words(self) -> str:
        """Return what was said, after the last frame, separated by blanks."""


class WordErrorRate(Metric):
    """Compares what was read from the picture's lips with what was said.

    What was said is the truth's transcript. What was read is the picture's, or what `open_reader` reads. Words are
    compared as they are written: case and punctuation count.
    """

    entries: ClassVar = (
        Entry("wer", "WER", "", "lower", frozenset({"transcript"}), "jiwer's default, (S + D + I) / N words "
              "(specs/metrics.md, 10); the lip reader is the caller's, Diffused Heads' is private"),
    )  # fmt: skip
    open_reader: ClassVar[Callable[[], LipReader] | None] = None

    def __init__(self, clip: ClipFacts) -> None:
        """Take the transcripts, and the lip reader if there is one.

        Raises:
            Unavailable: A transcript is missing, nothing was said, or jiwer is not installed.
        """
        super().__init__(clip)
        said = clip.truth.transcript
        if said is None:
            raise Unavailable("needs the truth's transcript: what is said")
        if not said.split():
            raise Unavailable("the truth's transcript has no words")
        if clip.picture.transcript is None and self.open_reader is None:
            raise Unavailable("needs the picture's transcript: what a lip reader reads from it")
        _import_jiwer()
        self._said, self._read = said, clip.picture.transcript
        self._reader = self.open_reader() if self._read is None else None
        self._frames = 0

    @classmethod
    def reading_with(cls, open_reader: Callable[[], LipReader]) -> type[WordErrorRate]:
        """Return this metric with a lip reader, opened anew for each clip that has no transcript of the picture."""
        return type(cls.__name__, (cls,), {"open_reader": staticmethod(open_reader)})

    def update(self, pair: Pair) -> None:
        """Show the frame to the lip reader."""
        self._frames += 1
        if self._reader is not None:
            self._reader.see(pair.picture.rgb)

    def finish(self) -> list[Figure]:
        """Compare the words."""
        if self._reader is not None:
            self._read = self._reader.words()
        self._counts = count_word_errors(self._said, self._read)
        return [Figure("wer", "full", pool_word_error_rate(self._counts[None]), self._frames)]

    def features(self) -> dict[str, Float[np.ndarray, "1 2"]]:
        """Return the clip's wrong words and words, for `pool_word_error_rate` over a corpus."""
        return {"wer": self._counts[None]}


def count_word_errors(said: str, read: str) -> Float[np.ndarray, "2"]:
    """Return the substitutions, deletions and insertions together, and the number of words said."""
    found = _import_jiwer().process_words(said, read)
    wrong = found.substitutions + found.deletions + found.insertions
    return np.array([wrong, found.hits + found.substitutions + found.deletions], np.float64)


def pool_word_error_rate(counts: Float[np.ndarray, "M 2"]) -> float:
    """Return the word error rate of a corpus: wrong words of all clips over words of all clips; may exceed 1.

    Args:
        counts: (wrong, said) of each clip, from `count_word_errors`.

    Raises:
        ValueError: Nothing was said in any of them.
    """
    wrong, said = counts.sum(0)
    if not said:
        raise ValueError("pool_word_error_rate: the word error rate needs at least one word said, got 0.")
    return float(wrong / said)


def _import_jiwer():  # noqa: ANN202 -- an optional module
    try:
        import jiwer
    except ImportError as error:
        raise Unavailable("needs jiwer; install it: pip install -e '.[evaluate]'") from error
    return jiwer
