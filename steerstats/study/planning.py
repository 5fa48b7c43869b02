"""From studies to the components of what they may be planned for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scipy.stats import hmean as harmonic_mean

from steerstats.errors import InputError
from steerstats.generalization import ID_SHIFT, shift_name
from steerstats.generalization.compared import shared_datasets
from steerstats.generalization.slopes import Shift, parse_shift
from steerstats.power import EffectComponents, difference_components, gap_components, mean_components
from steerstats.protocol import differences
from steerstats.study.notes import labels_of_two, only_in
from steerstats.study.unit import StudyUnit

if TYPE_CHECKING:
    from steerstats.study import Study

OF = ("gap", "mean")
PAIRS_UNKNOWN = "the cache does not record how many training pairs the refitted vectors had"


def components(study: Study, shift: Shift | str | None, of: str | None, other: Study | None) -> EffectComponents:
    """The components of what `Study.power` is asked about.

    Parameters
    ----------
    study : Study
    shift : (train, eval) or "train->eval" or None
    of : "gap", "mean" or None
    other : Study or None
    """
    if of is not None and of not in OF:
        raise InputError(f"of is {of!r}; 'gap' (base->base minus the shift) or 'mean' (steerability under it)")
    if other is not None:
        if of == "gap":
            raise InputError("of is 'gap' beside another cache; what two caches differ in is their 'mean'")
        return _difference(study, other, ID_SHIFT if shift is None else shift)
    if of == "mean":
        chosen = study.require(ID_SHIFT if shift is None else shift)
        return _own(study, chosen, [chosen], mean_components)
    chosen = study.require(shift) if shift is not None else study.shifts()[0]
    # base->base is left to `gap_components`, which says that it has no gap.
    return _own(study, chosen, list(dict.fromkeys([ID_SHIFT, chosen])), gap_components)


def _own(study: Study, shift: Shift, cells: list[Shift], fit: Callable[..., EffectComponents]) -> EffectComponents:
    n_pairs = _pairs(study.units.values())
    refits = study.has_refits(cells) and n_pairs is not None
    return fit(
        study.grid(cells, refits=refits),
        shift,
        n_pairs=n_pairs if refits else None,
        why_no_refits=_why_no_refits(study, cells, n_pairs is not None),
    )


def _difference(first: Study, second: Study, shift: Shift | str) -> EffectComponents:
    """Of the other cache minus this one, over the datasets that both hold under the shift."""
    named = dict(zip(labels_of_two(first, second), (first, second)))
    shift, grids, inputs = parse_shift(shift), {}, {}
    for label, study in named.items():
        has = [unit.has(shift) for unit in study.units.values()]
        grids[label] = study.grid(None if any(has) and not all(has) else [shift], refits=True)
        inputs[label] = {name: unit.inputs for name, unit in study.units.items()}
    common = shared_datasets(grids)
    n_pairs = _pairs(study.units[name] for study in named.values() for name in common) if common else None
    why = "no refitted vectors in both caches"
    if n_pairs is None and all(grid.refits for grid in grids.values()):
        why, grids = PAIRS_UNKNOWN, {label: replace(grid, refits=None) for label, grid in grids.items()}
    found = difference_components(grids, inputs, shift, n_pairs=n_pairs, why_no_refits=why)
    notes = *only_in(named, common), *differences(named)
    return replace(found, warnings=(*notes, *found.warnings))


def _pairs(units: Iterable[StudyUnit]) -> int | None:
    """Training pairs of a dataset in the harmonic mean, None where one does not tell them.

    Errors go with 1/n, of which few pairs make more than many make up for.
    """
    units = list(units)
    pairs = [len(unit.unit.coords["pair"]) for unit in units if "pair" in unit.unit.coords]
    return round(float(harmonic_mean(pairs))) if len(pairs) == len(units) else None


def _why_no_refits(study: Study, cells: Sequence[Shift], pairs_known: bool) -> str:
    every = [(train, evaluation) for train in study.vectors for evaluation in study.settings]
    measured = [shift for shift in every if study.has_refits([shift])]
    if not measured:
        return "no refitted vectors"
    if set(cells) <= set(measured) and not pairs_known:
        return PAIRS_UNKNOWN
    return f"refits were measured only for {', '.join(map(shift_name, measured))}, not under this shift"
