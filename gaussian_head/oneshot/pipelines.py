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
from gaussian_head.networks.coefficient_regressor import load_coefficient_regressor
from gaussian_head.networks.weights import WeightsMissingError, find_weights
from gaussian_head.oneshot.audio2coeff.sadtalker import SadTalkerMotion, SadTalkerOptions
from gaussian_head.oneshot.by_coefficients import CoefficientHead
from gaussian_head.oneshot.face_renderer.pirender import load_pirender_renderer
from gaussian_head.oneshot.face_renderer.renderer import FaceRenderer
from gaussian_head.oneshot.face_renderer.vid2vid import load_vid2vid
from gaussian_head.oneshot.first_frame import warn_of_mismatch
from gaussian_head.oneshot.mesh.acting import Actor, Manner
from gaussian_head.oneshot.mesh.head import MeshHead, read_portrait
from gaussian_head.oneshot.source.source import SourceOptions, open_source
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


def open_vid2vid(options: PipelineOptions) -> TalkingHead:
    """Open SadTalker's motion with face-vid2vid."""
    return _by_coefficients(options, load_vid2vid(crop=True))


def open_pirender(options: PipelineOptions) -> TalkingHead:
    """Open SadTalker's motion with PIRender."""
    return _by_coefficients(options, load_pirender_renderer())


def _by_coefficients(options: PipelineOptions, renderer: FaceRenderer) -> TalkingHead:
    if options.motion != 1 and options.motion != 0:
        logger.info("motion: this renderer knows 0, a still head, and 1; taken is 1.")
    if options.blink_rate != PipelineOptions.blink_rate and options.blink_rate:
        logger.info("blink rate: this renderer has its own; only 0 is obeyed.")
    source = open_source(
        options.portrait,
        SourceOptions(mode="full", side_px=renderer.side_px),
        regressor=load_coefficient_regressor(),
    )
    side = renderer.side_px
    warn_of_mismatch(source.coefficients, source.landmarks, side, side, str(options.portrait))
    told = SadTalkerOptions(
        seed=options.seed,
        expression_scale=options.mouth_gain,
        still=options.motion == 0,
        blinks="random" if options.blink_rate else "none",
    )
    return CoefficientHead(source, SadTalkerMotion.load(told), renderer)


_SADTALKER = ("deep3d", "sadtalker_expression", "sadtalker_pose")

PIPELINES: dict[str, Pipeline] = {
    "vid2vid": Pipeline(
        "SadTalker: expressions and head motion from sound, drawn by face-vid2vid at 256 px",
        (*_SADTALKER, "sadtalker_256", "sadtalker_mapping_full"),
        open_vid2vid,
    ),
    "pirender": Pipeline(
        "expressions and head motion of SadTalker, drawn by PIRender at 256 px",
        (*_SADTALKER, "pirender"),
        open_pirender,
    ),
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
            logger.debug("renderer %s is left out: %s", found, error)
            continue
        return found, pipeline
    raise UserError(f"none of the renderers {', '.join(PIPELINES)} has its weights; see scripts/prepare.sh.")
