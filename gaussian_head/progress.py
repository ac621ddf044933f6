"""Progress that people read: a bar with the time left, or a line now and then where the output is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
LINE_EVERY_S = 10.0


def track(items: Iterable[T], total: int, label: str, first: int = 0) -> Iterator[T]:
    """Pass items on and show how far they are, on stderr.

    Args:
        items: What is worked on, one after the other.
        total: How many there will be.
        label: What is being done.
        first: How many were done before, by an earlier run.
    """
    if not sys.stderr.isatty():
        yield from _lines(items, total, label, first)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(items, total=total, completed=first, description=label)


def _lines(items: Iterable[T], total: int, label: str, first: int) -> Iterator[T]:
    started = told = time.monotonic()
    for done, item in enumerate(items, first):
        now = time.monotonic()
        if done > first and now - told > LINE_EVERY_S:
            left = (now - started) / (done - first) * (total - done)
            sys.stderr.write(f"{label}: {done}/{total}, {left:.0f} s left\n")
            told = now
        yield item
