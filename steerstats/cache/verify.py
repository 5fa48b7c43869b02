"""Hold a delivered cache against its own claims: hashes, shapes, finite values, engine parity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steerstats.cache.reader import CacheReader, Unit
from steerstats.cache.schema import UnitData, content_hash
from steerstats.cache.sidecar import SEAL, manifest_hash, parity_of
from steerstats.errors import SteerstatsError, first_few


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: where, what, whether it held, and what was seen."""

    where: str
    what: str
    ok: bool
    detail: str


def verify(path: str | Path) -> Iterator[Check]:
    """Check every finished unit of a cache; yield each check as it is made.

    Parameters
    ----------
    path : path
        A cache, directory or packed.

    Yields
    ------
    Check
        Completeness, the manifest's hash, file size and hash, contract (axes, types, finite values), content hash,
        scores against logits, and the engine's parity as the builder recorded it.

    Raises
    ------
    CacheError
        Only if the path is no cache at all; damage inside one is a failed check.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.cache import verify
    >>> checks = list(verify(steerstats.demo_cache()))
    >>> [check.what for check in checks if not check.ok]
    []
    >>> checks[0].detail
    '14 of 14 units'
    """
    cache = CacheReader(path, allow_damaged=True)
    done, all_units = len(cache.units), len(cache.planned_units)
    lacking = [name for name in cache.missing if name not in cache.damaged]
    unfinished, damaged = _named("planned and not finished", lacking), _named("damaged", list(cache.damaged))
    found = f"{done} of {all_units} units{unfinished}{damaged}"
    yield Check(str(cache.path), "complete", not cache.missing, found)
    yield _manifest(cache)
    for name, text in cache.damaged.items():
        yield Check(name, "file size", False, text)
    for name in cache.units:
        try:
            unit = cache[name]
            if not cache.packed:
                yield check_file_hash(unit)
            whole = unit.load()
        except SteerstatsError as error:
            yield Check(name, "contract", False, str(error))
            continue
        yield Check(name, "contract", True, "axes, types and finite values as SCHEMA.md says")
        yield check_content(unit, whole)
        yield from _scores(unit, whole)
        yield _parity(unit)


def _manifest(cache: CacheReader) -> Check:
    """Spec, facts and provenance are those that the cache was begun with."""
    claimed, what = cache.manifest.get(SEAL), "manifest hash"
    if claimed is None:
        return Check(str(cache.path), what, True, "not recorded: the manifest holds no hash of itself")
    digest = manifest_hash(cache.manifest)
    return Check(str(cache.path), what, digest == claimed, _compare(digest, str(claimed), "the manifest"))


def check_file_hash(unit: Unit) -> Check:
    """The bytes of a unit's file are those that its sidecar seals."""
    with open(unit.path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    claimed = str(unit.sidecar.get("sha256"))
    return Check(unit.name, "file hash", digest == claimed, _compare(digest, claimed))


def check_content(unit: Unit, whole: UnitData) -> Check:
    """The numbers and labels of a unit are those that its sidecar seals."""
    digest, claimed = content_hash(whole), str(unit.sidecar.get("content_sha256"))
    return Check(unit.name, "content hash", digest == claimed, _compare(digest, claimed))


def _scores(unit: Unit, whole: UnitData) -> Iterator[Check]:
    """The stored propensity follows from the stored logits, and probabilities stay below one."""
    if "answer_logit" not in whole.arrays:
        return
    planned = whole.arrays["planned"].astype(bool)
    logits = whole.arrays["answer_logit"][planned].astype(np.float64)  # cells that are not planned hold NaN
    if str(unit.attrs.get("score")) == "logit_diff":
        odds = logits[:, :, 0] - np.logaddexp.reduce(logits[:, :, 1:], axis=2)  # two answers: the difference
        gap = np.abs(odds - whole.arrays["propensity"][planned]).max(initial=0)
        yield Check(unit.name, "propensity = logit difference", bool(gap < 1e-4), f"largest difference {gap:.1e}")
    if "logsumexp" in whole.arrays:
        over = (logits - whole.arrays["logsumexp"][planned][:, :, None]).max(initial=-np.inf)
        yield Check(unit.name, "probabilities at most 1", bool(over < 1e-4), f"largest log probability {over:.2g}")


def _parity(unit: Unit) -> Check:
    parity = parity_of(unit.sidecar)
    if parity is None:
        return Check(unit.name, "engine parity", True, "not recorded: this cache was not built by an engine")
    difference, tolerance = parity.difference, parity.tolerance
    ok = parity.path == "plain" or (difference is not None and tolerance is not None and difference <= tolerance)
    found, allowed = ("not recorded" if value is None else f"{value:.1e}" for value in (difference, tolerance))
    return Check(
        unit.name, "engine parity", ok, f"{parity.path} path, largest difference {found} nats, allowed {allowed}"
    )


def _named(what: str, names: list[str]) -> str:
    return f"; {what}: {first_few(names)}" if names else ""


def _compare(found: str, claimed: str, place: str = "the sidecar") -> str:
    return found[:12] if found == claimed else f"{found[:12]}, {place} says {claimed[:12]}"
