"""Which factors of the inputs were in a design, and which directions were projected out: as the arrays have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analyses._words import listed
from steerstats.errors import CannotEstimate, InputError
from steerstats.resampling.questions import group_codes
from steerstats.spurious.coding import code_factors

LEVELS = {"pos_is_a": "A or B", "pos_is_yes": "Yes or No"}
DIRECTIONS = {"pos_is_a": "the letter", "pos_is_yes": "the word"}
Holders = dict[str, list[str]]  # cache -> its datasets


def _units(studies: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Cache, dataset and unit of all that is no sweep, which has no factors to tell of."""
    for label, study in studies.items():
        for name in study.datasets if study.kind != "sweep" else ():
            yield label, name, study.unit(name)


def in_design(studies: Mapping[str, Any], *, robust: bool = False) -> dict[str, Holders]:
    """Those of A/B and Yes/No that are in the design of any dataset, with the datasets: one that has a single level,
    or that cannot be told from the other, is dropped; and in a `robust` regression one of which a single question has
    the rarer level, since it has no robust variance."""
    found: dict[str, Holders] = {}
    for label, name, unit in _units(studies):
        terms = _terms(unit, list(LEVELS), robust)
        for factor in LEVELS:
            if factor in terms:
                found.setdefault(factor, {}).setdefault(label, []).append(name)
    return {factor: found[factor] for factor in LEVELS if factor in found}


def with_own(studies: Mapping[str, Any], factor: str) -> Holders:
    """The datasets in whose regression a factor of the user's own is, beside A/B and Yes/No."""
    found: Holders = {}
    for label, name, unit in _units(studies):
        if factor in _terms(unit, [*LEVELS, factor], True):
            found.setdefault(label, []).append(name)
    return found


def _terms(unit: Any, names: Sequence[str], robust: bool) -> set[str]:
    """The factors that a design has terms of."""
    n = len(unit.inputs)
    codes = group_codes(unit.question, n)[0] if robust else None
    try:
        columns = unit.factors(names)
        terms = code_factors(columns, n, codes=codes).names if columns else ()
    except (CannotEstimate, InputError):  # text of too many levels is in no design
        return set()
    return {term.partition("=")[0] for term in terms}


def where(holders: Holders, studies: Mapping[str, Any]) -> str:
    """ "" where all datasets of all caches have it; else ' (in "a" and in 3 of 14 datasets of "b" and "c")'."""
    counted = {label: study for label, study in studies.items() if study.kind != "sweep"}
    if all(len(holders.get(label, ())) == len(study.datasets) for label, study in counted.items()):
        return ""
    parts: dict[str, list[str]] = {}
    for label, names in holders.items():
        n = len(studies[label].datasets)
        alike = parts.setdefault(f"{len(names)} of {n} datasets" if len(names) < n else "", [])
        alike += [f'"{label}"'] if len(studies) > 1 else []
    return f" (in {' and in '.join(' of '.join(filter(None, [part, listed(of)])) for part, of in parts.items())})"


def with_controls(studies: Mapping[str, Any], kind: str) -> Holders:
    """The datasets that have control vectors of a kind: without A/B and Yes/No there is nothing to project out."""
    found: Holders = {}
    for label, name, unit in _units(studies):
        if any(unit.controls(kind, made) for made in unit.vectors):
            found.setdefault(label, []).append(name)
    return found


def projected_out(studies: Mapping[str, Any]) -> str:
    """The directions that debiased vectors lack: those of factors that have both levels among the training pairs."""
    found: dict[str, None] = {}
    unknown = False
    for unit in (unit for _, _, unit in _units(studies) if unit.controls("debiased")):
        codes = {name: _codes(unit.unit, f"pair_{name}") for name in DIRECTIONS}
        unknown |= any(one is None for one in codes.values())
        found |= dict.fromkeys(n for n, code in codes.items() if code is not None and {0, 1} <= set(code))
    names: Sequence[str] = [DIRECTIONS[name] for name in DIRECTIONS if name in found]
    if unknown or not names:
        return "the directions of letter and word that the training pairs define"
    if len(names) == 1:
        return f"the direction of {names[0]}"
    return f"the directions of {listed([names[0], f'of {names[1]}'])}"


def _codes(unit: Any, name: str) -> list[int] | None:
    return unit.read(name).tolist() if name in unit else None
