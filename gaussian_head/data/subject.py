"""A subject folder as typed tensors, read lazily through a bounded cache."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gaussian_head.data import layout as names
from gaussian_head.data.action_units import read_action_units
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import intrinsics, scale_intrinsics, viewmat_from_c2w
from gaussian_head.media.image import read_rgb, read_rgba, resize

REGIONS = {
    "face": names.PARSING_HEAD,
    "hair": names.PARSING_HAIR,
    "mouth": names.PARSING_MOUTH,
}

PICTURES = ("image", "background", "face", "hair", "mouth", "matte")
"""What a frame holds."""


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
        documents = {split: self._transforms(split) for split in ("train", "val")}
        self.train = [frame["img_id"] for frame in documents["train"]["frames"]]
        self.val = [frame["img_id"] for frame in documents["val"]["frames"]]
        numbers = self.train + self.val
        if not self.train or not self.val:
            raise UserError(
                f"{self.layout.transforms('train')}: both splits need frames, "
                f"got {len(self.train)} train and {len(self.val)} val."
            )
        self.frames = max(numbers) + 1
        self.landmarks = self._landmarks()
        self.hair = self._hair()
        self.frames = len(self.landmarks)
        height, width = read_rgb(self.layout.gt_image(numbers[0])).shape[:2]
        self._source_size = (width, height)
        scale = size / max(width, height)
        self.width, self.height = round(width * scale), round(height * scale)
        K = intrinsics(documents["train"]["focal_len"], width, height)
        self.K = torch.from_numpy(scale_intrinsics(K, self.width / width, self.height / height)).float()
        self.viewmats = torch.eye(4).repeat(self.frames, 1, 1)
        for frame in documents["train"]["frames"] + documents["val"]["frames"]:
            viewmat = viewmat_from_c2w(frame["transform_matrix"])
            self.viewmats[frame["img_id"]] = torch.from_numpy(viewmat).float()
        self.action_units = torch.from_numpy(read_action_units(self.layout, self.frames))
        self._check_pictures(numbers)
        self._static_background = resize(read_rgb(self.layout.background), width, height)
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        self._reader = ThreadPoolExecutor(1)
        self._coming: dict[int, Future[Frame]] = {}
        self._lock = Lock()
        self._cache_bytes = _cache_bytes() if cache_bytes is None else cache_bytes
        self._device = device or torch.device("cpu")

    def _transforms(self, split: str) -> dict:
        path = self.layout.transforms(split)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; run: python -m data_utils.process {self.layout.video}")
        try:
            document = json.loads(path.read_text())
            frames = [
                {"img_id": int(f["img_id"]), "transform_matrix": _camera_to_world(f["transform_matrix"])}
                for f in document["frames"]
            ]
            return {"focal_len": float(document["focal_len"]), "frames": frames}
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is no transforms file (focal_len, frames of img_id and transform_matrix): "
                f"{error}; run: python -m data_utils.process {self.layout.video} --force"
            ) from error

    def _landmarks(self) -> Float[Tensor, "T 478 3"]:
        path = self.layout.landmarks_3d
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; run: python -m data_utils.process {self.layout.video}")
        landmarks = self._array(path, "tracking")
        if landmarks.ndim != 3 or landmarks.shape[1:] != (478, 3) or len(landmarks) < self.frames:
            raise UserError(
                f"{path} must hold [{self.frames} or more, 478, 3] numbers, got {list(landmarks.shape)}; "
                f"run: python -m data_utils.process {self.layout.video} --only tracking --force"
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
                f"run: python -m data_utils.process {self.layout.video} --only hair --force"
            )
        return torch.from_numpy(points.astype(np.float32))

    def _array(self, path: Path, stage: str) -> np.ndarray:
        try:
            return np.load(path, allow_pickle=False)
        except (EOFError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({error}); "
                f"run: python -m data_utils.process {self.layout.video} --only {stage} --force"
            ) from error

    def _check_pictures(self, numbers: list[int]) -> None:
        """Every file the frames will need exists: better now than after an hour."""
        for k in numbers:
            for path in (self.layout.gt_image(k), self.layout.torso_image(k), self.layout.parsing(k)):
                if not path.is_file():
                    raise FileNotFoundError(f"{path} is missing; run: python -m data_utils.process {self.layout.video}")

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
        # Teeth are mouth and never face, whatever the parsing has there (the field's XOR turns the mouth's into face).
        teeth = self._teeth(k)
        regions["face"][teeth], regions["mouth"][teeth] = 0, 255
        frame = Frame(
            index=k,
            image=self._tensor(image),
            background=self._tensor(self._background(k)),
            matte=self._tensor(self._matte(k)),
            **{name: self._tensor(region[..., None]) for name, region in regions.items()},
        )
        return frame.to(self._device)

    def _background(self, k: int) -> UInt8[np.ndarray, "H W 3"]:
        torso = self._read(self.layout.torso_image(k), read_rgba)
        alpha = torso[..., 3].astype(np.float32) / 255
        return cv2.blendLinear(cv2.cvtColor(torso, cv2.COLOR_RGBA2RGB), self._static_background, alpha, 1 - alpha)

    def _matte(self, k: int) -> UInt8[np.ndarray, "H W 1"]:
        """Read the person's matte; folders of other tools have none, and their masks are taken as they are."""
        path = self.layout.matte(k)
        if not path.is_file():
            return np.full((self._source_size[1], self._source_size[0], 1), 255, np.uint8)
        return self._read(path, read_rgb)[..., :1]

    def _teeth(self, k: int) -> Bool[np.ndarray, "H W"]:
        """Read the teeth's mask; a folder without one has its teeth in the parsing's mouth."""
        path, size = self.layout.teeth_mask(k), self._source_size[::-1]
        if not path.is_file():
            return np.zeros(size, bool)
        teeth = self._array(path, "teeth")
        if teeth.shape != size:
            raise UserError(
                f"{path} must be {list(size)} like the frame, got {list(teeth.shape)}; "
                f"run: python -m data_utils.process {self.layout.video} --only teeth --force"
            )
        return teeth.astype(bool)

    def _read(self, path: Path, reader) -> np.ndarray:  # noqa: ANN001 -- read_rgb or read_rgba
        image = reader(path)
        if image.shape[1::-1] != self._source_size:
            raise UserError(
                f"{path} is {image.shape[1]} x {image.shape[0]} px, the others are "
                f"{self._source_size[0]} x {self._source_size[1]}; process the video again."
            )
        return image

    def _tensor(self, image: np.ndarray) -> UInt8[Tensor, "C H W"]:
        planes = cv2.split(resize(image, self.width, self.height))
        return torch.from_numpy(np.stack(planes))


def _cache_bytes() -> int:
    """Return the default: 3 GB, but at most a quarter of the machine's memory."""
    return min(3_000_000_000, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)


def _camera_to_world(rows: Any) -> Float[np.ndarray, "4 4"]:  # noqa: ANN401 -- what the JSON holds
    matrix = np.array(rows, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"transform_matrix must be 4 x 4 numbers, got {rows}")
    return matrix
