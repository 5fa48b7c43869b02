"""Write caches: an immutable manifest, and units that appear whole or not at all.

A unit is written under a temporary name, closed, fsynced and renamed into place; its sidecar (hashes, run facts)
follows the same way, and a unit counts as finished only when the sidecar is there. Nothing is ever appended to a
finished file, so a kill at any moment costs the units in flight and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from steerstats.cache.disk import PARTIAL, fsync_and_hash, new_hdf5, partial_path, publish, publish_once
from steerstats.cache.schema import (
    ARRAYS,
    BY_NAME,
    CACHE_TYPE,
    KINDS,
    SCALES,
    STRING,
    UNIT_TYPE,
    VERSION,
    Streamed,
    UnitData,
    check_unit,
    content_hash,
    dtype_name,
)
from steerstats.cache.sidecar import SEAL, UNITS, finished_sidecar, manifest_hash, read_json, sidecar_path
from steerstats.errors import CacheError, InputError, first_few

MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20
SMALL_BYTES = 1 << 12  # not worth a chunk index


Why = Callable[[Mapping[str, Any]], str]  # in what the facts of a file are of another spec


def create_cache(path: str | Path, manifest: Mapping[str, Any], *, why: Why = lambda _: "") -> Path:
    """Make a cache directory, or join the one that is there if it has the same spec.

    Parameters
    ----------
    path : path
        Directory of the cache.
    manifest : mapping
        `kind`, `spec`, `spec_hash`, `model`, `units` (list of names) and `provenance`; `type`, `version` and the
        manifest's own hash are filled in here.

    Returns
    -------
    pathlib.Path
        The directory.

    Raises
    ------
    CacheError
        If the directory holds another spec's cache, a damaged or changed manifest, or something that is no cache; or
        if the manifest cannot be written (full disk).

    Examples
    --------
    >>> import tempfile
    >>> from steerstats.cache import create_cache
    >>> manifest = {"kind": "import", "spec_hash": "ab12", "units": ["kindness"], "model": "mine"}
    >>> folder = f"{tempfile.mkdtemp()}/cache"
    >>> root = create_cache(folder, manifest)
    >>> create_cache(root, manifest) == root  # the same spec joins
    True
    >>> create_cache(root, manifest | {"spec_hash": "cd34"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    steerstats.errors.CacheError: ... belongs to spec ab12, this build is cd34: ...
    """
    root = Path(path)
    if manifest.get("kind") not in KINDS:
        raise InputError(f"manifest kind is {manifest.get('kind')!r}, it should be one of {KINDS}")
    whole = {"type": CACHE_TYPE, "version": VERSION, **manifest}
    target = root / MANIFEST
    if root.is_dir():
        strangers = sorted(child.name for child in root.iterdir() if not _is_ours(child.name))
        # Looked for last: another builder may be beginning the same cache.
        if strangers and not target.exists():
            raise CacheError(f"{root} is not empty and holds no {MANIFEST} ({first_few(strangers, 3)})")
    (root / UNITS).mkdir(parents=True, exist_ok=True)
    if not target.exists():
        said = json.loads(json.dumps(whole))  # as it will be read: keys are text by then, in another order
        text = json.dumps({**said, SEAL: manifest_hash(said)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        try:
            publish_once(target, text.encode())
        except OSError as error:
            raise CacheError(f"{target} could not be written: {error}") from error
    theirs = read_json(target)
    refuse_other_spec(target, theirs, str(whole["spec_hash"]), why)
    if theirs.get(SEAL, digest := manifest_hash(theirs)) != digest:
        raise CacheError(
            f"{target} is not as it was written: its {SEAL} is {theirs[SEAL]}, its content hashes to {digest}; "
            "restore it, or delete it and the build writes it anew"
        )
    return root


def refuse_other_spec(path: Path, facts: Mapping[str, Any], spec_hash: str, why: Why = lambda _: "") -> None:
    """Raise `CacheError` where a manifest or a sidecar, the facts of the file at `path`, is of another spec.

    `why` says, of these facts, in what.
    """
    theirs = str(facts.get("spec_hash"))
    if theirs != spec_hash:
        raise CacheError(
            f"{path} belongs to spec {theirs[:12]}, this build is {spec_hash[:12]}{why(facts)}: specs are not mixed in "
            "one directory, choose another"
        )


def write_unit(
    root: str | Path, name: str, unit: UnitData, run: Mapping[str, Any] | None = None, *, replace: bool = True
) -> Path:
    """Check a unit, write it atomically, and seal it with its sidecar.

    Parameters
    ----------
    root : path
        A cache directory made by `create_cache`.
    name : str
        Unit name, the file's stem.
    unit : UnitData
        Arrays and root attributes; `type` and `version` are filled in here.
    run : mapping, optional
        Facts of this run (times, device, budget, engine, parity, versions), JSON-able, for the sidecar.
    replace : bool
        Whether a unit that is finished is written anew; otherwise one that another process has finished by the time
        ours is written stays as it is.

    Returns
    -------
    pathlib.Path
        The finished HDF5 file.

    Raises
    ------
    CacheError
        If the unit breaks the contract, or the file cannot be written (full disk); no partial file stays.

    Examples
    --------
    >>> import tempfile, steerstats
    >>> from steerstats.cache import CacheReader, UnitData, create_cache, write_unit
    >>> unit = CacheReader(steerstats.demo_cache())["likes-rain"].load()
    >>> manifest = {"kind": "import", "spec_hash": "ab12", "units": ["likes-rain"], "model": "mine"}
    >>> root = create_cache(f"{tempfile.mkdtemp()}/cache", manifest)
    >>> write_unit(root, "likes-rain", UnitData(unit.arrays, dict(unit.attrs) | {"spec_hash": "ab12"})).name
    'likes-rain.h5'
    >>> steerstats.open_cache(root).datasets
    ('likes-rain',)
    """
    folder = Path(root) / UNITS
    target = folder / f"{checked_name(name)}.h5"
    sealed = UnitData(unit.arrays, {"type": UNIT_TYPE, "version": VERSION, "unit": name, **unit.attrs})
    check_unit(sealed, str(target))
    partial = partial_path(target)
    try:
        with new_hdf5(partial) as file:
            write_group(file, sealed)
        digest, size = fsync_and_hash(partial)
        side = {
            "unit": name,
            "file": target.name,
            "bytes": size,
            "sha256": digest,
            "content_sha256": content_hash(sealed),
            "spec_hash": str(sealed.attrs.get("spec_hash", "")),
            "run": dict(run or {}),
        }
        if not replace and finished_sidecar(folder.parent, name):
            return target
        # An older sidecar must not vouch for the new file between the two renames.
        sidecar_path(folder.parent, name).unlink(missing_ok=True)
        mine = os.stat(partial)
        os.replace(partial, target)
        # Nor ours for the file of another process, which put it there meanwhile and will seal it.
        if os.path.samestat(mine, os.stat(target)):
            publish(sidecar_path(folder.parent, name), (json.dumps(side, indent=1, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise CacheError(f"{target} could not be written: {error}") from error
    finally:
        with suppress(OSError):  # what went wrong before is what is said
            partial.unlink(missing_ok=True)
    return target


def write_group(group: h5py.Group, unit: UnitData, *, compress: bool = False) -> None:
    """Write arrays, scales and attributes of one unit into a file's root or a group of a packed file.

    `compress` deflates everything but activations, which gain nothing: a grid is repetitive where it holds the
    unsteered model once for every vector, and NaN where nothing was planned.
    """
    for key, value in unit.attrs.items():
        group.attrs[key] = value
    ordered = [name for name in SCALES if name in unit.arrays]
    ordered += [spec.name for spec in ARRAYS if spec.name in unit.arrays and spec.name not in ordered]
    ordered += sorted(set(unit.arrays) - set(ordered))
    for name in ordered:
        array = unit.arrays[name]
        if isinstance(array, Streamed):
            dataset = group.create_dataset(name, shape=array.shape, dtype=array.dtype, chunks=row_chunks(array))
            for index, part in array.parts():
                dataset[index] = part
            dataset.attrs["long_name"] = BY_NAME[name].doc
            continue
        array = np.asarray(array)
        if dtype_name(array.dtype) == STRING:
            text = array.astype(object)
            dataset = group.create_dataset(name, data=text, dtype=h5py.string_dtype("utf-8"))
        else:
            packed = compress and name not in SCALES and name != "activation" and array.nbytes > SMALL_BYTES
            filters = {"compression": "gzip", "compression_opts": 6, "shuffle": True} if packed else {}
            dataset = group.create_dataset(name, data=array, chunks=row_chunks(array), **filters)
        dataset.attrs["long_name"] = BY_NAME[name].doc
        if name in SCALES:
            dataset.make_scale(name)
    for name in ordered:
        if name not in SCALES:
            for axis, scale in enumerate(BY_NAME[name].dims):
                group[name].dims[axis].attach_scale(group[scale])


def row_chunks(array: np.ndarray | Streamed) -> tuple[int, ...] | None:
    """Chunks of about 1 MiB that keep trailing axes whole; None (contiguous) for anything smaller."""
    if array.nbytes <= CHUNK_BYTES:
        return None
    chunks = [1] * array.ndim
    room = CHUNK_BYTES // array.itemsize
    for axis in reversed(range(array.ndim)):
        chunks[axis] = min(array.shape[axis], room)
        room //= chunks[axis]
    return tuple(chunks)


def checked_name(name: str) -> str:
    """A unit name that is a plain file stem on any system; InputError for any other."""
    if fault := name_fault(name):
        raise InputError(f"unit name {name!r} {fault}")
    return name


def name_fault(name: str) -> str:
    """Why a name cannot be that of a unit, and so of a file on any system; empty where it can.

    Examples
    --------
    >>> from steerstats.cache.writer import name_fault
    >>> name_fault("likes-rain")
    ''
    >>> name_fault("güte")
    "should be ASCII letters, digits, '-', '_' and '.' only: it names a file"
    """
    letters = name.replace("-", "").replace("_", "").replace(".", "")
    if not letters.isalnum() or not name.isascii():
        return "should be ASCII letters, digits, '-', '_' and '.' only: it names a file"
    return "should not begin with '.': it names a file" if name.startswith(".") else ""


def _is_ours(name: str) -> bool:
    """What a builder has in a cache directory before the manifest; NFS keeps open files without a name as `.nfs*`."""
    return name in (UNITS, MANIFEST) or name.endswith(PARTIAL) or name.startswith(".nfs")
