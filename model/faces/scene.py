"""A sitter, a camera and a light, and where the camera sees a point."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from model.faces.expression import Expression
from model.faces.features import features_of
from model.faces.identity import Identity
from model.faces.landmarks import anchors

CAMERA_DISTANCE_CM = 130.0
_PIVOT = np.array([0.0, -6.0, -2.5])
"""The head nods and tilts about the top of the neck."""


@dataclass(frozen=True)
class Pose:
    """Yaw (towards the right of the image) turns the whole sitter; pitch (chin up) and roll (clockwise) the head.

    Degrees; `centre` is where the point between the ears is seen, in pixels; `scale` in pixels per centimetre.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    centre: tuple[float, float] = (95.5, 92.0)
    scale: float = 6.4


@dataclass(frozen=True)
class Light:
    """`azimuth` and `elevation` of a flash in degrees, seen by the sitter's frontal camera (image right, up).

    `flash` and `room` are strengths, `tint` the flash's colour.
    """

    azimuth: float = 20.0
    elevation: float = 30.0
    flash: float = 0.9
    room: float = 0.65
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Scene:
    """All that a rendering shows, except the background. `worn`: any of `mask`, `sunglasses`."""

    identity: Identity = field(default_factory=Identity)
    expression: Expression = field(default_factory=Expression)
    pose: Pose = field(default_factory=Pose)
    light: Light = field(default_factory=Light)
    worn: tuple[str, ...] = ()


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Roll, then pitch, then yaw; degrees; acts on column vectors of head coordinates."""
    y, p, r = np.radians([yaw, -pitch, -roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def turned(xyz: np.ndarray, pose: Pose, *, on_head: bool) -> np.ndarray:
    """Sitter coordinates (..., 3) to camera coordinates; only what is on the head nods and tilts."""
    if on_head:
        xyz = (xyz - _PIVOT) @ rotation(0.0, pose.pitch, pose.roll).T + _PIVOT
    return xyz @ rotation(pose.yaw, 0.0, 0.0).T


def project(xyz: np.ndarray, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Perspective from CAMERA_DISTANCE_CM: pixels (..., 2) and distances (...)."""
    distance = CAMERA_DISTANCE_CM - xyz[..., 2]
    scale = pose.scale * CAMERA_DISTANCE_CM / distance
    x = pose.centre[0] + xyz[..., 0] * scale
    y = pose.centre[1] - xyz[..., 1] * scale
    return np.stack([x, y], axis=-1), distance


def keypoints(scene: Scene) -> np.ndarray:
    """All 104 keypoints (104, 2) of a scene in pixels, without rendering it."""
    return project(turned(_anchors(scene.identity, scene.expression), scene.pose, on_head=True), scene.pose)[0]


@lru_cache(maxsize=16)
def _anchors(identity: Identity, expression: Expression) -> np.ndarray:
    return anchors(features_of(identity, expression))
