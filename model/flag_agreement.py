"""Do annotators agree on which keypoints are occluded? Kappa: agreement beyond what chance alone would give.

Two annotators: Cohen's kappa (Cohen 1960), each with a share of occluded points of their own. Any number: Fleiss's
kappa (Fleiss 1971), of points judged by two or more, whose number may differ from point to point; the share of a
point's agreeing pairs is averaged over points, chance is taken from all judgements. A flag that is unknown is no
judgement. Where everybody always says the same, chance alone would agree as much, and kappa is undefined: not 1.

Legend: F faces, A annotators of a face, K keypoints, D draws; X sums that a statistic is made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.bootstrap import Estimate, estimates_of, ratio
from schemas.records import Flag


@dataclass(frozen=True)
class FlagAgreement:
    """How far the occlusion flags of some points agree.

    Attributes:
        judged: points that two annotators or more gave a flag.
        disputed: those of them on which they differ.
        kappa: with its interval; its value is None where it is undefined.
    """

    judged: int
    disputed: int
    kappa: Estimate

    @property
    def disputed_share(self) -> float | None:
        return self.disputed / self.judged if self.judged else None


def disputes(flags_AK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one face's points (K,): which two annotators or more gave a flag, and on which of those they differ."""
    known_K, occluded_K = (flags_AK != Flag.UNKNOWN).sum(axis=0), (flags_AK == Flag.OCCLUDED).sum(axis=0)
    judged_K = known_K >= 2
    return judged_K, judged_K & (occluded_K > 0) & (occluded_K < known_K)


def fleiss_agreement(
    flags: Sequence[np.ndarray], regions: Mapping[str, Sequence[int]], units: Sequence[str]
) -> dict[str, FlagAgreement]:
    """Region -> agreement of any number of annotators.

    Args:
        flags: int8 (A, K) of each of F faces, `Flag`; A may differ.
        regions: name -> indices of keypoints.
        units: F names of what the bootstrap draws whole, such as subjects.
    """
    sums_FKX = np.stack([_fleiss_sums(flags_AK) for flags_AK in flags])
    found = {}
    for region, points in regions.items():
        sums_FX = sums_FKX[:, list(points)].sum(axis=1)
        (kappa,) = estimates_of(units, sums_FX, _fleiss_kappa)
        judged, _, _, _, disputed = sums_FX.sum(axis=0)
        found[region] = FlagAgreement(round(judged), round(disputed), kappa)
    return found


def cohen_agreement(flags_F2K: np.ndarray, units: Sequence[str]) -> FlagAgreement:
    """Agreement of two annotators over F faces; `flags_F2K` are `Flag`, the same annotator first on every face."""
    known_FK = (flags_F2K != Flag.UNKNOWN).all(axis=1)
    first_FK, second_FK = (flags_F2K[:, annotator] == Flag.OCCLUDED for annotator in (0, 1))
    cells = [known_FK & (first_FK == a) & (second_FK == b) for a in (True, False) for b in (True, False)]
    sums_FX = np.stack([cell_FK.sum(axis=1) for cell_FK in cells], axis=1)
    (kappa,) = estimates_of(units, sums_FX, _cohen_kappa)
    _, only_first, only_second, _ = sums_FX.sum(axis=0)
    return FlagAgreement(int(sums_FX.sum()), int(only_first + only_second), kappa)


def _fleiss_sums(flags_AK: np.ndarray) -> np.ndarray:
    """For each point (K, 5): judged, share of agreeing pairs, judgements, those that say occluded, disputed."""
    judged_K, disputed_K = disputes(flags_AK)
    known_K = (flags_AK != Flag.UNKNOWN).sum(axis=0) * judged_K
    occluded_K = (flags_AK == Flag.OCCLUDED).sum(axis=0) * judged_K
    visible_K = known_K - occluded_K
    agreeing_K = occluded_K * (occluded_K - 1) + visible_K * (visible_K - 1)
    pairs_K = np.maximum(known_K * (known_K - 1), 1)
    return np.stack([judged_K, agreeing_K / pairs_K, known_K, occluded_K, disputed_K], axis=1)


def _fleiss_kappa(sums_DX: np.ndarray) -> np.ndarray:
    points_D, agreeing_D, judgements_D, occluded_D, _ = sums_DX.T
    share_D = ratio(occluded_D, judgements_D)
    return _kappa(ratio(agreeing_D, points_D), share_D**2 + (1 - share_D) ** 2)


def _cohen_kappa(sums_DX: np.ndarray) -> np.ndarray:
    both_D, only_first_D, only_second_D, neither_D = sums_DX.T
    points_D = sums_DX.sum(axis=1)
    first_D, second_D = ratio(both_D + only_first_D, points_D), ratio(both_D + only_second_D, points_D)
    observed_D = ratio(both_D + neither_D, points_D)
    return _kappa(observed_D, first_D * second_D + (1 - first_D) * (1 - second_D))


def _kappa(observed_D: np.ndarray, chance_D: np.ndarray) -> np.ndarray:
    """NaN where chance agrees always. The shares that it comes from are then exactly 0 or 1."""
    kappa_D = ratio(observed_D - chance_D, 1 - chance_D)
    return kappa_D[:, None]
