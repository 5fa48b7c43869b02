"""Simulated caches hold what they were told to hold, and are caches like any other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from steerstats.cache import CacheReader, content_hash, pack, verify
from steerstats.errors import CacheError, InputError
from steerstats.generalization import ID_SHIFT, PAPER_SHIFTS
from steerstats.simulate import SimulationTruth, simulate_cache, simulate_unit
from steerstats.simulate.curves import latent_steerability

LAM = np.array(SimulationTruth().multipliers)


def draw(seed=0, **parameters):
    truth = SimulationTruth(datasets=["one"], **parameters)
    data, unit = simulate_unit(truth, "one", seed=seed)
    return data.arrays, unit


def slopes(arrays):
    """Least squares by numpy.polyfit, (setting_eval, vector, input)."""
    curves = np.moveaxis(arrays["propensity"].astype(float), 2, 0)
    return np.polyfit(LAM, curves.reshape(len(LAM), -1), 1)[0].reshape(curves.shape[1:])


def where(arrays, kind, setting=None):
    chosen = arrays["vector_kind"] == kind
    return np.flatnonzero(chosen & (arrays["vector_setting"] == setting) if setting else chosen)


def half(flags):
    return np.where(flags < 0, 0.0, flags - 0.5)


def test_curves_carry_the_true_slope_intercept_and_curvature():
    arrays, unit = draw(curvature=0.3, curvature_sd=0.2, vector_sd=0.1, intercept=-1.0)
    np.testing.assert_allclose(slopes(arrays), unit.slope, atol=1e-5)
    np.testing.assert_allclose(arrays["propensity"][:, 3, 3], unit.intercept, atol=1e-5)
    bend = np.polyfit(LAM, arrays["propensity"][1, 2].astype(float), 2)[0]
    np.testing.assert_allclose(bend, unit.curvature, atol=1e-5)


def test_unsteered_propensity_is_the_same_under_every_vector_even_with_lack_of_fit():
    arrays, _ = draw(wiggle_sd=0.5, n_random=2)
    at_zero = arrays["propensity"][:, :, 3]
    assert np.nanmax(np.ptp(at_zero[:, :6], axis=1)) == 0
    residual = arrays["propensity"][0, 0] - arrays["propensity"][0, 0].mean(axis=0)
    line = slopes(arrays)[0, 0] * LAM[:, None]
    assert np.std(residual - line) == pytest.approx(0.5 * np.sqrt(5 / 7), rel=0.15)


@pytest.mark.parametrize("shape", ["normal", "lognormal", "mixture"])
def test_mean_and_spread_of_slopes_are_the_chosen_ones(shape):
    _, unit = draw(n_inputs=20_000, mean_steerability=[1.7], input_sd=0.6, shape=shape, n_pairs=2, logits=False)
    base = unit.slope[0, 0]
    assert base.mean() == pytest.approx(1.7, abs=4 * 0.6 / np.sqrt(20_000))
    assert base.std() == pytest.approx(0.6, rel=0.06)


def test_factor_effects_sit_on_slope_and_intercept_as_chosen():
    arrays, unit = draw(
        n_inputs=200, mean_steerability=[1.0], input_sd=0.0, intercept_sd=0.0, shift_input_sd=0.0,
        a_slope=1.5, yes_slope=-0.7, a_yes_slope=0.4, a_intercept=2.0, yes_intercept=-3.0, length_slope=0.01,
        yes_defined=0.8,
    )  # fmt: skip
    a, yes = half(arrays["input_pos_is_a"]), half(arrays["input_pos_is_yes"])
    longer = arrays["input_len_positive"] - arrays["input_len_negative"]
    columns = np.column_stack([np.ones(200), a, yes, a * yes, longer])
    found = np.linalg.lstsq(columns, slopes(arrays)[0, 0], rcond=None)[0]
    np.testing.assert_allclose(found, [1.0, 1.5, -0.7, 0.4, 0.01], atol=1e-5)
    found = np.linalg.lstsq(columns[:, :3], unit.intercept[0], rcond=None)[0]
    np.testing.assert_allclose(found, [0.0, 2.0, -3.0], atol=1e-9)
    assert (arrays["input_pos_is_yes"] == -1).sum() == 40


def test_prevalence_is_exact_and_factors_are_crossed():
    arrays, _ = draw(n_inputs=200, prevalence_a=0.3, prevalence_yes=0.5, sd_ratio_a=3.0)
    a, yes = arrays["input_pos_is_a"], arrays["input_pos_is_yes"]
    assert a.sum() == 60
    assert [yes[a == level].mean() for level in (0, 1)] == [0.5, 0.5]
    spread = [slopes(arrays)[0, 0][a == level].std() for level in (0, 1)]
    assert spread[1] / spread[0] == pytest.approx(3.0, rel=0.3)


def test_gaps_are_prompt_loss_plus_cost_of_transfer():
    arrays, unit = draw(
        prompt_loss={"user_neg": 0.4, "user_pos": -0.1}, transfer_cost=0.25, shift_input_sd=0.0,
        prompt_intercept={"user_neg": -2.0}, transfer_cost_sd=0.1,
    )  # fmt: skip
    for train, evaluation in (ID_SHIFT, *PAPER_SHIFTS):
        assert unit.gap(train, evaluation) == pytest.approx(unit.expected_gap(train, evaluation), abs=1e-12)
    assert unit.expected_gap("base", "user_neg") == 0.4 + unit.transfer_cost[0, 4]
    assert unit.gap("user_neg", "user_neg") == pytest.approx(0.4)
    assert np.std(unit.transfer_cost[~np.eye(5, dtype=bool)]) > 0.03
    found = slopes(arrays)
    np.testing.assert_allclose(found[:, 5], found[:, :5].mean(axis=1), atol=1e-5)
    assert (unit.intercept[4] - unit.intercept[0]).mean() == pytest.approx(-2.0)


def test_refits_scatter_as_the_vector_error_says():
    arrays, unit = draw(
        n_resampled=400, n_folds=100, vector_sd=0.3, vector_setting_correlation=0.7, n_inputs=4, n_pairs=200
    )  # fmt: skip
    found = slopes(arrays)
    shift = {
        name: (found[4, where(arrays, "resampled", name)] - found[4, arrays["vector"] == name]).mean(axis=1)
        for name in ("base", "sys_pos")
    }
    assert np.std(shift["base"]) == pytest.approx(0.3, rel=0.12)
    assert np.corrcoef(shift["base"], shift["sys_pos"])[0, 1] == pytest.approx(0.7, abs=0.1)
    folds = found[0, where(arrays, "fold", "base")] - found[0, 0]
    assert np.std(folds.mean(axis=1)) == pytest.approx(3.0, rel=0.25), "a fold trains on 1/100 of the pairs"
    assert unit.vector_error.shape == (5,)


def test_error_of_the_main_vector_has_the_chosen_spread():
    truth = SimulationTruth(datasets=["one"], vector_sd=0.3, n_inputs=1, n_pairs=2, logits=False, activations=False)
    errors = [simulate_unit(truth, "one", seed=seed)[1].vector_error[0] for seed in range(150)]
    assert np.std(errors) == pytest.approx(0.3, rel=0.2)


def test_nulls_scatter_around_zero_and_the_debiased_vector_has_lost_the_bias():
    arrays, _ = draw(
        n_random=300, n_shuffled=300, null_sd=0.5, shuffled_sd=0.1, debiased=True, a_slope=2.0, n_inputs=40
    )
    found = slopes(arrays)
    for kind, spread in (("random", 0.5), ("shuffled", 0.1)):
        means = found[0, where(arrays, kind)].mean(axis=1)
        assert abs(means.mean()) < 4 * np.sqrt(spread**2 + 0.3**2 / 40) / np.sqrt(300)
        assert np.std(means) == pytest.approx(np.sqrt(spread**2 + 0.3**2 / 40), rel=0.15)
    difference = found[0, 0] - found[0, where(arrays, "debiased")[0]]
    np.testing.assert_allclose(difference, 2.0 * half(arrays["input_pos_is_a"]), atol=1e-5)


def test_controls_are_planned_for_the_shifts_of_the_paper_only():
    arrays, _ = draw(n_resampled=1, n_random=1)
    cells = {
        (arrays["vector_setting"][v], arrays["setting_eval"][e])
        for e, v in np.argwhere(arrays["planned"])
        if arrays["vector_kind"][v] == "resampled"
    }
    assert cells == {ID_SHIFT, *PAPER_SHIFTS}
    assert arrays["planned"][:, :6].all()


def test_answer_mass_is_the_chosen_one_and_decays_with_the_multiplier():
    arrays, _ = draw(answer_mass=0.9, mass_decay=1.0, n_inputs=400)
    mass = np.exp(arrays["answer_logit"][0, 0] - arrays["logsumexp"][0, 0][:, None]).sum(axis=1)
    logit = np.log(mass / (1 - mass)).mean(axis=1)
    np.testing.assert_allclose(logit, np.log(9) - LAM**2, atol=0.1)
    np.testing.assert_array_equal(arrays["answer_logit"][:, :, :, 0] - arrays["answer_logit"][:, :, :, 1],
                                  arrays["propensity"])  # fmt: skip


def test_activations_have_the_chosen_cosine_separation_and_directions():
    arrays, _ = draw(n_pairs=2000, difference_cosine=0.4, dprime=1.5, vector_cosine=0.7, n_resampled=1)
    difference = (arrays["activation"][:, 0, 0].astype(float) - arrays["activation"][:, 0, 1]).mean(axis=1)
    difference /= np.linalg.norm(difference, axis=1, keepdims=True)
    np.testing.assert_allclose(difference @ difference.T, 0.7 + 0.3 * np.eye(5), atol=0.08)
    unit = arrays["direction"][:5, 0] / arrays["vector_norm"][:5, None]
    np.testing.assert_allclose(unit, difference, atol=2e-3)
    np.testing.assert_allclose(arrays["vector_norm"], arrays["vector_norm"][0], rtol=1e-5)
    assert arrays["pair_difference_cosine"].mean() == pytest.approx(0.4, abs=0.02)
    positive, negative = arrays["crossfit_projection"][0]
    separation = (positive.mean() - negative.mean()) / np.sqrt((positive.var(ddof=1) + negative.var(ddof=1)) / 2)
    assert separation == pytest.approx(1.5, abs=0.15)


def test_projection_and_intercept_correlate_with_the_slope_as_chosen():
    arrays, unit = draw(n_inputs=3000, projection_correlation=0.6, intercept_slope_correlation=-0.5, n_pairs=2)
    assert np.corrcoef(unit.slope[0, 0], arrays["input_projection"][0, 0])[0, 1] == pytest.approx(0.6, abs=0.05)
    assert np.corrcoef(unit.slope[0, 0], unit.intercept[0])[0, 1] == pytest.approx(-0.5, abs=0.05)


def test_two_models_agree_as_chosen_and_predictors_follow_steerability():
    names = [f"d{k}" for k in range(2000)]
    truth = SimulationTruth(datasets=names, cross_model_correlation=0.6, mean_steerability=2.0, between_sd=0.7)
    a, b = (np.array([latent_steerability(truth, name, model, 3)[0] for name in names]) for model in "ab")
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(0.6, abs=0.06)
    assert (a.mean(), a.std()) == (pytest.approx(2.0, abs=0.07), pytest.approx(0.7, rel=0.06))
    few = SimulationTruth(datasets=200, n_inputs=1, n_pairs=2, logits=False, activations=False, between_sd=1.0,
                          dprime_log_sd=0.3, cosine_sd=0.05, dprime_correlation=0.9)  # fmt: skip
    units = [simulate_unit(few, name)[1] for name in few.datasets]
    mean = [unit.mean_steerability for unit in units]
    for found in ([np.log(unit.dprime) for unit in units], [unit.difference_cosine for unit in units]):
        assert np.corrcoef(mean, found)[0, 1] == pytest.approx(0.9, abs=0.06)


@pytest.mark.parametrize("shape", ["normal", "lognormal"])
def test_inputs_of_two_models_agree_as_chosen(shape):
    truth = SimulationTruth(datasets=["d"], n_inputs=20_000, shape=shape, cross_model_input_correlation=0.6,
                            n_pairs=4, logits=False, activations=False, settings=("base",))  # fmt: skip
    one, other = (simulate_unit(truth, "d", model=model)[1].slope[0, 0] for model in ("a", "b"))
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(0.6, abs=0.06 if shape == "lognormal" else 0.03)
    for slopes in (one, other):
        assert slopes.std() == pytest.approx(truth.input_sd, rel=0.05)
    assert (stats.skew(one) > 3) == (shape == "lognormal")


def test_a_simulated_cache_passes_verify_and_survives_packing(tmp_path):
    truth = SimulationTruth(datasets=2, n_inputs=6, n_val=2, n_pairs=8, n_resampled=1, n_random=1, debiased=True)
    drawn = simulate_cache(tmp_path / "cache", truth, seed=4)
    assert [check for check in verify(drawn.path) if not check.ok] == []
    packed = pack(drawn.path, tmp_path / "cache.h5")
    assert [check for check in verify(packed) if not check.ok] == []
    for name in truth.datasets:
        hashes = {CacheReader(path)[name].sidecar["content_sha256"] for path in (drawn.path, packed)}
        assert len(hashes) == 1
    assert CacheReader(packed).kind == "simulated"
    assert drawn.mean_slopes().shape == (2,)


def test_a_dataset_depends_on_seed_model_and_name_and_on_nothing_else():
    def digest(datasets, seed=0, model="a"):
        return content_hash(simulate_unit(SimulationTruth(datasets=datasets), "two", seed=seed, model=model)[0])

    assert digest(["one", "two"]) == digest(["two", "three"])
    assert len({digest(["two"]), digest(["two"], seed=1), digest(["two"], model="b")}) == 3
    truth = SimulationTruth(datasets=["two"])
    questions = [simulate_unit(truth, "two", model=model)[0].arrays["input_pos_is_a"] for model in "ab"]
    np.testing.assert_array_equal(*questions)


def test_one_seed_writes_one_cache(tmp_path):
    truth = SimulationTruth(datasets=1, n_inputs=4, n_pairs=4)
    first, again, other = (simulate_cache(tmp_path / f"{k}", truth, seed=s).path for k, s in enumerate((0, 0, 1)))
    hashes = [CacheReader(path)["sim-00"].sidecar["content_sha256"] for path in (first, again, other)]
    assert hashes[0] == hashes[1]
    grids = [CacheReader(path)["sim-00"].read("propensity") for path in (first, other)]
    assert np.abs(grids[0] - grids[1]).max() > 0.1
    with pytest.raises(CacheError, match="specs are not mixed"):
        simulate_cache(first, truth, seed=1)


def test_counterbalanced_twins_share_question_and_deviation_and_differ_in_position():
    arrays, unit = draw(n_inputs=20, n_val=4, counterbalance=True, a_slope=1.0, shift_input_sd=0.0)
    question, a = arrays["input_question"].reshape(-1, 2), arrays["input_pos_is_a"].reshape(-1, 2)
    assert (question[:, 0] == question[:, 1]).all()
    assert (a.sum(axis=1) == 1).all()
    pairs = unit.slope[0, 0].reshape(-1, 2)
    np.testing.assert_allclose(np.diff(pairs)[:, 0], np.diff(a)[:, 0] * 1.0, atol=1e-12)
    assert (arrays["input_split"].reshape(-1, 2)[:, 0] == arrays["input_split"].reshape(-1, 2)[:, 1]).all()
    assert (arrays["input_split"] == "test").sum() == 20


@pytest.mark.parametrize(
    "parameters",
    [{"n_inputs": 1}, {"n_pairs": 2}, {"settings": ("base",)}, {"settings": ("base", "user_neg")},
     {"multipliers": (0.0, 1.0)}, {"logits": False, "activations": False}],
)  # fmt: skip
def test_small_and_partial_caches_keep_the_contract(tmp_path, parameters):
    truth = SimulationTruth(datasets=1, n_resampled=1, n_random=1, **{"n_inputs": 3, "n_pairs": 7, **parameters})
    path = simulate_cache(tmp_path / "cache", truth).path
    assert [check for check in verify(path) if not check.ok] == []


def test_an_unfinished_dataset_is_planned_and_missing(tmp_path):
    drawn = simulate_cache(tmp_path / "c", SimulationTruth(datasets=2, n_inputs=2, n_pairs=2), unfinished=["sim-01"])
    assert CacheReader(drawn.path).missing == ("sim-01",)
    with pytest.raises(CacheError, match="unfinished names 'x'"):
        simulate_cache(tmp_path / "d", SimulationTruth(datasets=2), unfinished=["x"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"datasets": 0}, "at least one"),
        ({"mean_steerability": [1.0]}, "mean_steerability has 1 values; there are 8"),
        ({"input_sd": -1.0}, "input_sd is -1.0"),
        ({"settings": ["base", "system"]}, "settings is"),
        ({"multipliers": [-1, 1]}, "0 among them"),
        ({"prevalence_a": 1.2}, "prevalence_a is 1.2; between 0 and 1"),
        ({"prompt_loss": {"usr": 1.0}}, "prompt_loss names 'usr'"),
        ({"shape": "cauchy"}, "shape is 'cauchy'"),
        ({"n_inputs": 3, "counterbalance": True}, "should be even"),
        ({"n_inputs": 4, "n_val": 3, "counterbalance": True}, "n_val is 3, it should be even"),
        ({"n_pairs": 4, "n_folds": 5}, "n_folds is 5; at most n_pairs, 4"),
        ({"dprime": 0.0}, "dprime is 0.0; above 0"),
        ({"mean_steerability": np.array(1.0)}, "mean_steerability is array"),
        ({"multipliers": np.array(1.0)}, "multipliers is array"),
        ({"hidden": 5}, "hidden is 5; at least 8"),
        ({"answer_mass": 1.0}, "answer_mass is 1.0"),
    ],
)
def test_impossible_parameters_are_refused_by_name(parameters, message):
    with pytest.raises(InputError, match=message):
        SimulationTruth(**parameters)
