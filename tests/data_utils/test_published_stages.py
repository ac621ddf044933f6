"""BiSeNet and EasyPortrait in place of the built-in stages: choice, colours, sizes, where teeth may be.

The networks have pseudo-weights (`tests/parity/fill.py`): what they say means nothing, what becomes of it does.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_person import SIZE, DrawnPerson

from data_utils import labels as label_names
from data_utils.head_frame import polygon_mask
from data_utils.matting import read_matte
from data_utils.parsing_bisenet import LABELS, label_frame, parse_frames
from data_utils.process import ProcessOptions
from data_utils.published import choose
from data_utils.stages import build_stages
from data_utils.teeth_easyportrait import label_teeth
from gaussian_head.data import layout as names
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import OUTER_LIPS
from gaussian_head.media.image import read_rgb
from gaussian_head.networks.bisenet import BiSeNet
from gaussian_head.networks.easyportrait_fpn import CLASSES, EasyPortraitFpn, load_face_labeller
from gaussian_head.networks.easyportrait_mmseg import MmsegFpn
from gaussian_head.networks.weights import WeightsMissingError, sha256_of

_FILL = Path(__file__).resolve().parents[1] / "parity" / "fill.py"
_spec = importlib.util.spec_from_file_location("fill", _FILL)
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights, the only place where they are looked for."""
    for name in list(os.environ):
        if name.startswith("GAUSSIAN_HEAD_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def save_bisenet(folder: Path) -> Path:
    torch.save(fill.fill_(BiSeNet(), 731, 1.2).state_dict(), folder / "79999_iter.pth")
    return folder / "79999_iter.pth"


def save_easyportrait(folder: Path, side: int = 224) -> Path:
    state = fill.fill_(EasyPortraitFpn(8), 731, 1.2).state_dict()
    path = folder / f"fpn-fp-{side}.pth"
    torch.save({"state_dict": state, "meta": {"CLASSES": CLASSES[8]}}, path)
    return path


def test_auto_is_the_published_network_where_its_weights_are(folder: Path) -> None:
    assert (ProcessOptions(Path("x")).parser, ProcessOptions(Path("x")).teeth) == ("auto", "auto")
    assert choose("auto", "bisenet") == choose("builtin", "bisenet") == "builtin"
    with pytest.raises(WeightsMissingError, match=r"needs 79999_iter\.pth, see scripts/prepare\.sh"):
        choose("bisenet", "bisenet")
    save_bisenet(folder)
    assert choose("auto", "bisenet") == choose("bisenet", "bisenet") == "bisenet"
    assert choose("builtin", "bisenet") == choose("auto", "easyportrait") == "builtin"


def test_mmsegmentation_builds_the_same_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for its registry builds ours, from the configuration that the real one was judged with by hand."""
    save_easyportrait(folder)
    with pytest.raises(UserError, match="needs mmsegmentation and mmcv; --teeth easyportrait does not"):
        choose("easyportrait-mmseg", "easyportrait")
    with pytest.raises(UserError, match=r"mmsegmentation 1\.x with its mmcv cannot be loaded"):
        load_face_labeller(build=MmsegFpn)

    def build(config: dict) -> EasyPortraitFpn:
        parts = {name: config[name]["type"] for name in ("backbone", "neck", "decode_head")}
        assert parts == {"backbone": "ResNetV1c", "neck": "FPN", "decode_head": "FPNHead"}
        return EasyPortraitFpn(config["decode_head"]["num_classes"])

    mmseg, models, registry = (types.ModuleType(f"mmseg{part}") for part in ("", ".models", ".registry"))
    mmseg.__spec__ = importlib.machinery.ModuleSpec("mmseg", None)
    mmseg.models, mmseg.registry, registry.MODELS = models, registry, types.SimpleNamespace(build=build)
    for module in (mmseg, models, registry):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert choose("easyportrait-mmseg", "easyportrait") == "easyportrait-mmseg"
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    theirs = load_face_labeller(build=MmsegFpn).label(picture)
    np.testing.assert_array_equal(theirs, load_face_labeller().label(picture))
    assert len(np.unique(theirs)) > 2


def test_stages_know_who_did_them(tmp_path: Path) -> None:
    given = {"size": 64, "crop": "auto", "extractor": "mel"}
    built_in = build_stages(SubjectLayout(tmp_path), **given)
    published = build_stages(SubjectLayout(tmp_path), **given, parser="bisenet", teeth="easyportrait")
    assert (built_in["parsing"].options, built_in["teeth"].options) == ({}, {})
    assert published["parsing"].options == {"parser": "bisenet"}
    assert published["teeth"].options == {"teeth": "easyportrait"}
    for name in ("parsing", "teeth"):
        assert built_in[name].outputs == published[name].outputs


# specs/gaussian_head.md a.4, as an RGB reader sees it
COLOURS = {
    0: (255, 255, 255), **dict.fromkeys((*range(1, 11), 12, 13, 18), (0, 0, 255)), 11: (100, 100, 100),
    14: (0, 255, 0), 15: (0, 255, 0), 16: (255, 0, 0), 17: (0, 0, 0),
}  # fmt: skip


def test_each_class_has_the_fields_colour() -> None:
    assert len(COLOURS) == len(LABELS) == 19
    for number, colour in COLOURS.items():
        assert tuple(label_names.PALETTE[LABELS[number]]) == colour, number


def test_inside_the_person_the_map_is_the_networks(tmp_path: Path) -> None:
    """A hat above a face, hair beside it, a mouth in it: large patches of certain classes, on a frame that has them."""
    patches = {18: np.s_[8:24, 16:48], 1: np.s_[24:48, 20:44], 17: np.s_[24:48, 12:20], 11: np.s_[40:44, 28:36],
               14: np.s_[48:52, 26:38], 16: np.s_[52:64, 8:56]}  # fmt: skip
    classes = np.zeros((64, 64), int)
    for number, patch in patches.items():
        classes[patch] = number
    probabilities = np.full((19, 64, 64), 1e-4, np.float32)
    np.put_along_axis(probabilities, classes[None], 1 - 18e-4, 0)
    frame = np.uint8(np.kron(classes * 13, np.ones((3, 3))))[..., None].repeat(3, 2)
    labels, matte = label_frame(frame, probabilities)
    assert labels.shape == matte.shape == (192, 192)
    expected = LABELS[np.kron(classes, np.ones((3, 3), int))]
    assert (labels == expected).mean() > 0.97
    assert np.array_equal(labels == label_names.BACKGROUND, matte == 0)
    for number in patches:
        inside = np.kron(classes == number, np.ones((3, 3), bool))
        assert (labels == LABELS[number])[inside].mean() > 0.9, number
    assert set(np.unique(labels[26:70, 50:142])) == {label_names.HEAD}  # the hat


def test_parsing_of_a_folder(folder: Path, tmp_path: Path) -> None:
    path = save_bisenet(folder)
    layout = DrawnPerson(frames=3).write(tmp_path / "subject", missing=(1,))
    facts = parse_frames(layout)
    assert facts["parser"] == "bisenet"
    assert facts["weights_sha256"] == sha256_of(path)
    for k in range(3):
        picture, matte = read_rgb(layout.parsing(k)), read_matte(layout.matte(k))
        assert picture.shape == (SIZE, SIZE, 3)
        assert set(map(tuple, picture.reshape(-1, 3))) <= set(COLOURS.values())
        background = (picture == np.array(names.PARSING_BACKGROUND)).all(-1)
        assert np.array_equal(background, matte == 0)


def test_teeth_are_inside_the_lips_only(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_easyportrait(folder)
    person = DrawnPerson(frames=4)
    layout = person.write(tmp_path / "subject", missing=(2,))
    facts = label_teeth(layout)  # these pseudo-weights find teeth nearly everywhere
    assert (facts["teeth"], facts["side_px"], facts["weights"]) == ("easyportrait", 224, path.name)
    assert facts["frames_with_teeth"] == 3
    for k in range(4):
        teeth = np.load(layout.teeth_mask(k))
        assert (teeth.dtype, teeth.shape) == (np.dtype(bool), (SIZE, SIZE))
        lips = polygon_mask(person.landmarks(k)[OUTER_LIPS, :2], SIZE, SIZE)
        assert not teeth[~lips].any()
        assert teeth.any() == (k != 2), k


def test_damaged_weights_are_an_error_not_the_built_in_stage(folder: Path, tmp_path: Path) -> None:
    path = save_easyportrait(folder)
    path.write_bytes(path.read_bytes()[:1_000_000])
    assert choose("auto", "easyportrait") == "easyportrait"
    layout = DrawnPerson(frames=2).write(tmp_path / "subject")
    with pytest.raises(UserError, match=r"fpn-fp-224\.pth cannot be read as plain tensors"):
        label_teeth(layout)
    assert not layout.teeth_mask(0).exists()
