"""Frames hold what the cache holds, in declared columns, and survive CSV and Parquet."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

from steerstats.cache import BY_NAME, CacheReader, UnitData, create_cache, write_unit
from steerstats.errors import CacheError, InputError
from steerstats.frames import (
    INPUT_COLUMNS,
    PAIR_COLUMNS,
    PROPENSITY_COLUMNS,
    SLOPE_COLUMNS,
    VECTOR_COLUMNS,
    inputs_frame,
    pairs_frame,
    propensity_frame,
    slopes_frame,
    vectors_frame,
)
from steerstats.simulate import SimulationTruth, simulate_cache, simulate_unit

MAKERS = [
    (inputs_frame, INPUT_COLUMNS),
    (pairs_frame, PAIR_COLUMNS),
    (vectors_frame, VECTOR_COLUMNS),
    (propensity_frame, PROPENSITY_COLUMNS),
    (slopes_frame, SLOPE_COLUMNS),
]


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    truth = SimulationTruth(datasets=1, n_inputs=9, n_val=3, n_pairs=8, yes_defined=0.5, n_random=2, debiased=True)
    path = simulate_cache(tmp_path_factory.mktemp("frames") / "c", truth, seed=3).path
    return CacheReader(path)["sim-00"]


@pytest.mark.parametrize(("make", "declared"), MAKERS)
def test_columns_are_the_declared_ones_in_order_and_type(unit, make, declared):
    frame = make(unit)
    names = [column.name for column in declared if column.name in frame]
    assert list(frame.columns)[: len(names)] == names
    assert {column.name for column in declared if column.required} <= set(frame)
    assert all(not column.source or column.source in BY_NAME for column in declared)
    empty = pd.Series([], dtype=object)
    for column in declared:
        if column.name in frame:
            assert frame[column.name].dtype == empty.astype(column.dtype).dtype, column.name


@pytest.mark.parametrize(("make", "declared"), MAKERS)
def test_frames_survive_parquet_and_csv(unit, make, declared, tmp_path):
    frame = make(unit)
    frame.to_parquet(tmp_path / "f.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "f.parquet"), frame)
    frame.to_csv(tmp_path / "f.csv", index=False)
    types = {column.name: column.dtype for column in declared if column.name in frame}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "f.csv", dtype=types, keep_default_na=True), frame)


def test_inputs_show_undefined_factors_as_missing(unit):
    frame = inputs_frame(unit)
    flags = unit.read("input_pos_is_yes")
    assert (flags == -1).sum() == frame["pos_is_yes"].isna().sum() == 6
    np.testing.assert_array_equal(frame["pos_is_yes"].fillna(False), flags == 1)
    assert frame["split"].value_counts().to_dict() == {"test": 9, "val": 3}
    np.testing.assert_array_equal(frame["prompt_tokens_user_neg"], unit.read("input_prompt_tokens")[4])


def test_propensities_are_long_and_planned_cells_alone(unit):
    frame = propensity_frame(unit)
    assert len(frame) == 5 * 6 * 7 * 12, "the main vectors, neither random nor debiased ones"
    row = frame.query("setting_eval == 'sys_neg' and vector == 'mean' and multiplier == 0.5").iloc[3]
    stored = unit.read("propensity", setting_eval="sys_neg", vector="mean", multiplier=0.5)[3]
    assert (row["propensity"], row["input"]) == (pytest.approx(float(stored)), unit.coords["input"][3])
    np.testing.assert_allclose(frame["logit_positive"] - frame["logit_negative"], frame["propensity"], atol=1e-5)
    both = np.exp(frame[["logit_positive", "logit_negative"]].sub(frame["logsumexp"], axis=0)).sum(axis=1)
    np.testing.assert_allclose(frame["answer_mass"], both)
    controls = propensity_frame(unit, vector=["random:base:1", "debiased:base"])
    assert sorted(set(controls["setting_eval"])) == ["base", "user_neg", "user_pos"]
    assert len(controls) == 3 * 2 * 7 * 12


def test_slopes_are_least_squares_lines(unit):
    frame = slopes_frame(unit, setting_eval="user_pos", vector="sys_neg")
    curves = propensity_frame(unit, setting_eval="user_pos", vector="sys_neg")
    for place in (0, 11):
        own = curves[curves["input"] == frame["input"][place]]
        slope, height = np.polyfit(own["multiplier"], own["propensity"], 1)
        assert frame["slope"][place] == pytest.approx(slope)
        assert frame["intercept"][place] == pytest.approx(height)
        assert frame["unsteered"][place] == own.loc[own["multiplier"] == 0, "propensity"].item()
    assert (frame["setting_train"] == "sys_neg").all()
    assert len(slopes_frame(unit)) == 5 * 6 * 12
    own = ["input", "split", "pos_is_a", "pos_is_yes"]
    pd.testing.assert_frame_equal(frame[own], inputs_frame(unit)[own])


def test_vectors_and_pairs_carry_their_places(unit):
    vectors = vectors_frame(unit).set_index("vector")
    assert vectors.loc["random:base:1", ["kind", "setting_train", "replicate", "layers"]].tolist() == [
        "random", "base", 1, "13"
    ]  # fmt: skip
    pairs = pairs_frame(unit)
    np.testing.assert_allclose(pairs["cosine_user_neg"], unit.read("pair_difference_cosine")[4])


def test_arrays_that_are_not_there_make_no_columns(tmp_path):
    truth = SimulationTruth(datasets=1, n_inputs=2, n_pairs=3, logits=False)
    bare = CacheReader(simulate_cache(tmp_path / "c", truth).path)["sim-00"]
    assert list(propensity_frame(bare))[-2:] == ["propensity", "probability"]
    data, _ = simulate_unit(truth, "sim-00")
    arrays = {name: array for name, array in data.arrays.items() if not name.startswith(("pair", "crossfit", "activ"))}
    root = create_cache(tmp_path / "d", {"kind": "grid", "spec_hash": "ab", "units": ["sim-00"], "model": "m"})
    write_unit(root, "sim-00", UnitData(arrays, {**data.attrs, "spec_hash": "ab"}))
    with pytest.raises(CacheError, match="column 'pair' needs /pair, which is not there"):
        pairs_frame(CacheReader(root)["sim-00"])


def test_a_unit_of_what_it_must_hold_has_frames_and_a_vector_made_elsewhere_is_in_them(unit, tmp_path):
    data = unit.load()
    arrays = {name: array for name, array in data.arrays.items() if BY_NAME[name].required or name == "answer_logit"}
    arrays |= {name: data.arrays[name] for name in ("pair", "pair_question", "answer")}
    kinds = arrays["vector_kind"].copy()
    kinds[list(arrays["vector"]).index("sys_pos")] = "imported"
    root = create_cache(tmp_path / "c", {"kind": "grid", "spec_hash": "ab", "units": ["sim-00"], "model": "m"})
    layers = {"slot": np.arange(2, dtype=np.int32), "vector_layer": np.full((len(kinds), 2), (3, 12), dtype=np.int32)}
    arrays |= {"vector_kind": kinds, **layers}
    write_unit(root, "sim-00", UnitData(arrays, {**data.attrs, "spec_hash": "ab"}))
    bare = CacheReader(root)["sim-00"]
    assert list(inputs_frame(bare)) == ["dataset", "input", "question"]
    assert list(pairs_frame(bare)) == ["dataset", "pair", "question"]
    assert list(propensity_frame(bare))[-2:] == ["logit_positive", "logit_negative"]
    assert set(vectors_frame(bare)["layers"]) == {"3+12"}
    assert set(slopes_frame(bare)["vector"]) == {"base", "sys_pos", "sys_neg", "user_pos", "user_neg", "mean"}


@pytest.mark.parametrize("make", [make for make, _ in MAKERS])
def test_a_studys_unit_is_taken_and_anything_else_refused_in_words(study, make):
    own = study.unit(study.datasets[0])
    pd.testing.assert_frame_equal(make(own), make(own.unit))
    with pytest.raises(InputError, match=r"unit is a Study; one dataset's unit is needed, such as study\.unit"):
        make(study)


def test_labels_that_are_not_there_are_named(unit):
    with pytest.raises(CacheError, match="setting_eval 'nowhere' is not in this cache; it has base, sys_pos"):
        propensity_frame(unit, setting_eval="nowhere")
    with pytest.raises(CacheError, match="vector 'random:base:9' is not in this cache"):
        slopes_frame(unit, vector=["base", "random:base:9"])
    with pytest.raises(InputError, match="vector is empty"):
        slopes_frame(unit, vector=[])


@pytest.mark.parametrize("make", [propensity_frame, slopes_frame])
def test_a_hole_in_a_planned_cell_is_named_with_its_coordinates(tmp_path, make):
    truth = SimulationTruth(datasets=1, n_inputs=3, n_pairs=3)
    path = simulate_cache(tmp_path / "c", truth).path
    with h5py.File(path / "units" / "sim-00.h5", "r+") as file:
        file["propensity"][2, 5, 6, 1] = np.inf
    broken = CacheReader(path)["sim-00"]
    place = r"/propensity is inf at setting_eval=sys_neg, vector=mean, multiplier=1\.5, input=sim-00-q00001"
    with pytest.raises(CacheError, match=place):
        make(broken)
