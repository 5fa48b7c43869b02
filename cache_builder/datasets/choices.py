"""The (A)/(B) block at the end of a question: found, read, and swapped without touching anything else."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FIRST = re.compile(r"(?:^|\n)[ \t]*(\(A\))")
_BLOCK = re.compile(r"(?s)\(A\):?[ \t]*(?P<a>.*?)[ \t\r]*\n\s*\(B\):?[ \t]*(?P<b>.*?)\s*")
_MARKER = re.compile(
    r"\([A-Da-d]\)"  # another choice in brackets, or a reference to one
    r"|(?m:^[ \t]*[A-D][).:]\s)"  # a choice written as "A)" or "A."
    r"|(?i:\b(?:option|choice|answer)s?[ \t]+\(?[A-D]\b)"  # "choose option B"
)


@dataclass(frozen=True, slots=True)
class ChoiceBlock:
    """Where the final choices of a question are.

    Parameters
    ----------
    text : str
        The whole question.
    stem : str
        What stands before the block.
    a, b : tuple of int
        Start and end of the two options in `text`.
    """

    text: str
    stem: str
    a: tuple[int, int]
    b: tuple[int, int]

    @property
    def option_a(self) -> str:
        """The text behind (A)."""
        return self.text[slice(*self.a)]

    @property
    def option_b(self) -> str:
        """The text behind (B)."""
        return self.text[slice(*self.b)]

    @property
    def swappable(self) -> bool:
        """Whether nothing else in the question names a choice, and nothing but options follows the block.

        A question that embeds worked examples with choices of their own, or says "option B", would contradict
        itself after a swap.
        """
        return not names_choices(self.stem, self.option_a, self.option_b) and "\n" not in self.option_b

    def swapped(self) -> str:
        """The question with its two options exchanged."""
        text = self.text
        between = text[self.a[1] : self.b[0]]
        return text[: self.a[0]] + self.option_b + between + self.option_a + text[self.b[1] :]


def names_choices(*parts: str) -> bool:
    """Whether a question without its block, or an option, names a choice: "(A)", "option B", a line "C. ..."."""
    return any(_MARKER.search(part) for part in parts)


def find_choices(text: str) -> ChoiceBlock | None:
    """The last `(A) ... (B) ...` block of a question, or None if it does not end in one.

    Parameters
    ----------
    text : str
        A question as the advanced-ai-risk and sycophancy files hold it.
    """
    starts = [match.start(1) for match in _FIRST.finditer(text)]
    if not starts:
        return None
    offset = starts[-1]
    match = _BLOCK.fullmatch(text, offset)
    if match is None:
        return None
    return ChoiceBlock(text, text[:offset], match.span("a"), match.span("b"))
