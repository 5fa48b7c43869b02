"""Which option is A: the original's rule, a balanced one, or both orders of every question.

The A/B position of the positive answer is the strongest nuisance factor there is. The original alternates it by
position in the file; `balanced` crosses it with Yes/No; `counterbalance` asks every question both ways, so that
position is crossed within the question and no longer confounded between questions.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from cache_builder.datasets.choices import ChoiceBlock, find_choices, names_choices
from cache_builder.datasets.loaders import SourceItem
from cache_builder.datasets.pairs import ContrastPair, is_a, is_yes
from steerstats.errors import InputError

Order = Literal["tan2024", "balanced", "counterbalance"]


def make_pairs(items: Sequence[SourceItem], order: Order, seed: int = 0) -> tuple[list[ContrastPair], int]:
    """Give every source item its option order.

    Parameters
    ----------
    items : sequence of SourceItem
    order : {"tan2024", "balanced", "counterbalance"}
        `tan2024`: the published rule. Persona items have the positive option at B in records 0 and 1, at A in
        2 and 3, and so on (their Yes/No alternates with every record); TruthfulQA alternates, B first; files
        that carry choices stay as they are. `balanced`: half of the questions with a Yes, half of those with a
        No and half of the others have the positive option at A, drawn by content hash. `counterbalance`: both
        orders of every question, twin 0 with the positive option at A.
    seed : int
        Changes the draw of `balanced`, and nothing else.

    Notes
    -----
    Options are written as the file has them. Persona files write ` Yes` and ` No`, so that their choices read
    `(A):  Yes` with two spaces, in the original and here, in every order.

    Returns
    -------
    pairs : list of ContrastPair
        In file order; twins are neighbours. Items with free completions have no A/B and pass through.
    refused : int
        Questions left out because they name choices outside their final block, so that a swap would make
        them contradict themselves, or more than two of them, for which there is no swap. Always 0 for `tan2024`.
    """
    if order == "tan2024":
        return [_pair(item, _as_published(item), 0) for item in items], 0
    if order not in ("balanced", "counterbalance"):
        raise InputError(f"order {order!r} is not known; it is tan2024, balanced or counterbalance")
    kept = [item for item in items if _can_be_swapped(item)]
    refused = len(items) - len(kept)
    if order == "balanced":
        at_a = _balanced(kept, seed)
        return [_pair(item, at_a.get(item.row, True), 0) for item in kept], refused
    pairs = []
    for item in kept:
        pairs.append(_pair(item, True, 0))
        if item.layout != "free":
            pairs.append(_pair(item, False, 1))
    return pairs, refused


def content_key(question: str, seed: int) -> str:
    """Sort key that depends on the question and the seed, never on the file's order."""
    return hashlib.sha256(f"{seed}:{question}".encode()).hexdigest()


def _can_be_swapped(item: SourceItem) -> bool:
    if item.others:
        return find_choices(item.stem) is None
    if item.block is not None:
        return item.block.swappable
    return item.layout == "free" or not names_choices(item.stem, item.option_positive, item.option_negative)


def _as_published(item: SourceItem) -> bool:
    if item.block is not None:
        return bool(is_a(item.positive))
    if item.layout == "truthfulqa":
        return item.row % 2 == 1
    return (item.row // 2) % 2 == 1


def _balanced(items: Sequence[SourceItem], seed: int) -> dict[int, bool]:
    # alternating along the split's own order keeps the halves even inside train, validation and test, too
    cells = defaultdict(list)
    for item in items:
        if item.layout != "free":
            cells[is_yes(item.option_positive)].append(item)
    at_a = {}
    for yes, cell in cells.items():
        cell.sort(key=lambda item: (content_key(item.question, seed), item.row))
        first = int(content_key(str(yes), seed), 16) % 2
        at_a |= {item.row: (k + first) % 2 == 0 for k, item in enumerate(cell)}
    return at_a


def _pair(item: SourceItem, positive_at_a: bool, twin: int) -> ContrastPair:
    letters = _letters(item)
    positive, negative = letters if positive_at_a else letters[::-1]
    options = (item.option_positive, item.option_negative)
    a, b = options if positive_at_a else options[::-1]
    if item.layout == "free":
        text, positive, negative = item.stem, item.positive, item.negative
    elif item.block is not None:
        text = _ordered(item.block, item, positive_at_a)
    elif item.layout == "truthfulqa":
        text = f"{item.stem}\n\n(A) {a}\n(B) {b}"
    else:
        text = f"{item.stem}\n\nChoices:\n(A): {a}\n(B): {b}"
    # HDF5 cannot store a NUL, and the stored prompt has to be the one that was asked: replaced before asking
    parts = (text, positive, negative, *options, *item.others)
    text, positive, negative, *options = (part.replace("\0", "\ufffd") for part in parts)
    options, others = options[:2], tuple(options[2:])
    shown = tuple(option.strip() for option in options)
    return ContrastPair(
        id=f"{item.row:05d}{'b' if twin else ''}-{item.question[:8]}",
        question=item.question,
        text=text,
        positive=positive,
        negative=negative,
        pos_is_a=_at_a(item) if item.layout == "free" else positive_at_a,
        pos_is_yes=is_yes(shown[0]),
        len_positive=len(shown[0]),
        len_negative=len(shown[1]),
        option_positive=shown[0],
        option_negative=shown[1],
        row=item.row,
        twin=twin,
        factors=dict(item.factors),
        others=others,
        place=item.place,
    )


def _letters(item: SourceItem) -> tuple[str, str]:
    """How A and B are answered: as the file has it where it carries choices (`A`, `(A)`, ...), else in brackets."""
    if item.block is None:
        return "(A)", "(B)"
    return (item.positive, item.negative) if is_a(item.positive) else (item.negative, item.positive)


def _at_a(item: SourceItem) -> bool | None:
    """A or B is a factor where one answer is A and the other B, and nothing else is on offer."""
    positive, negative = is_a(item.positive), is_a(item.negative)
    apart = not item.others and None not in (positive, negative) and positive != negative
    return positive if apart else None


def _ordered(block: ChoiceBlock, item: SourceItem, positive_at_a: bool) -> str:
    return block.text if is_a(item.positive) == positive_at_a else block.swapped()
