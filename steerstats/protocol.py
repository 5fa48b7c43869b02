"""How the numbers of a cache were made: what caches have to share for their slopes to mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import shorten
from typing import TYPE_CHECKING

from steerstats.errors import first_few

if TYPE_CHECKING:
    from steerstats.study import Study
    from steerstats.study.unit import StudyUnit

UNNAMED = "not recorded"  # the model of a table that does not name it
NAMES = {
    "split": "split",
    "scope": "scope",
    "score": "score",
    "operator": "operator",
    "order": "order of the options",
    "system_text": "system text",
    "prefill": "beginning of replies",
    "leading_space": "space before an answer",
    "method": "vectors' method",
    "read": "token that vectors are read at",
    "rescale": "vectors' length",
    "multipliers": "multipliers",
    "layer": "steered layer",
}
OF_A_UNIT = ("score", "operator", "multipliers", "layer")
LONGEST = 60  # of a text in a warning


def protocol_of(study: Study, dataset: str | None = None) -> dict[str, str | None]:
    """Conditions of a cache by the keys of `NAMES`; None where it does not record one (imported tables).

    Parameters
    ----------
    study : Study
    dataset : str, optional
        Of this dataset alone; without it, what datasets differ in is joined by "or".

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.protocol import protocol_of
    >>> found = protocol_of(steerstats.open_cache(steerstats.demo_cache()))
    >>> found["scope"], found["method"], found["multipliers"]
    ('last_prompt', 'mean_difference', '-1.5, -1, -0.5, 0, 0.5, 1, 1.5')
    """
    spec, vectors = study.spec, study.spec.get("vectors") or {}
    units = [_of_unit(study.units[name]) for name in ([dataset] if dataset else study.datasets)]
    own = {key: list(dict.fromkeys(unit[key] for unit in units)) for key in OF_A_UNIT}
    found = {
        **{key: spec.get(key) for key in ("split", "scope", "order")},
        **_of_prompt(spec.get("prompt")),
        **{key: vectors.get(key) for key in ("method", "read", "rescale")},
        **{key: None if None in values else " or ".join(values) for key, values in own.items()},
    }
    return {key: found[key] for key in NAMES}


def differences(studies: Mapping[str, Study]) -> tuple[str, ...]:
    """In what the caches differ beside their models, as one warning; empty where they record the same.

    Parameters
    ----------
    studies : mapping of str to Study
        What each cache is called -> the cache. A condition counts where at least two record it for one dataset;
        the layer, where their models are the same.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.protocol import differences
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> differences({"first": study, "second": study})
    ()
    """
    holders: dict[str, list[str]] = {}
    for label, study in studies.items():
        for name in study.datasets:
            holders.setdefault(name, []).append(label)
    shared = {name: labels for name, labels in holders.items() if len(labels) > 1}
    asked = [key for key in NAMES if key != "layer" or len({study.model for study in studies.values()}) == 1]
    groups: dict[tuple[str, tuple], list[str]] = {}
    for name, labels in shared.items():
        protocols = {label: protocol_of(studies[label], name) for label in labels}
        for key in asked:
            told = tuple((label, own[key]) for label, own in protocols.items() if own[key] is not None)
            if len({value for _, value in told}) > 1:
                groups.setdefault((key, told), []).append(name)
    found = []
    for (key, told), names in sorted(groups.items(), key=lambda item: asked.index(item[0][0])):
        where = "" if len(names) == len(shared) else f" of {first_few(names)}"
        short = [(label, shorten(value, LONGEST, placeholder="...")) for label, value in told]
        said = short if len(set(dict(short).values())) == len(set(dict(told).values())) else told  # or they read alike
        found.append(f"{NAMES[key]}{where} ({'; '.join(f'{label}: {value}' for label, value in said)})")
    if not found:
        return ()
    return (f"the caches were made differently, which is part of every difference between them: {', '.join(found)}",)


def _of_prompt(prompt: Mapping | None) -> dict[str, str | None]:
    if not prompt:
        return dict.fromkeys(("system_text", "prefill", "leading_space"))
    return {
        "system_text": prompt.get("system_text") or "none",
        "prefill": repr(prompt["prefill"]) if prompt.get("prefill") else "none",  # line breaks of it count
        "leading_space": "yes" if prompt.get("leading_space", True) else "no",
    }


def _of_unit(unit: StudyUnit) -> dict[str, str | None]:
    score = unit.unit.attrs.get("score")
    return {
        "score": None if score in (None, "imported") else str(score),
        "operator": unit.unit.attrs.get("operator") or None,
        "multipliers": ", ".join(f"{m:g}" for m in unit.multipliers),
        "layer": ", ".join(map(str, unit.steered_layers)) or None,
    }
