"""The published definitions, recomputed by a few lines of numpy, scipy and statsmodels, agree with ours to 1e-10.

The definitions are those of the original experiment code: a degree-one polyfit per input; the share of slopes that
are not above zero; position and token read off the text of the positive option; explained variance as the drop in
the variance of residuals, A/B first; Spearman over datasets of mean slopes.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from steerstats.generalization import SlopeGrid, id_ood_correlation
from steerstats.generalization.correlation import FIXED
from steerstats.spurious import factor_cells, published_variance_split
from steerstats.steerability import anti_steerable, fit_steerability, mean_slope, median_slope, slope_spread

GRID = np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])
DATASETS = ["myopic-reward", "corrigible-neutral-HHH", "agreeableness", "politically-liberal", "interest-in-math"]
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """One row per input: the text of the positive option's choices, the letter, and curves in two settings."""
    rng = np.random.default_rng(2407)
    rows = []
    for k, dataset in enumerate(DATASETS):
        for i in range(50 + k):
            # The original swaps the options of every second pair of items; a fifth are neither Yes nor No.
            letter, word = ("AB"[(i // 2) % 2], rng.choice(["Yes", "No", "I would"], p=[0.45, 0.35, 0.2]))
            other = {"Yes": "No", "No": "Yes", "I would": "I would not"}[word]
            options = {letter: word, "BA"["AB".index(letter)]: other}
            text = f"Q {i}\n\nChoices:\n(A): {options['A']}\n(B): {options['B']} ({letter})"
            slope = k / 2 - 0.5 + (letter == "A") * 1.5 + (word == "Yes") * 0.5 + rng.normal()
            curve = rng.normal() * 2 + slope * GRID + 0.2 * rng.normal() * GRID**2 + 0.1 * rng.normal(size=7)
            moved = rng.normal() + (0.6 * slope + 0.7 * rng.normal()) * GRID + 0.1 * rng.normal(size=7)
            rows.append({"dataset": dataset, "text": text, "word": word, "letter": letter, "id": curve, "ood": moved})
    return pd.DataFrame(rows)


def published_slopes(curves: pd.Series) -> np.ndarray:
    return np.array([np.polyfit(GRID, curve, 1)[0] for curve in curves])


def ours(curves: pd.Series) -> np.ndarray:
    return fit_steerability(np.stack(list(curves)), GRID).slope


def our_factors(block: pd.DataFrame) -> dict[str, list]:
    """As a cache annotates them: 1, 0, and −1 where the positive option is neither Yes nor No."""
    return {
        "pos_is_a": [int(letter == "A") for letter in block["letter"]],
        "pos_is_yes": [{"Yes": 1, "No": 0}.get(word, -1) for word in block["word"]],
    }


def published_factors(text: str) -> tuple[bool, bool]:
    is_a = text.endswith("(A)")
    return is_a, bool(re.search(rf"\({'A' if is_a else 'B'}\):[ ]+Yes", text))


def test_per_input_slope_and_residual_norm(table):
    fit = fit_steerability(np.stack(list(table["id"])), GRID)
    full = [np.polyfit(GRID, curve, 1, full=True) for curve in table["id"]]
    np.testing.assert_allclose(fit.slope, [out[0][0] for out in full], **EXACT)
    np.testing.assert_allclose(fit.root_rss, [np.sqrt(out[1][0]) for out in full], **EXACT)


def test_mean_median_sd_and_share_not_above_zero(table):
    for _, block in table.groupby("dataset"):
        published, slopes = published_slopes(block["id"]), ours(block["id"])
        assert mean_slope(slopes).estimate == pytest.approx(published.mean(), abs=1e-10)
        assert median_slope(slopes).estimate == pytest.approx(np.median(published), abs=1e-10)
        assert slope_spread(slopes).estimate == pytest.approx(pd.Series(published).std(), abs=1e-10)
        share = anti_steerable(slopes)["published_nonpositive"].estimate
        assert share == pytest.approx(1 - np.mean(published > 0), abs=1e-10)


def test_share_not_above_zero_counts_exact_zeros_as_published_and_ours_does_not():
    slopes = np.array([-1.0, 0, 0, 2])
    signs = anti_steerable(slopes)
    assert signs["published_nonpositive"].estimate == 1 - np.mean(slopes > 0) == 0.75
    assert signs["anti_steerable"].estimate == 0.25


def test_sequential_variance_split(table):
    for _, block in table.groupby("dataset"):
        parsed = np.array([published_factors(text) for text in block["text"]])
        frame = pd.DataFrame(parsed.astype(int), columns=["a", "yes"]).assign(slope=published_slopes(block["id"]))
        total = frame["slope"].var()
        explained = {
            name: total - smf.ols(f"slope ~ {formula}", frame).fit().resid.var()
            for name, formula in {"a": "a", "yes": "yes", "both": "a + yes"}.items()
        }
        split = published_variance_split(
            ours(block["id"]), our_factors(block), rng=np.random.default_rng(0), n_resamples=10
        )
        expected = {
            "pos_is_a": explained["a"],
            "pos_is_yes after pos_is_a": explained["both"] - explained["a"],
            "unexplained": total - explained["both"],
            "pos_is_yes alone": explained["yes"],
            "both": explained["both"],
        }
        assert split.components == tuple(expected)
        np.testing.assert_allclose(split.variance, list(expected.values()), **EXACT)
        assert split.total_variance == pytest.approx(total, abs=1e-10)


def test_counts_and_means_of_the_four_published_cells(table):
    block = table[table["dataset"] == "myopic-reward"]
    parsed = [published_factors(text) for text in block["text"]]
    label = [f"{'A' if a else 'B'} and {'Yes' if yes else 'No'}" for a, yes in parsed]
    published = pd.Series(published_slopes(block["id"])).groupby(label).agg(["size", "mean", "median"])
    cells = factor_cells(ours(block["id"]), our_factors(block), published_binary=True).to_frame()
    cells.index = cells["pos_is_a"] + " and " + cells["pos_is_yes"]
    cells = cells.loc[published.index]
    assert cells["n"].tolist() == published["size"].tolist()
    np.testing.assert_allclose(cells[["mean", "median"]], published[["mean", "median"]], **EXACT)


def test_spearman_of_mean_slopes_over_datasets(table):
    blocks = dict(list(table.groupby("dataset", sort=False)))
    means = [[published_slopes(block[side]).mean() for block in blocks.values()] for side in ("id", "ood")]
    grid = SlopeGrid(
        train=("base",),
        evaluate=("base", "user_neg"),
        slopes={name: np.stack([ours(b["id"]), ours(b["ood"])])[None] for name, b in blocks.items()},
    )
    found = id_ood_correlation(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=50)
    row = found.row("base->base vs base->user_neg", FIXED)
    assert row["estimate"] == pytest.approx(stats.spearmanr(*means).statistic, abs=1e-10)
