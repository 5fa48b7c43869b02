"""Factors of a user's own: which can be judged, what they are called in sentences, and their panels.

Vectors of a user's own are in `_own_vectors.py`; what is said where there are neither is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from analyses._cache import lacking
from analyses._claim import NotInCache
from analyses._effects import MEAN
from analyses._words import in_words, listed
from steerstats import figures
from steerstats.errors import InputError
from steerstats.spurious.coding import check_name
from steerstats.study import Study

BESIDE = {"pos_is_a": "A/B", "pos_is_yes": "Yes/No"}
MOST = 6  # factors beside A/B and Yes/No: the shares of k factors take 2^k regressions
ABREAST = 3  # panels
LETTERS = 26  # of an axis label under one of these
NONE = 'factors of your own ("factors" of a pair)'
NO_VECTORS = "vectors of your own (`[vectors.files]` of a spec)"
NOT_ASKED = (
    f"built without {NONE}",
    "add columns factor_NAME to the table",
    f"built without {NO_VECTORS}",
    f"the table has no rows for {NO_VECTORS}",
)
"""What is said of a cache that has none: nobody who has no such factors or vectors misses them on a page."""
NOWHERE = "varies in no dataset"
CHANGE = {"text": "", "flag": " (yes rather than no)", "number": " (one unit more)"}


def beside(study: Study) -> tuple[str, ...]:
    """A/B and Yes/No, as far as inputs differ in them: where they do not, nobody asked for what would be dropped."""
    units = study.units.values()
    return tuple(
        name
        for name in BESIDE
        if any(pd.Series(column).nunique(dropna=False) > 1 for unit in units for column in unit.factors(name).values())
    )


def held_fixed(terms: pd.Series) -> tuple[str, str]:
    """ ", beside A/B and Yes/No" and "A/B, Yes/No and the other factors held fixed", as far as models have these."""
    known = [words for name, words in BESIDE.items() if (terms == name).any()]
    fixed = f"{', '.join(known)}{' and ' * bool(known)}the other factors held fixed"
    return (f", beside {listed(known)}" if known else ""), fixed


def usable(study: Study) -> tuple[dict[str, str], list[str]]:
    """Factors that can be judged with the kind of each (text, flag, number), and what was left out and why.

    Raises
    ------
    NotInCache
        If none can.
    """
    kinds, notes = {}, []
    for factor in study.own_factors:
        try:
            columns = [unit.factors(factor) for unit in study.units.values()]
            for term in (term for found in columns for term in found):
                check_name(term)
        except InputError as error:
            notes.append(f"left out: {error}")
            continue
        column = next((column for found in columns for column in found.items()), None)
        if column is None:
            notes.append(f"{in_words(factor)} {NOWHERE}")
        elif len(kinds) == MOST:
            notes.append(f"left out, since {MOST} are judged at a time: {in_words(factor)}")
        else:
            kinds[factor] = "text" if "=" in column[0] else "flag" if column[1].dtype == object else "number"
    if not kinds:
        raise NotInCache("; ".join(notes)) if notes else lacking(study, NONE, "factor_NAME")
    return kinds, notes


def why_not(study: Study, factor: str) -> str:
    """Why no dataset has an effect of a factor."""
    columns = [column for unit in study.units.values() for column in unit.factors(factor).values()]
    if any(pd.Series(column).nunique() > 1 for column in columns):
        return "has a level in one question alone wherever it varies, which gives no variance"
    return NOWHERE


def of_factor(term: str) -> str:
    """The factor that a term belongs to: levels of a text are terms of their own."""
    return term.partition("=")[0]


def changed(term: str, kind: str) -> str:
    """What changes from one end of the term to the other, in words."""
    return in_words(term) + CHANGE[kind]


def panels(frames: Mapping[str, pd.DataFrame], kind: str) -> Figure:
    """One panel for each term of a factor, three abreast."""
    abreast, n = min(ABREAST, len(frames)), max(map(len, frames.values()))
    down = -(-len(frames) // abreast)
    size = {"width": 8.4 if abreast > 1 else 5.6, "height": down * (1.2 + 0.25 * n)}
    figure, axes = figures.canvas(down, abreast, squeeze=False, **size)
    alike = len({tuple(frame["dataset"]) for frame in frames.values()}) == 1
    for k, (ax, (term, frame)) in enumerate(zip(axes.flat, frames.items())):
        # Names and levels are of any length, and a neighbour's label begins where the panel ends.
        label = fill(f"effect of {changed(term, kind)}", LETTERS if abreast > 1 else 2 * LETTERS)
        label += "\n(nat per unit multiplier)"
        figures.effect_rows(frame, ax=ax, xlabel=label, labels=not alike or k % abreast == 0, pooled=MEAN)
    for ax in axes.flat[len(frames) :]:
        ax.remove()
    return figure
