"""The claims as a terminal shows them: one row each under the headings of the report, narrow enough for 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analyses import SECTIONS
from analyses._claim import Claim
from analyses._words import tidy
from reports.words import missed
from steerstats.results import SLOPE_UNIT

UNITS = {SLOPE_UNIT: "nat/λ", f"({SLOPE_UNIT})²": "(nat/λ)²", "nat": "nat"}
# The count of datasets in the last column says it.
_MEAN = re.compile(r", (?:random-effects )?mean over datasets(?=:| \()")
SHORT = {"datasets": "ds", "dataset": "ds", "inputs": "in", "questions": "qu", "pairs": "pr", "cells": "cells"}


def claims_table(record: Mapping[str, Any]) -> Group:
    """The claims of a run.

    Parameters
    ----------
    record : mapping
        As `reproduce` returns it, or `claims.json`.

    Returns
    -------
    rich.console.Group
        A table for each section, then what is not there, one line each.
    """
    parts: list[Any] = []
    several = len(record["caches"]) > 1
    for section in SECTIONS:
        found = [one for script in section.scripts for one in record["findings"] if one["script"] == script]
        if any(one["claims"] for one in found):
            parts.append(Text(f"\n{section.title}", style="bold"))
        # One cache after the other, each under its name: their rows would read alike.
        for cache in dict.fromkeys(one["cache"] for one in found):
            table = _table()
            for finding in found:
                for claim in map(Claim.read, finding["claims"]) if finding["cache"] == cache else ():
                    table.add_row(*_row(claim))
            if table.row_count:
                parts += [*([Text(cache, style="underline")] if several else []), table]
    missing = list(_missing(record, several))
    if missing:
        parts += [Text("\nNot here", style="bold"), *missing]
    units = "Means over datasets where n counts them (ds datasets, in inputs, qu questions). "
    units += "nat/λ: nats per unit multiplier. Brackets: 95% intervals."
    return Group(*parts, Text(f"\n{units}", style="dim"))


def _table() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False, expand=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    return table


def _row(claim: Claim) -> tuple[Text, Text, Text]:
    words = Text(_MEAN.sub("", claim.statement).rstrip(":"))
    if claim.published is not None:
        words.append(f"  published {claim.shown_published}: {claim.verdict}", style="dim")
    value, limits = claim.shown
    if value.startswith(("not in this cache", "cannot be")):
        words.append(f"  {value}", style="dim")
        value = "—"
    unit = UNITS.get(claim.shown_unit, claim.shown_unit)
    # Each kind in a line of its own: in one they would leave the words too few letters a line.
    number = Text(value.replace(", ", "\n") if claim.counts else value, style="bold")
    for part in filter(None, [limits, unit]):
        number.append(f" {part}", style="not bold")
    of = claim.n_of.split(" ")[0]
    return words, number, Text(f"{claim.n} {SHORT.get(of, of)}" if claim.n else "", style="dim")


def _missing(record: Mapping[str, Any], several: bool) -> Iterator[Any]:
    """One line for each reason, with what it takes away."""
    reasons: dict[str, list[str]] = {}
    for finding in record["findings"]:
        where = f" ({finding['cache']})" if several else ""
        if missed(finding["missing"]):
            reasons.setdefault(tidy(finding["missing"]), []).append(f"{finding['title']}{where}")
        for text in finding["absent"]:
            what, _, why = text.partition(": ")
            reasons.setdefault(why, []).append(f"{finding['title']}{where}, {what}")
    for why, titles in reasons.items():
        more = f" and {len(titles) - 2} more" if len(titles) > 3 else ""
        shown = "; ".join(titles if len(titles) <= 3 else titles[:2])
        yield Padding(Text(f"{shown}{more}: {why}", style="dim"), (0, 0, 0, 0))
