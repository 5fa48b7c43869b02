"""Noise corrections: they recover a known truth from real replicates, and refuse to work without any."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.resampling.questions import wilson_interval
from steerstats.steerability.replicates import corrected_anti_steerable, slope_reliability


def simulated(kind: str, rng: np.random.Generator, *, replicates: int = 8, n: int = 60, noise: float = 0.5) -> dict:
    truth = 1 + rng.normal(size=n)
    shift = 0.4 * rng.normal(size=(replicates, 1))
    scatter = noise * rng.normal(size=(replicates, n))
    if kind == "paraphrases":
        return {"kind": kind, "replicates": truth + shift + scatter}
    slopes = truth + 0.4 * rng.normal() + noise * rng.normal(size=n)
    return {"kind": kind, "slopes": slopes, "replicates": slopes + shift + scatter}


def test_components_agree_with_two_way_anova():
    data = simulated("paraphrases", np.random.default_rng(0), replicates=4, n=12)
    z = data["replicates"]
    fit = slope_reliability(**data)
    inputs = 4 * z.mean(axis=0).var(ddof=1)
    total = ((z - z.mean()) ** 2).sum() - 11 * inputs - 12 * 3 * z.mean(axis=1).var(ddof=1)
    assert fit.reliability.estimate == pytest.approx(1 - (total / 33) / inputs)
    assert fit.sd_noise == pytest.approx(np.sqrt(total / 33 / 4))
    assert fit.sd_shared == pytest.approx(z.mean(axis=1).std(ddof=1))
    np.testing.assert_allclose(fit.measured, z.mean(axis=0))


@pytest.mark.parametrize(("kind", "truth"), [("paraphrases", 1 - (0.25 / 8) / (1 + 0.25 / 8)), ("refits", 0.8)])
def test_reliability_covers_and_refits_are_not_averaged(kind, truth):
    rng = np.random.default_rng(1)
    fits = [slope_reliability(**simulated(kind, rng)).reliability for _ in range(150)]
    assert np.mean([fit.estimate for fit in fits]) == pytest.approx(truth, abs=0.015)
    assert 0.90 <= np.mean([fit.ci_low <= truth <= fit.ci_high for fit in fits]) <= 0.995


def test_the_interval_for_refits_knows_that_the_full_data_vector_is_one_draw():
    """Vectors err along few directions, so that one draw moves the spread of all inputs' slopes together."""
    rng, n, held = np.random.default_rng(3), 60, []
    for _ in range(200):
        directions = rng.normal(size=(10, n)) / np.sqrt(10)
        slopes = rng.normal(size=n) + rng.normal(size=10) @ directions
        fit = slope_reliability(slopes + rng.normal(size=(20, 10)) @ directions, kind="refits", slopes=slopes)
        held.append(fit.reliability.ci_low <= 0.5 <= fit.reliability.ci_high)
    assert np.mean(held) >= 0.92  # .85 without it


def test_interval_agrees_with_a_loop_that_leaves_out_questions_and_replicates():
    z = simulated("paraphrases", np.random.default_rng(7), replicates=4, n=12)["replicates"]

    def log_ratio(part: np.ndarray) -> float:
        residual = part - part.mean(axis=0) - part.mean(axis=1)[:, None] + part.mean()
        noise = (residual**2).sum() / ((part.shape[0] - 1) * (part.shape[1] - 1))
        between = part.mean(axis=0).var(ddof=1) - noise / part.shape[0]
        return np.log((noise / 4) / (between + noise / 4))

    inputs = [log_ratio(np.delete(z, i, axis=1)) for i in range(12)]
    rows = [log_ratio(np.delete(z, r, axis=0)) for r in range(4)]
    first, second = 11**2 / 12 * np.var(inputs, ddof=1), 3**2 / 4 * np.var(rows, ddof=1)
    df = (first + second) ** 2 / (first**2 / 11 + second**2 / 3)
    half = stats.t.ppf(0.975, df) * np.sqrt(first + second)
    fit = slope_reliability(z, kind="paraphrases").reliability
    np.testing.assert_allclose([fit.ci_low, fit.ci_high], 1 - np.exp(log_ratio(z) + np.array([half, -half])), rtol=1e-9)


def test_shrunken_slopes_are_nearer_the_truth_than_the_measured_ones():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=400)
    slopes = truth + rng.normal(size=400)
    fit = slope_reliability(slopes + rng.normal(size=(10, 400)), kind="refits", slopes=slopes)
    assert np.mean((fit.shrunken - truth) ** 2) < 0.54 * np.mean((slopes - truth) ** 2)
    assert fit.shrunken.mean() == pytest.approx(slopes.mean())
    assert np.corrcoef(truth, slopes)[0, 1] == pytest.approx(fit.ceiling_correlation, abs=0.05)


@pytest.mark.parametrize("kind", ["paraphrases", "refits"])
def test_corrected_share_recovers_what_noise_inflates(kind):
    rng = np.random.default_rng(3)
    wanted, raw, corrected, hits = stats.norm.cdf(-1), [], [], 0
    for _ in range(40):
        data = simulated(kind, rng, n=150, replicates=4, noise=1.0)
        slopes = data.get("slopes", data["replicates"].mean(axis=0))
        offset = slopes.mean() - 1  # the shared shift moves the share itself
        data["replicates"] = data["replicates"] - offset
        if "slopes" in data:
            data["slopes"] = data["slopes"] - offset
        share = corrected_anti_steerable(**data, rng=rng, n_resamples=100)
        raw.append(np.mean(slopes - offset < 0))
        corrected.append(share.estimate)
        hits += share.ci_low <= wanted <= share.ci_high
    assert abs(np.mean(corrected) - wanted) < 0.4 * abs(np.mean(raw) - wanted)
    assert hits >= 36


def test_the_corrected_share_knows_that_the_vector_moves_all_inputs_alike():
    wanted, hits = stats.norm.cdf(-0.5), 0
    for seed in range(60):
        rng = np.random.default_rng([31, seed])
        slopes = rng.normal(0.5, 1, 150) + 0.4 * rng.normal(size=150) + 0.3 * rng.normal()
        z = slopes + 0.4 * rng.normal(size=(12, 150)) + 0.3 * rng.normal(size=(12, 1))
        share = corrected_anti_steerable(z, kind="refits", slopes=slopes, rng=rng, n_resamples=100)
        hits += share.ci_low <= wanted <= share.ci_high
    assert hits >= 47, "without the shared shift 39 of 60"


def test_the_shift_that_two_refits_share_has_the_spread_of_their_means():
    slopes = np.linspace(-0.5, 0.5, 2001)
    shifted = slopes + np.array([[0.1], [-0.1]])  # SD of the two means: 0.1 · √2, of a density of 1 about 0
    rng = np.random.default_rng(0)
    share = corrected_anti_steerable(shifted, kind="refits", slopes=slopes, rng=rng, n_resamples=500)
    np.testing.assert_allclose([share.ci_low, share.ci_high], wilson_interval(0.5, 0.25 / 0.02), atol=0.01)


def test_twins_that_steer_opposite_ways_do_not_make_the_share_surer_than_inputs_do():
    slopes = np.append(np.tile([1.0, -1.0], 20), [1.0, 1.0])
    z = slopes + 0.01 * np.random.default_rng(0).normal(size=(4, 42))
    known = {"kind": "refits", "slopes": slopes, "questions": np.repeat(range(21), 2)}
    share = corrected_anti_steerable(z, **known, rng=np.random.default_rng(0), n_resamples=100)
    np.testing.assert_allclose([share.ci_low, share.ci_high], wilson_interval(20 / 42, 42))


def noisy_slopes(rng, n, noise):
    """Refits of slopes whose noise has the given SD over a spread of 1; 16% of the noise-free ones are below 0."""
    truth = rng.normal(size=n)
    slopes = 1 + truth - truth.mean() + noise * rng.normal(size=n)
    return {"kind": "refits", "slopes": slopes, "replicates": slopes + noise * rng.normal(size=(8, n))}


def test_corrected_share_under_noise_alone_is_no_estimate():
    rng = np.random.default_rng(8)
    z = 0.3 + rng.normal(size=(8, 60))
    slopes = 0.3 + 0.5 * rng.normal(size=60)
    with pytest.raises(CannotEstimate, match="noise is at least as large as the spread"):
        corrected_anti_steerable(z, kind="refits", slopes=slopes, rng=rng, n_resamples=50)


def test_corrected_share_that_often_collapses_has_a_wide_interval_and_says_so():
    rng, wanted, hits, told, tried = np.random.default_rng(9), stats.norm.cdf(-1), 0, 0, 0
    for _ in range(60):
        try:
            share = corrected_anti_steerable(**noisy_slopes(rng, 40, 2.0), rng=rng, n_resamples=150)
        except CannotEstimate:
            continue
        tried += 1
        hits += share.ci_low <= wanted <= share.ci_high
        told += any("no spread beyond their noise" in text for text in share.warnings)
    assert tried >= 30
    assert told >= 0.6 * tried
    assert hits >= 0.9 * tried
    clear = corrected_anti_steerable(**noisy_slopes(rng, 200, 0.3), rng=rng, n_resamples=150)
    assert not any("no spread" in text for text in clear.warnings)


def test_no_draw_of_two_refits_is_taken_to_be_without_noise():
    rng = np.random.default_rng(0)
    slopes, noise = rng.normal(1, 1, 80), rng.normal(size=(2, 80))
    noise *= 0.999 * np.sqrt(2) * slopes.std(ddof=1) / (noise[0] - noise[1]).std(ddof=1)  # nearly all of the spread
    found = corrected_anti_steerable(slopes + noise, kind="refits", slopes=slopes, rng=rng, n_resamples=400)
    (said,) = [text for text in found.warnings if "no spread beyond their noise" in text]
    assert 40 < int(said.partition("%")[0]) < 60  # of draws that hold one refit twice, none would


def test_corrected_share_of_zero_keeps_an_interval():
    rng = np.random.default_rng(4)
    z = 9 + rng.normal(size=40) + 0.1 * rng.normal(size=(5, 40))
    share = corrected_anti_steerable(z, kind="paraphrases", rng=rng, n_resamples=50)
    assert (share.estimate, share.ci_low) == (0, 0)
    assert 0.05 < share.ci_high < 0.15


@given(scale=st.floats(0.01, 100), sign=st.sampled_from([-1, 1]), shift=st.floats(-5, 5), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_reliability_ignores_units_sign_shared_shifts_and_order(scale, sign, shift, seed):
    rng = np.random.default_rng(seed)
    data = simulated("refits", rng, n=12, replicates=3)
    fit = slope_reliability(**data)
    order = rng.permutation(12)
    moved = slope_reliability(
        sign * scale * data["replicates"][::-1, order] + np.array([[shift], [0], [2]]),
        kind="refits",
        slopes=sign * scale * data["slopes"][order] - shift,
    )
    for name in ("estimate", "ci_low", "ci_high"):
        assert getattr(moved.reliability, name) == pytest.approx(getattr(fit.reliability, name), rel=1e-6, abs=1e-8)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from([0.0, 0.7]))
def test_replicates_that_differ_by_rounding_alone_are_without_noise(seed, times, shift):
    rng = np.random.default_rng(seed)
    slopes = rng.normal(0.3, 1, 30)
    found = slope_reliability(slopes + shift * rng.normal(size=(times, 1)), kind="refits", slopes=slopes)
    assert (found.reliability.estimate, found.sd_noise) == (1, 0)
    assert np.isnan(found.reliability.ci_low)
    assert any("no noise at all" in text for text in found.warnings)


def test_twins_are_left_out_together():
    rng = np.random.default_rng(5)
    data = simulated("paraphrases", rng, n=40)
    twice = np.repeat(data["replicates"], 2, axis=1)
    plain = slope_reliability(**data).reliability
    clustered = slope_reliability(twice, kind="paraphrases", questions=np.repeat(range(40), 2)).reliability
    naive = slope_reliability(twice, kind="paraphrases").reliability
    width, wide, narrow = (e.ci_high - e.ci_low for e in (plain, clustered, naive))
    assert wide == pytest.approx(width, rel=0.1)
    assert narrow < 0.9 * width


@pytest.mark.parametrize("replicates", [np.ones(9), np.ones((1, 9))])
def test_without_replicates_there_is_a_named_error(replicates):
    for call in (
        lambda: slope_reliability(replicates, kind="paraphrases"),
        lambda: corrected_anti_steerable(replicates, kind="paraphrases", rng=np.random.default_rng(0)),
    ):
        with pytest.raises(CannotEstimate, match="at least two refitted vectors or paraphrases"):
            call()


def test_edges_are_named():
    rng = np.random.default_rng(6)
    z = rng.normal(size=(3, 9))
    with pytest.raises(InputError, match="kind is 'orders'"):
        slope_reliability(z, kind="orders")
    with pytest.raises(InputError, match="slopes are None"):
        slope_reliability(z, kind="refits")
    with pytest.raises(InputError, match="mean of the replicates"):
        slope_reliability(z, kind="paraphrases", slopes=z[0])
    with pytest.raises(CannotEstimate, match="2 questions"):
        slope_reliability(z[:, :2], kind="paraphrases")
    with pytest.raises(CannotEstimate, match="all equal"):
        slope_reliability(z, kind="refits", slopes=np.resize([0.3, 0.1 + 0.2], 9))
    with pytest.raises(InputError, match=r"replicates\[1, 2\] is nan"):
        slope_reliability(np.where((np.arange(3)[:, None] == 1) & (np.arange(9) == 2), np.nan, z), kind="paraphrases")
    noisy = slope_reliability(10 * z, kind="refits", slopes=z[0])
    assert noisy.reliability.estimate < 0
    assert noisy.ceiling_r2 == 0
    assert "below 0" in noisy.warnings[0]
    np.testing.assert_allclose(noisy.shrunken, z[0].mean())
    silent = slope_reliability(z[0] + np.zeros((2, 9)), kind="paraphrases")
    assert silent.reliability.estimate == 1
    assert np.isnan(silent.reliability.ci_low)
    assert {
        "two replicates: the interval takes them as given",
        "no noise at all between replicates: no interval",
    } <= set(silent.warnings)


def test_a_limit_that_nothing_is_known_of_is_infinite_without_a_word_of_numpys():
    replicates = np.array([[1.6, 0.7, -1.0], [-0.2, -0.3, 2.4]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert slope_reliability(replicates, kind="paraphrases").reliability.ci_low == -np.inf
