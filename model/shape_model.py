"""How likely a face's keypoints are, given those of other people: a heavy-tailed Gaussian of aligned shapes.

Shapes are laid over the mean by a similarity (orthogonal Procrustes, reflections left out) and follow a multivariate
t distribution, fitted by reweighting (Kent, Tyler and Vardi 1994), so that wrong labels among the faces that it is
learnt from pull little at it. A Gaussian's inverse covariance tells each point from all the others (Bishop 2006,
2.75): that is where a single point that is off shows.

Legend: F faces, N keypoints, D = 2N numbers of a shape (all x, then all y), H changes of the order; shapes are
complex numbers x + iy, so that a similarity is a product and a sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

DEGREES_OF_FREEDOM = 8.0
"""Of the t distribution: how far a face may be from all others before that says nothing more about its labels."""

MIN_SHRINKAGE = 0.01
MAX_FITTED = 20_000
"""Faces that a model is fitted to at most; of more, every k-th is taken."""

_ROUNDS = 8
_BLOCK = 4096  # faces whose distances are computed at a time
_FLOOR = 1e-9  # variance of a number of a shape of norm 1: far below what anybody can draw


@dataclass(frozen=True, eq=False)
class ShapeModel:
    """A t distribution of aligned shapes.

    Attributes:
        mean_N: complex, centred, norm 1.
        shift_D: mean of the aligned shapes minus `mean_N`.
        precision_DD: inverse of the scatter matrix, scaled so that the median distance is D: shrinking the scatter
            makes it too wide, the less is known the more so.
    """

    mean_N: np.ndarray
    shift_D: np.ndarray
    precision_DD: np.ndarray

    def distance(self, shapes_FN: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance (F,) of complex shapes."""
        return _squared(self._centred(shapes_FN), self.precision_DD)

    def point_shares(self, shapes_FN: np.ndarray) -> np.ndarray:
        """By how much the distance falls (F, N) if a point were where the others of its face expect it."""
        count = len(self.mean_N)
        pairs_N2 = np.stack([np.arange(count), np.arange(count) + count], axis=1)
        own_N22 = np.linalg.inv(self.precision_DD[pairs_N2[:, :, None], pairs_N2[:, None, :]])
        slope_FN2 = (self._centred(shapes_FN) @ self.precision_DD)[:, pairs_N2]
        return np.einsum("fna,nab,fnb->fn", slope_FN2, own_N22, slope_FN2, optimize=True)

    def gain(self, before_F: np.ndarray, after_F: np.ndarray) -> np.ndarray:
        """Log-likelihood (nats) won where the squared distance falls from `before` to `after`, by the t density."""
        nu = DEGREES_OF_FREEDOM
        return (nu + len(self.shift_D)) / 2 * np.log((nu + before_F) / (nu + after_F))

    def _centred(self, shapes_FN: np.ndarray) -> np.ndarray:
        return _numbers(aligned(shapes_FN, self.mean_N) - self.mean_N) - self.shift_D


@dataclass(frozen=True, eq=False)
class Evidence:
    """What models that have not seen a face's subject say of it.

    Attributes:
        point_gain_FN: nats won by putting one point where the others expect it; never negative.
        order_gain_FH: nats won by each change of the order of the points.
    """

    point_gain_FN: np.ndarray
    order_gain_FH: np.ndarray


def complex_shapes(points_FN2: np.ndarray) -> np.ndarray:
    """Points in pixels as complex numbers (F, N)."""
    points_FN2 = np.asarray(points_FN2, np.float64)
    return points_FN2[..., 0] + 1j * points_FN2[..., 1]


def aligned(shapes_FN: np.ndarray, mean_N: np.ndarray) -> np.ndarray:
    """The shapes moved, scaled to norm 1 and turned onto `mean_N`, least squares over the turn."""
    unit_FN = _unit(shapes_FN)
    product_F1 = (unit_FN * mean_N.conj()).sum(axis=-1, keepdims=True)
    size_F1 = np.abs(product_F1)
    return unit_FN * np.where(size_F1 > 0, product_F1.conj(), 1.0) / np.where(size_F1 > 0, size_F1, 1.0)


def fit_shape_model(shapes_FN: np.ndarray) -> ShapeModel:
    """Fit to complex shapes, at least two of them."""
    shapes_FN = shapes_FN[:: -(-len(shapes_FN) // MAX_FITTED)]
    mean_N, weights_F = _unit(shapes_FN[:1])[0], np.ones(len(shapes_FN))
    for _ in range(_ROUNDS):
        mean_N = _unit((aligned(shapes_FN, mean_N) * weights_F[:, None]).sum(axis=0))
        offset_FD = _numbers(aligned(shapes_FN, mean_N) - mean_N)
        shift_D = weights_F @ offset_FD / weights_F.sum()
        precision_DD = _precision(offset_FD - shift_D, weights_F)
        distance_F = _squared(offset_FD - shift_D, precision_DD)
        scale = len(shift_D) / (np.median(distance_F) + _FLOOR)
        weights_F = (DEGREES_OF_FREEDOM + len(shift_D)) / (DEGREES_OF_FREEDOM + scale * distance_F)
    return ShapeModel(mean_N, shift_D, scale * precision_DD)


def evidence_of(shapes_FN: np.ndarray, fold_F: np.ndarray, orders: Sequence[np.ndarray]) -> Evidence:
    """Evidence about every face from a model of the other folds' faces.

    Args:
        shapes_FN: complex.
        fold_F: whole numbers; faces of one subject must be in one fold.
        orders: H permutations of the N points: `shape[order]` is the changed face.
    """
    point_gain_FN = np.zeros(shapes_FN.shape)
    order_gain_FH = np.zeros((len(shapes_FN), len(orders)))
    for model, rows in _held_out(shapes_FN, fold_F):
        before_F = model.distance(shapes_FN[rows])
        after_FN = before_F[:, None] - model.point_shares(shapes_FN[rows])
        point_gain_FN[rows] = model.gain(before_F[:, None], np.maximum(after_FN, 0.0))
        for number, order in enumerate(orders):
            order_gain_FH[rows, number] = model.gain(before_F, model.distance(shapes_FN[rows][:, order]))
    return Evidence(point_gain_FN, order_gain_FH)


def _held_out(shapes_FN: np.ndarray, fold_F: np.ndarray) -> Iterator[tuple[ShapeModel, np.ndarray]]:
    """A model for every fold, and the rows that it may judge, some thousands at a time."""
    for fold in np.unique(fold_F):
        model = fit_shape_model(shapes_FN[fold_F != fold])
        rows = np.flatnonzero(fold_F == fold)
        for start in range(0, len(rows), _BLOCK):
            yield model, rows[start : start + _BLOCK]


def _precision(centred_FD: np.ndarray, weights_F: np.ndarray) -> np.ndarray:
    """Inverse of the weighted scatter, shrunk towards a sphere (Ledoit and Wolf 2004): shapes lack the four
    directions that the alignment took away, and faces may be fewer than numbers."""
    rows_FD = centred_FD * np.sqrt(weights_F)[:, None]
    scatter_DD = rows_FD.T @ rows_FD / len(rows_FD)
    share = max(MIN_SHRINKAGE, ledoit_wolf_shrinkage(rows_FD, assume_centered=True))
    sphere = np.trace(scatter_DD) / len(scatter_DD) + _FLOOR
    return np.linalg.inv((1 - share) * scatter_DD + share * sphere * np.eye(len(scatter_DD)))


def _squared(centred_FD: np.ndarray, precision_DD: np.ndarray) -> np.ndarray:
    return np.einsum("fd,fd->f", centred_FD @ precision_DD, centred_FD)


def _unit(shapes_FN: np.ndarray) -> np.ndarray:
    centred_FN = shapes_FN - shapes_FN.mean(axis=-1, keepdims=True)
    size_F1 = np.linalg.norm(centred_FN, axis=-1, keepdims=True)
    return centred_FN / np.where(size_F1 > 0, size_F1, 1.0)


def _numbers(shapes_FN: np.ndarray) -> np.ndarray:
    return np.concatenate([shapes_FN.real, shapes_FN.imag], axis=-1)
