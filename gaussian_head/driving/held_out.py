"""Landmarks of the training frames as sound predicts them, each by a fit that has not seen the frame.

The weights of that fit have not; the speech space, the penalty and the gain were chosen with all training frames.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing

NAME = "held_out.safetensors"


def save_held_out(folder: Path, frames: Int[Tensor, " N"], landmarks: Float[Tensor, "N 478 3"]) -> None:
    """Write `held_out.safetensors` into `driving/` of a run folder.

    Args:
        folder: Where.
        frames: Numbers of the subject's training frames.
        landmarks: Metres, head frame: lips, chin and lower cheeks as predicted, the rest as tracked.
    """
    with replacing(folder / NAME) as temporary:
        save_file({"frames": frames, "landmarks": landmarks.contiguous()}, temporary)


def load_held_out(folder: Path, frames: list[int]) -> Float[Tensor, "N 478 3"] | None:
    """Read what `save_held_out` wrote; None where there is none.

    Args:
        folder: `driving/` of the run folder.
        frames: The training frames of the subject.

    Raises:
        UserError: The file is damaged, or of other frames.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    again = f"delete {folder} and run: python -m gaussian_head.train landmarks"
    try:
        with safe_open(str(path), framework="pt") as file:
            found, landmarks = file.get_tensor("frames"), file.get_tensor("landmarks")
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); {again}") from error
    if not torch.equal(found, torch.tensor(frames)):
        raise UserError(f"{path} is of {len(found)} other frames than the {len(frames)} of the training; {again}")
    return landmarks
