"""The shared checks of arguments and of cached numbers: what is wrong is named, with what would be right."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import steerstats
from steerstats.cache import read_finite
from steerstats.errors import CacheError, InputError, check_count, check_level
from steerstats.simulate import SimulationTruth, simulate_cache


@pytest.mark.parametrize("level", [95, -1, 0, 1, float("nan"), "0.95", None, True, np.float64(1.5)])
def test_a_level_is_a_share(level):
    with pytest.raises(InputError, match=r"^level is .*; a share strictly between 0 and 1 is needed, such as 0\.\d+$"):
        check_level(level)


def test_a_percentage_is_told_the_share():
    with pytest.raises(InputError, match=r"such as 0\.9$"):
        check_level(90)
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
