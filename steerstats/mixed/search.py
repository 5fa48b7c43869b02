"""The search for the least deviance over Cholesky factors: descent, escape where its gradient is blind, polish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

if TYPE_CHECKING:
    from steerstats.mixed.sufficient import Moments

KKT_TOLERANCE = 1e-6  # per group; the derivative of the deviance by Psi grows with the number of groups


def descend(moments: Moments, theta: np.ndarray) -> tuple[np.ndarray, int]:
    """L-BFGS from one start, restarted along an eigenvector as long as the KKT condition fails."""

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        state = moments.evaluate(point)
        return state.deviance, state.gradient

    options = {"maxiter": 1000, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-8 * min(moments.counts)}
    escapes = 0
    while escapes < 20:
        theta = optimize.minimize(objective, theta, jac=True, method="L-BFGS-B", options=options).x
        state = moments.evaluate(theta)
        value, level, vector = moments.kkt(state)
        if value >= -KKT_TOLERANCE:
            break
        psi = [factor @ factor.T for factor in state.factors]
        tried = []
        for step in 10.0 ** np.arange(-6, 2):
            moved = list(psi)
            moved[level] = psi[level] + step * np.outer(vector, vector)
            candidate = moments.theta(moved)
            tried.append((moments.evaluate(candidate).deviance, candidate))
        value, candidate = min(tried, key=lambda pair: pair[0])
        if value >= state.deviance:
            break
        theta, escapes = candidate, escapes + 1
    return theta, escapes


def polish(moments: Moments, theta: np.ndarray) -> np.ndarray:
    """A few Newton steps on the analytic gradient: L-BFGS stops where the deviance no longer resolves steps."""
    state = moments.evaluate(theta)
    target = 1e-10 * min(moments.counts)
    if np.abs(state.gradient).max() <= target:
        return theta
    step = 1e-5
    hessian = np.stack(
        [
            (moments.evaluate(theta + step * unit).gradient - moments.evaluate(theta - step * unit).gradient)
            / (2 * step)
            for unit in np.eye(len(theta))
        ]
    )
    eigenvalues, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    # Flat directions (rotations of a rank-deficient factor) and uphill ones are left alone.
    usable = eigenvalues > 1e-6 * eigenvalues.max()
    for _ in range(8):
        move = vectors[:, usable] @ ((vectors[:, usable].T @ state.gradient) / eigenvalues[usable])
        moved = moments.evaluate(theta - move)
        if np.abs(moved.gradient).max() >= np.abs(state.gradient).max():
            break
        if moved.deviance > state.deviance + 1e-9 * max(1.0, abs(state.deviance)):
            break
        theta, state = theta - move, moved
        if np.abs(state.gradient).max() <= target:
            break
    return theta
