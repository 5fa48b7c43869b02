"""The calibration table: every quantity, valid methods within their bands, and a rerun that gives the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rich.progress import Progress

from steerstats.errors import InputError
from steerstats.simulate.calibration import CELLS, COLUMNS, TABLE, calibration_table

KEY = ["quantity", "setting", "method"]

# (quantity, part of the setting, method) -> fewest and most. Where the page or a docstring states a range, the band is
# that range with some Monte-Carlo error; where a valid method is known to fall short, the band says by how much.
VALID = {
    ("mean gap, coverage", "n = 50, normal", "studentised"): (0.935, 0.957),
    ("mean gap, coverage", "n = 50, lognormal slopes (log SD .8)", "studentised"): (0.925, 0.957),
    ("mean gap, coverage", "n = 50, lognormal slopes (log SD 1)", "studentised"): (0.915, 0.945),
    ("mean gap, coverage", "n = 50, two groups", "studentised"): (0.935, 0.96),
    ("mean gap, coverage", "n = 500", "studentised"): (0.932, 0.957),
    ("relative steerability, coverage", "n = 50", "Fieller"): (0.94, 0.963),
    ("SD of steerability, coverage", ", normal slopes", "jackknife of the log variance"): (0.93, 0.965),
    ("SD of steerability, coverage", "0, two groups", "jackknife of the log variance"): (0.9, 0.97),
    ("SD of steerability, coverage", "lognormal", "jackknife of the log variance"): (0.68, 0.91),
    ("anti-steerable share, coverage", "n = 500", "Wilson"): (0.9, 0.975),
    ("anti-steerable share without noise, coverage", "20 refits", "corrected by refits"): (0.9, 0.99),
    ("anti-steerable share without noise, coverage", "6 refits", "corrected by refits"): (0.86, 0.95),
    ("mean gap, any vector, coverage", "n = 500", "with refits"): (0.93, 0.965),
    ("mean gap, any fold's vector, coverage", "2 folds", "crossed, Satterthwaite t"): (0.88, 0.93),
    ("mean gap, any fold's vector, coverage", "3 folds", "crossed, Satterthwaite t"): (0.91, 0.95),
    ("mean gap, any fold's vector, coverage", "5 folds", "crossed, Satterthwaite t"): (0.93, 0.965),
    ("mass on the answers, coverage", "n = 20,", "t on the logit scale"): (0.85, 0.905),
    ("mass on the answers, coverage", "n = 60,", "t on the logit scale"): (0.92, 0.955),
    ("mass on the answers, coverage", "n = 300,", "t on the logit scale"): (0.93, 0.965),
    ("Spearman of observed means, coverage", "D = 40", "percentile over datasets"): (0.93, 0.98),
    ("Spearman of observed means, coverage", "D = 40", "Bonett-Wright"): (0.92, 0.98),
    ("Spearman without noise, coverage", "D = 40, normal", "percentile, disattenuated"): (0.93, 0.98),
    ("Spearman of these datasets, coverage", "D = 40, normal", "draws of the true means"): (0.88, 0.97),
    # Skewed means are Yeo-Johnson transformed; without that the lognormal cells had .75-.93 and .84-.85.
    ("Spearman of these datasets, coverage", "D = 40, lognormal", "draws of the true means"): (0.93, 1),
    ("Spearman without noise, coverage", "D = 40, lognormal", "percentile, disattenuated"): (0.87, 0.98),
    ("Spearman of two models without noise, coverage", "D = 40", "percentile, disattenuated"): (0.92, 0.985),
    ("Spearman of two models, these datasets, coverage", "D = 40", "draws of the true means"): (0.92, 0.985),
    ("Spearman over pairs, type I", "unrelated", "datasets as clusters"): (0.02, 0.095),
    ("Spearman over pairs, type I", "unrelated", "jackknife of datasets (figure 7)"): (0.02, 0.075),
    ("gaps, all cells at once, coverage", "6 datasets", "max-|t| bands"): (0.935, 0.99),
    ("gap, each cell, coverage", "6 datasets", "studentised"): (0.94, 0.957),
    ("gaps, all cells, family-wise error", "6 datasets", "Romano-Wolf step-down"): (0.02, 0.065),
    ("gaps, all cells at once, any vector, coverage", "20 refits", "max-|t| bands"): (0.915, 0.985),
    ("gaps, all cells, any vector, family-wise error", "20 refits", "Romano-Wolf step-down"): (0.02, 0.085),
    ("mean over datasets, coverage", "D = ", "Hartung-Knapp t(D - 1)"): (0.905, 0.96),
    ("gap of a new dataset, coverage", "D = ", "prediction interval"): (0.9, 0.985),
    ("mean effect of A over datasets, type I", "tau 0.4", "Hartung-Knapp t(D - 1)"): (0.025, 0.085),
    ("mean effect of A over datasets, type I", "tau 0.4", "Hartung-Knapp, factor at least 1"): (0.015, 0.085),
    ("mean effect of A over datasets, type I", "tau 0,", "Hartung-Knapp t(D - 1)"): (0.02, 0.085),
    ("datasets share one effect, type I", "tau 0", "Cochran's Q, chi²(D - 1)"): (0.035, 0.065),
    ("no gap, type I", "10 questions", "sign flips of questions"): (0.04, 0.062),
    ("two groups alike, type I", "lognormal", "permutation of labels"): (0.037, 0.062),
    ("Spearman, unrelated, type I", "14 datasets", "permutation of datasets"): (0.035, 0.065),
    ("mean curve straight, type I", ": normal law", "Hotelling's T²"): (0.033, 0.063),
    ("mean curve straight, type I", "200 inputs", "Hotelling's T²"): (0.033, 0.075),
    ("A acts on the slope, type I", "60 inputs, A acts on nothing", "likelihood ratio, chi²(1), ML"): (0.025, 0.08),
    ("A on the slope, twins, coverage", "15 questions", "CR2, Bell-McCaffrey"): (0.937, 0.965),
    ("Yes on the slope, twins, coverage", "15 questions", "CR2, Bell-McCaffrey"): (0.935, 0.97),
    ("vector like the random ones, type I", "99 random", "rank among null vectors"): (0.04, 0.06),
    ("vectors over datasets, FDR", "399 random", "Benjamini-Hochberg"): (0.02, 0.05),
    ("vectors that differ at least, too many", "14 datasets", "partial conjunctions, Fisher"): (0, 0.06),
    ("vectors that differ at least, any where 5 of 14 do", "24 questions", "partial conjunctions, Fisher"): (0.55, 1),
    ("A acts on the slope, type I", "interior", "t on N - p, unconstrained"): (0.04, 0.06),
    ("A acts on the slope, type I", "boundary", "t on N - p, unconstrained"): (0.04, 0.06),
    ("A acts on the slope, type I", "50 inputs", "F on the slope column"): (0.03, 0.07),
    ("A acts on intercept or slope, type I", "A acts on nothing", "Wilks' F, intercept and slope"): (0.03, 0.075),
    ("A on the slope, coverage", "4 in the rarer level", "HC2, Bell-McCaffrey"): (0.91, 0.975),
    ("A on the slope, coverage", "10 in the rarer level", "HC2, Bell-McCaffrey"): (0.93, 0.965),
    ("fits on the boundary, share", "boundary", "singular in lme4's sense"): (0.99, 1),
    ("fits on the boundary, share", "interior", "singular in lme4's sense"): (0, 0.01),
    ("mean over datasets, errors uncertain, coverage", "that do not differ", "unweighted, t(D - 1)"): (0.935, 0.965),
    ("mean gap, any vector, coverage", "on 20 training", "with refits"): (0.92, 0.95),
    ("spread of gaps between datasets, coverage", "of 30 questions", "Q-profile"): (0.93, 0.965),
    ("detectable gap, coverage", "of 30 questions", "at the limits of the spread"): (0.93, 0.965),
    ("smallest detectable gap, power", "50 inputs, tau", "weighted mean, Hartung-Knapp"): (0.76, 0.83),
    ("smallest detectable gap, power", "50 inputs, tau", "unweighted mean, t(D - 1)"): (0.77, 0.83),
    ("smallest detectable gap, power", "10 refits", "one dataset, vector's error in it"): (0.78, 0.82),
    ("smallest detectable gap, power", "3 refits", "one dataset, vector's error in it"): (0.75, 0.8),
    ("mean over unequal questions, coverage", "questions hold", "t, degrees of freedom of such sizes"): (0.925, 0.97),
    ("share of unequal questions, coverage", "questions hold", "Wilson, clustered"): (0.91, 0.965),
    ("mean over datasets, one dominates, coverage", "of the weight", "unweighted, t(D - 1)"): (0.93, 0.975),
    ("effect of a new dataset, one dominates, coverage", "of the weight", "prediction interval"): (0.915, 0.995),
    ("mean over datasets, slopes drawn, coverage", "that do not differ", "unweighted, t(D - 1)"): (0.93, 0.965),
    # Above .95 where few datasets that do not differ agree by chance, and the interval is floored.
    ("mean over datasets, slopes drawn, coverage", "that do not differ", "the one to read"): (0.93, 0.99),
    ("smallest detectable gap, power", "tau 0.2", "the one to read"): (0.76, 0.83),
    ("smallest detectable mean, power", "tau 0.2", "the one to read"): (0.77, 0.83),
    ("smallest detectable difference, power", "tau 0.2", "the one to read"): (0.75, 0.84),
    ("smallest detectable difference, power", "10 refits", "one dataset, vectors' error in it"): (0.78, 0.82),
    ("d′ of cross-fitted projections, coverage", "48 pairs", "linearised over questions"): (0.93, 0.98),
    ("AUC of cross-fitted projections, coverage", "48 pairs", "Wilson, clustered"): (0.93, 0.985),
    ("variance explained, both orders, coverage", "100 questions", "percentile"): (0.905, 0.965),
    ("A on the slope, few degrees of freedom, type I", "SD ratio 1", "HC2, Bell-McCaffrey"): (0.025, 0.05),
    ("A on the slope, few degrees of freedom, type I", "SD ratio 1", "CR2, Bell-McCaffrey"): (0.025, 0.05),
    ("departure from a line, coverage", ", normal law", "inverted non-central F"): (0.935, 0.97),
    ("ratio of variances, coverage", ", normal slopes", "jackknife of the log ratio"): (0.935, 0.96),
    ("correlation over inputs, coverage", ", normal slopes", "jackknife on Fisher's z"): (0.935, 0.975),
    ("d′ of projections, coverage", ", normal projections", "linearised over questions"): (0.935, 0.965),
    ("AUC of projections, coverage", "answers one SD apart", "Wilson, clustered"): (0.91, 0.965),
    ("Spearman of these datasets, coverage", "datasets, ", "draws of the true means"): (0.92, 1),
    ("Spearman over categories, type I", "unrelated", "categories as units"): (0.025, 0.1),
    ("two groups, Spearman of these datasets, coverage", "40 datasets", "draws of the true means"): (0.85, 1),
    ("two groups where there is one, share", "rho 0.7", "possible"): (0, 0.03),
    ("two groups where there is one, share", "rho 0.7", "clear"): (0, 0.01),
}

# What the valid methods are there for, and where some of them end: the table has to show that these are wrong.
INVALID = {
    ("mean over datasets, slopes drawn, coverage", "40 that do not differ, 40", "Hartung-Knapp t(D - 1)"): (0.3, 0.45),
    ("anti-steerable share without noise, coverage", "vector SD 0.3", "Wilson, as measured"): (0.3, 0.75),
    ("mean gap, coverage", "n = 50, lognormal", "percentile"): (0.87, 0.925),
    ("relative steerability, coverage", "z = 1 ", "studentised"): (0.45, 0.65),
    ("relative steerability, coverage", "z = 1 ", "BCa"): (0.78, 0.88),
    ("relative steerability, coverage", "z = 1 ", "delta"): (0.985, 1),
    ("anti-steerable share, coverage", "share 0.002", "percentile (not offered)"): (0.58, 0.68),
    ("mean gap, any vector, coverage", "vector SD 0.02", "test inputs only"): (0.86, 0.91),
    ("mean gap, any vector, coverage", "vector SD 0.05", "test inputs only"): (0.61, 0.69),
    ("mean gap, any vector, coverage", "vector SD 0.1", "test inputs only"): (0.35, 0.43),
    ("Spearman without noise, coverage", "D = 40, normal, rho 0.9", "percentile over datasets"): (0.4, 0.8),
    ("Spearman of two models without noise, coverage", "error 0.8", "question labels unknown"): (0.2, 0.5),
    ("Spearman of two models, these datasets, coverage", "error 0.8", "question labels unknown"): (0.1, 0.4),
    ("mean curve straight, type I", "20 inputs, curvature over inputs: lognormal", "Hotelling's T²"): (0.06, 0.11),
    ("A acts on the slope, type I", "16 inputs, A acts on nothing", "likelihood ratio, chi²(1), ML"): (0.045, 0.1),
    ("mean effect of A over datasets, type I", "tau 0,", "Hartung-Knapp, factor at least 1"): (0, 0.03),
    ("A on the slope, twins, coverage", "15 questions", "twins as independent (not offered)"): (0.99, 1),
    ("Yes on the slope, twins, coverage", "15 questions", "twins as independent (not offered)"): (0.8, 0.9),
    ("Spearman over pairs, type I", "ICC 0.6", "pairs as independent (not offered)"): (0.35, 0.6),
    ("A acts on the slope, type I", "boundary", "t on N - p, model se (lme4's)"): (0, 0.01),
    ("A acts on the slope, type I", "intercept alone", "Wilks' F, intercept and slope"): (0.43, 0.6),
    ("A on the slope, coverage", "SD ratio 3", "mixed model, t on N - p"): (0.68, 0.79),
    ("datasets share one effect, errors uncertain, type I", "3 questions", "Cochran's Q, chi²(D - 1)"): (0.75, 0.87),
    ("mean gap, any vector, coverage", "on 4 training", "with refits"): (0.8, 0.88),
    ("spread of gaps between datasets, coverage", "of 4 questions", "Q-profile"): (0.65, 0.88),
    ("some dataset among 40, type I", "of 24 questions", "Benjamini-Hochberg among half-shuffled"): (0.14, 0.24),
    ("fall of squared effects, coverage", "halved", "unweighted, t(D - 1)"): (0.79, 0.88),
    ("fall of squared effects, type I", "no effects", "unweighted, t(D - 1)"): (0.1, 0.18),
    ("published split, letter and word, coverage", "10 questions", "percentile"): (0.5, 0.7),
    ("variance explained, both orders, coverage", "10 questions", "percentile"): (0.6, 0.92),
    ("mean over datasets, effects skewed, coverage", "D = 14,", "Hartung-Knapp t(D - 1)"): (0.86, 0.93),
    ("smallest detectable gap, power", "tau 0 of", "the one to read"): (0.73, 0.795),
    ("smallest detectable difference, power", "tau 0 of", "the one to read"): (0.73, 0.8),
    ("mean slope of both orders, type I", "share 0.9", "orders as independent (warned of)"): (0.14, 0.18),
    ("A on the slope, few degrees of freedom, type I", "SD ratio 3", "HC2, Bell-McCaffrey"): (0.055, 0.08),
    ("fixed effects of few inputs, type I", "12 inputs", "likelihood ratio, chi²(2), ML"): (0.09, 0.125),
    ("mean over unequal questions, coverage", "5 of 329", "studentised"): (0.865, 0.92),
    ("mean over datasets, one dominates, coverage", "0.05 tau²", "Hartung-Knapp t(D - 1)"): (0.53, 0.73),
    ("mean over datasets, one dominates, coverage", "0.05 tau²", "Hartung-Knapp, factor at least 1"): (0.56, 0.8),
    ("mean curve straight, all contrasts skewed, type I", "12 inputs", "Hotelling's T²"): (0.16, 0.33),
    ("departure from a line, coverage", "200 inputs, mean bend of 3 SD, log", "inverted non-central F"): (0.48, 0.6),
    ("ratio of variances, coverage", "lognormal", "jackknife of the log ratio"): (0.87, 0.945),
    ("correlation over inputs, coverage", "30 inputs, slopes on two ranges, a", "jackknife on Fisher's z"): (0.7, 0.86),
    ("Spearman over categories, type I", "unrelated", "datasets as units"): (0.15, 0.45),
    ("two groups, Spearman without noise, coverage", "0.5 of them", "percentile, disattenuated"): (0.24, 0.9),
}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(TABLE)


def rows_of(table: pd.DataFrame, quantity: str, setting: str, method: str) -> pd.DataFrame:
    found = table[
        (table["quantity"] == quantity)
        & table["setting"].str.contains(setting, regex=False)
        & (table["method"] == method)
    ]
    assert len(found), f"the table has no row {quantity}, {setting}, {method}"
    return found


def test_the_committed_table_has_a_row_for_everything_that_is_measured(table):
    assert tuple(table.columns) == COLUMNS
    parts = [
        calibration_table(n_simulations=2, cells=[name]).assign(n_simulations=cell.n_simulations)
        for name, cell in CELLS.items()
    ]
    declared = [*KEY, "target", "n_simulations"]
    pd.testing.assert_frame_equal(table[declared], pd.concat(parts, ignore_index=True)[declared])
    assert not table.duplicated(KEY).any()
    assert table["measured"].between(0, 1).all()
    assert table["mc_se"].between(0, 0.02, inclusive="right").all()


def test_the_monte_carlo_error_is_that_of_a_share(table):
    shares = table[~table["method"].isin(["Benjamini-Hochberg"]) & table["measured"].between(0.02, 0.98)]
    shares = shares[shares["quantity"] != "gap, each cell, coverage"]
    expected = np.sqrt(shares["measured"] * (1 - shares["measured"]) / shares["n_simulations"])
    np.testing.assert_allclose(shares["mc_se"], expected, atol=5e-4)


def test_a_rerun_of_a_cell_gives_the_committed_rows(table):
    names = ["null, type I", "sd, normal, n = 50"]
    again = calibration_table(cells=names).merge(table, on=KEY, suffixes=("", "_committed"))
    assert len(again) == 2
    # Two studies of slack, for limits that fall on the truth up to rounding on another machine.
    assert (abs(again["measured"] - again["measured_committed"]) <= 2 / again["n_simulations"]).all()


def test_a_few_cells_give_the_rows_that_the_whole_table_has():
    names = ["sd, mixture, n = 50", "gap, normal, n = 50", "null, type I", "anti-steerable, 0.1"]
    whole = calibration_table(seed=3, n_simulations=30, cells=names)
    part = calibration_table(seed=3, n_simulations=30, cells=["null, type I", "sd, mixture, n = 50"])
    assert list(part["setting"].unique()) == [CELLS[name].setting for name in ("sd, mixture, n = 50", "null, type I")]
    kept = whole[whole["setting"].isin(part["setting"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, kept)
    assert not calibration_table(seed=4, n_simulations=30, cells=names).equals(whole)


def test_rows_do_not_depend_on_the_number_of_processes():
    names = ["homogeneity", "twins, 15 questions", "null, type I"]
    one, two = (calibration_table(n_simulations=20, cells=names, jobs=jobs) for jobs in (1, 2))
    pd.testing.assert_frame_equal(one, two)


def test_another_seed_measures_the_same_rates(table):
    names = [
        "gap, very skewed, n = 50",
        "ratio, denominator z = 1",
        "anti-steerable, 0.002",
        "vector error, 0.1",
        "rare level, 10 of 50, SD ratio 3",
        "slope test, boundary",
        "few questions, 5",
        "few refits, 3",
        "spread, 6 questions, tau 0.1",
        "trained on 8 questions",
        "few df, 4 of 20, SD ratio 3",
        "orders, 40 questions, 0.9",
        "ratio of variances, lognormal, n = 20",
        "projections, lognormal, n = 12",
        "copies, 2 of 202, 1",
    ]
    small = calibration_table(seed=1, n_simulations=600, cells=names).merge(table, on=KEY, suffixes=("", "_committed"))
    assert len(small) == 38
    error = np.hypot(small["mc_se"], small["mc_se_committed"])
    assert (abs(small["measured"] - small["measured_committed"]) <= 3.5 * error).all()


@pytest.mark.parametrize("place", VALID, ids=" | ".join)
def test_methods_that_the_page_calls_valid_keep_their_bands(table, place):
    fewest, most = VALID[place]
    found = rows_of(table, *place)
    assert found["measured"].between(fewest, most).all(), found


@pytest.mark.parametrize("place", INVALID, ids=" | ".join)
def test_methods_known_to_fail_are_shown_to_fail(table, place):
    fewest, most = INVALID[place]
    found = rows_of(table, *place)
    assert found["measured"].between(fewest, most).all(), found


def test_progress_counts_cells():
    with Progress(disable=True) as progress:
        calibration_table(n_simulations=2, cells=["sd, normal, n = 50", "null, type I"], progress=progress)
        assert [(task.completed, task.total) for task in progress.tasks] == [(2, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": ["sd, cauchy, n = 50"]}, "cell 'sd, cauchy, n = 50' is unknown; the cells are gap, normal"),
        ({"n_simulations": 0}, "n_simulations is 0; a whole number, 1 or more, is needed"),
        ({"jobs": 0}, "jobs is 0; a whole number"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_refusals_name_what_is_wrong(arguments, message):
    with pytest.raises(InputError, match=message):
        calibration_table(**arguments)
