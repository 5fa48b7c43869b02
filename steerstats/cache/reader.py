"""Read caches, directory or packed file, as if a stranger had made them.

No pickle, no links that leave the file, no external or virtual storage, no allocation before the declared size was
held against what is stored, and the HDF5 path in every error.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from steerstats.cache.schema import (
    BY_NAME,
    CACHE_TYPE,
    PACK_TYPE,
    SCALES,
    STRING,
    UnitData,
    check_attrs,
    check_unit,
    check_version,
    dtype_name,
)
from steerstats.cache.sidecar import UNITS, finished_sidecar, parse_json, read_json, unit_damage
from steerstats.cache.writer import MANIFEST
from steerstats.errors import Absent, CacheError, those_there

EXPANSION = 1100  # deflate cannot do better than 1032:1; a larger ratio is no data


class Unit:
    """One finished unit, read on demand.

    Labels select along axes: `unit.read("propensity", setting_eval="base", vector=["base", "mean"])`.
    """

    def __init__(self, path: Path, group: str, name: str, sidecar: Mapping[str, Any]) -> None:
        self.path, self.group, self.name, self.sidecar = path, group, name, dict(sidecar)
        self.where = f"{path}" if group == "/" else f"{path}:{group}"
        with self._open() as root:
            self.attrs: dict[str, Any] = {key: _plain(value) for key, value in root.attrs.items()}
            check_attrs(self.attrs, self.where)
            self.names: tuple[str, ...] = tuple(sorted(root.keys()))
            for array_name in self.names:
                _check_storage(root, array_name, self.where)
            self.coords: dict[str, np.ndarray] = {
                scale: _load(root, scale, self.where) for scale in SCALES if scale in root
            }
            sizes = {scale: len(values) for scale, values in self.coords.items()}
            for array_name in self.names:
                _check_shape(root, array_name, sizes, self.where)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name} {len(values)}" for name, values in self.coords.items())
        return f"<Unit {self.name}: {axes}>"

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str, **labels: Any) -> np.ndarray:
        """One array, or the part of it at the given labels.

        Parameters
        ----------
        name : str
            An array of the schema.
        **labels
            Axis name to one label (the axis is dropped) or a sequence of labels (kept, in that order).

        Returns
        -------
        numpy.ndarray
            Text arrays come as object arrays of `str`.

        Raises
        ------
        CacheError
            If the array or a label is not in this unit; the message lists what is.
        """
        if name not in self.names:
            raise Absent(f"{self.where}: /{name} is not in this cache; it has {those_there(self.names, name)}")
        dims = BY_NAME[name].dims
        unknown = set(labels) - set(dims)
        if unknown:
            raise CacheError(f"{self.where}: /{name} has the axes {dims}, not {min(unknown)!r}")
        with self._open() as root:
            if not labels:
                return _load(root, name, self.where)
            index = tuple(self._index(axis, labels[axis]) if axis in labels else slice(None) for axis in dims)
            return _select(root[name], index)

    def load(self) -> UnitData:
        """The whole unit in memory, held against the contract (see `check_unit`)."""
        with self._open() as root:
            arrays = {name: _load(root, name, self.where) for name in self.names}
        unit = UnitData(arrays, self.attrs)
        check_unit(unit, self.where)
        return unit

    def _index(self, axis: str, label: Any) -> int | list[int]:
        if isinstance(label, (list, tuple, np.ndarray)):
            return [self._position(axis, one) for one in label]
        return self._position(axis, label)

    def _position(self, axis: str, label: Any) -> int:
        found = np.flatnonzero(self.coords[axis] == label)
        if not len(found):
            known = those_there(self.coords[axis], label)
            raise Absent(f"{self.where}: {axis} {label!r} is not in this cache; it has {known}")
        return int(found[0])

    @contextmanager
    def _open(self) -> Iterator[h5py.Group]:
        try:
            file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise CacheError(f"{self.path} cannot be opened as HDF5: {error}") from error
        with file, _readable(self.where):
            yield file[self.group]


class CacheReader:
    """A cache: its manifest, the names of all its units, and those that are finished.

    Parameters
    ----------
    path : path
        A cache, directory or packed.
    allow_damaged : bool
        Read on where the file of a unit has another size than its sidecar says, and name such units in `damaged`.
        Otherwise they are an error: an analysis would go on without them as if they had never been finished.

    Raises
    ------
    CacheError
        If the path is no cache, of a version that cannot be read, or damaged.
    """

    def __init__(self, path: str | Path, *, allow_damaged: bool = False) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            self.packed = False
            self.manifest = read_json(self.path / MANIFEST)
            finished = _finished(self.path, self.manifest)
        elif self.path.is_file():
            self.packed = True
            self.manifest, finished = _read_pack(self.path)
        else:
            raise CacheError(f"{self.path} is neither a cache directory nor a packed cache: no such file")
        if self.manifest.get("type") != CACHE_TYPE:
            raise CacheError(f"{self.path}: manifest type is {self.manifest.get('type')!r}, not {CACHE_TYPE!r}")
        check_version(self.manifest.get("version"), f"{self.path} (manifest)")
        self._finished = finished
        self._opened: dict[str, Unit] = {}
        looked = () if self.packed else self.missing
        #: What is wrong with units that were finished once, by name.
        self.damaged = {name: text for name in looked if (text := unit_damage(self.path, name))}
        if self.damaged and not allow_damaged:
            name, text = next(iter(self.damaged.items()))
            more = len(self.damaged) - 1
            others = f" ({more} more {'is' if more == 1 else 'are'} damaged)" if more else ""
            raise CacheError(
                f"{text}{others}: copy it again or rebuild it, or remove {UNITS}/{name}.json to go on without it"
            )

    def __repr__(self) -> str:
        return f"<cache {self.path}: {len(self.units)} of {len(self.planned_units)} units>"

    def __getitem__(self, name: str) -> Unit:
        if name not in self._finished:
            known = ", ".join(self.units) or "none finished"
            if name in self.damaged:
                raise CacheError(f"{self.path}: dataset {name!r} is damaged: {self.damaged[name]}; it has {known}")
            if name in self.planned_units:
                raise CacheError(f"{self.path}: dataset {name!r} is not finished; it has {known}")
            raise Absent(f"{self.path}: dataset {name!r} is not in this cache; it has {known}")
        if name not in self._opened:
            path, group, side = self._finished[name]
            unit = Unit(path, group, name, side)
            if unit.attrs.get("spec_hash") != self.spec_hash:
                raise CacheError(
                    f"{unit.where}: spec_hash {str(unit.attrs.get('spec_hash'))[:12]} is not the manifest's "
                    f"{self.spec_hash[:12]}; the file belongs to another cache"
                )
            self._opened[name] = unit
        return self._opened[name]

    def __iter__(self) -> Iterator[Unit]:
        return (self[name] for name in self.units)

    @property
    def kind(self) -> str:
        """grid, sweep, import or simulated."""
        return str(self.manifest.get("kind"))

    @property
    def spec_hash(self) -> str:
        """The cache's identity."""
        return str(self.manifest.get("spec_hash"))

    @property
    def planned_units(self) -> tuple[str, ...]:
        """All units the manifest names."""
        return tuple(self.manifest.get("units", ()))

    @property
    def units(self) -> tuple[str, ...]:
        """The finished ones, in the manifest's order."""
        return tuple(name for name in self.planned_units if name in self._finished)

    @property
    def missing(self) -> tuple[str, ...]:
        """Units that are planned and not finished; those that are `damaged` are among them."""
        return tuple(name for name in self.planned_units if name not in self._finished)


def _finished(root: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[Path, str, dict[str, Any]]]:
    found = {}
    for name in _unit_names(manifest, f"{root / MANIFEST}", "directory"):
        side = finished_sidecar(root, name)
        if side is not None:
            file = root / UNITS / f"{name}.h5"
            if file.resolve().parent != (root / UNITS).resolve():
                raise CacheError(f"{file} is a link that leaves the cache directory; it is not followed")
            found[name] = (file, "/", side)
    return found


def _unit_names(manifest: Mapping[str, Any], where: str, form: str) -> list[str]:
    """The manifest's units: single names, since a path may lead out of a directory or, by a link, out of a file."""
    names = manifest.get("units", [])
    if not isinstance(names, list):
        raise CacheError(f"{where}: units is {names!r}, it should be a list of names")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise CacheError(f"{where}: unit name {name!r} leaves the cache {form}")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise CacheError(f"{where}: unit name {twice!r} is there twice")
    return names


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Say where HDF5, or text that is no UTF-8, could not be read."""
    try:
        yield
    except (KeyError, OSError, RuntimeError, UnicodeDecodeError) as error:
        raise CacheError(f"{where} cannot be read: {error}") from error


def _read_pack(path: Path) -> tuple[dict[str, Any], dict[str, tuple[Path, str, dict[str, Any]]]]:
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        name = shlex.quote(str(path))
        if path.suffix == ".toml":
            raise CacheError(f"{path} is a spec, not a cache; `steerstats build {name} -o DIR` makes one") from error
        if path.suffix in (".csv", ".parquet"):
            raise CacheError(f"{path} is a table, not a cache; `steerstats import {name} -o DIR` makes one") from error
        whole = _whole_cache(path)
        raise CacheError(f"{path} is not a cache: {whole or f'it cannot be opened as HDF5: {error}'}") from error
    with file, _readable(str(path)):
        if (kind := _plain(file.attrs.get("type"))) != PACK_TYPE:
            whole = _whole_cache(path)
            raise CacheError(f"{path}: {whole or f'attribute type is {kind!r}, not {PACK_TYPE!r}'}")
        check_version(file.attrs.get("version"), str(path))
        manifest = parse_json(str(_load(file, "manifest", str(path), schema=False)[()]), f"{path}:/manifest")
        found = {}
        for name in _unit_names(manifest, f"{path}:/manifest", "file"):
            if name not in file:
                continue
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise CacheError(f"{path}:/{name} is a link that leaves the file; it is not followed")
            if not isinstance(file[name], h5py.Group):
                raise CacheError(f"{path}:/{name} is not a group; a unit is one")
            side = parse_json(str(_plain(file[name].attrs.get("sidecar", "{}"))), f"{path}:/{name} sidecar")
            found[name] = (path, f"/{name}", side)
    return manifest, found


def _whole_cache(path: Path) -> str:
    """What to give in place of a file that is part of a cache directory, "" where it is of none."""
    for folder in (path.parent, path.parent.parent):
        with suppress(CacheError):
            if read_json(folder / MANIFEST).get("type") == CACHE_TYPE:
                return f"it is a part of the cache {folder}; give that directory"
    return ""


def _check_storage(root: h5py.Group, name: str, where: str) -> None:
    link = root.get(name, getlink=True)
    if link is None:
        raise CacheError(f"{where}: /{name} is missing")
    if not isinstance(link, h5py.HardLink):
        raise CacheError(f"{where}: /{name} is a {type(link).__name__} that leaves the file; it is not followed")
    dataset = root[name]
    if not isinstance(dataset, h5py.Dataset) or (name not in BY_NAME and name != "manifest"):
        raise CacheError(f"{where}: /{name} is not part of the schema (see SCHEMA.md)")
    if dataset.external or dataset.is_virtual:
        raise CacheError(f"{where}: /{name} is stored outside this file; it is not followed")
    declared = dataset.size * dataset.dtype.itemsize if dataset.shape is not None else 0
    stored = dataset.id.get_storage_size()
    limit = stored * (EXPANSION if dataset.compression or dataset.scaleoffset else 1)
    if dataset.shape is None or declared > limit:
        raise CacheError(f"{where}: /{name} declares {declared:,} bytes and stores {stored:,}; it is not read")


def _check_shape(root: h5py.Group, name: str, sizes: Mapping[str, int], where: str) -> None:
    spec, dataset = BY_NAME[name], root[name]
    kind = STRING if h5py.check_string_dtype(dataset.dtype) else dtype_name(dataset.dtype)
    if kind not in spec.dtypes:
        raise CacheError(f"{where}: /{name} has type {kind}, it should be {' or '.join(spec.dtypes)}")
    expected = tuple(sizes.get(axis, -1) for axis in spec.dims)
    if dataset.shape != expected:
        raise CacheError(f"{where}: /{name} has shape {dataset.shape}, {' x '.join(spec.dims)} is {expected}")


def _load(root: h5py.Group, name: str, where: str, schema: bool = True) -> np.ndarray:
    _check_storage(root, name, where)
    if schema and name in SCALES and root[name].ndim != 1:
        raise CacheError(f"{where}: /{name} is a scale with shape {root[name].shape}, it should be one axis")
    return _select(root[name], ())


def _select(dataset: h5py.Dataset, index: tuple) -> np.ndarray:
    source = dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset
    lists = [axis for axis, part in enumerate(index) if isinstance(part, list)]
    if len(lists) <= 1 and all(part == sorted(set(part)) for part in (index[axis] for axis in lists)):
        return np.asarray(source[index])
    # h5py takes one increasing list; anything else is read along its axes and reordered in memory.
    plain = tuple(slice(None) if isinstance(part, list) else part for part in index)
    array = np.asarray(source[plain])
    dropped = 0
    for axis, part in enumerate(index):
        if isinstance(part, list):
            array = np.take(array, part, axis=axis - dropped)
        dropped += isinstance(part, int)
    return array


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value
