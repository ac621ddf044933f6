"""Stage `parsing` with BiSeNet: `parsing/<k>.png` and `matte/<k>.png` (specs/gaussian_head.md a.4, b.4).

Inside the person the map is the network's, class by class. Along the outline the matte decides: it is how likely the
network finds anything but background, brought to the frame's edges, and each pixel that it covers has the most likely
class of a person.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from data_utils.labels import BACKGROUND, HAIR, HEAD, MOUTH, NECK, TORSO, paint
from data_utils.matting import cut_tails, sharpen_to_edges
from data_utils.published import weights_facts
from data_utils.stage import Progress, count_frames, no_progress
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.media.image import read_rgb, write_png
from gaussian_head.networks.bisenet import CLASSES, class_probabilities, load_bisenet

_OTHERS = {
    "background": BACKGROUND, "mouth": MOUTH, "neck": NECK, "necklace": NECK, "cloth": TORSO, "hair": HAIR,
}  # fmt: skip
LABELS = np.array([_OTHERS.get(name, HEAD) for name in CLASSES], np.uint8)
"""Label of each class: whatever is on the face is head, and so is a hat, which moves with it."""
SUPPORT = 0.02
"""Coverage up to this is background."""


def parse_frames(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write `parsing/<k>.png` and `matte/<k>.png` of every frame.

    Args:
        layout: Subject folder with frames.
        progress: Wraps the loop over frames.

    Returns:
        Facts for the manifest: the network, its weights, the head's share of the picture.

    Raises:
        UserError: The weights are missing, damaged, or another network's.
    """
    network, count = load_bisenet(), count_frames(layout)
    areas = []
    for k in progress(range(count), count, "parsing"):
        frame = read_rgb(layout.frame(k))
        labels, matte = label_frame(frame, class_probabilities(network, frame))
        write_png(layout.matte(k), np.uint8(np.round(matte * 255)))
        write_png(layout.parsing(k), paint(labels))
        areas.append(np.isin(labels, (HEAD, HAIR, MOUTH)).mean())
    facts = {"frames": count, "head_share": round(float(np.mean(areas)), 4)}
    return {"parser": "bisenet", **facts, **weights_facts("bisenet")}


def label_frame(
    frame: UInt8[ndarray, "H W 3"], probabilities: Float[ndarray, "19 h w"]
) -> tuple[UInt8[ndarray, "H W"], Float[ndarray, "H W"]]:
    """Turn the classes' probabilities into labels and coverage at the frame's size.

    Args:
        frame: RGB, 0..255.
        probabilities: At the network's size.

    Returns:
        Labels and the person's soft coverage in [0, 1]; labels are background exactly where coverage is 0.
    """
    height, width = frame.shape[:2]
    person = cv2.resize(1 - probabilities[0], (width, height), interpolation=cv2.INTER_LINEAR)
    matte = cut_tails(sharpen_to_edges(person, frame, max(round(width / 128), 2)))
    matte[matte <= SUPPORT] = 0.0
    classes = np.uint8(1 + probabilities[1:].argmax(0))
    labels = LABELS[cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST)]
    return np.where(matte > 0, labels, np.uint8(BACKGROUND)), matte
