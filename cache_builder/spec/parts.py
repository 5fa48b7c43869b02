"""The tables of a build spec: model, prompt, vectors, controls, run. `model` puts them together."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Setting = Literal["base", "sys_pos", "sys_neg", "user_pos", "user_neg"]
SETTINGS: tuple[str, ...] = get_args(Setting)
Count = Annotated[int, Field(ge=0, strict=True)]


def one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str | int) and value not in ("auto", "all") else value


def in_canonical_order(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Each setting once, as `SETTINGS` has them: neither order nor repetition changes a number."""
    return tuple(setting for setting in SETTINGS if setting in settings)


def _iso(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.date) else value  # TOML has dates of its own


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSpec(Frozen):
    """The model. `dtype = "auto"` and `attention = "auto"` are resolved by the builder.

    Both are hashed as they are written here and as they are resolved: "auto" on two kinds of device makes two caches,
    and so do "auto" and the name of what it gives, even where their numbers are the same.

    Where "auto" gives SDPA on one CUDA device, the build also measures how token tries are best masked (in blocks,
    densely, by FlexAttention), and the manifest says what was chosen. A named attention leaves no choice.
    """

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


class PromptSpec(Frozen):
    """How a question becomes a prompt: `settings.Renderer` reads this.

    `prefill` is how every reply begins before its answer ("My choice is", an empty thought): part of the prompt for
    `scope` and `vectors.read`, and followed by the space of `leading_space`.
    """

    system_text: str | None = "You are a helpful, honest and concise assistant."
    descriptions: str | None = None
    template: str | None = None
    template_args: dict[str, str | bool | int | float] = {}
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), BeforeValidator(_iso)] = "2024-07-01"
    prefill: str = ""
    leading_space: bool = True


class VectorSpec(Frozen):
    """How steering vectors are made. `settings` are the training settings; empty means all of the spec's.

    `read` says where activations are read. "answer": at the token that holds the first character in which the two
    completions differ (contrastive activation addition); "last_token": at each completion's last token;
    "completion_mean": the mean over each completion's tokens. "last_prompt": at the last token of the prompt, before
    any answer. There the two completions of one prompt have the same activation, so that what is contrasted is the
    prompt: with the description of the behaviour minus with that of its opposite (as in representation engineering,
    Zou et al. 2023, arXiv 2310.01405). The descriptions stand in the user turn for `user_pos` and `user_neg` and in
    the system text for the other three settings. A vector depends on that place alone, so that at most one setting
    of either place may be trained. The `answer` axis of such a cache holds the two descriptions.

    `files` are vectors made elsewhere, by name: each is evaluated beside the trained ones, as kind "imported", at
    its own norm, or at the base vector's or at length 1 with `files_rescale`.
    """

    method: str = "mean_difference"
    read: Literal["answer", "last_token", "last_prompt", "completion_mean"] = "answer"
    settings: tuple[Setting, ...] = ()
    mean: bool = True
    rescale: Literal["base", "none", "unit"] = "base"
    files: dict[str, str] = {}
    files_rescale: Literal["none", "base", "unit"] = "none"

    @field_validator("settings")
    @classmethod
    def _canonical_settings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return in_canonical_order(value)


class ControlSpec(Frozen):
    """Vectors beside the main ones, and where they are evaluated.

    `resampled`: vectors refitted on bootstrap resamples of the training questions; `folds`: vectors of so many
    disjoint parts of them; `random`, `shuffled`: null vectors of the same norm, random directions and refits with
    the answers of half of the questions exchanged (not with method "pca", which does not see the exchange);
    `debiased`: the vector without its A/B and Yes/No directions. `shifts` are the `train->eval` pairs in which
    controls are evaluated ("all" for every one), and name the training settings for which they are made. They are
    judged beside the main vectors, so that those have to be evaluated there too; where the spec's `shifts` lack
    base->base, the default is the first of them. `crossfit_folds` is for the held-out projections of
    the summaries.
    """

    resampled: Count = 0
    folds: Count = 0
    random: Count = 0
    shuffled: Count = 0
    debiased: bool = False
    shifts: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(one_or_many)] = ("base->base",)
    crossfit_folds: Annotated[int, Field(ge=2, strict=True)] = 5

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


class RunSpec(Frozen):
    """Where and how fast, never what: nothing here is hashed."""

    device: str = "auto"
    device_map: str | None = None
    budget: Annotated[int, Field(ge=1, strict=True)] | None = None
    threads: Annotated[int, Field(ge=1, strict=True)] | None = None
    data_dir: str | None = None
    out: str | None = None
