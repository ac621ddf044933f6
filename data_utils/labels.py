"""Parsing pictures as label numbers: faster to compare than colours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from gaussian_head.data.layout import (
    PARSING_BACKGROUND,
    PARSING_HAIR,
    PARSING_HEAD,
    PARSING_MOUTH,
    PARSING_NECK,
    PARSING_TORSO,
)

BACKGROUND, HEAD, HAIR, MOUTH, NECK, TORSO = range(6)
PALETTE = np.array(
    [PARSING_BACKGROUND, PARSING_HEAD, PARSING_HAIR, PARSING_MOUTH, PARSING_NECK, PARSING_TORSO], np.uint8
)
"""RGB of each label."""


def paint(labels: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "H W 3"]:
    """Turn labels into a parsing picture."""
    return PALETTE[labels]


def head_mask(parsing: UInt8[ndarray, "H W 3"]) -> Bool[ndarray, "H W"]:
    """Find head, hair and mouth in a parsing picture, which may be another tool's."""
    # Of the six colours only these three have both little red and little green.
    return (parsing[..., 0] < 128) & (parsing[..., 1] < 128)
