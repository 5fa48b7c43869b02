"""What a build would cost, before it is paid: units, forward tokens, bytes, and after a probe the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cache_builder.announcements import of_prompts_and_data
from cache_builder.blocks import answer_bytes, example_blocks
from cache_builder.engine import Engine, Example, Steering
from cache_builder.engine.plan import Wanted, demand_of, lay_out
from cache_builder.engine.stages import node_blocks, plan_stages
from cache_builder.models import load_tokenizer, quiet_libraries, resolve, why_not
from cache_builder.packing import Row
from cache_builder.plan import UnitPlan, defines_letter_or_word, fit_options, plan_units, planned_grid
from cache_builder.prompts.inputs import EVALUATED, TRAINING, Inputs, provable, scorable
from cache_builder.prompts.settings import Renderer
from cache_builder.session import unit_descriptions
from cache_builder.spec import BuildSpec
from cache_builder.unit.grid import WHOLE
from cache_builder.vectors import fit_vectors
from cache_builder.vectors.extractors import extractor_facts
from cache_builder.vectors.files import imported_vectors, load_vector_files
from steerstats.cache import BY_NAME
from steerstats.errors import ModelError, how_many

PROBE_EXAMPLES = 32


@dataclass(frozen=True, slots=True)
class UnitCost:
    """Forward tokens are trie nodes, each distinct (prefix, steering) once, or where a probe found that the model takes
    the plain path those of every sequence; bytes are those of the HDF5 arrays."""

    name: str
    pairs: int
    inputs: int
    training_tokens: int
    steering_tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DryRun:
    """The cost of a build, and what it would say of prompts and datasets; `tokens_per_second` is None without a probe,
    and `path` then what most models take."""

    units: tuple[UnitCost, ...]
    vectors: int
    tokens_per_second: float | None
    device: str
    path: str = "trie"
    notes: tuple[str, ...] = ()

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

        units = f"{how_many(len(self.units), 'unit')}, {self.vectors} vectors each"
        title = f"{units}; forward tokens for training and for steering"
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
            table.caption = "expected time: not measured (no probe); tokens are those of the trie path"
        else:
            table.caption = (
                f"expected time: {_duration(self.seconds)} at {self.tokens_per_second:,.0f} tokens/s on {self.device}, "
                f"{self.path} path"
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
    extractor_facts(spec.vectors.method)  # an unknown method is known before any model is
    files = load_vector_files(spec.vectors.files)
    descriptions = unit_descriptions(spec, units)
    opened = _open(spec, probe)
    renderer = Renderer.of_prompt(opened.tokenizer, spec.prompt)
    inputs = Inputs(spec, opened.model, opened.tokenizer, renderer, descriptions)

    costs, speed, n_vectors = [], None, 0
    for done, unit in enumerate(units):
        progress(done, len(units), f"counting {unit.name}")
        kinds, trained, layers = _vector_names(spec, unit, opened.n_layers)
        if files:
            kinds, trained = kinds + ("imported",) * len(files), trained + tuple(files)
            # refused as in a build
            own = imported_vectors(files, None, opened.hidden, opened.n_layers, layers.shape[1])
            layers = np.concatenate([layers, own.layers])
        n_vectors = max(n_vectors, len(kinds))
        planned = planned_grid(spec, kinds, trained, spec.settings)
        if speed is None and opened.engine is not None:  # before anything is counted: the path decides how
            speed = _measure(opened.engine, spec, inputs, unit, planned, layers)
        read = tuple({*spec.kept_layers(opened.n_layers), *np.unique(layers).tolist()})
        training = sum(
            _tokens(inputs.examples(unit, TRAINING, setting), None, opened, n_layers=len(read), scored=False)
            for setting in spec.training_settings()
        )
        steering = 0
        for row, setting in enumerate(spec.settings):
            chosen = np.flatnonzero(planned[row])
            if not len(chosen):
                continue
            examples, grid = inputs.examples(unit, EVALUATED, setting), _grid(spec, layers[chosen], opened.hidden)
            n_read = len(set(layers[chosen, 0].tolist()))
            steering += _tokens(examples, grid, opened, n_layers=n_read, completions=spec.score in WHOLE)
            if spec.vectors.read == "last_prompt":
                contrasts = inputs.evaluated_contrasts(unit, setting)
                steering += _tokens(contrasts, None, opened, n_layers=n_read, scored=False)
        size = _bytes(spec, unit, len(kinds), layers.shape[1], opened)
        tokens = round(training), round(steering)
        costs.append(UnitCost(unit.name, len(unit.training), len(unit.evaluated), *tokens, size))
    progress(len(units), len(units), "counted")
    notes = of_prompts_and_data(renderer, units, spec.controls.debiased)
    return DryRun(tuple(costs), n_vectors, speed, opened.device, opened.path, tuple(notes))


class _Opened(NamedTuple):
    """What of the model a count needs; `engine` and the weights only with a probe."""

    tokenizer: Any
    model: Any
    hidden: int
    n_layers: int
    engine: Engine | None
    device: str

    @property
    def path(self) -> str:
        """The engine's, once the probe has been."""
        return "plain" if self.engine is not None and self.engine.path == "plain" else "trie"


def _tokens(
    examples: Sequence[Example],
    grid: Steering | None,
    opened: _Opened,
    *,
    n_layers: int,
    completions: bool = False,
    scored: bool = True,
) -> float:
    """Forward tokens of the blocks in which a build runs these examples, were every block one row.

    A steered token of a trie counts for the share of the decoder's blocks that it goes through.
    """
    n_codes = grid.n_codes if grid else 1
    n_reads = max(len(example.reads) for example in examples)
    size = answer_bytes(n_codes, len(examples[0].options), n_reads, n_layers, opened.hidden, completions)
    birth = grid.first_layers if grid else np.array([-1])
    first = scored and all(len(ids) > example.branch for example in examples for ids in example.options)
    if opened.path == "plain":
        demand = demand_of(examples, grid, Wanted(first=first, completions=completions, reads=True), share=False)
        return float(demand.unsteered.sum() + (n_codes - 1) * demand.steered.sum())
    total = 0
    for block in example_blocks(examples, size, share=True):
        row = Row(np.arange(len(block)), np.arange(1, n_codes), True, 0)
        wanted = Wanted(first=first, completions=completions, reads=True)
        layout = lay_out([examples[i] for i in block], grid, row, wanted, as_trie=True, twins=True)
        total += node_blocks(plan_stages(layout, birth), opened.n_layers)[1]
    return total / opened.n_layers


def _open(spec: BuildSpec, probe: bool) -> _Opened:
    if probe:
        from cache_builder.session import load

        loaded = load(spec)
        engine = Engine(loaded.model, budget=spec.run.budget, flex=loaded.attention == "flex_attention")
        return _Opened(loaded.tokenizer, loaded.model, engine.hidden, engine.n_layers, engine, loaded.device)
    from transformers import AutoConfig

    quiet_libraries()
    try:
        common = {"revision": spec.model.revision, "trust_remote_code": spec.model.trust_remote_code}
        place = resolve(spec.model.id)
        config = AutoConfig.from_pretrained(place, **common).get_text_config()
        tokenizer = load_tokenizer(place, **common)
        return _Opened(tokenizer, None, config.hidden_size, config.num_hidden_layers, None, "")
    except (OSError, ValueError) as error:
        raise ModelError(f"model {spec.model.id!r} cannot be read: {why_not(error, place)}") from error


def _vector_names(spec: BuildSpec, unit: UnitPlan, n_layers: int) -> tuple[tuple, tuple, np.ndarray]:
    """Kinds, settings and layers of the vectors that a build would make, from the same code on two dimensions."""
    settings = spec.training_settings()
    noise = np.random.default_rng(0).normal(size=(len(settings), 1, 2, len(unit.training), 2))
    made = fit_vectors(noise, settings, (0,), **fit_options(spec, unit) | {"debiased": False})
    kinds, trained = made.kind, made.setting
    if spec.controls.debiased and defines_letter_or_word(unit):
        kinds, trained = kinds + ("debiased",) * len(spec.control_settings()), trained + spec.control_settings()
    sets = spec.steered_layers(n_layers)
    layers = np.concatenate([np.tile(np.array(one), (len(kinds), 1)) for one in sets])
    return kinds * len(sets), trained * len(sets), layers


def _grid(spec: BuildSpec, layers: np.ndarray, hidden: int) -> Steering:
    directions = np.full((*layers.shape, hidden), 1e-3, dtype=np.float32)
    return Steering(directions, layers, np.array(spec.multipliers), operator=spec.operator, scope=spec.scope)


def _measure(
    engine: Engine, spec: BuildSpec, inputs: Inputs, unit: UnitPlan, planned: np.ndarray, layers: np.ndarray
) -> float:
    """Tokens per second in the first setting that is steered, after a warm-up that also proves the path."""
    row = int(np.argmax(planned.any(axis=1)))
    pairs, whole = unit.evaluated[:PROBE_EXAMPLES], spec.score in WHOLE
    examples = inputs.of(unit, pairs, EVALUATED, spec.settings[row])
    grid = _grid(spec, layers[np.flatnonzero(planned[row])], engine.hidden)
    engine.prove(provable(examples), grid, completions=whole)
    examples = scorable(examples)
    engine.run(examples[:4], grid, completions=whole)
    begin = time.perf_counter()
    scores = engine.run(examples, grid, completions=whole)
    return scores.packed / (time.perf_counter() - begin)


def _bytes(spec: BuildSpec, unit: UnitPlan, vectors: int, slots: int, opened: _Opened) -> int:
    sizes = {
        "setting_eval": len(spec.settings),
        "setting_train": len(spec.training_settings()),
        "vector": vectors,
        "multiplier": len(spec.multipliers),
        "answer": len(unit.evaluated[0].completions),
        "input": len(unit.evaluated),
        "pair": len(unit.training),
        "layer": len(spec.kept_layers(opened.n_layers)),
        "slot": slots,
        "hidden": opened.hidden,
    }
    width = {"activation": int(spec.activation_dtype[-2:]) // 8}
    grid = ("propensity", "answer_logit", "logsumexp", "activation", "direction", "input_projection")
    total = sum(
        width.get(name, 4) * int(np.prod([sizes[axis] for axis in BY_NAME[name].dims]))
        for name in (*grid, "input_difference_cosine", "crossfit_projection", *filter(None, [WHOLE.get(spec.score)]))
    )
    return total + sum(len(pair.text.encode()) + 200 for pair in unit.evaluated) + 60 * len(unit.training)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
