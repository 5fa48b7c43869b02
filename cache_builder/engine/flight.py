"""Rows on their way: requests become rows, rows are launched one after another, and come back in the same order.

Some rows are always in flight, across requests too: while the host lays out the first rows of a request, the device is
at the last ones of the request before. A row that does not fit in memory is split and tried again; nothing is lost.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from cache_builder.engine.answer import Answer, Transfer
from cache_builder.engine.lines import BATCHED
from cache_builder.engine.operators import LayerTable, layer_tables
from cache_builder.engine.plan import Layout, Wanted, demand_of, lay_out
from cache_builder.engine.requests import Request, Scores
from cache_builder.memory import SMALLER, fits, out_of_memory
from cache_builder.packing import PADDING, Row, pack
from steerstats.errors import ModelError

if TYPE_CHECKING:
    from cache_builder.engine.runner import Engine

SMALLEST_BUDGET = 16
IN_FLIGHT = 3


class Job:
    """One request: the rows that are still to be run, and the answer that they fill.

    Parameters
    ----------
    engine : Engine
        Gives the path and the budget, unless they are said here.
    request : Request
    path, budget, codes, rows
        For the proof: "trie" or "plain", tokens per row, a subset of the steering codes, and what is packed already.
    """

    def __init__(
        self,
        engine: Engine,
        request: Request,
        *,
        path: str | None = None,
        budget: int | None = None,
        codes: np.ndarray | None = None,
        rows: Sequence[Row] | None = None,
    ) -> None:
        self.engine, self.request = engine, request
        self.as_trie = (path or engine.path) == "trie"
        examples, steering = request.examples, request.steering
        n_codes = steering.n_codes if steering else 1
        self.wanted = Wanted(request.first, request.completions, bool(request.read_layers))
        self.demand = demand_of(examples, steering, self.wanted, share=self.as_trie)
        self.tables = self._tables()
        self.answer = Answer(examples, n_codes, self.wanted, tuple(request.read_layers), engine.hidden)
        codes = np.arange(1, n_codes) if codes is None else codes
        if not (request.first or request.completions):  # only read, without steering
            codes = codes[:0]
        # The proof asks for one batch, however much of it is padding.
        padding = PADDING if budget is None else np.inf
        self.rows = deque(
            rows
            or pack(
                self.demand, codes, budget or engine.budget, ceiling=engine.ceiling, share=self.as_trie, padding=padding
            )
        )

    def launch(self, row: Row) -> tuple[Layout, Transfer] | None:
        """Send a row through the model; None where memory ended, and the engine's ceiling is lower now."""
        engine, request = self.engine, self.request
        try:
            layout = lay_out(
                request.examples,
                request.steering,
                row,
                self.wanted,
                as_trie=self.as_trie,
                twins=self.as_trie and engine.join,
                cut=engine.forward.lines != BATCHED,
            )
            return layout, Transfer(engine.forward.run(layout, self.tables, request.read_layers))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if not row.splittable:
                raise self._does_not_fit(row) from error
            engine.ceiling = max(min(row.size, engine.ceiling or row.size) // 2, 1)
            engine.budget = max(min(engine.budget, engine.ceiling), SMALLEST_BUDGET)
            return None

    def split(self, row: Row) -> list[Row]:
        """The same work in rows below the ceiling."""
        engine = self.engine
        rows = pack(
            self.demand,
            row.codes,
            min(engine.budget, engine.ceiling),
            ceiling=engine.ceiling,
            share=self.as_trie,
            base=row.base,
            subset=row.examples,
        )
        if len(rows) == 1:
            raise self._does_not_fit(row)
        return rows

    def _tables(self) -> dict[int, LayerTable]:
        steering, forward = self.request.steering, self.engine.forward
        with fits(
            lambda: (
                f"{len(steering.directions)} steering vectors with {len(steering.multipliers)} multipliers do not "
                f"fit in the memory of {forward.device} beside the model; steer with fewer at a time"
            )
        ):
            return layer_tables(steering, forward.places) if steering else {}

    def _does_not_fit(self, row: Row) -> ModelError:
        return ModelError(
            f"one input with its answers, {row.size} tokens, does not fit in the memory of "
            f"{self.engine.forward.device} beside the model; {SMALLER}"
        )


class _Sent(NamedTuple):
    job: Job
    layout: Layout
    transfer: Transfer
    last: bool  # of its job


def answer(engine: Engine, jobs: Iterable[Job]) -> Iterator[Scores]:
    """Scores of each job, in their order; a job is asked for when all rows of the one before have been launched."""
    flying: deque[_Sent] = deque()

    def land(but: int = 0) -> Iterator[Scores]:
        while len(flying) > but:
            sent = flying.popleft()
            sent.job.answer.take(sent.layout, sent.transfer)
            if sent.last:
                yield sent.job.answer.scores()

    for job in jobs:
        while job.rows:
            row = job.rows.popleft()
            if engine.ceiling is not None and row.size > engine.ceiling and row.splittable:
                job.rows.extendleft(reversed(job.split(row)))
                continue
            sent = job.launch(row)
            if sent is None:
                # Only here, past the exception, are the failed pass's tensors free to go; so are copies in flight.
                yield from land()
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                job.rows.appendleft(row)
                continue
            flying.append(_Sent(job, *sent, last=not job.rows))
            yield from land(IN_FLIGHT)
    yield from land()
