"""The table of public weights: which files exist, under which terms, who may use them, and where they are got."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path("checkpoints")
"""Where weights are put by default, relative to the working folder."""
Users = Literal["anyone", "non-commercial", "registered", "unstated"]
"""Who may use a file: anyone, researchers alone, those who registered; or its publishers do not say."""
_SADTALKER = "https://github.com/OpenTalker/SadTalker/releases/download/v0.0.2-rc"


@dataclass(frozen=True)
class WeightFile:
    """One public file."""

    name: str
    """Key in `TABLE`, as in `syncnet`."""
    file: str
    """Its published file name."""
    unlocks: str
    """What works once it is there."""
    licence: str
    """Its terms, in short."""
    source: str
    """Where a person gets it."""
    sha256: str = ""
    """Of the published file, where known."""
    aliases: tuple[str, ...] = ()
    """Other names under which it is published."""
    other_sha256: tuple[str, ...] = ()
    """Of other published files that hold the same network, where known."""
    is_program: bool = False
    """A torchscript archive: code that runs, not tensors alone."""
    is_task: bool = False
    """A MediaPipe task: a zip archive of networks for MediaPipe's own runtime."""
    size_mb: int = 0
    """About, 10^6 bytes."""
    users: Users = "unstated"
    """Who may use it; `prepare` fetches by itself only what is for anyone."""
    url: str = ""
    """Where a program gets it, if not from `source`."""
    part: str = ""
    """Key of the network in a checkpoint of torch that holds several."""
    repository: str = ""
    """On the Hugging Face hub, as in `microsoft/wavlm-large`: its cache on disk is searched too, and the folder, which
    also holds the network's configuration, may be named in the file's place."""

    @property
    def addresses(self) -> dict[str, str]:
        """Return each file that a program must fetch, as it is kept, and where from; {} where a person must."""
        if self.repository:
            base = f"https://huggingface.co/{self.repository}/resolve/main"
            parts = ("config.json", "preprocessor_config.json", "pytorch_model.bin")
            return {str(Path(self.file).with_name(part)): f"{base}/{part}" for part in parts}
        address = self.url or self.source
        name = address.partition("?")[0].rpartition("/")[2]
        kept = next((file for file in (self.file, *self.aliases) if file.rpartition("/")[2] == name), None)
        return {kept: address} if kept and address.startswith("http") else {}

    @property
    def variable(self) -> str:
        """Return the environment variable that names this file."""
        return f"GAUSSIAN_HEAD_{self.name.upper().replace('-', '_')}"


def _wav2lip(name: str, file: str, unlocks: str, sha256: str, size_mb: int) -> WeightFile:
    return WeightFile(
        name, file, unlocks, "non-commercial research only (trained on LRS2)",
        "https://github.com/Rudrabha/Wav2Lip (links in its README)", sha256, size_mb=size_mb, users="non-commercial",
    )  # fmt: skip


def _sadtalker(name: str, file: str, unlocks: str) -> WeightFile:
    return WeightFile(
        name, file, unlocks, "Apache-2.0 (SadTalker); trained on VoxCeleb, which is for research",
        "https://github.com/OpenTalker/SadTalker/releases (v0.0.2: a safetensors file holds all; v0.0.1: this file)",
        aliases=("SadTalker_V0.0.2_256.safetensors", "SadTalker_V0.0.2_512.safetensors"),
        other_sha256=("c211f5d6de003516bf1bbda9f47049a4c9c99133b1ab565c6961e5af16477bff",),
        size_mb=725, users="non-commercial", url=f"{_SADTALKER}/SadTalker_V0.0.2_256.safetensors",
    )  # fmt: skip


def _challenge(name: str, file: str, unlocks: str, size_mb: int) -> WeightFile:
    return WeightFile(
        name, file, unlocks, "yours: the entry's own weights were never published",
        f"train it: python -m gaussian_head.oneshot.train {name.replace('_', '-')}", size_mb=size_mb,
    )  # fmt: skip


def _speech_encoder(name: str, repository: str, licence: str, size_mb: int) -> WeightFile:
    folder = repository.partition("/")[2]
    return WeightFile(
        name, f"{folder}/model.safetensors", f"--audio-features {name}", licence,
        f"the whole folder: hf download {repository} --local-dir {FOLDER / folder}",
        aliases=(f"{folder}/pytorch_model.bin",), size_mb=size_mb, users="anyone", repository=repository,
    )  # fmt: skip


def _vid2vid(name: str, file: str, unlocks: str, part: str, size_mb: int, *aliases: str) -> WeightFile:
    return WeightFile(
        name, file, unlocks, "Apache-2.0 (SadTalker); trained on VoxCeleb, which is for research",
        "https://github.com/OpenTalker/SadTalker/releases (v0.0.2-rc, older files v0.0.2)", aliases=aliases, part=part,
        size_mb=size_mb, users="non-commercial", url=f"{_SADTALKER}/{file}",
    )  # fmt: skip


TABLE: dict[str, WeightFile] = {
    weights.name: weights
    for weights in (
        WeightFile(
            "alexnet", "alexnet-owt-7be5be79.pth", "LPIPS", "BSD-3-Clause (torchvision)",
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            size_mb=244, users="anyone",
        ),
        WeightFile(
            "lpips_heads", "lpips/weights/v0.1/alex.pth", "LPIPS", "BSD-2-Clause (lpips)",
            "inside the wheel: pip install --no-deps lpips==0.1.4 (or unpack it into the folder of weights)",
            sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            aliases=("lpips_v0.1_alex.pth",),
            size_mb=1, users="anyone",
            url="https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
        ),
        WeightFile(
            "inception", "pt_inception-2015-12-05-6726825d.pth", "FID", "Apache-2.0 (TensorFlow's, ported)",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            aliases=("weights-inception-2015-12-05-6726825d.pth",),
            size_mb=96, users="anyone",
        ),
        WeightFile(
            "i3d", "i3d_torchscript.pt", "FVD", "Apache-2.0 (DeepMind's, converted)",
            "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
            "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
            is_program=True,
            size_mb=51, users="anyone",
        ),
        WeightFile(
            "arcface", "ms1mv3_arcface_r100_fp16/backbone.pth", "CSIM", "non-commercial research only (insightface)",
            "the model zoo of github.com/deepinsight/insightface, folder ms1mv3_arcface_r100_fp16",
            aliases=("backbone.pth", "ms1mv3_arcface_r100_fp16_backbone.pth"),
            size_mb=261, users="non-commercial",
        ),
        WeightFile(
            "syncnet", "syncnet_v2.model", "AVOffset, AVConf, Sync-C, Sync-D", "MIT (code); weights as published",
            "http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
            "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
            size_mb=55,
        ),
        WeightFile(
            "s3fd", "sfd_face.pth", "the face detector of AVOffset, AVConf, Sync-C, Sync-D", "as published",
            "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/sfd_face.pth",
            "d54a87c2b7543b64729c9a25eafd188da15fd3f6e02f0ecec76ae1b30d86c491",
            size_mb=90,
        ),
        WeightFile(
            "bisenet", "79999_iter.pth", "--parser bisenet",
            "MIT (code); trained on CelebAMask-HQ, which is for non-commercial research",
            "https://github.com/zllrunning/face-parsing.PyTorch (a link in its README)",
            "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
            aliases=("parsing_bisenet.pth", "face-parsing-bisenet.pth"),
            size_mb=53, users="non-commercial",
            url="https://github.com/xinntao/facexlib/releases/download/v0.2.0/parsing_bisenet.pth",
        ),
        WeightFile(
            "easyportrait", "fpn-fp-512.pth", "--teeth easyportrait", "a variant of CC BY-SA 4.0 (EasyPortrait)",
            "https://github.com/hukenovs/easyportrait, FPN + ResNet50, face parsing (any size)",
            aliases=("fpn-fp-1024.pth", "fpn-fp.pth", "fpn-fp-224.pth"),
            size_mb=109, users="anyone",
        ),
        WeightFile(
            "deep3d", "epoch_20.pth", "python -m data_utils.coefficients",
            "MIT (code); the coefficients are of BFM-2009, which is for non-commercial research",
            "https://github.com/sicxu/Deep3DFaceRecon_pytorch (a link in its README)",
            "6d17a6b23457b521801baae583cb6a58f7238fe6721fc3d65d76407460e9149b",
            aliases=("SadTalker_V0.0.2_256.safetensors", "SadTalker_V0.0.2_512.safetensors"),
            other_sha256=("c211f5d6de003516bf1bbda9f47049a4c9c99133b1ab565c6961e5af16477bff",),
            size_mb=725, users="non-commercial",
            url=f"{_SADTALKER}/SadTalker_V0.0.2_256.safetensors",
        ),
        _sadtalker("sadtalker_expression", "auido2exp_00300-model.pth", "expressions from sound (SadTalker)"),
        _sadtalker("sadtalker_pose", "auido2pose_00140-model.pth", "head motion from sound (SadTalker)"),
        _challenge("challenge_expression", "transformer_Epoch_00042000.bin", "expressions from sound (ViCo 2023)", 49),
        _challenge("challenge_pose", "lstm_Epoch_00042000.bin", "head motion from sound (ViCo 2023)", 2),
        WeightFile(
            "retinaface", "detection_Resnet50_Final.pth", "one-shot: portraits cut by RetinaFace instead of MediaPipe",
            "MIT (facexlib); trained on WIDER FACE, which is for non-commercial research",
            "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
            "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
            size_mb=109, users="non-commercial",
        ),
        WeightFile(
            "fan", "alignment_WFLW_4HG.pth", "one-shot: the landmarks of portraits, with RetinaFace",
            "MIT (facexlib); trained on WFLW, which is for non-commercial research",
            "https://github.com/xinntao/facexlib/releases/download/v0.1.0/alignment_WFLW_4HG.pth",
            size_mb=194, users="non-commercial",
        ),
        WeightFile(
            "gfpgan", "GFPGANv1.4.pth", "one-shot: --enhancer gfpgan (with the package gfpgan)",
            "Apache-2.0 (GFPGAN); trained on FFHQ, which is CC BY-NC-SA 4.0",
            "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/GFPGANv1.4.pth",
            "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
            size_mb=349, users="non-commercial",
        ),
        WeightFile(
            "pirender", "epoch_00190_iteration_000400000_checkpoint.pt", "the face renderer pirender",
            "no licence stated for the code or the weights; trained on VoxCeleb, which is for research",
            "https://github.com/RenYurui/PIRender (scripts/download_weights.sh: the face folder)",
            aliases=("face/epoch_00190_iteration_000400000_checkpoint.pt",),
            size_mb=270,
        ),
        WeightFile(
            "vgg19", "vgg19-dcbb9e9d.pth", "the perceptual loss vgg19 of training face renderers",
            "BSD-3-Clause (torchvision)", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
            size_mb=575, users="anyone",
        ),
        WeightFile(
            "face_landmarker", "face_landmarker.task", "data_utils.process --landmarks task", "Apache-2.0 (MediaPipe)",
            "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
            "face_landmarker.task",
            "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
            is_task=True,
            size_mb=4, users="anyone",
        ),
        WeightFile(
            "bfm", "bfm2009.safetensors", "data_utils.process --tracker bfm",
            "research only, not to be passed on (Basel Face Model 2009)",
            "register at https://faces.dmi.unibas.ch/bfm (2009), then: python -m data_utils.convert_bfm "
            "01_MorphableModel.mat",
            size_mb=80, users="registered",
        ),
        _speech_encoder("wavlm", "microsoft/wavlm-large", "CC BY-SA 3.0", 1262),
        _speech_encoder("wavlm-base-plus", "microsoft/wavlm-base-plus", "CC BY-SA 3.0", 378),
        _speech_encoder("hubert", "facebook/hubert-large-ls960-ft", "Apache-2.0", 1262),
        _speech_encoder("wav2vec2", "facebook/wav2vec2-base-960h", "Apache-2.0", 378),
        _vid2vid(
            "sadtalker_256", "SadTalker_V0.0.2_256.safetensors", "the renderer vid2vid, 256 px", "generator", 725,
            "facevid2vid_00189-model.pth.tar",
        ),
        _vid2vid("sadtalker_512", "SadTalker_V0.0.2_512.safetensors", "the renderer vid2vid, 512 px", "generator", 725),
        _vid2vid("sadtalker_mapping", "mapping_00229-model.pth.tar", "vid2vid of cropped faces", "mapping", 155),
        _vid2vid("sadtalker_mapping_full", "mapping_00109-model.pth.tar", "vid2vid of whole pictures", "mapping", 155),
        WeightFile(
            "facevid2vid", "facevid2vid_00189-model.pth.tar", "head poses to train vid2vid by",
            "Apache-2.0 (SadTalker); trained on VoxCeleb, which is for research",
            "https://github.com/OpenTalker/SadTalker/releases (v0.0.2)", part="he_estimator", size_mb=2107,
            users="non-commercial",
        ),
        _wav2lip(
            "wav2lip_gan", "wav2lip_gan.pth", "python -m gaussian_head.oneshot.wav2lip; synthesize --refine wav2lip",
            "ca9ab7b7b812c0e80a6e70a5977c545a1e8a365a6c49d5e533023c034d7ac3d8", 436,
        ),
        _wav2lip(
            "wav2lip", "wav2lip.pth", "the same as wav2lip_gan.pth: a little better in time, softer pictures",
            "b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37", 436,
        ),
        _wav2lip(
            "wav2lip_expert", "lipsync_expert.pth", "trainings of Wav2Lip's generator (or train the expert first)",
            "9b9936c721696446eeed353032cab242a8cf0eed8c46cde540366f6ae5493be5", 197,
        ),
        _wav2lip(
            "wav2lip_quality", "visual_quality_disc.pth", "starting Wav2Lip's GAN training where the authors ended",
            "b3f8f6f7e954af02f2ffe0f3ea11f3259af89bff6e70933001c7c6bc8c145d96", 169,
        ),
        WeightFile(
            "s3fd_face_alignment", "s3fd-619a316812.pth", "Wav2Lip's own face detector (else MediaPipe's is used)",
            "BSD-3-Clause (face_alignment); trained on WIDER FACE, which is for non-commercial research",
            "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth",
            "619a31681264d3f7f7fc7a16a42cbbe8b23f31a256f75a366e5a1bcd59b33543", aliases=("s3fd.pth",),
            size_mb=90, users="non-commercial",
        ),
    )
}  # fmt: skip
