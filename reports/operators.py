"""What the page says of how vectors act and what is scored: in the summary, the glossary and the methods.

The words of the summary are made for vectors that are added. Under operator ablate a vector is taken out, and what
would be a failure of an added one (a slope below 0) is the direction at work: these words are written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analyses._claim import Finding
from analyses._means import OUTCOMES
from reports import words
from reports.answer import lead, that_have
from steerstats.errors import how_many
from steerstats.frames import LOG_ODDS
from steerstats.operators import ABLATE

ACTS = {
    "add": "were added to",
    "add_keep_norm": "were added, with the norm of the activation kept, to",
    "ablate": "had their direction taken out (1 takes out all of it), with nothing added, of",
    "ablate_add": "were added, in place of the activation's own part along them, to",
}
ENDS = ("Inputs steered least, or the wrong way", "Inputs steered most")
ENDS_ABLATE = (
    "Inputs whose propensity falls most as the direction is taken out",
    "Inputs whose propensity falls least, or rises",
)
GLOSSARY_ABLATE = {
    "multiplier, λ": "how much of the vector's direction is taken out: 0 nothing, 1 all of it",
    "steerability": "the slope of an input's propensity on the multiplier: nats moved by taking the direction out; "
    "below 0 where the direction holds the behaviour up",
    "anti-steerable": "an input whose slope is below 0. Under operator ablate that is the direction at work, and not "
    "the wrong way",
}
GLOSSARY_NO_ODDS = {
    "nat": "the unit of propensity; sums of raw logits and imported scores need not be the logarithm of odds",
}


def acts(study: Any) -> str:
    """How the vectors act on "the output of decoder block ..."; "were added to" where no operator is recorded."""
    return " or ".join(ACTS.get(one, f"acted by operator {one} on") for one in study.operators)


def ends(study: Any) -> tuple[str, str]:
    """Titles of the inputs with the lowest slopes and with the highest."""
    return ENDS_ABLATE if ABLATE in study.operators else ENDS


def glossary(studies: Iterable[Any]) -> list[tuple[str, str]]:
    """The words of the page, for what its caches hold; where some add and others ablate, or some scores are odds and
    others are not, both meanings."""
    studies = tuple(studies)
    ablate = [ABLATE in study.operators for study in studies]
    scores = [{unit.unit.attrs.get("score") for unit in study.units.values()} for study in studies]
    no_odds = [not each <= set(LOG_ODDS) for each in scores]
    found = []
    for word, meaning in words.GLOSSARY.items():
        for other, hold, when in (
            (GLOSSARY_ABLATE, ablate, "the operator is ablate"),
            (GLOSSARY_NO_ODDS, no_odds, "the score is a sum of raw logits, or imported"),
        ):
            if word in other and any(hold):
                meaning = other[word] if all(hold) else f"{meaning}. Where {when}: {other[word]}"
        found.append((word, meaning))
    return found


def summary(study: Any, findings: Sequence[Finding], prefix: str = "") -> dict[str, Any]:
    """`words.summary`, in the words of its operator."""
    claims = words.claims_by_key(findings)
    if ABLATE not in study.operators or "sweep.best" in claims:
        return words.summary(findings, prefix)
    wrong = "have a lower propensity the more of the direction is taken out"
    found = words.summary(findings, prefix, wrong, "a higher slope")  # where slopes are below 0, that is less of them
    every, share = claims.get("per_input.signs"), claims.get("per_input.anti_share")
    if every is None or share is None:
        return found | {"answer": ""}
    signs = claims.get("per_input.signs_refits", every)
    return found | {"answer": _answer(signs, share, that_have(signs, every)), "lead": _lead(claims)}


def _answer(signs: Any, share: Any, among: str = "") -> str:
    up, down = signs.counts[OUTCOMES["works"]], signs.counts[OUTCOMES["below"]]
    n = how_many(signs.n, "dataset") + among
    does = f"lowers propensity on average in {down} of {n} and raises it in {up}"
    if not up and not down:  # "in 0 of 3" would say that it does not, where all is open
        does = f"is not shown to change propensity on average in any of {n}"
    if signs.n == 1:
        does = f"{'raises' if up else 'lowers'} propensity" if up or down else "is not shown to change propensity"
        does += f" on average in the one dataset{among}"
    return (
        f"Taking the vector's direction out (operator ablate) {does}. It lowers it in {share.shown[0]} of single "
        "inputs."
    )


def _lead(claims: Mapping[str, Any]) -> str:
    """The lead counts intervals above and below 0, which stay what they are; only its last words judge them."""
    text = lead({key: claim for key, claim in claims.items() if key != "per_input.anti_share"})
    return f"Slopes are what taking the direction out does: below 0 it lowers propensity. {text}"
