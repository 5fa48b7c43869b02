"""One unit from beginning to end: training activations, vectors, the steered grid, summaries, arrays.

UnitBuilder(spec, loaded, engine, renderer, descriptions).build(plan)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache_builder.ahead import Ahead
from cache_builder.announcements import overlap_note
from cache_builder.blocks import ActivationStore
from cache_builder.datasets import ContrastPair
from cache_builder.engine import Engine, Scores, Steering
from cache_builder.models import LoadedModel
from cache_builder.plan import UnitPlan, factor_arrays, fit_options, pair_arrays, planned_grid
from cache_builder.prompts.encoding import EncodedPair
from cache_builder.prompts.example_store import ExampleStore
from cache_builder.prompts.inputs import EVALUATED, TRAINING, Inputs, Survey
from cache_builder.prompts.settings import Description, Renderer
from cache_builder.spec import BuildSpec
from cache_builder.unit.arrays import answer_labels, at_layer, join, labels, vector_arrays
from cache_builder.unit.grid import Grid, Work, blocks_of, run_all, steering
from cache_builder.unit.summaries import crossfit_projection, difference_cosine, mean_norm, pair_cosines
from cache_builder.vectors import VectorSet, fit_vectors, slot_norms
from cache_builder.vectors.files import imported_vectors
from steerstats.cache import UnitData

Report = Callable[[float, str], None]

LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


class _Trained(NamedTuple):
    """Training activations and vectors of a unit, with what decided their bits."""

    name: str
    made_at: tuple[int, str, str, str]
    activations: ActivationStore
    vectors: VectorSet
    tokens: np.ndarray  # that it cost, with padding and without it


class UnitBuilder:
    """Everything that units of one build share: the spec, the engine, and how prompts are rendered.

    Host memory holds the datasets' texts, and of all else a bounded part: training activations lie in a file, and so do
    token ids and scores where they are many. The exception is a method of extraction other than the mean difference: it
    is given one layer's training activations whole, and a logistic regression copies them a few times (8 bytes x
    answers x pairs x hidden each).

    Parameters
    ----------
    spec, loaded, engine, renderer, descriptions
    files : mapping of name to {layer: array (hidden,)}, optional
        Vectors that were made elsewhere.
    scratch : path, optional
        Folder for what a build keeps in files while a unit is built: training activations, and token ids and scores
        where they are many. The system's by default.
    overlap : bool
        Encode what comes next while the engine runs.
    """

    def __init__(
        self,
        spec: BuildSpec,
        loaded: LoadedModel,
        engine: Engine,
        renderer: Renderer,
        descriptions: Mapping[str, Description],
        *,
        files: Mapping[str, Mapping[int, np.ndarray]] | None = None,
        scratch: Path | None = None,
        overlap: bool = True,
    ) -> None:
        self.spec, self.loaded, self.engine = spec, loaded, engine
        self.renderer, self.files, self.scratch = renderer, files, scratch
        self.inputs = Inputs(spec, loaded.model, loaded.tokenizer, renderer, descriptions, scratch)
        self.survey: Survey | None = None
        self.layer_sets = spec.steered_layers(engine.n_layers)
        self.kept_layers = spec.kept_layers(engine.n_layers)
        self.read_layers = tuple(sorted({*self.kept_layers, *(layer for s in self.layer_sets for layer in s)}))
        self._plans: dict[str, UnitPlan] = {}
        self._ahead = Ahead(self._examples, overlap=overlap)
        # The first unit is trained once for the parity proof and once for itself: one of the two is enough.
        self._trained: _Trained | None = None
        self.reused = np.zeros(2)

    def train(self, plan: UnitPlan, report: Report = lambda done, what: None) -> tuple[ActivationStore, VectorSet]:
        """Training activations (settings, read layers, options, pairs, hidden), and the vectors made from them."""
        if self._trained is not None and self._trained[:2] == (plan.name, self._state()):
            self.reused = self._trained.tokens
            return self._trained.activations, self._trained.vectors
        self.forget()
        earlier, self.reused = self.engine.tokens, np.zeros(2)
        state = self._state()  # as it is now: where memory runs out on the way, the activations are made again
        settings, n_options = self.spec.training_settings(), len(plan.training[0].completions)
        shape = (len(settings), len(self.read_layers), n_options, len(plan.training), self.engine.hidden)
        store = ActivationStore(shape, self.scratch)
        try:
            run_all(self.engine, self._training_work(plan, store, report))
            vectors = self._vectors(plan, store)
        except BaseException:
            store.close()
            raise
        self._trained = _Trained(plan.name, state, store, vectors, self.engine.tokens - earlier)
        return store, vectors

    def _training_work(self, plan: UnitPlan, store: ActivationStore, report: Report) -> Iterator[Work]:
        settings = self.spec.training_settings()

        def write(k: int, block: np.ndarray, scores: Scores) -> None:
            store.write(k, block, scores.activations)

        for k, setting in enumerate(settings):
            report(k / (len(settings) + len(self.spec.settings)), f"{plan.name}: activations, {setting}")
            with self._take(plan, TRAINING, setting) as examples:
                for block, request in blocks_of(self.engine, examples, None, self.read_layers, first=False):
                    yield request, partial(write, k, block)

    def forget(self) -> None:
        """Drop training activations that are kept for the next build of their unit."""
        if self._trained is not None:
            self._trained.activations.close()
            self._trained = None

    def build(
        self,
        plan: UnitPlan,
        spec_hash: str,
        report: Report = lambda done, what: None,
        following: UnitPlan | None = None,
    ) -> UnitData:
        """All arrays of a unit; see `steerstats/cache/SCHEMA.md`.

        Parameters
        ----------
        plan : UnitPlan
        spec_hash : str
        report : callable (share done, what)
        following : UnitPlan, optional
            The unit that will probably be built next: its first inputs are encoded meanwhile.
        """
        self._following = following
        spec, settings = self.spec, self.spec.training_settings()
        activations, vectors = self.train(plan, report)
        notes = [*self.renderer.notes, *plan.dataset.notes, *vectors.notes]
        if plan.split.overlap:
            notes.append(overlap_note(plan))
        arrays: dict[str, Any] = {
            **pair_arrays(plan.evaluated, "input", text=True),
            **pair_arrays(plan.training, "pair", text=False),
            **factor_arrays(plan.dataset.pairs, plan.evaluated, "input"),
            **factor_arrays(plan.dataset.pairs, plan.training, "pair"),
            "input_split": labels([plan.evaluated_split] * len(plan.evaluated)),
            "setting_eval": labels(spec.settings),
            "setting_train": labels(settings),
            "multiplier": np.array(spec.multipliers, dtype=np.float64),
            "answer": labels(answer_labels(len(plan.evaluated[0].completions))),
            "hidden": np.arange(self.engine.hidden, dtype=np.int32),
            **vector_arrays(vectors),
            **self._training_summaries(plan, activations, vectors),
        }
        arrays["planned"] = planned_grid(spec, vectors.kind, vectors.setting, spec.settings)
        kept, note = self._kept(activations)
        notes += note
        try:
            arrays |= self._grid(plan, vectors, arrays["planned"], report)
        except BaseException:
            self.forget()
            raise
        self._trained = None  # the store now belongs to the unit's data, and is closed when these are written
        if kept:
            arrays |= kept
        else:
            activations.close()
        if self._whole_only(plan):
            notes.append(
                "some completions do not part in one token: they are scored whole, and neither logits of first "
                "differing tokens nor the answer mass are kept"
            )
        if plan.name in self.inputs.length_notes:
            notes.append(self.inputs.length_notes[plan.name])
        return UnitData(arrays, self._attrs(plan, spec_hash, notes))

    def encode(self, plan: UnitPlan, pairs: Sequence[ContrastPair], setting: str) -> list[EncodedPair]:
        """Pairs of a dataset as token ids, in one setting."""
        return self.inputs.encode(plan, pairs, setting)

    def steering(self, vectors: VectorSet, chosen: np.ndarray | slice = slice(None)) -> Steering:
        """The engine's grid of some of the vectors."""
        return steering(self.spec, vectors, chosen)

    def close(self) -> None:
        """End the encoding thread and remove what lies in the scratch folder."""
        self._ahead.close()
        self.forget()

    def _state(self) -> tuple[int, str, str, str]:
        return self.engine.budget, self.engine.path, self.engine.mask, self.engine.forward.lines

    def _whole_only(self, plan: UnitPlan) -> bool:
        return self.survey is not None and plan.name in self.survey.whole_only

    def _examples(self, name: str, part: str, setting: str) -> ExampleStore:
        return self.inputs.examples(self._plans[name], part, setting)

    def _take(self, plan: UnitPlan, part: str, setting: str) -> ExampleStore:
        """Encoded inputs; what comes after them is begun meanwhile."""
        steps = [(TRAINING, one) for one in self.spec.training_settings()]
        steps += [(EVALUATED, one) for one in self.spec.settings]
        place = steps.index((part, setting)) + 1
        after = plan if place < len(steps) else self._following
        self._plans = {one.name: one for one in (plan, after) if one is not None}
        key = None if after is None else (after.name, *steps[place % len(steps)])
        return self._ahead.take((plan.name, part, setting), key)

    _following: UnitPlan | None = None

    def _vectors(self, plan: UnitPlan, activations: ActivationStore) -> VectorSet:
        spec, options = self.spec, fit_options(self.spec, plan)
        sets = [
            fit_vectors(
                activations.layers([self.read_layers.index(layer) for layer in layers]),
                spec.training_settings(),
                layers,
                method=spec.vectors.method,
                seed=spec.seed,
                name=plan.name,
                **options,
            )
            for layers in self.layer_sets
        ]
        if len(sets) > 1:
            return join([at_layer(one) for one in sets])
        if not self.files:
            return sets[0]
        n_slots, norms = len(self.layer_sets[0]), None
        if spec.vectors.files_rescale == "base":
            norms = slot_norms(sets[0].direction[sets[0].label.index("base")])
        elif spec.vectors.files_rescale == "unit":
            norms = np.ones(n_slots)
        others = imported_vectors(self.files, norms, self.engine.hidden, self.engine.n_layers, n_slots)
        return join([sets[0], others])

    def _grid(self, plan: UnitPlan, vectors: VectorSet, planned: np.ndarray, report: Report) -> dict[str, np.ndarray]:
        spec = self.spec
        grid = Grid(
            spec,
            self.engine,
            vectors,
            planned,
            n_inputs=len(plan.evaluated),
            n_options=len(plan.evaluated[0].completions),
            whole_only=self._whole_only(plan),
            folder=self.scratch,
        )
        run_all(self.engine, self._grid_work(plan, grid, report))
        return grid.arrays

    def _grid_work(self, plan: UnitPlan, grid: Grid, report: Report) -> Iterator[Work]:
        spec = self.spec
        steps = len(spec.training_settings()) + len(spec.settings)
        for row, setting in enumerate(spec.settings):
            report((len(spec.training_settings()) + row) / steps, f"{plan.name}: steering, {setting}")
            contrasts = None
            if spec.vectors.read == "last_prompt":
                contrasts = partial(self.inputs.evaluated_contrasts, plan, setting)
            with self._take(plan, EVALUATED, setting) as examples:
                yield from grid.work(row, examples, contrasts)

    def _kept(self, activations: ActivationStore) -> tuple[dict[str, Any], list[str]]:
        if not self.kept_layers:
            return {}, []
        places, notes = [self.read_layers.index(layer) for layer in self.kept_layers], []
        largest = float(activations.largest[places].max(initial=0.0))
        dtype = self.spec.activation_dtype
        if dtype == "float16" and largest > LARGEST_FLOAT16:
            dtype = "float32"
            notes.append(f"activations are kept as float32: the largest, {largest:.3g}, overflows float16")
        layer = np.array(self.kept_layers, dtype=np.int32)
        return {"layer": layer, "activation": activations.streamed(places, np.dtype(dtype))}, notes

    def _training_summaries(
        self, plan: UnitPlan, activations: ActivationStore, vectors: VectorSet
    ) -> dict[str, np.ndarray]:
        """For the first steered layer: one number a pair and answer, kept when the activations are not."""
        layer = self.read_layers.index(self.layer_sets[0][0])
        at_layer = [activations[k, layer] for k in range(activations.shape[0])]
        questions = np.array([pair.question for pair in plan.training])
        folds, seed = self.spec.controls.crossfit_folds, self.spec.seed
        out = {
            "crossfit_projection": np.stack([crossfit_projection(one, questions, folds, seed) for one in at_layer]),
            "pair_difference_cosine": np.stack(
                [  # a setting's first vector is the trained one of this layer
                    pair_cosines(one, vectors.direction[vectors.setting.index(setting), 0])
                    for setting, one in zip(self.spec.training_settings(), at_layer)
                ]
            ),
            "activation_norm": np.array([mean_norm(one) for one in at_layer], dtype=np.float32),
        }
        alignment = self._unembedding_cosine(plan, vectors)
        return out if alignment is None else out | {"vector_unembedding_cosine": alignment}

    def _unembedding_cosine(self, plan: UnitPlan, vectors: VectorSet) -> np.ndarray | None:
        """Cosine of each vector (its last slot) with the unembedding of A minus B, where the answers are letters."""
        pair = next((pair for pair in plan.training if pair.pos_is_a is not None), None)
        head = self.loaded.model.get_output_embeddings()
        # A head that is offloaded, quantised or missing has no rows to look at; the summary is left out then.
        weight = getattr(head, "weight", None)
        if pair is None or weight is None or weight.device.type == "meta" or weight.ndim != 2:
            return None
        if weight.shape[1] != self.engine.hidden or not weight.is_floating_point():
            return None
        encoded = self.encode(plan, [pair], self.spec.training_settings()[0])[0]
        at = encoded.first_diff
        tokens = [encoded.ids_positive[at], encoded.ids_negative[at]]
        a, b = tokens if pair.pos_is_a else tokens[::-1]
        rows = weight[[a, b]].detach().float().cpu().numpy()
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
            "read": self.spec.vectors.read,
            "crossfit_origin": "midpoint",
            "split": plan.split.rule,
            "order": self.spec.order,
            "spec_hash": spec_hash,
            "attribution": plan.dataset.attribution,
            "notes": json.dumps(list(dict.fromkeys(notes)), ensure_ascii=False),
            "provenance": json.dumps(details, ensure_ascii=False, sort_keys=True),
        }
