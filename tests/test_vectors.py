"""Extraction, rescaling and controls of steering vectors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cache_builder.vectors import difference, extractors, fit_vectors, named_rng
from cache_builder.vectors.extractors import nuisance_weights, project_out
from steerstats.cache.schema import VECTOR_KINDS
from steerstats.errors import InputError

HIDDEN = 24
SETTINGS = ("base", "sys_pos", "user_neg")


@pytest.fixture
def planted():
    """Activations with a known direction per setting, an A/B direction, a Yes/No direction, and noise."""
    rng = np.random.default_rng(0)
    n = 120
    truth = rng.normal(size=(3, 2, HIDDEN))
    a_axis, yes_axis = np.eye(HIDDEN)[:2] * 4
    is_a, is_yes = rng.integers(0, 2, n), rng.integers(0, 2, n)
    half = truth[:, :, None] / 2 + ((is_a - 0.5)[:, None] * a_axis + (is_yes - 0.5)[:, None] * yes_axis)
    noise = rng.normal(size=(3, 2, 2, n, HIDDEN)) * 0.3
    activations = np.stack([half, -half], axis=2) + noise + rng.normal(size=(n, HIDDEN)) * 2
    return SimpleNamespace(
        activations=activations.astype(np.float32),
        truth=truth,
        is_a=is_a,
        is_yes=is_yes,
        questions=[f"q{i // 2}" for i in range(n)],
        axes=np.stack([a_axis, yes_axis]),
    )


def fit(planted, **options):
    return fit_vectors(planted.activations, SETTINGS, (3, 5), **options)


def cosine(a, b):
    return float(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))


def pick(found, kind, setting="base"):
    return np.array([i for i in range(len(found)) if found.kind[i] == kind and found.setting[i] == setting])


def test_mean_difference_is_the_mean_of_differences_slot_by_slot(planted, monkeypatch):
    monkeypatch.setattr("cache_builder.vectors.fit.parts_of", lambda n_pairs, _: [slice(0, 50), slice(50, n_pairs)])
    found = fit(planted, rescale="none", mean=False)
    expected = planted.activations[:, :, 0].mean(2) - planted.activations[:, :, 1].mean(2)
    assert found.label == SETTINGS
    assert np.allclose(found.direction, expected, atol=1e-5)
    assert found.layers.tolist() == [[3, 5]] * 3


@pytest.mark.parametrize("method", ["pca", "logistic"])
def test_other_methods_find_the_same_direction_with_its_sign_and_length(method):
    rng = np.random.default_rng(1)
    direction = rng.normal(size=HIDDEN) * 2
    negative = rng.normal(size=(200, HIDDEN))
    activations = np.stack([negative + direction + rng.normal(size=(200, HIDDEN)) * 0.2, negative])[None, None]
    found = fit_vectors(activations, ("base",), (0,), method=method, mean=False)
    assert cosine(found.direction[0, 0], direction) > 0.95
    assert np.linalg.norm(found.direction[0]) == pytest.approx(np.linalg.norm(direction), rel=0.1)
    flipped = fit_vectors(activations[:, :, ::-1], ("base",), (0,), method=method, mean=False)
    assert cosine(flipped.direction[0], found.direction[0]) < -0.99


def test_pca_is_the_first_singular_vector_of_the_differences():
    rng = np.random.default_rng(2)
    positive, negative = rng.normal(size=(2, 30, HIDDEN)) + np.array([0.4, 0])[:, None, None]
    found = extractors.pca(positive, negative)
    first = np.linalg.svd(positive - negative)[2][0]
    assert abs(cosine(found, first)) == pytest.approx(1, abs=1e-9)


def test_all_vectors_of_a_dataset_have_the_base_vectors_norm_slot_by_slot(planted):
    found = fit(planted)
    base = np.linalg.norm(found.direction[0], axis=-1)
    assert np.allclose(np.linalg.norm(found.direction, axis=-1), base, rtol=1e-5)
    assert found.raw_norm[0] == pytest.approx(found.norm[0], rel=1e-5)
    assert abs(found.raw_norm[1] - found.norm[1]) > 0.1
    # The mean is taken over rescaled vectors and then rescaled itself.
    average = found.direction[:3].mean(0)
    assert found.raw_norm[3] == pytest.approx(np.linalg.norm(average), rel=1e-5)
    assert cosine(found.direction[3, 0], average[0]) == pytest.approx(1, abs=1e-6)


def test_unit_rescaling_makes_every_slot_one_long(planted):
    assert np.allclose(np.linalg.norm(fit(planted, rescale="unit").direction, axis=-1), 1, atol=1e-6)


def test_resamples_repeat_the_whole_procedure_on_the_same_questions_in_every_setting(planted):
    wanted = ("base", "user_neg", "mean")
    found = fit(planted, questions=planted.questions, resampled=3, control_settings=wanted, seed=4, name="m/d")
    chosen = named_rng(4, "m/d", "resampled", "1").integers(60, size=60)
    pairs = np.concatenate([[2 * q, 2 * q + 1] for q in chosen])
    again = fit_vectors(planted.activations[:, :, :, pairs], SETTINGS, (3, 5))
    for setting in wanted:
        index = pick(found, "resampled", setting)[1]
        assert found.replicate[index] == 1
        assert np.allclose(found.direction[index], again.direction[again.setting.index(setting)], atol=1e-5)


def test_the_spread_of_resampled_vectors_is_the_standard_error(planted):
    """Of the first layer's base vector: trace of the covariance of refits against that of the mean."""
    found = fit(planted, resampled=200, rescale="none", mean=False)
    refits = found.direction[pick(found, "resampled"), 0]
    difference = planted.activations[0, 0, 0] - planted.activations[0, 0, 1]
    assert refits.var(axis=0).sum() == pytest.approx(difference.var(axis=0).sum() / 120, rel=0.12)


def test_folds_are_disjoint_keep_questions_whole_and_cover_everything(planted):
    found = fit(planted, questions=planted.questions, folds=4, rescale="none", mean=False)
    parts = found.direction[pick(found, "fold")]
    assert np.allclose(parts.mean(0), found.direction[0], atol=1e-5)
    assert found.replicate[pick(found, "fold")].tolist() == [0, 1, 2, 3]
    assert max(cosine(parts[0], parts[k]) for k in (1, 2, 3)) < 0.9999
    assert len(pick(fit(planted, questions=planted.questions, folds=60), "fold")) == 60
    with pytest.raises(InputError, match="61 disjoint folds"):
        fit(planted, questions=planted.questions, folds=61)


def test_null_vectors_have_the_norm_of_the_vector_they_stand_beside(planted):
    found = fit(planted, random=4, shuffled=4, control_settings=("base", "mean"))
    for kind in ("random", "shuffled"):
        for setting in ("base", "mean"):
            assert np.allclose(found.norm[pick(found, kind, setting)], found.norm[0], rtol=1e-5)
    random = found.direction[pick(found, "random")].reshape(4, -1) / found.norm[0]
    assert np.abs(random @ random.T - np.eye(4)).max() < 0.6
    assert "random" in found.method


def test_shuffled_vectors_lose_the_signal(planted):
    found = fit(planted, shuffled=20, questions=planted.questions, rescale="none", mean=False)
    along = [cosine(found.direction[i, 0], found.direction[0, 0]) for i in pick(found, "shuffled")]
    assert abs(np.mean(along)) < 0.35
    assert min(along) < -0.1 < 0.1 < max(along)


def test_debiased_vectors_hold_nothing_of_the_position_and_yes_directions(planted):
    found = fit(planted, debiased=True, pos_is_a=planted.is_a, pos_is_yes=planted.is_yes)
    index = pick(found, "debiased")[0]
    for slot in range(2):
        weights = nuisance_weights(120, planted.is_a, planted.is_yes)
        axes = weights @ difference(planted.activations[0, slot])
        assert [cosine(axis, true) > 0.99 for axis, true in zip(axes, planted.axes)] == [True, True]
        assert np.abs(found.direction[index, slot] @ axes.T).max() < 1e-3
    assert found.norm[index] == pytest.approx(found.norm[0], rel=1e-5)
    assert found.raw_norm[index] < found.norm[index]


def _normalised(positive, negative):
    found = (positive - negative).mean(axis=0)
    return found / np.linalg.norm(found)


@pytest.mark.parametrize("own", [None, _normalised])
def test_the_mean_is_debiased_of_the_directions_at_the_scale_of_what_it_is_the_mean_of(own, monkeypatch):
    """A and B are not balanced, each setting has an A/B direction of its own, and one has far larger activations."""
    rng, is_a = np.random.default_rng(3), np.repeat([1, 1, 1, 0], 10)
    wanted = np.zeros((3, 1, HIDDEN))
    wanted[:, 0, :8] = rng.normal(size=(3, 8))
    sides = np.zeros((3, 1, HIDDEN))
    sides[:, 0, 8:] = rng.normal(size=(3, HIDDEN - 8))
    differences = (wanted + sides * (2 * is_a - 1)[:, None]) * np.array([1.0, 9.0, 0.3])[:, None, None]
    activations = np.stack([differences, np.zeros_like(differences)], axis=1)[:, None].astype(np.float32)
    if own is not None:  # an extractor whose vectors have a length of their own
        monkeypatch.setattr("cache_builder.vectors.fit.find_extractor", lambda method: own)
    asked = {"control_settings": ("mean",), "rescale": "unit", "method": "own" if own else "mean_difference"}
    found = fit_vectors(activations, SETTINGS, (3,), debiased=True, pos_is_a=is_a, **asked)
    (index,) = pick(found, "debiased", "mean")
    assert np.abs(found.direction[found.label.index("mean")][0, 8:]).max() > 0.1
    assert np.abs(found.direction[index][0, 8:]).max() < 1e-6


@pytest.mark.parametrize(
    ("wanted", "options", "again"),
    [
        (("base",), {}, 1),
        (("sys_pos",), {}, 2),  # and base, for its norm
        (("sys_pos",), {"rescale": "unit"}, 1),
        (("base", "mean"), {}, 3),
    ],
)
def test_a_refit_fits_only_the_settings_that_it_is_asked_for(monkeypatch, planted, wanted, options, again):
    fits = []

    def extractor(positive, negative):
        fits.append(len(positive))
        return (positive - negative).mean(axis=0)

    monkeypatch.setattr("cache_builder.vectors.fit.find_extractor", lambda method: extractor)
    controls = {"resampled": 4, "folds": 2, "shuffled": 1, "control_settings": wanted, **options}
    found = fit(planted, method="counted", **controls)
    slots = 2
    assert len(fits) == slots * (len(SETTINGS) + again * (4 + 2 + 1))
    monkeypatch.undo()
    expected = fit(planted, **controls)
    np.testing.assert_allclose(found.direction, expected.direction, atol=1e-5)


def test_without_defined_factors_there_is_no_debiased_vector_and_a_note_says_so(planted):
    found = fit(planted, debiased=True, pos_is_a=np.ones(120), pos_is_yes=np.full(120, -1))
    assert "debiased" not in found.kind
    assert "neither A/B nor Yes/No" in found.notes[0]


@pytest.mark.parametrize("setting", ["base", "mean"])
def test_a_vector_of_nothing_but_the_position_has_no_debiased_one_made_of_rounding(setting):
    rng, is_a = np.random.default_rng(5), np.repeat([1, 1, 1, 0], 10)
    middle, axis = rng.normal(size=(40, HIDDEN)), rng.normal(size=HIDDEN)
    half = ((2 * is_a - 1) * rng.uniform(0.5, 1.5, 40))[:, None] * axis
    activations = np.broadcast_to(np.stack([middle + half, middle - half]), (3, 1, 2, 40, HIDDEN)).astype(np.float32)
    asked = {"pos_is_a": is_a, "control_settings": (setting,)}
    found = fit_vectors(activations, SETTINGS, (3,), debiased=True, **asked)
    assert "debiased" not in found.kind
    assert found.notes == (f"no debiased vector for {setting}: it is made of its A/B and Yes/No directions",)


def test_projecting_out_parallel_directions_removes_their_span_once():
    axis = np.eye(4)[0]
    assert np.allclose(project_out(np.array([3.0, 2, 1, 0]), np.stack([axis, 2 * axis])), [0, 2, 1, 0])


def test_one_control_does_not_change_another(planted):
    alone = fit(planted, random=2)
    beside = fit(planted, random=2, resampled=3, shuffled=1)
    assert np.array_equal(alone.direction[pick(alone, "random")], beside.direction[pick(beside, "random")])
    other = fit(planted, random=2, name="another dataset")
    assert not np.allclose(alone.direction[pick(alone, "random")], other.direction[pick(other, "random")])


def test_labels_name_every_vector_once(planted):
    found = fit(planted, resampled=2, random=2, folds=2, shuffled=1, debiased=True, pos_is_a=planted.is_a)
    assert len(set(found.label)) == len(found)
    assert found.label[:4] == (*SETTINGS, "mean")
    assert found.kind[:4] == ("trained",) * 3 + ("mean",)
    assert set(found.kind) == set(VECTOR_KINDS) - {"imported"}


def test_extractors_of_other_packages_are_found(monkeypatch, planted):
    point = SimpleNamespace(name="first_pair", load=lambda: lambda positive, negative: positive[0] - negative[0])
    monkeypatch.setattr(extractors, "entry_points", lambda group: [point] if group == "steerstats.extractors" else [])
    found = fit(planted, method="first_pair", rescale="none", mean=False)
    assert np.allclose(found.direction[0, 0], planted.activations[0, 0, 0, 0] - planted.activations[0, 0, 1, 0])
    with pytest.raises(InputError, match="mean_difference, pca, logistic, first_pair"):
        fit(planted, method="second_pair")


def rounded(activations):
    """Both answers alike, but for the last bit of some numbers."""
    one = activations[:, :, 0]
    other = np.where(np.random.default_rng(0).random(one.shape) < 0.2, np.nextafter(one, one + 1), one)
    return np.stack([one, other], axis=2)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda a: np.where(np.arange(HIDDEN) == 2, np.nan, a), {}, "setting base is not finite"),
        (lambda a: np.where(np.arange(HIDDEN) == 2, np.inf, a), {"method": "logistic"}, "setting base is not finite"),
        (
            lambda a: np.repeat(a[:, :, :1, :9], 2, axis=2),
            {"method": "pca"},
            "pca, setting base: the steering vector is zero",
        ),
        (rounded, {}, "mean_difference, setting base: the steering vector is zero"),
        (rounded, {"method": "pca"}, "pca, setting base: the steering vector is zero"),
        (lambda a: a[:, :1], {}, "2 layers"),
        (lambda a: a[:, :, :, :0], {}, "at least one training pair"),
        (lambda a: a, {"rescale": "norm"}, "rescale 'norm'"),
        (lambda a: a, {"control_settings": ("sys_neg",)}, "control setting 'sys_neg'"),
        (lambda a: a, {"questions": ["q"]}, "1 questions for 120 pairs"),
    ],
)
def test_unusable_input_is_a_named_error(planted, change, options, words):
    with pytest.raises(InputError, match=words):
        fit_vectors(change(planted.activations), SETTINGS, (3, 5), **options)
