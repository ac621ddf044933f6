"""Measures a folder of clips by a protocol: several processes, what is done is kept, one table at the end.

In the folder of results: `clips/<clip>.json` (figures) and `.npz` (features for figures of the whole set), the same in
`truths/` for the true footage's own row, and `set.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gaussian_head.errors import UserError
from gaussian_head.evaluation.annotations import SetClip, list_clips
from gaussian_head.evaluation.clip import Align
from gaussian_head.evaluation.measure_clip import MeasuredClip, measure_clip
from gaussian_head.evaluation.protocols import Protocol
from gaussian_head.evaluation.set_figures import average_row
from gaussian_head.evaluation.side import SUFFIXES
from gaussian_head.media.files import replacing, write_bytes
from gaussian_head.networks.weights import TABLE, WeightsMissingError, find_weights
from gaussian_head.progress import track

SCHEMA = 1
NAME = "set.json"
PREDICTION, TRUTH = "prediction", "ground truth"
"""The two rows of each table."""

MeasureClip = Callable[..., MeasuredClip]
"""Like `measure_clip`: (picture, truth, align, entries, sound=, fps=)."""


@dataclass(frozen=True)
class _Job:
    """One clip of one row."""

    clip: SetClip
    row: str
    picture: Path
    truth: Path | None
    sound: Path | None
    align: Align
    entries: tuple[str, ...]
    fps: float | int | None
    out: Path
    """Its results' path, without suffix."""

    @property
    def results(self) -> Path:
        return self.out.with_name(f"{self.out.name}.json")

    @property
    def features(self) -> Path:
        return self.out.with_name(f"{self.out.name}.npz")


def measure_set(
    pictures: Path, truths: Path | None, annotations: Path | None, protocol: Protocol, out: Path, *,
    processes: int = 1, align: Align = "strict", fps: float | int | None = None, measure: MeasureClip = measure_clip,
) -> dict[str, Any]:  # fmt: skip
    """Measure a set of clips and write `set.json`.

    A clip whose files, columns, weights and measuring code are what they were is not measured again. One that fails is
    told in `failed` and the others go on; see `require_whole`.

    Args:
        pictures: Folder of what is judged.
        truths: Folder of the true footage. Its own row is the truth measured against itself, or alone where the
            protocol does not compare.
        annotations: CSV of the clips; see `annotations.list_clips`. None: all of `pictures`.
        protocol: The columns, and how they average.
        out: Folder of results.
        processes: How many clips at a time, each in a process with one thread.
        align: What to do where clip and truth differ in frame count, size or rate.
        fps: Rate of folders of frames.
        measure: Measures one clip; a function that can be pickled.

    Returns:
        What `set.json` holds. `tasks.<task>.rows.<row>.<entry>.<region>` has `value` (what the protocol reports: over
        the whole set where it can be pooled, else the mean it names), `frame_mean`, `video_mean`, `clips` and `frames`.

    Raises:
        FileNotFoundError, UserError: As `annotations.list_clips`; or `processes` is not at least 1.
    """
    if processes < 1:
        raise UserError(f"processes must be at least 1, got {processes}.")
    clips = list_clips(Path(pictures), truths and Path(truths), annotations and Path(annotations), protocol)
    jobs = [job for clip in clips for job in _jobs_of(clip, protocol, Path(out), align, fps)]
    code = _code_hash()
    prints = [_fingerprint(job, code) for job in jobs]
    todo = [(job, key) for job, key in zip(jobs, prints, strict=True) if not _is_done(job, key)]
    failed = _measure_all(todo, len(jobs), processes, measure)
    done = [job for job in jobs if job.out not in failed]
    tasks = {task: _task_document(task, [j for j in done if j.clip.task == task], protocol)
             for task in dict.fromkeys(clip.task for clip in clips)}  # fmt: skip
    document = {
        "schema": SCHEMA,
        "protocol": protocol.name,
        "source": protocol.source,
        "averaging": protocol.averaging,
        "align": align,
        "clips": len(clips),
        "kept_from_before": len(jobs) - len(todo),
        "tasks": tasks,
        "failed": {_label(job): failed[job.out] for job in jobs if job.out in failed},
    }
    write_bytes(Path(out) / NAME, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    return document


def require_whole(document: dict[str, Any]) -> None:
    """Make the command fail when a clip failed (call it after the tables are shown).

    Raises:
        UserError: Clips failed; says how many, and why the first did.
    """
    failed = document["failed"]
    if failed:
        name, reason = next(iter(failed.items()))
        raise UserError(f"{len(failed)} measurements failed, first {name}: {reason} "
                        "The tables are without them; the same command tries them again.")  # fmt: skip


def _jobs_of(clip: SetClip, protocol: Protocol, out: Path, align: Align, fps: float | int | None) -> Iterator[_Job]:
    entries = protocol.entries(clip.task)
    truth = clip.truth if protocol.uses_truth else None
    yield _Job(clip, PREDICTION, clip.picture, truth, clip.sound, align, entries, fps, out / "clips" / clip.name)
    if clip.truth is not None:
        sound = clip.sound if protocol.uses_truth else None  # else the picture speaks with another's sound
        yield _Job(clip, TRUTH, clip.truth, truth, sound, "strict", entries, fps, out / "truths" / clip.name)


def _measure_all(todo: list[tuple[_Job, str]], total: int, processes: int, measure: MeasureClip) -> dict[Path, str]:
    """Measure what is to be done; return why jobs failed, by their results' path."""
    failed: dict[Path, str] = {}
    for job, error in track(_run(todo, processes, measure), total, "clips", total - len(todo)):
        if error is not None:
            failed[job.out] = _one_line(error)
    return failed


def _run(
    todo: list[tuple[_Job, str]], processes: int, measure: MeasureClip
) -> Iterator[tuple[_Job, BaseException | None]]:
    """Measure in processes; where one dies and takes the pool along, go on one by one to find whose fault it was."""
    if not todo:
        return
    left = dict(todo)
    with _open_pool(min(processes, len(todo))) as pool:
        jobs: dict[Future[None], _Job] = {}
        try:
            for job, key in todo:
                jobs[pool.submit(_measure_job, job, key, measure)] = job
            for future in as_completed(jobs):
                if not isinstance(future.exception(), BrokenProcessPool):
                    del left[jobs[future]]
                    yield jobs[future], future.exception()
        except BrokenProcessPool:
            pass  # while work was still being handed out: what is left comes below
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    waiting = list(left.items())
    while waiting:
        with _open_pool(1) as pool:
            error = None
            while waiting and not isinstance(error, BrokenProcessPool):
                job, key = waiting.pop(0)
                error = pool.submit(_measure_job, job, key, measure).exception()
                yield job, error


def _open_pool(processes: int) -> ProcessPoolExecutor:
    context = get_context("spawn")  # a fork would copy the locks of torch's and OpenCV's threads
    return ProcessPoolExecutor(processes, context, initializer=_use_one_thread)


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _measure_job(job: _Job, fingerprint: str, measure: MeasureClip) -> None:
    """Measure and write, in a process of its own; the JSON comes last and says that all is there."""
    result = measure(job.picture, job.truth, job.align, job.entries, sound=job.sound, fps=job.fps)
    job.results.unlink(missing_ok=True)
    with replacing(job.features) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **result.features)
    document = {
        "schema": SCHEMA,
        "clip": job.clip.name,
        "task": job.clip.task,
        "row": job.row,
        "fingerprint": fingerprint,
        "compared": result.compared,
        "figures": [asdict(figure) for figure in result.figures],
        "unavailable": result.unavailable,
    }
    write_bytes(job.results, (json.dumps(document, allow_nan=False) + "\n").encode())


def _is_done(job: _Job, fingerprint: str) -> bool:
    try:
        document = json.loads(job.results.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("fingerprint") == fingerprint and job.features.is_file()


def _fingerprint(job: _Job, code: str) -> str:
    """Tell apart everything that a job's figures rest on, files by size and time of change."""
    files = [_file_states(path) for path in (job.picture, job.truth, job.sound) if path is not None]
    weights = []
    for name in TABLE:
        try:
            weights.append(_file_states(find_weights(name)))
        except WeightsMissingError:
            weights.append([])
    facts = [SCHEMA, code, job.entries, job.align, job.fps, job.truth is None, files, weights]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _file_states(path: Path) -> list[tuple[str, int, int]]:
    """Return size and time of change of a file or a folder's files, and of what lies beside under its name."""
    stem = path.name if path.is_dir() else path.stem
    own = sorted(path.iterdir()) if path.is_dir() else [path]
    beside = [path.with_name(f"{stem}{suffix}") for suffix in SUFFIXES]
    files = dict.fromkeys([*own, *(file for file in beside if file.is_file())])
    return [(str(file), (state := file.stat()).st_size, state.st_mtime_ns) for file in files]


def _code_hash() -> str:
    """Return a hash of the code that measures: figures of other code are not mixed with today's."""
    digest = hashlib.sha256()
    for package in ("evaluation", "networks", "media", "geometry"):
        for path in sorted((Path(__file__).parent.parent / package).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _task_document(task: str, jobs: list[_Job], protocol: Protocol) -> dict[str, Any]:
    rows, unavailable = {}, {}
    for row in (PREDICTION, TRUTH):
        mine = [job for job in jobs if job.row == row]
        if mine:
            documents = [json.loads(job.results.read_bytes()) for job in mine]
            rows[row], unavailable[row] = average_row(documents, [job.features for job in mine], task, protocol)
    clips = len({job.clip.name for job in jobs})
    return {"columns": list(protocol.entries(task)), "clips": clips, "rows": rows, "unavailable": unavailable}


def _label(job: _Job) -> str:
    return job.clip.name if job.row == PREDICTION else f"{job.clip.name} ({TRUTH})"


def _one_line(error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return "its process died, perhaps for want of memory; try fewer processes."
    told = " ".join(str(error).split())
    return told if isinstance(error, (UserError, FileNotFoundError)) else f"{type(error).__name__}: {told}"
