"""Command: which public weights are here, what each unlocks, and where the missing ones are got and put.

python -m gaussian_head.prepare [--status]
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from gaussian_head.errors import configure_logging, run_command
from gaussian_head.networks.weights import WeightState, list_weights


@dataclass(frozen=True)
class PrepareOptions:
    """Say which public weights are present, missing or corrupt, and where a person gets them. Nothing is downloaded."""

    status: bool = False
    """One line for each file, without terms, sources and places."""
    debug: bool = False
    """Show the traceback of an error."""


def prepare(options: PrepareOptions) -> None:
    """Look and print; see `PrepareOptions`."""
    states = list_weights()
    for state in states:
        print(summary(state) if options.status else describe(state))
    present = sum(state.state == "present" for state in states)
    print(f"{present} of {len(states)} files are present; reports name a figure whose file is missing as unavailable.")


def summary(state: WeightState) -> str:
    """Say in a line what was found."""
    remark = f" ({state.remark})" if state.remark else ""
    return f"{state.state:8} {state.weights.file}: {state.weights.unlocks}{remark}"


def describe(state: WeightState) -> str:
    """Say all there is to say about a file."""
    weights = state.weights
    lines = [f"{weights.file}: {state.state}", f"  unlocks   {weights.unlocks}", f"  licence   {weights.licence}"]
    if weights.is_program:
        lines.append("  note      a torchscript archive is a program: only the published file is run, or one you name")
    if state.remark:
        lines.append(f"  remark    {state.remark}")
    if state.state == "present":
        lines.append(f"  found     {state.path.resolve()}")
    else:
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
