"""Where to compute."""

from __future__ import annotations

import torch

from gaussian_head.errors import UserError


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device; `auto` is the first GPU, where there is one.

    Raises:
        UserError: No such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device must be auto, cpu, cuda or cuda:NUMBER, got {name!r}.") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:NUMBER, got {name!r}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs here; "
                        "give --device cpu, or install a CUDA build of torch.")  # fmt: skip
    return device
