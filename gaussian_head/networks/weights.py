"""Public weights: which files exist, under which terms, where they are looked for, and how they are read safely.

Nothing here is downloaded by itself and nothing is replaced by something else: a part whose file is missing says so.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gaussian_head.errors import UserError

WRAPPERS = ("state_dict", "net_recon", "params_ema", "model", "net_G_ema")
"""Keys under which training programs keep a network's tensors beside their own things."""
FOLDER = Path("checkpoints")
"""Where weights are put by default, relative to the working folder."""
FOLDER_VARIABLE = "GAUSSIAN_HEAD_CHECKPOINTS"
"""Environment variable that names another folder, looked into first."""


_DAMAGE = (
    pickle.UnpicklingError, struct.error, SafetensorError, RuntimeError, EOFError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError, ArithmeticError, OSError,
)  # fmt: skip
"""What torch and safetensors raise on damaged files (found by truncating files and changing bytes)."""


class WeightsMissingError(UserError):
    """A network's file is not here; the message names it."""


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
    part: str = ""
    """Key of the network in a checkpoint of torch that holds several."""
    repository: str = ""
    """On the Hugging Face hub, as in `microsoft/wavlm-large`: its cache on disk is searched too, and the folder, which
    also holds the network's configuration, may be named in the file's place."""

    @property
    def variable(self) -> str:
        """Return the environment variable that names this file."""
        return f"GAUSSIAN_HEAD_{self.name.upper().replace('-', '_')}"


def _wav2lip(name: str, file: str, unlocks: str, sha256: str) -> WeightFile:
    return WeightFile(
        name, file, unlocks, "non-commercial research only (trained on LRS2)",
        "https://github.com/Rudrabha/Wav2Lip (links in its README)", sha256,
    )  # fmt: skip


def _sadtalker(name: str, file: str, unlocks: str) -> WeightFile:
    return WeightFile(
        name, file, unlocks, "Apache-2.0 (SadTalker); trained on VoxCeleb, which is for research",
        "https://github.com/OpenTalker/SadTalker/releases (v0.0.2: a safetensors file holds all; v0.0.1: this file)",
        aliases=("SadTalker_V0.0.2_256.safetensors", "SadTalker_V0.0.2_512.safetensors"),
        other_sha256=("c211f5d6de003516bf1bbda9f47049a4c9c99133b1ab565c6961e5af16477bff",),
    )  # fmt: skip


def _challenge(name: str, file: str, unlocks: str) -> WeightFile:
    return WeightFile(
        name, file, unlocks, "yours: the entry's own weights were never published",
        f"train it: python -m gaussian_head.oneshot.train {name.replace('_', '-')}",
    )  # fmt: skip


def _speech_encoder(name: str, repository: str, licence: str) -> WeightFile:
    folder = repository.partition("/")[2]
    return WeightFile(
        name, f"{folder}/model.safetensors", f"--audio-features {name}", licence,
        f"the whole folder: hf download {repository} --local-dir {FOLDER / folder}",
        aliases=(f"{folder}/pytorch_model.bin",), repository=repository,
    )  # fmt: skip


def _vid2vid(name: str, file: str, unlocks: str, part: str, *aliases: str) -> WeightFile:
    return WeightFile(
        name, file, unlocks, "Apache-2.0 (SadTalker); trained on VoxCeleb, which is for research",
        "https://github.com/OpenTalker/SadTalker/releases (v0.0.2-rc, older files v0.0.2)", aliases=aliases, part=part,
    )  # fmt: skip


TABLE: dict[str, WeightFile] = {
    weights.name: weights
    for weights in (
        WeightFile(
            "alexnet", "alexnet-owt-7be5be79.pth", "LPIPS", "BSD-3-Clause (torchvision)",
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        ),
        WeightFile(
            "lpips_heads", "lpips/weights/v0.1/alex.pth", "LPIPS", "BSD-2-Clause (lpips)",
            "inside the wheel: pip install --no-deps lpips==0.1.4 (or unpack it into the folder of weights)",
            sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            aliases=("lpips_v0.1_alex.pth",),
        ),
        WeightFile(
            "inception", "pt_inception-2015-12-05-6726825d.pth", "FID", "Apache-2.0 (TensorFlow's, ported)",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            aliases=("weights-inception-2015-12-05-6726825d.pth",),
        ),
        WeightFile(
            "i3d", "i3d_torchscript.pt", "FVD", "Apache-2.0 (DeepMind's, converted)",
            "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
            "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
            is_program=True,
        ),
        WeightFile(
            "arcface", "ms1mv3_arcface_r100_fp16/backbone.pth", "CSIM", "non-commercial research only (insightface)",
            "the model zoo of github.com/deepinsight/insightface, folder ms1mv3_arcface_r100_fp16",
            aliases=("backbone.pth", "ms1mv3_arcface_r100_fp16_backbone.pth"),
        ),
        WeightFile(
            "syncnet", "syncnet_v2.model", "AVOffset, AVConf, Sync-C, Sync-D", "MIT (code); weights as published",
            "http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
            "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
        ),
        WeightFile(
            "s3fd", "sfd_face.pth", "the face detector of AVOffset, AVConf, Sync-C, Sync-D", "as published",
            "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/sfd_face.pth",
            "d54a87c2b7543b64729c9a25eafd188da15fd3f6e02f0ecec76ae1b30d86c491",
        ),
        WeightFile(
            "bisenet", "79999_iter.pth", "--parser bisenet",
            "MIT (code); trained on CelebAMask-HQ, which is for non-commercial research",
            "https://github.com/zllrunning/face-parsing.PyTorch (a link in its README)",
            "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
            aliases=("parsing_bisenet.pth", "face-parsing-bisenet.pth"),
        ),
        WeightFile(
            "easyportrait", "fpn-fp-512.pth", "--teeth easyportrait", "a variant of CC BY-SA 4.0 (EasyPortrait)",
            "https://github.com/hukenovs/easyportrait, FPN + ResNet50, face parsing (any size)",
            aliases=("fpn-fp-1024.pth", "fpn-fp.pth", "fpn-fp-224.pth"),
        ),
        WeightFile(
            "deep3d", "epoch_20.pth", "python -m data_utils.coefficients",
            "MIT (code); the coefficients are of BFM-2009, which is for non-commercial research",
            "https://github.com/sicxu/Deep3DFaceRecon_pytorch (a link in its README)",
            "6d17a6b23457b521801baae583cb6a58f7238fe6721fc3d65d76407460e9149b",
            aliases=("SadTalker_V0.0.2_256.safetensors", "SadTalker_V0.0.2_512.safetensors"),
            other_sha256=("c211f5d6de003516bf1bbda9f47049a4c9c99133b1ab565c6961e5af16477bff",),
        ),
        _sadtalker("sadtalker_expression", "auido2exp_00300-model.pth", "expressions from sound (SadTalker)"),
        _sadtalker("sadtalker_pose", "auido2pose_00140-model.pth", "head motion from sound (SadTalker)"),
        _challenge("challenge_expression", "transformer_Epoch_00042000.bin", "expressions from sound (ViCo 2023)"),
        _challenge("challenge_pose", "lstm_Epoch_00042000.bin", "head motion from sound (ViCo 2023)"),
        WeightFile(
            "retinaface", "detection_Resnet50_Final.pth", "one-shot: portraits cut by RetinaFace instead of MediaPipe",
            "MIT (facexlib); trained on WIDER FACE, which is for non-commercial research",
            "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
            "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        ),
        WeightFile(
            "fan", "alignment_WFLW_4HG.pth", "one-shot: the landmarks of portraits, with RetinaFace",
            "MIT (facexlib); trained on WFLW, which is for non-commercial research",
            "https://github.com/xinntao/facexlib/releases/download/v0.1.0/alignment_WFLW_4HG.pth",
        ),
        WeightFile(
            "gfpgan", "GFPGANv1.4.pth", "one-shot: --enhancer gfpgan (with the package gfpgan)",
            "Apache-2.0 (GFPGAN); trained on FFHQ, which is CC BY-NC-SA 4.0",
            "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/GFPGANv1.4.pth",
            "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
        ),
        WeightFile(
            "pirender", "epoch_00190_iteration_000400000_checkpoint.pt", "the face renderer pirender",
            "no licence stated for the code or the weights; trained on VoxCeleb, which is for research",
            "https://github.com/RenYurui/PIRender (scripts/download_weights.sh: the face folder)",
            aliases=("face/epoch_00190_iteration_000400000_checkpoint.pt",),
        ),
        WeightFile(
            "vgg19", "vgg19-dcbb9e9d.pth", "the perceptual loss vgg19 of training face renderers",
            "BSD-3-Clause (torchvision)", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        ),
        WeightFile(
            "face_landmarker", "face_landmarker.task", "data_utils.process --landmarks task", "Apache-2.0 (MediaPipe)",
            "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
            "face_landmarker.task",
            "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
            is_task=True,
        ),
        WeightFile(
            "bfm", "bfm2009.safetensors", "data_utils.process --tracker bfm",
            "research only, not to be passed on (Basel Face Model 2009)",
            "register at https://faces.dmi.unibas.ch/bfm (2009), then: python -m data_utils.convert_bfm "
            "01_MorphableModel.mat",
        ),
        _vid2vid(
            "sadtalker_256", "SadTalker_V0.0.2_256.safetensors", "the renderer vid2vid, 256 px", "generator",
            "facevid2vid_00189-model.pth.tar",
        ),
        _vid2vid("sadtalker_512", "SadTalker_V0.0.2_512.safetensors", "the renderer vid2vid, 512 px", "generator"),
        _vid2vid("sadtalker_mapping", "mapping_00229-model.pth.tar", "vid2vid of cropped faces", "mapping"),
        _vid2vid("sadtalker_mapping_full", "mapping_00109-model.pth.tar", "vid2vid of whole pictures", "mapping"),
        _vid2vid("facevid2vid", "facevid2vid_00189-model.pth.tar", "head poses to train vid2vid by", "he_estimator"),
        _wav2lip(
            "wav2lip_gan", "wav2lip_gan.pth", "python -m gaussian_head.oneshot.wav2lip; synthesize --refine wav2lip",
            "ca9ab7b7b812c0e80a6e70a5977c545a1e8a365a6c49d5e533023c034d7ac3d8",
        ),
        _wav2lip(
            "wav2lip", "wav2lip.pth", "the same as wav2lip_gan.pth: a little better in time, softer pictures",
            "b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37",
        ),
        _wav2lip(
            "wav2lip_expert", "lipsync_expert.pth", "trainings of Wav2Lip's generator (or train the expert first)",
            "9b9936c721696446eeed353032cab242a8cf0eed8c46cde540366f6ae5493be5",
        ),
        _wav2lip(
            "wav2lip_quality", "visual_quality_disc.pth", "starting Wav2Lip's GAN training where the authors ended",
            "b3f8f6f7e954af02f2ffe0f3ea11f3259af89bff6e70933001c7c6bc8c145d96",
        ),
        WeightFile(
            "s3fd_face_alignment", "s3fd-619a316812.pth", "Wav2Lip's own face detector (else MediaPipe's is used)",
            "BSD-3-Clause (face_alignment); trained on WIDER FACE, which is for non-commercial research",
            "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth",
            "619a31681264d3f7f7fc7a16a42cbbe8b23f31a256f75a366e5a1bcd59b33543", aliases=("s3fd.pth",),
        ),
        _speech_encoder("wavlm", "microsoft/wavlm-large", "CC BY-SA 3.0"),
        _speech_encoder("wavlm-base-plus", "microsoft/wavlm-base-plus", "CC BY-SA 3.0"),
        _speech_encoder("hubert", "facebook/hubert-large-ls960-ft", "Apache-2.0"),
        _speech_encoder("wav2vec2", "facebook/wav2vec2-base-960h", "Apache-2.0"),
    )
}  # fmt: skip


def find_weights(name: str, given: Path | None = None) -> Path:
    """Return the file of a network.

    Looked for, in this order: `given`, the environment variable GAUSSIAN_HEAD_<NAME>, the folder that
    GAUSSIAN_HEAD_CHECKPOINTS names, `checkpoints/`, the hub's cache of torch, that of Hugging Face.

    Raises:
        WeightsMissingError: It is in none of them, or `given` or the variable names no file.
        KeyError: `name` is not in TABLE.
    """
    weights = TABLE[name]
    named = given or (Path(os.environ[weights.variable]) if os.environ.get(weights.variable) else None)
    files = (weights.file, *weights.aliases)
    if named is not None:
        inside = [named / Path(file).name for file in files] if weights.repository else []
        for path in (named, *inside):
            if path.is_file():
                return path
        raise WeightsMissingError(f"{named} is no file; it was named for {weights.file} ({weights.unlocks}).")
    places = [folder / file for folder in search_folders() for file in files]
    if weights.repository and (snapshot := hub_snapshot(weights.repository)):
        places += [snapshot / Path(file).name for file in files]
    for path in places:
        if path.is_file():
            return path
    raise WeightsMissingError(f"needs {weights.file}, see scripts/prepare.sh")


def search_folders() -> list[Path]:
    """Return the folders that are searched, first to last."""
    folders = [Path(os.environ[FOLDER_VARIABLE])] if os.environ.get(FOLDER_VARIABLE) else []
    return [*folders, FOLDER, Path(torch.hub.get_dir()) / "checkpoints"]


def hub_cache() -> Path:
    """Return the folder where programs of Hugging Face keep what they download."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"])
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(home) / "hub"


def hub_snapshot(repository: str) -> Path | None:
    """Return a repository's folder in that cache, of the revision that `main` last was; None where there is none."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    revision = folder / "refs" / "main"
    return folder / "snapshots" / revision.read_text().strip() if revision.is_file() else None


def load_state_dict(path: Path, part: str = "") -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file or a checkpoint of torch; code inside is never run.

    A checkpoint that wraps its tensors (`{"state_dict": ...}`, see WRAPPERS) is unwrapped.

    Args:
        path: The file.
        part: Key of the network that is meant, where a checkpoint of torch holds several.

    Raises:
        UserError: The file is damaged, holds objects that are no tensors, or would run code.
    """
    try:
        if path.suffix == ".safetensors":
            _loaded.add(path.absolute())
            return load_file(path)
        with torch.serialization.safe_globals(_numpy_numbers()):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a truncated archive
            raise
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read as plain tensors (damaged, or it holds code): {first}") from error
    if isinstance(loaded, dict):
        loaded = next((loaded[key] for key in (part, *WRAPPERS) if isinstance(loaded.get(key), dict)), loaded)
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path} must map names to tensors; it holds something else.")
    _loaded.add(path.absolute())
    return loaded


def _numpy_numbers() -> list[object]:
    """Return what numpy's numbers are pickled by: mmcv notes its best score in one. They run nothing."""
    kinds = {type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)}
    scalar = np.float64(0).__reduce__()[0]
    # numpy 2 moved the function; files name it as the numpy that wrote them did
    return [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")] + [np.dtype, *kinds]


Network = TypeVar("Network", bound=nn.Module)
_loaded: set[Path] = set()


def load_into(network: Network, path: Path, prefix: str = "") -> Network:
    """Fill a network from a file of the same names and shapes; returns it frozen and in evaluation mode.

    Args:
        network: Any.
        path: The file.
        prefix: Where names in the file begin with this, those tensors are meant and the prefix is cut off; a checkpoint
            of torch may keep them under that key (without the dot) instead.

    Raises:
        UserError: The file cannot be read, or is another network's: the first names that differ are told.
    """
    held = load_state_dict(path, prefix.removesuffix("."))
    if prefix and any(name.startswith(prefix) for name in held):
        held = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
    if faults := _differences(network.state_dict(), held):
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(
            f"{path} holds another network than {type(network).__name__}: {'; '.join(faults[:3])}{more}; "
            "see scripts/prepare.sh for the file that is meant."
        )
    network.load_state_dict(held, strict=False)
    return network.eval().requires_grad_(False)


def _differences(expected: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> list[str]:
    """Say which names and shapes differ; the counters of batches, which nothing reads, may be absent."""
    faults = []
    for name, value in expected.items():
        if name not in held:
            if not name.endswith("num_batches_tracked"):
                faults.append(f"{name} is missing")
        elif held[name].shape != value.shape:
            faults.append(f"{name} is {list(held[name].shape)}, not {list(value.shape)}")
    return faults + [f"{name} is not its own" for name in held if name not in expected]


def load_program(name: str, given: Path | None = None) -> torch.jit.ScriptModule:
    """Load a torchscript archive. It is a program, so it runs only if it is the published one, or if you named it.

    Args:
        name: Key in TABLE.
        given: The file, named by the user; the environment variable names it likewise.

    Raises:
        WeightsMissingError: As `find_weights`.
        UserError: It is neither the published file nor named, or it cannot be read.
    """
    path, weights = find_weights(name, given), TABLE[name]
    named = given is not None or bool(os.environ.get(weights.variable))
    if not named and sha256_of(path) != weights.sha256:
        raise UserError(
            f"{path} is a program and not the published one (sha256 {weights.sha256[:8]}...); get it again from "
            f"{weights.source}, or run it all the same: {weights.variable}={path}"
        )
    _loaded.add(path.absolute())
    try:
        return torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError as error:
        raise UserError(f"{path} is no readable torchscript archive; get it again from {weights.source}") from error


TASK_PARTS = ("face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite")
"""Networks inside `face_landmarker.task` that are used; the early files without blendshapes lack the last."""


def check_task_bundle(path: Path) -> None:
    """Check that a MediaPipe task file is whole and has the face landmarker's networks; nothing in it is run.

    Raises:
        UserError: It is damaged or another task's file.
    """
    source = f"get it again from {TABLE['face_landmarker'].source}"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged, names = archive.testzip(), archive.namelist()
    except (zipfile.BadZipFile, zlib.error, *_DAMAGE) as error:
        raise UserError(f"{path} cannot be read as a MediaPipe task (damaged: {error}); {source}") from error
    if damaged:
        raise UserError(f"{path} is damaged ({damaged} has another checksum than it should); {source}")
    if missing := [name for name in TASK_PARTS if name not in names]:
        raise UserError(f"{path} is another MediaPipe task: it has no {missing[0]}; {source}")
    _loaded.add(path.absolute())


@dataclass(frozen=True)
class WeightState:
    """What is found of one file."""

    weights: WeightFile
    state: Literal["present", "missing", "corrupt"]
    place: Path
    """Where to put it; a damaged one is replaced there."""
    path: Path | None = None
    """Where it was found."""
    remark: str = ""
    """What is wrong with it, or that it is not the published file."""


def list_weights() -> list[WeightState]:
    """Look for every file of TABLE and at what is inside; takes a second for each file that is there."""
    return [_look_at(weights) for weights in TABLE.values()]


def _look_at(weights: WeightFile) -> WeightState:
    place = search_folders()[0] / weights.file
    try:
        path = find_weights(weights.name)
    except WeightsMissingError as error:
        return WeightState(weights, "missing", place, remark=str(error) if os.environ.get(weights.variable) else "")
    if weights.sha256 and sha256_of(path) in (weights.sha256, *weights.other_sha256):
        return WeightState(weights, "present", place, path)
    try:
        if weights.is_program:
            load_program(weights.name)
        elif weights.is_task:
            check_task_bundle(path)
        else:
            load_state_dict(path, weights.part)
    except UserError as error:
        return WeightState(weights, "corrupt", path, path, str(error))
    remark = "not the published file (another sha256)" if weights.sha256 else "the published file's sha256 is not known"
    return WeightState(weights, "present", place, path, remark)


def loaded_hashes() -> dict[str, str]:
    """Return the SHA-256 of every file that this process has loaded and that is still there, by file name."""
    return {path.name: sha256_of(path) for path in sorted(_loaded) if path.is_file()}


def sha256_of(path: Path) -> str:
    """Return a file's hash, for reports."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
