"""Several caches side by side: differences in steerability, paired by input, for every pair of caches and shift.

A difference is second − first, over the inputs that both caches hold. All of them make one family: pairs of caches ×
datasets × shifts. Where both caches name the same resamples of training pairs, replicate b of one is paired with b of
the other and the vectors' part of a variance is that of the refits' differences; elsewhere two vectors err
independently and their variances add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, InputError, check_level, check_resamples, check_rng
from steerstats.generalization.matched import Matched, Pair, check_inputs, match
from steerstats.generalization.overall import means_of_pairs
from steerstats.generalization.slopes import (
    ID_SHIFT,
    PAPER_SHIFTS,
    SAMPLE,
    Shift,
    SlopeGrid,
    parse_shifts,
    shift_name,
    unit_warnings,
)
from steerstats.generalization.vector_error import refit_draws, satterthwaite, vector_error_words
from steerstats.meta import MetaAnalysis
from steerstats.resampling import Replicates, SumRatio, interval, resample
from steerstats.resampling.question_weight import question_df
from steerstats.resampling.questions import group_codes
from steerstats.resampling.simultaneous import max_t_bands, romano_wolf
from steerstats.results import Result
from steerstats.rounding import STORED

LIMITS = ("estimate", "se", "ci_low", "ci_high")


@dataclass(frozen=True, kw_only=True)
class ComparedSlopes(Result):
    """Differences in mean steerability between caches, second − first.

    Parameters
    ----------
    pairs : tuple of (str, str)
        Names of the first and the second cache.
    datasets, shifts : tuple of str
    estimate, se, ci_low, ci_high : ndarray of shape (n_pairs, n_datasets, n_shifts)
        Nats per unit multiplier; NaN where not both caches have the cell.
    band_low, band_high : ndarray of the same shape
        Simultaneous over pairs × datasets × shifts.
    p_adjusted : ndarray of the same shape
        Romano–Wolf step-down p-value of "no difference" over the same family.
    n, n_inputs : ndarray of shape (n_pairs, n_datasets)
        Questions and inputs that both caches hold, complete in every shift compared; nothing else enters the pair's
        standard errors and intervals, whatever other caches hold.
    includes_vector_error : ndarray of bool, shape (n_pairs, n_datasets, n_shifts)
        Where both caches have refits, so that everything holds both vectors' sampling error.
    paired_vectors : ndarray of bool, shape (n_pairs, n_datasets)
        Where these refits are of the same resamples of training pairs, and are paired.
    over_datasets : dict of (pair, shift) to MetaAnalysis
        Random-effects mean, where at least two datasets are there; datasets weigh alike where one has a standard
        error of 0, since none may be left out for not having changed.
    over_bands : dict of (pair, shift) to (float, float)
        Its limits, simultaneous over pairs × shifts (Bonferroni).
    level : float
    """

    pairs: tuple[Pair, ...]
    datasets: tuple[str, ...]
    shifts: tuple[str, ...]
    estimate: np.ndarray
    se: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    band_low: np.ndarray
    band_high: np.ndarray
    p_adjusted: np.ndarray
    n: np.ndarray
    n_inputs: np.ndarray
    includes_vector_error: np.ndarray
    paired_vectors: np.ndarray
    over_datasets: Mapping[tuple[Pair, str], MetaAnalysis]
    over_bands: Mapping[tuple[Pair, str], tuple[float, float]]
    level: float

    def to_frame(self) -> pd.DataFrame:
        """One row per pair, dataset and shift that both caches have."""
        keys = [(*pair, name, shift) for pair in self.pairs for name in self.datasets for shift in self.shifts]
        frame = pd.DataFrame(keys, columns=["first", "second", "dataset", "shift"])
        for name in (*LIMITS, "band_low", "band_high", "p_adjusted", "includes_vector_error"):
            frame[name] = getattr(self, name).ravel()
        for name in ("n", "n_inputs"):
            frame[name] = np.repeat(getattr(self, name).ravel(), len(self.shifts))
        return frame[frame["estimate"].notna()].assign(level=self.level).reset_index(drop=True)

    def means_frame(self) -> pd.DataFrame:
        """One row per pair and shift: the mean over datasets to read, its interval and its simultaneous limits."""
        rows = []
        for (pair, shift), fit in self.over_datasets.items():
            told, band = fit.quoted, self.over_bands[pair, shift]
            rows.append((*pair, shift, *told[:4], *band, fit.n, fit.level, told.name, told.interval))
        names = ["first", "second", "shift", *LIMITS, "band_low", "band_high", "n", "level", "quantity", "interval"]
        return pd.DataFrame(rows, columns=names)


def compare_slopes(
    grids: Mapping[str, SlopeGrid],
    inputs: Mapping[str, Mapping[str, Sequence[str]]],
    shifts: Sequence[Shift | str] = (ID_SHIFT, *PAPER_SHIFTS),
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 10_000,
) -> ComparedSlopes:
    """Compare steerability between two or more caches in every shift that both of a pair have.

    Parameters
    ----------
    grids : mapping of str to SlopeGrid
        Name of a cache -> its slopes, with refits where it has them; equal `refit_draw` of two caches pairs these.
    inputs : mapping of str to mapping of str to sequence of str
        Name of a cache -> dataset -> identity of each input, in the order of the slopes; equal ones are matched.
    shifts : sequence of (train, eval) or "train->eval"
        Those that no pair has are left out.
    rng : numpy.random.Generator
        Each dataset of `shared_datasets(grids)` gets an independent child.
    level : float
    n_resamples : int

    Returns
    -------
    ComparedSlopes
        Intervals are Satterthwaite t where both caches have refits, studentised bootstrap elsewhere; bands from the
        largest |t| over the whole family, pairs that share the same questions of a dataset on the same resamples.

    Raises
    ------
    InputError
        With fewer than two grids, identities that do not fit their slopes, or a shift that is named twice.
    CannotEstimate
        If no pair shares an input of any dataset in any of the shifts.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import numpy as np, steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> whole = study.grid(["base->base"])
    >>> half = replace(whole, slopes={name: values / 2 for name, values in whole.slopes.items()})
    >>> inputs = {name: study.unit(name).inputs for name in study.datasets}
    >>> found = compare_slopes({"whole": whole, "half": half}, {"whole": inputs, "half": inputs},
    ...                        rng=np.random.default_rng(0), n_resamples=500)
    >>> lost = [-np.mean(whole.slopes[name][whole.place(("base", "base"))]) / 2 for name in found.datasets]
    >>> bool(np.allclose(found.estimate[0, :, 0], lost))
    True
    """
    check_level(level)
    check_resamples(n_resamples)
    check_rng(rng)
    if len(grids) < 2:
        raise InputError(f"{len(grids)} caches are given; a comparison needs two or more")
    check_inputs(grids, inputs)
    pairs, datasets = tuple(combinations(grids, 2)), shared_datasets(grids)
    wanted = list(parse_shifts(shifts))
    shape = (len(pairs), len(datasets), len(wanted))
    out = {name: np.full(shape, np.nan) for name in LIMITS}
    t = np.full((*shape, n_resamples), np.nan, dtype=np.float32)
    n_refits, n, n_inputs = np.zeros(shape, int), np.zeros(shape[:2], int), np.zeros(shape[:2], int)
    paired = np.zeros(shape[:2], dtype=bool)
    for d, (name, child) in enumerate(zip(datasets, rng.spawn(len(datasets)))):
        matched = {}
        for p, (first, second) in enumerate(pairs):
            found = match((first, second), (grids[first], grids[second]), (inputs[first], inputs[second]), name, wanted)
            if found is not None:
                matched[p] = found
                n[p, d], n_inputs[p, d] = len(set(found.question)), len(found.question)
                paired[p, d] = len(found.vectors) == 1
                behind = min((len(part.means) for part in found.vectors), default=0)
                n_refits[p, d, found.cells[found.refitted]] = behind
        for p, (values, deviations) in _in_one_dataset(matched, child, level, n_resamples).items():
            for key, value in zip(LIMITS, values):
                out[key][p, d, matched[p].cells] = value
            t[p, d, matched[p].cells] = deviations.T
    if not np.isfinite(out["estimate"]).any():
        raise CannotEstimate("the caches share no input of any dataset in any shift")
    kept = np.isfinite(out["estimate"]).any(axis=(0, 1))
    out, t, n_refits = {k: v[..., kept] for k, v in out.items()}, t[:, :, kept], n_refits[..., kept]
    included = n_refits > 0
    names = tuple(shift_name(shift) for shift, has in zip(wanted, kept) if has)
    family = out["estimate"].ravel(), out["se"].ravel(), t.reshape(-1, n_resamples).T
    bands = [limit.reshape(included.shape) for limit in max_t_bands(*family, level)]
    over, over_bands, notes = means_of_pairs(pairs, datasets, names, out, n, n_refits, level)
    notes = (*_few_questions(pairs, datasets, n), *notes)
    some = np.isfinite(out["estimate"])
    how = "Satterthwaite t where both caches have refits, else studentised bootstrap"
    if included[some].all() or not included.any():
        how = "Satterthwaite t" if included.any() else "studentised bootstrap"
    means = "over datasets: random effects, Hartung–Knapp, simultaneous limits by Bonferroni over pairs and shifts"
    return ComparedSlopes(
        pairs=pairs, datasets=datasets, shifts=names, **out, band_low=bands[0], band_high=bands[1],
        p_adjusted=romano_wolf(*family).reshape(included.shape), n=n, n_inputs=n_inputs,
        includes_vector_error=included, paired_vectors=paired, over_datasets=over, over_bands=over_bands, level=level,
        method=f"second minus first, mean over shared inputs paired by input; {how} intervals; max-|t| bands and "
        f"Romano–Wolf p-values over pairs of caches, datasets and shifts; {n_resamples} resamples of questions"
        f"{f'; {means}' if over else ''}",
        numbers={"n_resamples": n_resamples},
        assumptions=(
            SAMPLE,
            *pairing_words(included, paired),
            vector_error_words(included[some]),
        ),
        warnings=notes,
    )  # fmt: skip


def shared_datasets(grids: Mapping[str, SlopeGrid]) -> tuple[str, ...]:
    """Datasets that at least two of the grids have, in the order in which they come."""
    every = [name for grid in grids.values() for name in grid.datasets]
    return tuple(name for name in dict.fromkeys(every) if every.count(name) > 1)


def _in_one_dataset(
    matched: dict[int, Matched], rng: np.random.Generator, level: float, n_resamples: int
) -> dict[int, tuple[list[np.ndarray], np.ndarray]]:
    """Pair -> its `LIMITS`, each (cells,), and studentised deviations (n_resamples, cells), of one dataset.

    Pairs of the same questions are on the same resamples of these, all on those of the refits.
    """
    drawn = _question_draws(matched, rng, n_resamples)
    draws = _vector_draws(matched, rng, n_resamples)
    found = {}
    for p, one in matched.items():
        replicates, questions = drawn[p], drawn[p].n_units
        values = [v.copy() for v in (replicates.estimate, replicates.se, *interval(replicates, "studentised", level))]
        deviations = replicates.t()
        for k in np.flatnonzero(one.refitted):
            values[1][k], margin = _with_vectors(replicates, k, one, level)
            values[2][k], values[3][k] = values[0][k] - margin, values[0][k] + margin
            deviations[:, k] = replicates.t_with(k, *(sum(column) for column in zip(*draws[p, k])))
        if questions < 2:
            values[1:] = [np.full(len(one.cells), np.nan)] * 3
        found[p] = values, deviations
    return found


def _question_draws(matched: dict[int, Matched], rng: np.random.Generator, n_resamples: int) -> dict[int, Replicates]:
    """Pair -> its replicates, over the questions that it holds itself.

    Questions of other pairs would shrink its standard error and leave resamples without any of its own. Pairs that
    hold different questions are drawn independently, which can only widen what bands them together (Šidák 1967,
    doi:10.1080/01621459.1967.10482935).
    """
    alike: dict[frozenset, list[int]] = {}
    for p, one in matched.items():
        alike.setdefault(frozenset(one.question), []).append(p)
    found: dict[int, Replicates] = {}
    for members in alike.values():
        units = {q: k for k, q in enumerate(dict.fromkeys(q for p in members for q in matched[p].question))}
        statistics = []
        for one in (matched[p] for p in members):
            codes = np.array([units[q] for q in one.question])
            sums = np.zeros((len(one.cells), len(units)))
            np.add.at(sums.T, codes, one.differences.T)
            statistics.append(SumRatio(sums, np.bincount(codes, minlength=len(units)), resolution=STORED))
        found |= dict(zip(members, resample(statistics, rng=rng, n_resamples=n_resamples)))
    return found


def _vector_draws(
    matched: dict[int, Matched], rng: np.random.Generator, n_resamples: int
) -> dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]]:
    """(pair, cell) -> deviations and variances of its vectors; refits of the same resamples are drawn once for all."""
    found: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
    for same in dict.fromkeys(part.draws for one in matched.values() for part in one.vectors):
        columns = [
            ((p, int(k)), part.means[:, k])
            for p, one in matched.items()
            for part in one.vectors
            if part.draws == same
            for k in np.flatnonzero(one.refitted)
        ]
        if columns:
            deviation, variance = refit_draws(np.stack([c for _, c in columns], axis=1), n_resamples, rng)
            for c, (key, _) in enumerate(columns):
                found.setdefault(key, []).append((deviation[:, c], variance[:, c]))
    return found


def _with_vectors(replicates: Replicates, k: int, one: Matched, level: float) -> tuple[float, float]:
    """Standard error and Satterthwaite margin with the variance over questions and of the vectors."""
    variances, dfs = one.vector_parts(k)
    own = question_df(one.differences[k], *group_codes(one.question, len(one.question)), level)
    return satterthwaite([float(replicates.se[k]) ** 2, *variances], [max(own, 1.0), *dfs], level)


def pairing_words(included: np.ndarray, paired: np.ndarray) -> list[str]:
    """What is assumed of two caches' vectors where their errors are in the intervals."""
    some = included.any(axis=2)
    words = []
    if (some & paired).any():
        words.append("refits of equal names are of the same resamples of training pairs, and are paired")
    if (some & ~paired).any():
        where = "" if not (some & paired).any() else "elsewhere "
        words.append(f"{where}two caches' vectors err independently (fitted to the same pairs, intervals are too wide)")
    return words


def _few_questions(pairs: tuple[Pair, ...], datasets: tuple[str, ...], n: np.ndarray) -> list[str]:
    """The warnings of few questions, once for a dataset of which all pairs share as many."""
    notes = []
    for d, name in enumerate(datasets):
        counts = [(pair, int(k)) for pair, k in zip(pairs, n[:, d]) if k]
        same = len({k for _, k in counts}) == 1
        places = [(f"{name}: " if same else f"{' and '.join(pair)}, {name}: ", k) for pair, k in counts]
        notes += [text for place, k in dict.fromkeys(places) for text in unit_warnings(k, place)]
    return notes
