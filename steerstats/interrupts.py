"""Ctrl-C, as whoever presses it means it: heard whatever a library makes of it, and never between two halves."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any


class Ears:
    """Whether Ctrl-C was pressed in an `interruptible` block."""

    def __init__(self) -> None:
        self.heard = False

    def check(self) -> None:
        """Raise a KeyboardInterrupt that some library has swallowed; for long work to call now and then."""
        if self.heard and current_thread() is main_thread():
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Ears]:
    """In this block Ctrl-C ends in KeyboardInterrupt, whatever happened to the one that was raised at once.

    Python raises it wherever the main thread is, and that may be within a library's callback from C: NumPy, comparing
    records, makes a TypeError of it, others drop it with a word on standard error. Every error that comes after Ctrl-C
    is therefore taken for what it did; what was dropped is raised by the next `Ears.check`.

    Yields
    ------
    Ears

    Examples
    --------
    >>> with interruptible() as ears:
    ...     for _ in range(3):
    ...         ears.check()  # between two steps of long work
    >>> ears.heard
    False
    """
    ears = Ears()
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(before):
        yield ears  # only the main thread may say what signals do; and who ignores them is left to it
        return

    def hear(number: int, frame: Any) -> None:
        ears.heard = True
        before(number, frame)

    tell = sys.unraisablehook
    sys.unraisablehook = _without_interrupts(tell)
    signal.signal(signal.SIGINT, hear)
    try:
        yield ears
    except Exception as error:
        if ears.heard:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = tell


@contextmanager
def deferred() -> Iterator[None]:
    """Ctrl-C in this block is raised at its end; processes that are begun in it never hear one.

    Examples
    --------
    >>> with deferred():
    ...     owner = {"file": "made", "claim": "known"}  # both or neither
    """
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or before is None:
        yield
        return
    heard: list[int] = []
    # Ignoring it instead would lose it. It is blocked for the children, who inherit that; here another thread may
    # still be handed it, whence the handler.
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _without_interrupts(tell: Callable[[Any], Any]) -> Callable[[Any], None]:
    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            tell(unraisable)

    return hook
