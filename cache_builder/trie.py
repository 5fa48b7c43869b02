"""Token tries: every distinct (prefix, steering) of many sequences laid out once, in depth-first order.

A node is a (token, steering code) under the whole path that leads to it; code 0 is "unsteered". In depth-first
order the subtree of node k is the block [k, end[k]), so that attention along every path at once is one interval
comparison: query q may see key k exactly when `k <= q < end[k]`. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steerstats.errors import InputError

CODE_BITS = 20
TOKEN_LIMIT = 1 << 40


@dataclass(frozen=True, slots=True)
class Trie:
    """A forest of token paths in depth-first order.

    Parameters
    ----------
    token, code, depth : int64 array (n_nodes,)
        Token id, steering code (0 = unsteered) and position id (roots have depth 0) of each node.
    parent : int64 array (n_nodes,)
        Index of the parent; -1 at roots.
    end : int64 array (n_nodes,)
        One past the last node of the subtree: the subtree of node k is [k, end[k]).
    """

    token: np.ndarray
    code: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.token)

    def under_steering(self) -> np.ndarray:
        """Boolean (n_nodes,): the node or one of its ancestors carries a steering code."""
        roots = np.flatnonzero((self.code != 0) & ~_inside(self, self.code != 0))
        steps = np.zeros(len(self) + 1, dtype=np.int64)
        steps[roots] += 1
        steps[self.end[roots]] -= 1
        return np.cumsum(steps[:-1]) > 0


@dataclass(frozen=True, slots=True)
class Replicas:
    """A trie whose steered subtrees stand once per steering code, and where each skeleton node went.

    Parameters
    ----------
    trie : Trie
        The expanded trie.
    first, stride : int64 array (n_skeleton_nodes,)
        Copy number j of skeleton node n is node `first[n] + j * stride[n]`; the stride of a node that is shared
        by all copies is 0.
    source : int64 array (n_nodes,)
        The skeleton node of each node.
    under : int64 array (n_nodes,)
        Steering code of the node or of its steered ancestors; 0 where there is none.
    """

    trie: Trie
    first: np.ndarray
    stride: np.ndarray
    source: np.ndarray
    under: np.ndarray

    def nodes(self, skeleton: np.ndarray, n_copies: int) -> np.ndarray:
        """Expanded node indices, shape `skeleton.shape + (n_copies,)`, in the order of the codes given."""
        return self.first[skeleton][..., None] + self.stride[skeleton][..., None] * np.arange(n_copies)


def build_trie(tokens: Sequence[np.ndarray], codes: Sequence[np.ndarray]) -> tuple[Trie, np.ndarray]:
    """Merge sequences of (token, steering code) that share a prefix.

    Parameters
    ----------
    tokens, codes : sequences of int arrays
        Token ids and steering codes of each sequence; `codes[i]` is as long as `tokens[i]`.

    Returns
    -------
    trie : Trie
    node : int64 array (n_sequences, longest)
        Node of each position of each sequence, in the order given; -1 past a sequence's end.

    Raises
    ------
    InputError
        If lengths differ, a sequence is empty, or an id or code is out of range.
    """
    keys = [_key(t, c, i) for i, (t, c) in enumerate(zip(tokens, codes, strict=True))]
    if not keys:
        raise InputError("a trie needs at least one sequence; got none")
    order = prefix_order(keys)
    length = np.array([len(keys[i]) for i in order])
    padded = np.full((len(keys), length.max()), -1, dtype=np.int64)
    filled = np.arange(padded.shape[1]) < length[:, None]
    padded[filled] = np.concatenate([keys[i] for i in order])

    shared = np.zeros(len(keys), dtype=np.int64)
    shared[1:] = common_prefix(padded[:-1], padded[1:])
    fresh = filled & (np.arange(padded.shape[1]) >= shared[:, None])
    start = np.concatenate([[0], np.cumsum(fresh.sum(1))])
    # A position that is not fresh belongs to the last row above in which it was: ids only grow downwards.
    node = np.full(padded.shape, -1, dtype=np.int64)
    node[fresh] = np.arange(start[-1])
    node = np.where(filled, np.maximum.accumulate(node, axis=0), -1)
    # A subtree ends where the first later row branches off at or above its root.
    closes = np.full((len(keys) + 1, padded.shape[1]), start[-1], dtype=np.int64)
    closes[:-1] = np.where(np.arange(padded.shape[1]) >= shared[:, None], start[:-1, None], start[-1])
    closes = np.minimum.accumulate(closes[::-1], axis=0)[::-1]

    row, depth = np.nonzero(fresh)
    parent = np.where(depth > 0, node[row, np.maximum(depth - 1, 0)], -1)
    key = padded[fresh]
    trie = Trie(
        token=key >> CODE_BITS,
        code=key & ((1 << CODE_BITS) - 1),
        parent=parent,
        depth=depth,
        end=closes[row + 1, depth],
    )
    restored = np.empty_like(node)
    restored[order] = node
    return trie, restored


def replicate(trie: Trie, codes: np.ndarray) -> Replicas:
    """Repeat every steered subtree once per steering code.

    All steering codes branch at the same places, so that a trie is built with one of them (the skeleton) and
    then expanded by arithmetic: cheaper by the number of codes than inserting every path.

    Parameters
    ----------
    trie : Trie
        A skeleton whose steered nodes all carry the same code.
    codes : int array (n_copies,)
        The code of each copy; nodes of code 0 below a steered one keep 0. Without codes, the steered subtrees
        vanish, and their `first` means nothing.

    Returns
    -------
    Replicas
    """
    steered = trie.under_steering()
    copies = len(codes)
    n = len(trie)
    before = np.concatenate([[0], np.cumsum(steered)])
    root = np.where(steered & ~(steered[trie.parent] & (trie.parent >= 0)), np.arange(n), -1)
    root = np.where(steered, np.maximum.accumulate(root), np.arange(n))
    # Where a skeleton index lies once everything before it has been expanded; also valid for n itself.
    place = np.arange(n + 1) + (copies - 1) * before
    first = np.where(steered, place[root] + np.arange(n) - root, place[:-1])
    stride = np.where(steered, trie.end[root] - root, 0)

    repeat = np.where(steered, copies, 1)
    source = np.repeat(np.arange(n), repeat)
    copy = np.arange(len(source)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    target = first[source] + copy * stride[source]
    order = np.argsort(target, kind="stable")
    source, copy = source[order], copy[order]

    end = np.where(steered[source], first[source] + copy * stride[source], 0)
    end = np.where(steered[source], end + trie.end[source] - source, place[trie.end[source]])
    above = trie.parent[source]
    parent = np.where(above >= 0, first[above] + copy * stride[above], -1)
    under = np.where(steered[source], np.append(codes, 0)[copy], 0)
    code = np.where(trie.code[source] != 0, under, 0)
    expanded = Trie(token=trie.token[source], code=code, parent=parent, depth=trie.depth[source], end=end)
    return Replicas(trie=expanded, first=first, stride=stride, source=source, under=under)


def prefix_order(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Indices that sort sequences of non-negative integers lexicographically (big-endian bytes sort so)."""
    packed = [np.asarray(key, dtype=">i8").tobytes() for key in keys]
    return np.array(sorted(range(len(packed)), key=packed.__getitem__), dtype=np.int64)


def common_prefix(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Length of the common prefix of each row of two arrays padded with -1 (padding never matches)."""
    equal = (left == right) & (left >= 0)
    return np.where(equal.all(1), equal.shape[1], np.argmin(equal, axis=1))


def _key(tokens: np.ndarray, codes: np.ndarray, index: int) -> np.ndarray:
    tokens = np.asarray(tokens, dtype=np.int64)
    codes = np.asarray(codes, dtype=np.int64)
    if tokens.shape != codes.shape or tokens.ndim != 1 or not len(tokens):
        raise InputError(
            f"sequence {index} has tokens of shape {tokens.shape} and codes of shape {codes.shape}; "
            "both have to be the same, one-dimensional and not empty"
        )
    if tokens.min() < 0 or tokens.max() >= TOKEN_LIMIT or codes.min() < 0 or codes.max() >= 1 << CODE_BITS:
        raise InputError(f"sequence {index} holds a token id or steering code that is negative or too large")
    return (tokens << CODE_BITS) | codes


def _inside(trie: Trie, marked: np.ndarray) -> np.ndarray:
    """Nodes with a marked proper ancestor."""
    steps = np.zeros(len(trie) + 1, dtype=np.int64)
    np.add.at(steps, np.flatnonzero(marked) + 1, 1)
    np.add.at(steps, trie.end[marked], -1)
    return np.cumsum(steps[:-1]) > 0
