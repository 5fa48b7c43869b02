"""The methods section, for pasting into a paper: plain paragraphs on what this run did, and the works they cite.

A sentence stands there only where its method ran, and its numbers are those of the cache or of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analyses._claim import OF_MEANS, Finding
from analyses._words import listed
from reports.methods_data import cache_paragraphs
from reports.methods_doubts import doubts_paragraph, shifts_paragraph
from reports.methods_inputs import inputs_paragraph
from reports.ran import SIGNS_REFITS, Ran
from reports.references import Cited

SCALES = {"logit scale": "logit", "log scale": "log", "Fisher z scale": "Fisher's z"}


def methods(
    studies: Mapping[str, Any], findings: Sequence[Finding], seed: int, versions: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Paragraphs for a methods section, and the list of the works that they cite.

    Parameters
    ----------
    studies : mapping of str to Study
        Name of a cache in this run -> its study.
    findings : sequence of Finding
        All of the run, those that compare included.
    seed : int
    versions : mapping of str to str
        Software and version.
    """
    ran, cite = Ran(findings), Cited()
    paragraphs = [
        *cache_paragraphs(studies, cite),
        inputs_paragraph(ran, studies, cite),
        shifts_paragraph(ran, studies, cite),
        doubts_paragraph(ran, studies, cite),
        f"{_inference(ran, cite)} {_software(studies, seed, versions)}".strip(),
    ]
    return list(filter(None, paragraphs)), cite.references()


def _inference(ran: Ran, cite: Cited) -> str:
    """Intervals, means over datasets and many tests at once."""
    lines = []
    levels = listed([f"{level:.0%}" for level in sorted({claim.level for claim in ran.claims()})])
    if levels:
        over = any(claim.n_of.startswith("dataset") and claim.n > 1 for claim in ran.claims())
        more = ", or the dataset where a mean or a correlation is over datasets" if over else ""
        lines.append(f"Intervals are {levels} intervals; the unit that they count or resample is the question{more}.")
    if ran.says("equally weighted datasets"):
        scales = [name for words, name in SCALES.items() if ran.says(words)]
        some = f"{', '.join(scales[:-1])} or {scales[-1]}" if scales[1:] else "".join(scales)
        scale = f", taken on the {some} scale where the quantity has bounds" if scales else ""
        lines.append(f"Means over datasets weight all datasets equally and have t intervals from their spread{scale}.")
    if ran.says("Hartung–Knapp"):
        lines.append(_random_effects(ran, cite))
    if means := ran.matches(OF_MEANS):
        lines.append("Intervals of means over datasets are too short where a few datasets are unlike the rest.")
    if not ran.says("Satterthwaite") and not ran.keys("per_input_steerability", SIGNS_REFITS):
        text = "ntervals hold for these very vectors: they do not include the vectors' own sampling error"
        if means:
            # Each dataset has a vector of its own, whose error adds to the spread that such an interval is made from.
            lines.append(f"I{text}, except in means over datasets, where it counts as difference between datasets.")
        else:
            lines.append(f"All i{text}.")
    if ran.says("Benjamini–Hochberg"):
        lines.append(
            "Where datasets are counted by whether they differ, p-values are adjusted over datasets for a false "
            f"discovery rate of 0.05{cite('bh')}; intervals of single datasets are not adjusted."
        )
    return " ".join(lines)


def _random_effects(ran: Ran, cite: Cited) -> str:
    text = (
        f"Random-effects means weight datasets by their errors and by the variance between them, by REML"
        f"{cite('viechtbauer05')}, with Hartung–Knapp intervals{cite('hartung')}"
    )
    parts = []
    if ran.says("Q-profile"):
        parts.append(f"the standard deviation between datasets has its Q-profile interval{cite('viechtbauer07')}")
    if ran.says("prediction interval"):
        parts.append(f"prediction intervals for a new dataset are those of {cite.by_name('nagashima')}")
    if ran.says(", floored"):
        parts.append(f"intervals that are short by chance are widened to the model's own error{cite('roever')}")
    if ran.says("over datasets, unweighted"):
        parts.append(
            "where one dataset dominates, or standard errors are uncertain or go with the effects, the unweighted mean "
            f"is given instead{cite('ibragimov')}"
        )
    return "; ".join([text, *parts]) + "."


def _software(studies: Mapping[str, Any], seed: int, versions: Mapping[str, str]) -> str:
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return " ".join([*_built(studies), f"Resampling has seed {seed}. The analysis was computed with {used}."])


def _built(studies: Mapping[str, Any]) -> list[str]:
    """What built the caches and from which seed, those alike together; tables and simulations were built by nothing."""
    alike: dict[str, list[str]] = {}
    for label, study in studies.items():
        if study.kind not in ("grid", "sweep"):
            continue
        made = study.reader.manifest.get("provenance") or {}
        software, seed = made.get("versions") or {}, study.spec.get("seed")
        used = [f"{name} {software[name]}" for name in ("torch", "transformers") if software.get(name)]
        how = [f"with {listed(used)}"] * bool(used) + [f"from seed {seed}"] * (seed is not None)
        name = [f'"{label}"'] * (len(studies) > 1)
        alike.setdefault(" ".join(how), []).append(" ".join([*name, f"(identity {study.reader.spec_hash[:12]})"]))
    return [
        f"The cache{'s' * (len(caches) > 1)} {listed(caches)} {'were' if len(caches) > 1 else 'was'} built {how}."
        for how, caches in alike.items()
        if how
    ]
