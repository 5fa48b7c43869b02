"""The small JSON files of a cache, and what makes a unit a finished one: a sidecar that fits its file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from steerstats.errors import CacheError, SteerstatsError

UNITS = "units"
MAX_JSON_BYTES = 64 << 20
SEAL = "manifest_sha256"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def sidecar_path(root: str | Path, name: str) -> Path:
    """Where the sidecar of a unit lies."""
    return Path(root) / UNITS / f"{name}.json"


def finished_sidecar(root: Path, name: str) -> dict[str, Any] | None:
    """The sidecar of a finished unit, None while it is not (no sidecar, or a file of another size).

    Examples
    --------
    >>> import tempfile, steerstats
    >>> from steerstats.cache import finished_sidecar
    >>> truth = steerstats.SimulationTruth(datasets=2, n_inputs=5, n_pairs=6)
    >>> made = steerstats.simulate_cache(f"{tempfile.mkdtemp()}/half", truth, unfinished=["sim-01"])
    >>> finished_sidecar(made.path, "sim-00")["file"], finished_sidecar(made.path, "sim-01")
    ('sim-00.h5', None)
    """
    path, file = sidecar_path(root, name), Path(root) / UNITS / f"{name}.h5"
    try:
        # A builder that writes the unit anew takes the sidecar away: either may be gone since the last look.
        side = parse_json(_read_text(path), str(path))
        return side if file.stat().st_size == side.get("bytes") else None
    except FileNotFoundError:
        return None


def unit_damage(root: Path, name: str) -> str | None:
    """What is wrong with the file of a unit that was finished once, None for one that is finished or never was.

    A builder computes such a unit anew, as any that is not finished. Whoever reads the cache should hear that it was
    cut short or overwritten, because a copy that went wrong looks the same.

    Examples
    --------
    >>> import os, tempfile, steerstats
    >>> from steerstats.cache.sidecar import unit_damage
    >>> made = steerstats.simulate_cache(f"{tempfile.mkdtemp()}/c", steerstats.SimulationTruth(datasets=2, n_inputs=5))
    >>> os.truncate(made.path / "units" / "sim-01.h5", 1000)
    >>> unit_damage(made.path, "sim-00"), unit_damage(made.path, "sim-01")  # doctest: +ELLIPSIS
    (None, '...sim-01.h5 has 1000 bytes where its sidecar says ...')
    """
    path, file = sidecar_path(root, name), Path(root) / UNITS / f"{name}.h5"
    try:
        text = _read_text(path)
        claimed = parse_json(text, str(path)).get("bytes")
        found = file.stat().st_size if file.exists() else None
        # A builder may have put another file in place between the two looks: only a sidecar that stays accuses.
        if found == claimed or _read_text(path) != text:
            return None
    except FileNotFoundError:
        return None
    if found is None:
        return f"{file} is gone while its sidecar {path.name} is there"
    return f"{file} has {found} bytes where its sidecar says {claimed}"


class Parity(NamedTuple):
    """What the engine's probe of a unit saw, nats; None where the sidecar does not say, or says it with no number."""

    path: str
    difference: float | None
    tolerance: float | None
    plain_difference: float | None


def parity_of(sidecar: Mapping[str, Any]) -> Parity | None:
    """The parity that a sidecar records, None where it records none; sidecars are anyone's, and may hold anything.

    Examples
    --------
    >>> from steerstats.cache.sidecar import parity_of
    >>> parity_of({"run": {"parity": {"path": "trie", "difference": 1e-6, "tolerance": "none"}}})
    Parity(path='trie', difference=1e-06, tolerance=None, plain_difference=None)
    >>> parity_of({"run": None})
    """
    run = sidecar.get("run")
    found = run.get("parity") if isinstance(run, Mapping) else None
    if not isinstance(found, Mapping) or not found:
        return None
    names = ("difference", "tolerance", "plain_difference")
    return Parity(str(found.get("path")), *(_nats(found.get(name)) for name in names))


def _nats(value: object) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0
    return float(value) if usable else None


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of what a manifest says, its own seal apart: of its JSON with sorted keys and no spaces.

    Examples
    --------
    >>> from steerstats.cache.sidecar import SEAL, manifest_hash
    >>> said = {"kind": "import", "spec_hash": "ab12", "units": ["kindness"]}
    >>> manifest_hash({**said, SEAL: "anything"}) == manifest_hash(said)
    True
    >>> manifest_hash({**said, "kind": "grid"}) == manifest_hash(said)
    False
    """
    said = {key: value for key, value in manifest.items() if key != SEAL}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a cache.

    Raises
    ------
    CacheError
        Naming the file and what is wrong with it.
    """
    try:
        return parse_json(_read_text(path), str(path))
    except FileNotFoundError as error:
        raise CacheError(f"{path.parent} is not a cache: it has no {path.name}") from error


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A text as a JSON object."""
    value = json_value(text, where, CacheError)
    if not isinstance(value, dict):
        raise CacheError(f"{where} holds {type(value).__name__}, it should hold an object")
    return value


def json_value(text: str, where: str, wrong: type[SteerstatsError]) -> Any:
    """What a JSON text holds; `wrong` names its place where it is none, or none that Python can hold."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise wrong(f"{where}: line {error.lineno} is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise wrong(f"{where} cannot be read: {error}") from error
    if _SURROGATE.search(text):  # alone it is what Python reads, and can neither print nor write
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            line = text.count("\n", 0, text.lower().find(half)) + 1
            raise wrong(
                f"{where}: line {line} holds half a character ({half}), which is no text; write it whole"
            ) from None
    return value


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CacheError(f"{path} is larger than {MAX_JSON_BYTES} bytes; it is not read")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise CacheError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
