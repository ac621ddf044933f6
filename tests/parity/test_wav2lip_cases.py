"""Wav2Lip's networks, its face detector, boxes and paste-back against what the reference gave (specs/one_shot.md 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fill import draw_image
from recorded import Case

from gaussian_head.media.time_bases import window_rows
from gaussian_head.networks.s3fd_face_alignment import FaceAlignmentS3FD
from gaussian_head.networks.wav2lip import Wav2Lip
from gaussian_head.networks.wav2lip_expert import SyncExpert, sync_loss
from gaussian_head.networks.wav2lip_quality import QualityDiscriminator
from gaussian_head.oneshot.wav2lip.boxes import padded, smooth_boxes
from gaussian_head.oneshot.wav2lip.faces import cut_face, without_lips
from gaussian_head.oneshot.wav2lip.lip_sync import LipPainter, LipSyncConfig
from gaussian_head.oneshot.wav2lip.speech import SpeechWindows


@torch.inference_mode()
def test_generator_agrees(case_folder: Any) -> None:
    case = Case(case_folder("wav2lip_generator"))
    network, speech, x = case.filled(Wav2Lip()), case.tensor("mel"), case.tensor("face")
    frames = network(speech, x)
    for encode in network.face_encoder_blocks:
        x = encode(x)
    heard = network.audio_encoder(speech)
    case.judge({"frames": frames, "audio_embedding": heard.flatten(1), "face_bottleneck": x.flatten(1)})


@torch.inference_mode()
def test_generator_agrees_on_clips(case_folder: Any) -> None:
    case = Case(case_folder("wav2lip_generator_5d"))
    case.judge({"frames": case.filled(Wav2Lip())(case.tensor("mel5"), case.tensor("face5"))})


@torch.inference_mode()
def test_expert_agrees(case_folder: Any) -> None:
    case = Case(case_folder("wav2lip_syncnet_color"))
    heard, seen = case.filled(SyncExpert())(case.tensor("mel"), case.tensor("face"))
    cosine = (heard * seen).sum(1)
    case.judge({
        "audio_embedding": heard, "face_embedding": seen, "cosine": cosine, "bce_sync_loss": sync_loss(cosine)[None],
    })  # fmt: skip


@torch.inference_mode()
def test_quality_discriminator_agrees(case_folder: Any) -> None:
    case = Case(case_folder("wav2lip_disc_qual"))
    network, faces = case.filled(QualityDiscriminator()), case.tensor("face")
    prob = network(faces)
    loss = torch.nn.functional.binary_cross_entropy(prob, torch.ones_like(prob))
    case.judge({"prob": prob, "features": network.features(faces).flatten(1), "perceptual_bce_ones": loss[None]})


@torch.inference_mode()
def test_face_detector_agrees(case_folder: Any) -> None:
    case = Case(case_folder("wav2lip_s3fd"))
    grids = case.filled(FaceAlignmentS3FD()).grids(case.tensor("image"))
    case.judge(
        {f"{kind}{i}": value for i, pair in enumerate(grids) for kind, value in zip(("cls", "reg"), pair, strict=True)}
    )


def test_boxes_agree(case_folder: Any) -> None:
    case = Case(case_folder("wav2lip_boxes"))
    size = tuple(case.given("image_hw").tolist())
    boxes = [padded(box, (0, 10, 0, 0), size) for box in case.given("rects")]
    smoothed, short = (
        np.array([box for _, box in smooth_boxes(enumerate(some), "ahead")]) for some in (boxes, boxes[:3])
    )
    case.judge({"padded": np.array(boxes), "smoothed": smoothed, "smoothed_short": short})


def test_paste_back_agrees(case_folder: Any) -> None:
    case = Case(case_folder("wav2lip_datagen_paste"))
    drawn = draw_image("w2l_frames", (3, 3, 210, 224), seed=case.manifest["input_seed"])
    frames = (drawn.transpose(0, 2, 3, 1) * 255).astype(np.uint8)[..., ::-1]  # RGB
    config = LipSyncConfig(box=(30, 190, 44, 180), paste="hard", rounding="truncate", cycle="repeat", batch_size=3)
    painter = LipPainter(case.filled(Wav2Lip()), lambda pictures: [], config)
    windows = SpeechWindows(case.given("mel").T, window_rows(3 * np.arange(5), 16, 28))
    located = list(painter.locate([frames[k % 3] for k in range(5)], 25))
    faces = np.stack([cut_face(*pair) for pair in located])
    net_input = np.concatenate([without_lips(faces), faces], 1).transpose(0, 2, 3, 1)
    composited = np.stack(list(painter.paint(located, windows)))[..., ::-1]
    case.judge({"composited": composited, "net_input": net_input})
