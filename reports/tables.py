"""Frames as the template shows them: headings in words, numbers in short, constants moved to the caption."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from reports.words import number

MOST_ROWS = 60
HIDDEN = ("method",)
READER = {
    "anti_steerable": "anti-steerable (slope < 0)",
    "within_error": "within numerical error of zero",
    "published_nonpositive": "slope ≤ 0, as published",
    "sd": "SD over inputs",
    "shapley_adjusted_r2": "order-free (Shapley, adjusted R²)",
    "published_sequential": "as published (sequential R²)",
    "unconstrained S/(N-p)": "model-based",
    "HC2, Bell-McCaffrey df": "HC2, Bell–McCaffrey",
    "pos_is_a": "A rather than B",
    "pos_is_yes": "Yes rather than No",
    "pos_is_a alone": "A rather than B alone",
    "pos_is_yes alone": "Yes rather than No alone",
    "pos_is_yes after pos_is_a": "Yes rather than No, after A rather than B",
    "per-input": "per-input regression",
    "mixed": "mixed model",
    "unsteered": "unsteered propensity",
}
HEADS = {"inputs_10_percent": "10% of inputs below", "inputs_90_percent": "90% of inputs below"}


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
            constants.append(f"{_heading(name)} {_cell(shown[name].iloc[0])}")
            shown = shown.drop(columns=name)
    if constants:
        caption += f" (everywhere: {', '.join(constants)})"
    if most is not None and len(shown) > most:
        caption += f". The first {most} of {len(shown)} rows; the files beside this page have all."
        shown = shown.head(most)
    columns = [
        {"name": _heading(name), "numeric": _is_number(shown[name]), "wordy": _is_wordy(shown[name])} for name in shown
    ]
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False, name=None)]
    return {"caption": caption, "columns": columns, "rows": rows, "label": label}


def _heading(name: str) -> str:
    return HEADS.get(str(name), str(name)).replace("_", " ").replace("ci low", "low").replace("ci high", "high")


def _is_number(column: pd.Series) -> bool:
    if is_bool_dtype(column):
        return False
    # Numbers that were put in words already ("17%") line up as numbers do.
    words = column.map(lambda value: isinstance(value, str) and value[:1] in "0123456789−[" and len(value) < 30)
    return is_numeric_dtype(column) or bool(len(column) and (words | (column == "")).all() and words.any())


def _is_wordy(column: pd.Series) -> bool:
    return not is_numeric_dtype(column) and bool(column.map(lambda value: len(str(value))).max() > 48)


def _cell(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return "—"
    if isinstance(value, (float, np.floating)):
        return number(float(value))
    return READER.get(str(value), str(value)).replace("->", " → ")
