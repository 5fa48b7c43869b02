"""Pairs of a dataset as the engine's examples, and the survey of all of them that precedes a build.

The survey encodes every pair of every unit in every setting once, in blocks of which nothing is kept: what cannot be
built is said with its dataset, setting and line before anything is written, and the longest prompt is found, on which
the engine has to prove itself.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache_builder.datasets import ContrastPair
from cache_builder.engine import Example, Steering
from cache_builder.plan import UnitPlan
from cache_builder.prompts.encoding import EncodedPair, encode_pairs
from cache_builder.prompts.example_store import ExampleStore, example_of
from cache_builder.prompts.settings import Description, Renderer
from cache_builder.spec import BuildSpec
from cache_builder.unit.grid import WHOLE
from steerstats.errors import InputError, ModelError, SteerstatsError

SURVEY_PAIRS = 256
SAMPLE_PAIRS = 4096
TRAINING, EVALUATED = "training", "evaluated"
MUCH_UNKNOWN = 0.01

Step = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """What a build has to know about all its inputs.

    Parameters
    ----------
    tokens : int
        Of the longest prompt with its longest completion.
    unit, part, setting : str
        Where that is; `part` is "training" or "evaluated".
    index : int
        Its place in that part.
    whole_only : tuple of str
        Units with a pair whose completions do not part in one token, so that they are scored whole and no logits
        of first differing tokens are kept.
    unknown : mapping of str to float
        Units of whose evaluated tokens more than `MUCH_UNKNOWN` are the tokenizer's unknown token, and their share.
    """

    tokens: int
    unit: str
    part: str
    setting: str
    index: int
    whole_only: tuple[str, ...] = ()
    unknown: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self) | {"whole_only": list(self.whole_only)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Survey:
        """The survey that `to_dict` gave."""
        return cls(**{**values, "whole_only": tuple(values["whole_only"])})


class Inputs:
    """Renders and encodes pairs; safe to call from several threads."""

    def __init__(
        self,
        spec: BuildSpec,
        model: Any,
        tokenizer: Any,
        renderer: Renderer,
        descriptions: Mapping[str, Description],
        scratch: Path | None = None,
    ) -> None:
        self.spec, self.model, self.tokenizer, self.scratch = spec, model, tokenizer, scratch
        self.renderer, self.descriptions = renderer, descriptions
        self.length_notes: dict[str, str] = {}
        # Of GPT-2 and its kin the unknown token is the end of text, too, which templates write: no count of it tells.
        ends = (getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "eos_token_id", None), None)
        unknown = getattr(tokenizer, "unk_token_id", None)
        self._unknown = -1 if unknown in ends else unknown
        self._lock = threading.Lock()

    def encode(self, plan: UnitPlan, pairs: Sequence[ContrastPair], setting: str) -> list[EncodedPair]:
        """Pairs of a dataset as token ids, in one setting; where that fails, the error names the pair."""
        try:
            return self._encode(plan, pairs, setting)
        except SteerstatsError:
            for pair in pairs:  # again one by one, to know which
                try:
                    self._encode(plan, [pair], setting)
                except SteerstatsError as error:
                    raise _placed(error, plan, setting, pair) from error
            raise

    def _encode(self, plan: UnitPlan, pairs: Sequence[ContrastPair], setting: str) -> list[EncodedPair]:
        with self._lock:  # a tokenizer of the Rust library is not to be used from two threads
            description = self.descriptions.get(plan.name)
            prompts = [self.renderer.render(setting, pair.text, description) for pair in pairs]
            encoded = encode_pairs(
                self.tokenizer,
                prompts,
                [pair.positive for pair in pairs],
                [pair.negative for pair in pairs],
                self.spec.prompt.leading_space,
                others=[pair.others for pair in pairs],
                whole=self.spec.score != "logit_diff",
            )
        self._check_length(plan, setting, max((len(ids) for one in encoded for ids in one.options), default=0))
        return encoded

    def examples(self, plan: UnitPlan, part: str, setting: str) -> ExampleStore:
        """All pairs of one part in one setting.

        Training pairs are read where the spec says. Evaluated ones are read first where the answer is predicted,
        then as training pairs are (with `read = "last_prompt"` see `contrasts` for that).
        """
        pairs = plan.training if part == TRAINING else plan.evaluated
        return self._stored(pairs, lambda some: self.of(plan, some, part, setting))

    def evaluated_contrasts(self, plan: UnitPlan, setting: str) -> ExampleStore:
        """`contrasts` of all evaluated pairs."""
        return self._stored(plan.evaluated, lambda some: self.contrasts(plan, some, setting))

    def sample(self, plan: UnitPlan, setting: str) -> list[Example]:
        """As `examples`, of at most `SAMPLE_PAIRS` evaluated pairs: neighbours in the middle, which share prefixes."""
        start = max(0, len(plan.evaluated) - SAMPLE_PAIRS) // 2
        pairs = plan.evaluated[start : start + SAMPLE_PAIRS]
        return self._stored(pairs, lambda some: self.of(plan, some, EVALUATED, setting))[:]

    def _stored(
        self, pairs: Sequence[ContrastPair], make: Callable[[Sequence[ContrastPair]], list[Example]]
    ) -> ExampleStore:
        store = ExampleStore(self.scratch)
        for start in range(0, len(pairs), SURVEY_PAIRS):  # encoded pairs are large, and go block by block
            store.extend(make(pairs[start : start + SURVEY_PAIRS]))
        return store

    def of(self, plan: UnitPlan, pairs: Sequence[ContrastPair], part: str, setting: str) -> list[Example]:
        """As `examples`, of a few pairs."""
        read = self.spec.vectors.read
        if part == TRAINING and read == "last_prompt":
            return self.contrasts(plan, pairs, setting)
        made = [example_of(one, read) for one in self.encode(plan, pairs, setting)]
        if part == TRAINING:
            return made
        beyond = [() if read == "last_prompt" else one.reads for one in made]
        return [replace(one, reads=((0, one.branch - 1, one.branch), *more)) for one, more in zip(made, beyond)]

    def contrasts(self, plan: UnitPlan, pairs: Sequence[ContrastPair], setting: str) -> list[Example]:
        """Prompts of a few pairs with the positive and with the negative description, each read at its last token.

        The two prompts are the two options of an example that is only read, never scored.
        """
        one, other = contrast_settings(setting)
        both = zip(self.encode(plan, pairs, one), self.encode(plan, pairs, other))
        try:
            return [_contrast(left.prompt_ids, right.prompt_ids) for left, right in both]
        except InputError as error:
            raise InputError(f"dataset {plan.name}, settings {one} and {other}: {error}") from None

    def survey(
        self,
        units: Sequence[UnitPlan],
        layer_sets: Sequence[Sequence[int]],
        n_layers: int,
        step: Step = lambda done, total, what: None,
    ) -> Survey:
        """Encode everything once.

        Parameters
        ----------
        units : sequence of UnitPlan
        layer_sets : sequence of sequences of int
            Layers that are steered at once, to see whether the scope can act.
        n_layers : int
        step : callable (done, total, what)

        Raises
        ------
        InputError, ModelError
            With unit, setting, file and line of the first pair that cannot be built.
        """
        slots = np.array(layer_sets)
        steering = Steering(np.ones((*slots.shape, 1)), slots, np.array([1.0]), scope=self.spec.scope)
        longest, whole_only, unknown = Survey(0, "", "", "", 0), [], {}
        for done, plan in enumerate(units):
            step(done, len(units), f"encoding {plan.name}")
            parts = [(TRAINING, plan.training, name) for name in self.training_settings()]
            parts += [(EVALUATED, plan.evaluated, name) for name in self.spec.settings]
            apart, counted = True, Counter()
            for part, pairs, setting in parts:
                for start in range(0, len(pairs), SURVEY_PAIRS):
                    block = pairs[start : start + SURVEY_PAIRS]
                    encoded = self._surveyed(plan, block, part, setting, steering, n_layers)
                    sizes = np.array([max(map(len, one.options)) for one in encoded])
                    apart &= part == TRAINING or all(one.parts_at_once for one in encoded)
                    if part == EVALUATED:
                        counted.update(self._known(encoded))
                    if sizes.max() > longest.tokens:
                        index = int(sizes.argmax())
                        longest = Survey(int(sizes[index]), plan.name, part, setting, start + index)
            if not apart:
                whole_only.append(plan.name)
            share = counted["unknown"] / max(1, counted.total())
            if share > MUCH_UNKNOWN:
                unknown[plan.name] = round(share, 4)
        return replace(longest, whole_only=tuple(whole_only), unknown=unknown)

    def training_settings(self) -> tuple[str, ...]:
        """Settings in which training prompts are rendered: those of the descriptions, where these are contrasted."""
        settings = self.spec.training_settings()
        if self.spec.vectors.read != "last_prompt":
            return settings
        return tuple(dict.fromkeys(one for setting in settings for one in contrast_settings(setting)))

    def _surveyed(
        self,
        plan: UnitPlan,
        pairs: Sequence[ContrastPair],
        part: str,
        setting: str,
        steering: Steering,
        n_layers: int,
    ) -> list[EncodedPair]:
        """Encoded pairs that the steering acts on; where it cannot, the error names the pair."""
        encoded = self.encode(plan, pairs, setting)
        for pair, one in zip(pairs, encoded) if part == EVALUATED else ():
            try:
                steering.check_acts(example_of(one), n_layers, whole=self.spec.score in WHOLE)
            except SteerstatsError as error:
                raise _placed(error, plan, setting, pair) from error
        return encoded

    def _known(self, encoded: Sequence[EncodedPair]) -> Counter:
        """How many tokens of prompts with their first answers the tokenizer knows, and how many not."""
        ids = np.concatenate([one.options[0] for one in encoded])
        unknown = int((ids == self._unknown).sum())
        return Counter(known=len(ids) - unknown, unknown=unknown)

    def _check_length(self, plan: UnitPlan, setting: str, longest: int) -> None:
        """Learned positions end somewhere, and a lookup past them is a crash; rotary ones only lose quality."""
        if self.model is None:  # a count without the weights
            return
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or longest
        if longest <= limit:
            return
        what = f"a prompt has {longest} tokens, {self.spec.model.id} was made for {limit}"
        words = self.model.get_input_embeddings()
        tables = [m for m in self.model.modules() if isinstance(m, torch.nn.Embedding) and m is not words]
        if any(table.num_embeddings < longest for table in tables):
            raise ModelError(f"{what}; choose a model with more positions, or shorter prompts")
        self.length_notes[plan.name] = f"{plan.name}, {setting}: {what}: results past that length may be poor"


def _placed(error: SteerstatsError, plan: UnitPlan, setting: str, pair: ContrastPair) -> SteerstatsError:
    """The same error with the place of the pair before it, in one line."""
    return type(error)(f"{plan.name}, {setting}, {pair.place or pair.id}: {' '.join(str(error).split())}")


def contrast_settings(setting: str) -> tuple[str, str]:
    """The two settings whose prompts are contrasted for a setting with `read = "last_prompt"`.

    The descriptions stand where the setting has its own: before the question for user settings, else in the system
    text. `base` has none of its own, and takes the system text.
    """
    where = "user" if setting.startswith("user") else "sys"
    return f"{where}_pos", f"{where}_neg"


def provable(examples: Sequence[Example]) -> list[Example]:
    """Examples on which the engine can prove itself: equally many options of each, which go on past `branch`.

    Where one option begins another, the common beginning counts as one token shorter.
    """
    fewest = min(len(example.options) for example in examples)
    shortest = [min(map(len, example.options[:fewest])) for example in examples]
    if any(size <= example.prompt for size, example in zip(shortest, examples)):  # a completion without tokens
        return scorable(examples)
    branches = [min(example.branch, size - 1) for size, example in zip(shortest, examples)]
    return [_of_options(example, range(fewest), branch) for example, branch in zip(examples, branches)]


def scorable(examples: Sequence[Example]) -> list[Example]:
    """Examples that can be scored together at their first differing tokens: equally many options, each with its own.

    Where some completions do not part in one token, the longest of each example stands for all.
    """
    fewest = min(len(example.options) for example in examples)
    cut = [_of_options(example, range(fewest), example.branch) for example in examples]
    heads = [[tuple(ids[one.branch : one.branch + 1]) for ids in one.options] for one in cut]
    if all(() not in tokens and len(set(tokens)) == fewest for tokens in heads):
        return cut
    longest = [int(np.argmax([len(ids) for ids in example.options])) for example in examples]
    return [_of_options(example, [option], example.prompt) for example, option in zip(examples, longest)]


def _of_options(example: Example, options: Sequence[int], branch: int) -> Example:
    places, reads = {option: place for place, option in enumerate(options)}, []
    for option, start, stop in example.reads:
        if option in places or stop <= example.branch:  # up to there the tokens are any option's
            reads.append((places.get(option, 0), start, stop))
    return Example(tuple(example.options[option] for option in options), example.prompt, branch, tuple(reads))


def _contrast(left: Sequence[int], right: Sequence[int]) -> Example:
    both = np.array(left), np.array(right)
    size = min(map(len, both))
    differ = np.flatnonzero(both[0][:size] != both[1][:size])
    common = int(differ[0]) if len(differ) else size
    if common < 1 or np.array_equal(*both):
        raise InputError("prompts with the positive and with the negative description are the same, or share no token")
    reads = tuple((option, len(ids) - 1, len(ids)) for option, ids in enumerate(both))
    return Example(both, prompt=common, branch=common, reads=reads)
