"""What a mixed model returns: fixed effects with honest degrees of freedom, components, criterion, and its doubts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.mixed.arrays import t_columns
from steerstats.mixed.closed_form import ClosedForm
from steerstats.mixed.formula import Design
from steerstats.mixed.product import ProductDesign
from steerstats.results import Result


@dataclass(frozen=True, kw_only=True)
class VarianceComponents(Result):
    """Covariances of the random effects, and the residual variance.

    Parameters
    ----------
    groups : tuple of str
        One grouping factor per random term, "dataset:input" for a crossing of columns.
    columns : tuple of tuple of str
        Random effects of each term.
    psi : tuple of ndarray, shape (k, k) each
        Their covariance, in squared units of the response per unit of the columns.
    sigma2 : float
        Residual variance.
    """

    groups: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    psi: tuple[np.ndarray, ...]
    sigma2: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for matrix in self.psi:
            matrix.flags.writeable = False

    def to_frame(self) -> pd.DataFrame:
        """One row per variance and covariance: group, term, with_term, vcov, sdcor (SD, or correlation)."""
        rows = []
        for group, columns, psi in zip(self.groups, self.columns, self.psi):
            sd = np.sqrt(np.diag(psi))
            rows += [(group, name, "", psi[k, k], sd[k]) for k, name in enumerate(columns)]
            for k, j in zip(*np.triu_indices(len(columns), 1)):
                product = sd[k] * sd[j]
                corr = np.clip(psi[k, j] / product, -1, 1) if product > 0 else np.nan
                rows.append((group, columns[k], columns[j], psi[k, j], corr))
        rows.append(("residual", "", "", self.sigma2, np.sqrt(self.sigma2)))
        return pd.DataFrame(rows, columns=["group", "term", "with_term", "vcov", "sdcor"])


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Digests of the response (0) and of the fixed design (1), taken when asked for: hashing costs more than a fit.

    `source` is the pair, or the compact design of which it can be taken (big matrices are hashed at once, not kept).
    """

    source: tuple[str, str] | ProductDesign

    def __getitem__(self, which: int) -> str:
        return (self.source if isinstance(self.source, tuple) else digests(self.source))[which]


def digests(design: Design | ProductDesign) -> tuple[str, str]:
    """Of y, and of X with its columns in the order of their names."""
    order = np.argsort(np.array(design.names))
    return _digest(design.y), _digest(design.X[:, order])


def _digest(array: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class MixedFit(Result):
    """A fitted linear mixed model.

    Parameters
    ----------
    formula : str
    terms : tuple of str
        The P fixed effects that were kept.
    estimate, se, df : ndarray, shape (P,)
        Coefficients in nats per unit of the term, standard errors, degrees of freedom of t.
    se_type : tuple of str
        What each standard error and its degrees of freedom are.
    covariance : ndarray, shape (P, P)
        Covariance of the coefficients behind `se`.
    covariance_model : ndarray, shape (P, P)
        That of the fitted (constrained) model, as lme4's `vcov` has it.
    columns : tuple of str
        The random effect that each fixed effect varies along ("lam" for "lam:pos_is_a"), "" for none.
    variance : VarianceComponents
    criterion : float
        REML criterion or deviance as lme4 defines them.
    log_likelihood : float
        Half the negative criterion.
    reml : bool
    engine, engine_reason : str
        "closed_form", "crossed", "sufficient" or "statsmodels", and why.
    singular : bool
        Parity with lme4's isSingular: Psi is on the boundary of its space given the residual variance. It does
        not say that groups do not differ.
    aliased : tuple of str
        Fixed effects that were dropped because those before them determine them.
    n_groups : tuple of (str, int)
        Levels of each grouping factor.
    n_obs : int
    n_parameters : tuple of (int, int)
        Fixed effects, and variance parameters with the residual's.
    fingerprint : Fingerprint
        Digests of the response and of the fixed design, by which `compare` knows whether fits are comparable.
    scale : float
        Largest absolute response, against which an exact zero is judged.
    closed : ClosedForm or None
        The array-level fit, where the fixed part is a full W x Z.
    places : tuple of (int, int)
        Row and column of each term in `closed.coefficients`.
    level : float
        Nominal coverage of the intervals.

    Examples
    --------
    >>> import steerstats
    >>> curves = steerstats.open_cache(steerstats.demo_cache(), datasets=["travels-far"]).curves_frame()
    >>> fit = steerstats.fit_mixed("y ~ lam * pos_is_a + (1 + lam | input)", curves)
    >>> fit.columns  # the random effect along which each fixed effect varies
    ('Intercept', 'lam', 'Intercept', 'lam')
    >>> fit.variance.to_frame()["term"].tolist()
    ['Intercept', 'lam', 'Intercept', '']
    """

    formula: str
    terms: tuple[str, ...]
    estimate: np.ndarray
    se: np.ndarray
    df: np.ndarray
    se_type: tuple[str, ...]
    covariance: np.ndarray
    covariance_model: np.ndarray
    columns: tuple[str, ...]
    variance: VarianceComponents
    criterion: float
    log_likelihood: float
    reml: bool
    engine: str
    engine_reason: str
    singular: bool
    aliased: tuple[str, ...]
    n_groups: tuple[tuple[str, int], ...]
    n_obs: int
    n_parameters: tuple[int, int]
    fingerprint: Fingerprint
    scale: float
    closed: ClosedForm | None = None
    places: tuple[tuple[int, int], ...] = ()
    level: float = 0.95

    def to_frame(self) -> pd.DataFrame:
        """One row per fixed effect: term, estimate, se, df, statistic, p, ci_low, ci_high, se_type, n.

        `n` counts the levels of the finest grouping factor.
        """
        columns = t_columns(self.estimate, self.se, self.df, self.scale, self.level)
        frame = pd.DataFrame({"term": list(self.terms)} | columns)
        return frame.assign(se_type=list(self.se_type), n=max(count for _, count in self.n_groups))

    def summary(self) -> str:
        """Fixed effects, variance components, fit, and what has to be said about them."""
        components = self.variance.to_frame().to_string(index=False, float_format=lambda value: f"{value:.4g}")
        groups = ", ".join(f"{count} {name}" for name, count in self.n_groups)
        name = "REML criterion" if self.reml else "deviance"
        lines = [
            self.formula,
            super().summary(),
            "",
            components,
            "",
            f"{name} {self.criterion:.4f}, {self.n_obs} observations, {groups}",
            f"Engine: {self.engine} ({self.engine_reason})",
        ]
        if self.aliased:
            lines.append(f"Dropped as aliased: {', '.join(self.aliased)}")
        return "\n".join(lines)
