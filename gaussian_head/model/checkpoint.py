"""Heads on disk, and other models that a stage trains: folders as `gaussian_head.checkpoints` writes them.

`head.safetensors` (or another model's name), `training.safetensors` (optimizer and densification state) and
`checkpoint.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaussian_head import checkpoints
from gaussian_head.config import from_json, to_json
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.head import Head, HeadConfig
from gaussian_head.model.torso import Torso, TorsoModelConfig

FORMAT = 3
"""Raised when a checkpoint's meaning changes."""


class Checkpoint(checkpoints.Checkpoint):
    """A folder that holds a head, or another model, after `step` optimizer steps of `stage`."""

    def load_head(self) -> Head:
        """Rebuild the head, bound and ready to deform.

        Raises:
            UserError: Its file is missing or damaged.
        """
        tensors = self.load("head")
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
        model.load_state_dict(self.load(part))

    def load_training(self) -> dict[str, Tensor]:
        """Return the optimizer's and the densifier's state."""
        return self.load("training")


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
    document = {"format": FORMAT, part: to_json(model.config), **document}
    return Checkpoint.save(folder, step, document, {part: model.state_dict(), "training": training})


def find_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the latest complete checkpoint of a stage, or None.

    Raises:
        UserError: It was written by another version of the format, or is damaged.
    """
    return Checkpoint.find(folder, FORMAT)
