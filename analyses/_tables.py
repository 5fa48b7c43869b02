"""LaTeX tables with booktabs rules, ready to \\input: numbers in columns that line up, everything else escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_integer_dtype

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": r"$-$",
    "–": "--",
    "→": r"$\to$",
    "λ": r"$\lambda$",
    "²": r"$^2$",
    "′": r"$'$",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "τ": r"$\tau$",
    "ρ": r"$\rho$",
    "√": r"$\sqrt{}$",
    "×": r"$\times$",
    "…": r"\dots{}",
}


def to_latex(frame: pd.DataFrame, *, caption: str, label: str, digits: int = 3) -> str:
    """A frame as a `longtable` with booktabs rules, its header repeated on every page.

    Parameters
    ----------
    frame : DataFrame
        One table row a row, columns in order; the index is left out.
    caption, label : str
        Escaped here; the label gets the prefix `tab:`.
    digits : int
        Digits after the point of floating numbers.

    Returns
    -------
    str
        Needs `\\usepackage{booktabs,longtable}`.
    """
    numeric = [_numeric(frame[name]) for name in frame.columns]
    shape = "".join("r" if one else "l" for one in numeric)
    head = " & ".join(escape(str(name).replace("_", " ")) for name in frame.columns) + r" \\"
    lines = [
        "% needs \\usepackage{booktabs,longtable}",
        rf"\begin{{longtable}}{{{shape}}}",
        rf"\caption{{{escape(caption)}}}\label{{tab:{label}}}\\",
        r"\toprule",
        head,
        r"\midrule",
        r"\endfirsthead",
        r"\toprule",
        head,
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
    ]
    for row in frame.itertuples(index=False, name=None):
        lines.append(" & ".join(_cell(value, digits) for value in row) + r" \\")
    return "\n".join([*lines, r"\end{longtable}"]) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX prints it, one character at a time, so that nothing in it is a command."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _numeric(column: pd.Series) -> bool:
    return (is_float_dtype(column) or is_integer_dtype(column)) and not is_bool_dtype(column)


def _cell(value: object, digits: int) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return "--"
    if isinstance(value, (float, np.floating)):
        if np.isinf(value):
            return r"$\infty$" if value > 0 else r"$-\infty$"
        text = f"{value:.{digits}f}" if value == 0 or 10.0**-digits <= abs(value) < 1e6 else f"{value:.{digits - 1}e}"
        return text.replace("-", "$-$", 1) if text.startswith("-") else text
    if isinstance(value, (int, np.integer)):
        return str(value).replace("-", "$-$")
    return escape(" ".join(str(value).split()))
