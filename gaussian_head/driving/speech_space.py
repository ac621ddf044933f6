"""The space in which speech moves a face: components of lips, chin and lower cheeks (specs/gaussian_head.md i.4).

A code is a point of it: displacements of the speech points from the subject's mean face, weighted by how much of a
point's motion is speech, along K principal components, each in units of its standard deviation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import MESH_POINTS, mouth_aperture
from gaussian_head.geometry.speech_points import speech_weights
from gaussian_head.media.files import replacing, write_bytes

FORMAT = 1
NAME = "speech_space"
COMPONENTS = 16
CLAMP_SIGMAS = 2.5
MOOD_FRAMES = 50.0
"""Drifts of the face slower than this (standard deviation) cannot be heard; they are no target."""
CLOSED_QUANTILE = 0.05
"""Training frames with a smaller aperture than this quantile show the closed mouth."""


@dataclass(frozen=True)
class SpeechSpace:
    """One person's mean face and the ways in which speech moves it."""

    mean_landmarks: Float[np.ndarray, "478 3"]
    """Metres, head frame."""
    weights: Float[np.ndarray, " 478"]
    """How much of each point's motion is speech, 0..1."""
    basis: Float[np.ndarray, "K D"]
    """Orthonormal components of the weighted displacement; D = 478 * 3."""
    spread: Float[np.ndarray, " K"]
    """Standard deviation of each, metres."""
    explained: float
    """Share of the weighted displacements' variance that the components hold."""

    TENSORS = ("mean_landmarks", "weights", "basis", "spread")

    @classmethod
    def fit(cls, landmarks: Float[np.ndarray, "T 478 3"]) -> SpeechSpace:
        """Find a person's own components.

        Args:
            landmarks: Training frames, metres, head frame.
        """
        mean, weights, moved = _displacements(landmarks)
        basis, spread = _components(moved)
        return cls(mean, weights, basis, spread, _share(moved, basis))

    @classmethod
    def on_basis(
        cls,
        landmarks: Float[np.ndarray, "T 478 3"],
        basis: Float[np.ndarray, "K D"],
        relative_spread: Float[np.ndarray, " K"],
    ) -> SpeechSpace:
        """Put a person into a space shared with others: own mean face and amplitude, common components.

        Args:
            landmarks: Training frames, metres, head frame.
            basis: Components, as from `common_basis`.
            relative_spread: Their standard deviations, in units of a person's amplitude.
        """
        mean, weights, moved = _displacements(landmarks)
        return cls(mean, weights, basis, relative_spread * _amplitude(moved), _share(moved, basis))

    @classmethod
    def load(cls, folder: Path) -> SpeechSpace:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: The folder has none.
            UserError: Another version wrote it.
        """
        path = folder / f"{NAME}.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; run: python -m gaussian_head.train landmarks "
                                    f"--data data/<ID> --out {folder.parent}")  # fmt: skip
        document = json.loads(path.read_text())
        if document.get("format") != FORMAT:
            raise UserError(f"{path} is not of format {FORMAT}, which this version reads; train again.")
        return cls(**load_file(folder / f"{NAME}.safetensors"), explained=document["explained"])

    def save(self, folder: Path) -> None:
        """Write `speech_space.safetensors` and, last, `speech_space.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in self.TENSORS}
        with replacing(folder / f"{NAME}.safetensors") as temporary:
            save_file(tensors, temporary)
        document = {"format": FORMAT, "components": len(self.basis), "explained": round(self.explained, 6)}
        write_bytes(folder / f"{NAME}.json", (json.dumps(document, indent=1) + "\n").encode())

    def encode(self, landmarks: Float[np.ndarray, "T 478 3"]) -> Float[np.ndarray, "T K"]:
        """Return the codes of faces."""
        moved = (landmarks - self.mean_landmarks) * self.weights[:, None]
        return moved.reshape(len(moved), -1) @ self.basis.T / self.spread

    def decode(
        self, codes: Float[np.ndarray, "T K"], rest: Float[Tensor, "T 478 3"] | None = None
    ) -> Float[Tensor, "T 478 3"]:
        """Turn codes, clamped to what is usual, into faces.

        Args:
            codes: Whitened components.
            rest: Landmarks (metres) that supply what speech does not move; the mean face without.
        """
        codes = np.clip(codes, -CLAMP_SIGMAS, CLAMP_SIGMAS)
        # BLAS would wake its threads for each frame of a stream, which takes longer than the product.
        speech = np.einsum("tk,kd->td", codes * self.spread, self.basis).reshape(-1, MESH_POINTS, 3)
        weights = self.weights[:, None]
        still = self.mean_landmarks if rest is None else rest.numpy()
        moved = (1 - weights) * still + weights * self.mean_landmarks + speech
        return torch.from_numpy(moved.astype(np.float32))

    def targets(
        self, landmarks: Float[np.ndarray, "T 478 3"]
    ) -> tuple[Float[np.ndarray, "T K"], Float[np.ndarray, " K"]]:
        """Return the codes that sound can be asked for, and that of the closed mouth.

        Args:
            landmarks: Training frames in order, metres.
        """
        codes, opening = self.encode(landmarks), mouth_aperture(landmarks)
        mood = gaussian_filter1d(codes, min(MOOD_FRAMES, len(codes) / 4), axis=0, mode="reflect")
        return codes - mood, codes[opening <= np.quantile(opening, CLOSED_QUANTILE)].mean(0)

    def into(self, other: SpeechSpace) -> Float[np.ndarray, "K J"]:
        """Return the matrix from codes of this space to codes of another."""
        return (self.basis * self.spread[:, None]) @ other.basis.T / other.spread


def common_basis(
    people: Sequence[Float[np.ndarray, "T 478 3"]],
) -> tuple[Float[np.ndarray, "K D"], Float[np.ndarray, " K"]]:
    """Find components that several people share, each person counting alike.

    Args:
        people: Training frames of each, metres.

    Returns:
        Orthonormal components, and their standard deviations in units of a person's amplitude.
    """
    moved = [_displacements(landmarks)[2] for landmarks in people]
    alike = [m / (_amplitude(m) * np.sqrt(len(m))) for m in moved]
    basis, spread = _components(np.concatenate(alike))
    return basis, spread * np.sqrt(sum(map(len, moved)) / len(moved))


def _displacements(
    landmarks: Float[np.ndarray, "T 478 3"],
) -> tuple[Float[np.ndarray, "478 3"], Float[np.ndarray, " 478"], Float[np.ndarray, "T D"]]:
    landmarks = landmarks.astype(np.float64)
    mean = landmarks.mean(0)
    weights = speech_weights(mean)
    return mean, weights, ((landmarks - mean) * weights[:, None]).reshape(len(landmarks), -1)


def _components(moved: Float[np.ndarray, "T D"]) -> tuple[Float[np.ndarray, "K D"], Float[np.ndarray, " K"]]:
    """Find the principal components of centred data, and their standard deviations; zeros where there are too few."""
    _, singular, vh = np.linalg.svd(moved, full_matrices=False)
    basis, spread = np.zeros((COMPONENTS, moved.shape[1])), np.zeros(COMPONENTS)
    held = min(COMPONENTS, len(vh))
    basis[:held], spread[:held] = vh[:held], singular[:held] / np.sqrt(len(moved))
    return basis, np.maximum(spread, 1e-6)


def _amplitude(moved: Float[np.ndarray, "T D"]) -> float:
    return max(float(np.sqrt(np.square(moved).sum(1).mean())), 1e-6)


def _share(moved: Float[np.ndarray, "T D"], basis: Float[np.ndarray, "K D"]) -> float:
    return float(np.square(moved @ basis.T).sum() / max(np.square(moved).sum(), 1e-12))
