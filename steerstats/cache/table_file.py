"""A table of scores as a file holds it: every column and value held against what an import needs."""

from __future__ import annotations

import csv
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from steerstats.cache.schema import BY_NAME, NOT_DEFINED, SETTINGS
from steerstats.errors import InputError

REQUIRED = ("dataset", "input", "setting_train", "setting_eval", "multiplier", "propensity")
OPTIONAL = ("vector", "layer", "question", "text", "pos_is_a", "pos_is_yes", "len_positive", "len_negative")
FLAGS = ("pos_is_a", "pos_is_yes")
LENGTHS = ("len_positive", "len_negative")
WHOLE = ("layer", *LENGTHS)
FACTOR = "factor_"
FLOAT32, INT32 = np.finfo(np.float32).max, np.iinfo(np.int32).max  # what a cache can hold


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV or Parquet table and hold its columns and values against what an import needs.

    Parameters
    ----------
    path : path
        `.csv` or `.parquet`, one row a measured value. Columns: dataset, input, setting_train, setting_eval,
        multiplier, propensity (nats). Settings are base, sys_pos, sys_neg, user_pos, user_neg (and mean, for
        setting_train); if you steer in one prompt only, call it base. Optional: vector (label), layer, question
        (what twins share), text (that of an input's first row is kept), pos_is_a and pos_is_yes (true, false, or empty
        where they do not apply), len_positive, len_negative, and nuisance factors of your own as factor_NAME (numbers,
        true/false, or text).

    Raises
    ------
    InputError
        Naming the file, the place (of CSV the line, as an editor counts them; of Parquet the row from 1), the column
        and the value.
    """
    source = Path(path)
    if source.is_dir():
        raise InputError(f"{source} is a directory; give a .csv or .parquet file")
    if not source.is_file():
        raise InputError(f"{source}: no such file")
    try:
        if source.suffix == ".parquet":
            frame = pd.read_parquet(source)
        elif source.suffix == ".csv":
            text = dict.fromkeys(("dataset", "input", "setting_train", "setting_eval", "vector", "question"), str)
            frame = pd.read_csv(source, dtype=text, keep_default_na=True, **_exact(pd.__version__))
        else:
            raise InputError(f"{source}: {source.suffix or 'no ending'} is not read; give .csv or .parquet")
    except (ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        what = "it is not UTF-8; save it as that" if isinstance(error, UnicodeDecodeError) else error
        raise InputError(f"{source} cannot be read as a table: {what}") from error
    if lacking := [name for name in REQUIRED if name not in frame]:
        raise InputError(f"{source}: {_lacking(lacking, [str(column) for column in frame.columns])}")
    if frame.empty:
        raise InputError(f"{source} has no rows")
    frame.index = _places(source, len(frame))
    for name in frame.select_dtypes("category"):
        frame[name] = frame[name].astype(object).infer_objects()
    strangers = [str(name) for name in frame.columns if name not in REQUIRED + OPTIONAL and not is_factor(name)]
    if strangers:
        known = ", ".join((*REQUIRED, *OPTIONAL, f"{FACTOR}NAME (NAME of letters, digits, _, - and .)"))
        hint = " (an index that pandas wrote? to_csv(index=False))" if strangers[0].startswith("Unnamed: ") else ""
        raise InputError(f"{source}: column {strangers[0]!r} is not known{hint}; known are {known}")
    for name in ("dataset", "input", "setting_train", "setting_eval"):
        blank = frame[name].isna() | (frame[name].astype(str).str.strip() == "")
        _refuse(blank, frame[name], f"{source}: {name}", "a label")
        frame[name] = frame[name].astype(str)
    for name in frame.select_dtypes(exclude=["number", "bool"]):
        nul = frame[name].astype(str).str.contains("\0", regex=False)
        _refuse(nul, frame[name], f"{source}: {name}", "without NUL characters, which no cache can hold")
    for name, known in (("setting_eval", SETTINGS), ("setting_train", (*SETTINGS, "mean"))):
        _refuse(~frame[name].isin(known), frame[name], f"{source}: {name}", f"one of {', '.join(known)}")
    for name in ("multiplier", "propensity"):
        numbers = pd.to_numeric(frame[name], errors="coerce").astype(float)
        _refuse(~(numbers.abs() <= FLOAT32), frame[name], f"{source}: {name}", "a finite number, below 3.4e38")
        frame[name] = numbers
    for name in filter(is_factor, frame.columns):
        if pd.api.types.is_float_dtype(frame[name]):
            _refuse(np.isinf(frame[name]), frame[name], f"{source}: {name}", "a finite number or empty")
    return frame


def whole_columns(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """A copy with optional columns as a cache has them: labels, flags and whole numbers, in every row or in none."""
    frame = frame.copy()
    for name in ("vector", "question", *WHOLE):
        if name not in frame:
            continue
        if frame[name].isna().all():  # as if the column were not there: another dataset of the table may have it
            del frame[name]
        elif name in WHOLE:
            numbers = pd.to_numeric(frame[name], errors="coerce").astype(float)
            right = "a whole number of characters, 0 or more" if name in LENGTHS else "a layer: a whole number from 0"
            fits = (numbers >= 0) & (numbers <= INT32) & (numbers % 1 == 0)
            _refuse(~fits, frame[name], f"{where}: {name}", right)
            frame[name] = numbers.astype(np.int64)
        else:
            _refuse(
                frame[name].isna(), frame[name], f"{where}: {name}", "a label, in every row of a dataset or in none"
            )
            frame[name] = frame[name].astype(str)
    for name in FLAGS:
        if name in frame:
            frame[name] = _flag(frame[name], f"{where}: {name}")
    return frame


def is_factor(name: object) -> bool:
    return isinstance(name, str) and name.startswith(FACTOR) and f"input_{name}" in BY_NAME


def as_text(column: pd.Series) -> np.ndarray:
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(object)


def shown(value: object) -> str:
    """A value of a table in a message; what pandas reads as NaN has been an empty cell, or one that says NA."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "an empty or NA cell"
    return repr(value.item() if isinstance(value, np.generic) else value)


def _exact(version: str) -> dict[str, str]:
    """What makes every pandas read the same number: before version 3 the default was off by a bit now and then.

    Since then it is exact, and the argument is to go.
    """
    return {"float_precision": "round_trip"} if int(version.partition(".")[0]) < 3 else {}


def _places(source: Path, n_rows: int) -> pd.RangeIndex | pd.Index:
    """Where each row begins: the line of a CSV file, as an editor counts them, or else the row from 1."""
    if source.suffix == ".csv":
        with open(source, "rb") as file:
            n_lines = sum(1 for _ in file)
        if n_lines == n_rows + 1:
            return pd.RangeIndex(2, n_rows + 2, name="line")
        # Texts of several lines, or empty lines between rows: only a second reading tells where a row begins.
        lines = []
        with open(source, encoding="utf-8-sig", newline="") as file, suppress(csv.Error):  # a text of over 128 kB
            reader, begin = csv.reader(file), 1
            for record in reader:
                if len(record) > 1 or "".join(record).strip():
                    lines.append(begin)
                begin = reader.line_num + 1
        if len(lines) == n_rows + 1:
            return pd.Index(lines[1:], name="line")
    return pd.RangeIndex(1, n_rows + 1, name="row")


def _lacking(names: list[str], found: list[str]) -> str:
    """Which required columns are not there, all at once, and what that may come from."""
    said = f"column {names[0]!r} is" if len(names) == 1 else f"columns {', '.join(map(repr, names))} are"
    hint = ""
    numbers = [column for column in found if re.fullmatch(r"[+-]?\d*\.?\d+", column)]
    if other := next((mark for mark in (";", "\t", "|") if len(found) == 1 and mark in found[0]), ""):
        hint = f"; columns are separated by commas, and here seem to be by {other!r}"
    elif "multiplier" in names and len(numbers) > 1:
        hint = f"; {', '.join(numbers)} seem to be multipliers, which go in rows, one value each (pandas: melt)"
    return f"{said} missing; it has {', '.join(found)}{hint}"


def _flag(column: pd.Series, where: str) -> pd.Series:
    words = {"true": 1, "1": 1, "1.0": 1, "yes": 1, "false": 0, "0": 0, "0.0": 0, "no": 0, "": NOT_DEFINED}
    flags = pd.Series(as_text(column), column.index).str.strip().str.lower().map(words)
    _refuse(flags.isna(), column, where, "true, false or empty")
    return flags.astype(np.int8)


def _refuse(bad: pd.Series | np.ndarray, column: pd.Series, where: str, right: str) -> None:
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        place = f"{column.index.name} {column.index[rows[0]]}"
        raise InputError(f"{where}, {place}: {shown(column.iloc[rows[0]])} should be {right}")
