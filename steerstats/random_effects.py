"""The arithmetic of a random-effects mean: REML tau², Hartung and Knapp's error, the Q-profile interval.

`steerstats.meta` and `steerstats.mixed.hartung_knapp` put labels and warnings to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats


def reml_tau2(effects: np.ndarray, variances: np.ndarray) -> float:
    """REML estimate of the between-dataset variance, zero on the boundary.

    Parameters
    ----------
    effects, variances : array of shape (n_datasets,)

    Returns
    -------
    float
        The root of the restricted score; where the score has several, the one with the highest criterion.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.meta import reml_tau2
    >>> table = steerstats.open_cache(steerstats.demo_cache()).steerability().to_frame().query("name == 'mean'")
    >>> round(reml_tau2(table["estimate"], table["se"] ** 2) ** 0.5, 2)  # SD of true means over datasets
    0.03
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomEffectsMean:
    """A random-effects mean with its Hartung–Knapp error, the floored error, and tau².

    `factor` is Hartung and Knapp's q, the weighted residual mean square that scales the model's variance 1/sum(w);
    `floored_se` takes max(1, q) in its place. `common_width` is the width of the common-effect interval (tau = 0,
    normal). NaN where fewer than two estimates are given.
    """

    mean: float
    se: float
    low: float
    high: float
    tau2: float
    factor: float
    floored_se: float
    floored_low: float
    floored_high: float
    common_width: float

    @property
    def collapsed(self) -> bool:
        """Whether agreement by chance has made the interval narrower than if all datasets shared one effect."""
        return self.high - self.low < self.common_width * (1 - 1e-12)

    def doubt(self) -> str:
        """What a reader of a collapsed interval has to know."""
        return (
            f"estimates agree more closely than their standard errors let one expect (Hartung-Knapp factor "
            f"{self.factor:.2g}): the interval is narrower than that of one common effect; read the floored one, "
            f"{self.floored_low:.4g} to {self.floored_high:.4g}"
        )


def random_effects_mean(effects: np.ndarray, variances: np.ndarray, level: float) -> RandomEffectsMean:
    r"""REML random-effects mean with Hartung and Knapp's interval on t(D − 1), plain and floored.

    With :math:`w_d = 1/(v_d + \tau^2)` the variance of the mean is :math:`q / \sum w_d`,
    :math:`q = \sum w_d (y_d - \hat\mu)^2 / (D - 1)`. Estimates that happen to agree make q, and the interval, as
    small as chance will have it, 0 included; the floored variance is :math:`\max(1, q)/\sum w_d`.

    Parameters
    ----------
    effects, variances : array of shape (n_datasets,)
        Finite, variances positive.
    level : float

    References
    ----------
    Hartung and Knapp (2001), doi:10.1002/sim.791; Röver, Knapp and Friede (2015), doi:10.1186/s12874-015-0091-1, for
    the floor (there the modified Knapp–Hartung method).

    Examples
    --------
    >>> from steerstats.random_effects import random_effects_mean
    >>> same = random_effects_mean([1.0, 1.0, 1.0], [0.1, 0.1, 0.1], 0.95)
    >>> same.factor, same.se, round(same.floored_se, 2)  # agreement by chance is no certainty
    (0.0, 0.0, 0.18)
    """
    y, v, nan = np.asarray(effects, float), np.asarray(variances, float), float("nan")
    d = len(y)
    if d < 2:
        given = dict.fromkeys(RandomEffectsMean.__dataclass_fields__, nan)
        return RandomEffectsMean(**given | {"mean": float(y[0]) if d else nan})
    tau2 = reml_tau2(y, v)
    w = 1 / (v + tau2)
    mean = float(w @ y / w.sum())
    factor = float(w @ (y - mean) ** 2 / (d - 1))
    se, floored = (float(np.sqrt(q / w.sum())) for q in (factor, max(1.0, factor)))
    t = float(stats.t.ppf((1 + level) / 2, d - 1))
    return RandomEffectsMean(
        mean=mean,
        se=se,
        low=mean - t * se,
        high=mean + t * se,
        tau2=tau2,
        factor=factor,
        floored_se=floored,
        floored_low=mean - t * floored,
        floored_high=mean + t * floored,
        common_width=float(2 * stats.norm.ppf((1 + level) / 2) / np.sqrt(np.sum(1 / v))),
    )


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


def q_profile(y: np.ndarray, v: np.ndarray, level: float) -> tuple[float, float]:
    """tau² at which the generalised Q equals its chi-squared quantiles; zero where even tau² = 0 is below.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.random_effects import q_profile
    >>> low, high = q_profile(np.array([0.1, 0.5, 0.9]), np.full(3, 0.01), 0.95)
    >>> round(low, 2), round(high, 1)
    (0.03, 6.3)
    """

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
