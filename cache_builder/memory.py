"""When memory ends: torch says so in several ways, and users in none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from steerstats.errors import ModelError

SMALLER = "use a smaller or quantised model, or several devices (run.device_map)"
ENDED = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "status_alloc_failed",
    "allocation_failed",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch's, CUDA's or Python's says that memory ended."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in text for words in ENDED)


@contextmanager
def fits(otherwise: Callable[[], str]) -> Iterator[None]:
    """In this block memory that ends is a ModelError, which says what did not fit and what to do.

    Parameters
    ----------
    otherwise : callable () -> str
        The message.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ModelError(otherwise()) from error
