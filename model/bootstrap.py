"""Bootstrap over subjects: how far a number measured on some people would move with other people.

Whole subjects are drawn, because faces of one subject are alike (Efron and Tibshirani 1993, chapter 8). A statistic
is a function of sums over faces, so a draw of subjects is a weighted sum of the subjects' own sums: 2000 draws are
one matrix product. It is taken in single precision, whose six digits an interval does not need.

Legend: B faces, S subjects, D draws, X quantities that are summed over faces, Y statistics made of the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
SEED = 20260101
CONFIDENCE = 0.95
DRAWS_AT_ONCE = 250

Statistic = Callable[[np.ndarray], np.ndarray]
"""Sums (D, X) -> statistics (D, Y), NaN where a draw has none."""


@dataclass(frozen=True)
class Interval:
    """A two-sided percentile interval of a statistic, by bootstrap over subjects; 95 % if nothing else is said."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A statistic of a sample and its 95 % interval. None: undefined, or nothing to draw from."""

    value: float | None
    low: float | None = None
    high: float | None = None


def ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """`total / number`, of shapes that go together; NaN where `number` is not above 0."""
    shape = np.broadcast_shapes(np.shape(total), np.shape(number))
    return np.divide(total, number, out=np.full(shape, np.nan), where=np.asarray(number) > 0)


def can_resample(subjects: Sequence[str]) -> bool:
    """There are two subjects or more, and no face's subject is unknown."""
    return "" not in subjects and len(set(subjects)) > 1


def intervals_of(
    subjects: Sequence[str],
    values_BX: np.ndarray,
    statistic: Statistic,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> list[Interval | None] | None:
    """Intervals of the Y statistics over draws of the subjects: the same seed, the same subjects drawn.

    Returns:
        None where the subjects don't allow it (`can_resample`); None for a statistic that no draw has.
    """
    if not can_resample(subjects):
        return None
    total_SX = _subject_sums(subjects, np.asarray(values_BX, np.float64)).astype(np.float32)
    totals = ((times_DS @ total_SX).astype(np.float64) for times_DS in _draws(len(total_SX), draws, seed))
    values_DY = np.concatenate([statistic(total_DX) for total_DX in totals])
    return [_interval(values_D, confidence) for values_D in values_DY.T]


def estimates_of(subjects: Sequence[str], values_BX: np.ndarray, statistic: Statistic) -> list[Estimate]:
    """The Y statistics of all faces, each with its interval where `intervals_of` has one."""
    values_Y = statistic(np.asarray(values_BX, np.float64).sum(axis=0, keepdims=True))[0]
    found = intervals_of(subjects, values_BX, statistic) or [None] * len(values_Y)
    return [_estimate(value, interval) for value, interval in zip(values_Y.tolist(), found, strict=True)]


def _estimate(value: float, interval: Interval | None) -> Estimate:
    if np.isnan(value):
        return Estimate(None)
    return Estimate(value, interval.low, interval.high) if interval else Estimate(value)


def _subject_sums(subjects: Sequence[str], values_BX: np.ndarray) -> np.ndarray:
    _, of_face_B = np.unique(np.array(subjects), return_inverse=True)
    order_B = np.argsort(of_face_B, kind="stable")
    starts_S = np.flatnonzero(np.diff(of_face_B[order_B], prepend=-1))
    return np.add.reduceat(values_BX[order_B], starts_S, axis=0)


def _draws(subjects: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of S subjects is drawn, (D, S), some draws at a time to bound memory."""
    random = np.random.default_rng(seed)
    for start in range(0, draws, DRAWS_AT_ONCE):
        some = min(DRAWS_AT_ONCE, draws - start)
        drawn = random.integers(0, subjects, (some, subjects)) + np.arange(some)[:, None] * subjects
        yield np.bincount(drawn.ravel(), minlength=some * subjects).reshape(some, subjects).astype(np.float32)


def _interval(values_D: np.ndarray, confidence: float) -> Interval | None:
    known = values_D[~np.isnan(values_D)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
