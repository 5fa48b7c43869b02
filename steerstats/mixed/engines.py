"""Each engine behind one shape: a design in, a `Solution` out, or the reason why the engine is not exact here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed.arrays import nearest_multiple
from steerstats.mixed.checks import SINGULAR, SINGULAR_TOLERANCE, fit_warnings, is_singular
from steerstats.mixed.closed_form import ClosedForm, closed_form, fit_factored
from steerstats.mixed.complete import fit_complete
from steerstats.mixed.containment import containing
from steerstats.mixed.crossed import fit_crossed
from steerstats.mixed.exact import completed, group_coefficients
from steerstats.mixed.formula import Design
from steerstats.mixed.product import ProductDesign
from steerstats.mixed.sufficient import Level, SufficientFit, fit_levels
from steerstats.mixed.unconstrained import unconstrained_covariance

CONSERVATIVE_NOTE = (
    "standard errors are those of the constrained model, conservative on the boundary: tests reject too seldom there, "
    "so a large p-value says little"
)
SINGULAR_NOTE = (
    f"{SINGULAR}: a covariance is on the boundary given the residual; this does not say that groups do not differ"
)


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Numbers of a fit, in the order of the design's columns and random terms."""

    engine: str
    reason: str
    method: str
    beta: np.ndarray
    covariance: np.ndarray
    covariance_model: np.ndarray
    df: np.ndarray
    se_type: tuple[str, ...]
    columns: tuple[str, ...]
    psi: tuple[np.ndarray, ...]
    sigma2: float
    criterion: float
    singular: bool
    warnings: tuple[str, ...] = ()
    closed: ClosedForm | None = None
    places: tuple[tuple[int, int], ...] = ()


def with_closed_form(design: Design, reml: bool) -> tuple[Solution | None, str]:
    """The closed form, pure (fixed part W x Z) or with further fixed columns, where it is exact."""
    if len(design.terms) != 1:
        return None, "there is more than one random term"
    n_groups = design.levels[0]
    m, ragged = divmod(len(design.y), n_groups)
    if ragged or not (np.bincount(design.codes[0], minlength=n_groups) == m).all():
        return None, "groups differ in their number of observations"
    Z, codes = design.Z[0], design.codes[0]
    order = None
    if not _stacked(Z, codes, m):
        order = np.lexsort((*Z.T[::-1], codes))
        if not _stacked(Z[order], codes[order], m):
            return None, "groups differ in their random-effects design"
    y, X = (design.y, design.X) if order is None else (design.y[order], design.X[order])
    Z = Z[:m] if order is None else Z[order][:m]
    Y, X = y.reshape(n_groups, m), X.reshape(n_groups, m, -1)

    found = _product_structure(X, Z)
    if found:
        W, places = found
        fit = closed_form(Y, Z, W, reml=reml, column_names=design.z_names[0])
        return _from_closed(design, fit, places), ""
    fit = fit_complete(Y, Z, X, reml=reml, names=design.z_names[0])
    if fit is None:
        return None, "the fixed effects are not a full product with the random ones"
    singular = is_singular(fit.psi, fit.sigma2, fit.rank)
    pure = np.isclose(fit.df, fit.df_between) | np.isclose(fit.df, fit.df.max())
    solution = Solution(
        engine="closed_form",
        reason="every group has the same complete design, and further fixed columns do not disturb it",
        method=f"linear mixed model, {'REML' if reml else 'ML'}, closed form",
        beta=fit.beta,
        covariance=fit.covariance,
        covariance_model=fit.covariance_model,
        df=fit.df,
        se_type=tuple("unconstrained mean squares" + ("" if flag else ", Satterthwaite df") for flag in pure),
        columns=containing(design)[0],
        psi=(fit.psi,),
        sigma2=fit.sigma2,
        criterion=fit.criterion,
        singular=singular,
        warnings=fit_warnings(fit.sigma2, fit.scatter, fit.df_between, Z.shape[1], singular),
    )
    return solution, ""


def with_product(design: ProductDesign, reml: bool, level: float) -> Solution:
    """The closed form of a design whose factors are at hand; `product_design` has checked what it needs."""
    fit = fit_factored(
        design.Y,
        *design.factors,
        reml=reml,
        rows=tuple(f"w{j}" for j in range(design.W.shape[1])),
        columns=design.z_names[0],
        level=level,
        scale=design.scale,
    )
    return _from_closed(design, fit, design.places)


def with_sufficient(design: Design, reml: bool, refused: str) -> tuple[Solution | None, str]:
    """Per-group sufficient statistics, for one grouping factor or one nested in another."""
    labels = list(dict.fromkeys(term.label for term in design.terms))
    if len(labels) > 2:
        return None, f"{len(labels)} grouping factors"
    members = {label: [k for k, term in enumerate(design.terms) if term.label == label] for label in labels}
    labels.sort(key=lambda label: design.levels[members[label][0]])
    codes = [design.codes[members[label][0]] for label in labels]
    if len(labels) == 2:
        first = np.zeros(codes[1].max() + 1, dtype=int)
        first[codes[1]] = codes[0]
        if (first[codes[1]] != codes[0]).any():
            return None, f"{labels[1]!r} is not nested in {labels[0]!r}"
        if codes[0].max() == codes[1].max():
            raise CannotEstimate(f"groups of {labels[0]!r} and {labels[1]!r} coincide: their variances are one")
    levels = []
    for label, code in zip(labels, codes):
        Z = np.column_stack([design.Z[k] for k in members[label]])
        blocks = np.repeat(members[label], [design.Z[k].shape[1] for k in members[label]])
        levels.append(Level(Z, code, blocks))
    exact = _from_exact_lines(design, reml)
    if exact is not None:
        return exact, ""
    fit = fit_levels(design.y, design.X, levels, reml=reml)

    psi: list[np.ndarray] = [np.empty(0)] * len(design.terms)
    for label, matrix, level in zip(labels, fit.psi, levels):
        for k in members[label]:
            inside = np.flatnonzero(level.blocks == k)
            psi[k] = matrix[np.ix_(inside, inside)].copy()
    columns, df, warnings = containing(design)
    singular = fit.relative_diagonal < SINGULAR_TOLERANCE
    warnings += [text for k in range(len(design.terms)) for text in _spare_effects(design, k)]
    covariance = _free_covariance(design, levels, fit)
    se_type = f"{'model' if covariance is None else 'unconstrained variance'}, containment df"
    if singular:
        warnings.append(SINGULAR_NOTE)
        if covariance is None:
            warnings.append(CONSERVATIVE_NOTE)
    if fit.kkt < -1e-4:
        warnings.append(f"the optimiser stopped short of the optimum (KKT {fit.kkt:.1e} per group)")
    return Solution(
        engine="sufficient",
        reason=refused or "asked for",
        method=f"linear mixed model, {'REML' if reml else 'ML'}, profiled deviance from sufficient statistics",
        beta=fit.beta,
        covariance=fit.covariance if covariance is None else covariance,
        covariance_model=fit.covariance,
        df=df,
        se_type=(se_type,) * len(df),
        columns=columns,
        psi=tuple(psi),
        sigma2=fit.sigma2,
        criterion=float(fit.criterion),
        singular=singular,
        warnings=tuple(warnings),
    ), ""


def _spare_effects(design: Design, k: int) -> list[str]:
    """Random effects that are, inside every group, a multiple of one before them in the same term."""
    Z, codes, names, spare = design.Z[k], design.codes[k], design.z_names[k], []
    for j in range(1, Z.shape[1]):
        for i in range(j):
            if np.abs(Z[:, j] - nearest_multiple(Z[:, j], Z[:, i], codes)).max() <= 1e-9 * np.abs(Z[:, j]).max():
                spare.append(names[j])
                break
    if not spare:
        return []
    text = f"random effects {', '.join(spare)} are multiples of others within every {design.terms[k].label!r}"
    return [f"{text}: their covariances there are not identified, leave them out of that term"]


def _from_exact_lines(design: Design, reml: bool) -> Solution | None:
    """The closed form on each group's own coefficients, where these are known without error."""
    found = completed(design)
    solution = with_closed_form(found[0], reml)[0] if found else None
    if solution is None or solution.sigma2 > 0:
        return None
    lost = found[1]
    note = f"{lost} groups with fewer distinct observations than random effects do not enter the fixed effects"
    return replace(
        solution,
        reason="every curve is exactly linear in its design: closed form on the per-group coefficients",
        warnings=(*solution.warnings, *((note,) if lost else ())),
        closed=replace(solution.closed, n_obs=len(design.y)) if solution.closed else None,
    )


def _free_covariance(design: Design, levels: list[Level], fit: SufficientFit) -> np.ndarray | None:
    """The covariance that does not know Psi >= 0; None with two grouping factors, or where it is not identified."""
    if len(levels) > 1:
        return None
    (level,), (psi,) = levels, fit.psi
    return unconstrained_covariance(
        design.y, design.X, level.Z, level.codes, level.blocks, beta=fit.beta, psi=psi, sigma2=fit.sigma2
    )


def with_crossed(design: Design, reml: bool) -> tuple[Solution | None, str]:
    """Balanced crossed random intercepts by REML."""
    if len({term.label for term in design.terms}) < 2:
        return None, "there is one grouping factor only"
    if not reml:
        return None, "crossed factors are fitted by REML only"
    if any(names != ("Intercept",) for names in design.z_names):
        return None, "crossed factors with random slopes"
    fit = fit_crossed(design.y, design.X, list(design.codes))
    if fit is None:
        return None, "crossed factors are not balanced, or a fixed effect lies across them"
    singular = bool((fit.variances <= SINGULAR_TOLERANCE**2 * fit.sigma2).any())
    return Solution(
        engine="crossed",
        reason="every combination of the crossed factors is seen equally often",
        method="linear mixed model, REML from the analysis of variance of a balanced crossed design",
        beta=fit.beta,
        covariance=fit.covariance,
        covariance_model=fit.covariance_model,
        df=fit.df,
        se_type=("unconstrained mean squares, Satterthwaite df",) * len(fit.df),
        columns=containing(design)[0],
        psi=tuple(np.array([[value]]) for value in fit.variances),
        sigma2=fit.sigma2,
        criterion=fit.criterion,
        singular=singular,
        warnings=(SINGULAR_NOTE,) if singular else (),
    ), ""


def with_statsmodels(design: Design, reml: bool) -> Solution:
    """statsmodels' MixedLM as a cross-check; one random term."""
    import warnings as python_warnings

    from statsmodels.regression.mixed_linear_model import MixedLM

    if len(design.terms) != 1:
        raise InputError(f"engine 'statsmodels' takes one random term; {design.formula!r} has {len(design.terms)}")
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        fit = MixedLM(design.y, design.X, groups=design.codes[0], exog_re=design.Z[0]).fit(reml=reml)
    P = design.X.shape[1]
    covariance = np.asarray(fit.cov_params())[:P, :P]
    notes = list(dict.fromkeys(f"statsmodels: {item.message}" for item in caught))
    if not fit.converged:
        notes.insert(0, "statsmodels did not converge")
    if group_coefficients(design) is not None:
        notes.insert(
            0,
            "every curve is exactly linear in its design: sigma^2 = 0, the likelihood is unbounded, and where "
            "statsmodels stopped (standard errors too) means nothing; engine 'auto' has the fixed effects",
        )
    psi, sigma2 = np.array(fit.cov_re, dtype=float), float(fit.scale)
    singular = is_singular(psi, sigma2, int(np.linalg.matrix_rank(psi, tol=1e-8 * sigma2, hermitian=True)))
    return Solution(
        engine="statsmodels",
        reason="asked for",
        method=f"linear mixed model, {'REML' if reml else 'ML'}, statsmodels MixedLM",
        beta=np.asarray(fit.fe_params, dtype=float),
        covariance=covariance,
        covariance_model=covariance,
        df=np.full(P, np.inf),
        se_type=("statsmodels model, z",) * P,
        columns=containing(design)[0],
        psi=(psi,),
        sigma2=sigma2,
        criterion=float(-2 * fit.llf),
        singular=singular,
        warnings=tuple(notes),
    )


def _stacked(Z: np.ndarray, codes: np.ndarray, m: int) -> bool:
    """Whether rows come group by group with the same m rows of Z in each."""
    grouped = codes.reshape(-1, m)
    return bool((grouped == grouped[:, :1]).all() and (Z.reshape(-1, m, Z.shape[1]) == Z[:m]).all())


def _product_structure(X: np.ndarray, Z: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]] | None:
    """W (N, p), and per column of X its place (row of Gamma, column of Z), if X is W x Z column by column."""
    q, P = Z.shape[1], X.shape[2]
    if P % q:
        return None
    size = np.abs(X).max(axis=(0, 1))
    W: list[np.ndarray] = []
    places: list[tuple[int, int]] = []
    weights = np.einsum("nmp,mk->knp", X, Z) / np.sum(Z**2, axis=0)[:, None, None]
    for j in range(P):
        for k in range(q):
            w = weights[k, :, j]
            if np.abs(X[:, :, j] - w[:, None] * Z[:, k]).max() <= 1e-12 * size[j]:
                same = [r for r, known in enumerate(W) if np.abs(known - w).max() <= 1e-12 * np.abs(w).max()]
                if not same:
                    W.append(w)
                places.append((same[0] if same else len(W) - 1, k))
                break
        else:
            return None
    if len(W) * q != P or len(set(places)) != P:
        return None
    return np.stack(W, axis=1), places


def _from_closed(design: Design | ProductDesign, fit: ClosedForm, places: Sequence[tuple[int, int]]) -> Solution:
    """Order the closed form's coefficient matrix as the columns of the formula."""
    rows, columns = np.array(places).T
    between = fit.gram_inverse[rows[:, None], rows]
    along = columns[:, None], columns
    sigma, sigma_model = fit.scatter / fit.df, fit.psi + fit.sigma2 * fit.within_inverse
    return Solution(
        engine="closed_form",
        reason="every group has the same complete design and the fixed part is a full product with it",
        method=fit.method,
        beta=fit.coefficients[rows, columns],
        covariance=between * sigma[along],
        covariance_model=between * sigma_model[along],
        df=np.full(len(rows), float(fit.df)),
        se_type=(fit.se_type,) * len(rows),
        columns=tuple(design.z_names[0][k] for k in columns),
        psi=(fit.psi.copy(),),
        sigma2=fit.sigma2,
        criterion=fit.criterion,
        singular=fit.singular,
        warnings=fit.warnings,
        closed=fit,
        places=tuple(places),
    )
