"""Command: check a subject folder, ours or another tool's, before an hour of training is spent on it.

python -m data_utils.check data/<ID>

Prints a line for each fault and a summary. Exit status: 1 if training would fail, 0 otherwise, warnings or not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from data_utils.folder_findings import Findings
from data_utils.folder_pictures import check_parsing, check_pictures
from data_utils.folder_tables import (
    check_action_units,
    check_features,
    check_landmarks,
    check_poses,
    check_sound,
    check_track,
    note_missing,
)
from data_utils.process import show_progress
from data_utils.stage import Progress, no_progress
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import configure_logging, run_command

ORDER = (
    "frames", "size", "fps", "splits", "camera", "features", "sound", "landmarks", "action units", "parsing",
    "optional, missing",
)  # fmt: skip
"""Lines of the summary."""


@dataclass(frozen=True)
class CheckOptions:
    """Name every fault of a subject folder: file, what was expected, what was found, what to do.

    The exit status is 1 if training would fail, else 0.
    """

    data: Annotated[Path, tyro.conf.Positional]
    """The folder data/<ID>, made here or by TalkingGaussian, ER-NeRF, RAD-NeRF, AD-NeRF or their relatives."""
    debug: bool = False
    """Show the traceback of an error."""


def check(layout: SubjectLayout, progress: Progress = no_progress) -> Findings:
    """Look at everything in the folder that training or its commands read.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not layout.root.is_dir():
        raise FileNotFoundError(
            f"{layout.root} is no subject folder; make one with: python -m data_utils.process VIDEO"
        )
    found = Findings(layout)
    check_poses(found)
    check_pictures(found, progress)
    check_landmarks(found)
    check_parsing(found)
    check_action_units(found)
    check_features(found)
    check_sound(found)
    check_track(found)
    note_missing(found)
    return found


def fails(found: Findings) -> bool:
    """Tell whether training would fail."""
    return any(fault.severity == "error" for fault in found.faults)


def describe(found: Findings) -> str:
    """Return the faults, errors first, and the summary as a table."""
    faults = sorted(found.faults, key=lambda fault: fault.severity)
    errors = sum(fault.severity == "error" for fault in faults)
    lines = [str(fault) for fault in faults]
    width = max(map(len, ORDER))
    lines += [f"{name:<{width}}  {found.summary[name]}" for name in ORDER if name in found.summary]
    verdict = "training would fail" if errors else "training can begin"
    lines.append(f"{found.layout.root}: errors {errors}, warnings {len(faults) - errors}; {verdict}")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(CheckOptions)
    configure_logging()

    def body() -> None:
        found = check(SubjectLayout(options.data), show_progress)
        print(describe(found))
        sys.exit(int(fails(found)))

    run_command(body, debug=options.debug)


if __name__ == "__main__":
    main()
