"""Which examples and steering codes share a row: sorted so that prefixes meet, filled to a token budget.

A row is one forward pass over one trie. The budget is the row length with the best throughput (longer rows share
more and attend to more); a row may pass it where splitting would cost more than a fifth in recomputed prefix,
and may pass the ceiling, which is what memory allows, only when nothing is left to split. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache_builder.trie import common_prefix, prefix_order
from steerstats.errors import InputError

SPLIT_OVERHEAD = 0.2
SMALL_ROW = 0.7  # of the budget
ROOM = 1.03  # times the mean length of rows that are to be about equal: examples are not cut
PADDING = 0.02  # of a row's tokens, by which its sequences may be padded to the longest of them


@dataclass(frozen=True, slots=True)
class Demand:
    """Tokens that each example asks for.

    Parameters
    ----------
    common : sequence of int arrays
        The tokens that may be shared with other examples (prompt and common beginning of the answers).
    unsteered : int array (n_examples,)
        Nodes without steering that base scores and reads need.
    prefix : int array (n_examples,)
        Unsteered tokens above the first steered one: recomputed wherever the example's codes are split.
    steered : int array (n_examples,)
        Nodes that each steering code adds.
    """

    common: Sequence[np.ndarray]
    unsteered: np.ndarray
    prefix: np.ndarray
    steered: np.ndarray


@dataclass(frozen=True, slots=True)
class Row:
    """Examples (indices), steering codes, whether the unsteered outputs are taken here, and estimated tokens."""

    examples: np.ndarray
    codes: np.ndarray
    base: bool
    size: int

    @property
    def splittable(self) -> bool:
        """More than one example or more than one code."""
        return len(self.examples) > 1 or len(self.codes) > 1


def pack(
    demand: Demand,
    codes: np.ndarray,
    budget: int,
    *,
    ceiling: int | None = None,
    share: bool = True,
    base: bool = True,
    subset: np.ndarray | None = None,
    padding: float = PADDING,
) -> list[Row]:
    """Distribute examples and codes over rows.

    Parameters
    ----------
    demand : Demand
    codes : int array
        Steering codes (non-zero) to evaluate on every example.
    budget : int
        Wanted tokens per row.
    ceiling : int, optional
        Tokens per row that memory allows.
    share : bool
        False for one-sequence-per-line passes, where nothing is shared and examples are sorted by length.
    base : bool
        Whether unsteered outputs are wanted.
    subset : int array, optional
        Only these examples.
    padding : float
        Without sharing, a row ends where its sequences would be padded by more than this part of their tokens.

    Returns
    -------
    list of Row
        Deterministic: the same arguments give the same rows.

    Raises
    ------
    InputError
        If the budget is not positive.
    """
    if budget < 1:
        raise InputError(f"token budget {budget} has to be at least 1")
    examples = np.arange(len(demand.common)) if subset is None else np.asarray(subset)
    codes = np.asarray(codes, dtype=np.int64)
    ways = _ways(demand, examples, len(codes), budget, ceiling)
    rows: list[Row] = []
    for k in np.unique(ways):
        pool = _sorted_pool(demand, examples[ways == k], share)
        # One code per row costs no prefix when steering starts at the first token, and then examples can share
        # their steered prefixes as well; so both ways are counted, and the cheaper one is taken: of two that count the
        # same the one with fewer rows, which repeats fewer of the nodes that steered ones begin from (see `stages`).
        groups = [np.array_split(codes, n) for n in sorted({k, len(codes)}) if n]
        plans = [_fill(demand, pool, some, budget, share, base, padding) for some in groups]
        rows += min(plans, key=lambda plan: sum(row.size for row in plan))
    return rows


def _ways(demand: Demand, examples: np.ndarray, n_codes: int, budget: int, ceiling: int | None) -> np.ndarray:
    """Into how many groups each example's codes are split."""
    whole = demand.unsteered[examples] + n_codes * demand.steered[examples]
    ways = np.ones(len(examples), dtype=np.int64)
    for i in np.flatnonzero(whole > min(budget, ceiling or budget)):
        prefix, steered = demand.prefix[examples[i]], max(demand.steered[examples[i]], 1)
        alone = max(demand.unsteered[examples[i]], prefix)
        wanted = -(-n_codes // max(1, (budget - alone) // steered)) if n_codes else 1
        affordable = 1 + int(SPLIT_OVERHEAD * whole[i] / max(prefix, 1))
        ways[i] = max(1, min(wanted, affordable))
        if ceiling is not None and n_codes:
            ways[i] = max(ways[i], -(-n_codes // max(1, (ceiling - alone) // steered)))
        ways[i] = min(ways[i], max(n_codes, 1))
    return ways


def _sorted_pool(demand: Demand, examples: np.ndarray, share: bool) -> np.ndarray:
    if share:
        return examples[prefix_order([demand.common[i] for i in examples])]
    return examples[np.argsort([len(demand.common[i]) for i in examples], kind="stable")]


def _fill(
    demand: Demand,
    pool: np.ndarray,
    groups: Sequence[np.ndarray],
    budget: int,
    share: bool,
    base: bool,
    padding: float,
) -> list[Row]:
    """Greedy rows over a sorted pool, once per group of codes."""
    unsteered, prefix, steered = demand.unsteered[pool], demand.prefix[pool], demand.steered[pool]
    met = _met_before(demand, pool) if share else np.zeros(len(pool), dtype=np.int64)
    # Tries are not padded; sequences, sorted by length, are padded to the last one of a row.
    lengths = None if share else [len(demand.common[i]) for i in pool]
    # Steered nodes are shared only below the point where both examples are already steered.
    new_steered = steered - np.clip(np.minimum(met - prefix, steered), 0, None)
    rows = []
    for index, group in enumerate(groups):
        take_base = base and index == 0
        roots = unsteered if take_base else prefix
        full = roots + len(group) * steered
        added = roots - np.minimum(met, roots) + len(group) * new_steered
        cuts = _greedy(added, full, budget, lengths, padding)
        if len(cuts) > 1 and cuts[-1][2] < SMALL_ROW * budget:
            # Rows of about equal length, where that makes no more of them: a short last row keeps no device busy.
            wanted = -(-sum(size for _, _, size in cuts) // len(cuts))
            even = _greedy(added, full, min(budget, int(ROOM * wanted) + 1), lengths, padding)
            cuts = even if len(even) == len(cuts) else cuts
        rows += [Row(pool[begin:end], group, take_base, size) for begin, end, size in cuts]
    return rows


def _greedy(
    added: np.ndarray, full: np.ndarray, budget: int, lengths: Sequence[int] | None, padding: float
) -> list[tuple[int, int, int]]:
    """Begin, end and tokens of each row over examples that cost `full` at the head of a row and `added` after it.

    With `lengths`, ascending, a row also ends where its examples would be padded by more than that part of them.
    """
    added, full = added.tolist(), full.tolist()
    cuts, begin, size, filled = [], 0, 0, 0
    for i, (more, whole) in enumerate(zip(added, full)):
        length = lengths[i] if lengths else 0
        if size and (size + more > budget or (i - begin) * length > (1 + padding) * filled):
            cuts.append((begin, i, size))
            begin, size, filled = i, 0, 0
        size += more if size else whole
        filled += length
    return [*cuts, (begin, len(added), size)]


def _met_before(demand: Demand, pool: np.ndarray) -> np.ndarray:
    """Length of the prefix that each example shares with the one before it in the pool."""
    met = np.zeros(len(pool), dtype=np.int64)
    width = max(len(demand.common[i]) for i in pool)
    # In blocks, so that memory stays bounded on large datasets.
    for start in range(0, len(pool) - 1, 1024):
        block = pool[start : start + 1025]
        padded = np.full((len(block), width), -1, dtype=np.int64)
        for line, i in enumerate(block):
            padded[line, : len(demand.common[i])] = demand.common[i]
        met[start + 1 : start + len(block)] = common_prefix(padded[:-1], padded[1:])
    return met
