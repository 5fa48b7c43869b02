"""What predicts steerability, asked of a study: candidates per dataset and per input, ranks and held-out ridge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from steerstats.cache import read_finite
from steerstats.errors import CacheError, CannotEstimate, first_few
from steerstats.generalization import shift_name
from steerstats.generalization.slopes import Shift
from steerstats.operators import NO_UNSTEERED, has_unsteered
from steerstats.predictors import (
    CrossValidated,
    DatasetPredictors,
    RankAssociations,
    cross_validated_ridge,
    dataset_associations,
    dataset_predictors,
    within_dataset_associations,
)
from steerstats.predictors.associations import PUBLISHED, PUBLISHED_NOTE
from steerstats.resampling.seeds import generator
from steerstats.results import VECTOR_AS_GIVEN
from steerstats.steerability import is_symmetric
from steerstats.study.estimates import TEST_ONLY
from steerstats.study.factors import FACTORS
from steerstats.study.headlines import Headlined, number, with_limits
from steerstats.study.notes import said_first
from steerstats.study.results import doubts, for_each, stack
from steerstats.study.unit import StudyUnit

if TYPE_CHECKING:
    from steerstats.study import Study

PROJECTIONS = {"projection": "input_projection", "difference_cosine": "input_difference_cosine"}


@dataclass(frozen=True, kw_only=True)
class Predictors(Headlined):
    """Candidates to predict steerability, and how well they do.

    Parameters
    ----------
    results : mapping of dataset to DatasetPredictors
        Mean cosine, d′, AUC, norm ratio and unembedding alignment of the training activations.
    left_out : mapping of dataset to str
    over_datasets : RankAssociations
        Spearman over datasets with mean steerability, beside Braun et al.
    within_datasets : RankAssociations or None
        Spearman inside datasets of per-input candidates with the slope.
    ridge_datasets, ridge_inputs : CrossValidated or None
        Ridge regression judged on datasets it has not seen; None with fewer than three datasets. A factor that is
        not defined for some inputs (Yes/No) enters the latter as its mean there, beside a column `<factor>_defined`.
    datasets, inputs : DataFrame
        The rows behind them: one per dataset, one per input.
    shift : str
    """

    results: Mapping[str, DatasetPredictors]
    left_out: Mapping[str, str]
    over_datasets: RankAssociations
    within_datasets: RankAssociations | None
    ridge_datasets: CrossValidated | None
    ridge_inputs: CrossValidated | None
    datasets: pd.DataFrame
    inputs: pd.DataFrame
    shift: str

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset and candidate, with its interval."""
        return stack({name: result.to_frame() for name, result in self.results.items()})

    PARTS: ClassVar[Mapping[str, str]] = {
        "headline()": "the numbers above as a table, beside published ones",
        "over_datasets": "rank correlations over datasets, with p-values of each candidate alone",
        "within_datasets": "rank correlations of per-input candidates, averaged over datasets",
        "ridge_datasets": "held-out regression over datasets: predictions, coefficients, null",
        "ridge_inputs": "held-out regression over inputs",
        "to_frame()": "every candidate of each dataset, with its interval",
    }

    def headline(self) -> pd.DataFrame:
        """How well the candidates do: rank correlations over datasets beside published ones, then held-out R².

        Returns
        -------
        DataFrame
            quantity, estimate, ci_low, ci_high, p (Spearman: of the family of candidates), n (datasets), and what
            `Braun et al.` and `Bas & Novak` report for the same candidate.
        """
        over = self.over_datasets
        rows = [
            {
                "quantity": f"Spearman, {name}",
                "estimate": over.rho[j],
                "ci_low": over.ci_low[j],
                "ci_high": over.ci_high[j],
                "p": over.p_family[j],
                "n": int(over.n_datasets[j]),
                "Braun et al.": number(PUBLISHED[name], 2) if name in PUBLISHED else "",
                "Bas & Novak": "no relation" if name in PUBLISHED else "",
            }
            for j, name in enumerate(over.predictors)
        ]
        for what, fit in (("datasets", self.ridge_datasets), ("inputs", self.ridge_inputs)):
            parts = [] if fit is None else fit.to_frame().dropna(subset="r2").to_dict("records")
            for part in parts:
                inside = ", inside datasets" if part["part"] != "all" else ""
                row = {"quantity": f"held-out R² over {what}{inside}", "estimate": part["r2"], "n": fit.n_datasets}
                kept = {key: part[key] for key in ("ci_low", "ci_high", "p")}
                rows.append(row | kept | {"Braun et al.": "", "Bas & Novak": ""})
        return pd.DataFrame(rows)

    def sections(self) -> list[tuple[str, pd.DataFrame]]:
        """Rank correlations beside published ones, held-out R², and the candidates of each dataset."""
        level, head = self.over_datasets.level, self.headline()
        shown = f"[{level:.0%}]"
        head[shown] = [with_limits(*row, 2) for row in zip(head["estimate"], head["ci_low"], head["ci_high"])]
        head["p"], head["n"] = head["p"].map(number), head["n"].map(str)
        ranks = head["quantity"].str.startswith("Spearman, ")
        own, fits = head[ranks], head[~ranks]
        own = own.assign(candidate=own["quantity"].str.removeprefix("Spearman, "))[
            ["candidate", shown, "p", "n", "Braun et al.", "Bas & Novak"]
        ]
        names = {shown: f"rho {shown}", "Braun et al.": "Braun\net al.", "Bas & Novak": "Bas &\nNovak"}
        title = "Spearman correlation over datasets with mean steerability (p: among all candidates); "
        out = [(title + PUBLISHED_NOTE, own.rename(columns=names))]
        if len(fits):
            fits = fits.assign(over=fits["quantity"].str.removeprefix("held-out R² over "))
            title = "Held-out R² of ridge regression; 0: as good as the mean of the other datasets"
            out.append((title, fits[["over", shown, "p", "n"]].rename(columns={shown: f"R² {shown}"})))
        if self.within_datasets is not None:
            inside = self.within_datasets.to_frame()
            limited = [with_limits(*row, 2) for row in zip(inside["rho"], inside["ci_low"], inside["ci_high"])]
            rows = {"candidate": inside["predictor"], f"rho {shown}": limited, "p": inside["p"].map(number)}
            title = "Spearman correlation with the slope inside datasets, mean over datasets (p: each alone)"
            out.append((title, pd.DataFrame(rows | {"n": inside["n_datasets"].map(str)})))
        table = self.datasets
        rows = {"dataset": table["dataset"], "mean\nslope": table["slope"].map(number)}
        rows |= {name.replace("_", "\n"): table[name].map(number) for name in self.over_datasets.predictors}
        return [*out, (f"Candidates by dataset, {self.shift}", pd.DataFrame(rows))]


def predictors(
    study: Study, shift: Shift, by_category: bool, seed: int, level: float, n_resamples: int, n_permutations: int
) -> Predictors:
    """Candidates of the shift's vector against its slopes."""
    results, left_out = for_each(study.units, lambda unit: _of_dataset(unit, shift, level))
    notes = [*said_first(study), *doubts(results, left_out), *_on_several_scales(study, list(results))]
    category = study.category if by_category else None
    if by_category and category is None:
        raise CacheError(f"{study.path}: the manifest names no category for every dataset; use by_category=False")
    rows = pd.DataFrame([{"dataset": name, **result.values()} for name, result in results.items()])
    rows["slope"] = [study.slopes(name).at(shift).mean() for name in rows["dataset"]]
    if category is not None:
        rows["category"] = [category[name] for name in rows["dataset"]]
    candidates = [name for name in rows.columns if name not in ("dataset", "slope", "category")]
    over = dataset_associations(
        rows[candidates],
        rows["slope"].to_numpy(),
        rng=generator(seed, "predictors over datasets"),
        category=None if category is None else list(rows["category"]),
        n_resamples=n_resamples,
        n_permutations=n_permutations,
        level=level,
    )
    inputs, per_input, multipliers = _inputs(study, shift, notes)
    column = None
    if category is not None:
        column, inputs["category"] = "category", inputs["dataset"].map(category)
    elif study.category is not None and len(set(study.category.values())) < len(study.datasets):
        notes.append(
            f"the datasets belong to {len(set(study.category.values()))} categories, inside which they are hardly "
            "independent: intervals and p-values count datasets, by_category=True counts categories"
        )
    within = None
    if per_input:
        within = within_dataset_associations(inputs, per_input, multipliers=multipliers, category=column, level=level)
    options = {"n_permutations": min(n_permutations, 200), "n_resamples": min(n_resamples, 2000), "level": level}
    options["category"] = column
    whole = [name for name in candidates if rows[name].notna().all()]
    notes += _not_everywhere([name for name in candidates if name not in whole], "ridge over datasets")
    ridge_datasets = _ridge(notes, "ridge over datasets", rows, whole, seed, **options)
    filled, columns = _defined(inputs, per_input, notes)
    ridge_inputs = None
    if per_input:
        ridge_inputs = _ridge(notes, "ridge over inputs", filled, columns, seed, multipliers=multipliers, **options)
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
        + "; ".join(dict.fromkeys(part.method for part in parts)),
        numbers=over.numbers,
        assumptions=(*dict.fromkeys(text for part in parts for text in part.assumptions), VECTOR_AS_GIVEN),
        warnings=(*notes, *dict.fromkeys(text for part in parts for text in part.warnings)),
    )


def _of_dataset(unit: StudyUnit, shift: Shift, level: float) -> DatasetPredictors:
    """Candidates from the summaries of the shift's training setting."""
    train, cache, label = shift[0], unit.unit, unit.vectors[shift[0]]
    needed = ("crossfit_projection", "pair_difference_cosine", "activation_norm", "vector_raw_norm")
    absent = [array for array in needed if array not in cache]
    if absent or train not in cache.coords.get("setting_train", ()):
        what = f"/{absent[0]}" if absent else f"training activations of {train}"
        raise CannotEstimate(f"the cache holds no {what}")
    alignment = None
    if "vector_unembedding_cosine" in cache:
        alignment = float(read_finite(cache, "vector_unembedding_cosine", vector=label))
    projection = read_finite(cache, "crossfit_projection", setting_train=train)
    # Of several wrong answers the mean counts, as in the vector itself.
    projection = np.stack([projection[0], projection[1:].mean(axis=0)])
    return dataset_predictors(
        projection,
        read_finite(cache, "pair_difference_cosine", setting_train=train),
        vector_norm=float(read_finite(cache, "vector_raw_norm", vector=label)),
        activation_norm=float(read_finite(cache, "activation_norm", setting_train=train)),
        unembedding_cosine=alignment,
        questions=cache.read("pair_question") if "pair_question" in cache else None,
        level=level,
    )


def _on_several_scales(study: Study, datasets: Sequence[str]) -> tuple[str, ...]:
    """What to say of projections that do not count from the midpoint of the folds behind their vector."""
    old = [name for name in datasets if study.units[name].unit.attrs.get("crossfit_origin") != "midpoint"]
    if not old:
        return ()
    text = (
        f"held-out projections of {first_few(old)} count from 0, and each fold lies on a vector of its own: what all "
        "activations share passes for spread between pairs, and d′ and AUC are too small; build the cache again"
    )
    return (text,)


def _inputs(study: Study, shift: Shift, notes: list[str]) -> tuple[pd.DataFrame, list[str], np.ndarray]:
    """One row per input, the candidates that every dataset records, and the multipliers."""
    frames = []
    for name, unit in study.units.items():
        e, _ = unit.place(shift)
        columns = {"dataset": name, "slope": unit.slopes.at(shift), "unsteered": unit.slopes.unsteered[e]}
        cell = {"setting_eval": shift[1], "vector": unit.vectors[shift[0]]}
        for column, array in PROJECTIONS.items():
            if array in unit.unit:
                columns[column] = read_finite(unit.unit, array, **cell)[unit.kept]
        frames.append(pd.DataFrame(columns | unit.factors(FACTORS, shift[1])))
    inputs = pd.concat(frames, ignore_index=True)
    everywhere = [name for name in inputs.columns[2:] if all(name in frame for frame in frames)]
    notes += _not_everywhere([name for name in inputs.columns[2:] if name not in everywhere], "all that is per input")
    if not all(map(has_unsteered, study.operators)):
        everywhere.remove("unsteered")
        notes.append(NO_UNSTEERED)
    elif not all(is_symmetric(unit.multipliers) for unit in study.units.values()):
        everywhere.remove("unsteered")
        notes.append("the multiplier grid is not symmetric about 0: m(0) is refused as a predictor of slopes")
    varying = [name for name in everywhere if inputs[name].notna().any() and inputs[name].nunique() > 1]
    return inputs, varying, next(iter(study.units.values())).multipliers


def _not_everywhere(names: Sequence[str], where: str) -> list[str]:
    """What to say of candidates that some datasets do not record."""
    return [f"{', '.join(names)}: not recorded in every dataset, left out of {where}"] if names else []


def _defined(inputs: pd.DataFrame, names: list[str], notes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Inputs without holes: the mean where a factor is not defined, and a column that says where it is."""
    filled, columns = inputs.copy(), list(names)
    for name in names:
        known = inputs[name].notna()
        if known.all():
            continue
        filled[name] = inputs[name].fillna(inputs[name].mean())
        filled[f"{name}_defined"] = known.astype(float)
        columns.append(f"{name}_defined")
        notes.append(
            f"{name} is not defined for {int((~known).sum())} of {len(known)} inputs: ridge over inputs takes its mean "
            f"there, beside a column {name}_defined; correlations inside datasets leave these inputs out"
        )
    return filled, columns


def _ridge(
    notes: list[str], what: str, frame: pd.DataFrame, candidates: list[str], seed: int, **options: Any
) -> CrossValidated | None:
    """One regression, or None and a note that says why there is none; `what` names it and its draws."""
    try:
        return cross_validated_ridge(frame, candidates, rng=generator(seed, what), **options)
    except CannotEstimate as error:
        notes.append(f"{what}: {error}")
        return None
