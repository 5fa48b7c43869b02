"""What a build spec consists of, what makes one valid, and what its hash covers. `reading` reads them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cache_builder.datasets import bundled_datasets, find_source, paper_datasets
from cache_builder.spec.parts import (
    SETTINGS,
    ControlSpec,
    Count,
    Frozen,
    ModelSpec,
    PromptSpec,
    RunSpec,
    Setting,
    VectorSpec,
    in_canonical_order,
    one_or_many,
)
from steerstats.cache.writer import name_fault
from steerstats.errors import InputError, SpecError

BUNDLED = "bundled:"
PAPER_SHIFTS = ("base->user_neg", "base->user_pos", "sys_pos->user_neg", "sys_neg->user_pos")
DEFAULT_LAYERS = {
    "meta-llama/Llama-2-7b-chat-hf": 13,
    "Qwen/Qwen1.5-14B-Chat": 21,
    "meta-llama/Llama-2-70b-chat-hf": 30,
    "google/gemma-2-2b-it": 14,
}
"""Steered layer where `layers = "auto"`: those of the paper and of its code."""


class BuildSpec(Frozen):
    """One cache: a model, its datasets, the prompt settings, the vectors and the grid. See `load_spec`.

    `layers` are the layers that one vector steers at once (usually one; "auto" looks the model up). `sweep` lists
    layers that are steered one at a time instead, to choose among them. `activation_layers` are kept in the cache;
    empty means the steered ones, and none in a sweep. `limit` is the number of source records used of each dataset,
    for quick runs. `shifts` restricts the main grid to some `train->eval` pairs; "all" evaluates every vector in
    every setting.
    """

    name: str = "unnamed"
    model: ModelSpec
    datasets: Annotated[tuple[str, ...], BeforeValidator(one_or_many)] = ()
    custom_datasets: dict[str, str] = Field(default_factory=dict)
    settings: tuple[Setting, ...] = SETTINGS
    prompt: PromptSpec = PromptSpec()
    order: Literal["tan2024", "balanced", "counterbalance"] = "tan2024"
    split: Literal["content", "tan2024-literal"] = "content"
    split_percent: tuple[Count, Count, Count] = (40, 10, 50)
    seed: Count = 0
    limit: Annotated[int, Field(ge=2, strict=True)] | None = None
    layers: Annotated[Literal["auto"] | tuple[Count, ...], BeforeValidator(one_or_many)] = "auto"
    sweep: tuple[Count, ...] = ()
    activation_layers: tuple[Count, ...] = ()
    activation_dtype: Literal["float16", "float32"] = "float16"
    vectors: VectorSpec = VectorSpec()
    multipliers: tuple[Annotated[float, Field(strict=True)], ...] = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    scope: Literal["last_prompt", "first_answer", "all", "prompt"] = "last_prompt"
    operator: Literal["add", "add_keep_norm", "ablate", "ablate_add"] = "add"
    score: Literal["logit_diff", "logprob_sum", "logit_sum"] = "logit_diff"
    shifts: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(one_or_many)] = "all"
    controls: ControlSpec = ControlSpec()
    run: RunSpec = RunSpec()

    def training_settings(self) -> tuple[str, ...]:
        """Settings in which vectors are trained, in the canonical order."""
        return self.vectors.settings or self.settings

    def trained(self) -> tuple[str, ...]:
        """Names of the main vectors: the training settings, and "mean" where it is asked for."""
        return (*self.training_settings(), *(("mean",) if self.vectors.mean else ()))

    def control_settings(self) -> tuple[str, ...]:
        """Training settings for which controls are made: those of `controls.shifts`, none without a control."""
        if not self.controls.any:
            return ()
        if self.controls.shifts == "all":
            return self.trained()
        return tuple(dict.fromkeys(shift.partition("->")[0] for shift in self.controls.shifts))

    def kept_layers(self, n_layers: int | None = None) -> tuple[int, ...]:
        """Layers whose training activations stay in the cache."""
        if self.activation_layers or self.sweep:
            return self.activation_layers
        return tuple(sorted({layer for layers in self.steered_layers(n_layers) for layer in layers}))

    def dataset_names(self) -> tuple[str, ...]:
        """The datasets as `load_dataset` takes them: `paper` and `bundled:demo` spelled out, custom ones last."""
        names: list[str] = []
        for name in self.datasets:
            if name == "paper":
                names += paper_datasets()
            elif name.startswith(BUNDLED) and "/" not in name:
                names += bundled_datasets(name.removeprefix(BUNDLED))
            else:
                names.append(name)
        return tuple(dict.fromkeys([*names, *self.custom_datasets]))

    def steered_layers(self, n_layers: int | None = None) -> tuple[tuple[int, ...], ...]:
        """Layer sets to steer, one per vector family: one tuple, or one for each layer of a sweep.

        Parameters
        ----------
        n_layers : int, optional
            Layers of the loaded model, to check the range.

        Raises
        ------
        SpecError
            If the model has no default layer, or a layer is out of range.
        """
        if self.sweep:
            sets = tuple((layer,) for layer in self.sweep)
        elif self.layers == "auto":
            if self.model.id not in DEFAULT_LAYERS:
                known = ", ".join(DEFAULT_LAYERS)
                raise SpecError(
                    f"layers: no default for {self.model.id} (there is one for {known}); set layers = [L], or "
                    f"find one with sweep = [...]"
                )
            sets = ((DEFAULT_LAYERS[self.model.id],),)
        else:
            sets = (self.layers,)
        if n_layers is not None:
            for key, chosen in (("layers", sum(sets, ())), ("activation_layers", self.activation_layers)):
                for layer in chosen:
                    if layer >= n_layers:
                        raise SpecError(f"{key}: layer {layer} is not in {self.model.id}; it has 0-{n_layers - 1}")
        return sets

    def hash(self, facts: Mapping[str, Any] | None = None, *, dated: bool = True) -> str:
        """Canonical SHA-256 of all that changes numbers: the cache's identity.

        Parameters
        ----------
        facts : mapping, optional
            What the spec names and only a plan knows, JSON-able: file hashes by dataset, descriptions used,
            model revision or weights hash, resolved dtype, attention and layers, chat-template hash, ...
        dated : bool
            Whether the chat template writes `prompt.date`, which is not covered where it does not.

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        content = {"spec": self.hashed(), "facts": dict(facts or {})}
        if not dated:
            content["spec"]["prompt"]["date"] = PromptSpec().date
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def hashed(self) -> dict[str, Any]:
        """The part of the spec that `hash` covers, as plain JSON types."""
        content = self.model_dump(mode="json", exclude={"name", "run", "custom_datasets"})
        content["datasets"] = sorted(self.dataset_names())
        content["training_settings"] = content["vectors"].pop("settings") or content["settings"]
        if self.layers == "auto" and self.model.id in DEFAULT_LAYERS:
            content["layers"] = [DEFAULT_LAYERS[self.model.id]]
        # files and local models are identified by their content, which `facts` holds, not by where they lie
        del content["prompt"]["descriptions"]
        # what came later leaves the identity of specs that do not use it as it was
        if not content["prompt"]["prefill"]:
            del content["prompt"]["prefill"]
        files, rescale = sorted(content["vectors"].pop("files")), content["vectors"].pop("files_rescale")
        if files:
            content["vectors"] |= {"files": files, "files_rescale": rescale}
        if not self.controls.any:
            content["controls"]["shifts"] = list(ControlSpec().shifts)  # nothing is evaluated there
        if self.controls.shuffled:
            content["controls"]["exchanged"] = "half"  # once every question by itself: other vectors under one name
        if is_place(self.model.id):
            content["model"]["id"] = "local"
        return content

    @field_validator("settings")
    @classmethod
    def _canonical_settings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("is empty; it takes some of " + ", ".join(SETTINGS))
        return in_canonical_order(value)

    @field_validator("multipliers")
    @classmethod
    def _usable_multipliers(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(m) for m in value):
            raise ValueError("must be finite numbers")
        grid = tuple(sorted({m + 0.0 for m in value}))  # -0.0 and 0.0 are one multiplier
        if 0.0 not in grid or len(grid) < 2:
            raise ValueError(f"must contain 0 and at least one other multiplier, not {list(value)}")
        return grid

    @field_validator("sweep", "activation_layers", "layers")
    @classmethod
    def _ordered_layers(cls, value: Any) -> Any:
        if value == "auto":
            return value
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _consistent(self) -> BuildSpec:
        if not self.datasets and not self.custom_datasets:
            raise ValueError('datasets: is empty; name some, or "paper" for the forty')
        for name in self.custom_datasets:
            if fault := name_fault(name):
                raise ValueError(f"custom_datasets: the name {name!r} {fault}")
        for name in self.dataset_names():
            if name not in self.custom_datasets and not name.startswith(BUNDLED):
                _check_name(name, self.custom_datasets)
        if sum(self.split_percent) != 100 or not (self.split_percent[0] and self.split_percent[2]):
            raise ValueError(f"split_percent: {list(self.split_percent)} must add up to 100, train and test above 0")
        if self.layers == ():
            raise ValueError('layers: is empty; name layers, or "auto"')
        strangers = [setting for setting in self.vectors.settings if setting not in self.settings]
        if strangers:
            raise ValueError(f"vectors.settings: {strangers[0]} is not among settings ({', '.join(self.settings)})")
        for key in ("rescale", "files_rescale") if self.vectors.files else ("rescale",):
            if getattr(self.vectors, key) == "base" and "base" not in self.training_settings():
                raise ValueError(f'vectors.{key}: "base" needs the base setting among the training settings')
        self._check_files()
        if self.vectors.read == "last_prompt":
            self._check_last_prompt()
        if self.shifts != "all":
            self._check_shifts("shifts", self.shifts, (*self.trained(), *self.vectors.files), self.settings)
        self._place_controls()
        if self.controls.shifts != "all":
            # without a control nothing is evaluated there, and the default need not fit the settings
            known = (self.trained(), self.settings) if self.controls.any else ((*SETTINGS, "mean"), SETTINGS)
            self._check_shifts("controls.shifts", self.controls.shifts, *known)
            stranger = next((one for one in self.controls.shifts if one not in self.shifts), None)
            if self.controls.any and self.shifts != "all" and stranger is not None:
                raise ValueError(
                    f"controls.shifts: {stranger!r} is not among shifts ({', '.join(self.shifts)}), and controls are "
                    "judged beside the vector itself; name some of those, or add it to shifts"
                )
        if self.controls.shuffled and self.vectors.method == "pca":
            raise ValueError(
                'controls.shuffled: vectors.method = "pca" finds the same axis whichever answer is the positive one, '
                "so that label-shuffled vectors are the trained one up to sign, and no null; use controls.random"
            )
        return self

    def _place_controls(self) -> None:
        """Without a word on where controls are evaluated: in base->base, or in the first shift there is."""
        if not self.controls.any or self.shifts == "all" or "shifts" in self.controls.model_fields_set:
            return
        own = [shift for shift in self.shifts if shift.partition("->")[0] in self.trained()]
        if own and not set(ControlSpec().shifts) & set(own):
            # frozen for everyone else: the hash, the plan and the manifest see the resolved shift
            self.__dict__["controls"] = self.controls.model_copy(update={"shifts": tuple(own[:1])})

    def _check_files(self) -> None:
        for name in self.vectors.files:
            if not re.fullmatch(r"[\w.-]+", name) or name in (*SETTINGS, "mean"):
                raise ValueError(
                    f"vectors.files: the name {name!r} may hold letters, digits, '_', '-' and '.' only, and must not "
                    "be a setting's"
                )
            if self.shifts != "all" and not any(shift.startswith(f"{name}->") for shift in self.shifts):
                raise ValueError(f'vectors.files: {name} is in none of the shifts; add "{name}->{self.settings[0]}"')
        if self.vectors.files and self.sweep:
            raise ValueError("vectors.files: a sweep has vectors of its own only")

    def _check_last_prompt(self) -> None:
        trained = self.training_settings()
        for place, settings in (("system text", SETTINGS[:3]), ("user turn", SETTINGS[3:])):
            same = [setting for setting in trained if setting in settings]
            if len(same) > 1:
                raise ValueError(
                    f'vectors.read: "last_prompt" contrasts the two descriptions, which stand in the {place} for '
                    f"{' and '.join(same)}: these would be one vector; set vectors.settings to one of them"
                )
        if self.controls.debiased:
            raise ValueError('controls.debiased: with vectors.read = "last_prompt" the difference holds no answer')

    @staticmethod
    def _check_shifts(key: str, shifts: Sequence[str], trained: Sequence[str], settings: Sequence[str]) -> None:
        for shift in shifts:
            train, arrow, evaluated = shift.partition("->")
            if not arrow or train not in trained or evaluated not in settings:
                raise ValueError(
                    f"{key}: {shift!r} is not train->eval with train in {', '.join(trained)} and eval in "
                    f"{', '.join(settings)}"
                )


def is_place(model_id: str) -> bool:
    """Whether a model is named by where it lies (`bundled:demo/model`, `./dir`, `/dir`) and not by a hub id."""
    return model_id.startswith((BUNDLED, ".", "/", "~")) or bool(re.match(r"[A-Za-z]:[\\/]", model_id))


def _check_name(name: str, own: Collection[str]) -> None:
    near = get_close_matches(name, own, n=1)
    if near and name not in paper_datasets():
        raise ValueError(f"datasets: {name!r} is not known; did you mean {near[0]} of custom_datasets?")
    try:
        find_source(name)
    except InputError as error:
        raise ValueError(f"datasets: {error}") from error
