"""Linear mixed models of propensity: closed form where it is exact, sufficient statistics elsewhere."""

from __future__ import annotations

from steerstats.mixed.closed_form import ClosedForm, closed_form
from steerstats.mixed.fit import fit_mixed
from steerstats.mixed.result import MixedFit, VarianceComponents
from steerstats.mixed.robust import RobustFit, hc2_bell_mccaffrey

__all__ = [
    "ClosedForm",
    "MixedFit",
    "RobustFit",
    "VarianceComponents",
    "closed_form",
    "fit_mixed",
    "hc2_bell_mccaffrey",
]
