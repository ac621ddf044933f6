"""RetinaFace's boxes, FAN's points: decoding told apart from the networks, which recorded cases judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.errors import UserError
from gaussian_head.networks.fan import WFLW_TO_68, Fan, load_fan, points_of, to_68
from gaussian_head.networks.retinaface import MEAN_BGR, RetinaFace, load_retinaface, places_of


class ToldRetina(RetinaFace):
    """Says that there are faces at some places."""

    def __init__(self, boxes: dict[int, tuple[float, np.ndarray]], height: int, width: int) -> None:
        torch.nn.Module.__init__(self)
        places = places_of(height, width)
        self.offsets, self.scores = torch.zeros(1, len(places), 4), torch.zeros(1, len(places), 2)
        self.shifts = torch.zeros(1, len(places), 10)
        for k, (score, box) in boxes.items():
            share = box / (width, height, width, height)
            middle, size = (share[:2] + share[2:]) / 2, share[2:] - share[:2]
            offset = [*((middle - places[k, :2]) / places[k, 2:] / 0.1), *(np.log(size / places[k, 2:]) / 0.2)]
            self.offsets[0, k] = torch.tensor(offset)
            self.scores[0, k, 1] = score

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.seen = pictures
        return self.offsets, self.scores, self.shifts


def test_boxes_in_px_best_first_without_doubles() -> None:
    height, width = 96, 160
    face, other = np.array([20.0, 10, 60, 58]), np.array([100.0, 30, 150, 80])
    told = {7: (0.98, face + 2), 40: (0.999, face), 200: (0.99, other), 300: (0.9, other + 30)}
    network = ToldRetina(told, height, width)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:] = 200, 100, 50
    boxes, scores, points = network.detect(picture)
    assert np.allclose(boxes, [face, other], atol=1e-3)
    assert np.allclose(scores, [0.999, 0.99])
    assert np.allclose(points[0], places_of(height, width)[40, :2] * (width, height), atol=1e-4)
    assert np.allclose(network.seen[0, :, 0, 0], np.array([50, 100, 200]) - MEAN_BGR)


def test_places_cover_the_picture() -> None:
    height, width = 70, 50
    places = places_of(height, width) * (width, height, width, height)
    assert len(places) == 2 * (9 * 7 + 5 * 4 + 3 * 2)
    assert np.allclose(places[:2], [(4, 4, 16, 16), (4, 4, 32, 32)])
    assert np.allclose(places[2], (12, 4, 16, 16))
    assert np.allclose(places[-1], (48, 80, 512, 512))


def maps_of(peaks: np.ndarray, side: int = 64) -> np.ndarray:
    """Heat maps with a bump at each place (px, pixel centres at + 0.5)."""
    y, x = np.mgrid[:side, :side] + 0.5
    return np.stack([np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for px, py in peaks])[None].astype(np.float32)


def test_points_are_near_the_bumps_wherever_they_are() -> None:
    peaks = np.random.default_rng(0).uniform(1.0, 63.0, (98, 2))
    assert np.abs(points_of(maps_of(peaks)) - peaks).max() <= 0.25 + 1e-6


def test_a_point_at_the_edge_moves_no_other() -> None:
    peaks = np.array([(20.7, 30.2), (40.3, 50.9)])
    with_edge = np.concatenate([peaks, [(30.5, 63.5), (0.5, 10.8), (10.8, 0.5), (63.5, 20.2)]])
    found = points_of(maps_of(with_edge))[0]
    assert np.array_equal(found[:2], points_of(maps_of(peaks))[0])
    assert found[2].tolist() == [30.5, 63.5]
    assert found[3:].tolist() == [[0.5, 10.75], [10.75, 0.5], [63.5, 20.25]]
    # SadTalker's way: the third point, in the last row, spoils the others' quarter pixel
    assert not np.array_equal(points_of(maps_of(with_edge[:3]), reference=True)[0, :2], found[:2])


def test_the_68_are_where_everyone_has_them() -> None:
    points = np.stack([np.arange(98.0), 2 * np.arange(98.0)], 1)
    found = to_68(points)
    assert found.shape == (68, 2)
    assert {8: 16, 16: 32, 30: 54, 36: 60, 39: 64, 42: 68, 45: 72, 48: 76, 54: 82, 60: 88, 66: 94}.items() <= dict(
        enumerate(found[:, 0])
    ).items()
    assert found[18].tolist() == [37.5, 75.0]  # the middle of the brow's edges 34 and 41
    assert len(np.unique(WFLW_TO_68[:, 0])) == 68


def thin(network: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """A network's names and shapes; every tensor is one number, so the file is small."""
    state = network.state_dict()
    return {f"{prefix}{name}": torch.tensor(0.25).to(x.dtype).expand(x.shape) for name, x in state.items()}


def test_published_forms_load(tmp_path: Path) -> None:
    boxes, points = tmp_path / "detection_Resnet50_Final.pth", tmp_path / "alignment_WFLW_4HG.pth"
    torch.save(thin(RetinaFace(), "module."), boxes)
    torch.save({"state_dict": thin(Fan()), "epoch": 3}, points)
    for network in (load_retinaface(boxes), load_fan(points)):
        assert not network.training
        assert all((x == 0.25).all() for x in network.state_dict().values() if x.is_floating_point())
    with pytest.raises(UserError, match="holds another network than Fan"):
        load_fan(boxes)


def test_fan_looks_at_the_box_and_tells_px_of_the_picture() -> None:
    class ToldFan(Fan):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def forward(self, faces: torch.Tensor) -> list[torch.Tensor]:
            self.seen = faces
            maps = maps_of(np.tile([(16.5, 32.5)], (99, 1)))
            return [torch.from_numpy(maps)]

    picture = np.zeros((200, 300, 3), np.uint8)
    picture[40:168, 30:158] = 255, 0, 0
    fan = ToldFan()
    points = fan.find(picture, np.array([30.0, 40.0, 158.0, 168.0]))
    assert fan.seen.shape == (1, 3, 256, 256)
    assert fan.seen[0, 0].min() == 1  # red first
    assert fan.seen[0, 2].max() == 0
    assert np.allclose(points, (30 + 33, 40 + 65))
    assert fan.find(picture, np.array([-20.0, -30, 64, 64]))[0].tolist() == [16.5, 32.5]  # cut off at the corner
    with pytest.raises(ValueError, match="lies outside of the picture"):
        fan.find(picture, np.array([310.0, 10, 350, 60]))
