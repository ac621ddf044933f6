"""The guard against getting worse: this report against an earlier one, figure by figure."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import Entry, Figure
from gaussian_head.evaluation.report import REGIONS, Report, format_value

FLOAT_SLACK = 1e-9
"""30.3 - 30.0 is more than 0.3 in binary: a drop of just what is allowed is none."""


@dataclass(frozen=True)
class Limit:
    """How much worse one figure may get."""

    entry: str
    region: str
    amount: float
    """In the entry's unit, or a share of the earlier value."""
    relative: bool

    @property
    def name(self) -> str:
        """As on the command line: `psnr@mouth`."""
        return self.entry if self.region == "full" else f"{self.entry}@{self.region}"


@dataclass(frozen=True)
class Drop:
    """One figure that got worse by more than its limit, or is gone."""

    row: str
    limit: Limit
    message: str

    def __str__(self) -> str:
        return f"{self.row}: {self.limit.name}: {self.message}"


@dataclass(frozen=True)
class Guard:
    """An earlier report, and how far a new one may fall behind it."""

    before: Report
    limits: tuple[Limit, ...]

    @classmethod
    def load(cls, compare: Path | None, max_drop: str, known: Collection[str]) -> Guard | None:
        """Read what the command line names, before anything is measured; None where it names nothing.

        Args:
            compare: The earlier `report.json`.
            max_drop: See `parse_limits`.
            known: Entries that the new report may have.

        Raises:
            FileNotFoundError: The earlier report does not exist.
            UserError: It is damaged, a limit is not understood, or one of the two is missing.
        """
        if compare is None and not max_drop:
            return None
        if compare is None or not max_drop:
            raise UserError("--compare and --max-drop belong together; give both, or neither.")
        before = Report.load(compare)
        return cls(before, parse_limits(max_drop, {*before.entries, *known}))

    def check(self, report: Report) -> list[Drop]:
        """Return what got worse by more than it may; see `find_drops`."""
        return find_drops(report, self.before, self.limits)

    def unguarded(self) -> list[str]:
        """Return the limits that guard nothing, since the earlier report has no value for them."""
        return unguarded(self.before, self.limits)


def parse_limits(text: str, known: Collection[str]) -> tuple[Limit, ...]:
    """Read `--max-drop`: comma-separated `entry=amount`, `entry@region=amount`, the amount plain or in percent.

    Args:
        text: For example `psnr=0.3,psnr@mouth=0.5,liplmd=5%`.
        known: Entries of the two reports.

    Raises:
        UserError: The text is not of that form, or names an unknown entry or region, or one figure twice.
    """
    limits: dict[str, Limit] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, amount = (piece.strip() for piece in part.partition("="))
        entry, _, region = name.partition("@")
        region = region or "full"
        if entry not in known:
            raise UserError(f"--max-drop: {entry or part} is no entry of the two reports; they have: "
                            f"{', '.join(sorted(known))}.")  # fmt: skip
        if region not in REGIONS:
            raise UserError(f"--max-drop: {name}: the region is one of {', '.join(REGIONS)}, not {region}.")
        limit = Limit(entry, region, _amount(part, amount), amount.endswith("%"))
        if limit.name in limits:
            raise UserError(f"--max-drop names {limit.name} twice; give one limit.")
        limits[limit.name] = limit
    if not limits:
        raise UserError("--max-drop is empty; give for example: --max-drop psnr=0.3,ssim=1%")
    return tuple(limits.values())


def find_drops(now: Report, before: Report, limits: Collection[Limit]) -> list[Drop]:
    """Return every figure of the earlier report that got worse by more than its limit, or has no value now.

    Rows are compared by name. What got worse is the entry's direction: a lower value for `higher`, a higher one for
    `lower`, a larger absolute value for `zero`, any change for `neither`. A figure that is new now is no drop.
    """
    drops = []
    for row in before.rows:
        for limit in limits:
            earlier = before.figure(row, limit.entry, limit.region)
            if earlier is None or earlier.value is None:
                continue
            if message := _judge(now, row, limit, earlier, before.entries[limit.entry]):
                drops.append(Drop(row, limit, message))
    return drops


def unguarded(before: Report, limits: Collection[Limit]) -> list[str]:
    """Return the limits that guard nothing, since no row of the earlier report has a value for them."""
    return [
        limit.name
        for limit in limits
        if not any(
            (figure := before.figure(row, limit.entry, limit.region)) and figure.value is not None
            for row in before.rows
        )
    ]


def _judge(now: Report, row: str, limit: Limit, earlier: Figure, entry: Entry) -> str:
    """Say what is wrong with a figure; empty where nothing is."""
    was = f"{format_value(earlier.value, entry)}{f' {entry.unit}' if entry.unit else ''}"
    figure = now.figure(row, limit.entry, limit.region)
    if figure is None or figure.value is None:
        if row not in now.rows:
            return f"was {was}, the row is missing now"
        reason = now.rows[row].unavailable.get(limit.entry) or (figure.reason if figure else "")
        return f"was {was}, has no value now{f' ({reason})' if reason else ''}"
    worse = how_much_worse(figure.value, earlier.value, entry)
    allowed = limit.amount * abs(earlier.value) if limit.relative else limit.amount
    if worse <= allowed + FLOAT_SLACK * max(1.0, abs(earlier.value)):
        return ""
    told = f"{limit.amount * 100:g} %" if limit.relative else f"{limit.amount:g}"
    return f"was {was}, is {format_value(figure.value, entry)}: worse by {worse:.4g}, allowed {told}"


def how_much_worse(now: float, before: float, entry: Entry) -> float:
    """Return by how much a value got worse, in the entry's unit; negative where it got better."""
    if entry.better == "neither":
        return abs(now - before)
    if entry.better == "zero":
        return abs(now) - abs(before)
    return before - now if entry.better == "higher" else now - before


def _amount(part: str, amount: str) -> float:
    try:
        value = float(amount.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"--max-drop: {part!r}: expected entry=amount, the amount 0 or more, such as 0.3 or 5%.")
    return value / 100 if amount.endswith("%") else value
