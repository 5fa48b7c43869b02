"""Summaries of activations: held out, by question, scale free where they say so."""

from __future__ import annotations

import numpy as np
import pytest

from cache_builder.unit import summaries
from cache_builder.unit.summaries import crossfit_projection, difference_cosine, mean_norm, question_folds


def dprime(projection: np.ndarray) -> float:
    gap = projection[0].mean() - projection[1].mean()
    return gap / np.sqrt((projection[0].var(ddof=1) + projection[1].var(ddof=1)) / 2)


def test_pure_noise_separates_in_sample_and_not_held_out():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 400, 4096)).astype(np.float32)
    questions = np.array([f"q{k}" for k in range(400)])
    mean = (noise[0] - noise[1]).mean(axis=0)
    assert dprime(noise @ (mean / np.linalg.norm(mean))) > 3
    assert abs(dprime(crossfit_projection(noise, questions, 5, 0))) < 0.3


def test_each_projection_uses_only_other_questions(monkeypatch):
    monkeypatch.setattr(summaries, "parts_of", lambda n_pairs, _: [slice(0, 7), slice(7, n_pairs)])
    rng = np.random.default_rng(1)
    activation = rng.normal(size=(2, 30, 6))
    questions = np.array([f"q{k // 3}" for k in range(30)])
    fold = question_folds(questions, 4, 7)
    got = crossfit_projection(activation, questions, 4, 7)
    for pair in range(30):
        rest = fold != fold[pair]
        direction = (activation[0, rest] - activation[1, rest]).mean(axis=0)
        middle = activation[:, rest].mean(axis=(0, 1))
        expected = (activation[:, pair] - middle) @ direction / np.linalg.norm(direction)
        np.testing.assert_allclose(got[:, pair], expected, rtol=1e-5, atol=1e-6)


def test_what_all_activations_share_is_no_spread_between_pairs():
    """A residual stream's mean is far longer than its spread, and differently far along the vector of each fold."""
    rng = np.random.default_rng(2)
    activation, shared = rng.normal(size=(3, 60, 300)), rng.normal(size=300)
    activation[0, :, 0] += 2
    questions = np.array([f"q{k}" for k in range(60)])
    here, there = (crossfit_projection(activation + far * shared, questions, 5, 0) for far in (0, 10))
    np.testing.assert_allclose(there, here, atol=1e-4)
    fold = question_folds(questions, 5, 0)
    for pair in (0, 33):  # of two wrong answers the mean counts
        rest = fold != fold[pair]
        positive, negative = activation[0, rest].mean(axis=0), activation[1:, rest].mean(axis=(0, 1))
        direction = (positive - negative) / np.linalg.norm(positive - negative)
        expected = (activation[:, pair] - (positive + negative) / 2) @ direction
        np.testing.assert_allclose(here[:, pair], expected, rtol=1e-4, atol=1e-6)


def test_folds_keep_questions_together_and_balance():
    questions = np.array([f"q{k % 25}" for k in range(100)])
    fold = question_folds(questions, 5, 0)
    assert all(len(set(fold[questions == q])) == 1 for q in set(questions))
    assert np.bincount(fold).tolist() == [20] * 5
    assert (question_folds(questions, 5, 1) != fold).any()


def test_one_question_has_no_held_out_projection():
    assert not crossfit_projection(np.ones((2, 3, 4)), np.array(["q"] * 3), 5, 0).any()


def test_the_mean_norm_is_over_all_answers_of_all_pairs(monkeypatch):
    activation = np.random.default_rng(3).normal(size=(3, 20, 5)).astype(np.float16)
    monkeypatch.setattr(summaries, "parts_of", lambda n_pairs, _: [slice(0, 7), slice(7, n_pairs)])
    assert mean_norm(activation) == pytest.approx(np.linalg.norm(activation.astype(float), axis=-1).mean())


def test_cosine_ignores_length_and_defines_zero():
    rows = np.array([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0], [-1.0, 1.0]])
    assert difference_cosine(rows, np.array([5.0, 0.0])) == pytest.approx([1, 0, 0, -np.sqrt(0.5)])
    assert not difference_cosine(rows, np.zeros(2)).any()
