"""Smallest detectable gaps: against scipy, against simulation, and against the arithmetic of components."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

import analyses
from steerstats.cache.table import import_table
from steerstats.errors import CannotEstimate, InputError
from steerstats.generalization import SlopeGrid, shift_name, with_vector_error
from steerstats.meta import mean_over_datasets, reml_tau2
from steerstats.power import EffectComponents, gap_components, noncentrality, smallest_detectable_effect
from steerstats.study import demo_cache, open_cache


def components(**changes) -> EffectComponents:
    values = {
        "between_datasets": 0.04,
        "between_inputs": 0.9,
        "of_vector": 0.01,
        "n_pairs": 200,
        "vector_df": 9,
        "n": 40,
        "kind": "gap",
        "method": "given",
    }
    return EffectComponents(**values | changes)


@pytest.mark.parametrize("df", [2, 5, 39, 499])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_noncentrality_gives_the_power_of_scipys_noncentral_t(df, power):
    critical, shift = stats.t.ppf(0.975, df), noncentrality(df, power)
    assert stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift) == pytest.approx(power, abs=1e-6)


def test_noncentrality_equals_statsmodels():
    known = TTestPower().solve_power(effect_size=None, nobs=40, alpha=0.05, power=0.8) * np.sqrt(40)
    assert noncentrality(39) == pytest.approx(known, rel=1e-5)


def test_the_standard_error_adds_the_components():
    found = smallest_detectable_effect(components(), n_inputs=100, n_datasets=[1, 10], n_pairs=[50, 400])
    one = [np.sqrt(0.009 + 0.04), np.sqrt(0.009 + 0.005)]
    ten = [np.sqrt((0.009 + 0.04 + 0.04) / 10), np.sqrt((0.009 + 0.005 + 0.04) / 10)]
    known = {(50, 1): one[0], (400, 1): one[1], (50, 10): ten[0], (400, 10): ten[1]}
    assert len(found.se) == 4
    for pairs, d, se, gap, df in zip(found.n_pairs, found.n_datasets, found.se, found.effect, found.df):
        assert se == pytest.approx(known[pairs, d])
        of_vector = 0.01 * 200 / pairs
        own = se**4 / (0.009**2 / 99 + of_vector**2 / 9)  # Satterthwaite: n - 1 and refits - 1
        assert df == pytest.approx(9 if d > 1 else own)
        assert gap == pytest.approx(se * noncentrality(df))


def test_the_gap_is_found_as_often_as_promised():
    found = smallest_detectable_effect(components(), n_inputs=60, n_datasets=12)
    rng = np.random.default_rng(0)
    sd = np.sqrt(0.04 + 0.01 + 0.9 / 60)
    p = stats.ttest_1samp(rng.normal(found.effect[0], sd, (4000, 12)), 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("tau2", "least", "most"), [(0.0, 0.73, 0.785), (0.04, 0.77, 0.83)])
def test_the_quoted_mean_finds_the_gap_less_often_where_datasets_do_not_differ(tau2, least, most):
    """Its interval is floored where estimates agree by chance, as the docstring says."""
    given = components(between_datasets=tau2, of_vector=np.nan, between_inputs=0.6)
    gap = smallest_detectable_effect(given, n_inputs=60, n_datasets=10).effect[0]
    rng, found = np.random.default_rng(0), []
    for _ in range(1000):
        effects = rng.normal(gap, np.sqrt(tau2 + 0.01), 10)
        found.append(mean_over_datasets(effects, 0.01 * rng.chisquare(59, 10) / 59).quoted.ci_low > 0)
    assert least < np.mean(found) < most


@pytest.mark.parametrize("of_vector", [0.05, 0.5])
def test_one_dataset_finds_the_gap_as_often_as_promised_by_the_test_that_it_would_use(of_vector):
    """Ten refits know the vector's variance on nine degrees of freedom, not on those of the inputs."""
    given = components(of_vector=of_vector, between_inputs=2.5)
    found = smallest_detectable_effect(given, n_inputs=50)
    rng, k, n = np.random.default_rng(3), 10, 50
    shares = []
    for _ in range(1500):
        values = found.effect[0] + rng.normal(0, np.sqrt(of_vector)) + rng.normal(0, np.sqrt(2.5), n)
        refits = values + rng.normal(0, np.sqrt(of_vector), (k, 1))
        estimate = with_vector_error(values, refits)
        shares.append(not estimate.ci_low <= 0 <= estimate.ci_high)
    assert np.mean(shares) == pytest.approx(0.8, abs=0.025)


def test_components_are_recovered_from_a_study():
    rng, slopes, refits = np.random.default_rng(1), {}, {}
    for k in range(60):
        gap = rng.normal(0.5, 0.6) + rng.normal(0, 0.3)  # between datasets, and the vector's error
        base = rng.normal(2, 1, 80)
        shifted = base - gap - rng.normal(0, 0.9, 80)
        slopes[f"d{k}"] = np.stack([base, shifted])[None]
        wobble = rng.normal(0, 0.3, (25, 1, 1))
        refits[f"d{k}"] = np.stack([base + 0 * wobble[..., 0], shifted + wobble[..., 0]], axis=1)[:, None]
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes, refits=refits)
    found = gap_components(grid, "base->user_neg", n_pairs=150)
    assert found.between_inputs == pytest.approx(0.81, rel=0.05)
    assert found.of_vector == pytest.approx(0.09, rel=0.1)
    assert found.between_datasets == pytest.approx(0.36, rel=0.35)
    assert found.n_pairs == 150
    assert found.vector_df == 24
    bare = gap_components(SlopeGrid(train=grid.train, evaluate=grid.evaluate, slopes=slopes), "base->user_neg")
    assert np.isnan(bare.of_vector)
    assert bare.between_datasets > found.between_datasets  # the vector's error now passes for spread
    assert any("no refitted vectors" in text for text in bare.warnings)
    assert not smallest_detectable_effect(bare, n_inputs=50).includes_vector_error


def test_a_study_is_as_large_as_its_questions_and_not_as_its_inputs(tmp_path):
    rng, rows = np.random.default_rng(3), []
    for name, n in (("one", 12), ("two", 24)):
        for i, setting in product(range(n), ("base", "user_neg")):
            slope = rng.normal()
            cell = (name, f"i{i}", f"q{i // 2}", "base", setting, "base", 0)
            rows += [(*cell, lam, slope * lam) for lam in (-1.0, 0.0, 1.0)]
    names = ["dataset", "input", "question", "setting_train", "setting_eval", "vector", "layer", "multiplier"]
    pd.DataFrame(rows, columns=[*names, "propensity"]).to_csv(tmp_path / "t.csv", index=False)
    study = open_cache(import_table(tmp_path / "t.csv", tmp_path / "cache", model="m"))
    assert study.power("base->user_neg").n_inputs.tolist() == [8], "the harmonic mean of 6 and 12 questions"


def test_the_vectors_error_is_as_well_known_as_by_the_fewest_refits():
    slopes = {f"d{k}": np.random.default_rng(k).normal(size=(1, 2, 9)) for k in range(2)}
    refits = {
        name: one + np.random.default_rng(9).normal(size=(6 - 4 * k, 1, 2, 1))
        for k, (name, one) in enumerate(slopes.items())
    }
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes, refits=refits)
    assert gap_components(grid, "base->user_neg", n_pairs=40).vector_df == 1


@pytest.mark.parametrize(("datasets", "where"), [(1, "a gap is a lower bound"), (3, "counted as difference between")])
def test_without_refits_it_is_said_where_the_vectors_error_went(datasets, where):
    slopes = {f"d{k}": np.random.default_rng(k).normal(size=(1, 2, 9)) for k in range(datasets)}
    found = gap_components(SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes), "base->user_neg")
    (said,) = [text for text in found.warnings if text.startswith("no refitted vectors: the vector's own error is")]
    assert where in said
    few = [text for text in found.warnings if "datasets have fewer than 20 questions (the fewest: 9)" in text]
    assert len(few) == (datasets > 1), "of one there is no variance between datasets"


def test_two_questions_are_enough_for_a_dataset_to_count():
    slopes = {f"d{k}": np.random.default_rng(k).normal(size=(1, 2, n)) for k, n in enumerate((1, 2, 9))}
    found = gap_components(SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes), "base->user_neg")
    gaps = [slopes[name][0, 0] - slopes[name][0, 1] for name in ("d1", "d2")]
    assert found.n == 2
    assert found.between_inputs == pytest.approx(np.mean([gap.var(ddof=1) for gap in gaps]))


def test_more_of_anything_detects_less():
    gap = smallest_detectable_effect(components(), n_inputs=[20, 40, 80, 5000], n_datasets=20).effect
    assert (np.diff(gap) < 0).all()
    floor = noncentrality(19) * np.sqrt((0.04 + 0.01) / 20)
    assert gap[-1] == pytest.approx(floor, rel=0.01)  # more inputs do not help past the other components


def test_designs_that_cannot_be_judged_are_refused():
    study = open_cache(demo_cache())
    with pytest.raises(CannotEstimate, match="n_pairs has no effect"):
        smallest_detectable_effect(components(of_vector=float("nan"), n_pairs=None), n_inputs=10, n_pairs=5)
    with pytest.raises(CannotEstimate, match=r"n_pairs has no effect: .*controls\.shifts"):
        study.power("base->user_neg", n_pairs=100)  # refits there are, but under base->base alone
    with pytest.raises(InputError, match="base->base is the reference itself and has no gap"):
        study.power("base->base")
    with pytest.raises(CannotEstimate, match="between datasets is unknown"):
        smallest_detectable_effect(components(between_datasets=float("nan")), n_inputs=10, n_datasets=2)
    with pytest.raises(InputError, match="n_inputs is 1; a whole number, 2 or more"):
        smallest_detectable_effect(components(), n_inputs=1)
    for name, value in (("n_inputs", [50, 60.5]), ("n_pairs", 0), ("n_datasets", [2, -1])):
        with pytest.raises(InputError, match=f"{name} is .*a whole number"):
            smallest_detectable_effect(components(), **{"n_inputs": 50, name: value})
    with pytest.raises(InputError, match="vector_df is None"):
        smallest_detectable_effect(components(vector_df=None), n_inputs=50)
    assert smallest_detectable_effect(components(vector_df=None), n_inputs=50, n_datasets=5).df.tolist() == [4]
    grid = SlopeGrid(train=("base",), evaluate=("base",), slopes={"d": np.arange(5.0)[None, None]})
    with pytest.raises(InputError, match="is the reference itself"):
        gap_components(grid, "base->base")
    with pytest.raises(InputError, match="alpha < power"):
        smallest_detectable_effect(components(), n_inputs=10, power=0.01)
    for name, value in (("power", 80), ("alpha", 0), ("alpha", "5%")):
        with pytest.raises(InputError, match=f"{name} is .*; a share strictly between 0 and 1"):
            smallest_detectable_effect(components(), n_inputs=10, **{name: value})


def test_a_table_of_designs_says_which_gap_it_is_about():
    study = open_cache(demo_cache())
    assert f"Effect: gap base->base minus {shift_name(study.shifts()[0])}\n" in study.power().summary()


def test_one_dataset_speaks_of_itself_only():
    found = smallest_detectable_effect(components(), n_inputs=50, n_datasets=[1, 10])
    assert found.about == ("this dataset", "a mean over datasets")
    assert found.to_frame()["about"].tolist() == list(found.about)
    assert any("not about datasets in general" in text for text in found.warnings)
    several = smallest_detectable_effect(components(), n_inputs=50, n_datasets=10)
    assert not any("this dataset" in text for text in (*several.warnings, *several.assumptions))
    with pytest.raises(CannotEstimate, match="n_datasets=1 asks about this dataset alone"):
        smallest_detectable_effect(components(between_datasets=float("nan")), n_inputs=50, n_datasets=10)


def test_pairs_are_missing_where_the_vectors_error_is():
    bare = smallest_detectable_effect(components(of_vector=float("nan"), n_pairs=None), n_inputs=50, n_datasets=10)
    assert np.isnan(bare.n_pairs).all()
    assert not any("1 / pairs" in text for text in bare.assumptions)
    alone = smallest_detectable_effect(components(of_vector=float("nan"), n_pairs=None), n_inputs=50)
    assert alone.df.tolist() == [49]
    assert smallest_detectable_effect(components(), n_inputs=50, n_datasets=10).n_pairs.tolist() == [200]


def test_datasets_and_cells_without_refits_take_the_mean_of_the_others():
    rng, (train, evaluate) = np.random.default_rng(4), (("base",), ("base", "user_neg"))
    slopes = {name: rng.normal([[[k], [-k]]], 1, (1, 2, 30)) for k, name in enumerate("abc")}
    question = {name: np.arange(30).astype(str) for name in slopes}
    refits = {name: slopes[name] + rng.normal(size=(6, 1, 2, 1)) for name in "ab"}
    refits["b"][:, :, 1] = np.nan
    rest = {"train": train, "evaluate": evaluate, "slopes": slopes, "question": question}
    rest |= {"unsteered": {name: np.zeros((2, 30)) for name in slopes}}
    found = gap_components(SlopeGrid(**rest, refits=refits), "base->user_neg", n_pairs=40)
    apart = (refits["a"][:, 0, 0] - refits["a"][:, 0, 1]).mean(axis=1)
    assert found.of_vector == pytest.approx(apart.var(ddof=1))
    gaps = [slopes[name][0, 0] - slopes[name][0, 1] for name in "abc"]
    errors = np.var(gaps, axis=1, ddof=1) / 30 + found.of_vector
    assert found.between_datasets == pytest.approx(reml_tau2(np.mean(gaps, axis=1), errors))
    assert found.vector_df == 5
    assert any("known in 1 of 3 datasets" in text for text in found.warnings)
    none = gap_components(SlopeGrid(**rest, refits={"b": refits["b"]}), "base->user_neg", n_pairs=40)
    assert np.isnan(none.of_vector)
    assert none.n_pairs is None


@pytest.mark.parametrize("datasets", [5, 14])
def test_the_range_of_a_gap_holds_that_of_the_true_components(datasets):
    """The gap itself has a true power of .35 to .96 with five datasets fitted, where it says .80."""
    tau, n, times, rng = 0.1, 60, 200, np.random.default_rng(4)
    true = noncentrality(datasets - 1) * np.sqrt((tau**2 + 0.09 / n) / datasets)
    held = said = 0
    for _ in range(times):
        means = rng.normal(0, tau, datasets)
        slopes = {f"d{k}": np.stack([np.zeros(n), rng.normal(m, 0.3, n)])[None] for k, m in enumerate(means)}
        grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes)
        found = smallest_detectable_effect(gap_components(grid, "base->user_neg"), n_inputs=n, n_datasets=datasets)
        assert found.effect_low[0] <= found.effect[0] <= found.effect_high[0]
        held += found.effect_low[0] <= true <= found.effect_high[0]
        said += any(f"runs from {found.effect_low[0]:.2g} to {found.effect_high[0]:.2g}" in t for t in found.warnings)
    # Monte Carlo error 1.5 points.
    assert 0.91 <= held / times <= 0.99
    assert said == times


def test_a_range_that_is_narrow_or_has_nothing_to_do_with_datasets_is_no_warning():
    near = smallest_detectable_effect(components(between_low=0.035, between_high=0.045), n_inputs=50, n_datasets=[1, 9])
    assert np.isnan([near.effect_low[0], near.effect_high[0]]).all()
    assert near.effect_low[1] < near.effect[1] < near.effect_high[1]
    assert not any("runs from" in text for text in near.warnings)
    low = smallest_detectable_effect(components(between_low=0.01, between_high=0.045), n_inputs=50, n_datasets=9)
    told = f"95% interval 0.1 to 0.21: over this range the gap of {low.effect[0]:.2g} (50 inputs, 9 datasets) runs from"
    assert any(told in text for text in low.warnings), "tau, not its square"
    assert {"effect_low", "effect_high"} <= set(near.to_frame())
    unknown = smallest_detectable_effect(components(), n_inputs=50, n_datasets=9)
    assert np.isnan(unknown.effect_high).all()


def test_a_gap_without_error_is_named_and_costs_the_others_nothing():
    rng = np.random.default_rng(3)
    slopes = {name: rng.normal(1, 0.5, (1, 2, 30)) for name in ("a", "b", "c")}
    rest = gap_components(SlopeGrid(train=("base",), evaluate=("base", "x"), slopes=slopes), "base->x")
    slopes["still"] = np.repeat(rng.normal(1, 0.5, (1, 1, 30)), 2, axis=1)
    found = gap_components(SlopeGrid(train=("base",), evaluate=("base", "x"), slopes=slopes), "base->x")
    assert (found.between_datasets, found.between_high) == (rest.between_datasets, rest.between_high)
    assert any("the same gap in still: left out of the variance between datasets" in text for text in found.warnings)
    slopes["still"][:, 1] -= 0.2  # the same for every question, but for rounding
    found = gap_components(SlopeGrid(train=("base",), evaluate=("base", "x"), slopes=slopes), "base->x")
    assert (found.between_datasets, found.between_high) == (rest.between_datasets, rest.between_high)
    assert np.isfinite(smallest_detectable_effect(found, n_inputs=30, n_datasets=4).effect).all()
    with pytest.raises(CannotEstimate, match="fewer than two gaps have an error"):
        smallest_detectable_effect(components(between_datasets=np.nan), n_inputs=30, n_datasets=4)


def test_the_caption_calls_the_harmonic_mean_of_unequal_datasets_no_average(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for name, n in (("few", 10), ("many", 90)):
        for i, setting, multiplier in product(range(n), ("base", "user_neg"), (-1.0, 0.0, 1.0)):
            rows.append((name, f"q{i}", "base", setting, multiplier, multiplier + 0.3 * rng.normal()))
    columns = ["dataset", "input", "setting_train", "setting_eval", "multiplier", "propensity"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "t.csv", index=False)
    cache = import_table(tmp_path / "t.csv", tmp_path / "cache", model="m")
    counted = analyses.run("power", cache, tmp_path / "out").counted
    assert counted == (
        "components fitted on 2 datasets with 10 to 90 questions each (18 in the harmonic mean, by which errors go)."
    )


@pytest.mark.parametrize(("n", "said"), [(5, True), (25, False)])
def test_few_questions_make_the_variance_between_datasets_too_large_and_that_is_said(n, said):
    rng, slopes, above = np.random.default_rng(2), {}, 0
    se = np.sqrt((0.2**2 + 1 / n) / 10)
    for _ in range(60):
        for k in range(10):
            loss = 0.3 + 0.2 * rng.normal() + rng.normal(size=n)
            slopes[f"d{k}"] = np.stack([np.ones(n), 1 - loss])[None]
        grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes)
        found = smallest_detectable_effect(gap_components(grid, "base->user_neg"), n_inputs=n, n_datasets=10)
        above += found.effect_low[0] > se * noncentrality(9)
        assert any("fewer than 20 questions" in text for text in found.warnings) == said
    assert (above > 9) == said


def test_that_the_range_of_gaps_has_no_floor_of_its_own_is_said():
    given = {"between_low": 0.0, "between_high": 0.08}
    found = smallest_detectable_effect(components(**given), n_inputs=40, n_datasets=10)
    assert any("the true gap lies below its range in half of studies" in text for text in found.warnings)
    found = smallest_detectable_effect(components(**given), n_inputs=40, n_datasets=1)
    assert not any("in half of studies" in text for text in found.warnings)
