"""Results of a study show their headline numbers first, in 80 columns, with a row for each dataset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from steerstats.meta import mean_over_datasets
from steerstats.simulate import SimulationTruth, simulate_cache
from steerstats.steerability import summarise_steerability
from steerstats.study import open_cache
from steerstats.study.headlines import middle, number, over_datasets, with_limits
from steerstats.text import format_number, text_table


@pytest.fixture(scope="module")
def shown(study):
    return {
        "steerability": study.steerability(),
        "generalization": study.generalization(n_resamples=300),
        "spurious": study.spurious_factors(n_resamples=100),
    }


@pytest.mark.parametrize("name", ["steerability", "generalization", "spurious"])
def test_every_dataset_has_its_row_and_nothing_is_wider_than_a_terminal(shown, study, name):
    result = shown[name]
    text, page = result.summary(), result._repr_html_()
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0] == type(result).__name__
    for dataset in study.datasets:
        assert sum(line.startswith(f"  {dataset} ") for line in text.splitlines()) == 1
        assert page.count(f"<td>{dataset}</td>") == 1
    for part in result._parts():
        assert f".{part}" in text
        assert f".{part}" in page
    assert "left out here" not in text
    assert all(words in " ".join(text.split()) for words in (result.method, *result.assumptions, *result.warnings))


def test_steerability_begins_with_the_mean_over_datasets(shown):
    result = shown["steerability"]
    over, text = result.over_datasets, result.summary()
    line = next(line for line in text.splitlines() if line.startswith("  base->base"))
    for value in (over.mean, over.ci_low, over.ci_high, over.prediction_low, over.prediction_high, over.tau):
        assert format_number(value) in line
    assert line.endswith(" 10")
    own = result.vector_error["sim-04"]
    row = next(line for line in text.splitlines() if line.startswith("  sim-04"))
    assert f"{own.estimate:.3f} [{own.ci_low:.3f}, {own.ci_high:.3f}] v" in row


def test_datasets_below_0_are_counted_by_their_means_and_inputs_beyond_the_numerical_error(shown):
    slopes = {"clear": [-1.2, -1.1, -1.0, -0.9], "unclear": [-2.0, -1.0, 1.0, 1.5], "up": [-0.01, 1.0, 2.0, 3.0]}
    results = {name: summarise_steerability(own, error=0.05) for name, own in slopes.items()}
    given = replace(shown["steerability"], results=results, vector_error={})
    (title, table), (_, rows) = given.sections()[1:]
    table, rows = table.set_index(""), rows.set_index("dataset")
    assert title == "Anti-steerable"
    assert table.loc["datasets whose mean is below 0", "estimate"] == "2"
    wrong = table.loc["inputs steered the wrong way, median over datasets"]
    assert (wrong["estimate"], wrong["range"]) == ("50%", "0% to 100%")
    sd = format_number(np.std(slopes["unclear"], ddof=1))
    assert rows.loc["unclear", ["n", "median", "SD"]].tolist() == ["4", "0.000", sd]
    assert rows.loc["unclear", "mean [95%]"].startswith("-0.125 [")
    assert rows.loc["up", "wrong way [95%]"].startswith("0% [0%, ")
    # What an added vector fails at is what a direction that is taken out should do.
    title, table = replace(given, operator="ablate").sections()[1]
    assert "wrong" not in f"{title} {table}"
    assert table[""][0] == "inputs whose propensity falls, median over datasets"


def test_a_star_beside_an_effect_says_that_its_interval_leaves_0_out(study):
    names = ("pos_is_a", "pos_is_yes", "length_difference")
    result = study.spurious_factors(factors=names, n_resamples=20)
    table = result.sections()[-1][1].set_index("dataset")
    seen = set()
    for dataset in study.datasets:
        for name in names:
            row = result[dataset].term(name)
            seen.add(told := bool(row["ci_low"] > 0 or row["ci_high"] < 0))
            assert table.loc[dataset, name].endswith("*") is told
    assert seen == {True, False}


def test_the_mean_that_is_shown_is_the_one_that_the_warnings_say_to_read():
    agreeing = mean_over_datasets([0.300, 0.301, 0.299, 0.300], [0.05] * 4)
    dominated = mean_over_datasets([0.15, 0.5, -0.4], [1e-4, 0.25, 0.25])
    plain = mean_over_datasets([0.3, 0.1, -0.1, 0.2, 0.4], [0.01] * 5)
    shown = over_datasets([("a", agreeing), ("b", dominated), ("c", plain)], "", 0.95)["mean [95%]"]
    assert shown[0] == with_limits(0.3, agreeing.floored_ci_low, agreeing.floored_ci_high) + " f"
    unweighted = dominated.unweighted_mean, dominated.unweighted_ci_low, dominated.unweighted_ci_high
    assert shown[1] == with_limits(*unweighted) + " u"
    assert shown[2] == with_limits(plain.mean, plain.ci_low, plain.ci_high)


def test_a_cell_that_some_datasets_lack_is_not_said_to_be_a_mean_of_all(shown):
    whole, mean = shown["generalization"], shown["generalization"].settings.mean.copy()
    mean[0, 1, 1] = np.nan
    partial = replace(whole, settings=replace(whole.settings, mean=mean))
    for result, told in ((whole, False), (partial, True)):
        (title,) = [title for title, _ in result.sections() if title.startswith("Mean steerability of each vector")]
        assert title.endswith("10 datasets unweighted" + ", of those that have the cell" * told)


def test_the_mean_at_home_is_that_of_the_base_vector_in_its_own_prompt(shown, study):
    rows = shown["generalization"].sections()[-1][1].set_index("dataset")["base\n->base"]
    assert rows.to_dict() == {d: format_number(study.slopes(d).at("base->base").mean()) for d in study.datasets}


def test_generalization_begins_with_gaps_correlations_ratios_and_the_whole_table(shown):
    result = shown["generalization"]
    titles = [title for title, _ in result.sections()]
    assert [title.split(" over")[0].split(" of each")[0].split(" at")[0] for title in titles] == [
        "Mean gap", "Mean part due to the prompt", "Mean part due to transfer", "Spearman correlation with base->base",
        "Relative steerability", "Mean steerability", "Mean steerability",
    ]  # fmt: skip
    sections = [table for _, table in result.sections()]
    overall = result.overall.analyses[0]
    assert (
        sections[0].iloc[0, 2] == f"[{format_number(overall.prediction_low)}, {format_number(overall.prediction_high)}]"
    )
    row = result.correlations.row("base->base vs base->user_neg", "these datasets")
    assert sections[3].iloc[0].tolist()[::4] == ["base->user_neg", f"[{row['ci_low']:.2f}, {row['ci_high']:.2f}]"]
    assert sections[4].loc[0, "median"] == format_number(np.median(result.ratios.estimate[:, 0]))
    bounded = np.count_nonzero(result.ratios.shape[:, 0] == "bounded")
    assert 5 < bounded < 10
    assert sections[4].loc[0, "bounded"] == f"{bounded} of 10"
    assert sections[5].shape == (6, 6)
    assert sections[5].loc[0, "base"] == format_number(result.settings.mean[:, 0, 0].mean())
    gaps = [cell.rstrip("* ") for cell in sections[-1]["sys_pos\n->user_neg"]]
    assert gaps == [format_number(gap) for gap in result.gaps.estimate[0, :, 2]]
    bands = result.gaps.band_low[0, :, 0] * result.gaps.band_high[0, :, 0] > 0
    assert [cell.endswith("*") for cell in sections[-1]["base\n->user_neg"]] == bands.tolist()


@pytest.mark.parametrize(("band_low", "ci_low", "star"), [(-0.5, 0.5, False), (0.5, -0.5, True)])
def test_a_star_is_of_the_simultaneous_band_and_not_of_the_interval(shown, band_low, ci_low, star):
    gaps = shown["generalization"].gaps
    full = {"estimate": 1.5, "band_low": band_low, "band_high": 3 - band_low, "ci_low": ci_low, "ci_high": 3 - ci_low}
    for sign in (1, -1):
        turned = dict(zip(full, full.values() if sign > 0 else [-1.5, band_low - 3, -band_low, ci_low - 3, -ci_low]))
        drawn = replace(gaps, **{name: np.full_like(gaps.estimate, value) for name, value in turned.items()})
        _, table = replace(shown["generalization"], gaps=drawn).sections()[-1]
        assert set(table["base\n->user_neg"].str.endswith("*")) == {star}


def test_bias_begins_with_pooled_effects_and_shares_of_variance(shown):
    result = shown["spurious"]
    sections = [table for _, table in result.sections()]
    pooled = result.over_datasets.pooled["slope", "pos_is_a"]
    told, mark = pooled.quoted, {"plain": "", "unweighted": " u", "floored": " f"}[pooled.to_read]
    assert sections[0].iloc[0, 1] == f"{told.mean:.3f} [{told.ci_low:.3f}, {told.ci_high:.3f}]{mark}"
    shares = [one.share[one.components.index("explained")] for one in result.explained.values()]
    explained = sections[2].set_index("component").loc["explained"]
    assert (explained["median"], explained["n"]) == (f"{np.median(shares):.2f}", "10")
    one = result.explained["sim-02"]
    assert (
        f"{one.share[2]:.2f} [{one.ci_low[2]:.2f}, {one.ci_high[2]:.2f}]"
        in sections[3].set_index("dataset")["R²"]["sim-02"]
    )


def test_one_dataset_shows_its_own_gaps(tmp_path):
    truth = SimulationTruth(datasets=["a-name-longer-than-the-column-is"], n_inputs=14, n_pairs=12)
    study = open_cache(simulate_cache(tmp_path / "one", truth).path)
    found = study.generalization(n_resamples=100)
    title, table = found.sections()[0]
    assert title.startswith("Mean gap of a-name-longer-than")
    assert table["n"].tolist() == ["14"] * 4
    own = zip(*(limit[0, 0] for limit in (found.gaps.estimate, found.gaps.ci_low, found.gaps.ci_high)))
    assert table["gap [95%]"].tolist() == [with_limits(*row) for row in own]
    bounded = next(table for title, table in found.sections() if title.startswith("Relative"))["bounded"]
    assert bounded.tolist() == ["yes" if shape == "bounded" else "no" for shape in found.ratios.shape[0]]
    texts = found.summary(), study.steerability().summary(), study.spurious_factors(n_resamples=50).summary()
    for text in texts:
        assert "a-name-longer" in text
        assert max(map(len, text.splitlines())) <= 80
    assert ".overall" not in texts[0]
    assert ".over_datasets" not in texts[1]
    # Of one dataset there is no median, no range and nothing to count.
    assert not any(word in text for text in texts for word in ("median over datasets", "range", "datasets whose mean"))
    shares, one = study.spurious_factors(n_resamples=50), "a-name-longer-than-the-column-is"
    titles = {title: table for title, table in shares.sections() if title.startswith("Variance of")}
    ((title, table),) = titles.items()
    own = shares.explained[one]
    assert "over datasets" not in title
    assert table["share [95%]"].tolist() == [with_limits(*row, 2) for row in zip(own.share, own.ci_low, own.ci_high)]
    assert study.propensity_shift().warnings == ("1 dataset, fewer than 8: no interval is given",)


def test_two_datasets_have_a_dash_where_a_third_would_lie():
    shown = over_datasets([("a", mean_over_datasets([0.3, 0.4], [0.01, 0.01]))], "", 0.95)
    assert shown["a new dataset"].tolist() == ["—"]
    assert "NaN" not in str(shown)


def test_numbers_in_tables_are_short_and_never_minus_zero():
    assert [number(v, 2) for v in (-0.001, -0.456, np.nan, np.inf, 2e6)] == ["0.00", "-0.46", "—", "inf", "2.00e+06"]
    assert [number(v) for v in (99.1234, -250.04, 80998.83)] == ["99.123", "-250.0", "80999"], "large ones have fewer"
    assert middle([np.nan, np.nan]) == ("—", "")
    assert with_limits(np.nan, np.nan, np.nan) == "—"
    assert with_limits(0.5, np.nan, np.nan) == "0.500 —"
    assert middle([1, np.nan, 3]) == ("2.000", "1.000 to 3.000")
    wide = text_table(pd.DataFrame({"dataset": ["n" * 40], "x": ["1" * 50]}))
    assert wide[1:] == [f"  {'n' * 40}", f"  {' ' * 26}  {'1' * 50}"], "names that begin alike stay apart"
    lines = text_table(pd.DataFrame({"dataset": ["a", "b"], "x\ny": ["1", "22"]}))
    assert lines == ["            x", "  dataset   y", "  a         1", "  b        22"]
