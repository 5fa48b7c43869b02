"""From a unit of a cache to its frames; columns of arrays that it does not hold are left out, nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from steerstats.cache import NOT_DEFINED, Unit
from steerstats.errors import CacheError, InputError
from steerstats.frames.columns import (
    INPUT_COLUMNS,
    PAIR_COLUMNS,
    PROPENSITY_COLUMNS,
    SLOPE_COLUMNS,
    VECTOR_COLUMNS,
    Column,
)
from steerstats.operators import has_unsteered, operator_of
from steerstats.steerability import fit_steerability

if TYPE_CHECKING:
    from steerstats.study.unit import StudyUnit

MAIN_KINDS = ("trained", "mean", "imported")
LOG_ODDS = ("logit_diff", "logprob_sum")
"""Scores that are log odds of the positive option. Sums of raw logits and an imported table's numbers are not."""


def inputs_frame(unit: Unit | StudyUnit) -> pd.DataFrame:
    """Every evaluated input with its factors, one row each; columns as in `INPUT_COLUMNS`.

    Prompt lengths, where the cache holds them, follow as `prompt_tokens_<setting>`, and nuisance factors of the
    user's own as `factor_<name>`: numbers with NaN, flags and text with missing values where a record has none.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> frame = steerstats.inputs_frame(study.unit(study.datasets[0]))
    >>> frame["input"].is_unique
    True
    """
    unit = _stored(unit)
    frame = _plain(unit, INPUT_COLUMNS)
    if "input_prompt_tokens" in unit:
        tokens = unit.read("input_prompt_tokens")
        for setting, row in zip(unit.coords["setting_eval"], tokens):
            frame[f"prompt_tokens_{setting}"] = row.astype(np.int64)
    return frame.assign(**_factors(unit, "input"))


def pairs_frame(unit: Unit | StudyUnit) -> pd.DataFrame:
    """Every training pair, one row each, with the cosine of its difference per setting (`cosine_<setting>`).

    Nuisance factors of the user's own follow as `factor_<name>`, as in `inputs_frame`.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> frame = steerstats.pairs_frame(study.unit(study.datasets[0]))
    >>> {"pair", "cosine_base"} <= set(frame.columns)
    True
    """
    unit = _stored(unit)
    frame = _plain(unit, PAIR_COLUMNS)
    if "pair_difference_cosine" in unit:
        for setting, row in zip(unit.coords["setting_train"], unit.read("pair_difference_cosine")):
            frame[f"cosine_{setting}"] = row.astype(float)
    return frame.assign(**_factors(unit, "pair"))


def vectors_frame(unit: Unit | StudyUnit) -> pd.DataFrame:
    """Every vector, controls included, one row each; columns as in `VECTOR_COLUMNS`.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> frame = steerstats.vectors_frame(study.unit(study.datasets[0]))
    >>> {"trained", "mean", "random"} <= set(frame["kind"])
    True
    """
    return _plain(_stored(unit), VECTOR_COLUMNS)


def propensity_frame(
    unit: Unit | StudyUnit,
    *,
    setting_eval: str | Sequence[str] | None = None,
    vector: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Propensities in long form, one row per setting, vector, multiplier and input; `PROPENSITY_COLUMNS`.

    `probability` (0 to 1, no unit) is the share of the positive option in the probability of the options alone; it is
    there where the score is a log odds of them, `LOG_ODDS`: of first differing tokens under logit_diff, of whole
    completions under logprob_sum. `answer_mass` says how much probability the options have together.

    Parameters
    ----------
    unit : steerstats.cache.Unit or StudyUnit
    setting_eval : str or sequence of str, optional
        Default: all.
    vector : str or sequence of str, optional
        Labels. Default: the main vectors (trained, mean and imported). Cells that the build did not plan have no rows.

    Raises
    ------
    InputError
        If `unit` is neither.
    CacheError
        If a label is not in the unit, or a planned value is not finite; the message names its coordinates.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> frame = steerstats.propensity_frame(study.unit(study.datasets[0]), setting_eval="base", vector="base")
    >>> bool(frame["multiplier"].min() < 0 < frame["multiplier"].max())
    True
    """
    unit = _stored(unit)
    settings, labels, planned = _cells(unit, setting_eval, vector)
    propensity = unit.read("propensity", setting_eval=settings, vector=labels).astype(float)
    shape = propensity.shape
    rows = np.broadcast_to(planned[:, :, None, None], shape)
    _refuse_holes(unit, propensity, rows, settings, labels)
    places = np.nonzero(rows)
    setting, row, multiplier, place = places
    columns = _labelled(unit, (settings, setting), (labels, row), place)
    columns |= {"multiplier": unit.coords["multiplier"][multiplier], "propensity": propensity[places]}
    if str(unit.attrs.get("score")) in LOG_ODDS:
        # The logistic function, in a form that does not overflow far from 0.
        columns["probability"] = np.exp(-np.logaddexp(0.0, -columns["propensity"]))
    if "answer_logit" in unit:
        logits = unit.read("answer_logit", setting_eval=settings, vector=labels).astype(float)
        columns["logit_positive"], columns["logit_negative"] = logits[:, :, :, 0][places], logits[:, :, :, 1][places]
        if "logsumexp" in unit:
            total = unit.read("logsumexp", setting_eval=settings, vector=labels).astype(float)[places]
            columns["logsumexp"] = total
            columns["answer_mass"] = sum(np.exp(one[places] - total) for one in np.moveaxis(logits, 3, 0))
    return _typed(columns, PROPENSITY_COLUMNS)


def slopes_frame(
    unit: Unit | StudyUnit,
    *,
    setting_eval: str | Sequence[str] | None = None,
    vector: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Per-input steerability, one row per setting, vector and input; columns as in `SLOPE_COLUMNS`.

    All inputs are there, those of split "val" too; arguments and errors as in `propensity_frame`.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> frame = steerstats.slopes_frame(study.unit(study.datasets[0]))
    >>> bool(frame["slope"].notna().all())
    True
    """
    unit = _stored(unit)
    settings, labels, planned = _cells(unit, setting_eval, vector)
    curves = unit.read("propensity", setting_eval=settings, vector=labels).astype(float)
    _refuse_holes(unit, curves, np.broadcast_to(planned[:, :, None, None], curves.shape), settings, labels)
    fit = fit_steerability(np.moveaxis(curves, 2, -1), unit.coords["multiplier"], planned=planned)
    places = np.nonzero(np.broadcast_to(planned[:, :, None], fit.slope.shape))
    setting, row, place = places
    columns = _labelled(unit, (settings, setting), (labels, row), place)
    for name in ("slope", "intercept", "unsteered", "r_squared", "rmse", "curvature", "monotonicity"):
        columns[name] = getattr(fit, name)[places]
    if not has_unsteered(operator_of(unit.attrs)):
        columns["unsteered"] = np.full(len(place), np.nan)
    for name in ("split", "pos_is_a", "pos_is_yes"):
        if f"input_{name}" in unit:
            columns[name] = unit.read(f"input_{name}")[place]
    return _typed(columns, SLOPE_COLUMNS)


def _stored(given: Unit | StudyUnit) -> Unit:
    """The unit as the cache has it; a study's keeps it in `unit`."""
    unit = getattr(given, "unit", given)
    if not isinstance(unit, Unit):
        kind = type(given).__name__
        raise InputError(f"unit is a {kind}; one dataset's unit is needed, such as study.unit(study.datasets[0])")
    return unit


def _plain(unit: Unit, declared: tuple[Column, ...]) -> pd.DataFrame:
    """A frame whose columns are arrays along one axis."""
    columns: dict[str, np.ndarray] = {}
    for column in declared:
        if not column.source:
            continue
        if column.source not in unit:
            if column.required:
                raise CacheError(f"{unit.where}: column {column.name!r} needs /{column.source}, which is not there")
            continue
        values = unit.read(column.source)
        if column.source == "vector_layer":
            values = np.array(["+".join(map(str, row)) for row in values], dtype=object)
        columns[column.name] = values
    length = len(next(iter(columns.values())))
    return _typed({"dataset": np.full(length, unit.name, dtype=object), **columns}, declared)


def _factors(unit: Unit, axis: str) -> dict[str, object]:
    """Columns of the arrays `input_factor_<name>` or `pair_factor_<name>`."""
    columns: dict[str, object] = {}
    for name in unit.names:
        if name.startswith(f"{axis}_factor_"):
            columns[name.removeprefix(f"{axis}_")] = factor_column(unit.read(name))
    return columns


def factor_column(values: np.ndarray) -> pd.Series:
    """A stored factor of the user's own: numbers, flags or text, missing where a record has none.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.frames import factor_column
    >>> factor_column(np.array([1, 0, -1], dtype=np.int8)).tolist()
    [True, False, <NA>]
    """
    if values.dtype == np.int8:
        return pd.Series(np.where(values == NOT_DEFINED, None, values == 1), dtype="boolean")
    if values.dtype == object:
        return pd.Series(values, dtype="str").where(values != "")
    return pd.Series(values)


def _typed(columns: dict[str, np.ndarray], declared: tuple[Column, ...]) -> pd.DataFrame:
    """Columns in their declared order and type."""
    out = {}
    for column in declared:
        if column.name not in columns:
            continue
        values = columns[column.name]
        if column.dtype == "boolean":
            missing = values == NOT_DEFINED
            out[column.name] = pd.array(np.where(missing, None, values == 1), dtype="boolean")
        else:
            out[column.name] = pd.Series(values).astype(column.dtype)
    return pd.DataFrame(out)


def _cells(
    unit: Unit, setting_eval: str | Sequence[str] | None, vector: str | Sequence[str] | None
) -> tuple[list[str], list[str], np.ndarray]:
    """Settings, vector labels, and which of their cells were planned."""
    settings = _labels(unit, "setting_eval", setting_eval)
    if vector is None:
        main = (unit.read("vector_replicate") == -1) & np.isin(unit.read("vector_kind").astype(str), MAIN_KINDS)
        labels = list(unit.coords["vector"][main])
    else:
        labels = _labels(unit, "vector", vector)
    return settings, labels, unit.read("planned", setting_eval=settings, vector=labels).astype(bool)


def _labelled(
    unit: Unit, settings: tuple[list[str], np.ndarray], vectors: tuple[list[str], np.ndarray], inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """What every row of a long frame is of: labels with their places for settings and vectors, places of inputs."""
    of_vector = dict(zip(unit.coords["vector"], unit.read("vector_setting")))
    (labels, places), trained = vectors, [of_vector[label] for label in vectors[0]]
    return {
        "dataset": np.full(len(inputs), unit.name, dtype=object),
        "setting_eval": np.array(settings[0], dtype=object)[settings[1]],
        "vector": np.array(labels, dtype=object)[places],
        "setting_train": np.array(trained, dtype=object)[places],
        "input": unit.coords["input"][inputs],
        "question": unit.read("input_question")[inputs],
    }


def _labels(unit: Unit, axis: str, wanted: str | Sequence[str] | None) -> list[str]:
    if wanted is None:
        return list(unit.coords[axis])
    labels = [wanted] if isinstance(wanted, str) else list(wanted)
    if not labels:
        raise InputError(f"{axis} is empty; give at least one label")
    return labels


def _refuse_holes(unit: Unit, grid: np.ndarray, planned: np.ndarray, settings: list[str], labels: list[str]) -> None:
    bad = planned & ~np.isfinite(grid)
    if bad.any():
        e, v, m, i = (int(k) for k in np.argwhere(bad)[0])
        raise CacheError(
            f"{unit.where}: /propensity is {grid[e, v, m, i]} at setting_eval={settings[e]}, vector={labels[v]}, "
            f"multiplier={unit.coords['multiplier'][m]:g}, input={unit.coords['input'][i]}; it should be finite"
        )
