"""How long the published face networks take for one frame on a CPU; no weights needed, for the time depends on none.

python benchmarks/networks.py [--markdown docs/networks.md]

Every round times every network, so that a slow minute of the machine slows all of them; the fastest round counts, which
says what the machine can do and not how busy it was. CPU time is what all threads together took.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from gaussian_head.errors import configure_logging, run_command
from gaussian_head.geometry.face_alignment import cut_aligned
from gaussian_head.networks.bisenet import BiSeNet, class_probabilities
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor
from gaussian_head.networks.easyportrait_fpn import CLASSES, EasyPortraitFpn, FaceLabeller
from gaussian_head.networks.fan import Fan
from gaussian_head.networks.retinaface import RetinaFace

FRAME_PX = 512


@dataclass(frozen=True)
class NetworkOptions:
    """Time the published face networks."""

    threads: tuple[int, ...] = (1, 2)
    """torch's threads."""
    rounds: int = 7
    """Frames shown to each network; the fastest counts."""
    markdown: Path | None = None
    """Write the table into this page instead of printing it."""
    debug: bool = False
    """Show the traceback of an error."""


def networks() -> dict[str, tuple[torch.nn.Module, Callable[[np.ndarray], object]]]:
    """Return each network with what it does to a frame, from the frame's bytes to the answer at the frame's size."""
    bisenet, regressor, pyramid = (network().eval() for network in (BiSeNet, CoefficientRegressor, EasyPortraitFpn))
    retinaface, fan = RetinaFace().eval(), Fan().eval()
    face = np.array([FRAME_PX, FRAME_PX, 3 * FRAME_PX, 3 * FRAME_PX]) / 4

    def regress(frame: np.ndarray) -> torch.Tensor:
        face = cut_aligned(frame, np.array([FRAME_PX, FRAME_PX, 0.45, FRAME_PX / 2, FRAME_PX / 2]))
        return regressor(torch.from_numpy(face).permute(2, 0, 1)[None].float() / 255)

    rows = {
        "BiSeNet (`--parser bisenet`), 512 px": (bisenet, lambda frame: class_probabilities(bisenet, frame)),
        "coefficient regressor, alignment included, 224 px": (regressor, regress),
        "RetinaFace (one-shot portraits), 512 px": (retinaface, retinaface.detect),
        "FAN, 98 points of one face, 256 px": (fan, lambda frame: fan.find(frame, face)),
    }
    for side in (224, 384, 512):
        labeller = FaceLabeller(pyramid, CLASSES[8], side)
        rows[f"EasyPortrait FPN (`--teeth easyportrait`), {side} px"] = (pyramid, labeller.label)
    return rows


@torch.inference_mode()
def measure(options: NetworkOptions) -> list[list[str]]:
    """Time every network; return its row of cells: name, parameters, and two times for each number of threads."""
    frame = np.random.default_rng(0).integers(0, 256, (FRAME_PX, FRAME_PX, 3), dtype=np.uint8)
    timed, rows = networks(), []
    best: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for count in options.threads:
            torch.set_num_threads(count)
            for name, (_, show) in timed.items():
                wall, cpu = time.perf_counter(), time.process_time()
                show(frame)
                taken = [time.perf_counter() - wall, time.process_time() - cpu]
                best[name, count] = [min(pair) for pair in zip(best.get((name, count), taken), taken, strict=True)]
    for name, (network, _) in timed.items():
        parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        times = [f"{1e3 * value:.0f}" for count in options.threads for value in best[name, count]]
        rows.append([name, f"{parameters:.1f}", *times])
    return rows


def page(options: NetworkOptions) -> str:
    """Measure and write the page."""
    header = ["network", "parameters, millions"]
    for count in options.threads:
        header += [f"{kind}, {count} thread{'s' * (count > 1)}" for kind in ("wall", "CPU")]
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *measure(options)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    load, cores = os.getloadavg()[0], os.cpu_count()
    return f"""# Published face networks

Written by `python benchmarks/networks.py --markdown docs/networks.md`. Milliseconds for a frame of
{FRAME_PX} x {FRAME_PX} px, from its bytes to the answer, fastest of {options.rounds} rounds, on {platform.machine()},
{cores} cores, torch {torch.__version__}. Load {load:.1f}: above {cores}, others were at work, and only
CPU times mean something.
None of these networks is needed; `scripts/prepare.sh` says where their weights are got.

{table}
"""


def run(options: NetworkOptions) -> None:
    """Measure and write or print; see `NetworkOptions`."""
    text = page(options)
    if options.markdown is None:
        print(text)
    else:
        options.markdown.write_text(text)
        print(options.markdown)


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(NetworkOptions)
    configure_logging()
    run_command(lambda: run(options), debug=options.debug)


if __name__ == "__main__":
    main()
