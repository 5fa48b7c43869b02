"""Robustness checks of a study: nulls, refits, straightness, answer mass, other ranges and vectors."""

from __future__ import annotations

from steerstats.errors import check_count, check_level, check_resamples
from steerstats.generalization import ID_SHIFT, AnswerMass, shift_name
from steerstats.generalization.slopes import Shift
from steerstats.study import doubt_estimates as checks
from steerstats.study.base import StudyBase
from steerstats.study.doubt_results import Debiased, MultiplierRange, NullComparison, VectorCosines
from steerstats.study.results import PerDataset

ID = shift_name(ID_SHIFT)


def check_asked(*, level: float, seed: int = 0, **counts: int) -> None:
    """What every question is asked with, refused by name before any work is done."""
    check_level(level)
    check_count("seed", seed, at_least=0)
    for name, value in counts.items():
        if name == "n_resamples":
            check_resamples(value)
        else:
            check_count(name, value)


class StudyDoubts(StudyBase):
    """Questions of `Study` whose answers say how far its other answers can be trusted."""

    def nulls(self, shift: Shift | str = ID, *, alpha: float = 0.05) -> NullComparison:
        """Vectors against random directions and against label-shuffled vectors of the same norm, never pooled.

        Raises
        ------
        CacheError
            If the cache was built without either.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> set(study.nulls().to_frame()["kind"]) <= {"random", "shuffled"}
        True
        """
        return checks.nulls(self, self.require(shift), alpha)

    def debiased(
        self, shift: Shift | str = ID, *, seed: int = 0, level: float = 0.95, n_resamples: int = 2000
    ) -> Debiased:
        """What projecting the A/B and Yes/No directions out of the vector does to steerability and to its bias.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> set(study.debiased(n_resamples=200).effects["vector"]) == {"own", "debiased"}
        True
        """
        check_asked(level=level, seed=seed, n_resamples=n_resamples)
        return checks.debiased(self, self.require(shift), seed, level, n_resamples)

    def reliability(self, shift: Shift | str = ID, *, level: float = 0.95) -> PerDataset:
        """How much of the spread of slopes is a difference between inputs, from refitted vectors.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> bool((study.reliability().to_frame()["estimate"] <= 1).all())
        True
        """
        check_asked(level=level)
        return checks.reliability(self, self.require(shift), level)

    def corrected_anti_steerable(
        self, shift: Shift | str = ID, *, seed: int = 0, level: float = 0.95, n_resamples: int = 1000
    ) -> PerDataset:
        """Share of inputs whose noise-free slope is negative, from refitted vectors.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> found = study.corrected_anti_steerable(n_resamples=50)
        >>> bool(found.to_frame()["estimate"].between(0, 1).all())
        True
        """
        check_asked(level=level, seed=seed, n_resamples=n_resamples)
        return checks.corrected_anti_steerable(self, self.require(shift), seed, level, n_resamples)

    def answer_mass(self, shift: Shift | str = ID, *, threshold: float = 0.5, level: float = 0.95) -> AnswerMass:
        """Probability of the two answers by multiplier; datasets where they lose it are flagged.

        Examples
        --------
        >>> import steerstats
        >>> mass = steerstats.open_cache(steerstats.demo_cache()).answer_mass()
        >>> bool(mass.to_frame()["mean"].between(0, 1).all())
        True
        """
        check_asked(level=level)
        return checks.answer_mass(self, self.require(shift), threshold, level)

    def vector_cosines(self) -> VectorCosines:
        """Cosines between the vectors of different training settings, beside those with their own refits.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> bool(study.vector_cosines().to_frame()["cosine"].between(-1, 1).all())
        True
        """
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
        check_asked(level=level)
        return checks.linearity(self, self.require(shift), level)

    def multiplier_range(self, shift: Shift | str = ID, *, level: float = 0.95) -> MultiplierRange:
        """Mean steerability fitted on |λ| ≤ c alone, for every c of the grid.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> sorted(set(study.multiplier_range().to_frame()["range"]))
        [0.5, 1.0, 1.5]
        """
        check_asked(level=level)
        return checks.multiplier_range(self, self.require(shift), level)
