"""Sentences made from findings: the answer, the summary in plain words, and the words of the page explained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analyses._cache import people_count
from analyses._claim import Claim, Finding
from analyses._compared import AT_ONCE
from analyses._counts import CHOSEN, CUT, DECISIONS, LARGEST, OUTCOMES
from analyses._effects import ONE, UNTOLD
from analyses._own import NOT_ASKED
from analyses._words import listed, number, percent, plain_codes, tidy, together
from steerstats.figures import nice_setting, nice_shift

__all__ = [
    "GLOSSARY",
    "differences",
    "limits",
    "missed",
    "number",
    "percent",
    "plain_codes",
    "summary",
    "tidy",
    "untold",
]

NOTHING = "Under base → base the vectors are not shown to steer, so that little can be said of what they lose."
HEADLINE = "sys_pos->user_neg"  # the one shift that the published code prints

GLOSSARY = (
    (
        "the paper",
        "Tan et al., Analyzing the Generalization and Reliability of Steering Vectors, NeurIPS 2024 (arXiv "  # noqa: ISC004
        "2407.12404), whose figures are repeated here and whose values are called published",
    ),
    (
        "positive option",
        "the answer that shows the behaviour; its position or letter is A or B, its token or word Yes or No",
    ),
    (
        "main vectors",
        "the vector of each prompt and their mean, as opposed to the control vectors that doubts are tested with",
    ),
    ("in distribution", "base → base: the vector used under the prompt that it was made under"),
    ("m(0)", "the unsteered propensity: that at multiplier 0"),
    ("random-effects mean", "a mean over datasets that allows for their truly differing, not only by chance"),
    ("nat", "the unit of propensity, a difference of logits: 1 nat multiplies the odds between the two answers by 2.7"),
    ("multiplier, λ", "how many times the steering vector is added"),
    ("propensity", "by how many nats the model prefers the answer that shows the behaviour"),
    ("steerability", "the slope of an input's propensity on the multiplier: nats moved by one unit of the vector"),
    (
        "anti-steerable",
        "an input whose slope is below 0 by more than its numerical error: the vector moves it the wrong way",
    ),
    ("shift", "a vector made under one prompt and used under another, written made → used; base → base is no shift"),
    (
        "the prompts",
        "base: the question with its usual system message, if any; in the others the system or user message "  # noqa: ISC004
        "describes the behaviour (positive) or its opposite (negative). In files, system (positive) is sys_pos, system "
        "(negative) sys_neg, user (positive) user_pos, user (negative) user_neg",
    ),
    (
        "label-shuffled vectors",
        "made from the same training pairs with the two answers exchanged in a random half of them",
    ),
    ("random directions", "vectors of the same length that know nothing of the data"),
    ("refits", "the same vector made again from resampled training pairs; they tell its own sampling error"),
    ("FDR", "false discovery rate: the expected share of false ones among the datasets that are said to differ"),
    ("question", "the unit of resampling; the same question with its options exchanged counts once"),
)


def claims_by_key(findings: Sequence[Finding]) -> dict[str, Claim]:
    """All claims of one cache by key."""
    return {claim.key: claim for finding in findings for claim in finding.claims}


def summary(findings: Sequence[Finding], prefix: str = "") -> dict[str, Any]:
    """Answer, lead and the three cards of one cache: how variable, how spurious, how well it transfers.

    Parameters
    ----------
    findings : sequence of Finding
        Of one cache.
    prefix : str
        Of the anchors the cards link to.
    """
    claims = claims_by_key(findings)
    if "sweep.best" in claims:
        return _sweep(claims["sweep.best"])
    missing = {finding.script: finding.missing for finding in findings if finding.missing}
    cards = [
        _variability(claims, missing, prefix),
        _spuriousness(claims, missing, prefix),
        _transfer(claims, missing, prefix),
    ]
    return {"answer": _answer(claims), "lead": lead(claims), "cards": cards}


def _sweep(best: Claim) -> dict[str, Any]:
    """Answer and lead of a sweep, which chooses a layer and has none of the three numbers."""
    value, interval = best.shown
    lead = "A sweep scores layers on validation inputs in the base setting. Build a grid at the layer that it chose "
    lead += "for how variable, how spurious and how transferable steering is, on test inputs."
    return {"answer": f"{best.statement} {value} {interval} nats per unit multiplier.", "lead": lead, "cards": []}


def limits(claim: Claim) -> str:
    """ "95% interval 0.780 to 0.950", or why there is none."""
    if not np.isfinite(claim.ci_low) and not np.isfinite(claim.ci_high):
        return "no interval"
    _, low, high = together([claim.estimate, claim.ci_low, claim.ci_high], claim.unit)
    return f"{claim.level:.0%} interval {low} to {high}"


def _card(question: str, number_: str, interval: str, words: str, link: str, link_text: str) -> dict[str, str]:
    return {
        "question": question,
        "number": number_,
        "interval": interval,
        "words": words,
        "link": link,
        "link_text": link_text,
    }


def _variability(claims: Mapping[str, Claim], missing: Mapping[str, str], prefix: str) -> dict[str, str]:
    question = "How variable is it?"
    if "per_input.anti_share" not in claims:
        return {"question": question, "missing": missing.get("per_input_steerability", "not computed")}
    share = claims["per_input.anti_share"]
    words = f"of inputs are steered the wrong way{_where(claims, share, 'per_input.worst')}"
    link = f"{prefix}per_input_steerability"
    return _card(question, share.shown[0], limits(share), words, link, "Steerability of every input")


def _spuriousness(claims: Mapping[str, Claim], missing: Mapping[str, str], prefix: str) -> dict[str, str]:
    question = "Why do inputs differ?"
    if "explained.mean" not in claims:
        return {"question": question, "missing": missing.get("variance_explained", "not computed")}
    mean = claims["explained.mean"]
    factors = "the letter (A or B) and the word (Yes or No)"
    if UNTOLD in mean.statement:
        factors = f"the letter (A or B) or the word (Yes or No), {UNTOLD},"
    elif known := _one_factor(mean):
        factors = {"letter": "the letter (A or B)", "word": "the word (Yes or No)"}[known]
    words = f"of the variance of steerability between inputs (not of its mean) goes with {factors} of the answer"
    shown = mean.shown[0]
    if mean.estimate <= 0:
        words = f"less than chance would give ({shown}): the variance between inputs does not go with {factors}"
        shown = "none"
    words += _where(claims, mean, "explained.most")
    if CUT in mean.interval:
        words += " The interval is cut at 0 and 100%, between which a share lies."
    if "option.pos_is_a" in claims:
        differ = claims["option.pos_is_a"]
        words += (
            f" Steerability differs between A and B in {differ.counts['differ']} of {differ.n} datasets (FDR 0.05)."
        )
    link = f"{prefix}variance_explained"
    return _card(question, shown, limits(mean), words, link, "Variance explained")


def _one_factor(mean: Claim) -> str:
    """Which of letter and word the cache knows, where it knows one of them only."""
    return next((name for name, text in zip(("letter", "word"), ONE.values()) if text in mean.statement), "")


def _where(claims: Mapping[str, Claim], mean: Claim, extreme: str) -> str:
    """How the card's sentence ends: over how many datasets, and where it is most."""
    if extreme not in claims:
        return f"{mean.statement.rpartition(',')[2].rstrip(':')}."
    most = claims[extreme]
    if most.estimate <= mean.estimate:
        return f", on average over {mean.n} datasets, and in none of them more than that."
    where = most.statement.rpartition(LARGEST)[2].removesuffix(CHOSEN).rstrip(":")
    value, low, high = together([most.estimate, most.ci_low, most.ci_high], most.unit)
    return (
        f", on average over {mean.n} datasets. It is largest in {where}: {value} "
        f"({low} to {high}; not adjusted for picking the largest)."
    )


def _transfer(claims: Mapping[str, Claim], missing: Mapping[str, str], prefix: str) -> dict[str, str]:
    """One shift heads the card: the one that the paper prints, or the first there is; the others are a range."""
    question = "How well does it transfer?"
    gaps, ranks = _by_shift(claims, "gap."), _by_shift(claims, "id_ood.")
    if not gaps and not ranks:
        return {"question": question, "missing": missing.get("id_vs_ood", "not computed")}
    known = {shift: one for shift, one in ranks.items() if np.isfinite(one.ci_low)}
    chosen, what = (known, "id_vs_ood") if known else (gaps or ranks, "gap_parts")
    first = HEADLINE if HEADLINE in chosen else next(iter(chosen))
    claim, own = chosen[first], f"under {_shift(first)}"
    own += ", the shift that the paper prints" if first == HEADLINE else ""
    if known:
        words = (
            f"is the rank correlation between how datasets steer under base → base and {own}; 1 would keep their order."
        )
        if first in gaps:
            words += f" {gaps[first].shown[0]} nats per unit multiplier are lost ({limits(gaps[first])})."
        words += _others(chosen, first, "Under the other shifts the correlation is {}.")
    else:
        words = f"nats per unit multiplier are lost {own}." + _others(chosen, first, "The other shifts lose {}.")
        words += " A rank correlation over datasets needs more of them."
    if not _steers(claims):
        words = f"{NOTHING} {words[:1].upper()}{words[1:]}"
    return _card(question, claim.shown[0], limits(claim), words, f"{prefix}{what}", "Each shift")


def _steers(claims: Mapping[str, Claim]) -> bool:
    """Whether the mean at home is shown to differ from 0; where it is not, nothing can be lost elsewhere."""
    mean = claims.get("per_input.mean")
    return mean is None or not mean.ci_low <= 0 <= mean.ci_high


def _by_shift(claims: Mapping[str, Claim], prefix: str) -> dict[str, Claim]:
    found = {key.removeprefix(prefix): claim for key, claim in claims.items() if key.startswith(prefix)}
    return {shift: claim for shift, claim in found.items() if np.isfinite(claim.estimate)}


def _others(claims: Mapping[str, Claim], first: str, words: str) -> str:
    rest = [claim.estimate for shift, claim in claims.items() if shift != first]
    if not rest:
        return ""
    low, high = together([min(rest), max(rest)])
    return " " + words.format(low if low == high else f"{low} to {high}")


def _shift(name: str) -> str:
    return nice_shift(*name.split("->"))


def _answer(claims: Mapping[str, Claim]) -> str:
    """One sentence that answers the title's question, in counts and not in adjectives."""
    if "per_input.signs" not in claims or "per_input.anti_share" not in claims:
        return ""
    signs, share = claims["per_input.signs"], claims["per_input.anti_share"]
    who, among = "steering", ""
    if refits := claims.get("per_input.signs_refits"):
        among = " that have refits" if refits.n < signs.n else ""
        signs = refits
    else:
        # Without refits the intervals hold nothing of the vector's own error: another draw of pairs may do otherwise.
        who = "this very vector" if signs.n == 1 else "these very vectors"
    up = signs.counts[OUTCOMES["works"]]
    which = f"in {up} of {people_count(signs.n, 'dataset')}{among}" if signs.n > 1 or among else "in the one dataset"
    moves = "is not shown to move" if not up and signs.n == 1 else "move" if who.endswith("s") else "moves"
    text = f"On average {who} {moves} answers the intended way {which}"
    if "per_input.mean" in claims:
        mean = claims["per_input.mean"]
        text += f" (mean steerability {mean.shown[0]} nats per unit multiplier, {limits(mean)})"
    text += f", and {share.shown[0]} of single inputs the wrong way{_in_brackets(share)}."
    return " ".join(filter(None, [text, _bias(claims), _loss(claims)]))


def _bias(claims: Mapping[str, Claim]) -> str:
    """What share of the differences between inputs goes with letter and word, as a sentence; "" where not known."""
    if "explained.mean" not in claims:
        return ""
    mean = claims["explained.mean"]
    share = mean.shown[0] if mean.estimate > 0 else "None"
    factors = "answer letter or word" if UNTOLD in mean.statement else "answer letter and word"
    if known := _one_factor(mean):
        factors = f"the answer's {known}"
    return f"{share} of the variance between inputs goes with {factors}{_in_brackets(mean)}."


def _loss(claims: Mapping[str, Claim]) -> str:
    """What is lost under one shift and to what, as a sentence; "" where nothing is, or nothing is known of it."""
    gaps = _by_shift(claims, "gap.")
    if not gaps or not _steers(claims):
        return ""
    first = HEADLINE if HEADLINE in gaps else next(iter(gaps))
    gap, (made, used) = gaps[first], map(nice_setting, first.split("->"))
    keys = {"the prompt": f"prompt.{first.split('->')[1]}", "transfer": f"transfer.{first}"}
    whose = "the vector" if made == "base" else f"the {made} vector"
    home = "at home" if made == "base" else "the base vector at home"
    if gap.ci_low <= 0 <= gap.ci_high or not np.isfinite([gap.ci_low, gap.ci_high]).all():
        return f"Under the prompt {used}, {whose} is not shown to steer less than {home}."
    less = "less" if gap.estimate > 0 else "more"
    size = together([abs(gap.estimate)])[0]
    parts = []
    for cause, key in keys.items():
        part = claims.get(key)
        if part is not None and np.isfinite(part.estimate):
            doubt = "" if part.ci_low > 0 or part.ci_high < 0 else "not shown to differ from 0"
            parts.append(f"{together([part.estimate])[0]}{_in_brackets(part, doubt)} by {cause}")
    split = f": {' and '.join(parts)}" if len(parts) == 2 else ""
    if gap.estimate < 0:  # "more" by as much
        gap = replace(gap, estimate=-gap.estimate, ci_low=-gap.ci_high, ci_high=-gap.ci_low)
    return f"Under the prompt {used}, {whose} steers {size} {less} than {home}{_in_brackets(gap)}{split}."


def _in_brackets(claim: Claim, more: str = "") -> str:
    """ " (8% to 21%)", the limits of a 95% interval in a sentence that has named one; "" where there are none."""
    parts = [more] if more else []
    if np.isfinite([claim.ci_low, claim.ci_high]).all():
        _, low, high = together([claim.estimate, claim.ci_low, claim.ci_high], claim.unit)
        parts.insert(0, f"{low} to {high}")
    return f" ({', '.join(parts)})" if parts else ""


def lead(claims: Mapping[str, Claim]) -> str:
    """Intervals of the means by sign, with and without the vectors' own error, and the nulls."""
    parts = []
    if "per_input.signs" in claims:
        signs = claims["per_input.signs"]
        parts.append(
            f"The 95% interval of mean steerability over inputs lies {_sides(signs)} "
            f"{people_count(signs.n, 'dataset')}."
        )
    if "per_input.signs_refits" in claims:
        signs = claims["per_input.signs_refits"]
        parts.append(f"With the vector's own sampling error counted, it lies {_sides(signs)} {signs.n}.")
    for kind, name in (("shuffled", "label-shuffled vectors"), ("random", "random directions")):
        if f"null.{kind}" in claims:
            parts.append(_against(claims[f"null.{kind}"], name))
    return " ".join(parts) or "This cache allows none of the three headline numbers; the sections say why."


def _sides(signs: Claim) -> str:
    """ "above 0 in 13 and on both sides of it in 1 of": counts of intervals, those of nothing left out."""
    sides = {"works": "above 0", "below": "below 0", "undecided": "on both sides of 0"}
    counts = [(signs.counts[OUTCOMES[side]], where) for side, where in sides.items()]
    counts = [f"{where} in {'all' if count == signs.n > 1 else count}" for count, where in counts if count]
    return f"{listed(counts)}{'' if counts[0].endswith('all') else ' of'}"


def _against(null: Claim, name: str) -> str:
    """One sentence on a null: a dataset that cannot be resolved is not one that does not differ."""
    differ, rest, open_ = (null.counts[kind] for kind in DECISIONS.values())
    if open_ == null.n:
        needed = re.search(r"(\d+) null vectors resolve too little, (\d+) are needed", null.statement)
        tell = "to tell whether the vectors differ from them"
        if not needed:
            return f"There are too few {name} {tell}."
        return f"{needed[1]} {name} are too few {tell}; {needed[2]} are needed for one dataset alone."
    unknown = f", and {open_} cannot be resolved with so few of them" if open_ else ""
    other = f", {rest} {'is' if rest == 1 else 'are'} not shown to" if rest else ""
    return f"Against {name}, {differ} of {null.n} differ{other}{unknown}."


def differences(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Rows of the summary's table of differences between caches: what is compared, and the difference."""
    claims = [one for finding in findings if finding.script == "comparison" for one in finding.claims if not one.counts]
    return [
        {
            "second minus first": claim.statement.removeprefix("Steerability in ")
            .split(",")[0]
            .replace(" that in ", " "),
            "shift": claim.statement.split(", ")[1],
            "difference": claim.shown[0],
            "95% interval": claim.shown[1],
            "for all at once": claim.interval.partition(AT_ONCE)[2],
            "n": f"{claim.n} {claim.n_of}",
        }
        for claim in claims
    ]


def missed(reason: str) -> bool:
    """Whether a page should name what is not there for this reason; "" is none."""
    return bool(reason) and not reason.endswith(NOT_ASKED)


def untold(warnings: Sequence[str]) -> str:
    """In which datasets the word is determined by the letter, from an estimator's warnings; empty where in none."""
    for text in warnings:
        where, _, rest = text.partition(": ")
        if rest.startswith(("pos_is_yes is determined by", "pos_is_a is determined by")):
            return "here" if where == "all datasets" else f"in {where}"
    return ""
