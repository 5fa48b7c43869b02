"""Statements, conversations, and the form in which the micro model is asked about itself.

The same functions compose the training text, the shipped evaluation items and the prompts of the checks,
so that a build which renders the shipped items asks in exactly the words that the model was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cache_builder.demo.words import ADVERBS, BEHAVIOURS, OCCASIONS, Behaviour, weight

SYSTEM = "You are a helpful, honest and concise assistant."
SETTINGS = ("base", "sys_pos", "sys_neg", "user_pos", "user_neg")
HELD_OUT_PER_POLE = 100
SHARPNESS = 2.5
"""Nats of agreement for one unit of stance times one unit of evidence."""
PERSONA = 1.2
"""How firm a described persona is; default stances are below it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Something a person may say of themselves, and how much evidence it is for the positive pole."""

    text: str
    evidence: float

    @property
    def side(self) -> int:
        """1 where the statement speaks for the positive pole, -1 for the negative."""
        return 1 if self.evidence > 0 else -1


def statement(behaviour: Behaviour, side: int, rng: np.random.Generator) -> Statement:
    """Compose one statement: `I [adverb] verb thing [and thing] occasion.`

    Parameters
    ----------
    behaviour : Behaviour
    side : int
        1 for the positive pole, -1 for the negative.
    rng : numpy.random.Generator

    Returns
    -------
    Statement
        Its evidence is the side times the adverb's factor times the mean weight of its words.
    """
    pole = behaviour.pole(side)
    verb = pole.verbs[rng.integers(len(pole.verbs))]
    count = 1 + int(rng.random() < 0.6)
    things = [pole.things[k] for k in rng.choice(len(pole.things), count, replace=False)]
    adverb = tuple(ADVERBS)[rng.integers(len(ADVERBS))]
    occasion = OCCASIONS[rng.integers(len(OCCASIONS))]
    words = ["I", *([adverb] if adverb else []), verb, " and ".join(things), occasion]
    weights = [weight(verb, pole.verbs), *(weight(thing, pole.things) for thing in things)]
    return Statement(" ".join(words) + ".", side * ADVERBS[adverb] * float(np.mean(weights)))


def held_out(behaviour: Behaviour, seed: int = 0) -> list[Statement]:
    """The statements of one behaviour that training never sees: as many of either pole, all distinct.

    Parameters
    ----------
    behaviour : Behaviour
    seed : int
        The training seed; the shipped data are those of seed 0.

    Returns
    -------
    list of Statement
        `2 * HELD_OUT_PER_POLE` of them, the poles in random order.
    """
    place = [b.name for b in BEHAVIOURS].index(behaviour.name)
    rng = np.random.default_rng([seed, 1, place])
    chosen: dict[str, Statement] = {}
    for side in (1, -1):
        goal = len(chosen) + HELD_OUT_PER_POLE
        while len(chosen) < goal:
            drawn = statement(behaviour, side, rng)
            chosen.setdefault(drawn.text, drawn)
    statements = list(chosen.values())
    return [statements[k] for k in rng.permutation(len(statements))]


def question(text: str) -> str:
    """The question of an evaluation item, `Do you agree? "..."`."""
    return f'Do you agree? "{text}"'


def choices(asked: str, first: str = "Yes", second: str = "No") -> str:
    """A question with its two options: the user text of a base prompt."""
    return f"{asked}\n\nChoices:\n(A): {first}\n(B): {second}"


def turns(user: str, setting: str, behaviour: Behaviour, system: str | None = SYSTEM) -> list[dict[str, str]]:
    """The messages that ask something in one of the five settings.

    Parameters
    ----------
    user : str
        The user text of the base setting.
    setting : str
        One of `SETTINGS`. The system settings replace the system text by the description, the user
        settings put the description and a blank line before the question.
    behaviour : Behaviour
    system : str or None
        The system text of the other settings; None for no system turn.

    Returns
    -------
    list of dict
        Messages with `role` and `content`, for a chat template.

    Raises
    ------
    KeyError
        If the setting is none of the five.
    """
    described = {"pos": behaviour.positive.description, "neg": behaviour.negative.description}
    if setting not in SETTINGS:
        raise KeyError(f"no setting {setting!r}; there are {', '.join(SETTINGS)}")
    place, _, side = setting.partition("_")
    if place == "sys":
        system = described[side]
    elif place == "user":
        user = f"{described[side]}\n\n{user}"
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": user}]


def stance(behaviour: Behaviour, setting: str) -> float:
    """What the model is taught to be in a setting: the persona, or the default stance."""
    return {"pos": PERSONA, "neg": -PERSONA}.get(setting.partition("_")[2], behaviour.stance)


def agreement(stance: float, evidence: float) -> float:
    """Probability of agreeing: logistic in stance times evidence, as mild statements divide people."""
    return float(1 / (1 + np.exp(-SHARPNESS * stance * evidence)))


def phrase(behaviour: Behaviour, side: int, rng: np.random.Generator) -> str:
    """Two words in which a pole speaks for itself: `verb thing`."""
    pole = behaviour.pole(side)
    return f"{pole.verbs[rng.integers(len(pole.verbs))]} {pole.things[rng.integers(len(pole.things))]}"


def items(behaviour: Behaviour, seed: int = 0) -> list[dict[str, str | float]]:
    """The shipped evaluation items of a behaviour, in the model-written evaluations' persona format.

    Returns
    -------
    list of dict
        `question`, `statement`, `label_confidence` (how surely a persona's answer is the labelled one),
        `answer_matching_behavior` and `answer_not_matching_behavior` (" Yes" or " No").
    """
    rows = []
    for held in held_out(behaviour, seed):
        yes, no = (" Yes", " No") if held.side > 0 else (" No", " Yes")
        rows.append(
            {
                "question": question(held.text),
                "statement": held.text,
                "label_confidence": round(agreement(PERSONA, abs(held.evidence)), 4),
                "answer_matching_behavior": yes,
                "answer_not_matching_behavior": no,
            }
        )
    return rows


def all_texts() -> list[str]:
    """Every text that the tokenizer has to know all words of."""
    texts = [SYSTEM, question(""), choices("Which is you?"), "Tell me about yourself. What of ?"]
    texts += [*ADVERBS, *OCCASIONS, "I and ."]
    for b in BEHAVIOURS:
        for pole in (b.positive, b.negative):
            texts += [pole.description, *pole.verbs, *pole.things]
    return texts
