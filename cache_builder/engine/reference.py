"""What passes that hold one sequence each give, and how far other scores are from that: the measure of the proof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cache_builder.engine.operators import layer_tables
from cache_builder.engine.plan import Wanted, lay_out
from cache_builder.engine.requests import Example, Request, Scores
from cache_builder.memory import SMALLER, fits
from cache_builder.packing import Row
from steerstats.errors import ModelError, SteerstatsError

if TYPE_CHECKING:
    from cache_builder.engine.runner import Engine


def one_by_one(engine: Engine, request: Request, codes: np.ndarray) -> Scores:
    """Scores of a request from one pass a sequence; column j belongs to `codes[j - 1]`, column 0 is unsteered.

    Raises
    ------
    ModelError
        If a sequence does not fit in memory, or the model cannot run it (positions that end, say).
    """
    longest = max(len(option) for example in request.examples for option in example.options)
    where = f"in the memory of {engine.forward.device} beside the model"
    try:
        with fits(lambda: f"one sequence of up to {longest} tokens does not fit {where}; {SMALLER}"):
            return _one_by_one(engine, request, codes)
    except SteerstatsError:
        raise
    except Exception as error:
        name = type(engine.forward.model).__name__
        raise ModelError(f"{name} cannot run one sequence of up to {longest} tokens: {raised(error)}") from error


def raised(error: Exception) -> str:
    """What a model raised, in one line."""
    return f"it raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _one_by_one(engine: Engine, request: Request, codes: np.ndarray) -> Scores:
    examples, steering, layers = request.examples, request.steering, request.read_layers
    tables = layer_tables(steering, engine.forward.places) if steering else {}
    shape = (len(examples), len(codes) + 1)
    logits = np.full((*shape, len(examples[0].options)), np.nan, dtype=np.float32)
    total = np.full(shape, np.nan, dtype=np.float32)
    sums = np.full((2, *logits.shape), np.nan, dtype=np.float32)
    reads = np.full((len(examples), max(len(e.reads) for e in examples), len(layers), engine.hidden), np.nan)
    for i, example in enumerate(examples):
        options = [Example((ids,), example.prompt, example.branch, ()) for ids in example.options]
        for column, code in enumerate([0, *codes]):
            row = Row(np.array([0]), np.array([code] if code else [], dtype=np.int64), not code, 0)
            layout = lay_out([example], steering, row, Wanted(first=True), as_trie=False)
            output = engine.forward.run(layout, tables)
            logits[i, column] = output.picked[:, 0].cpu().numpy()
            total[i, column] = output.logsumexp[0, 0].item()
            for j, option in enumerate(options if request.completions else ()):
                layout = lay_out([option], steering, row, Wanted(first=False, completions=True), as_trie=False)
                output = engine.forward.run(layout, tables)
                # Added up on the host: not every device has float64 (MPS).
                picked = output.picked[:, 0].cpu().numpy().astype(np.float64)
                sums[0, i, column, j] = picked.sum()
                sums[1, i, column, j] = (picked - output.logsumexp[:, 0].cpu().numpy()).sum()
        for read, (option, start, stop) in enumerate(example.reads):
            alone = Example((example.options[option],), example.prompt, example.branch, ((0, start, stop),))
            row = Row(np.array([0]), np.zeros(0, dtype=np.int64), True, 0)
            layout = lay_out([alone], None, row, Wanted(first=False, reads=True), as_trie=False)
            reads[i, read] = engine.forward.run(layout, {}, layers).activations.mean(0).cpu().numpy()
    pair = tuple(sums) if request.completions else (None, None)
    return Scores(
        logits=logits, logsumexp=total, completion_logit=pair[0], completion_logprob=pair[1], activations=reads
    )


def difference(
    scores: Scores, single: Scores, codes: np.ndarray, chosen: Sequence[int] | slice = slice(None)
) -> tuple[float, float, float]:
    """Largest difference of first tokens' logits and log-sum-exp, of sums over whole completions (0 without these), and
    largest relative difference of activations.

    Parameters
    ----------
    scores : Scores
    single : Scores
        Of `one_by_one`, for some of the examples and codes.
    codes : int array
    chosen : indices
        The examples of `scores` that `single` holds.
    """
    columns = [0, *codes]
    worst = [0.0, 0.0]
    kinds = {"logits": 0, "logsumexp": 0, "completion_logit": 1, "completion_logprob": 1}
    for name, kind in kinds.items():
        alone = getattr(single, name)
        if alone is not None:
            # Not a maximum of Python's: NaN has to stay.
            worst[kind] = np.maximum(worst[kind], np.abs(getattr(scores, name)[chosen][:, columns] - alone).max())
    norm = np.linalg.norm(single.activations, axis=-1)
    found = scores.activations[chosen][:, : single.activations.shape[1]]
    apart = np.linalg.norm(found - single.activations, axis=-1)
    relative = apart[np.isfinite(norm)] / np.maximum(norm[np.isfinite(norm)], 1e-30)
    return *map(float, worst), float(relative.max(initial=0.0))


def own_difference(engine: Engine, examples: Sequence[Example], logits: np.ndarray) -> float:
    """Largest difference from the model called without any of our hooks, unsteered."""
    worst = 0.0
    for i, example in enumerate(examples):
        own = engine.forward.own_logits(example.options[0][: example.branch])[-1]
        targets = [int(ids[example.branch]) for ids in example.options]
        worst = np.maximum(worst, np.abs(own[targets] - logits[i, 0]).max())  # NaN stays here, too
    return float(worst)
