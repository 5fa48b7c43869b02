"""Sentences made from findings: the cards of a summary, and the words of the page explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyses._claim import Claim, Finding
from analyses._effects import LETTER, UNTOLD, WORD
from analyses._own import NOT_ASKED
from analyses._shares import CUT
from analyses._words import in_words, listed, together
from reports.answer import HEADLINE, NOT_SHOWN, answer, by_shift, lead, limits, steers
from steerstats.errors import how_many
from steerstats.figures import nice_shift
from steerstats.resampling.ranks import MIN_FOR_INTERVAL

# Of the mean and not of the vectors: each of three may be shown to steer, and their mean not to differ from 0.
NOTHING = "The mean steerability under base → base is not shown to differ from 0, so that little can be said of a loss."

NEEDS_MORE = " A rank correlation over datasets needs more datasets."

GLOSSARY = {
    "the paper": "Tan et al., Analyzing the Generalization and Reliability of Steering Vectors, NeurIPS 2024 (arXiv "
    "2407.12404), whose figures are repeated here and whose values are called published",
    "positive option": "the answer that shows the behaviour; its position or letter is A or B, its token or word Yes "
    "or No",
    "in distribution, at home": "under the prompt that the vector was made under; base → base unless said otherwise",
    "m(0)": "the unsteered propensity: that at multiplier 0",
    "random-effects mean": "a mean over datasets that allows for true differences between them, beyond chance",
    "nat": "the unit of propensity, a difference of logits: 1 nat multiplies the odds between the two answers by 2.7",
    "multiplier, λ": "how many times the steering vector is added",
    "propensity": "by how many nats the model prefers the answer that shows the behaviour",
    "steerability": "the slope of an input's propensity on the multiplier: nats moved by one unit of the vector",
    "anti-steerable": "an input whose slope is below 0 by more than its numerical error: the vector moves it the wrong "
    "way",
    "shift": "a vector made under one prompt and used under another, written made → used; base → base is no shift",
    "the prompts": "base: the question with its usual system message, if any; in the others the system or user message "
    "describes the behaviour (positive) or its opposite (negative). In files, system (positive) is sys_pos, system "
    "(negative) sys_neg, user (positive) user_pos, user (negative) user_neg",
    "label-shuffled vectors": "made from the same training pairs with the two answers exchanged in a random half of "
    "them",
    "random directions": "vectors of the same length that know nothing of the data",
    "refits": "the same vector made again from resampled training questions; they show its own sampling error",
    "FDR": "false discovery rate: the expected share of false findings among the datasets said to differ",
    "question": "the unit of resampling; the same question with its options exchanged counts once",
}


def claims_by_key(findings: Sequence[Finding]) -> dict[str, Claim]:
    """All claims of one cache by key."""
    return {claim.key: claim for finding in findings for claim in finding.claims}


def summary(
    findings: Sequence[Finding], prefix: str = "", wrong: str = "are steered the wrong way", gain: str = "a gain"
) -> dict[str, Any]:
    """Answer, lead and the three cards of one cache: how variable, how spurious, how well it transfers.

    Parameters
    ----------
    findings : sequence of Finding
        Of one cache.
    prefix : str
        Of the anchors the cards link to.
    wrong : str
        What the inputs whose slope is below 0 do.
    gain : str
        What a loss below 0 is.
    """
    claims = claims_by_key(findings)
    if "sweep.best" in claims:
        return _sweep(claims["sweep.best"])
    missing = {finding.script: finding.missing for finding in findings if finding.missing}
    cards = [
        _variability(claims, missing, prefix, wrong),
        _spuriousness(claims, missing, prefix),
        _transfer(claims, missing, prefix, gain),
    ]
    return {"answer": answer(claims), "lead": lead(claims), "cards": cards}


def _sweep(best: Claim) -> dict[str, Any]:
    """Answer and lead of a sweep, which chooses a layer and has none of the three numbers."""
    value, interval = best.shown
    lead = "A sweep scores layers on validation inputs in the base setting. Build a grid at one layer "
    lead += "for how variable, how spurious and how transferable steering is, on test inputs."
    return {"answer": f"{best.statement} {value} {interval} nats per unit multiplier.", "lead": lead, "cards": []}


def _card(question: str, number: str, interval: str, words: str, link: str, link_text: str) -> dict[str, str]:
    return {
        "question": question,
        "number": number,
        "unit": "",  # what the number is, where the words below it would say so too late
        "interval": interval,
        "words": words,
        "link": link,
        "link_text": link_text,
    }


def _variability(claims: Mapping[str, Claim], missing: Mapping[str, str], prefix: str, wrong: str) -> dict[str, str]:
    question = "How variable is it?"
    if "per_input.anti_share" not in claims:
        return {"question": question, "missing": missing.get("per_input_steerability", "not computed")}
    share = claims["per_input.anti_share"]
    words = f"of inputs {wrong}{_where(claims, share, 'per_input.worst')}"
    link = f"{prefix}per_input_steerability"
    return _card(question, share.shown[0], limits(share), words, link, "Steerability of every input")


def _spuriousness(claims: Mapping[str, Claim], missing: Mapping[str, str], prefix: str) -> dict[str, str]:
    question = "Why do inputs differ?"
    if "explained.mean" not in claims:
        return {"question": question, "missing": missing.get("variance_explained", "not computed")} | _own(
            claims, prefix
        )
    mean = claims["explained.mean"]
    factors = "the letter (A or B) and the word (Yes or No)"
    if mean.facts["untold_everywhere"]:
        factors = f"the letter (A or B) or the word (Yes or No), {UNTOLD},"
    elif len(known := mean.facts["known"]) == 1:
        factors = {LETTER: "the letter (A or B)", WORD: "the word (Yes or No)"}[known[0]]
    words = (
        f"of the variance of steerability between inputs (not of mean steerability) goes with {factors} of the answer"
    )
    shown = mean.shown[0]
    if mean.estimate <= 0:
        words = f"less than chance would give ({shown}): the variance between inputs is not shown to go with {factors} "
        words += "of the answer"
        shown = "none"
    words += _where(claims, mean, "explained.most")
    if CUT in mean.interval:
        words += " The interval is cut at 0 and 100%, between which a share lies."
    if "option.pos_is_a" in claims:
        differ = claims["option.pos_is_a"]
        where = f"{differ.counts['differ']} of {how_many(differ.n, 'dataset')}"
        words += f" Steerability differs between A and B in {where} (FDR 0.05)."
    link = f"{prefix}variance_explained"
    return _card(question, shown, limits(mean), words, link, "Variance explained")


def _own(claims: Mapping[str, Claim], prefix: str) -> dict[str, str]:
    """What factors of one's own explain, for the card that has no letter and word to tell of; else nothing."""
    parts = []
    for key, share in claims.items():
        if key.startswith("own.") and key.endswith(".share"):
            name = in_words(key.removeprefix("own.").removesuffix(".share"))
            where = f"in {share.facts['dataset']}" if "dataset" in share.facts else f"mean over {share.n} datasets"
            parts.append(f"{name} explains {share.shown[0]} ({limits(share)}, {where})")
    if not parts:
        return {}
    words = f"Of the variance of steerability between inputs, adjusted for chance, {listed(parts)}."
    return {"words": words, "link": f"{prefix}own_factors", "link_text": "Factors of your own"}


def _where(claims: Mapping[str, Claim], mean: Claim, extreme: str) -> str:
    """How the card's sentence ends: over how many datasets, and where it is most."""
    if extreme not in claims:
        return f" in {mean.facts['dataset']}."
    most = claims[extreme]
    if most.estimate <= mean.estimate:
        return f", on average over {mean.n} datasets, and in none of them more than that."
    value, low, high = together([most.estimate, most.ci_low, most.ci_high], most.unit)
    return (
        f", on average over {mean.n} datasets. The share is largest in {most.facts['dataset']}: {value} "
        f"({low} to {high}; not adjusted for picking the largest)."
    )


def _transfer(claims: Mapping[str, Claim], missing: Mapping[str, str], prefix: str, gain: str) -> dict[str, str]:
    """One shift heads the card: the one that the paper prints, or the first there is; the others are a range."""
    question = "How well does it transfer?"
    gaps, ranks = by_shift(claims, "gap."), by_shift(claims, "id_ood.")
    if not gaps and not ranks:
        return {"question": question, "missing": missing.get("id_vs_ood", "not computed")}
    known = {shift: one for shift, one in ranks.items() if np.isfinite(one.ci_low)}
    # One question a dataset leaves gaps without errors, and so without a mean: then ranks head it, interval or none.
    chosen, what = (gaps, "gap_parts") if gaps and not known else (known or ranks, "id_vs_ood")
    first = HEADLINE if HEADLINE in chosen else next(iter(chosen))
    claim, own = chosen[first], f"under {nice_shift(*first.split('->'))}"
    own += ", the shift that the paper prints" if first == HEADLINE else ""
    if what == "id_vs_ood":
        what_is = "rank correlation"
        words = f"of the datasets' steerability under base → base with that {own}; 1 would keep their order."
        if first in gaps:
            gap = gaps[first]
            more = f", which is {gain}" if gap.ci_high < 0 else ""
            lost = f"{limits(gap)}{_not_shown(gap)}"
            words += f" {gap.shown[0]} nats per unit multiplier are lost{more} ({lost})."
        is_ = "the correlation is {}"
        words += _others(ranks, first, f"Under the other shift {is_}", f"Under the other shifts {is_}")
    else:
        what_is = "nats per unit multiplier"
        more = f", which is {gain}," if claim.ci_high < 0 else ""
        words = f"are lost{more} {own}{_not_shown(claim)}."
        words += _others(chosen, first, "The other shift loses {}", "The other shifts lose {}")
        # Many datasets that keep their order exactly have no interval either.
        many = first in ranks and ranks[first].n >= MIN_FOR_INTERVAL
        words += f" The rank correlation is {ranks[first].shown[0]}, without an interval." if many else NEEDS_MORE
    if not steers(claims):
        # Last: what stands first goes on from the number above it.
        words += f" {NOTHING}"
    card = _card(question, claim.shown[0], limits(claim), words, f"{prefix}{what}", "Each shift")
    return card | {"unit": what_is}


def _not_shown(claim: Claim) -> str:
    """What a loss must not be read without where its interval allows for none."""
    return f", {NOT_SHOWN}" if claim.ci_low <= 0 <= claim.ci_high else ""


def _others(claims: Mapping[str, Claim], first: str, one: str, many: str) -> str:
    """The range of the others, in words for one or for many, and how many of their intervals include 0."""
    rest = [claim for shift, claim in claims.items() if shift != first]
    if not rest:
        return ""
    values = [claim.estimate for claim in rest]
    low, high = together([min(values), max(values)])
    text = (one if len(rest) == 1 else many).format(low if low == high else f"{low} to {high}")
    # Datasets that keep their order exactly have a correlation without an interval.
    doubtful = sum(claim.ci_low <= 0 <= claim.ci_high for claim in rest)
    n = sum(np.isfinite(claim.ci_low) for claim in rest)
    if doubtful:
        verb = "includes" if doubtful == 1 else "include"
        alone = "its interval" if len(rest) == 1 else "the one interval there is"
        which = f"{alone} includes" if n == 1 else "all these intervals include"
        text += f"; {which if doubtful == n else f'{doubtful} of these {n} intervals {verb}'} 0"
    return f" {text}."


def differences(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Rows of the summary's table of differences between caches: what is compared, and the difference."""
    claims = [one for finding in findings if finding.script == "comparison" for one in finding.claims if not one.counts]
    detected = [one.facts["power"] for one in claims if "power" in one.facts]
    return [
        {
            "second minus first": f"{claim.facts['second']} minus {claim.facts['first']}",
            "shift": claim.facts["shift"],
            "over": claim.facts["over"],
            "difference": claim.shown[0],
            "95% interval": claim.shown[1],
            "for all at once": claim.facts["at_once"],
            **({f"found {detected[0]} of the time": claim.facts.get("detectable", "")} if detected else {}),
            "n": f"{claim.n} {claim.n_of}",
        }
        for claim in claims
    ]


def missed(reason: str) -> bool:
    """Whether a page should name what is not there for this reason; "" is none."""
    return bool(reason) and not reason.endswith(NOT_ASKED)
