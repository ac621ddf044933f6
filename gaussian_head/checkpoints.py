"""Trainings on disk: tensors in safetensors, everything human in JSON, written whole or not at all.

A checkpoint is a folder `step_<n>/` with one `<part>.safetensors` for each model and for what resuming needs, and
`checkpoint.json`. The folder appears under its name only when complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gaussian_head.errors import UserError

C = TypeVar("C", bound="Checkpoint")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds what was trained after `step` optimizer steps."""

    folder: Path
    document: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps finished."""
        return self.document["step"]

    def load(self, part: str) -> dict[str, Tensor]:
        """Return the tensors of `<part>.safetensors`.

        Raises:
            UserError: The file is missing or damaged.
        """
        path = self.folder / f"{part}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is missing or damaged ({error}); delete {self.folder} and train again.") from error

    @classmethod
    def save(cls: type[C], folder: Path, step: int, document: dict[str, Any], parts: dict[str, dict[str, Tensor]]) -> C:
        """Write `folder/step_<step>` and delete the earlier steps.

        Args:
            folder: Of one training.
            step: Optimizer steps finished.
            document: JSON values that tell the run's story, its `format` among them.
            parts: Tensors by the name of their file.
        """
        final = folder / f"step_{step:06d}"
        partial = folder / f".step_{step:06d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        document = {"step": step, **document}
        for name, tensors in parts.items():
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial / f"{name}.safetensors")
        (partial / "checkpoint.json").write_text(json.dumps(document, indent=1, sort_keys=True))
        for path in partial.iterdir():
            _flush(path)
        if final.exists():
            shutil.rmtree(final)
        partial.replace(final)
        _flush(folder)
        for other in folder.glob("step_*"):
            if other != final:
                shutil.rmtree(other)
        return cls(final, document)

    @classmethod
    def find(cls: type[C], folder: Path, expected_format: int) -> C | None:
        """Return the latest complete checkpoint of a training, or None.

        Raises:
            UserError: It was written by another version of the format, or is damaged.
        """
        folders = sorted(folder.glob("step_[0-9]*"), key=lambda path: int(path.name.removeprefix("step_")))
        if not folders:
            return None
        path = folders[-1] / "checkpoint.json"
        try:
            document = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{path} is missing or damaged ({error}); delete {folders[-1]} and train again.") from error
        if document.get("format") != expected_format:
            raise UserError(
                f"{folders[-1]} has checkpoint format {document.get('format')}, this version reads {expected_format}; "
                "train into a new --out, or use the version that wrote it."
            )
        return cls(folders[-1], document)


def _flush(path: Path) -> None:
    """Wait until the disk holds a file or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str = "optimizer") -> dict[str, Tensor]:
    """Flatten an optimizer's state: `<prefix>.<parameter>.<key>`; parameters without a name go by their number."""
    return {
        f"{prefix}.{name}.{key}": value
        for name, parameter, _ in _named(optimizer)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str = "optimizer"
) -> None:  # fmt: skip
    """Inverse of `optimizer_tensors`."""
    for name, parameter, group in _named(optimizer):
        start = f"{prefix}.{name}."
        state = {key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)}
        if state:
            counts_here = group.get("fused") or group.get("capturable")  # others count their steps on the CPU
            optimizer.state[parameter] = {
                key: value if key == "step" and not counts_here else value.to(parameter.device)
                for key, value in state.items()
            }


def _named(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.nn.Parameter, dict[str, Any]]]:
    before = 0
    for group in optimizer.param_groups:
        names = group.get("param_names") or [str(before + i) for i in range(len(group["params"]))]
        before += len(names)
        for name, parameter in zip(names, group["params"], strict=True):
            yield name, parameter, group
