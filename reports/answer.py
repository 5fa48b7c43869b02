"""The first sentences of a summary: what steering does on average, to single inputs, and against what it is held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy import stats

from analyses._claim import Claim
from analyses._means import OUTCOMES
from analyses._words import DECISIONS, listed, together
from steerstats.errors import how_many
from steerstats.figures import nice_setting
from steerstats.nulls import CANNOT_RESOLVE

VERY = ("these very vectors", "move", "are"), ("this very vector", "moves", "is")  # whether there is but one
NOT_SHOWN = "not shown to differ from 0"
BY_CHANCE = 0.1  # how often a count may come about without any effect before the sentence says so
SIDE, SKEWED_SIDE = 0.025, 0.07  # of 95% intervals, those on one side of the mean: normal slopes, 50 lognormal ones
HEADLINE = "sys_pos->user_neg"  # the one shift that the published code prints


def answer(claims: Mapping[str, Claim]) -> str:
    """Sentences that answer the title's question, in counts and not in adjectives."""
    if "per_input.signs" not in claims or "per_input.anti_share" not in claims:
        return ""
    share = claims["per_input.anti_share"]
    # A sentence of its own: behind "is not shown to move answers" it would read as one more thing not shown.
    single = f"{share.shown[0]} of single inputs are moved the wrong way{_in_brackets(share, _of_one(share, claims))}."
    return " ".join(filter(None, [_on_average(claims), single, _bias(claims), _loss(claims)]))


def _on_average(claims: Mapping[str, Claim]) -> str:
    """In how many datasets the mean is shown to be what it should, and which error that counts; then the mean."""
    signs = claims["per_input.signs"]
    (who, moves, are), among, error = ("steering", "moves", "is"), "", ""
    if refits := claims.get("per_input.signs_refits"):
        among = that_have(refits, signs)
        # The lead counts the same intervals without that error, and may come to another number.
        signs, error = refits, ", with the vector's own error counted"
    else:
        # Without refits the intervals hold nothing of the vector's own error: another draw of pairs may do otherwise.
        who, moves, are = VERY[signs.n == 1]
    up, down = (signs.counts[OUTCOMES[side]] for side in ("works", "below"))
    if signs.n > 1 and not up and not down:
        # "in 0 of 3" would say that it does not, where all is open
        text = f"{who} {are} not shown to move answers either way in any of {how_many(signs.n, 'dataset')}{among}"
    elif signs.n > 1:
        where = f"the intended way in {up} of {how_many(signs.n, 'dataset')}{among}{_by_chance(up, signs.n - down)}"
        wrong = f" and the wrong way in {down}{_by_chance(down, signs.n - up)}" if down else ""
        text = f"{who} {moves} answers {where}{wrong}"
    elif up or down:
        text = f"{who} {moves} answers the {'intended' if up else 'wrong'} way in the one dataset{among}"
        text += "" if up else ", which is anti-steerable on average"
    else:
        text = f"{who} {are} not shown to move answers either way in the one dataset{among}"
    text = f"On average {text}{error}"
    mean = claims.get("per_input.mean")
    if mean is None or np.isnan(mean.estimate):
        return f"{text}."
    text += f" (mean steerability {mean.shown[0]} nats per unit multiplier, {limits(mean)})."
    if mean.ci_high < 0 and claims["per_input.signs"].n > 1:
        text += " That mean lies below 0: over datasets, answers are moved the wrong way (anti-steerable on average)."
    return text


def that_have(refits: Claim, signs: Claim) -> str:
    """ " that have refits" behind a count of these datasets, where they are not all that there are."""
    return "" if refits.n == signs.n else f" that {'has' if refits.n == 1 else 'have'} refits"


def _by_chance(count: int, n: int) -> str:
    """What a count of 95% intervals on one side of 0 is worth, where it would be no rare one without any effect.

    Each interval is for its dataset alone: of 20 datasets that no vector moves, one at least lies above 0 in 40% of
    studies. Intervals of skewed slopes lie on the side of the short tail more often, whichever that is.
    """
    often, skewed = (float(stats.binom.sf(count - 1, n, side)) if count else 0.0 for side in (SIDE, SKEWED_SIDE))
    if often > BY_CHANCE:
        return f" (as chance alone would show in {often:.0%} of such studies)"
    return " (as chance alone may show where slopes are skewed)" if skewed > BY_CHANCE else ""


def _bias(claims: Mapping[str, Claim]) -> str:
    """What share of the differences between inputs goes with letter and word, as a sentence; "" where not known."""
    if "explained.mean" not in claims:
        return ""
    mean = claims["explained.mean"]
    share, goes = (mean.shown[0], "goes") if mean.estimate > 0 else ("None", "is shown to go")
    factors = "answer letter or word" if mean.facts["untold_everywhere"] else "answer letter and word"
    if len(known := mean.facts["known"]) == 1:
        factors = f"the answer's {known[0]}"
    # A share above what chance gives is told as it is, and its limits may still hold 0.
    doubts = [_of_one(mean, claims), NOT_SHOWN if mean.estimate > 0 and mean.ci_low <= 0 else ""]
    limited = _in_brackets(mean, ", ".join(filter(None, doubts)))
    text = f"{share} of the variance of steerability between inputs {goes} with {factors}{limited}."
    told, every = mean.n if mean.n_of == "datasets" else 1, claims["per_input.signs"].n
    if told == every:
        return text
    few = f"one dataset of {every} that tells" if told == 1 else f"{told} of {every} datasets that tell"
    return f"In the {few}, {text[:1].lower()}{text[1:]}"


def _of_one(share: Claim, claims: Mapping[str, Claim]) -> str:
    """What limits over one dataset's inputs are about, where those of the mean before them hold the vector's error.

    Over datasets each has a vector of its own, whose error is part of their spread.
    """
    known = share.n_of != "datasets" and np.isfinite([share.ci_low, share.ci_high]).all()
    return "for this very vector" if known and "per_input.signs_refits" in claims else ""


def _loss(claims: Mapping[str, Claim]) -> str:
    """What is lost under one shift and to what, as a sentence; "" where nothing is, or nothing is known of it."""
    gaps = by_shift(claims, "gap.")
    if not gaps or not steers(claims):
        return ""
    first = HEADLINE if HEADLINE in gaps else next(iter(gaps))
    gap, (made, used) = gaps[first], map(nice_setting, first.split("->"))
    keys = {"the prompt": f"prompt.{first.split('->')[1]}", "transfer": f"transfer.{first}"}
    whose = "the vector" if made == "base" else f"the {made} vector"
    home = "at home" if made == "base" else "the base vector at home"
    verb, does, less, more = "steer", "steers", "less", "more"
    mean = claims.get("per_input.mean")
    if mean is not None and mean.estimate < 0:  # nearer to 0 is not "more" steering, and neither is it "less"
        whose, verb, does = f"the mean steerability of {whose}", "be", "is"
        less, more = "lower", "higher"
        home = home.replace("the base", "that of the base")
    if gap.ci_low <= 0 <= gap.ci_high or not np.isfinite([gap.ci_low, gap.ci_high]).all():
        return f"Under the prompt {used}, {whose} is not shown to {verb} {less} than {home}."
    rose = gap.estimate < 0
    parts = []
    for cause, key in keys.items():
        part = claims.get(key)
        if part is not None and np.isfinite(part.estimate):
            part = _turned(part) if rose else part
            doubts = [] if part.ci_low > 0 or part.ci_high < 0 else [NOT_SHOWN]
            if gap.facts.get("vector_error") and not part.facts.get("vector_error"):
                doubts.insert(0, "for these very vectors")  # the loss itself is for others, too
            parts.append(f"{together([part.estimate])[0]}{_in_brackets(part, ', '.join(doubts))} due to {cause}")
    split = f": {' and '.join(parts)}" if len(parts) == 2 else ""
    gap = _turned(gap) if rose else gap
    change = f"{together([gap.estimate])[0]} {more if rose else less} than {home}{_in_brackets(gap)}{split}"
    return f"Under the prompt {used}, {whose} {does} {change}."


def _turned(loss: Claim) -> Claim:
    """A loss as a gain: what is "0.1 more" has its limits and its parts above 0, too."""
    return replace(loss, estimate=-loss.estimate, ci_low=-loss.ci_high, ci_high=-loss.ci_low)


def lead(claims: Mapping[str, Claim]) -> str:
    """Intervals of the means by sign, with and without the vectors' own error, and the nulls."""
    parts = []
    if "per_input.signs" in claims:
        signs = claims["per_input.signs"]
        of = f"{_sides(signs)} in the one dataset" if signs.n == 1 else f"{_sides(signs)} datasets"
        text = f"For {VERY[signs.n == 1][0]} the 95% interval of mean steerability over inputs lies {of}"
        # Without the share of anti-steerable inputs below 0 is not the wrong way (operator ablate).
        if signs.n == 1 and signs.counts[OUTCOMES["below"]] and "per_input.anti_share" in claims:
            text += ": it moves answers the wrong way"
        parts.append(f"{text}.")
    if "per_input.signs_refits" in claims:
        signs, every = claims["per_input.signs_refits"], claims["per_input.signs"]
        few = claims["vector_error.wider"].facts.get("few_refits") if "vector_error.wider" in claims else None
        counted = f"counted, which only {few} refits tell roughly," if few else "counted,"
        lies = f"it lies {_sides(signs)}"
        if among := that_have(signs, every):
            lies += f"{' in the one dataset' if signs.n == 1 else ' datasets'}{among}"
        elif signs.counts == every.counts:
            lies = "the counts are the same" if signs.n > 1 else "it lies there too"
        parts.append(f"With the vector's own sampling error {counted} {lies}.")
    kinds = (("shuffled", "label-shuffled vectors"), ("random", "random directions"))
    nulls = [(claims[f"null.{kind}"], name) for kind, name in kinds if f"null.{kind}" in claims]
    jointly = {f"null.{kind}": claims.get(f"null.{kind}_together") for kind, _ in kinds}
    alike = len(nulls) == 2 and _too_few(nulls[0][0]) == _too_few(nulls[1][0]) != ()
    if alike and not any(jointly.values()):
        nulls = [(nulls[0][0], f"{kinds[0][1]}, and as many {kinds[1][1]},")]
    parts += [_against(null, name, jointly[null.key]) for null, name in nulls]
    return " ".join(parts) or "This cache allows none of the three headline numbers; the sections say why."


def _sides(signs: Claim) -> str:
    """ "above 0 in 13 and on both sides of 0 in 1 of 14": counts of intervals, those of nothing left out.

    Where all are alike it says "above 0 in all 14" or "above 0 in both", and of one interval "above 0".
    """
    sides = {"works": "above 0", "below": "below 0", "undecided": "on both sides of 0"}
    counts = [(signs.counts[OUTCOMES[side]], where) for side, where in sides.items()]
    if signs.n == 1:
        return next(where for count, where in counts if count)
    every = "both" if signs.n == 2 else f"all {signs.n}"
    alike = [f"{where} in {every}" for count, where in counts if count == signs.n]
    return "".join(alike) or f"{listed([f'{where} in {count}' for count, where in counts if count])} of {signs.n}"


def _against(null: Claim, name: str, jointly: Claim | None) -> str:
    """One sentence on a null: a dataset that cannot be resolved is not one that does not differ.

    `jointly` is there where all datasets taken together show more to differ than each by itself.
    """
    differ, rest, open_ = (null.counts[kind] for kind in DECISIONS.values())
    one = null.n == 1
    if few := _too_few(null):
        had, needed, _ = few
        if jointly:
            return (
                f"At least {jointly.estimate:.0f} of {null.n} vectors differ from {name} (95% confidence, all taken "
                f"together); {had} such vectors are too few to say which, and {needed} are needed to tell it for one "
                "dataset."
            )
        tell = f"to tell whether the {'vector differs' if one else 'vectors differ'} from them"
        where = "" if one else f" to tell it for one dataset among {null.n}"
        return f"{had} {name} are too few {tell}; {needed} are needed{where}."
    if one:
        return f"The vector {'differs' if differ else 'is not shown to differ'} from {name}."
    unknown = f", and {open_} cannot be resolved with so few of them" if open_ else ""
    other = f", {rest} {'is' if rest == 1 else 'are'} not shown to" if rest else ""
    taken = f"; all taken together, at least {jointly.estimate:.0f} do (95% confidence)" if jointly else ""
    return f"{differ} of {null.n} vectors {'differs' if differ == 1 else 'differ'} from {name}{other}{unknown}{taken}."


def _too_few(null: Claim) -> tuple[int, ...]:
    """Null vectors there are and are needed, and datasets, where none of these can be resolved; else nothing."""
    told = null.counts[DECISIONS[CANNOT_RESOLVE]] < null.n
    return () if told else (null.facts["n_null"], null.facts["n_null_needed"], null.n)


def limits(claim: Claim) -> str:
    """ "95% interval 0.780 to 0.950", or why there is none."""
    if not np.isfinite(claim.ci_low) and not np.isfinite(claim.ci_high):
        return "no interval"
    return f"{claim.level:.0%} interval {_ends(claim)}"


def _ends(claim: Claim) -> str:
    """ "0.780 to 0.950"; where all questions are alike, both limits would read as the number does."""
    _, low, high = together([claim.estimate, claim.ci_low, claim.ci_high], claim.unit)
    return f"{low} to {high}" if low != high else "too narrow to show"


def _in_brackets(claim: Claim, more: str = "") -> str:
    """ " (8% to 21%)", the limits of a 95% interval in a sentence that has named one; "" where there are none."""
    parts = [more] if more else []
    if np.isfinite([claim.ci_low, claim.ci_high]).all():
        parts.insert(0, _ends(claim))
    return f" ({', '.join(parts)})" if parts else ""


def steers(claims: Mapping[str, Claim]) -> bool:
    """Whether the mean at home is shown to differ from 0; where it is not, nothing can be lost elsewhere."""
    mean = claims.get("per_input.mean")
    return mean is None or not mean.ci_low <= 0 <= mean.ci_high


def by_shift(claims: Mapping[str, Claim], prefix: str) -> dict[str, Claim]:
    found = {key.removeprefix(prefix): claim for key, claim in claims.items() if key.startswith(prefix)}
    return {shift: claim for shift, claim in found.items() if np.isfinite(claim.estimate)}
