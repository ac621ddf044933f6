"""The whole person: all parts as one mesh and one texture, posed frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from data_utils.synthetic import parts
from data_utils.synthetic.head import EYE_CENTRES, LID_OPEN, MOUTH_Y, Expression, HeadShape, smoothstep, swing_jaw
from data_utils.synthetic.mesh import NormalField, Part, grid_uv, normalized
from data_utils.synthetic.textures import SKIN_TEXELS, skin_texture

LABELS = ("background", "torso", "neck", "head", "hair", "mouth", "teeth")
"""Names of the mask's values 0, 1, 2 ..."""
_LABEL_OF = {"skin": "head", "eye_right": "head", "eye_left": "head", "ear_right": "head", "ear_left": "head",
             "upper_teeth": "teeth", "lower_teeth": "teeth", "tongue": "mouth", "cavity": "mouth"}  # fmt: skip


@dataclass(frozen=True)
class Posed:
    """One frame's vertices in the head frame.

    Args:
        vertices: [N, 3] cm.
        normals: [N, 3] unit.
        occlusion: [N] share of the sky's light that arrives, 0..1.
        skin: [S, 3] the vertices of the head's skin alone, cm.
    """

    vertices: Float[ndarray, "N 3"]
    normals: Float[ndarray, "N 3"]
    occlusion: Float[ndarray, "N"]
    skin: Float[ndarray, "S 3"]


class Person:
    """A procedural person; the same seed gives the same person."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.head = HeadShape()
        skin = Part("skin", self.head.rest, self.head.faces, grid_uv(self.head.rows, self.head.columns, SKIN_TEXELS),
                    skin_texture(self.head, rng))  # fmt: skip
        eye = parts.eyeball(rng)
        self.parts = {"skin": skin}
        for part in (parts.hair(rng), parts.neck(rng), parts.torso(rng), parts.teeth(True), parts.teeth(False),
                     parts.tongue(rng), parts.cavity()):  # fmt: skip
            self.parts[part.name] = part
        self.parts["eye_right"] = self.parts["eye_left"] = eye
        self.parts["ear_right"], self.parts["ear_left"] = parts.ear(-1, rng), parts.ear(1, rng)
        self._join()

    def _join(self) -> None:
        """Number the vertices of all parts through and stack the textures above one another."""
        counts = [len(part.vertices) for part in self.parts.values()]
        offsets = np.cumsum([0, *counts[:-1]])
        self._span = {name: slice(o, o + n) for name, o, n in zip(self.parts, offsets, counts, strict=True)}
        self.faces: Int[ndarray, "M 3"] = np.concatenate(
            [part.faces + offset for part, offset in zip(self.parts.values(), offsets, strict=True)]
        ).astype(np.int32)
        labels = [LABELS.index(_LABEL_OF.get(name, name)) for name in self.parts]
        self.label = np.repeat(np.array(labels, np.uint8), [len(part.faces) for part in self.parts.values()])
        self._normals = {name: NormalField(part.faces, len(part.vertices)) for name, part in self.parts.items()
                         if name != "skin"}  # fmt: skip
        textures: dict[int, int] = {}
        tall = 0
        uv = []
        for part in self.parts.values():
            top = textures.setdefault(id(part.texture), tall)
            tall = max(tall, top + part.texture.shape[0])
            uv.append(part.uv + [0, top])
        self.uv = np.concatenate(uv).astype(np.float32)
        self.texture = np.zeros((tall, max(p.texture.shape[1] for p in self.parts.values()), 4), np.float32)
        for part in self.parts.values():
            top = textures[id(part.texture)]
            self.texture[top : top + part.texture.shape[0], : part.texture.shape[1]] = part.texture

    def pose(self, face: Expression, body_from_head: Float[ndarray, "4 4"]) -> Posed:
        """Place every part.

        Args:
            face: The expression.
            body_from_head: Takes the head frame of rest, where shoulders are tabulated, to the present head frame (cm).
        """
        total = len(self.uv)
        vertices, normals, occlusion = np.empty((total, 3)), np.empty((total, 3)), np.ones(total)
        skin = self.head.vertices(face)
        vertices[self._span["skin"]], normals[self._span["skin"]] = skin, self.head.normals(skin)
        placed = {name: part.vertices.copy() for name, part in self.parts.items() if name != "skin"}
        self._place_mouth(placed, face)
        self._place_eyes(placed, face)
        _place_body(placed, body_from_head)
        for name, points in placed.items():
            vertices[self._span[name]] = points
            normals[self._span[name]] = normalized(self._normals[name](points))
        self._occlude(occlusion, vertices, face)
        return Posed(vertices, normals, occlusion, skin)

    def _place_mouth(self, placed: dict[str, ndarray], face: Expression) -> None:
        swing_jaw(placed["lower_teeth"], 1.0, face.jaw)
        tongue = placed["tongue"]
        swing_jaw(tongue, 0.85, face.jaw)
        tip = smoothstep(0.0, 5.0, tongue[:, 2])
        tongue[:, 1] += tip * face.tongue * (0.35 + 0.75 * face.jaw)
        tongue[:, 2] += 0.3 * face.tongue * tip
        cavity = placed["cavity"]
        swing_jaw(cavity, smoothstep(MOUTH_Y + 1, MOUTH_Y - 2, cavity[:, 1]), face.jaw)

    def _place_eyes(self, placed: dict[str, ndarray], face: Expression) -> None:
        cy, sy, cp, sp = (f(a) for a in (face.gaze_yaw, face.gaze_pitch) for f in (np.cos, np.sin))
        turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        for name, centre in zip(("eye_right", "eye_left"), EYE_CENTRES, strict=True):
            placed[name] = placed[name] @ turn.T + centre

    def _occlude(self, occlusion: ndarray, vertices: ndarray, face: Expression) -> None:
        """Shade what lies behind lips and lids."""
        light = 0.22 + 0.33 * min(face.aperture / 1.2, 1)
        for name in ("upper_teeth", "lower_teeth", "tongue", "cavity"):
            z = vertices[self._span[name], 2]
            seen = 0.25 + 0.75 * smoothstep(0.5, 5.0, z)
            occlusion[self._span[name]] = seen * (light + (0.2 if "teeth" in name else 0.0))
        lids = zip(("eye_right", "eye_left"), (face.blink_right, face.blink_left), EYE_CENTRES, strict=True)
        for name, blink, centre in lids:
            offset = vertices[self._span[name]] - centre
            lid = LID_OPEN + 0.35 * face.gaze_pitch - 0.6 * blink - 0.22 * (offset[:, 0] / 1.2) ** 2
            occlusion[self._span[name]] = 0.38 + 0.62 * smoothstep(-0.02, 0.55, lid - offset[:, 1])


def _place_body(placed: dict[str, ndarray], body_from_head: ndarray) -> None:
    rotation, translation = body_from_head[:3, :3], body_from_head[:3, 3]
    placed["torso"] = placed["torso"] @ rotation.T + translation
    neck = placed["neck"]
    follows = smoothstep(-5.0, -14.0, neck[:, 1])[:, None]
    placed["neck"] = neck + follows * (neck @ rotation.T + translation - neck)
