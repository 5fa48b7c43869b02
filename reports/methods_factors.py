"""Which factors of the inputs were in a design, and which directions were projected out: as the arrays have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from analyses._words import listed
from steerstats.errors import CannotEstimate, InputError
from steerstats.resampling.questions import group_codes
from steerstats.spurious.coding import code_factors

LEVELS = {"pos_is_a": "A or B", "pos_is_yes": "Yes or No"}
DIRECTIONS = {"pos_is_a": "the letter", "pos_is_yes": "the word"}
Holders = dict[str, list[str]]  # cache -> its datasets


def _units(study: Any) -> Mapping[str, Any]:
    """The units of a cache by dataset; none of a sweep, which has no factors to tell of."""
    return {} if study.kind == "sweep" else study.units


def _holders(studies: Mapping[str, Any], has: Callable[[Any], bool]) -> Holders:
    found = {label: [name for name, unit in _units(study).items() if has(unit)] for label, study in studies.items()}
    return {label: names for label, names in found.items() if names}


def in_design(studies: Mapping[str, Any], *, robust: bool = False) -> dict[str, Holders]:
    """Those of A/B and Yes/No that are in the design of any dataset, with the datasets: one that has a single level,
    or that cannot be told from the other, is dropped; and in a `robust` regression one of which a single question has
    the rarer level, since it has no robust variance."""
    found = {
        factor: _holders(studies, lambda unit, factor=factor: factor in _terms(unit, list(LEVELS), robust))
        for factor in LEVELS
    }
    return {factor: holders for factor, holders in found.items() if holders}


def with_own(studies: Mapping[str, Any], factor: str) -> Holders:
    """The datasets in whose regression a factor of the user's own is, beside A/B and Yes/No."""
    return _holders(studies, lambda unit: factor in _terms(unit, [*LEVELS, factor], True))


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
    return _holders(studies, lambda unit: any(unit.controls(kind, made) for made in unit.vectors))


def projected_out(studies: Mapping[str, Any]) -> str:
    """The directions that debiased vectors lack: those of factors that have both levels among the training pairs."""
    found, unknown = set(), False
    units = [unit.unit for study in studies.values() for unit in _units(study).values() if unit.controls("debiased")]
    for unit, name in product(units, DIRECTIONS):
        unknown |= f"pair_{name}" not in unit
        if f"pair_{name}" in unit and {0, 1} <= set(unit.read(f"pair_{name}").tolist()):
            found.add(name)
    names = [words for name, words in DIRECTIONS.items() if name in found]
    if unknown or not names:
        return "the directions of letter and word that the training pairs define"
    if len(names) == 1:
        return f"the direction of {names[0]}"
    return f"the directions of {listed([names[0], f'of {names[1]}'])}"
