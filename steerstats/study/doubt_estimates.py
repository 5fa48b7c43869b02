"""What the checking methods of `Study` do: nulls, debiasing, reliability, answer mass, cosines, linearity, grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from steerstats.cache import read_finite
from steerstats.errors import Absent, CannotEstimate, by_text
from steerstats.generalization import AnswerMass, gap, shift_name
from steerstats.generalization import answer_mass as mass_by_multiplier
from steerstats.generalization.gap import method_of_gaps
from steerstats.generalization.slopes import Shift
from steerstats.nulls import NullTable, null_table, shuffled_doubt, tail_doubt
from steerstats.resampling.question_weight import carrying_questions
from steerstats.resampling.seeds import generator
from steerstats.results import VECTOR_AS_GIVEN
from steerstats.rounding import STORED
from steerstats.spurious import spurious_factors
from steerstats.steerability import linearity_test
from steerstats.steerability.replicates import corrected_anti_steerable as corrected_share
from steerstats.steerability.replicates import slope_reliability
from steerstats.study.doubt_results import Debiased, MultiplierRange, NullComparison, VectorCosines, range_rows
from steerstats.study.estimates import TEST_ONLY, each_once
from steerstats.study.notes import said_first
from steerstats.study.results import PerDataset, doubts, for_each
from steerstats.study.unit import StudyUnit

if TYPE_CHECKING:
    from steerstats.study import Study


def nulls(study: Study, shift: Shift, alpha: float) -> NullComparison:
    """One table per kind of null vector that the cache holds."""
    tables: dict[str, NullTable | None] = {}
    sizes = _training_questions(study)
    # Where nobody says which pair is of which question there are at most as many questions as pairs.
    pairs = {name: len(unit.unit.coords["pair"]) for name, unit in study.units.items() if "pair" in unit.unit.coords}
    questions = pairs | {name: carrying_questions(own) for name, own in sizes.items()}
    for kind in ("random", "shuffled"):
        having = [unit for unit in study.units.values() if unit.has(shift, kind)]
        tables[kind] = None
        if having:
            own = {unit.name: unit.slopes.at(shift) for unit in having}
            controls = {unit.name: unit.control_slopes(kind, shift) for unit in having}
            tables[kind] = null_table(own, controls, kind=kind, alpha=alpha, questions=questions)
    found = [table for table in tables.values() if table is not None]
    if not found:
        remedy = "a table brings none" if study.kind == "import" else "build with controls.random or controls.shuffled"
        raise Absent(
            f"{study.path}: not in this cache: random or shuffled vectors evaluated in {shift_name(shift)}; {remedy}"
        )
    notes = list(said_first(study))
    for kind, table in tables.items():
        absent = [] if table is None else [name for name in study.datasets if name not in table.datasets]
        if absent:
            notes.append(f"without {kind} vectors, and left out: {', '.join(absent)}")
    if tables["shuffled"] is not None:
        notes += _shuffled_doubts(tables["shuffled"], sizes)
    return NullComparison(
        random=tables["random"],
        shuffled=tables["shuffled"],
        shift=shift_name(shift),
        method="; ".join(table.method for table in found),
        assumptions=tuple(dict.fromkeys(text for table in found for text in table.assumptions)),
        warnings=(*notes, *dict.fromkeys(text for table in found for text in table.warnings)),
    )


def _training_questions(study: Study) -> dict[str, list[int]]:
    """Pairs of each training question, of the datasets that say which pair is of which question."""
    questions = {
        name: unit.unit.read("pair_question") for name, unit in study.units.items() if "pair_question" in unit.unit
    }
    return {name: np.unique(own, return_counts=True)[1].tolist() for name, own in questions.items()}


def _shuffled_doubts(table: NullTable, sizes: Mapping[str, list[int]]) -> list[str]:
    # Of a stream of its own: an assessment of the design, which has nothing to do with a seed of resamples.
    known = [name for name in table.datasets if name in sizes]
    doubts = {name: shuffled_doubt(sizes[name], rng=generator(0, "half flips")) for name in known}
    said = {name: filter(None, [doubts.get(name)]) for name in table.datasets}
    tail = tail_doubt(table, {name: len(own) for name, own in sizes.items()})
    return [*by_text(said), *filter(None, [tail])]


def debiased(study: Study, shift: Shift, seed: int, level: float, n_resamples: int) -> Debiased:
    """Own against debiased vector, on the same inputs."""
    loss, rows, notes, untold = {}, [], list(said_first(study)), {}
    having = {name: unit for name, unit in study.units.items() if unit.has(shift, "debiased")}
    absent = [name for name in study.datasets if name not in having]
    if having and absent:
        notes.append(f"without a debiased vector, and left out: {', '.join(absent)}")
    for name, unit in (having or study.units).items():
        own, other = unit.slopes.at(shift), unit.control_slopes("debiased", shift)[0]
        rng = generator(seed, "debiased", name)
        loss[name] = gap(own, other, rng=rng, questions=unit.question, level=level, n_resamples=n_resamples)
        columns = unit.factors(("pos_is_a", "pos_is_yes"))
        try:
            fits = [spurious_factors(slopes, columns, questions=unit.question, level=level) for slopes in (own, other)]
        except CannotEstimate as error:
            notes.append(f"{name}: no factor effects: {error}")
            continue
        untold[name] = fits[0].design.warnings
        for vector, fit in zip(("own", "debiased"), fits):
            frame = fit.robust_frame().assign(dataset=name, vector=vector)
            rows.append(frame[frame["term"].isin([*columns])])
    first = ["dataset", "vector", "term", "estimate", "se", "ci_low", "ci_high"]
    effects = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=first)
    effects = effects[first + [column for column in effects.columns if column not in first]]
    return Debiased(
        loss=loss,
        effects=effects,
        shift=shift_name(shift),
        method=f"own minus debiased vector, paired by input; {method_of_gaps(n_resamples)}; {TEST_ONLY}",
        numbers={"n_resamples": n_resamples},
        assumptions=next(iter(loss.values())).assumptions,
        warnings=(*notes, *by_text(untold), *doubts(loss, {})),
    )


def reliability(study: Study, shift: Shift, level: float) -> PerDataset:
    """Signal in the spread of slopes, from resampled vectors."""

    def one(unit: StudyUnit):
        refits = unit.control_slopes("resampled", shift)
        own = unit.slopes.at(shift)
        return slope_reliability(refits, kind="refits", slopes=own, questions=unit.question, level=level)

    return _per_dataset(study, shift, one)


def corrected_anti_steerable(study: Study, shift: Shift, seed: int, level: float, n_resamples: int) -> PerDataset:
    """Share below zero after the noise of the vector is taken out of the spread."""

    def one(unit: StudyUnit):
        return corrected_share(
            unit.control_slopes("resampled", shift),
            kind="refits",
            rng=generator(seed, "corrected anti-steerable", unit.name),
            slopes=unit.slopes.at(shift),
            questions=unit.question,
            n_resamples=n_resamples,
            level=level,
        )

    return _per_dataset(study, shift, one)


def answer_mass(study: Study, shift: Shift, threshold: float, level: float) -> AnswerMass:
    """Mass by multiplier under one shift."""
    logits, totals, questions, grids = {}, {}, {}, []
    for name, unit in study.units.items():
        label = unit.vectors[shift[0]]
        cell = {"setting_eval": shift[1], "vector": label}
        logits[name] = read_finite(unit.unit, "answer_logit", **cell)[..., unit.kept]
        totals[name] = read_finite(unit.unit, "logsumexp", **cell)[..., unit.kept]
        questions[name] = unit.question
        grids.append(unit.multipliers)
        if not np.array_equal(grids[-1], grids[0]):
            raise CannotEstimate(
                f"dataset {name} has multipliers {grids[-1].tolist()}, {study.datasets[0]} {grids[0].tolist()}; open "
                "the datasets of one grid with open_cache(..., datasets=[...])"
            )
    return mass_by_multiplier(logits, totals, grids[0], questions=questions, threshold=threshold, level=level)


def vector_cosines(study: Study) -> VectorCosines:
    """Cosines between main vectors, and of each with its own refits."""
    names = study.vectors
    shape = (len(study.datasets), len(names))
    cosine, norm = np.full((*shape, len(names)), np.nan), np.full(shape, np.nan)
    stability = np.full((*shape, 3), np.nan)
    for d, unit in enumerate(study.units.values()):
        rows = [names.index(name) for name in unit.vectors]
        main = _unit_directions(unit, list(unit.vectors.values()))
        cosine[d][np.ix_(rows, rows)] = main @ main.T
        if "vector_raw_norm" in unit.unit:
            norm[d, rows] = read_finite(unit.unit, "vector_raw_norm", vector=list(unit.vectors.values()))
        for row, name, direction in zip(rows, unit.vectors, main):
            again = unit.controls("resampled", name)
            if again:
                agreement = _unit_directions(unit, list(again)) @ direction
                stability[d, row] = np.quantile(agreement, (0.025, 0.5, 0.975))
    notes = list(said_first(study))
    if np.isnan(stability).all():
        notes.append("no resampled vectors: how well a vector agrees with its own refits is not known")
    return VectorCosines(
        datasets=study.datasets,
        vectors=names,
        cosine=cosine,
        stability=stability,
        norm=norm,
        method="cosines of the vectors as applied; stability: quantiles of the cosine with bootstrap refits",
        assumptions=("cosines describe these very vectors, and have no sampling interval of their own",),
        warnings=tuple(notes),
    )


def linearity(study: Study, shift: Shift, level: float) -> PerDataset:
    """Hotelling T² on every dataset's curves."""

    def one(unit: StudyUnit):
        curves = unit.propensity[unit.place(shift)]
        return linearity_test(curves, unit.multipliers, questions=unit.question, level=level, resolution=STORED)

    return _per_dataset(study, shift, one)


def multiplier_range(study: Study, shift: Shift, level: float) -> MultiplierRange:
    """Slopes on |λ| ≤ c, as the per-input fits hold them."""
    frames, notes = [], list(said_first(study))
    for name, unit in study.units.items():
        slopes = unit.fit.range_slope[unit.place(shift)]
        frames.append(range_rows(name, slopes, unit.fit.ranges, unit.question, level))
        if len(unit.fit.ranges) < 2:
            notes.append(f"{name}: the grid has one range only, there is nothing to compare")
    return MultiplierRange(
        frame=pd.concat(frames, ignore_index=True),
        shift=shift_name(shift),
        method=f"{shift_name(shift)}; {TEST_ONLY}; least-squares slopes on |λ| ≤ c, t interval over questions",
        assumptions=("questions are independent", VECTOR_AS_GIVEN),
        warnings=tuple(notes),
    )


def _per_dataset(study: Study, shift: Shift, one) -> PerDataset:
    results, left_out = for_each(study.units, one)
    first, *others = results.values()
    # Datasets of a table may have other multipliers each, and then other contrasts.
    shared = {name: n for name, n in first.numbers.items() if all(other.numbers.get(name) == n for other in others)}
    return PerDataset(
        results=results,
        left_out=left_out,
        method="; ".join([shift_name(shift), TEST_ONLY, *each_once(result.method for result in results.values())]),
        numbers=shared,
        assumptions=first.assumptions,
        warnings=(*said_first(study), *doubts(results, left_out)),
    )


def _unit_directions(unit: StudyUnit, labels: list[str]) -> np.ndarray:
    """(vector, slot * hidden), each of length one; an all-zero vector stays zero."""
    rows = read_finite(unit.unit, "direction", vector=labels).reshape(len(labels), -1)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
