"""Which nodes of a trie go through which blocks: a steered branch is computed only from where it begins to differ.

Steering at layer L changes the output of block L. Up to there a steered node equals its unsteered twin (the same
tokens above it, no steering), so that blocks 0..L run on the twins alone; after block L the twin's activation is
copied to every steered node and steered there. Nothing is approximated: the copied numbers are those that the
block would have computed again. Vectors of different layers (a sweep) branch off one after the other. Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cache_builder.engine.plan import Layout

MOST_STAGES = 8  # with more layers than this, some codes branch off earlier than they have to


@dataclass(frozen=True, slots=True)
class Stage:
    """The nodes that go through blocks `first`..(the next stage's first - 1), in depth-first order.

    Parameters
    ----------
    first : int
        First block of the stage.
    node : int64 array (n,)
        Position of each node in the layout; -1 is padding.
    source : int64 array (n,)
        Where each node's activation comes from: a position of the stage before (of the first stage: itself).
    root : int64 array (n,)
        Position in the first stage with the same token and depth.
    depth, end : int64 array (n,)
        As in `Layout`, in positions of this stage.
    place : int64 array (n_layout,)
        Position in this stage of each position of the layout; -1 where it is not there.
    """

    first: int
    node: np.ndarray
    source: np.ndarray
    root: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.node)


def plan_stages(layout: Layout, birth: np.ndarray, *, round_to: int = 1) -> list[Stage]:
    """Stages of one trie row.

    Parameters
    ----------
    layout : Layout
        A single line; without twins there is one stage that holds everything.
    birth : int64 array (n_codes,)
        First layer that each steering code steers; entry 0 is not used.
    round_to : int
        Pad each stage to a multiple (compiled attention wants few lengths).
    """
    length = layout.token.shape[1]
    if layout.twin is None or not (layout.under > 0).any():
        born, cuts, twin = np.full(length, -1), np.array([], dtype=np.int64), np.arange(length)
        spare = np.zeros(length, dtype=bool)
    else:
        layers = np.unique(birth[layout.under[layout.under > 0]])
        # The earliest layer has to be among them: nobody may branch off late.
        cuts = layers[np.linspace(0, len(layers), min(MOST_STAGES, len(layers)), endpoint=False).astype(int)]
        born = np.where(layout.under > 0, cuts[np.searchsorted(cuts, birth[layout.under], side="right") - 1], -1)
        twin, spare = layout.twin, layout.spare
    stages: list[Stage] = []
    for number, cut in enumerate([-1, *cuts.tolist()]):
        there = born <= cut
        if number == len(cuts):
            there &= ~spare
        node = np.flatnonzero(there)
        place = np.where(there, np.cumsum(there) - 1, -1)
        before = np.concatenate([[0], np.cumsum(there)])
        extra = -len(node) % round_to
        own = np.arange(len(node), len(node) + extra)
        source = np.arange(len(node))
        root = source
        if stages:
            last = stages[-1]
            source = np.where(last.place[node] >= 0, last.place[node], last.place[twin[node]])
            root = last.root[source]
        stages.append(
            Stage(
                first=cut + 1,
                node=np.concatenate([node, np.full(extra, -1)]),
                source=np.concatenate([source, np.zeros(extra, dtype=np.int64)]),
                root=np.concatenate([root, np.zeros(extra, dtype=np.int64)]),
                depth=np.concatenate([layout.depth[0, node], np.zeros(extra, dtype=np.int64)]),
                end=np.concatenate([before[layout.end[0, node]], own + 1]),
                place=place,
            )
        )
    return stages


def node_blocks(stages: list[Stage], n_blocks: int) -> tuple[int, int]:
    """Evaluations of single blocks on single nodes that the stages need, with padding and without it."""
    ends = [stage.first for stage in stages[1:]] + [n_blocks]
    spans = [end - stage.first for stage, end in zip(stages, ends)]
    return (
        sum(len(stage) * span for stage, span in zip(stages, spans)),
        sum(int((stage.node >= 0).sum()) * span for stage, span in zip(stages, spans)),
    )
