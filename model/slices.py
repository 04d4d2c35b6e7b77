"""Slices of a KPI set: the faces that have something in common, to see where a model is weak.

Legend: F faces, N keypoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from model.pose import yaw_degrees
from schemas.records import Flag

YAW_EDGES = (0, 15, 30, 45, 60)
MOST_TURNED_SHARE = 0.2
OCCLUSION_EDGES = (0.0, 0.1, 0.3, 0.6, 1.0)


@dataclass(frozen=True, eq=False)
class Slice:
    """Some faces of a set: what they are called, and which they are, bool (F,)."""

    name: str
    faces_F: np.ndarray


def all_slices(
    true_FN2: np.ndarray, flags_FN: np.ndarray, subjects: Sequence[str], sets: Sequence[str]
) -> dict[str, list[Slice]]:
    """`yaw`, `occlusion`, `set` and `dataset` -> slices that hold a face, those in order.

    There is no slice by yaw where the layout is not a face, none by occlusion where no face has all its flags known,
    none by dataset (first part of a subject) where there is one or a subject is unknown, and none by set where there
    is one, or the sets are the datasets.
    """
    datasets = [subject.split("/")[0] for subject in subjects]
    by_set, by_dataset = _named(sets), [] if "" in subjects else _named(datasets)
    found = {
        "yaw": yaw_slices(yaw_degrees(true_FN2)),
        "occlusion": occlusion_slices(flags_FN),
        "set": [] if _same(by_set, by_dataset) else by_set,
        "dataset": by_dataset,
    }
    return {dimension: slices for dimension, slices in found.items() if slices}


def yaw_slices(yaw_F: np.ndarray | None) -> list[Slice]:
    """Bins of |yaw|, and the fifth of the faces that are turned the most. Yaw in degrees.

    The rules of promotion name slices, so no name depends on the faces.
    """
    if yaw_F is None:
        return []
    turned_F = np.abs(yaw_F)
    ends = (*YAW_EDGES[1:], np.inf)
    bins = [
        Slice(f"{low}° to {high}°" if high < np.inf else f"over {low}°", (turned_F >= low) & (turned_F < high))
        for low, high in zip(YAW_EDGES, ends, strict=True)
    ]
    least = np.quantile(turned_F, 1 - MOST_TURNED_SHARE, method="higher")
    return _with_faces([*bins, Slice("most turned fifth", turned_F >= least)])


def occlusion_slices(flags_FN: np.ndarray) -> list[Slice]:
    """Bins of the share of occluded points, of faces whose flags are all known."""
    known_F = (flags_FN != Flag.UNKNOWN).all(axis=1)
    share_F = (flags_FN == Flag.OCCLUDED).mean(axis=1)
    bins = [Slice("none", known_F & (share_F == 0))]
    for low, high in pairwise(OCCLUSION_EDGES):
        name = f"over {low:.0%}" if high == 1 else f"over {low:.0%} to {high:.0%}" if low else f"up to {high:.0%}"
        bins.append(Slice(name.replace("%", " %"), known_F & (share_F > low) & (share_F <= high)))
    return _with_faces(bins)


def _named(names: Sequence[str]) -> list[Slice]:
    """One slice for each name, sorted; none where all have the same."""
    names_F = np.array(names)
    different = sorted(set(names))
    return [Slice(name or "unknown", names_F == name) for name in different] if len(different) > 1 else []


def _same(some: Sequence[Slice], others: Sequence[Slice]) -> bool:
    return {part.faces_F.tobytes() for part in some} == {part.faces_F.tobytes() for part in others}


def _with_faces(slices: Iterable[Slice]) -> list[Slice]:
    return [part for part in slices if part.faces_F.any()]
