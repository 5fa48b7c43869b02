"""Numbers, tables and notes as text: in 80 columns where they can, and nothing said in every row."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable

import numpy as np
import pandas as pd

WIDTH = 80
LARGE = 1e6  # numbers from here on, and axes, are written with powers of ten
SHORTEST_NAME = 12
MOST_ROWS = 60


def decimals(value: float, digits: int = 3) -> int:
    """Digits after the point that a number needs: fewer from a hundred on, none of three from a thousand on.

    Examples
    --------
    >>> from steerstats.text import decimals
    >>> [decimals(value) for value in (-0.26, 99.9, 250.0, -80998.83)]
    [3, 3, 1, 0]
    """
    return max(0, digits - 2 * (abs(value) >= 100) - (abs(value) >= 1000))


def format_number(value: float, digits: int = 3) -> str:
    """So many digits after the point, fewer where a number is large, one more, then an exponent, where it is small.

    Examples
    --------
    >>> from steerstats.text import format_number
    >>> [format_number(value) for value in (0.12345, -3.3e-4, 2e-6, -80998.83, float("inf"), float("nan"))]
    ['0.123', '-0.0003', '2.00e-06', '-80999', 'inf', 'NaN']
    >>> format_number(-0.001, 2)
    '0.00'
    """
    if value is None or np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "inf" if value > 0 else "-inf"
    if digits == 3 and 0 < abs(value) < 1e-3:
        digits = 4
    if abs(value) >= LARGE or (digits == 4 and 0 < abs(value) < 5e-5):
        return f"{value:.2e}"
    text = f"{value:.{decimals(value, digits)}f}"
    return text if float(text) else text.lstrip("-")


def limits(low: float, high: float, digits: int = 3) -> str:
    """ "[0.020, 0.106]"; a dash where there is no interval.

    Examples
    --------
    >>> from steerstats.text import limits
    >>> limits(0.02, 0.1061), limits(float("nan"), float("nan"))
    ('[0.020, 0.106]', '—')
    """
    if np.isnan(low) and np.isnan(high):
        return "—"
    return f"[{format_number(low, digits)}, {format_number(high, digits)}]"


def compact(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A result's frame as cells of text, and in words what all of its rows have in common.

    The two ends of an interval share a column, the method of each row goes (all of them stand below the table), and
    the first column stays whatever it holds.

    Examples
    --------
    >>> import pandas as pd
    >>> from steerstats.text import compact
    >>> ends = {"ci_low": [0.1, 0.2], "ci_high": [0.314, 0.4]}
    >>> table, common = compact(pd.DataFrame({"dataset": ["a", "b"], **ends, "level": 0.95, "n": 60}))
    >>> table.columns.tolist(), table.iloc[0].tolist(), common
    (['dataset', '[95%]'], ['a', '[0.100, 0.314]'], 'n 60')
    """
    frame = frame.drop(columns="method", errors="ignore")
    pairs = {low: f"{low[:-4]}_high" for low in frame if low.endswith("_low") and f"{low[:-4]}_high" in frame}
    ends = {*pairs, *pairs.values()}
    same = [
        name
        for name in frame.columns[1:]
        if len(frame) > 1 and name not in ends and frame[name].nunique(dropna=False) == 1
    ]
    common = {name: _column(frame[name])[0] for name in same}
    cells = {}
    for name in frame.columns.drop(same):
        if name == "ci_low" and "level" in common:
            cells[f"[{100 * float(common.pop('level')):g}%]"] = list(map(limits, frame[name], frame[pairs[name]]))
        elif name in pairs:
            cells[f"{name[:-4]} [low, high]"] = list(map(limits, frame[name], frame[pairs[name]]))
        elif name not in ends:
            cells[name] = _column(frame[name])
    return pd.DataFrame(cells), ", ".join(f"{name} {value}" for name, value in common.items())


def text_table(table: pd.DataFrame) -> list[str]:
    """Lines of a table of text: first column to the left, the others to the right; a header may have more lines.

    Where the table would be wider than a terminal, the name of a dataset has a line of its own above its numbers.

    Examples
    --------
    >>> import pandas as pd
    >>> from steerstats.text import text_table
    >>> text_table(pd.DataFrame({"dataset": ["a"], "x": ["1.5"]}))
    ['  dataset    x', '  a        1.5']
    """
    heads = [name.split("\n") for name in table.columns]
    deepest = max(map(len, heads))
    columns = [[""] * (deepest - len(head)) + head + list(table[name]) for head, name in zip(heads, table.columns)]
    widths = [max(map(len, column)) for column in columns]
    if table.columns[0] == "dataset":
        widths[0] = min(widths[0], max(SHORTEST_NAME, WIDTH - sum(widths[1:]) - 2 * len(widths)))
    lines = []
    for row in zip(*columns):
        if len(row[0]) > widths[0]:
            lines.append(f"  {row[0]}")
            row = ("", *row[1:])
        cells = [cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths))]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def table_lines(frame: pd.DataFrame) -> list[str]:
    """A result's frame for a terminal: one row a line, or one field a line where there is but one row.

    Examples
    --------
    >>> import pandas as pd
    >>> from steerstats.text import table_lines
    >>> table_lines(pd.DataFrame({"gap": [0.25], "n_inputs": [60]}))
    ['  gap       0.25', '  n_inputs    60']
    """
    if not frame.columns.size:
        return ["  no rows"]
    if len(frame) == 1:
        row = compact(frame)[0].iloc[0]
        return text_table(pd.DataFrame({"": row.index, " ": row.tolist()}))[1:]
    table, common = compact(frame)
    if len(frame) > MOST_ROWS:
        table = pd.concat([table.head(MOST_ROWS // 2), table.tail(MOST_ROWS // 2)])
    widest = {name: max(map(len, table[name]), default=WIDTH) for name in table}
    heads = [re.sub("_| (?=\\[)", "\n", name) if len(name) > width else name for name, width in widest.items()]
    lines = text_table(table.set_axis(heads, axis=1))
    if len(table) < len(frame):
        lines.append(f"({len(frame)} rows; the middle is left out here, to_frame() has all)")
    return lines + (wrapped([("In every row", common)]) if common else [])


def wrapped(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Labelled sentences in lines of 80 columns.

    Examples
    --------
    >>> from steerstats.text import wrapped
    >>> wrapped([("Method", "least squares")])
    ['Method: least squares']
    """
    return [line for label, text in notes for line in textwrap.wrap(f"{label}: {text}", WIDTH, subsequent_indent="  ")]


def html_items(notes: Iterable[tuple[str, str]]) -> str:
    """Labelled sentences as items of a list in a notebook.

    Examples
    --------
    >>> from steerstats.text import html_items
    >>> html_items([("Assumes", "n > 2")])
    '<li><b>Assumes:</b> n &gt; 2</li>'
    """
    return "".join(f"<li><b>{label}:</b> {html.escape(text)}</li>" for label, text in notes)


def _column(values: pd.Series) -> list[str]:
    """Cells of one precision; short where all numbers are round, as multipliers are."""
    numbers = [value for value in values if isinstance(value, float) and np.isfinite(value)]
    if numbers and all(value == round(value, 2) and abs(value) < LARGE for value in numbers):
        return [f"{value + 0.0:.10g}" if isinstance(value, float) else str(value) for value in values]
    return [format_number(value) if isinstance(value, float) else str(value) for value in values]
