"""How likely an occlusion flag is, given the face's other flags: what hides a point hides its neighbours.

Every point has a logistic regression on the flags of the others, all fitted at once (pseudo-likelihood of an Ising
model: Besag 1975). Nothing is said of where points lie: which are neighbours is learnt, so any layout will do.

Legend: F faces, N keypoints.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from schemas.records import Flag

MAX_FITTED = 5_000
"""Faces that the regressions are fitted to at most; of more, every k-th is taken."""

_PENALTY = 10.0  # on half the sum of squared coefficients, beside the sum of the losses in nats
_ROUNDS = 100


def flag_doubts(flags_FN: np.ndarray, fold_F: np.ndarray) -> np.ndarray:
    """Nats (F, N) by which the other flags of a face speak against each flag; -inf where it is unknown.

    Args:
        flags_FN: `Flag` values.
        fold_F: whole numbers; a face is judged by regressions on the other folds' faces.
    """
    signs_FN = np.select([flags_FN == Flag.OCCLUDED, flags_FN == Flag.VISIBLE], [1.0, -1.0], 0.0)
    doubts_FN = np.full(flags_FN.shape, -np.inf)
    known_FN = signs_FN != 0
    if not known_FN.any():
        return doubts_FN
    for fold in np.unique(fold_F):
        own_F = fold_F == fold
        coefficients_NN, bias_N = _fit(signs_FN[~own_F])
        logit_FN = signs_FN[own_F] @ coefficients_NN + bias_N
        doubts_FN[own_F] = np.where(known_FN[own_F], -signs_FN[own_F] * logit_FN, -np.inf)
    return doubts_FN


def _fit(signs_FN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (N, N), from the first axis to the second, none from a point to itself, and bias (N,)."""
    signs_FN = signs_FN[:: -(-len(signs_FN) // MAX_FITTED)]
    count = signs_FN.shape[1]
    others_NN = 1.0 - np.eye(count)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(count + 1, count)
        coefficients_NN = theta[:-1] * others_NN
        margin_FN = signs_FN * (signs_FN @ coefficients_NN + theta[-1])
        slope_FN = -signs_FN * expit(-margin_FN)
        gradient = np.vstack([(signs_FN.T @ slope_FN) * others_NN, slope_FN.sum(axis=0)]) + _PENALTY * theta
        value = np.logaddexp(0.0, -margin_FN)[signs_FN != 0].sum() + _PENALTY / 2 * (theta**2).sum()
        return value, gradient.ravel()

    start = np.zeros((count + 1) * count)
    flat = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS}).x
    theta = flat.reshape(count + 1, count)
    return theta[:-1] * others_NN, theta[-1]
