"""Sentences made from findings: the summary in plain words, and the methods for pasting into a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyses import SECTIONS
from analyses._cache import people_count
from analyses._claim import Claim, Finding
from analyses._counts import CHOSEN, UNTOLD
from steerstats.figures import nice_shift
from steerstats.results import format_number

HEADLINE = "sys_pos->user_neg"  # the one shift that the published code prints
METHOD_NAMES = {
    "mean_difference": "the mean difference of activations between the two completions of each training pair",
    "pca": "the first principal component of the differences of activations",
    "logistic": "the weights of a logistic regression on activations",
}
SCOPE_NAMES = {
    "last_prompt": "from the last prompt token on",
    "first_answer": "from the first answer token on",
    "all": "at all tokens",
    "prompt": "at the tokens of the prompt",
}
SCORE_NAMES = {
    "logit_diff": "the difference of the two answers' logits at the first token where they differ",
    "logit_sum": "the difference of the summed logits of the two whole completions",
    "imported": "what the imported table calls propensity",
    "logprob_sum": "the difference of the log-probabilities of the two whole completions",
}


def claims_by_key(findings: Sequence[Finding]) -> dict[str, Claim]:
    """All claims of one cache by key."""
    return {claim.key: claim for finding in findings for claim in finding.claims}


def summary(findings: Sequence[Finding], prefix: str = "") -> dict[str, Any]:
    """Lead and the three cards of one cache: how variable, how spurious, how well it transfers.

    Parameters
    ----------
    findings : sequence of Finding
        Of one cache.
    prefix : str
        Of the anchors the cards link to.
    """
    claims = claims_by_key(findings)
    missing = {finding.script: finding.missing for finding in findings if finding.missing}
    cards = [
        _variability(claims, missing, prefix),
        _spuriousness(claims, missing, prefix),
        _transfer(claims, missing, prefix),
    ]
    return {"lead": _lead(claims), "cards": cards}


def percent(value: float) -> str:
    """17%, a share for people; one digit more where it would read 0% or 100% and is neither."""
    if not np.isfinite(value):
        return "not known"
    digits = 1 if 0 < abs(value) < 0.01 or 0.99 < value < 1 else 0
    text = f"{100 * value:.{digits}f}"
    # A share that rounds to nothing has no sign worth showing.
    return f"{text.lstrip('-') if float(text) == 0 else text}%".replace("-", "−")


def tidy(text: str) -> str:
    """A method's own words, with signs in place of code."""
    for code, sign in (("->", "→"), (">=", "≥"), ("<=", "≤")):
        text = text.replace(code, sign)
    return text


def number(value: float) -> str:
    """A number for people, with a real minus sign."""
    return format_number(value).replace("-", "−")


def limits(claim: Claim, form: Any = number) -> str:
    """ "95% interval 0.78 to 0.95", or why there is none."""
    if not np.isfinite(claim.ci_low) and not np.isfinite(claim.ci_high):
        return "no interval"
    return f"{claim.level:.0%} interval {form(claim.ci_low)} to {form(claim.ci_high)}"


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
    return _card(question, percent(share.estimate), limits(share, percent), words, link, "Steerability of every input")


def _spuriousness(claims: Mapping[str, Claim], missing: Mapping[str, str], prefix: str) -> dict[str, str]:
    question = "How spurious is it?"
    if "explained.mean" not in claims:
        return {"question": question, "missing": missing.get("variance_explained", "not computed")}
    mean = claims["explained.mean"]
    factors = "the letter (A or B) and the word (Yes or No)"
    if UNTOLD in mean.statement:
        factors = f"the letter (A or B) or the word (Yes or No), {UNTOLD},"
    words = f"of the differences between inputs go with {factors} of the answer"
    words += _where(claims, mean, "explained.most")
    if "option.pos_is_a" in claims:
        differ = claims["option.pos_is_a"]
        words += f" Steerability differs between A and B in {_count(differ)} of {differ.n} datasets (FDR 0.05)."
    link = f"{prefix}variance_explained"
    return _card(question, percent(mean.estimate), limits(mean, percent), words, link, "Variance explained")


def _where(claims: Mapping[str, Claim], mean: Claim, extreme: str) -> str:
    """How the card's sentence ends: over how many datasets, and where it is most."""
    if extreme not in claims:
        return f"{mean.statement.rpartition(',')[2].rstrip(':')}."
    most = claims[extreme]
    where = most.statement.partition(" in ")[2].removesuffix(CHOSEN).rstrip(":")
    return (
        f", on average over {mean.n} datasets. It is most in {where}: {percent(most.estimate)} "
        f"({percent(most.ci_low)} to {percent(most.ci_high)}; the interval does not allow for the choice of the most)."
    )


def _transfer(claims: Mapping[str, Claim], missing: Mapping[str, str], prefix: str) -> dict[str, str]:
    question = "How well does it transfer?"
    gaps = {key.removeprefix("gap."): claim for key, claim in claims.items() if key.startswith("gap.")}
    ranks = {key.removeprefix("id_ood."): claim for key, claim in claims.items() if key.startswith("id_ood.")}
    ranks = {shift: claim for shift, claim in ranks.items() if np.isfinite(claim.estimate)}
    if not ranks:
        if not gaps:
            return {"question": question, "missing": missing.get("id_vs_ood", "not computed")}
        losses = [f"{_shift(shift)} {number(one.estimate)} ({limits(one)})" for shift, one in gaps.items()]
        words = f"nats per unit multiplier are lost: {'; '.join(losses)}. A rank correlation needs more datasets."
        return _card(question, _range(gaps), _shifts(gaps), words, f"{prefix}gap_parts", "Each shift")
    first = HEADLINE if HEADLINE in ranks else next(iter(ranks))
    own = f"{_shift(first)}: {number(ranks[first].estimate)}, {limits(ranks[first])}"
    words = (
        "is the rank correlation between how datasets steer under the prompt of training and under another one; 1 "
        f"would keep their order. {'The shift that the paper prints, ' if first == HEADLINE else ''}{own}."
    )
    if gaps:
        shift = max(gaps, key=lambda name: gaps[name].estimate)
        most = gaps[shift]
        words += f" The loss runs over {_range(gaps)} nats per unit multiplier; it is most under {_shift(shift)}"
        words += f" ({number(most.ci_low)} to {number(most.ci_high)}; the interval does not allow for the choice)."
    return _card(question, _range(ranks), _shifts(ranks), words, f"{prefix}id_vs_ood", "Each shift")


def _range(claims: Mapping[str, Claim]) -> str:
    low, high = (number(find(claim.estimate for claim in claims.values())) for find in (min, max))
    return low if low == high else f"{low} to {high}"


def _shifts(claims: Mapping[str, Claim]) -> str:
    return "one shift" if len(claims) == 1 else f"least to most of {len(claims)} shifts; no interval"


def _shift(name: str) -> str:
    return nice_shift(*name.split("->"))


def _lead(claims: Mapping[str, Claim]) -> str:
    parts = []
    if "per_input.works" in claims:
        up, down, open_ = (_count(claims[f"per_input.{side}"]) for side in ("works", "below", "undecided"))
        parts.append(
            f"The 95% interval of mean steerability over inputs lies above 0 in {up} of "
            f"{people_count(claims['per_input.works'].n, 'dataset')}, below 0 in {down}, and leaves the sign open in "
            f"{open_}."
        )
    if "per_input.works_refits" in claims:
        up, down, open_ = (_count(claims[f"per_input.{side}_refits"]) for side in ("works", "below", "undecided"))
        parts.append(f"With the vector's own error counted, {up} remain above 0, {down} below, and {open_} open.")
    for kind, name in (("shuffled", "label-shuffled vectors"), ("random", "random directions")):
        if f"null.{kind}" in claims:
            null = claims[f"null.{kind}"]
            parts.append(
                f"Against {name}, {_count(null)} of {null.n} differ."
                if np.isfinite(null.estimate)
                else f"Whether it differs from {name} cannot be resolved: there are too few of them."
            )
    if "per_input.anti_share" in claims:
        share = claims["per_input.anti_share"]
        parts.append(f"Behind the averages, {percent(share.estimate)} of inputs move the other way.")
    if "explained.mean" in claims:
        mean = claims["explained.mean"]
        factors = "Answer letter or word" if UNTOLD in mean.statement else "Answer letter and word"
        parts.append(f"{factors} account for {percent(mean.estimate)} of the differences between inputs.")
    return " ".join(parts) or "This cache allows none of the three headline numbers; the sections say why."


def _count(claim: Claim) -> int:
    return round(claim.estimate * claim.n)


def untold(warnings: Sequence[str]) -> str:
    """In which datasets the word is determined by the letter, from an estimator's warnings; empty where in none."""
    for text in warnings:
        where, _, rest = text.partition(": ")
        if rest.startswith(("pos_is_yes is determined by", "pos_is_a is determined by")):
            return "here" if where == "all datasets" else f"in {where}"
    return ""


def methods(study: Any, findings: Sequence[Finding], seed: int, versions: Mapping[str, str]) -> list[str]:
    """Paragraphs for a methods section, from the cache's own record and from what ran."""
    return [_cache_paragraph(study), *_analysis_paragraphs(findings), _software(seed, versions)]


def _cache_paragraph(study: Any) -> str:
    spec, unit = study.spec, study.unit(study.datasets[0])
    sizes = [len(study.unit(name).inputs) for name in study.datasets]
    inputs = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    count = people_count(len(study.datasets), "dataset")
    settings = ", ".join(study.settings)
    lines = [
        f"We analysed steering in {study.model} on {count} ({inputs} test inputs each), in the settings {settings}."
    ]
    if "vector_layer" in unit.unit:
        layers = sorted({int(layer) for layer in unit.unit.read("vector_layer").ravel()})
        where = f"block {layers[0]}" if len(layers) == 1 else f"blocks {', '.join(map(str, layers))}"
        method = (spec.get("vectors") or {}).get("method")
        what = METHOD_NAMES.get(method, "a vector") if method else "a vector"
        scope = f", {SCOPE_NAMES.get(spec['scope'], spec['scope'])}" if "scope" in spec else ""
        lines.append(f"The vectors ({what}) are added to the output of decoder {where}, counted from 0{scope}.")
    score = str(unit.unit.attrs.get("score"))
    grid = ", ".join(f"{value:g}".replace("-", "−") for value in unit.multipliers)
    lines.append(
        f"Propensity is {SCORE_NAMES.get(score, score)}, in nats, at the multipliers {grid}; steerability is its "
        "least-squares slope on the multiplier."
    )
    if spec.get("split"):
        rule = "by content hash of the question" if spec["split"] == "content" else f"by the rule {spec['split']}"
        share = "/".join(map(str, spec.get("split_percent") or ()))
        lines.append(f"Questions were split {rule}{f' ({share} per cent)' if share else ''}; only test inputs count.")
    if spec.get("order"):
        lines.append(f"The order of the options follows the rule {spec['order']}.")
    return " ".join(lines)


def _analysis_paragraphs(findings: Sequence[Finding]) -> list[str]:
    """One paragraph for each section of the report, with what all methods share said once."""
    shared = (
        "base->base; ",
        "test inputs only, main vectors only, complete cases; ",
        "test inputs only, main vectors only; ",
    )
    by_script = {finding.script: finding for finding in findings if finding.method and not finding.missing}
    paragraphs = []
    for section in SECTIONS:
        lines = []
        for finding in (by_script[script] for script in section.scripts if script in by_script):
            method = finding.method.rstrip(".")
            for text in shared:
                method = method.replace(text, "")
            lines.append(tidy(f"{finding.title}: {method}."))
        if lines:
            paragraphs.append(" ".join(lines))
    if paragraphs:
        paragraphs[0] = (
            "Unless said otherwise, numbers are about test inputs and the vector of the base setting evaluated in the "
            f"base setting (base → base); comparisons use inputs complete in every cell compared. {paragraphs[0]}"
        )
    return paragraphs


def _software(seed: int, versions: Mapping[str, str]) -> str:
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Intervals have a nominal coverage of 95% unless said otherwise, and the unit of resampling is the question. "
        f"Random numbers derive from seed {seed} and the dataset's name. Computed with {used}."
    )
