"""What the engine measures before a build: the best token budget, and the best way to mask trie rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from cache_builder.engine.flight import SMALLEST_BUDGET
from cache_builder.engine.parity import compare_paths
from cache_builder.engine.plan import Wanted, demand_of
from cache_builder.engine.requests import Example, Steering
from cache_builder.packing import PADDING, pack

if TYPE_CHECKING:
    from cache_builder.engine.runner import Engine

MASKS = ("blocked", "dense", "flex")
FLEX = "flex_attention"  # what transformers calls it
MARGIN = 1.05  # another mask has to be this much faster: what it compiles for a new row length is not in the sample
ROUNDS = 2  # interleaved, the better of which counts: a busy moment must not decide for a whole build
SAMPLE = {"cuda": 256}  # several rows, so that the host's work lies beside the device's, as in a build
SHIFT = 3  # of each round's sample: rows of other lengths, since some kernels are prepared anew for each


def measure_budgets(
    engine: Engine,
    examples: Sequence[Example],
    steering: Steering | None,
    budgets: Sequence[int],
    completions: bool,
    n: int | None,
) -> dict[int, float]:
    """Examples per second by token budget, the best of which the engine keeps; see `Engine.tune`.

    What a token costs is measured on the sample. How many there are is counted for all examples: longer rows begin
    with a shared prefix less often, which a sample of a row or two hardly shows.
    """
    cuda = engine.forward.device.type == "cuda"
    budgets = budgets or ((2048, 4096, 8192, 16384) if cuda else (1024, 2048, 4096))
    samples = _samples(engine, examples, n)
    engine.run(samples[0][:2], steering, completions=completions)
    if engine.ceiling is not None and min(budgets) > engine.ceiling:
        budgets = (max(min(engine.budget, engine.ceiling), SMALLEST_BUDGET),)
    speed: dict[int, float] = {}
    for sample in samples[1:]:
        for budget in budgets:
            if engine.ceiling is not None and budget > max(engine.ceiling, SMALLEST_BUDGET):
                continue
            engine.budget = budget
            try:
                speed[budget] = max(speed.get(budget, 0.0), _speed(engine, sample, steering, completions))
            except Exception:
                # Some models have no rows of this length: the proof on a row of the budget that is kept decides.
                if engine.path != "trie":
                    raise
                speed[budget] = 0.0
    sampled, whole = (_tokens(engine, some, steering, completions, list(speed)) for some in (samples[0], examples))
    speed = {budget: found * sampled[budget] / whole[budget] for budget, found in speed.items()}
    engine.budget = max(min(max(speed, key=speed.get), engine.ceiling or max(speed)), SMALLEST_BUDGET)
    return speed


def measure_masks(
    engine: Engine,
    examples: Sequence[Example],
    steering: Steering | None,
    masks: Sequence[str],
    proved: Sequence[Example],
    completions: bool,
    n: int | None,
) -> dict[str, float | str]:
    """Examples per second by mask, the best of which the engine keeps; see `Engine.choose_mask`."""
    own, settled = engine.mask, (engine.budget, engine.ceiling)
    samples, parities = _samples(engine, examples, n), {own: engine.parity}
    found: dict[str, float | str] = {}
    running: list[str] = []
    for mask in masks:
        try:
            engine.use_mask(mask)
            if mask != own:
                parities[mask] = compare_paths(engine, proved, steering, completions=completions)
                if not parities[mask].passed:
                    found[mask] = f"fails the proof: {parities[mask].reason}"
                    continue
            scores = engine.run(samples[0], steering, completions=completions)  # compiles what has to be compiled
            padding = scores.computed / scores.packed - 1
            if mask == own or ((engine.budget, engine.ceiling) == settled and padding <= PADDING):
                running.append(mask)
            elif padding > PADDING:
                found[mask] = f"pads rows of {settled[0]} tokens by {padding:.1%}"
            else:
                found[mask] = f"does not fit in memory with {settled[0]} tokens a row"
        except Exception as error:
            found[mask] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        finally:
            if mask != own:
                engine.budget, engine.ceiling = settled
    for sample, mask in itertools.product(samples[1:], running):
        engine.use_mask(mask)
        found[mask] = max(found.get(mask, 0.0), _speed(engine, sample, steering, completions))
    best = max(running, key=lambda mask: found[mask] * (MARGIN if mask == own else 1.0), default=own)
    engine.use_mask(best)
    engine.parity = parities[best]
    if best != own:
        engine.note_rows()
    return found


def _tokens(
    engine: Engine, examples: Sequence[Example], steering: Steering | None, completions: bool, budgets: Sequence[int]
) -> dict[int, float]:
    """Tokens per example of the rows that examples would be packed into, by budget."""
    share = engine.path == "trie"
    codes = np.arange(1, steering.n_codes if steering else 1)
    demand = demand_of(examples, steering, Wanted(completions=completions), share=share)
    rows = {budget: pack(demand, codes, budget, ceiling=engine.ceiling, share=share) for budget in budgets}
    return {budget: sum(row.size for row in some) / len(examples) for budget, some in rows.items()}


def _speed(engine: Engine, sample: Sequence[Example], steering: Steering | None, completions: bool) -> float:
    begin = perf_counter()
    engine.run(sample, steering, completions=completions)
    return len(sample) / (perf_counter() - begin)


def _samples(engine: Engine, examples: Sequence[Example], n: int | None) -> list[Sequence[Example]]:
    """A sample to warm up with and one for each round, alike but not the same: neighbours from the middle, since they
    share prefixes and every k-th would not."""
    n = n or SAMPLE.get(engine.forward.device.type, 48)
    room = SHIFT * ROUNDS
    n = min(n, len(examples) - room if len(examples) >= 4 * room else len(examples))
    shift = min(SHIFT, (len(examples) - n) // ROUNDS)
    first = (len(examples) - n - ROUNDS * shift) // 2
    starts = [first + k * shift for k in range(ROUNDS + 1)]
    return [examples[start : start + n] for start in starts]
