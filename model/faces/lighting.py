"""How much light falls on each vertex: a flash with its shadows, the room, highlights."""

from __future__ import annotations

import numpy as np

from model.faces.mesh import Mesh, unit
from model.faces.raster import rasterise
from model.faces.scene import CAMERA_DISTANCE_CM, Scene, rotation

_SHADOW_PIXELS, _SHADOW_SCALE = 144, 3.0
_SHADOW_FULL_CM, _SHADOW_SOFT_CM = 1.0, 0.6


def lighting(mesh: Mesh, scene: Scene) -> np.ndarray:
    """Flash, room and highlight on each vertex, (V, 3) float32.

    The flash is Lambert's law with a soft terminator, the highlight Blinn-Phong, the room lit from above.
    """
    light = scene.light
    to_camera = unit(np.float32([0.0, 0.0, CAMERA_DISTANCE_CM]) - mesh.xyz_V3)
    away = np.einsum("vc,vc->v", mesh.normal_V3, to_camera) < 0
    normal = np.where(away[:, None], -mesh.normal_V3, mesh.normal_V3)
    flash = np.float32(rotation(scene.pose.yaw, 0.0, 0.0) @ _direction(light.azimuth, light.elevation))
    cosine = normal @ flash
    lambert = 0.4 * np.square(np.clip((cosine + 0.15) / 1.15, 0.0, 1.0)) + 0.6 * np.clip(cosine, 0.0, 1.0)
    lambert *= _lit(mesh, flash)
    shine = np.power(np.clip(np.einsum("vc,vc->v", normal, unit(to_camera + flash)), 0.0, 1.0), 18.0) * (lambert > 0)
    sky = np.clip(0.55 + 0.45 * normal[:, 1] + 0.25 * normal[:, 2], 0.12, 2.0)
    strengths = [light.flash * lambert, light.room * sky, light.flash * 0.35 * shine * mesh.gloss_V]
    return (np.stack(strengths, axis=1) * mesh.shade_V[:, None]).astype(np.float32)


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    a, e = np.radians([azimuth, elevation])
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])


def _lit(mesh: Mesh, flash: np.ndarray) -> np.ndarray:
    """Share of the flash (V,) that nothing stands in the way of, from a shadow map."""
    right = np.cross([0.0, 1.0, 0.0], flash)
    right = np.float32(right / np.linalg.norm(right))
    up = np.cross(flash, right)
    xy = np.stack([mesh.xyz_V3 @ right, -(mesh.xyz_V3 @ up)], axis=1) * _SHADOW_SCALE + _SHADOW_PIXELS / 2
    depth = -(mesh.xyz_V3 @ flash)
    shadow = rasterise(xy, depth, mesh.coarse_T3, (_SHADOW_PIXELS, _SHADOW_PIXELS)).depth_HW
    base = np.floor(xy).astype(int)
    lit = np.zeros(len(xy))
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x = np.clip(base[:, 0] + dx, 0, _SHADOW_PIXELS - 1)
        y = np.clip(base[:, 1] + dy, 0, _SHADOW_PIXELS - 1)
        share = np.abs(1 - dx - (xy[:, 0] - base[:, 0])) * np.abs(1 - dy - (xy[:, 1] - base[:, 1]))
        lit += share * np.clip((shadow[y, x] - depth + _SHADOW_FULL_CM) / _SHADOW_SOFT_CM, 0.0, 1.0)
    return lit
