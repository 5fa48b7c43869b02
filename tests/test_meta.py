"""Means over datasets against base R (tests/reference/meta.R), published values, and simulated coverage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.meta import mean_over_datasets, reml_tau2, with_few_units
from steerstats.random_effects import random_effects_mean

REFERENCE = pd.read_csv(Path(__file__).parent / "reference" / "meta.csv")


def case(name: str) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    rows = REFERENCE[REFERENCE["case"] == name]
    values = {key: group["value"].to_numpy() for key, group in rows.groupby("quantity")}
    return values.pop("effect"), values.pop("variance"), {key: float(value[0]) for key, value in values.items()}


@pytest.mark.parametrize("name", ["bcg", "boundary", "five"])
def test_random_effects_equal_base_r(name):
    effect, variance, known = case(name)
    found = mean_over_datasets(effect, variance)
    for key in ("mean", "se", "ci_low", "ci_high", "prediction_low", "prediction_high", "q", "q_p"):
        assert getattr(found, key) == pytest.approx(known[key], rel=2e-7), key
    for key in ("tau", "tau_ci_low", "tau_ci_high"):
        squared = known[key.replace("tau_ci", "tau2") if "ci" in key else "tau2"]
        assert getattr(found, key) ** 2 == pytest.approx(squared, rel=1e-6), key


def test_the_bcg_trials_give_their_published_random_effects_mean():
    # Viechtbauer (2010, doi:10.18637/jss.v036.i03): REML tau² 0.3132, mean −0.7145.
    effect, variance, _ = case("bcg")
    found = mean_over_datasets(effect, variance)
    assert found.tau**2 == pytest.approx(0.3132, abs=5e-5)
    assert found.mean == pytest.approx(-0.7145, abs=5e-5)


def test_the_unweighted_mean_is_a_plain_t_interval():
    y = np.array([0.2, 0.5, -0.1, 0.9, 0.4])
    found = mean_over_datasets(y, np.array([0.1, 0.2, 0.01, 0.4, 0.3]))
    known = stats.ttest_1samp(y, 0).confidence_interval()
    np.testing.assert_allclose([found.unweighted_ci_low, found.unweighted_ci_high], known)


def test_with_equal_variances_both_means_and_intervals_agree():
    y = np.random.default_rng(0).normal(size=9)
    found = mean_over_datasets(y, np.full(9, 0.05))
    assert found.mean == pytest.approx(found.unweighted_mean)
    assert found.ci_low == pytest.approx(found.unweighted_ci_low)
    assert found.tau**2 == pytest.approx(y.var(ddof=1) - 0.05, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-10, 10))
def test_rescaling_and_shifting_effects_rescale_and_shift_the_answer(seed, scale, shift):
    rng = np.random.default_rng(seed)
    y, v = rng.normal(0, 0.5, 8), rng.uniform(0.02, 0.4, 8)
    plain, moved = mean_over_datasets(y, v), mean_over_datasets(scale * y + shift, scale**2 * v)
    size = abs(shift) + scale
    assert moved.mean == pytest.approx(scale * plain.mean + shift, abs=1e-6 * size)
    assert moved.tau == pytest.approx(scale * plain.tau, abs=1e-5 * scale)


def test_the_interval_of_tau_knows_no_smallest_unit():
    effects, variances = np.array([0.1, 0.5, 0.9, 0.4, 1.1]), np.array([0.02, 0.01, 0.03, 0.02, 0.01])
    plain, small = mean_over_datasets(effects, variances), mean_over_datasets(1e-6 * effects, 1e-12 * variances)
    limits = 1e-6 * plain.tau_ci_low, 1e-6 * plain.tau_ci_high
    np.testing.assert_allclose((small.tau_ci_low, small.tau_ci_high), limits, rtol=1e-9)
    assert small.warnings == plain.warnings


def test_leaving_out_a_category_is_the_analysis_without_it():
    rng = np.random.default_rng(1)
    y, v, category = rng.normal(size=10), rng.uniform(0.1, 0.3, 10), np.array(list("aaabbbccdd"))
    found = mean_over_datasets(y, v, category=category.tolist())
    assert found.left_out == ("a", "b", "c", "d")
    rest = mean_over_datasets(y[category != "b"], v[category != "b"])
    known = [rest.mean, rest.ci_low, rest.ci_high, rest.n]
    row = [found.left_out_mean[1], found.left_out_ci_low[1], found.left_out_ci_high[1], found.left_out_n[1]]
    np.testing.assert_allclose(row, known)


@pytest.mark.parametrize(
    ("y", "v", "near"),
    [
        ([0.3, -25.5, -0.2], [1e-4, 100.0, 0.1], 0.08),  # the lower hump is the higher
        ([0.1, -26.6, -0.2], [0.1, 100.0, 0.1], 0.0),
        ([0.1, -0.2, 0.0, -8.9], [0.01, 1000.0, 1.0, 10.0], 14.7),  # the upper one is
    ],
)
def test_reml_takes_the_higher_of_two_humps(y, v, near):
    tau2, y, v = reml_tau2(y, v), np.array(y), np.array(v)

    def criterion(t):
        w = 1 / (v + t)
        return np.log(w).sum() - np.log(w.sum()) - w @ (y - w @ y / w.sum()) ** 2

    grid = np.concatenate([[0], np.geomspace(1e-6, 1000, 4000)])
    assert criterion(tau2) >= max(criterion(t) for t in grid) - 1e-9
    assert tau2 == pytest.approx(near, rel=0.1, abs=0.001)


@pytest.mark.parametrize(("y", "v"), [([1.0, np.nan, 3], [0.1] * 3), ([1.0, 2], [0.1, 0]), ([1.0], [0.1])])
def test_tau_is_not_made_of_what_says_nothing_of_it(y, v):
    with pytest.raises(InputError, match="leave the other datasets out"):  # each of them gave 0
        reml_tau2(y, v)


def test_hartung_knapp_covers_where_the_normal_interval_does_not():
    rng, hits, normal = np.random.default_rng(7), 0, 0
    for _ in range(400):
        v = rng.uniform(0.01, 0.2, 5)
        y = rng.normal(0.3, np.sqrt(0.05 + v))
        found = mean_over_datasets(y, v, category=["one"] * 5)
        hits += found.ci_low <= 0.3 <= found.ci_high
        w = 1 / (v + found.tau**2)
        normal += abs(found.mean - 0.3) <= 1.96 / np.sqrt(w.sum())
    assert 0.925 <= hits / 400 <= 0.975
    assert normal / 400 < 0.92


def test_what_standard_errors_rest_on_is_named():
    fit = mean_over_datasets([0.1, 0.2, 0.3, 0.4, 0.5], [0.01] * 5)
    assert with_few_units(fit, {"a": 60, "b": 60}, {"a": 10}) is fit
    for n in (4, 5):
        said = mean_over_datasets(np.arange(n), np.full(n, 0.01)).warnings
        assert any(text.startswith("only 4 datasets: the SD between them") for text in said) == (n == 4)
    both = with_few_units(fit, {"a": 60, "b": 5}, {"a": 9})
    assert both.quoted.interval.endswith("since standard errors of some rest on few questions or refits")
    assert [text[:41] for text in both.warnings] == [
        "1 of 2 datasets have fewer than 20 questi",
        "1 of 2 datasets have fewer than 10 refits",
    ]


def test_the_prediction_interval_covers_a_new_dataset():
    rng, hits = np.random.default_rng(8), 0
    for _ in range(300):
        v = rng.uniform(0.01, 0.1, 20)
        found = mean_over_datasets(rng.normal(0.3, np.sqrt(0.2 + v)), v, category=["one"] * 20)
        hits += found.prediction_low <= rng.normal(0.3, np.sqrt(0.2)) <= found.prediction_high
    assert 0.92 <= hits / 300 <= 0.98


def test_with_standard_errors_of_nothing_the_prediction_is_the_classical_one():
    y = np.array([0.2, 0.5, -0.1, 0.9, 0.4])
    found = mean_over_datasets(y, np.full(5, 1e-10))
    half = stats.t.ppf(0.975, 4) * y.std(ddof=1) * np.sqrt(1 + 1 / 5)
    assert [found.prediction_low, found.prediction_high] == pytest.approx([y.mean() - half, y.mean() + half], abs=1e-7)


@pytest.mark.parametrize(
    ("v", "tau", "most_plugged_in"),
    [(np.linspace(0.01, 0.2, 10), 0.22, 0.88), (np.array([0.0004, *[0.09] * 4]), 0.1, 0.75)],
)
def test_few_datasets_foretell_the_next_one_where_a_plugged_in_tau_does_not(v, tau, most_plugged_in):
    """10 datasets of unequal precision, and 5 of which one is far more precise: nominal 95%."""
    rng, hits, plugged_in, times = np.random.default_rng(11), 0, 0, 400
    for _ in range(times):
        found = mean_over_datasets(rng.normal(0.3, np.sqrt(tau**2 + v)), v, category=["one"] * len(v))
        new = rng.normal(0.3, tau)
        hits += found.prediction_low <= new <= found.prediction_high
        reach = stats.t.ppf(0.975, len(v) - 2) * np.hypot(found.tau, found.se)
        plugged_in += abs(new - found.mean) <= reach
    assert plugged_in / times < most_plugged_in
    assert 0.92 <= hits / times <= 0.98


def test_one_dataset_that_dominates_is_named_and_the_unweighted_mean_holds():
    v, warned, plain, floored, unweighted = np.array([0.0004, *[0.09] * 4]), 0, 0, 0, 0
    rng, names = np.random.default_rng(12), ["precise", "b", "c", "d", "e"]
    for _ in range(300):
        found = mean_over_datasets(rng.normal(0, np.hypot(0.1, np.sqrt(v))), v, names=names, category=["one"] * 5)
        said = [text for text in found.warnings if text.startswith("precise holds ")]
        assert bool(said) == (found.largest_weight > 0.5)
        warned += bool(said)
        plain += found.ci_low <= 0 <= found.ci_high
        floored += found.floored_ci_low <= 0 <= found.floored_ci_high
        unweighted += found.unweighted_ci_low <= 0 <= found.unweighted_ci_high
    assert max(plain, floored) / 300 < 0.8
    assert unweighted / 300 > 0.93
    assert warned / 300 > 0.6
    even = mean_over_datasets([0.0, 0.1, 0.3], [0.1, 0.2, 0.1])
    assert not any("of the weight" in text for text in even.warnings)
    few = with_few_units(found := mean_over_datasets([0.0, 0.1, 0.3], [0.1, 0.2, 1e-3]), {"a": 5, "b": 60, "c": 60})
    assert few.why_to_read == found.why_to_read == "one dataset holds more than half of the weight"


def test_skewed_slopes_pull_weights_after_effects_and_the_unweighted_mean_is_read():
    rng, times, plain, read, even, apart = np.random.default_rng(3), 100, 0, 0, 0, 0
    for shape in ("lognormal", "normal"):
        for _ in range(times):
            z = rng.standard_normal((30, 40))  # 30 datasets alike, of 40 questions
            slopes = z if shape == "normal" else np.exp(0.8 * z) - np.exp(0.32)
            found = mean_over_datasets(slopes.mean(axis=1), slopes.var(axis=1, ddof=1) / 40, category=["one"] * 30)
            if shape == "normal":
                even += found.to_read == "unweighted"
                continue
            plain += found.ci_low <= 0 <= found.ci_high
            read += found.quoted.ci_low <= 0 <= found.quoted.ci_high
            apart += found.tau_ci_low > 0
            assert found.why_to_read == "standard errors go with the effects"
            (said,) = [text for text in found.warnings if "read the" in text]
            assert said.startswith("datasets with small effects have the smaller standard errors")
            assert "Q and the lower limit of tau told them apart too often" in said
            assert said.endswith("read the unweighted mean, whose interval covered 94-95%")
    assert apart / times > 0.06  # of a nominal .025
    assert plain / times < 0.7
    assert read / times > 0.9
    assert even / times < 0.2


def test_weights_that_follow_effects_by_next_to_nothing_are_no_matter():
    y = np.linspace(0.0, 1.0, 12)  # datasets differ by far more than their errors
    assert mean_over_datasets(y, 1e-4 * (1 + y)).to_read == "plain"


def test_how_far_weights_pull_the_mean_is_told_in_the_models_standard_errors():
    y, v = np.array([0.1, 0.3, 0.2, 0.6]), np.array([0.01, 0.02, 0.02, 0.2])
    fit = random_effects_mean(y, v, 0.95)
    w = 1 / (v + fit.tau2)
    assert fit.factor != pytest.approx(1, abs=0.1)
    assert fit.apart == pytest.approx((fit.mean - y.mean()) * np.sqrt(w.sum()))


def test_datasets_without_a_variance_are_left_out_by_name():
    found = mean_over_datasets([1.0, 2.0, 3.0, 9.0], [0.1, 0.2, np.nan, 0.0], names=["a", "b", "lonely", "constant"])
    assert found.n == 2
    (said,) = [text for text in found.warnings if "lonely, constant" in text]
    assert said.endswith("the mean describes the other 2 alone: a, b")
    assert np.isnan(found.prediction_low)
    found = mean_over_datasets([np.nan, 0.1, 0.2, 0.0], [0.1, 0.1, 1e-3, 0.1], names=["lost", "a", "precise", "b"])
    assert found.left_out == ("a", "precise", "b")
    assert any(text.startswith("precise holds ") for text in found.warnings)


def test_leaving_out_the_only_category_leaves_nothing():
    found = mean_over_datasets([1.0, 2.0], [0.1, 0.1], category=["a", "a"])
    assert found.left_out_n.tolist() == [0]
    assert np.isnan(found.left_out_mean).all()


def test_one_dataset_has_no_mean_over_datasets():
    with pytest.raises(CannotEstimate, match="1 usable dataset; a mean"):
        mean_over_datasets([1.0], [0.1])
    with pytest.raises(InputError, match="one entry per dataset"):
        mean_over_datasets([1.0, 2.0], [0.1])
    with pytest.raises(InputError, match="a mapping's keys go into names"):
        mean_over_datasets({"a": 1.0, "b": 2.0}, {"a": 0.1, "b": 0.1})


def test_the_floored_interval_is_the_models_where_datasets_agree_and_hartung_knapps_elsewhere():
    v = np.array([0.02, 0.05, 0.1, 0.04])
    close = mean_over_datasets([1.0, 1.02, 0.98, 1.01], v)
    model_se = 1 / np.sqrt(np.sum(1 / v))  # tau = 0 here
    w = 1 / v
    mean = w @ [1.0, 1.02, 0.98, 1.01] / w.sum()
    assert close.tau == 0
    assert close.hk_factor == pytest.approx(close.q / 3)
    assert close.floored_se == pytest.approx(model_se)
    assert close.floored_ci_low == pytest.approx(mean - stats.t.ppf(0.975, 3) * model_se)
    assert close.quoted[:4] == (close.mean, close.floored_se, close.floored_ci_low, close.floored_ci_high)
    assert close.prediction_high >= mean + stats.norm.ppf(0.975) * model_se, "at least one common effect's"
    effect, variance, _ = case("boundary")
    spread = mean_over_datasets([0.0, 3.0, -2.0, 1.0], v)
    assert spread.hk_factor == pytest.approx(1, abs=0.05)  # REML tau makes it about 1
    assert spread.floored_ci_low == pytest.approx(min(spread.ci_low, spread.floored_ci_low))
    assert mean_over_datasets(effect, variance).hk_factor < 1
    wide = mean_over_datasets([8.0, 8.0, -5.0, 8.0], [0.01, 0.1, 10.0, 0.1])
    assert wide.hk_factor > 5
    assert wide.floored_se == pytest.approx(wide.se)


def test_datasets_that_agree_by_chance_are_no_certainty():
    same = mean_over_datasets([1.0, 1.0, 1.0], [0.1] * 3)
    assert (same.ci_low, same.ci_high, same.hk_factor) == (1.0, 1.0, 0.0)
    assert same.floored_se == pytest.approx(np.sqrt(0.1 / 3))
    # No draw of tau² is above 0 here: the next dataset is where the common mean is, known to the model's error.
    assert same.prediction_high == pytest.approx(1 + stats.norm.ppf(0.975) * same.floored_se)
    nearly = mean_over_datasets([1.0, 1.0, 1.0, 1.0001], [0.1] * 4)
    for found in (same, nearly):
        (said,) = [text for text in found.warnings if "agree more closely" in text]
        assert f"{found.floored_ci_low:.4g} to {found.floored_ci_high:.4g}" in said
        assert any("tau has an empty interval, shown as 0" in text for text in found.warnings)
        few = with_few_units(found, {"a": 5})
        assert not any("agree more closely" in text for text in few.warnings), "it says to read another row"
    apart = mean_over_datasets([1.0, 2.0, 0.0], [0.1] * 3)
    assert not any("agree more closely" in text for text in apart.warnings)


@settings(deadline=None)
@given(st.floats(-3, 3), st.lists(st.floats(1e-4, 1), min_size=2, max_size=7))
def test_effects_that_are_equal_have_no_spread_by_rounding(effect, variances):
    fit = mean_over_datasets(np.full(len(variances), effect), variances)
    assert (fit.se, fit.hk_factor, fit.unweighted_se) == (0, 0, 0)


def test_the_warning_comes_exactly_where_the_interval_is_narrower_than_the_common_effects():
    rng, seen = np.random.default_rng(3), set()
    for k in range(60):
        v = rng.uniform(0.05, 0.2, 6) if k % 2 else np.exp(rng.normal(size=20))  # with tau above 0 as well
        found = mean_over_datasets(rng.normal(0, 0.2 if k % 2 else 1.0, len(v)), v, category=["one"] * len(v))
        common = 2 * stats.norm.ppf(0.975) / np.sqrt(np.sum(1 / v))
        narrow = found.ci_high - found.ci_low < common
        assert any("agree more closely" in text for text in found.warnings) == narrow
        seen.add(narrow)
    assert seen == {True, False}


def test_floored_intervals_hold_where_standard_errors_differ_much():
    """Röver, Knapp and Friede's case, few studies of unequal precision: of 800 the plain one held 718, this one 793."""
    rng, plain, floored = np.random.default_rng(9), 0, 0
    v = np.array([0.01, 0.1, 0.1])
    for _ in range(400):
        found = mean_over_datasets(rng.normal(0, np.sqrt(v + 0.2**2)), v, category=["one"] * 3)
        plain += found.ci_low <= 0 <= found.ci_high
        floored += found.floored_ci_low <= 0 <= found.floored_ci_high
    assert plain / 400 < 0.93
    assert floored / 400 > 0.96


def test_every_row_says_what_its_standard_error_is():
    frame = mean_over_datasets([1.0, 2.0, 0.5], [0.1, 0.2, 0.1]).to_frame().set_index("quantity")
    assert frame["se_type"].str.len().min() > 3
    found = mean_over_datasets([1.0, 2.0, 0.5], [0.1, 0.2, 0.1])
    assert frame.loc["tau", ["estimate", "ci_low", "ci_high"]].tolist() == [
        found.tau,
        found.tau_ci_low,
        found.tau_ci_high,
    ]
    prediction = [found.prediction_low, found.prediction_high]
    assert frame.loc["a new dataset", ["ci_low", "ci_high"]].tolist() == prediction
    assert frame.loc["random-effects mean", "se_type"].startswith("Hartung-Knapp")
    assert "at least 1" in frame.loc["random-effects mean, floored", "se_type"]
    assert "confidence distribution" in frame.loc["a new dataset", "se_type"]


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        mean_over_datasets([1.0, 2.0], [0.1, 0.1], level=level)
