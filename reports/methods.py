"""The methods section, for pasting into a paper: from the cache's own record and from what ran, with its citations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from analyses import SECTIONS
from analyses._cache import UNNAMED, people_count
from analyses._claim import Finding, sentence
from analyses._words import listed, tidy
from reports.operators import acts
from reports.references import citations
from steerstats.figures import nice_setting

_PARTS = re.compile(r";\s+(?![^(]*\))")  # a semicolon between brackets divides nothing
NAMES = {
    "Spearman",
    "Kendall's",
    "Hotelling",
    "Shapley",
    "Hartung–Knapp",
    "Wilson",
    "Satterthwaite",
    "Benjamini–Hochberg",
}
METHOD_NAMES = {
    "mean_difference": "the mean difference of activations between {}",
    "pca": "the first principal component of the differences of activations between {}",
    "logistic": "the weights of a logistic regression that separates activations of {}",
}
COMPLETIONS = "the two completions of each training pair"
READ_NAMES = {
    "answer": f"{COMPLETIONS}, at the token where these first differ",
    "last_token": f"{COMPLETIONS}, at the last token of each",
    "completion_mean": f"{COMPLETIONS}, averaged over the tokens of each",
    "last_prompt": "each training prompt with the description of the behaviour and with that of its opposite, at the "
    "last token",
}
TRAINED = "The vectors made from training pairs, and their mean,"
RESCALE_NAMES = {
    "base": f"{TRAINED} have the norm of the dataset's base vector.",
    "unit": f"{TRAINED} have norm 1.",
    "none": f"{TRAINED} keep their own norms.",
}
FILES_NAMES = {
    "base": "Vectors made elsewhere have the norm of the dataset's base vector.",
    "unit": "Vectors made elsewhere have norm 1.",
    "none": "Vectors made elsewhere keep their own norms.",
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


ORDER_NAMES = {
    "balanced": "The option that shows the behaviour stood under A and under B equally often (order: balanced).",
    "tan2024": "The options of every second question were exchanged (order: tan2024, as in the original code).",
    "counterbalance": "Every question was asked in both orders of its options (order: counterbalance).",
}


def methods(studies: Sequence[Any], findings: Sequence[Finding], seed: int, versions: Mapping[str, str]) -> list[str]:
    """Paragraphs for a methods section: each cache's own record, what ran on any of them, and with what.

    Parameters
    ----------
    studies : sequence of Study
    findings : sequence of Finding
        All of the run, those that compare included, in the order of the report.
    seed : int
    versions : mapping of str to str
        Software and version.
    """
    caches = dict.fromkeys(map(_cache_paragraph, studies))
    analysed = _analysis_paragraphs(findings, "validation" if studies[0].kind == "sweep" else "test")
    return [*caches, *analysed, _software(seed, versions)]


def _cache_paragraph(study: Any) -> str:
    spec, unit = study.spec, study.unit(study.datasets[0])
    sizes = [len(study.unit(name).inputs) for name in study.datasets]
    inputs = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    count = people_count(len(study.datasets), "dataset")
    settings = listed([nice_setting(name) for name in study.settings])
    where = f"in the settings {settings}" if len(study.settings) > 1 else f"in the setting {settings}"
    kind = "validation" if study.kind == "sweep" else "test"
    what = "" if study.model == UNNAMED else f" in {study.model}"
    lines = [f"We analysed steering [1–3]{what} on {count} ({inputs} {kind} inputs each), {where}."]
    if "vector_layer" in unit.unit:
        layers = sorted({int(layer) for layer in unit.unit.read("vector_layer").ravel()})
        where = f"block {layers[0]}" if len(layers) == 1 else f"blocks {', '.join(map(str, layers))}"
        made = spec.get("vectors") or {}
        what = METHOD_NAMES.get(made.get("method"), "a vector").format(READ_NAMES.get(made.get("read"), COMPLETIONS))
        scope = f", {SCOPE_NAMES.get(spec['scope'], spec['scope'])}" if "scope" in spec else ""
        lines.append(f"The vectors ({what}) {acts(study)} the output of decoder {where}, counted from 0{scope}.")
        lines += filter(None, [RESCALE_NAMES.get(made.get("rescale"))])
        lines += filter(None, [FILES_NAMES.get(made.get("files_rescale"))] if made.get("files") else [])
    score = str(unit.unit.attrs.get("score"))
    grid = ", ".join(f"{value:g}".replace("-", "−") for value in unit.multipliers)
    lines.append(
        f"Propensity is {SCORE_NAMES.get(score, score)}, in nats, at the multipliers {grid}; steerability is its "
        "least-squares slope on the multiplier."
    )
    if spec.get("split"):
        rule = "by content hash of the question" if spec["split"] == "content" else f"by the rule {spec['split']}"
        parts = zip(spec.get("split_percent") or (), ("training", "validation", "test"))
        share = ", ".join(f"{percent}% {part}" for percent, part in parts)
        lines.append(f"Questions were split {rule}{f' ({share})' if share else ''}; only {kind} inputs count.")
    if spec.get("order"):
        lines.append(ORDER_NAMES.get(spec["order"], f"The order of the options follows the rule {spec['order']}."))
    return " ".join(lines)


def _analysis_paragraphs(findings: Sequence[Finding], inputs: str = "test") -> list[str]:
    """One paragraph for each section of the report, with what several methods share said once."""
    shared = (
        "base->base; ",
        "test inputs only, main vectors only, complete cases; ",
        "test inputs only, main vectors only; ",
    )
    ran = [finding for finding in findings if not finding.missing]
    by_script: dict[str, list[Finding]] = {}
    for finding in ran:
        # What ran on several caches is said once, and where its words differ, once more.
        if finding.method not in ("", *(one.method for one in by_script.get(finding.script, ()))):
            by_script.setdefault(finding.script, []).append(finding)
    cited, paragraphs, said = citations(finding.script for finding in ran), [], set()
    for section in SECTIONS:
        lines = []
        for finding in (one for script in section.scripts for one in by_script.get(script, ())):
            method = finding.method.rstrip(".")
            for text in shared:
                method = method.replace(text, "").removesuffix(f"; {text.removesuffix('; ')}")
            # A sentence that an earlier method said, or this one says twice, is not said again.
            new = [part for part in dict.fromkeys(_PARTS.split(method)) if part not in said or len(part) < 40]
            said |= set(new)
            if new:
                words = sentence(tidy("; ".join(new))).rstrip(".")
                title = finding.title.partition(":")[0]
                lines.append(f"{title}: {words[:1].lower() if _plain(words) else words[:1]}{words[1:]}"
                             f"{cited.get(finding.script, '')}.")  # fmt: skip
        if lines:
            paragraphs.append(" ".join(lines))
    if paragraphs:
        paragraphs[0] = (
            f"Unless said otherwise, numbers are about {inputs} inputs and the vector of the base setting evaluated in "
            f"the base setting (base → base); comparisons use inputs complete in every cell compared. {paragraphs[0]}"
        )
    return paragraphs


def _plain(words: str) -> bool:
    """Whether a sentence starts with an everyday word, which a colon before it leaves in small letters."""
    first = words.split(" ")[0].rstrip(",;")
    return len(first) > 1 and first[1:].islower() and first not in NAMES


def _software(seed: int, versions: Mapping[str, str]) -> str:
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Intervals have a nominal coverage of 95% unless said otherwise; the unit of resampling is the question, or "
        f"the dataset where n counts datasets. "
        f"Random numbers derive from seed {seed} and the dataset's name. Computed with {used}."
    )
