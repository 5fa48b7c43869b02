"""Vectors of several wrong answers, of settings in any order, and of numbers that are very small or very large."""

from __future__ import annotations

import numpy as np
import pytest

from cache_builder.vectors import extractors, fit_vectors
from cache_builder.vectors.draws import check_shuffled, named_rng
from cache_builder.vectors.extractors import nuisance_weights
from cache_builder.vectors.files import imported_vectors
from steerstats.errors import InputError

HIDDEN = 12


def test_of_several_wrong_answers_the_mean_is_the_negative_one():
    activations = np.random.default_rng(0).normal(size=(1, 1, 4, 30, HIDDEN)).astype(np.float32)
    activations[0, 0, 0] += 1
    as_pair = np.stack([activations[:, :, 0], activations[:, :, 1:].mean(axis=2)], axis=2)
    for method in extractors.BUILT_IN:
        found, expected = (fit_vectors(one, ("base",), (0,), method=method) for one in (activations, as_pair))
        np.testing.assert_allclose(found.direction, expected.direction, atol=1e-5, err_msg=method)


def test_the_norm_is_that_of_the_base_vector_wherever_it_stands_among_the_settings():
    activations = np.random.default_rng(1).normal(size=(3, 1, 2, 30, HIDDEN))
    found = fit_vectors(activations, ("user_neg", "sys_pos", "base"), (0,), random=1)
    base = np.linalg.norm((activations[2, 0, 0] - activations[2, 0, 1]).mean(axis=0))
    np.testing.assert_allclose(found.norm, base, rtol=1e-6)
    assert found.label[-1] == "random:base:0", "nor does its place decide for which setting controls are made"
    with pytest.raises(InputError, match="rescale 'base' needs the base setting; there are user_neg, sys_pos"):
        fit_vectors(activations[:2], ("user_neg", "sys_pos"), (0,))


def test_a_pair_that_has_no_letter_counts_neither_for_a_nor_for_b():
    assert nuisance_weights(4, np.array([1, 0, -1, 1]), np.array([-1, -1, 0, 0])).tolist() == [[0.25, -0.5, 0, 0.25]]


def test_a_vector_made_elsewhere_lies_in_the_order_of_its_layers_and_tells_the_norm_that_it_had():
    file = {10: np.array([3.0, 0, 0, 4.0]), 2: np.array([0, 12.0, 0, 0])}
    found = imported_vectors({"mine": file}, np.array([1.0, 2.0]), 4, 12, 2)
    assert found.layers.tolist() == [[2, 10]]
    np.testing.assert_allclose(found.direction, [[[0, 1, 0, 0], [1.2, 0, 0, 1.6]]], rtol=1e-6)
    assert (found.raw_norm.tolist(), found.norm.tolist()) == ([13], [pytest.approx(5**0.5)])
    with pytest.raises(InputError, match=r"vectors\.files\.mine: is zero at layer 10"):
        imported_vectors({"mine": file | {10: np.zeros(4)}}, None, 4, 12, 2)
    with pytest.raises(InputError, match="layer 10 is not in this model; it has 0-9"):
        imported_vectors({"mine": file}, None, 4, 10, 2)


def test_what_is_left_without_letters_is_held_against_rounding_at_the_vectors_own_scale():
    """A vector of length 5,000 that was given norm 1: a remainder of 4 thousandths is no rounding there."""
    n = 40
    is_a = np.arange(n) % 4 != 0  # three quarters, so that the vector holds the letter's direction
    apart = np.zeros((n, HIDDEN))
    apart[:, 0], apart[:, 1] = np.where(is_a, 1e4, -1e4), 20.0
    activations = np.stack([apart, np.zeros((n, HIDDEN))])[None, None]
    found = fit_vectors(activations, ("base",), (0,), pos_is_a=is_a.astype(int), rescale="unit", debiased=True)
    assert found.notes == ()
    np.testing.assert_allclose(found.direction[found.kind.index("debiased"), 0], np.eye(HIDDEN)[1], atol=1e-4)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("size", "wrong"), [(1e-9, None), (1e-60, "is zero"), (1e60, "is not finite")])
def test_a_method_of_ones_own_may_have_any_scale_that_can_be_kept(monkeypatch, size, wrong):
    monkeypatch.setattr(
        "cache_builder.vectors.fit.find_extractor", lambda _: lambda positive, _: np.full(positive.shape[1], size)
    )
    activations = np.random.default_rng(2).normal(size=(1, 1, 2, 8, HIDDEN))
    if wrong is None:
        found = fit_vectors(activations, ("base",), (0,), method="mine", rescale="none")
        np.testing.assert_allclose(found.direction, size)
        return
    with pytest.raises(InputError, match=f"steering vector 'base' {wrong}"):
        fit_vectors(activations, ("base",), (0,), method="mine", rescale="none")


def test_one_shuffle_that_came_out_parallel_is_chance_and_no_fault_of_the_method():
    trained, other = np.random.default_rng(3).normal(size=(2, 1, HIDDEN))
    check_shuffled("base", "mine", trained, [trained, other])
    with pytest.raises(InputError, match="up to sign"):
        check_shuffled("base", "mine", trained, [trained, -2 * trained])


def test_a_logistic_vector_minds_neither_units_nor_what_all_activations_share():
    positive, negative = np.random.default_rng(4).normal(size=(2, 40, HIDDEN))
    positive = positive + np.linspace(0, 1, HIDDEN)
    found = extractors.logistic(positive, negative)
    np.testing.assert_allclose(extractors.logistic(1e-3 * positive, 1e-3 * negative), 1e-3 * found, rtol=1e-3)
    np.testing.assert_allclose(extractors.logistic(positive + 100, negative + 100), found, rtol=1e-3)


def test_draws_are_those_of_their_names_on_every_machine():
    assert named_rng(0, "data", "random", "1").integers(1 << 30) == 485759083
    assert named_rng(0, "data1", "random").integers(1 << 30) != named_rng(0, "data", "1random").integers(1 << 30)
