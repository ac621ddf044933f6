"""Times the CUDA operators and a step of training, eager and in a CUDA graph, beside gsplat where it is installed.

    python benchmarks/rasterize_cuda.py --json FILE

Every round times every variant once, so that a change of the GPU's clock meets all of them; medians over the rounds, in
microseconds of GPU time between two CUDA events. `--once` draws one small picture and its gradients, for a memory
checker; `--quick --device cpu` goes through everything on a CPU, to try this program where there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from scene import make_scene
from torch import Tensor

from cuda_ext import _cuda, check_pair_room, l1_ssim, rasterize

SIZES = ((5_000, 256), (20_000, 512), (50_000, 512), (200_000, 512), (1_000_000, 1024))
LEAVES = ("means", "quats", "scales", "opacities", "sh")
WARM_UP = 5
ROUNDS = 30
Step = Callable[[], object]


class Scheme(NamedTuple):
    """How the kernels divide the work; see cuda_ext/_cuda.py."""

    tile: int
    lanes: bool


SCHEMES = tuple(Scheme(tile, lanes) for lanes in (False, True) for tile in (8, 16))


def drawing(scene: dict[str, Tensor | int], backward: bool) -> Step:
    """Return a function that renders colour, alpha, depth and two features, and their gradients if `backward`."""
    n = len(scene["means"])
    leaves = {name: scene[name].clone().requires_grad_(backward) for name in LEAVES}
    leaves["features"] = torch.rand(n, 2, device=scene["means"].device).requires_grad_(backward)
    leaves["means2d"] = torch.zeros(n, 2, device=scene["means"].device).requires_grad_(backward)
    view = rasterize(**{**scene, **leaves})
    weights = [torch.rand_like(picture) for picture in view[:4]]

    def step() -> object:
        view = rasterize(**{**scene, **leaves})
        return torch.autograd.grad(view[:4], list(leaves.values()), weights) if backward else view

    return step


def training(scene: dict[str, Tensor | int]) -> Step:
    """Return a function that renders, measures 0.8 L1 + 0.2 (1 - SSIM), and takes a step of Adam."""
    device = scene["means"].device
    raw = {
        "means": scene["means"].clone(),
        "quats": scene["quats"].clone(),
        "log_scales": scene["scales"].log(),
        "opacity_logits": scene["opacities"].logit(),
        "sh": scene["sh"].clone(),
    }
    raw = {name: value.requires_grad_() for name, value in raw.items()}
    target = torch.rand(3, scene["height"], scene["width"], device=device)
    means2d = torch.zeros(len(scene["means"]), 2, device=device, requires_grad=True)
    options = {"capturable": True} if device.type == "cuda" else {}
    optimizer = torch.optim.Adam(raw.values(), lr=1e-5, fused=True, **options)
    camera = {name: scene[name] for name in ("viewmat", "K", "width", "height", "background")}

    def step() -> object:
        view = rasterize(
            raw["means"], raw["quats"], raw["log_scales"].exp(), raw["opacity_logits"].sigmoid(), **camera,
            sh=raw["sh"], means2d=means2d,
        )  # fmt: skip
        l1, ssim = l1_ssim(view.color, target)
        optimizer.zero_grad()
        (0.8 * l1 + 0.2 * (1 - ssim)).backward()
        optimizer.step()
        return None

    return step


def loss(px: int, device: str) -> Step:
    """Return a function that measures the loss of a picture and its gradient."""
    prediction, target = torch.rand(3, px, px, device=device).requires_grad_(), torch.rand(3, px, px, device=device)
    one = torch.ones((), device=device)

    def step() -> object:
        return torch.autograd.grad(l1_ssim(prediction, target), prediction, (one, one))

    return step


def gsplat_drawing(scene: dict[str, Tensor | int], backward: bool) -> Step | None:
    """Return the same picture of colour, alpha and depth by gsplat, if it is installed and works."""
    try:
        gsplat = importlib.import_module("gsplat")
    except ImportError:
        return None
    leaves = {name: scene[name].clone().requires_grad_(backward) for name in LEAVES}
    colors = leaves.pop("sh")

    def render() -> tuple[Tensor, Tensor]:
        return gsplat.rasterization(
            **leaves, colors=colors, viewmats=scene["viewmat"][None], Ks=scene["K"][None], width=scene["width"],
            height=scene["height"], sh_degree=3, near_plane=0.2, packed=False, render_mode="RGB+D",
        )[:2]  # fmt: skip

    weights = [torch.rand_like(picture) for picture in render()]

    def step() -> object:
        pictures = render()
        return torch.autograd.grad(pictures, [*leaves.values(), colors], weights) if backward else pictures

    return step


def captured(step: Step) -> Step:
    """Return the replay of a step captured in a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def variants(gaussians: int, px: int, device: str) -> dict[str, Step]:
    """Return everything to time at one size."""
    scene = make_scene(gaussians, px, device)
    steps: dict[str, Step] = {}
    for scheme in SCHEMES:
        for name, step in (
            ("forward", drawing(scene, backward=False)),
            ("forward + backward", drawing(scene, backward=True)),
            ("training step", training(scene)),
        ):
            label = f"{name}, {scheme.tile} px, a thread per {'Gaussian' if scheme.lanes else 'pixel'}"
            steps[label] = with_scheme(step, scheme)
            if device == "cuda":
                steps[f"{label}, graph"] = captured(steps[label])
    steps["loss"] = loss(px, device)
    if device == "cuda":
        steps["loss, graph"] = captured(steps["loss"])
    for name, backward in (("gsplat forward", False), ("gsplat forward + backward", True)):
        if (step := gsplat_drawing(scene, backward)) is not None:
            steps[name] = step
    return steps


def with_scheme(step: Step, scheme: Scheme) -> Step:
    """Return the step as the kernels of a scheme do it."""

    def run() -> object:
        _cuda.TILE_PX, _cuda.LANES = scheme
        return step()

    return run


def microseconds(step: Step, device: str) -> float:
    """Time one call on the device."""
    if device != "cuda":
        begin = time.perf_counter()
        step()
        return 1e6 * (time.perf_counter() - begin)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    step()
    end.record()
    end.synchronize()
    return 1e3 * begin.elapsed_time(end)


def measure(gaussians: int, px: int, device: str, rounds: int) -> dict[str, object]:
    """Time all variants at one size, round by round."""
    steps = variants(gaussians, px, device)
    for step in steps.values():
        for _ in range(WARM_UP if device == "cuda" else 1):
            step()
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(microseconds(step, device))
    if device == "cuda":
        check_pair_room()
    medians = {name: round(statistics.median(values), 1) for name, values in times.items()}
    return {"gaussians": gaussians, "px": px, "median_us": medians}


def main() -> None:
    """Parse the command line and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--once", action="store_true", help="draw one small picture and its gradients, untimed")
    parser.add_argument("--quick", action="store_true", help="one small size, one round")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    if options.once:
        drawing(make_scene(2_000, 130, options.device), backward=True)()
        loss(70, options.device)()
        return
    sizes, rounds = (((300, 48),), 1) if options.quick else (SIZES, ROUNDS)
    machine = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    report = {"machine": machine, "torch": torch.__version__, "rounds": rounds, "sizes": []}
    for gaussians, px in sizes:
        report["sizes"].append(measure(gaussians, px, options.device, rounds))
        print(json.dumps(report["sizes"][-1]))
        if options.json:  # after every size: a time limit may end this
            options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
