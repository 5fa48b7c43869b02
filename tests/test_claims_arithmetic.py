"""Claims' own arithmetic: directions, counts and limits of what they say, each against its definition."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

import analyses
import steerstats
from analyses._cache import facts_of, mean_curves, plain_mean, side_by_side, two_studies
from analyses._claim import Claim, Finding, command_line
from analyses._compared import difference_claims, error_words
from analyses._curves import by_chance, correlation_in, how_bent, part_whole
from analyses._effects import mean_of_adjusted
from analyses._means import inputs_claim, signs
from analyses._shares import in_range, share_in
from analyses._shifts import draw_unsteered, unsteered_means
from analyses._tables import BOTH, estimate_and_limits, for_paper, to_latex
from analyses._words import number, percent, together
from steerstats import figures
from steerstats.errors import InputError
from steerstats.generalization import SlopeGrid, steerability_table
from steerstats.generalization.compared import compare_slopes
from steerstats.generalization.slopes import NO_WIDTH
from steerstats.resampling.ranks import TWO_DATASETS
from steerstats.results import Estimate
from steerstats.steerability import mean_slope


def compared(losses: dict[str, float], n: int = 40):
    """Two caches: the second steers each dataset so much less than the first."""
    rng = np.random.default_rng(0)
    first = {name: rng.normal(1, 0.1, (1, 1, n)) for name in losses}
    second = {name: first[name] - loss + rng.normal(0, 0.1, (1, 1, n)) for name, loss in losses.items()}
    grids = {
        label: SlopeGrid(train=("base",), evaluate=("base",), slopes=slopes)
        for label, slopes in (("old", first), ("new", second))
    }
    inputs = {label: {name: list(range(n)) for name in losses} for label in grids}
    return compare_slopes(grids, inputs, ["base->base"], rng=rng, n_resamples=2000)


def test_a_difference_between_caches_is_the_second_minus_the_first_and_cells_are_counted_by_their_bands():
    found = compared({"lost": 0.5, "gained": -0.5, "same": 0.0})
    mean, changed = difference_claims(found)
    assert mean.statement.startswith("Steerability in new minus that in old, ")
    assert (mean.key, mean.n_of) == ("comparison.old.new.base->base", "datasets")
    assert mean.estimate == found.means_frame()["estimate"].item()
    assert changed.counts == {"differ": 2, "not told apart": 1}
    # A cell whose own interval leaves 0 out and whose band does not is not told apart.
    loss = 2.1 * 0.1 / np.sqrt(40)
    near = compared({f"d{k}": loss * (-1) ** k for k in range(14)})
    frame = near.to_frame()
    by_interval = ((frame["ci_low"] > 0) | (frame["ci_high"] < 0)).sum()
    by_band = ((frame["band_low"] > 0) | (frame["band_high"] < 0)).sum()
    assert by_band < by_interval
    assert difference_claims(near)[-1].counts["differ"] == by_band


def test_the_difference_in_one_dataset_counts_its_questions_and_shows_its_band_beside():
    found = compared({"alone": 0.5})
    claim, changed = difference_claims(found)
    assert (claim.n, claim.n_of) == (40, "questions")
    assert "in alone:" in claim.statement
    assert claim.facts["at_once"] == f"[−{-found.band_low.item():.3f}, −{-found.band_high.item():.3f}]"
    assert changed.counts == {"differ": 1, "not told apart": 0}


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([True, True], "with the vectors' own error in them"),
        ([True, False], "the vectors' own error is in some, as the table says"),
        ([False, False], "the vectors' own error is not in them"),
    ],
)
def test_where_the_vectors_error_is_is_said_of_all_of_some_and_of_none(held, words):
    assert error_words(pd.DataFrame({"includes_vector_error": held})) == words


def test_sides_of_zero_are_counted_by_intervals_and_not_by_estimates():
    limits = [(0.1, 0.3), (-0.1, 0.9), (-0.9, 0.1), (-0.3, -0.1), (0.0, 0.2)]
    means = [
        Estimate(name="m", estimate=sum(one) / 2, ci_low=one[0], ci_high=one[1], n=9, method="m") for one in limits
    ]
    assert signs(means) == {"works": 1, "below": 1, "undecided": 3}


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ((-0.02, 0.1, 0.3), (-0.02, 0.3)),  # an estimate below 0 is no share, and its limits stay
        ((0.05, -0.1, 0.3), (0.0, 0.3)),
        ((0.95, 0.8, 1.1), (0.8, 1.0)),
        ((0.5, 0.4, 0.6), (0.4, 0.6)),
    ],
)
def test_limits_of_a_share_are_cut_where_shares_end_and_it_is_said(limits, shown):
    value, low, high = limits
    low = min(low, value)
    claim = Claim(key="k", statement="s", estimate=value, ci_low=low, ci_high=high, interval="t", n=9, n_of="datasets")
    found = in_range(claim)
    assert (found.ci_low, found.ci_high) == shown
    assert ("limits cut" in found.interval) == (shown != (low, high))


def test_the_limits_of_a_correlation_between_ranges_are_those_of_a_jackknife_by_question():
    x, y = np.random.default_rng(1).normal(size=(2, 18)) + np.linspace(0, 2, 18)
    questions = np.repeat(range(6), 3)
    found = correlation_in(x, y, questions)
    whole = np.arctanh(np.corrcoef(x, y)[0, 1])
    left = [np.arctanh(np.corrcoef(x[questions != q], y[questions != q])[0, 1]) for q in range(6)]
    half = stats.t.ppf(0.975, 5) * stats.sem(6 * whole - 5 * np.array(left))
    assert found["estimate"] == pytest.approx(np.tanh(whole))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((np.tanh(whole - half), np.tanh(whole + half)))


def test_slopes_that_are_all_on_one_line_have_no_interval_of_their_correlation():
    x = np.array([0.1, 0.4, 0.2, 0.9, 0.5])
    found = correlation_in(x, 2 * x, range(5))
    assert found["estimate"] == pytest.approx(1)
    assert np.isnan([found["ci_low"], found["ci_high"]]).all()


def test_slopes_of_noise_on_part_of_a_grid_go_with_those_on_all_of_it_as_is_said():
    grid = np.array([0.0, 0.25, 0.5, 1.0, 3.0])
    noise = np.random.default_rng(2).normal(size=(20_000, 5))
    inside = np.abs(grid) <= 1
    slopes = [np.polyfit(grid[keep], noise[:, keep].T, 1)[0] for keep in (inside, np.full(5, True))]
    assert part_whole(grid, 1.0) == pytest.approx(np.corrcoef(*slopes)[0, 1], abs=0.02)


def test_a_share_of_a_row_has_wilsons_limits():
    found = share_in({"share_other_sign": 0.2, "n": 30}, "share_other_sign")
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(proportion_confint(6, 30, method="wilson"))


def test_how_much_curves_bend_is_told_of_the_dataset_that_bends_most():
    # The last is flat: nearly all its little variation is chance, and it is not shown to bend.
    bent = {"nonlinear_share": [0.02, 0.6, 0.9], "p_value": [0.5, 0.001, 0.4], "rms_departure": [0.01, 0.3, 0.02]}
    built, table = SimpleNamespace(kind="grid"), SimpleNamespace(kind="import")
    told = how_bent(built, pd.DataFrame(bent))
    assert "as here 60% of its variation (RMS departure at most 0.300 nats)" in told
    assert "misfit is shape, not noise" in told
    assert "noise" not in how_bent(table, pd.DataFrame(bent)), "of a table's scores nobody knows their noise"
    little = pd.DataFrame(bent | {"nonlinear_share": [0.02, 0.4, 0.9]})
    assert how_bent(built, little).startswith(": it is systematic, not large")
    for p_values in ([0.5, 0.6, 0.4], [0.02, 0.6, 0.4]):  # one of three is below .025 where none bends, too
        straight = pd.DataFrame(bent | {"p_value": p_values})
        told = how_bent(built, straight)
        assert told.startswith("; here no mean curve is shown to bend")
        chance = " at a false discovery rate of 2.5%, since of several intervals some exclude 0 by chance"
        assert (chance in told) == (min(p_values) < 0.025)
    assert how_bent(built, straight.iloc[:1]).startswith(": it is systematic"), "one dataset is not picked out of many"


def test_shares_that_chance_gave_are_not_kept_above_0_by_a_logit():
    chance, clear = (pd.Series(values) for values in ([0.01, 0.02, 0.12], [0.3, 0.4, 0.45]))
    assert mean_of_adjusted(chance).ci_low < 0 < mean_of_adjusted(chance).estimate
    found = mean_of_adjusted(clear)
    assert 0 < found.ci_low < found.ci_high < 1
    assert "logit" in found.method
    assert "two datasets" in mean_of_adjusted(clear[:2]).method
    assert np.isnan(mean_of_adjusted(clear[:1]).ci_low)


@pytest.mark.parametrize(("chance", "said"), [(0.009, False), (0.011, True)])
def test_what_chance_alone_bends_is_said_from_a_tenth_on(chance, said):
    assert bool(by_chance(pd.DataFrame({"chance_share": [chance], "nonlinear_share": [0.1]}))) is said


@pytest.mark.parametrize(("layers", "layer"), [([[13], [13]], 13), ([[13, 14], [13, 14]], [13, 14]), ([[], []], 7)])
def test_layers_that_are_steered_are_named_whether_one_or_several(layers, layer, monkeypatch):
    monkeypatch.setattr("analyses._cache.protocol_of", lambda study: {})
    units = {name: SimpleNamespace(steered_layers=own) for name, own in zip("ab", layers)}
    study = SimpleNamespace(model="m", datasets=list(units), units=units, spec={"layer": 7})
    assert facts_of(study)["layer"] == layer


def test_one_dataset_has_no_mean_over_datasets_and_two_have_no_correlation():
    for n, over, statement in (
        (1, "", "Share:"),
        (2, "", "Share, mean over datasets:"),
        (1, "inputs", "Share, mean over inputs:"),
        (2, "inputs", "Share, mean over inputs and datasets:"),
    ):
        mean = Claim.over_datasets("k", "Share", plain_mean([0.2] * n, "share"), over=over)
        assert (mean.statement, mean.n_of) == (statement, "dataset" if n == 1 else "datasets")
    two, three = (
        Claim.ranking("k", "R:", {"estimate": 1.0, "ci_low": 0.5, "ci_high": 1.0, "n": n}, "percentile") for n in (2, 3)
    )
    assert np.isnan([two.estimate, two.ci_low, two.ci_high]).all()
    assert two.interval == TWO_DATASETS
    assert (three.estimate, three.ci_low, three.interval) == (1.0, 0.5, "percentile")


@pytest.mark.parametrize(("n", "n_of", "few"), [(7, "datasets", True), (8, "datasets", False), (7, "questions", False)])
def test_a_missing_interval_blames_datasets_only_where_they_are_counted_and_few(n, n_of, few):
    claim = Claim.bare("k", "Correlation:", 0.5, n, n_of, "percentile over datasets")
    assert (claim.interval == "too few datasets for an interval") is few


def test_a_claim_reads_as_it_was_written_with_limits_that_are_open_or_missing():
    shared = {"estimate": 1.0, "ci_low": -np.inf, "ci_high": 1.5, "interval": "Fieller"}
    claims = Claim(key="a", statement="Ratio:", n=9, n_of="inputs", **shared), Claim.bare("b", "Count:", 2, 9, "x", "y")
    half, none = Finding(script="s", title="t", claims=claims).record()["claims"]
    assert (half["ci_low"], half["ci_high"], none["ci_low"]) == ("-inf", 1.5, None)
    assert Claim.read(half) == claims[0]
    assert Claim.read(half).shown == ("1.000", "[−∞, 1.500]")
    assert np.isnan([Claim.read(none).ci_low, Claim.read(none).ci_high]).all()
    assert Claim.read(none).shown == ("2.000", "")


def test_two_are_compared_and_no_third_is_passed_over():
    study = steerstats.open_cache(steerstats.demo_cache())
    with pytest.raises(InputError, match="3 caches are given, and two are compared here"):
        two_studies([study] * 3, "a second model")


def test_a_mean_curve_has_limits_by_question_and_the_middle_of_its_inputs():
    curves = np.random.default_rng(4).normal(size=(12, 3))
    question = np.repeat([f"q{k}" for k in range(4)], 3)
    unit = SimpleNamespace(propensity=[curves], place=lambda cell: 0, question=question, multipliers=[-1.0, 0.0, 1.0])
    rows = mean_curves(SimpleNamespace(units={"d": unit}))
    means = curves.reshape(4, 3, 3).mean(axis=1)
    low, high = stats.t.interval(0.95, 3, means.mean(axis=0), stats.sem(means))
    np.testing.assert_allclose(rows[["estimate", "ci_low", "ci_high"]], np.stack([means.mean(axis=0), low, high]).T)
    np.testing.assert_allclose(rows[["low", "high"]].T, np.quantile(curves, [0.1, 0.9], axis=0))
    assert list(rows["n"]) == [4] * 3


def test_a_dot_is_of_the_vector_trained_in_the_first_setting_and_evaluated_in_the_second():
    slopes = {name: np.random.default_rng(k).normal(size=(2, 2, 9)) for k, name in enumerate("ba")}
    table = steerability_table(SlopeGrid(train=("base", "sys"), evaluate=("base", "sys"), slopes=slopes))
    pairs = side_by_side(table, ("base", "base"), table, ("base", "sys")).set_index("dataset")
    for name, own in slopes.items():
        assert pairs.loc[name, ["x", "y"]].tolist() == pytest.approx([own[0, 0].mean(), own[0, 1].mean()])
        assert pairs.loc[name, "y_high"] == pytest.approx(mean_slope(own[0, 1]).ci_high)


def test_a_mean_over_the_inputs_of_one_dataset_is_by_question_and_stays_in_its_range():
    values = np.array([0.99, 0.97, 0.98, 0.96, 0.2, np.nan])
    question = np.array(["a", "a", "b", "b", "c", "c"])
    study = SimpleNamespace(units={"d": SimpleNamespace(question=question)})
    claim, _ = inputs_claim(study, "k", "R²", {"d": values}, (0.0, 1.0))
    assert claim.statement == "R² (1 of 6 inputs, for which it is not defined, left out), mean over inputs, in d:"
    assert (claim.n, claim.n_of) == (3, "questions")
    expected = mean_slope(values[:5], questions=question[:5])
    assert expected.ci_low < 0 < 1 < expected.ci_high
    assert (claim.estimate, claim.ci_low, claim.ci_high) == (pytest.approx(values[:5].mean()), 0, 1)
    assert claim.interval == "t interval over 3 questions"
    alike, _ = inputs_claim(study, "k", "τ", {"d": np.ones(6)}, (-1.0, 1.0))
    assert (alike.ci_low, alike.ci_high) == (1, 1)
    assert alike.interval == f"t interval over 3 questions; {NO_WIDTH}"


def test_the_row_of_unsteered_propensity_is_the_mean_over_datasets():
    frame = pd.DataFrame({"setting": ["base", "base", "sys_pos"], "estimate": [1.0, 2.0, -0.25]})
    with figures.style():
        _, ax = figures.canvas()
        draw_unsteered(frame, ["sys_pos", "base"], ax=ax)
    assert [text.get_text() for text in ax.texts] == ["−0.25", "1.50"]


def test_datasets_that_differ_by_their_option_are_counted_by_the_false_discovery_rate_of_slopes(tmp_path, monkeypatch):
    study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain", "plans-ahead", "travels-far"])
    result = study.spurious_factors(n_resamples=20)
    rows = result.over_datasets.datasets.assign(p=0.01, p_fdr=0.001)
    slopes = rows["response"] == "slope"
    rows.loc[slopes, "p_fdr"] = rows[slopes].groupby("term").cumcount().map([0.04, 0.06, 0.07].__getitem__)
    told = replace(result, over_datasets=replace(result.over_datasets, datasets=rows))
    monkeypatch.setattr("analyses.positive_option.letter_and_word", lambda _: told)
    claims = analyses.run("positive_option", study, tmp_path).claims
    assert {claim.key for claim in claims} == {"option.pos_is_a", "option.pos_is_yes"}
    assert all(claim.counts == {"differ": 1, "not shown to differ": 2} for claim in claims)


def test_means_and_extremes_of_claims_are_those_of_the_estimators_tables(tmp_path):
    study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain", "travels-far", "plans-ahead"])
    scripts = ("variance_explained", "vector_cosines", "vector_sampling_error")
    told = {claim.key: claim for script in scripts for claim in analyses.run(script, study, tmp_path).claims}
    shares = study.spurious_factors(n_resamples=20).explained_frame()
    shares = shares[(shares["split"] == "shapley_adjusted_r2") & (shares["component"] == "explained")]
    shares = shares.set_index("dataset")["share"]
    assert told["explained.mean"].estimate == pytest.approx(shares.mean())
    assert (told["explained.most"].facts["dataset"], told["explained.most"].estimate) == (shares.idxmax(), shares.max())
    cosines = study.vector_cosines()
    pairs = cosines.to_frame().query("vector_a != 'mean' and vector_b != 'mean'").groupby("dataset")["cosine"].mean()
    assert told["cosines.settings"].estimate == pytest.approx(pairs.mean())
    assert told["cosines.refits"].estimate == pytest.approx(np.nanmean(cosines.stability[..., 1], axis=1).mean())
    result, wider = study.steerability(), []
    for name, error in result.vector_error.items():
        mean = result[name]["mean"]
        wider.append((error.ci_high - error.ci_low) / (mean.ci_high - mean.ci_low))
    assert told["vector_error.wider"].estimate == pytest.approx(np.mean(wider))


def test_what_is_drawn_beside_a_claim_is_what_the_figure_says_it_is(tmp_path, monkeypatch):
    study, drawn = steerstats.open_cache(steerstats.demo_cache()), {}
    for name in ("detectable_effect", "propensity_and_relative", "foretelling"):
        monkeypatch.setattr(figures, name, lambda frame, name=name, **more: drawn.setdefault(name, (frame, more)))
    for script in ("power", "propensity_difference"):
        analyses.run(script, study, tmp_path)
    gaps = study.generalization(n_resamples=20).gaps.to_frame().query("component == 'gap'")
    shift = gaps["shift"].iloc[0]
    assert drawn["detectable_effect"][1]["observed"] == abs(gaps[gaps["shift"] == shift]["estimate"].mean())
    published, ours = drawn["propensity_and_relative"][0], drawn["foretelling"][0]
    assert published["own"].min() > 0.25 > ours["own"].min(), "the threshold is the published figure's alone"
    assert published["self_pair"].any()
    assert not ours["self_pair"].any()


def test_unsteered_means_count_questions_and_inputs_without_a_value():
    values = np.random.default_rng(3).normal(size=12)
    values[3] = np.nan
    grid = SimpleNamespace(
        unsteered={"d": values[None]}, evaluate=("base",), question={"d": np.repeat([f"q{k}" for k in range(4)], 3)}
    )
    study = SimpleNamespace(grid=lambda: grid, datasets=("d",))
    row = unsteered_means(study).iloc[0]
    known = ~np.isnan(values)
    expected = mean_slope(values[known], questions=grid.question["d"][known])
    assert (row["n"], row["n_excluded"]) == (4, 1)
    assert (row["ci_low"], row["ci_high"]) == (expected.ci_low, expected.ci_high)


def test_nothing_is_never_less_than_nothing():
    assert (number(-0.0), percent(-0.0), number(-1e-9)) == ("0.000", "0%", "−1.0e−9")
    assert together([0.01, -0.0, 0.02], "share") == ["1%", "0%", "2%"]


def test_a_papers_table_has_slopes_alone_shares_in_per_cent_and_no_column_that_is_not_there():
    limits = {"ci_low": 0.1, "ci_high": 0.3, "n": 9, "df": 7.0, "p": 0.04}
    rows = [(model, response, term) for model in ("per-input", "mixed") for response in ("slope", "unsteered")
            for term in ("pos_is_a", "Intercept")]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["model", "response", "term"]).assign(estimate=0.2, dataset="d", **limits)
    shown = for_paper(frame, "spurious_effects")
    assert shown[BOTH].tolist() == ["0.200 [0.100, 0.300]"]
    explained = frame[:1].assign(split="s", component="c", share=0.2)
    assert for_paper(explained, "variance_explained")["share [95%]"].tolist() == ["20% [10%, 30%]"]
    assert BOTH not in for_paper(frame.drop(columns="ci_low"), "spurious_effects")


def test_cells_in_latex_are_words_for_flags_powers_for_small_numbers_and_dashes_for_none():
    frame = pd.DataFrame({"x": [0.000012, 0.0, np.nan, np.inf], "flag": [True, False, True, False]})
    body = [line for line in to_latex(frame, caption="c", label="l").splitlines() if line.count("&") == 1][2:]
    assert body == [r"1.20e-05 & yes \\", r"0.000 & no \\", r"-- & yes \\", r"$\infty$ & no \\"]


def test_a_table_shows_an_interval_that_is_open_on_one_side():
    assert estimate_and_limits([0.2, np.nan, np.nan]) == "0.200"
    assert estimate_and_limits([0.2, 0.1, np.inf]) == "0.200 [0.100, ∞]"
    assert estimate_and_limits([np.nan, 0.1, 0.2]) == "--"
    assert estimate_and_limits([0.2, 0.1, 0.3], "share") == "20% [10%, 30%]"


def test_a_script_that_compares_nothing_passes_over_no_second_cache(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["analyses/linearity.py", "one", "two"])
    with pytest.raises(SystemExit) as left:
        command_line(pytest.fail, "")
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: 2 caches are given, and this script compares none: give it one\n"
