"""Plan units, run them, write them, resume: the whole of `steerstats build`.

    report = run_build(load_spec("demo"), "demo-cache")

Units that are finished are never touched; units that another living builder holds are left to it. A build that is
killed at any moment goes on from where it was, with the budget and the threads of its first run, so that its arrays
are the same bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cache_builder.engine import Engine
from cache_builder.leases import claim
from cache_builder.models import LoadedModel, load_model, quiet_libraries
from cache_builder.plan import UnitPlan, dataset_facts, plan_units
from cache_builder.provenance import now, provenance
from cache_builder.settings import Renderer, choose_descriptions, load_descriptions
from cache_builder.spec import BuildSpec
from cache_builder.unit import UnitBuilder
from steerstats.cache import create_cache, finished_sidecar, write_unit
from steerstats.cache.writer import MANIFEST
from steerstats.errors import CacheError

Progress = Callable[..., None]
Notice = Callable[[str], None]
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did: units computed here, found finished, and done by others meanwhile."""

    root: Path
    built: tuple[str, ...]
    found: tuple[str, ...]
    elsewhere: tuple[str, ...]
    seconds: float
    parity: str

    def summary(self) -> str:
        """One line for the terminal."""
        parts = [f"{len(self.built)} units built in {self.seconds:.0f} s"]
        if self.found:
            parts.append(f"{len(self.found)} were finished before")
        if self.elsewhere:
            parts.append(f"{len(self.elsewhere)} were built by others meanwhile")
        return f"{self.root}: {', '.join(parts)}; {self.parity}"


class Session:
    """A spec with its model loaded: what a worker needs to build any of the spec's units.

    Parameters
    ----------
    spec : BuildSpec
    runtime : mapping, optional
        `budget` and `threads` of the cache that is to be continued.
    progress : callable (done, total, what)
    """

    def __init__(
        self, spec: BuildSpec, runtime: Mapping[str, Any] | None = None, progress: Progress = lambda *_: None
    ) -> None:
        runtime = runtime or {}
        self.spec = spec
        progress(0, None, "reading datasets")
        self.units = plan_units(spec)
        table = load_descriptions(spec.prompt.descriptions)
        descriptions = choose_descriptions([unit.name for unit in self.units], spec.settings, table)
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
        self.builder = UnitBuilder(spec, self.loaded, engine, renderer, descriptions)
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
        self.spec_hash = spec.hash(self.facts)

    @property
    def engine(self) -> Engine:
        """The engine, for its budget and its parity record."""
        return self.builder.engine

    def prove(self, progress: Progress = lambda *_: None) -> None:
        """Choose the engine's path on the first unit's real inputs, vectors and longest prompt included."""
        first = self.units[0]
        progress(0, None, "proving the engine on this model")
        _, vectors = self.builder.train(first)
        self._sample = self.builder.examples(first, self.spec.settings[-1])
        self._sample_steering = self.builder.steering(vectors)
        self.engine.prove(self._sample, self._sample_steering)

    def tune(self) -> dict[int, float]:
        """Measure the token budget on the first unit; after `prove`."""
        return self.engine.tune(self._sample, self._sample_steering)

    def manifest(self, speeds: Mapping[int, float]) -> dict[str, Any]:
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
                "measured": {str(budget): speed for budget, speed in speeds.items()},
            },
            "provenance": {**provenance(), "created": now(), "model": self.loaded.provenance()},
        }

    def build_unit(self, root: Path, unit: UnitPlan, progress: Progress = lambda *_: None) -> None:
        """Compute one unit and write it whole."""
        started = now()
        data = self.builder.build(unit, self.spec_hash, progress)
        run = {
            "started": started,
            "finished": now(),
            "device": self.loaded.device,
            "budget": self.engine.budget,
            "threads": torch.get_num_threads(),
            "parity": self.engine.parity.to_dict() if self.engine.parity else None,
            **provenance(),
        }
        write_unit(root, unit.name, data, run)


def run_build(
    spec: BuildSpec,
    out: str | Path,
    *,
    progress: Progress = lambda *_: None,
    notice: Notice = lambda _: None,
    only: Callable[[str], bool] = lambda _: True,
) -> BuildReport:
    """Build a cache, or go on with one.

    Parameters
    ----------
    spec : BuildSpec
    out : path
        Cache directory; made if it is not there.
    progress : callable (done, total, what)
        Called with units done (fractions included) and their number, None while the number means nothing.
    notice : callable (str)
        Called with each thing a user should know: the plain path, a folded system role, waiting for others.
    only : callable (str) -> bool
        Which units to build here; the cache still names them all.

    Returns
    -------
    BuildReport

    Raises
    ------
    CacheError
        If the directory holds another spec's cache.
    SpecError, InputError, ModelError
        One line each, before anything is written.
    """
    begin, root = time.perf_counter(), Path(out)
    runtime = read_runtime(root)
    session = Session(spec, runtime, progress)
    if runtime is not None:
        create_cache(root, {"kind": "grid", "spec_hash": session.spec_hash})  # refuses another spec before any work
    session.prove(progress)
    _announce(session, notice)
    if runtime is None:
        progress(0, None, "measuring the best token budget")
        speeds = {} if spec.run.budget else session.tune()
        create_cache(root, session.manifest(speeds))
        # Where several builders begin at once the first manifest wins, and all work with its budget.
        settled = read_runtime(root) or {}
        session.engine.budget = int(settled.get("budget", session.engine.budget))
    names = [unit.name for unit in session.units]
    found = tuple(name for name in names if finished_sidecar(root, name))
    built = _work(session, root, [unit for unit in session.units if only(unit.name)], progress, notice)
    elsewhere = tuple(n for n in names if n not in built and n not in found and finished_sidecar(root, n))
    parity = str(session.engine.parity)
    return BuildReport(root, built, found, elsewhere, time.perf_counter() - begin, parity)


def read_runtime(root: Path) -> dict[str, Any] | None:
    """Budget and threads of a cache that was begun; None where there is none."""
    path = root / MANIFEST
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).get("runtime", {}))
    except ValueError as error:
        raise CacheError(f"{path} is not JSON: {error}") from error


def sweep_spec(spec: BuildSpec, layers: str) -> BuildSpec:
    """The spec of a layer sweep: base setting, one vector a layer, no controls, the validation split.

    Parameters
    ----------
    spec : BuildSpec
    layers : str
        `all`, or numbers with commas between.
    """
    from transformers import AutoConfig

    from cache_builder.models import resolve
    from cache_builder.spec import parse_spec
    from steerstats.errors import ModelError, SpecError

    if layers == "all":
        quiet_libraries()
        try:
            config = AutoConfig.from_pretrained(resolve(spec.model.id), revision=spec.model.revision)
        except (OSError, ValueError) as error:
            raise ModelError(f"model {spec.model.id!r} cannot be read: {str(error).splitlines()[0]}") from error
        chosen = list(range(config.get_text_config().num_hidden_layers))
    else:
        try:
            chosen = [int(part) for part in layers.split(",")]
        except ValueError:
            raise SpecError(f"layers: {layers!r} is neither all nor numbers with commas between") from None
    content = spec.model_dump(mode="json")
    content |= {"name": f"{spec.name}-sweep", "sweep": chosen, "settings": ["base"], "shifts": "all", "controls": {}}
    content["vectors"] |= {"settings": ["base"], "mean": False}
    return parse_spec(content, "sweep")


def _work(session: Session, root: Path, units: list[UnitPlan], progress: Progress, notice: Notice) -> tuple[str, ...]:
    total, built, waiting = len(session.units), [], False
    while True:
        todo = [unit for unit in units if not finished_sidecar(root, unit.name)]
        done = len(units) - len(todo)
        progress(done, total, "done" if not todo else "")
        if not todo:
            return tuple(built)
        worked = False
        for unit in todo:
            lease = claim(root, unit.name)
            if lease is None:
                continue
            with lease:
                if finished_sidecar(root, unit.name):  # finished by its last holder between the look and the claim
                    continue
                start = len(units) - sum(not finished_sidecar(root, one.name) for one in units)
                session.build_unit(root, unit, lambda part, what, at=start: progress(at + part, total, what))
                built.append(unit.name)
                worked = True
        if not worked:
            if not waiting:
                notice(f"the remaining {len(todo)} units are being built by another process; waiting for it")
                waiting = True
            time.sleep(POLL_S)


def _announce(session: Session, notice: Notice) -> None:
    parity = session.engine.parity
    if parity is not None and not parity.passed:
        notice(str(parity))
    for note in session.builder.renderer.notes:
        notice(note)
    for unit in session.units:
        if unit.dataset.duplicates:
            notice(
                f"{unit.name}: {unit.dataset.duplicates} of {unit.dataset.records} records repeat another one "
                f"({unit.dataset.duplicates_exact} exactly); copies stay on one side of the split"
            )


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
