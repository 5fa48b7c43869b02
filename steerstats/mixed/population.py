"""Which fixed effects a model takes to be alike in every dataset, and which inputs it takes to be independent.

Degrees of freedom are never N - p over datasets: without a random (or fixed) term per dataset the standard errors know
of inputs alone, and a mean over few datasets looks as sure as one over thousands of inputs. The same holds of the two
orders of one question: without a term per question they count as two.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from steerstats.mixed.formula import Design, complete_rows, effect_names, parse_formula

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


def twin_warnings(formula: str, frame: pd.DataFrame) -> list[str]:
    """A warning where several inputs have one question and effects that differ between inputs have none by question.

    Parameters
    ----------
    formula : str
        As `fit_mixed` takes it.
    frame : DataFrame
        With columns `input` and `question`, and `dataset` where questions of several datasets are told apart by it.

    Returns
    -------
    list of str
        Empty where every input of the fitted rows has a question of its own, or random terms by question hold every
        effect of those by input. A question crossed with its inputs is no term by question: that is the inputs.
    """
    rows = complete_rows(formula, frame)
    of = [name for name in ("dataset", "question") if name in rows]
    inputs = rows[[*of, "input"]].drop_duplicates()
    sizes = inputs.groupby(of, sort=False, observed=True).size().to_numpy()
    if (sizes < 2).all():
        return []
    own, shared = {}, {}
    for term in parse_formula(formula)[2]:
        if "input" in term.group:
            own |= effect_names(term.effects)
        elif "question" in term.group:
            shared |= effect_names(term.effects)
    if shared and own.keys() <= shared.keys():
        return []
    effects = " + ".join(own) or "1 + lam"
    which = f"too little by 'question' ({' + '.join(shared)})" if shared else "no random term by 'question'"
    cure = f"({effects} | question) + ({effects} | question:input)"
    several = "dataset" in rows and rows["dataset"].nunique() > 1
    how = " one dataset at a time, or pool that with `two_stage`" if several else ""
    text = (
        f"{sizes[sizes > 1].sum()} of {sizes.sum()} inputs share their question with others ({(sizes > 1).sum()} of "
        f"{sizes.size} questions), and the formula has {which}: they count as independent inputs, so that effects that "
        "differ between questions are tested far too liberally, those inside them too conservatively (two orders "
        "of every question: at 5% the mean slope rejected 11% where they shared half of their variance, 16-17% where "
        f"nine tenths); fit {cure}{how}"
    )
    return [text]


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
