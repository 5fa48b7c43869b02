"""What a build spec consists of, what makes one valid, and what its hash covers. `spec` reads and writes them."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cache_builder.datasets import bundled_datasets, find_source, paper_datasets
from steerstats.errors import InputError, SpecError

SETTINGS = ("base", "sys_pos", "sys_neg", "user_pos", "user_neg")
BUNDLED = "bundled:"
PAPER_SHIFTS = ("base->user_neg", "base->user_pos", "sys_pos->user_neg", "sys_neg->user_pos")
DEFAULT_LAYERS = {
    "meta-llama/Llama-2-7b-chat-hf": 13,
    "Qwen/Qwen1.5-14B-Chat": 21,
    "meta-llama/Llama-2-70b-chat-hf": 30,
    "google/gemma-2-2b-it": 14,
}
"""Steered layer where `layers = "auto"`: those of the paper and of its code."""

Setting = Literal["base", "sys_pos", "sys_neg", "user_pos", "user_neg"]
Count = Annotated[int, Field(ge=0)]


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str | int) and value not in ("auto", "all") else value


def _iso(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.date) else value  # TOML has dates of its own


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSpec(_Frozen):
    """The model. `dtype = "auto"` and `attention = "auto"` are resolved by the builder and hashed as resolved."""

    id: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["auto", "sdpa", "eager", "flex_attention"] = "auto"
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_quantisation(self) -> ModelSpec:
        if self.load_in_8bit and self.load_in_4bit:
            raise ValueError("load_in_8bit and load_in_4bit exclude each other")
        return self


class PromptSpec(_Frozen):
    """How a question becomes a prompt: `settings.Renderer` reads this."""

    system_text: str | None = "You are a helpful, honest and concise assistant."
    descriptions: str | None = None
    template: str | None = None
    template_args: dict[str, str | bool | int | float] = {}
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), BeforeValidator(_iso)] = "2024-07-01"
    leading_space: bool = True


class VectorSpec(_Frozen):
    """How steering vectors are made. `settings` are the training settings; empty means all of the spec's."""

    method: str = "mean_difference"
    read: Literal["answer", "last_token", "completion_mean"] = "answer"
    settings: tuple[Setting, ...] = ()
    mean: bool = True
    rescale: Literal["base", "none", "unit"] = "base"


class ControlSpec(_Frozen):
    """Vectors beside the main ones, and where they are evaluated.

    `resampled`: vectors refitted on bootstrap resamples of the training questions; `folds`: vectors of so many
    disjoint parts of them; `random`, `shuffled`: null vectors of the same norm; `debiased`: the vector without its
    A/B and Yes/No directions. `crossfit_folds` is for the held-out projections of the summaries.
    """

    resampled: Count = 0
    folds: Count = 0
    random: Count = 0
    shuffled: Count = 0
    debiased: bool = False
    shifts: tuple[str, ...] = ("base->base",)
    crossfit_folds: Annotated[int, Field(ge=2)] = 5

    @field_validator("folds")
    @classmethod
    def _at_least_two_folds(cls, value: int) -> int:
        if value == 1:
            raise ValueError("is 0 (no fold vectors) or at least 2")
        return value

    @property
    def any(self) -> bool:
        """Whether a control is asked for at all."""
        return bool(self.resampled or self.folds or self.random or self.shuffled or self.debiased)

    @property
    def settings(self) -> tuple[str, ...]:
        """Training settings for which controls are made: those of `shifts`, none without a control."""
        return tuple(dict.fromkeys(shift.partition("->")[0] for shift in self.shifts)) if self.any else ()


class RunSpec(_Frozen):
    """Where and how fast, never what: nothing here is hashed."""

    device: str = "auto"
    device_map: str | None = None
    budget: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    data_dir: str | None = None
    out: str | None = None


class BuildSpec(_Frozen):
    """One cache: a model, its datasets, the prompt settings, the vectors and the grid. See `load_spec`.

    `layers` are the layers that one vector steers at once (usually one; "auto" looks the model up). `sweep` lists
    layers that are steered one at a time instead, to choose among them. `activation_layers` are kept in the cache;
    empty means the steered ones. `limit` is the number of source records used of each dataset, for quick runs.
    `shifts` restricts the main grid to some `train->eval` pairs; "all" evaluates every vector in every setting.
    """

    name: str = "unnamed"
    model: ModelSpec
    datasets: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = ()
    custom_datasets: dict[str, str] = {}
    settings: tuple[Setting, ...] = SETTINGS
    prompt: PromptSpec = PromptSpec()
    order: Literal["tan2024", "balanced", "counterbalance"] = "tan2024"
    split: Literal["content", "tan2024-literal"] = "content"
    split_percent: tuple[Count, Count, Count] = (40, 10, 50)
    seed: Count = 0
    limit: Annotated[int, Field(ge=2)] | None = None
    layers: Annotated[Literal["auto"] | tuple[Count, ...], BeforeValidator(_one_or_many)] = "auto"
    sweep: tuple[Count, ...] = ()
    activation_layers: tuple[Count, ...] = ()
    activation_dtype: Literal["float16", "float32"] = "float16"
    vectors: VectorSpec = VectorSpec()
    multipliers: tuple[float, ...] = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    scope: Literal["last_prompt", "first_answer", "all", "prompt"] = "last_prompt"
    operator: Literal["add", "add_keep_norm", "ablate", "ablate_add"] = "add"
    score: Literal["logit_diff", "logprob_sum", "logit_sum"] = "logit_diff"
    shifts: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_one_or_many)] = "all"
    controls: ControlSpec = ControlSpec()
    run: RunSpec = RunSpec()

    def training_settings(self) -> tuple[str, ...]:
        """Settings in which vectors are trained, in the canonical order."""
        return self.vectors.settings or self.settings

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

    def hash(self, facts: Mapping[str, Any] | None = None) -> str:
        """Canonical SHA-256 of all that changes numbers: the cache's identity.

        Parameters
        ----------
        facts : mapping, optional
            What the spec names and only a plan knows, JSON-able: file hashes by dataset, descriptions used,
            model revision or weights hash, resolved dtype, attention and layers, chat-template hash, ...

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        content = {"spec": self.hashed(), "facts": dict(facts or {})}
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
        if is_place(self.model.id):
            content["model"]["id"] = "local"
        return content

    @field_validator("settings")
    @classmethod
    def _canonical_settings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("is empty; it takes some of " + ", ".join(SETTINGS))
        return tuple(setting for setting in SETTINGS if setting in value)

    @field_validator("multipliers")
    @classmethod
    def _usable_multipliers(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(m) for m in value):
            raise ValueError("must be finite numbers")
        grid = tuple(sorted({m + 0.0 for m in value}))  # -0.0 and 0.0 are one multiplier
        if 0.0 not in grid or len(grid) < 2:
            raise ValueError(f"must contain 0 and one other multiplier at least, not {list(value)}")
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
            if not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(f"custom_datasets: the name {name!r} may hold letters, digits, '_', '-' and '.' only")
        for name in self.dataset_names():
            if name not in self.custom_datasets and not name.startswith(BUNDLED):
                _check_name(name)
        if sum(self.split_percent) != 100 or not (self.split_percent[0] and self.split_percent[2]):
            raise ValueError(f"split_percent: {list(self.split_percent)} must add up to 100, train and test above 0")
        if self.layers == ():
            raise ValueError('layers: is empty; name layers, or "auto"')
        strangers = [setting for setting in self.vectors.settings if setting not in self.settings]
        if strangers:
            raise ValueError(f"vectors.settings: {strangers[0]} is not among settings ({', '.join(self.settings)})")
        if self.vectors.rescale == "base" and "base" not in self.training_settings():
            raise ValueError('vectors.rescale: "base" needs the base setting among the training settings')
        for key, shifts in (("shifts", self.shifts), ("controls.shifts", self.controls.shifts)):
            if shifts != "all":
                self._check_shifts(key, shifts)
        return self

    def _check_shifts(self, key: str, shifts: Sequence[str]) -> None:
        trained = (*self.training_settings(), *(("mean",) if self.vectors.mean else ()))
        for shift in shifts:
            train, arrow, evaluated = shift.partition("->")
            if not arrow or train not in trained or evaluated not in self.settings:
                raise ValueError(
                    f"{key}: {shift!r} is not train->eval with train in {', '.join(trained)} and eval in "
                    f"{', '.join(self.settings)}"
                )


def is_place(model_id: str) -> bool:
    """Whether a model is named by where it lies (`bundled:demo/model`, `./dir`, `/dir`) and not by a hub id."""
    return model_id.startswith((BUNDLED, ".", "/", "~")) or bool(re.match(r"[A-Za-z]:[\\/]", model_id))


def _check_name(name: str) -> None:
    try:
        find_source(name)
    except InputError as error:
        raise ValueError(f"datasets: {error}") from error
