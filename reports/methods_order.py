"""What the methods section says of A and B: where the answer that shows the behaviour stood, as the inputs record it.

The spec's rule alone would not do: what it exchanges depends on the file, and choices that a file carries stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyses._words import listed
from steerstats.errors import how_many

OPTION = "the option that shows the behaviour"
MOST_NAMES = 8  # datasets that are named; more are counted
FEWEST = 8  # inputs that tell a rule from chance
# The published rules, by the number of a record: persona items and TruthfulQA.
TURNS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (lambda row: row // 2 % 2 == 1, lambda row: row % 2 == 1)


@dataclass(frozen=True, kw_only=True)
class Letters:
    """Inputs of one dataset whose right answer is A or B."""

    name: str
    at_a: np.ndarray
    both: bool  # whether every question was asked with either letter
    in_turn: bool  # whether the letter follows one of the published rules in every input
    dealt: bool  # whether as many have A as B, up to one in each of: Yes, No, neither

    @property
    def share(self) -> float:
        return float(self.at_a.mean())


def named(names: Sequence[str], among: Collection[str]) -> str:
    """ "a and b", or "12 of 14 datasets" where names would be too many."""
    if len(names) <= MOST_NAMES:
        return listed(list(names))
    return how_many(len(names), "dataset") if len(names) == len(among) else f"{len(names)} of {len(among)} datasets"


def order_of(study: Any, kind: str) -> str:
    """Sentences on which option is A; "" where no input records it.

    Parameters
    ----------
    study : Study
    kind : str
        "test" or "validation": the inputs that count.
    """
    found = [letters for unit in study.units.values() if (letters := _letters(unit))]
    if not found:
        return ""
    both = [one for one in found if one.both]
    varied = [one for one in found if not one.both and 0 < one.share < 1]
    lines = []
    if both:
        where = "" if len(both) == len(study.datasets) else f" of {named([one.name for one in both], study.datasets)}"
        lines.append(f"Every question{where} was asked in both orders of its options.")
    if varied:
        lines.append(f"{_shares(varied, study, kind)}.")
    for letter, share in (("A", 1), ("B", 0)):
        alone = [one.name for one in found if not one.both and one.share == share]
        if alone:
            lines.append(
                f"{OPTION.capitalize()} stood under {letter} in all {kind} inputs of {named(alone, study.datasets)}, "
                "where position and behaviour therefore cannot be told apart."
            )
    return " ".join([*lines, *_rule(study, [one for one in found if not one.both])])


def _letters(unit: Any) -> Letters | None:
    if "input_pos_is_a" not in unit.unit:
        return None
    codes, question = unit.unit.read("input_pos_is_a")[unit.kept], np.asarray(unit.question)
    known = codes >= 0
    if not known.any():
        return None
    at_a = codes[known] == 1
    sides = [set(question[known][at_a == side]) for side in (True, False)]
    rows = unit.unit.read("input_row")[unit.kept][known] if "input_row" in unit.unit else None
    return Letters(
        name=unit.name,
        at_a=at_a,
        both=bool(known.all()) and sides[0] == sides[1],
        in_turn=rows is not None and len(rows) >= FEWEST and any(bool((turn(rows) == at_a).all()) for turn in TURNS),
        dealt=abs(2 * int(at_a.sum()) - len(at_a)) <= 3,
    )


def _shares(varied: Sequence[Letters], study: Any, kind: str) -> str:
    names = [one.name for one in varied]
    some = "" if len(varied) == len(study.datasets) else f"In {named(names, study.datasets)} "
    text = f"{some}{OPTION if some else OPTION.capitalize()} stood under A"
    if all(one.share == 0.5 for one in varied):
        return f"{text} and under B equally often"
    low, high = (f"{side(one.share for one in varied):.0%}" for side in (min, max))
    if len(varied) == 1:
        return f"{text} in {low} of the {kind} inputs"
    return f"{text} in {low if low == high else f'{low} to {high}'} of a dataset's {kind} inputs"


def _rule(study: Any, found: Sequence[Letters]) -> list[str]:
    """How the letters came about, of datasets in which a question has one order."""
    order = study.spec.get("order")
    if not found or not order:
        return []
    if order == "balanced":
        # Letters in free completions are none of the build's, and no rule of the spec has moved them.
        dealt = [one.name for one in found if one.dealt]
        where = "" if len(dealt) == len(found) else f" in {named(dealt, study.datasets)}"
        text = f"Letters were assigned by a hash of the question{where}, so that A and B are balanced over a dataset."
        return [text] * bool(dealt)
    if order != "tan2024":
        return [f"The order of the options followed the rule {order}."]
    # What a file's own choices look like is told from the inputs: a rule that all of them follow, or none.
    turn = [one.name for one in found if one.in_turn]
    kept = [one.name for one in found if not one.in_turn]
    lines = []
    if turn:
        where = f" in {named(turn, study.datasets)}" if kept else ""
        lines.append(f"A and B alternated by a question's place in the file{where}, as in the original code.")
    if kept:
        where = f" ({named(kept, study.datasets)})" if turn else ""
        lines.append(f"Choices already in a file{where} stayed in the order of the file.")
    return lines
