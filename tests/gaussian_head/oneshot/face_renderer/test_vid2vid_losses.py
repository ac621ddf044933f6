"""What each of face-vid2vid's losses rewards, and that all networks learn together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gaussian_head.networks.vid2vid_blocks import SMALL
from gaussian_head.networks.vid2vid_generator import Generator
from gaussian_head.networks.vid2vid_head_pose import HeadPoseEstimator
from gaussian_head.networks.vid2vid_keypoints import KeypointDetector
from gaussian_head.networks.vid2vid_motion import HeadMotion, move_points
from gaussian_head.oneshot.face_renderer.vid2vid_losses import (
    DEPTH,
    MultiScaleDiscriminator,
    RandomWarp,
    deformation_prior_loss,
    discriminator_hinge_loss,
    equivariance_loss,
    feature_matching_loss,
    generator_hinge_loss,
    head_pose_loss,
    keypoint_prior_loss,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(places: Tensor, side: int = 96) -> Tensor:
    """Draw a blob in each channel of a dark picture."""
    axis = torch.linspace(-1, 1, side)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    squared = (x - places[..., 0, None, None]) ** 2 + (y - places[..., 1, None, None]) ** 2
    return (-squared / 0.01).exp()


def centres(pictures: Tensor) -> Tensor:
    """Find the blobs: a detector that is equivariant by construction; z is 0."""
    axis = torch.linspace(-1, 1, pictures.shape[-1])
    shares = pictures / pictures.sum((2, 3), keepdim=True)
    x, y = (shares.sum(2) * axis).sum(2), (shares.sum(3) * axis).sum(2)
    return torch.stack([x, y, torch.zeros_like(x)], -1)


@pytest.mark.parametrize("bend", [0.0, 0.005])
def test_equivariance_tells_finding_from_remembering(bend: float) -> None:
    places = torch.tensor([[[-0.3, 0.2], [0.4, 0.1], [0.1, -0.4]]]).expand(4, -1, -1)
    pictures = blobs(places)
    warp = RandomWarp(4, seeded(3), affine=0.1, bend=bend)
    points = centres(pictures)
    assert torch.allclose(points[..., :2], places, atol=0.01)
    finds = equivariance_loss(centres, pictures, points, warp)
    remembers = equivariance_loss(lambda _: points, pictures, points, warp)
    assert finds < 0.01
    assert remembers > 5 * finds
    assert remembers > 0.03


def test_a_warp_is_drawn_for_each_picture_and_repeatable() -> None:
    pictures = blobs(torch.zeros(2, 3, 2))
    one, again, other = (RandomWarp(2, seeded(seed)).pictures(pictures) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=0.01)
    assert not torch.allclose(one[0], one[1], atol=0.01)
    same = RandomWarp(2, seeded(1), affine=0, bend=0)
    assert torch.allclose(same.pictures(pictures), pictures, atol=1e-5)


def test_keypoint_prior_spreads_points_at_the_right_depth() -> None:
    far = torch.tensor([[[-0.5, 0, DEPTH], [0.5, 0, DEPTH], [0, 0.5, DEPTH]]])
    assert keypoint_prior_loss(far) == pytest.approx(0, abs=1e-6)
    assert keypoint_prior_loss(far + torch.tensor([0, 0, 0.2])) == pytest.approx(0.2, abs=1e-5)
    # three points in one place: six ordered pairs, each nearer by the whole squared distance
    assert keypoint_prior_loss(far[:, :1].expand(-1, 3, -1)) == pytest.approx(0.6, abs=1e-5)
    near = (far * torch.tensor([0.1, 0.1, 1])).requires_grad_()
    keypoint_prior_loss(near).backward()
    moved = near.detach() - 0.05 * near.grad
    assert (moved[0, 0] - moved[0, 1]).norm() > (near[0, 0] - near[0, 1]).norm()


def test_deformation_prior_is_the_l1_norm() -> None:
    deformation = torch.zeros(2, 4, 3)
    assert deformation_prior_loss(deformation) == 0
    deformation[1, 2] = torch.tensor([0.1, -0.2, 0.3])
    assert deformation_prior_loss(deformation) == pytest.approx(0.3)


def test_head_pose_loss_is_in_degrees() -> None:
    def scores(angle: float) -> Tensor:
        """Be sure of one bin."""
        return 50.0 * torch.nn.functional.one_hot(torch.tensor([round((angle + 99) / 3)]), 66)

    motion = HeadMotion(scores(30), scores(-12), scores(0), torch.zeros(1, 3), torch.zeros(1, 6, 3))
    assert head_pose_loss(motion, torch.tensor([[30.0, -12, 0]])) == pytest.approx(0, abs=1e-3)
    assert head_pose_loss(motion, torch.tensor([[27.0, -10, 4]])) == pytest.approx(9, abs=1e-3)


def test_discriminator_learns_and_matching_ignores_the_real_side() -> None:
    torch.manual_seed(4)
    judge = MultiScaleDiscriminator(width=8, widest=32, blocks=3)
    real = blobs(torch.rand(4, 3, 2) - 0.5, 32)
    made = torch.rand(4, 3, 32, 32)
    seen = judge(real)
    assert [len(size) for size in seen] == [4, 4]
    assert seen[1][0].shape[2] < seen[0][0].shape[2]
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    before = None
    for _ in range(25):
        loss = discriminator_hinge_loss(judge(real), judge(made))
        before = loss.item() if before is None else before
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before == pytest.approx(2, abs=0.5)
    assert loss < 0.8 * before
    assert generator_hinge_loss(judge(real)) < generator_hinge_loss(judge(made))
    assert feature_matching_loss(judge(real), judge(real)).item() < feature_matching_loss(judge(real), judge(made))
    left, right = real.clone().requires_grad_(), made.clone().requires_grad_()
    feature_matching_loss(judge(left), judge(right)).backward()
    assert left.grad is None or not left.grad.any()
    assert right.grad.abs().sum() > 0


def test_small_networks_learn_a_motion_together() -> None:
    """A blob that wanders: from one picture and the other's own motion the other is drawn."""
    torch.manual_seed(5)
    places = torch.tensor([[-0.4, -0.3], [0.3, 0.2]])
    clip = blobs(places[:, None].expand(-1, 3, -1), 32) * torch.tensor([0.9, 0.6, 0.3])[:, None, None]
    keypoints, generator, estimator = KeypointDetector(SMALL), Generator(SMALL), HeadPoseEstimator(SMALL)
    parameters = [p for network in (keypoints, generator, estimator) for p in network.parameters()]
    optimizer = torch.optim.Adam(parameters, 2e-3)
    losses = []
    for _ in range(25):
        source, target = clip[:1].expand(2, -1, -1, -1), clip
        canonical = keypoints(source)
        before, after = (move_points(canonical, estimator(p), vertical_only=False) for p in (source, target))
        drawn = generator(source, before, after)
        loss = (drawn.pictures - target).abs().mean() + 0.01 * keypoint_prior_loss(canonical)
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            silent = [p for p in parameters if p.grad is None or not p.grad.any()]
            assert len(silent) < 0.1 * len(parameters)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    shares = drawn.shares.detach()
    assert torch.allclose(shares.sum(1), torch.ones_like(shares[:, 0]), atol=1e-5)
