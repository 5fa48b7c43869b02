"""Caches that tests of a study write for themselves: drawn from a small truth, or put together from units."""

from __future__ import annotations

from steerstats.cache import UnitData, create_cache, write_unit
from steerstats.simulate import SimulationTruth, simulate_cache

FAST = {"n_resamples": 300}


def cache_of(tmp_path, **parameters):
    truth = SimulationTruth(**{"datasets": 2, "n_inputs": 12, "n_pairs": 12, **parameters})
    return simulate_cache(tmp_path / "cache", truth, seed=2)


def written(tmp_path, units, kind="grid", spec=()):
    manifest = {"kind": kind, "spec_hash": "ab", "units": list(units), "model": "m", "spec": dict(spec)}
    root = create_cache(tmp_path / "made", manifest)
    for name, data in units.items():
        write_unit(root, name, UnitData(data.arrays, {**data.attrs, "spec_hash": "ab"}))
    return root
