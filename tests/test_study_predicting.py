"""What a study says of predictors: the headline beside published values, few datasets, undefined factors."""

from __future__ import annotations

import numpy as np
import pytest
from study_caches import written

import steerstats
from steerstats.cache import UnitData
from steerstats.simulate import SimulationTruth, simulate_cache, simulate_unit
from steerstats.study import predicting

FAST = {"n_resamples": 50, "n_permutations": 20}


def study_of(tmp_path, **changes):
    return steerstats.open_cache(simulate_cache(tmp_path / "c", SimulationTruth(n_pairs=10, **changes)).path)


@pytest.mark.parametrize("datasets", [1, 2, 3, 5])
def test_few_datasets_give_the_number_with_a_warning(tmp_path, datasets):
    found = study_of(tmp_path, datasets=datasets, n_inputs=12).predictors(**FAST)
    assert np.isfinite(found.over_datasets.rho).all() == (datasets > 1)
    assert np.isnan(found.over_datasets.ci_low).all()
    assert np.isfinite(found.over_datasets.p).all() == (datasets > 3)
    words = "no correlation" if datasets == 1 else f"{datasets} datasets: fewer than 8 say little about a correlation"
    assert any(words in text for text in found.warnings)
    assert (found.ridge_datasets is None) == (datasets < 3)
    assert ("Held-out" in found.summary()) == (datasets >= 3)


def test_the_headline_stands_beside_what_others_report():
    found = steerstats.open_cache(steerstats.demo_cache()).predictors(**FAST)
    head = found.headline().set_index("quantity")
    assert head.loc["Spearman, mean_cosine", "Braun et al."] == "0.76"
    assert head.loc["Spearman, d_prime", "Braun et al."] == "0.71"
    assert (head.loc[["Spearman, mean_cosine", "Spearman, d_prime"], "Bas & Novak"] == "no relation").all()
    assert head.loc["held-out R² over datasets", "estimate"] == found.ridge_datasets.r2
    assert head.loc["held-out R² over inputs, inside datasets", "p"] == found.ridge_inputs.p_within
    summary = found.summary()
    for text in (" ".join(summary.split()), found._repr_html_()):
        for part in (
            "d_prime",
            "Held-out R²",
            "2505.22637",
            "2511.18284",
            "not from the papers",
            "no relation",
            "0.76",
        ):
            assert part in text
        assert text.index("d_prime") < text.index(found.datasets["dataset"][0]), "the answer comes before the datasets"
    assert max(map(len, summary.splitlines())) <= 80
    rho = found.over_datasets.rho[found.over_datasets.predictors.index("d_prime")]
    (line,) = [line for line in summary.splitlines() if line.startswith("  d_prime")]
    assert f"{rho:.2f} [" in line
    assert "0.71" in line


def test_candidates_are_those_of_the_test_inputs_in_the_prompt_that_is_asked_about(study, monkeypatch):
    asked, known = {}, predicting.dataset_predictors

    def kept(*args, **options):
        asked[len(asked)] = args[0], options["questions"]
        return known(*args, **options)

    monkeypatch.setattr(predicting, "dataset_predictors", kept)
    found = study.predictors("base->user_neg", **FAST)
    unit, rows = study.unit("sim-03"), found.inputs[found.inputs["dataset"] == "sim-03"]
    own, e = unit.slopes, study.settings.index("user_neg")
    cell = {"setting_eval": "user_neg", "vector": unit.vectors["base"]}
    for column, values in (
        ("slope", own.at("base->user_neg")),
        ("unsteered", own.unsteered[e]),
        ("projection", unit.unit.read("input_projection", **cell)[unit.kept]),
    ):
        np.testing.assert_allclose(rows[column], values)
    slopes = [study.slopes(name).at("base->user_neg").mean() for name in found.datasets["dataset"]]
    np.testing.assert_allclose(found.datasets["slope"], slopes)
    np.testing.assert_array_equal(asked[3][1], unit.unit.read("pair_question"))
    norms = unit.unit.read("vector_raw_norm", vector=unit.vectors["base"]), unit.unit.read("activation_norm")[0]
    assert found.datasets["norm_ratio"][3] == pytest.approx(norms[0] / norms[1])
    study.predictors("sys_pos->user_neg", **FAST)
    held_out = unit.unit.read("crossfit_projection", setting_train="sys_pos")
    np.testing.assert_allclose(asked[len(study.datasets) + 3][0], held_out)
    head = found.headline().set_index("quantity")
    assert head.loc["held-out R² over inputs", "n"] == 10, "datasets, over which it is held out"
    np.testing.assert_array_equal(head["p"].to_numpy()[: len(found.over_datasets.p)], found.over_datasets.p_family)
    assert (found.over_datasets.p < found.over_datasets.p_family).any()


def test_undefined_factors_have_a_column_of_their_own_and_are_named(tmp_path):
    study = study_of(tmp_path, datasets=6, n_inputs=20, yes_defined=0.7)
    found = study.predictors(**FAST)
    undefined = int(found.inputs["pos_is_yes"].isna().sum())
    assert 20 < undefined < 50
    assert "pos_is_yes_defined" in found.ridge_inputs.predictors
    assert found.within_datasets.predictors == tuple(
        name for name in found.ridge_inputs.predictors if not name.endswith("_defined")
    )
    told = [text for text in found.warnings if text.startswith(f"pos_is_yes is not defined for {undefined} of 120")]
    assert len(told) == 1
    filled, _ = predicting._defined(found.inputs, ["pos_is_yes"], [])
    holes = found.inputs["pos_is_yes"].isna()
    assert set(filled["pos_is_yes"][holes]) == {found.inputs["pos_is_yes"].mean()}
    assert filled["pos_is_yes_defined"].tolist() == (~holes).tolist()
    whole = study_of(tmp_path / "whole", datasets=6, n_inputs=20, yes_defined=1.0).predictors(**FAST)
    assert not any(name.endswith("_defined") for name in whole.ridge_inputs.predictors)


def test_categories_are_counted_on_request_and_mentioned_otherwise(tmp_path):
    study = study_of(tmp_path, datasets=12, n_inputs=12)
    assert len(set(study.category.values())) == 4
    plain, by = study.predictors(**FAST), study.predictors(by_category=True, **FAST)
    assert any(text.startswith("the datasets belong to 4 categories") for text in plain.warnings)
    assert not any(text.startswith("the datasets belong to") for text in by.warnings)
    assert "4 categories: fewer than 8 say little about a correlation, no interval is given" in by.warnings
    assert "permutations of whole categories" in by.over_datasets.method
    assert "CR2 by category" in by.within_datasets.method
    assert by.assumptions[0] == "categories are independent"
    assert np.isfinite(by.over_datasets.p).all()


def test_projections_of_folds_that_lie_on_scales_of_their_own_are_warned_of(tmp_path):
    truth = SimulationTruth(n_pairs=10, datasets=["sim-0", "sim-1", "sim-2"], n_inputs=12)
    units = {f"sim-{k}": simulate_unit(truth, f"sim-{k}", seed=1)[0] for k in range(3)}
    assert not any("count from 0" in text for text in open_written(tmp_path / "new", units).predictors(**FAST).warnings)
    old = {key: value for key, value in units["sim-1"].attrs.items() if key != "crossfit_origin"}
    units["sim-1"] = UnitData(units["sim-1"].arrays, old)
    warnings = open_written(tmp_path / "old", units).predictors(**FAST).warnings
    assert any(text.startswith("held-out projections of sim-1 count from 0") for text in warnings)


def test_one_dataset_whose_grid_is_not_symmetric_costs_all_the_unsteered_candidate(tmp_path):
    truth = SimulationTruth(n_pairs=10, datasets=["sim-0", "sim-1", "sim-2"], n_inputs=12)
    units = {f"sim-{k}": simulate_unit(truth, f"sim-{k}", seed=1)[0] for k in range(3)}
    assert "unsteered" in open_written(tmp_path / "even", units).predictors(**FAST).within_datasets.predictors
    grid = np.maximum(units["sim-2"].arrays["multiplier"], 0) + units["sim-2"].arrays["multiplier"]
    units["sim-2"] = UnitData({**units["sim-2"].arrays, "multiplier": grid}, units["sim-2"].attrs)
    found = open_written(tmp_path / "odd", units).predictors(**FAST)
    assert "unsteered" not in found.within_datasets.predictors
    assert any("m(0) is refused as a predictor of slopes" in text for text in found.warnings)


def open_written(path, units):
    path.mkdir()
    return steerstats.open_cache(written(path, units))


def test_candidates_that_one_dataset_does_not_record_are_named(tmp_path, monkeypatch):
    study = study_of(tmp_path, datasets=4, n_inputs=12)
    first = study.unit(study.datasets[0])
    known, alone = type(first).factors, predicting.dataset_predictors
    asked = iter([True, *[False] * 3])

    def factors(unit, *args):
        found = known(unit, *args)
        return {name: value for name, value in found.items() if unit is not first or name != "pos_is_a"}

    def without(*args, **options):
        return alone(*args, **options | ({"unembedding_cosine": None} if next(asked) else {}))

    monkeypatch.setattr(type(first), "factors", factors)
    monkeypatch.setattr(predicting, "dataset_predictors", without)
    found = study.predictors(**FAST)
    assert "unembedding_alignment" not in found.ridge_datasets.predictors
    assert "unembedding_alignment: not recorded in every dataset, left out of ridge over datasets" in found.warnings
    assert "pos_is_a" not in found.within_datasets.predictors
    assert "pos_is_a: not recorded in every dataset, left out of all that is per input" in found.warnings
