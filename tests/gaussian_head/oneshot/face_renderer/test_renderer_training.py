"""Training of face renderers: a clip of 20 frames is learnt by heart, and a stop leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_clip import FRAMES, SIDE, write_clip
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gaussian_head.errors import UserError
from gaussian_head.geometry.face_model import matrix_from_angles
from gaussian_head.networks.pirender import PIRenderWidths, load_pirender
from gaussian_head.networks.vid2vid_blocks import Vid2VidSize
from gaussian_head.networks.vid2vid_motion import rotation_matrices
from gaussian_head.oneshot.face_renderer.data import PairedClips
from gaussian_head.oneshot.face_renderer.pirender import PIRenderRenderer, to_network
from gaussian_head.oneshot.face_renderer.pirender_training import PIRenderTrainingOptions, initial_pirender
from gaussian_head.oneshot.face_renderer.renderer import FaceRenderer
from gaussian_head.oneshot.face_renderer.training import RendererTrainingOptions, follow
from gaussian_head.oneshot.face_renderer.vid2vid import Vid2VidRenderer, load_vid2vid
from gaussian_head.oneshot.face_renderer.vid2vid_training import Vid2VidTrainingOptions, head_angles_deg
from gaussian_head.oneshot.fitting import FitConfig, fit, load_trained

STEPS = 130
"""In which a clip is learnt."""
SMALL = PIRenderWidths(descriptor=32, modulation=16, flow=8, editing=8, widest=8)
SMALL_NETWORKS = Vid2VidSize(
    points=4, depth=2, width=4, widest=8, halvings=2, picture=4, volume=4, residuals=1, squeezed=1, middle=1,
    modulation=4, descriptor=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips"))


def quiet(steps: Iterator[int], *_: object) -> Iterator[int]:
    yield from steps


def pirender_options(folder: Path, **changes: object) -> PIRenderTrainingOptions:
    settings = PIRenderTrainingOptions(
        folder, size=SIDE, batch=2, warp_steps=30, learning_rate=4e-3, decay=0.3, decay_every=75, average=0.8,
        eyes="pyramid", widths=SMALL, device="cpu",
    )  # fmt: skip
    return replace(settings, **changes)


def vid2vid_options(folder: Path, **changes: object) -> Vid2VidTrainingOptions:
    settings = Vid2VidTrainingOptions(
        folder, size=SIDE, batch=2, learning_rate=5e-3, decay=0.3, decay_every=95, eyes="pyramid", device="cpu",
        networks=SMALL_NETWORKS, discriminator_width=4,
    )  # fmt: skip
    return replace(settings, **changes)


def driven_error(renderer: FaceRenderer, clips: PairedClips) -> tuple[float, float]:
    """Drive the clip's first frame by the clip's own motion; return the mean error, and that of a picture at rest."""
    frames, motion = np.stack(clips.frames(0, list(range(FRAMES)))), clips.clips[0].motion
    drawn = np.stack(list(renderer.animate(frames[0], motion[0], motion)))
    truth = to_network(frames)
    return float((to_network(drawn) - truth).abs().mean()), float((truth[:1] - truth).abs().mean())


class SmallPIRender(PIRenderRenderer):
    side_px = SIDE


@pytest.mark.slow
def test_pirender_learns_a_clip_by_heart(folder: Path, tmp_path: Path) -> None:
    options = pirender_options(folder)
    task = options.build()
    before, at_rest = driven_error(SmallPIRender(initial_pirender(SMALL, 0)), task.clips)
    fit(task, tmp_path, FitConfig(steps=STEPS, log_every=20, show_every=STEPS, save_every=STEPS), quiet)
    (file,) = tmp_path.glob("step_*/average.safetensors")
    after, _ = driven_error(SmallPIRender(load_pirender(file, SMALL)), task.clips)
    assert after < 0.25 * before, (before, after, at_rest)
    assert after < 0.85 * at_rest, (before, after, at_rest)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss/warp", "loss/final", "loss/l1"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["source_warped_drawn_target"]


@pytest.mark.slow
def test_vid2vid_learns_a_clip_by_heart(folder: Path, tmp_path: Path) -> None:
    task = vid2vid_options(folder, adversarial_weight=0.0, matching_weight=0.0).build()
    assert set(task.networks) == {"renderer"}
    parts = task.networks["renderer"]
    untrained = Vid2VidRenderer(parts["kp_extractor"], parts["generator"], parts["mapping"], SIDE)
    before, at_rest = driven_error(untrained, task.clips)
    parts.train()
    fit(task, tmp_path, FitConfig(steps=STEPS, log_every=20, show_every=STEPS, save_every=STEPS), quiet)
    (file,) = tmp_path.glob("step_*/renderer.safetensors")
    trained = load_vid2vid(given=file, mapping=file, size=SMALL_NETWORKS)
    trained.side_px = SIDE
    after, _ = driven_error(trained, task.clips)
    assert after < 0.25 * before, (before, after, at_rest)
    assert after < 0.85 * at_rest, (before, after, at_rest)
    events = EventAccumulator(str(tmp_path)).Reload()
    losses = {f"loss/{name}" for name in ("perceptual", "equivariance", "keypoints", "pose", "deformation", "l1")}
    assert losses <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["source_drawn_target"]


@pytest.mark.parametrize("kind", ["pirender at the stage's border", "pirender later", "vid2vid"])
def test_a_stop_leaves_no_trace(folder: Path, tmp_path: Path, kind: str) -> None:
    options = vid2vid_options(folder) if kind == "vid2vid" else pirender_options(folder, warp_steps=2, decay_every=2)
    stop = 3 if kind == "pirender later" else 2
    for name, ends in (("whole", (4,)), ("stopped", (stop, 4))):
        for end in ends:
            config = FitConfig(steps=end, log_every=1, show_every=stop, save_every=2)
            fit(options.build(), tmp_path / name, config, quiet)
    networks = set(options.build().networks)
    assert networks == ({"renderer", "discriminator"} if kind == "vid2vid" else {"generator", "average"})
    for network in [*networks, "training"]:
        whole, stopped = (load_trained(tmp_path / name, network) for name in ("whole", "stopped"))
        assert whole.keys() == stopped.keys()
        for name, value in whole.items():
            assert torch.equal(value, stopped[name]), f"{network} {name}"


def test_only_the_warp_is_learnt_first_then_adam_begins_anew(folder: Path) -> None:
    task = pirender_options(folder, warp_steps=2, decay=0.5, decay_every=1, average=0.75).build()
    network, optimizer = task.networks["generator"], task.optimizers["generator"]
    rates, counts, moved = [], [], []

    def update(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()

    first = {name: value.clone() for name, value in network.named_parameters()}
    for step in range(4):
        average = {name: value.clone() for name, value in task.networks["average"].named_parameters()}
        losses = task.step(task.batch(step, 0), step, update)
        assert set(losses) == ({"warp", "l1"} if step < 2 else {"warp", "final", "l1"})
        counts.append(int(optimizer.state[network.mapping_net.first[0].weight]["step"]))
        moved.append({name.partition(".")[0] for name, value in network.named_parameters()
                      if not torch.equal(value, first[name])})  # fmt: skip
        for name, value in task.networks["average"].named_parameters():
            torch.testing.assert_close(value, 0.75 * average[name] + 0.25 * network.get_parameter(name).detach())
    assert rates == [4e-3, 2e-3, 4e-3, 2e-3]
    assert counts == [1, 2, 1, 2]
    assert moved == [{"mapping_net", "warpping_net"}] * 2 + [{"mapping_net", "warpping_net", "editing_net"}] * 2


def test_each_frame_is_drawn_from_the_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = pirender_options(folder, warp_steps=0).build()
    batch, seen = task.batch(7, 0), {}
    network, draw = task.networks["generator"], task.networks["generator"].forward
    monkeypatch.setattr(network, "forward", lambda *given, **k: seen.update(given=given) or draw(*given, **k))
    monkeypatch.setattr(task, "_warp_loss", lambda found, wanted: seen.update(wanted=wanted) or found.mean())
    task.step(batch, 7, lambda loss, _: loss.backward())
    frames, windows = seen["given"]
    source, target = to_network(batch.source), to_network(batch.target)
    assert torch.equal(frames, torch.cat([source, target]))
    assert torch.equal(seen["wanted"], torch.cat([target, source]))
    assert np.array_equal(windows[:2], batch.target_windows)
    assert np.array_equal(windows[2:], batch.source_windows)


def test_the_discriminator_and_the_generator_learn_each_from_its_own_loss(folder: Path) -> None:
    task = vid2vid_options(folder).build()
    gradients = []

    def update(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        for each in task.optimizers.values():
            each.zero_grad()
        loss.backward()
        gradients.append({
            name for name, network in task.networks.items()
            if any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
        })  # fmt: skip

    losses = task.step(task.batch(0, 0), 0, update)
    assert gradients == [{"renderer"}, {"discriminator"}]
    assert {"adversarial", "matching", "discriminator"} <= set(losses)


def test_random_weights_are_pirenders(folder: Path) -> None:
    state = torch.random.get_rng_state()
    network = initial_pirender(PIRenderWidths(), 5)
    assert torch.equal(torch.random.get_rng_state(), state)
    weight = network.requires_grad_(requires_grad=False).editing_net.decoder.res2.res0.conv2.weight
    assert abs(float(weight.std()) - 0.02) < 1e-4
    assert float(network.editing_net.decoder.final.model[0].bias.abs().max()) == 0
    assert float(network.editing_net.encoder.first.model[1].weight.min()) == 1
    again, other = initial_pirender(SMALL, 5), initial_pirender(SMALL, 6)
    assert torch.equal(initial_pirender(SMALL, 5).mapping_net.first[0].weight, again.mapping_net.first[0].weight)
    assert not torch.equal(other.mapping_net.first[0].weight, again.mapping_net.first[0].weight)


def test_training_goes_on_from_given_weights(folder: Path, tmp_path: Path) -> None:
    network = initial_pirender(SMALL, 9)
    torch.save({"net_G_ema": network.state_dict()}, tmp_path / "published.pt")
    task = pirender_options(folder, init=tmp_path / "published.pt", warp_steps=0).build()
    for name in ("generator", "average"):
        held = task.networks[name].state_dict()
        assert all(torch.equal(value, held[key]) for key, value in network.state_dict().items())
    task.step(task.batch(0, 0), 0, lambda loss, optimizer: (loss.backward(), optimizer.step()))
    assert not torch.equal(task.networks["generator"].mapping_net.first[0].weight, network.mapping_net.first[0].weight)


def test_head_angles_turn_the_same_head() -> None:
    angles = np.random.default_rng(1).uniform(-0.7, 0.7, (20, 3))
    flip = torch.diag(torch.tensor([1.0, -1, -1])).double()  # y up, z to the viewer <-> y down, z away
    wanted = flip @ matrix_from_angles(torch.from_numpy(angles)) @ flip
    yaw, pitch, roll = torch.from_numpy(head_angles_deg(angles)).unbind(1)
    # the network's pi is 3.14
    assert float((rotation_matrices(yaw, pitch, roll) - wanted).abs().max()) < 2e-3
    assert head_angles_deg(np.array([[0.0, 0.5, 0.0]]))[0, 0] < -28


def test_average_follows() -> None:
    mean, network = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.9 * mean.weight + 0.1 * network.weight
    follow(mean, network, 0.9)
    torch.testing.assert_close(mean.weight, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 100}, "--size must be a multiple of 32, at least 64, got 100"),
        ({"size": 32}, "--size must be a multiple of 32"),
        ({"batch": 0}, "--batch and --decay-every must be at least 1, got 0"),
        ({"learning_rate": -1.0}, "--learning-rate must be at least 0, got -1.0"),
        ({"cache_mb": float("nan")}, "--cache-mb must be at least 0, got nan"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, object], message: str) -> None:
    for kind in (RendererTrainingOptions, PIRenderTrainingOptions, Vid2VidTrainingOptions):
        with pytest.raises(UserError, match=message):
            kind(Path("clips"), **changes)


def test_wrong_options_of_either_renderer_are_refused() -> None:
    with pytest.raises(UserError, match="--average must be at least 0 and below 1, got 1.0"):
        PIRenderTrainingOptions(Path("clips"), average=1.0)
    with pytest.raises(UserError, match="--coefficients must be 70 or 73 .*, got 64"):
        PIRenderTrainingOptions(Path("clips"), widths=PIRenderWidths(coefficients=64))
    with pytest.raises(UserError, match="--size must be a multiple of 128 for networks of 5 halvings, got 64"):
        Vid2VidTrainingOptions(Path("clips"), size=64)
    with pytest.raises(UserError, match="--matching-weight must be at least 0"):
        Vid2VidTrainingOptions(Path("clips"), matching_weight=-1.0)
