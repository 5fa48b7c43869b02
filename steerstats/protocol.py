"""How the numbers of a cache were made: what caches have to share for their slopes to mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerstats.study import Study

NAMES = {
    "split": "split",
    "scope": "scope",
    "score": "score",
    "operator": "operator",
    "order": "order of the options",
    "method": "vectors' method",
    "read": "token that vectors are read at",
    "rescale": "vectors' length",
    "multipliers": "multipliers",
}


def protocol_of(study: Study) -> dict[str, str | None]:
    """Conditions of a cache by the keys of `NAMES`; None where it does not record one (imported tables).

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.protocol import protocol_of
    >>> found = protocol_of(steerstats.open_cache(steerstats.demo_cache()))
    >>> found["scope"], found["method"], found["multipliers"]
    ('last_prompt', 'mean_difference', '-1.5, -1, -0.5, 0, 0.5, 1, 1.5')
    """
    spec, vectors = study.spec, study.spec.get("vectors") or {}
    units = [study.unit(name) for name in study.datasets]
    grids = dict.fromkeys(", ".join(f"{m:g}" for m in unit.multipliers) for unit in units)
    scores = dict.fromkeys(str(unit.unit.attrs.get("score")) for unit in units)
    return {
        **{key: spec.get(key) for key in ("split", "scope", "order")},
        "score": ", ".join(scores),
        "operator": ", ".join(study.operators),
        **{key: vectors.get(key) for key in ("method", "read", "rescale")},
        "multipliers": " or ".join(grids),
    }


def differences(studies: Mapping[str, Study]) -> tuple[str, ...]:
    """In what the caches differ beside their models, as one warning; empty where they record the same.

    Parameters
    ----------
    studies : mapping of str to Study
        What each cache is called -> the cache. A condition counts where at least two record it.
    """
    protocols = {label: protocol_of(study) for label, study in studies.items()}
    found = []
    for key, name in NAMES.items():
        told = {label: own[key] for label, own in protocols.items() if own[key] is not None}
        if len(set(told.values())) > 1:
            found.append(f"{name} ({'; '.join(f'{label}: {value}' for label, value in told.items())})")
    if not found:
        return ()
    return (f"the caches were made differently, which is part of every difference between them: {', '.join(found)}",)
