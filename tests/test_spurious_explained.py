"""Variance explained: Shapley shares against all orderings of statsmodels fits, negative shares, intervals, edges."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from steerstats.errors import CannotEstimate, InputError
from steerstats.spurious import code_factors, published_variance_split, variance_explained
from steerstats.spurious.explained import FEW_IN_ORDERS


def data(seed: int, n: int = 70, a: float = 1.5):
    rng = np.random.default_rng(seed)
    pos_is_a = rng.integers(0, 2, n)
    factors = {
        "pos_is_a": pos_is_a,
        "pos_is_yes": np.where(rng.random(n) < 0.2, -1, rng.random(n) < 0.3 + 0.4 * pos_is_a),
        "length_difference": rng.normal(0, 20, n) + 15 * pos_is_a,
    }
    return a * pos_is_a + 0.7 * (factors["pos_is_yes"] == 1) + rng.normal(size=n), factors


def adjusted(slopes: np.ndarray, design, names) -> float:
    columns = [j for j, own in enumerate(design.owner) if own == "" or own in names]
    return sm.OLS(slopes, design.columns[:, columns]).fit().rsquared_adj


def adjusted_by_question(questions: np.ndarray):
    """The same with errors alpha I + beta B, B being "same question", in full matrices."""
    same = (questions[:, None] == questions).astype(float)
    centre = np.eye(questions.size) - 1 / questions.size

    def value(slopes: np.ndarray, design, names) -> float:
        X = centre @ design.columns[:, [j for j, own in enumerate(design.owner) if own in names]]
        P = X @ np.linalg.pinv(X, rcond=1e-10)
        M = centre - P
        e = M @ slopes
        moments = [[np.trace(M), np.trace(M @ same)], [np.trace(M @ same), np.trace(M @ same @ M @ same)]]
        alpha, beta = np.linalg.lstsq(moments, [e @ e, e @ same @ e], rcond=1e-9)[0]
        by_chance = alpha * np.trace(P) + beta * np.trace(P @ same)
        return (slopes @ P @ slopes - by_chance) / (slopes @ centre @ slopes)

    return value


def all_orders(slopes: np.ndarray, factors: dict, worth=adjusted) -> dict[str, float]:
    """Mean gain in adjusted R² over every order of entry, one fit at a time."""
    design = code_factors(factors, slopes.size)
    gains = {name: [] for name in design.factors}
    for order in permutations(design.factors):
        for k, name in enumerate(order):
            before = worth(slopes, design, order[:k]) if k else 0.0
            gains[name].append(worth(slopes, design, order[: k + 1]) - before)
    return {name: float(np.mean(values)) for name, values in gains.items()}


def test_shares_are_the_mean_over_all_orders_of_entry():
    slopes, factors = data(0)
    fit = variance_explained(slopes, factors, rng=np.random.default_rng(0), n_resamples=50)
    expected = all_orders(slopes, factors)
    assert fit.components == (*expected, "explained", "unexplained")
    np.testing.assert_allclose(fit.share[:3], list(expected.values()), atol=1e-10)
    np.testing.assert_allclose(fit.share[3], sum(expected.values()), atol=1e-10)
    np.testing.assert_allclose(fit.share[3] + fit.share[4], 1)
    np.testing.assert_allclose(fit.variance, fit.share * slopes.var(ddof=1), rtol=1e-10)


def test_two_factors_follow_the_printed_formula():
    slopes, factors = data(1)
    del factors["length_difference"]
    design = code_factors(factors, slopes.size)
    a, yes, both = (adjusted(slopes, design, n) for n in (["pos_is_a"], ["pos_is_yes"], ["pos_is_a", "pos_is_yes"]))
    fit = variance_explained(slopes, factors, rng=np.random.default_rng(0), n_resamples=50)
    np.testing.assert_allclose(fit.share[:2], [(a + both - yes) / 2, (yes + both - a) / 2], atol=1e-12)


def test_interactions_come_after_all_main_effects():
    slopes, factors = data(2)
    slopes = slopes + 3 * (factors["pos_is_a"] == 1) * (factors["pos_is_yes"] == 1)
    design = code_factors(factors, slopes.size, interactions=[("pos_is_a", "pos_is_yes")])
    rng = np.random.default_rng(0)
    plain = variance_explained(slopes, factors, rng=rng, n_resamples=50)
    crossed = variance_explained(slopes, factors, rng=rng, interactions=True, n_resamples=50)
    np.testing.assert_allclose(crossed.share[:3], plain.share[:3])
    gain = adjusted(slopes, design, design.factors) - adjusted(slopes, design, design.factors[:3])
    assert crossed.components[3] == "pos_is_a:pos_is_yes"
    assert crossed.share[3] == pytest.approx(gain)


def test_intervals_agree_with_a_loop_of_refits_by_question():
    slopes, factors = data(3, n=40)
    del factors["length_difference"]
    questions = np.arange(40) // 2
    fit = variance_explained(slopes, factors, rng=np.random.default_rng(5), questions=questions, n_resamples=40)
    draws, variances = [], []
    for row in np.random.default_rng(5).integers(0, 20, (40, 20)):
        rows = np.concatenate([np.flatnonzero(questions == q) for q in row])
        again = adjusted_by_question(np.repeat(np.arange(20), 2))  # a question drawn twice is two
        draws.append(list(all_orders(slopes[rows], {k: v[rows] for k, v in factors.items()}, again).values()))
        variances.append(slopes[rows].var(ddof=1) * np.array(draws[-1]))
    np.testing.assert_allclose(fit.ci_low[:2], np.quantile(draws, 0.025, axis=0), atol=1e-9)
    np.testing.assert_allclose(fit.ci_high[:2], np.quantile(draws, 0.975, axis=0), atol=1e-9)
    np.testing.assert_allclose(fit.variance_high[:2], np.quantile(variances, 0.975, axis=0), atol=1e-9)
    assert fit.n_questions == 20


@pytest.mark.parametrize("sizes", [[2] * 15, [1, 1, 1, 2, 2, 5, 7, 1, 3], [1] * 20])
def test_shares_by_question_agree_with_full_matrices(sizes):
    rng = np.random.default_rng(sum(sizes))
    questions = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    _, factors = data(4, n=questions.size)
    slopes = rng.normal(size=len(sizes))[questions] + rng.normal(size=questions.size) + factors["pos_is_a"]
    fit = variance_explained(slopes, factors, rng=rng, questions=questions, n_resamples=2)
    expected = all_orders(slopes, factors, adjusted_by_question(questions))
    np.testing.assert_allclose(fit.share[:3], list(expected.values()), atol=1e-9)
    if max(sizes) == 1:
        plain = variance_explained(slopes, factors, rng=rng, n_resamples=2)
        np.testing.assert_array_equal(fit.share, plain.share)
        np.testing.assert_allclose(fit.share[:3], list(all_orders(slopes, factors).values()), atol=1e-10)


@pytest.mark.parametrize(("groups", "rounds"), [(15, 150), (30, 150), (250, 60)])
def test_twins_give_factors_without_effect_no_share(groups, rounds):
    """Counting inputs gave A -.034, -.016, -.002 and Yes +.040, +.013, +.002; A's interval lay below 0 in 86-98%."""
    rng = np.random.default_rng(groups)
    questions, a = np.repeat(np.arange(groups), 2), np.tile([0, 1], groups)
    share, low, high = [], [], []
    for _ in range(rounds):
        yes = rng.permutation(np.arange(groups) % 2)[questions]
        slopes = np.sqrt(0.95) * rng.normal(size=groups)[questions] + np.sqrt(0.05) * rng.normal(size=2 * groups)
        factors = {"pos_is_a": a, "pos_is_yes": yes}
        fit = variance_explained(slopes, factors, rng=rng, questions=questions, n_resamples=200)
        share.append(fit.share[:2])
        low.append(fit.ci_low[:2])
        high.append(fit.ci_high[:2])
    error = np.std(share, axis=0) / np.sqrt(rounds)
    assert (np.abs(np.mean(share, axis=0)) < 3.5 * error).all()
    assert (np.mean(np.array(high) < 0, axis=0) < 0.05).all()
    assert (np.mean(np.array(low) > 0, axis=0) < 0.06).all()


def test_questions_too_few_to_tell_their_share_are_an_error():
    rng = np.random.default_rng(1)
    factors = {"pos_is_a": np.tile([0, 1], 3), "pos_is_yes": np.repeat([1, 0, -1], 2)}
    with pytest.raises(CannotEstimate, match="3 questions for 4 columns"):
        variance_explained(rng.normal(size=6), factors, rng=rng, questions=np.repeat(np.arange(3), 2))


def test_a_useless_factor_is_shown_negative_and_is_zero_on_average():
    rng = np.random.default_rng(6)
    shares = []
    for _ in range(300):
        factors = {"pos_is_a": rng.permutation(np.arange(40) % 2)}
        shares.append(variance_explained(rng.normal(size=40), factors, rng=rng, n_resamples=2).share[0])
    assert min(shares) < -0.02
    assert abs(np.mean(shares)) < 3 * np.std(shares) / np.sqrt(300)


def test_share_of_a_strong_factor_is_recovered_and_covered():
    rng = np.random.default_rng(7)
    fits = []
    for _ in range(250):
        a = rng.integers(0, 2, 150)
        fits.append(variance_explained(2 * a + rng.normal(size=150), {"pos_is_a": a}, rng=rng, n_resamples=200))
    assert np.mean([fit.share[0] for fit in fits]) == pytest.approx(0.5, abs=0.01)
    assert 0.91 <= np.mean([fit.ci_low[0] <= 0.5 <= fit.ci_high[0] for fit in fits]) <= 0.985


@given(seed=st.integers(0, 20), scale=st.sampled_from([-3.0, 0.01, 50.0]), shift=st.sampled_from([-100.0, 4.0]))
@settings(max_examples=15, deadline=None)
def test_shares_ignore_units_order_labels_and_the_order_of_factors(seed, scale, shift):
    slopes, factors = data(seed, n=30)
    fit = variance_explained(slopes, factors, rng=np.random.default_rng(0), n_resamples=5)
    order = np.random.default_rng(seed).permutation(30)
    turned = {name: factors[name][order] for name in reversed(factors)}
    turned["pos_is_a"] = 1 - turned["pos_is_a"]
    other = variance_explained(scale * slopes[order] + shift, turned, rng=np.random.default_rng(0), n_resamples=5)
    ours, theirs = dict(zip(fit.components, fit.share)), dict(zip(other.components, other.share))
    assert ours == pytest.approx(theirs, abs=1e-8)


def test_published_split_depends_on_its_order_and_ours_does_not():
    slopes, factors = data(8, a=1.0)
    swapped = {"pos_is_a": factors["pos_is_yes"] == 1, "pos_is_yes": factors["pos_is_a"]}
    rng = np.random.default_rng(0)
    first = published_variance_split(slopes, factors, rng=rng, n_resamples=20)
    second = published_variance_split(slopes, swapped, rng=rng, n_resamples=20)
    assert first.share[0] > second.share[1] + 0.01
    assert first.share[:3].sum() == pytest.approx(1)
    assert first.split == "published_sequential"
    assert "neither Yes nor No and count as No" in first.warnings[0]


def test_where_one_factor_has_no_say_the_other_has_the_order_of_factors_is_no_matter():
    """Half of the questions have letters, half words: "neither" of the one is not "neither" of the other."""
    rng = np.random.default_rng(0)
    lettered, level = np.arange(60) < 30, rng.integers(0, 2, 60)
    factors = {"pos_is_a": np.where(lettered, level, -1), "pos_is_yes": np.where(lettered, -1, level)}
    slopes = lettered + 0.3 * level + 0.4 * rng.normal(size=60)
    there, back = (
        variance_explained(slopes, {name: factors[name] for name in order}, rng=rng, n_resamples=50).to_frame()
        for order in (("pos_is_a", "pos_is_yes"), ("pos_is_yes", "pos_is_a"))
    )
    shares = there.set_index("component")["share"]
    np.testing.assert_allclose(shares[back["component"]], back["share"])
    assert shares[["pos_is_a", "pos_is_yes"]].min() > 0.3  # each tells the two halves apart
    design = code_factors(factors, 60)
    total = sm.OLS(slopes, design.columns).fit().rsquared_adj
    assert shares["explained"] == pytest.approx(total)


def test_the_published_split_counts_neither_as_no():
    rng = np.random.default_rng(20)
    slopes, a, yes = rng.normal(size=30), np.arange(30) % 2, rng.integers(-1, 2, 30)
    one, other = (
        published_variance_split(slopes, {"pos_is_a": a, "pos_is_yes": word}, rng=np.random.default_rng(0))
        for word in (yes, np.where(yes == 1, 1, 0))
    )
    np.testing.assert_array_equal(one.share, other.share)
    assert one.warnings == (f"{(yes == -1).sum()} inputs are neither Yes nor No and count as No",)


def test_with_one_question_alone_shares_are_those_of_inputs():
    rng = np.random.default_rng(21)
    slopes, factors = rng.normal(size=30), {"pos_is_a": np.arange(30) % 2, "pos_is_yes": rng.integers(0, 2, 30)}
    plain, one = (
        variance_explained(slopes, factors, questions=questions, rng=np.random.default_rng(0), n_resamples=20)
        for questions in (None, ["q"] * 30)
    )
    np.testing.assert_allclose(one.share, plain.share)
    alike = "what inputs of a question share is the same part of their variance in every question"
    for text in (alike, FEW_IN_ORDERS):
        assert text in one.assumptions
        assert text not in plain.assumptions


def test_published_split_says_that_chance_is_in_its_shares_and_ours_that_it_is_not():
    rng, missed = np.random.default_rng(0), []
    for _ in range(20):  # no factor has an effect
        slopes = rng.normal(size=20)
        factors = {name: rng.random(20) < 0.5 for name in ("pos_is_a", "pos_is_yes")}
        theirs, ours = (
            split(slopes, factors, rng=rng, n_resamples=100) for split in (published_variance_split, variance_explained)
        )
        missed.append([found.ci_low[0] > 0 for found in (theirs, ours)])
    share_missed = np.mean(missed, axis=0)
    assert share_missed[0] == 1
    assert share_missed[1] < 0.2
    assert any("never hold 0" in text for text in theirs.assumptions)
    assert not any("94-98%" in text for text in theirs.assumptions), "a coverage that these intervals do not have"
    assert any("94-98%" in text for text in ours.assumptions)


def test_published_split_stands_when_yes_never_occurs():
    slopes, factors = data(9)
    factors["pos_is_yes"] = np.full(70, -1)
    fit = published_variance_split(slopes, factors, rng=np.random.default_rng(0), n_resamples=20)
    assert fit.share[1] == pytest.approx(0, abs=1e-12)
    assert fit.share[0] == pytest.approx(sm.OLS(slopes, sm.add_constant(factors["pos_is_a"])).fit().rsquared)


def test_a_rare_level_missing_from_resamples_widens_nothing_silently():
    rng = np.random.default_rng(10)
    a = np.r_[1, 1, np.zeros(18)]
    fit = variance_explained(rng.normal(size=20) + 3 * a, {"pos_is_a": a}, rng=rng, n_resamples=400)
    assert np.isfinite(fit.ci_low[0])
    assert fit.ci_low[0] <= 0  # the level is absent from an eighth of the resamples, which explain nothing


@pytest.mark.parametrize("name", ["explained", "unexplained"])
def test_a_factor_called_as_a_total_is_refused_and_not_lost(name):
    slopes, factors = data(3)
    factors[name] = factors.pop("length_difference")
    with pytest.raises(InputError, match=f"factor '{name}' has the name of a total of shares"):
        variance_explained(slopes, factors, rng=np.random.default_rng(0), n_resamples=50)


def test_edges_are_named():
    rng = np.random.default_rng(0)
    a = np.arange(10) % 2
    with pytest.raises(CannotEstimate, match="all equal"):
        variance_explained(np.full(10, 0.3), {"pos_is_a": a}, rng=rng)
    with pytest.raises(CannotEstimate, match="A or B does not vary"):
        variance_explained(np.arange(10.0), {"pos_is_a": np.ones(10)}, rng=rng)
    with pytest.raises(CannotEstimate, match="3 inputs for 3 columns"):
        variance_explained(np.arange(3.0), {"pos_is_a": [1, 0, 0], "pos_is_yes": [1, 1, 0]}, rng=rng)
    with pytest.raises(InputError, match="at least 3 finite"):
        variance_explained(np.array([1, 2, np.nan, 1.0]), {"pos_is_a": [1, 0, 0, 1]}, rng=rng)
    with pytest.raises(InputError, match="needs 'pos_is_yes'"):
        published_variance_split(np.arange(4.0), {"pos_is_a": [1, 0, 0, 1]}, rng=rng)
    two = variance_explained(np.r_[np.zeros(9), 1.0], {"pos_is_a": a}, rng=rng, n_resamples=200)
    assert any("widen the interval" in text for text in two.warnings)
    assert two.ci_low[0] == -np.inf


@pytest.mark.parametrize("questions", [None, np.arange(30) // 2])
def test_what_rounding_leaves_of_equal_slopes_of_stored_propensities_is_not_divided(questions):
    """A dataset of such counted in the mean share: "A or B explains 5%" of a variance of 2e-16."""
    grid, is_a = np.linspace(-1.5, 1.5, 7), np.arange(30) % 2
    stored = (np.sin(np.arange(30))[:, None] + 0.7 * grid).astype(np.float32).astype(float)
    slopes = stored @ grid / (grid @ grid)
    assert 0 < np.ptp(slopes) < 1e-6
    with pytest.raises(CannotEstimate, match="all equal"):
        variance_explained(slopes, {"pos_is_a": is_a}, rng=np.random.default_rng(0), questions=questions)
