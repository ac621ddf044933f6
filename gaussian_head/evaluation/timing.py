"""How long each part of a run took, gathered beside it."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.files import write_bytes

NAME = "timing.json"
STAGES = ("landmarks", "mouth", "face", "fuse", "torso", "synthesize")


def read_timing(run: Path) -> dict[str, float]:
    """Read a run's record: seconds by stage, and `peak_rss_mb`; empty where there is none.

    Raises:
        UserError: The file is damaged.
    """
    path = run / NAME
    if not path.is_file():
        return {}
    try:
        return {name: float(value) for name, value in json.loads(path.read_text()).items()}
    except (json.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} must map stages to seconds ({error}); delete it, it is written anew.") from error


def record_timing(run: Path, stage: str, seconds: float) -> None:
    """Add or replace one stage's seconds, and raise the peak memory to this process's."""
    timing = read_timing(run)
    timing[stage] = round(seconds, 2)
    timing["peak_rss_mb"] = max(timing.get("peak_rss_mb", 0.0), peak_rss_mb())
    write_bytes(run / NAME, (json.dumps(timing, indent=1, sort_keys=True) + "\n").encode())


def process_seconds(layout: SubjectLayout) -> float | None:
    """Sum what the front end's stages took, as its manifest tells; None for a folder made elsewhere.

    Raises:
        UserError: The manifest is damaged.
    """
    if not layout.manifest.is_file():
        return None
    try:
        stages = json.loads(layout.manifest.read_text())["stages"].values()
        return round(sum(float(stage.get("seconds", 0)) for stage in stages), 2)
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{layout.manifest} is damaged ({error}); run: python -m data_utils.process {layout.video}"
                        ) from error  # fmt: skip


def peak_rss_mb() -> float:
    """Return the most memory this process has held, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
