"""Train, validation and test by content: duplicates of one question never straddle, and quotas are exact.

The evaluation files hold many copies of the same question, exact or up to order and punctuation. Splitting by
position, or by anything that tells copies apart, would test on what was trained on.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cache_builder.datasets.order import content_key
from cache_builder.datasets.pairs import ContrastPair
from steerstats.errors import InputError


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of one dataset.

    Parameters
    ----------
    train, validation, test : tuple of ContrastPair
        In file order; in the original's shuffled order for `tan2024-literal`.
    rule : str
        `content 40/10/50` or `tan2024-literal`.
    overlap : int
        Test pairs whose question is also a training question: 0 except for `tan2024-literal`.
    """

    train: tuple[ContrastPair, ...]
    validation: tuple[ContrastPair, ...]
    test: tuple[ContrastPair, ...]
    rule: str
    overlap: int

    def describe(self) -> dict[str, int | str]:
        """Counts for provenance and for the report."""
        return {
            "rule": self.rule,
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
            "overlap": self.overlap,
        }


def split_pairs(
    pairs: Sequence[ContrastPair],
    rule: str = "content",
    percent: tuple[int, int, int] = (40, 10, 50),
    seed: int = 0,
    limit: int | None = None,
) -> Split:
    """Divide the pairs of one dataset.

    Parameters
    ----------
    pairs : sequence of ContrastPair
        With both twins of counterbalanced questions, which stay together.
    rule : {"content", "tan2024-literal"}
        `content`: questions in the order of a hash of their content and the seed go to the first part that
        has room for all their copies. Parts therefore hold exactly their quota of source records, unless a
        dataset is nearly all copies, when they stay below it. `tan2024-literal`: the original code's
        reading of its own settings: records shuffled with Python's `random.Random(seed)`, training
        `"0:50%"`, test `"50:100%"` read as record 50 to the end, so that the two overlap (450 of 950 test
        records at n = 1000); no validation part.
    percent : tuple of int
        Train, validation and test in percent of the source records, 100 in all; for `content`.
    seed : int
        Another seed gives another split.
    limit : int, optional
        Use at most so many source records, for quick runs: the first ones in the split's own order.

    Returns
    -------
    Split

    Raises
    ------
    InputError
        If percent does not add up to 100, or train or test would be empty.
    """
    if sum(percent) != 100 or min(percent) < 0:
        raise InputError(f"split percentages {percent} must be three shares that add up to 100")
    if rule == "content":
        split = _by_content(pairs, percent, seed, limit)
    elif rule == "tan2024-literal":
        split = _literal(pairs, seed, limit)
    else:
        raise InputError(f"split {rule!r} is not known; it is content or tan2024-literal")
    for part in ("train", "test"):
        if not getattr(split, part):
            limited = "" if limit is None or limit >= len(pairs) else f"raise limit = {limit}: "
            least = 51 if rule == "tan2024-literal" else _fewest(percent)
            how = f"at least {least} different questions are needed" if least else f"{percent} leaves nothing for it"
            raise InputError(f"the {part} part of {len(pairs)} pairs is empty; {limited}{how}")
    return split


def quotas(n: int, percent: tuple[int, int, int]) -> tuple[int, int, int]:
    """Records of each part: rounded down for train and validation, the rest is test."""
    train, validation = n * percent[0] // 100, n * percent[1] // 100
    return train, validation, n - train - validation


def _fewest(percent: tuple[int, int, int]) -> int | None:
    """The number of records from which train and test both hold one, None where no number is enough."""
    return next((n for n in range(2, 201) if all(quotas(n, percent)[::2])), None)


def _by_content(pairs: Sequence[ContrastPair], percent: tuple[int, int, int], seed: int, limit: int | None) -> Split:
    rows = defaultdict(set)
    for pair in pairs:
        rows[pair.question].add(pair.row)
    ordered = sorted(rows, key=lambda question: content_key(question, seed))
    if limit is not None:
        ordered = _first(ordered, rows, limit)
    room = list(quotas(sum(len(rows[question]) for question in ordered), percent))
    part_of = {}
    for question in ordered:
        copies = len(rows[question])
        # the test part, which is last and largest, takes what fits nowhere; train and validation never exceed
        part = next((k for k in (0, 1, 2) if room[k] >= copies), 2)
        room[part] -= copies
        part_of[question] = part
    parts = [tuple(p for p in pairs if part_of.get(p.question) == k) for k in (0, 1, 2)]
    return Split(*parts, rule=f"content {'/'.join(map(str, percent))}", overlap=_overlap(parts[0], parts[2]))


def _first(ordered: list[str], rows: dict[str, set[int]], limit: int) -> list[str]:
    chosen, room = [], limit
    for question in ordered:
        if len(rows[question]) <= room:
            chosen.append(question)
            room -= len(rows[question])
    return chosen


def _literal(pairs: Sequence[ContrastPair], seed: int, limit: int | None) -> Split:
    records = defaultdict(list)
    for pair in pairs:
        records[pair.row].append(pair)
    shuffled = [records[row] for row in sorted(records)]
    random.Random(seed).shuffle(shuffled)
    shuffled = shuffled[:limit]
    train = tuple(pair for record in shuffled[: 50 * len(shuffled) // 100] for pair in record)
    test = tuple(pair for record in shuffled[50:] for pair in record)
    return Split(train, (), test, rule="tan2024-literal", overlap=_overlap(train, test))


def _overlap(train: Sequence[ContrastPair], test: Sequence[ContrastPair]) -> int:
    trained = {pair.question for pair in train}
    return sum(pair.question in trained for pair in test)
