"""Every question of a study is answered from a cache with a known truth, and refused where the cache cannot answer."""

from __future__ import annotations

import shutil
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import steerstats
from steerstats import study_base
from steerstats.cache import UnitData, create_cache, write_unit
from steerstats.errors import CacheError, CannotEstimate, InputError
from steerstats.meta import mean_over_datasets
from steerstats.seeds import NamedStreams
from steerstats.simulate import SimulationTruth, simulate_cache, simulate_unit
from steerstats.study import Study, open_cache

FAST = {"n_resamples": 300}


def cache_of(tmp_path, **parameters):
    truth = SimulationTruth(**{"datasets": 2, "n_inputs": 12, "n_pairs": 12, **parameters})
    return simulate_cache(tmp_path / "cache", truth, seed=2)


def test_steerability_is_that_of_the_test_inputs_ordered_by_median(study, simulated):
    table = study.steerability()
    for name, unit in simulated.units.items():
        assert table[name]["mean"].estimate == pytest.approx(unit.mean_slope(), abs=1e-5)
        assert table[name]["mean"].n == 40
    medians = [table[name]["median"].estimate for name in table.datasets]
    assert medians == sorted(medians, reverse=True)
    frame = table.to_frame()
    assert set(frame["dataset"]) == set(study.datasets)
    included = frame[frame["name"] == "mean, vector error included"].set_index("dataset")["se"]
    assert (included > frame[frame["name"] == "mean"].set_index("dataset")["se"]).all()
    means = frame[frame["name"] == "mean"].set_index("dataset")["estimate"]
    expected = mean_over_datasets(means.to_numpy(), included[means.index].to_numpy() ** 2)
    assert table.over_datasets.n == 10
    assert (table.over_datasets.mean, table.over_datasets.se) == pytest.approx((expected.mean, expected.se))


def test_refits_sit_in_their_cell_of_the_grid(study):
    grid = study.grid(["base->base", "sys_pos->user_neg"], refits=True)
    own = study.unit("sim-04").control_slopes("resampled", "sys_pos->user_neg")
    assert own.shape == (12, 40)
    i, j = grid.place(("sys_pos", "user_neg"))
    np.testing.assert_array_equal(grid.refits["sim-04"][:, i, j], own)
    assert np.isfinite(grid.refits["sim-04"]).sum() == 2 * 12 * 40
    assert np.isfinite(grid.slopes["sim-04"]).sum() == 2 * 40


def test_slopes_are_labelled_and_validation_inputs_are_out(study, simulated):
    unit = simulated.units["sim-03"]
    slopes = study.slopes("sim-03")
    assert len(slopes.inputs) == 40
    np.testing.assert_allclose(slopes.at("sys_pos->user_neg"), unit.slope[4, 1][unit.test], atol=1e-5)
    np.testing.assert_allclose(slopes.unsteered, unit.intercept[:, unit.test], atol=1e-5)
    assert slopes.to_frame().shape[0] == 5 * 6 * 40
    with pytest.raises(CacheError, match="base->nowhere"):
        slopes.at("base->nowhere")


def test_slopes_are_read_once_and_results_are_read_only(study):
    assert study.slopes("sim-00") is study.slopes("sim-00")
    with pytest.raises(ValueError, match="read-only"):
        study.slopes("sim-00").slope[0, 0, 0] = 1.0


def test_gaps_and_their_parts_are_those_of_the_draw(study, simulated):
    found = study.generalization(**FAST)
    assert found.gaps.shifts == ("base->user_neg", "base->user_pos", "sys_pos->user_neg", "sys_neg->user_pos")
    parts = found.decomposition.estimate
    for d, name in enumerate(found.gaps.datasets):
        unit = simulated.units[name]
        for k, shift in enumerate(found.gaps.shifts):
            train, evaluation = shift.split("->")
            assert found.gaps.estimate[0, d, k] == pytest.approx(unit.gap(train, evaluation), abs=1e-5)
            assert parts[1, d, k] == pytest.approx(unit.gap(evaluation, evaluation), abs=1e-5)
    np.testing.assert_allclose(parts[0], parts[1] + parts[2], atol=1e-9)
    assert found.gaps.includes_vector_error[0].all()
    assert not found.gaps.includes_vector_error[1:].any(), "the simulation refits no vector in its own setting"
    assert "transfer: intervals are about these very vectors: eval->eval has no refits" in found.warnings
    frame = found.to_frame()
    assert frame.groupby("component")["includes_vector_error"].unique().map(list).to_dict() == {
        "gap": [True], "prompt": [False], "transfer": [False]
    }  # fmt: skip
    pooled = found.overall.to_frame().query("quantity == 'random-effects mean' and component == 'gap'")
    neg = pooled.set_index("shift").loc["base->user_neg"]
    assert neg["ci_low"] < 0.45 < neg["ci_high"], "prompt loss 0.3 and cost of transfer 0.15"


def without_refits(tmp_path, dataset: str, shift: tuple[str, str]):
    """A copy of a cache with refits in which one dataset was not refitted under one shift."""
    truth = SimulationTruth(
        datasets=3, n_inputs=12, n_pairs=12, n_resampled=4, vector_sd=0.3, settings=("base", "user_neg")
    )
    units = {name: simulate_unit(truth, name)[0] for name in truth.datasets}
    arrays = {name: array.copy() for name, array in units[dataset].arrays.items()}
    e = list(truth.settings).index(shift[1])
    gone = (arrays["vector_kind"] == "resampled") & (arrays["vector_setting"] == shift[0])
    arrays["planned"][e, gone] = 0
    for name in ("propensity", "answer_logit", "logsumexp", "input_projection", "input_difference_cosine"):
        arrays[name][e, gone] = np.nan
    units[dataset] = UnitData(arrays, units[dataset].attrs)
    return open_cache(written(tmp_path, units))


def test_one_dataset_without_refits_takes_vector_error_from_itself_alone(tmp_path):
    study = without_refits(tmp_path, "sim-01", ("base", "user_neg"))
    assert not study.has_refits(["base->user_neg"])
    found = study.generalization(["base->user_neg"], **FAST)
    assert found.gaps.includes_vector_error[0, :, 0].tolist() == [True, False, True]
    assert found.settings.includes_vector_error[:, 0, 0].all()
    assert found.settings.includes_vector_error[:, 0, 1].tolist() == [True, False, True]
    assert not found.correlations.includes_vector_error.any()
    text = "sim-01: intervals of base->user_neg are about these very vectors: no refits were measured there"
    assert text in found.warnings
    table = study.steerability("base->user_neg")
    assert "sim-01" not in table.vector_error
    frame = table.to_frame()
    assert set(frame.query("includes_vector_error")["name"]) == {"mean, vector error included"}
    assert not frame.query("name == 'mean'")["includes_vector_error"].any()
    assert "includes_vector_error says so" in " ".join(table.assumptions)
    said = "over datasets, the vector's own error is in the standard errors of 2 of 3 datasets, not in that of sim-01"
    assert any(said in text for text in table.over_datasets.warnings)
    assert any(said in text for text in table.warnings)


def test_refits_are_matched_by_their_replicate(tmp_path):
    truth = SimulationTruth(datasets=1, n_inputs=6, n_pairs=6, n_resampled=4, vector_sd=0.3)
    data, _ = simulate_unit(truth, "sim-00")
    arrays = dict(data.arrays) | {"vector_replicate": data.arrays["vector_replicate"].copy()}
    of_sys = (arrays["vector_kind"] == "resampled") & (arrays["vector_setting"] == "sys_pos")
    arrays["vector_replicate"][of_sys] += 1  # 1-4, where base has 0-3
    study = open_cache(written(tmp_path / "some", {"sim-00": UnitData(arrays, data.attrs)}))
    grid, unit = study.grid(["base->base", "sys_pos->user_neg"], refits=True), study.unit("sim-00")
    i, j = grid.place(("sys_pos", "user_neg"))
    np.testing.assert_array_equal(
        grid.refits["sim-00"][:, i, j], unit.control_slopes("resampled", "sys_pos->user_neg")[:3]
    )
    np.testing.assert_array_equal(grid.refits["sim-00"][:, 0, 0], unit.control_slopes("resampled", "base->base")[1:])
    arrays["vector_replicate"][of_sys] += 10
    study = open_cache(written(tmp_path / "none", {"sim-00": UnitData(arrays, data.attrs)}))
    with pytest.raises(CacheError, match="share no two replicates"):
        study.grid(refits=True)


def test_correlations_ratios_and_settings_follow_from_the_true_means(study, simulated):
    found = study.generalization(**FAST)
    expected = stats.spearmanr(simulated.mean_slopes(), simulated.mean_slopes("base", "user_neg")).statistic
    assert found.correlations.row("base->base vs base->user_neg")["estimate"] == pytest.approx(expected)
    assert found.correlations.includes_vector_error.all()
    assert not found.ratios.includes_vector_error.any()
    refitted = found.settings.to_frame().query("includes_vector_error")
    assert set(zip(refitted["train"], refitted["evaluate"])) == {
        ("base", "base"),
        ("base", "user_neg"),
        ("base", "user_pos"),
        ("sys_pos", "user_neg"),
        ("sys_neg", "user_pos"),
    }
    assert any(
        text.startswith("only intervals of base->base, base->user_pos, base->user_neg")
        for text in found.settings.warnings
    )
    unit = simulated.units["sim-07"]
    ratio = unit.mean_slope("base", "user_neg") / unit.mean_slope("user_neg", "user_neg")
    assert found.ratios.estimate[7, 0] == pytest.approx(ratio, abs=1e-4)
    cell = found.settings.to_frame().query("dataset == 'sim-07' and train == 'mean' and evaluate == 'user_pos'").iloc[0]
    assert cell["mean"] == pytest.approx(unit.mean_slope("mean", "user_pos"), abs=1e-5)
    assert cell["unsteered_mean"] == pytest.approx(unit.intercept[3][unit.test].mean(), abs=1e-5)
    assert found.variances.variance_id[7] == pytest.approx(unit.slope[0, 0][unit.test].var(ddof=1), abs=1e-4)


def test_bias_is_recovered_with_its_interval(study):
    table = study.spurious_factors(n_resamples=100)
    pooled = table.over_datasets.to_frame().set_index(["response", "term"])
    for term, truth in (
        (("slope", "pos_is_a"), 0.8),
        (("slope", "pos_is_yes"), -0.3),
        (("unsteered", "pos_is_a"), 1.0),
    ):
        assert pooled.loc[term, "ci_low"] < truth < pooled.loc[term, "ci_high"]
    heights = [table[name].term("Intercept", "unsteered")["estimate"] for name in study.datasets]
    assert np.mean(heights) == pytest.approx(0.0, abs=0.4), "the base setting's, not the -2 of user_neg"
    own = table["sim-02"].term("pos_is_a")
    assert abs(own["estimate"] - 0.8) < 4 * own["se"]
    shares = table.explained_frame().query("split == 'shapley_adjusted_r2' and component == 'pos_is_a'")
    assert shares["share"].median() == pytest.approx(0.16 / (0.16 + 0.0225 + 0.36), abs=0.15)
    assert set(table.cells_frame()["pos_is_a"]) == {"A", "B"}
    crossed = study.spurious_factors(factors=("pos_is_a", "pos_is_yes", "length_difference"), interactions=True, **FAST)
    assert {"pos_is_a:pos_is_yes", "length_difference"} <= set(crossed.to_frame()["term"])
    with pytest.raises(InputError, match="factor 'colour' is not known"):
        study.spurious_factors(factors=("colour",))


def test_nulls_stay_apart_and_say_when_they_cannot_resolve(study):
    found = study.nulls()
    assert (found.random.kind, found.shuffled.kind) == ("random", "shuffled")
    assert set(found.random.decision) == {"cannot resolve"}
    assert found.random.n_null.tolist() == [6] * 10
    for table in (found.random, found.shuffled):
        own = study.unit("sim-03").control_slopes(table.kind, "base->base").mean(axis=1)
        assert table.null_abs_quantile[3] == pytest.approx(np.quantile(np.abs(own), 0.95))
    strong = open_cache(study.path, datasets=["sim-09"]).nulls(alpha=0.2)
    assert strong.random.decision == ("differs from the null",)


def test_the_debiased_vector_has_lost_the_bias_and_not_the_effect(study):
    found = study.debiased()
    effects = found.effects.query("term == 'pos_is_a'").groupby("vector")["estimate"].mean()
    assert effects["own"] == pytest.approx(0.8, abs=0.2)
    assert effects["debiased"] == pytest.approx(0.0, abs=0.2)
    assert found.to_frame()["estimate"].abs().max() < 0.1


def test_reliability_takes_its_noise_from_refits(study):
    found = study.reliability()
    noise = np.mean([found[name].sd_noise for name in found.datasets])
    assert noise == pytest.approx(0.1, rel=0.1)


def test_the_corrected_share_is_below_the_raw_one_where_noise_makes_inputs_negative(tmp_path):
    noisy = cache_of(tmp_path, datasets=1, mean_steerability=[1.0], input_sd=1.0, vector_input_sd=1.0, n_resampled=10,
                     n_inputs=2500, logits=False, settings=('base',))  # fmt: skip
    study = open_cache(noisy.path)
    corrected = study.corrected_anti_steerable(n_resamples=20)["sim-00"]
    raw = study.steerability()["sim-00"]["negative"]
    assert raw.estimate == pytest.approx(stats.norm.cdf(-1 / np.sqrt(2)), abs=0.03)
    assert corrected.estimate == pytest.approx(stats.norm.cdf(-1), abs=0.03)


def test_a_mixed_model_over_datasets_finds_the_biases(study):
    frame = study.curves_frame("base->user_neg")
    assert len(frame) == 10 * 40 * 7
    assert set(frame["pos_is_a"]) == {-0.5, 0.5}
    row = frame[(frame["dataset"] == "sim-03") & (frame["lam"] == 1.0)].iloc[7]
    unit = study.unit("sim-03")
    assert row["y"] == unit.propensity[4, 0, 7, 5]
    assert (row["input"], row["question"]) == (unit.inputs[7], unit.question[7])
    fit = study.fit_mixed("y ~ lam * (pos_is_a + pos_is_yes) + (1 + lam | dataset:input)").to_frame().set_index("term")
    for term, truth in (("lam:pos_is_a", 0.8), ("lam:pos_is_yes", -0.3), ("pos_is_a", 1.0)):
        assert abs(fit.loc[term, "estimate"] - truth) < 4 * fit.loc[term, "se"]


def test_agreement_of_two_models_is_over_the_datasets_and_shifts_they_share(study, simulated, simulated_other):
    found = study.cross_model(simulated_other.path, **FAST)
    assert found.n == 8
    assert set(found.comparison) == {"base->base", "base->user_neg", "base->user_pos", "sys_pos->user_neg"}
    means = [[d.units[name].mean_slope() for name in found.datasets] for d in (simulated, simulated_other)]
    assert found.row("base->base")["estimate"] == pytest.approx(stats.spearmanr(*means).statistic)
    said = " ".join(found.warnings)
    assert "sys_neg->user_pos" in said
    assert "sim-00, sim-01" in said
    assert "sim-10" in said
    with pytest.raises(CacheError, match="sys_neg->user_pos is not in this cache: built without"):
        study.cross_model(simulated_other.path, ["sys_neg->user_pos"])


def test_one_model_agrees_with_itself(study):
    assert study.cross_model(study, **FAST).estimate == pytest.approx(1.0)


def test_answer_mass_flags_the_dataset_that_loses_it(tmp_path, study):
    assert not study.answer_mass().collapsed.any()
    weak = open_cache(cache_of(tmp_path, mass_decay=3.0).path)
    found = weak.answer_mass()
    assert found.collapsed[:, [0, -1]].all()
    assert not found.collapsed[:, 3].any()
    assert len(found.warnings) == 2


def test_cosines_between_settings_and_with_refits(study):
    found = study.vector_cosines()
    at = {name: k for k, name in enumerate(found.vectors)}
    assert np.median(found.cosine[:, at["base"], at["user_neg"]]) == pytest.approx(0.6, abs=0.1)
    assert np.diagonal(found.cosine, axis1=1, axis2=2) == pytest.approx(1.0)
    unit = study.unit("sim-00").unit
    rows = unit.read("direction", vector=["base", *study.unit("sim-00").controls("resampled")])[:, 0].astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found.stability[0, at["base"]], np.quantile(rows[1:] @ rows[0], (0.025, 0.5, 0.975)))
    assert np.isnan(found.stability[:, at["user_pos"]]).all(), (
        "the simulation refits vectors of the paper's shifts only"
    )
    assert len(found.to_frame()) == 10 * 15


def test_linearity_and_ranges_tell_straight_from_bent(tmp_path, study):
    bent = open_cache(cache_of(tmp_path, curvature=0.4, curvature_sd=0.1, wiggle_sd=0.05, n_inputs=30).path)
    assert (bent.linearity().to_frame()["p_value"] < 1e-3).all()
    straight = study.linearity()
    assert (straight.to_frame()["distance"] == 0).all()  # what is left is the rounding of float32
    assert any("exactly linear, to within rounding" in text for text in straight.warnings)
    slight = open_cache(cache_of(tmp_path / "slight", curvature=1e-3, curvature_sd=1e-4, wiggle_sd=1e-4).path)
    assert (slight.linearity().to_frame()["distance"] > 1).all()
    found = study.multiplier_range().to_frame()
    whole = found[found["range"] == 1.5].set_index("dataset")
    np.testing.assert_allclose(whole["mean"], [study.slopes(n).at("base->base").mean() for n in study.datasets])
    np.testing.assert_allclose(whole["correlation_with_whole"], 1.0)
    assert (whole["share_other_sign"] == 0).all()


def test_power_knows_the_vectors_and_the_sizes(study):
    table = study.power("base->user_neg", n_inputs=[20, 400], n_datasets=[1, 40]).to_frame()
    assert table["includes_vector_error"].all()
    assert table["gap"].is_monotonic_decreasing or table.groupby("n_inputs")["gap"].min().is_monotonic_decreasing
    assert study.power().n_inputs.tolist() == [40]


def test_power_says_for_which_shifts_refits_were_measured():
    study = open_cache(steerstats.demo_cache())
    found = study.power("base->user_neg")
    assert any("measured only for base->base, not under this shift" in text for text in found.warnings)
    assert not any("no refitted vectors" in text for text in found.warnings)
    assert not found.includes_vector_error
    assert np.isnan(found.n_pairs).all()
    alone = open_cache(study.path, datasets=study.datasets[:1])
    assert alone.power("base->user_neg").about == ("this dataset",)
    with pytest.raises(CannotEstimate, match="between datasets is unknown"):
        alone.power("base->user_neg", n_datasets=[1, 10])


def test_predictors_find_what_was_put_there(study, simulated):
    found = study.predictors(**FAST, n_permutations=50)
    rho = dict(zip(found.over_datasets.predictors, found.over_datasets.rho))
    assert rho["d_prime"] > 0.5
    truth = [unit.dprime for unit in simulated.units.values()]
    separation = found.to_frame().query("name == 'd_prime'")["estimate"]
    assert stats.pearsonr(truth, separation).statistic > 0.9
    within = dict(zip(found.within_datasets.predictors, found.within_datasets.rho))
    assert within["projection"] > 0.2
    assert found.ridge_inputs.n == 400


def test_figure_seven_is_there_without_self_pairs(study):
    found = study.propensity_shift(n_resamples=100)
    assert "without self-pairs" in found.definition
    assert found.points()["dataset"].nunique() == 10


def test_a_seed_gives_the_same_numbers_again_and_another_seed_others(study):
    first, again, other = (study.generalization(seed=seed, **FAST) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first.to_frame(), again.to_frame())
    pd.testing.assert_frame_equal(first.correlations.to_frame(), again.correlations.to_frame())
    assert not np.array_equal(first.decomposition.ci_low, other.decomposition.ci_low)


def test_a_dataset_has_the_same_interval_whatever_stands_beside_it(study):
    whole = study.generalization(**FAST).decomposition.to_frame().set_index(["dataset", "component", "shift"])
    few = open_cache(study.path, datasets=["sim-07", "sim-02"]).generalization(**FAST).decomposition.to_frame()
    few = few.set_index(["dataset", "component", "shift"])
    assert few.index.get_level_values(0).unique().tolist() == ["sim-07", "sim-02"]
    for column in ("estimate", "ci_low", "ci_high"):
        np.testing.assert_array_equal(few[column], whole.loc[few.index, column])


def test_named_streams_differ_by_name_purpose_seed_and_round():
    def draw(seed, purpose, names, which, rounds=1):
        rng = NamedStreams(seed, purpose, names)
        for _ in range(rounds):
            children = rng.spawn(len(names))
        return children[which].random()

    reference = draw(0, "gap", ["a", "b"], 1)
    assert reference == draw(0, "gap", ["b", "c", "a"], 0)
    others = [
        draw(0, "gap", ["a", "b"], 0),
        draw(1, "gap", ["b"], 0),
        draw(0, "x", ["b"], 0),
        draw(0, "gap", ["b"], 0, 2),
    ]
    assert len({reference, *others}) == 5
    with pytest.raises(ValueError, match="2 are named"):
        NamedStreams(0, "gap", ["a", "b"]).spawn(3)


def test_a_packed_cache_gives_the_same_study(study, packed):
    other = open_cache(packed)
    pd.testing.assert_frame_equal(study.steerability().to_frame(), other.steerability().to_frame())
    assert (other.kind, other.model, other.spec["layer"]) == ("simulated", "a", 13)
    assert other.category == study.category


def test_a_missing_setting_is_named_with_what_is_there(simulated_other):
    study = open_cache(simulated_other.path)
    with pytest.raises(CacheError, match=r"sys_neg->user_pos .*built without sys_neg; it has .*sys_pos, user_pos"):
        study.generalization(["sys_neg->user_pos"])
    found = study.generalization(**FAST)
    assert found.gaps.shifts == ("base->user_neg", "base->user_pos", "sys_pos->user_neg")
    assert "left out: sys_neg->user_pos" in found.warnings[0]
    assert not found.gaps.includes_vector_error.any()
    assert found.gaps is found.decomposition
    with pytest.raises(CacheError, match="no random or shuffled"):
        study.nulls()
    for question in (study.debiased, study.reliability):
        with pytest.raises(CacheError, match="its vectors are 4 trained, 1 mean"):
            question()
    assert not study.power().includes_vector_error


def test_a_cache_without_base_names_what_it_has(tmp_path):
    study = open_cache(cache_of(tmp_path, settings=("sys_pos", "user_neg")).path)
    unit = study.unit("sim-00")
    with pytest.raises(CacheError, match=r"base->base is not in this cache; it has the settings sys_pos, user_neg"):
        unit.place("base->base")
    with pytest.raises(CacheError, match=r"sys_pos->base is not in this cache"):
        unit.place("sys_pos->base")
    with pytest.raises(CacheError, match="no random vectors of base evaluated in base"):
        unit.control_slopes("random", "base->base")
    questions = ["steerability", "spurious_factors", "generalization", "predictors", "nulls", "debiased", "power"]
    questions += ["reliability", "corrected_anti_steerable", "answer_mass", "linearity", "multiplier_range"]
    for name in (*questions, "curves_frame"):
        with pytest.raises(CacheError, match="built without base; it has the settings sys_pos, user_neg"):
            getattr(study, name)()


def test_a_cache_without_any_shift_of_the_paper_says_so(tmp_path):
    study = open_cache(cache_of(tmp_path, settings=("base", "sys_pos")).path)
    with pytest.raises(CacheError, match=r"none of base->user_neg.*settings base, sys_pos"):
        study.generalization()
    assert study.generalization(["base->sys_pos"], **FAST).gaps.estimate.shape == (3, 2, 1)


def test_factors_are_those_of_the_test_inputs_with_undefined_ones_missing(tmp_path):
    path = cache_of(tmp_path, datasets=1, n_inputs=20, n_val=4, yes_defined=0.5).path
    unit = open_cache(path).unit("sim-00")
    found = unit.factors(("pos_is_yes", "length_difference", "prompt_tokens"), "user_pos")
    flags = unit.unit.read("input_pos_is_yes")[unit.kept]
    np.testing.assert_array_equal(np.isnan(found["pos_is_yes"]), flags == -1)
    np.testing.assert_array_equal(found["pos_is_yes"][flags >= 0], flags[flags >= 0])
    positive, negative = (unit.unit.read(f"input_len_{side}")[unit.kept] for side in ("positive", "negative"))
    np.testing.assert_array_equal(found["length_difference"], positive - negative)
    np.testing.assert_array_equal(found["prompt_tokens"], unit.unit.read("input_prompt_tokens")[3][unit.kept])


def test_unplanned_cells_are_not_there(tmp_path):
    truth = SimulationTruth(datasets=1, n_inputs=5, n_pairs=6)
    data, unit = simulate_unit(truth, "sim-00")
    arrays = dict(data.arrays)
    arrays["planned"] = arrays["planned"].copy()
    arrays["planned"][4, :2] = 0
    for name in ("propensity", "answer_logit", "logsumexp", "input_projection", "input_difference_cosine"):
        arrays[name] = arrays[name].copy()
        arrays[name][4, :2] = np.nan
    study = open_cache(written(tmp_path, {"sim-00": UnitData(arrays, data.attrs)}))
    with pytest.raises(CacheError, match="sys_pos->user_neg is not in this cache: dataset sim-00 was evaluated in"):
        study.steerability("sys_pos->user_neg")
    assert ("sys_pos", "user_neg") not in study.shifts()
    assert study.slopes("sim-00").to_frame().shape[0] == 28 * 5
    np.testing.assert_allclose(study.slopes("sim-00").unsteered, unit.intercept, atol=1e-5)


def written(tmp_path, units, kind="grid"):
    manifest = {"kind": kind, "spec_hash": "ab", "units": list(units), "model": "m", "spec": {}}
    root = create_cache(tmp_path / "made", manifest)
    for name, data in units.items():
        write_unit(root, name, UnitData(data.arrays, {**data.attrs, "spec_hash": "ab"}))
    return root


def test_a_sweep_wants_a_layer_and_reads_validation_inputs(tmp_path):
    data, unit = simulate_unit(SimulationTruth(datasets=1, n_inputs=6, n_pairs=6, settings=("base",)), "sim-00")
    arrays = dict(data.arrays) | {"input_split": np.array(["val"] * 6, dtype=object)}
    for name, array in data.arrays.items():
        if "vector" in (steerstats.cache.BY_NAME[name].dims if name != "vector" else ()):
            axis = steerstats.cache.BY_NAME[name].dims.index("vector")
            arrays[name] = np.concatenate([array, array], axis=axis)
    arrays["vector"] = np.array(["base@1", "mean@1", "base@2", "mean@2"], dtype=object)
    arrays["vector_layer"] = np.array([[1], [1], [2], [2]], dtype=np.int32)
    arrays["propensity"] = arrays["propensity"].copy()
    arrays["propensity"][:, 2:] *= 2
    arrays = {name: array for name, array in arrays.items() if name not in ("answer_logit", "logsumexp", "answer")}
    for name in ("crossfit_projection", "activation"):
        arrays.pop(name, None)
    path = written(tmp_path, {"sim-00": UnitData(arrays, data.attrs)}, kind="sweep")
    with pytest.raises(CacheError, match=r"several vectors \(base@1, base@2\).*layer, one of 1, 2"):
        open_cache(path).steerability()
    second = open_cache(path, layer=2).steerability()
    assert second["sim-00"]["mean"].estimate == pytest.approx(2 * unit.mean_slope(), abs=1e-5)
    with pytest.raises(CacheError, match="layer 7 is not in this cache; it has 1, 2"):
        open_cache(path, layer=7).steerability()


def test_damage_is_named_with_its_coordinates(tmp_path):
    path = cache_of(tmp_path, datasets=1).path
    with h5py.File(path / "units" / "sim-00.h5", "r+") as file:
        place = int(np.flatnonzero(file["input_split"].asstr()[:] == "test")[2])
        file["propensity"][4, 1, 6, place] = np.nan
        name = file["input"].asstr()[place]
    with pytest.raises(CacheError, match=rf"user_neg.*sys_pos.*{name}.*multiplier 1\.5"):
        open_cache(path).steerability()


def test_unfinished_builds_are_analysed_with_a_warning(tmp_path):
    truth = SimulationTruth(datasets=2, n_inputs=10, n_pairs=6)
    path = simulate_cache(tmp_path / "half", truth, unfinished=["sim-01"]).path
    study = open_cache(path)
    assert (study.datasets, study.missing) == (("sim-00",), ("sim-01",))
    assert "sim-01" in study.steerability().warnings[0]
    with pytest.raises(CacheError, match="'sim-01' is not finished"):
        open_cache(path, datasets=["sim-01"])
    shutil.rmtree(path / "units")
    with pytest.raises(CacheError, match="no finished unit to analyse"):
        open_cache(path)


def test_one_dataset_with_few_inputs_has_answers_or_reasons(tmp_path):
    study = open_cache(cache_of(tmp_path, datasets=1, n_inputs=2).path)
    found = study.generalization(**FAST)
    assert found.overall is None
    assert np.isnan(found.correlations.ci_low).all()
    assert any("1 dataset: fewer than 8" in text for text in found.warnings)
    assert study.steerability().over_datasets is None
    with pytest.raises(CannotEstimate, match="2 inputs; a bias needs at least three"):
        study.spurious_factors()
    with pytest.raises(CannotEstimate, match="sim-00"):
        study.linearity()


def test_one_input_has_a_slope_and_no_interval(tmp_path):
    study = open_cache(cache_of(tmp_path, datasets=1, n_inputs=1).path)
    mean = study.steerability()["sim-00"]["mean"]
    assert np.isfinite(mean.estimate)
    assert np.isnan(mean.ci_low)
    assert np.isnan(study.generalization(**FAST).gaps.ci_low).all()
    assert np.isfinite(study.answer_mass().mean).all()
    assert len(study.multiplier_range().to_frame()) == 3


def test_a_cache_without_factors_or_activations_still_steers(tmp_path):
    data, unit = simulate_unit(SimulationTruth(datasets=1, n_inputs=8, n_pairs=6), "sim-00")
    kept = ("input", "setting_eval", "vector", "multiplier", "input_question", "vector_kind", "vector_setting",
            "vector_replicate", "propensity", "planned")  # fmt: skip
    bare = UnitData({name: data.arrays[name] for name in kept}, data.attrs)
    study = open_cache(written(tmp_path, {"sim-00": bare}, kind="import"))
    assert study.steerability()["sim-00"]["mean"].estimate == pytest.approx(unit.mean_slope(), abs=1e-5)
    with pytest.raises(CannotEstimate, match="records none of pos_is_a, pos_is_yes"):
        study.spurious_factors()
    with pytest.raises(CannotEstimate, match="holds no /crossfit_projection"):
        study.predictors()
    for question in (study.vector_cosines, study.answer_mass):
        with pytest.raises(CacheError, match="is not in this cache; it has"):
            question()
    assert study.category is None


@pytest.mark.parametrize(
    ("path", "error"), [("trie", 6.0), ("plain", 3.0)], ids=["the trie's against plain", "the plain path's own noise"]
)
def test_engine_error_makes_a_class_of_its_own(tmp_path, path, error):
    data, _ = simulate_unit(SimulationTruth(datasets=1, n_inputs=8, n_pairs=6, mean_steerability=[2.0]), "sim-00")
    manifest = {"kind": "grid", "spec_hash": "ab", "units": ["sim-00"], "model": {"id": "m/x"}}
    root = create_cache(tmp_path / "c", manifest)
    parity = {"path": path, "difference": 3.5, "plain_difference": 1.75, "tolerance": 8.0}
    write_unit(root, "sim-00", UnitData(data.arrays, {**data.attrs, "spec_hash": "ab"}), {"parity": parity})
    study = open_cache(root)
    assert study.model == "m/x"
    # A propensity off by 2 * 3.5 nats: 7 * sum|lambda| / sum lambda^2 = 7 * 6 / 7
    assert study.unit("sim-00").slope_error == pytest.approx(error)
    inside = np.abs(study.slopes("sim-00").at("base->base")) <= error
    assert study.steerability()["sim-00"]["within_error"].estimate == inside.mean() > 0


def test_unknown_datasets_and_shifts_are_refused(study):
    with pytest.raises(CacheError, match="dataset 'nothing' is not in this study; it has sim-00"):
        study.slopes("nothing")
    with pytest.raises(CacheError, match="'nothing' is not in this cache"):
        open_cache(study.path, datasets=["nothing"])
    with pytest.raises(InputError, match="train->eval"):
        study.steerability("base")


def test_every_public_method_shows_how_it_is_called():
    methods = [getattr(Study, name) for name in dir(Study) if not name.startswith("_")]
    methods = [method for method in methods if callable(method)]
    assert len(methods) >= 20
    assert [method.__name__ for method in methods if ">>>" not in (method.__doc__ or "")] == []


def test_the_demo_cache_is_there_and_its_absence_is_said(monkeypatch, tmp_path):
    assert len(open_cache(steerstats.demo_cache()).datasets) >= 8
    monkeypatch.setattr(study_base.resources, "files", lambda package: tmp_path)
    with pytest.raises(CacheError, match=r"cache\.h5 is missing from this installation"):
        steerstats.demo_cache()


def test_importing_costs_nothing_and_every_public_name_is_there():
    code = "\n".join([
        "import sys, steerstats",
        "heavy = {'numpy', 'pandas', 'torch', 'h5py', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)",
        "assert not heavy, heavy",
        "assert [name for name in steerstats.__all__ if not hasattr(steerstats, name)] == []",
        "assert set(steerstats.__all__) <= set(dir(steerstats))",
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules",
    ])  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        steerstats.nothing  # noqa: B018
