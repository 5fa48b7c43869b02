"""From examples to token layouts: which paths a row needs, where they lie, and which positions are asked for.

The trie layout and the plain layout (one sequence per line) answer the same questions, so that everything after
the layout is common to both. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache_builder.engine.requests import Example, Steering
from cache_builder.packing import Demand, Row
from cache_builder.trie import build_trie, prefix_order, replicate

FIRST, COMPLETION = 0, 1
HEAD = -1  # an option to take the common beginning from: any has it


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run returns: first-token scores, whole-completion sums, activations."""

    first: bool = True
    completions: bool = False
    reads: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """Tokens of one forward pass and the flat positions (line * length + column) that are asked for.

    Parameters
    ----------
    token, depth, end, code : int64 arrays (n_lines, length)
        Padding has code 0 and sees itself alone. `depth` is the position id.
    lengths : int64 array (n_lines,)
        Tokens of each line without padding.
    score_node : int64 array (n_scores, n_columns)
        Position that predicts each scored token; column 0 is the unsteered model where the row's `base` is set.
    score_target, score_kind, score_example, score_option : int64 arrays (n_scores,)
    columns : int64 array (n_columns,)
        Steering code of each column of `score_node`.
    read_node, read_slot : int64 arrays (n_reads,)
        Positions whose activations are read, and the (example, read) that each is averaged into, flat.
    read_weight : float32 array (n_reads,)
    is_trie : bool
        Whether lines need the interval mask.
    under : int64 array (length,) or None
        Tries only: the steering code of each node or of its steered ancestors.
    twin : int64 array (length,) or None
        Tries only: the unsteered node with the same tokens above it, from which a steered node does not differ
        before its first steered layer; an unsteered node's twin is itself. None without `twins`.
    spare : bool array (length,) or None
        Nodes that are there only as twins: nothing is asked of them once the last steered node has parted.
    """

    token: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    code: np.ndarray
    lengths: np.ndarray
    score_node: np.ndarray
    score_target: np.ndarray
    score_kind: np.ndarray
    score_example: np.ndarray
    score_option: np.ndarray
    columns: np.ndarray
    read_node: np.ndarray
    read_slot: np.ndarray
    read_weight: np.ndarray
    is_trie: bool
    under: np.ndarray | None = None
    twin: np.ndarray | None = None
    spare: np.ndarray | None = None


def demand_of(examples: Sequence[Example], steering: Steering | None, wanted: Wanted, *, share: bool) -> Demand:
    """Token counts that packing works with; without sharing, every path counts in full."""
    unsteered, prefix, steered = [], [], []
    for example in examples:
        base = [end for end in _base_ends(example, wanted) if end]
        branches = _score_ends(example, wanted)
        start = min(steering.steered_span(example)[0], example.branch) if steering else example.branch
        if share:
            unsteered.append(min(example.branch, max(base, default=0)) + _beyond(base, example.branch))
            steered.append(max(0, min(example.branch, max(branches, default=0)) - start))
            steered[-1] += _beyond(branches, max(example.branch, start))
            prefix.append(start if branches else 0)
        else:
            unsteered.append(sum(base))
            steered.append(sum(branches))
            prefix.append(0)
    common = [example.options[0][: example.branch] for example in examples]
    return Demand(common, np.array(unsteered), np.array(prefix), np.array(steered))


def lay_out(
    examples: Sequence[Example],
    steering: Steering | None,
    row: Row,
    wanted: Wanted,
    *,
    as_trie: bool,
    twins: bool = False,
    cut: bool = False,
) -> Layout:
    """Lay out one row as a trie, or as one line per sequence.

    Parameters
    ----------
    examples, steering, wanted
        As in the engine's `run`.
    row : Row
        Which examples and codes.
    as_trie : bool
        One line holding a trie, or one right-padded line per distinct sequence.
    twins : bool
        Give every steered node of a trie its unsteered twin, also where the row's unsteered outputs are not wanted.
    cut : bool
        Without a trie: every sequence ends with what is asked of it, since its numbers might be others in a longer one.
    """
    paths = _Paths()
    for index in row.examples:
        _add_example(paths, int(index), examples[index], steering if len(row.codes) else None, wanted, row.base, cut)
    n_real = len(paths.tokens)
    pairs = [(path, paths.twin(path)) for path in sorted(set(paths.steered) - {-1})] if twins else None
    base, steered = np.array(paths.base, dtype=np.int64), np.array(paths.steered, dtype=np.int64)
    position = np.array(paths.position, dtype=np.int64)
    read_path, read_position = np.array(paths.read_at, dtype=np.int64).reshape(-1, 2).T
    if as_trie:
        grid, locate = _place_trie(paths.tokens, paths.marks, row.codes, pairs, n_real)
    else:
        grid, locate = _place_lines(paths.tokens, paths.marks, row.codes, cut)
    columns = [locate(base, position)[:, :1]] if row.base else []
    if len(row.codes):
        columns.append(locate(steered, position))
    n_columns = len(row.codes) + row.base
    return Layout(
        **grid,
        score_node=np.concatenate(columns, axis=1) if len(position) else np.zeros((0, n_columns), dtype=np.int64),
        score_target=np.array(paths.target, dtype=np.int64),
        score_kind=np.array(paths.kind, dtype=np.int64),
        score_example=np.array(paths.example, dtype=np.int64),
        score_option=np.array(paths.option, dtype=np.int64),
        columns=np.concatenate([[0] if row.base else [], row.codes]).astype(np.int64),
        read_node=locate(read_path, read_position)[:, 0] if len(read_path) else np.zeros(0, dtype=np.int64),
        read_slot=np.array(paths.read_slot, dtype=np.int64),
        read_weight=np.array(paths.read_weight, dtype=np.float32),
        is_trie=as_trie,
    )


class _Paths:
    """Sequences of a row, and the lists of what is asked of them, filled example by example."""

    def __init__(self) -> None:
        self.tokens: list[np.ndarray] = []
        self.marks: list[np.ndarray] = []
        self.base: list[int] = []
        self.steered: list[int] = []
        self.position: list[int] = []
        self.target: list[int] = []
        self.kind: list[int] = []
        self.example: list[int] = []
        self.option: list[int] = []
        self.read_at: list[tuple[int, int]] = []
        self.read_slot: list[tuple[int, int]] = []
        self.read_weight: list[float] = []

    def add(self, tokens: np.ndarray, span: tuple[int, int | None] | None) -> int:
        mark = np.zeros(len(tokens), dtype=np.int64)
        if span is not None:
            mark[span[0] : span[1]] = 1
        self.tokens.append(tokens)
        self.marks.append(mark)
        return len(self.tokens) - 1

    def twin(self, path: int) -> int:
        """The same tokens without steering, as a path of their own (where they are there already, they merge)."""
        return self.add(self.tokens[path], None)


def _add_example(
    paths: _Paths,
    index: int,
    example: Example,
    steering: Steering | None,
    wanted: Wanted,
    take_base: bool,
    cut: bool,
) -> None:
    base: dict[int, int] = {}
    steered: dict[int, int] = {}
    scored = dict(enumerate(_score_ends(example, wanted)))
    if head := cut and wanted.first and wanted.completions:
        scored[HEAD] = example.branch
    ends = scored if cut else dict(enumerate(_base_ends(example, wanted)))
    for option, end in ends.items() if take_base else ():
        if end:
            base[option] = paths.add(example.options[option][:end], None)
    for option, end in scored.items() if steering is not None else ():
        if end:
            steered[option] = paths.add(example.options[option][:end], steering.steered_span(example))

    def ask(kind: int, option: int, path_option: int, position: int) -> None:
        paths.base.append(base.get(path_option, -1))
        paths.steered.append(steered.get(path_option, -1))
        paths.position.append(position)
        paths.target.append(int(example.options[option][position + 1]))
        paths.kind.append(kind)
        paths.example.append(index)
        paths.option.append(option)

    for option, ids in enumerate(example.options):
        if wanted.first:
            ask(FIRST, option, HEAD if head else 0, example.branch - 1)
        if wanted.completions:
            for position in range(example.prompt - 1, len(ids) - 1):
                ask(COMPLETION, option, option, position)
    if wanted.reads and take_base:
        for read, (option, start, stop) in enumerate(example.reads):
            path = paths.add(example.options[option][:stop], None) if cut else base[option]
            paths.read_at += [(path, position) for position in range(start, stop)]
            paths.read_slot += [(index, read)] * (stop - start)
            paths.read_weight += [1.0 / (stop - start)] * (stop - start)


def _score_ends(example: Example, wanted: Wanted) -> list[int]:
    """Tokens of each option that have to be run for its scores (the last one is predicted, never run)."""
    if wanted.completions:
        return [len(ids) - 1 for ids in example.options]
    return [example.branch if wanted.first and option == 0 else 0 for option in range(len(example.options))]


def _base_ends(example: Example, wanted: Wanted) -> list[int]:
    ends = _score_ends(example, wanted)
    for option, _, stop in example.reads if wanted.reads else ():
        ends[option] = max(ends[option], stop)
    return ends


def _beyond(ends: list[int], point: int) -> int:
    return sum(max(0, end - point) for end in ends)


def _place_trie(tokens, marks, codes, twins, n_real):
    skeleton, node = build_trie(tokens, marks)
    replicas = replicate(skeleton, codes)
    trie = replicas.trie
    grid = {"token": trie.token[None], "depth": trie.depth[None], "end": trie.end[None], "code": trie.code[None]}
    grid |= {"lengths": np.array([len(trie)]), "under": replicas.under}
    if twins is not None:
        twin = np.arange(len(skeleton))
        for steered, plain in twins:
            length = len(tokens[steered])
            twin[node[steered, :length]] = node[plain, :length]
        real = np.zeros(len(skeleton), dtype=bool)
        real[node[:n_real][node[:n_real] >= 0]] = True
        # A twin carries no code, so that it stands once, whatever the copy; an unsteered node is its own.
        grid["twin"] = replicas.first[twin[replicas.source]]
        grid["spare"] = ~real[replicas.source]
    return grid, lambda path, position: replicas.nodes(node[path, position], max(len(codes), 1))


def _place_lines(tokens, marks, codes, cut):
    """One line per sequence and code; unless they are cut, one that begins another reads from it instead."""
    keys = [2 * t + m for t, m in zip(tokens, marks)]
    order = prefix_order(keys)
    home = np.arange(len(keys))
    for this, following in zip(order[-2::-1], order[:0:-1]):
        width = len(keys[this])
        fits = width == len(keys[following]) if cut else width <= len(keys[following])
        if fits and np.array_equal(keys[this], keys[following][:width]):
            home[this] = home[following]
    first, stride, lines = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.int64), []
    for path in np.unique(home):
        copies = codes if marks[path].any() else np.zeros(1, dtype=np.int64)
        first[path], stride[path] = len(lines), int(marks[path].any())
        lines += [(tokens[path], marks[path] * code) for code in copies]
    first, stride = first[home], stride[home]
    length = max(len(line) for line, _ in lines)
    token = np.zeros((len(lines), length), dtype=np.int64)
    code = np.zeros_like(token)
    filled = np.zeros(len(lines), dtype=np.int64)
    for i, (line, mark) in enumerate(lines):
        token[i, : len(line)], code[i, : len(line)], filled[i] = line, mark, len(line)
    depth = np.broadcast_to(np.arange(length), token.shape)
    grid = {"token": token, "depth": depth, "code": code, "lengths": filled}
    grid["end"] = np.where(depth < filled[:, None], filled[:, None], depth + 1)

    def locate(path, position):
        line = first[path][:, None] + stride[path][:, None] * np.arange(max(len(codes), 1))
        return line * length + position[:, None]

    return grid, locate


def count_nodes(
    examples: Sequence[Example],
    steering: Steering | None,
    *,
    n_blocks: int | None = None,
) -> float:
    """Distinct (prefix, steering) nodes of all examples together: the floor of what has to be computed.

    With the number of decoder blocks, a steered node counts only for the blocks past its first steered layer: up to
    there it is no different from its unsteered twin.
    """
    row = Row(np.arange(len(examples)), np.arange(1, steering.n_codes if steering else 1), True, 0)
    layout = lay_out(examples, steering, row, Wanted(), as_trie=True)
    if n_blocks is None or steering is None:
        return int(layout.lengths.sum())
    return float((1 - (1 + steering.first_layers[layout.under]) / n_blocks).sum())
