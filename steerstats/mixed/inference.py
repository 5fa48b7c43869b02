"""Tests of mixed models: joint F on one random column, Wilks' F across columns, and likelihood ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed.result import MixedFit
from steerstats.results import Result

SAME_FIT = 1e-6  # of a criterion: an optimiser's answer and a closed form's differ by less
FEW_GROUPS = 50  # below, chi-square p-values of fixed effects are visibly too small


class IncomparableFits(InputError):
    """Two fits whose criteria do not measure the same thing: other data, or REML with other fixed effects."""


@dataclass(frozen=True, kw_only=True)
class HypothesisTest(Result):
    """A test of several coefficients at once.

    Parameters
    ----------
    name : str
        "joint F on lam", "Wilks' F, intercept and slope together", "likelihood ratio".
    terms : tuple of str
        What is zero under the hypothesis.
    statistic, df1, df2 : float
        F on (df1, df2), or chi-square on df1 with df2 infinite.
    p : float
    p_boundary : float
        For a likelihood ratio in which one random effect is added: p under the 50:50 mixture that holds because
        a variance cannot be negative. NaN elsewhere.
    """

    name: str
    terms: tuple[str, ...]
    statistic: float
    df1: float
    df2: float
    p: float
    p_boundary: float = float("nan")

    def to_frame(self) -> pd.DataFrame:
        """One row: name, terms, statistic, df1, df2, p, p_boundary."""
        row = {"name": self.name, "terms": ", ".join(self.terms)}
        row |= {key: getattr(self, key) for key in ["statistic", "df1", "df2", "p", "p_boundary"]}
        return pd.DataFrame([row])


def joint_test(fit: MixedFit, terms: Sequence[str]) -> HypothesisTest:
    """F test that several coefficients along one random effect, such as all terms with lambda, are zero.

    In the closed form the test is exact under normal homoscedastic effects, on the boundary too: it uses the
    unconstrained variance of that column of per-input coefficients only. With missing cells it uses the unconstrained
    estimate that takes its place there (see `steerstats.mixed.unconstrained`), and holds its level closely.

    Parameters
    ----------
    fit : MixedFit
    terms : sequence of str
        Fixed effects with the same entry in `fit.columns`.

    Raises
    ------
    InputError
        If a term is not in the fit, or the terms run along different random effects (see `wilks_test`).

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.mixed import fit_mixed, joint_test
    >>> curves = steerstats.open_cache(steerstats.demo_cache(), datasets=["travels-far"]).curves_frame()
    >>> fit = fit_mixed("y ~ lam * (pos_is_a + pos_is_yes) + (1 + lam | input)", curves)
    >>> test = joint_test(fit, ["lam:pos_is_a", "lam:pos_is_yes"])  # do A/B and Yes/No act on the slope at all?
    >>> test.name, test.df1, test.df2, test.p < 0.001
    ('joint F on lam', 2.0, 57.0, True)
    """
    places = _places(fit, terms)
    columns = sorted({fit.columns[j] for j in places})
    if len(columns) > 1:
        raise InputError(
            f"terms {list(terms)} run along {columns}: test one column at a time, or intercept and slope together "
            "by `wilks_test`"
        )
    beta = fit.estimate[places]
    covariance = fit.covariance[np.ix_(places, places)]
    rank, df2 = len(places), float(fit.df[places].min())
    if not covariance.any():
        statistic = np.nan if np.abs(beta).max() <= 1e-12 * fit.scale else np.inf
    else:
        statistic = float(beta @ np.linalg.solve(covariance, beta)) / rank
    return HypothesisTest(
        warnings=_zero_variance_warnings(statistic),
        method=f"F test on {fit.se_type[places[0]]}",
        assumptions=("random effects normal, of equal covariance in all groups",),
        name=f"joint F on {columns[0] or 'residual terms'}",
        terms=tuple(terms),
        statistic=statistic,
        df1=float(rank),
        df2=df2,
        p=float(stats.f.sf(statistic, rank, df2)),
    )


def wilks_test(fit: MixedFit, terms: Sequence[str]) -> HypothesisTest:
    """Wilks' F that between-group factors act on no random column at all: intercept and slope together.

    It rejects for an effect on the intercept alone, so it is not a test of slopes.

    Parameters
    ----------
    fit : MixedFit
        In closed form, with a fixed part W x Z.
    terms : sequence of str
        Complete sets such as ["pos_is_a", "lam:pos_is_a"].

    Raises
    ------
    InputError
        If the fit has no such form, or a set is incomplete.
    CannotEstimate
        If fewer degrees of freedom are left between groups than there are columns.

    References
    ----------
    Rao (1951), Bulletin of the International Statistical Institute 33, for F from Wilks' lambda.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.mixed import fit_mixed, wilks_test
    >>> curves = steerstats.open_cache(steerstats.demo_cache(), datasets=["travels-far"]).curves_frame()
    >>> fit = fit_mixed("y ~ lam * pos_is_a + (1 + lam | input)", curves)
    >>> wilks_test(fit, ["pos_is_a", "lam:pos_is_a"]).name  # says what it is a test of
    "Wilks' F, Intercept and lam together"
    """
    if fit.closed is None:
        raise InputError("wilks_test needs a closed-form fit whose fixed part is a full product with the random one")
    q = len(fit.closed.columns)
    places = [fit.places[j] for j in _places(fit, terms)]
    rows = sorted({row for row, _ in places})
    if len(places) != len(rows) * q:
        raise InputError(f"terms {list(terms)} do not cover every column of {list(fit.closed.columns)}")
    if fit.closed.df < q:
        raise CannotEstimate(f"{fit.closed.df} degrees of freedom between groups for {q} columns")
    gamma = fit.closed.coefficients[rows]
    between = np.linalg.solve(fit.closed.gram_inverse[np.ix_(rows, rows)], gamma)
    scatter, hypothesis = fit.closed.scatter, gamma.T @ between
    wilks = _wilks_lambda(scatter, hypothesis, fit.scale)
    r = len(rows)
    square = q * q + r * r - 5
    s = np.sqrt((q * q * r * r - 4) / square) if square > 0 else 1.0
    df1 = q * r
    df2 = s * (fit.closed.df - (q - r + 1) / 2) - (df1 - 2) / 2
    root = wilks ** (1 / s)
    statistic = (1 - root) / root * df2 / df1 if root > 0 else np.inf if root == 0 else np.nan
    return HypothesisTest(
        warnings=_zero_variance_warnings(statistic),
        method="Rao's F of Wilks' lambda on the scatter of the per-group coefficients",
        assumptions=("random effects normal, of equal covariance in all groups",),
        name="Wilks' F, " + " and ".join(fit.closed.columns) + " together",
        terms=tuple(terms),
        statistic=float(statistic),
        df1=float(df1),
        df2=float(df2),
        p=float(stats.f.sf(statistic, df1, df2)),
    )


def compare(a: MixedFit, b: MixedFit) -> HypothesisTest:
    """Likelihood-ratio test of two nested mixed models.

    Parameters
    ----------
    a, b : MixedFit
        Fits to the same rows, one nested in the other, in either order. Fits by REML have to have the same fixed
        effects: the restricted likelihood is that of contrasts which the fixed effects choose.

    Returns
    -------
    HypothesisTest
        `p` from chi-square; `p_boundary` from the 50:50 mixture where exactly one random effect is added.

    Raises
    ------
    IncomparableFits
        If the fits are of other data, mix REML and ML, are by REML with different fixed effects, or are not
        nested.

    References
    ----------
    Self and Liang (1987), doi:10.1080/01621459.1987.10478472; Stram and Lee (1994), doi:10.2307/2533455.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.mixed import compare, fit_mixed
    >>> curves = steerstats.open_cache(steerstats.demo_cache(), datasets=["travels-far"]).curves_frame()
    >>> line, bias = (
    ...     fit_mixed(f"y ~ {fixed} + (1 + lam | input)", curves, reml=False) for fixed in ("lam", "lam * pos_is_a")
    ... )
    >>> test = compare(line, bias)
    >>> test.terms, test.df1, test.p < 0.001
    (('pos_is_a', 'lam:pos_is_a'), 2.0, True)
    """
    if a.fingerprint[0] != b.fingerprint[0]:
        raise IncomparableFits(
            f"fits of {a.n_obs} and {b.n_obs} observations: not the same responses in the same order"
        )
    if a.reml != b.reml:
        raise IncomparableFits("one fit is by REML, the other by ML")
    same_fixed = a.fingerprint[1] == b.fingerprint[1]
    if a.reml and not same_fixed:
        raise IncomparableFits(
            "REML criteria of different fixed effects cannot be compared: refit both with reml=False"
        )
    if not np.isfinite([a.criterion, b.criterion]).all():
        raise IncomparableFits("a criterion is infinite (sigma^2 = 0)")
    small, big = sorted([a, b], key=sum_parameters)
    added = [term for term in big.terms if term not in small.terms]
    df = sum_parameters(big) - sum_parameters(small)
    if not set(small.terms) <= set(big.terms) or not _random_nested(small, big) or df == 0:
        raise IncomparableFits(f"{small.formula!r} is not nested in {big.formula!r}")
    statistic = max(small.criterion - big.criterion, 0.0)
    p_boundary, warnings = np.nan, []
    n_variance = big.n_parameters[1] - small.n_parameters[1]
    n_effects = sum(map(len, big.variance.columns)) - sum(map(len, small.variance.columns))
    if n_effects == 1 and not added:
        upper = stats.chi2.sf(statistic, n_variance)
        lower = stats.chi2.sf(statistic, n_variance - 1) if n_variance > 1 else float(statistic <= SAME_FIT)
        p_boundary = float((upper + lower) / 2)
    elif n_effects:
        warnings.append("variances lie on the boundary under the hypothesis: p is conservative")
    name, count = min(big.n_groups, key=lambda pair: pair[1])
    if added and count < FEW_GROUPS:
        warnings.append(
            f"{count} levels of {name!r}: with fewer than {FEW_GROUPS} the chi-square p-value of fixed effects is too "
            "small (measured for 5%: 8-11% at 12, 6-7% at 25); read `joint_test` on the bigger model"
        )
    if small.criterion < big.criterion - SAME_FIT:
        warnings.append(f"the smaller model fits better by {big.criterion - small.criterion:.2g}: an optimiser stopped")
    return HypothesisTest(
        method=f"likelihood-ratio test, {'REML' if a.reml else 'ML'}",
        assumptions=("many groups: the reference distribution is asymptotic",),
        warnings=tuple(warnings),
        name="likelihood ratio",
        terms=tuple(added) + _random_added(small, big),
        statistic=float(statistic),
        df1=float(df),
        df2=np.inf,
        p=float(stats.chi2.sf(statistic, df)),
        p_boundary=p_boundary,
    )


def _wilks_lambda(scatter: np.ndarray, hypothesis: np.ndarray, scale: float) -> float:
    """|S| / |S + H|: 0 where groups do not differ in a direction in which the effects do, NaN where neither does."""
    total = scatter + hypothesis
    size = np.sqrt(np.diag(total))
    size = np.where(size > 1e-12 * scale, size, np.inf)  # a column without either is a row and column of zeros
    S, H = (matrix / np.outer(size, size) for matrix in (scatter, hypothesis))
    values, vectors = np.linalg.eigh(S)
    flat = vectors[:, values <= 1e-14]
    if flat.size:
        return 0.0 if np.abs(flat.T @ H @ flat).max() > 1e-14 else np.nan
    return float(np.exp(np.linalg.slogdet(S)[1] - np.linalg.slogdet(S + H)[1]))


def _zero_variance_warnings(statistic: float) -> tuple[str, ...]:
    if np.isinf(statistic):
        text = "F is infinite: groups do not differ beyond the fixed effects; p = 0 is about these groups and no others"
        return (text,)
    if np.isnan(statistic):
        return ("F is 0/0: neither the groups nor the effects differ from 0 in a direction that is tested",)
    return ()


def sum_parameters(fit: MixedFit) -> int:
    """Fixed effects and variance parameters of a fit."""
    return sum(fit.n_parameters)


def _places(fit: MixedFit, terms: Sequence[str]) -> list[int]:
    unknown = [term for term in terms if term not in fit.terms]
    if unknown or not terms or len(set(terms)) < len(terms):
        raise InputError(f"terms {list(terms)} have to be distinct terms of the fit: {list(fit.terms)}")
    return [fit.terms.index(term) for term in terms]


def _effects(fit: MixedFit) -> set[tuple[str, str]]:
    return {(g, name) for g, names in zip(fit.variance.groups, fit.variance.columns) for name in names}


def _random_nested(small: MixedFit, big: MixedFit) -> bool:
    """Whether each random term of the smaller model lies within one of the bigger."""
    terms = list(zip(big.variance.groups, big.variance.columns))
    return all(
        any(group == other and set(names) <= set(more) for other, more in terms)
        for group, names in zip(small.variance.groups, small.variance.columns)
    )


def _random_added(small: MixedFit, big: MixedFit) -> tuple[str, ...]:
    """Random effects of the bigger model only, or the terms in which it lets the same effects vary together."""
    if effects := sorted(_effects(big) - _effects(small)):
        return tuple(f"({name} | {group})" for group, name in effects)
    known, terms = (set(zip(fit.variance.groups, fit.variance.columns)) for fit in (small, big))
    return tuple(f"covariance of ({' + '.join(names)} | {group})" for group, names in sorted(terms - known))
