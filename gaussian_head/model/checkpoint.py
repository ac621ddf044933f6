"""Heads on disk: tensors in safetensors, everything human in JSON, written whole or not at all.

A checkpoint is a folder `step_<n>/` with `head.safetensors` (or the name of another model that a stage trains),
`training.safetensors` (optimizer and densification state) and `checkpoint.json`. The folder appears under its name only
when complete.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gaussian_head.config import from_json, to_json
from gaussian_head.errors import UserError
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.head import Head, HeadConfig
from gaussian_head.model.torso import Torso, TorsoModelConfig

FORMAT = 3
"""Raised when a checkpoint's meaning changes."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a head, or another model, after `step` optimizer steps of `stage`."""

    folder: Path
    document: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps finished."""
        return self.document["step"]

    def load_head(self) -> Head:
        """Rebuild the head, bound and ready to deform.

        Raises:
            UserError: Its file is missing or damaged.
        """
        tensors = self._load("head.safetensors")
        config = from_json(HeadConfig, self.document["head"])
        sets = [Gaussians(len(tensors[f"{part}.gaussians.means"]), config.sh_degree) for part in ("face", "mouth")]
        head = Head(config, *sets, hair_points=len(tensors["space.hair_mean"]))
        head.bind()  # gives the bindings their sizes; their values are the checkpoint's
        head.load_state_dict(tensors)
        return head

    def load_torso(self) -> Torso:
        """Rebuild the torso, ready to deform.

        Raises:
            UserError: Its file is missing or damaged.
        """
        config = from_json(TorsoModelConfig, self.document["torso"])
        torso = Torso(config, Gaussians(config.gaussians, sh_degree=0))
        self.load_part("torso", torso)
        return torso

    def load_part(self, part: str, model: torch.nn.Module) -> None:
        """Give another model than a head its tensors.

        Args:
            part: Its name in the checkpoint.
            model: Of the configuration `document[part]`.

        Raises:
            UserError: The file is missing or damaged.
        """
        model.load_state_dict(self._load(f"{part}.safetensors"))

    def load_training(self) -> dict[str, Tensor]:
        """Return the optimizer's and the densifier's state."""
        return self._load("training.safetensors")

    def _load(self, name: str) -> dict[str, Tensor]:
        try:
            return load_file(self.folder / name)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{self.folder / name} is missing or damaged ({error}); delete {self.folder} and train again."
            ) from error


def save_checkpoint(
    folder: Path, model: torch.nn.Module, step: int, document: dict[str, Any], training: dict[str, Tensor],
    part: str = "head",
) -> Checkpoint:  # fmt: skip
    """Write `folder/step_<step>` and delete the earlier steps.

    Args:
        folder: The stage's folder in the run folder.
        model: What to keep: a head, or something else with a `config`.
        step: Optimizer steps finished.
        document: JSON values that tell the run's story: stage, configuration, seed, versions, subject.
        training: What resuming needs beside the model.
        part: The model's name in the checkpoint.
    """
    final = folder / f"step_{step:06d}"
    partial = folder / f".step_{step:06d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    document = {"format": FORMAT, "step": step, part: to_json(model.config), **document}
    for name, tensors in ((part, model.state_dict()), ("training", training)):
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
    return Checkpoint(final, document)


def find_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the latest complete checkpoint of a stage, or None.

    Raises:
        UserError: It was written by another version of the format, or is damaged.
    """
    folders = sorted(folder.glob("step_*"))
    if not folders:
        return None
    path = folders[-1] / "checkpoint.json"
    try:
        document = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); delete {folders[-1]} and train again.") from error
    if document.get("format") != FORMAT:
        raise UserError(
            f"{folders[-1]} has checkpoint format {document.get('format')}, this version reads {FORMAT}; "
            "train into a new --out, or use the version that wrote it."
        )
    return Checkpoint(folders[-1], document)


def _flush(path: Path) -> None:
    """Wait until the disk holds a file or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the state of an optimizer of named parameters."""
    return {
        f"optimizer.{name}.{key}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            prefix = f"optimizer.{name}."
            state = {k[len(prefix) :]: v.to(parameter.device) for k, v in tensors.items() if k.startswith(prefix)}
            if state:
                optimizer.state[parameter] = state
