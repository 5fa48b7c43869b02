"""Which fixed effects a model takes to be alike in every dataset, and how to say so where nobody asked for that.

Over datasets the page's rule is "never N - p": without a random (or fixed) term per dataset the standard errors know
of inputs alone, and a mean over few datasets looks as sure as one over thousands of inputs.
"""

from __future__ import annotations

import numpy as np

from steerstats.mixed.formula import Design

SPAN_TOLERANCE = 1e-9  # of a column's squared norm within one dataset


def pooling_warnings(design: Design) -> list[str]:
    """One warning per pooled factor (the `a` of `a:b`, or the population asked for) that has no random term.

    Parameters
    ----------
    design : Design

    Returns
    -------
    list of str
        Empty where every fixed effect may differ between the factor's levels, by fixed interactions with it.
    """
    warnings = []
    for pool in design.pools:
        loose = [design.names[j] for j in _common_effects(design.X, pool.codes, pool.n_levels)]
        if not loose:
            continue
        warnings.append(
            f"{pool.n_levels} levels of {pool.label!r} are pooled without a random term in it: {', '.join(loose)} "
            f"count as the same in every one. Standard errors, degrees of freedom and p-values ignore how levels of "
            f"{pool.label!r} differ, and reject far too often where they do: add ({_effects(loose)} | {pool.label}), "
            "or pool with `two_stage`"
        )
    return warnings


def _common_effects(X: np.ndarray, codes: np.ndarray, n_levels: int) -> list[int]:
    """Columns whose restriction to a single level is not in the span of X: the model has one value for all levels."""
    Q, _ = np.linalg.qr(X)
    P = X.shape[1]
    order = np.argsort(codes, kind="stable")
    start = np.searchsorted(codes[order], np.arange(n_levels))
    joint = np.add.reduceat(np.einsum("nk,nj->nkj", Q[order], X[order]), start).reshape(n_levels, P, P)
    size = np.add.reduceat(np.square(X[order]), start).reshape(n_levels, P)
    # Squared distance of x 1{level} from the span, since Q'(x 1{level}) is the sum over that level alone.
    left = size - np.square(joint).sum(axis=1)
    return np.flatnonzero((left > SPAN_TOLERANCE * np.maximum(size, np.finfo(float).tiny)).any(axis=0)).tolist()


def _effects(names: list[str]) -> str:
    """Fixed effects as the left side of a random term."""
    return " + ".join(["1" if "Intercept" in names else "0", *(name for name in names if name != "Intercept")])
