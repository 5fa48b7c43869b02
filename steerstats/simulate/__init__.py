"""Caches with a known truth: chosen steerabilities, biases, shifts, vector error and nulls, written as any build is.

An estimator that is handed such a cache has to give the chosen numbers back; that is how the estimators are held to
account, and how a user sees what an analysis can and cannot resolve before paying for a GPU.
"""

from steerstats.simulate.cache import Simulation, simulate_cache, simulate_unit
from steerstats.simulate.curves import UnitTruth
from steerstats.simulate.truth import SimulationTruth

__all__ = ["Simulation", "SimulationTruth", "UnitTruth", "simulate_cache", "simulate_unit"]
