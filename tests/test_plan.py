"""What a build will do before any model is there: its pairs, their arrays, and which vector goes where."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cache_builder.datasets import load_dataset, split_pairs
from cache_builder.plan import factor_arrays, pair_arrays, plan_units, planned_grid
from cache_builder.spec import parse_spec
from steerstats.errors import InputError, SpecError

DATASET = "bundled:demo/plans-ahead"


def spec_of(**changes):
    return parse_spec({"name": "p", "model": {"id": "m"}, "datasets": [DATASET], "layers": [1], **changes})


@pytest.mark.parametrize("seed", [0, 1])
def test_the_builds_seed_draws_both_the_split_and_the_order_of_options(seed):
    (unit,) = plan_units(spec_of(order="balanced", seed=seed, limit=20))
    pairs = load_dataset(DATASET, order="balanced", seed=seed).pairs
    split = split_pairs(pairs, seed=seed, limit=20)
    assert (unit.training, unit.evaluated) == (split.train, split.test)


def test_folds_are_of_questions_and_not_of_their_two_orders():
    (unit,) = plan_units(spec_of(order="counterbalance", limit=20, controls={"folds": 8}))
    assert len({pair.question for pair in unit.training}) == len(unit.training) / 2 == 8
    with pytest.raises(SpecError, match=r"9 disjoint folds need as many training questions, and .* has 8"):
        plan_units(spec_of(order="counterbalance", limit=20, controls={"folds": 9}))


def own_file(path, count: int, negative: object):
    lines = [{"prompt": f"Is it {k}?", "positive": "(A)", "negative": negative} for k in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize(
    ("datasets", "vectors", "said"),
    [
        ([DATASET, "plans-ahead"], {}, "two of them are called plans-ahead; names make files"),
        (["own"], {"read": "last_prompt", "settings": ["base"]}, r"own\.jsonl, line 1: has several wrong answers, and"),
        (["few"], {}, "^dataset few: the train part of 1 pairs is empty"),
    ],
)
def test_what_a_dataset_does_not_allow_names_it(tmp_path, datasets, vectors, said):
    own = own_file(tmp_path / "own.jsonl", 40, ["(B)", "(C)"])
    files = {"plans-ahead": own, "own": own, "few": own_file(tmp_path / "few.jsonl", 1, "(B)")}
    custom = {name: files[name] for name in datasets if name in files}
    with pytest.raises(InputError, match=said):
        plan_units(spec_of(datasets=datasets, custom_datasets=custom, vectors=vectors))


def test_a_shift_names_the_vectors_setting_first_and_controls_have_shifts_of_their_own():
    spec = spec_of(shifts=["base->base", "sys_pos->user_neg"], controls={"shifts": ["user_neg->sys_pos"]})
    settings = ("base", "sys_pos", "user_neg")
    kinds = ("trained", "trained", "trained", "random", "random", "random")
    grid = planned_grid(spec, kinds, 2 * settings, settings)
    assert np.argwhere(grid).tolist() == [[0, 0], [1, 5], [2, 1]]
    assert planned_grid(spec_of(shifts="all"), kinds, 2 * settings, settings)[:, :3].all()


def test_arrays_of_pairs_hold_what_each_pair_has():
    pairs = load_dataset(DATASET).pairs[:7]
    assert any(pair.len_positive != pair.len_negative for pair in pairs)
    arrays = pair_arrays(pairs, "input", text=True)
    assert arrays.pop("input").tolist() == [pair.id for pair in pairs]
    for name, values in arrays.items():
        own = [getattr(pair, name.removeprefix("input_")) for pair in pairs]
        assert values.tolist() == [-1 if value is None else value for value in own], name
    assert set(pair_arrays(pairs, "pair", text=False)) < {name.replace("input", "pair") for name in (*arrays, "input")}


def test_a_factor_that_a_part_lacks_is_a_column_of_gaps_there():
    pairs = [replace(pair, factors={}) for pair in load_dataset(DATASET).pairs[:3]]
    having = replace(pairs[0], factors={"seen": True, "topic": "law", "size": 3})
    found = factor_arrays([*pairs, having], pairs[1:], "pair")
    assert found["pair_factor_seen"].tolist() == [-1, -1]
    assert found["pair_factor_topic"].tolist() == ["", ""]
    assert np.isnan(found["pair_factor_size"]).all()
    own = factor_arrays([*pairs, having], [having], "pair")
    assert [column.tolist() for column in own.values()] == [[1], ["law"], [3.0]]


def test_public_datasets_are_of_a_family_and_others_of_none():
    (unit,) = plan_units(spec_of())
    assert [replace(unit, name=name).category for name in ("openness", "plans-ahead")] == ["persona", ""]
