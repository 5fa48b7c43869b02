"""A cache as a study: every question of the field is one method, every answer a frozen result.

    study = steerstats.open_cache("my-cache")
    print(study.steerability().summary())
    gaps = study.generalization(seed=1)

Conventions: inputs of split "test" only, complete cases across the settings compared, main vectors only (controls
enter as refits and nulls), every random number from an explicit seed and the dataset's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from steerstats import study_checking as checks
from steerstats import study_estimates as estimates
from steerstats.cache import SETTINGS, CacheReader
from steerstats.errors import CacheError
from steerstats.generalization import (
    ID_SHIFT,
    PAPER_SHIFTS,
    AnswerMass,
    CorrelationTable,
    SlopeGrid,
    parse_shift,
    shift_name,
)
from steerstats.generalization.slopes import Shift
from steerstats.power import PowerTable
from steerstats.study_checks import Debiased, MultiplierRange, NullComparison, VectorCosines
from steerstats.study_results import DatasetSteerability, Generalization, PerDataset, SpuriousTable
from steerstats.study_unit import Slopes, StudyUnit

__all__ = ["Study", "demo_cache", "open_cache"]

ID = shift_name(ID_SHIFT)
FACTORS = ("pos_is_a", "pos_is_yes")


def open_cache(path: str | Path, *, datasets: Sequence[str] | None = None, layer: int | None = None) -> Study:
    """Open a cache, directory or packed file, for analysis.

    Parameters
    ----------
    path : path
    datasets : sequence of str, optional
        Analyse these alone. A dataset's own numbers do not depend on which others are there.
    layer : int, optional
        The layer to look at in a sweep, where several were steered one at a time.

    Returns
    -------
    Study

    Raises
    ------
    CacheError
        If the path is no cache, no unit is finished, or a dataset is not there.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> len(study.datasets) > 0
    True
    """
    return Study(CacheReader(path), datasets=datasets, layer=layer)


def demo_cache() -> Path:
    """Path of the small packed cache that ships with steerstats, built from the bundled model.

    Raises
    ------
    CacheError
        If this installation lacks it.
    """
    path = Path(str(resources.files("reports").joinpath("examples", "demo", "cache.h5")))
    if not path.is_file():
        raise CacheError(f"{path} is missing from this installation; `steerstats demo` builds one like it")
    return path


class Study:
    """The units of one cache with the questions that can be asked of them. Made by `open_cache`."""

    def __init__(self, reader: CacheReader, *, datasets: Sequence[str] | None = None, layer: int | None = None) -> None:
        self.reader, self.layer = reader, layer
        wanted = reader.units if datasets is None else tuple(datasets)
        if not wanted:
            planned = ", ".join(reader.planned_units[:5])
            raise CacheError(f"{reader.path} has no finished unit to analyse; planned are {planned or 'none'}")
        split = "val" if reader.kind == "sweep" else "test"
        self._units = {name: StudyUnit(reader[name], split=split, layer=layer) for name in wanted}

    def __repr__(self) -> str:
        return f"<Study of {self.model}: {len(self.datasets)} datasets, settings {', '.join(self.settings)}>"

    @property
    def path(self) -> Path:
        """Where the cache lies."""
        return self.reader.path

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets under analysis, in the manifest's order."""
        return tuple(self._units)

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
    def category(self) -> dict[str, str] | None:
        """Dataset to family, None unless the manifest says so for every dataset."""
        known = self.reader.manifest.get("categories") or {}
        return {name: str(known[name]) for name in self.datasets} if set(self.datasets) <= set(known) else None

    @property
    def settings(self) -> tuple[str, ...]:
        """Evaluation settings of any dataset, in the paper's order."""
        found = dict.fromkeys(name for unit in self._units.values() for name in unit.settings)
        return tuple(sorted(found, key=lambda name: SETTINGS.index(name) if name in SETTINGS else len(SETTINGS)))

    @property
    def vectors(self) -> tuple[str, ...]:
        """Training settings of the main vectors, and "mean"."""
        return tuple(dict.fromkeys(name for unit in self._units.values() for name in unit.vectors))

    def unit(self, dataset: str) -> StudyUnit:
        """One dataset's arrays, restricted to what an analysis uses."""
        if dataset not in self._units:
            raise CacheError(
                f"{self.path}: dataset {dataset!r} is not in this study; it has {', '.join(self.datasets)}"
            )
        return self._units[dataset]

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
        """
        if wanted is not None:
            return tuple(self.require(shift) for shift in wanted)
        found = tuple(shift for shift in PAPER_SHIFTS if all(unit.has(shift) for unit in self._units.values()))
        if not found:
            raise CacheError(
                f"{self.path}: none of {', '.join(map(shift_name, PAPER_SHIFTS))} is in this cache for every dataset; "
                f"it was built with the settings {', '.join(self.settings)}"
            )
        return found

    def require(self, shift: Shift | str) -> Shift:
        """A shift as a pair, or a CacheError that says what the cache has instead."""
        train, evaluation = parse_shift(shift)
        name = shift_name((train, evaluation))
        for known, asked, what in ((self.settings, evaluation, "settings"), (self.vectors, train, "vectors")):
            if asked not in known:
                raise CacheError(
                    f"{self.path}: {name} is not in this cache: built without {asked}; it has the {what} "
                    f"{', '.join(known)}"
                )
        for dataset, unit in self._units.items():
            if not unit.has((train, evaluation)):
                has = [shift_name((t, e)) for t in unit.vectors for e in unit.settings if unit.has((t, e))]
                raise CacheError(
                    f"{self.path}: {name} is not in this cache: dataset {dataset} was evaluated in {', '.join(has)}"
                )
        return train, evaluation

    def grid(self, shifts: Sequence[Shift | str] | None = None, *, refits: bool = False) -> SlopeGrid:
        """Slopes of all datasets as the estimators of `steerstats.generalization` take them.

        Parameters
        ----------
        shifts : sequence of (train, eval) or "train->eval", optional
            Hold only these cells. Default: everything that was evaluated.
        refits : bool
            Add the slopes under resampled vectors, which every one of `shifts` must have (`has_refits`).
        """
        cells = None if shifts is None else [self.require(shift) for shift in shifts]
        return estimates.slope_grid(self, cells, refits)

    def has_refits(self, shifts: Sequence[Shift | str]) -> bool:
        """Whether every dataset has two or more resampled vectors under each of the shifts."""
        return estimates.has_refits(self, [parse_shift(shift) for shift in shifts])

    def steerability(self, shift: Shift | str = ID, *, seed: int = 0, level: float = 0.95) -> DatasetSteerability:
        """Mean, median, spread and sign of per-input steerability, dataset by dataset.

        `seed` is there for symmetry: these intervals are closed form, and every seed gives the same table.

        Examples
        --------
        >>> import steerstats
        >>> table = steerstats.open_cache(steerstats.demo_cache()).steerability()
        >>> sorted(set(table.to_frame()["name"]))[:3]
        ['anti_steerable', 'mean', 'median']
        """
        return estimates.steerability(self, self.require(shift), level)

    def spurious_factors(
        self,
        shift: Shift | str = ID,
        *,
        factors: Sequence[str] = FACTORS,
        interactions: bool = False,
        seed: int = 0,
        level: float = 0.95,
        n_resamples: int = 2000,
    ) -> SpuriousTable:
        """Steerability bias: what A/B position, Yes/No and other factors do to slopes and unsteered propensity.

        Parameters
        ----------
        shift : (train, eval) or "train->eval"
        factors : sequence of str
            Of `pos_is_a`, `pos_is_yes`, `length_difference` (characters, positive minus negative option),
            `prompt_tokens`. A dataset in which one does not vary goes without it, and says so.
        interactions : bool
            Add pos_is_a × pos_is_yes.
        seed, level, n_resamples
            Of the bootstrap behind variance shares.

        Examples
        --------
        >>> import steerstats
        >>> bias = steerstats.open_cache(steerstats.demo_cache()).spurious_factors(n_resamples=200)
        >>> {"dataset", "response", "term", "estimate", "ci_low", "ci_high"} <= set(bias.to_frame().columns)
        True
        """
        return estimates.spurious(self, self.require(shift), tuple(factors), interactions, seed, level, n_resamples)

    def generalization(
        self,
        shifts: Sequence[Shift | str] | None = None,
        *,
        seed: int = 0,
        level: float = 0.95,
        n_resamples: int = 10_000,
    ) -> Generalization:
        """Gaps with their two parts, relative steerability, and ID-OOD rank correlations.

        Parameters
        ----------
        shifts : sequence of (train, eval) or "train->eval", optional
            Default: those of the paper's four that the cache has; the rest are named in the warnings.

        Examples
        --------
        >>> import steerstats
        >>> gaps = steerstats.open_cache(steerstats.demo_cache()).generalization(n_resamples=200)
        >>> gaps.gaps.components[0]
        'gap'
        """
        chosen = self.shifts(shifts)
        self.require(ID_SHIFT)
        return estimates.generalization(self, chosen, seed, level, n_resamples)

    def cross_model(
        self,
        other: Study | str | Path,
        shifts: Sequence[Shift | str] | None = None,
        *,
        seed: int = 0,
        level: float = 0.95,
        n_resamples: int = 10_000,
    ) -> CorrelationTable:
        """Agreement over datasets of mean steerability between this model and another, per shift.

        Parameters
        ----------
        other : Study or path
        shifts : sequence of (train, eval) or "train->eval", optional
            Default: base->base, and those of the paper's four that both caches have.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> study.cross_model(study, n_resamples=200).n == len(study.datasets)
        True
        """
        second = other if isinstance(other, Study) else open_cache(other, layer=self.layer)
        return estimates.cross_model(self, second, shifts, seed, level, n_resamples)

    def nulls(self, shift: Shift | str = ID, *, alpha: float = 0.05) -> NullComparison:
        """Vectors against random directions and against label-shuffled vectors of the same norm, never pooled.

        Raises
        ------
        CacheError
            If the cache was built without either.
        """
        return checks.nulls(self, self.require(shift), alpha)

    def debiased(self, shift: Shift | str = ID, *, seed: int = 0, level: float = 0.95) -> Debiased:
        """What projecting the A/B and Yes/No directions out of the vector does to steerability and to its bias."""
        return checks.debiased(self, self.require(shift), seed, level)

    def reliability(self, shift: Shift | str = ID, *, level: float = 0.95) -> PerDataset:
        """How much of the spread of slopes is a difference between inputs, from refitted vectors."""
        return checks.reliability(self, self.require(shift), level)

    def answer_mass(self, shift: Shift | str = ID, *, threshold: float = 0.5, level: float = 0.95) -> AnswerMass:
        """Probability of the two answers by multiplier; datasets where they lose it are flagged.

        Examples
        --------
        >>> import steerstats
        >>> mass = steerstats.open_cache(steerstats.demo_cache()).answer_mass()
        >>> bool(mass.to_frame()["mean"].between(0, 1).all())
        True
        """
        return checks.answer_mass(self, self.require(shift), threshold, level)

    def vector_cosines(self) -> VectorCosines:
        """Cosines between the vectors of different training settings, beside those with their own refits."""
        return checks.vector_cosines(self)

    def linearity(self, shift: Shift | str = ID, *, level: float = 0.95) -> PerDataset:
        """Are propensity curves straight: Hotelling T² per dataset, with its effect size.

        Examples
        --------
        >>> import steerstats
        >>> straight = steerstats.open_cache(steerstats.demo_cache()).linearity()
        >>> "rms_departure" in straight.to_frame()
        True
        """
        return checks.linearity(self, self.require(shift), level)

    def multiplier_range(self, shift: Shift | str = ID, *, level: float = 0.95) -> MultiplierRange:
        """Mean steerability fitted on |λ| ≤ c alone, for every c of the grid."""
        return checks.multiplier_range(self, self.require(shift), level)

    def power(
        self,
        shift: Shift | str | None = None,
        *,
        n_inputs: int | Sequence[int] | None = None,
        n_datasets: int | Sequence[int] | None = None,
        n_pairs: int | Sequence[int] | None = None,
        power: float = 0.8,
        alpha: float = 0.05,
    ) -> PowerTable:
        """Smallest mean gap that a study of this or another size would find.

        Parameters
        ----------
        shift : (train, eval) or "train->eval", optional
            Default: the first out-of-distribution shift of the cache.
        n_inputs, n_datasets, n_pairs : int or sequence of int, optional
            Sizes to consider; default: this study's.
        """
        chosen = self.require(shift) if shift is not None else self.shifts()[0]
        return estimates.detectable_gap(self, chosen, n_inputs, n_datasets, n_pairs, power, alpha)
