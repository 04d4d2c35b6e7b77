"""The parts of a bust as one triangle mesh in camera coordinates.

Shape suffixes: V vertices, T triangles, R x C a part's grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.faces.parts import Part
from model.faces.raster import grid_triangles
from model.faces.scene import Pose, turned


@dataclass(frozen=True, eq=False)
class Mesh:
    """All parts in camera coordinates, as one list. `coarse_T3`: every second row and column, for shadows."""

    xyz_V3: np.ndarray
    normal_V3: np.ndarray
    uv_V2: np.ndarray
    shade_V: np.ndarray
    gloss_V: np.ndarray
    triangles_T3: np.ndarray
    coarse_T3: np.ndarray
    kind_T: np.ndarray
    two_sided_T: np.ndarray


def assembled(parts: tuple[Part, ...], pose: Pose) -> Mesh:
    lists: dict[str, list[np.ndarray]] = {name: [] for name in Mesh.__dataclass_fields__}
    offset = 0
    for part in parts:
        xyz = turned(part.xyz_RC3, pose, on_head=part.on_head).astype(np.float32)
        rows, width = xyz.shape[:2]
        triangles = grid_triangles(rows, width)
        count = rows * width
        lists["xyz_V3"].append(xyz.reshape(-1, 3))
        lists["normal_V3"].append(_normals(xyz))
        lists["uv_V2"].append(part.uv_RC2.reshape(-1, 2).astype(np.float32))
        lists["shade_V"].append(part.shade_RC.reshape(-1).astype(np.float32))
        lists["gloss_V"].append(np.full(count, part.gloss, np.float32))
        lists["triangles_T3"].append(triangles + offset)
        lists["coarse_T3"].append(grid_triangles(rows, width, step=2) + offset)
        lists["kind_T"].append(np.full(len(triangles), part.kind, np.int8))
        lists["two_sided_T"].append(np.full(len(triangles), part.two_sided))
        offset += count
    return Mesh(**{name: np.concatenate(column) for name, column in lists.items()})


def _normals(xyz_RC3: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3) of a grid, from central differences."""
    down, across = np.gradient(xyz_RC3, axis=(0, 1))
    normal = np.cross(down, across)
    return unit(normal.reshape(-1, 3))


def unit(vectors_V3: np.ndarray) -> np.ndarray:
    return vectors_V3 / np.sqrt(np.einsum("vc,vc->v", vectors_V3, vectors_V3) + 1e-12)[:, None]
