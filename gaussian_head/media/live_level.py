"""How loud a voice is, told while it still speaks: the running twin of a whole clip's 95th percentile.

A clip's loud level needs the clip. A stream has heard only its past, so it takes another estimator, always the same
one: the percentile of a histogram of what it has heard so far, in which old steps fade and quiet ones count little, so
that a pause, however long, hardly makes the voice's level sink to the room's.
"""

from __future__ import annotations

import numpy as np

LOUD_PERCENTILE = 95
STEP_HZ = 100
MEMORY_S = 60.0
"""Seconds of speech after which what was heard counts 1 / e."""
QUIET_DB = 25.0
"""A step so far below the loud level is rather a pause than the voice ..."""
QUIET_WEIGHT = 0.02
"""... and counts only so much: a level that was thought far too high is corrected, but in a minute."""
PRIOR_STEPS = 5
"""The level assumed at first counts like so many steps."""
LOWEST_DB, HIGHEST_DB, BIN_DB = -120.0, 60.0, 0.25


class LiveLevel:
    """The loud level of what was heard so far, dB; its memory does not grow."""

    def __init__(self, assumed_db: float, quietest_db: float) -> None:
        """Begin to listen.

        Args:
            assumed_db: The loud level while nothing was heard.
            quietest_db: What is below tells nothing of a voice.
        """
        self._quietest_db = quietest_db
        self._mass = np.zeros(round((HIGHEST_DB - LOWEST_DB) / BIN_DB))
        self._mass[self._bin(assumed_db)] = PRIOR_STEPS
        self.loud_db = assumed_db
        """The estimate after the last step heard."""

    def hear(self, level_db: float) -> float:
        """Take one more step, a hundredth of a second.

        Returns:
            The loud level, dB.
        """
        if level_db >= self._quietest_db:
            weight = 1.0 if level_db > self.loud_db - QUIET_DB else QUIET_WEIGHT
            self._mass *= 1 - weight / (MEMORY_S * STEP_HZ)
            self._mass[self._bin(level_db)] += weight
            below = np.cumsum(self._mass)
            wanted = LOUD_PERCENTILE / 100 * below[-1]
            k = int(np.searchsorted(below, wanted))
            self.loud_db = LOWEST_DB + BIN_DB * (k + 1 - float((below[k] - wanted) / self._mass[k]))
        return self.loud_db

    @staticmethod
    def _bin(level_db: float) -> int:
        last = round((HIGHEST_DB - LOWEST_DB) / BIN_DB) - 1
        return min(max(int((level_db - LOWEST_DB) / BIN_DB), 0), last)
