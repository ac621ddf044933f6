"""Assembly of the stage `landmarks`: for one person, and for the pretraining on many."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from gaussian_head.config import from_json, to_json
from gaussian_head.data.subject import Subject
from gaussian_head.driving.audio_landmarks import AudioLandmarkConfig, AudioLandmarkNet
from gaussian_head.driving.hearing import choose_extractor
from gaussian_head.driving.held_out import save_held_out
from gaussian_head.driving.predictor import NetworkFacts, SpeechNetwork, asked_for, better, record_choice
from gaussian_head.driving.pretrained import Pretrained
from gaussian_head.driving.regression import correlation, fit_and_hold_out, gain_for
from gaussian_head.driving.speech_space import COMPONENTS, SpeechSpace, common_basis
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.geometry.speech_points import lip_error_mm
from gaussian_head.model.checkpoint import find_checkpoint
from gaussian_head.training.fit import check_same_run, tell_run
from gaussian_head.training.landmarks import (
    LandmarksConfig,
    LandmarkStage,
    Speaker,
    input_statistics,
    predict_held_out,
)  # fmt: skip
from gaussian_head.training.landmarks_start import adapt, start_from_ridge
from gaussian_head.training.presets import FitConfig
from gaussian_head.training.trainer import Trainer

logger = logging.getLogger(__name__)
PredictorChoice = Literal["auto", "ridge", "network"]
STAGE = LandmarkStage.name
SHARES = (0.0, 0.25, 0.5, 1.0)
"""How much of what the convolutions have learned is taken: what most helps on held-out frames."""


def fit_landmarks(
    subject: Subject, run: Path, config: FitConfig, preset: str, trainer: Trainer, *,
    choice: PredictorChoice = "auto", init: Path | None = None,
) -> bool:  # fmt: skip
    """Train the network on one person, beside the ridge regression, and write `driving/` with the one to be used.

    Args:
        subject: The person.
        run: The run folder.
        config: Options; its `landmarks` and `seed` are read.
        preset: Name of the options.
        trainer: Runs the stage.
        choice: Which predictor to use; auto: what does better on held-out stretches of the train split.
        init: Pretrained network to begin with.

    Returns:
        Whether there was anything left to do.

    Raises:
        UserError: The run folder holds other options or another subject, or the pretrained network does not fit.
    """
    speaker = Speaker.from_subject(subject, choose_extractor(subject.layout))
    options = {"seed": config.seed, "landmarks": to_json(config.landmarks), "init": init and _sha256(init)}
    document = tell_run(STAGE, preset, subject.layout.subject, options)
    space = SpeechSpace.fit(speaker.landmarks[speaker.train])
    net, trained = _resume(run, document, config.landmarks.steps)
    if not trained:
        if net is None:
            net = _first_network(speaker, space, config, init)
        logger.info("%d speech components explain %.2f %% of the lips' motion.", COMPONENTS, 100 * space.explained)
        trainer.fit(LandmarkStage(net, [speaker], [space], config.landmarks, config.seed), document)
    elif asked_for(run / "driving") == choice:
        logger.info("%s: up to date (%d steps)", STAGE, config.landmarks.steps)
        return False
    _write_driving(subject, speaker, SpeechNetwork(_facts(net, speaker, space, config, init), space, net), run, choice)
    return True


def pretrain_landmarks(
    subjects: Sequence[Subject], run: Path, config: FitConfig, preset: str, trainer: Trainer
) -> Path:  # fmt: skip
    """Train one network on many people, in a space common to them; return the file written.

    Args:
        subjects: At least two.
        run: Run folder, which gets `landmarks/` and `pretrained.safetensors`.
        config: Options; its `landmarks` and `seed` are read.
        preset: Name of the options.
        trainer: Runs the stage.

    Raises:
        UserError: Only one person, or the run folder holds other options or other people.
    """
    if len(subjects) < 2:
        raise UserError("pretraining needs at least 2 subject folders, got 1; for one person run: "
                        "python -m gaussian_head.train landmarks")  # fmt: skip
    speakers = [Speaker.from_subject(subject, choose_extractor(subject.layout)) for subject in subjects]
    people = [speaker.name for speaker in speakers]
    options = {"seed": config.seed, "landmarks": to_json(config.landmarks)}
    document = tell_run(STAGE, preset, ", ".join(people), options)
    basis, spread = common_basis([speaker.landmarks[speaker.train] for speaker in speakers])
    spaces = [SpeechSpace.on_basis(speaker.landmarks[speaker.train], basis, spread) for speaker in speakers]
    for speaker, space in zip(speakers, spaces, strict=True):
        logger.info("%s: %.1f %% of the lips' motion lies in the common space", speaker.name, 100 * space.explained)
    net, trained = _resume(run, document, config.landmarks.steps)
    if not trained:
        if net is None:
            net = _fresh_network(speakers, config)
            start_from_ridge(net, speakers, spaces)
        trainer.fit(LandmarkStage(net, speakers, spaces, config.landmarks, config.seed), document)
    out = run / "pretrained.safetensors"
    common = (torch.from_numpy(np.ascontiguousarray(part)).float() for part in (basis, spread))
    Pretrained(net, speakers[0].extractor, people, *common).save(out)
    return out


def _resume(run: Path, document: dict[str, Any], steps: int) -> tuple[AudioLandmarkNet | None, bool]:
    """Return the network of the latest checkpoint, if there is one, and whether it is fully trained."""
    checkpoint = find_checkpoint(run / STAGE)
    if checkpoint is None:
        return None, False
    check_same_run(checkpoint.document, document, run / STAGE)
    net = AudioLandmarkNet(from_json(AudioLandmarkConfig, checkpoint.document[LandmarkStage.part]))
    checkpoint.load_part(LandmarkStage.part, net)
    return net, checkpoint.step >= steps


def _fresh_network(speakers: Sequence[Speaker], config: FitConfig) -> AudioLandmarkNet:
    kinds = {(speaker.extractor, speaker.features.shape[1:]) for speaker in speakers}
    if len(kinds) > 1:
        raise UserError(f"the subjects' audio features must be of one kind, got {sorted(kinds)}; extract them alike.")
    _, feature_shape = kinds.pop()
    options: LandmarksConfig = config.landmarks
    shape = AudioLandmarkConfig(
        feature_shape, COMPONENTS, options.look_ahead, options.channels, options.dilations
    )  # fmt: skip
    net = AudioLandmarkNet(shape, config.seed)
    net.input_mean, net.input_scale = input_statistics(speakers)
    return net


def _first_network(speaker: Speaker, space: SpeechSpace, config: FitConfig, init: Path | None) -> AudioLandmarkNet:
    """Return the network at step 0."""
    if init is None:
        net = _fresh_network([speaker], config)
    else:
        pretrained = Pretrained.load(init)
        pretrained.check(speaker.extractor, speaker.features.shape[1:], config.landmarks.look_ahead)
        net = pretrained.net
        common = (pretrained.basis.double().numpy(), pretrained.spread.double().numpy())
        adapt(net, SpeechSpace.on_basis(speaker.landmarks[speaker.train], *common), space)
    start = start_from_ridge(net, [speaker], [space])
    logger.info("before its first step the network's mouth opening correlates %.3f on held-out frames", start)
    return net


def _facts(
    net: AudioLandmarkNet, speaker: Speaker, space: SpeechSpace, config: FitConfig, init: Path | None
) -> NetworkFacts:
    """Set the share of the convolutions and the gain, and measure the network."""
    truth = speaker.landmarks
    true, learned = mouth_aperture(truth[speaker.train]), net.head.detach().clone()

    def held_out(share: float) -> tuple[float, Float[np.ndarray, "N K"]]:
        net.head.data = share * learned
        codes = predict_held_out(net, speaker)
        return correlation(mouth_aperture(space.decode(codes).numpy()), true), codes

    share = max(SHARES, key=lambda share: held_out(share)[0])
    score, codes = held_out(share)
    gain = gain_for(mouth_aperture(space.decode(codes).numpy()), true)
    net.gain.fill_(gain)
    with torch.no_grad():
        val = space.decode(net(speaker.features).numpy()).numpy()[speaker.val]
    return NetworkFacts(
        extractor=speaker.extractor,
        feature_shape=speaker.features.shape[1:],
        subject=speaker.name,
        convolutions=share,
        gain=gain,
        steps=config.landmarks.steps,
        pretrained=init is not None,
        train_aperture_correlation=score,
        val_aperture_correlation=correlation(mouth_aperture(val), mouth_aperture(truth[speaker.val])),
        train_lip_error_mm=lip_error_mm(space.decode(gain * codes).numpy(), truth[speaker.train]),
        val_lip_error_mm=lip_error_mm(val, truth[speaker.val]),
    )


def _write_driving(
    subject: Subject, speaker: Speaker, network: SpeechNetwork, run: Path, choice: PredictorChoice
) -> None:  # fmt: skip
    folder = run / "driving"
    ridge, ridge_codes = fit_and_hold_out(subject, speaker.extractor)
    ridge.save(folder)
    network.save(folder)
    used = better(ridge.facts, network.facts) if choice == "auto" else choice
    codes = network.facts.gain * predict_held_out(network.net, speaker) if used == "network" else ridge_codes
    tracked = subject.landmarks[subject.train]
    save_held_out(folder, torch.tensor(subject.train), network.space.decode(codes, rest=tracked))
    record_choice(folder, used, choice, network.space, ridge.facts, network.facts)
    logger.info(
        "sound moves the head by the %s; mouth opening on held-out frames: ridge %.3f, network %.3f",
        used, ridge.facts.train_aperture_correlation, network.facts.train_aperture_correlation,
    )  # fmt: skip


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the file written by gaussian_head.pretrain_landmarks.")
    return hashlib.sha256(path.read_bytes()).hexdigest()
