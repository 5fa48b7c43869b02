"""How far training activations part: held out against in-sample optimism, with intervals of d' and AUC."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from steerstats.errors import CannotEstimate, InputError
from steerstats.predictors import (
    auc,
    crossfit,
    d_prime,
    dataset_predictors,
    difference_cosine,
)

GRID = np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])


def contrast(seed: int, n: int = 60, hidden: int = 8, signal: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, n, hidden)) + 5 * rng.normal(size=hidden)
    x[0, :, 0] += signal
    return x


def test_pure_noise_separates_in_sample_and_does_not_when_cross_fitted():
    x = contrast(0, n=400, hidden=4096, signal=0.0)
    vector = (x[0] - x[1]).mean(axis=0)
    inside = x @ (vector / np.linalg.norm(vector))
    assert d_prime(inside).estimate > 3.5
    assert auc(inside).estimate > 0.99
    fitted = crossfit(x, rng=np.random.default_rng(1))
    outside = d_prime(fitted.projection)
    assert outside.ci_low < 0 < outside.ci_high
    assert abs(outside.estimate) < 0.25
    assert abs(auc(fitted.projection).estimate - 0.5) < 0.08
    cosines = (x[0] - x[1]) @ vector / np.linalg.norm(vector) / np.linalg.norm(x[0] - x[1], axis=1)
    assert difference_cosine(cosines).estimate == pytest.approx(1 / 20, rel=0.1)
    assert abs(difference_cosine(fitted.difference_cosine).estimate) < 0.005


def test_crossfit_agrees_with_a_loop_that_fits_without_the_fold():
    x = contrast(2)
    questions = np.arange(60) // 3
    fitted = crossfit(x, rng=np.random.default_rng(3), questions=questions, n_folds=4)
    for i in range(60):
        train = fitted.fold != fitted.fold[i]
        assert not set(questions[train]) & {questions[i]}
        direction = (x[0, train] - x[1, train]).mean(axis=0)
        direction /= np.linalg.norm(direction)
        middle = (x[0, train].mean(axis=0) + x[1, train].mean(axis=0)) / 2
        np.testing.assert_allclose(fitted.projection[:, i], (x[:, i] - middle) @ direction, atol=1e-10)
        difference = x[0, i] - x[1, i]
        assert fitted.difference_cosine[i] == pytest.approx(difference @ direction / np.linalg.norm(difference))
    assert np.bincount(fitted.fold).tolist() == [15] * 4


def test_d_prime_and_auc_agree_with_their_definitions():
    projection = contrast(4, hidden=1)[..., 0].round(1)  # rounded: ties
    a, b = projection
    value = (a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert d_prime(projection).estimate == pytest.approx(value)
    assert auc(projection).estimate == pytest.approx(roc_auc_score(np.repeat([1, 0], 60), np.r_[a, b]))


def test_linearised_errors_agree_with_leaving_questions_out():
    projection = contrast(5, n=200, hidden=1)[..., 0]
    questions = np.arange(200) // 2
    for kind in (d_prime, auc):
        left_out = [kind(projection[:, questions != q]).estimate for q in range(100)]
        jackknife = np.sqrt(99**2 / 100 * np.var(left_out, ddof=1))
        assert kind(projection, questions=questions).se == pytest.approx(jackknife, rel=0.03)


@pytest.mark.parametrize("truth", [0.0, 1.5])
def test_separation_intervals_cover(truth):
    rng = np.random.default_rng(6)
    hits = {"d": [], "a": []}
    area = stats.norm.cdf(truth / np.sqrt(2))
    for _ in range(400):
        pair = rng.normal(size=40)  # the two answers of a pair share it
        projection = np.sqrt(0.5) * (rng.normal(size=(2, 40)) + pair) + np.array([[truth], [0]])
        d, a = d_prime(projection), auc(projection)
        hits["d"].append(d.ci_low <= truth <= d.ci_high)
        hits["a"].append(a.ci_low <= area <= a.ci_high)
    assert all(0.915 <= np.mean(h) <= 0.98 for h in hits.values())


def test_heavy_tails_make_the_interval_of_d_prime_too_short_and_it_says_what_it_takes():
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        found = d_prime(rng.standard_t(3, (2, 40)) / np.sqrt(3) + np.array([[2.0], [0.0]]))
        held.append(found.ci_low <= 2 <= found.ci_high)
    assert 0.75 < np.mean(held) < 0.9
    assert "projections have a finite fourth moment" in found.assumptions


@given(seed=st.integers(0, 40), scale=st.sampled_from([0.1, 30.0]), shift=st.floats(-9, 9))
@settings(max_examples=20, deadline=None)
def test_separation_ignores_units_and_offsets_and_turns_with_the_labels(seed, scale, shift):
    projection = contrast(seed, n=12, hidden=1)[..., 0]
    for kind, turned in ((d_prime, lambda v: -v), (auc, lambda v: 1 - v)):
        base = kind(projection)
        assert kind(scale * projection + shift).estimate == pytest.approx(base.estimate, rel=1e-6, abs=1e-9)
        swapped = kind(projection[::-1])
        assert swapped.estimate == pytest.approx(turned(base.estimate), abs=1e-9)
        assert swapped.ci_low == pytest.approx(turned(base.ci_high), abs=1e-9)


def test_complete_separation_keeps_an_interval():
    area = auc(np.array([np.arange(10.0) + 20, np.arange(10.0)]))
    assert (area.estimate, area.ci_high) == (1.0, 1.0)
    assert 0.6 < area.ci_low < 0.8
    assert "complete separation" in area.warnings[0]


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_answers_on_one_place_are_no_separation_and_keep_an_interval(n):
    place = np.random.default_rng(n).normal(size=n)
    area = auc(np.stack([place, place]))
    assert area.estimate == pytest.approx(0.5)
    assert area.ci_low < 0.5 - 0.5 / np.sqrt(n) / 2 < 0.5 + 0.5 / np.sqrt(n) / 2 < area.ci_high
    (text,) = area.warnings
    assert text.startswith("every question separates the answers alike")


def test_dataset_predictors_assemble_the_candidates():
    x = contrast(7)
    fitted = crossfit(x, rng=np.random.default_rng(0))
    found = dataset_predictors(
        fitted.projection, fitted.difference_cosine, vector_norm=3.0, activation_norm=12.0, unembedding_cosine=-0.2
    )
    assert found.values() == {
        "mean_cosine": pytest.approx(fitted.difference_cosine.mean()),
        "d_prime": d_prime(fitted.projection).estimate,
        "auc": auc(fitted.projection).estimate,
        "norm_ratio": 0.25,
        "unembedding_alignment": 0.2,
    }
    assert np.isnan(found["norm_ratio"].ci_low)
    assert len(found.to_frame()) == 5


def test_separation_edges_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="2 answers"):
        crossfit(np.ones((3, 4, 5)), rng=rng)
    with pytest.raises(CannotEstimate, match="5 folds for 4 questions"):
        crossfit(contrast(0, n=4), rng=rng)
    with pytest.raises(CannotEstimate, match="no direction"):
        crossfit(np.ones((2, 6, 3)), rng=rng)
    broken = contrast(0, n=6)
    broken[1, 3, 0] = np.nan
    with pytest.raises(InputError, match="pair 3, negative answer"):
        crossfit(broken, rng=rng)
    with pytest.raises(CannotEstimate, match="do not vary"):
        d_prime(np.array([[1.0, 1], [0, 0]]))
    with pytest.raises(CannotEstimate, match="1 question"):
        auc(np.ones((2, 4)), questions=[1, 1, 1, 1])
    with pytest.raises(InputError, match=r"in \[-1, 1\]"):
        difference_cosine(np.array([0.5, 1.2]))
    with pytest.raises(InputError, match="activation_norm 0"):
        dataset_predictors(np.eye(2), np.ones(2), vector_norm=1.0, activation_norm=0)
