"""A table of anyone's own measurements becomes a cache, or one located error."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

from steerstats.cache import CacheReader, verify
from steerstats.cache.table import example_rows, import_table
from steerstats.errors import InputError


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(list(example_rows()))


def save(frame: pd.DataFrame, path) -> str:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return str(path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_value_lands_at_its_coordinates(tmp_path, frame, ending):
    shuffled = frame.sample(frac=1.0, random_state=0)
    cache = CacheReader(import_table(save(shuffled, tmp_path / f"t.{ending}"), tmp_path / "c", model="mine"))
    unit = cache["kindness"]
    for row in frame.itertuples():
        place = {"setting_eval": row.setting_eval, "vector": "base", "multiplier": row.multiplier, "input": row.input}
        assert unit.read("propensity", **place) == np.float32(row.propensity)
    flags = dict(zip(unit.coords["input"], unit.read("input_pos_is_a")))
    assert flags == {"q0": 1, "q1": 0, "q2": 1, "q3": 0}
    assert all(check.ok for check in verify(tmp_path / "c"))


def test_unmeasured_settings_are_unplanned_and_undefined_factors_stay_so(tmp_path, frame):
    other = frame[frame["multiplier"] == 0].assign(setting_train="mean", setting_eval="user_pos")
    other = pd.concat([other.assign(multiplier=value) for value in (-1.0, 0.0, 1.0)])
    both = pd.concat([frame, other]).astype({"pos_is_a": object})
    both.loc[both["input"] == "q2", "pos_is_a"] = None
    unit = CacheReader(import_table(save(both, tmp_path / "t.csv"), tmp_path / "c", model="mine"))["kindness"]
    assert unit.read("planned").tolist() == [[1, 0], [0, 1]]
    assert unit.read("vector_kind").tolist() == ["trained", "mean"]
    assert unit.read("input_pos_is_a").tolist() == [1, 0, -1, 0]


BAD = {
    "hole": (lambda f: f.drop(index=4), r"vector=base has no value at multiplier=0, input=q1"),
    "twice": (lambda f: pd.concat([f, f.iloc[[3]]]), r"input=q1 is there 2 times"),
    "no zero": (lambda f: f[f["multiplier"] != 0], r"multiplier 0 \(the unsteered model\) is missing; it has -1, 1"),
    "text": (
        lambda f: f.astype({"propensity": object}).replace({"propensity": {f.propensity[5]: "high"}}),
        r"propensity, row 6: 'high' should be a finite number",
    ),
    "column": (lambda f: f.drop(columns="setting_eval"), r"column 'setting_eval' is missing"),
    "stranger": (lambda f: f.assign(slope=1), r"column 'slope' is not known"),
    "flag": (lambda f: f.assign(pos_is_a="maybe"), r"pos_is_a, input q0: 'maybe' should be true, false or empty"),
    "setting": (
        lambda f: f.assign(setting_eval="weird"),
        r"setting_eval, row 1: 'weird' should be one of base, sys_pos, sys_neg, user_pos, user_neg",
    ),
    "empty": (lambda f: f.iloc[:0], "has no rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_one_located_error_and_no_cache(tmp_path, frame, case):
    change, message = BAD[case]
    with pytest.raises(InputError, match=message):
        import_table(save(change(frame), tmp_path / "t.csv"), tmp_path / "c", model="mine")
    assert os.listdir(tmp_path) == ["t.csv"]


def test_dataset_names_become_safe_stems_without_colliding(tmp_path, frame):
    both = pd.concat([frame.assign(dataset="a/b"), frame.assign(dataset="a b"), frame.assign(dataset="plain-1")])
    cache = CacheReader(import_table(save(both, tmp_path / "t.csv"), tmp_path / "c", model="mine"))
    assert len(cache.units) == 3
    assert "plain-1" in cache.units
    assert {unit.attrs["dataset"] for unit in cache} == {"a/b", "a b", "plain-1"}
