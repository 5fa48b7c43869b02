"""The proof that precedes a build: the trie path against plain one-sequence passes, on this model's real inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cache_builder.engine.operators import layer_tables
from cache_builder.engine.plan import Wanted, lay_out
from cache_builder.engine.requests import Example, Request, Scores, Steering
from cache_builder.packing import Row
from steerstats.errors import ModelError

if TYPE_CHECKING:
    from cache_builder.engine.runner import Engine

TOLERANCE_FLOAT32 = 1e-4
LOW_PRECISION_FACTOR = 3.0
FAILURES = (
    RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError, ModelError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the trie path is from plain passes, and the path that follows from it.

    Parameters
    ----------
    path : str
        "trie" if it passed, else "plain".
    passed : bool
    difference : float
        Largest difference of answer logits and log-sum-exp between the trie path and one-sequence passes, nats;
        NaN where the trie path raised an error.
    tolerance : float
        Largest difference allowed: 1e-4 in float32; in lower precision three times `plain_difference`, but not
        less than one rounding step of the largest logit.
    plain_difference : float
        The same difference between batched and one-sequence plain passes: the model's own noise.
    own_difference : float
        Between one-sequence passes without steering and the model called without any hook. In lower precision
        this includes the model's own rounding of its logits.
    activation_difference : float
        Largest relative difference |a - b| / |b| of activations, middle and last layer.
    n_examples, n_codes, longest : int
        Examples and steering codes compared, and the tokens of the longest example.
    dtype, attention, mask, reason : str
        `attention` is the model's implementation; `mask` is how trie rows are masked (blocked, dense, flex);
        `joined` says whether branches are computed only from the layer on that they are steered at;
        `reason` says why the trie path was refused, and is empty otherwise.
    """

    path: str
    passed: bool
    difference: float
    tolerance: float
    plain_difference: float
    own_difference: float
    activation_difference: float
    n_examples: int
    n_codes: int
    longest: int
    dtype: str
    attention: str
    mask: str
    joined: bool
    reason: str = ""

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; NaN becomes None."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        found = f"largest difference {self.difference:.1e} nats (allowed {self.tolerance:.1e})"
        if self.passed:
            return f"trie path: {found}"
        return f"plain path, slower: the trie path does not hold for this model ({self.reason}; {found})"


def compare_paths(
    engine: Engine, examples: Sequence[Example], steering: Steering | None, n: int = 4, *, completions: bool = False
) -> Parity:
    """Run a few examples both ways; see `Engine.prove`.

    Parameters
    ----------
    engine : Engine
    examples, steering
        Of the build; the longest example and `n - 1` spread over the others are compared.
    completions : bool
        Compare sums over whole completions too.
    """
    chosen = [examples[i] for i in _choose(examples, n)]
    codes = _extreme_codes(steering)
    layers = tuple(sorted({(engine.n_layers - 1) // 2, engine.n_layers - 1}))
    request = Request(chosen, steering, completions=completions, read_layers=layers)
    single = _one_by_one(engine, chosen, steering, codes, layers, completions)
    everything = sum(len(ids) for example in chosen for ids in example.options) * (len(codes) + 2)
    batched = engine._run(request, path="plain", budget=everything, codes=codes)
    plain_difference = _difference(batched, single, codes)[0]
    largest = float(np.max(np.abs(single.logits), where=np.isfinite(single.logits), initial=0.0))
    low = engine.forward.dtype != torch.float32 and engine.forward.dtype != torch.float64
    tolerance = TOLERANCE_FLOAT32
    if low:
        rounding = largest * torch.finfo(engine.forward.dtype).eps
        tolerance = max(LOW_PRECISION_FACTOR * plain_difference, rounding)
    reason, difference, activation = "", float("nan"), float("nan")
    try:
        # Short rows are masked densely and long ones in blocks: a build meets both, so both are compared.
        ways = (True, False) if engine.mask == "blocked" else (False,)
        found = []
        for always in ways:
            engine.forward.always_block = always
            trie = engine._run(request, path="trie", codes=codes)
            found.append(_difference(trie, single, codes))
        difference, activation = np.max(found, axis=0)  # NaN stays NaN, and fails
        noise = _difference(batched, single, codes)[1]
        limit = tolerance if not low else max(tolerance, LOW_PRECISION_FACTOR * noise)
        if not difference <= tolerance:
            reason = "its logits differ"
        elif not activation <= limit:
            reason = f"its activations differ by {activation:.1e} of their norm"
    except FAILURES as error:
        reason = f"it raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        engine.forward.always_block = False
    return Parity(
        path="plain" if reason else "trie",
        passed=not reason,
        difference=float(difference),
        tolerance=float(tolerance),
        plain_difference=plain_difference,
        own_difference=_own_difference(engine, chosen, single.logits),
        activation_difference=float(activation),
        n_examples=len(chosen),
        n_codes=len(codes),
        longest=max(len(ids) for example in chosen for ids in example.options),
        dtype=str(engine.forward.dtype).removeprefix("torch."),
        attention=str(getattr(engine.forward.config, "_attn_implementation", "")),
        mask=engine.mask,
        joined=engine.join,
        reason=reason,
    )


def _choose(examples: Sequence[Example], n: int) -> list[int]:
    longest = int(np.argmax([max(map(len, example.options)) for example in examples]))
    spread = np.linspace(0, len(examples) - 1, min(max(n - 1, 1), len(examples))).round().astype(int)
    return sorted({longest, *spread.tolist()})


def _extreme_codes(steering: Steering | None) -> np.ndarray:
    """Codes of the smallest and largest multipliers of the first and last vector."""
    if steering is None:
        return np.zeros(0, dtype=np.int64)
    extremes = [int(np.argmin(steering.multipliers)), int(np.argmax(steering.multipliers))]
    codes = np.unique(steering.codes[[0, 0, -1, -1], extremes * 2])
    return codes[codes > 0]


def _one_by_one(engine, examples, steering, codes, layers, completions: bool) -> Scores:
    """What passes that hold one sequence each give; column j belongs to `codes[j - 1]`, column 0 is unsteered."""
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
            for j, option in enumerate(options if completions else ()):
                layout = lay_out([option], steering, row, Wanted(first=False, completions=True), as_trie=False)
                output = engine.forward.run(layout, tables)
                picked = output.picked[:, 0].double()
                sums[0, i, column, j] = picked.sum().item()
                sums[1, i, column, j] = (picked - output.logsumexp[:, 0]).sum().item()
        for read, (option, start, stop) in enumerate(example.reads):
            alone = Example((example.options[option],), example.prompt, example.branch, ((0, start, stop),))
            row = Row(np.array([0]), np.zeros(0, dtype=np.int64), True, 0)
            layout = lay_out([alone], None, row, Wanted(first=False, reads=True), as_trie=False)
            reads[i, read] = engine.forward.run(layout, {}, layers).activations.mean(0).cpu().numpy()
    pair = tuple(sums) if completions else (None, None)
    return Scores(
        logits=logits, logsumexp=total, completion_logit=pair[0], completion_logprob=pair[1], activations=reads
    )


def _difference(scores: Scores, single: Scores, codes: np.ndarray) -> tuple[float, float]:
    """Largest difference of logits, log-sum-exp and sums, and largest relative difference of activations."""
    columns = [0, *codes]
    worst = 0.0
    for name in ("logits", "logsumexp", "completion_logit", "completion_logprob"):
        alone = getattr(single, name)
        if alone is not None:
            # Not a maximum of Python's: NaN has to stay.
            worst = np.maximum(worst, np.abs(getattr(scores, name)[:, columns] - alone).max())
    norm = np.linalg.norm(single.activations, axis=-1)
    apart = np.linalg.norm(scores.activations - single.activations, axis=-1)
    relative = apart[np.isfinite(norm)] / np.maximum(norm[np.isfinite(norm)], 1e-30)
    return float(worst), float(relative.max(initial=0.0))


def _own_difference(engine, examples, logits: np.ndarray) -> float:
    worst = 0.0
    for i, example in enumerate(examples):
        own = engine.forward.own_logits(example.options[0][: example.branch])[-1]
        targets = [int(ids[example.branch]) for ids in example.options]
        worst = max(worst, float(np.abs(own[targets] - logits[i, 0]).max()))
    return worst
