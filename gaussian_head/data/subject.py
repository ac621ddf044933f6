"""A subject folder as typed tensors, read lazily through a bounded cache."""

from __future__ import annotations

import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gaussian_head.data import layout as names
from gaussian_head.data.action_units import read_action_units
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.transforms import SPLITS, read_transforms
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import intrinsics, project, scale_intrinsics, viewmat_from_c2w
from gaussian_head.geometry.landmarks import INNER_LIPS, face_height, mouth_aperture
from gaussian_head.media.image import fill_polygon, read_rgb, read_rgba, resize

REGIONS = {
    "face": names.PARSING_HEAD,
    "hair": names.PARSING_HAIR,
    "mouth": names.PARSING_MOUTH,
}

PICTURES = ("image", "background", "face", "hair", "mouth", "matte")
"""What a frame holds."""
LINEAGE_FRAMES = 12
"""Frames, those with the widest mouths, that tell whether a folder's parsing marks the inner mouth."""
MOUTH_OPEN = 0.008
"""Inner lips farther apart than this (face heights) are open, where the parsing does not say so."""


@dataclass(frozen=True)
class Frame:
    """What is known of one frame's picture, at the subject's working size. Regions are coverages in 0..255."""

    index: int
    image: UInt8[Tensor, "3 H W"]
    """The frame over the static background: the training target."""
    background: UInt8[Tensor, "3 H W"]
    """Torso over the static background: what stands behind the head."""
    face: UInt8[Tensor, "1 H W"]
    hair: UInt8[Tensor, "1 H W"]
    mouth: UInt8[Tensor, "1 H W"]
    """The opening between the lips."""
    matte: UInt8[Tensor, "1 H W"]
    """The person's soft coverage."""

    @property
    def head(self) -> Float[Tensor, "1 H W"]:
        """Coverage of face, hair and mouth in [0, 1]."""
        total = self.face.int() + self.hair + self.mouth
        return total.clamp(max=255).float() / 255

    def to(self, device: torch.device) -> Frame:
        """Return the frame with its pictures on a device."""
        pictures = {name: getattr(self, name).to(device) for name in PICTURES}
        return Frame(self.index, **pictures)

    def half(self) -> Frame:
        """Return the frame at half its size, 2 x 2 px averaged; an odd last row or column is left out."""
        small = {name: avg_pool2d(getattr(self, name).float(), 2).round_().byte() for name in PICTURES}
        return Frame(self.index, **small)

    def bytes(self) -> int:
        """Memory the frame holds."""
        return sum(getattr(self, name).numel() for name in PICTURES)


class Subject:
    """Cameras, landmarks and action units of every frame in memory; pictures on demand.

    Arrays are indexed by frame number (img_id); `train` and `val` list the numbers of the splits.
    """

    def __init__(
        self, root: Path, size: int, cache_bytes: int | None = None, device: torch.device | None = None
    ) -> None:
        """Open a subject folder.

        Args:
            root: The folder `data/<ID>`.
            size: Working resolution: the longer side of the pictures in px.
            cache_bytes: Pictures kept decoded; 3 GB if not given, 46 s at 512 px, or less on a small machine.
            device: Where they are kept; on the CPU if not given. Everything else is on the CPU.

        Raises:
            FileNotFoundError: The folder or one of its files is missing.
            UserError: Files disagree with each other.
        """
        self.layout = SubjectLayout(Path(root))
        if not self.layout.root.is_dir():
            raise FileNotFoundError(f"{root} is no subject folder; make one with: python -m data_utils.process VIDEO")
        poses = {split: read_transforms(self.layout, split, self._remedy(force=True)) for split in SPLITS}
        self.train, self.val = poses["train"].frames, poses["val"].frames
        numbers = self.train + self.val
        if not self.train or not self.val:
            raise UserError(
                f"{self.layout.transforms('train')}: both splits need frames, "
                f"got {len(self.train)} train and {len(self.val)} val."
            )
        self.frames = max(numbers) + 1
        self._check_pictures()
        self.landmarks = self._landmarks()
        self.hair = self._hair()
        self.frames = len(self.landmarks)
        height, width = read_rgb(self.layout.gt_image(numbers[0])).shape[:2]
        self._source_size = (width, height)
        scale = size / max(width, height)
        self.width, self.height = round(width * scale), round(height * scale)
        K = intrinsics(poses["train"].focal_px, width, height)
        self.K = torch.from_numpy(scale_intrinsics(K, self.width / width, self.height / height)).float()
        self.viewmats = torch.eye(4).repeat(self.frames, 1, 1)
        for split in poses.values():
            self.viewmats[split.frames] = torch.from_numpy(viewmat_from_c2w(split.c2w)).float()
        self._action_units_exist()
        self.action_units = torch.from_numpy(read_action_units(self.layout, self.frames))
        self._marks_mouth = self._parsing_marks_mouth()
        self._static_background = resize(read_rgb(self.layout.background), width, height)
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        self._reader = ThreadPoolExecutor(1)
        self._coming: dict[int, Future[Frame]] = {}
        self._lock = Lock()
        self._cache_bytes = _cache_bytes() if cache_bytes is None else cache_bytes
        self._device = device or torch.device("cpu")

    def _remedy(self, stage: str = "", *, force: bool = False) -> str:
        """Say how a file that is missing or wrong is made: other tools' folders are completed, never made anew."""
        if not self.layout.manifest.is_file() and self.layout.frame(0).is_file():
            return f"run: python -m data_utils.complete {self.layout.root}"
        flags = (f" --only {stage}" if stage else "") + (" --force" if force else "")
        return f"run: python -m data_utils.process {self.layout.video}{flags}"

    def _landmarks(self) -> Float[Tensor, "T 478 3"]:
        path = self.layout.landmarks_3d
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; {self._remedy()}")
        landmarks = self._array(path, "tracking")
        if landmarks.ndim != 3 or landmarks.shape[1:] != (478, 3) or len(landmarks) < self.frames:
            raise UserError(
                f"{path} must hold [{self.frames} or more, 478, 3] numbers, got {list(landmarks.shape)}; "
                f"{self._again('tracking')}"
            )
        return torch.from_numpy(landmarks.astype(np.float32))

    def _hair(self) -> Float[Tensor, "T G 3"]:
        """Points that hair follows; none for folders of other tools."""
        path = self.layout.hair_3d
        if not path.is_file():
            return torch.zeros(len(self.landmarks), 0, 3)
        points = self._array(path, "hair")
        if points.ndim != 3 or points.shape[2] != 3 or len(points) != len(self.landmarks):
            raise UserError(
                f"{path} must hold [{len(self.landmarks)}, points, 3] numbers, got {list(points.shape)}; "
                f"{self._again('hair')}"
            )
        return torch.from_numpy(points.astype(np.float32))

    def _array(self, path: Path, stage: str) -> np.ndarray:
        try:
            return np.load(path, allow_pickle=False)
        except (EOFError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); {self._again(stage)}") from error

    def _again(self, stage: str) -> str:
        """Say how a file that is wrong is made again."""
        remedy = self._remedy(stage, force=True)
        return f"delete it, then {remedy}" if "data_utils.complete" in remedy else remedy

    def _check_pictures(self) -> None:
        """Every file the frames will need exists: better now than after an hour."""
        for split in SPLITS:
            for k in getattr(self, split):
                for path in (self.layout.gt_image(k), self.layout.torso_image(k), self.layout.parsing(k)):
                    if not path.is_file():
                        told = f"{self.layout.transforms(split).name} names frame {k}"
                        raise FileNotFoundError(f"{path} is missing, and {told}; {self._remedy()}")

    def _action_units_exist(self) -> None:
        if not self.layout.action_units.is_file():
            raise FileNotFoundError(f"{self.layout.action_units} is missing; {self._remedy()}")

    def _parsing_marks_mouth(self) -> bool:
        """Tell whether the parsing has a colour for the inner mouth; that of RAD-NeRF's lineage has none (a.4)."""
        numbers = np.array(self.train + self.val)
        widest = numbers[np.argsort(-mouth_aperture(self.landmarks.numpy()[numbers]))][:LINEAGE_FRAMES]
        color = names.PARSING_MOUTH
        return any(cv2.inRange(read_rgb(self.layout.parsing(int(k))), color, color).any() for k in widest)

    def frame(self, k: int) -> Frame:
        """Return frame k's pictures, from the cache or from disk. Threads may call this at once."""
        with self._lock:
            if k in self._cache:
                self._cache.move_to_end(k)
                return self._cache[k]
            coming = self._coming.pop(k, None)
        frame = coming.result() if coming else self._load(k)
        with self._lock:
            self._cache[k] = frame
            while len(self._cache) > 1 and len(self._cache) * frame.bytes() > self._cache_bytes:
                self._cache.popitem(last=False)
        return frame

    def prefetch(self, k: int) -> None:
        """Start reading frame k in the background, so that `frame(k)` finds it ready."""
        with self._lock:
            if k not in self._cache and k not in self._coming:
                self._coming[k] = self._reader.submit(self._load, k)

    def _load(self, k: int) -> Frame:
        image = self._read(self.layout.gt_image(k), read_rgb)
        parsing = self._read(self.layout.parsing(k), read_rgb)
        regions = {name: cv2.inRange(parsing, color, color) for name, color in REGIONS.items()}
        if not self._marks_mouth:
            opening = self._opening(k) & (regions["face"] > 0)
            regions["face"][opening], regions["mouth"][opening] = 0, 255
        # Teeth are mouth and never face, whatever the parsing has there (the field's XOR turns the mouth's into face).
        teeth = self._teeth(k)
        regions["face"][teeth], regions["mouth"][teeth] = 0, 255
        frame = Frame(
            index=k,
            image=self._tensor(image),
            background=self._tensor(self._background(k)),
            matte=self._tensor(self._matte(k, parsing)),
            **{name: self._tensor(region[..., None]) for name, region in regions.items()},
        )
        return frame.to(self._device)

    def _background(self, k: int) -> UInt8[np.ndarray, "H W 3"]:
        torso = self._read(self.layout.torso_image(k), read_rgba)
        alpha = torso[..., 3].astype(np.float32) / 255
        return cv2.blendLinear(cv2.cvtColor(torso, cv2.COLOR_RGBA2RGB), self._static_background, alpha, 1 - alpha)

    def _matte(self, k: int, parsing: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 1"]:
        """Read the person's matte; in folders of other tools, which have none, it is whatever is not background."""
        path = self.layout.matte(k)
        if not path.is_file():
            return 255 - cv2.inRange(parsing, names.PARSING_BACKGROUND, names.PARSING_BACKGROUND)[..., None]
        return self._read(path, read_rgb)[..., :1]

    def _opening(self, k: int) -> Bool[np.ndarray, "H W"]:
        """Return what lies between the lips, as the landmarks have it; nothing where they touch."""
        (width, height), landmarks = self._source_size, self.landmarks[k].numpy()
        if mouth_aperture(landmarks) <= MOUTH_OPEN * face_height(landmarks):
            return np.zeros((height, width), bool)
        K = scale_intrinsics(self.K.numpy(), width / self.width, height / self.height)
        return fill_polygon(project(landmarks[INNER_LIPS], self.viewmats[k].numpy(), K)[0], width, height)

    def _teeth(self, k: int) -> Bool[np.ndarray, "H W"]:
        """Read the teeth's mask; a folder without one has its teeth in the parsing's mouth."""
        path, size = self.layout.teeth_mask(k), self._source_size[::-1]
        if not path.is_file():
            return np.zeros(size, bool)
        teeth = self._array(path, "teeth")
        if teeth.shape != size:
            raise UserError(
                f"{path} must be {list(size)} like the frame, got {list(teeth.shape)}; {self._again('teeth')}"
            )
        return teeth.astype(bool)

    def _read(self, path: Path, reader) -> np.ndarray:  # noqa: ANN001 -- read_rgb or read_rgba
        image = reader(path)
        if image.shape[1::-1] != self._source_size:
            raise UserError(
                f"{path} is {image.shape[1]} x {image.shape[0]} px, the others are "
                f"{self._source_size[0]} x {self._source_size[1]}; make all of them of one size, "
                f"or {self._remedy(force=True)}"
            )
        return image

    def _tensor(self, image: np.ndarray) -> UInt8[Tensor, "C H W"]:
        planes = cv2.split(resize(image, self.width, self.height))
        return torch.from_numpy(np.stack(planes))


def _cache_bytes() -> int:
    """Return the default: 3 GB, but at most a quarter of the machine's memory."""
    return min(3_000_000_000, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
