"""Steerability bias in one dataset: how the slope depends on nuisance factors, robustly and as a mixed model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, InputError, check_level
from steerstats.mixed import ClosedForm, RobustFit, closed_form, hc2_bell_mccaffrey
from steerstats.resampling.questions import group_codes
from steerstats.results import SLOPE_UNIT, Result
from steerstats.rounding import floats
from steerstats.spurious.clustered import cr2_bell_mccaffrey
from steerstats.spurious.coding import FactorDesign, Factors, code_factors, none_varies
from steerstats.steerability.grid import check_grid

NO_VECTOR_ERROR = (
    "the steering vector is taken as given: its own sampling error is not in these standard errors, which are for new "
    "inputs under this very vector"
)
NO_MIXED = "no mixed model"
UNITS = {"slope": SLOPE_UNIT, "unsteered": "nat", "intercept": "nat"}


@dataclass(frozen=True, kw_only=True)
class SpuriousFactors(Result):
    """Dependence of steerability (and of unsteered propensity) on nuisance factors in one dataset.

    Parameters
    ----------
    robust : RobustFit
        Least squares of the per-input responses on the design, HC2 or CR2 with Bell–McCaffrey degrees of freedom.
    mixed : ClosedForm or None
        y ~ λ × factors + (1 + λ | input) on the same design, where curves were given and it is identified.
    design : FactorDesign
        What each term means, and what was dropped.
    interactions : tuple of str
        Interaction terms in the model.
    n, n_questions : int
        Inputs and questions in the model.
    """

    robust: RobustFit
    mixed: ClosedForm | None
    design: FactorDesign
    interactions: tuple[str, ...]
    n: int
    n_questions: int

    def term(self, name: str, response: str = "slope") -> pd.Series:
        """The robust row of one term.

        Raises
        ------
        InputError
            If the model has no such term or response.
        """
        frame = self.robust_frame()
        rows = frame[(frame["term"] == name) & (frame["response"] == response)]
        if rows.empty:
            raise InputError(f"no term {name!r} for {response!r}; terms are {self.design.names}")
        return rows.iloc[0]

    def robust_frame(self) -> pd.DataFrame:
        """The rows of the robust regression alone, one per response and term."""
        frame = self.robust.to_frame()
        if "response" not in frame:
            frame.insert(0, "response", self.robust.responses[0])
        return frame.assign(unit=frame["response"].map(UNITS))

    def to_frame(self) -> pd.DataFrame:
        """One row per model, response and term: estimate, se, df, statistic, p, interval, se_type, unit, n.

        The mixed model's second response is the height of the line at multiplier 0, `intercept`, which is m(0) only
        for straight curves.
        """
        robust = self.robust_frame()
        robust.insert(0, "model", "per-input")
        parts = [robust]
        if self.mixed is not None:
            mixed = self.mixed.to_frame().assign(n=self.n)
            terms = [(column, row) for column in self.mixed.columns for row in self.mixed.rows]
            mixed["term"] = [row for _, row in terms]
            mixed.insert(0, "response", ["slope" if column == "multiplier" else "intercept" for column, _ in terms])
            mixed.insert(0, "model", "mixed")
            parts.append(mixed)
        frame = pd.concat(parts, ignore_index=True)
        return frame.assign(unit=frame["response"].map(UNITS))


def spurious_factors(
    slopes: np.ndarray,
    factors: Factors,
    *,
    unsteered: np.ndarray | None = None,
    propensity: np.ndarray | None = None,
    multipliers: np.ndarray | None = None,
    interactions: Sequence[tuple[str, str]] | bool = False,
    drop_undefined: bool = False,
    questions: Sequence | None = None,
    level: float = 0.95,
) -> SpuriousFactors:
    """Regress per-input steerability on nuisance factors.

    A level that only one question holds has no robust variance. That level is lost, not the other factors: it counts
    as "neither" or is dropped with its factor, and a warning names it with its count.

    Parameters
    ----------
    slopes : array (n,)
        Steerability, nats per unit multiplier.
    factors : mapping or DataFrame
        As in `code_factors`: usually `pos_is_a`, `pos_is_yes`, and numeric ones such as `length_difference`.
    unsteered : array (n,), optional
        m_i(0) in nats: a second response, to tell a bias of the model from a bias of steering.
    propensity : array (n, m), optional
    multipliers : array (m,), optional
        Curves for the mixed model, and where they were measured; its λ terms are the same estimates with the model's
        standard errors.
    interactions : sequence of pairs, or bool
        True takes pos_is_a × pos_is_yes.
    drop_undefined : bool
        Leave out inputs that have an undefined factor, instead of giving them a level of their own.
    questions : sequence (n,), optional
        Question of each input. Twins then get CR2 standard errors; the mixed model is left out, since it would
        take them for independent inputs.
    level : float

    Raises
    ------
    CannotEstimate
        If no factor has two levels that are held by two questions each, or inputs are too few.
    InputError
        If lengths differ or a value is not finite.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.spurious import spurious_factors
    >>> unit = steerstats.open_cache(steerstats.demo_cache()).unit("travels-far")
    >>> slopes = unit.slopes.at("base->base")
    >>> bias = spurious_factors(slopes, unit.factors(["pos_is_a", "pos_is_yes"]))
    >>> bias.term("pos_is_a")[["estimate", "ci_low", "ci_high"]].astype(float).round(2).tolist()
    [0.29, 0.26, 0.32]
    """
    level = check_level(level)
    s = floats(slopes)
    if s.ndim != 1:
        raise InputError(f"slopes have shape {s.shape}; this takes the inputs of one dataset, shape (n,)")
    pairs = [("pos_is_a", "pos_is_yes")] if interactions is True else list(interactions or ())
    codes, _ = group_codes(questions, s.size)
    design = code_factors(factors, s.size, interactions=pairs, drop_undefined=drop_undefined, codes=codes)
    if len(design.names) == 1:
        raise none_varies(factors, design.warnings)
    responses = {"slope": s}
    if unsteered is not None:
        responses["unsteered"] = floats(unsteered)
    for name, values in responses.items():
        if values.shape != s.shape or not np.isfinite(values).all():
            raise InputError(f"{name} has to be {s.size} finite numbers; it has shape {values.shape}")
    codes = codes[design.kept]
    n_questions = np.unique(codes).size
    stacked = np.column_stack(list(responses.values()))[design.kept]
    X, labels = design.columns, list(responses)
    if n_questions < codes.size:
        own = np.asarray(list(questions), dtype=object)[design.kept]
        robust = cr2_bell_mccaffrey(X, stacked, own, design.names, responses=labels, level=level)
    else:
        robust = hc2_bell_mccaffrey(X, stacked, design.names, responses=labels, level=level)
    mixed, doubts = _mixed(propensity, multipliers, design, s.size, n_questions < codes.size, level)
    return SpuriousFactors(
        robust=robust,
        mixed=mixed,
        design=design,
        interactions=tuple(f"{a}:{b}" for a, b in pairs),
        n=codes.size,
        n_questions=n_questions,
        method=robust.method + ("" if mixed is None else "; " + mixed.method),
        assumptions=(
            "binary factors are coded ±1/2: a term is the difference between its levels, others balanced",
            *robust.assumptions,
            NO_VECTOR_ERROR,
        ),
        warnings=(*design.warnings, *robust.warnings, *doubts),
    )


def _mixed(
    propensity: np.ndarray | None,
    multipliers: np.ndarray | None,
    design: FactorDesign,
    n: int,
    twins: bool,
    level: float,
) -> tuple[ClosedForm | None, tuple[str, ...]]:
    if propensity is None:
        return None, ()
    if multipliers is None:
        raise InputError("propensity was given without multipliers; the mixed model needs both")
    lam = check_grid(multipliers)
    y = floats(propensity)
    if y.shape != (n, lam.size):
        raise InputError(f"propensity has shape {y.shape}; slopes and multipliers make it {(n, lam.size)}")
    if twins:
        return None, (f"inputs share questions: {NO_MIXED}, which would take twins for independent inputs",)
    try:
        fit = closed_form(
            y[design.kept],
            np.column_stack([np.ones_like(lam), lam]),
            design.columns,
            row_names=design.names,
            column_names=("Intercept", "multiplier"),
            level=level,
        )
    except CannotEstimate as error:
        return None, (f"{NO_MIXED}: {error}",)
    return fit, fit.warnings
