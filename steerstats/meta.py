"""One mean over many datasets: random effects, Hartung–Knapp, what a new dataset would show, and who carries it.

Sources: REML as in Viechtbauer (2005, doi:10.3102/10769986030003261); Hartung & Knapp (2001,
doi:10.1002/sim.1009); prediction interval of Higgins, Thompson & Spiegelhalter (2009,
doi:10.1111/j.1467-985X.2008.00552.x); Q-profile interval of Viechtbauer (2007, doi:10.1002/sim.2514).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.results import Result


@dataclass(frozen=True, kw_only=True)
class MetaAnalysis(Result):
    """Mean of an effect over datasets.

    Parameters
    ----------
    mean, se, ci_low, ci_high : float
        Random-effects mean with its Hartung–Knapp standard error and t(D − 1) interval.
    unweighted_mean, unweighted_se, unweighted_ci_low, unweighted_ci_high : float
        Every dataset counts alike; t(D − 1) interval from the spread between datasets.
    tau, tau_ci_low, tau_ci_high : float
        Standard deviation of true effects between datasets, REML, with its Q-profile interval.
    prediction_low, prediction_high : float
        Where the true effect of a new dataset would lie, t(D − 2); NaN with two datasets.
    q, q_p : float
        Cochran's Q and the p-value of "all datasets share one effect".
    n : int
        Datasets used.
    left_out : tuple of str
        What each leave-one-out row leaves out (a category, or a dataset where no categories are given).
    left_out_mean, left_out_ci_low, left_out_ci_high : ndarray of shape (n_left_out,)
        The random-effects mean without it; NaN where fewer than two datasets remain.
    left_out_n : ndarray of shape (n_left_out,)
        Datasets that remain.
    level : float
    unit : str
    """

    mean: float
    se: float
    ci_low: float
    ci_high: float
    unweighted_mean: float
    unweighted_se: float
    unweighted_ci_low: float
    unweighted_ci_high: float
    tau: float
    tau_ci_low: float
    tau_ci_high: float
    prediction_low: float
    prediction_high: float
    q: float
    q_p: float
    n: int
    left_out: tuple[str, ...]
    left_out_mean: np.ndarray
    left_out_ci_low: np.ndarray
    left_out_ci_high: np.ndarray
    left_out_n: np.ndarray
    level: float
    unit: str = "nat per unit multiplier"

    def to_frame(self) -> pd.DataFrame:
        """Rows: unweighted mean, random-effects mean, prediction for a new dataset, tau, and each leave-one-out."""
        nan = float("nan")
        u = "unweighted_"
        rows = [
            ("unweighted mean", *(getattr(self, u + k) for k in ("mean", "se", "ci_low", "ci_high")), self.n),
            ("random-effects mean", self.mean, self.se, self.ci_low, self.ci_high, self.n),
            ("a new dataset", self.mean, nan, self.prediction_low, self.prediction_high, self.n),
            ("tau", self.tau, nan, self.tau_ci_low, self.tau_ci_high, self.n),
        ]
        rows += [
            (f"without {name}", m, nan, low, high, n)
            for name, m, low, high, n in zip(
                self.left_out, self.left_out_mean, self.left_out_ci_low, self.left_out_ci_high, self.left_out_n
            )
        ]
        frame = pd.DataFrame(rows, columns=["quantity", "estimate", "se", "ci_low", "ci_high", "n"])
        return frame.assign(level=self.level, unit=self.unit)


def mean_over_datasets(
    effects: np.ndarray,
    variances: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    category: Sequence[str] | None = None,
    level: float = 0.95,
) -> MetaAnalysis:
    """Random-effects mean of one effect per dataset.

    Parameters
    ----------
    effects : array of shape (n_datasets,)
        Estimates, in nats per unit multiplier.
    variances : array of shape (n_datasets,)
        Their squared standard errors. Datasets whose effect or variance is not finite, or whose variance is 0,
        are left out with a warning.
    names : sequence of str, optional
    category : sequence of str, optional
        Category of each dataset; leave-one-out then leaves out whole categories.
    level : float

    Returns
    -------
    MetaAnalysis

    Raises
    ------
    CannotEstimate
        With fewer than two usable datasets.
    InputError
        If lengths differ.

    Examples
    --------
    >>> import steerstats
    >>> means = steerstats.open_cache(steerstats.demo_cache()).steerability().means()
    >>> pooled = steerstats.mean_over_datasets(means.to_numpy(), [0.02**2] * len(means))
    >>> bool(pooled.ci_low < pooled.mean < pooled.ci_high)
    True
    """
    effects, variances = np.asarray(effects, float), np.asarray(variances, float)
    names = [f"dataset {k}" for k in range(len(effects))] if names is None else list(names)
    lengths = {len(effects), len(variances), len(names), len(effects if category is None else category)}
    if len(lengths) != 1 or effects.ndim != 1:
        raise InputError("effects, variances, names and category must have one entry per dataset")
    if not 0 < level < 1:
        raise InputError(f"level is {level}; a coverage such as 0.95 is needed")
    use = np.isfinite(effects) & np.isfinite(variances) & (variances > 0)
    warnings = []
    if not use.all():
        dropped = ", ".join(name for name, keep in zip(names, use) if not keep)
        warnings.append(f"left out, without a finite effect and a positive variance: {dropped}")
    y, v = effects[use], variances[use]
    if len(y) < 2:
        raise CannotEstimate(f"{len(y)} usable datasets; a mean over datasets needs at least two")
    groups = np.asarray(names if category is None else category)[use]
    fit = _hartung_knapp(y, v, level)
    d = len(y)
    t = stats.t.ppf((1 + level) / 2, d - 1)
    plain_se = y.std(ddof=1) / np.sqrt(d)
    spread = np.sqrt(fit.tau2 + fit.se**2)
    reach = stats.t.ppf((1 + level) / 2, d - 2) * spread if d > 2 else np.nan
    w = 1 / v
    q = float(w @ (y - w @ y / w.sum()) ** 2)
    left_out = tuple(dict.fromkeys(groups.tolist()))
    rest = [_hartung_knapp(y[groups != g], v[groups != g], level) for g in left_out]
    if d < 5:
        warnings.append(f"only {d} datasets: tau and the prediction interval say little")
    elif d <= 10:
        warnings.append(
            f"{d} datasets: the prediction interval for a new one is too short on average (calibration: 83-93% at 5 to "
            "10 datasets for a nominal 95%)"
        )
    if category is not None and len(left_out) < 5:
        warnings.append(f"only {len(left_out)} categories: leaving one out is a coarse check")
    tau_low, tau_high = (np.sqrt(limit) for limit in _q_profile(y, v, level))
    if tau_high == 0:
        warnings.append("datasets vary less than their standard errors allow: tau has an empty interval, shown as 0")
    return MetaAnalysis(
        mean=fit.mean,
        se=fit.se,
        ci_low=fit.low,
        ci_high=fit.high,
        unweighted_mean=float(y.mean()),
        unweighted_se=float(plain_se),
        unweighted_ci_low=float(y.mean() - t * plain_se),
        unweighted_ci_high=float(y.mean() + t * plain_se),
        tau=float(np.sqrt(fit.tau2)),
        tau_ci_low=float(tau_low),
        tau_ci_high=float(tau_high),
        prediction_low=float(fit.mean - reach),
        prediction_high=float(fit.mean + reach),
        q=q,
        q_p=float(stats.chi2.sf(q, d - 1)),
        n=d,
        left_out=tuple(map(str, left_out)),
        left_out_mean=np.array([r.mean for r in rest]),
        left_out_ci_low=np.array([r.low for r in rest]),
        left_out_ci_high=np.array([r.high for r in rest]),
        left_out_n=np.array([int((groups != g).sum()) for g in left_out]),
        level=level,
        method=f"random-effects meta-analysis of {d} datasets, REML tau, Hartung-Knapp t({d - 1}) interval",
        assumptions=(
            "datasets are independent draws from one population; those of one category are not, see the rows 'without'",
            "effects are near normal between datasets and their standard errors are known",
        ),
        warnings=tuple(warnings),
    )


def reml_tau2(effects: np.ndarray, variances: np.ndarray) -> float:
    """REML estimate of the between-dataset variance, zero on the boundary.

    Parameters
    ----------
    effects, variances : array of shape (n_datasets,)

    Returns
    -------
    float
        The root of the restricted score; where the score has several, the one with the highest criterion.
    """
    y, v = np.asarray(effects, float), np.asarray(variances, float)
    top = 4 * y.var(ddof=1) + v.max()
    # A coarse grid brackets every sign change: the criterion can have two humps when variances differ a lot.
    grid = np.concatenate([[0.0], np.geomspace(1e-6 * top, top, 120)])
    score = _reml_score(grid[:, None], y, v)
    candidates = [0.0]
    for k in np.flatnonzero((score[:-1] > 0) & (score[1:] <= 0)):
        candidates.append(optimize.brentq(_reml_score, grid[k], grid[k + 1], args=(y, v), xtol=1e-15 * top, rtol=1e-14))
    return float(max(candidates, key=lambda t: _reml_criterion(t, y, v)))


@dataclass(frozen=True)
class _Fit:
    mean: float
    se: float
    low: float
    high: float
    tau2: float


def _hartung_knapp(y: np.ndarray, v: np.ndarray, level: float) -> _Fit:
    nan = float("nan")
    if len(y) < 2:
        return _Fit(float(y[0]) if len(y) else nan, nan, nan, nan, nan)
    tau2 = reml_tau2(y, v)
    w = 1 / (v + tau2)
    mean = float(w @ y / w.sum())
    factor = float(w @ (y - mean) ** 2 / (len(y) - 1))
    se = float(np.sqrt(factor / w.sum()))
    margin = stats.t.ppf((1 + level) / 2, len(y) - 1) * se
    return _Fit(mean, se, mean - margin, mean + margin, tau2)


def _reml_score(tau2: np.ndarray | float, y: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Derivative of the restricted log-likelihood; tau2 is a number or a column of them."""
    w = 1 / (v + tau2)
    total = w.sum(axis=-1)
    residual = y - ((w * y).sum(axis=-1) / total)[..., None]
    squares = np.square(w)
    return 0.5 * ((squares * np.square(residual)).sum(axis=-1) - total + squares.sum(axis=-1) / total)


def _reml_criterion(tau2: float, y: np.ndarray, v: np.ndarray) -> float:
    w = 1 / (v + tau2)
    residual = y - w @ y / w.sum()
    return float(0.5 * (np.log(w).sum() - np.log(w.sum()) - w @ residual**2))


def _q_profile(y: np.ndarray, v: np.ndarray, level: float) -> tuple[float, float]:
    """tau² at which the generalised Q equals its chi-squared quantiles; zero where even tau² = 0 is below."""

    def excess(tau2: float, target: float) -> float:
        w = 1 / (v + tau2)
        return float(w @ (y - w @ y / w.sum()) ** 2 - target)

    limits = []
    for tail in ((1 + level) / 2, (1 - level) / 2):
        target = stats.chi2.ppf(tail, len(y) - 1)
        if excess(0.0, target) <= 0:
            limits.append(0.0)
            continue
        top = v.max() + y.var(ddof=1)
        while excess(top, target) > 0:
            top *= 4
        limits.append(optimize.brentq(excess, 0.0, top, args=(target,)))
    return limits[0], limits[1]
