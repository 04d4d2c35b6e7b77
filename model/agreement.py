"""How far annotators of the same faces agree: on where keypoints are, on what is occluded, and who leans where.

The spread of a keypoint is the mean distance between two annotators' points for it, over all pairs of the face's
annotators: what one may expect of a second opinion, however many there are. A region's is the unweighted mean over
its points, like a region error (`model.region_error`), in the same three units, so that a model's error can be read
beside it.

Legend: F faces, A annotators of a face, K keypoints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from model.annotator_bias import AnnotatorBias, annotator_biases
from model.bootstrap import Estimate
from model.face_views import FaceViews, mean_face, resampling_units, unit_scales
from model.flag_agreement import FlagAgreement, cohen_agreement, disputes, fleiss_agreement
from model.region_error import FaceErrors, Points, Unit, intervals, point_means, region_errors
from schemas.layouts import layout
from schemas.records import Flag


@dataclass(frozen=True)
class RegionAgreement:
    """`spread`: unit -> mean spread with its interval; `flags`: of the region's points, Fleiss's kappa."""

    spread: Mapping[Unit, Estimate]
    flags: FlagAgreement


@dataclass(frozen=True)
class PointAgreement:
    """One keypoint: its mean spread in each unit, and the share of faces on which its flag is in dispute (None where
    nobody flags)."""

    label: str
    spread: Mapping[Unit, float]
    disputed_share: float | None


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators on the faces that both annotated: mean spread over all points; flags by Cohen's kappa.

    Two annotations by one annotator are compared in the same way; then `first` and `second` are the same, and it is
    repeatability.
    """

    first: str
    second: str
    faces: int
    spread: Mapping[Unit, float]
    flags: FlagAgreement


@dataclass(frozen=True)
class Agreement:
    """What F faces with two annotators or more say.

    Attributes:
        faces, subjects: how many; subjects that are known.
        annotators: names, sorted.
        drawn: what intervals come from: `subjects`, or `faces` where not all subjects are known or there is one.
        regions: of the layout, `All` first.
        points: K keypoints.
        pairs: of annotators who have a face in common, sorted.
        biases: of every annotator, sorted.
        mean_face: K points (x, y) in crop pixels.
    """

    faces: int
    subjects: int
    annotators: tuple[str, ...]
    drawn: str
    regions: Mapping[str, RegionAgreement]
    points: tuple[PointAgreement, ...]
    pairs: tuple[PairAgreement, ...]
    biases: tuple[AnnotatorBias, ...]
    mean_face: tuple[tuple[float, float], ...]


def measure_agreement(views: Sequence[FaceViews]) -> Agreement:
    """Compare the annotators of `views`.

    Args:
        views: at least one face; each with two annotators or more, an annotator once a face; K the same for all.

    Raises:
        ValueError: there is no face, a face has fewer than two annotators, or one of them twice.
    """
    _check(views)
    units = resampling_units(views)
    errors = spreads(views)
    subjects = {view.subject for view in views} - {""}
    return Agreement(
        faces=len(views),
        subjects=len(subjects),
        annotators=tuple(sorted({name for view in views for name in view.annotators})),
        drawn="faces" if units == [view.key for view in views] else "subjects",
        regions=_regions(views, errors, units),
        points=_points(views, errors),
        pairs=_pairs(views),
        biases=annotator_biases(views, units),
        mean_face=tuple((x, y) for x, y in mean_face(views).tolist()),
    )


def measure_repeatability(repeats: Sequence[FaceViews]) -> tuple[PairAgreement, ...]:
    """Compare annotations of one face by one annotator, for each annotator.

    Args:
        repeats: the two annotations of a face to compare, both by the same annotator.
    """
    by_name: dict[str, list[FaceViews]] = defaultdict(list)
    for view in repeats:
        by_name[view.annotators[0]].append(view)
    return tuple(_pair(name, name, by_name[name]) for name in sorted(by_name))


def spreads(views: Sequence[FaceViews]) -> FaceErrors:
    """The spread of every keypoint of every face. A point is visible if everybody says so, occluded if one does."""
    spread_FK = np.stack([_mean_distance(view.points_AK2) for view in views])
    scale_FU = unit_scales(views)
    in_units = (spread_FK * scale_F[:, None] for scale_F in scale_FU.T)
    flags_FK = np.stack([_joint_flags(view.flags_AK) for view in views])
    return FaceErrors(*in_units, flags_FK, tuple(resampling_units(views)))


def _check(views: Sequence[FaceViews]) -> None:
    if not views:
        raise ValueError("no face has two annotators")
    for view in views:
        if len(set(view.annotators)) != len(view.annotators) or len(view.annotators) < 2:
            raise ValueError(f"{view.key}: two annotators or more are needed, each once, not {view.annotators}")


def _mean_distance(points_AK2: np.ndarray) -> np.ndarray:
    """Mean over pairs of annotators (K,)."""
    pairs = combinations(range(len(points_AK2)), 2)
    return np.mean([np.linalg.norm(points_AK2[a] - points_AK2[b], axis=-1) for a, b in pairs], axis=0)


def _joint_flags(flags_AK: np.ndarray) -> np.ndarray:
    visible_K, occluded_K = (flags_AK == Flag.VISIBLE).all(axis=0), (flags_AK == Flag.OCCLUDED).any(axis=0)
    return np.select([visible_K, occluded_K], [Flag.VISIBLE, Flag.OCCLUDED], Flag.UNKNOWN).astype(np.int8)


def _regions(views: Sequence[FaceViews], errors: FaceErrors, units: Sequence[str]) -> dict[str, RegionAgreement]:
    bounds = intervals(errors)
    values = {unit: region_errors(errors, unit, Points.ALL) for unit in errors.units}
    flags = fleiss_agreement([view.flags_AK for view in views], errors.regions, units)

    def estimate(unit: Unit, region: str) -> Estimate:
        interval = bounds[unit, Points.ALL][region]
        value = values[unit][region]
        return Estimate(value, interval.low, interval.high) if interval else Estimate(value)

    return {
        region: RegionAgreement({unit: estimate(unit, region) for unit in errors.units}, flags[region])
        for region in errors.regions
    }


def _points(views: Sequence[FaceViews], errors: FaceErrors) -> tuple[PointAgreement, ...]:
    means = {unit: point_means(*errors.select(unit, Points.ALL))[0].tolist() for unit in errors.units}
    judged_K, disputed_K = np.sum([disputes(view.flags_AK) for view in views], axis=0)
    return tuple(
        PointAgreement(
            label,
            {unit: values[i] for unit, values in means.items()},
            float(disputed_K[i] / judged_K[i]) if judged_K[i] else None,
        )
        for i, label in enumerate(layout(len(judged_K)).labels)
    )


def _pairs(views: Sequence[FaceViews]) -> tuple[PairAgreement, ...]:
    by_pair: dict[tuple[str, str], list[FaceViews]] = defaultdict(list)
    for view in views:
        for first, second in combinations(sorted(view.annotators), 2):
            by_pair[first, second].append(view.of(first, second))
    return tuple(_pair(*pair, by_pair[pair]) for pair in sorted(by_pair))


def _pair(first: str, second: str, views: Sequence[FaceViews]) -> PairAgreement:
    errors = spreads(views)
    spread = {unit: region_errors(errors, unit, Points.ALL)["All"] for unit in errors.units}
    flags = cohen_agreement(np.stack([view.flags_AK for view in views]), resampling_units(views))
    return PairAgreement(first, second, len(views), spread, flags)
