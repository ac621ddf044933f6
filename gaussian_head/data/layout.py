"""Every file name of a subject folder, spelled once (formats: docs/formats.md, specs/gaussian_head.md a)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VIDEO_FPS = 25
"""Frames per second of a subject folder, whatever the raw video had."""
SPEECH_HZ = 16_000
"""Sample rate of a subject folder's sound."""

AUDIO_FEATURE_FILES = {
    "mel": "aud_mel.npy",
    "deepspeech": "aud_ds.npy",
    "esperanto": "aud_eo.npy",
    "hubert": "aud_hu.npy",
    "wavlm": "aud_wavlm.npy",
    "wavlm-base-plus": "aud_wavlm_base_plus.npy",
    "wav2vec2": "aud_wav2vec2.npy",
    "ave": "aud_ave.npy",
}
"""Audio-feature arrays [frames, window, width] by extractor."""
DEEPSPEECH_OWN_NAME = "aud.npy"
"""What the field's DeepSpeech script calls its array, after the sound (specs/gaussian_head.md a, naming trap)."""

# Parsing colours as RGB triples, that is, as read by an RGB reader (OpenCV's BGR order is what the field documents).
PARSING_HEAD = (0, 0, 255)
PARSING_HAIR = (0, 0, 0)
PARSING_MOUTH = (100, 100, 100)
PARSING_NECK = (0, 255, 0)
PARSING_TORSO = (255, 0, 0)
PARSING_BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class SubjectLayout:
    """Paths inside `data/<ID>/`. Frame numbers k are 0, 1, 2 ... without padding and never shift."""

    root: Path

    @property
    def subject(self) -> str:
        """The subject's ID: the folder's name."""
        return self.root.resolve().name

    @property
    def video(self) -> Path:
        """The user's raw video."""
        return self.root / f"{self.subject}.mp4"

    @property
    def manifest(self) -> Path:
        """JSON: per stage its version, the hashes of its inputs, rates, units, frames dropped."""
        return self.root / "manifest.json"

    @property
    def speech(self) -> Path:
        """PCM wav, 16 kHz mono."""
        return self.root / "aud.wav"

    def audio_features(self, extractor: str) -> Path:
        """Array [frames, window, width] of one extractor; a `.json` of the same stem describes it.

        Where there is no `aud_ds.npy`, the DeepSpeech script's own `aud.npy` is meant, if there is one.

        Args:
            extractor: A key of AUDIO_FEATURE_FILES, perhaps with layers of an encoder (`wavlm/9`): one file for all.
        """
        path = self.root / AUDIO_FEATURE_FILES[extractor.partition("/")[0]]
        own = self.root / DEEPSPEECH_OWN_NAME
        return own if extractor == "deepspeech" and not path.is_file() and own.is_file() else path

    @property
    def coefficients(self) -> Path:
        """Mat, face coefficients of every frame: beside the folder, where `data_utils.coefficients` writes it."""
        return self.root.resolve().with_suffix(".mat")

    def frame(self, k: int) -> Path:
        """JPEG, the resampled and cropped frame."""
        return self.root / "ori_imgs" / f"{k}.jpg"

    def landmarks68(self, k: int) -> Path:
        """Text, 68 rows `x y` in px; absent when no face was found."""
        return self.root / "ori_imgs" / f"{k}.lms"

    @property
    def mesh_landmarks(self) -> Path:
        """Npy float32 [frames, 478, 3]: x, y in px and MediaPipe's relative z in px; NaN rows without a face."""
        return self.root / "landmarks478.npy"

    @property
    def face_task(self) -> Path:
        """Safetensors: blendshapes [frames, 52], transforms [frames, 4, 4]; only from MediaPipe's face landmarker."""
        return self.root / "face_task.safetensors"

    @property
    def landmarks_3d(self) -> Path:
        """Npy float32 [frames, 478, 3]: pose-free landmarks in the head frame, metres (tracking)."""
        return self.root / "lm3d.npy"

    @property
    def landmarks_3d_valid(self) -> Path:
        """Npy bool [frames]: False where the landmarks of `lm3d.npy` are interpolated."""
        return self.root / "lm3d_valid.npy"

    @property
    def hair_3d(self) -> Path:
        """Npy float32 [frames, G, 3]: points that the hair follows, head frame, metres (ours; G = 0 without hair)."""
        return self.root / "hair3d.npy"

    def parsing(self, k: int) -> Path:
        """PNG, the PARSING_* colours."""
        return self.root / "parsing" / f"{k}.png"

    def matte(self, k: int) -> Path:
        """PNG, 8-bit grey: soft coverage of the person, 0..255 (ours; masks of `parsing` are its support)."""
        return self.root / "matte" / f"{k}.png"

    @property
    def background(self) -> Path:
        """JPEG, the static background without the person."""
        return self.root / "bc.jpg"

    def gt_image(self, k: int) -> Path:
        """JPEG, the frame with its background replaced by `bc.jpg`: the training target."""
        return self.root / "gt_imgs" / f"{k}.jpg"

    def torso_image(self, k: int) -> Path:
        """PNG RGBA, neck and torso, in-painted upward under the head."""
        return self.root / "torso_imgs" / f"{k}.png"

    def teeth_mask(self, k: int) -> Path:
        """Npy bool [H, W], True on teeth."""
        return self.root / "teeth_mask" / f"{k}.npy"

    @property
    def action_units(self) -> Path:
        """OpenFace CSV, one row a frame."""
        return self.root / "au.csv"

    @property
    def track_params(self) -> Path:
        """Torch dict of tensors: id, exp, euler [frames, 3] rad, trans [frames, 3] decimetres, focal [1] px."""
        return self.root / "track_params.pt"

    def transforms(self, split: str) -> Path:
        """JSON of `train` or `val`: focal_len, cx, cy, frames [{img_id, aud_id, transform_matrix}]."""
        return self.root / f"transforms_{split}.json"

    @property
    def head_frame(self) -> Path:
        """JSON: what it takes to read another tool's transforms (`data.transforms`); ours need none."""
        return self.root / "head_frame.json"

    def composed_image(self, k: int) -> Path:
        """JPEG, AD-NeRF's name for what later tools call `gt_image`."""
        return self.root / "com_imgs" / f"{k}.jpg"

    @property
    def report(self) -> Path:
        """PNG, the one-page picture of the preprocessing."""
        return self.root / "report.png"

    @property
    def truth(self) -> Path:
        """Folder of a procedural subject's true cameras, landmarks, mouth shapes and masks."""
        return self.root / "truth"
