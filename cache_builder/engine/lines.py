"""Lines of the plain path in parts: a model that goes by the longest sequence of its batch gets none that is longer.

Where padding or company changes a sequence's numbers (rotary frequencies that follow the longest sequence there is),
lines run in batches of one length, or one by one. Numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cache_builder.engine.plan import Layout

BATCHED, EQUAL, SINGLE = "batched", "equal", "single"
WAYS = {
    BATCHED: "in batches",
    EQUAL: "in batches of one length",
    SINGLE: "one at a time",
}
STRICTNESS = tuple(WAYS)


@dataclass(frozen=True, slots=True)
class Part:
    """Some lines of a layout, cut to their length.

    Parameters
    ----------
    layout : Layout
        Of these lines; what is asked of it are its reads alone.
    wanted : int64 array
        Positions asked for in this part.
    wanted_place, read_place : int64 array
        Which of all that is wanted, or read, these are.
    """

    layout: Layout
    wanted: np.ndarray
    wanted_place: np.ndarray
    read_place: np.ndarray


def parts_of(layout: Layout, wanted: np.ndarray, way: str) -> Iterator[Part]:
    """The lines of a layout of sequences in parts of equal length, or of one line each.

    Parameters
    ----------
    layout : Layout
        One sequence a line.
    wanted : int64 array
        Positions in it.
    way : str
        "equal" or "single".
    """
    groups = np.unique(layout.lengths, return_inverse=True)[1] if way == EQUAL else np.arange(len(layout.lengths))
    for group in range(groups.max() + 1):
        lines = np.flatnonzero(groups == group)
        length = int(layout.lengths[lines[0]])

        def place(node: np.ndarray, lines: np.ndarray = lines, length: int = length) -> tuple[np.ndarray, np.ndarray]:
            line, column = np.divmod(node, layout.token.shape[1])
            here = np.flatnonzero(np.isin(line, lines))
            return here, np.searchsorted(lines, line[here]) * length + column[here]

        (wanted_place, some), (read_place, read_node) = place(wanted), place(layout.read_node)
        grid = {name: getattr(layout, name)[lines, :length] for name in ("token", "depth", "end", "code")}
        part = replace(layout, **grid, lengths=layout.lengths[lines], read_node=read_node)
        yield Part(part, some, wanted_place, read_place)
