"""The proof that precedes a build: the trie path against plain one-sequence passes, on this model's real inputs.

A few examples under a few codes come first, then a row as the build will fill it. A module that goes by a token's place
in its row instead of its position id, or that ends at some length of a row, gives itself away only in a long one. The
plain path is judged too: its batches have to give what single passes give, or it goes without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from cache_builder.engine.lines import BATCHED, EQUAL, SINGLE, WAYS
from cache_builder.engine.plan import Wanted, demand_of
from cache_builder.engine.reference import difference, one_by_one, own_difference, raised
from cache_builder.engine.requests import Example, Request, Scores, Steering
from cache_builder.packing import Row, pack
from steerstats.errors import ModelError, SteerstatsError

if TYPE_CHECKING:
    from cache_builder.engine.runner import Engine

TOLERANCE_FLOAT32 = 1e-4
LOW_PRECISION_FACTOR = 3.0
MOST_ROUNDINGS = 4.0  # of the largest score compared: past that it is no rounding, whatever batches differ by
ACTIVATION_ROUNDINGS = 8.0  # of their norm: over 20 random blocks half of that is usual, and other tokens are far off
EIGHT_BITS = 2.0**-7  # the rounding step of quantised layers, whatever the rest is computed in
ROW_EXAMPLES = 1024  # from which a whole row is filled: a sequence adds more than a dozen tokens to the longest rows


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the trie path is from plain passes, and the path that follows from it.

    Parameters
    ----------
    path : str
        "trie" if it passed, unless the plain path was asked for, or taken since an earlier proof failed.
    passed : bool
    difference : float
        Largest difference of answer logits, log-sum-exp and sums over whole completions between the trie path and
        one-sequence passes, nats, also on a whole row; NaN where the trie path raised an error. Where first tokens
        alone fail, theirs.
    tolerance : float
        Largest difference allowed: 1e-4 in float32 (for sums four rounding steps of the largest, where that is more);
        in lower precision three times `plain_difference`, but not less than one rounding step of the largest logit or
        log-sum-exp, and not more than four of the largest score.
    plain_difference : float
        The same difference between the plain path, as its sequences run (see `lines`), and one-sequence passes.
    own_difference : float
        Between one-sequence passes without steering and the model called without any hook; a build is refused where
        it is more than 1e-4 in float32, or four rounding steps of the largest logit or log-sum-exp in lower precision,
        in which it includes the model's own rounding of its logits.
    activation_difference : float
        Largest relative difference |a - b| / |b| of activations, middle and last layer. Allowed are 1e-4 in float32; in
        lower precision three times that of the plain path, but not less than eight rounding steps.
    n_examples, n_codes, longest : int
        Examples and steering codes compared at first, and the tokens of the longest example.
    row_tokens : int
        Tokens of the longest row of the build's own that was compared; 0 where the proof had failed before.
    lines : str
        How sequences of the plain path run: "batched"; where the model does not take such batches, or gives more than
        noise away from single passes (1e-4 in float32, four rounding steps in lower precision), in batches of one
        length ("equal"), or if need be one at a time ("single").
    first_tolerance : float
        The same tolerance for first tokens alone, whose scores are smaller than sums over whole completions.
    dtype, attention, mask, reason : str
        `attention` is the model's implementation; `mask` is how trie rows are masked (blocked, dense, flex);
        `joined` says whether branches are computed only from the layer on that they are steered at;
        `reason` says why the trie path was refused or not taken, and is empty otherwise.
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
    row_tokens: int = 0
    lines: str = BATCHED
    first_tolerance: float = TOLERANCE_FLOAT32

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; NaN becomes None."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        found = f"largest difference {self.difference:.1e} nats (allowed {self.tolerance:.1e})"
        if self.path == "trie":
            return f"trie path: {found}"
        if self.passed:
            said = f"plain path, slower: {self.reason}; the trie path held in the last proof ({found})"
        else:
            said = f"plain path, slower: the trie path does not hold for this model ({self.reason}; {found})"
        if self.lines == BATCHED:
            return said
        return (
            f"{said}; sequences run {WAYS[self.lines]}, slower still: in batches of several lengths the model gives "
            "other numbers, or an error"
        )


def compare_paths(
    engine: Engine, examples: Sequence[Example], steering: Steering | None, n: int = 4, *, completions: bool = False
) -> Parity:
    """Run a few examples both ways; see `Engine.prove`.

    Parameters
    ----------
    engine : Engine
    examples, steering
        Of the build; the longest example, the one that goes on longest past `branch`, and `n - 1` spread over the
        others are compared.
    completions : bool
        Compare sums over whole completions too.
    """
    chosen = [examples[i] for i in _choose(examples, n)]
    codes = _extreme_codes(steering)
    request = Request(chosen, steering, completions, _layers(engine))
    single = one_by_one(engine, request, codes)
    _check_finite(engine, single)
    engine.forward.lines = BATCHED
    *plain, noise = _plain_difference(engine, request, single, codes)
    allowed, most = _tolerances(engine, single, plain)
    own = _own_difference(engine, chosen, single, most[0])
    if not np.less_equal(plain, most).all():
        _check_causal(engine, chosen[0], most[0])
        *plain, noise = _without_padding(engine, examples, request, codes, most)
        allowed, _ = _tolerances(engine, single, plain)
    reason, apart, activation = "", np.full(2, np.nan), float("nan")
    try:
        # Short rows are masked densely and long ones in blocks: a build meets both, so both are compared.
        ways = (True, False) if engine.mask == "blocked" else (False,)
        found = []
        for always in ways:
            engine.forward.always_block = always
            found.append(difference(engine._run(request, path="trie", codes=codes), single, codes))
        *apart, activation = np.max(found, axis=0)  # NaN stays NaN, and fails
        reason = _refusal(apart, allowed, activation, _limit(engine, noise))
    except Exception as error:  # a model given what it may not know is a program, and fails as programs do
        reason = raised(error)
    finally:
        engine.forward.always_block = False
    apart, tolerance = _said(apart, allowed)
    parity = Parity(
        path="plain" if reason else "trie",
        passed=not reason,
        difference=apart,
        tolerance=tolerance,
        plain_difference=float(np.max(plain)),
        own_difference=own,
        activation_difference=float(activation),
        n_examples=len(chosen),
        n_codes=len(codes),
        longest=max(len(ids) for example in chosen for ids in example.options),
        dtype=str(engine.forward.dtype).removeprefix("torch."),
        attention=str(getattr(engine.forward.config, "_attn_implementation", "")),
        mask=engine.mask,
        joined=engine.join,
        reason=reason,
        lines=engine.forward.lines,
        first_tolerance=float(allowed[0]),
    )
    return compare_row(engine, examples, steering, parity, completions=completions)


def compare_row(
    engine: Engine,
    examples: Sequence[Example],
    steering: Steering | None,
    parity: Parity,
    *,
    completions: bool = False,
) -> Parity:
    """Hold a proof on a row as well that is filled to the engine's budget, with neighbours and all codes.

    Of the row its first example, its middle one and its last are compared; a proof that failed stays as it is.
    """
    if not parity.passed:
        return parity
    start = max(0, len(examples) - ROW_EXAMPLES) // 2
    request = Request(examples[start : start + ROW_EXAMPLES], steering, completions, _layers(engine))
    request, row = _longest_row(engine, request)
    chosen = sorted({0, len(row.examples) // 2, len(row.examples) - 1})
    # Where a row holds but some of the codes, the extremes may be elsewhere.
    codes = np.intersect1d(_extreme_codes(steering), row.codes)
    codes = codes if len(codes) else row.codes[:1]
    few = replace(request, examples=[request.examples[i] for i in chosen])
    single = one_by_one(engine, few, codes)
    *plain, noise = _plain_difference(engine, few, single, codes) if _low(engine) else (0.0, 0.0, 0.0)
    allowed = np.maximum([parity.first_tolerance, parity.tolerance], _tolerances(engine, single, plain)[0])
    reason, apart, activation = "", np.full(2, np.nan), float("nan")
    try:
        *apart, activation = difference(engine._run(request, path="trie", rows=[row]), single, codes, chosen)
        reason = _refusal(apart, allowed, activation, _limit(engine, noise))
    except Exception as error:  # a model given what it may not know is a program, and fails as programs do
        reason = raised(error)
    apart, tolerance = _said(apart, allowed)
    return replace(
        parity,
        path="plain" if reason else "trie",
        passed=not reason,
        difference=float(np.maximum(parity.difference, apart)),
        tolerance=tolerance,
        plain_difference=float(np.max([parity.plain_difference, *plain])),
        activation_difference=float(np.maximum(parity.activation_difference, activation)),
        reason=f"in a row of {row.size} tokens {reason}" if reason else "",
        row_tokens=max(parity.row_tokens, row.size),
        first_tolerance=float(allowed[0]),
    )


def _longest_row(engine: Engine, request: Request) -> tuple[Request, Row]:
    """Of the rows that a build would run these examples in the longest with unsteered outputs, and its examples."""
    wanted = Wanted(request.first, request.completions, reads=True)
    demand = demand_of(request.examples, request.steering, wanted, share=True)
    codes = np.arange(1, request.steering.n_codes if request.steering else 1)
    rows = pack(demand, codes, engine.budget, ceiling=engine.ceiling)
    row = max((row for row in rows if row.base), key=lambda row: row.size)
    examples = [request.examples[i] for i in row.examples]
    return replace(request, examples=examples), replace(row, examples=np.arange(len(examples)))


def _plain_difference(engine: Engine, request: Request, single: Scores, codes: np.ndarray) -> tuple[float, ...]:
    """What `difference` finds between one batch of all sequences and one pass for each; infinite where the model raises
    an error of the batch."""
    everything = sum(len(ids) for example in request.examples for ids in example.options) * (len(codes) + 2)
    try:
        return difference(engine._run(request, path="plain", budget=everything, codes=codes), single, codes)
    except SteerstatsError:
        raise
    except Exception:  # it runs single sequences: what it does not take is padding, or company
        return float("inf"), float("inf"), 0.0


def _tolerances(engine: Engine, single: Scores, plain: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Largest differences of first tokens and of sums that are allowed to the trie path, and to batches of the plain
    path; `plain` are those between the latter and single passes."""
    first = max(_largest(single.logits), _largest(single.logsumexp))
    sums = max(first, _largest(single.completion_logit), _largest(single.completion_logprob))
    if not _low(engine):
        # GPT-2's logits are near -35 or -100: those of ten to forty tokens add up to where float32 has steps of 1e-4.
        most = np.maximum(TOLERANCE_FLOAT32, [0.0, MOST_ROUNDINGS * sums * np.finfo(np.float32).eps])
        return most, most
    most = MOST_ROUNDINGS * np.array([first, sums]) * _step(engine)
    floor = first * torch.finfo(engine.forward.dtype).eps
    return np.minimum(np.maximum(LOW_PRECISION_FACTOR * np.array(plain), floor), most), most


def _limit(engine: Engine, noise: float) -> float:
    """Largest relative difference of activations that is allowed, where that of the plain path is `noise`."""
    if not _low(engine):
        return TOLERANCE_FLOAT32
    return max(LOW_PRECISION_FACTOR * noise, ACTIVATION_ROUNDINGS * _step(engine))


def _step(engine: Engine) -> float:
    """The rounding step of a number near one."""
    quantised = getattr(engine.forward.model.config, "quantization_config", None) is not None
    return max(torch.finfo(engine.forward.dtype).eps, EIGHT_BITS * quantised)


def _largest(values: np.ndarray | None) -> float:
    return 0.0 if values is None else float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0))


def _check_finite(engine: Engine, single: Scores) -> None:
    """Refuse logits that no path could make numbers of, before a unit is computed for nothing."""
    finite = np.isfinite(single.logits).all(axis=(0, 2)) & np.isfinite(single.logsumexp).all(axis=0)
    if finite.all():
        return
    how, remedy = "without steering", "are its weights damaged?"
    if finite[0]:
        how, remedy = "under the largest multipliers", "take smaller ones"
    if engine.forward.dtype == torch.float16:
        remedy = 'float16 ends at 65504; load it with dtype = "bfloat16" or "float32"'
    raise ModelError(f"{type(engine.forward.model).__name__} gives logits that are not finite, {how}: {remedy}")


def _own_difference(engine: Engine, examples: Sequence[Example], single: Scores, most: float) -> float:
    """Refuse a model whose own logits are not those that are read: all else is measured by the latter."""
    own = own_difference(engine, examples, single.logits)
    if own <= most:
        return own
    raise ModelError(
        f"{type(engine.forward.model).__name__}: logits that are read at chosen tokens differ by {own:.1e} nats from "
        f"those that the model gives by itself (allowed {most:.1e}); it cannot be measured by hooks"
    )


def _check_causal(engine: Engine, example: Example, most: float) -> None:
    """Refuse a model whose tokens see later ones: of an encoder's logits there, none predicts the next token."""
    ids = example.options[0]
    other = ids.copy()
    other[-1] = ids[-1] - 1 if ids[-1] else 1
    apart = np.abs(engine.forward.own_logits(ids) - engine.forward.own_logits(other))[:-1].max(initial=0.0)
    if apart > most:
        raise ModelError(
            f"{type(engine.forward.model).__name__} lets tokens see later ones, as an encoder does (logits before the "
            f"last token change with it, by {apart:.1e} nats): this is no causal language model"
        )


def _without_padding(
    engine: Engine, examples: Sequence[Example], request: Request, codes: np.ndarray, most: np.ndarray
) -> tuple[float, ...]:
    """Have the sequences of the plain path run in batches of one length if these hold, else one at a time, which are
    the passes that all else is measured by; how far they then are from those.

    Each of the request's examples is compared together with another one of its lengths, where there is one.
    """
    shapes = [(one.branch, *map(len, one.options)) for one in examples]
    wanted = {(one.branch, *map(len, one.options)) for one in request.examples}
    pairs = [[one for one, shape in zip(examples, shapes) if shape == want][:2] for want in sorted(wanted)]
    request = replace(request, examples=[one for pair in pairs for one in pair])
    engine.forward.lines = EQUAL
    found = _plain_difference(engine, request, one_by_one(engine, request, codes), codes)
    if np.less_equal(found[:2], most).all():
        return found
    engine.forward.lines = SINGLE
    return 0.0, 0.0, 0.0


def _refusal(apart: Sequence[float], allowed: Sequence[float], activation: float, limit: float) -> str:
    if not np.less_equal(apart, allowed).all():
        return "its logits differ"
    return "" if activation <= limit else f"its activations differ by {activation:.1e} of their norm"


def _said(apart: Sequence[float], allowed: Sequence[float]) -> tuple[float, float]:
    """Difference and tolerance for the record: of first tokens where these fail, else the larger ones of both kinds."""
    kinds = 2 if apart[0] <= allowed[0] else 1
    return float(np.max(apart[:kinds])), float(np.max(allowed[:kinds]))


def _low(engine: Engine) -> bool:
    return engine.forward.dtype not in (torch.float32, torch.float64)


def _layers(engine: Engine) -> tuple[int, ...]:
    return tuple(sorted({(engine.n_layers - 1) // 2, engine.n_layers - 1}))


def _choose(examples: Sequence[Example], n: int) -> list[int]:
    longest = int(np.argmax([max(map(len, example.options)) for example in examples]))
    # A completion's last token is scored and never run: of one token there is nothing to compare behind the branch.
    widest = int(np.argmax([sum(map(len, one.options)) - len(one.options) * one.branch for one in examples]))
    spread = np.linspace(0, len(examples) - 1, min(max(n - 1, 1), len(examples))).round().astype(int)
    return sorted({longest, widest, *spread.tolist()})


def _extreme_codes(steering: Steering | None) -> np.ndarray:
    """Codes of the smallest and largest multipliers of the first and last vector."""
    if steering is None:
        return np.zeros(0, dtype=np.int64)
    extremes = [int(np.argmin(steering.multipliers)), int(np.argmax(steering.multipliers))]
    codes = np.unique(steering.codes[[0, 0, -1, -1], extremes * 2])
    return codes[codes > 0]
