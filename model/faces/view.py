"""Rendering: what the camera sees of a scene, and which keypoints are hidden.

Shape suffixes: N keypoints, V vertices, T triangles, P covered pixels of the oversampled frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from model.faces import parts
from model.faces.expression import Expression
from model.faces.features import Features, features_of
from model.faces.identity import Identity
from model.faces.landmarks import anchors, covered_by_lids
from model.faces.lighting import lighting
from model.faces.mesh import Mesh, assembled
from model.faces.parts import Kind, Part
from model.faces.raster import Raster, rasterise, signed_areas
from model.faces.scene import Pose, Scene, project, turned
from model.faces.texture import paint

OVERSAMPLING = 2
_WIRE = 0.012
"""Light of spectacle wire."""

_SKIN_TOLERANCE_CM, _WORN_TOLERANCE_CM = 0.35, 0.05


@dataclass(frozen=True, eq=False)
class View:
    """What the camera sees.

    Attributes:
        light_HWC: linear RGB (C = 3) or luminance (C = 1), float32, multiplied by `alpha_HW`.
        alpha_HW: share of each pixel that the sitter covers.
        points_N2: all 104 keypoints in pixels, float64.
        occluded_N: True where something hides the keypoint.
    """

    light_HWC: np.ndarray
    alpha_HW: np.ndarray
    points_N2: np.ndarray
    occluded_N: np.ndarray


@dataclass(frozen=True, eq=False)
class _Model:
    """What stays the same between photographs of one face with one expression."""

    parts: tuple[Part, ...]
    wires: tuple[Part, ...]
    texture: np.ndarray
    anchors_N3: np.ndarray
    lids_N: np.ndarray


@lru_cache(maxsize=16)
def _model(identity: Identity, expression: Expression, worn: tuple[str, ...], channels: int) -> _Model:
    f = features_of(identity, expression)
    return _Model(tuple(_bust(f, worn)), tuple(_wires(f, worn)), paint(f, channels), anchors(f), covered_by_lids(f))


def _bust(f: Features, worn: tuple[str, ...]) -> list[Part]:
    bust = [parts.head(f), parts.ear(f, -1), parts.ear(f, 1), parts.neck(f), parts.shoulders(f)]
    if f.identity.long_hair:
        bust.append(parts.long_hair(f))
    if "mask" in worn:
        bust.append(parts.mask(f))
    if "sunglasses" in worn:
        bust += [parts.sunglasses(f, -1), parts.sunglasses(f, 1)]
    return bust


def _wires(f: Features, worn: tuple[str, ...]) -> list[Part]:
    return parts.spectacles(f) if f.identity.glasses or "sunglasses" in worn else []


def view(scene: Scene, *, frame_width: int, frame_height: int, channels: int = 1) -> View:
    """Render a scene without background: `channels` 1 for luminance, 3 for RGB."""
    model = _model(scene.identity, scene.expression, scene.worn, channels)
    mesh = assembled(model.parts, scene.pose)
    size = (frame_width * OVERSAMPLING, frame_height * OVERSAMPLING)
    raster, kept = _seen(mesh, scene.pose, size)
    light = _shaded(raster, mesh, mesh.triangles_T3[kept], model.texture, scene)
    points, distance = project(turned(model.anchors_N3, scene.pose, on_head=True), scene.pose)
    hidden = _hidden(_fine(points), distance, raster.depth_HW, _kinds(raster, mesh.kind_T[kept]))
    covered = np.isfinite(raster.depth_HW)
    if model.wires:
        wire, _ = _seen(assembled(model.wires, scene.pose), scene.pose, size)
        nearer = wire.depth_HW < raster.depth_HW
        light[nearer] = _WIRE
        covered |= nearer
    small = {"dsize": (frame_width, frame_height), "interpolation": cv2.INTER_AREA}
    return View(
        cv2.resize(light, **small).reshape(frame_height, frame_width, channels),
        cv2.resize(covered.astype(np.float32), **small),
        points,
        model.lids_N | hidden,
    )


def _fine(xy: np.ndarray) -> np.ndarray:
    """Frame pixels to oversampled pixels."""
    return (xy + 0.5) * OVERSAMPLING - 0.5


def _seen(mesh: Mesh, pose: Pose, size: tuple[int, int]) -> tuple[Raster, np.ndarray]:
    """Raster of the triangles that may be seen, and their numbers."""
    xy, depth = project(mesh.xyz_V3, pose)
    xy = _fine(xy)
    kept = np.flatnonzero((signed_areas(xy, mesh.triangles_T3) > 0) | mesh.two_sided_T)
    return rasterise(xy, depth, mesh.triangles_T3[kept], size), kept


def _kinds(raster: Raster, kind_T: np.ndarray) -> np.ndarray:
    kind = np.full(raster.depth_HW.size, -1, np.int8)
    kind[raster.pixel_P] = kind_T[raster.triangle_P]
    return kind.reshape(raster.depth_HW.shape)


def _hidden(xy_N2: np.ndarray, distance_N: np.ndarray, depth_HW: np.ndarray, kind_HW: np.ndarray) -> np.ndarray:
    """True where every pixel of the 3 x 3 around a keypoint shows something nearer than the keypoint.

    Skin counts as nearer by more than _SKIN_TOLERANCE_CM only, because a keypoint on a contour stands edge-on.
    """
    height, width = depth_HW.shape
    nearest = np.round(xy_N2).astype(int)
    step = np.arange(-1, 2)
    x = np.clip(nearest[:, 0, None, None] + step[None, None, :], 0, width - 1)
    y = np.clip(nearest[:, 1, None, None] + step[None, :, None], 0, height - 1)
    worn = (kind_HW[y, x] == Kind.WORN) | (kind_HW[y, x] == Kind.HAIR)
    tolerance = np.where(worn, _WORN_TOLERANCE_CM, _SKIN_TOLERANCE_CM)
    return (depth_HW[y, x] < distance_N[:, None, None] - tolerance).all((1, 2))


def _shaded(raster: Raster, mesh: Mesh, triangles_T3: np.ndarray, texture: np.ndarray, scene: Scene) -> np.ndarray:
    """Linear light (H, W, C), black where nothing is."""
    per_vertex = np.concatenate([mesh.uv_V2, lighting(mesh, scene)], axis=1)
    value_HW5 = np.zeros((*raster.depth_HW.shape, 5), np.float32)
    value_HW5.reshape(-1, 5)[raster.pixel_P] = raster.interpolate(per_vertex, triangles_T3)
    albedo = cv2.remap(texture, value_HW5[..., :2], None, cv2.INTER_LINEAR).reshape(*raster.depth_HW.shape, -1)
    tint = np.float32(scene.light.tint if albedo.shape[-1] == 3 else 1.0)
    return albedo * (value_HW5[..., 2:3] * tint + value_HW5[..., 3:4]) + value_HW5[..., 4:5] * tint
