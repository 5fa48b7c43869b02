"""`fit_mixed`: a formula and a frame in, the cheapest exact engine chosen, a frozen fit out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, InputError, check_level
from steerstats.mixed import engines
from steerstats.mixed.engines import Solution
from steerstats.mixed.formula import Design, build_design
from steerstats.mixed.population import pooling_warnings
from steerstats.mixed.product import ProductDesign, product_design
from steerstats.mixed.result import Fingerprint, MixedFit, VarianceComponents, digests

ENGINES = ("auto", "closed_form", "crossed", "sufficient", "statsmodels")


def fit_mixed(
    formula: str,
    frame: pd.DataFrame,
    engine: str = "auto",
    reml: bool = True,
    *,
    population: str | None = None,
    level: float = 0.95,
) -> MixedFit:
    """Fit a linear mixed model written as in lme4.

    Parameters
    ----------
    formula : str
        "y ~ lam * (pos_is_a + pos_is_yes) + (1 + lam | input)", with further random terms nested
        ("+ (1 + lam | dataset) + (1 + lam | dataset:input)") or, balanced and intercepts only, crossed
        ("(1 | input) + (1 | template)"). Copies of a question (both orders of its options) need the term by input split
        in two, "(1 + lam | question) + (1 + lam | question:input)": otherwise they count as independent inputs.
    frame : DataFrame
        One row per observation. Rows with a missing value in a column of the formula are left out and counted.
    engine : {"auto", "closed_form", "crossed", "sufficient", "statsmodels"}
        "auto" takes the closed form where it is exact, per-group sufficient statistics elsewhere, and never
        statsmodels (whose boundary fits can be far from the maximum while they report convergence).
    reml : bool
        Restricted maximum likelihood, or maximum likelihood (for likelihood-ratio tests of fixed effects).
    population : str, optional
        Column whose levels are a sample to generalise from, such as "dataset": effects that the model takes to be the
        same in all of them are named in `warnings`. The outer factor of a group `dataset:input` always is one.
    level : float
        Nominal coverage of the intervals.

    Raises
    ------
    InputError
        If the formula, a column or the engine does not fit the model.
    CannotEstimate
        If a component has no degree of freedom.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    >>> curves = study.curves_frame("base->base")
    >>> fit = steerstats.fit_mixed("y ~ lam + (1 + lam | input)", curves)
    >>> fit.engine, list(fit.to_frame()["term"])
    ('closed_form', ['Intercept', 'lam'])
    """
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
    level = check_level(level)
    # The product way is exact or not taken (see its module); a population needs the rows as they are.
    if engine in ("auto", "closed_form") and population is None:
        product = product_design(formula, frame)
        if product is not None:
            return _result(product, engines.with_product(product, reml, level), reml, level)
    design = build_design(formula, frame, population)
    if not design.names:
        raise InputError(f"formula {formula!r} has no fixed effect; write at least '1'")
    for term, count in zip(design.terms, design.levels):
        if count < 2:
            raise CannotEstimate(f"{term.label!r} has {count} level: its variance needs at least two")
    solution = _solve(design, engine, reml)
    return _result(design, solution, reml, level)


def _solve(design: Design, engine: str, reml: bool) -> Solution:
    """Run the engine asked for, or the first that is exact for this design."""
    if engine == "statsmodels":
        return engines.with_statsmodels(design, reml)
    refusals: list[str] = []
    ways = {
        "closed_form": lambda: engines.with_closed_form(design, reml),
        "sufficient": lambda: engines.with_sufficient(design, reml, "; ".join(refusals)),
        "crossed": lambda: engines.with_crossed(design, reml),
    }
    for name, way in ways.items():
        if engine in ("auto", name):
            solution, why = way()
            if solution:
                return solution
            refusals.append(why)
    raise InputError(
        f"engine {engine!r} cannot fit {design.formula!r}: {'; '.join(refusals)}"
        + ("" if engine != "auto" else " (crossed factors have to be balanced, with intercepts only, by REML)")
    )


def _result(design: Design | ProductDesign, solution: Solution, reml: bool, level: float) -> MixedFit:
    """Put names, counts and warnings to the numbers of an engine."""
    warnings = [*pooling_warnings(design), *solution.warnings]
    if design.n_dropped:
        warnings.append(f"{design.n_dropped} rows with a missing value were left out")
    for term, lost in zip(design.terms, design.n_groups_lost):
        if lost:
            warnings.append(f"{lost} levels of {term.label!r} had no complete row and were left out")
    if design.aliased:
        warnings.append(f"dropped as aliased: {', '.join(design.aliased)}")
    if not np.isfinite(solution.criterion):
        warnings.append("the criterion is infinite: this fit cannot enter a likelihood-ratio test")
    variance = VarianceComponents(
        method=solution.method,
        groups=tuple(term.label for term in design.terms),
        columns=design.z_names,
        psi=solution.psi,
        sigma2=solution.sigma2,
    )
    counts = dict(zip((term.label for term in design.terms), design.levels))
    # Psi of k correlated effects has k(k+1)/2 parameters.
    n_variance = 1 + sum(len(names) * (len(names) + 1) // 2 for names in design.z_names)
    return MixedFit(
        method=solution.method,
        assumptions=(
            "random effects and residuals normal, residuals of equal variance and independent given the effects",
            "for deterministic logits the residual is lack of fit, not sampling noise",
        ),
        warnings=tuple(warnings),
        formula=design.formula,
        terms=design.names,
        estimate=solution.beta,
        se=np.sqrt(solution.covariance.diagonal()),
        df=np.asarray(solution.df, dtype=float),
        se_type=solution.se_type,
        covariance=solution.covariance,
        covariance_model=solution.covariance_model,
        columns=solution.columns,
        variance=variance,
        criterion=solution.criterion,
        log_likelihood=-solution.criterion / 2,
        reml=reml,
        engine=solution.engine,
        engine_reason=solution.reason,
        singular=solution.singular,
        aliased=design.aliased,
        n_groups=tuple(counts.items()),
        n_obs=len(design.y),
        n_parameters=(len(design.names), n_variance),
        fingerprint=Fingerprint(design if isinstance(design, ProductDesign) else digests(design)),
        scale=design.scale,
        closed=solution.closed,
        places=solution.places,
        level=level,
    )
