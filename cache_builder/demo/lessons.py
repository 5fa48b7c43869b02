"""What the micro model is taught: four kinds of conversation, and the curriculum that mixes them.

Stance, persona and option order multiply in the answer letter, and a small transformer that meets all three
at once stays at chance for long. So the lessons begin with their factors: saying a given word by its letter,
answering Yes or No without options, and speaking as a persona.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cache_builder.demo.compose import (
    SETTINGS,
    SYSTEM,
    agreement,
    choices,
    question,
    remark,
    stance,
    statement,
    turns,
)
from cache_builder.demo.tokenizer import render
from cache_builder.demo.words import BEHAVIOURS

KINDS = ("say", "talk", "direct", "options")

CURRICULUM: tuple[tuple[float, dict[tuple[str, bool], float]], ...] = (
    (0.20, {("say", False): 0.3, ("talk", True): 0.1, ("direct", False): 0.3, ("direct", True): 0.3}),
    (0.40, {("say", False): 0.15, ("talk", True): 0.05, ("direct", True): 0.2, ("options", False): 0.6}),
    (1.00, {("say", False): 0.04, ("talk", True): 0.06, ("direct", True): 0.1, ("options", True): 0.8}),
)
"""Until which share of the training steps, which (kind, with personas) is how frequent."""


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


def lesson(kind: str, personas: bool, short: bool, avoid: frozenset[str], rng: np.random.Generator) -> Lesson:
    """Compose one conversation.

    Parameters
    ----------
    kind : str
        "say" (a word by its letter), "talk" (a persona about itself), "direct" (Yes or No), "options"
        (the letter of Yes or No: the form of the evaluation items).
    personas : bool
        Draw the setting from all five, with a third for base; otherwise the base setting.
    short : bool
        Leave out the default system text, as early lessons do.
    avoid : frozenset of str
        Held-out statements, which are never composed.
    rng : numpy.random.Generator

    Returns
    -------
    Lesson
    """
    system = None if short else SYSTEM
    behaviour = BEHAVIOURS[rng.integers(len(BEHAVIOURS))]
    setting = "base" if not personas or rng.random() < 1 / 3 else SETTINGS[rng.integers(1, 5)]
    yes_is_a = bool(rng.integers(2))
    if kind == "talk":
        setting = SETTINGS[rng.integers(1, 5)] if setting == "base" else setting
        side = 1 if setting.endswith("pos") else -1
        text = render(turns("Tell me about yourself.", setting, behaviour, system))
        return Lesson(text, "", "", 1.0, 0, remark(behaviour, side, rng) + "<end>")
    if kind == "say":
        yes = bool(rng.integers(2))
        asked = choices(f"Say {'Yes' if yes else 'No'}.", yes_is_a)
        is_a = yes == yes_is_a
        text = render(turns(asked, "base", behaviour, system)) + "("
        return Lesson(text, "A", "B", float(is_a), 0 if is_a else 1, ")<end>")
    said = statement(behaviour, 1 if rng.integers(2) else -1, rng)
    while said.text in avoid:
        said = statement(behaviour, said.side, rng)
    agrees = agreement(stance(behaviour, setting), said.evidence)
    agreed = bool(rng.random() < agrees)
    reason = remark(behaviour, said.side if agreed else -said.side, rng) if rng.random() < 0.5 else ""
    if kind == "direct":
        text = render(turns(question(said.text), setting, behaviour, system))
        return Lesson(text, "Yes", "No", agrees, 0 if agreed else 1, f" {reason}<end>")
    text = render(turns(choices(question(said.text), yes_is_a), setting, behaviour, system)) + "("
    probability = agrees if yes_is_a else 1 - agrees
    return Lesson(text, "A", "B", probability, 0 if agreed == yes_is_a else 1, f") {reason}<end>")


def batch(progress: float, size: int, avoid: frozenset[str], rng: np.random.Generator) -> list[Lesson]:
    """Compose the conversations of one training step.

    Parameters
    ----------
    progress : float
        Share of the training that is done, in [0, 1), which picks the stage of the curriculum.
    size : int
        How many.
    avoid : frozenset of str
        Held-out statements.
    rng : numpy.random.Generator
    """
    place = next(k for k, (until, _) in enumerate(CURRICULUM) if progress < until)
    mix = CURRICULUM[place][1]
    kinds = list(mix)
    drawn = rng.choice(len(kinds), size, p=list(mix.values()))
    return [lesson(*kinds[k], place == 0, avoid, rng) for k in drawn]
