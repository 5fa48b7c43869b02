"""A chapter of the page: its findings with figures, captions and claims, and what is not there with the reason."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

import analyses
from analyses._claim import Claim, Finding, figure_names, sentence
from analyses._words import tidy
from reports.collect import RESULTS, Done
from reports.embed import inline_svg, natural_width
from reports.notices import warned
from reports.tables import MOST_ROWS, cells
from reports.words import missed

OPEN_FIGURES = 3  # of one finding; the rest is folded
LAYER = "layer_sweep"


def sections_of(done: Sequence[Done], out: Path, *, several: bool, names: Collection[str]) -> list[dict[str, Any]]:
    """The chapters of a report on grids, as the template takes them.

    Parameters
    ----------
    done : sequence of Done
    out : path
        Where the scripts left their files, in `results`.
    several : bool
        Whether there are several caches, so that each finding has to name its own.
    names : collection of str
        Names of caches, datasets and vectors, which keep their letters where a sentence begins with one.
    """
    return [_section(section, done, out, several, names) for section in analyses.SECTIONS]


def sections_of_a_sweep(done: Sequence[Done], out: Path, *, names: Collection[str]) -> list[dict[str, Any]]:
    """The one chapter that a sweep has, and one that names what a grid at its layer would tell.

    Parameters
    ----------
    done : sequence of Done
    out : path
    names : collection of str
        As for `sections_of`.
    """
    lead = "One vector for each layer, in the base setting, on validation inputs: where does it move answers most?"
    told = _section(analyses.Section("layer", "Which layer?", lead, (LAYER,)), done, out, False, names)
    rows = []
    for section in analyses.SECTIONS:
        rest = [one for one in done if one.job.script in section.scripts and one.job.script != LAYER]
        titles = "; ".join(one.finding.title for one in rest if one.finding.missing)
        if titles:
            rows.append({"lines": [{"id": section.id, "title": section.title}], "why": titles})
    untold = {
        "id": "untold",
        "title": "What a sweep does not tell",
        "lead": "The other questions of this page want a grid at the layer that the sweep chose, on test inputs; those "
        "across models and caches two of them.",
        "findings": [],
        "missing": rows,
    }
    return [told, untold]


def anchor_prefix(label: str, several: bool) -> str:
    """Before the anchors of one of several caches."""
    return f"{label}-" if several else ""


def _section(
    section: analyses.Section, done: Sequence[Done], out: Path, several: bool, names: Collection[str]
) -> dict[str, Any]:
    own = [one for script in section.scripts for one in done if one.job.script == script]
    return {
        "id": section.id,
        "title": section.title,
        "lead": section.lead,
        "findings": [finding_view(one, out, several, names) for one in own if not one.finding.missing],
        "missing": _by_reason(line for one in own for line in _missing_view(one, several)),
    }


def _by_reason(lines: Iterable[dict[str, str]]) -> list[dict[str, Any]]:
    """What is not there, one row a reason: a cache that lacks one thing lacks many findings for it."""
    found: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        found.setdefault(line["why"], []).append(line)
    return [{"why": _code(why), "lines": own} for why, own in found.items()]


def _code(text: str) -> Markup:
    """Escaped text, with what stands between backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _missing_view(one: Done, several: bool) -> list[dict[str, str]]:
    """A finding that is not there, for the box that ends a section; one that is there says itself what it lacks."""
    if not missed(one.finding.missing):
        return []
    anchor = f"{anchor_prefix(one.job.label, several)}{one.finding.script}"
    cache = f" ({one.job.label})" if several else ""
    return [{"id": anchor, "title": f"{one.finding.title}{cache}", "why": tidy(one.finding.missing)}]


def finding_view(one: Done, out: Path, several: bool, names: Collection[str] = ()) -> dict[str, Any]:
    finding, folder = one.finding, out / RESULTS / one.job.label
    anchor = f"{anchor_prefix(one.job.label, several)}{finding.script}"
    table = pd.read_parquet(folder / f"{finding.script}.parquet")
    where = f"{RESULTS}/{one.job.label}/{finding.script}.csv"
    claims, said = [], ""
    for claim in finding.claims:
        view = claim_view(claim)
        # Four shifts share one published value; its source and the reasons are said once.
        same, said = view["published"] + view["reason"] == said, view["published"] + view["reason"]
        if same and claim.published is not None:
            view |= {"published": f"Published: {claim.shown_published}, as above;", "reason": ""}
        claims.append(view)
    return {
        "id": anchor,
        "title": finding.title,
        # Figures of this page have no numbers: a number is always the paper's.
        "paper": f"the paper's {finding.paper}" if finding.paper.startswith("figure") else finding.paper,
        "cache": one.job.label if several else "",
        "warnings": warned(finding.warnings, names),
        "claims": claims,
        "figures": _figures(finding, folder, anchor),
        "caption": _caption(finding),
        "file": where,
        "table": cells(table, f"{finding.title}; as a file: {where}", label="The numbers as a table", most=MOST_ROWS),
    }


def _figures(finding: Finding, folder: Path, anchor: str) -> list[dict[str, Any]]:
    """Every figure of a finding with its heading, where there are several; those after the third are folded."""
    shown = []
    for k, name in enumerate(figure_names(finding)):
        svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
        heading = finding.pages[k] if len(finding.pages) > 1 else ""
        title = f"{finding.title}{f': {heading}' if heading else ''}"
        prefix = anchor if k == 0 else f"{anchor}-{k + 1}"
        one = {"svg": Markup(inline_svg(svg, prefix, title, finding.alt)), "natural": f"{natural_width(svg):.0f}px"}
        shown.append(one | {"heading": heading, "title": title, "folded": k >= OPEN_FIGURES})
    return shown


def _caption(finding: Finding) -> list[list[tuple[str, str]]]:
    """Paragraphs of (lead word, text): how to read it; bars and n; method and assumptions; what is not there."""
    method = sentence(tidy(finding.method))
    assumes = sentence(tidy("; ".join(finding.assumptions)))
    paragraphs = [
        [("How to read it.", finding.reading)],
        [("Bars:", finding.bars), ("n:", finding.counted)],
        [("Method:", method), ("Assumes:", assumes)],
        [("Not here:", f"{'. '.join(finding.absent)}." if finding.absent else "")],
    ]
    shown = [[(name, text) for name, text in paragraph if text] for paragraph in paragraphs]
    return [paragraph for paragraph in shown if paragraph]


def claim_view(claim: Claim) -> dict[str, str]:
    value, interval = claim.shown
    published = "" if claim.published is None else f"Published: {claim.shown_published} ({claim.source});"
    counted = f"n = {claim.n} {claim.n_of}" if claim.n else ""
    why = "" if np.isnan(claim.estimate) else claim.interval
    return {
        "statement": claim.statement,
        "value": value,
        "interval": interval,
        "unit": claim.shown_unit,
        "fine_print": tidy("; ".join(filter(None, [counted, why]))),
        "published": published,
        "verdict": claim.verdict,
        "reason": tidy(claim.reason),
    }
