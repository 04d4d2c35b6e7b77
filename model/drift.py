"""Whether what a device counted is still what a model was tested on: population stability, with its uncertainty.

The population stability index of two distributions p and q over the same bins is sum((p - q) ln(p / q)), the
symmetric Kullback-Leibler divergence: 0 for equal ones; 0.1 is taken as a small and 0.25 as a large shift (Siddiqi
2006). Estimated from n and m faces it is too large by about (B - 1)(1/n + 1/m) (Yurdakul and Naranjo 2020), so a bare
value says little about few faces. Here a shift counts only if the lower bound of its index is above what is allowed:
the basic bootstrap bound (Davison and Hinkley 1997, 5.2), which takes the bias off as well, from multinomial draws.

Faces of one hour are not independent: a device sees the same people again and again. How much more the hours differ
from each other than independent faces would (Pearson's X2 over its degrees of freedom, the design effect of Rao and
Scott 1981) tells how many independent faces they are worth.

What the hours can't tell: where the same few people come every hour, the hours are alike, and that these people are
not the average of the reference looks like drift. If it is known that a device sees few people, `shown_by` says how
large an index such a group shows by itself, from how much people differ in the reference (`between_subjects`).

Legend: H hours, B bins, D bootstrap draws, F faces, S subjects, P people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

BINS = 10
DRAWS = 2000
_HALF_A_FACE = 0.5
"""Added to every bin, so that an empty one has a logarithm."""
_ALMOST_ALL = 0.999


@dataclass(frozen=True)
class Shift:
    """How far a signal has moved.

    Attributes:
        faces: that were counted.
        independent: as many faces seen once each would tell as much.
        index: population stability index, without its bias.
        low: one-sided lower bound of it.
        direction: -1 where the signal has become lower, 1 where it has become higher.
    """

    faces: int
    independent: float
    index: float
    low: float
    direction: int


def quantile_edges(values_F: np.ndarray) -> np.ndarray:
    """Inner edges of `BINS` bins that hold equal shares of the values; fewer bins where values are tied."""
    return np.unique(np.quantile(values_F, np.arange(1, BINS) / BINS))


def shift_of(reference_B: np.ndarray, counts_HB: np.ndarray, *, independent: float, confidence: float) -> Shift:
    """How far the counts of the hours are from a reference.

    Args:
        reference_B: counts of the reference.
        independent: how many independent faces the reference is worth (`independent_faces`).
        confidence: of the one-sided bound.
    """
    counts_B = counts_HB.sum(axis=0)
    worth = independent_faces(counts_HB)
    rng = np.random.default_rng(0)
    expected_B, found_B = _smoothed(reference_B), _smoothed(counts_B)
    drawn_DB = _drawn(rng, expected_B, independent), _drawn(rng, found_B, worth)
    index = float(stability_index(expected_B, found_B))
    drawn_D = stability_index(*drawn_DB)
    return Shift(
        faces=int(counts_B.sum()),
        independent=worth,
        index=max(0.0, 2 * index - float(drawn_D.mean())),
        low=max(0.0, 2 * index - float(np.quantile(drawn_D, confidence))),
        direction=int(np.sign((found_B - expected_B) @ np.arange(len(found_B)))),
    )


def stability_index(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Population stability index over the last axis of two shares, none of which is 0."""
    return ((found - expected) * np.log(found / expected)).sum(axis=-1)


def independent_faces(counts_HB: np.ndarray) -> float:
    """Number of faces over the design effect of the hours; hours without faces count for nothing."""
    counts_HB = counts_HB[counts_HB.sum(axis=1) > 0]
    total = float(counts_HB.sum())
    counts_HB = counts_HB[:, counts_HB.sum(axis=0) > 0]
    hours, bins = counts_HB.shape
    if hours < 2 or bins < 2:
        return total
    expected_HB = counts_HB.sum(axis=1, keepdims=True) * counts_HB.sum(axis=0) / total
    pearson = ((counts_HB - expected_HB) ** 2 / expected_HB).sum()
    return total / max(1.0, pearson / ((hours - 1) * (bins - 1)))


def between_subjects(counts_SB: np.ndarray) -> float:
    """Share of a signal's variance that is between subjects: the intraclass correlation of the bins' normal scores,
    by one-way analysis of variance with unequal groups (Donner 1986). 1 where no subject has two faces, so that
    nothing tells how much a person varies."""
    counts_SB = counts_SB[counts_SB.sum(axis=1) > 0][:, counts_SB.sum(axis=0) > 0]
    subjects, bins = counts_SB.shape
    faces_S, total = counts_SB.sum(axis=1), counts_SB.sum()
    if subjects in (0, total):
        return 1.0
    if subjects == 1 or bins == 1:
        return 0.0
    shares_B = counts_SB.sum(axis=0) / total
    scores_B = ndtri(shares_B.cumsum() - shares_B / 2)
    means_S = counts_SB @ scores_B / faces_S
    between = (faces_S * (means_S - shares_B @ scores_B) ** 2).sum() / (subjects - 1)
    within = (counts_SB @ scores_B**2 - faces_S * means_S**2).sum() / (total - subjects)
    size = (total - (faces_S**2).sum() / total) / (subjects - 1)
    return float(np.clip((between - within) / (between + (size - 1) * within), 0.0, 1.0))


def shown_by(people: int, reference_B: np.ndarray, *, faces: int, between: float, confidence: float) -> float:
    """Index that a group of people of the reference's population stays below with this confidence, without any drift.

    A signal is taken for normal, with each person's faces about a mean of his own; how the faces are shared among the
    people is drawn too, evenly over all ways.

    Args:
        faces: that they show together.
        between: share of the variance that is between people (`between_subjects`).
    """
    rng = np.random.default_rng(0)
    between, expected_B = min(between, _ALMOST_ALL), _smoothed(reference_B)
    cuts_B = ndtri(expected_B.cumsum()[:-1])
    means_DP1 = np.sqrt(between) * rng.normal(size=(DRAWS, people, 1))
    below_DPB = ndtr((cuts_B - means_DP1) / np.sqrt(1 - between))
    below_DB = (rng.dirichlet(np.ones(people), DRAWS)[..., None] * below_DPB).sum(axis=1)
    shown_DB = np.diff(below_DB, axis=1, prepend=0.0, append=1.0)
    return float(np.quantile(stability_index(expected_B, _smoothed(faces * shown_DB)), confidence))


def _smoothed(counts: np.ndarray) -> np.ndarray:
    """Shares over the last axis."""
    faces = counts.sum(axis=-1, keepdims=True)
    return (counts + _HALF_A_FACE) / (faces + _HALF_A_FACE * counts.shape[-1])


def _drawn(rng: np.random.Generator, shares_B: np.ndarray, faces: float) -> np.ndarray:
    return _smoothed(rng.multinomial(max(1, round(faces)), shares_B, size=DRAWS))
