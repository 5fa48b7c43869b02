"""The paper's grid on one GPU: a random 7B-shaped Llama in bfloat16, real prompts, the `tan2024` preset.

Every dataset is measured in some of the five settings (in rotation), on a run of inputs that fills several rows, as
in a build, and the whole grid is extrapolated from that: test inputs in five settings under six vectors and seven
multipliers, read where a build reads them, and the training activations. Five datasets, each in another setting, are
asked for as the five settings of a unit are, without a pause between them. Each round takes a slightly different run,
so that its rows have lengths of their own: whatever a kernel prepares for a new length is in the time. How trie rows
are best masked is measured too: in blocks, densely, and by FlexAttention. The unsteered pass, the yardstick, is
measured on a part of the same prompts, per token, with norms and rotary positions in as few kernels as the grid's.
Nothing is fetched. Without CUDA it says so and does nothing.

    python -m benchmarks.bench_gpu [--inputs 256] [--settings 1]

The prompts are those of shared/data; elsewhere STEERSTATS_TEST_DATA names the folder.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import transformers

from benchmarks.bench_engine import MULTIPLIERS, unsteered_pass
from benchmarks.prompts import data_dir, real_examples
from cache_builder.datasets import load_dataset, paper_datasets
from cache_builder.engine import Engine, Request, Scores, Steering, count_nodes
from cache_builder.engine.tuning import MASKS
from cache_builder.prompts.settings import SETTINGS

PEAK = 989e12
SHAPE = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
VOCABULARY, TOKENIZER, LAYER = 32000, 8000, 13
BATCH_SIZES = (16, 32, 64, 128)
SHIFT = 5  # inputs by which a round's run is moved
SKIPPED = (".q_proj.", ".o_proj.")
YARDSTICK = 32  # inputs of each dataset in the unsteered pass
RESULTS = Path(__file__).parent / "results" / "gpu.json"


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write `results/gpu.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=256, help="inputs per dataset and measured setting")
    parser.add_argument("--settings", type=int, default=1, help="measured settings per dataset, of five")
    parser.add_argument("--datasets", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on any device: does the program work?")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available() and not options.tiny:
        print("no CUDA device here: nothing was measured, and the GPU figures stay unverified")
        return 0
    if data_dir() is None:
        print("no source data: set STEERSTATS_TEST_DATA to the folder that shared/data is; nothing was measured")
        return 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = random_llama(TINY if options.tiny else SHAPE, device)
    begin = perf_counter()
    samples, sizes = stratified(options.datasets, options.inputs, options.settings)
    prepared = (perf_counter() - begin) / sum(map(len, samples.values()))
    record = {
        "host_seconds_per_input_to_render_and_encode": prepared,
        "targets": {"model_flop_utilisation": 0.45, "hours_for_the_papers_grid": 0.25},
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "shape": "tiny" if options.tiny else "7B",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_suffix(".partial.json")
    for part in measure(model, samples, sizes, options):  # minutes of a rare device: what fails late loses no more
        record |= part
        partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(options.out)
    for key, value in record.items():
        if not isinstance(value, (list, dict)):
            print(f"{key:44s} {value:.4g}" if isinstance(value, float) else f"{key:44s} {value}")
    return 0


def random_llama(shape: dict[str, int], device: str) -> transformers.PreTrainedModel:
    """Random weights, made on the device itself; buffers (rotary frequencies) stay in float32, as when loaded."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
        num_key_value_heads=shape["num_attention_heads"],
        attn_implementation="sdpa",
        **shape,
    )
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.eval()


def stratified(n_datasets: int, n_inputs: int, n_settings: int):
    """Examples by (dataset, setting), and the number of pairs of each dataset."""
    names = paper_datasets()[:n_datasets]
    samples, sizes = {}, {}
    for number, name in enumerate(names):
        sizes[name] = len(load_dataset(name, data_dir=data_dir()).pairs)
        for step in range(n_settings):
            samples[name, SETTINGS[(number + 2 * step) % 5]] = None
    by_setting = {
        setting: real_examples([n for n, s in samples if s == setting], n_inputs, (setting,), TOKENIZER)
        for setting in SETTINGS
        if any(s == setting for _, s in samples)
    }
    # A build reads each input where its answer is predicted and at both answers.
    examples = {
        (name, setting): [
            replace(one, reads=((0, one.branch - 1, one.branch), *one.reads)) for one in by_setting[setting][name]
        ]
        for name, setting in samples
    }
    return examples, sizes


def measure(model, samples, sizes, options) -> Iterator[dict[str, object]]:
    """All figures of one model: the grid's, then part by part what is measured beside it."""
    engine = Engine(model)
    rng = np.random.default_rng(0)
    layer = min(LAYER, engine.n_layers - 1)
    directions = rng.normal(size=(6, 1, engine.hidden)) * 0.05
    steering = Steering(directions, np.full((6, 1), layer), MULTIPLIERS)
    first = next(iter(samples.values()))
    parity = engine.prove(first, steering)
    budgets = engine.tune(first, steering)
    # As a build does it on one CUDA device; compiled FlexAttention has no kernel for other devices.
    masks = engine.choose_mask(first, steering, MASKS if torch.cuda.is_available() else ("blocked", "dense"))
    chosen = engine.mask
    yardstick = [example for examples in samples.values() for example in examples[:YARDSTICK]]
    plain, rounds = {size: [] for size in BATCH_SIZES}, []
    for number in range(options.rounds):
        runs = {key: window(examples, number, options.rounds) for key, examples in samples.items()}
        rounds.append(one_round(engine, runs, steering, layer))
        engine.use_mask("blocked")  # the yardstick is the model as it is loaded
        # The first round finds the best size; the others would only cost minutes of the device.
        for size in [min(plain, key=lambda size: min(plain[size]))] if number else BATCH_SIZES:
            with engine.forward.fewer_kernels():  # so that the ratio is that of the trie, not of the kernels
                plain[size].append(timed(lambda size=size: unsteered_pass(model, yardstick, size))[1])
        engine.use_mask(chosen)
    batch = min(BATCH_SIZES, key=lambda size: min(plain[size]))
    token = min(plain[batch]) / sum(example.branch for example in yardstick)
    best = min(rounds, key=lambda one: one.seconds)
    work = flops(model, best.computed, best.inputs * steering.n_codes)
    yield {
        "path": engine.path,
        "mask": engine.mask,
        "examples_per_second_by_mask": masks,
        "budget": engine.budget,
        "examples_per_second_by_budget": {str(k): v for k, v in budgets.items()},
        "parity_difference": parity.difference,
        "parity_tolerance": float(parity.tolerance),
        "plain_batched_vs_single": parity.plain_difference,
        "inputs": best.inputs,
        "triples_per_second": best.inputs * 42 / best.seconds,
        "nodes_per_second": best.computed / best.seconds,
        "model_flop_utilisation": work / best.seconds / PEAK,
        "hours_for_the_papers_grid": hours(rounds, sizes),
        "grid_over_unsteered_pass": best.seconds / (token * best.tokens),
        "node_over_token": best.seconds / best.computed / token,
        "computed_over_distinct": best.computed / best.distinct,
        "unsteered_batch_size": batch,
        "spread_between_rounds": max(one.seconds for one in rounds) / best.seconds - 1,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan"),
        "joined_branches": engine.join,
    }
    yield {"speedup_by_norms_in_two_kernels": one_alone(engine, "norms", first, steering)}
    yield {"speedup_by_rope_in_place": one_alone(engine, "ropes", first, steering)}
    unit = list(samples.values())[: len(SETTINGS)]
    yield {"speedup_by_no_pause_between_settings": pauses(engine, unit, steering, layer)}
    # Last: it leaves the model in float32.
    some = [one for examples in samples.values() for one in examples[:2]][:64]
    yield bfloat16_error(model, engine, some, steering)


@dataclass(frozen=True)
class Round:
    """One pass over all samples: seconds per input by (dataset, setting) for grid and training, and totals."""

    grid: dict[tuple[str, str], float]
    training: dict[tuple[str, str], float]
    seconds: float
    computed: float
    distinct: float
    inputs: int
    tokens: int


def one_round(engine: Engine, runs, steering: Steering, layer: int) -> Round:
    """The grid and the training activations of every run; five at a time, as the settings of a unit in a build."""
    grid, training, computed, distinct = {}, {}, 0.0, 0.0
    keys = list(runs)
    for unit in (keys[start : start + len(SETTINGS)] for start in range(0, len(keys), len(SETTINGS))):
        for key, (scores, seconds) in zip(unit, streamed(engine, [runs[key] for key in unit], steering, layer)):
            grid[key] = seconds
            computed += scores.computed
            distinct += count_nodes(runs[key], steering, n_blocks=engine.n_layers)
        for key, (_, seconds) in zip(unit, streamed(engine, [runs[key] for key in unit], None, layer)):
            training[key] = seconds / len(runs[key])
    return Round(
        grid={key: seconds / len(runs[key]) for key, seconds in grid.items()},
        training=training,
        seconds=sum(grid.values()),
        computed=computed,
        distinct=distinct,
        inputs=sum(map(len, runs.values())),
        tokens=sum(example.branch for run in runs.values() for example in run),
    )


def streamed(engine: Engine, runs, steering: Steering | None, layer: int) -> list[tuple[Scores, float]]:
    """Scores of each run, and the time from when those of the run before were there; the device is idle before."""
    synchronise()
    done, begin = [], perf_counter()
    for scores in engine.stream(Request(run, steering, False, (layer,), steering is not None) for run in runs):
        begin, before = perf_counter(), begin
        done.append((scores, begin - before))
    return done


def flops(model, computed: float, scored: int) -> float:
    """Multiplications and additions of the matrix products alone; attention's own are left out, as is usual.

    The last block's feed-forward part, queries and output projection run only where something is scored.
    """
    names = dict(model.named_parameters())
    body = sum(p.numel() for name, p in names.items() if "embed" not in name and "lm_head" not in name)
    last = f"layers.{model.config.num_hidden_layers - 1}."
    tail = sum(
        p.numel() for name, p in names.items() if last in name and any(part in name for part in (".mlp.", *SKIPPED))
    )
    return 2 * (body - tail) * computed + 2 * tail * scored + 2 * model.config.hidden_size * VOCABULARY * scored


def hours(rounds: list[Round], sizes: dict[str, int]) -> float:
    """Expected time of the whole grid: 50% of the pairs of every dataset evaluated and 40% trained on, in all five
    settings, at the seconds per input measured for that dataset; scaled up where fewer than forty were measured."""
    seconds = 0.0
    for name, size in sizes.items():
        keys = [key for key in rounds[0].grid if key[0] == name]
        per_input = np.mean([min(one.grid[key] for one in rounds) for key in keys])
        per_pair = np.mean([min(one.training[key] for one in rounds) for key in keys])
        seconds += 5 * size * (0.5 * per_input + 0.4 * per_pair)
    return seconds / 3600 * len(paper_datasets()) / len(sizes)


def one_alone(engine: Engine, what: str, examples, steering: Steering, rounds: int = 3) -> float:
    """How many times faster a grid is than with the model's own norms, or rotary positions ("ropes"), least of a few
    runs in turn (the first to meet a run's row lengths is each of them in its turn)."""
    ours, times = getattr(engine.forward, what), {True: [], False: []}
    for number in range(rounds):
        for own in (False, True) if number % 2 else (True, False):
            setattr(engine.forward, what, [] if own else ours)
            run = window(examples, number, rounds)
            times[own].append(timed(lambda run=run: engine.run(run, steering))[1])
    setattr(engine.forward, what, ours)
    return min(times[True]) / min(times[False])


def pauses(engine: Engine, samples, steering: Steering, layer: int, rounds: int = 2) -> float:
    """How many times faster the settings of a unit are in one stream than asked for one by one, in turn as above."""
    times = {True: [], False: []}
    for number in range(rounds):
        runs = [window(examples, number, rounds) for examples in samples]
        for whole in (True, False) if number % 2 else (False, True):
            parts = [runs] if whole else [[run] for run in runs]
            times[whole].append(
                sum(seconds for some in parts for _, seconds in streamed(engine, some, steering, layer))
            )
    return min(times[False]) / min(times[True])


def window(examples, number: int, rounds: int):
    """The run of one round: as long as every other, a little further on."""
    shift = SHIFT if len(examples) > 2 * SHIFT * rounds else 0
    return examples[number * shift : len(examples) - (rounds - 1 - number) * shift]


def bfloat16_error(model, engine: Engine, examples, steering: Steering) -> dict[str, float]:
    """Propensities in bfloat16 against the same weights in float32 (the model is left in float32)."""
    low = engine.run(examples, steering).propensity()
    engine.use_mask("blocked")
    high = Engine(model.float(), path="trie", budget=engine.budget).run(examples, steering).propensity()
    apart = np.abs(low - high)
    return {"bfloat16_largest_difference": float(apart.max()), "bfloat16_median_difference": float(np.median(apart))}


def timed(call):
    """Result and wall seconds, with the device idle before and after."""
    synchronise()
    begin = perf_counter()
    result = call()
    synchronise()
    return result, perf_counter() - begin


def synchronise() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
