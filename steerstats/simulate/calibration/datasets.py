"""Calibration over datasets: rank correlations, simultaneous bands, means over few datasets, and nulls."""

from __future__ import annotations

from functools import partial

import numpy as np

from steerstats.generalization import SlopeGrid, corrected_spearman, cross_model_agreement, gap_table
from steerstats.generalization.correlation import FIXED, NOISE_FREE
from steerstats.generalization.figure7 import jackknife_limits
from steerstats.generalization.fixed_datasets import draw_correlations
from steerstats.meta import mean_over_datasets
from steerstats.nulls import DIFFERS, null_table
from steerstats.resampling import bonett_wright, bootstrap_correlation, quantile_pair, spearman
from steerstats.simulate.calibration.cells import COVERAGE, ERROR, SHAPES, Cell, Outcome, draw, inside
from steerstats.sweeps import choose_layer

POPULATION_DRAWS = 200_000


def true_and_observed(
    rho: float, reliability: float, shared: float, shape: str, d: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple]:
    """True means (2, d) of variance 1, and what is observed of them with known error variances and covariance.

    Error variances differ over datasets, and `shared` is the correlation of errors of means over the same inputs.
    """
    z = rng.standard_normal((2, d))
    z[1] = rho * z[0] + np.sqrt(1 - rho**2) * z[1]
    truth = z if shape == "normal" else np.exp(z) / np.sqrt(np.expm1(1) * np.e)
    noise = (1 - reliability) / reliability * rng.uniform(0.3, 1.7, d)
    e = rng.standard_normal((2, d))
    e[1] = shared * e[0] + np.sqrt(1 - shared**2) * e[1]
    seen = truth + np.sqrt(noise) * e
    return truth, (seen[0], seen[1], noise, noise, shared * noise)


def _spearman(
    rho: float, reliability: float, shared: float, shape: str, rng: np.random.Generator, n: int
) -> list[Outcome]:
    d, resamples = 40, 400
    noise_free = 6 / np.pi * np.arcsin(rho / 2)
    _, large = true_and_observed(rho, reliability, shared, shape, POPULATION_DRAWS, rng)
    observed = float(spearman(*large[:2]))
    names = ("percentile", "analytic", "noise-free", "corrected", "fixed")
    hits = {name: np.empty(n, dtype=bool) for name in names}
    for k in range(n):
        truth, seen = true_and_observed(rho, reliability, shared, shape, d, rng)
        draws = bootstrap_correlation(*seen[:2], rng=rng, n_resamples=resamples)
        limits = quantile_pair(draws, COVERAGE)
        hits["percentile"][k] = inside(*limits, observed)
        hits["noise-free"][k] = inside(*limits, noise_free)
        hits["analytic"][k] = inside(*bonett_wright(float(spearman(*seen[:2])), d), observed)
        corrected = corrected_spearman(*seen, rng=rng, n_resamples=resamples)
        hits["corrected"][k] = inside(corrected.ci_low, corrected.ci_high, noise_free)
        known = draw_correlations(*seen, rng=rng, n_resamples=resamples)
        hits["fixed"][k] = inside(*quantile_pair(known, COVERAGE), float(spearman(*truth)))
    means, noise = "Spearman of observed means, coverage", "Spearman without noise, coverage"
    return [
        Outcome(means, "percentile over datasets", COVERAGE, hits["percentile"]),
        Outcome(means, "Bonett-Wright", COVERAGE, hits["analytic"]),
        Outcome(noise, "percentile over datasets", COVERAGE, hits["noise-free"]),
        Outcome(noise, "percentile, disattenuated", COVERAGE, hits["corrected"]),
        Outcome("Spearman of these datasets, coverage", "draws of the true means", COVERAGE, hits["fixed"]),
    ]


def _pairs(icc: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Unrelated quantities over 25 datasets x 20 (train, eval) pairs, each with the same share between datasets."""
    cluster = np.repeat(np.arange(25), 20)
    rejected = {
        "datasets as clusters": np.empty(n, dtype=bool),
        "pairs as independent (not offered)": np.empty(n, bool),
        "jackknife of datasets (figure 7)": np.empty(n, bool),
    }
    for k in range(n):
        x, y = (
            np.sqrt(icc) * rng.standard_normal(25)[cluster] + np.sqrt(1 - icc) * rng.standard_normal(500)
            for _ in range(2)
        )
        low, high = jackknife_limits(x, y, cluster, "spearman", COVERAGE)
        rejected["jackknife of datasets (figure 7)"][k] = not low <= 0 <= high
        for method, unit in zip(rejected, (cluster, None)):
            draws = bootstrap_correlation(x, y, cluster=unit, rng=rng, n_resamples=250)
            low, high = quantile_pair(draws, COVERAGE)
            rejected[method][k] = not low <= 0 <= high
    return [Outcome("Spearman over pairs, type I", name, ERROR, hits) for name, hits in rejected.items()]


def _bands(shape: str, rng: np.random.Generator, n: int) -> list[Outcome]:
    """No gap anywhere, so that a band or a test that misses zero is an error."""
    shifts = [("base", name) for name in ("a", "b", "c", "d")]
    band, pointwise, stepdown = np.empty(n, dtype=bool), np.empty(n), np.empty(n, dtype=bool)
    for k in range(n):
        slopes = {}
        for d in range(6):
            own = rng.standard_normal(60)
            slopes[f"d{d}"] = np.concatenate([own[None], own + draw(shape, (4, 60), rng)])[None]
        grid = SlopeGrid(train=("base",), evaluate=("base", "a", "b", "c", "d"), slopes=slopes)
        table = gap_table(grid, shifts, rng=rng, n_resamples=600)
        band[k] = inside(table.band_low, table.band_high, 0).all()
        pointwise[k] = inside(table.ci_low, table.ci_high, 0).mean()
        stepdown[k] = (table.p_adjusted <= ERROR).any()
    return [
        Outcome("gaps, all cells at once, coverage", "max-|t| bands", COVERAGE, band),
        Outcome("gap, each cell, coverage", "studentised", COVERAGE, pointwise),
        Outcome("gaps, all cells, family-wise error", "Romano-Wolf step-down", ERROR, stepdown),
    ]


def _bands_with_refits(sigma: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """No gap with the vector of all pairs of the world; each study's vector errs by sigma under each shift."""
    shifts = [("base", name) for name in ("a", "b", "c", "d")]
    band, stepdown = np.empty(n, dtype=bool), np.empty(n, dtype=bool)
    for k in range(n):
        slopes, refits = {}, {}
        for d in range(6):
            own = rng.standard_normal((1, 5, 60))
            error = sigma * rng.standard_normal((1, 5, 1))
            slopes[f"d{d}"] = own[:, :1] + np.concatenate([np.zeros((1, 1, 60)), own[:, 1:]], axis=1) + error
            refits[f"d{d}"] = slopes[f"d{d}"] + sigma * rng.standard_normal((20, 1, 5, 1))
        grid = SlopeGrid(train=("base",), evaluate=("base", "a", "b", "c", "d"), slopes=slopes, refits=refits)
        table = gap_table(grid, shifts, rng=rng, n_resamples=600)
        band[k] = inside(table.band_low, table.band_high, 0).all()
        stepdown[k] = (table.p_adjusted <= ERROR).any()
    return [
        Outcome("gaps, all cells at once, any vector, coverage", "max-|t| bands", COVERAGE, band),
        Outcome("gaps, all cells, any vector, family-wise error", "Romano-Wolf step-down", ERROR, stepdown),
    ]


def _two_models(shared: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """40 datasets of 30 questions that two models answer; true means correlate by .6, reliability .65."""
    d, n_inputs, spread, resamples = 40, 30, 4.0, 300
    noise_free = 6 / np.pi * np.arcsin(0.6 / 2)
    names = ("corrected", "ignoring", "fixed", "fixed ignoring")
    hits = {name: np.empty(n, dtype=bool) for name in names}
    mixed = np.linalg.cholesky([[1, shared], [shared, 1]])
    question = {f"d{j}": np.arange(n_inputs) for j in range(d)}
    for k in range(n):
        truth = np.linalg.cholesky([[1, 0.6], [0.6, 1]]) @ rng.standard_normal((2, d))
        noise = spread * np.einsum("ab,bdi->adi", mixed, rng.standard_normal((2, d, n_inputs)))
        for labels, which in ((question, ("corrected", "fixed")), (None, ("ignoring", "fixed ignoring"))):
            grids = [
                SlopeGrid(
                    train=("base",),
                    evaluate=("base",),
                    slopes={f"d{j}": (mean + errors)[None, None] for j, (mean, errors) in enumerate(zip(*side))},
                    question=labels,
                )
                for side in zip(truth, noise)
            ]
            table = cross_model_agreement(*grids, ["base->base"], rng=rng, n_resamples=resamples)
            for name, target, value in zip(which, (NOISE_FREE, FIXED), (noise_free, float(spearman(*truth)))):
                row = table.row("base->base", target)
                hits[name][k] = inside(row["ci_low"], row["ci_high"], value)
    free, these = "Spearman of two models without noise, coverage", "Spearman of two models, these datasets, coverage"
    return [
        Outcome(free, "percentile, disattenuated", COVERAGE, hits["corrected"]),
        Outcome(free, "question labels unknown", COVERAGE, hits["ignoring"]),
        Outcome(these, "draws of the true means", COVERAGE, hits["fixed"]),
        Outcome(these, "question labels unknown", COVERAGE, hits["fixed ignoring"]),
    ]


def _few_datasets(d: int, tau: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    knapp, plain, normal, prediction = (np.empty(n, dtype=bool) for _ in range(4))
    for k in range(n):
        v = rng.uniform(0.01, 0.2, d)
        y = 0.3 + np.sqrt(tau**2 + v) * rng.standard_normal(d)
        # One category: nothing to leave out, which is most of the work.
        found = mean_over_datasets(y, v, category=["one"] * d)
        knapp[k] = inside(found.ci_low, found.ci_high, 0.3)
        plain[k] = inside(found.unweighted_ci_low, found.unweighted_ci_high, 0.3)
        prediction[k] = inside(found.prediction_low, found.prediction_high, 0.3 + tau * rng.standard_normal())
        normal[k] = abs(found.mean - 0.3) <= 1.959964 / np.sqrt((1 / (v + found.tau**2)).sum())
    mean = "mean over datasets, coverage"
    return [
        Outcome(mean, "Hartung-Knapp t(D - 1)", COVERAGE, knapp),
        Outcome(mean, "unweighted, t(D - 1)", COVERAGE, plain),
        Outcome(mean, "z, same tau (not offered)", COVERAGE, normal),
        Outcome("gap of a new dataset, coverage", "prediction interval", COVERAGE, prediction),
    ]


def _null_level(rng: np.random.Generator, n: int) -> list[Outcome]:
    rejected = np.empty(n, dtype=bool)
    for k in range(n):
        slopes = 0.3 * rng.standard_normal((100, 1)) + 0.3 * rng.standard_normal((100, 20))
        rejected[k] = null_table({"d": slopes[0]}, {"d": slopes[1:]}, kind="random").p[0] <= ERROR
    return [Outcome("vector like the random ones, type I", "rank among null vectors", ERROR, rejected)]


def _null_fdr(rng: np.random.Generator, n: int) -> list[Outcome]:
    """20 datasets, 5 of them with a vector that really steers; 399 null vectors, the fewest that can resolve it."""
    false = np.empty(n)
    for k in range(n):
        own, null = {}, {}
        for d in range(20):
            slopes = 0.3 * rng.standard_normal((400, 1)) + 0.3 * rng.standard_normal((400, 8))
            own[f"d{d}"], null[f"d{d}"] = slopes[0] + (1.2 if d < 5 else 0.0), slopes[1:]
        passed = np.array(null_table(own, null, kind="random").decision) == DIFFERS
        false[k] = passed[5:].sum() / max(passed.sum(), 1)
    return [Outcome("vectors over datasets, FDR", "Benjamini-Hochberg", ERROR, false)]


def _layers(d: int, shape: str, rng: np.random.Generator, n: int) -> list[Outcome]:
    """All layers are as good on average over datasets, so any may be called the best one: we ask for the first."""
    n_layers, n_inputs = 16, 20
    place = np.arange(n_layers)
    mix = np.linalg.cholesky(0.9 ** np.abs(place[:, None] - place))  # neighbours steer alike
    elsewhere, here = (np.empty(n, dtype=bool) for _ in range(2))
    for k in range(n):
        lines = 0.2 * draw(shape, (d, n_layers), rng) @ mix.T
        questions = 0.5 * rng.standard_normal((d, n_layers, n_inputs))
        slopes = {f"d{j}": line[:, None] + noise for j, (line, noise) in enumerate(zip(lines, questions))}
        found = choose_layer(slopes, place, rng=rng, n_resamples=200)
        elsewhere[k] = 0 in {found.chosen, *found.contenders}
        here[k] = 0 in {found.chosen, *found.rivals}
    quantity = "best layer over other datasets, coverage"
    return [
        Outcome(quantity, "chosen and contenders: paired t(D - 1), Bonferroni", COVERAGE, elsewhere),
        Outcome(quantity, "chosen and rivals, which are about these datasets", COVERAGE, here),
    ]


def _cells() -> dict[str, Cell]:
    cells = {}
    for shape, rho, reliability, shared in (
        ("normal", 0.9, 0.9, 0.0),
        ("normal", 0.9, 0.9, 0.3),
        ("normal", 0.7, 0.8, 0.3),
        ("lognormal", 0.9, 0.9, 0.3),
        ("lognormal", 0.9, 0.98, 0.3),
    ):
        what = f"{shape}, rho {rho:g}, reliability {reliability:g}, shared error {shared:g}"
        cells[f"spearman, {what}"] = Cell(f"D = 40, {what}", partial(_spearman, rho, reliability, shared, shape), 1200)
    for icc in (0.3, 0.6):
        setting = f"25 datasets x 20 pairs, unrelated, dataset ICC {icc:g}"
        cells[f"pairs, ICC {icc:g}"] = Cell(setting, partial(_pairs, icc), 800)
    for shape in ("normal", "mixture"):
        setting = f"6 datasets x 4 shifts, n = 60, no gap, {SHAPES[shape]}"
        cells[f"bands, {shape}"] = Cell(setting, partial(_bands, shape), 1200)
    for name, sigma in (("bands, refits", ".1"), ("bands, refits that err more than inputs", ".5")):
        setting = f"6 datasets x 4 shifts, n = 60, no gap, vector SD {sigma}, 20 refits"
        cells[name] = Cell(setting, partial(_bands_with_refits, float(sigma)), 600)
    for shared in (0.0, 0.8):
        setting = f"D = 40, 30 questions each, rho 0.6, reliability 0.65, shared question error {shared:g}"
        cells[f"two models, shared {shared:g}"] = Cell(setting, partial(_two_models, shared), 600)
    for d, tau in ((5, 0.22), (10, 0.22), (5, 0.6), (10, 0.6)):
        setting = f"D = {d}, tau {tau:g}, standard errors .1 to .45"
        cells[f"few datasets, D = {d}, tau {tau:g}"] = Cell(setting, partial(_few_datasets, d, tau), 2500)
    cells["null, type I"] = Cell("one dataset, 99 random vectors, n = 20", _null_level, 4000)
    cells["null, FDR"] = Cell("20 datasets, 5 of which steer, 399 random vectors, n = 8", _null_fdr, 1000)
    for d, shape in ((5, "normal"), (10, "normal"), (40, "normal"), (10, "lognormal")):
        setting = f"D = {d}, 16 layers alike, {SHAPES[shape].replace('slopes', 'deviations of datasets')}"
        cells[f"layers, D = {d}, {shape}"] = Cell(setting, partial(_layers, d, shape), 1000)
    return cells


CELLS: dict[str, Cell] = _cells()
