"""What a cache lacks is named, and what is left of it still answers: settings, cells, layers, units, inputs, arrays."""

from __future__ import annotations

import shutil
from itertools import product

import h5py
import numpy as np
import pandas as pd
import pytest
from example_table import example_rows
from study_caches import FAST, cache_of, written

import steerstats
from reports.notices import notices_of
from steerstats.cache import UnitData
from steerstats.cache.table import import_table
from steerstats.errors import CacheError, CannotEstimate, InputError
from steerstats.protocol import UNNAMED
from steerstats.simulate import SimulationTruth, simulate_cache, simulate_unit
from steerstats.study import open_cache

GRID = ("propensity", "answer_logit", "logsumexp", "input_projection", "input_difference_cosine")


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
    with pytest.raises(CacheError, match=r"random or shuffled .*; build with controls\.random or"):
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
    with pytest.raises(CacheError, match="not in this cache: random vectors of base evaluated in base"):
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


def test_unplanned_cells_are_not_there(tmp_path):
    truth = SimulationTruth(datasets=1, n_inputs=5, n_pairs=6)
    data, unit = simulate_unit(truth, "sim-00")
    arrays = dict(data.arrays)
    arrays["planned"] = arrays["planned"].copy()
    arrays["planned"][4, :2] = 0
    for name in GRID:
        arrays[name] = arrays[name].copy()
        arrays[name][4, :2] = np.nan
    study = open_cache(written(tmp_path, {"sim-00": UnitData(arrays, data.attrs)}))
    with pytest.raises(CacheError, match="sys_pos->user_neg is not in this cache: dataset sim-00 was evaluated in"):
        study.steerability("sys_pos->user_neg")
    assert ("sys_pos", "user_neg") not in study.shifts()
    assert study.slopes("sim-00").to_frame().shape[0] == 28 * 5
    np.testing.assert_allclose(study.slopes("sim-00").unsteered, unit.intercept, atol=1e-5)


def test_a_vector_that_was_not_evaluated_at_home_costs_the_ratios_alone(tmp_path):
    truth = SimulationTruth(datasets=2, n_inputs=6, n_pairs=6)
    units = {name: simulate_unit(truth, name)[0] for name in truth.datasets}
    arrays = {name: array.copy() for name, array in units["sim-01"].arrays.items()}
    for name in ("planned", *GRID):
        arrays[name][4, truth.settings.index("user_neg")] = 0 if name == "planned" else np.nan
    units["sim-01"] = UnitData(arrays, units["sim-01"].attrs)
    found = open_cache(written(tmp_path, units)).generalization(**FAST)
    assert found.ratios is None
    assert np.isfinite(found.gaps.estimate[0]).all()


def test_constant_curves_are_counted_under_the_shift_that_is_asked_about(tmp_path):
    data, _ = simulate_unit(SimulationTruth(datasets=1, n_inputs=6, n_pairs=6), "sim-00")
    curves = data.arrays["propensity"].copy()
    curves[4, 0] = 1.0
    study = open_cache(written(tmp_path, {"sim-00": UnitData({**data.arrays, "propensity": curves}, data.attrs)}))
    assert any("6 of 6 curves are constant" in text for text in study.steerability("base->user_neg").warnings)
    assert not any("constant" in text for text in study.steerability().warnings)


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
    how = r"as in open_cache\(path, layer=1\); `steerstats report` takes them all"
    with pytest.raises(CacheError, match=rf"several vectors \(base@1, base@2\).*layer, one of 1, 2, {how}"):
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
    assert study.steerability().warnings[0] == "1 planned dataset is not finished: sim-01"
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
    assert sum("one dataset has no ranking" in text for text in found.warnings) == 1
    assert "Spearman" not in found.summary()
    with pytest.raises(CannotEstimate, match="share sim-00 alone: one dataset has no ranking"):
        study.cross_model(study)
    assert study.steerability().over_datasets is None
    with pytest.raises(CannotEstimate, match="2 inputs; the effect of a factor needs at least three"):
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


def test_unknown_datasets_and_shifts_are_refused(study):
    with pytest.raises(CacheError, match="dataset 'nothing' is not in this study; it has sim-00"):
        study.slopes("nothing")
    with pytest.raises(CacheError, match="'nothing' is not in this cache"):
        open_cache(study.path, datasets=["nothing"])
    with pytest.raises(InputError, match="train->eval"):
        study.steerability("base")


def test_a_level_of_one_question_costs_a_dataset_neither_its_effects_nor_its_shares(tmp_path):
    truth = SimulationTruth(datasets=2, n_inputs=30, n_pairs=6, a_slope=1.0)
    units = {name: simulate_unit(truth, name)[0] for name in ("sim-00", "sim-01")}
    yes = np.full(30, -1, dtype=np.int8)
    yes[np.flatnonzero(units["sim-00"].arrays["input_split"] == "test")[0]] = 1
    lone = UnitData({**units["sim-00"].arrays, "input_pos_is_yes": yes}, units["sim-00"].attrs)
    table = open_cache(written(tmp_path, units | {"sim-00": lone})).spurious_factors(n_resamples=50)
    assert not table.left_out
    for part in (table.results, table.explained, table.published, table.cells):
        assert set(part) == {"sim-00", "sim-01"}
    assert table.over_datasets.pooled["slope", "pos_is_a"].n == 2
    assert any("sim-00: pos_is_yes is Yes in one question alone (1 input)" in text for text in table.warnings)


@pytest.mark.parametrize(("side", "letter"), [(True, "A"), (False, "B"), (None, None)])
def test_a_behaviour_that_is_always_one_letter_is_said_to_be_the_letter_as_much(tmp_path, side, letter):
    rows = pd.DataFrame(list(example_rows()))
    if side is not None:
        rows["pos_is_a"] = side
    rows.to_csv(tmp_path / "scores.csv", index=False)
    study = open_cache(import_table(tmp_path / "scores.csv", tmp_path / "cache", model="m"))
    said = (
        f"in kindness the answer that shows the behaviour is {letter} for every input: steering towards the behaviour "
    )
    said += f"cannot be told from steering towards {letter}"
    assert (said in study.steerability().warnings) == (said + "." in notices_of(study)) == (side is not None)
    assert not any("for every input" in text for text in study.steerability().warnings if side is None)


def test_an_answer_that_is_a_word_for_some_inputs_and_no_word_for_others_is_not_said_to_be_that_word_for_all(tmp_path):
    rows = pd.DataFrame(list(example_rows()))
    inputs = rows["input"].drop_duplicates().tolist()
    rows["pos_is_yes"] = [True if name in inputs[: len(inputs) // 2] else None for name in rows["input"]]
    rows.to_csv(tmp_path / "scores.csv", index=False)
    study = open_cache(import_table(tmp_path / "scores.csv", tmp_path / "cache", model="m"))
    assert np.isnan(study.unit("kindness").factors("pos_is_yes")["pos_is_yes"]).any()
    assert not any("for every input" in text for text in study.steerability().warnings)


def test_what_a_table_lacks_is_not_advised_to_be_built(tmp_path):
    pd.DataFrame(list(example_rows())).to_csv(tmp_path / "scores.csv", index=False)
    study = open_cache(import_table(tmp_path / "scores.csv", tmp_path / "cache", model="m"))
    with pytest.raises(CacheError, match=r"evaluated in base->base; a table brings none$"):
        study.nulls()
    with pytest.raises(CacheError, match=r"in this cache for every dataset; it has the settings base$"):
        study.generalization()


def test_a_table_that_names_no_model_is_shown_as_a_study_of_one_that_is_not_recorded(tmp_path):
    pd.DataFrame(list(example_rows())).to_csv(tmp_path / "scores.csv", index=False)
    study = open_cache(import_table(tmp_path / "scores.csv", tmp_path / "cache", model=UNNAMED))
    assert repr(study).startswith("<Study of a model that is not recorded: 1 dataset, ")


def test_two_caches_without_a_dataset_in_common_are_told_what_each_has(tmp_path):
    for name, dataset in (("one", "kindness"), ("two", "warmth")):
        pd.DataFrame(list(example_rows())).assign(dataset=dataset).to_csv(tmp_path / f"{name}.csv", index=False)
        import_table(tmp_path / f"{name}.csv", tmp_path / name, model=name)
    with pytest.raises(InputError, match=r"share no dataset: the first has kindness, the second warmth$"):
        open_cache(tmp_path / "one").cross_model(open_cache(tmp_path / "two"))


def test_what_a_dataset_of_one_cache_alone_lacks_costs_two_caches_no_shift(tmp_path):
    rng, both = np.random.default_rng(0), ["base->base", "base->user_neg"]
    names = ["dataset", "input", "setting_train", "setting_eval", "multiplier", "propensity"]
    for model, there in (("one", {"d0": both, "d1": both, "d2": both, "alone": both[:1]}), ("two", {})):
        rows = [
            (name, f"i{i}", *shift.split("->"), multiplier, rng.normal() * multiplier)
            for name, shifts in (there or dict.fromkeys(["d2", "d1", "d0"], both)).items()
            for i, shift, multiplier in product(range(4), shifts, (-1.0, 0.0, 1.0))
        ]
        pd.DataFrame(rows, columns=names).to_csv(tmp_path / f"{model}.csv", index=False)
        import_table(tmp_path / f"{model}.csv", tmp_path / model, model=model)
    one, two = (open_cache(tmp_path / model) for model in ("one", "two"))
    for first, second in ((one, two), (two, one)):
        found = first.cross_model(second, n_resamples=50)
        assert set(found.comparison) == set(both)
        assert set(found.datasets) == {"d0", "d1", "d2"}
        assert "only in one, and left out: alone" in found.warnings
        assert set(first.cross_model(second, both[1:], n_resamples=50).comparison) == {"base->user_neg"}
