"""Command: turn the Basel Face Model 2009, in the forms that the field uses, into one safe file of ours.

python -m data_utils.convert_bfm 01_MorphableModel.mat [--beside DIR] [--out checkpoints/bfm2009.safetensors]

Forms, told by the file given (specs/gaussian_head.md b.1, specs/vico.md 1.2):
* `BFM_model_front.mat`, which Deep3DFaceRecon makes: everything is inside;
* `01_MorphableModel.mat`, from Basel, with Deep3DFaceRecon's files beside it: Exp_Pca.bin and std_exp.txt (Guo et al.),
  BFM_exp_idx.mat, BFM_front_idx.mat, facemodel_info.mat;
* the same with AD-NeRF's files beside it: exp_info.npy, topology_info.npy, keys_info.npy;
* `3DMM_info.npy`, which AD-NeRF's conversion makes, with the last two.
The .npy files are pickles: they are read by a reader that makes arrays and plain values, and refuses everything else.
"""

from __future__ import annotations

import codecs
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy import ndarray
from torch import Tensor

from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.geometry.face_model import LANDMARKS, SIDE_LANDMARKS, FaceModel, vertex_faces
from gaussian_head.media.files import write_bytes
from gaussian_head.networks.bfm import save_face_model
from gaussian_head.networks.weights import sha256_of

MICROMETRES_PER_DECIMETRE = 1e5
MOST_IDENTITY, MOST_ALBEDO, MOST_EXPRESSION = 100, 100, 79
"""Columns that are kept: the tracker's; the regressor's 80, 80 and 64 are the first of them."""
_DEEP3D = ("meanshape", "meantex", "idBase", "exBase", "texBase", "tri", "point_buf", "keypoints", "skinmask")
_BASEL = ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV")
_GUO_FILES = ("Exp_Pca.bin", "std_exp.txt", "BFM_exp_idx.mat", "BFM_front_idx.mat", "facemodel_info.mat")
_ADNERF_FILES = ("exp_info.npy", "topology_info.npy", "keys_info.npy")
_ADNERF = ("mu_shape", "b_shape", "sig_shape", "mu_exp", "b_exp", "sig_exp", "mu_tex", "b_tex", "sig_tex")
_GET_2009 = (
    "the model of 2009 is needed, 01_MorphableModel.mat, from faces.dmi.unibas.ch/bfm after registration "
    "(section Basel Face Model 2009)"
)


@dataclass(frozen=True)
class ConvertOptions:
    """Turn the Basel Face Model 2009 into one safe file (forms: see the head of data_utils/convert_bfm.py)."""

    model: Annotated[Path, tyro.conf.Positional]
    """01_MorphableModel.mat, BFM_model_front.mat or 3DMM_info.npy."""
    beside: Path | None = None
    """Folder of the files that go with it; default: the model's own."""
    out: Path = Path("checkpoints/bfm2009.safetensors")
    """The file to write; facts about it go into a .json of the same name."""
    debug: bool = False
    """Show the traceback of an error."""


def convert(options: ConvertOptions) -> dict[str, Any]:
    """Read, check and write a model.

    Returns:
        Facts: source and its SHA-256, form, counts, units.

    Raises:
        FileNotFoundError: No such file.
        UserError: Another year's model, a missing file, or arrays that do not fit; each is named.
    """
    path, beside = options.model, options.beside or options.model.parent
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give 01_MorphableModel.mat, BFM_model_front.mat or 3DMM_info.npy.")
    if options.out.suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, got {options.out}.")
    form, model = _read(path, beside)
    save_face_model(model, options.out)
    facts = {
        "format": 1,
        "source": path.name,
        "source_sha256": sha256_of(path),
        "form": form,
        "vertices": len(model.mean_shape),
        "triangles": len(model.faces),
        "identity": model.identity_basis.shape[2],
        "expression": model.expression_basis.shape[2],
        "albedo": model.albedo_basis.shape[2],
        "sliding_contours": model.left_contour is not None,
        "units": {"shape": "decimetres", "albedo": "RGB in [0, 1]", "coefficients": "standard deviations"},
        "licence": "Basel Face Model 2009: research only, not to be passed on",
    }
    write_bytes(options.out.with_suffix(".json"), (json.dumps(facts, indent=1) + "\n").encode())
    return facts


def _read(path: Path, beside: Path) -> tuple[str, FaceModel]:
    if path.suffix == ".npy":
        return "AD-NeRF", _from_adnerf(_read_numpy_dictionary(path), beside)
    arrays = _read_mat(path)
    if "meanshape" in arrays:
        return "Deep3DFaceRecon", model_from_deep3d(arrays)
    if "shapeMU" not in arrays:
        names = sorted(arrays)[:8]
        raise UserError(f"{path} holds {names}, neither shapeMU nor meanshape; {_GET_2009}.")
    _require(arrays, _BASEL, path.name)
    present = {files: [name for name in files if (beside / name).is_file()] for files in (_GUO_FILES, _ADNERF_FILES)}
    if len(present[_GUO_FILES]) == len(_GUO_FILES):
        return "Basel with Guo's expressions", _from_guo(arrays, beside)
    if len(present[_ADNERF_FILES]) == len(_ADNERF_FILES):
        return "Basel with AD-NeRF's files", _from_adnerf(_with_expressions(arrays, beside), beside)
    lacks = [f"{', '.join(n for n in files if n not in found)} (with {files[0]})" for files, found in present.items()]
    raise UserError(
        f"{beside} lacks {lacks[0]} of Deep3DFaceRecon, and {lacks[1]} of AD-NeRF; the model of Basel has no "
        "expressions of its own: put the files of one of the two beside it, or name their folder with --beside."
    )


def model_from_deep3d(arrays: Mapping[str, ndarray]) -> FaceModel:
    """Make a model out of the arrays of `BFM_model_front.mat`.

    Args:
        arrays: By name; bases are [3 V, K] in decimetres and 0..255, indices count from 1.

    Raises:
        UserError: An array is missing or has another shape than the others ask for.
    """
    where = "BFM_model_front.mat"
    _require(arrays, _DEEP3D, where)
    values = arrays["meanshape"].size
    bases = {name: _basis(arrays[name], values, name, where) for name in ("idBase", "exBase", "texBase")}
    albedo = _points(arrays["meantex"], values, "meantex", where)
    vertices = len(albedo)
    tables = {name: arrays[name] for name in ("tri", "point_buf", "keypoints", "skinmask")}
    return _assemble(
        _points(arrays["meanshape"], values, "meanshape", where), albedo, bases, _topology(tables, vertices, where)
    )


def _from_guo(basel: Mapping[str, ndarray], beside: Path) -> FaceModel:
    """Deep3DFaceRecon's sub-mesh: `trimIndex` picks vertices of Basel's, `idx` picks among those."""
    info = _read_mat(beside / "facemodel_info.mat")
    _require(info, ("tri", "point_buf", "keypoints", "skinmask"), "facemodel_info.mat")
    trims, fronts = _read_mat(beside / "BFM_exp_idx.mat"), _read_mat(beside / "BFM_front_idx.mat")
    _require(trims, ("trimIndex",), "BFM_exp_idx.mat")
    _require(fronts, ("idx",), "BFM_front_idx.mat")
    values = basel["shapeMU"].size
    trim = _indices(trims["trimIndex"].reshape(-1), values // 3, "trimIndex", "BFM_exp_idx.mat")
    front = _indices(fronts["idx"].reshape(-1), len(trim), "idx", "BFM_front_idx.mat")
    expression = _read_exp_pca(beside, len(trim))[:, :MOST_EXPRESSION] / MICROMETRES_PER_DECIMETRE
    kept = trim[front].numpy()
    shape, albedo, identity, color = _basel(basel)
    bases = {"idBase": identity[kept], "exBase": expression.reshape(len(trim), 3, -1)[front], "texBase": color[kept]}
    return _assemble(shape[kept], albedo[kept], bases, _topology(info, len(kept), "facemodel_info.mat"))


def _read_exp_pca(beside: Path, vertices: int) -> ndarray:
    """Read Guo's expressions: int32 count, mean and components as float32; deviations in a text file. [3 V, E], um."""
    content = (beside / "Exp_Pca.bin").read_bytes()
    count = int(np.frombuffer(content[:4], "<i4")[0]) if len(content) >= 4 else 0
    expected = 4 * (1 + 3 * vertices * (1 + count))
    if count < 1 or len(content) != expected:
        raise UserError(
            f"{beside / 'Exp_Pca.bin'} has {len(content)} bytes; {count} components of {vertices} vertices "
            f"(BFM_exp_idx.mat) make {expected}; get it again."
        )
    components = np.frombuffer(content, "<f4", offset=4 * (1 + 3 * vertices)).reshape(count, -1)
    try:
        deviations = np.loadtxt(beside / "std_exp.txt").reshape(-1)
    except ValueError as error:
        raise UserError(f"{beside / 'std_exp.txt'} must hold numbers: {error}") from error
    if len(deviations) != count:
        raise UserError(f"{beside / 'std_exp.txt'} has {len(deviations)} numbers, Exp_Pca.bin {count} components.")
    return components.T.astype(np.float64) * deviations


def _basel(basel: Mapping[str, ndarray]) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Mean shape and albedo [V, 3], bases [V, 3, K] scaled by their deviations, of the whole mesh in our units."""
    where, values = "01_MorphableModel.mat", basel["shapeMU"].size
    found = []
    for name, most, unit in (("shape", MOST_IDENTITY, MICROMETRES_PER_DECIMETRE), ("tex", MOST_ALBEDO, 1.0)):
        basis = _basis(basel[f"{name}PC"], values, f"{name}PC", where)
        deviations = basel[f"{name}EV"].reshape(-1)
        if len(deviations) != basis.shape[2]:
            raise UserError(f"{where}: {name}EV has {len(deviations)} numbers, {name}PC {basis.shape[2]} columns.")
        mean = _points(basel[f"{name}MU"], values, f"{name}MU", where)
        found.append((mean / unit, basis[..., :most] * deviations[:most] / unit))
    (shape, identity), (albedo, color) = found
    return shape, albedo, identity, color


def _with_expressions(basel: Mapping[str, ndarray], beside: Path) -> dict[str, Any]:
    """Do what AD-NeRF's conversion does: its sub-mesh of Basel's arrays, and the expressions beside them."""
    expressions = _read_numpy_dictionary(beside / "exp_info.npy")
    topology = _read_numpy_dictionary(beside / "topology_info.npy")
    _require(expressions, ("mu_exp", "base_exp", "sig_exp"), "exp_info.npy")
    _require(topology, ("sub_inds",), "topology_info.npy")
    where, values = "01_MorphableModel.mat", basel["shapeMU"].size
    kept = _indices(np.asarray(topology["sub_inds"]).reshape(-1), values // 3, "sub_inds", "topology_info.npy", first=0)
    found: dict[str, Any] = {}
    for name in ("shape", "tex"):
        basis = _basis(basel[f"{name}PC"], values, f"{name}PC", where)[kept]
        found[f"b_{name}"] = basis.reshape(-1, basis.shape[2]).T
        found[f"mu_{name}"] = _points(basel[f"{name}MU"], values, f"{name}MU", where)[kept].reshape(-1)
        found[f"sig_{name}"] = basel[f"{name}EV"].reshape(-1)
    return found | {
        "mu_exp": expressions["mu_exp"],
        "b_exp": expressions["base_exp"],
        "sig_exp": expressions["sig_exp"],
    }


def _from_adnerf(info: Mapping[str, Any], beside: Path) -> FaceModel:
    where = "3DMM_info.npy"
    _require(info, _ADNERF, where)
    topology = _read_numpy_dictionary(beside / "topology_info.npy")
    keys = _read_numpy_dictionary(beside / "keys_info.npy")
    _require(topology, ("tris",), "topology_info.npy")
    _require(keys, ("keyinds", "left_contour", "right_contour", "rigid_ids"), "keys_info.npy")
    values = np.asarray(info["mu_shape"]).size
    vertices = values // 3
    bases = {}
    for ours, theirs, most in (("idBase", "shape", MOST_IDENTITY), ("exBase", "exp", MOST_EXPRESSION),
                               ("texBase", "tex", MOST_ALBEDO)):  # fmt: skip
        basis, deviations = np.asarray(info[f"b_{theirs}"]), np.asarray(info[f"sig_{theirs}"]).reshape(-1)
        if basis.ndim != 2 or basis.shape[1] != values or len(deviations) != len(basis):
            raise UserError(
                f"{where}: b_{theirs} is {list(basis.shape)} and sig_{theirs} has {len(deviations)} numbers, expected "
                f"[K, {values}] and K."
            )
        unit = 1.0 if theirs == "tex" else MICROMETRES_PER_DECIMETRE
        bases[ours] = (basis[:most] * deviations[:most, None] / unit).T.reshape(vertices, 3, -1)
    mean = _points(info["mu_shape"], values, "mu_shape", where) + _points(info["mu_exp"], values, "mu_exp", where)
    faces = _table(topology["tris"], (None, 3), vertices, "tris", "topology_info.npy", first=0)
    where = "keys_info.npy"
    side = (SIDE_LANDMARKS, None)
    tables: dict[str, Tensor | None] = {
        "faces": faces,
        "vertex_faces": vertex_faces(faces, vertices),
        "landmarks": _table(np.reshape(keys["keyinds"], -1), (LANDMARKS,), vertices, "keyinds", where, first=0),
        "left_contour": _table(keys["left_contour"], side, vertices, "left_contour", where, first=0),
        "right_contour": _table(keys["right_contour"], side, vertices, "right_contour", where, first=0),
        "rigid": _table(np.reshape(keys["rigid_ids"], -1), (None,), vertices, "rigid_ids", where, first=0),
    }
    albedo = _points(info["mu_tex"], values, "mu_tex", where)
    return _assemble(mean / MICROMETRES_PER_DECIMETRE, albedo, bases, tables)


def _topology(arrays: Mapping[str, ndarray], vertices: int, where: str) -> dict[str, Tensor | None]:
    faces = _table(arrays["tri"], (None, 3), vertices, "tri", where)
    skin = np.asarray(arrays["skinmask"]).reshape(-1)
    if len(skin) != vertices:
        raise UserError(f"{where}: skinmask has {len(skin)} values, the mesh {vertices} vertices.")
    return {
        "faces": faces,
        "vertex_faces": _table(arrays["point_buf"], (vertices, None), len(faces) + 1, "point_buf", where),
        "landmarks": _table(np.reshape(arrays["keypoints"], -1), (LANDMARKS,), vertices, "keypoints", where),
        "skin": torch.from_numpy(skin != 0),
    }


def _assemble(
    shape: ndarray, albedo: ndarray, bases: Mapping[str, ndarray], tables: Mapping[str, Tensor | None]
) -> FaceModel:
    """Centre the shape, bring colours from 0..255 to 0..1, and make tensors."""

    def tensor(array: ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))

    model = FaceModel(
        mean_shape=tensor(shape - shape.mean(0)), identity_basis=tensor(bases["idBase"]),
        expression_basis=tensor(bases["exBase"]), mean_albedo=tensor(albedo / 255),
        albedo_basis=tensor(bases["texBase"] / 255), **tables,
    )  # fmt: skip
    for name in ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis"):
        if not bool(getattr(model, name).isfinite().all()):
            raise UserError(
                f"the model's {name.replace('_', ' ')} holds values that are not finite; get its file again."
            )
    return model


def _require(arrays: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; expected {', '.join(names)}.")


def _points(values: ndarray, count: int, name: str, where: str) -> ndarray:
    values = np.asarray(values, np.float64)
    if values.size != count or count % 3:
        raise UserError(f"{where}: {name} has {values.size} values, expected {count}, three a vertex.")
    return values.reshape(-1, 3)


def _basis(values: ndarray, count: int, name: str, where: str) -> ndarray:
    """[3 V, K] -> [V, 3, K]."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[0] != count or values.shape[1] < 1:
        raise UserError(f"{where}: {name} is {list(values.shape)}, expected [{count}, K].")
    return values.reshape(count // 3, 3, -1)


def _table(
    values: ndarray, shape: tuple[int | None, ...], things: int, name: str, where: str, first: int = 1
) -> Tensor:
    values = np.asarray(values)
    if values.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, values.shape, strict=True)):
        raise UserError(
            f"{where}: {name} is {list(values.shape)}, expected {['*' if n is None else n for n in shape]}."
        )
    return _indices(values, things, name, where, first)


def _indices(values: ndarray, things: int, name: str, where: str, first: int = 1) -> Tensor:
    """Make indices from 0 out of indices from `first`, which Matlab keeps as floats."""
    if values.dtype.kind not in "iuf" or not values.size or not np.all(values == np.round(values)):
        raise UserError(f"{where}: {name} must hold whole numbers.")
    if values.min() < first or values.max() > things - 1 + first:
        raise UserError(
            f"{where}: {name} runs from {int(values.min())} to {int(values.max())}, "
            f"expected {first} to {things - 1 + first}."
        )
    return torch.from_numpy(np.ascontiguousarray(values.astype(np.int64) - first))


def _read_mat(path: Path) -> dict[str, ndarray]:
    """Read the arrays of a Matlab file of version 5 to 7.

    Raises:
        UserError: It is HDF5, as the models of 2017 and 2019 are, or damaged.
    """
    from scipy.io import loadmat

    with path.open("rb") as file:
        head = file.read(8)
    if head == b"\x89HDF\r\n\x1a\n" or path.suffix in (".h5", ".hdf5"):
        raise UserError(
            f"{path} is an HDF5 file, the form of the Basel models of 2017 and 2019, whose mesh and components are "
            f"others than those the field's coefficients mean; {_GET_2009}."
        )
    try:
        return {name: array for name, array in loadmat(path).items() if isinstance(array, ndarray)}
    except NotImplementedError as error:
        raise UserError(f"{path} is a Matlab file of version 7.3, not read here; {_GET_2009}.") from error
    except (ValueError, TypeError, OSError, EOFError, LookupError, MemoryError, OverflowError, zlib.error) as error:
        raise UserError(f"{path} is no readable Matlab file ({error}); get it again.") from error


class _ArrayReader(pickle.Unpickler):  # the pickles of numpy's own arrays, and nothing else: no other name is found
    _ALLOWED: Mapping[tuple[str, str], Callable[..., Any] | type] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.core.multiarray._reconstruct,
        ("numpy.core.multiarray", "scalar"): np.core.multiarray.scalar,
        ("numpy._core.multiarray", "_reconstruct"): np.core.multiarray._reconstruct,
        ("numpy._core.multiarray", "scalar"): np.core.multiarray.scalar,
        ("_codecs", "encode"): codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 -- a class or a function
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which may run code")
        return self._ALLOWED[module, name]


def _read_numpy_dictionary(path: Path) -> dict[str, Any]:
    """Read a dictionary of arrays that `np.save` has pickled, without running anything that is in it.

    Raises:
        UserError: It is damaged, or holds anything but arrays and plain values.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; it goes with AD-NeRF's form of the model.")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            content = _ArrayReader(file, encoding="latin1").load() if dtype.hasobject and shape == () else None
    except (pickle.UnpicklingError, ValueError, EOFError, LookupError, TypeError, AttributeError, MemoryError) as error:
        raise UserError(f"{path} is no readable dictionary of arrays ({error}); get it again.") from error
    found = content.item() if isinstance(content, ndarray) and content.shape == () else None
    if not isinstance(found, dict):
        raise UserError(f"{path} must hold a dictionary of arrays, as AD-NeRF's files do; it holds something else.")
    return found


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(ConvertOptions)
    configure_logging()

    def body() -> None:
        facts = convert(options)
        print(f"{facts['form']}: {facts['vertices']} vertices, {facts['triangles']} triangles")
        print(options.out)

    run_command(body, debug=options.debug)


if __name__ == "__main__":
    main()
