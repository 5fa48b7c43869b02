"""The engine against what people use today, on real prompts: a random Llama of 8 layers x 512, float32, one thread.

The grid is the paper's: five prompt settings with the paper's descriptions, six vectors, seven multipliers, on enough
inputs of each setting that they share their beginnings nearly as the paper's hundreds do (distinct tokens per token of
a prompt differ by at most 8%, and more inputs would share more). Two yardsticks. The example-at-a-time protocol
through the published `steering-vectors` package: one forward pass per input, setting, vector, multiplier and answer;
it runs on the input of each setting whose length is nearest the mean. And ONE batched unsteered pass over the same
prompts (sorted by length, last-token logits only, the best of several batch sizes): what it costs to run the model at
all. Everything is timed in turn within each round, and the least of the rounds is taken; the spread over rounds stands
beside it.

    python -m benchmarks.bench_engine [--inputs 24] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
from pathlib import Path
from time import process_time

import numpy as np
import torch
import transformers

from benchmarks.load import BUSY, busy_cores
from benchmarks.prompts import data_dir, real_examples
from cache_builder.datasets import load_dataset, paper_datasets
from cache_builder.datasets.catalogue import find_source
from cache_builder.engine import Engine, Steering, count_nodes
from cache_builder.prompts.settings import SETTINGS

# One of each family, with which the paper's forty datasets are weighted.
DATASETS = ("narcissism", "power-seeking-inclination", "sycophancy_test", "truthfulqa")
MULTIPLIERS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
BATCH_SIZES, BUDGETS = (2, 4, 8), (1024, 2048, 4096)
LAYERS, HIDDEN, VOCABULARY = 8, 512, 2048
AGREEMENT = 1e-4
RESULTS = Path(__file__).parent / "results" / "engine.json"


def main(arguments: list[str] | None = None) -> int:
    """Run, print a table, write `results/engine.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=24, help="inputs per dataset and setting")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the least time counts")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if data_dir() is None:
        print("no source data: set STEERSTATS_TEST_DATA to the folder that shared/data is", file=sys.stderr)
        return 0
    torch.set_num_threads(1)
    load = busy_cores()
    model = random_llama()
    rows, extras = [], []
    for name, examples in real_examples(DATASETS, options.inputs, SETTINGS, VOCABULARY).items():
        rows += measure_dataset(name, model, examples, options.rounds, options.inputs)
        for row in rows[-2:]:
            print_row(row)
        extras.append({"dataset": name, **measure_extras(model, examples[: options.inputs], options.rounds)})
        # Controls belong to one shift by default: what is added to the grid of all five settings.
        seconds = {key: min(values) for key, values in extras[-1]["seconds"].items()}
        whole = next(row for row in rows if (row["dataset"], row["scope"]) == (name, "last_prompt"))
        added = (seconds["controls"] - seconds["grid"]) / min(whole["seconds"]["grid"])
        extras[-1]["controls_over_papers_grid"] = 1 + added
        print_extras(extras[-1])
    record = {
        "rows": rows,
        "forty_datasets": {scope: forty_datasets(rows, scope) for scope in dict.fromkeys(r["scope"] for r in rows)},
        "extras": extras,
        "model": f"random Llama, {LAYERS} layers x {HIDDEN}, vocabulary {VOCABULARY}, float32, one CPU thread",
        "rounds": options.rounds,
        "inputs": options.inputs,
        "busy_cores_at_start": load,
        "busy_cores_at_end": (after := busy_cores()),
        "loaded_machine": bool(max(load, after) > BUSY),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    for scope, times in record["forty_datasets"].items():
        print(f"the forty datasets by family, {scope}: {times:.0f}x one at a time")
    worst = max([row["largest_difference"] for row in rows] + [extra["sweep_largest_difference"] for extra in extras])
    if not worst < AGREEMENT:
        print(f"FAILED: values differ by {worst:.1e} nats; the protocols have to agree to {AGREEMENT}", file=sys.stderr)
        return 1
    if record["loaded_machine"]:
        print(
            f"NOTE: {max(load, after):.1f} cores were busy with other work when this started or ended; ratios are "
            "interleaved, times are not"
        )
    return 0


def forty_datasets(rows, scope: str) -> float:
    """How many times faster the grid over the paper's forty datasets is: each costs, per input, what the measured
    one of its family costs, and has as many inputs as its file has pairs."""
    single, ours = 0.0, 0.0
    cost = {
        find_source(row["dataset"]).family: (row["one_at_a_time_s_per_input"], row["grid_s_per_input"])
        for row in rows
        if row["scope"] == scope
    }
    for name in paper_datasets():
        family = find_source(name).family
        pairs = len(load_dataset(name, data_dir=data_dir()).pairs)
        single += pairs * cost[family][0]
        ours += pairs * cost[family][1]
    return single / ours


def random_llama() -> transformers.PreTrainedModel:
    """The benchmark's model."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=1376,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=4096,
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def measure_dataset(name: str, model, examples, rounds: int, per_setting: int) -> list[dict[str, object]]:
    """One row per token scope."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(6, 1, HIDDEN)) * 0.3
    grids = {
        scope: Steering(directions, np.full((6, 1), 3), MULTIPLIERS, scope=scope)
        for scope in ("last_prompt", "first_answer")
    }
    engines = {}
    for scope, steering in grids.items():
        engines[scope] = Engine(model)
        engines[scope].prove(examples, steering)
        engines[scope].tune(examples, steering, budgets=BUDGETS, n=32)
    typical = [
        start + nearest_to_mean(examples[start : start + per_setting]) for start in range(0, len(examples), per_setting)
    ]
    times = {key: [] for key in [*grids, *BATCH_SIZES]}
    single = {scope: [[] for _ in typical] for scope in grids}
    scores, apart = {}, dict.fromkeys(grids, 0.0)
    for number in range(rounds):
        for scope, steering in grids.items():
            begin = process_time()
            scores[scope] = run_settings(engines[scope], examples, steering, per_setting)
            times[scope].append(process_time() - begin)
        # The first round finds the best batch size of the unsteered pass.
        best = min(BATCH_SIZES, key=lambda size: min(times[size], default=0.0))
        for size in (best,) if number else BATCH_SIZES:
            begin = process_time()
            unsteered_pass(model, examples, size)
            times[size].append(process_time() - begin)
        # Some settings each round, in the middle of the rest; the first one every round, for the spread.
        settings = sorted({0, *range(number, len(typical), rounds)})
        for scope, steering in grids.items():
            for setting in settings:
                chosen = typical[setting]
                seconds, difference = one_at_a_time(
                    model, examples[chosen], steering, scores[scope][setting].propensity()[chosen % per_setting]
                )
                single[scope][setting].append(seconds)
                apart[scope] = max(apart[scope], difference)
    tokens = sum(example.branch for example in examples)
    best = max(BATCH_SIZES, key=lambda size: (len(times[size]), -min(times[size])))
    rows = []
    for scope, steering in grids.items():
        steered, plain = np.array(times[scope]), np.array(times[best])
        computed = sum(one.computed for one in scores[scope])
        packed = sum(one.packed for one in scores[scope])
        by_setting = [examples[i : i + per_setting] for i in range(0, len(examples), per_setting)]
        nodes = sum(count_nodes(part, steering, n_blocks=LAYERS) for part in by_setting)
        per_input = steered.min() / len(examples)
        one = float(np.mean([min(seconds) for seconds in single[scope]]))
        rows.append(
            {
                "dataset": name,
                "scope": scope,
                "settings": len(typical),
                "tokens_per_prompt": tokens / len(examples),
                "speedup_over_one_at_a_time": one / per_input,
                "one_at_a_time_s_per_input": one,
                "spread": max(spread(some) for some in (steered, plain, single[scope][0])),
                "grid_s_per_input": per_input,
                "largest_difference": apart[scope],
                "grid_over_unsteered_pass": steered.min() / plain.min(),
                "grid_over_unsteered_pass_by_round": (steered / plain).tolist(),
                "node_over_token": steered.min() / computed / (plain.min() / tokens),
                "nodes_per_prompt_token": nodes / tokens,
                "computed_over_distinct": computed / nodes,
                "padding": 1 - packed / computed,
                "triples_per_second": len(examples) * 6 * 7 / steered.min(),
                "budget": engines[scope].budget,
                "unsteered_batch_size": best,
                "parity": engines[scope].parity.difference,
                "seconds": {
                    "grid": steered.tolist(),
                    "unsteered": plain.tolist(),
                    "one_at_a_time_per_input": single[scope],
                },
            }
        )
    return rows


def spread(seconds) -> float:
    """By how much the slowest round was slower than the fastest."""
    return float(max(seconds) / min(seconds) - 1)


def run_settings(engine: Engine, examples, steering: Steering, per_setting: int) -> list:
    """The grid, setting by setting, as a build runs it."""
    return [engine.run(examples[i : i + per_setting], steering) for i in range(0, len(examples), per_setting)]


def nearest_to_mean(examples) -> int:
    """The example whose prompt length is nearest the mean."""
    lengths = np.array([example.branch for example in examples])
    return int(np.abs(lengths - lengths.mean()).argmin())


def measure_extras(model, examples, rounds: int) -> dict[str, object]:
    """In the base setting: what 20 resampled and 20 random vectors add to the grid, and sweeps of all layers (of one
    vector a layer as `steerstats sweep` makes them, and of the whole six-vector grid) against one at a time."""
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(6 * LAYERS, 1, HIDDEN)) * 0.3
    steerings = {
        "grid": Steering(directions[:6], np.full((6, 1), 3), MULTIPLIERS),
        "controls": Steering(directions[:46], np.full((46, 1), 3), MULTIPLIERS),
        "sweep": Steering(directions[:LAYERS], np.arange(LAYERS)[:, None], MULTIPLIERS),
        "sweep_of_six": Steering(directions, np.repeat(np.arange(LAYERS), 6)[:, None], MULTIPLIERS),
    }
    engines = {}
    for name, steering in steerings.items():
        engines[name] = Engine(model)
        engines[name].prove(examples, steering)
        engines[name].tune(examples, steering, budgets=BUDGETS, n=16)
    times: dict[str, list[float]] = {name: [] for name in steerings}
    for _ in range(rounds):
        for name, steering in steerings.items():
            begin = process_time()
            engines[name].run(examples, steering)
            times[name].append(process_time() - begin)
    # The six vectors of a layer cost one at a time what six times one vector costs: passes are counted, not all run.
    # One vector of each layer's six is run and compared.
    members = Steering(directions[::6], np.arange(LAYERS)[:, None], MULTIPLIERS)
    typical, seconds, apart = nearest_to_mean(examples), {}, 0.0
    for name, alone, codes in (
        ("sweep", steerings["sweep"], steerings["sweep"].codes),
        ("sweep_of_six", members, steerings["sweep_of_six"].codes[::6]),
    ):
        propensity = engines[name].run(examples, steerings[name]).propensity()[typical]
        own = np.zeros(alone.n_codes)
        own[alone.codes] = propensity[codes]
        seconds[name], difference = one_at_a_time(model, examples[typical], alone, own)
        apart = max(apart, difference)
    least = {name: min(values) for name, values in times.items()}
    passes = {name: 2 * (len(steerings[name].directions) * 6 + 1) for name in ("sweep", "sweep_of_six")}
    tokens = sum(len(ids) for example in examples for ids in example.options)
    shared = {
        name: tokens * passes[name] / 2 / count_nodes(examples, steerings[name], n_blocks=LAYERS) for name in passes
    }
    return {
        "controls_over_grid": least["controls"] / least["grid"],
        **{
            f"{name}_speedup": value * passes[name] / passes["sweep"] / (least[name] / len(examples))
            for name, value in seconds.items()
        },
        # What is saved by computing nothing twice, were every token as fast as in one long sequence by itself.
        "sweep_tokens_over_distinct": shared["sweep"],
        "sweep_of_six_tokens_over_distinct": shared["sweep_of_six"],
        "sweep_layers": LAYERS,
        "sweep_largest_difference": apart,
        "spread": max(map(spread, times.values())),
        "seconds": times,
    }


@torch.inference_mode()
def unsteered_pass(model, examples, size: int) -> None:
    """One plain pass over all prompts: sorted by length, right-padded, logits of each last token only."""
    ordered = sorted((example.options[0][: example.branch] for example in examples), key=len)
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        lengths = np.array([len(tokens) for tokens in batch])
        ids = np.zeros((len(batch), lengths.max()), dtype=np.int64)
        for line, tokens in enumerate(batch):
            ids[line, : len(tokens)] = tokens
        # Right padding is invisible to causal attention, so the model takes its fastest path, without a mask.
        hidden = model.model(input_ids=torch.from_numpy(ids).to(model.device), use_cache=False)[0]
        last = hidden[torch.arange(len(batch)), torch.from_numpy(lengths - 1).to(model.device)]
        torch.logsumexp(model.lm_head(last), -1)


@torch.inference_mode()
def one_at_a_time(model, example, steering: Steering, propensity: np.ndarray) -> tuple[float, float]:
    """Seconds that the usual protocol takes for one input, and the largest difference of its propensities from
    ours, (n_codes,)."""
    from steering_vectors import SteeringVector

    begin, apart = process_time(), 0.0
    start, _ = steering.steered_span(example)
    for v, vector in enumerate(steering.directions):
        object_ = SteeringVector({int(steering.layers[v, 0]): torch.from_numpy(vector[0])})
        for j, multiplier in enumerate(steering.multipliers):
            if multiplier == 0 and v:
                continue
            answers = []
            with object_.apply(model, multiplier=float(multiplier), min_token_index=start):
                for ids in example.options:
                    logits = model(input_ids=torch.from_numpy(ids[None]), use_cache=False).logits
                    answers.append(float(logits[0, example.branch - 1, ids[example.branch]]))
            apart = max(apart, abs(answers[0] - answers[1] - float(propensity[steering.codes[v, j]])))
    return process_time() - begin, apart


def print_row(row: dict[str, object]) -> None:
    """One line for people."""
    print(
        f"{row['dataset']:28s} {row['scope']:13s} {row['speedup_over_one_at_a_time']:6.0f}x one at a time   "
        f"{row['grid_over_unsteered_pass']:.2f} unsteered passes   node/token {row['node_over_token']:.2f}   "
        f"computed/distinct {row['computed_over_distinct']:.2f}   budget {row['budget']}   "
        f"difference {row['largest_difference']:.1e}",
        flush=True,
    )


def print_extras(extra: dict[str, object]) -> None:
    """The other two figures, in one line."""
    print(
        f"{extra['dataset']:28s} 40 more control vectors cost {extra['controls_over_grid']:.2f} grids   "
        f"sweep of {extra['sweep_layers']} layers {extra['sweep_speedup']:.0f}x one at a time, of the six-vector grid "
        f"{extra['sweep_of_six_speedup']:.0f}x   "
        f"difference {extra['sweep_largest_difference']:.1e}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
