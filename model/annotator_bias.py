"""Where each annotator puts keypoints beside where the others put them: the mean signed offset, per region.

The others' mean on the same face stands for the truth, which nobody knows. With two annotators an offset can't be
laid at one's door: both have it, with opposite signs.

Legend: F faces, A annotators of a face, K keypoints, U units, R regions, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.bootstrap import Estimate, estimates_of
from model.face_views import FaceViews, unit_scales
from model.region_error import Unit
from schemas.layouts import layout
from schemas.records import Flag


@dataclass(frozen=True)
class Offset:
    """Mean signed offset: `x` to the right, `y` down the image, each with its interval."""

    x: Estimate
    y: Estimate

    @property
    def certain(self) -> bool:
        """An interval of one of them leaves out 0."""
        return any(part.low is not None and part.low * part.high > 0 for part in (self.x, self.y))


@dataclass(frozen=True)
class AnnotatorBias:
    """One annotator against the others.

    Attributes:
        annotator: as the source names them.
        faces: that others annotated too.
        offsets: unit -> region -> mean offset from the others' mean; a unit that no face has is not there.
        points_crop_px: the same of each keypoint (x, y), in crop pixels.
        occluded_share: of this annotator's flags on those faces; None where none is known.
        others_occluded_share: of the others' flags.
    """

    annotator: str
    faces: int
    offsets: Mapping[Unit, Mapping[str, Offset]]
    points_crop_px: tuple[tuple[float, float], ...]
    occluded_share: float | None
    others_occluded_share: float | None


def annotator_biases(views: Sequence[FaceViews], units: Sequence[str]) -> tuple[AnnotatorBias, ...]:
    """The bias of every annotator, sorted by name.

    Args:
        views: faces with two annotators or more, each annotator once a face.
        units: for each face, what the bootstrap draws whole, such as its subject.
    """
    names = sorted({name for view in views for name in view.annotators})
    return tuple(_bias_of(name, views, units) for name in names)


def _bias_of(name: str, views: Sequence[FaceViews], units: Sequence[str]) -> AnnotatorBias:
    own = [
        (view, unit, view.annotators.index(name))
        for view, unit in zip(views, units, strict=True)
        if name in view.annotators
    ]
    offset_FK2 = np.stack([_offset_from_others(view.points_AK2, i) for view, _, i in own])
    scale_FU = unit_scales([view for view, _, _ in own])
    flags = [(view.flags_AK[i], np.delete(view.flags_AK, i, axis=0)) for view, _, i in own]
    crop_K2 = (offset_FK2 * scale_FU[:, list(Unit).index(Unit.CROP), None, None]).mean(axis=0)
    return AnnotatorBias(
        annotator=name,
        faces=len(own),
        offsets=_offsets(offset_FK2, scale_FU, [unit for _, unit, _ in own]),
        points_crop_px=tuple((x, y) for x, y in crop_K2.tolist()),
        occluded_share=_occluded_share([of_one for of_one, _ in flags]),
        others_occluded_share=_occluded_share([of_others for _, of_others in flags]),
    )


def _offset_from_others(points_AK2: np.ndarray, annotator: int) -> np.ndarray:
    return points_AK2[annotator] - np.delete(points_AK2, annotator, axis=0).mean(axis=0)


def _offsets(offset_FK2: np.ndarray, scale_FU: np.ndarray, units: Sequence[str]) -> dict[Unit, dict[str, Offset]]:
    regions = layout(offset_FK2.shape[1]).regions
    region_FR2 = np.stack([offset_FK2[:, list(points)].mean(axis=1) for points in regions.values()], axis=1)
    known_FU = np.isfinite(scale_FU)
    value_FUR2 = np.where(known_FU, scale_FU, 0.0)[:, :, None, None] * region_FR2[:, None]
    shape = value_FUR2.shape[1:]

    def means_of(sums_DX: np.ndarray) -> np.ndarray:
        number_DU = sums_DX[:, : shape[0]]
        total_DUX = sums_DX[:, shape[0] :].reshape(len(sums_DX), shape[0], -1)
        number_DU1 = np.where(number_DU > 0, number_DU, np.nan)[:, :, None]
        return (total_DUX / number_DU1).reshape(len(sums_DX), -1)

    sums_FX = np.concatenate([known_FU, value_FUR2.reshape(len(value_FUR2), -1)], axis=1)
    cells = iter(estimates_of(units, sums_FX, means_of))
    found = {unit: {region: Offset(next(cells), next(cells)) for region in regions} for unit in Unit}
    return {unit: table for unit, table in found.items() if table["All"].x.value is not None}


def _occluded_share(flags: Sequence[np.ndarray]) -> float | None:
    every = np.concatenate([part.ravel() for part in flags])
    known = every[every != Flag.UNKNOWN]
    return float((known == Flag.OCCLUDED).mean()) if len(known) else None
