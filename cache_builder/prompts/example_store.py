"""The examples of one part of a dataset in one setting, with token ids in a file where they are many.

A block of examples is made when the engine is to run it, so that what a build holds of a setting's inputs is a bounded
number of token ids and a few numbers an input.
"""

from __future__ import annotations

import contextlib
import heapq
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cache_builder import blocks
from cache_builder.engine import Example, read_spans
from cache_builder.prompts.encoding import EncodedPair
from cache_builder.trie import prefix_order

TOKEN_BYTES = 32 << 20
"""Host memory of the token ids of one setting; beyond that they lie in a file without a name."""

_HEAD = 4  # numbers before an example's own: options, reads, prompt, branch


def example_of(pair: EncodedPair, read: str = "answer") -> Example:
    """The example of an encoded pair with all its options.

    Parameters
    ----------
    pair : EncodedPair
    read : str
        "answer": at the token that holds each option's first differing character; else one of the engine's `READS`
        ("last_prompt" counts as "answer" here, see `inputs.Inputs.contrasts`).
    """
    reads = tuple((option, at, at + 1) for option, at in enumerate(pair.reads))
    if read not in ("answer", "last_prompt"):
        reads = read_spans(read, [len(ids) for ids in pair.options], pair.answer_start, pair.first_diff)
    return Example(pair.options, prompt=pair.answer_start, branch=pair.first_diff, reads=reads)


class ExampleStore(Sequence[Example]):
    """A sequence of examples that are made anew, from int32 token ids, whenever they are asked for.

    Parameters
    ----------
    folder : path, optional
        Where the file lies; the system's folder for temporary files by default.

    Attributes
    ----------
    prompts : array of int
        `Example.prompt` of each.
    n_reads : int
        The most reads of any.

    Raises
    ------
    CacheError
        If the token ids cannot be written, as on a full disk.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._file = tempfile.SpooledTemporaryFile(TOKEN_BYTES, **blocks.unnamed("tokens", folder))  # noqa: SIM115 (see `close`)
        self._folder, self._starts = folder, array("q", [0])
        self.prompts, self.n_reads = array("i"), 0

    def extend(self, examples: Iterable[Example]) -> None:
        """Add examples at the end."""
        with blocks.kept_in(self._folder, "token ids of the inputs"):
            self._file.seek(self._starts[-1])
            for example in examples:
                record = _record_of(example)
                self._file.write(record.data)
                self._starts.append(self._starts[-1] + record.nbytes)
                self.prompts.append(example.prompt)
                self.n_reads = max(self.n_reads, len(example.reads))
            self._file.flush()

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self._record(range(len(self))[index]).astype(np.int64)
        n_options, n_reads, prompt, branch = record[:_HEAD].tolist()
        lengths, rest = record[_HEAD : _HEAD + n_options].tolist(), record[_HEAD + n_options :]
        reads, ids = rest[: 3 * n_reads].reshape(-1, 3).tolist(), rest[3 * n_reads :]
        options, at = [], branch
        for length in lengths:
            options.append(np.concatenate([ids[:branch], ids[at : at + length - branch]]))
            at += length - branch
        return Example(tuple(options), prompt, branch, tuple(map(tuple, reads)))

    def __enter__(self) -> ExampleStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError, AttributeError):  # a full disk; a store that was never made
            self._file.close()

    def blocks(self, bytes_each: int, *, share: bool) -> list[np.ndarray]:
        """What `blocks.example_blocks` gives for these examples, without having their tokens in memory at once."""
        count = blocks.block_count(len(self), bytes_each)
        if count <= 1 or not share:
            return blocks.example_blocks(self, bytes_each, share=share)
        return np.array_split(self.prefix_order(), count)

    def prefix_order(self) -> np.ndarray:
        """`trie.prefix_order` of the tokens up to each example's branch: parts are sorted, and then merged."""
        longest = max(stop - start for start, stop in zip(self._starts, self._starts[1:]))
        runs = []
        for part in blocks.parts_of(len(self), 3 * longest):  # as int32, and twice that for what sorts them
            members = np.arange(part.start, part.stop)
            runs.append(members[prefix_order([self._prefix(i) for i in members])])
        # Equal prefixes stay in the order of the examples: `merge` takes the earlier part's first.
        merged = heapq.merge(*map(self._keyed, runs), key=lambda found: found[0])
        return np.fromiter((i for _, i in merged), dtype=np.int64, count=len(self))

    def _keyed(self, run: np.ndarray) -> Iterator[tuple[bytes, int]]:
        for i in run:
            yield self._prefix(i).astype(">i4").tobytes(), i

    def _prefix(self, index: int) -> np.ndarray:
        record = self._record(index)
        n_options, n_reads, _, branch = map(int, record[:_HEAD])
        start = _HEAD + n_options + 3 * n_reads
        return record[start : start + branch]

    def _record(self, index: int) -> np.ndarray:
        start, stop = self._starts[index], self._starts[index + 1]
        self._file.seek(start)
        return np.frombuffer(self._file.read(stop - start), dtype=np.int32)


def _record_of(example: Example) -> np.ndarray:
    """Head, lengths of the options, reads, the tokens that all options begin with, and what each has beyond them."""
    lengths = [len(ids) for ids in example.options]
    reads = [number for read in example.reads for number in read]
    head = [len(lengths), len(example.reads), example.prompt, example.branch, *lengths, *reads]
    tails = [ids[example.branch :] for ids in example.options]
    return np.concatenate([head, example.options[0][: example.branch], *tails]).astype(np.int32)
