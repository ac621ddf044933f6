"""What heads of each condition see and hear."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gaussian_head.data.subject import Subject
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import INNER_LIPS, LEFT_BROW, OUTER_LIPS
from gaussian_head.geometry.speech_points import CHIN
from gaussian_head.model.checkpoint import find_checkpoint, save_checkpoint
from gaussian_head.model.head import JAW_POINTS, LIPS, Deformed, Head, HeadConfig, lip_move
from gaussian_head.model.landmark_space import Condition

SHAPE = (16, 80)
SPEAKING = [*OUTER_LIPS, *INNER_LIPS, *CHIN]


def make(condition: str, like: Head, subject: Subject) -> Head:
    """An untrained head of a condition, whose fields answer at random."""
    heard = {} if condition == "landmarks" else {"audio_features": "mel", "audio_shape": SHAPE}
    config = replace(like.config, condition=condition, **heard)
    head = Head(config, copy.deepcopy(like.face.gaussians), copy.deepcopy(like.mouth.gaussians))
    head.fit_landmarks(*(part[subject.train] for part in (subject.landmarks, subject.hair, subject.viewmats)))
    for response in (head.face.field.expression, head.face.sway, head.mouth.field.expression):
        torch.nn.init.normal_(response.change, std=0.05)
    return head


@pytest.fixture
def subject(tiny_subject: Path) -> Subject:
    return Subject(tiny_subject, 64)


@pytest.fixture
def heads(tiny_head: Head, subject: Subject) -> dict[str, Head]:
    return {condition: make(condition, tiny_head, subject) for condition in ("landmarks", "audio", "both")}


def driven(head: Head, subject: Subject, moved: list[int] | None = None, sound: int | None = 0) -> Condition:
    """Frame 20, some points of its face moved by 4 mm, with sound of that seed."""
    landmarks = subject.landmarks[20].clone()
    landmarks[moved or []] += torch.tensor([0.0, -0.004, 0.0])
    audio = None if sound is None else torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(sound))
    frame = (subject.action_units[20], subject.hair[20], subject.viewmats[20])
    return head.space.condition(landmarks, *frame, audio)


def shape_of(head: Head, condition: Condition) -> list[Deformed]:
    return [branch.deform(branch.prepare(), condition) for branch in (head.face, head.mouth)]


def are_the_same(head: Head, one: Condition, other: Condition) -> bool:
    pairs = zip(shape_of(head, one), shape_of(head, other), strict=True)
    return all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize(
    ("condition", "sees_lips", "hears"), [("landmarks", True, False), ("audio", False, True), ("both", True, True)]
)
def test_what_lips_and_sound_change(heads, subject, condition, sees_lips, hears):
    head = heads[condition]
    usual = driven(head, subject)
    assert are_the_same(head, usual, driven(head, subject, moved=SPEAKING)) != sees_lips
    assert are_the_same(head, usual, driven(head, subject, sound=1)) != hears
    assert not are_the_same(head, usual, driven(head, subject, moved=[*LEFT_BROW]))


def test_the_lips_of_an_audio_head_are_the_mean_faces(heads, subject):
    space = heads["audio"].space
    found = driven(heads["audio"], subject).displacement + space.rest
    torch.testing.assert_close(found[SPEAKING], space.mean[SPEAKING])
    torch.testing.assert_close(found[LEFT_BROW], subject.landmarks[20, LEFT_BROW])
    assert not torch.allclose(subject.landmarks[20, SPEAKING], space.mean[SPEAKING], atol=1e-3)


def test_the_code_of_an_audio_head_has_no_component_for_the_lips(heads):
    def component(condition: str) -> torch.Tensor:
        """The first one: this person has hardly another motion than that of the mouth."""
        return heads[condition].space.basis[0].unflatten(0, (478, 3))

    assert component("audio")[SPEAKING].abs().max() < 1e-3
    assert component("audio").norm() == pytest.approx(1, abs=1e-4)  # of the cheeks, which are held in part
    assert component("both")[SPEAKING].abs().max() > 1e-1


def test_sound_reaches_both_branches_and_only_skin(heads, subject):
    head = heads["audio"]
    with torch.no_grad():
        head.face.gaussians.means[0] = head.space.rest[14]  # the lower lip
        head.face.gaussians.means[1] = head.space.rest[10] + torch.tensor([0.0, 0.1, -0.08])  # hair
    head.bind()
    one, other = (shape_of(head, driven(head, subject, sound=seed)) for seed in (0, 1))
    face, mouth = ((a.change - b.change).abs().amax(1) for a, b in zip(one, other, strict=True))
    assert face[1] < 1e-3 * face[0]
    assert (mouth > 0).all()


@pytest.mark.parametrize("condition", ["audio", "both"])
def test_a_head_that_hears_asks_for_sound(heads, subject, condition):
    with pytest.raises(UserError, match=r"needs audio features \[8, 16, 80\] with each frame, got none"):
        driven(heads[condition], subject, sound=None)
    frame = (subject.landmarks[20], subject.action_units[20], subject.hair[20], subject.viewmats[20])
    with pytest.raises(UserError, match=r"hears audio features \[8, 16, 80\].*got \[8, 2, 1024\]"):
        heads[condition].space.condition(*frame, torch.zeros(8, 2, 1024))


def test_a_head_of_landmarks_needs_no_sound_and_has_no_network_for_it(heads, subject):
    assert driven(heads["landmarks"], subject, sound=None).audio is None
    assert driven(heads["landmarks"], subject).audio is None
    assert not [name for name, _ in heads["landmarks"].named_parameters() if "audio" in name]


@pytest.mark.parametrize("condition", ["audio", "both"])
def test_gradients_reach_each_branchs_own_audio_network(heads, subject, condition):
    head = heads[condition]
    sum(part.change.square().sum() for part in shape_of(head, driven(head, subject))).backward()
    for branch in (head.face, head.mouth):
        found = {name: parameter.grad for name, parameter in branch.audio_code.named_parameters()}
        assert all(grad is not None and torch.isfinite(grad).all() for grad in found.values())
        reached = {name.split(".")[0] for name, grad in found.items() if grad.any()}
        assert reached == {"steps", "frame", "attention", "share"}


@pytest.mark.parametrize("condition", ["audio", "both"])
def test_a_head_that_hears_comes_back_from_disk(heads, subject, tmp_path, condition):
    head = heads[condition]
    save_checkpoint(tmp_path, head, 1, {}, {})
    again = find_checkpoint(tmp_path).load_head()
    assert again.config == head.config
    frame = driven(again, subject)
    for a, b in zip(shape_of(head, driven(head, subject)), shape_of(again, frame), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "told",
    [
        {"condition": "both", "audio_features": "mel"},
        {"condition": "audio", "audio_shape": (16, 80)},
        {"condition": "landmarks", "audio_features": "mel", "audio_shape": (16, 80)},
    ],
)
def test_half_described_features_are_refused(told):
    with pytest.raises(ValueError, match="audio_features and audio_shape go together"):
        HeadConfig(**told)


def test_a_head_cannot_be_made_before_it_is_known_what_it_hears(tiny_head):
    with pytest.raises(ValueError, match="condition both needs audio_features"):
        Head(HeadConfig(condition="both"), tiny_head.face.gaussians, tiny_head.mouth.gaussians)


def test_the_lips_tell_the_mouth_how_far_they_moved(heads, subject):
    displacement = torch.zeros(478, 3)
    displacement[LIPS[:3], 1], displacement[LIPS[3:], 1] = -0.006, 0.002
    torch.testing.assert_close(lip_move(displacement), torch.tensor([-0.006, 0.002, 0.008]))
    head = heads["landmarks"]
    usual = driven(head, subject)
    opened = usual.displacement.clone()
    opened[[lip for lip in LIPS if lip not in JAW_POINTS], 1] += 0.003  # the jaw stays
    mouth = head.mouth
    assert not torch.equal(
        mouth.deform(mouth.prepare(), usual).means,
        mouth.deform(mouth.prepare(), usual._replace(displacement=opened)).means,
    )
