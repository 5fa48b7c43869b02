"""What a study is made of: the finished units of one cache, its labels, and the slopes that the estimators take."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steerstats.cache import SETTINGS, CacheReader
from steerstats.errors import Absent, CacheError, check_count, first_few, how_many
from steerstats.generalization import PAPER_SHIFTS, SlopeGrid, parse_shift, shift_name
from steerstats.generalization.slopes import Shift, parse_shifts
from steerstats.operators import has_unsteered
from steerstats.protocol import UNNAMED
from steerstats.study.factors import FACTORS, own_factors
from steerstats.study.unit import Slopes, StudyUnit, names_once


def demo_cache() -> Path:
    """Path of the small packed cache that ships with steerstats, built from the bundled model.

    Raises
    ------
    CacheError
        If this installation lacks it.

    Examples
    --------
    >>> import steerstats
    >>> steerstats.demo_cache().name
    'cache.h5'
    """
    path = Path(str(resources.files("reports").joinpath("examples", "demo", "cache.h5")))
    if not path.is_file():
        raise CacheError(f"{path} is missing from this installation; `steerstats demo` builds one like it")
    return path


class StudyBase:
    """Units, labels and slopes; `steerstats.study.Study` adds the questions.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> study.path.name, study.kind, study.model
    ('cache.h5', 'grid', 'bundled:demo/model')
    >>> len(study.datasets), study.missing, study.category
    (14, (), None)
    >>> study.settings
    ('base', 'sys_pos', 'sys_neg', 'user_pos', 'user_neg')
    >>> study.vectors
    ('base', 'sys_pos', 'sys_neg', 'user_pos', 'user_neg', 'mean')
    >>> study.spec["scope"]
    'last_prompt'
    """

    def __init__(self, reader: CacheReader, *, datasets: Sequence[str] | None = None, layer: int | None = None) -> None:
        self.reader, self.layer = reader, layer
        if layer is not None:
            check_count("layer", layer, at_least=0)
        wanted = reader.units if datasets is None else names_once("datasets", datasets)
        if not wanted:
            planned = first_few(reader.planned_units)
            raise CacheError(f"{reader.path} has no finished unit to analyse; planned are {planned or 'none'}")
        split = "val" if reader.kind == "sweep" else "test"
        # A builder's refits follow from its seed; simulated and imported ones are of nobody else's pairs.
        built = reader.kind in ("grid", "sweep")
        seed = (reader.manifest.get("spec") or {}).get("seed") if built else None
        #: Dataset -> its unit; `unit` gives one, or says which there are.
        self.units = {name: StudyUnit(reader[name], split=split, layer=layer, seed=seed) for name in wanted}

    def __repr__(self) -> str:
        datasets = how_many(len(self.datasets), "dataset")
        model = "a model that is not recorded" if self.model == UNNAMED else self.model
        return f"<Study of {model}: {datasets}, settings {', '.join(self.settings)}>"

    @property
    def path(self) -> Path:
        """Where the cache lies."""
        return self.reader.path

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets under analysis, in the manifest's order."""
        return tuple(self.units)

    @property
    def missing(self) -> tuple[str, ...]:
        """Datasets that the build planned and has not finished."""
        return self.reader.missing

    @property
    def kind(self) -> str:
        """grid, sweep, import or simulated."""
        return self.reader.kind

    @property
    def spec(self) -> dict[str, Any]:
        """The build spec, as the manifest records it."""
        return dict(self.reader.manifest.get("spec") or {})

    @property
    def model(self) -> str:
        """Name of the model."""
        named = self.reader.manifest.get("model")
        return str(named.get("id", named) if isinstance(named, dict) else named)

    @property
    def operators(self) -> tuple[str, ...]:
        """How the vectors act, each operator once: one in a cache that was built; ("add",) where it is not recorded."""
        return tuple(dict.fromkeys(unit.operator for unit in self.units.values()))

    @property
    def category(self) -> dict[str, str] | None:
        """Dataset to family, None unless the manifest says so for every dataset."""
        known = self.reader.manifest.get("categories") or {}
        return {name: str(known[name]) for name in self.datasets} if set(self.datasets) <= set(known) else None

    @property
    def settings(self) -> tuple[str, ...]:
        """Evaluation settings of any dataset, in the paper's order."""
        found = dict.fromkeys(name for unit in self.units.values() for name in unit.settings)
        return tuple(sorted(found, key=lambda name: SETTINGS.index(name) if name in SETTINGS else len(SETTINGS)))

    @property
    def vectors(self) -> tuple[str, ...]:
        """Training settings of the main vectors, "mean", and the names of vectors made elsewhere."""
        return tuple(dict.fromkeys(name for unit in self.units.values() for name in unit.vectors))

    @property
    def own_factors(self) -> tuple[str, ...]:
        """Factors of the user's own that any dataset has, `factor_NAME`."""
        return tuple(dict.fromkeys(name for unit in self.units.values() for name in own_factors(unit.unit)))

    def unit(self, dataset: str) -> StudyUnit:
        """One dataset's arrays, restricted to what an analysis uses.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> study.unit(study.datasets[0]).multipliers.tolist()
        [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
        """
        if dataset not in self.units:
            raise CacheError(
                f"{self.path}: dataset {dataset!r} is not in this study; it has {', '.join(self.datasets)}"
            )
        return self.units[dataset]

    def slopes(self, dataset: str) -> Slopes:
        """Per-input steerability of one dataset under every main vector, in every setting.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> slopes = study.slopes(study.datasets[0])
        >>> slopes.at("base->base").shape == (len(slopes.inputs),)
        True
        """
        return self.unit(dataset).slopes

    def shifts(self, wanted: Sequence[Shift | str] | None = None) -> tuple[Shift, ...]:
        """The shifts asked for, or those of the paper's out-of-distribution shifts that every dataset has.

        Raises
        ------
        CacheError
            If the cache lacks one that was asked for, or has none of the paper's.
        InputError
            If one is no shift, or is there twice.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> study.shifts(["base->user_neg"])
        (('base', 'user_neg'),)
        """
        if wanted is not None:
            return tuple(self.require(shift) for shift in parse_shifts(wanted))
        found = tuple(shift for shift in PAPER_SHIFTS if all(unit.has(shift) for unit in self.units.values()))
        if not found:
            raise CacheError(
                f"{self.path}: none of {', '.join(map(shift_name, PAPER_SHIFTS))} is in this cache for every dataset; "
                f"it has the settings {', '.join(self.settings)}"
            )
        return found

    def require(self, shift: Shift | str) -> Shift:
        """A shift as a pair, or a CacheError that says what the cache has instead.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> study.require("base->user_pos")
        ('base', 'user_pos')
        """
        train, evaluation = parse_shift(shift)
        name = shift_name((train, evaluation))
        for known, asked, what in ((self.settings, evaluation, "settings"), (self.vectors, train, "vectors")):
            if asked not in known:
                without = "the table has no rows for" if self.kind == "import" else "built without"
                raise Absent(
                    f"{self.path}: {name} is not in this cache: {without} {asked}; it has the {what} {', '.join(known)}"
                )
        for dataset, unit in self.units.items():
            if not unit.has((train, evaluation)):
                has = ", ".join(map(shift_name, unit.evaluated))
                raise Absent(f"{self.path}: {name} is not in this cache: dataset {dataset} was evaluated in {has}")
        return train, evaluation

    def grid(self, shifts: Sequence[Shift | str] | None = None, *, refits: bool = False) -> SlopeGrid:
        """Slopes of all datasets as the estimators of `steerstats.generalization` take them.

        Parameters
        ----------
        shifts : sequence of (train, eval) or "train->eval", optional
            Hold only these cells. Default: everything that was evaluated.
        refits : bool
            Add the slopes under resampled vectors, in every dataset and cell that has them.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> study.grid(["base->base"], refits=True).refits is None
        False
        """
        cells = None if shifts is None else self.shifts(shifts)
        train, evaluate = self.vectors, self.settings
        slopes, question, unsteered, again, draws = {}, {}, {}, {}, {}
        for name, unit in self.units.items():
            own, n = unit.slopes, len(unit.inputs)
            slopes[name] = np.full((len(train), len(evaluate), n), np.nan)
            question[name] = own.question
            unsteered[name] = np.full((len(evaluate), n), np.nan)
            unsteered[name][[evaluate.index(setting) for setting in own.settings]] = own.unsteered
            for shift in unit.evaluated if cells is None else cells:
                slopes[name][train.index(shift[0]), evaluate.index(shift[1])] = own.at(shift)
            measured = [shift for shift in unit.refitted if cells is None or shift in cells]
            if refits and measured:
                again[name], common = self._refits(unit, measured)
                if unit.training_draw is not None:
                    draws[name] = tuple(f"{unit.training_draw}:{k}" for k in common)
        return SlopeGrid(
            train=train,
            evaluate=evaluate,
            slopes=slopes,
            question=question,
            unsteered=unsteered if all(map(has_unsteered, self.operators)) else None,
            refits=again or None,
            refit_draw=draws or None,
            category=self.category,
        )

    def curves_frame(self, shift: Shift | str = "base->base") -> pd.DataFrame:
        """One row per input and multiplier of a shift, for mixed models and plots.

        Returns
        -------
        DataFrame
            dataset, input, question, `lam` (multiplier), `y` (propensity, nats), and the factors that every dataset
            records: pos_is_a and pos_is_yes coded +1/2 and -1/2 (missing where not defined), length_difference,
            prompt_tokens.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> study.curves_frame().columns[:5].tolist()
        ['dataset', 'input', 'question', 'lam', 'y']
        """
        chosen, frames = self.require(shift), []
        for name, unit in self.units.items():
            m, n = len(unit.multipliers), len(unit.inputs)
            columns = {
                "dataset": np.full(n * m, name, dtype=object),
                "input": np.repeat(np.array(unit.inputs, dtype=object), m),
                "question": np.repeat(unit.question, m),
                "lam": np.tile(unit.multipliers, n),
                "y": unit.propensity[unit.place(chosen)].ravel(),
            }
            for factor, values in unit.factors(FACTORS, chosen[1]).items():
                columns[factor] = np.repeat(values - 0.5 if factor.startswith("pos_is_") else values, m)
            frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True, join="inner")

    def has_refits(self, shifts: Sequence[Shift | str]) -> bool:
        """Whether every dataset has two or more resampled vectors under each of the shifts.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> study.has_refits(["base->base"])
        True
        """
        cells = parse_shifts(shifts)
        return all(unit.has_refits(shift) for unit in self.units.values() for shift in cells)

    def _refits(self, unit: StudyUnit, cells: list[Shift]) -> tuple[np.ndarray, list[int]]:
        """(refit, setting_train, setting_eval, input), NaN outside `cells`, and the number of each refit.

        Refit k is of one resample of pairs in every setting, so replicates are matched by number.
        """
        numbers = {train: unit.replicates("resampled", train) for train, _ in cells}
        common = [k for k in next(iter(numbers.values())) if all(k in others for others in numbers.values())]
        if len(common) < 2:
            counts = ", ".join(f"{train} {list(have)}" for train, have in numbers.items())
            raise CacheError(
                f"{unit.unit.where}: resampled vectors of different settings share no two replicates ({counts}), so "
                "that their errors cannot be paired"
            )
        out = np.full((len(common), len(self.vectors), len(self.settings), len(unit.inputs)), np.nan)
        for train, evaluation in cells:
            rows = [numbers[train].index(k) for k in common]
            part = unit.control_slopes("resampled", (train, evaluation))[rows]
            out[:, self.vectors.index(train), self.settings.index(evaluation)] = part
        return out, common
