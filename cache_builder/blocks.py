"""Work in blocks of bounded size, so that host memory does not grow with a dataset's activations.

Inputs go through the engine in blocks of neighbours; training activations, and scores where they are many, lie in
unnamed files beside the cache, and what is made from them reads a bounded part at a time; so do token ids (see
`example_store`). What still grows with a dataset are its texts, and by a few bytes a pair which pairs each refit
draws. Extractors other than the mean difference read a layer's training activations whole.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache_builder.trie import prefix_order
from steerstats.cache.disk import PARTIAL, machine_tag
from steerstats.cache.schema import Streamed
from steerstats.errors import CacheError

if TYPE_CHECKING:
    from cache_builder.engine import Example

RUN_BYTES = 128 << 20
"""Host memory that one run of the engine may answer with. Fixed: blocks decide rows, and rows decide rounding."""
PART_BYTES = 32 << 20
"""Host memory of one part of the training activations."""
ARRAY_BYTES = 32 << 20
"""Host memory of one of the grid's arrays, of which a unit has up to eight, and two units are there at once."""
FEWEST = 16  # examples of a block, however large each one's answer is


def example_blocks(examples: Sequence[Example], bytes_each: int, *, share: bool) -> list[np.ndarray]:
    """Divide examples into runs of neighbours, so that a block shares prefixes as the whole would.

    Parameters
    ----------
    examples : sequence of Example
    bytes_each : int
        Host memory of one example's answer.
    share : bool
        Neighbours share a prefix (trie path), or else are of similar length (plain path).

    Returns
    -------
    list of int64 arrays
        Indices; one block, in the given order, where everything fits into `RUN_BYTES`.
    """
    count = block_count(len(examples), bytes_each)
    if count <= 1:
        return [np.arange(len(examples))]
    if share:
        order = prefix_order([example.options[0][: example.branch] for example in examples])
    else:
        order = np.argsort([max(map(len, example.options)) for example in examples], kind="stable")
    return np.array_split(order, count)


def block_count(n_examples: int, bytes_each: int) -> int:
    """Blocks of examples whose answers take so many bytes each."""
    return -(-n_examples // max(FEWEST, RUN_BYTES // max(bytes_each, 1)))


def answer_bytes(n_codes: int, n_options: int, n_reads: int, n_layers: int, hidden: int, completions: bool) -> int:
    """Host memory of what the engine answers for one example: scores of every code, and activations."""
    return n_codes * (n_options * (20 if completions else 4) + 4) + n_reads * n_layers * hidden * 4


def unnamed(what: str, folder: str | Path | None) -> dict[str, object]:
    """Arguments of `tempfile` for a file without a name in a folder (None: the system's).

    Where a file cannot be made without a name, a kill may leave it: by its name it is known whose it was.
    """
    return {"dir": folder, "prefix": f".{what}.{machine_tag()}-{os.getpid()}-", "suffix": PARTIAL}


@contextlib.contextmanager
def kept_in(folder: str | Path | None, what: str) -> Iterator[None]:
    """Say of a folder that has no room, or that cannot be written, what cannot be kept there."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"{folder or tempfile.gettempdir()}: {what} cannot be kept there: {error.strerror or error}"
        ) from error


def nan_array(shape: Sequence[int], folder: str | Path | None = None) -> np.ndarray:
    """A float32 array of NaN; past `ARRAY_BYTES` it lies in a file without a name, which the system may page out.

    Parameters
    ----------
    shape : sequence of int
    folder : path, optional
        Where the file lies; the system's folder for temporary files by default.

    Raises
    ------
    CacheError
        If the file cannot be made, or the disk has no room for all of it.
    """
    size = 4 * math.prod(shape)
    if size <= ARRAY_BYTES:
        return np.full(shape, np.nan, dtype=np.float32)
    with (
        kept_in(folder, f"{size / 1e9:.1f} GB of scores"),
        tempfile.TemporaryFile(**unnamed("grid", folder)) as file,
    ):
        if hasattr(os, "posix_fallocate"):  # a page without room would be a fault in the middle of a build
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        array = np.memmap(file, dtype=np.float32, mode="r+", shape=tuple(shape))
    array.fill(np.nan)
    return array


class ActivationStore:
    """Training activations (settings, layers, options, pairs, hidden), float32, in a file without a name.

    The file disappears with the process, however that ends. `store[setting, layer]` is a view that reads its parts
    when it is sliced, as `array[setting, layer][:, start:stop]` would.

    Parameters
    ----------
    shape : tuple of int
    folder : path, optional
        Where the file lies; the system's folder for temporary files by default.

    Attributes
    ----------
    largest : ndarray (layers,)
        Largest absolute value written so far.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], folder: str | Path | None = None) -> None:
        self.shape, self.largest = shape, np.zeros(shape[1])
        with kept_in(folder, "training activations"):
            self._file = tempfile.TemporaryFile(**unnamed("activations", folder))  # noqa: SIM115 (see `close`)

    def write(self, setting: int, pairs: np.ndarray, values: np.ndarray) -> None:
        """Keep activations (n, options, layers, hidden) of the pairs at these indices."""
        order = np.argsort(pairs)
        runs = np.split(order, np.flatnonzero(np.diff(pairs[order]) != 1) + 1)
        try:
            for layer in range(self.shape[1]):
                self.largest[layer] = np.maximum(self.largest[layer], np.abs(values[:, :, layer]).max(initial=0.0))
                for option in range(self.shape[2]):
                    for run in runs:
                        self._file.seek(self._place(setting, layer, option, int(pairs[run[0]])))
                        self._file.write(np.ascontiguousarray(values[run, option, layer], dtype=np.float32).data)
            self._file.flush()
        except OSError as error:
            raise CacheError(f"training activations could not be written: {error}") from error

    def read(self, setting: int, layer: int, option: int, start: int, stop: int) -> np.ndarray:
        """Activations (stop - start, hidden) of a run of pairs."""
        self._file.seek(self._place(setting, layer, option, start))
        count = max(stop - start, 0) * self.shape[4]
        return np.frombuffer(self._file.read(4 * count), dtype=np.float32).reshape(-1, self.shape[4])

    def __getitem__(self, place: tuple[int, int]) -> _View:
        return _View(self, *place)

    def layers(self, chosen: Sequence[int]) -> _Layers:
        """The same store with these of its layers alone."""
        return _Layers(self, tuple(chosen))

    def streamed(self, layers: Sequence[int], dtype: np.dtype) -> Streamed:
        """The array of the schema, (settings, these layers, options, pairs, hidden), written part by part."""
        shape = (self.shape[0], len(layers), *self.shape[2:])

        def parts() -> Iterator[tuple[tuple, np.ndarray]]:
            for setting, k, option in np.ndindex(shape[:3]):
                for rows in parts_of(shape[3], 4 * shape[4]):
                    values = self.read(setting, layers[k], option, rows.start, rows.stop)
                    yield (setting, k, option, rows), values.astype(dtype, copy=False)

        return Streamed(shape, np.dtype(dtype), parts, self.close)

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):  # on a full disk, what is still in the buffer
            self._file.close()

    def _place(self, setting: int, layer: int, option: int, pair: int) -> int:
        _, layers, options, pairs, hidden = self.shape
        return 4 * hidden * (((setting * layers + layer) * options + option) * pairs + pair)


class _View:
    """One setting and layer of a store: (options, pairs, hidden), read when it is sliced along the pairs."""

    def __init__(self, store: ActivationStore, setting: int, layer: int) -> None:
        self.store, self.setting, self.layer = store, setting, layer
        self.shape = store.shape[2:]

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        options, rows = index
        start, stop, _ = rows.indices(self.shape[1])
        read = [self.store.read(self.setting, self.layer, k, start, stop) for k in range(self.shape[0])[options]]
        return np.stack(read)


class _Layers:
    """A store as if it had some of its layers alone."""

    def __init__(self, store: ActivationStore, chosen: tuple[int, ...]) -> None:
        self.store, self.chosen = store, chosen
        self.shape = (store.shape[0], len(chosen), *store.shape[2:])
        self.ndim = len(self.shape)

    def __getitem__(self, place: tuple[int, int]) -> _View:
        return self.store[place[0], self.chosen[place[1]]]


def parts_of(count: int, bytes_each: int) -> list[slice]:
    """Slices of 0..count whose parts take about `PART_BYTES`."""
    step = max(1, PART_BYTES // max(bytes_each, 1))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
