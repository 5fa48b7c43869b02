"""Results are frozen for good: fields, arrays whoever made them, mappings, and what comes out of a pickle."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace

import numpy as np
import pandas as pd
import pytest

import steerstats
from steerstats.errors import InputError
from steerstats.results import Result


@dataclass(frozen=True, kw_only=True)
class Example(Result):
    values: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        return pd.DataFrame({"value": self.values})


def example() -> tuple[Example, np.ndarray, dict]:
    own, parts = np.arange(6.0), {"a": np.ones(2), "deep": {"b": np.zeros(2)}}
    return Example(values=own[::2], parts=parts, method="given"), own, parts


def refuses(result: Example) -> None:
    with pytest.raises(FrozenInstanceError):
        result.values = np.zeros(3)
    for array in (result.values, result.parts["a"], result.parts["deep"]["b"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9
    for mapping in (result.parts, result.parts["deep"]):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["a"] = np.zeros(2)


def test_nothing_that_a_caller_keeps_changes_a_result():
    result, own, parts = example()
    own[0], parts["a"][0], parts["more"] = 9, 9, np.ones(1)
    parts["deep"]["b"][1] = 9
    assert result.values.tolist() == [0, 2, 4]
    assert result.parts["a"].tolist() == [1, 1]
    assert result.parts["deep"]["b"].tolist() == [0, 0]
    assert list(result.parts) == ["a", "deep"]
    assert own.flags.writeable, "the caller's own array stays its own"
    refuses(result)


def test_a_read_only_view_of_an_array_that_can_change_is_copied():
    own = np.arange(3.0)
    view = own.view()
    view.flags.writeable = False
    result = Example(values=view, method="given")
    own[0] = 9
    assert result.values[0] == 0
    assert replace(result, method="other").values is result.values, "what cannot change is shared"


@pytest.mark.parametrize("again", [lambda r: pickle.loads(pickle.dumps(r)), copy.deepcopy, replace])
def test_a_copy_is_as_frozen_and_as_whole(again):
    result = example()[0]
    other = again(result)
    np.testing.assert_array_equal(other.values, result.values)
    np.testing.assert_array_equal(other.parts["deep"]["b"], result.parts["deep"]["b"])
    pd.testing.assert_frame_equal(other.to_frame(), result.to_frame())
    refuses(other)


def test_results_of_a_study_survive_a_pickle_and_asdict():
    study = steerstats.open_cache(steerstats.demo_cache())
    for result in (study.steerability(), study.linearity(), study.slopes(study.datasets[0])):
        other = pickle.loads(pickle.dumps(result))
        pd.testing.assert_frame_equal(other.to_frame(), result.to_frame())
        assert other.summary() == result.summary()
        assert asdict(result)["method"] == result.method
    with pytest.raises(TypeError, match="does not support item"):
        study.steerability().results["new"] = None


@pytest.mark.parametrize(
    "ask",
    ["steerability", "generalization", "spurious_factors", "predictors", "nulls", "vector_cosines", "reliability"],
)
def test_one_seed_gives_equal_results_and_another_seed_or_another_number_unequal_ones(ask):
    study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain", "travels-far", "keeps-pets"])
    few = {"n_resamples": 50} if ask in ("generalization", "spurious_factors", "predictors") else {}
    few |= {"n_permutations": 10} if ask == "predictors" else {}
    result, again = getattr(study, ask)(**few), getattr(study, ask)(**few)
    assert result == again
    assert result == pickle.loads(pickle.dumps(result)), "NaN is NaN in a pickle too"
    assert result != replace(result, warnings=("other",))
    assert result != ask
    if ask == "generalization":
        assert result != study.generalization(seed=1, **few)


def test_results_are_unequal_by_one_number_one_shape_one_type_or_one_key():
    values, parts = np.array([0.0, np.nan]), {"a": np.ones(2), "deep": {"b": [1.0, np.nan]}}
    result = Example(values=values, parts=parts, method="given")
    assert result == Example(values=values.copy(), parts=parts, method="given")
    for other in (np.array([0.0, 1.0]), np.array([0.0]), np.array([[0.0, np.nan]]), values.astype(np.float32)):
        assert result != replace(result, values=other)
    for other in ({**parts, "a": np.zeros(2)}, {"a": np.ones(2)}, {**parts, "deep": {"b": [1.0, 2.0]}}):
        assert result != replace(result, parts=other)


def test_a_name_that_is_not_there_is_answered_with_those_that_are():
    table = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain", "travels-far"]).steerability()
    with pytest.raises(InputError, match="no dataset 'nope'; there are travels-far, likes-rain"):
        table["nope"]
    with pytest.raises(InputError, match="no estimate 'nope'; there are mean, median, sd, anti_steerable"):
        table["likes-rain"]["nope"]


def test_print_shows_the_summary_or_what_a_class_has_of_its_own():
    result, *_ = example()
    assert str(result) == result.summary()
    one = steerstats.Estimate(name="mean", estimate=1.0, ci_low=0.5, ci_high=2.0, n=3, method="given")
    assert str(one) == "mean: 1.000 [0.500, 2.000] (n = 3)"
    assert [repr(result), repr(one)] == [str(result), str(one)]  # not every field, which fills a prompt with pages
