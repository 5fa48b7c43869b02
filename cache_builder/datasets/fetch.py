"""The bytes of a dataset: from a directory, or fetched once by URL into a cache folder and checked by hash."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from cache_builder.datasets.catalogue import Source
from steerstats.errors import InputError

_LARGEST = 64 * 2**20
"""No source file comes near this many bytes; more means that something else was served."""
_TIMEOUT_S = 60


def read_source(source: Source, data_dir: str | Path | None = None) -> tuple[bytes, str]:
    """Read one source.

    Parameters
    ----------
    source : Source
    data_dir : path, optional
        A directory that holds files under the paths of the catalogue, or flat under their own names. A file that it
        lacks is taken from the cache folder, and fetched if it is not there.

    Returns
    -------
    data : bytes
    note : str
        Empty, or a remark for provenance: a local file that differs from the pinned one is used (it may be
        a newer edition, and its own hash is part of the spec's hash), but not silently.

    Raises
    ------
    InputError
        If there is no such file, it cannot be fetched, or what was fetched is not what was pinned.
    """
    found = None if data_dir is None else _from_directory(source, Path(data_dir))
    if found is not None:
        return found
    lacking = "" if data_dir is None else f"{Path(data_dir) / source.file} does not exist, and "
    if source.url is None or source.sha256 is None:
        raise InputError(
            f"dataset {source.name!r}: {lacking}it is read from a local file only (no official hash is known): put "
            f"{source.file} below a directory and give it as data_dir or --data-dir"
        )
    try:
        return fetch(source.url, source.sha256), ""
    except InputError as error:
        raise InputError(f"dataset {source.name!r}: {lacking}{error}") from error


def fetch(url: str, sha256: str, folder: str | Path | None = None) -> bytes:
    """Download once, check the hash before every use, keep under the hash's name.

    Parameters
    ----------
    url : str
    sha256 : str
        Hexadecimal digest that the bytes must have.
    folder : path, optional
        Cache folder; the user's cache directory by default (environment: STEERSTATS_DATA_CACHE).

    Returns
    -------
    bytes
    """
    import filelock

    folder = Path(folder) if folder is not None else cache_folder()
    path = folder / f"{sha256[:16]}-{url.rpartition('/')[2]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if path.exists():
                data = path.read_bytes()
                if _digest(data) == sha256:
                    return data
            data = _download(url)
            if _digest(data) != sha256:
                raise InputError(
                    f"{url}: what was served has SHA-256 {_digest(data)[:16]}..., not the pinned {sha256[:16]}...; "
                    f"get the file elsewhere and give its directory as data_dir or --data-dir"
                )
            _write(path, data)
            return data
    except OSError as error:
        raise InputError(f"{folder}: cannot keep the fetched file ({error.strerror or error})") from error


def cache_folder() -> Path:
    """Where fetched sources are kept."""
    import platformdirs

    chosen = os.environ.get("STEERSTATS_DATA_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("steerstats")) / "sources"


def _from_directory(source: Source, directory: Path) -> tuple[bytes, str] | None:
    if not directory.is_dir():
        raise InputError(f"data_dir {directory} is not a directory")
    for path in (directory / source.file, directory / Path(source.file).name):
        if path.is_file():
            data = path.read_bytes()
            digest = _digest(data)
            if source.sha256 is not None and digest != source.sha256:
                return data, f"{source.file} differs from the pinned edition (SHA-256 {digest[:16]}...)"
            return data, ""
    return None


def _download(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "steerstats"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            data = response.read(_LARGEST + 1)
            announced = response.headers.get("Content-Length")
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{url}: cannot be fetched ({reason}); get the file elsewhere and give its directory as data_dir or "
            f"--data-dir"
        ) from error
    if len(data) > _LARGEST:
        raise InputError(f"{url}: serves more than {_LARGEST} bytes")
    if announced is not None and len(data) < int(announced):
        raise InputError(f"{url}: the connection ended after {len(data)} of {announced} bytes; try again")
    return data


def _write(path: Path, data: bytes) -> None:
    # a rename within one folder is atomic: a reader sees the whole file or none
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
