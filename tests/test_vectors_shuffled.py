"""Label-shuffled vectors: half of the questions turned, near orthogonal to the vector, at their level, or refused."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from cache_builder.vectors import extractors, fit_vectors
from cache_builder.vectors.draws import FEWEST_DIMENSIONS, half_flips, question_groups
from cache_builder.vectors.extractors import extractor_facts, find_extractor, pca
from steerstats.errors import InputError
from steerstats.nulls import DIFFERS, NOT_SHOWN, shuffled_doubt, shuffled_level
from steerstats.simulate import SimulationTruth, simulate_cache
from steerstats.study import open_cache

HIDDEN = 32


def consistent(n: int, noise: float = 0.25, seed: int = 0) -> np.ndarray:
    """Activations (1, 1, 2, n, HIDDEN) whose differences are one direction and a little noise."""
    rng = np.random.default_rng(seed)
    negative = rng.normal(size=(n, HIDDEN))
    positive = negative + rng.normal(size=HIDDEN) + noise * rng.normal(size=(n, HIDDEN))
    return np.stack([positive, negative])[None, None]


def cosines(activations, **options) -> np.ndarray:
    found = fit_vectors(activations, ("base",), (0,), mean=False, **options)
    rows = found.direction[:, 0] / np.linalg.norm(found.direction[:, 0], axis=1, keepdims=True)
    return rows[1:] @ rows[0]


@pytest.mark.parametrize("rescale", ["base", "unit"])
@pytest.mark.parametrize("method", ["mean_difference", "logistic"])
def test_at_full_norm_consistent_differences_leave_nothing_of_the_vector(rescale, method):
    along = cosines(consistent(48), shuffled=30, rescale=rescale, method=method)
    # independent flips: a median |cosine| of .93 at this noise
    assert np.median(np.abs(along)) < 0.3
    assert abs(along.mean()) < 0.15


def test_an_uneven_number_of_pairs_is_balanced_by_pairs_and_not_by_questions():
    """One question has no partner, and it is one of the smallest."""
    questions = np.repeat([f"q{k}" for k in range(23)], np.where(np.arange(23) % 3 == 0, 9, 1))
    rng = np.random.default_rng(1)
    groups = question_groups(list(rng.permutation(questions)), len(questions))
    flips = np.array([half_flips(groups, len(questions), rng) for _ in range(50)])
    assert set((1 - 2 * flips).sum(axis=1)) == {-1, 1}


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_exactly_half_of_the_questions_are_turned_and_each_as_often_as_any_other(n):
    rng, groups = np.random.default_rng(2), question_groups(None, n)
    flips = np.array([half_flips(groups, n, rng) for _ in range(4000)])
    assert set(flips.sum(axis=1)) == {n // 2, (n + 1) // 2}
    np.testing.assert_allclose(flips.mean(axis=0), 0.5, atol=0.035)
    if n > 2:  # of two questions, both are turned as often as in random halves
        pairs = (flips[:, :1] & flips[:, 1:]).mean(axis=0)
        expected = (n // 2) * (n // 2 - 1) / (n * (n - 1)) if n % 2 == 0 else (n - 1) / (4 * n)
        np.testing.assert_allclose(pairs, expected, atol=0.03)


def test_pairs_of_one_question_turn_together_and_one_seed_gives_the_same_bytes():
    questions = [f"q{i // 3}" for i in range(30)]
    groups = question_groups(questions, 30)
    one, two = (half_flips(groups, 30, np.random.default_rng(3)) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert set(one.reshape(10, 3).sum(axis=1)) == {0, 3}
    fits = [
        fit_vectors(consistent(30), ("base",), (0,), questions=questions, shuffled=3, seed=5, name="d")
        for _ in range(2)
    ]
    assert fits[0].direction.tobytes() == fits[1].direction.tobytes()


@pytest.mark.parametrize(("n", "most"), [(12, 0.09), (40, 0.065)])
def test_the_p_value_keeps_its_level_where_no_difference_knows_its_sign(n, most):
    """Vectors at one norm, a linear read-out of the unit vector, 19 shuffles: .05 for independent flips.

    At 12 questions .08 is what `draws` says; at 40 it is .06.
    """
    rng, groups, passed, repeats = np.random.default_rng(4), question_groups(None, n), 0, 3000
    for _ in range(repeats):
        difference = rng.normal(size=(n, 16)) * rng.exponential(size=(n, 1))
        signs = np.stack([np.ones(n)] + [1 - 2 * half_flips(groups, n, rng) for _ in range(19)])
        vectors = signs @ difference
        size = np.abs(vectors[:, 0] / np.linalg.norm(vectors, axis=1))
        passed += (size[1:] < size[0]).all()
    assert 0.035 < passed / repeats < most


def test_small_p_values_are_too_small_as_the_normal_tail_of_a_t_statistic_is():
    rng, n, groups, p = np.random.default_rng(6), 24, question_groups(None, 24), []
    flips = np.stack([1.0 - 2 * half_flips(groups, n, rng) for _ in range(2000)])
    for _ in range(4000):
        signs = np.vstack([np.ones(n), flips[rng.integers(2000, size=399)][:, rng.permutation(n)]])
        vectors = signs @ rng.normal(size=(n, 8))
        size = np.abs(vectors[:, 0] / np.linalg.norm(vectors, axis=1))
        p.append((1 + (size[1:] >= size[0]).sum()) / 400)
    by_theory = {level: 2 * stats.t.sf(stats.norm.isf(level / 2), n - 1) for level in (0.05, 0.0025)}
    for level, expected in by_theory.items():
        assert np.mean(np.array(p) <= level) == pytest.approx(expected, rel=0.3)
    assert by_theory[0.0025] > 2.4 * 0.0025


def test_datasets_that_pass_by_such_p_values_alone_are_doubted(tmp_path):
    shared = {"n_inputs": 20, "settings": ("base",), "n_shuffled": 39, "mean_steerability": [5.0, 0.0]}
    for n_pairs, doubted in ((24, True), (200, False)):
        truth = SimulationTruth(datasets=["strong", "none"], n_pairs=n_pairs, **shared)
        found = open_cache(simulate_cache(tmp_path / str(n_pairs), truth).path).nulls()
        assert found.shuffled.decision == (DIFFERS, NOT_SHOWN)
        said = [text for text in found.warnings if "too small this far out" in text]
        assert [text.partition(":")[0] for text in said] == ["strong"] * doubted


def test_shuffles_that_are_the_vector_up_to_sign_are_refused(monkeypatch):
    with pytest.raises(InputError, match=r"every label-shuffled pca vector of setting base is the trained one up to"):
        cosines(consistent(20), shuffled=5, method="pca")
    point = SimpleNamespace(name="mine", load=lambda: lambda positive, negative: np.abs(positive - negative).mean(0))
    monkeypatch.setattr(extractors, "entry_points", lambda group: [point])
    with pytest.raises(InputError, match="label-shuffled mine vector"):
        cosines(consistent(20), shuffled=5, method="mine")
    assert len(cosines(consistent(20), random=2, method="mine")) == 2
    with pytest.raises(InputError, match="too few questions"):
        cosines(consistent(4), shuffled=5, questions=["one"] * 4)


def test_in_two_dimensions_shuffles_may_be_parallel_by_chance():
    # a dry run names the vectors by fitting noise of two dimensions
    assert FEWEST_DIMENSIONS > 2
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=(1, 1, 2, 5, 2))
        fit_vectors(noise, ("base",), (0,), shuffled=1)


def doubt(sizes):
    return shuffled_doubt(sizes, rng=np.random.default_rng(0))


def test_few_questions_are_doubted():
    assert doubt([1] * 12) == (
        "with 12 training questions, p-values of label-shuffled vectors are too small (in simulation, 8% of vectors "
        "without information passed at 5%)"
    )
    assert doubt([1] * 19).startswith("with 19 training questions")
    assert doubt([2] * 20) == ""


def test_two_questions_that_hold_many_pairs_are_doubted_and_a_single_one_is_not():
    said = doubt([1] * 100 + [20, 30])
    assert said.startswith("the two largest of 102 training questions hold 30 and 20 of 150 pairs: where copies of a")
    assert 23 <= int(re.search(r"(\d+)% of vectors", said).group(1)) <= 30
    assert "hold 8 and 8 of 116 pairs" in doubt([1] * 100 + [8, 8]), "10% in place of 5%"
    assert doubt([40] + [1] * 60) == doubt([4] + [1] * 96) == doubt([5]) == ""


@pytest.mark.parametrize("sizes", [[12, *[1] * 24], [12, 10, *[1] * 24], [6] * 6, [1] * 15, [7, 6, 5, 4, 3, 2, 1]])
def test_the_level_of_shuffles_is_that_of_the_builders_own_flips(sizes):
    rng, questions = np.random.default_rng(1), np.repeat(np.arange(len(sizes)), sizes)
    groups, passed, repeats = question_groups(list(questions), len(questions)), 0, 1500
    flips = np.stack([1.0 - 2 * half_flips(groups, len(questions), rng) for _ in range(400)])
    for _ in range(repeats):
        alike = rng.normal(size=len(sizes))[questions]
        passed += (np.abs(flips[rng.choice(400, 19, replace=False)] @ alike) < abs(alike.sum())).all()
    assert shuffled_level(sizes, rng=rng) == pytest.approx(passed / repeats, abs=0.03)


def test_differences_that_are_all_the_same_leave_no_shuffle_and_it_is_said():
    same = np.stack([np.ones((8, HIDDEN)), np.zeros((8, HIDDEN))])[None, None]
    with pytest.raises(InputError, match=r"label-shuffled mean_difference, setting base: .* without labels nothing"):
        cosines(same, shuffled=1)


@pytest.mark.parametrize("rescale", ["none", "base", "unit"])
def test_a_zero_vector_is_refused_by_name_however_it_is_rescaled(monkeypatch, rescale):
    point = SimpleNamespace(name="nil", load=lambda: lambda positive, negative: np.zeros(positive.shape[1]))
    monkeypatch.setattr(extractors, "entry_points", lambda group: [point])
    with pytest.raises(InputError, match="nil, setting base: the steering vector is zero"):
        fit_vectors(consistent(5), ("base",), (0,), method="nil", rescale=rescale)


def test_settings_whose_vectors_cancel_have_no_mean():
    one = consistent(6)
    both = np.concatenate([one, one[:, :, ::-1]])
    with pytest.raises(InputError, match="steering vector 'mean' is zero"):
        fit_vectors(both, ("base", "sys_pos"), (0,), rescale="none")


@pytest.mark.parametrize("shape", [(200, 12), (12, 200), (30, 30), (1, 5), (5, 1)])
def test_pca_is_the_same_by_pairs_and_by_dimensions(shape):
    rng = np.random.default_rng(5)
    positive, negative = rng.normal(size=(2, *shape)).astype(np.float32)
    positive += rng.normal(size=shape[1])
    difference = positive.astype(float) - negative
    found, mean = pca(positive, negative), difference.mean(axis=0)
    by_pairs = np.linalg.eigh(difference @ difference.T)[1][:, -1] @ difference
    for axis in (by_pairs / np.linalg.norm(by_pairs), np.linalg.eigh(difference.T @ difference)[1][:, -1]):
        np.testing.assert_allclose(found, axis * (axis @ mean), atol=1e-10)
    assert found @ mean > 0


def test_pca_solves_the_smaller_problem_for_one_vector(monkeypatch):
    sizes, real = [], extractors.eigh

    def counted(gram, subset_by_index):
        sizes.append((gram.shape, subset_by_index))
        return real(gram, subset_by_index=subset_by_index)

    monkeypatch.setattr(extractors, "eigh", counted)
    rng = np.random.default_rng(6)
    for shape in ((300, 7), (7, 300)):
        pca(*rng.normal(size=(2, *shape)))
    assert sizes == [((7, 7), [6, 6])] * 2
    assert np.isnan(pca(np.full((9, 4), np.inf), np.zeros((9, 4)))).all()


def test_two_extractors_of_one_name_and_one_named_like_a_built_in_are_refused(monkeypatch):
    def point(name, owner):
        return SimpleNamespace(name=name, load=lambda: pca, dist=SimpleNamespace(name=owner, version="1.0"))

    points = [point("mine", "ours"), point("mine", "theirs"), point("pca", "theirs"), point("yours", "ours")]
    monkeypatch.setattr(extractors, "entry_points", lambda group: points)
    for look in (find_extractor, extractor_facts):
        with pytest.raises(
            InputError, match=r"'mine' is registered 2 times, as 'mine' \(of ours 1.0\) and 'mine' \(of"
        ):
            look("mine")
        with pytest.raises(InputError, match=r"'pca' \(of theirs 1.0\) has the name of a built-in one; rename it"):
            look("pca")
        look("yours")
        look("logistic")
