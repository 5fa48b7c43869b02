"""What a study's main results show first: the headline with its interval, one row for each dataset, where the rest is.

`to_frame()` stays the whole long table; these are the few numbers that a reader looks for, in 80 columns.
"""

from __future__ import annotations

import html
import textwrap
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from steerstats.results import Result
from steerstats.text import WIDTH, format_number, html_items, limits, text_table, wrapped

UNIT = "nats per unit multiplier"
OVER = "random effects, Hartung–Knapp t; u: unweighted, f: floored, as warned; tau: SD between datasets"
MARKS = {"plain": "", "unweighted": " u", "floored": " f"}


@dataclass(frozen=True, kw_only=True)
class Headlined(Result):
    """A result of several tables, which shows its headline numbers before anything else."""

    PARTS: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def sections(self) -> list[tuple[str, pd.DataFrame]]:
        """Titles and tables of text, the headline first and one row for each dataset last."""

    def summary(self) -> str:
        """The headline numbers, one row for each dataset, and what the attributes hold, in 80 columns."""
        lines = [type(self).__name__, "", self.tables(), "", "More, as tables of their own:"]
        for name, what in self._parts().items():
            lines += textwrap.wrap(f".{name}  {what}", WIDTH, initial_indent="  ", subsequent_indent="      ")
        return "\n".join([*lines, "", *wrapped(self._notes())])

    def tables(self) -> str:
        """The headline numbers and one row for each dataset, in 80 columns."""
        parts = ([*textwrap.wrap(title, WIDTH), *text_table(table)] for title, table in self.sections())
        return "\n\n".join("\n".join(lines) for lines in parts)

    def _repr_html_(self) -> str:
        parts = [f"<h4>{type(self).__name__}</h4>"]
        for title, table in self.sections():
            names = [name.replace("\n", " ") for name in table.columns]
            body = table.set_axis(names, axis=1).to_html(index=False, border=0)
            parts.append(f"<p><b>{html.escape(title)}</b></p>{body}")
        rest = "".join(f"<li><code>.{name}</code> {html.escape(what)}</li>" for name, what in self._parts().items())
        parts.append(f"<p>More, as tables of their own:</p><ul>{rest}</ul><ul>{html_items(self._notes())}</ul>")
        return f"<div class='steerstats'>{''.join(parts)}</div>"

    def _parts(self) -> dict[str, str]:
        parts = {name: getattr(self, name.rstrip("()")) for name in self.PARTS}
        empty = (part is None or (isinstance(part, Mapping) and not part) for part in parts.values())
        return {name: what for (name, what), nothing in zip(self.PARTS.items(), empty) if not nothing}


def number(value: float, digits: int = 3) -> str:
    """ "0.063"; a dash where there is none, such as the SD of one input."""
    return "—" if np.isnan(value) else format_number(value, digits)


def with_limits(value: float, low: float, high: float, digits: int = 3) -> str:
    """ "0.063 [0.020, 0.106]", or one dash where there is nothing."""
    nothing = np.isnan([value, low, high]).all()
    return "—" if nothing else f"{number(value, digits)} {limits(low, high, digits)}"


def share(value: float) -> str:
    """ "12%"."""
    return "—" if np.isnan(value) else f"{value:.0%}"


def middle(values: Sequence[float], show=number) -> tuple[str, str]:
    """Median and range over datasets, as text."""
    finite = np.asarray(values, float)[np.isfinite(values)]
    if not len(finite):
        return "—", ""
    return show(float(np.median(finite))), f"{show(float(finite.min()))} to {show(float(finite.max()))}"


def over_datasets(rows: Sequence[tuple[str, object]], first: str, level: float) -> pd.DataFrame:
    """One row for each meta-analysis: the mean to read, with its mark, where a new dataset would lie, tau and n."""
    table = []
    for name, found in rows:
        told = found.quoted
        table.append(
            {
                first: name,
                f"mean [{level:.0%}]": with_limits(told.mean, told.ci_low, told.ci_high) + MARKS[found.to_read],
                "a new dataset": limits(found.prediction_low, found.prediction_high),
                "tau": number(found.tau),
                "n": str(found.n),
            }
        )
    return pd.DataFrame(table)
