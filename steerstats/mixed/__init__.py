"""Linear mixed models of propensity: closed form where it is exact, sufficient statistics elsewhere."""

from __future__ import annotations

from steerstats.mixed.closed_form import ClosedForm, closed_form
from steerstats.mixed.fit import fit_mixed
from steerstats.mixed.inference import HypothesisTest, IncomparableFits, compare, joint_test, wilks_test
from steerstats.mixed.pooled import PooledEffects, two_stage
from steerstats.mixed.result import MixedFit, VarianceComponents
from steerstats.mixed.robust import RobustFit, hc2_bell_mccaffrey

__all__ = [
    "ClosedForm",
    "HypothesisTest",
    "IncomparableFits",
    "MixedFit",
    "PooledEffects",
    "RobustFit",
    "VarianceComponents",
    "closed_form",
    "compare",
    "fit_mixed",
    "hc2_bell_mccaffrey",
    "joint_test",
    "two_stage",
    "wilks_test",
]
