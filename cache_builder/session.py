"""A spec with its data and its model loaded: what any worker needs to build any of the spec's units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cache_builder.datasets import ContrastPair
from cache_builder.engine import Engine
from cache_builder.models import LoadedModel, load_model, quiet_libraries
from cache_builder.plan import UnitPlan, dataset_facts, plan_units
from cache_builder.prompts.inputs import EVALUATED, TRAINING, Survey, provable, scorable
from cache_builder.prompts.settings import Description, Renderer, choose_descriptions, load_descriptions
from cache_builder.provenance import now, provenance
from cache_builder.spec import BuildSpec, is_place
from cache_builder.spec.differences import what_differs
from cache_builder.unit.builder import UnitBuilder
from cache_builder.unit.grid import WHOLE
from cache_builder.vectors.extractors import extractor_facts
from cache_builder.vectors.files import file_hashes, load_vector_files
from steerstats.cache import UnitData, finished_sidecar, write_unit
from steerstats.cache.schema import Streamed
from steerstats.cache.sidecar import read_json, sidecar_path
from steerstats.cache.writer import MANIFEST
from steerstats.errors import CacheError

Progress = Callable[..., None]

FEWEST_TUNED = {"cuda": 40_000, "cpu": 3_000}
"""Inputs of a build, in all settings: ten times those that measuring runs, to which the best budget and mask are a few
per cent better than those at hand."""


class Session:
    """A spec with its model loaded: what a worker needs to build any of the spec's units.

    Parameters
    ----------
    spec : BuildSpec
    runtime : mapping, optional
        What the manifest of the cache that is to be continued holds: `budget`, `threads`, `survey`.
    progress : callable (done, total, what)
    scratch : path, optional
        Folder for training activations; see `scratch_folder`.
    overlap : bool
        Encode the next inputs while the engine runs.
    """

    def __init__(
        self,
        spec: BuildSpec,
        runtime: Mapping[str, Any] | None = None,
        progress: Progress = lambda *_: None,
        *,
        scratch: Path | None = None,
        overlap: bool = True,
    ) -> None:
        runtime = runtime or {}
        self.spec = spec
        progress(0, None, "reading datasets")
        self.units = plan_units(spec)
        extractor, files = extractor_facts(spec.vectors.method), load_vector_files(spec.vectors.files)
        descriptions = unit_descriptions(spec, self.units)
        threads = spec.run.threads or runtime.get("threads")
        if threads:
            torch.set_num_threads(int(threads))
        progress(0, None, f"loading {spec.model.id}")
        self.loaded = load(spec)
        renderer = Renderer.of_prompt(self.loaded.tokenizer, spec.prompt)
        engine = Engine(
            self.loaded.model,
            budget=spec.run.budget or runtime.get("budget"),
            flex=self.loaded.attention == "flex_attention",
        )
        self.builder = UnitBuilder(
            spec, self.loaded, engine, renderer, descriptions, files=files, scratch=scratch, overlap=overlap
        )
        if runtime.get("survey"):
            # The same spec with the same data, tokenizer and template: it was surveyed when the cache was begun.
            self.builder.survey = self._surveyed(runtime["survey"])
        said = {name: {"positive": one.positive, "negative": one.negative} for name, one in descriptions.items()}
        self.facts = {
            **dataset_facts(self.units, said),
            "model": {
                "revision": self.loaded.revision,
                "weights": self.loaded.weights_hash,
                "tokenizer": self.loaded.tokenizer_hash,
                "dtype": self.loaded.dtype,
                "attention": self.loaded.attention,
            },
            "layers": [list(layers) for layers in self.builder.layer_sets],
            "activation_layers": list(self.builder.kept_layers),
            "prompts": renderer.identity(),
        }
        if is_place(spec.model.id) or self.loaded.revision is None:
            # No commit vouches for what lies beside a local model's weights.
            self.facts["model"]["config"] = self.loaded.config_hash
            self.facts["model"]["special_tokens"] = self.loaded.special_tokens_hash
        if self.loaded.quantisation:
            self.facts["model"]["quantisation"] = self.loaded.quantisation
        if extractor:
            self.facts["extractor"] = extractor
        if files:
            self.facts["vector_files"] = file_hashes(spec.vectors.files)
        self.spec_hash = spec.hash(self.facts, dated=renderer.dated)

    @property
    def engine(self) -> Engine:
        """The engine, for its budget and its parity record."""
        return self.builder.engine

    def check(self, progress: Progress = lambda *_: None) -> Survey:
        """Encode every input once, so that what cannot be built is said now; see `inputs.Inputs.survey`."""
        builder = self.builder
        if builder.survey is None:
            builder.survey = builder.inputs.survey(self.units, builder.layer_sets, self.engine.n_layers, progress)
        return builder.survey

    def prove(self, progress: Progress = lambda *_: None) -> None:
        """Choose the engine's path on real inputs of the first unit, its vectors, and the longest prompt of all."""
        survey, first, inputs = self.check(progress), self.units[0], self.builder.inputs
        progress(0, None, "proving the engine on this model")
        sample = inputs.sample(first, self.spec.settings[-1])
        plan, pair = self._longest(survey)
        longest = inputs.of(plan, [pair], EVALUATED, survey.setting)
        proved, whole = provable([*sample, *longest]), self.spec.score in WHOLE
        # Training activations need a path before there are vectors to prove it with, and no evaluated input is like two
        # prompts that part far from their end.
        if self.spec.vectors.read == "last_prompt":
            setting = self.spec.training_settings()[0]
            self.engine.prove(provable(inputs.contrasts(first, first.training[:4], setting)))
        self.engine.prove(proved, completions=whole)
        _, vectors = self.builder.train(first)
        self._sample, self._sample_steering = scorable(sample), self.builder.steering(vectors)
        self.engine.prove(proved, self._sample_steering, completions=whole)
        self._proved = proved

    def _surveyed(self, said: Any) -> Survey | None:
        """What a manifest says of the survey; None, and it is made anew, where that is none of these units."""
        try:
            survey = Survey.from_dict(said)
            self._longest(survey)
        except (IndexError, KeyError, StopIteration, TypeError):
            return None
        return survey

    def _longest(self, survey: Survey) -> tuple[UnitPlan, ContrastPair]:
        plan = next(unit for unit in self.units if unit.name == survey.unit)
        return plan, (plan.training if survey.part == TRAINING else plan.evaluated)[survey.index]

    def tune(self) -> dict[str, dict]:
        """Measure the token budget, unless the spec has one, and the masks on the first unit; after `prove`.

        Nothing is measured for a build of few inputs, see `FEWEST_TUNED`.
        """
        inputs = len(self.spec.settings) * sum(len(unit.evaluated) for unit in self.units)
        if inputs < FEWEST_TUNED.get(self.engine.forward.device.type, FEWEST_TUNED["cpu"]):
            return {"budgets": {}, "masks": {}}
        engine, sample, whole = self.engine, (self._sample, self._sample_steering), self.spec.score in WHOLE
        budgets = {} if self.spec.run.budget else engine.tune(*sample, proved=self._proved, completions=whole)
        # A named attention is what the user wants; only "auto" leaves the choice to measurement.
        masks = () if self.spec.model.attention != "auto" else None
        found = engine.choose_mask(*sample, masks, proved=self._proved, completions=whole)
        return {"budgets": {str(budget): speed for budget, speed in budgets.items()}, "masks": found}

    def prove_row(self) -> None:
        """Prove a row of the settled budget and mask, unless that was done; after `prove`."""
        self.engine.prove_row(self._proved, self._sample_steering, completions=self.spec.score in WHOLE)

    def settle(self, root: Path) -> None:
        """Take over what a cache is built with: the manifest's path, mask and budget, or what memory allowed since."""
        runtime = read_runtime(root) or {}
        if runtime.get("path") == "plain":
            self.engine.path = "plain"
        mask = runtime.get("mask", self.engine.mask)
        # FlexAttention is compiled for CUDA: a cache that goes on elsewhere (its dtype named) would wait for minutes.
        if mask != "flex" or self.engine.forward.device.type == "cuda":
            self.engine.use_mask(mask)
        settled = runtime.get("budget") or self.engine.budget
        if self.spec.run.budget not in (None, settled):
            return  # asked for another one
        sides = [(f"{sidecar_path(root, one.name)}: run", finished_sidecar(root, one.name)) for one in self.units]
        runs = [(where, side.get("run")) for where, side in sides if side]
        budgets, ceilings = (
            [count for where, run in runs if (count := _count(run, key, where))] for key in ("budget", "ceiling")
        )
        self.engine.budget = min([settled, *budgets])
        self.engine.ceiling = min([*ceilings, self.engine.ceiling or ceilings[0]]) if ceilings else self.engine.ceiling

    def close(self) -> None:
        """End what runs in the background."""
        self.builder.close()

    def what_differs(self, manifest: Mapping[str, Any]) -> str:
        """In what another cache's manifest is not of this spec, for the message that refuses it."""
        return what_differs(manifest, self.spec, self.facts)

    def manifest(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """The cache's immutable description."""
        return {
            "kind": "sweep" if self.spec.sweep else "grid",
            "spec": self.spec.model_dump(mode="json", exclude={"run"}),
            "spec_hash": self.spec_hash,
            "facts": self.facts,
            "model": self.spec.model.id,
            "units": [unit.name for unit in self.units],
            "categories": {unit.name: unit.category for unit in self.units if unit.category},
            "runtime": {
                "budget": self.engine.budget,
                "threads": torch.get_num_threads(),
                "survey": self.builder.survey.to_dict() if self.builder.survey else None,
                "mask": self.engine.mask,
                "path": self.engine.path,
                "measured": dict(measured),
            },
            "provenance": {**provenance(), "created": now(), "model": self.loaded.provenance()},
        }

    def compute(
        self, unit: UnitPlan, progress: Progress = lambda *_: None, following: UnitPlan | None = None
    ) -> tuple[UnitData, dict[str, Any]]:
        """All arrays of one unit, and the facts of the run for its sidecar.

        A unit has one token budget: where memory ran out within it, it is computed again from its start.

        Parameters
        ----------
        unit : UnitPlan
        progress : callable (share done, what)
        following : UnitPlan, optional
            What will be built next.
        """
        started, again = now(), 0
        earlier = self.engine.tokens
        while True:
            before = self.engine.budget, self.engine.ceiling
            data = self.builder.build(unit, self.spec_hash, progress, following)
            if before == (self.engine.budget, self.engine.ceiling):
                break
            close_streams(data)
            again += 1
        # The training pass of the first unit was made for the proof, before.
        computed, packed = self.engine.tokens - earlier + self.builder.reused
        return data, {
            "started": started,
            "finished": now(),
            "device": self.loaded.device,
            "budget": self.engine.budget,
            "ceiling": self.engine.ceiling,
            "out_of_memory": again,
            "tokens": round(computed),
            "padding": 1 - packed / computed if computed else 0.0,
            "threads": torch.get_num_threads(),
            "parity": self.engine.parity.to_dict() if self.engine.parity else None,
            **provenance(),
        }


def write_and_close(root: Path, name: str, data: UnitData, run: Mapping[str, Any]) -> None:
    """Write one unit, and free what its streamed arrays are made from.

    A builder that was suspended until another one took its unit over leaves what that one has finished.
    """
    try:
        write_unit(root, name, data, run, replace=False)
    finally:
        close_streams(data)


def close_streams(data: UnitData) -> None:
    """Free what the streamed arrays of a unit are made from."""
    for array in data.arrays.values():
        if isinstance(array, Streamed):
            array.close()


def unit_descriptions(spec: BuildSpec, units: Sequence[UnitPlan]) -> dict[str, Description]:
    """The descriptions that a build uses, by unit; those of both prompts where these are contrasted."""
    settings = (*spec.settings, "sys_pos") if spec.vectors.read == "last_prompt" else spec.settings
    return choose_descriptions([unit.name for unit in units], settings, load_descriptions(spec.prompt.descriptions))


def read_runtime(root: Path) -> dict[str, Any] | None:
    """Budget and threads of a cache that was begun; None where there is none."""
    path = root / MANIFEST
    if not path.is_file():
        return None
    runtime = read_json(path).get("runtime")
    for key in ("budget", "threads"):
        _count(runtime, key, f"{path}: runtime")
    return dict(runtime) if isinstance(runtime, dict) else {}


def _count(facts: Any, key: str, where: str) -> int | None:
    """A number that a build has recorded, in a file that anyone may have edited since."""
    value = facts.get(key) if isinstance(facts, Mapping) else None
    if value is None or (isinstance(value, int) and 0 < value < 1 << 31):
        return value
    raise CacheError(f"{where}.{key} is {value!r}; a build writes a whole number from 1 there")


def load(spec: BuildSpec) -> LoadedModel:
    """The model of a spec, where and how the spec says."""
    quiet_libraries()
    model = spec.model
    return load_model(
        model.id,
        revision=model.revision,
        dtype=model.dtype,
        attention=model.attention,
        device=spec.run.device,
        device_map=spec.run.device_map,
        load_in_8bit=model.load_in_8bit,
        load_in_4bit=model.load_in_4bit,
        trust_remote_code=model.trust_remote_code,
    )
