"""What answers of a study warn of although no estimator can see it: its operator, grid, engine and size."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from steerstats.errors import by_text, first_few, how_many
from steerstats.generalization.slopes import Shift
from steerstats.nulls import FEWEST_QUESTIONS
from steerstats.operators import operator_caveats
from steerstats.protocol import UNNAMED
from steerstats.spurious.rare import LEVEL_NAMES
from steerstats.steerability import grid_warnings

if TYPE_CHECKING:
    from steerstats.study import Study


TOO_LITTLE = (
    "refits show too little of the vector's own error (95% intervals covered 85%, 91%, 92% and 93% with 4, 8, 12 and "
    "20 in simulation, where it was most of the error)"
)


def said_first(study: Study) -> tuple[str, ...]:
    """What every answer on this cache warns of: an operator that changes its meaning, an unfinished build, its grid."""
    notes = list(operator_caveats(study.operators))
    if study.missing:
        count = len(study.missing)
        are = "is" if count == 1 else "are"
        notes.append(f"{how_many(count, 'planned dataset')} {are} not finished: {first_few(study.missing)}")
    return (*notes, *held_twice(study), *grid_doubts(study), *one_sided(study))


def labels_of_two(first: Study, second: Study) -> tuple[str, str]:
    """What two caches are called beside each other: by their models, where these tell them apart.

    Not by their paths: the same caches give the same words, wherever they lie.
    """
    labels = first.model, second.model
    alike = UNNAMED in labels or labels[0] == labels[1]
    return ("the first cache", "the second cache") if alike else labels


def only_in(named: Mapping[str, Study], common: Collection[str]) -> list[str]:
    """Datasets that one of two caches has alone, by what the caches are called."""
    alone = {label: [name for name in study.datasets if name not in common] for label, study in named.items()}
    return [f"only in {label}, and left out: {', '.join(names)}" for label, names in alone.items() if names]


def held_twice(study: Study) -> list[str]:
    """Datasets whose curves are the same to the bit: one dataset under two names, which a mean would count twice."""
    if study.kind == "sweep":
        return []
    alike: dict[tuple, list[str]] = {}
    curves = {name: unit.propensity for name, unit in study.units.items()}
    for name, own in curves.items():
        if np.ptp(np.nan_to_num(own[..., 0])) > 0:  # curves that are all one say nothing of whose they are
            alike.setdefault((own.shape, own[0, 0].tobytes()), []).append(name)
    found = []
    for first, *others in alike.values():
        same = [name for name in others if np.array_equal(curves[name], curves[first], equal_nan=True)]
        if same:
            found.append(
                f"{first_few([first, *same])} hold the same propensities to the bit: they are one dataset, which means "
                "over datasets count several times"
            )
    return found


def one_sided(study: Study) -> list[str]:
    """Datasets in which the behaviour is always one letter or one word: no estimator can tell the two apart."""
    always: dict[str, list[str]] = {}
    for name, unit in study.units.items():
        for factor, column in unit.factors(tuple(LEVEL_NAMES)).items():
            known = column[~np.isnan(column)]
            if len(known) > 1 and len(known) == len(column) and np.ptp(known) == 0:
                always.setdefault(LEVEL_NAMES[factor][int(known[0])], []).append(name)
    return [
        f"in {first_few(names)} the answer that shows the behaviour is {answer} for every input: steering towards the "
        f"behaviour cannot be told from steering towards {answer}"
        for answer, names in always.items()
    ]


def grid_doubts(study: Study) -> list[str]:
    """What the multipliers make doubtful, said once over datasets."""
    return by_text({name: grid_warnings(unit.multipliers) for name, unit in study.units.items()})


def few_trained(study: Study, datasets: Collection[str]) -> list[str]:
    """Where vectors come from so few questions that resamples of these cannot tell how far another draw would lie."""
    # Refits of other caches than a builder's need not be of resamples.
    units = [unit for name, unit in study.units.items() if name in datasets and unit.training_draw is not None]
    counts = {unit.name: len(np.unique(unit.unit.read("pair_question"))) for unit in units}
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEWEST_QUESTIONS]
    if not few:
        return []
    behind = f"fewer than {FEWEST_QUESTIONS} training questions behind the vectors of {first_few(few)}"
    return [f"{behind}: {TOO_LITTLE}"]


def flat_curves(study: Study, shifts: Collection[Shift]) -> list[str]:
    """How many curves under these shifts are constant, said once over datasets."""
    flat, total = {}, 0
    for name, unit in study.units.items():
        undefined = [np.isnan(unit.fit.r_squared[unit.place(shift)]) for shift in shifts if unit.has(shift)]
        total += sum(one.size for one in undefined)
        if any(one.any() for one in undefined):
            flat[name] = sum(int(one.sum()) for one in undefined)
    if not flat:
        return []
    where = first_few([f"{name} ({count})" for name, count in flat.items()])
    return [f"{sum(flat.values())} of {total} curves are constant: their slope is 0 and their R² undefined, in {where}"]


def no_parity(study: Study) -> list[str]:
    """That no engine's parity vouches for the signs of slopes near 0, said once over datasets."""
    lacking = {name: unit.slope_error for name, unit in study.units.items() if unit.engine_error is None}
    if not lacking:
        return []
    of = "" if len(lacking) == len(study.datasets) else f" of {first_few(list(lacking))}"
    most = max(lacking.values())
    text = f"how exactly the propensities{of} were computed is not recorded: an input counts as anti-steerable where "
    return [
        f"{text}its slope is below 0 by more than stored values are rounded, {most:.1g} nat per unit multiplier or less"
    ]
