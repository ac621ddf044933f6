"""The motion that face renderers are given, against SadTalker's and PIRender's (specs/one_shot.md 3.6, vico.md 7.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from recorded import Case

from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.oneshot.audio2coeff.references import with_pose_of
from gaussian_head.oneshot.face_renderer.windows import contiguous_rows, crop_ratio, semantic_windows, still_window


def test_windows_of_pirender(case_folder: Any) -> None:
    case, shown = Case(case_folder("pirender_semantic_window")), np.array([0, 5, 19])
    target, source = (FaceCoefficients.from_pirender(case.given(name)) for name in ("coeffs", "source"))
    ratio, motion = crop_ratio(source, target), target.motion(crop=True)
    scaled = motion.copy()
    scaled[:, 70] *= ratio
    case.judge({
        "same_id": semantic_windows(motion, shown),
        "cross_ratio": np.array([ratio]),
        "cross_id": semantic_windows(scaled, shown),
    })  # fmt: skip


def test_what_sadtalker_renders(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_facerender_data"))
    first, motion = case.given("first")[0], case.given("gen")
    found = {"frame_num": np.array([len(motion)])}
    for kind, width in (("crop", 70), ("full", 73)):
        moving = np.concatenate([motion, np.tile(first[70:width], (len(motion), 1))], 1)
        still = np.concatenate([motion[:, :64], np.tile(first[64:width], (len(motion), 1))], 1)
        if kind == "crop":
            moving[:, :64] *= 1.3  # recorded with that expression scale
        for name, vectors in ((kind, moving), (f"{kind}_still", still)):
            rows = contiguous_rows(len(motion), 2)
            windows = np.stack([semantic_windows(vectors, row) for row in rows])
            found |= {f"{name}_target": windows, f"{name}_source": still_window(first[:width])}
    poses = with_pose_of(iter(motion[:, 64:]), case.given("refpose")[:, 64:70], "wrap")
    found["using_refpose"] = np.concatenate([motion[:, :64], np.stack(list(poses))], 1)
    case.judge(found, every=False)  # all but the turned camera (test_vid2vid_cases.py) and the picture, whose border
    # skimage mirrors where ours is repeated
