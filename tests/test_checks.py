"""The shared checks of arguments and of cached numbers: what is wrong is named, with what would be right."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

import steerstats
from steerstats import predictors
from steerstats.cache import read_finite
from steerstats.errors import CacheError, InputError, check_count, check_level
from steerstats.nulls import null_vectors_needed
from steerstats.resampling.questions import wilson_interval
from steerstats.resampling.seeds import generator
from steerstats.simulate import SimulationTruth, simulate_cache
from steerstats.steerability import (
    anti_steerable,
    linearity_test,
    mean_slope,
    median_slope,
    replicates,
    slope_spread,
)
from steerstats.sweeps import choose_layer


@pytest.mark.parametrize("level", [95, -1, 0, 1, float("nan"), "0.95", None, True, np.float64(1.5)])
def test_a_level_is_a_share(level):
    with pytest.raises(InputError, match=r"^level is .*; a share strictly between 0 and 1 is needed, such as 0\.\d+$"):
        check_level(level)


def test_a_percentage_is_told_the_share():
    with pytest.raises(InputError, match=r"such as 0\.9$"):
        check_level(90)
    with pytest.raises(InputError, match=r"such as 0\.95$"):
        check_level(2)
    assert check_level(np.float32(0.5)) == 0.5


@pytest.mark.parametrize("count", [-5, 0, 2.5, 2.0, None, "3", True])
def test_a_count_is_whole_and_large_enough(count):
    with pytest.raises(InputError, match=r"^n_resamples is .*; a whole number, 1 or more, is needed$"):
        check_count("n_resamples", count)


def test_counts_of_either_library_are_taken():
    assert check_count("n_folds", np.int64(2), at_least=2) == check_count("n_folds", 2) == 2
    with pytest.raises(InputError, match="n_folds is 1; a whole number, 2 or more"):
        check_count("n_folds", 1, at_least=2)


@pytest.fixture
def unit_and_file(tmp_path):
    path = simulate_cache(tmp_path / "c", SimulationTruth(datasets=1, n_inputs=5, n_pairs=6)).path
    return steerstats.open_cache(path).unit("sim-00").unit, path / "units" / "sim-00.h5"


def test_a_value_that_is_not_finite_is_named_with_every_label(unit_and_file):
    unit, path = unit_and_file
    settings, vectors, inputs = (list(unit.coords[axis]) for axis in ("setting_eval", "vector", "input"))
    with h5py.File(path, "r+") as file:
        file["answer_logit"][1, 0, 2, 1, 3] = np.inf
        file["answer_logit"][1, 0, 2, 1, 4] = np.nan
    where = rf"multiplier=-0.5, answer=negative, input={inputs[3]} \(and 1 more\); it should be finite"
    labelled = {"setting_eval": settings[1], "vector": vectors[0]}
    for labels in ({}, labelled, {"setting_eval": settings[:2], "vector": vectors[0]}, {"vector": [vectors[0]]}):
        with pytest.raises(
            CacheError, match=rf"/answer_logit is inf at setting_eval={settings[1]}, vector={vectors[0]}, {where}"
        ):
            read_finite(unit, "answer_logit", **labels)
    assert read_finite(unit, "answer_logit", setting_eval=settings[0]).dtype == float


def test_cells_that_were_not_planned_may_be_missing(unit_and_file):
    unit, path = unit_and_file
    with h5py.File(path, "r+") as file:
        file["planned"][1, 0] = 0
        file["logsumexp"][1, 0] = np.nan
    assert np.isnan(read_finite(unit, "logsumexp")[1, 0]).all()
    label = {"setting_eval": unit.coords["setting_eval"][1], "vector": unit.coords["vector"][0]}
    assert np.isnan(read_finite(unit, "logsumexp", **label)).all()
    with h5py.File(path, "r+") as file:
        file["logsumexp"][1, 1] = np.nan
    with pytest.raises(CacheError, match=f"/logsumexp is nan .* vector={unit.coords['vector'][1]}"):
        read_finite(unit, "logsumexp")


S = np.random.default_rng(0).normal(1, 1, 20)
REFITS = S + np.random.default_rng(1).normal(0, 0.2, (5, 20))
RNG = np.random.default_rng(2)
FRAME = pd.DataFrame({"dataset": np.repeat(list("abcd"), 5), "slope": S, "x": S[::-1]})


@pytest.mark.parametrize(
    "call",
    [
        lambda level: mean_slope(S, level=level),
        lambda level: median_slope(S, level=level),
        lambda level: slope_spread(S, level=level),
        lambda level: anti_steerable(S, level=level),
        lambda level: wilson_interval(0.2, 10, level),
        lambda level: linearity_test(RNG.normal(size=(9, 4)), np.arange(4.0), level=level),
        lambda level: replicates.slope_reliability(REFITS, kind="refits", slopes=S, level=level),
        lambda level: replicates.corrected_anti_steerable(REFITS, kind="refits", slopes=S, rng=RNG, level=level),
        lambda level: predictors.d_prime(REFITS[:2], level=level),
        lambda level: predictors.auc(REFITS[:2], level=level),
        lambda level: predictors.difference_cosine(S / 9, level=level),
        lambda level: predictors.dataset_associations(FRAME[["x"]], S, rng=RNG, level=level),
        lambda level: predictors.within_dataset_associations(FRAME, ["x"], level=level),
        lambda level: predictors.cross_validated_ridge(FRAME, ["x"], rng=RNG, level=level),
        lambda level: choose_layer({"d": REFITS}, np.arange(5), rng=RNG, level=level),
    ],
)
@pytest.mark.parametrize("level", [95, -1])
def test_every_function_refuses_a_level_that_is_no_share(call, level):
    with pytest.raises(InputError, match=f"level is {level}; a share strictly between 0 and 1"):
        call(level)


@pytest.mark.parametrize("method", ["steerability", "linearity", "reliability", "predictors", "multiplier_range"])
def test_a_study_refuses_a_level_that_is_no_share(method):
    study = steerstats.open_cache(steerstats.demo_cache())
    with pytest.raises(InputError, match=r"level is 95; a share strictly between 0 and 1 is needed, such as 0\.95"):
        getattr(study, method)(level=95)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("n_resamples", lambda n: choose_layer({"d": REFITS}, np.arange(5), rng=RNG, n_resamples=n)),
        (
            "n_resamples",
            lambda n: replicates.corrected_anti_steerable(REFITS, kind="refits", slopes=S, rng=RNG, n_resamples=n),
        ),
        ("n_resamples", lambda n: predictors.dataset_associations(FRAME[["x"]], S, rng=RNG, n_resamples=n)),
        ("n_permutations", lambda n: predictors.dataset_associations(FRAME[["x"]], S, rng=RNG, n_permutations=n)),
        ("n_resamples", lambda n: predictors.cross_validated_ridge(FRAME, ["x"], rng=RNG, n_resamples=n)),
        ("n_permutations", lambda n: predictors.cross_validated_ridge(FRAME, ["x"], rng=RNG, n_permutations=n)),
        ("n_datasets", null_vectors_needed),
    ],
)
@pytest.mark.parametrize("value", [-5, 0, 2.5])
def test_every_function_refuses_a_count_that_is_none(name, call, value):
    with pytest.raises(InputError, match=f"{name} is {value}; a whole number, [12] or more"):
        call(value)


@pytest.mark.parametrize("method", ["generalization", "predictors", "spurious_factors"])
def test_one_resample_makes_no_interval(method):
    with pytest.raises(InputError, match=r"^n_resamples is 1; a whole number, 2 or more, is needed$"):
        getattr(steerstats.open_cache(steerstats.demo_cache()), method)(n_resamples=1)


def test_seeds_alphas_and_p_values_are_looked_at():
    for seed in (-1, 0.5):
        with pytest.raises(InputError, match=f"seed is {seed}; a whole number, 0 or more"):
            generator(seed, "x")
    with pytest.raises(InputError, match=r"alpha is 5; .* such as 0\.05"):
        null_vectors_needed(10, 5)
    with pytest.raises(InputError, match=r"share is 1\.5 of n = 4"):
        wilson_interval(1.5, 4)


@pytest.mark.parametrize(
    ("array", "index", "method", "place"),
    [
        ("direction", (0, 0, 3), "vector_cosines", "vector={vector}, slot=0, hidden=3"),
        ("vector_raw_norm", (0,), "vector_cosines", "vector={vector}"),
        ("vector_raw_norm", (0,), "predictors", "vector={vector}"),
        ("vector_unembedding_cosine", (0,), "predictors", "vector={vector}"),
        ("activation_norm", (0,), "predictors", "setting_train={setting}"),
        ("crossfit_projection", (0, 1, 4), "predictors", "setting_train={setting}, answer=negative, pair={pair}"),
        ("pair_difference_cosine", (0, 4), "predictors", "setting_train={setting}, pair={pair}"),
        ("input_projection", (0, 0, 2), "predictors", "setting_eval={setting}, vector={vector}, input={input}"),
        ("input_difference_cosine", (0, 0, 2), "predictors", "setting_eval={setting}, vector={vector}, input={input}"),
        ("answer_logit", (0, 0, 1, 0, 2), "answer_mass", "multiplier=-1.0, answer=positive, input={input}"),
        ("logsumexp", (0, 0, 1, 2), "answer_mass", "multiplier=-1.0, input={input}"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_damage_in_any_array_is_named_where_it_is_used(tmp_path, array, index, method, place, value):
    path = simulate_cache(tmp_path / "c", SimulationTruth(datasets=4, n_inputs=8, n_pairs=6)).path
    with h5py.File(path / "units" / "sim-01.h5", "r+") as file:
        if array not in file:
            pytest.fail(f"the simulated cache has no /{array}")
        file[array][index] = value
        label = {axis: str(file[axis].asstr()[0]) for axis in ("vector", "setting_eval")}
        label["pair"], label["input"] = str(file["pair"].asstr()[4]), str(file["input"].asstr()[2])
    label["setting"] = label.pop("setting_eval")
    with pytest.raises(
        CacheError, match=f"sim-01.*: /{array} is {value} at .*{place.format(**label)}; it should be finite"
    ):
        getattr(steerstats.open_cache(path), method)()


def test_steerability_says_once_whether_the_vectors_error_is_in_it(tmp_path):
    simulate_cache(tmp_path / "bare", SimulationTruth(datasets=2, n_inputs=12))
    words = {
        steerstats.demo_cache(): "where the column includes_vector_error says so",
        tmp_path / "bare": "the interval does not include",
    }
    for path, expected in words.items():
        found = steerstats.open_cache(path).steerability()
        (said,) = (text for text in found.assumptions if "own sampling error" in text)
        assert expected in said
        assert bool(found.vector_error) == (path == steerstats.demo_cache())


@pytest.mark.parametrize("method", ["linearity", "multiplier_range", "predictors"])
def test_results_without_the_vectors_error_say_so(method):
    found = getattr(steerstats.open_cache(steerstats.demo_cache()), method)()
    assert any("its own sampling error is not in these intervals" in text for text in found.assumptions)


def test_what_a_mask_hides_is_no_number():
    # 1e6 stands below the mask, as fill values do, and would be the mean of everything.
    hidden = np.ma.masked_greater([0.9, 1.1, 1e6, 1.0], 1e5)
    curves, places = np.ma.masked_greater([[0.0, 1.0, 1e6], [0.0, 1.0, 2.0]], 1e5), [-1.0, 0.0, 1.0]
    for refusing in (
        lambda: steerstats.fit_steerability(curves, places),
        lambda: linearity_test(curves, places),
        lambda: mean_slope(hidden),
        lambda: choose_layer({"d": hidden[None]}, [1], rng=generator(0, "x")),
    ):
        with pytest.raises(InputError, match=r"not finite|is nan"):
            refusing()
    pooled = steerstats.mean_over_datasets(hidden, np.full(4, 0.01))
    assert pooled.n == 3
    assert pooled.mean == pytest.approx(1.0)
