"""Makes the profile that `deploy.drift_client` counts by: regions, bins and shapes of one model, in a small file.

Legend: F faces, N keypoints.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deploy.builders.base import Predictions
from deploy.drift_client import FORMAT, SHAPE, Profile
from model.drift import quantile_edges
from model.shape_model import ShapeModel
from schemas.layouts import layout
from schemas.storage import atomic_path


def write_profile(path: Path, shapes: ShapeModel, seen: Predictions, *, model: str) -> Profile:
    """Write a profile and open it. Equal inputs give equal bytes.

    Args:
        shapes: of the faces that the model was trained on.
        seen: the model's predictions of faces that it was not trained on; they decide the bins.
        model: version of the registry, such as `fpenet/3`.
    """
    regions = layout(len(shapes.mean_N)).regions
    signals = [*(f"confidence/{name}" for name in regions), SHAPE]
    described = {
        "format": np.array(FORMAT),
        "model": np.array(model),
        "signals": np.array(signals),
        "regions": np.array(list(regions)),
        **{f"region_{number}": np.array(points) for number, points in enumerate(regions.values())},
        "mean_N2": np.stack([shapes.mean_N.real, shapes.mean_N.imag], axis=1),
        "shift_D": shapes.shift_D,
        "precision_DD": shapes.precision_DD.astype(np.float32),
    }
    values = _opened(path, described | _edges([np.empty(0)] * len(signals))).values(
        seen.keypoints_BN2, seen.confidence_BN
    )
    return _opened(path, described | _edges([quantile_edges(values[name]) for name in signals]))


def _edges(edges: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"edges_{number}": values for number, values in enumerate(edges)}


def _opened(path: Path, described: dict[str, np.ndarray]) -> Profile:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **described)
    return Profile(str(path))
