"""The face detector around its network: places, boxes, suppression, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.errors import UserError
from gaussian_head.networks.s3fd import S3FD, decode, load_s3fd, places_of, suppress
from gaussian_head.networks.s3fd_face_alignment import FaceAlignmentS3FD


class KnownFaces(S3FD):
    """Sees what it is told, whatever the picture: (place, offsets, probability) as shares of the picture."""

    def __init__(self, faces: list[tuple[tuple[float, ...], tuple[float, ...], float]]) -> None:
        super().__init__()
        self.faces = faces
        self.seen: torch.Tensor | None = None

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        self.seen = pictures
        places, offsets, probabilities = zip(*self.faces, strict=True)
        scores = torch.tensor([[1 - p, p] for p in probabilities])
        return torch.tensor(offsets)[None], scores[None], np.array(places, np.float32)


def test_boxes_are_in_pixels_of_the_picture_given() -> None:
    still = (0.0, 0.0, 0.0, 0.0)
    detector = KnownFaces([
        ((0.5, 0.5, 0.25, 0.5), still, 0.91),
        ((0.25, 0.25, 0.1, 0.1), (1.0, -1.0, np.log(2) / 0.2, 0.0), 0.95),
        ((0.8, 0.8, 0.1, 0.1), still, 0.9),
    ])  # fmt: skip
    rgb = np.full((160, 320, 3), (200, 100, 50), np.uint8)
    boxes = detector.detect(rgb)
    np.testing.assert_allclose(boxes, [[51.2, 30.4, 115.2, 46.4], [120, 40, 200, 120]], rtol=1e-5)
    assert detector.seen.shape == (1, 3, 40, 80)
    assert detector.seen[0, :, 7, 9].tolist() == [200 - 123, 100 - 117, 50 - 104]


def test_no_face_gives_no_box() -> None:
    detector = KnownFaces([((0.5, 0.5, 0.25, 0.5), (0.0, 0.0, 0.0, 0.0), 0.2)])
    assert detector.detect(np.zeros((128, 128, 3), np.uint8)).shape == (0, 4)


def test_suppressed_faces_still_suppress_as_in_the_original() -> None:
    still = (0.0, 0.0, 0.0, 0.0)
    faces = [((x, 0.5, 0.4, 0.4), still, p) for x, p in ((0.2, 0.99), (0.45, 0.97), (0.6, 0.95))]
    # The second overlaps the first by 0.23 and the third by 0.45; the first and the third do not touch.
    boxes = KnownFaces(faces).detect(np.zeros((128, 128, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[0, 38.4, 51.2, 89.6]], atol=1e-4)


def test_suppression_keeps_the_best_of_each_heap() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [8, 0, 18, 10], [30, 0, 40, 10]], float)
    scores = np.array([0.92, 0.99, 0.95, 0.91])
    assert suppress(boxes, scores, 0.3) == [1, 2, 3]
    assert suppress(boxes, scores, 0.1) == [1, 3]
    assert suppress(boxes[:0], scores[:0], 0.3) == []


def test_places_without_offsets_are_squares_of_four_steps() -> None:
    places = places_of(8, 2, 3, height=16, width=24)
    boxes = decode(np.zeros_like(places), places) * (24, 16, 24, 16)
    np.testing.assert_allclose(boxes[4], [12 - 16, 12 - 16, 12 + 16, 12 + 16], rtol=1e-6)


@pytest.mark.parametrize("height", [128, 135, 181])
@torch.inference_mode()
def test_odd_sizes_have_a_place_for_every_output(height: int) -> None:
    offsets, scores, places = S3FD().eval()(torch.zeros(1, 3, height // 4, 34))
    assert offsets.shape == (1, len(places), 4)
    assert scores.shape == (1, len(places), 2)


def test_too_small_pictures_are_named() -> None:
    with pytest.raises(ValueError, match=r"128 px or more: 200 x 100"):
        S3FD().detect(np.zeros((100, 200, 3), np.uint8))


def test_another_networks_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "sfd_face.pth")
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path))
    with pytest.raises(UserError, match="another network than S3FD"):
        load_s3fd(torch.device("cpu"))


class FacesOfAlignment(FaceAlignmentS3FD):
    """The other edition, which sees two faces in the first picture and none in the second."""

    seen: torch.Tensor

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        self.seen = pictures
        places = np.array([(0.5, 0.5, 0.25, 0.5), (0.1, 0.2, 0.1, 0.1), (0.51, 0.5, 0.25, 0.5)], np.float32)
        likely = torch.tensor([[0.6, 0.9, 0.55], [0.4, 0.1, 0.2]])
        return torch.zeros(2, 3, 4), torch.stack([1 - likely, likely], -1), places


def test_the_edition_of_face_alignment_finds_faces_in_several_pictures() -> None:
    detector = FacesOfAlignment()
    rgb = np.full((2, 40, 20, 3), (200, 100, 50), np.uint8)
    first, second = detector.find(rgb)
    np.testing.assert_allclose(first, [[1.6, 6, 4.8, 10], [12, 10, 20, 30]], rtol=1e-5)  # padded to 32 px in width
    assert second.shape == (0, 4)
    assert detector.seen.shape == (2, 3, 40, 32)
    assert detector.seen[1, :, 7, 9].tolist() == [200 - 104, 100 - 117, 50 - 123]


def test_both_editions_share_a_body_but_not_names() -> None:
    theirs, ours = FaceAlignmentS3FD(), S3FD()
    assert not set(theirs.state_dict()) & set(ours.state_dict())
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    assert all(p.device.type == "meta" for p in theirs.to("meta").parameters())
    assert theirs.vgg[0] is theirs.conv1_1
