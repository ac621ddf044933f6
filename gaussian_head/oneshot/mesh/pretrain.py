"""Command: teach the network from sound to mouth shapes on procedural voices.

python -m gaussian_head.oneshot.mesh.pretrain data/utterances --out mouth_shapes.safetensors

The folder is one of `python -m data_utils.synthetic.utterances`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from gaussian_head.driving.audio_landmarks import AudioLandmarkConfig, AudioLandmarkNet
from gaussian_head.driving.features import average_parts
from gaussian_head.driving.hearing import hear
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.audio import load_audio
from gaussian_head.media.files import write_bytes
from gaussian_head.oneshot.mesh.mouth_shapes import FIELDS, SHIPPED, MouthShapes
from gaussian_head.progress import track

DESCRIPTION = "utterances.json"
HEAD_CM = 17.8
"""From the top of the forehead to the chin of the procedural head: its lengths become shares of a face."""
HELD_OUT = 8
"""Every so many-th utterance is not learned from, but measures."""
WINDOW = 50
"""Frames whose codes are learned at once."""
TREMBLE = 0.5
"""Weight of the error of the codes' change from frame to frame."""


@dataclass(frozen=True)
class MouthShapesOptions:
    """Learn how sound moves a mouth from procedural voices."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder of utterances."""
    out: Path = SHIPPED
    """File to write; what it was made of is written beside it, as .json."""
    steps: int = 3000
    """Steps of the optimizer."""
    batch: int = 32
    """Windows of 2 s a step and member."""
    channels: int = 64
    """Of the convolutions."""
    members: int = 2
    """Networks in the ensemble."""
    learning_rate: float = 2e-3
    """At first; it falls to nothing along a cosine."""
    seed: int = 0
    """Decides the start and what is shown when."""
    debug: bool = False
    """Show the traceback of an error."""


def load_utterances(folder: Path) -> list[tuple[Float[np.ndarray, "T 16 80"], Float[np.ndarray, "T 6"]]]:
    """Read sound, as mel windows, and shapes (`FIELDS`, in shares of a face) of each utterance.

    Raises:
        FileNotFoundError: The folder holds none.
        UserError: Its shapes are others.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run: python -m data_utils.synthetic.utterances {folder}")
    told = json.loads(path.read_text())
    if tuple(told["columns"]) != FIELDS:
        raise UserError(f"{path} tells of {told['columns']}, expected {list(FIELDS)}; make the utterances again.")
    found = []
    for k in range(told["count"]):
        shapes = np.load(folder / f"{k}.npy")
        shapes[:, :2] /= HEAD_CM
        found.append((hear("mel", load_audio(folder / f"{k}.wav"))[: len(shapes)], shapes))
    return found


def fit(
    utterances: list[tuple[Float[np.ndarray, "T 16 80"], Float[np.ndarray, "T 6"]]], options: MouthShapesOptions
) -> MouthShapes:
    """Train a network; `made` tells nothing yet."""
    frames = np.concatenate([average_parts(heard) for heard, _ in utterances])
    targets = np.concatenate([shapes for _, shapes in utterances])
    config = AudioLandmarkConfig(utterances[0][0].shape[1:], len(FIELDS), 4, options.channels, members=options.members)
    net = AudioLandmarkNet(config, options.seed)
    net.input_mean.copy_(torch.from_numpy(frames.mean(0)))
    net.input_scale.copy_(torch.from_numpy(1 / frames.std(0).clip(1e-3)))
    mean, scale = (torch.from_numpy(t.astype(np.float32)) for t in (targets.mean(0), targets.std(0).clip(1e-6)))
    x = [net.normalise(heard) for heard, _ in utterances]
    y = [(torch.from_numpy(shapes).float() - mean) / scale for _, shapes in utterances]
    optimizer = torch.optim.AdamW(net.parameters(), options.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    generator = torch.Generator().manual_seed(options.seed)
    for _ in track(range(options.steps), options.steps, "mouth shapes"):
        shown, wanted = zip(*(_draw(x, y, config, options, generator) for _ in range(config.members)), strict=True)
        codes, wanted = net.valid(torch.stack(shown), 0.1, generator), torch.stack(wanted)
        error = codes - wanted
        loss = error.square().mean() + TREMBLE * error.diff(dim=2).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return MouthShapes(net.eval(), mean, scale, {})


def _draw(
    x: list[Tensor],
    y: list[Tensor],
    config: AudioLandmarkConfig,
    options: MouthShapesOptions,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B R K"]]:
    """Draw windows of sound and the codes that are due in them."""
    n = WINDOW + config.reach
    ahead = config.look_ahead
    which = torch.randint(len(x), (options.batch,), generator=generator).tolist()
    starts = [int(torch.randint(len(x[k]) - n + 1, (1,), generator=generator)) for k in which]
    shown = torch.stack([x[k][s : s + n] for k, s in zip(which, starts, strict=True)])
    due = torch.stack([y[k][s + config.reach - ahead :][:WINDOW] for k, s in zip(which, starts, strict=True)])
    return shown, due


@torch.no_grad()
def correlations(
    shapes: MouthShapes, utterances: list[tuple[Float[np.ndarray, "T 16 80"], Float[np.ndarray, "T 6"]]]
) -> dict[str, float]:
    """Correlate what is heard with the truth, field by field."""
    heard = np.concatenate([shapes.net(sound).numpy() for sound, _ in utterances])
    truth = np.concatenate([true for _, true in utterances])
    return {name: round(float(np.corrcoef(heard[:, k], truth[:, k])[0, 1]), 4) for k, name in enumerate(FIELDS)}


def pretrain(options: MouthShapesOptions) -> None:
    """Read, learn, measure, write; see `MouthShapesOptions`."""
    utterances = load_utterances(options.data)
    held_out = utterances[HELD_OUT - 1 :: HELD_OUT] or utterances[-1:]
    seen = [u for k, u in enumerate(utterances) if k % HELD_OUT != HELD_OUT - 1]
    shapes = fit(seen, options)
    made = {
        "program": "python -m gaussian_head.oneshot.mesh.pretrain",
        "data": "procedural voices only: python -m data_utils.synthetic.utterances",
        "utterances": json.loads((options.data / DESCRIPTION).read_text()),
        "steps": options.steps, "batch": options.batch, "learning_rate": options.learning_rate, "seed": options.seed,
        "held_out_correlation": correlations(shapes, held_out),
    }  # fmt: skip
    MouthShapes(shapes.net, shapes.mean, shapes.scale, made).save(options.out)
    manifest = made | {"sha256": hashlib.sha256(options.out.read_bytes()).hexdigest(), "licence": "Apache-2.0"}
    write_bytes(options.out.with_suffix(".json"), (json.dumps(manifest, indent=1) + "\n").encode())
    print(f"held-out correlation: {made['held_out_correlation']}")
    print(options.out)


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(MouthShapesOptions)
    configure_logging()
    run_command(lambda: pretrain(options), debug=options.debug)


if __name__ == "__main__":
    main()
