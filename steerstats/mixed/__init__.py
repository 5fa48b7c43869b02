"""Linear mixed models of propensity: closed form where it is exact, sufficient statistics elsewhere."""

from __future__ import annotations

from steerstats.mixed.robust import RobustFit, hc2_bell_mccaffrey

__all__ = ["RobustFit", "hc2_bell_mccaffrey"]
