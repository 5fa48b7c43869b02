"""From the units of a study to the estimators and back: what each method of `Study` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, InputError, how_many, those_there
from steerstats.generalization import (
    ID_SHIFT,
    PAPER_SHIFTS,
    CorrelationTable,
    cross_model_agreement,
    gap_table,
    id_ood_correlation,
    overall_gap,
    relative_steerability,
    shift_name,
    steerability_table,
    steerability_variance,
    with_vector_error,
)
from steerstats.generalization.slopes import Shift
from steerstats.generalization.vector_error import VECTOR_ERROR_MIXED, VECTOR_ERROR_OUT, cells_without
from steerstats.meta import MetaAnalysis, mean_over_datasets, with_few_units
from steerstats.operators import ABLATE, has_unsteered
from steerstats.protocol import UNNAMED, differences
from steerstats.resampling.ranks import ONE_DATASET
from steerstats.resampling.seeds import NamedStreams, generator
from steerstats.results import VECTOR_AS_GIVEN, Estimate
from steerstats.spurious import (
    factor_cells,
    pool_spurious_factors,
    published_variance_split,
    spurious_factors,
    variance_explained,
)
from steerstats.steerability import summarise_steerability
from steerstats.steerability.distribution import method_of_summaries
from steerstats.study.factors import FACTORS, OWN, usual_levels
from steerstats.study.generalization import Generalization
from steerstats.study.notes import few_trained, flat_curves, labels_of_two, no_parity, only_in, said_first
from steerstats.study.results import DatasetSteerability, SpuriousTable, doubts, for_each
from steerstats.study.unit import StudyUnit

if TYPE_CHECKING:
    from steerstats.study import Study

TEST_ONLY = "test inputs only"
POOLED = "over datasets, "  # how warnings about a mean effect over datasets begin


def steerability(study: Study, shift: Shift, level: float) -> DatasetSteerability:
    """Per-dataset summaries, highest median first."""
    found, errors, refits, twins = {}, {}, {}, False
    for name, unit in study.units.items():
        slopes, questions = unit.slopes.at(shift), unit.question
        twins |= len(set(questions)) < len(slopes)
        found[name] = summarise_steerability(slopes, error=unit.slope_error, questions=questions, level=level)
        if unit.has_refits(shift):
            again = unit.control_slopes("resampled", shift)
            refits[name] = len(again)
            errors[name] = with_vector_error(
                slopes,
                again,
                questions=questions,
                level=level,
                name="mean, vector error included",
            )
    order = sorted(found, key=lambda name: (-found[name]["median"].estimate, name))
    found = {name: found[name] for name in order}
    mean = {name: result["mean"] for name, result in found.items()}
    effects = np.array([one.estimate for one in mean.values()])
    se = np.array([errors.get(name, one).se for name, one in mean.items()])
    groups = None if study.category is None else [study.category[name] for name in order]
    try:
        summary = mean_over_datasets(effects, np.square(se), names=order, category=groups, level=level)
        summary = _with_vectors_said(summary, order, errors)
        summary = with_few_units(summary, {name: mean[name].n for name in study.datasets}, refits)
    except CannotEstimate:  # too few datasets
        summary = None
    first = next(iter(found.values()))
    # What each estimate assumes by itself is no longer true of the table where some hold the vectors' error.
    said = [text for text in first.assumptions if text != VECTOR_AS_GIVEN]
    said.append(VECTOR_ERROR_MIXED if errors else VECTOR_ERROR_OUT)
    return DatasetSteerability(
        results=found,
        shift=shift_name(shift),
        vector_error=errors,
        over_datasets=summary,
        operator=ABLATE if ABLATE in study.operators else study.operators[0],
        method=f"least-squares slopes of propensity on the multiplier, {shift_name(shift)}; {TEST_ONLY}; "
        + method_of_summaries(twins),
        assumptions=tuple(said),
        warnings=(
            *said_first(study),
            *flat_curves(study, [shift]),
            *no_parity(study),
            *few_trained(study, errors),
            *cells_without(np.array([[name in errors] for name in order]), order, [shift_name(shift)]),
            *doubts(found, {}),
            *doubts(errors, {}),
            *([] if summary is None else summary.warnings),
        ),
    )


def _with_vectors_said(summary: MetaAnalysis, datasets: Sequence[str], errors: Mapping[str, Estimate]) -> MetaAnalysis:
    """The mean over datasets, told whose standard errors hold the vector's own error."""
    lacking = [name for name in datasets if name not in errors]
    if not errors:
        text = "standard errors are of inputs alone, and what vectors add is part of tau"
    elif lacking:
        text = "standard errors include the vector's own error where there are refits; elsewhere it is part of tau"
    else:
        text = "standard errors include the vector's own error"
    notes = []
    if errors and lacking:
        having = f"{len(datasets) - len(lacking)} of {len(datasets)} datasets, not in that of {', '.join(lacking)}"
        notes.append(f"over datasets, the vector's own error is in the standard errors of {having}")
    return replace(
        summary, assumptions=(*summary.assumptions, text), warnings=tuple(dict.fromkeys((*summary.warnings, *notes)))
    )


def spurious(
    study: Study,
    shift: Shift,
    factors: Sequence[str],
    interactions: bool,
    seed: int,
    level: float,
    n_resamples: int,
) -> SpuriousTable:
    """Effects, variance shares and cells of the nuisance factors."""
    explained, published, cells = {}, {}, {}
    crossed = interactions and {"pos_is_a", "pos_is_yes"} <= set(factors)
    unknown = [name for name in factors if name.startswith(OWN) and name not in study.own_factors]
    if unknown:
        there = ", ".join((*FACTORS, *study.own_factors))
        raise InputError(f"factor {unknown[0]!r} is in no dataset of this cache; there are {there}")
    against = usual_levels(((unit.unit, unit.kept) for unit in study.units.values()), factors)

    def one(unit: StudyUnit):
        name, slopes, columns = unit.name, unit.slopes.at(shift), unit.factors(factors, shift[1], against)
        if not columns:
            raise CannotEstimate(f"the cache records none of {', '.join(factors)}")
        if len(slopes) < 3:
            raise CannotEstimate(f"{how_many(len(slopes), 'input')}; the effect of a factor needs at least three")
        e, v = unit.place(shift)
        usable = crossed and {"pos_is_a", "pos_is_yes"} <= set(columns)
        rest = {"questions": unit.question, "level": level}
        # What needs least comes first: cells and shares are defined where effects have no robust variance.
        binary = {key: column for key, column in columns.items() if key.startswith("pos_is_")}
        if binary:
            cells[name] = factor_cells(slopes, binary, **rest)
        if {"pos_is_a", "pos_is_yes"} <= set(columns):
            rng = generator(seed, "published variance split", name)
            published[name] = published_variance_split(slopes, columns, rng=rng, n_resamples=n_resamples, **rest)
        rng = generator(seed, "variance explained", name)
        explained[name] = variance_explained(
            slopes, columns, rng=rng, interactions=usable, n_resamples=n_resamples, **rest
        )
        return spurious_factors(
            slopes,
            columns,
            unsteered=unit.slopes.unsteered[e] if has_unsteered(unit.operator) else None,
            propensity=unit.propensity[e, v],
            multipliers=unit.multipliers,
            interactions=usable,
            **rest,
        )

    try:
        results, left_out = for_each(study.units, one)
    except CannotEstimate as error:
        own = [name for name in study.own_factors if name not in factors]
        columns = [column for unit in study.units.values() for column in unit.factors(factors).values()]
        if own and not any(pd.notna(column).any() for column in columns):
            raise CannotEstimate(f"{error}; factors=study.own_factors asks for {', '.join(own)}") from error
        raise
    notes = [*said_first(study), *flat_curves(study, [shift]), *doubts(results, left_out)]
    try:
        over = pool_spurious_factors(results, category=study.category, level=level)
        notes += [f"{POOLED}{text}" for text in over.warnings]
    except CannotEstimate as error:
        over = None
        if len(study.datasets) > 1:  # of one dataset nobody expects a mean
            notes.append(f"nothing is pooled over datasets: {error}")
    return SpuriousTable(
        results=results,
        left_out=left_out,
        shift=shift_name(shift),
        explained=explained,
        published=published,
        cells=cells,
        over_datasets=over,
        method="; ".join([shift_name(shift), TEST_ONLY, *each_once(one.method for one in results.values())]),
        numbers=next(iter(explained.values())).numbers,
        assumptions=tuple(dict.fromkeys(text for one in results.values() for text in one.assumptions)),
        warnings=tuple(notes),
    )


def each_once(methods: Iterable[str]) -> list[str]:
    """The parts of all methods: datasets with twins have other standard errors, and no mixed model."""
    return list(dict.fromkeys(part for method in methods for part in method.split("; ")))


def generalization(
    study: Study, shifts: tuple[Shift, ...], seed: int, level: float, n_resamples: int
) -> Generalization:
    """Gaps, their parts, ratios and correlations, with the vectors' error wherever the cache can tell it."""
    options = {"level": level, "n_resamples": n_resamples}
    grid = study.grid(refits=True)
    gaps = gap_table(grid, shifts, rng=NamedStreams(seed, "gaps", grid.datasets), **options)
    ratios = None
    if all(grid.has((evaluation, evaluation)) for _, evaluation in shifts):
        ratios = relative_steerability(grid, shifts, rng=NamedStreams(seed, "ratios", grid.datasets), **options)
    correlations = id_ood_correlation(grid, shifts, rng=NamedStreams(seed, "correlations", grid.datasets), **options)
    variances = steerability_variance(grid, shifts, rng=generator(seed, "variances"), **options)
    try:
        overall = overall_gap(gaps, category=study.category, level=level)
        unpooled = overall.absences()
    except CannotEstimate as error:
        overall, unpooled = None, (str(error),) if len(grid.datasets) > 1 else ()
    notes = [*said_first(study), *flat_curves(study, dict.fromkeys((ID_SHIFT, *shifts)))]
    notes += [*few_trained(study, grid.refits or ()), *unpooled]
    absent = [shift for shift in PAPER_SHIFTS if not grid.has(shift)]
    if absent:
        notes.append(f"not in this cache for every dataset, and left out: {', '.join(map(shift_name, absent))}")
    settings = steerability_table(grid, level=level)
    parts = [part for part in (gaps, ratios, correlations, variances, settings) if part is not None]
    return Generalization(
        gaps=gaps,
        ratios=ratios,
        correlations=correlations,
        overall=overall,
        settings=settings,
        variances=variances,
        method=f"{TEST_ONLY}, complete cases; {gaps.method}",
        numbers=gaps.numbers,
        assumptions=gaps.assumptions,
        warnings=tuple(dict.fromkeys([*notes, *(text for part in parts for text in part.warnings)])),
    )


def cross_model(
    first: Study, second: Study, shifts: Sequence[Shift | str] | None, seed: int, level: float, n_resamples: int
) -> CorrelationTable:
    """Rank agreement over the datasets that both caches have."""
    common = [name for name in first.datasets if name in second.datasets]
    if not common:
        one, two = (those_there(study.datasets, "") for study in (first, second))
        raise InputError(f"{first.path} and {second.path} share no dataset: the first has {one}, the second {two}")
    if len(common) == 1:
        raise CannotEstimate(f"{first.path} and {second.path} share {common[0]} alone: {ONE_DATASET}")
    notes = list(dict.fromkeys([*said_first(first), *said_first(second)]))
    shared = [_among(study, common) for study in (first, second)]
    if shifts is not None:
        chosen = list(shared[0].shifts(shifts))
        for shift in chosen:
            shared[1].require(shift)
    else:
        every = [ID_SHIFT, *PAPER_SHIFTS]
        units = [unit for study in shared for unit in study.units.values()]
        chosen = [shift for shift in every if all(unit.has(shift) for unit in units)]
        if not chosen:
            raise CannotEstimate(f"the two caches share none of {', '.join(map(shift_name, every))}")
        if len(chosen) < len(every):
            lost = [shift_name(shift) for shift in every if shift not in chosen]
            notes.append(f"not in both caches for every dataset, and left out: {', '.join(lost)}")
    if UNNAMED in (first.model, second.model):
        notes.append("a table does not name its model: the two caches may be of one model")
    labels = labels_of_two(first, second)
    named = dict(zip(labels, (first, second)))
    notes += [*only_in(named, common), *differences(named)]
    grids = [study.grid(chosen, refits=True) for study in shared]
    table = cross_model_agreement(
        *grids, chosen, rng=NamedStreams(seed, "cross-model", common), level=level, n_resamples=n_resamples
    )
    # "of", since what begins a sentence gets a capital, and a model's id has none.
    method = f"of {' and '.join(labels)}: {table.method}"
    return replace(table, warnings=(*notes, *table.warnings), method=method)


def _among(study: Study, datasets: Sequence[str]) -> Study:
    """A study of some of its datasets: what another one lacks is not asked for."""
    if set(datasets) == set(study.datasets):
        return study
    return type(study)(study.reader, datasets=datasets, layer=study.layer)
