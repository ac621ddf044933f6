"""Tensors with a description in one safetensors file: what a small network of ours is handed on in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing


def read_described(path: Path, form: str, remedy: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read what `write_described` wrote.

    Args:
        path: The file.
        form: Its form and version, which must be the one expected.
        remedy: How to make the file.

    Returns:
        The description by key, and the tensors by name.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is damaged, or of another form.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {remedy}")
    try:
        with safe_open(str(path), framework="pt") as file:
            told = file.metadata() or {}
            if told.get("format") != form:
                raise UserError(f"{path} must be {form}, got {told.get('format')}; pretrain with this version.")
            return told, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}); pretrain again.") from error


def write_described(path: Path, form: str, told: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and their description atomically."""
    with replacing(path) as temporary:
        held = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(held, temporary, metadata={"format": form, **told})
