"""Ready-made one-shot generators, each a `TalkingHead` made of a portrait; here, and only here, one is chosen.

To add one: a function that opens it from `PipelineOptions`, and a row of PIPELINES, the best first, with the weights
(names of `networks.weights.TABLE`) that it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from gaussian_head.device import choose_device
from gaussian_head.errors import UserError
from gaussian_head.networks.weights import WeightsMissingError, find_weights, require_weights
from gaussian_head.oneshot.coefficient_head import CoefficientOptions, open_coefficient_head
from gaussian_head.oneshot.face_renderer.pirender import load_pirender_renderer
from gaussian_head.oneshot.face_renderer.vid2vid import Vid2VidOptions, load_vid2vid
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
    by_coefficients: CoefficientOptions = field(default_factory=CoefficientOptions)
    """Of vid2vid and pirender, which do not heed size, motion, mouth_gain and blink_rate."""
    vid2vid: Vid2VidOptions = field(default_factory=Vid2VidOptions)
    """How vid2vid draws."""
    device: str = "auto"
    """Where networks compute."""


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


def open_vid2vid(options: PipelineOptions) -> TalkingHead:
    """Open SadTalker: face-vid2vid, of 512 px where those weights are and such a size is asked for."""
    whole = options.by_coefficients.source.mode in ("full", "extfull")
    side = 512 if options.size >= 512 and _is_there("sadtalker_512") else 256
    renderer = load_vid2vid(side, crop=whole, options=options.vid2vid, device=choose_device(options.device))
    return open_coefficient_head(options.portrait, renderer, _seeded(options))


def open_pirender(options: PipelineOptions) -> TalkingHead:
    """Open PIRender, moved by SadTalker's motion."""
    renderer = load_pirender_renderer(device=choose_device(options.device), batch=options.vid2vid.batch)
    return open_coefficient_head(options.portrait, renderer, _seeded(options))


def _seeded(options: PipelineOptions) -> CoefficientOptions:
    given = options.by_coefficients
    return replace(given, motion=replace(given.motion, seed=options.seed))


def _is_there(weights: str) -> bool:
    try:
        find_weights(weights)
    except WeightsMissingError:
        return False
    return True


_MOTION = ("sadtalker_expression", "sadtalker_pose", "deep3d")
PIPELINES: dict[str, Pipeline] = {
    "vid2vid": Pipeline(
        "SadTalker: sound -> face coefficients -> face-vid2vid",
        ("sadtalker_256", "sadtalker_mapping", "sadtalker_mapping_full", *_MOTION),
        open_vid2vid,
    ),
    "pirender": Pipeline("sound -> face coefficients (SadTalker) -> PIRender", ("pirender", *_MOTION), open_pirender),
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
        require_weights(PIPELINES[name].weights, f"--renderer {name}")
        return name, PIPELINES[name]
    for found, pipeline in PIPELINES.items():
        missing = [needed for needed in pipeline.weights if not _is_there(needed)]
        if not missing:
            return found, pipeline
        logger.info("renderer %s is left out: needs %s, see scripts/prepare.sh", found, ", ".join(missing))
    raise UserError(f"none of the renderers {', '.join(PIPELINES)} has its weights; see scripts/prepare.sh.")
