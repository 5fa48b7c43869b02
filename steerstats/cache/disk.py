"""Files that appear whole or not at all, and that say so when the disk is full.

What is being written has a temporary name that tells who writes it (`partial_path`), so that what a killed process
left can be told from what a living one is at.
"""

from __future__ import annotations

import errno
import functools
import glob
import hashlib
import io
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from steerstats.cache.processes import is_alive

PARTIAL = ".partial"


def partial_path(target: Path) -> Path:
    """A temporary name beside a file that is being written, with who writes it: machine (hashed) and process."""
    return target.with_name(f".{target.name}.{machine_tag()}-{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def is_abandoned(partial: Path) -> bool:
    """Whether a file with a temporary name is of a process of this machine that is gone."""
    machine, _, pid = partial.name.removesuffix(PARTIAL).rpartition(".")[2].rpartition("-")[0].partition("-")
    return machine == machine_tag() and pid.isdecimal() and not is_alive(int(pid))


@functools.cache
def machine_tag() -> str:
    """Where process numbers mean the same as here: the host name, and on Linux this boot and the pid namespace.

    Containers and cloned machines share a host name, and each of them has a process 7.
    """
    facts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):
        try:
            facts.append(read().strip())
        except OSError:
            facts.append("")
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:8]


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A temporary name to write to, which becomes the target if all goes well, and is gone otherwise.

    What a killed process left of the same target is removed first: it may be as large as the target.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL}"):
        with suppress(OSError):
            if is_abandoned(left):
                left.unlink()
    partial = partial_path(target)
    try:
        yield partial
        fsync_file(partial)
        os.replace(partial, target)
    except OSError as error:
        if error.filename == str(partial):  # a name that nobody gave
            error.filename = str(target)
        raise
    finally:
        partial.unlink(missing_ok=True)
    fsync_folder(target.parent)


@contextmanager
def folders_for(target: Path) -> Iterator[None]:
    """The folders above a target; those that had to be made are gone again if what is written there fails."""
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # another process has put something there
            for folder in made:
                folder.rmdir()
        raise


def publish(target: Path, content: bytes) -> None:
    """Write a small file whole: temporary name, fsync, rename, fsync of the folder."""
    with _written(target, content) as partial:
        os.replace(partial, target)
    fsync_folder(target.parent)


def publish_once(target: Path, content: bytes) -> None:
    """Like `publish`, but the first of several racing builders wins and the others see its file."""
    with _written(target, content) as partial:
        try:
            os.link(partial, target)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links: two that arrive in the same instant are not told apart
            if not target.exists():
                os.replace(partial, target)
    fsync_folder(target.parent)


def fsync_file(path: Path) -> None:
    """Force a closed file to disk; some disks say only then that they are full."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def fsync_and_hash(path: Path) -> tuple[str, int]:
    """Force a closed file to disk; return its SHA-256 and its size in bytes."""
    digest = hashlib.sha256()
    with open(path, "rb+") as file:
        while block := file.read(1 << 22):
            digest.update(block)
        os.fsync(file.fileno())
        return digest.hexdigest(), file.tell()


def fsync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # not every system opens folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP):  # some sync no folders
            raise
    finally:
        os.close(handle)


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to write; a disk that fills up is an OSError.

    HDF5 itself cannot close a file that it could not write: it leaks it, or ends the process by a segmentation fault
    (h5py 3.16). It therefore writes to a `_Sink`, which never fails, and whose error is raised once HDF5 is done.
    """
    with _Sink(path) as sink:
        try:
            with h5py.File(sink, "w", libver=("v110", "v110")) as file:
                yield file
        except (OSError, RuntimeError):  # what follows from it: HDF5 reads back what it believes to have written
            if sink.error is None:
                raise
        if sink.error is not None:
            raise sink.error


class _Sink(io.RawIOBase):
    """A file that keeps the first error of the disk to itself and goes on as if it were written."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        self._at = self._end = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size, at = len(view), self._at
        while len(view) and self.error is None:
            self._try(self._file.seek, at)
            done = self._try(self._file.write, view) or 0
            view, at = view[done:], at + done
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def readinto(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = min(len(view), max(self._end - self._at, 0))
        self._file.seek(self._at)
        found = self._file.read(size)
        view[:size] = found.ljust(size, b"\0")  # what the disk did not take reads as nothing
        self._at += size
        return size

    def truncate(self, size: int | None = None) -> int:
        self._end = self._at if size is None else size
        self._try(self._file.truncate, self._end)
        return self._end

    def close(self) -> None:
        self._file.close()
        super().close()

    def _try(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments) if self.error is None else None
        except OSError as error:
            self.error = error
            return None


@contextmanager
def _written(target: Path, content: bytes) -> Iterator[Path]:
    """A temporary file with this content, which is gone afterwards."""
    partial = partial_path(target)
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)
