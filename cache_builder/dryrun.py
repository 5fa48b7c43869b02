"""What a build would cost, before it is paid: units, forward tokens, bytes, and after a probe the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache_builder.encoding import encode_pairs
from cache_builder.engine import Engine, Example, Steering, count_nodes
from cache_builder.models import quiet_libraries, resolve
from cache_builder.plan import UnitPlan, pair_arrays, plan_units, planned_grid
from cache_builder.settings import Renderer, choose_descriptions, load_descriptions
from cache_builder.spec import BuildSpec
from cache_builder.vectors import fit_vectors
from steerstats.cache import BY_NAME
from steerstats.errors import ModelError

PROBE_EXAMPLES = 32


@dataclass(frozen=True, slots=True)
class UnitCost:
    """Forward tokens are trie nodes, each distinct (prefix, steering) once; bytes are those of the HDF5 arrays."""

    name: str
    pairs: int
    inputs: int
    training_tokens: int
    steering_tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DryRun:
    """The cost of a build; `tokens_per_second` is None without a probe."""

    units: tuple[UnitCost, ...]
    vectors: int
    tokens_per_second: float | None
    device: str

    @property
    def tokens(self) -> int:
        """All forward tokens."""
        return sum(unit.training_tokens + unit.steering_tokens for unit in self.units)

    @property
    def bytes(self) -> int:
        """Size of the finished cache."""
        return sum(unit.bytes for unit in self.units)

    @property
    def seconds(self) -> float | None:
        """Expected time at the probe's speed, loading and writing apart."""
        return None if self.tokens_per_second is None else self.tokens / self.tokens_per_second

    def render(self) -> Any:
        """A rich table."""
        from rich.table import Table

        title = f"{len(self.units)} units, {self.vectors} vectors each; forward tokens for training and for steering"
        table = Table(title=title, show_footer=True)
        table.add_column("unit", footer="total", overflow="fold")
        for name, values in (
            ("pairs", [unit.pairs for unit in self.units]),
            ("inputs", [unit.inputs for unit in self.units]),
            ("training", [unit.training_tokens for unit in self.units]),
            ("steering", [unit.steering_tokens for unit in self.units]),
            ("MB", [unit.bytes / 1e6 for unit in self.units]),
        ):
            form = "{:,.1f}" if name == "MB" else "{:,}"
            table.add_column(name, footer=form.format(sum(values)), justify="right")
        for unit in self.units:
            cells = [f"{unit.pairs:,}", f"{unit.inputs:,}", f"{unit.training_tokens:,}", f"{unit.steering_tokens:,}"]
            table.add_row(unit.name, *cells, f"{unit.bytes / 1e6:,.1f}")
        if self.seconds is None:
            table.caption = "expected time: not measured (no probe)"
        else:
            table.caption = (
                f"expected time: {_duration(self.seconds)} at {self.tokens_per_second:,.0f} tokens/s on {self.device}"
            )
        return table


def dry_run(spec: BuildSpec, *, probe: bool = True, progress: Callable[..., None] = lambda *_: None) -> DryRun:
    """Count what a build would compute and write; nothing is written here.

    Parameters
    ----------
    spec : BuildSpec
    probe : bool
        Load the weights and measure the speed on a sample of the first unit. Without it the tokenizer and the
        configuration are enough.
    progress : callable (done, total, what)

    Raises
    ------
    SpecError, InputError, ModelError
        As a build would.
    """
    units = plan_units(spec)
    tokenizer, hidden, n_layers, engine, device = _open(spec, probe)
    names = [unit.name for unit in units]
    descriptions = choose_descriptions(names, spec.settings, load_descriptions(spec.prompt.descriptions))
    renderer = Renderer.of_prompt(tokenizer, spec.prompt)

    def examples(unit: UnitPlan, pairs, setting: str) -> list[Example]:
        prompts = [renderer.render(setting, pair.text, descriptions.get(unit.name)) for pair in pairs]
        positives, negatives = [pair.positive for pair in pairs], [pair.negative for pair in pairs]
        encoded = encode_pairs(tokenizer, prompts, positives, negatives, spec.prompt.leading_space)
        return [Example.of_pair(pair) for pair in encoded]

    costs, speed, n_vectors = [], None, 0
    for done, unit in enumerate(units):
        progress(done, len(units), f"counting {unit.name}")
        kinds, trained, layers = _vector_names(spec, unit, n_layers)
        n_vectors = max(n_vectors, len(kinds))
        planned = planned_grid(spec, kinds, trained, spec.settings)
        training = sum(
            count_nodes(examples(unit, unit.training, setting), None) + 2 * len(unit.training)
            for setting in spec.training_settings()
        )
        steering = 0
        for row, setting in enumerate(spec.settings):
            chosen = np.flatnonzero(planned[row])
            if not len(chosen):
                continue
            inputs, grid = examples(unit, unit.evaluated, setting), _grid(spec, layers[chosen], hidden)
            # Unsteered answers are read as well: two more tokens an input, unless whole completions are run anyway.
            whole = spec.score != "logit_diff"
            steering += count_nodes(inputs, grid, completions=whole) + (0 if whole else 2 * len(inputs))
            if speed is None and engine is not None:
                speed = _measure(engine, inputs[:PROBE_EXAMPLES], grid)
        size = _bytes(spec, unit, len(kinds), layers.shape[1], hidden)
        costs.append(UnitCost(unit.name, len(unit.training), len(unit.evaluated), training, steering, size))
    progress(len(units), len(units), "counted")
    return DryRun(tuple(costs), n_vectors, speed, device)


def _open(spec: BuildSpec, probe: bool) -> tuple[Any, int, int, Engine | None, str]:
    if probe:
        from cache_builder.build import load

        loaded = load(spec)
        engine = Engine(loaded.model, budget=spec.run.budget, flex=loaded.attention == "flex_attention")
        return loaded.tokenizer, engine.hidden, engine.n_layers, engine, loaded.device
    from transformers import AutoConfig, AutoTokenizer

    quiet_libraries()
    try:
        common = {"revision": spec.model.revision, "trust_remote_code": spec.model.trust_remote_code}
        place = resolve(spec.model.id)
        config = AutoConfig.from_pretrained(place, **common).get_text_config()
        return AutoTokenizer.from_pretrained(place, **common), config.hidden_size, config.num_hidden_layers, None, ""
    except (OSError, ValueError) as error:
        raise ModelError(f"model {spec.model.id!r} cannot be read: {str(error).splitlines()[0]}") from error


def _vector_names(spec: BuildSpec, unit: UnitPlan, n_layers: int) -> tuple[tuple, tuple, np.ndarray]:
    """Kinds, settings and layers of the vectors that a build would make, from the same code on two dimensions."""
    pairs, settings = pair_arrays(unit.training, "pair", text=False), spec.training_settings()
    controls = spec.controls
    noise = np.random.default_rng(0).normal(size=(len(settings), 1, 2, len(unit.training), 2))
    made = fit_vectors(
        noise,
        settings,
        (0,),
        questions=pairs["pair_question"],
        pos_is_a=pairs["pair_pos_is_a"],
        pos_is_yes=pairs["pair_pos_is_yes"],
        mean=spec.vectors.mean,
        rescale=spec.vectors.rescale,
        resampled=controls.resampled,
        folds=controls.folds,
        random=controls.random,
        shuffled=controls.shuffled,
        debiased=False,
        control_settings=controls.settings or None,
    )
    kinds, trained = made.kind, made.setting
    if controls.debiased:
        kinds, trained = kinds + ("debiased",) * len(controls.settings), trained + controls.settings
    sets = spec.steered_layers(n_layers)
    layers = np.concatenate([np.tile(np.array(one), (len(kinds), 1)) for one in sets])
    return kinds * len(sets), trained * len(sets), layers


def _grid(spec: BuildSpec, layers: np.ndarray, hidden: int) -> Steering:
    directions = np.full((*layers.shape, hidden), 1e-3, dtype=np.float32)
    return Steering(directions, layers, np.array(spec.multipliers), operator=spec.operator, scope=spec.scope)


def _measure(engine: Engine, examples: list[Example], grid: Steering) -> float:
    """Tokens per second, after a warm-up that also proves the path."""
    engine.run(examples[:4], grid)
    begin = time.perf_counter()
    scores = engine.run(examples, grid)
    return scores.packed / (time.perf_counter() - begin)


def _bytes(spec: BuildSpec, unit: UnitPlan, vectors: int, slots: int, hidden: int) -> int:
    kept = len(spec.activation_layers) or len({layer for layers in spec.steered_layers() for layer in layers})
    sizes = {
        "setting_eval": len(spec.settings),
        "setting_train": len(spec.training_settings()),
        "vector": vectors,
        "multiplier": len(spec.multipliers),
        "answer": 2,
        "input": len(unit.evaluated),
        "pair": len(unit.training),
        "layer": kept,
        "slot": slots,
        "hidden": hidden,
    }
    width = {"activation": int(spec.activation_dtype[-2:]) // 8}
    grid = ("propensity", "answer_logit", "logsumexp", "activation", "direction", "input_projection")
    total = sum(
        width.get(name, 4) * int(np.prod([sizes[axis] for axis in BY_NAME[name].dims]))
        for name in (*grid, "input_difference_cosine", "crossfit_projection")
    )
    return total + sum(len(pair.text.encode()) + 200 for pair in unit.evaluated) + 60 * len(unit.training)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
