"""What a contrast pair is, and the nuisance factors that each one carries.

A pair is one user turn with two completions. Whether the positive answer happens to be A, or Yes, or the longer
option, is recorded with the pair, because these accidents explain a good part of what steering seems to do.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ContrastPair:
    """One question with its positive and its negative completion.

    Parameters
    ----------
    id : str
        Unique in its dataset, the same in every run.
    question : str
        Hash of the stem with its options unordered (`question_hash`): equal for duplicates and for the two
        orders of a counterbalanced question. It is the unit of splitting and of resampling.
    text : str
        The user turn, choices included.
    positive, negative : str
        Completions without leading space, `"(A)"` and `"(B)"` for choices.
    pos_is_a, pos_is_yes : bool or None
        Nuisance factors; None where the pair has no A/B, or where the positive option is neither Yes nor No.
    len_positive, len_negative : int
        Characters of the two options.
    option_positive, option_negative : str
        The options themselves, trimmed.
    row : int
        Record in the source file, from 0.
    twin : int
        1 for the second order of a counterbalanced question, else 0.
    factors : dict
        The user's own nuisance factors.
    others : tuple of str
        Further wrong completions, where a question has more than two options.
    place : str
        File and line (or record) that the pair comes from, for messages.
    """

    id: str
    question: str
    text: str
    positive: str
    negative: str
    pos_is_a: bool | None
    pos_is_yes: bool | None
    len_positive: int
    len_negative: int
    option_positive: str
    option_negative: str
    row: int
    twin: int = 0
    factors: dict[str, str | float | bool] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    place: str = ""

    @property
    def completions(self) -> tuple[str, ...]:
        """Every completion, the positive one first."""
        return (self.positive, self.negative, *self.others)


def normalise(text: str) -> str:
    """Words only: compatibility forms, case, punctuation and spacing do not make another question."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def question_hash(stem: str, options: tuple[str, ...]) -> str:
    """Content hash of a question, whatever the order of its options.

    Parameters
    ----------
    stem : str
        The question without its options.
    options : tuple of str
        The options in any order.

    Returns
    -------
    str
        16 hexadecimal digits. Text without any word (symbols only) is hashed as it stands.
    """
    words = [normalise(part) or part.strip() for part in (_without_header(stem), *options)]
    message = "\x1f".join([words[0], *sorted(words[1:])])
    return hashlib.sha256(message.encode()).hexdigest()[:16]


def is_a(completion: str) -> bool | None:
    """True for A, False for B, None for anything else; ` (A)`, `(a):` and `A.` are all A."""
    match = re.fullmatch(r"\s*\(?\s*([ABab])\s*\)?\s*[.:]?\s*", completion)
    return None if match is None else match[1] in "Aa"


def is_yes(option: str) -> bool | None:
    """True for Yes, False for No, None for anything else, however it begins.

    The whole option counts: `Yes.` is Yes, and `Yes, because I care` is neither Yes nor No.
    """
    word = re.sub(r"^\W+|\W+$", "", option).casefold()
    return {"yes": True, "no": False}.get(word)


def _without_header(stem: str) -> str:
    # "Choices:", "Answer options:" and their like introduce the options and are no part of what is asked
    return re.sub(r"(?i)\n[^\n\w]*(?:possible |answer )?(?:choices|options|answers)[^\n\w]*\s*$", "", stem)
