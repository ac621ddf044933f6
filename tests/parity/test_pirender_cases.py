"""PIRender's generator against what the references gave (specs/vico.md 7.3)."""

from __future__ import annotations

from typing import Any

import torch
from recorded import Case

from gaussian_head.networks.pirender import PIRenderGenerator


@torch.inference_mode()
def test_pirender_agrees(case_folder: Any) -> None:
    case = Case(case_folder("pirender_face_generator"))
    network, source, windows = case.filled(PIRenderGenerator()), case.tensor("image"), case.tensor("coef")
    whole, warp_alone = network(source, windows), network(source, windows, warp_only=True)
    assert warp_alone.picture is None
    case.judge({
        "descriptor": whole.descriptor, "flow_field": whole.flow, "warp_image": whole.warped,
        "fake_image": whole.picture,
        "warp_stage_equal": torch.tensor([int(torch.equal(warp_alone.warped, whole.warped))]),
    })  # fmt: skip
