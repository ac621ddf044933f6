"""Times `cuda_ext.rasterize` and `cuda_ext.l1_ssim` on a scene like a talking head, beside their plain PyTorch twins.

python benchmarks/rasterize.py                                # nine sizes, a table
python benchmarks/rasterize.py --sizes 5000@256 20000@512 --threads 2 --json
python benchmarks/rasterize.py --loss --markdown docs/operators.md

One pass gives colour (harmonics of degree 3), alpha, depth and two more channels; backward gives the gradients of all
of them on every input and on the projected centres. Every round times every size, so that a slow minute of the machine
slows all of them; a row is the median over the rounds. Absolute times belong to the machine; the ratio to plain
PyTorch, taken in the same run, travels better, and instruction counts carry no noise at all:

valgrind --tool=callgrind --toggle-collect='rasterize_*ward_*' python benchmarks/rasterize.py --sizes 5000@256 --count forward
"""  # noqa: E501

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from scene import make_scene
from torch import Tensor

from cuda_ext import l1_ssim, rasterize
from cuda_ext._library import instruction_set, is_built

SIZES = tuple(f"{gaussians}@{px}" for gaussians in (5000, 20000, 60000) for px in (128, 256, 512))
REFERENCE_GAUSSIANS = 20000
"""Plain PyTorch is not timed with more: it takes seconds and gigabytes."""
CALLS = 3
"""Calls timed in each round, after one that is not."""
LEAVES = ("means", "quats", "scales", "opacities", "sh", "features", "means2d")


@dataclass(frozen=True)
class BenchmarkOptions:
    """Time the operators on this machine."""

    sizes: tuple[str, ...] = SIZES
    """Gaussians@px, as in 20000@256; pictures are square."""
    threads: int = torch.get_num_threads()
    """Of torch, and so of the operators."""
    rounds: int = 7
    """Times that every size is measured."""
    json: bool = False
    """Print the rows of `rasterize` as JSON instead of a table."""
    reference: bool = True
    """Time plain PyTorch as well; takes longer than everything else."""
    loss: bool = False
    """Time `l1_ssim` as well; adds a table."""
    markdown: Path | None = None
    """Write the tables into this page instead of printing them."""
    count: Literal["", "forward", "backward"] = ""
    """Call `rasterize` once per size, untimed, for a counter of instructions; backward includes forward."""


class Rendering:
    """One size: the calls that are timed."""

    def __init__(self, size: str) -> None:
        """Make the scene of a size written as in `SIZES`."""
        gaussians, _, px = size.partition("@")
        if not (gaussians.isdigit() and px.isdigit()):
            raise SystemExit(f"--sizes: expected GAUSSIANS@PX as in {SIZES[0]}, got {size!r}.")
        self.gaussians, self.px = int(gaussians), int(px)
        generator = torch.Generator().manual_seed(1)
        scene = make_scene(self.gaussians, self.px)
        scene |= {
            "features": torch.rand(self.gaussians, 2, generator=generator),
            "means2d": torch.zeros(self.gaussians, 2),
        }
        self.scene = scene | {name: scene[name].requires_grad_() for name in LEAVES}
        self.cotangents = [torch.randn(c, self.px, self.px, generator=generator) for c in (3, 1, 1, 2)]

    def forward(self, implementation: str = "auto") -> tuple[Tensor, ...]:
        """Render, recording what backward needs."""
        return rasterize(**self.scene, implementation=implementation)[:4]

    def forward_backward(self, implementation: str = "auto") -> tuple[Tensor, ...]:
        """Render and pull fixed gradients of every picture back to every input."""
        leaves = [self.scene[name] for name in LEAVES]
        return torch.autograd.grad(self.forward(implementation), leaves, self.cotangents)

    @cached_property
    def on_gpu(self) -> dict[str, Tensor]:
        """The scene's tensors on a GPU, copied once: copying is not timed."""
        tensors = {k: v.detach().cuda() for k, v in self.scene.items() if isinstance(v, Tensor)}
        return {k: v.requires_grad_(k in LEAVES) for k, v in tensors.items()}

    def gsplat(self) -> tuple[Tensor, ...]:
        """Do the same with gsplat, which needs a GPU; its depth comes as a fourth colour, its features not at all."""
        from gsplat import rasterization

        leaves = [self.on_gpu[name] for name in ("means", "quats", "scales", "opacities", "sh")]
        picture, alpha, _ = rasterization(
            *leaves, self.on_gpu["viewmat"][None], self.on_gpu["K"][None],
            self.px, self.px, sh_degree=3, render_mode="RGB+D",
        )  # fmt: skip
        grads = torch.autograd.grad(picture.sum() + alpha.sum(), leaves)
        torch.cuda.synchronize()
        return grads


def milliseconds(call: Callable[[], object], calls: int = CALLS) -> list[float]:
    """Time a few calls, after one that is not timed."""
    call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return times


def interleaved(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median time of each call in ms, every round measuring all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, found in zip(calls, times, strict=True):
            found += milliseconds(call)
    return [statistics.median(found) for found in times]


def time_rasterize(options: BenchmarkOptions) -> list[dict[str, Any]]:
    """Return the JSON rows."""
    renderings = [Rendering(size) for size in options.sizes]
    calls = [call for r in renderings for call in (r.forward, r.forward_backward)]
    times = interleaved(calls, options.rounds)
    rows = []
    for rendering, forward, both in zip(renderings, times[::2], times[1::2], strict=True):
        row = {"gaussians": rendering.gaussians, "px": rendering.px, "threads": options.threads}
        reference = None
        if options.reference and rendering.gaussians <= REFERENCE_GAUSSIANS:
            reference = statistics.median(milliseconds(partial(rendering.forward_backward, "reference"), 1))
        peers = {}
        if importlib.util.find_spec("gsplat") and torch.cuda.is_available():
            peers["gsplat"] = {"forward_backward_ms": round(statistics.median(milliseconds(rendering.gsplat)), 3)}
        rows.append(
            row
            | {
                "forward_ms": round(forward, 3),
                "forward_backward_ms": round(both, 3),
                "reference_forward_backward_ms": None if reference is None else round(reference, 1),
                "peers": peers,
            }
        )
    return rows


def time_loss(options: BenchmarkOptions) -> list[list[str]]:
    """Return table rows: size, forward+backward compiled and in plain PyTorch, and the ratio."""
    calls, sizes = [], sorted({int(size.partition("@")[2]) for size in options.sizes})
    for px in sizes:
        generator = torch.Generator().manual_seed(0)
        prediction, target = (torch.rand(3, px, px, generator=generator) for _ in range(2))
        mask = torch.rand(1, px, px, generator=generator)
        prediction.requires_grad_()

        def run(implementation: str, pictures: tuple[Tensor, ...] = (prediction, target, mask)) -> None:
            l1, ssim = l1_ssim(*pictures, implementation=implementation)
            torch.autograd.grad(l1 - 0.2 * ssim, pictures[0])

        calls += [partial(run, "auto"), partial(run, "reference")]
    times = interleaved(calls, options.rounds)
    return [
        [f"{px}", f"{ours:.2f}", f"{reference:.1f}", f"{reference / ours:.0f}"]
        for px, ours, reference in zip(sizes, times[::2], times[1::2], strict=True)
    ]


def machine() -> str:
    """Describe where the times were taken."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    copy = instruction_set() if is_built() else "not compiled"
    waiting = " ".join(f"{k}={os.environ.get(k, 'unset')}" for k in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"))
    model, cores = (*names, platform.machine())[0], f"{os.cpu_count()} cores (load {os.getloadavg()[0]:.1f})"
    return f"{model}, {cores}, {copy} copy, torch {torch.__version__}, {waiting}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["--:"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page(options: BenchmarkOptions, rows: list[dict[str, Any]]) -> str:
    """Return all tables, with the machine and how to get them."""
    cells = []
    for row in rows:
        both, reference = row["forward_backward_ms"], row["reference_forward_backward_ms"]
        numbers = [f"{row['forward_ms']:.2f}", f"{both:.2f}", "" if reference is None else f"{reference:.0f}"]
        peers = ", ".join(f"{name} {peer['forward_backward_ms']:.1f}" for name, peer in row["peers"].items())
        ratio = "" if reference is None else f"{reference / both:.0f}"
        cells.append([str(row["gaussians"]), str(row["px"]), *numbers, ratio, peers])
    header = ["Gaussians", "px", "forward", "forward + backward", "plain PyTorch", "times faster", "peers"]
    text = f"""# Operators

Written by `python benchmarks/rasterize.py --loss --markdown docs/operators.md`. Milliseconds, medians of
{options.rounds} interleaved rounds, {options.threads} threads, on {machine()}.

`rasterize`: colour (harmonics of degree 3), alpha, depth and two more channels in one pass, all gradients, by autograd:

{table(header, cells)}"""
    if options.loss:
        text += f"""
`l1_ssim` on [3, px, px] with a mask, forward + backward:

{table(["px", "ours", "plain PyTorch", "times faster"], time_loss(options))}"""
    return text


def main(options: BenchmarkOptions) -> None:
    """Time what was asked for, and print or write it."""
    torch.set_num_threads(options.threads)
    if options.count:
        for size in options.sizes:
            rendering = Rendering(size)
            (rendering.forward if options.count == "forward" else rendering.forward_backward)()
        return
    rows = time_rasterize(options)
    if options.json:
        print(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    elif options.markdown is not None:
        options.markdown.write_text(page(options, rows))
        print(options.markdown)
    else:
        print(page(options, rows))


if __name__ == "__main__":
    main(tyro.cli(BenchmarkOptions))
