"""Several caches side by side: what the comparison asks of them, says of them, and draws of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses._cache import Cache, ask, current_seed, label_caches, studies_of
from analyses._claim import Claim
from analyses._words import percent, together
from steerstats import figures
from steerstats.errors import CannotEstimate
from steerstats.generalization import ID_SHIFT, PAPER_SHIFTS, SlopeGrid, parse_shift
from steerstats.generalization.compared import ComparedSlopes, compare_slopes, shared_datasets
from steerstats.power import PowerTable
from steerstats.protocol import differences
from steerstats.resampling.questions import group_codes, mean_se
from steerstats.resampling.seeds import NamedStreams
from steerstats.results import SLOPE_UNIT
from steerstats.study import Study

Detectable = Mapping[tuple[str, str, str], PowerTable]  # first and second cache, shift
PER_PAGE = 45  # datasets that one page has room for
_NAMES: ContextVar[tuple[str, ...]] = ContextVar("steerstats_cache_names", default=())


def labelled(cache: Sequence[Cache]) -> dict[str, Study]:
    """The caches that a comparison takes, by names that tell them apart whatever their models are called."""
    studies, given = studies_of(cache), _NAMES.get()
    names = given if len(given) == len(studies) else tuple(label_caches([study.path for study in studies]))
    return dict(zip(names, studies, strict=True))


def axis_names(cache: Sequence[Cache]) -> tuple[str, str]:
    """What two caches are called on axes: by their models where those differ, else by their own names."""
    studies = labelled(cache)
    models = [study.model for study in studies.values()]
    return tuple(models if len(set(models)) == len(models) else studies)


def difference_error(one: SlopeGrid, other: SlopeGrid, name: str) -> float:
    """Standard error of the difference of one dataset's two means at home; NaN where one of them has one question.

    Questions are counted once where both have them. Those of two splits of one dataset are nearly the same: with the
    means taken as independent, errors were half as large again as they are, and datasets seemed to agree by chance.
    """
    cells = [grid.cells(name, [ID_SHIFT]) for grid in (one, other)]
    questions = [cell.question for cell in cells]
    if min(len(set(own)) for own in questions) < 2:
        return float("nan")
    apart = [(own - own.mean()) / own.size for own in (cell.slopes[0] for cell in cells)]
    codes, groups = group_codes(np.concatenate(questions), sum(map(len, questions)))
    # what each input adds to the difference; the sum over a question's inputs is what it adds
    return mean_se(np.concatenate([-apart[0], apart[1]]) * len(codes), codes, groups)


@contextmanager
def naming(names: Sequence[str]) -> Iterator[None]:
    """Inside this block the caches of a comparison go by these names, wherever they lie."""
    token = _NAMES.set(tuple(names))
    try:
        yield
    finally:
        _NAMES.reset(token)


def compared(studies: Mapping[str, Study]) -> ComparedSlopes:
    """Differences between all pairs of caches, in every shift that both of a pair have, matched by input.

    Parameters
    ----------
    studies : mapping of str to Study
        Name -> cache, two or more.
    """
    grids = {label: study.grid(_evaluated(study), refits=True) for label, study in studies.items()}
    inputs = {label: {name: unit.inputs for name, unit in study.units.items()} for label, study in studies.items()}
    rng = NamedStreams(current_seed(), "comparison", shared_datasets(grids))
    found = compare_slopes(grids, inputs, rng=rng)
    return replace(found, warnings=(*differences(studies), *found.warnings))


def _evaluated(study: Study) -> list[tuple[str, str]] | None:
    """Cells worth reading; None, which is all of them, where datasets differ in what they have."""
    has = {shift: [unit.has(shift) for unit in study.units.values()] for shift in (ID_SHIFT, *PAPER_SHIFTS)}
    if any(any(found) and not all(found) for found in has.values()) or not any(map(any, has.values())):
        return None
    return [shift for shift, found in has.items() if all(found)]


def detectable(studies: Mapping[str, Study], result: ComparedSlopes) -> Detectable:
    """The smallest difference that each pair of caches detects in each shift, where their inputs can tell it."""
    found = {}
    for (first, second), values in zip(result.pairs, result.estimate):
        for shift in (name for name, has in zip(result.shifts, np.isfinite(values).any(axis=0)) if has):
            with suppress(CannotEstimate):
                found[first, second, shift] = ask(studies[first], "power", shift=shift, other=studies[second])
    return found


def difference_claims(result: ComparedSlopes, found: Detectable | None = None) -> list[Claim]:
    """The mean difference of every pair and shift over datasets (with one dataset, its own), and what bands tell.

    `found` is what the pairs detect, for who reads that caches were not told apart.
    """
    means, frame, claims = result.means_frame(), result.to_frame(), []
    for first, second in result.pairs:
        key = f"comparison.{first}.{second}"
        rows = frame[(frame["first"] == first) & (frame["second"] == second)]
        over = means[(means["first"] == first) & (means["second"] == second)]
        one = over.empty and rows["dataset"].nunique() == 1
        if one:
            over = rows.assign(interval="paired by input")
        for row in over.drop_duplicates("shift").to_dict("records"):
            shift = figures.nice_shift(*parse_shift(row["shift"]))
            where = f"in {row['dataset']}" if one else f"{row['quantity']} over datasets"
            text = f"Steerability in {second} minus that in {first}, {shift}, {where}:"
            low, high = together([row["estimate"], row["band_low"], row["band_high"]])[1:]
            facts = {"first": first, "second": second, "shift": shift, "over": where, "at_once": f"[{low}, {high}]"}
            how = f"{row['interval']}; for all pairs and shifts at once: {facts['at_once']}"
            if (least := (found or {}).get((first, second, row["shift"]))) is not None:
                facts |= {"detectable": _least(least), "power": percent(least.power)}
                how += f"; a true difference of {facts['detectable']} is found {facts['power']} of the time"
            of = "questions" if one else "datasets"
            claims.append(Claim.row(f"{key}.{row['shift']}", text, row, of, unit=SLOPE_UNIT, interval=how, facts=facts))
        changed = int(((rows["band_low"] > 0) | (rows["band_high"] < 0)).sum())
        if len(rows):
            text = (
                f"Cells (dataset and shift) in which {second} differs from {first}, by bands that hold for all at once:"
            )
            kinds = {"differ": changed, "not told apart": len(rows) - changed}
            claims.append(Claim.counted(f"{key}.changed", text, kinds, "cells", "a count of bands, no interval"))
    return claims


def _least(table: PowerTable) -> str:
    """ "0.041 [0.030, 0.088]", the brackets for the limits of the spread between datasets, where there are several."""
    value, low, high = together([table.effect[0], table.effect_low[0], table.effect_high[0]])
    return f"{value} [{low}, {high}]" if np.isfinite([table.effect_low[0], table.effect_high[0]]).all() else value


def forests(result: ComparedSlopes) -> tuple[list[Figure], tuple[str, ...]]:
    """One figure for each pair (and each 45 datasets), a panel a shift and a row a dataset, with their headings."""
    frame, drawn, headings = result.to_frame(), [], []
    for (first, second), rows in frame.groupby(["first", "second"], sort=False):
        names, shifts = list(dict.fromkeys(rows["dataset"])), list(dict.fromkeys(rows["shift"]))
        for start in range(0, len(names), PER_PAGE):
            part = names[start : start + PER_PAGE]
            with figures.style():
                figure, axes = figures.canvas(
                    1, len(shifts), width=2.4 + 1.5 * max(len(shifts), 2), height=1.7 + 0.25 * len(part), squeeze=False
                )
                for k, (ax, shift) in enumerate(zip(axes[0], shifts)):
                    own = rows[rows["shift"] == shift].set_index("dataset").reindex(part).reset_index()
                    label = "{}\nminus {}\n(nat per unit λ)".format(*figures.shorts([second, first], 20))
                    figures.paired_rows(own, ax=ax, xlabel=label, labels=k == 0)
                    ax.set_title(figures.nice_shift(*parse_shift(shift)).replace(" → ", "\n→ "), fontsize=8)
                figures.key_outside(figure, axes[0, 0], columns=2)
            drawn.append(figure)
            page = f", datasets {start + 1} to {start + len(part)}" if len(names) > PER_PAGE else ""
            headings.append(f"{second} minus {first}{page}")
    return drawn, tuple(headings)


def error_words(frame: pd.DataFrame) -> str:
    """Whether the vectors' own error is in the intervals of a comparison."""
    held = frame["includes_vector_error"]
    if held.all():
        return "with the vectors' own error in them"
    return f"the vectors' own error {'is in some, as the table says' if held.any() else 'is not in them'}"
