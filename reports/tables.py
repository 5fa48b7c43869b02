"""Frames as the template shows them: headings in words, numbers in short, constants moved to the caption."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from analyses._words import heading, in_words, number

MOST_ROWS = 60
BRIEF = 8  # letters; a column of such words ("nat/λ") is not broken on paper either
HIDDEN = ("method",)
UNKNOWN = "—"


def cells(frame: pd.DataFrame, caption: str, *, label: str = "", most: int | None = None) -> dict[str, Any]:
    """A frame for the macro `table_view`.

    Parameters
    ----------
    frame : DataFrame
    caption : str
    label : str
        Of the fold that holds it.
    most : int, optional
        Rows shown; the caption says how many are not.
    """
    shown = frame.drop(columns=[name for name in HIDDEN if name in frame])
    constants = []
    for name in list(shown.columns)[1:]:
        if len(shown) > 3 and shown[name].map(str).nunique() == 1:
            told = _cell(shown[name].iloc[0])
            if told not in ("", UNKNOWN):  # a column that is empty all through says nothing
                constants.append(f"{heading(name)} {told}")
            shown = shown.drop(columns=name)
    if constants:
        caption += f" (in every row: {', '.join(constants)})"
    if most is not None and len(shown) > most:
        caption += f". The first {most} of {len(shown)} rows; the files beside this page have all."
        shown = shown.head(most)
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False, name=None)]
    columns = [
        {
            "name": heading(name),
            "numeric": _is_number(shown[name]),
            "wordy": _is_wordy(shown[name]),
            "brief": max((len(row[k]) for row in rows), default=0) <= BRIEF,
        }
        for k, name in enumerate(shown)
    ]
    return {"caption": caption, "columns": columns, "rows": rows, "label": label}


def _is_number(column: pd.Series) -> bool:
    if is_bool_dtype(column):
        return False
    # Numbers that were put in words already ("17%") line up as numbers do.
    words = column.map(lambda value: isinstance(value, str) and value[:1] in "0123456789−[—∞" and len(value) < 30)
    return is_numeric_dtype(column) or bool(len(column) and (words | (column == "")).all() and words.any())


def _is_wordy(column: pd.Series) -> bool:
    return not is_numeric_dtype(column) and bool(column.map(lambda value: len(in_words(str(value)))).max() > 48)


def _cell(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return UNKNOWN
    if isinstance(value, (float, np.floating)):
        return number(float(value))
    return in_words(str(value))
