"""Work beside the engine: one thread that prepares what comes next, and one that writes what is done.

Both change when something is done and never what: the same calls are made in the same order, one at a time in each
thread, so that results are the bits of a build without them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Ahead:
    """Results of `make(*key)`, the next of which is begun while the present one is used.

    Parameters
    ----------
    make : callable
    overlap : bool
        False makes everything when it is asked for, in the caller's thread.
    """

    def __init__(self, make: Callable[..., Any], *, overlap: bool = True) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="encode-ahead") if overlap else None
        self._begun: tuple[Hashable, Future] | None = None

    def take(self, key: tuple, following: tuple | None = None) -> Any:
        """The result for `key`; the one for `following` is begun in the background. Errors are raised here."""
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == key:
            result = begun[1].result()
        else:
            if begun is not None:  # another process took what was foreseen
                begun[1].cancel()
            result = self._make(*key)
        if self._pool is not None and following is not None:
            self._begun = (following, self._pool.submit(self._make, *following))
        return result

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class Writer:
    """Writes one thing at a time in the background; whatever goes wrong is raised by the next call.

    Leaving the `with` block waits for what is being written, also when an exception (Ctrl-C among them) leaves it.
    """

    def __init__(self, *, overlap: bool = True) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write-behind") if overlap else None
        self._pending: Future | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.join()
        except Exception:
            if kind is None:
                raise
        finally:
            if self._pool is not None:
                self._pool.shutdown()

    def submit(self, task: Callable[[], None]) -> None:
        """Begin a task, after the one before is done."""
        self.join()
        if self._pool is None:
            task()
        else:
            self._pending = self._pool.submit(task)

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._pending is not None and not self._pending.done()

    def check(self) -> None:
        """Raise what has gone wrong so far, without waiting."""
        if self._pending is not None and self._pending.done():
            self.join()

    def join(self) -> None:
        """Wait until nothing is being written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
