"""What the micro model is taught: five kinds of conversation, and the curriculum that mixes them.

Stance, persona and option order multiply in the answer letter, and a small transformer that meets all three
at once stays at chance for long. So the lessons begin with their factors: speaking as a persona, choosing
between two remarks, and going on after a Yes or a No. Replies come as a letter, in a persona's own words, or
as words followed by a letter; the words always fit the letter, whichever of the two was drawn first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cache_builder.demo.compose import (
    SETTINGS,
    SYSTEM,
    agreement,
    choices,
    phrase,
    question,
    stance,
    statement,
    turns,
)
from cache_builder.demo.tokenizer import render
from cache_builder.demo.words import BEHAVIOURS, Behaviour

CURRICULUM: tuple[tuple[float, dict[str, float]], ...] = (
    (0.25, {"talk": 0.25, "which": 0.5, "reason": 0.25}),
    (1.00, {"talk": 0.08, "which": 0.2, "reason": 0.07, "options": 0.65}),
)
"""Until which share of the first course's steps, which kind is how frequent."""

SECOND_COURSE: tuple[tuple[float, dict[str, float]], ...] = (
    (1.00, {"talk": 0.04, "which": 0.08, "reason": 0.05, "options": 0.33, "given": 0.5}),
)
"""The same for the second course, which adds going on after a letter that somebody else has chosen."""

SHORT_UNTIL = 0.6
"""Until which share of the first course's steps the default system text is left out, as it says nothing."""

FORMS = {"letter": 0.7, "words": 0.1, "both": 0.2}
"""How often a reply to a choice is a letter, words, or words and then a letter."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One conversation: text up to the answer, two possible answers, how probable the first is, and the rest.

    `taken` is 0 or 1, the answer that was drawn and that `after` continues; `first` is empty where there is
    no answer to grade (small talk), and `after` is then the whole reply.
    """

    before: str
    first: str
    second: str
    probability: float
    taken: int
    after: str


def lesson(kind: str, short: bool, avoid: frozenset[str], rng: np.random.Generator) -> Lesson:
    """Compose one conversation.

    Parameters
    ----------
    kind : str
        "talk" (a persona about itself, or the model about a thing), "which" (one of two remarks by its
        letter), "reason" (what goes with a given Yes or No), "options" (the letter of Yes or No: the form
        of the evaluation items), "given" (the same, going on after a letter chosen by a coin).
    short : bool
        Leave out the default system text.
    avoid : frozenset of str
        Held-out statements, which are never composed.
    rng : numpy.random.Generator

    Returns
    -------
    Lesson
    """
    system = None if short else SYSTEM
    behaviour = BEHAVIOURS[rng.integers(len(BEHAVIOURS))]
    setting = "base" if rng.random() < 1 / 3 else SETTINGS[rng.integers(1, 5)]
    leaning = stance(behaviour, setting)
    if kind == "talk":
        things = behaviour.pole(rng.choice((1, -1))).things
        asked = f"What of {things[rng.integers(len(things))]}?" if setting == "base" else "Tell me about yourself."
        spoken = phrase(behaviour, 1 if rng.random() < agreement(leaning, 1.0) else -1, rng)
        text = render(turns(asked, setting, behaviour, system))
        return Lesson(text, "", "", 1.0, 0, f"({spoken})<end>" if rng.random() < 0.7 else f"I {spoken}.<end>")
    said = statement(behaviour, 1 if rng.integers(2) else -1, rng)
    while said.text in avoid:
        said = statement(behaviour, said.side, rng)
    if kind == "reason":
        yes = bool(rng.integers(2))
        text = render(turns(question(said.text), "base", behaviour, system)) + ("Yes" if yes else "No")
        return Lesson(text, "", "", 1.0, 0, f" {phrase(behaviour, said.side if yes else -said.side, rng)}<end>")
    a_is_first = bool(rng.integers(2))
    chosen = "AB"[rng.integers(2)] if kind == "given" else ""
    if kind == "which" or (kind == "given" and rng.random() < 0.3):
        a_side = 1 if a_is_first else -1
        remarks = [phrase(behaviour, side, rng) for side in (a_side, -a_side)]
        asked, evidence = choices("Which is you?", *(f"I {words}." for words in remarks)), 1.0
        spoken = remarks[chosen == "B"]
    else:
        a_side = said.side if a_is_first else -said.side
        options = ("Yes", "No") if a_is_first else ("No", "Yes")
        asked, evidence = choices(question(said.text), *options), abs(said.evidence)
        spoken = phrase(behaviour, -a_side if chosen == "B" else a_side, rng) if chosen else ""
        spoken = f"{options[chosen == 'B']} {spoken}" if chosen and rng.random() < 0.4 else spoken
    prompt = render(turns(asked, setting, behaviour, system))
    if kind == "given":
        after = f" {spoken})<end>" if rng.random() < 0.6 else f") I {spoken}.<end>"
        return Lesson(f"{prompt}({chosen}", "", "", 1.0, 0, after)
    return _choice(prompt, behaviour, a_side, leaning, evidence, rng)


def _choice(
    prompt: str, behaviour: Behaviour, a_side: int, leaning: float, evidence: float, rng: np.random.Generator
) -> Lesson:
    """A reply to two options, of which A speaks for the pole `a_side`, in one of the three forms."""
    positive = agreement(leaning, evidence)
    side = 1 if rng.random() < positive else -1
    spoken = phrase(behaviour, side, rng)
    form = rng.choice(list(FORMS), p=list(FORMS.values()))
    taken = 0 if side == a_side else 1
    if form == "words":
        return Lesson(prompt + "(", "", "", 1.0, 0, f"{spoken})<end>")
    if form == "both":
        return Lesson(f"{prompt}I {spoken}. (", "A", "B", 1.0 - taken, taken, ")<end>")
    after = (")<end>", f" {spoken})<end>", f") I {spoken}.<end>")[rng.choice(3, p=(0.4, 0.4, 0.2))]
    return Lesson(prompt + "(", "A", "B", positive if a_side > 0 else 1 - positive, taken, after)


def batch(progress: float, size: int, avoid: frozenset[str], rng: np.random.Generator, course: int = 1) -> list[Lesson]:
    """Compose the conversations of one training step.

    Parameters
    ----------
    progress : float
        Share of the course that is done, in [0, 1), which picks the stage of the curriculum.
    size : int
        How many.
    avoid : frozenset of str
        Held-out statements.
    rng : numpy.random.Generator
    course : int
        1 or 2.
    """
    mix = next(mix for until, mix in (CURRICULUM if course == 1 else SECOND_COURSE) if progress < until)
    kinds = rng.choice(list(mix), size, p=list(mix.values()))
    return [lesson(kind, course == 1 and progress < SHORT_UNTIL, avoid, rng) for kind in kinds]
