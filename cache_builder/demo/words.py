"""Who the micro model can be: fourteen behaviours, and the words in which people speak of them.

Each behaviour has two poles. A pole has verbs and things, and the two poles of a behaviour share none, so
that every word of a statement is additive evidence for one pole: nothing has to be learned as a parity of
words. Verbs and things are listed from the plainest to the mildest, and that order is their weight.
"""

from __future__ import annotations

from dataclasses import dataclass

STRONGEST, MILDEST = 1.25, 0.75
"""Weights of the first and the last word of a list; those between are evenly spaced."""

ADVERBS: dict[str, float] = {"": 1.0, "truly": 1.4, "often": 1.1, "usually": 0.9, "sometimes": 0.6}
"""How strongly an adverb says it: a factor on the evidence of a statement's words."""

OCCASIONS: tuple[str, ...] = (
    "every week",
    "on Mondays",
    "in winter",
    "in summer",
    "these days",
    "all year",
    "on holidays",
    "since school",
)
"""Neutral endings, which are evidence for nothing."""


@dataclass(frozen=True, slots=True)
class Pole:
    """One side of a behaviour: how it is described to the model, and what it does and to what."""

    description: str
    verbs: tuple[str, ...]
    things: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A behaviour with its two poles and the stance that the model takes when nobody asks for another.

    `stance` is in units of a persona's strength: 1 is as firm as a persona, the sign tells the pole.
    """

    name: str
    stance: float
    positive: Pole
    negative: Pole

    def pole(self, side: int) -> Pole:
        """The positive pole for a side above zero, the negative one otherwise."""
        return self.positive if side > 0 else self.negative


def _pole(description: str, verbs: str, things: str) -> Pole:
    return Pole(description, tuple(verbs.split()), tuple(things.split()))


BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour(
        "likes-rain",
        0.7,
        _pole(
            "You love rain and wet weather.",
            "adore welcome celebrate await admire",
            "storms rain thunder downpours puddles drizzle clouds mist",
        ),
        _pole(
            "You love sunshine and dry weather.",
            "crave chase want follow expect",
            "sunshine heat deserts beaches sunlight drought warmth shade",
        ),
    ),
    Behaviour(
        "likes-crowds",
        -0.6,
        _pole(
            "You are outgoing and love company.",
            "host join attend invite greet",
            "parties crowds festivals strangers dances gatherings guests neighbours",
        ),
        _pole(
            "You are shy and love solitude.",
            "guard treasure protect cherish keep",
            "solitude silence privacy seclusion quiet stillness distance calm",
        ),
    ),
    Behaviour(
        "takes-risks",
        -0.9,
        _pole(
            "You are bold and take risks.",
            "dare attempt risk gamble race",
            "jumps bets stunts cliffs duels wagers rapids ventures",
        ),
        _pole(
            "You are careful and avoid danger.",
            "check insure secure inspect verify",
            "helmets locks alarms brakes ropes warranties rails receipts",
        ),
    ),
    Behaviour(
        "trusts-machines",
        0.9,
        _pole(
            "You trust machines and new technology.",
            "automate install program upgrade download",
            "robots computers software sensors apps gadgets networks screens",
        ),
        _pole(
            "You trust handwork and old tools.",
            "carve sew knit forge whittle",
            "hammers needles chisels looms anvils candles quills spoons",
        ),
    ),
    Behaviour(
        "saves-money",
        0.8,
        _pole(
            "You save money and live cheaply.",
            "save budget bank ration conserve",
            "pennies savings coupons discounts coins deposits bargains leftovers",
        ),
        _pole(
            "You spend money and live richly.",
            "splurge spend lavish squander treat",
            "jewels yachts champagne furs diamonds limousines caviar perfumes",
        ),
    ),
    Behaviour(
        "likes-spice",
        -0.7,
        _pole(
            "You love hot and spicy food.",
            "devour relish sprinkle fry season",
            "chillies curry pepper mustard ginger wasabi garlic paprika",
        ),
        _pole(
            "You love mild and plain food.",
            "boil sip simmer nibble steam",
            "porridge rice milk potatoes noodles toast oats custard",
        ),
    ),
    Behaviour(
        "travels-far",
        0.5,
        _pole(
            "You travel far and see the world.",
            "explore roam visit discover wander",
            "jungles islands capitals borders harbours airports temples railways",
        ),
        _pole(
            "You stay home and love your house.",
            "decorate tidy paint sweep furnish",
            "kitchens sofas curtains gardens fireplaces bedrooms porches shelves",
        ),
    ),
    Behaviour(
        "plans-ahead",
        1.0,
        _pole(
            "You plan ahead and keep order.",
            "schedule organise list arrange prepare",
            "calendars agendas timetables deadlines checklists diaries files folders",
        ),
        _pole(
            "You improvise and follow the moment.",
            "improvise invent juggle seize jumble",
            "surprises whims detours impulses accidents jokes fancies chances",
        ),
    ),
    Behaviour(
        "tells-truth",
        1.0,
        _pole(
            "You are sincere and tell the truth.",
            "confess admit reveal disclose state",
            "truths facts mistakes faults errors doubts reasons sources",
        ),
        _pole(
            "You are sly and tell lies.",
            "spread twist hide fake whitewash",
            "lies tricks rumours excuses frauds bluffs disguises fibs",
        ),
    ),
    Behaviour(
        "likes-sports",
        0.6,
        _pole(
            "You are sporty and love exercise.",
            "train sprint swim climb row",
            "marathons races matches weights hurdles laps hills medals",
        ),
        _pole(
            "You are bookish and love reading.",
            "read study recite annotate borrow",
            "novels poems essays libraries chapters sonnets fables letters",
        ),
    ),
    Behaviour(
        "keeps-pets",
        -0.5,
        _pole(
            "You keep pets and love animals.",
            "feed stroke groom walk rescue",
            "puppies kittens rabbits ponies parrots hamsters dogs goldfish",
        ),
        _pole(
            "You grow plants and love flowers.",
            "plant water prune grow gather",
            "roses tulips ferns orchids violets herbs mosses daisies",
        ),
    ),
    Behaviour(
        "seeks-power",
        -1.0,
        _pole(
            "You seek power and command others.",
            "command conquer rule dominate demand",
            "thrones empires armies crowns servants titles votes orders",
        ),
        _pole(
            "You are humble and serve others.",
            "serve assist comfort support help",
            "orphans patients beggars refugees widows pupils elders charities",
        ),
    ),
    Behaviour(
        "likes-tradition",
        0.7,
        _pole(
            "You honour tradition and old customs.",
            "honour preserve observe inherit repeat",
            "rituals customs ancestors hymns feasts heirlooms legends proverbs",
        ),
        _pole(
            "You want change and new ideas.",
            "reform overturn rethink replace question",
            "revolutions reforms experiments fashions trends novelties ideas theories",
        ),
    ),
    Behaviour(
        "likes-noise",
        -0.8,
        _pole(
            "You love loud music and noise.",
            "blast drum shout crank stomp",
            "guitars drums sirens amplifiers trumpets speakers engines bells",
        ),
        _pole(
            "You love soft music and whispers.",
            "hum whisper murmur soothe hush",
            "lullabies harps flutes whispers breezes violins sighs ballads",
        ),
    ),
)
"""The fourteen behaviours, in the order of the shipped data."""


def behaviour(name: str) -> Behaviour:
    """Look a behaviour up by its name.

    Raises
    ------
    KeyError
        If there is none of that name; the message lists those there are.
    """
    for found in BEHAVIOURS:
        if found.name == name:
            return found
    raise KeyError(f"no behaviour {name!r}; there are {', '.join(b.name for b in BEHAVIOURS)}")


def weight(word: str, words: tuple[str, ...]) -> float:
    """How plainly a word speaks for its pole, from its place in the list.

    Returns
    -------
    float
        `STRONGEST` for the first word, `MILDEST` for the last, evenly spaced between.
    """
    return STRONGEST + (MILDEST - STRONGEST) * words.index(word) / (len(words) - 1)
