"""Faces on which annotators differ by more than the settings allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.agreement import spreads
from model.face_views import FaceViews
from model.flag_agreement import disputes
from model.region_error import FaceErrors, Unit
from schemas.config import QualitySettings
from schemas.layouts import layout
from tasks.quality.compare import Compared

_UNIT_WORDS = {Unit.INTER_OCULAR: "% of inter-ocular", Unit.CROP: "crop px"}


@dataclass(frozen=True)
class Dispute:
    """A face on which annotators differ by more than the settings allow.

    Attributes:
        record: source key of the record, such as `team:task/17`.
        image_name, subject: of the face.
        annotators: who differs, sorted.
        source_keys: of their annotations, in the same order.
        reasons: in words: the region and the point that are the furthest above their bounds, and the flags.
        severity: the furthest that one of these is, as a multiple of its bound.
        reviewed: one of the record's annotations is ground truth: somebody has decided already.
    """

    record: str
    image_name: str
    subject: str | None
    annotators: tuple[str, ...]
    source_keys: tuple[str, ...]
    reasons: tuple[str, ...]
    severity: float
    reviewed: bool


@dataclass(frozen=True, eq=False)
class _Parts:
    """Regions or points of F faces: their names, and their spread (F, parts) in each unit."""

    names: Sequence[str]
    spread: Mapping[Unit, np.ndarray]

    def worst(self, bounds: Mapping[Unit, float | None]) -> list[tuple[float, str] | None]:
        """For each face, the part that is furthest above its bounds, as a multiple and in words; None where none is.

        A part is as far above as it is in the unit where that is least; a unit that has no bound, or that a face
        can't be measured in, has no say.
        """
        ratio_FP = np.full(self.spread[Unit.CROP].shape, np.nan)
        for unit, bound in bounds.items():
            if bound is not None:
                ratio_FP = np.fmin(ratio_FP, self.spread[unit] / bound)
        worst_F = np.nan_to_num(ratio_FP).argmax(axis=1).tolist()
        return [
            (ratio, self._words(face, part)) if (ratio := float(ratio_FP[face, part])) > 1 else None
            for face, part in enumerate(worst_F)
        ]

    def _words(self, face: int, part: int) -> str:
        values = ((float(self.spread[unit][face, part]), words) for unit, words in _UNIT_WORDS.items())
        shown = ", ".join(f"{value:.1f} {words}" for value, words in values if np.isfinite(value))
        return f"{self.names[part]} {shown} apart"


def find_disputes(
    compared: Compared, settings: QualitySettings, reviewed: frozenset[str] = frozenset()
) -> tuple[Dispute, ...]:
    """The faces in dispute, the worst first; those that were reviewed last.

    Args:
        reviewed: records that somebody has decided, see `tasks.quality.compare.reviewed_records`.
    """
    if not compared.views:
        return ()
    errors = spreads(compared.views)
    regions = _regions(errors).worst(
        {Unit.INTER_OCULAR: settings.max_region_spread_percent, Unit.CROP: settings.max_region_spread_crop_px}
    )
    points = _points(errors).worst(
        {Unit.INTER_OCULAR: settings.max_point_spread_percent, Unit.CROP: settings.max_point_spread_crop_px}
    )
    found = []
    for view, faces, *of_points in zip(compared.views, compared.faces, regions, points, strict=True):
        exceeded = [reason for reason in (*of_points, _flags_in_dispute(view, settings.max_flag_dispute)) if reason]
        if exceeded:
            found.append(
                Dispute(
                    record=view.key,
                    image_name=faces[0].image_name,
                    subject=faces[0].subject,
                    annotators=view.annotators,
                    source_keys=tuple(face.source_key for face in faces),
                    reasons=tuple(words for _, words in exceeded),
                    severity=max(ratio for ratio, _ in exceeded),
                    reviewed=view.key in reviewed,
                )
            )
    return tuple(sorted(found, key=lambda dispute: (dispute.reviewed, -dispute.severity, dispute.record)))


def _regions(errors: FaceErrors) -> _Parts:
    means = {
        unit: np.stack(
            [errors.in_unit(unit)[:, list(points)].mean(axis=1) for points in errors.regions.values()], axis=1
        )
        for unit in _UNIT_WORDS
    }
    return _Parts(tuple(errors.regions), means)


def _points(errors: FaceErrors) -> _Parts:
    return _Parts(layout(errors.flags_BK.shape[1]).labels, {unit: errors.in_unit(unit) for unit in _UNIT_WORDS})


def _flags_in_dispute(view: FaceViews, largest_share: float) -> tuple[float, str] | None:
    judged, disputed = (int(which_K.sum()) for which_K in disputes(view.flags_AK))
    if not judged or disputed <= largest_share * judged:
        return None
    share = disputed / judged
    ratio = share / largest_share if largest_share else float(disputed + 1)
    return ratio, f"occlusion of {disputed} of {judged} points ({share:.0%}) in dispute"
