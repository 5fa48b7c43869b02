"""Steerability by cell of position and token: how many inputs each holds, and how they steer (figures 3 and 16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from steerstats.errors import InputError, check_level
from steerstats.resampling.questions import group_codes
from steerstats.results import Result
from steerstats.rounding import floats
from steerstats.spurious.coding import Factors, code_factors
from steerstats.spurious.rare import LEVEL_NAMES, NEITHER
from steerstats.steerability import anti_steerable, mean_slope


@dataclass(frozen=True, kw_only=True)
class FactorCells(Result):
    """Slopes by cell of binary factors.

    Parameters
    ----------
    frame : DataFrame
        One row per cell: the level of every factor, n, n_questions, mean with its interval, sd, quartiles,
        anti_steerable share with its Wilson interval. Cells that hold no input are there with n = 0.
    """

    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """The cells."""
        return self.frame.copy()


def factor_cells(
    slopes: np.ndarray,
    factors: Factors,
    *,
    questions: Sequence | None = None,
    published_binary: bool = False,
    level: float = 0.95,
) -> FactorCells:
    """Means and counts of steerability in every cell of the binary factors.

    Parameters
    ----------
    slopes : array (n,)
        Nats per unit multiplier.
    factors : mapping or DataFrame
        Binary factors as in `code_factors`; numeric ones are refused.
    questions : sequence (n,), optional
    published_binary : bool
        Count "neither" as the 0 level (No), as the paper does.
    level : float

    Raises
    ------
    InputError
        If there is no factor or one is numeric.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.spurious import factor_cells
    >>> unit = steerstats.open_cache(steerstats.demo_cache()).unit("travels-far")
    >>> slopes = unit.slopes.at("base->base")
    >>> cells = factor_cells(slopes, unit.factors(["pos_is_a"])).to_frame()
    >>> cells[["pos_is_a", "n", "mean"]].round(2).values.tolist()  # steering works where the answer is "A"
    [['A', 30, 0.37], ['B', 30, 0.08]]
    """
    level = check_level(level)
    s = floats(slopes)
    coded = code_factors(factors, s.size)
    numeric = [str(name) for name in factors if str(name) not in coded.level]
    if numeric or not coded.level:
        raise InputError(f"cells need binary factors; {numeric or 'none'} given are not")
    codes, _ = group_codes(questions, s.size)
    labels, order = {}, {}
    for name, values in coded.level.items():
        zero, one = LEVEL_NAMES.get(name, ("0", "1"))
        rest = zero if published_binary else NEITHER
        labels[name] = np.where(values == 1, one, np.where(values == 0, zero, rest)).astype(object)
        order[name] = [one, zero] + [NEITHER] * (NEITHER in labels[name])
    rows, warnings = [], []
    for cell in product(*order.values()):
        inside = np.logical_and.reduce([labels[name] == value for name, value in zip(labels, cell)])
        described, doubts = _describe(s[inside], codes[inside], level)
        rows.append(dict(zip(labels, cell)) | described)
        place = " and ".join(cell)
        warnings += [f"{place}: {text}" for text in doubts] if inside.any() else [f"no input is {place}"]
    return FactorCells(
        frame=pd.DataFrame(rows),
        method="t interval of the mean and Wilson interval of the share within each cell, by question",
        assumptions=("questions are independent",),
        warnings=tuple(warnings),
    )


def _describe(s: np.ndarray, codes: np.ndarray, level: float) -> tuple[dict[str, float], tuple[str, ...]]:
    """A cell's numbers, and what is doubtful in the interval of its mean (that one question has none is plain)."""
    row = {"n": s.size, "n_questions": np.unique(codes).size}
    if s.size == 0:
        return row, ()
    mean = mean_slope(s, questions=codes, level=level)
    share = anti_steerable(s, questions=codes, level=level)["anti_steerable"]
    row |= {"mean": mean.estimate, "ci_low": mean.ci_low, "ci_high": mean.ci_high}
    row["sd"] = s.std(ddof=1) if s.size > 1 else np.nan
    row |= dict(zip(("q25", "median", "q75"), np.quantile(s, [0.25, 0.5, 0.75])))
    row |= {"anti_steerable": share.estimate, "anti_low": share.ci_low, "anti_high": share.ci_high}
    return row, mean.warnings if row["n_questions"] > 1 else ()
