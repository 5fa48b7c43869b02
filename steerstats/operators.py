"""How the vectors of a cache act (`operator` of its spec), and what that changes in the reading of its numbers.

Two of the engine's operators change what a number means. "ablate" adds nothing: multiplier 1 takes the vector's
direction out, so that a vector that works has NEGATIVE slopes. "ablate_add" takes it out at every multiplier, so that
multiplier 0 is the ablated model and the unsteered one is not in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ADD, ABLATE, ABLATE_ADD = "add", "ablate", "ablate_add"

CAVEATS = {
    ABLATE: (
        "operator ablate: slopes are what taking the vector's direction out does. Below 0 is the direction at work "
        "(its removal lowers propensity); above 0 its removal raises propensity. Read 'anti-steerable', 'the wrong "
        "way', 'loss' and 'most' the other way round"
    ),
    ABLATE_ADD: (
        "operator ablate_add: the vector's direction is taken out at every multiplier, so that multiplier 0 is the "
        "ablated model; the unsteered one is not in this cache, and unsteered propensities are missing"
    ),
}
NO_UNSTEERED = (
    "operator ablate_add: multiplier 0 is the ablated model, and the cache holds no unsteered propensity m(0)"
)


def operator_of(attrs: Mapping[str, Any]) -> str:
    """Operator in a unit's root attributes; "add" where none is recorded (imported and simulated caches).

    Examples
    --------
    >>> operator_of({"operator": "ablate"}), operator_of({})
    ('ablate', 'add')
    """
    return str(attrs.get("operator") or ADD)


def has_unsteered(operator: str) -> bool:
    """Whether multiplier 0 leaves the model as it is.

    Examples
    --------
    >>> has_unsteered("ablate"), has_unsteered("ablate_add")
    (True, False)
    """
    return operator != ABLATE_ADD


def operator_caveats(operators: Iterable[str]) -> tuple[str, ...]:
    """What has to be said beside every number of caches with these operators, each once.

    Examples
    --------
    >>> operator_caveats(["add", "add_keep_norm"])
    ()
    """
    return tuple(CAVEATS[one] for one in dict.fromkeys(operators) if one in CAVEATS)
