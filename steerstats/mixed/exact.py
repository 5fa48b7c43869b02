"""Curves that are exactly linear in the random-effects design: sigma^2 = 0, and missing cells lose nothing.

The likelihood is unbounded there, but each group's coefficients are known without error from whatever cells it has.
The between-group part of the model is then that of the complete design, and so are its fixed effects.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from steerstats.mixed.formula import Design

RANK_TOLERANCE = 1e-10
ROUNDING = 1e-11  # of the response's size, left after each group's own fit


def group_coefficients(design: Design) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Each group's coefficients on its random-effects design, if they fit every observation exactly.

    Parameters
    ----------
    design : Design
        With one random term.

    Returns
    -------
    coefficients : ndarray, shape (N, q)
    effects : ndarray, shape (N, q, P)
        A with X_i = Z_i A_i.
    complete : ndarray of bool, shape (N,)
        Groups that see all q directions.
    Or None where a residual is left, no group has more observations than coefficients, or X is not along Z.
    """
    order = np.argsort(design.codes[0], kind="stable")
    codes, Z = design.codes[0][order], design.Z[0][order]
    scale = np.linalg.norm(Z, axis=0) / np.sqrt(len(Z))
    Z, joint = Z / scale, np.column_stack([design.y, design.X])[order]
    start = np.flatnonzero(np.diff(codes, prepend=-1))
    values, vectors = np.linalg.eigh(np.add.reduceat(np.einsum("ni,nj->nij", Z, Z), start))
    seen = values > RANK_TOLERANCE * values[:, -1:]
    inverse = (vectors * np.where(seen, 1 / np.where(seen, values, 1.0), 0.0)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    if len(Z) - seen.sum() < 1:
        return None
    coefficients, left = np.zeros((len(start), *Z.shape[1:], joint.shape[1])), joint
    for _ in range(2):  # the second pass mends what rounding in Z'Z cost the first
        step = inverse @ np.add.reduceat(np.einsum("ni,nj->nij", Z, left), start)
        coefficients, left = coefficients + step, left - np.einsum("nk,nkj->nj", Z, step[codes])
    if (np.abs(left).max(axis=0) > ROUNDING * np.maximum(np.abs(joint).max(axis=0), np.finfo(float).tiny)).any():
        return None
    coefficients = coefficients / scale[:, None]
    return coefficients[..., 0], coefficients[..., 1:], seen.all(axis=1)


def completed(design: Design) -> tuple[Design, int] | None:
    """The design with every group seen at the same q + 1 points, and how many groups could not be completed.

    Parameters
    ----------
    design : Design

    Returns
    -------
    tuple of Design and int, or None
        None where the curves are not exactly linear in the design of the one random term.
    """
    found = group_coefficients(design) if len(design.terms) == 1 else None
    if found is None or not found[2].any():
        return None
    coefficients, effects, complete = found
    q = coefficients.shape[1]
    Z = np.vstack([np.eye(q), np.ones(q)])
    n_groups = int(complete.sum())
    filled = replace(
        design,
        y=(coefficients[complete] @ Z.T).ravel(),
        X=(Z @ effects[complete]).reshape(-1, design.X.shape[1]),
        Z=(np.tile(Z, (n_groups, 1)),),
        codes=(np.repeat(np.arange(n_groups), q + 1),),
        levels=(n_groups,),
    )
    return filled, int((~complete).sum())
