"""One unit from beginning to end: training activations, vectors, the steered grid, summaries, arrays.

UnitBuilder(spec, loaded, engine, renderer, descriptions).build(plan)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cache_builder.datasets import ContrastPair
from cache_builder.encoding import EncodedPair, encode_pairs
from cache_builder.engine import Engine, Example, Scores, Steering
from cache_builder.models import LoadedModel
from cache_builder.plan import UnitPlan, pair_arrays, planned_grid
from cache_builder.settings import Description, Renderer
from cache_builder.spec import BuildSpec
from cache_builder.summaries import crossfit_projection, difference_cosine, unit_vector
from cache_builder.vectors import VectorSet, fit_vectors
from steerstats.cache import UnitData
from steerstats.errors import ModelError

Report = Callable[[float, str], None]

LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


class UnitBuilder:
    """Everything that units of one build share: the spec, the engine, and how prompts are rendered."""

    def __init__(
        self,
        spec: BuildSpec,
        loaded: LoadedModel,
        engine: Engine,
        renderer: Renderer,
        descriptions: Mapping[str, Description],
    ) -> None:
        self.spec, self.loaded, self.engine = spec, loaded, engine
        self.renderer, self.descriptions = renderer, descriptions
        self.layer_sets = spec.steered_layers(engine.n_layers)
        self.kept_layers = spec.activation_layers or tuple(sorted({layer for s in self.layer_sets for layer in s}))
        self.read_layers = tuple(sorted({*self.kept_layers, *(layer for s in self.layer_sets for layer in s)}))
        # The first unit is trained once for the parity proof and once for itself: one of the two is enough.
        self._trained: tuple[str, np.ndarray, VectorSet] | None = None
        self._length_notes: dict[str, str] = {}

    def train(self, plan: UnitPlan, report: Report = lambda done, what: None) -> tuple[np.ndarray, VectorSet]:
        """Training activations (settings, read layers, 2, pairs, hidden), float32, and the vectors made from them."""
        if self._trained is not None and self._trained[0] == plan.name:
            return self._trained[1:]
        settings = self.spec.training_settings()
        shape = (len(settings), len(self.read_layers), 2, len(plan.training), self.engine.hidden)
        activations = np.empty(shape, dtype=np.float32)
        for k, setting in enumerate(settings):
            report(k / (len(settings) + len(self.spec.settings)), f"{plan.name}: activations, {setting}")
            encoded = self.encode(plan, plan.training, setting)
            examples = [Example.of_pair(pair, self.spec.vectors.read) for pair in encoded]
            read = self.engine.read_activations(examples, self.read_layers)
            activations[k] = read.transpose(2, 1, 0, 3)
        vectors = self._vectors(plan, activations)
        self._trained = (plan.name, activations, vectors)
        return activations, vectors

    def build(self, plan: UnitPlan, spec_hash: str, report: Report = lambda done, what: None) -> UnitData:
        """All arrays of a unit; see `steerstats/cache/SCHEMA.md`."""
        spec, settings = self.spec, self.spec.training_settings()
        activations, vectors = self.train(plan, report)
        self._trained = None
        notes = [*self.renderer.notes, *plan.dataset.notes, *vectors.notes]
        if plan.split.overlap:
            notes.append(
                f"{plan.split.overlap} test pairs share their question with a training pair ({plan.split.rule})"
            )
        kept, note = self._kept(activations)
        notes += note
        arrays: dict[str, np.ndarray] = {
            **pair_arrays(plan.evaluated, "input", text=True),
            **pair_arrays(plan.training, "pair", text=False),
            "input_split": _labels([plan.evaluated_split] * len(plan.evaluated)),
            "setting_eval": _labels(spec.settings),
            "setting_train": _labels(settings),
            "multiplier": np.array(spec.multipliers, dtype=np.float64),
            "layer": np.array(self.kept_layers, dtype=np.int32),
            "answer": _labels(["positive", "negative"]),
            "hidden": np.arange(self.engine.hidden, dtype=np.int32),
            "activation": kept,
            **self._vector_arrays(vectors),
            **self._training_summaries(plan, activations, vectors),
        }
        arrays["planned"] = planned_grid(spec, vectors.kind, vectors.setting, spec.settings)
        arrays |= self._grid(plan, vectors, arrays["planned"], report)
        notes += [self._length_notes[plan.name]] if plan.name in self._length_notes else []
        return UnitData(arrays, self._attrs(plan, spec_hash, notes))

    def encode(self, plan: UnitPlan, pairs: Sequence[ContrastPair], setting: str) -> list[EncodedPair]:
        """Pairs of a dataset as token ids, in one setting."""
        description = self.descriptions.get(plan.name)
        prompts = [self.renderer.render(setting, pair.text, description) for pair in pairs]
        positives, negatives = [pair.positive for pair in pairs], [pair.negative for pair in pairs]
        space = self.spec.prompt.leading_space
        encoded = encode_pairs(self.loaded.tokenizer, prompts, positives, negatives, space)
        self._check_length(
            plan, setting, max(len(ids) for one in encoded for ids in (one.ids_positive, one.ids_negative))
        )
        return encoded

    def examples(self, plan: UnitPlan, setting: str) -> list[Example]:
        """The evaluated inputs, with reads where the answer is predicted and at both answers."""
        made = [Example.of_pair(pair) for pair in self.encode(plan, plan.evaluated, setting)]
        return [replace(one, reads=((0, one.branch - 1, one.branch), *one.reads)) for one in made]

    def _check_length(self, plan: UnitPlan, setting: str, longest: int) -> None:
        """Learned positions end somewhere, and a lookup past them is a crash; rotary ones only lose quality."""
        limit = getattr(self.loaded.model.config.get_text_config(), "max_position_embeddings", None) or longest
        if longest <= limit:
            return
        place = f"{plan.name}, {setting}: a prompt has {longest} tokens, {self.spec.model.id} was made for {limit}"
        words = self.loaded.model.get_input_embeddings()
        tables = [m for m in self.loaded.model.modules() if isinstance(m, torch.nn.Embedding) and m is not words]
        if any(table.num_embeddings < longest for table in tables):
            raise ModelError(f"{place}; choose a model with more positions, or shorter prompts")
        self._length_notes[plan.name] = f"{place}: results past that length may be poor"

    def steering(self, vectors: VectorSet, chosen: np.ndarray | slice = slice(None)) -> Steering:
        """The grid of some of the vectors."""
        return Steering(
            directions=vectors.direction[chosen],
            layers=vectors.layers[chosen],
            multipliers=np.array(self.spec.multipliers),
            operator=self.spec.operator,
            scope=self.spec.scope,
        )

    def _vectors(self, plan: UnitPlan, activations: np.ndarray) -> VectorSet:
        spec, controls = self.spec, self.spec.controls
        pairs = pair_arrays(plan.training, "pair", text=False)
        sets = [
            fit_vectors(
                activations[:, [self.read_layers.index(layer) for layer in layers]],
                spec.training_settings(),
                layers,
                questions=pairs["pair_question"],
                pos_is_a=pairs["pair_pos_is_a"],
                pos_is_yes=pairs["pair_pos_is_yes"],
                method=spec.vectors.method,
                mean=spec.vectors.mean,
                rescale=spec.vectors.rescale,
                resampled=controls.resampled,
                folds=controls.folds,
                random=controls.random,
                shuffled=controls.shuffled,
                debiased=controls.debiased,
                control_settings=controls.settings or None,
                seed=spec.seed,
                name=plan.name,
            )
            for layers in self.layer_sets
        ]
        return sets[0] if len(sets) == 1 else _join(sets)

    def _grid(self, plan: UnitPlan, vectors: VectorSet, planned: np.ndarray, report: Report) -> dict[str, np.ndarray]:
        spec = self.spec
        shape = (len(spec.settings), len(vectors), len(spec.multipliers), len(plan.evaluated))
        out = {name: np.full(shape, np.nan, dtype=np.float32) for name in ("propensity", "logsumexp")}
        out["answer_logit"] = np.full((*shape[:3], 2, shape[3]), np.nan, dtype=np.float32)
        out["input_projection"] = np.full((shape[0], shape[1], shape[3]), np.nan, dtype=np.float32)
        out["input_difference_cosine"] = out["input_projection"].copy()
        out["input_prompt_tokens"] = np.zeros((shape[0], shape[3]), dtype=np.int32)
        steps = len(spec.training_settings()) + len(spec.settings)
        for row, setting in enumerate(spec.settings):
            report((len(spec.training_settings()) + row) / steps, f"{plan.name}: steering, {setting}")
            chosen = np.flatnonzero(planned[row])
            examples = self.examples(plan, setting)
            out["input_prompt_tokens"][row] = [example.prompt for example in examples]
            if not len(chosen):
                continue
            steering = self.steering(vectors, chosen)
            layers = sorted({int(layers[0]) for layers in vectors.layers[chosen]})
            scores = self.engine.run(examples, steering, completions=spec.score != "logit_diff", read_layers=layers)
            codes = steering.codes
            out["propensity"][row, chosen] = _by_code(scores.propensity(spec.score), codes)
            out["logsumexp"][row, chosen] = _by_code(scores.logsumexp, codes)
            out["answer_logit"][row, chosen] = scores.logits[:, codes].transpose(1, 2, 3, 0)
            self._project(scores, vectors, chosen, layers, row, out)
        return out

    @staticmethod
    def _project(
        scores: Scores, vectors: VectorSet, chosen: np.ndarray, layers: list[int], row: int, out: dict[str, np.ndarray]
    ) -> None:
        """Unsteered activations against each vector, at the (first) layer that the vector steers."""
        for vector in chosen:
            read = scores.activations[:, :, layers.index(int(vectors.layers[vector, 0]))]
            direction = vectors.direction[vector, 0]
            out["input_projection"][row, vector] = read[:, 0].astype(np.float64) @ unit_vector(direction)
            out["input_difference_cosine"][row, vector] = difference_cosine(read[:, 1] - read[:, 2], direction)

    def _kept(self, activations: np.ndarray) -> tuple[np.ndarray, list[str]]:
        kept = activations[:, [self.read_layers.index(layer) for layer in self.kept_layers]]
        largest = float(np.abs(kept).max(initial=0.0))
        if self.spec.activation_dtype == "float32" or largest > LARGEST_FLOAT16:
            switched = self.spec.activation_dtype != "float32"
            note = f"activations are kept as float32: the largest, {largest:.3g}, overflows float16"
            return kept, [note] if switched else []
        return kept.astype(np.float16), []

    @staticmethod
    def _vector_arrays(vectors: VectorSet) -> dict[str, np.ndarray]:
        return {
            "vector": _labels(vectors.label),
            "vector_kind": _labels(vectors.kind),
            "vector_setting": _labels(vectors.setting),
            "vector_replicate": vectors.replicate,
            "vector_method": _labels(vectors.method),
            "vector_norm": vectors.norm,
            "vector_raw_norm": vectors.raw_norm,
            "slot": np.arange(vectors.layers.shape[1], dtype=np.int32),
            "vector_layer": vectors.layers,
            "direction": vectors.direction,
        }

    def _training_summaries(self, plan: UnitPlan, activations: np.ndarray, vectors: VectorSet) -> dict[str, np.ndarray]:
        """For the first steered layer: one number a pair and answer, kept when the activations are not."""
        at_layer = activations[:, self.read_layers.index(self.layer_sets[0][0])]
        questions = np.array([pair.question for pair in plan.training])
        folds, seed = self.spec.controls.crossfit_folds, self.spec.seed
        out = {
            "crossfit_projection": np.stack([crossfit_projection(one, questions, folds, seed) for one in at_layer]),
            "pair_difference_cosine": np.stack(
                [
                    difference_cosine(one[0] - one[1], vectors.direction[vectors.label.index(self._label(setting)), 0])
                    for setting, one in zip(self.spec.training_settings(), at_layer)
                ]
            ),
            "activation_norm": np.linalg.norm(at_layer, axis=-1).mean(axis=(1, 2)).astype(np.float32),
        }
        alignment = self._unembedding_cosine(plan, vectors)
        return out if alignment is None else out | {"vector_unembedding_cosine": alignment}

    def _label(self, setting: str) -> str:
        return setting if len(self.layer_sets) == 1 else f"{setting}@{'+'.join(map(str, self.layer_sets[0]))}"

    def _unembedding_cosine(self, plan: UnitPlan, vectors: VectorSet) -> np.ndarray | None:
        """Cosine of each vector (its last slot) with the unembedding of A minus B, where the answers are letters."""
        pair = next((pair for pair in plan.training if pair.pos_is_a is not None), None)
        head = self.loaded.model.get_output_embeddings()
        if pair is None or head.weight.shape[1] != self.engine.hidden:
            return None
        encoded = self.encode(plan, [pair], self.spec.training_settings()[0])[0]
        at = encoded.first_diff
        tokens = [encoded.ids_positive[at], encoded.ids_negative[at]]
        a, b = tokens if pair.pos_is_a else tokens[::-1]
        rows = head.weight[[a, b]].detach().float().cpu().numpy()
        return np.atleast_1d(difference_cosine(vectors.direction[:, -1], rows[0] - rows[1]))

    def _attrs(self, plan: UnitPlan, spec_hash: str, notes: Sequence[str]) -> dict[str, Any]:
        details = {
            "dataset": plan.dataset.describe(),
            "split": plan.split.describe(),
            "model": self.loaded.provenance(),
            "prompts": self.renderer.describe(),
        }
        return {
            "dataset": plan.name,
            "category": plan.category,
            "model": self.spec.model.id,
            "score": self.spec.score,
            "scope": self.spec.scope,
            "operator": self.spec.operator,
            "split": plan.split.rule,
            "order": self.spec.order,
            "spec_hash": spec_hash,
            "attribution": plan.dataset.attribution,
            "notes": json.dumps(list(dict.fromkeys(notes)), ensure_ascii=False),
            "provenance": json.dumps(details, ensure_ascii=False, sort_keys=True),
        }


def _by_code(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(inputs, codes) to (vectors, multipliers, inputs)."""
    return values[:, codes].transpose(1, 2, 0)


def _join(sets: Sequence[VectorSet]) -> VectorSet:
    """Vectors of a sweep: one set a layer, told apart by `@layer` in their labels."""
    labels = [f"{label}@{'+'.join(map(str, s.layers[0]))}" for s in sets for label in s.label]
    stacked = {name: np.concatenate([getattr(s, name) for s in sets]) for name in
               ("direction", "layers", "replicate", "norm", "raw_norm")}  # fmt: skip
    listed = {name: tuple(value for s in sets for value in getattr(s, name)) for name in
              ("kind", "setting", "method", "notes")}  # fmt: skip
    return VectorSet(label=tuple(labels), **stacked, **listed)


def _labels(values: Sequence[str]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array
