"""One unit of a cache as the estimators want it: test inputs only, main vectors by training setting, read once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

from steerstats.cache import Unit
from steerstats.cache.sidecar import parity_of
from steerstats.errors import Absent, CacheError, InputError, first_few
from steerstats.frames import MAIN_KINDS
from steerstats.generalization import parse_shift, shift_name
from steerstats.generalization.slopes import Shift
from steerstats.operators import NO_UNSTEERED, has_unsteered, operator_of
from steerstats.results import Result
from steerstats.steerability import SteerabilityFit, fit_steerability, slope_error
from steerstats.study.factors import read_factors

ONE_LAYER = "`steerstats report` wants each in a cache of its own (`steerstats import --layer N`)"


@dataclass(frozen=True, kw_only=True)
class Slopes(Result):
    """Steerability of every test input of one dataset under every main vector, in every setting.

    Parameters
    ----------
    dataset : str
    settings, vectors, inputs : tuple of str
        Labels of the three axes: evaluation setting; training setting of the vector, or "mean"; input.
    slope : ndarray (setting_eval, vector, input)
        Nats per unit multiplier; NaN where the cache did not evaluate that vector in that setting.
    unsteered : ndarray (setting_eval, input)
        Propensity of the unsteered model, at multiplier 0, nats; NaN under operator ablate_add, whose multiplier 0 is
        the ablated model.
    question : ndarray (input,) of str
        Unit of resampling.
    fit : SteerabilityFit
        The lines themselves: intercepts, curvature, R², slopes by range.
    """

    dataset: str
    settings: tuple[str, ...]
    vectors: tuple[str, ...]
    inputs: tuple[str, ...]
    slope: np.ndarray
    unsteered: np.ndarray
    question: np.ndarray
    fit: SteerabilityFit

    def at(self, shift: Shift | str) -> np.ndarray:
        """Slopes (input,) of one shift, `"base->user_neg"`."""
        return self.slope[_place(shift, self.settings, self.vectors, f"dataset {self.dataset}")]

    def to_frame(self) -> pd.DataFrame:
        """One row per setting, vector and input; cells that were not evaluated are left out."""
        frame = self.fit.to_frame().assign(question=np.tile(self.question, self.slope.shape[0] * self.slope.shape[1]))
        frame.insert(0, "dataset", self.dataset)
        return frame[np.isfinite(frame["slope"])].reset_index(drop=True)


class StudyUnit:
    """Arrays of one unit, loaded when first asked for and then kept.

    Parameters
    ----------
    unit : steerstats.cache.Unit
    split : str
        The inputs that count: "test", or "val" in a sweep over layers.
    layer : int, optional
        The layer to look at, where several were steered one at a time.
    seed : int, optional
        Of the build, where its refits are drawn from it by name: two builds of one seed that train on the same pairs
        then refit on the same resamples of them.
    """

    def __init__(self, unit: Unit, *, split: str = "test", layer: int | None = None, seed: int | None = None) -> None:
        self.unit, self.name, self.layer, self.seed = unit, unit.name, layer, seed
        self.split = split
        self.operator = operator_of(unit.attrs)
        self.settings: tuple[str, ...] = tuple(unit.coords["setting_eval"])
        self.multipliers: np.ndarray = unit.coords["multiplier"]
        labels = unit.read("input_split") if "input_split" in unit else np.full(len(unit.coords["input"]), split)
        # An imported table names no split, and its inputs then all count.
        self.kept = np.flatnonzero(labels == split)
        if not len(self.kept):
            raise CacheError(f"{unit.where}: /input_split has no {split!r} input; it has {_counts(labels)}")
        self.inputs = tuple(unit.coords["input"][self.kept])
        self._control_cache: dict[tuple[str, str, str], np.ndarray] = {}

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.inputs)} inputs, {len(self.vectors)} vectors, {len(self.settings)} settings>"

    @cached_property
    def question(self) -> np.ndarray:
        """Question of every kept input."""
        return self.unit.read("input_question")[self.kept]

    @cached_property
    def _vector_table(self) -> pd.DataFrame:
        """Label, kind, setting and replicate of the vectors at the chosen layer."""
        table = pd.DataFrame({"label": self.unit.coords["vector"]})
        for name in ("kind", "setting", "replicate"):
            table[name] = self.unit.read(f"vector_{name}")
        if self.layer is not None:
            if "vector_layer" not in self.unit:
                raise CacheError(f"{self.unit.where}: no /vector_layer, so layer {self.layer} cannot be chosen")
            steered = self.unit.read("vector_layer")
            table = table[(steered == self.layer).any(axis=1)]
            if table.empty:
                known = ", ".join(str(one) for one in np.unique(steered))
                raise Absent(f"{self.unit.where}: layer {self.layer} is not in this cache; it has {known}")
        return table.reset_index(drop=True)

    @cached_property
    def steered_layers(self) -> tuple[int, ...]:
        """Decoder blocks, counted from 0, whose output the main vectors change; empty where they are not recorded.

        Vectors brought from elsewhere count only where there are no others: each may steer a layer of its own.
        """
        if "vector_layer" not in self.unit:
            return ()
        brought = set(self._vector_table["label"][self._vector_table["kind"] == "imported"])
        main = list(self.vectors.values())
        own = [label for label in main if label not in brought] or main
        return tuple(np.unique(self.unit.read("vector_layer", vector=own)).tolist())

    @cached_property
    def vectors(self) -> Mapping[str, str]:
        """Training setting, "mean" or own name of each main vector -> its label in the cache."""
        table = self._vector_table
        main = table[table["kind"].isin(MAIN_KINDS) & (table["replicate"] == -1)]
        if main.empty:
            raise CacheError(f"{self.unit.where}: /vector has no trained vector; its kinds are {set(table['kind'])}")
        twice = main["setting"][main["setting"].duplicated()]
        if len(twice):
            setting = twice.iloc[0]
            labels = first_few(main["label"][main["setting"] == setting].tolist(), 6)
            layers = np.unique(self.unit.read("vector_layer")) if "vector_layer" in self.unit else []
            hint = "an analysis takes one"
            if len(layers) > 1:
                hint = f"choose one by layer, one of {', '.join(map(str, layers))}, as in open_cache(path, "
                takes = "`steerstats report` takes them all" if self.split == "val" else ONE_LAYER
                hint += f"layer={layers[0]}); {takes}"
            raise CacheError(f"{self.unit.where}: setting {setting!r} has several vectors ({labels}); {hint}")
        return dict(zip(main["setting"], main["label"]))

    @cached_property
    def planned(self) -> np.ndarray:
        """bool (setting_eval, all vectors of the file)."""
        return self.unit.read("planned").astype(bool)

    @cached_property
    def propensity(self) -> np.ndarray:
        """(setting_eval, main vector, input, multiplier), float64 nats; NaN where not planned."""
        curves = self.unit.read("propensity", vector=list(self.vectors.values()))[..., self.kept]
        return np.moveaxis(curves, 2, -1).astype(float)

    @cached_property
    def fit(self) -> SteerabilityFit:
        """Lines through all main curves, axes (setting_eval, vector, input)."""
        coords = {"setting_eval": self.settings, "vector": tuple(self.vectors), "input": self.inputs}
        return self._fit(self.propensity, self._planned(self.vectors.values()), coords)

    @cached_property
    def slopes(self) -> Slopes:
        """Slopes of the main vectors, with their labels."""
        fit = self.fit
        # Unsteered, the model is the same for every vector: the first that was evaluated in a setting tells it.
        first = self._planned(self.vectors.values()).argmax(axis=1)
        return Slopes(
            dataset=self.name,
            settings=self.settings,
            vectors=tuple(self.vectors),
            inputs=self.inputs,
            slope=fit.slope,
            unsteered=fit.unsteered[np.arange(len(self.settings)), first],
            question=self.question,
            fit=fit,
            method=fit.method,
            assumptions=fit.assumptions,
            warnings=fit.warnings,
        )

    @cached_property
    def evaluated(self) -> tuple[Shift, ...]:
        """Shifts under which main vectors were evaluated."""
        return tuple(shift for shift in product(self.vectors, self.settings) if self.has(shift))

    def has(self, shift: Shift, kind: str = "main") -> bool:
        """Whether main vectors (or every control of a kind) were evaluated under a shift."""
        train, evaluation = shift
        if evaluation not in self.settings:
            return False
        if kind == "main":
            labels = [self.vectors[train]] if train in self.vectors else []
        else:
            labels = list(self.controls(kind, train))
        return bool(labels) and bool(self._planned(labels)[self.settings.index(evaluation)].all())

    def controls(self, kind: str, train: str = "base") -> tuple[str, ...]:
        """Labels of the control vectors of one kind and training setting, by replicate; empty if there are none."""
        return self._controls.get((kind, train), ((), ()))[0]

    def replicates(self, kind: str, train: str = "base") -> tuple[int, ...]:
        """Replicate numbers of the same vectors, in the same order."""
        return self._controls.get((kind, train), ((), ()))[1]

    @cached_property
    def _controls(self) -> dict[tuple[str, str], tuple[tuple[str, ...], tuple[int, ...]]]:
        """(kind, training setting) -> labels and numbers, by replicate: asked for hundreds of times in a report."""
        table = self._vector_table.sort_values("replicate", kind="stable")
        return {
            key: (tuple(rows["label"]), tuple(rows["replicate"].astype(int)))
            for key, rows in table.groupby(["kind", "setting"], sort=False)
        }

    @cached_property
    def training_draw(self) -> str | None:
        """What decides which pairs resample k holds (seed, dataset, the questions of all pairs in order), as a hash.

        Equal in two caches of one builder, whatever their models, layers or methods; None where the cache does not say.
        """
        if not isinstance(self.seed, int) or "pair_question" not in self.unit:
            return None
        parts = [str(self.seed), self.name, *map(str, self.unit.read("pair_question"))]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]

    def has_refits(self, shift: Shift) -> bool:
        """Whether two or more resampled vectors were evaluated under a shift."""
        return self.has(shift, "resampled") and len(self.controls("resampled", shift[0])) > 1

    @cached_property
    def refitted(self) -> tuple[Shift, ...]:
        """Shifts with two or more resampled vectors, whose intervals can include the vector's own error."""
        return tuple(shift for shift in product(self.vectors, self.settings) if self.has_refits(shift))

    def control_slopes(self, kind: str, shift: Shift | str) -> np.ndarray:
        """Slopes (replicate, input) of control vectors under one shift.

        Raises
        ------
        CacheError
            If the cache was built without them; the message says what it has.
        """
        train, evaluation = parse_shift(shift)
        if not self.has((train, evaluation), kind):
            kinds = self._vector_table["kind"].value_counts(sort=False).to_dict()
            raise Absent(
                f"{self.unit.where}: not in this cache: {kind} vectors of {train} evaluated in {evaluation}; its "
                f"vectors are {', '.join(f'{count} {name}' for name, count in kinds.items())}"
            )
        key = (kind, train, evaluation)
        if key not in self._control_cache:
            labels = self.controls(kind, train)
            curves = self.unit.read("propensity", setting_eval=evaluation, vector=list(labels))[..., self.kept]
            curves = np.moveaxis(curves, 1, -1).astype(float)
            fit = self._fit(curves, np.ones(len(labels), bool), {"vector": labels, "input": self.inputs})
            self._control_cache[key] = fit.slope
        return self._control_cache[key]

    @cached_property
    def slope_error(self) -> float:
        """Numerical error of a slope, from the engine's recorded parity and the rounding of stored values.

        A propensity is the difference of two logits, so it may be off by twice what the probe saw on one; it is
        stored as float32, so never by less than a rounding of the largest. Where no parity was recorded
        (`engine_error` is None) the rounding alone is known.
        """
        finite = np.isfinite(self.propensity)
        largest = float(np.abs(self.propensity).max(initial=0.0, where=finite))
        rounding = float(np.finfo(np.float32).eps) * largest
        return slope_error(max(2 * (self.engine_error or 0.0), rounding), self.multipliers)

    @cached_property
    def engine_error(self) -> float | None:
        """Largest error of one logit that the engine's probe saw, nats; None where the cache records none."""
        parity = parity_of(self.unit.sidecar)
        if parity is None:
            return None
        return parity.plain_difference if parity.path == "plain" else parity.difference

    def place(self, shift: Shift | str) -> tuple[int, int]:
        """Indices (setting_eval, main vector) of a shift; CacheError names what there is."""
        return _place(shift, self.settings, tuple(self.vectors), self.unit.where)

    def factors(
        self, names: Sequence[str], evaluation: str = "base", against: Mapping[str, str] | None = None
    ) -> dict[str, np.ndarray]:
        """Nuisance factors of the kept inputs; one that the cache does not record is not in the answer.

        Parameters
        ----------
        names : sequence of str
            Of `pos_is_a` and `pos_is_yes` (1, 0, NaN where not defined), `length_difference` (characters, positive
            minus negative option), `prompt_tokens` (in the evaluation setting), and a user's own, `factor_NAME`; a
            text becomes flags, `factor_NAME=LEVEL vs OTHER`.
        evaluation : str
            The setting whose prompts `prompt_tokens` counts.
        against : mapping of factor to level, optional
            The other level of each text; default: the most frequent one of this dataset.
        """
        return read_factors(self.unit, names_once("factors", names), self.kept, evaluation, against)

    def _planned(self, labels) -> np.ndarray:
        place = {label: k for k, label in enumerate(self.unit.coords["vector"])}
        places = [place[label] for label in labels]
        return self.planned[:, places]

    def _fit(self, curves: np.ndarray, planned: np.ndarray, coords: Mapping[str, tuple]) -> SteerabilityFit:
        try:
            fit = fit_steerability(curves, self.multipliers, planned=planned, coords=coords)
        except InputError as error:
            raise CacheError(f"{self.unit.where}: /propensity: {error}") from error
        if has_unsteered(self.operator):
            return fit
        return replace(fit, unsteered=np.full_like(fit.unsteered, np.nan), warnings=(*fit.warnings, NO_UNSTEERED))


def names_once(argument: str, names: Sequence[str] | str) -> tuple[str, ...]:
    """Names that a caller listed, each once; a single one may stand without brackets.

    Raises
    ------
    InputError
        If there is none, one is not a text, or one is there twice.
    """
    names = (names,) if isinstance(names, str) else names
    try:
        found = tuple(names)
    except TypeError as error:
        raise InputError(f"{argument} is {names!r}; a name or a sequence of names is needed") from error
    if not found:
        raise InputError(f"{argument} is empty; name at least one, or leave it out")
    for k, name in enumerate(found):
        if not isinstance(name, str):
            raise InputError(f"{argument} holds {name!r}; names are text")
        if name in found[:k]:
            raise InputError(f"{argument} names {name!r} twice; each once")
    return found


def _place(shift: Shift | str, settings: tuple[str, ...], vectors: tuple[str, ...], where: str) -> tuple[int, int]:
    train, evaluation = parse_shift(shift)
    if evaluation not in settings or train not in vectors:
        raise Absent(
            f"{where}: {shift_name((train, evaluation))} is not in this cache; it has the settings "
            f"{', '.join(settings)} and the vectors {', '.join(vectors)}"
        )
    return settings.index(evaluation), vectors.index(train)


def _counts(labels: np.ndarray) -> str:
    values, counts = np.unique(labels.astype(str), return_counts=True)
    return ", ".join(f"{count} {value!r}" for value, count in zip(values, counts))
