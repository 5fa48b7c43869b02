"""A cache from a table, for people who steer with other tools: `steerstats import TABLE`."""

from __future__ import annotations

import hashlib
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from steerstats.cache.disk import folders_for
from steerstats.cache.schema import NOT_DEFINED, UnitData
from steerstats.cache.table_file import FLAGS, LENGTHS, as_text, is_factor, read_table, shown, whole_columns
from steerstats.cache.writer import create_cache, name_fault, write_unit
from steerstats.errors import InputError


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
        name: whole_columns(part, f"{source}: dataset {name}") for name, part in frame.groupby("dataset", sort=True)
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


def _unit(frame: pd.DataFrame, where: str) -> dict[str, np.ndarray]:
    frame = frame.assign(vector=_vector_labels(frame))
    for name in ("setting_train", "layer"):
        _agree(frame, "vector", name, where, "give each its own vector label")
    _one_vector_each(frame, where)
    for name in ("question", *FLAGS, *LENGTHS, *filter(is_factor, frame.columns)):
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
        arrays["input_text"] = as_text(by_input["text"])
    for name, dtype in (dict.fromkeys(FLAGS, np.int8) | dict.fromkeys(LENGTHS, np.int32)).items():
        if name in by_input:
            arrays[f"input_{name}"] = by_input[name].to_numpy(dtype)
    for name in filter(is_factor, frame.columns):
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
        said = [f"{shown(_word(name, column.iloc[k]))} in {frame.index.name} {frame.index[k]}" for k in (begin, bad[0])]
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


def _factor(column: pd.Series) -> np.ndarray:
    """Flags as int8, numbers as float64, anything else as text; what a row lacks is -1, NaN or empty."""
    known = column.dropna()
    if len(known) and known.map(lambda value: isinstance(value, bool | np.bool_)).all():
        return column.map({True: 1, False: 0}).fillna(NOT_DEFINED).to_numpy(np.int8)
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64)
    return as_text(column)


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
