"""Steps in order over all clips: what is up to date is skipped, a clip that fails does not stop the others."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gaussian_head.errors import UserError
from gaussian_head.media.files import write_bytes
from gaussian_head.networks.weights import search_folders
from gaussian_head.oneshot.challenge.layout import Clip, Handover, find_clips
from gaussian_head.oneshot.challenge.steps import STEPS, Progress, Step
from gaussian_head.oneshot.challenge.workers import Workers

logger = logging.getLogger(__name__)


def run_challenge(
    data: Path, out: Path, workers: Workers, method: int, only: int | None, progress: Progress, options: dict[str, Any]
) -> list[Path]:
    """Make the videos of a challenge folder, or what one step makes.

    Args:
        data: See `layout.find_clips`.
        out: See `layout.Handover`.
        workers: Who does the work.
        method: 2: by way of Wav2Lip; 1: without.
        only: Number of the one step to run; None: all.
        progress: Shows how far a clip's frames are.
        options: JSON values on which the results depend; files made with others are not mixed with them.

    Returns:
        The videos with sound, or the files of that step.

    Raises:
        UserError: The folder, the options or weights are wrong (before any work), or some clips failed (after all the
            others are done); each is named.
    """
    files = Handover(out, method)
    steps = [kind(workers, files, progress) for kind in STEPS[method]]
    chosen = [step for step in steps if only in (None, step.number)]
    if not chosen:
        raise UserError(f"method {method} has the steps {', '.join(str(s.number) for s in steps)}, got --step {only}.")
    clips = find_clips(data)
    _require_workers(chosen, workers)
    _require_same(out / "options.json", options)
    failed: dict[Clip, str] = {}
    for step in chosen:
        made = 0
        going = [clip for clip in clips if clip not in failed]
        for clip in going:
            try:
                made += _bring_up_to_date(step, clip, steps)
            except (UserError, FileNotFoundError) as error:
                failed[clip] = f"step {step.number}, {clip.name}: {' '.join(str(error).split())}"
                logger.error("%s", failed[clip])
        broken = sum(clip in failed for clip in going)
        fresh = len(going) - made - broken
        logger.info("step %d, %s: %d made, %d up to date, %d failed", step.number, step.title, made, fresh, broken)
    if failed:
        raise UserError(f"{len(failed)} of {len(clips)} clips failed: {' | '.join(failed.values())}")
    return [path for clip in clips for path in chosen[-1].outputs(clip)]


def _bring_up_to_date(step: Step, clip: Clip, steps: Sequence[Step]) -> bool:
    """Do a step for a clip unless it is done; return whether it had to be."""
    for path in step.inputs(clip):
        if not path.is_file():
            maker = next((s.number for s in steps if path in s.outputs(clip)), None)
            remedy = "put it there" if maker is None else f"run it with --step {maker}"
            raise FileNotFoundError(f"{path} is missing; {remedy}.")
    if step.is_done(clip):
        return False
    step.make(clip)
    return True


def _require_workers(steps: Sequence[Step], workers: Workers) -> None:
    missing = {}
    for name in dict.fromkeys(name for step in steps for name in step.needs):
        try:
            workers.weights(name)
        except UserError as error:
            missing[name] = str(error)
    if missing:
        told = "; ".join(f"{name} {why}" for name, why in missing.items())
        raise UserError(f"{told} (place: {search_folders()[0].resolve()}).")


def _require_same(path: Path, options: dict[str, Any]) -> None:
    """Refuse to go on with other options than those a folder was begun with."""
    if path.is_file():
        try:
            found = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is damaged ({error}); delete it, or name another OUT.") from error
        if found != options:
            raise UserError(f"{path.parent} was made with {found}, not with {options}; give the same, or another OUT.")
        return
    write_bytes(path, json.dumps(options, indent=1, sort_keys=True).encode())
