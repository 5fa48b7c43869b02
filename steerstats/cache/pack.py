"""One portable file from a cache directory, for publication."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import h5py

from steerstats.cache.disk import folders_for, new_hdf5, whole_file
from steerstats.cache.reader import CacheReader, Unit
from steerstats.cache.schema import BY_NAME, PACK_TYPE, SCALES, VERSION, UnitData, content_hash
from steerstats.cache.verify import Check, check_content, check_file_hash
from steerstats.cache.writer import write_group
from steerstats.errors import CacheError, InputError


def pack(
    source: str | Path, target: str | Path, *, leave_out: str | Iterable[str] = (), overwrite: bool = False
) -> Path:
    """Write every finished unit of a cache into one HDF5 file, one group a unit.

    Parameters
    ----------
    source : path
        A cache, directory or packed.
    target : path
        The file to write; it appears whole or not at all.
    leave_out : str or iterable of str
        Arrays that stay behind, `"activation"` for the usual publication; none that every unit has, and no scale.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    pathlib.Path
        The written file.

    Raises
    ------
    InputError
        If `leave_out` names what is no array of the contract, or what a unit cannot do without.
    CacheError
        If the cache holds no finished unit, a unit is not what its sidecar seals, the target exists, or it cannot be
        written.

    Examples
    --------
    >>> import pathlib, tempfile, steerstats
    >>> from steerstats.cache import pack
    >>> source = steerstats.demo_cache()
    >>> small = pack(source, pathlib.Path(tempfile.mkdtemp(), "small.h5"), leave_out=["direction", "answer_logit"])
    >>> small.stat().st_size < source.stat().st_size
    True
    >>> len(steerstats.open_cache(small).datasets)
    14
    """
    cache, out, dropped = CacheReader(source), Path(target), _optional(leave_out)
    if not cache.units:
        raise CacheError(f"{cache.path} has no finished unit to pack")
    if out.is_dir():
        raise CacheError(f"{out} is a directory; give the name of a file")
    if out.exists() and not overwrite:
        raise CacheError(f"{out} exists; choose another name, or overwrite it (--overwrite)")
    try:
        with folders_for(out), whole_file(out) as partial, new_hdf5(partial) as file:
            file.attrs["type"] = PACK_TYPE
            file.attrs["version"] = VERSION
            manifest = json.dumps(cache.manifest, sort_keys=True, ensure_ascii=False)
            file.create_dataset("manifest", data=manifest, dtype=h5py.string_dtype("utf-8"))
            for unit in cache:
                # The packed file gets hashes of its own, which would vouch for whatever is read here.
                if not cache.packed:
                    _insist(unit, check_file_hash(unit))
                whole = unit.load()
                _insist(unit, check_content(unit, whole))
                arrays = {name: array for name, array in whole.arrays.items() if name not in dropped}
                kept = UnitData(_without_orphans(arrays), whole.attrs)
                group = file.create_group(unit.name)
                write_group(group, kept, compress=True)
                # What an earlier packing left out is not there either.
                before = unit.sidecar.get("left_out")
                left_out = {*map(str, before if isinstance(before, list) else ()), *(dropped & whole.arrays.keys())}
                side = {**unit.sidecar, "content_sha256": content_hash(kept), "left_out": sorted(left_out)}
                group.attrs["sidecar"] = json.dumps(side, sort_keys=True)
    except OSError as error:
        raise CacheError(f"{out} could not be written: {error.strerror or error}") from error
    return out


def _optional(leave_out: str | Iterable[str]) -> frozenset[str]:
    names = frozenset([leave_out] if isinstance(leave_out, str) else leave_out)
    for name in sorted(names, key=str):
        if name not in BY_NAME:
            raise InputError(f"leave_out names {name!r}, which is not an array of a cache (see SCHEMA.md)")
        if BY_NAME[name].required or name in SCALES:
            raise InputError(f"leave_out names {name!r}, which a unit needs; activations can stay behind, for one")
    return names


def _insist(unit: Unit, check: Check) -> None:
    if not check.ok:
        raise CacheError(
            f"unit {unit.name} is not what was built and is not packed: {unit.where}: {check.what} is {check.detail}; "
            f"copy it again or rebuild it"
        )


def _without_orphans(arrays: dict) -> dict:
    """Drop the width scale once nothing uses it: at 7B it would outweigh small units."""
    if "activation" not in arrays and "direction" not in arrays:
        arrays.pop("hidden", None)
    return arrays
