"""The methods section, for pasting into a paper: from the cache's own record and from what ran, with its citations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analyses import SECTIONS
from analyses._cache import people_count
from analyses._claim import Finding, sentence
from analyses._words import tidy
from reports.references import citations
from steerstats.figures import nice_setting

NAMES = {"Spearman", "Kendall's", "Hotelling", "Shapley", "Wilson", "Satterthwaite", "Benjamini–Hochberg"}
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


def methods(study: Any, findings: Sequence[Finding], seed: int, versions: Mapping[str, str]) -> list[str]:
    """Paragraphs for a methods section, from the cache's own record and from what ran."""
    return [_cache_paragraph(study), *_analysis_paragraphs(findings), _software(seed, versions)]


def _cache_paragraph(study: Any) -> str:
    spec, unit = study.spec, study.unit(study.datasets[0])
    sizes = [len(study.unit(name).inputs) for name in study.datasets]
    inputs = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    count = people_count(len(study.datasets), "dataset")
    settings = ", ".join(map(nice_setting, study.settings))
    where = f"in the settings {settings}" if len(study.settings) > 1 else f"in the setting {settings}"
    lines = [f"We analysed steering [1–3] in {study.model} on {count} ({inputs} test inputs each), {where}."]
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
    """One paragraph for each section of the report, with what several methods share said once."""
    shared = (
        "base->base; ",
        "test inputs only, main vectors only, complete cases; ",
        "test inputs only, main vectors only; ",
    )
    by_script = {finding.script: finding for finding in findings if finding.method and not finding.missing}
    cited, paragraphs, said = citations(by_script), [], set()
    for section in SECTIONS:
        lines = []
        for finding in (by_script[script] for script in section.scripts if script in by_script):
            method = finding.method.rstrip(".")
            for text in shared:
                method = method.replace(text, "").removesuffix(f"; {text.removesuffix('; ')}")
            # A sentence that an earlier method said, or this one says twice, is not said again.
            new = [part for part in dict.fromkeys(method.split("; ")) if part not in said or len(part) < 40]
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
            "Unless said otherwise, numbers are about test inputs and the vector of the base setting evaluated in the "
            f"base setting (base → base); comparisons use inputs complete in every cell compared. {paragraphs[0]}"
        )
    return paragraphs


def _plain(words: str) -> bool:
    """Whether a sentence starts with an everyday word, which a colon before it leaves in small letters."""
    first = words.split(" ")[0].rstrip(",;")
    return len(first) > 1 and first[1:].islower() and first not in NAMES


def _software(seed: int, versions: Mapping[str, str]) -> str:
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Intervals have a nominal coverage of 95% unless said otherwise, and the unit of resampling is the question. "
        f"Random numbers derive from seed {seed} and the dataset's name. Computed with {used}."
    )
