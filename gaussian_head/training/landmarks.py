"""The stage `landmarks`: the network that turns sound into speech codes, of one person or of many.

Each member of the ensemble is trained without one stretch of the training frames (`folds`). Members start from a ridge
regression of their own frames, over the few frames that the network's linear path hears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gaussian_head.data.layout import SPEECH_HZ
from gaussian_head.data.subject import Subject
from gaussian_head.driving.audio_landmarks import AudioLandmarkNet
from gaussian_head.driving.features import average_parts, load_features, silent_frames
from gaussian_head.driving.regression import LEAST_SPREAD
from gaussian_head.driving.ridge import GUARD_FRAMES
from gaussian_head.driving.speech_space import SpeechSpace
from gaussian_head.geometry.landmarks import (
    INNER_LIPS,
    LOWER_INNER_LIP,
    MESH_POINTS,
    MOUTH_CORNERS,
    OUTER_LIPS,
    UPPER_INNER_LIP,
)  # fmt: skip
from gaussian_head.geometry.speech_points import CHIN
from gaussian_head.media.audio import load_audio
from gaussian_head.training.speech_copies import copy_speech, interpolate
from gaussian_head.training.stage import Learned, Stage, View
from gaussian_head.training.trainer import TrainerConfig

POINTS = np.concatenate([OUTER_LIPS, INNER_LIPS, CHIN])
"""Where the network is judged."""
UPPER, LOWER, CORNERS = (
    torch.tensor([int(np.flatnonzero(point == POINTS)[0]) for point in points])
    for points in (UPPER_INNER_LIP, LOWER_INNER_LIP, MOUTH_CORNERS)
)
MOTION_WEIGHT = 3.0
SHAPE_WEIGHT = 2.0
"""Of the mouth's aperture and width."""
CLOSURE_WEIGHT, CLOSURE_MM = 2.0, 1.5
"""A frame counts 1 + 2 exp(-aperture / 1.5 mm): closures dominate what is seen."""
CODE_WEIGHT = 1e-3


@dataclass(frozen=True)
class LandmarksConfig:
    """The network from sound to landmarks."""

    steps: int = 200
    """Optimizer steps."""
    rate: float = 1e-4
    """Learning rate at the start; it falls exponentially."""
    final_share: float = 0.03
    """Rate at the end, as a share of that at the start."""
    decay: float = 1e-2
    """AdamW weight decay."""
    look_ahead: Literal[0, 2, 4] = 4
    """Frames of 40 ms that the network hears ahead; a stream is as much late."""
    channels: int = 64
    """Width of the convolutions."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Of the convolutions, in frames."""
    dropout: float = 0.1
    """Share of channels silenced in a step."""
    copies: int = 24
    """Versions of each sound, the original among them."""
    batch: int = 4
    """Stretches of speech in a step, for each member."""
    crop_frames: int = 64
    """Length of each, in frames."""
    silence_weight: float = 0.1
    """Weight of keeping the mouth closed in silence."""
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(20, 100, 100))
    """How often things happen besides steps."""


@dataclass(frozen=True)
class Speaker:
    """One person's speech and face."""

    name: str
    extractor: str
    features: Float[np.ndarray, "T W C"]
    speech: Float[np.ndarray, " S"] | None
    """Samples (16 kHz), where features can be computed from them anew."""
    landmarks: Float[np.ndarray, "T 478 3"]
    """Metres, head frame."""
    train: Int[np.ndarray, " N"]
    """Numbers of the training frames, in order."""
    val: Int[np.ndarray, " V"]

    @classmethod
    def from_subject(cls, subject: Subject, extractor: str) -> Speaker:
        """Take what a subject folder holds.

        Raises:
            FileNotFoundError: The features are missing.
            UserError: They do not fit the subject.
        """
        wav = subject.layout.speech
        speech = load_audio(wav, SPEECH_HZ) if extractor == "mel" and wav.is_file() else None
        return cls(
            subject.layout.subject, extractor, load_features(subject, extractor), speech,
            subject.landmarks.numpy().astype(np.float64), np.array(subject.train), np.array(subject.val),
        )  # fmt: skip

    def folds(self, count: int) -> Int[np.ndarray, " N"]:
        """Return which stretch each training frame belongs to, 0..count-1."""
        return np.arange(len(self.train)) * count // len(self.train)

    def seen(self, count: int) -> Bool[np.ndarray, "M T"]:
        """Return which frames each member may learn from: of the training, and not near its held-out stretch."""
        fold = self.folds(count)
        seen = np.zeros((count, len(self.features)), bool)
        for member in range(count):
            out = np.flatnonzero(fold == member)
            kept = np.ones(len(self.train), bool)
            if len(out):
                kept[max(0, out[0] - GUARD_FRAMES) : out[-1] + 1 + GUARD_FRAMES] = False
            seen[member, self.train[kept]] = True
        return seen


def input_statistics(speakers: Sequence[Speaker]) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Return mean and inverse deviation of the training frames' inputs, each speaker counting alike."""
    inputs = [average_parts(s.features)[s.train].astype(np.float64) for s in speakers]
    mean = np.mean([x.mean(0) for x in inputs], 0)
    variance = np.mean([np.square(x - mean).mean(0) for x in inputs], 0)
    scale = 1 / np.maximum(np.sqrt(variance), LEAST_SPREAD)
    return torch.from_numpy(mean).float(), torch.from_numpy(scale).float()


class Target(NamedTuple):
    """What the sound of one speaker asks for."""

    codes: Float[np.ndarray, "T K"]
    """Of every frame; frames that are not for training hold zeros."""
    closed: Float[np.ndarray, " K"]


def targets(speaker: Speaker, space: SpeechSpace) -> Target:
    """Encode the training frames, without the moods that cannot be heard."""
    wanted, closed = space.targets(speaker.landmarks[speaker.train])
    codes = np.zeros((len(speaker.features), wanted.shape[1]))
    codes[speaker.train] = wanted
    return Target(codes, closed)


class LandmarkStage(Stage):
    """Fit the network on crops of everybody's altered speech, in millimetres at the lips."""

    name = "landmarks"
    part = "network"

    def __init__(
        self, net: AudioLandmarkNet, speakers: Sequence[Speaker], spaces: Sequence[SpeechSpace],
        config: LandmarksConfig, seed: int,
    ) -> None:  # fmt: skip
        """Alter the speech, which takes a moment, and lay all of it side by side.

        Args:
            net: Its linear path and statistics are set.
            speakers: One person, or those of a pretraining.
            spaces: Each speaker's own.
            config: Options.
            seed: Of every draw.
        """
        super().__init__(net, config.steps, config.final_share, seed)
        self.net = net
        self.config = config
        self.speakers, self.spaces = speakers, spaces
        members = net.config.members
        inputs, codes, seen, lengths, owners = [], [], [], [], []
        for i, (speaker, space) in enumerate(zip(speakers, spaces, strict=True)):
            wanted, _ = targets(speaker, space)
            learned = speaker.seen(members)
            for copy in copy_speech(speaker.features, speaker.speech, config.copies, seed):
                inputs.append(copy.inputs)
                codes.append(interpolate(wanted, copy.positions))
                seen.append(
                    learned[:, np.floor(copy.positions).astype(int)] & learned[:, np.ceil(copy.positions).astype(int)]
                )
                lengths.append(len(copy.positions))
                owners.append(i)
        self._inputs = (torch.from_numpy(np.concatenate(inputs)) - net.input_mean) * net.input_scale
        self._codes = torch.from_numpy(np.concatenate(codes)).float()
        self._seen = torch.from_numpy(np.concatenate(seen, 1)).float()
        self._lengths, self._owners = torch.tensor(lengths), torch.tensor(owners)
        self._offsets = torch.cumsum(self._lengths, 0) - self._lengths
        self._bases = torch.stack([lip_basis_mm(space) for space in spaces])
        self._means = torch.stack([torch.from_numpy(s.mean_landmarks[POINTS] * 1e3).float() for s in spaces])
        self._silences = self._make_silences()

    def learned(self) -> list[Learned]:
        """Return the convolutions; the linear path stays as it was fitted."""
        return [
            Learned(name, parameter, self.config.rate, self.config.decay)
            for name, parameter in self.net.named_parameters()
        ]

    def view(self, step: int) -> View:
        """Judge random stretches of speech, and silence."""
        generator, config, net = self._generator(step), self.config, self.net
        shape = (net.config.members, config.batch)
        copy = torch.randint(len(self._lengths), shape, generator=generator)
        room = (self._lengths[copy] - config.crop_frames).clamp_min(0) + 1
        start = (torch.rand(shape, generator=generator) * room).long()
        last, offset = (self._lengths[copy] - 1)[..., None], self._offsets[copy][..., None]
        reach, ahead = net.config.reach, net.look_ahead
        heard = start[..., None] + torch.arange(ahead - reach, config.crop_frames + ahead)
        wanted = start[..., None] + torch.arange(config.crop_frames)
        frames = offset + wanted.clamp(max=last)
        members = torch.arange(net.config.members)[:, None, None]
        mask = self._seen[members, frames] * (wanted <= last)
        codes = net.valid(
            self._inputs[offset + heard.clamp(min=0).clamp(max=last)], config.dropout, generator
        )  # [M, B, R, K]
        losses = self._judge(codes, self._codes[frames], mask, self._owners[copy])
        still, closed, owners = self._silences
        every = still.expand(net.config.members, -1, reach + 1, -1)
        error = self._points(net.valid(every) - closed, owners.expand(net.config.members, -1))
        return View(losses | {"silence": config.silence_weight * error.abs().mean()})

    def _make_silences(self) -> tuple[Float[Tensor, "S 1 D"], Float[Tensor, "S 1 K"], Int[Tensor, " S"]]:
        """Return silent inputs, the closed codes they ask for, and whose they are."""
        inputs, closed, owners = [], [], []
        for i, (speaker, space) in enumerate(zip(self.speakers, self.spaces, strict=True)):
            silent = silent_frames(speaker.features[speaker.train], speaker.extractor)
            inputs.append(self.net.normalise(silent))
            closed += [torch.from_numpy(targets(speaker, space).closed).float()] * len(silent)
            owners += [i] * len(silent)
        return torch.cat(inputs)[:, None], torch.stack(closed)[:, None], torch.tensor(owners)

    def _points(self, codes: Float[Tensor, "M B R K"], owners: Int[Tensor, "M B"]) -> Float[Tensor, "M B R P 3"]:
        """Turn codes into displacements, mm."""
        return torch.matmul(codes, self._bases[owners]).unflatten(-1, (len(POINTS), 3))

    def _judge(
        self, codes: Float[Tensor, "M B R K"], wanted: Float[Tensor, "M B R K"], mask: Float[Tensor, "M B R"],
        owners: Int[Tensor, "M B"],
    ) -> dict[str, Tensor]:  # fmt: skip
        """Return the losses of specs/gaussian_head.md i.4."""
        moved, true = self._points(codes, owners), self._points(wanted, owners)
        still = self._means[owners][:, :, None]
        (aperture, width), (true_aperture, true_width) = (_mouth(still + points) for points in (moved, true))
        weight = mask * (1 + CLOSURE_WEIGHT * torch.exp(-true_aperture / CLOSURE_MM))
        pairs = weight[:, :, 1:] * mask[:, :, :-1]
        change = (moved - true).diff(dim=2)
        shape = (aperture - true_aperture).abs() + (width - true_width).abs()
        return {
            "position": _mean((moved - true).abs().mean((-1, -2)), weight),
            "motion": MOTION_WEIGHT * _mean(change.abs().mean((-1, -2)), pairs),
            "shape": SHAPE_WEIGHT * _mean(shape, weight),
            "code": CODE_WEIGHT * _mean(codes.square().sum(-1), mask),
        }


def predict_held_out(net: AudioLandmarkNet, speaker: Speaker) -> Float[np.ndarray, "N K"]:
    """Predict a speaker's training frames, each by the member that has not seen it; without gain."""
    with torch.no_grad():
        codes = net.whole(net.normalise(speaker.features)).numpy()
    return codes[speaker.folds(len(codes)), speaker.train].astype(np.float64)


def lip_basis_mm(space: SpeechSpace) -> Float[Tensor, "K D"]:
    """Return the displacement, mm, that each code of one standard deviation gives the points judged."""
    basis = (space.basis * space.spread[:, None]).reshape(-1, MESH_POINTS, 3)[:, POINTS]
    return torch.from_numpy(basis * 1e3).float().flatten(1)


def _mouth(points: Float[Tensor, "M B R P 3"]) -> tuple[Float[Tensor, "M B R"], Float[Tensor, "M B R"]]:
    """Measure aperture and width, mm; smooth where lips touch."""
    gap = points[..., UPPER, :] - points[..., LOWER, :]
    across = points[..., CORNERS[0], :] - points[..., CORNERS[1], :]
    return ((gap.square().sum(-1) + 1e-4).sqrt()).mean(-1), (across.square().sum(-1) + 1e-4).sqrt()


def _mean(value: Float[Tensor, "M B R"], weight: Float[Tensor, "M B R"]) -> Tensor:
    return (value * weight).sum() / weight.sum().clamp_min(1)
