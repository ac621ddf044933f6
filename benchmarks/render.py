"""How fast a trained head renders, motion included, encoding excluded.

python benchmarks/render.py --data data/<ID> --model output/<name> [--sizes 256 512] [--gaussians 20000 10000]
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import nn

from gaussian_head.data.subject import Subject
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.head import Head
from gaussian_head.render.backdrop import Backdrop, own_scene
from gaussian_head.render.clip import RenderClock, render_clip
from gaussian_head.render.trained import load_trained

SPREAD = 0.5
"""Added Gaussians lie this many of its standard deviations from the one they are drawn from."""


@dataclass(frozen=True)
class RenderOptions:
    """Measure the render loop of a trained head."""

    data: Path
    """Subject folder."""
    model: Path
    """Run folder."""
    sizes: tuple[int, ...] = (256, 512)
    """Longer sides of the picture, px."""
    gaussians: tuple[int, int] = (20_000, 10_000)
    """Gaussians of face and mouth: the head's own, and more drawn from them."""
    threads: int = 2
    """torch's threads."""
    rounds: int = 5
    """Clips rendered at each size; the median counts."""
    json: bool = False
    """Print JSON instead of lines."""
    debug: bool = False
    """Show the traceback of an error."""


@torch.no_grad()
def grow(gaussians: Gaussians, count: int) -> None:
    """Bring a set to `count` Gaussians: some are left out, or copies of random ones are added near them."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(gaussians), generator=generator)[:count]
    more = torch.randint(len(gaussians), (count - len(order),), generator=generator)
    shift = torch.randn(len(more), 3, generator=generator) * SPREAD * gaussians.scales[more]
    for name in Gaussians.NAMES:
        old = getattr(gaussians, name)
        rows = old[torch.cat([order, more])]
        if name == "means":
            rows[len(order) :] += shift
        setattr(gaussians, name, nn.Parameter(rows))


def measure(options: RenderOptions, head: Head, size: int) -> dict[str, Any]:
    """Render the val split several times."""
    subject = Subject(options.data, size)
    motion = DrivingSequence.from_subject(subject, subject.val)
    backdrop = Backdrop(subject.layout, subject.width, subject.height, own_scene(subject.layout))
    rates = []
    for _ in range(options.rounds):
        clock = RenderClock()
        for _ in render_clip(head, motion, backdrop, clock):
            pass
        rates.append(clock.fps)
    counts = {"face": len(head.face.gaussians), "mouth": len(head.mouth.gaussians)}
    return {"px": size, **counts, "threads": options.threads, "frames_per_s": round(statistics.median(rates), 1)}


def print_rows(options: RenderOptions) -> None:
    """Measure and print; see `RenderOptions`."""
    torch.set_num_threads(options.threads)
    head = load_trained(options.model).head
    for branch, count in zip((head.face, head.mouth), options.gaussians, strict=True):
        grow(branch.gaussians, count)
    head.bind()
    rows = [measure(options, head, size) for size in options.sizes]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return
    print(machine)
    for row in rows:
        print("{face} + {mouth} Gaussians, {px} px, {threads} threads: {frames_per_s} frames/s".format(**row))


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(RenderOptions)
    configure_logging()
    run_command(lambda: print_rows(options), debug=options.debug)


if __name__ == "__main__":
    main()
