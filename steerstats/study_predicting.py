"""What foretells steerability, asked of a study: candidates per dataset and per input, ranks and held-out ridge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from steerstats.cache import read_finite
from steerstats.errors import CacheError, CannotEstimate, check_count, check_level
from steerstats.generalization import shift_name
from steerstats.generalization.slopes import Shift
from steerstats.grid import is_symmetric
from steerstats.predictors import (
    CrossValidated,
    DatasetPredictors,
    RankAssociations,
    cross_validated_ridge,
    dataset_associations,
    dataset_predictors,
    within_dataset_associations,
)
from steerstats.results import Result
from steerstats.seeds import generator
from steerstats.study_estimates import TEST_ONLY, unfinished
from steerstats.study_results import doubts, for_each, stack
from steerstats.study_unit import FACTORS

if TYPE_CHECKING:
    from steerstats.study import Study

PROJECTIONS = {"projection": "input_projection", "difference_cosine": "input_difference_cosine"}


@dataclass(frozen=True, kw_only=True)
class Predictors(Result):
    """Candidates to foretell steerability, and how well they do.

    Parameters
    ----------
    results : mapping of dataset to DatasetPredictors
        Mean cosine, d′, AUC, norm ratio and unembedding alignment of the training activations.
    left_out : mapping of dataset to str
    over_datasets : RankAssociations or None
        Spearman over datasets with mean steerability, beside Braun et al.; None with fewer than four datasets.
    within_datasets : RankAssociations or None
        Spearman inside datasets of per-input candidates with the slope.
    ridge_datasets, ridge_inputs : CrossValidated or None
        Ridge regression judged on datasets it has not seen; None with fewer than three datasets.
    datasets, inputs : DataFrame
        The rows behind them: one per dataset, one per input.
    shift : str
    """

    results: Mapping[str, DatasetPredictors]
    left_out: Mapping[str, str]
    over_datasets: RankAssociations | None
    within_datasets: RankAssociations | None
    ridge_datasets: CrossValidated | None
    ridge_inputs: CrossValidated | None
    datasets: pd.DataFrame
    inputs: pd.DataFrame
    shift: str

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset and candidate, with its interval."""
        return stack({name: result.to_frame() for name, result in self.results.items()})


def predictors(
    study: Study, shift: Shift, by_category: bool, seed: int, level: float, n_resamples: int, n_permutations: int
) -> Predictors:
    """Candidates of the shift's vector against its slopes."""
    level, n_resamples = check_level(level), check_count("n_resamples", n_resamples)
    n_permutations = check_count("n_permutations", n_permutations)
    results, left_out = for_each(study.datasets, lambda name: _of_dataset(study, name, shift, level))
    notes = [*unfinished(study), *doubts(results, left_out)]
    category = study.category if by_category else None
    if by_category and category is None:
        raise CacheError(f"{study.path}: the manifest names no category for every dataset; use by_category=False")
    rows = pd.DataFrame([{"dataset": name, **result.values()} for name, result in results.items()])
    rows["slope"] = [study.slopes(name).at(shift).mean() for name in rows["dataset"]]
    if category is not None:
        rows["category"] = [category[name] for name in rows["dataset"]]
    candidates = [name for name in rows.columns if name not in ("dataset", "slope", "category")]
    over = _if_possible(
        notes,
        "over datasets",
        lambda: dataset_associations(
            rows[candidates],
            rows["slope"].to_numpy(),
            rng=generator(seed, "predictors over datasets"),
            category=None if category is None else list(rows["category"]),
            n_resamples=n_resamples,
            n_permutations=n_permutations,
            level=level,
        ),
    )
    inputs, per_input, multipliers = _inputs(study, shift, notes)
    within = None
    if per_input:
        within = within_dataset_associations(inputs, per_input, multipliers=multipliers, level=level)
    options = {"n_permutations": min(n_permutations, 200), "n_resamples": min(n_resamples, 2000), "level": level}
    if category is not None:
        inputs["category"] = inputs["dataset"].map(category)
        options["category"] = "category"
    whole = [name for name in candidates if rows[name].notna().all()]
    ridge_datasets = _if_possible(
        notes,
        "ridge over datasets",
        lambda: cross_validated_ridge(rows, whole, rng=generator(seed, "ridge over datasets"), **options),
    )
    filled = inputs.fillna({name: 0.5 for name in FACTORS if name.startswith("pos_is_")})
    ridge_inputs = None
    if per_input:
        ridge_inputs = _if_possible(
            notes,
            "ridge over inputs",
            lambda: cross_validated_ridge(
                filled, per_input, rng=generator(seed, "ridge over inputs"), multipliers=multipliers, **options
            ),
        )
    parts = [part for part in (over, within, ridge_datasets, ridge_inputs) if part is not None]
    return Predictors(
        results=results,
        left_out=left_out,
        over_datasets=over,
        within_datasets=within,
        ridge_datasets=ridge_datasets,
        ridge_inputs=ridge_inputs,
        datasets=rows,
        inputs=inputs,
        shift=shift_name(shift),
        method=f"{shift_name(shift)}; {TEST_ONLY}; held-out projections of training activations; "
        + "; ".join(part.method for part in parts),
        assumptions=tuple(dict.fromkeys(text for part in parts for text in part.assumptions)),
        warnings=(*notes, *dict.fromkeys(text for part in parts for text in part.warnings)),
    )


def _of_dataset(study: Study, name: str, shift: Shift, level: float) -> DatasetPredictors:
    """Candidates from the summaries of the shift's training setting."""
    unit, train = study.unit(name), shift[0]
    cache, label = unit.unit, unit.vectors[train]
    needed = ("crossfit_projection", "pair_difference_cosine", "activation_norm", "vector_raw_norm")
    absent = [array for array in needed if array not in cache]
    if absent or train not in cache.coords.get("setting_train", ()):
        what = f"/{absent[0]}" if absent else f"training activations of {train}"
        raise CannotEstimate(f"the cache holds no {what}")
    alignment = None
    if "vector_unembedding_cosine" in cache:
        alignment = float(read_finite(cache, "vector_unembedding_cosine", vector=label))
    return dataset_predictors(
        read_finite(cache, "crossfit_projection", setting_train=train),
        read_finite(cache, "pair_difference_cosine", setting_train=train),
        vector_norm=float(read_finite(cache, "vector_raw_norm", vector=label)),
        activation_norm=float(read_finite(cache, "activation_norm", setting_train=train)),
        unembedding_cosine=alignment,
        questions=cache.read("pair_question") if "pair_question" in cache else None,
        level=level,
    )


def _inputs(study: Study, shift: Shift, notes: list[str]) -> tuple[pd.DataFrame, list[str], np.ndarray]:
    """One row per input, the candidates that every dataset records, and the multipliers."""
    frames = []
    for name in study.datasets:
        unit = study.unit(name)
        e, _ = unit.place(shift)
        columns = {"dataset": name, "slope": unit.slopes.at(shift), "unsteered": unit.slopes.unsteered[e]}
        cell = {"setting_eval": shift[1], "vector": unit.vectors[shift[0]]}
        for column, array in PROJECTIONS.items():
            if array in unit.unit:
                columns[column] = read_finite(unit.unit, array, **cell)[unit.kept]
        frames.append(pd.DataFrame(columns | unit.factors(FACTORS, shift[1])))
    inputs = pd.concat(frames, ignore_index=True)
    everywhere = [name for name in inputs.columns[2:] if all(name in frame for frame in frames)]
    multipliers = study.unit(study.datasets[0]).multipliers
    if not all(is_symmetric(study.unit(name).multipliers) for name in study.datasets):
        everywhere.remove("unsteered")
        notes.append("the multiplier grid is not symmetric about 0: m(0) is refused as a predictor of slopes")
    varying = [name for name in everywhere if inputs[name].notna().any() and inputs[name].nunique() > 1]
    return inputs, varying, multipliers


def _if_possible(notes: list[str], what: str, estimate):
    try:
        return estimate()
    except CannotEstimate as error:
        notes.append(f"{what}: {error}")
        return None
