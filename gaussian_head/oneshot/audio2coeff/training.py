"""What the trainings of motion share: weights to start from, the windows that TensorBoard shows, how they look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.networks.weights import load_into
from gaussian_head.oneshot.audio2coeff.data import Window

Network = TypeVar("Network", bound=nn.Module)
SHOWN_RANK = 1 << 31
"""The rank whose batches TensorBoard shows: no process trains on them."""


def started(make: Callable[[], Network], seed: int, start: Path | None = None, prefix: str = "") -> Network:
    """Make a network whose weights depend on the seed alone, or are those of a file.

    Args:
        make: Makes it.
        seed: Of its weights.
        start: The file.
        prefix: Before its names there (`networks.weights.load_into`).

    Raises:
        UserError: The file is broken, or another network's.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = make()
    return network if start is None else load_into(network, start, prefix).requires_grad_(True)


def stacked(windows: list[Window], name: str) -> Float[Tensor, "B T M"]:
    """Return a part of the windows' coefficients."""
    return torch.from_numpy(np.stack([getattr(window.coefficients, name) for window in windows]))


def mels_of(windows: list[Window]) -> Float[Tensor, "B T M W"]:
    """Return what is heard in the windows."""
    return torch.from_numpy(np.stack([window.mels for window in windows]))


def compared(true: Float[Tensor, "T M"], found: Float[Tensor, "T M"]) -> Float[Tensor, "1 H W"]:
    """Return a grey picture, time to the right: the true numbers above those found, at the same contrast."""
    low, high = true.min(), true.max()
    both = torch.cat([true.mT, true.new_full((1, len(true)), high), found.mT])
    picture = ((both - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return picture.repeat_interleave(4, 0).repeat_interleave(4, 1)[None].cpu()
