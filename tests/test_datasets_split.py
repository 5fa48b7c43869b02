"""Splits: exact quotas, duplicates on one side, the original's overlap on request."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_data import DATA, needs_data

from cache_builder.datasets import load_dataset, split_pairs
from cache_builder.datasets.pairs import ContrastPair
from steerstats.errors import InputError


def pair(row: int, question: str, twin: int = 0) -> ContrastPair:
    return ContrastPair(f"{row}-{twin}", question, "?", "(A)", "(B)", True, None, 1, 1, "x", "y", row, twin)


@needs_data
@pytest.mark.parametrize("name", ["one-box-tendency", "myopic-reward", "subscribes-to-Islam", "truthfulqa"])
@pytest.mark.parametrize("order", ["tan2024", "counterbalance"])
def test_parts_of_real_data_are_exact_and_share_no_question(name, order):
    pairs = load_dataset(name, data_dir=DATA, order=order).pairs
    split = split_pairs(pairs)
    n = len({p.row for p in pairs})
    rows = [{p.row for p in part} for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in rows] == [n * 40 // 100, n * 10 // 100, n - n * 40 // 100 - n * 10 // 100]
    assert sum(len(part) for part in (split.train, split.validation, split.test)) == len(pairs)
    train, validation, test = ({p.question for p in part} for part in (split.train, split.validation, split.test))
    assert not train & test
    assert not train & validation
    assert not validation & test
    assert split.overlap == 0


@needs_data
def test_the_literal_split_overlaps_as_the_original_does():
    pairs = load_dataset("subscribes-to-deontology", data_dir=DATA).pairs
    split = split_pairs(pairs, "tan2024-literal")
    shuffled = list(range(1000))
    random.Random(0).shuffle(shuffled)
    assert [p.row for p in split.train] == shuffled[:500]
    assert [p.row for p in split.test] == shuffled[50:]
    assert (split.overlap, split.validation) == (450, ())


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=5, max_size=60), st.randoms())
def test_a_split_depends_on_content_and_not_on_the_order_of_the_file(questions, shuffler):
    pairs = [pair(row, str(q)) for row, q in enumerate(questions)]
    moved = pairs.copy()
    shuffler.shuffle(moved)
    try:
        split = split_pairs(pairs)
    except InputError:
        return
    again = split_pairs(moved)
    for part in ("train", "validation", "test"):
        assert {p.id for p in getattr(split, part)} == {p.id for p in getattr(again, part)}
    assert len(split.train) <= len(pairs) * 40 // 100
    assert not {p.question for p in split.train} & {p.question for p in split.test}


@needs_data
def test_half_of_the_answers_of_each_part_are_a_where_they_are_balanced():
    for seed in (0, 1):
        split = split_pairs(load_dataset("openness", data_dir=DATA, order="balanced", seed=seed).pairs, seed=seed)
        for part in (split.train, split.validation, split.test):
            for yes in (True, False):
                at_a = [p.pos_is_a for p in part if p.pos_is_yes is yes]
                assert abs(2 * sum(at_a) - len(at_a)) <= 1


def test_another_seed_gives_another_split():
    pairs = [pair(row, str(row)) for row in range(100)]
    assert {p.id for p in split_pairs(pairs).test} != {p.id for p in split_pairs(pairs, seed=1).test}


def test_limit_counts_source_records_and_keeps_twins_together():
    pairs = [pair(row, str(row), twin) for row in range(100) for twin in (0, 1)]
    split = split_pairs(pairs, limit=10)
    assert (len(split.train), len(split.validation), len(split.test)) == (8, 2, 10)
    assert {p.id for p in split.test} <= {p.id for p in split_pairs(pairs, limit=11).test + split.train}
    copies = [pair(row, str(row // 3)) for row in range(99)]
    limited = split_pairs(copies, percent=(50, 0, 50), limit=10)
    assert len(limited.train + limited.test) == 9, "three questions of three records"
    shuffled = list(range(100))
    random.Random(0).shuffle(shuffled)
    literal = split_pairs(pairs, "tan2024-literal", limit=60)
    assert [p.row for p in literal.train[::2]] == shuffled[:30]
    assert [p.row for p in literal.test[::2]] == shuffled[50:60]


def test_the_overlap_counts_every_test_record_whose_question_is_trained_on():
    split = split_pairs([pair(row, "one" if row < 99 else "other") for row in range(100)], "tan2024-literal")
    assert split.overlap == sum(p.question in {q.question for q in split.train} for p in split.test) >= 49


def test_what_cannot_be_split_is_an_error():
    with pytest.raises(InputError, match="train part of 2 pairs is empty; at least 3 different questions are needed"):
        split_pairs([pair(0, "a"), pair(1, "b")])
    with pytest.raises(InputError, match="train part of 2 pairs is empty; at least 3"):
        split_pairs([pair(0, "a"), pair(1, "b")], limit=5)
    with pytest.raises(InputError, match="train part of 40 pairs is empty; raise limit = 1: at least 3"):
        split_pairs([pair(k, str(k)) for k in range(40)], limit=1)
    with pytest.raises(InputError, match="test part of 50 pairs is empty; at least 51 different questions"):
        split_pairs([pair(k, str(k)) for k in range(50)], "tan2024-literal")
    with pytest.raises(InputError, match=r"\(0, 50, 50\) leaves nothing for it"):
        split_pairs([pair(k, str(k)) for k in range(50)], percent=(0, 50, 50))
    with pytest.raises(InputError, match="add up to 100"):
        split_pairs([pair(0, "a")], percent=(40, 10, 40))
    with pytest.raises(InputError, match=r"\(40, -10, 70\) must be three shares that add up to 100"):
        split_pairs([pair(k, str(k)) for k in range(50)], percent=(40, -10, 70))
    with pytest.raises(InputError, match="split 'half' is not known"):
        split_pairs([pair(0, "a")], "half")
