"""What a build will do, before any model is loaded: units, their pairs, and what each one holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache_builder.datasets import ContrastPair, Dataset, Split, find_source, load_dataset, paper_datasets, split_pairs
from cache_builder.spec import BuildSpec
from cache_builder.vectors.extractors import nuisance_weights
from steerstats.cache import NOT_DEFINED
from steerstats.errors import InputError, SpecError


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """One unit: a dataset with its split, and the pairs that are evaluated (test; validation in a sweep)."""

    name: str
    dataset: Dataset
    split: Split
    evaluated: tuple[ContrastPair, ...]
    evaluated_split: str

    @property
    def training(self) -> tuple[ContrastPair, ...]:
        """Pairs that the vectors are made from."""
        return self.split.train

    @property
    def category(self) -> str:
        """Family of a public dataset (datasets of one family are not independent); "" for anything else."""
        return find_source(self.name).family if self.name in paper_datasets() else ""


def plan_units(spec: BuildSpec) -> tuple[UnitPlan, ...]:
    """Load and split every dataset of a spec.

    Returns
    -------
    tuple of UnitPlan
        In the spec's order.

    Raises
    ------
    SpecError
        If two datasets share a name, one has fewer training questions than `controls.folds`, or a sweep has no
        validation part.
    InputError
        One line naming file, line and field of a malformed record, or of one with several wrong answers where two
        descriptions are contrasted.
    """
    units: dict[str, UnitPlan] = {}
    for name in spec.dataset_names():
        dataset = load_dataset(
            name,
            path=spec.custom_datasets.get(name),
            order=spec.order,
            seed=spec.seed,
            data_dir=spec.run.data_dir,
        )
        wrong = next((pair for pair in dataset.pairs if pair.others), None)
        if wrong is not None and spec.vectors.read == "last_prompt":
            raise InputError(
                f'{wrong.place}: has several wrong answers, and vectors.read = "last_prompt" contrasts two descriptions'
            )
        try:
            split = split_pairs(dataset.pairs, spec.split, spec.split_percent, spec.seed, spec.limit)
        except InputError as error:
            raise InputError(f"dataset {name}: {error}") from None
        if spec.controls.folds > (questions := len({pair.question for pair in split.train})):
            raise SpecError(
                f"controls.folds: {spec.controls.folds} disjoint folds need as many training questions, and dataset "
                f"{name} has {questions}"
            )
        evaluated, label = (split.validation, "val") if spec.sweep else (split.test, "test")
        if not evaluated:
            hint = "give split_percent a middle share above 0"
            if spec.split == "tan2024-literal":
                hint = 'the split "tan2024-literal" has none; use split = "content"'
            raise SpecError(f"sweep: dataset {name} has no validation part; {hint}")
        if dataset.name in units:
            raise SpecError(f"datasets: two of them are called {dataset.name}; names make files, rename one")
        units[dataset.name] = UnitPlan(dataset.name, dataset, split, evaluated, label)
    return tuple(units.values())


def planned_grid(
    spec: BuildSpec, kinds: Sequence[str], settings: Sequence[str], eval_settings: Sequence[str]
) -> np.ndarray:
    """Which vector is evaluated in which setting.

    Parameters
    ----------
    spec : BuildSpec
        Its `shifts` restrict the main vectors and imported ones, `controls.shifts` the controls.
    kinds, settings : sequence of str (n_vectors,)
        `vector_kind` and `vector_setting`.
    eval_settings : sequence of str
        Rows of the result.

    Returns
    -------
    ndarray (n_eval, n_vectors) of uint8
    """
    planned = np.zeros((len(eval_settings), len(kinds)), dtype=np.uint8)
    for column, (kind, trained) in enumerate(zip(kinds, settings)):
        shifts = spec.shifts if kind in ("trained", "mean", "imported") else spec.controls.shifts
        for row, evaluated in enumerate(eval_settings):
            planned[row, column] = shifts == "all" or f"{trained}->{evaluated}" in shifts
    return planned


def dataset_facts(units: Sequence[UnitPlan], descriptions: Mapping[str, Mapping[str, str]]) -> dict[str, object]:
    """What identifies the data of a build: hashes of source files, and the descriptions that prompts hold."""
    return {
        "datasets": {unit.name: unit.dataset.sha256 for unit in units},
        "descriptions": {unit.name: dict(descriptions.get(unit.name, {})) for unit in units},
    }


def fit_options(spec: BuildSpec, unit: UnitPlan) -> dict[str, Any]:
    """What decides which vectors `fit_vectors` makes of a unit, and from which of its questions."""
    pairs, controls = pair_arrays(unit.training, "pair", text=False), spec.controls
    asked = {name: getattr(controls, name) for name in ("resampled", "folds", "random", "shuffled", "debiased")}
    return asked | {
        "questions": pairs["pair_question"],
        "pos_is_a": pairs["pair_pos_is_a"],
        "pos_is_yes": pairs["pair_pos_is_yes"],
        "mean": spec.vectors.mean,
        "rescale": spec.vectors.rescale,
        "control_settings": spec.control_settings() or None,
    }


def defines_letter_or_word(unit: UnitPlan) -> bool:
    """Whether a unit's training pairs define the direction of A/B or of Yes/No, without which none is projected out."""
    pairs = unit.training
    flags = (_flags(pair.pos_is_a for pair in pairs), _flags(pair.pos_is_yes for pair in pairs))
    return len(nuisance_weights(len(pairs), *flags)) > 0


def pair_arrays(pairs: Sequence[ContrastPair], prefix: str, *, text: bool) -> dict[str, np.ndarray]:
    """The arrays of the schema that describe pairs, `input_...` or `pair_...`, with their scale.

    Parameters
    ----------
    pairs : sequence of ContrastPair
    prefix : {"input", "pair"}
    text : bool
        Prompts, completions and options as well, which only inputs have room for.
    """
    columns: dict[str, np.ndarray] = {
        "question": _text(pair.question for pair in pairs),
        "pos_is_a": _flags(pair.pos_is_a for pair in pairs),
        "pos_is_yes": _flags(pair.pos_is_yes for pair in pairs),
        "len_positive": np.array([pair.len_positive for pair in pairs], dtype=np.int32),
        "len_negative": np.array([pair.len_negative for pair in pairs], dtype=np.int32),
        "row": np.array([pair.row for pair in pairs], dtype=np.int32),
    }
    if text:
        columns |= {
            "text": _text(pair.text for pair in pairs),
            "positive": _text(pair.positive for pair in pairs),
            "negative": _text(pair.negative for pair in pairs),
            "option_positive": _text(pair.option_positive for pair in pairs),
            "option_negative": _text(pair.option_negative for pair in pairs),
            "twin": np.array([pair.twin for pair in pairs], dtype=np.int8),
        }
        for k in range(len(pairs[0].others)):
            columns[f"negative_{k + 2}"] = _text(pair.others[k] for pair in pairs)
    ids = _text(pair.id for pair in pairs)
    return {prefix: ids} | {f"{prefix}_{name}": values for name, values in columns.items()}


def factor_arrays(
    everything: Sequence[ContrastPair], pairs: Sequence[ContrastPair], prefix: str
) -> dict[str, np.ndarray]:
    """The user's own nuisance factors, `input_factor_<name>` or `pair_factor_<name>`.

    Parameters
    ----------
    everything : sequence of ContrastPair
        The whole dataset: a factor that a part of it lacks is an array of gaps there.
    pairs : sequence of ContrastPair
    prefix : {"input", "pair"}

    Returns
    -------
    dict
        int8 of 1, 0 and -1 for true/false, float64 with NaN for numbers, text with "" for text; the gaps are those
        of the records.
    """
    kinds = {name: type(value) for pair in everything for name, value in pair.factors.items()}
    arrays = {}
    for name, kind in kinds.items():
        values = [pair.factors.get(name) for pair in pairs]
        if kind is bool:
            column = _flags(values)
        elif kind is str:
            column = _text("" if value is None else value.replace("\0", "\ufffd") for value in values)
        else:
            column = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        arrays[f"{prefix}_factor_{name}"] = column
    return arrays


def _text(values) -> np.ndarray:
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def _flags(values) -> np.ndarray:
    return np.array([NOT_DEFINED if value is None else int(value) for value in values], dtype=np.int8)
