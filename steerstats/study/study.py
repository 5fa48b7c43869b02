"""The `Study`: every question of the field as one method, and how a cache is opened as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from steerstats.cache import CacheReader
from steerstats.errors import CannotEstimate, check_level
from steerstats.generalization import ID_SHIFT, CorrelationTable, PropensityShift, propensity_shift
from steerstats.generalization.slopes import Shift, parse_shifts
from steerstats.mixed import MixedFit, fit_mixed
from steerstats.mixed.population import twin_warnings
from steerstats.operators import NO_UNSTEERED, has_unsteered
from steerstats.power import PowerTable, smallest_detectable_effect
from steerstats.study import estimates, planning, predicting
from steerstats.study.doubts import ID, StudyDoubts, check_asked
from steerstats.study.generalization import Generalization
from steerstats.study.notes import said_first
from steerstats.study.results import DatasetSteerability, SpuriousTable
from steerstats.study.unit import names_once

DEFAULT_FACTORS = ("pos_is_a", "pos_is_yes")


def open_cache(path: str | Path, *, datasets: Sequence[str] | str | None = None, layer: int | None = None) -> Study:
    """Open a cache, directory or packed file, for analysis.

    Parameters
    ----------
    path : path
    datasets : str or sequence of str, optional
        Analyse these alone. A dataset's own numbers do not depend on which others are there.
    layer : int, optional
        The layer to look at in a sweep, where several were steered one at a time.

    Raises
    ------
    CacheError
        If the path is no cache, no unit is finished, or a dataset is not there.
    InputError
        If `datasets` is empty or names one twice, or `layer` is no whole number.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> len(study.datasets) > 0
    True
    """
    return Study(CacheReader(path), datasets=datasets, layer=layer)


class Study(StudyDoubts):
    """The units of one cache with the questions that can be asked of them. Made by `open_cache`.

    Examples
    --------
    >>> import steerstats
    >>> steerstats.open_cache(steerstats.demo_cache())
    <Study of bundled:demo/model: 14 datasets, settings base, sys_pos, sys_neg, user_pos, user_neg>
    """

    def steerability(self, shift: Shift | str = ID, *, level: float = 0.95) -> DatasetSteerability:
        """Mean, median, spread and sign of per-input steerability, dataset by dataset; no interval here is resampled.

        Parameters
        ----------
        shift : (train, eval) or "train->eval"
        level : float
            Of all intervals.

        Returns
        -------
        DatasetSteerability
            Its `to_frame` says what each name stands for.

        Examples
        --------
        >>> import steerstats
        >>> table = steerstats.open_cache(steerstats.demo_cache()).steerability()
        >>> {"mean", "median", "sd", "anti_steerable"} <= set(table.to_frame()["name"])
        True
        """
        check_asked(level=level)
        return estimates.steerability(self, self.require(shift), level)

    def spurious_factors(
        self,
        shift: Shift | str = ID,
        *,
        factors: Sequence[str] = DEFAULT_FACTORS,
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
            `prompt_tokens`, and your own, `factor_NAME` (`study.own_factors`). The levels of a text are measured
            against the one that is most frequent over datasets: `factor_NAME=LEVEL vs OTHER`. A dataset in which a
            factor does not vary goes without it, and says so.
        interactions : bool
            Add pos_is_a × pos_is_yes.
        seed, n_resamples
            Of the bootstrap behind variance shares.
        level : float
            Of all intervals.

        Examples
        --------
        >>> import steerstats
        >>> bias = steerstats.open_cache(steerstats.demo_cache()).spurious_factors(n_resamples=200)
        >>> {"dataset", "response", "term", "estimate", "ci_low", "ci_high"} <= set(bias.to_frame().columns)
        True
        """
        check_asked(level=level, seed=seed, n_resamples=n_resamples)
        chosen = names_once("factors", factors)
        return estimates.spurious(self, self.require(shift), chosen, interactions, seed, level, n_resamples)

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
        seed, n_resamples
            Of bands, p-values, and the intervals that resample.
        level : float
            Of all intervals.

        Examples
        --------
        >>> import steerstats
        >>> gaps = steerstats.open_cache(steerstats.demo_cache()).generalization(n_resamples=200)
        >>> gaps.gaps.components[0]
        'gap'
        """
        check_asked(level=level, seed=seed, n_resamples=n_resamples)
        chosen = self.shifts(shifts if shifts is None else parse_shifts(shifts, reference=ID_SHIFT))
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
        seed, level, n_resamples
            Of all intervals.

        Raises
        ------
        InputError
            If the caches share no dataset.
        CacheError
            If one lacks a shift that was asked for.
        CannotEstimate
            If none was asked for and they share none of these, or if they share one dataset, which has no ranking.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> study.cross_model(study, n_resamples=200).n == len(study.datasets)
        True
        """
        check_asked(level=level, seed=seed, n_resamples=n_resamples)
        second = other if isinstance(other, Study) else open_cache(other, layer=self.layer)
        return estimates.cross_model(self, second, shifts, seed, level, n_resamples)

    def fit_mixed(
        self, formula: str, shift: Shift | str = ID, *, engine: str = "auto", reml: bool = True, level: float = 0.95
    ) -> MixedFit:
        """A linear mixed model of one's own over all curves of a shift, written as in lme4.

        Parameters
        ----------
        formula : str
            Over the columns of `curves_frame`: `y`, `lam`, `dataset`, `input`, `question`, and the recorded factors.
            Several datasets need random factor slopes by dataset: `y ~ lam * (pos_is_a + pos_is_yes) + (1 + lam *
            (pos_is_a + pos_is_yes) | dataset) + (1 + lam | dataset:input)`. Effects that the model takes to be the
            same in every dataset are named in `warnings`: their p-values hold for no other dataset. Where a question
            has several inputs (counterbalanced copies), split the term by input in two: `(1 + lam | question) + (1 +
            lam | question:input)`; a warning says so where there is none by question.
        shift, engine, reml, level
            As in `steerstats.mixed.fit_mixed`.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> nested = "(1 + lam * pos_is_a | dataset) + (1 + lam | dataset:input)"
        >>> study.fit_mixed(f"y ~ lam * pos_is_a + {nested}").df  # 14 datasets, not 840 inputs
        array([13., 13., 13., 13.])
        >>> study.fit_mixed("y ~ lam * pos_is_a + (1 + lam | input)").warnings[0][:66]
        "14 levels of 'dataset' are pooled without a random term in it: Int"
        """
        check_asked(level=level)
        frame = self.curves_frame(shift)
        found = fit_mixed(formula, frame, engine, reml, population="dataset", level=level)
        return replace(found, warnings=(*said_first(self), *twin_warnings(formula, frame), *found.warnings))

    def predictors(
        self,
        shift: Shift | str = ID,
        *,
        by_category: bool = False,
        seed: int = 0,
        level: float = 0.95,
        n_resamples: int = 5000,
        n_permutations: int = 1000,
    ) -> predicting.Predictors:
        """What in the cached activations predicts steerability, over datasets and inside them.

        Parameters
        ----------
        shift : (train, eval) or "train->eval"
            Its vector's training activations against its slopes.
        by_category : bool
            Resample and hold out whole families of datasets instead of datasets.
        seed, level, n_resamples, n_permutations
            Of intervals and permutation p-values; ridge regressions use at most 2,000 resamples and 200 permutations.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> found = study.predictors(n_resamples=200, n_permutations=50)
        >>> "d_prime" in set(found.to_frame()["name"])
        True
        """
        check_asked(level=level, seed=seed, n_resamples=n_resamples, n_permutations=n_permutations)
        chosen = self.require(shift)
        return predicting.predictors(self, chosen, by_category, seed, level, n_resamples, n_permutations)

    def propensity_shift(self, *, level: float = 0.95) -> PropensityShift:
        """Does a vector transfer worse between prompts that move the unsteered model further (figure 7)?

        Self-pairs are dropped, the threshold's effect is shown, and the published definition stands beside ours.

        Raises
        ------
        CannotEstimate
            If the cache holds no unsteered model, under operator ablate_add.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> "without self-pairs" in study.propensity_shift().definition
        True
        """
        check_asked(level=level)
        if not all(map(has_unsteered, self.operators)):
            raise CannotEstimate(NO_UNSTEERED)
        found = propensity_shift(self.grid(), level=level)
        return replace(found, warnings=(*said_first(self), *found.warnings))

    def power(
        self,
        shift: Shift | str | None = None,
        *,
        of: str | None = None,
        other: Study | str | Path | None = None,
        n_inputs: int | Sequence[int] | None = None,
        n_datasets: int | Sequence[int] | None = None,
        n_pairs: int | Sequence[int] | None = None,
        power: float = 0.8,
        alpha: float = 0.05,
    ) -> PowerTable:
        """Smallest effect that a study of this or another size would detect: a gap, a mean, or a difference of caches.

        Parameters
        ----------
        shift : (train, eval) or "train->eval", optional
            Default: for a gap the first out-of-distribution shift of the cache, else base->base; `effect_of` of the
            result names it.
        of : "gap" or "mean", optional
            Of what: base->base minus the shift (the default), or mean steerability under the shift.
        other : Study or path, optional
            Another cache: the smallest difference in mean steerability, `other` minus this, that a comparison of two
            caches would detect over the datasets and inputs that both hold.
        n_inputs, n_datasets, n_pairs : int or sequence of int, optional
            Sizes to consider; default: this study's, or those of what two caches share.
        power, alpha : float
            Share of such studies that should detect the effect, by a two-sided test at `alpha`.

        Examples
        --------
        >>> import steerstats
        >>> study = steerstats.open_cache(steerstats.demo_cache())
        >>> more = study.power(n_inputs=[50, 500])
        >>> bool(more.effect[1] <= more.effect[0])
        True
        >>> mean = study.power("base->base", of="mean", n_datasets=5)
        >>> mean.effect_of, mean.effect.round(3).tolist(), mean.half_width.round(3).tolist()
        ('mean steerability under base->base', [0.066], [0.049])
        """
        check_level(power, "power")
        second = other if other is None or isinstance(other, Study) else open_cache(other, layer=self.layer)
        found = planning.components(self, shift, of, second)
        n_inputs = found.n_inputs if n_inputs is None else n_inputs
        n_datasets = found.n if n_datasets is None else n_datasets
        sizes = {"n_inputs": n_inputs, "n_datasets": n_datasets, "n_pairs": n_pairs}
        return smallest_detectable_effect(found, **sizes, power=power, alpha=alpha)
