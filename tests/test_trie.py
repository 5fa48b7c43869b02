"""Tries and packing: the layout means what its definition says, and packing loses and repeats nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_builder import packing
from cache_builder.packing import Demand, pack
from cache_builder.trie import build_trie, replicate
from steerstats.errors import InputError

sequence = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=7)
sequences = st.lists(sequence, min_size=1, max_size=12)


def build(paths):
    return build_trie([[t for t, _ in path] for path in paths], [[c for _, c in path] for path in paths])


def allowed(trie):
    """What each node (row) may see (column): the interval that the engine's masks are made of."""
    position = np.arange(len(trie))
    return (position <= position[:, None]) & (position[:, None] < trie.end)


def ancestors(trie, k):
    found = {k}
    while trie.parent[k] >= 0:
        k = int(trie.parent[k])
        found.add(k)
    return found


def steered_below(paths):
    """Paths in which steering, once begun, never returns to another place: 0...0 1...1 0...0."""
    return [sorted_marks(path) for path in paths]


def sorted_marks(path):
    marks = [c for _, c in path]
    first = marks.index(1) if 1 in marks else len(marks)
    return [(t, int(i >= first and (i == first or c))) for i, (t, c) in enumerate(path)]


@given(sequences)
@settings(max_examples=150, deadline=None)
def test_mask_is_the_ancestor_relation(paths):
    trie, _ = build(paths)
    expected = np.array([[k in ancestors(trie, q) for k in range(len(trie))] for q in range(len(trie))])
    assert np.array_equal(allowed(trie), expected)


@given(sequences)
@settings(max_examples=150, deadline=None)
def test_every_sequence_is_the_path_to_its_nodes_and_every_prefix_is_there_once(paths):
    trie, node = build(paths)
    for path, nodes in zip(paths, node):
        nodes = nodes[: len(path)]
        assert list(zip(trie.token[nodes].tolist(), trie.code[nodes].tolist())) == path
        assert trie.parent[nodes].tolist() == [-1, *nodes[:-1].tolist()]
        assert trie.depth[nodes].tolist() == list(range(len(path)))
    assert (node[np.arange(node.shape[1]) >= np.array([[len(p)] for p in paths])] == -1).all()
    assert len(trie) == len({tuple(path[: i + 1]) for path in paths for i in range(len(path))})


@given(sequences, st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_replicating_codes_equals_inserting_every_steered_path(paths, n_codes):
    paths = steered_below(paths)
    codes = np.array([5, 3, 8, 9][:n_codes], dtype=np.int64)
    skeleton, node = build(paths)
    replicas = replicate(skeleton, codes)
    trie = replicas.trie
    explicit = []
    for path in paths:
        marked = any(c for _, c in path)
        begin = next((i for i, (_, c) in enumerate(path) if c), len(path))
        explicit += [[(t, int(code) * c) for t, c in path] for code in codes] if marked else [path]
        explicit += [path[:begin]] if marked and begin else []
    if not explicit:
        assert len(trie) == 0
        return
    direct, _ = build(explicit)
    assert len(trie) == len(direct)
    assert np.array_equal(
        allowed(trie), [[k in ancestors(trie, q) for k in range(len(trie))] for q in range(len(trie))]
    )
    for i, path in enumerate(paths):
        nodes = replicas.nodes(node[i, : len(path)], max(n_codes, 1))
        for j, code in enumerate(codes):
            at = nodes[:, j]
            assert trie.token[at].tolist() == [t for t, _ in path]
            assert trie.code[at].tolist() == [int(code) * c for _, c in path]
            assert trie.parent[at].tolist() == [-1, *at[:-1].tolist()]


@pytest.mark.parametrize(
    ("tokens", "codes", "words"),
    [
        ([], [], "at least one sequence"),
        ([[1, 2]], [[0]], "sequence 0"),
        ([[1], []], [[0], []], "sequence 1"),
        ([[-1]], [[0]], "negative"),
    ],
)
def test_malformed_sequences_are_refused(tokens, codes, words):
    with pytest.raises(InputError, match=words):
        build_trie(tokens, codes)


def demand(rng, n=40, start=20, length=30):
    common = [np.concatenate([np.arange(12), rng.integers(20, 90, length - 12)]) for _ in range(n)]
    full = np.full(n, length)
    return Demand(common, full, np.full(n, start), full - start)


@given(st.integers(0, 9), st.integers(1, 400), st.sampled_from([0, 20, 29]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_packing_covers_every_example_and_code_once(n_codes, budget, start, share):
    wanted = demand(np.random.default_rng(0), start=start)
    codes = np.arange(1, n_codes + 1)
    rows = pack(wanted, codes, budget, share=share)
    cells = [(e, c) for row in rows for e in row.examples.tolist() for c in row.codes.tolist()]
    assert sorted(cells) == [(e, c) for e in range(40) for c in codes.tolist()]
    assert sorted(e for row in rows if row.base for e in row.examples.tolist()) == list(range(40))


def test_rows_keep_to_the_budget_unless_splitting_would_cost_more_than_a_fifth():
    wanted = demand(np.random.default_rng(0), start=29)
    for row in pack(wanted, np.arange(1, 37), 200):
        assert row.size <= 200
    # 30 prompt tokens and 36 branches of one token: rows of 33 would repeat 29 tokens for every third branch.
    sizes = [row.size for row in pack(wanted, np.arange(1, 37), 33)]
    assert max(sizes) == 66
    assert sum(sizes) == 40 * 66


def test_a_ceiling_splits_whatever_it_costs():
    wanted = demand(np.random.default_rng(0), start=29)
    assert max(row.size for row in pack(wanted, np.arange(1, 37), 33, ceiling=33)) <= 33


@pytest.mark.parametrize("n_codes", [6, 8, 16])
def test_codes_stay_together_where_apart_they_would_count_the_same(n_codes):
    wanted = demand(np.random.default_rng(0), start=0)
    assert len(pack(wanted, np.arange(1, n_codes + 1), 10**6)) == 1


def test_steering_from_the_first_token_shares_steered_prefixes():
    wanted = demand(np.random.default_rng(0), start=0)
    rows = pack(wanted, np.arange(1, 7), 240)
    # 12 of 30 tokens are common: one code per row shares them, several codes per example could not.
    assert sum(row.size for row in rows) < 0.75 * 40 * 30 * 7


@pytest.mark.parametrize("budget", [300, 500, 900, 1000, 1300])
def test_a_short_last_row_is_shared_out_unless_that_makes_more_rows(budget, monkeypatch):
    wanted, codes = demand(np.random.default_rng(0)), np.arange(1, 7)
    sizes = [row.size for row in pack(wanted, codes, budget)]
    monkeypatch.setattr(packing, "SMALL_ROW", 0.0)
    greedy = [row.size for row in pack(wanted, codes, budget)]
    assert len(sizes) == len(greedy)
    assert max(sizes) <= budget
    assert sum(sizes) <= 1.01 * sum(greedy)
    assert min(sizes) >= min(greedy)
    if budget in (900, 1000):
        assert min(greedy) < 0.7 * budget
        assert min(sizes) > 0.9 * max(sizes)


@pytest.mark.parametrize("share", [True, False])
def test_neighbours_in_a_row_are_those_that_share_a_beginning_or_are_as_long(share):
    """Two kinds of prompts, in turn: with 40 tokens in common, or short and long ones."""
    rng = np.random.default_rng(0)
    kinds = np.arange(24) % 2
    starts = [np.full(40, 5), np.full(40, 6)]
    common = [np.concatenate([starts[k], rng.integers(20, 90, 5)]) for k in kinds]
    if not share:
        common = [np.concatenate([np.full(8, 5), rng.integers(20, 90, 37 if k else 5)]) for k in kinds]
    full = np.array([len(tokens) for tokens in common])
    wanted = Demand(common, full, full - 1, np.ones(24, dtype=int))
    rows = pack(wanted, np.arange(1, 3), 75 if share else 282, share=share)
    mixed = [row for row in rows if len(set(kinds[row.examples])) > 1]
    assert 2 < len(rows) < 12
    assert len(mixed) <= (1 if share else 0), "none is padded to more than a fiftieth of its tokens"
    assert share or all(row.size == (full[row.examples] + 2).sum() for row in rows), "of a beginning in common, too"


def test_a_budget_has_to_be_positive():
    with pytest.raises(InputError, match="budget 0"):
        pack(demand(np.random.default_rng(0)), np.arange(1, 3), 0)
