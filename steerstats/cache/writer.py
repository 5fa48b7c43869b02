"""Write caches: an immutable manifest, and units that appear whole or not at all.

A unit is written under a temporary name, closed, fsynced and renamed into place; its sidecar (hashes, run facts)
follows the same way, and a unit counts as finished only when the sidecar is there. Nothing is ever appended to a
finished file, so a kill at any moment costs the units in flight and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

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
from steerstats.errors import CacheError, InputError

MANIFEST = "manifest.json"
UNITS = "units"
PARTIAL = ".partial"
CHUNK_BYTES = 1 << 20
SMALL_BYTES = 1 << 12  # not worth a chunk index


def create_cache(path: str | Path, manifest: Mapping[str, Any]) -> Path:
    """Make a cache directory, or join the one that is there if it has the same spec.

    Parameters
    ----------
    path : path
        Directory of the cache.
    manifest : mapping
        `kind`, `spec`, `spec_hash`, `model`, `units` (list of names) and `provenance`; `type` and `version` are
        filled in here.

    Returns
    -------
    pathlib.Path
        The directory.

    Raises
    ------
    CacheError
        If the directory holds another spec's cache, or something that is no cache.

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
    if root.is_dir() and not target.exists() and any(child.name != UNITS for child in root.iterdir()):
        strangers = sorted(child.name for child in root.iterdir())[:3]
        if not all(name.endswith(PARTIAL) for name in strangers):
            raise CacheError(f"{root} is not empty and holds no {MANIFEST} ({', '.join(strangers)}, ...)")
    (root / UNITS).mkdir(parents=True, exist_ok=True)
    if not target.exists():
        text = json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        _publish_once(target, text.encode())
    present = json.loads(target.read_text(encoding="utf-8"))
    if present.get("spec_hash") != whole["spec_hash"]:
        raise CacheError(
            f"{target} belongs to spec {str(present.get('spec_hash'))[:12]}, this build is "
            f"{str(whole['spec_hash'])[:12]}: specs are not mixed in one directory, choose another"
        )
    return root


def write_unit(root: str | Path, name: str, unit: UnitData, run: Mapping[str, Any] | None = None) -> Path:
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
        with h5py.File(partial, "w", libver=("v110", "v110")) as file:
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
        # An older sidecar must not vouch for the new file between the two renames.
        sidecar_path(folder.parent, name).unlink(missing_ok=True)
        os.replace(partial, target)
        publish(sidecar_path(folder.parent, name), (json.dumps(side, indent=1, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise CacheError(f"{target} could not be written: {error}") from error
    finally:
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
            chunks = row_chunks(array) or (True if packed else None)
            dataset = group.create_dataset(name, data=array, chunks=chunks, **filters)
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
        chunks[axis] = max(1, min(array.shape[axis], room))
        room //= chunks[axis]
    return tuple(chunks)


def sidecar_path(root: str | Path, name: str) -> Path:
    """Where the sidecar of a unit lies."""
    return Path(root) / UNITS / f"{name}.json"


def checked_name(name: str) -> str:
    """A unit name that is a plain file stem on any system."""
    allowed = name.replace("-", "").replace("_", "").replace(".", "")
    if not name or name.startswith(".") or not allowed.isalnum() or not name.isascii():
        raise InputError(f"unit name {name!r} should be ASCII letters, digits, '-', '_' and '.' only")
    return name


def partial_path(target: Path) -> Path:
    """A temporary name beside a file that is being written, with who writes it: host (hashed) and process."""
    return target.with_name(f".{target.name}.{host_tag()}-{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def host_tag() -> str:
    """This machine in the names of temporary files."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def publish(target: Path, content: bytes) -> None:
    """Write a small file whole: temporary name, fsync, rename, fsync of the folder."""
    partial = _write_partial(target, content)
    try:
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    _fsync_folder(target.parent)


def fsync_and_hash(path: Path) -> tuple[str, int]:
    """Force a closed file to disk; return its SHA-256 and its size in bytes."""
    digest = hashlib.sha256()
    with open(path, "rb+") as file:
        while block := file.read(1 << 22):
            digest.update(block)
        os.fsync(file.fileno())
        return digest.hexdigest(), file.tell()


def _publish_once(target: Path, content: bytes) -> None:
    """Like `publish`, but the first of several racing builders wins and the others see its file."""
    partial = _write_partial(target, content)
    try:
        os.link(partial, target)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    _fsync_folder(target.parent)


def _write_partial(target: Path, content: bytes) -> Path:
    partial = partial_path(target)
    with open(partial, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return partial


def _fsync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # not every system opens folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
