"""A cache from a table, for people who steer with other tools: `steerstats import TABLE`."""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from steerstats.cache.disk import folders_for
from steerstats.cache.schema import BY_NAME, NOT_DEFINED, SETTINGS, UnitData
from steerstats.cache.writer import create_cache, name_fault, write_unit
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
    strangers = [str(name) for name in frame.columns if name not in REQUIRED + OPTIONAL and not _is_factor(name)]
    if strangers:
        known = ", ".join((*REQUIRED, *OPTIONAL, f"{FACTOR}NAME (NAME of letters, digits, _, - and .)"))
        raise InputError(f"{source}: column {strangers[0]!r} is not known; known are {known}")
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
    for name in filter(_is_factor, frame.columns):
        if pd.api.types.is_float_dtype(frame[name]):
            _refuse(np.isinf(frame[name]), frame[name], f"{source}: {name}", "a finite number or empty")
    return frame


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


def import_table(source: str | Path, target: str | Path, *, model: str, layer: int | None = None) -> Path:
    """Turn a table into a cache, so that every analysis works on it.

    Parameters
    ----------
    source : path
        See `read_table`. A setting_train named `mean` is the mean vector.
    target : path
        Cache directory to make.
    model : str
        Name of the model, for the record.
    layer : int, optional
        Of a table of several layers, take the rows of this one. Datasets without such rows are left out.

    Returns
    -------
    pathlib.Path
        The cache directory.

    Raises
    ------
    InputError
        If a (setting_eval, vector) pair is measured on some inputs and multipliers but not on all of its dataset,
        if a value is there twice, if multiplier 0 is missing or alone, or if rows contradict each other about an
        input (but for its text) or a vector; the message names the coordinates. Nothing is written then.
    """
    frame = read_table(source)
    parts = {
        name: _whole_columns(part, f"{source}: dataset {name}") for name, part in frame.groupby("dataset", sort=True)
    }
    if layer is not None:
        parts = _at_layer(parts, layer, source)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    # Every dataset is checked before the first is written: bad input leaves nothing half-made.
    arrays = {name: _unit(part, f"{source}: dataset {name}") for name, part in parts.items()}
    spec = {"source": Path(source).name, "sha256": digest, "model": model}
    if layer is not None:
        spec["layer"] = layer
    spec_hash = hashlib.sha256(repr(sorted(spec.items())).encode()).hexdigest()
    names = _stems(arrays)
    units = {
        name: UnitData(own, {"dataset": name, "model": model, "score": "imported", "spec_hash": spec_hash})
        for name, own in arrays.items()
    }
    manifest = {"kind": "import", "spec": spec, "spec_hash": spec_hash, "model": model, "units": sorted(names.values())}
    root = Path(target)
    existed = root.exists()
    fresh = not existed or (root.is_dir() and not any(root.iterdir()))
    with folders_for(root):
        try:
            create_cache(root, manifest)
            for name, unit in units.items():
                write_unit(root, names[name], unit, {"source": spec})
        except BaseException:
            if fresh:  # a full disk: what was written goes, and a directory that held something stays as it is
                shutil.rmtree(root, ignore_errors=True)
                if existed:
                    root.mkdir(exist_ok=True)
            raise
    return root


def _at_layer(parts: dict[str, pd.DataFrame], layer: int, source: str | Path) -> dict[str, pd.DataFrame]:
    """The rows of one layer, of the datasets that have any."""
    having = {name: part for name, part in parts.items() if "layer" in part}
    if not having:
        raise InputError(f"{source}: it names no layers in a column 'layer', of which layer {layer} could be taken")
    taken = {name: part[part["layer"] == layer] for name, part in having.items()}
    if all(part.empty for part in taken.values()):
        found = ", ".join(map(str, np.unique(np.concatenate([part["layer"] for part in having.values()]))))
        raise InputError(f"{source}: no row is of layer {layer}; its layers are {found}")
    return {name: part for name, part in taken.items() if len(part)}


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


def _unit(frame: pd.DataFrame, where: str) -> dict[str, np.ndarray]:
    frame = frame.assign(vector=_vector_labels(frame))
    for name in ("setting_train", "layer"):
        _agree(frame, "vector", name, where, "give each its own vector label")
    _one_vector_each(frame, where)
    for name in ("question", *FLAGS, *LENGTHS, *filter(_is_factor, frame.columns)):
        _agree(frame, "input", name, where, "every row of an input has the same")
    axes = {name: _labels(frame[name]) for name in ("setting_eval", "vector", "multiplier", "input")}
    if 0.0 not in axes["multiplier"]:
        found = ", ".join(f"{value:g}" for value in axes["multiplier"])
        raise InputError(f"{where}: multiplier 0 (the unsteered model) is missing; it has {found}")
    if len(axes["multiplier"]) < 2:
        raise InputError(
            f"{where}: multiplier is 0 in every row; a slope needs two multipliers or more, such as 0 and 1"
        )
    grid = _grid(frame, axes, where)
    by_input, by_vector = (frame.drop_duplicates(name) for name in ("input", "vector"))  # as the axes: by first row
    arrays: dict[str, np.ndarray] = axes | {
        "propensity": grid,
        "planned": np.isfinite(grid).any(axis=(2, 3)).astype(np.uint8),
        "input_question": (by_input["question"] if "question" in by_input else by_input["input"]).to_numpy(object),
        "vector_setting": by_vector["setting_train"].to_numpy(object),
        "vector_kind": np.where(by_vector["setting_train"] == "mean", "mean", "trained").astype(object),
        "vector_replicate": np.full(len(by_vector), -1, dtype=np.int32),
    }
    if "text" in by_input:
        arrays["input_text"] = _text(by_input["text"])
    for name, dtype in (dict.fromkeys(FLAGS, np.int8) | dict.fromkeys(LENGTHS, np.int32)).items():
        if name in by_input:
            arrays[f"input_{name}"] = by_input[name].to_numpy(dtype)
    for name in filter(_is_factor, frame.columns):
        arrays[f"input_{name}"] = _factor(by_input[name])
    if "layer" in by_vector:
        arrays["slot"] = np.zeros(1, dtype=np.int32)
        arrays["vector_layer"] = by_vector["layer"].to_numpy(np.int32)[:, None]
    return arrays


def _grid(frame: pd.DataFrame, axes: dict[str, np.ndarray], where: str) -> np.ndarray:
    """Propensities on the axes, each measured once, and a cell of setting and vector whole or not at all."""
    codes = [pd.Categorical(frame[name], categories=values).codes for name, values in axes.items()]
    shape = tuple(len(values) for values in axes.values())
    flat = np.ravel_multi_index(codes, shape)
    _seen, first, counts = np.unique(flat, return_index=True, return_counts=True)
    if counts.max() > 1:
        found = np.flatnonzero(flat == flat[first[counts.argmax()]])
        lines = f"{frame.index.name}s {frame.index[found[0]]} and {frame.index[found[1]]}"
        raise InputError(
            f"{where}: {_place(frame.iloc[found[0]])} is there {counts.max()} times ({lines}); once is right"
        )
    grid = np.full(shape, np.nan, dtype=np.float32)
    grid.ravel()[flat] = frame["propensity"].to_numpy(np.float32)
    measured = np.isfinite(grid)
    for e, v in zip(*np.nonzero(measured.any(axis=(2, 3)) & ~measured.all(axis=(2, 3)))):
        m, i = np.argwhere(~measured[e, v])[0]
        lacking = (~measured[e, v]).any(axis=0)
        raise InputError(
            f"{where}: setting_eval={axes['setting_eval'][e]}, vector={axes['vector'][v]} has no value at "
            f"multiplier={axes['multiplier'][m]:g}, input={axes['input'][i]} (inputs that lack one: {lacking.sum()} of "
            f"{lacking.size}); measure every input at every multiplier"
        )
    return grid


def _whole_columns(frame: pd.DataFrame, where: str) -> pd.DataFrame:
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


def _agree(frame: pd.DataFrame, owner: str, name: str, where: str, remedy: str) -> None:
    """Refuse rows that say different things of one input, or of one vector."""
    if name not in frame:
        return
    column = frame[name]
    seen = pd.Series(pd.factorize(column if column.dtype != object else column.map(repr))[0], index=frame.index)
    first = seen.groupby(frame[owner].to_numpy()).transform("first")
    bad = np.flatnonzero(seen != first)
    if len(bad):
        label = frame[owner].iloc[bad[0]]
        begin = np.flatnonzero(frame[owner] == label)[0]
        said = [
            f"{_shown(_word(name, column.iloc[k]))} in {frame.index.name} {frame.index[k]}" for k in (begin, bad[0])
        ]
        raise InputError(f"{where}: {name} of {owner} {label!r} is {' and '.join(said)}; {remedy}")


def _one_vector_each(frame: pd.DataFrame, where: str) -> None:
    """Refuse two vectors of one training setting (and layer): an analysis would not know which is meant."""
    keys = [name for name in ("setting_train", "layer") if name in frame]
    for place, rows in frame.groupby(keys, sort=False):
        if len(labels := rows["vector"].unique()) > 1:
            of = ", ".join(f"{name}={value}" for name, value in zip(keys, place))
            raise InputError(
                f"{where}: vectors {labels[0]!r} and {labels[1]!r} are both of {of}; give each a table, and so a "
                "cache, of its own: `steerstats report` sets caches side by side"
            )


def _vector_labels(frame: pd.DataFrame) -> pd.Series:
    """The table's own labels, or the training setting (with the layer, where there are several)."""
    if "vector" in frame:
        return frame["vector"]
    if "layer" in frame and frame["layer"].nunique() > 1:
        return frame["setting_train"] + "@" + frame["layer"].astype(str)
    return frame["setting_train"]


def _labels(column: pd.Series) -> np.ndarray:
    values = column.unique()
    return np.sort(values.astype(np.float64)) if column.name == "multiplier" else np.array(list(values), dtype=object)


def _flag(column: pd.Series, where: str) -> pd.Series:
    words = {"true": 1, "1": 1, "1.0": 1, "yes": 1, "false": 0, "0": 0, "0.0": 0, "no": 0, "": NOT_DEFINED}
    flags = pd.Series(_text(column), column.index).str.strip().str.lower().map(words)
    _refuse(flags.isna(), column, where, "true, false or empty")
    return flags.astype(np.int8)


def _is_factor(name: object) -> bool:
    return isinstance(name, str) and name.startswith(FACTOR) and f"input_{name}" in BY_NAME


def _factor(column: pd.Series) -> np.ndarray:
    """Flags as int8, numbers as float64, anything else as text; what a row lacks is -1, NaN or empty."""
    known = column.dropna()
    if len(known) and known.map(lambda value: isinstance(value, bool | np.bool_)).all():
        return column.map({True: 1, False: 0}).fillna(NOT_DEFINED).to_numpy(np.int8)
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64)
    return _text(column)


def _text(column: pd.Series) -> np.ndarray:
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(object)


def _refuse(bad: pd.Series | np.ndarray, column: pd.Series, where: str, right: str) -> None:
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        place = f"{column.index.name} {column.index[rows[0]]}"
        raise InputError(f"{where}, {place}: {_shown(column.iloc[rows[0]])} should be {right}")


def _shown(value: object) -> str:
    """A value of a table in a message; what pandas reads as NaN has been an empty cell, or one that says NA."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "an empty or NA cell"
    return repr(value.item() if isinstance(value, np.generic) else value)


def _word(name: str, value: object) -> object:
    """A flag as a table has it."""
    return {1: True, 0: False, NOT_DEFINED: None}[value] if name in FLAGS else value


def _place(row: pd.Series) -> str:
    return ", ".join(f"{name}={row[name]}" for name in ("setting_eval", "vector", "multiplier", "input"))


def _stems(names: Iterable[str]) -> dict[str, str]:
    """A file stem for each dataset name: itself where it is one, else its safe part, with a hash where two are alike.

    Accents go with the letters that they stand on, and the case of letters tells no files apart on some systems.
    """
    stems = {name: name if not name_fault(name) else _safe(name) for name in names}
    alike = Counter(stem.casefold() for stem in stems.values())
    for name, stem in stems.items():
        if stem != name and (not stem or alike[stem.casefold()] > 1):
            stems[name] = f"{stem or 'dataset'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return stems


def _safe(name: str) -> str:
    plain = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    return re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip(".-_")
