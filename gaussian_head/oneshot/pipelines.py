"""Ready-made one-shot generators, each a `TalkingHead` made of a portrait; here, and only here, one is chosen.

To add one: a function that opens it from `PipelineOptions`, and a row of PIPELINES, the best first, with the weights
(names of `networks.weights.TABLE`) that it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gaussian_head.errors import UserError
from gaussian_head.networks.weights import WeightsMissingError, find_weights
from gaussian_head.oneshot.mesh.acting import Actor, Manner
from gaussian_head.oneshot.mesh.head import MeshHead, read_portrait
from gaussian_head.talking_head import TalkingHead

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipelineOptions:
    """What every generator is told."""

    portrait: Path
    """The picture."""
    size: int = 512
    """Px of the part around the head that is animated, for pictures that are smaller."""
    seed: int = 0
    """Decides whatever sound does not."""
    motion: float | int = 1.0
    """How much the head moves, 0..2."""
    mouth_gain: float | int = 1.0
    """How far the mouth opens, 0..2; 1 is as heard."""
    blink_rate: float | int = 15.0
    """Blinks a minute."""


class Pipeline(NamedTuple):
    """One generator."""

    told: str
    """What it is, in one line."""
    weights: tuple[str, ...]
    """Files it needs."""
    open: Callable[[PipelineOptions], TalkingHead]


def open_mesh(options: PipelineOptions) -> TalkingHead:
    """Open the renderer that needs no weights of others."""
    manner = Manner(options.seed, options.motion, options.mouth_gain, options.blink_rate)
    return MeshHead(read_portrait(options.portrait, options.size), Actor(manner=manner))


PIPELINES: dict[str, Pipeline] = {
    "mesh": Pipeline(
        "built-in baseline: the portrait as a mesh, moved by a small network trained on procedural voices",
        (),
        open_mesh,
    ),
}
"""By name, the best first."""


def choose_pipeline(name: str = "auto") -> tuple[str, Pipeline]:
    """Return the generator of that name; `auto` is the best one whose weights are there.

    Raises:
        UserError: There is no such generator.
        WeightsMissingError: The one that was named lacks weights.
    """
    if name != "auto":
        if name not in PIPELINES:
            raise UserError(f"--renderer must be auto or one of {', '.join(PIPELINES)}, got {name}.")
        for needed in PIPELINES[name].weights:
            find_weights(needed)
        return name, PIPELINES[name]
    for found, pipeline in PIPELINES.items():
        try:
            for needed in pipeline.weights:
                find_weights(needed)
        except WeightsMissingError as error:
            logger.info("renderer %s is left out: %s", found, error)
            continue
        return found, pipeline
    raise UserError(f"none of the renderers {', '.join(PIPELINES)} has its weights; see scripts/prepare.sh.")
