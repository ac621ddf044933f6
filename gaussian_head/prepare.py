"""Command: fetch public weights, and say which are here, what each unlocks, and what a person must get.

python -m gaussian_head.prepare [NAME ...] [--status]
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import tyro

from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.download import download
from gaussian_head.networks.weights import TABLE, WeightFile, WeightState, look_at, search_folders

TELL_EVERY_S = 1.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareOptions:
    """Fetch public weights into checkpoints/ (or $GAUSSIAN_HEAD_CHECKPOINTS). None is needed to train and to speak.

    Without names: what anyone may use. What is for non-commercial research, or whose terms are not stated, is fetched
    when it is named. The same command continues a broken download. What needs a registration is told, with its place.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Fetch these: names that --status shows."""
    status: bool = False
    """Fetch nothing: one line for each file, present, missing or corrupt, and what it unlocks."""
    debug: bool = False
    """Show the traceback of an error."""


def prepare(options: PrepareOptions) -> None:
    """Fetch and tell; see `PrepareOptions`.

    Raises:
        UserError: A name is unknown, or some of the files could not be fetched.
    """
    if unknown := [name for name in options.names if name not in TABLE]:
        raise UserError(f"{unknown[0]} is none of the files: {', '.join(TABLE)}.")
    states = [look_at(TABLE[name]) for name in options.names or TABLE]
    if options.status:
        print("\n".join(map(summary, states)))
        print(f"{sum(state.state == 'present' for state in states)} of {len(states)} files are present.")
        return
    lacking = [state for state in states if state.state != "present"]
    chosen = [state.weights for state in lacking if _may_fetch(state.weights, options.names)]
    for state in lacking:
        if state.weights not in chosen:
            print(describe(state))
    if chosen:
        size, place = sum(weights.size_mb for weights in chosen), search_folders()[0].resolve()
        print(f"fetching {', '.join(weights.name for weights in chosen)}: about {size} MB, into {place}", flush=True)
    failed = [weights for weights in chosen if not _fetched(weights)]
    if failed:
        print("\n" + "\n".join(describe(look_at(weights)) for weights in failed))
        names = " ".join(weights.name for weights in failed)
        raise UserError(f"not fetched: {names}; run this again to continue, or get them as told above.")
    present = sum(look_at(TABLE[name]).state == "present" for name in options.names or TABLE)
    print(f"{present} of {len(states)} files are present.")


def _may_fetch(weights: WeightFile, named: tuple[str, ...]) -> bool:
    return bool(weights.addresses) and (weights.users == "anyone" or weights.name in named)


def fetch(weights: WeightFile) -> None:
    """Download what a row of the table needs, and check it.

    Raises:
        UserError: It could not be fetched, or what came cannot be read as such a file.
    """
    known = tuple(filter(None, (weights.sha256, *weights.other_sha256)))
    for file, address in weights.addresses.items():
        place = search_folders()[0] / file
        if not (weights.repository and place.is_file()):
            download(address, place, known, _teller(file))
    state = look_at(weights)
    if state.state != "present":
        raise UserError(f"{state.path or state.place}: {state.remark or state.state}")


def _fetched(weights: WeightFile) -> bool:
    try:
        fetch(weights)
    except UserError as error:
        logger.error("%s: %s", weights.name, error)
        return False
    print(f"{weights.name}: present", flush=True)
    return True


def _teller(file: str) -> Callable[[int, int | None], None]:
    """Return what tells on stderr how much of a file is there and how long the rest will take."""
    began, first, told = time.monotonic(), None, 0.0

    def tell(done: int, total: int | None) -> None:
        nonlocal first, told
        now = time.monotonic()
        first = done if first is None else first
        if now - told < TELL_EVERY_S and done != total:
            return
        told, rate = now, (done - first) / max(now - began, 1e-3)
        left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
        whole = f" of {total / 1e6:.1f}" if total else ""
        end = "\r" if sys.stderr.isatty() and done != total else "\n"
        sys.stderr.write(f"  {file}: {done / 1e6:.1f}{whole} MB{left}   {end}")

    return tell


def summary(state: WeightState) -> str:
    """Say in a line what was found."""
    remark = f" ({state.remark})" if state.remark else ""
    return f"{state.state:8} {state.weights.name:22} {state.weights.file}: {state.weights.unlocks}{remark}"


def describe(state: WeightState) -> str:
    """Say all there is to say about a file."""
    weights = state.weights
    lines = [f"{weights.file}: {state.state}", f"  unlocks   {weights.unlocks}"]
    lines += [f"  licence   {weights.licence}", f"  users     {weights.users}", f"  size      {weights.size_mb} MB"]
    if weights.is_program:
        lines.append("  note      a torchscript archive is a program: only the published file is run, or one you name")
    if state.remark:
        lines.append(f"  remark    {state.remark}")
    if weights.addresses:
        lines.append(f"  fetch it  bash scripts/prepare.sh {weights.name}")
    lines += [f"  get it    {weights.source}", f"  put it    {state.place.resolve()}"]
    lines.append(f"  or name   {weights.variable}=/path/to/file")
    if weights.sha256:
        lines.append(f"  sha256    {weights.sha256}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    options = tyro.cli(PrepareOptions)
    run_command(lambda: prepare(options), debug=options.debug)


if __name__ == "__main__":
    main()
