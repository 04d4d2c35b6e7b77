"""Challenger against champion: their errors on the very same faces, and how sure the difference is.

A row is a region over all faces, or a slice of the faces over the region All. Its numbers are the evaluation's own:
the mean over faces of a face's mean over the region's points, in crop pixels, every point counted
(`model.region_error`). The difference is taken face by face, so what makes a face hard for both models cancels. For
the interval whole subjects are drawn as the rules say (`model.bootstrap`).

Legend: B faces, S subjects, D draws, R rows of the same faces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from model.bootstrap import Interval, intervals_of
from model.region_error import FaceErrors
from model.slices import Slice
from schemas.promotion_rules import DIMENSIONS, PromotionRules

REGION = "region"


class Outcome(StrEnum):
    """What a row says. `SHOWN`: the rules give it no allowance; `TOO_FEW`: they let a slice of this kind be small."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    SHOWN = "shown"
    TOO_FEW = "too few, shown only"


@dataclass(frozen=True)
class Row:
    """A region or slice, in crop pixels.

    Attributes:
        dimension: `region`, or the slice's: `yaw`, `occlusion`, `set`, `dataset`.
        name: of the region or slice.
        faces, subjects: how many it holds.
        champion_px, challenger_px: mean errors; None without faces, the champion's also where there is none.
        difference_px: challenger - champion, below 0 is better.
        low_px, high_px: interval of the difference; without a champion, of the challenger's error. None where the
            subjects allow none.
        allowance_px: what `high_px` may be at most.
    """

    dimension: str
    name: str
    faces: int
    subjects: int
    champion_px: float | None
    challenger_px: float | None
    difference_px: float | None
    low_px: float | None
    high_px: float | None
    allowance_px: float | None
    outcome: Outcome

    @property
    def title(self) -> str:
        """`Eyes`, `yaw over 60°`."""
        return self.name if self.dimension == REGION else f"{self.dimension} {self.name}"


def compare(
    challenger: FaceErrors,
    champion: FaceErrors,
    slices: Mapping[str, Sequence[Slice]],
    rules: PromotionRules,
) -> tuple[Row, ...]:
    """A row for every region and every slice, and for slices that the rules gate by name and no face is in.

    Args:
        challenger, champion: errors of the same faces in the same order.
        slices: dimension -> slices of these faces (`model.slices.all_slices`).

    Raises:
        ValueError: the faces are not the same.
    """
    if challenger.subjects != champion.subjects or challenger.crop_px_BK.shape != champion.crop_px_BK.shape:
        raise ValueError("challenger and champion were not measured on the same faces")
    allowance, everyone = rules.allowance_crop_px, np.ones(len(challenger), bool)
    regions = _Faces(REGION, tuple(challenger.regions), everyone, tuple(challenger.regions.values()))
    allowed = [allowance.regions.get(name) for name in regions.names]
    rows = list(_rows(challenger, champion, regions, allowed, rules))
    whole = (challenger.regions["All"],)
    for dimension in DIMENSIONS:
        for part in slices.get(dimension, ()):
            faces = _Faces(dimension, (part.name,), part.faces_F, whole)
            rows += _rows(challenger, champion, faces, [allowance.of_slice(dimension, part.name)], rules)
    found = {f"{row.dimension}/{row.name}" for row in rows}
    missing = {name: px for name, px in allowance.named.items() if px is not None and name not in found}
    return (*rows, *(_empty(name, px) for name, px in sorted(missing.items())))


def hold_against_bounds(challenger: FaceErrors, rules: PromotionRules) -> tuple[Row, ...]:
    """A row for every region, its error's interval against the rules' absolute bound: there is no champion."""
    everyone = np.ones(len(challenger), bool)
    regions = _Faces(REGION, tuple(challenger.regions), everyone, tuple(challenger.regions.values()))
    bounds = [rules.bounds_crop_px.get(name) for name in regions.names]
    return tuple(_rows(challenger, None, regions, bounds, rules))


def overall(rows: Sequence[Row]) -> Outcome:
    """`FAILED` if any row is, else `INCONCLUSIVE` if any is, else `PASSED`."""
    outcomes = {row.outcome for row in rows}
    return next((bad for bad in (Outcome.FAILED, Outcome.INCONCLUSIVE) if bad in outcomes), Outcome.PASSED)


@dataclass(frozen=True, eq=False)
class _Faces:
    """R rows over the same faces: what they are called, which faces (B,), and the points of each row."""

    dimension: str
    names: tuple[str, ...]
    chosen_B: np.ndarray
    points: tuple[Sequence[int], ...]

    def errors_of(self, errors: FaceErrors) -> np.ndarray:
        """Mean error of each chosen face over each row's points, (B, R), crop pixels."""
        error_BK = errors.crop_px_BK[self.chosen_B]
        return np.stack([error_BK[:, list(points)].mean(axis=1) for points in self.points], axis=1)


def _rows(
    challenger: FaceErrors,
    champion: FaceErrors | None,
    faces: _Faces,
    allowances: Sequence[float | None],
    rules: PromotionRules,
) -> Iterator[Row]:
    subjects = [subject for subject, chosen in zip(challenger.subjects, faces.chosen_B, strict=True) if chosen]
    number = len(set(subjects) - {""})
    own_BR = faces.errors_of(challenger)
    other_BR = None if champion is None else faces.errors_of(champion)
    gated_BR = own_BR if other_BR is None else own_BR - other_BR
    summed_BX = np.column_stack([gated_BR, np.ones(len(gated_BR))])
    found = intervals_of(subjects, summed_BX, _means, **rules.bootstrap.model_dump()) or [None] * len(faces.names)
    for column, (name, interval, allowance) in enumerate(zip(faces.names, found, allowances, strict=True)):
        yield Row(
            dimension=faces.dimension,
            name=name,
            faces=len(subjects),
            subjects=number,
            champion_px=None if other_BR is None else float(other_BR[:, column].mean()),
            challenger_px=float(own_BR[:, column].mean()),
            difference_px=None if other_BR is None else float(gated_BR[:, column].mean()),
            low_px=interval and interval.low,
            high_px=interval and interval.high,
            allowance_px=allowance,
            outcome=_outcome(
                interval, number, allowance, rules, may_be_small=rules.may_be_small(faces.dimension, name)
            ),
        )


def _means(total_DX: np.ndarray) -> np.ndarray:
    """Over faces, of sums whose last column is their number."""
    return total_DX[:, :-1] / total_DX[:, -1:]


def _outcome(
    interval: Interval | None,
    subjects: int,
    allowance: float | None,
    rules: PromotionRules,
    *,
    may_be_small: bool,
) -> Outcome:
    if allowance is None:
        return Outcome.SHOWN
    if may_be_small and subjects < rules.minimum_subjects:
        return Outcome.TOO_FEW
    if interval is None or subjects < rules.minimum_subjects:
        return Outcome.INCONCLUSIVE
    return Outcome.PASSED if interval.high <= allowance else Outcome.FAILED


def _empty(named: str, allowance: float) -> Row:
    """A slice that the rules name and no face is in."""
    dimension, _, name = named.partition("/")
    return Row(dimension, name, 0, 0, None, None, None, None, None, allowance, Outcome.INCONCLUSIVE)
