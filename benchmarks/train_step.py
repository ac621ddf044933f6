"""How long a step of the face stage takes, and which operators it goes to.

python benchmarks/train_step.py --data data/<ID> [--gaussians 20000] [--sizes 256 512] [--threads 2]
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from gaussian_head.data.subject import Subject
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.training.fit import create_head
from gaussian_head.training.learner import Learner
from gaussian_head.training.presets import QUICK
from gaussian_head.training.stages import FaceStage

WARM_UP = 10
PROFILED = 20
LEAST_SHARE = 0.015


@dataclass(frozen=True)
class StepOptions:
    """Measure training steps on a subject."""

    data: Path
    """Subject folder."""
    gaussians: int = 20_000
    """Gaussians of the face branch."""
    sizes: tuple[int, ...] = (256, 512)
    """Longer sides of the picture, px."""
    threads: int = 2
    """torch's threads."""
    steps: int = 60
    """Steps measured; the median counts."""
    json: bool = False
    """Print JSON instead of a table."""
    debug: bool = False
    """Show the traceback of an error."""


def measure(options: StepOptions, size: int) -> dict[str, Any]:
    """Train some steps of a fresh head; returns the median and the operators that take most."""
    half = options.gaussians // 2
    config = replace(QUICK, face=replace(QUICK.face, skin_gaussians=half, hair_gaussians=options.gaussians - half))
    subject = Subject(options.data, size)
    head = create_head(subject, config)
    stage = FaceStage(head, subject, config.face, seed=0)
    learner = Learner(stage)
    for k in subject.train:
        subject.frame(k)
    times = []
    for step in range(WARM_UP + options.steps):
        started = time.perf_counter()
        learner.step(step)
        times.append((time.perf_counter() - started) * 1e3)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for step in range(PROFILED):
            learner.step(WARM_UP + options.steps + step)
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    shares = sorted(((event.self_cpu_time_total / total, event.key) for event in events), reverse=True)
    return {
        "px": size,
        "gaussians": len(head.face.gaussians),
        "threads": options.threads,
        "step_ms": round(statistics.median(times[WARM_UP:]), 2),
        "shares": {name: round(share, 3) for share, name in shares if share > LEAST_SHARE},
    }


def print_rows(options: StepOptions) -> None:
    """Measure and print; see `StepOptions`."""
    torch.set_num_threads(options.threads)
    rows = [measure(options, size) for size in options.sizes]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return
    print(machine)
    for row in rows:
        print(f"\n{row['gaussians']} Gaussians, {row['px']} px, {row['threads']} threads: {row['step_ms']} ms a step")
        for name, share in row["shares"].items():
            print(f"  {share:6.1%}  {name}")


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(StepOptions)
    configure_logging()
    run_command(lambda: print_rows(options), debug=options.debug)


if __name__ == "__main__":
    main()
