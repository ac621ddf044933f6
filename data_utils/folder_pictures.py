"""What can be wrong with a subject folder's pictures and masks; see `folder_findings`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from data_utils.folder_findings import Findings, among, frames_of, shape_of, spread
from data_utils.labels import PALETTE
from data_utils.stage import Progress, no_progress
from gaussian_head.data.transforms import SPLITS
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import intrinsics, project, viewmat_from_c2w
from gaussian_head.media.image import lacks_end, read_rgb, read_rgba, read_size

UNKNOWN_SHARE = 0.01
"""Share of the parsing's pixels that may have none of its colours."""
NOSE_TIP = 4
PARSING_NAMES = ("background", "head", "hair", "mouth", "neck", "torso")


def check_pictures(found: Findings, progress: Progress = no_progress) -> None:
    """Every frame's pictures: there, readable, of one size."""
    layout, numbers = found.layout, found.numbers
    sizes: dict[str, dict[int, tuple[int, int]]] = {}
    kinds = {"gt_image": "torso", "torso_image": "torso", "parsing": "parsing"}
    for name, stage in kinds.items():
        path = getattr(layout, name)
        missing = [k for k in numbers if not path(k).is_file()]
        if missing:
            splits = [layout.transforms(s).name for s in SPLITS if missing[0] in frames_of(found, s)]
            remedy = found.made_by(stage) if name != "parsing" else found.made_anew(stage)
            found.error(
                path(missing[0]),
                f"a picture, as {splits[0]} names frame {missing[0]}",
                f"none{among(missing)}",
                remedy,
            )
        existing = [k for k in numbers if path(k).is_file()]
        sizes[name] = _sizes(found, path, progress(existing, len(existing), path(0).parent.name), stage)
    if sizes["gt_image"]:
        found.size = Counter(sizes["gt_image"].values()).most_common(1)[0][0]
    kept = [k for k in numbers if layout.matte(k).is_file()]
    sizes["matte"] = _sizes(found, layout.matte, kept, "parsing")
    if 0 < len(kept) < len(numbers):
        found.warning(
            layout.matte(0).parent,
            "a matte of every frame, or none",
            f"{len(kept)} of {len(numbers)}",
            "delete them, or process the video anew",
        )
    for name, of_frames in sizes.items():
        _check_sizes(found, getattr(layout, name), of_frames, {**kinds, "matte": "parsing"}[name])
    _check_background(found)
    _check_teeth(found)
    found.summary["frames"] = f"{len(numbers)} with a camera" + (f", {numbers[0]} to {numbers[-1]}" if numbers else "")
    found.summary["size"] = "unknown" if found.size is None else f"{found.size[0]} x {found.size[1]} px"
    center = next(iter(found.poses.values())).center_px if found.poses else None
    if found.size and center and np.abs(np.array(center) - np.array(found.size) / 2).max() > 0.5:
        found.warning(
            layout.transforms("train"),
            f"cx, cy in the middle of {found.size[0]} x {found.size[1]} px",
            f"{center[0]:g}, {center[1]:g}",
            "the middle is taken; crop the pictures around cx, cy",
        )


def _sizes(
    found: Findings, path: Callable[[int], Path], numbers: Iterable[int], stage: str
) -> dict[int, tuple[int, int]]:
    """Read the sizes of pictures that exist; note those that cannot be read."""
    sizes, broken = {}, []
    for k in numbers:
        try:
            if lacks_end(path(k)):
                read_rgb(path(k))  # refused, unless something only follows the end
            sizes[k] = read_size(path(k))
        except UserError:
            broken.append(k)
    if broken:
        found.error(path(broken[0]), "a picture", f"one that cannot be read{among(broken)}", found.made_anew(stage))
    return sizes


def _check_sizes(found: Findings, path: Callable[[int], Path], sizes: dict[int, tuple[int, int]], stage: str) -> None:
    odd = [k for k, size in sizes.items() if size != found.size]
    if odd and found.size:
        width, height = sizes[odd[0]]
        found.error(
            path(odd[0]),
            f"{found.size[0]} x {found.size[1]} px like most targets",
            f"{width} x {height}{among(odd)}",
            found.made_anew(stage),
        )


def _check_background(found: Findings) -> None:
    path = found.layout.background
    try:
        size = read_size(path)
        read_rgb(path)
    except FileNotFoundError:
        found.error(path, "the static background", "no file", found.made_anew("background"))
        return
    except UserError:
        found.error(path, "a picture", "one that cannot be read", found.made_anew("background"))
        return
    if found.size and size != found.size:
        found.warning(
            path,
            f"{found.size[0]} x {found.size[1]} px like the frames",
            f"{size[0]} x {size[1]}",
            "it is resized; make it anew if it was cropped otherwise",
        )


def _check_teeth(found: Findings) -> None:
    layout, numbers = found.layout, found.numbers
    kept = [k for k in numbers if layout.teeth_mask(k).is_file()]
    if 0 < len(kept) < len(numbers):
        found.warning(
            layout.teeth_mask(0).parent,
            "a mask of every frame, or none",
            f"{len(kept)} of {len(numbers)}",
            "in the others teeth are whatever the parsing says",
        )
    shapes = {k: shape_of(found, layout.teeth_mask(k), "bool [height, width]", "teeth") for k in kept}
    odd = [k for k, shape in shapes.items() if shape is not None and found.size and shape != found.size[::-1]]
    if odd:
        found.error(
            layout.teeth_mask(odd[0]),
            f"{list(found.size[::-1])} like the frame",
            f"{list(shapes[odd[0]])}{among(odd)}",
            "delete it, or " + found.made_anew("teeth"),
        )


def check_parsing(found: Findings) -> None:
    """Colours of the parsing, and whether the head is where the landmarks have it; and whether a torso is seen."""
    layout = found.layout
    readable = [k for k in found.numbers if layout.parsing(k).is_file() and layout.torso_image(k).is_file()]
    shares, on_head, torso = np.zeros(len(PALETTE)), [], False
    looked = 0
    for k in (readable[i] for i in spread(len(readable))):
        try:
            picture, body = read_rgb(layout.parsing(k)), read_rgba(layout.torso_image(k))
        except UserError:
            continue  # told already
        same = (picture[:, :, None] == PALETTE).all(-1)
        shares += same.mean((0, 1))
        torso |= bool(body[..., 3].any())
        looked += 1
        nose = _nose(found, k)
        if nose is not None:
            on_head.append(bool(same[nose[1], nose[0], 1:4].any()))
    if not looked:
        return
    shares /= looked
    named = [f"{name} {share:.0%}" for name, share in zip(PARSING_NAMES, shares, strict=True) if share > 0]
    lineage = "" if shares[3] else "; the mouth's opening is taken from the landmarks"
    found.summary["parsing"] = ", ".join(named) + lineage
    first = layout.parsing(readable[0])
    if shares[1:4].sum() == 0:
        found.error(
            first.parent,
            "head in blue (RGB 0 0 255)",
            "no head in any of the pictures looked at",
            found.made_anew("parsing"),
        )
    elif on_head and np.mean(on_head) < 0.5:
        found.warning(
            first.parent,
            "the nose to be head",
            f"another colour in {1 - np.mean(on_head):.0%} of the pictures looked at (red and blue exchanged?)",
            found.made_anew("parsing"),
        )
    if 1 - shares.sum() > UNKNOWN_SHARE:
        found.warning(
            first.parent,
            "the colours of docs/formats.md",
            f"others on {1 - shares.sum():.0%} of the pixels (smoothed, or saved as JPEG?)",
            found.made_anew("parsing"),
        )
    if not torso:
        found.warning(layout.torso_image(0).parent, "neck and torso", "empty pictures", "the torso is left out")


def _nose(found: Findings, k: int) -> tuple[int, int] | None:
    """Pixel (x, y) of the nose's tip in frame k; None where it is not known or outside."""
    if found.landmarks is None or found.size is None:
        return None
    part = next(part for part in found.poses.values() if k in part.frames)
    view = viewmat_from_c2w(part.c2w[part.frames.index(k)])
    tip = found.landmarks[k, [NOSE_TIP]].astype(np.float64)
    (x, y), _ = (value[0] for value in project(tip, view, intrinsics(part.focal_px, *found.size)))
    inside = 0 <= x < found.size[0] and 0 <= y < found.size[1]
    return (int(x), int(y)) if inside else None
