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
from gaussian_head.networks.challenge_expression import ChallengeExpression
from gaussian_head.networks.challenge_pose import ChallengePose
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor
from gaussian_head.networks.easyportrait_fpn import CLASSES, EasyPortraitFpn, FaceLabeller
from gaussian_head.networks.fan import Fan
from gaussian_head.networks.pirender import PIRenderGenerator
from gaussian_head.networks.retinaface import RetinaFace
from gaussian_head.networks.sadtalker_expression import ExpressionNetwork
from gaussian_head.networks.sadtalker_pose import PoseNetwork
from gaussian_head.networks.vid2vid_generator import Generator
from gaussian_head.networks.vid2vid_keypoints import KeypointDetector
from gaussian_head.networks.vid2vid_motion import MappingNet
from gaussian_head.networks.wav2lip import Wav2Lip
from gaussian_head.oneshot.face_renderer.pirender import PIRenderRenderer
from gaussian_head.oneshot.face_renderer.vid2vid import Vid2VidRenderer
from gaussian_head.oneshot.wav2lip.lip_sync import LipPainter, LipSyncConfig

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
    say, turn, say_30, turn_30 = (
        network().eval() for network in (ExpressionNetwork, PoseNetwork, ChallengeExpression, ChallengePose)
    )
    mels, mels_30, style = torch.zeros(1, 1, 80, 16), torch.zeros(1, 90, 40, 5), torch.zeros(1, dtype=torch.int64)
    latent, first, heard = torch.zeros(1, 64), torch.zeros(1, 6), torch.zeros(1, 32, 512)
    first_30, driven = torch.zeros(1, 9), torch.zeros(1, 90, 264)
    rows |= {
        "SadTalker's expression network, a frame of sound": (say, lambda _: say(mels, latent, style[:, None])),
        "SadTalker's pose network, 32 frames once heard": (turn, lambda _: turn.decode(latent, first, style, heard)),
        "challenge entry's expression network, 90 frames": (say_30, lambda _: say_30(mels_30, latent)),
        "challenge entry's pose network, 90 frames": (turn_30, lambda _: turn_30(first_30, driven)),
    }
    renderer = PIRenderRenderer(PIRenderGenerator(), batch=1)
    motion = np.zeros((1, 73), np.float32)

    def render(frame: np.ndarray) -> list[np.ndarray]:
        portrait = np.ascontiguousarray(frame[: renderer.side_px, : renderer.side_px])
        return list(renderer.animate(portrait, motion[0], motion))

    rows["PIRender, portrait included, 256 px"] = (renderer.network, render)
    wav2lip = Wav2Lip().eval()

    def draw_lips(frame: np.ndarray) -> np.ndarray:
        painter = LipPainter(wav2lip, lambda pictures: [], LipSyncConfig(box=(128, 448, 144, 368)))
        return next(painter.refine([frame], 1, 25, np.zeros(640, np.float32)))

    rows["Wav2Lip (`oneshot.wav2lip`), mel and paste included, 96 px"] = wav2lip, draw_lips
    for side in (224, 384, 512):
        labeller = FaceLabeller(pyramid, CLASSES[8], side)
        rows[f"EasyPortrait FPN (`--teeth easyportrait`), {side} px"] = (pyramid, labeller.label)
    rows["face-vid2vid, a frame of 256 px, the portrait already read"] = _vid2vid()
    return rows


def _vid2vid() -> tuple[torch.nn.Module, Callable[[np.ndarray], object]]:
    """Return the renderer's networks, and how one frame is drawn of a portrait that was read before."""
    parts = KeypointDetector(), Generator(), MappingNet()
    renderer = Vid2VidRenderer(*parts, 256)
    random = np.random.default_rng(0)
    first, window = (random.normal(0, 0.3, shape).astype(np.float32) for shape in ((70,), (1, 70, 27)))
    look = renderer.look_at(torch.rand(1, 3, 256, 256), first)
    return torch.nn.ModuleList(parts), lambda _: renderer.draw(look, window)


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
