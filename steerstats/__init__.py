"""steerstats: does a steering vector really work? Statistics over cached steered logit differences.

    import steerstats

    study = steerstats.open_cache("my-cache")
    print(study.steerability().summary())

Importing this costs nothing: every name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerstats.errors import (
        CacheError,
        CannotEstimate,
        InputError,
        MissingDependency,
        ModelError,
        SpecError,
        SteerstatsError,
    )
    from steerstats.frames import inputs_frame, pairs_frame, propensity_frame, slopes_frame, vectors_frame
    from steerstats.meta import mean_over_datasets
    from steerstats.mixed import fit_mixed
    from steerstats.results import Estimate, Result
    from steerstats.simulate import SimulationTruth, simulate_cache
    from steerstats.steerability import fit_steerability
    from steerstats.study import Study, demo_cache, open_cache
    from steerstats.sweeps import choose_layer

_HOMES = {
    "steerstats.errors": (
        "CacheError",
        "CannotEstimate",
        "InputError",
        "MissingDependency",
        "ModelError",
        "SpecError",
        "SteerstatsError",
    ),
    "steerstats.frames": ("inputs_frame", "pairs_frame", "propensity_frame", "slopes_frame", "vectors_frame"),
    "steerstats.meta": ("mean_over_datasets",),
    "steerstats.mixed": ("fit_mixed",),
    "steerstats.results": ("Estimate", "Result"),
    "steerstats.simulate": ("SimulationTruth", "simulate_cache"),
    "steerstats.steerability": ("fit_steerability",),
    "steerstats.study": ("Study", "demo_cache", "open_cache"),
    "steerstats.sweeps": ("choose_layer",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("steerstats")
        except PackageNotFoundError as error:  # hasattr and help() understand that alone
            raise AttributeError("steerstats is not installed, and has no version") from error
    if name not in _HOME_OF:
        raise AttributeError(f"module 'steerstats' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
