"""Every question of a study is answered from a cache with a known truth, the same whatever stands beside it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from study_caches import FAST, cache_of

import steerstats
from steerstats.errors import Absent, CacheError, InputError
from steerstats.meta import mean_over_datasets
from steerstats.resampling.seeds import NamedStreams
from steerstats.study import Study, base, open_cache


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


def test_slopes_are_labelled_and_validation_inputs_are_out(study, simulated):
    unit = simulated.units["sim-03"]
    slopes = study.slopes("sim-03")
    assert len(slopes.inputs) == 40
    np.testing.assert_allclose(slopes.at("sys_pos->user_neg"), unit.slope[4, 1][unit.test], atol=1e-5)
    np.testing.assert_allclose(slopes.unsteered, unit.intercept[:, unit.test], atol=1e-5)
    assert slopes.to_frame().shape[0] == 5 * 6 * 40
    for asked in (slopes.at, study.unit("sim-03").place, study.require):
        with pytest.raises(Absent, match="base->nowhere is not in this cache"):
            asked("base->nowhere")


def test_slopes_are_read_once_and_results_are_read_only(study):
    assert study.slopes("sim-00") is study.slopes("sim-00")
    with pytest.raises(ValueError, match="read-only"):
        study.slopes("sim-00").slope[0, 0, 0] = 1.0


def test_gaps_and_their_parts_are_those_of_the_draw(study, simulated):
    found = study.generalization(**FAST)
    assert found.gaps.shifts == ("base->user_neg", "base->user_pos", "sys_pos->user_neg", "sys_neg->user_pos")
    parts = found.gaps.estimate
    for d, name in enumerate(found.gaps.datasets):
        unit = simulated.units[name]
        for k, shift in enumerate(found.gaps.shifts):
            train, evaluation = shift.split("->")
            assert found.gaps.estimate[0, d, k] == pytest.approx(unit.gap(train, evaluation), abs=1e-5)
            assert parts[1, d, k] == pytest.approx(unit.gap(evaluation, evaluation), abs=1e-5)
    np.testing.assert_allclose(parts[0], parts[1] + parts[2], atol=1e-9)
    assert found.gaps.includes_vector_error[0].all()
    assert not found.gaps.includes_vector_error[1:].any(), "the simulation refits no vector in its own setting"
    assert "transfer: intervals hold for these very vectors: eval->eval has no refits" in found.warnings
    frame = found.to_frame()
    assert frame.groupby("component")["includes_vector_error"].unique().map(list).to_dict() == {
        "gap": [True], "prompt": [False], "transfer": [False]
    }  # fmt: skip
    pooled = found.overall.to_frame().query("quantity == 'random-effects mean' and component == 'gap'")
    left_out = found.overall.analyses[0].left_out
    assert set(left_out) == set(study.category.values()), "whole categories in turn"
    neg = pooled.set_index("shift").loc["base->user_neg"]
    assert neg["ci_low"] < 0.45 < neg["ci_high"], "prompt loss 0.3 and cost of transfer 0.15"


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
    shifted = study.spurious_factors("base->user_neg", factors="length_difference", **FAST)
    own, e = study.slopes("sim-02"), study.settings.index("user_neg")
    for response, values in (("slope", own.at("base->user_neg")), ("unsteered", own.unsteered[e])):
        x = study.unit("sim-02").factors("length_difference")["length_difference"]
        known = stats.linregress(x, values)
        assert shifted["sim-02"].term("length_difference", response)["estimate"] == pytest.approx(known.slope)
        assert shifted["sim-02"].term("Intercept", response)["estimate"] == pytest.approx(values.mean())
        if response == "slope":
            mixed = shifted["sim-02"].to_frame().query("model == 'mixed' and response == 'slope'").set_index("term")
            assert mixed.loc["length_difference", "estimate"] == pytest.approx(known.slope)
    crossed = study.spurious_factors(factors=("pos_is_a", "pos_is_yes", "length_difference"), interactions=True, **FAST)
    assert {"pos_is_a:pos_is_yes", "length_difference"} <= set(crossed.to_frame()["term"])
    with pytest.raises(InputError, match="factor 'colour' is not known"):
        study.spurious_factors(factors=("colour",))


def test_categories_that_not_every_dataset_has_are_none():
    def category(known: dict) -> dict | None:
        study = SimpleNamespace(reader=SimpleNamespace(manifest={"categories": known}), datasets=("a", "b"))
        return base.StudyBase.category.fget(study)

    assert category({"a": "x", "b": "y", "c": "z"}) == {"a": "x", "b": "y"}
    assert category({"a": "x"}) is None


def test_a_mixed_model_over_datasets_finds_the_biases(study):
    frame = study.curves_frame("base->user_neg")
    assert len(frame) == 10 * 40 * 7
    assert set(frame["pos_is_a"]) == {-0.5, 0.5}
    row = frame[(frame["dataset"] == "sim-03") & (frame["lam"] == 1.0)].iloc[7]
    unit = study.unit("sim-03")
    assert row["y"] == unit.propensity[4, 0, 7, 5]
    assert (row["input"], row["question"]) == (unit.inputs[7], unit.question[7])
    assert row["prompt_tokens"] == unit.factors(["prompt_tokens"], "user_neg")["prompt_tokens"][7]
    assert row["prompt_tokens"] != unit.factors(["prompt_tokens"], "base")["prompt_tokens"][7]
    fit = study.fit_mixed("y ~ lam * (pos_is_a + pos_is_yes) + (1 + lam | dataset:input)").to_frame().set_index("term")
    for term, truth in (("lam:pos_is_a", 0.8), ("lam:pos_is_yes", -0.3), ("pos_is_a", 1.0)):
        assert abs(fit.loc[term, "estimate"] - truth) < 4 * fit.loc[term, "se"]


def test_agreement_of_two_models_is_over_the_datasets_and_shifts_they_share(study, simulated, simulated_other):
    found = study.cross_model(simulated_other.path, **FAST)
    assert found.method.startswith(f"of {study.model} and "), "no capital is given to a model's id"
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
    found = study.propensity_shift()
    assert "without self-pairs" in found.definition
    assert found.points()["dataset"].nunique() == 10


def test_a_seed_gives_the_same_numbers_again_and_another_seed_others(study):
    first, again, other = (study.generalization(seed=seed, **FAST) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first.to_frame(), again.to_frame())
    pd.testing.assert_frame_equal(first.correlations.to_frame(), again.correlations.to_frame())
    assert not np.array_equal(first.gaps.ci_low, other.gaps.ci_low)


def test_a_dataset_has_the_same_interval_whatever_stands_beside_it(study):
    whole = study.generalization(**FAST).gaps.to_frame().set_index(["dataset", "component", "shift"])
    few = open_cache(study.path, datasets=["sim-07", "sim-02"]).generalization(**FAST).gaps.to_frame()
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
    assert draw(0, "gap a", ["b"], 0) != draw(0, "gap ", ["ab"], 0), "words are kept apart"
    with pytest.raises(ValueError, match="2 are named"):
        NamedStreams(0, "gap", ["a", "b"]).spawn(3)


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


def test_every_public_method_shows_how_it_is_called():
    methods = [getattr(Study, name) for name in dir(Study) if not name.startswith("_")]
    methods = [method for method in methods if callable(method)]
    assert len(methods) >= 20
    assert [method.__name__ for method in methods if ">>>" not in (method.__doc__ or "")] == []


def test_every_name_in_the_table_of_steerability_is_explained_by_its_help():
    table = open_cache(base.demo_cache()).steerability()
    names = {name.split(",")[0] for name in table.to_frame()["name"]}
    assert {name for name in names if f"`{name}`" not in type(table).to_frame.__doc__} == set()


def test_a_study_of_one_dataset_is_shown_with_one_dataset():
    assert "model: 1 dataset, settings" in repr(open_cache(base.demo_cache(), datasets=["likes-rain"]))


@pytest.mark.parametrize("layer", ["2", 2.0, True, -1])
def test_a_layer_that_is_no_whole_number_is_said_and_not_looked_for(layer):
    with pytest.raises(InputError, match=rf"layer is {layer!r}; a whole number, 0 or more, is needed"):
        open_cache(base.demo_cache(), layer=layer)


@pytest.mark.parametrize("name", ["base -> user_neg", " base->user_neg "])
def test_a_shift_may_be_written_with_spaces(name):
    study = open_cache(base.demo_cache(), datasets=["likes-rain"])
    assert study.steerability(name).shift == "base->user_neg"


def test_the_demo_cache_is_there_and_its_absence_is_said(monkeypatch, tmp_path):
    assert len(open_cache(steerstats.demo_cache()).datasets) >= 8
    monkeypatch.setattr(base.resources, "files", lambda package: tmp_path)
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
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        steerstats.nothing  # noqa: B018


def test_a_shift_back_to_the_base_prompt_has_its_mean_over_datasets():
    found = open_cache(steerstats.demo_cache()).generalization(["user_neg->base"], n_resamples=50)
    title, table = found.sections()[0]
    assert title.startswith("Mean gap over datasets")
    assert table["n"].tolist() == ["14"]
    assert any("prompt user_neg->base: no mean over datasets" in text for text in found.warnings)
