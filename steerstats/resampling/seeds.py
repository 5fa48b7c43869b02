"""Random streams by name: what a dataset gets depends on the seed and on its name, never on the other datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from steerstats.errors import check_count


def generator(seed: int, *key: str) -> np.random.Generator:
    """A generator that depends on the seed and the key alone, never on the order in which things are drawn.

    The key enters through SHA-256, because Python's `hash` of a string differs between runs.

    Examples
    --------
    >>> from steerstats.resampling.seeds import generator
    >>> [int(generator(0, "gaps", name).integers(1000)) for name in ("likes-rain", "keeps-pets", "likes-rain")]
    [243, 670, 243]
    """
    return np.random.default_rng(_sequence(seed, key))


class NamedStreams(np.random.Generator):
    """A generator whose children belong to names: estimators over datasets spawn one child for each dataset.

    With plain `spawn` the third dataset gets the third stream, and leaving one dataset out changes the resamples of
    all that follow it.

    Parameters
    ----------
    seed : int
    purpose : str
        What the stream is for; two purposes never share one.
    names : sequence of str
        Names of the children, in the order in which they will be spawned.
    """

    def __init__(self, seed: int, purpose: str, names: Sequence[str]) -> None:
        super().__init__(np.random.PCG64(_sequence(seed, (purpose,))))
        self._seed, self._purpose, self._names, self._rounds = seed, purpose, tuple(names), 0

    def spawn(self, n_children: int) -> list[np.random.Generator]:
        """One child for each name, other ones at every call (a second model is resampled independently)."""
        if n_children != len(self._names):
            raise ValueError(f"{n_children} streams were asked for; {len(self._names)} are named")
        self._rounds += 1
        return [generator(self._seed, self._purpose, name, str(self._rounds)) for name in self._names]


def _sequence(seed: int, key: Sequence[str]) -> np.random.SeedSequence:
    words = np.frombuffer(hashlib.sha256("\n".join(key).encode()).digest(), dtype="<u4")
    return np.random.SeedSequence([check_count("seed", seed, at_least=0), *words.tolist()])
