"""The steered grid of a unit: every planned vector in every setting, block by block, and the unsteered summaries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cache_builder.blocks import answer_bytes, nan_array
from cache_builder.engine import Engine, Request, Scores, Steering
from cache_builder.prompts.example_store import ExampleStore
from cache_builder.spec import BuildSpec
from cache_builder.unit.summaries import unit_vector
from cache_builder.vectors import VectorSet, difference

WHOLE = {"logprob_sum": "completion_logprob", "logit_sum": "completion_logit"}
"""Scores of whole completions, and the array that keeps what they are made of."""

Work = tuple[Request, Callable[[Scores], None]]
"""What the engine is asked, and where its answer goes."""


class Grid:
    """The arrays of the grid, filled setting by setting.

    Parameters
    ----------
    spec : BuildSpec
    engine : Engine
    vectors : VectorSet
    planned : uint8 array (settings, vectors)
    n_inputs, n_options : int
    whole_only : bool
        Completions do not part in one token: they are scored whole, without logits of first differing tokens.
    folder : path, optional
        Where large arrays lie; see `nan_array`.
    """

    def __init__(
        self,
        spec: BuildSpec,
        engine: Engine,
        vectors: VectorSet,
        planned: np.ndarray,
        *,
        n_inputs: int,
        n_options: int,
        whole_only: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.spec, self.engine, self.vectors, self.planned = spec, engine, vectors, planned
        self.whole_only, self.n_options = whole_only, n_options
        shape = (len(spec.settings), len(vectors), len(spec.multipliers), n_inputs)
        grid = {"propensity": shape}
        by_option = (*shape[:3], n_options, n_inputs)
        if not whole_only:
            grid |= {"logsumexp": shape, "answer_logit": by_option}
        if spec.score in WHOLE:
            grid[WHOLE[spec.score]] = by_option
        for name in ("input_projection", "input_difference_cosine"):
            grid[name] = (shape[0], shape[1], n_inputs)
        self.arrays = {name: nan_array(sizes, folder) for name, sizes in grid.items()}
        self.arrays["input_prompt_tokens"] = np.zeros((shape[0], n_inputs), dtype=np.int32)

    def work(
        self, row: int, examples: ExampleStore, contrasts: Callable[[], ExampleStore] | None = None
    ) -> Iterator[Work]:
        """What scores the inputs of one setting.

        Parameters
        ----------
        row : int
            Which setting.
        examples : ExampleStore
            Read where the answer is predicted, then once for each option (unless there are `contrasts`).
        contrasts : callable, optional
            Gives what is read for the inputs' own differences instead, two options each.
        """
        self.arrays["input_prompt_tokens"][row] = examples.prompts
        chosen = np.flatnonzero(self.planned[row])
        if not len(chosen):
            return
        layers = sorted({int(layers[0]) for layers in self.vectors.layers[chosen]})
        grid = steering(self.spec, self.vectors, chosen)

        def keep(block: np.ndarray, scores: Scores) -> None:
            self._keep(row, chosen, block, scores, grid.codes)
            self._summarise(row, chosen, block, scores.activations, layers)

        whole = self.spec.score in WHOLE
        for block, request in blocks_of(
            self.engine, examples, grid, layers, completions=whole, first=not self.whole_only
        ):
            yield request, partial(keep, block)
        if contrasts is not None:
            with contrasts() as both:
                for block, request in blocks_of(self.engine, both, None, layers, first=False):
                    yield request, partial(self._compare, row, chosen, block, layers)

    def _keep(self, row: int, chosen: np.ndarray, block: np.ndarray, scores: Scores, codes: np.ndarray) -> None:
        cells = np.ix_(chosen, np.arange(len(self.spec.multipliers)), block)
        out = self.arrays
        out["propensity"][row][cells] = scores.propensity(self.spec.score)[:, codes].transpose(1, 2, 0)
        if not self.whole_only:
            out["logsumexp"][row][cells] = scores.logsumexp[:, codes].transpose(1, 2, 0)
        cells = np.ix_(chosen, np.arange(len(self.spec.multipliers)), np.arange(self.n_options), block)
        for name, values in (
            ("answer_logit", scores.logits),
            ("completion_logprob", scores.completion_logprob),
            ("completion_logit", scores.completion_logit),
        ):
            if name in out:
                out[name][row][cells] = values[:, codes].transpose(1, 2, 3, 0)

    def _summarise(self, row: int, chosen: np.ndarray, block: np.ndarray, read: np.ndarray, layers: list[int]) -> None:
        """Unsteered activations against each vector, at the (first) layer that the vector steers."""
        for k, (vectors, units) in enumerate(self._by_layer(chosen, layers)):
            found = read[:, 0, k].astype(np.float64) @ units.T
            self.arrays["input_projection"][row][np.ix_(vectors, block)] = found.T
        if read.shape[1] > 1:
            self._cosines(row, chosen, block, read[:, 1:], layers)

    def _compare(self, row: int, chosen: np.ndarray, block: np.ndarray, layers: list[int], scores: Scores) -> None:
        self._cosines(row, chosen, block, scores.activations, layers)

    def _cosines(self, row: int, chosen: np.ndarray, block: np.ndarray, read: np.ndarray, layers: list[int]) -> None:
        for k, (vectors, units) in enumerate(self._by_layer(chosen, layers)):
            values = difference(read[:, :, k].transpose(1, 0, 2))
            norms = np.linalg.norm(values, axis=-1)[:, None]
            found = np.divide(values @ units.T, norms, out=np.zeros((len(block), len(vectors))), where=norms > 0)
            self.arrays["input_difference_cosine"][row][np.ix_(vectors, block)] = found.T

    def _by_layer(self, chosen: np.ndarray, layers: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for layer in layers:
            vectors = chosen[self.vectors.layers[chosen, 0] == layer]
            yield vectors, np.stack([unit_vector(self.vectors.direction[vector, 0]) for vector in vectors])


def steering(spec: BuildSpec, vectors: VectorSet, chosen: np.ndarray | slice = slice(None)) -> Steering:
    """The engine's grid of some of the vectors."""
    return Steering(
        directions=vectors.direction[chosen],
        layers=vectors.layers[chosen],
        multipliers=np.array(spec.multipliers),
        operator=spec.operator,
        scope=spec.scope,
    )


def blocks_of(
    engine: Engine,
    examples: ExampleStore,
    grid: Steering | None,
    layers: Sequence[int],
    *,
    completions: bool = False,
    first: bool = True,
) -> Iterator[tuple[np.ndarray, Request]]:
    """Requests of bounded host memory for all examples, each with its examples' indices."""
    n_codes, n_options = grid.n_codes if grid else 1, len(examples[0].options)
    size = answer_bytes(n_codes, n_options, examples.n_reads, len(layers), engine.hidden, completions)
    for block in examples.blocks(size, share=engine.path != "plain"):
        yield block, Request([examples[i] for i in block], grid, completions, tuple(layers), first)


def run_all(engine: Engine, work: Iterable[Work]) -> None:
    """Answer every request and hand its scores on; the engine is at the next ones meanwhile."""
    waiting: deque[Callable[[Scores], None]] = deque()

    def requests() -> Iterator[Request]:
        for request, then in work:
            waiting.append(then)
            yield request

    for scores in engine.stream(requests()):
        waiting.popleft()(scores)
