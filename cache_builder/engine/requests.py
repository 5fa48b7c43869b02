"""What is asked of the engine and what it answers: examples, steering, scores. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steerstats.errors import InputError, ModelError

SCOPES = ("last_prompt", "first_answer", "all", "prompt")
OPERATORS = ("add", "add_keep_norm", "ablate", "ablate_add")
SCORES = ("logit_diff", "logprob_sum", "logit_sum", "probability", "answer_mass")
READS = ("answer", "last_token", "last_prompt", "completion_mean")


@dataclass(frozen=True, slots=True)
class Example:
    """One input: the same prompt with each answer option appended, as token ids.

    Parameters
    ----------
    options : tuple of int arrays
        Token ids of prompt and completion together, one array per option, the positive option first.
    prompt : int
        Number of prompt tokens: the last prompt token is at `prompt - 1`, the first answer token at `prompt`.
        A token that straddles the boundary belongs to the answer.
    branch : int
        Length of the common prefix: index of the first token at which the options differ.
    reads : tuple of (option, start, stop)
        Where unsteered activations are read; the mean over the tokens start..stop-1 of that option. Default:
        the token at `branch`, of every option.

    Raises
    ------
    InputError
        If the indices do not fit the token ids.
    """

    options: tuple[np.ndarray, ...]
    prompt: int
    branch: int
    reads: tuple[tuple[int, int, int], ...] | None = None

    def __post_init__(self) -> None:
        options = tuple(np.asarray(ids, dtype=np.int64) for ids in self.options)
        object.__setattr__(self, "options", options)
        if not options or not 1 <= self.prompt <= self.branch:
            raise InputError(
                f"an example needs an option and 1 <= prompt <= branch; got {len(options)} options, "
                f"prompt {self.prompt}, branch {self.branch}"
            )
        for index, ids in enumerate(options):
            if len(ids) < self.branch or not np.array_equal(ids[: self.branch], options[0][: self.branch]):
                raise InputError(f"option {index} does not share the first {self.branch} tokens with option 0")
        if self.reads is None:
            reads = tuple((i, self.branch, self.branch + 1) for i in range(len(options)))
            object.__setattr__(self, "reads", reads)
        for option, start, stop in self.reads:
            if not 0 <= option < len(options) or not 0 <= start < stop <= len(options[option]):
                raise InputError(f"a read at option {option}, tokens {start}:{stop} lies outside the example")


@dataclass(frozen=True, slots=True)
class Steering:
    """A grid of steering vectors and multipliers, and how they act.

    Parameters
    ----------
    directions : float array (n_vectors, n_slots, hidden)
        One direction for each layer that a vector steers at once (usually one slot).
    layers : int array (n_vectors, n_slots)
        Decoder block whose output the slot steers; layer L is `hidden_states[L + 1]`.
    multipliers : float array (n_multipliers,)
    operator : str
        With h the activation, v the direction, u = v/|v| and x the multiplier: "add" is h + x v;
        "add_keep_norm" is (h + x v) |h| / |h + x v|; "ablate" is h - x (h.u) u (x = 1 removes the direction);
        "ablate_add" is h - (h.u) u + x v.
    scope : str
        Tokens that are steered: "last_prompt" from the last prompt token on, "first_answer" from the first
        answer token on, "all", or "prompt", its tokens only.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, or operator or scope is unknown.
    """

    directions: np.ndarray
    layers: np.ndarray
    multipliers: np.ndarray
    operator: str = "add"
    scope: str = "last_prompt"

    def __post_init__(self) -> None:
        directions = np.asarray(self.directions, dtype=np.float32)
        layers = np.asarray(self.layers, dtype=np.int64)
        if directions.ndim == 2:
            directions = directions[:, None]
        if layers.ndim < 2:
            layers = np.broadcast_to(layers.reshape(-1, 1), directions.shape[:2])
        if directions.ndim != 3 or directions.shape[:2] != layers.shape:
            raise InputError(
                f"directions have shape {directions.shape} and layers {layers.shape}; "
                "they have to be (vectors, slots, hidden) and (vectors, slots)"
            )
        if not np.isfinite(directions).all():
            raise InputError(f"steering vector {int(np.argwhere(~np.isfinite(directions))[0][0])} is not finite")
        for vector, row in enumerate(layers):
            if len(set(row.tolist())) < len(row):
                raise InputError(f"vector {vector} names a layer twice: {row.tolist()}")
        if self.operator not in OPERATORS:
            raise InputError(f"operator {self.operator!r} is not one of {', '.join(OPERATORS)}")
        if self.scope not in SCOPES:
            raise InputError(f"scope {self.scope!r} is not one of {', '.join(SCOPES)}")
        if self.operator.startswith("ablate") and not np.linalg.norm(directions, axis=-1).all():
            raise InputError(f"operator {self.operator!r} needs directions of non-zero norm")
        multipliers = np.asarray(self.multipliers, dtype=np.float64).reshape(-1)
        if not np.isfinite(multipliers).all():
            raise InputError(f"multipliers {multipliers.tolist()} have to be finite")
        for name, value in (("directions", directions), ("layers", layers), ("multipliers", multipliers)):
            object.__setattr__(self, name, value)

    @property
    def codes(self) -> np.ndarray:
        """Steering code (n_vectors, n_multipliers) of each cell; 0 where nothing is changed.

        A multiplier of zero leaves the unsteered model under every operator but "ablate_add".
        """
        codes = np.zeros((len(self.directions), len(self.multipliers)), dtype=np.int64)
        acting = np.broadcast_to((self.multipliers != 0) | (self.operator == "ablate_add"), codes.shape)
        codes[acting] = np.arange(1, acting.sum() + 1)
        return codes

    @property
    def n_codes(self) -> int:
        """Number of steering codes, the unsteered code 0 included."""
        return int(self.codes.max(initial=0)) + 1

    @property
    def first_layers(self) -> np.ndarray:
        """First layer (n_codes,) that each steering code steers; -1 for the unsteered code 0."""
        codes = self.codes
        first = np.full(self.n_codes, -1, dtype=np.int64)
        vector, column = np.nonzero(codes)
        first[codes[vector, column]] = self.layers.min(axis=1)[vector]
        return first

    def steered_span(self, example: Example) -> tuple[int, int | None]:
        """First steered token and one past the last (None: to the end) of an example under the scope."""
        return {
            "last_prompt": (example.prompt - 1, None),
            "first_answer": (example.prompt, None),
            "all": (0, None),
            "prompt": (0, example.prompt),
        }[self.scope]

    def check_acts(self, example: Example, n_layers: int, *, whole: bool = False) -> None:
        """Refuse a vector whose slope could only be zero: what it steers reaches no position that decides the score.

        Parameters
        ----------
        example : Example
        n_layers : int
            Decoder blocks of the model.
        whole : bool
            Completions are scored whole, so that every position counts that predicts a token past their common
            beginning; else the one alone that predicts the first differing token.

        Raises
        ------
        ModelError
            With the remedy.
        """
        start, stop = self.steered_span(example)
        first = last = example.branch - 1
        if whole:
            last = max(len(ids) for ids in example.options) - 2
        if start > last:
            already = "the last token of every completion" if whole else "the first differing token"
            raise ModelError(
                f"scope {self.scope!r} cannot act: steering begins at token {start}, but token {last} already "
                f"predicts {already} (the tokenizer joins the opening bracket and the letter?); "
                "steer from the last prompt token (scope = 'last_prompt')"
            )
        # Past the steered tokens only attention in a later block carries on what steering changed.
        if stop is not None and stop <= first and n_layers - 1 in self.layers.min(axis=1):
            raise ModelError(
                f"scope {self.scope!r} cannot act at layer {n_layers - 1}, the last: no later block reads the steered "
                "tokens, and none of them predicts the answer; leave that layer out, or steer from the last prompt "
                "token (scope = 'last_prompt')"
            )


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the engine; the parameters are those of `Engine.run`."""

    examples: Sequence[Example]
    steering: Steering | None = None
    completions: bool = False
    read_layers: tuple[int, ...] = ()
    first: bool = True


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one run of the engine returns. Code 0 is the unsteered model; logits are nats, float32.

    Parameters
    ----------
    logits : (n_examples, n_codes, n_options)
        Logit of each option's first differing token, at the position that predicts it.
    logsumexp : (n_examples, n_codes)
        Log-sum-exp over the vocabulary at that position.
    completion_logit, completion_logprob : (n_examples, n_codes, n_options) or None
        Sums over all answer tokens, the closing ones included, of raw logits and of log-probabilities.
    activations : (n_examples, n_reads, n_layers, hidden) or None
        Unsteered activations at each example's reads; NaN past an example's own number of reads.
    layers : tuple of int
        Layers of `activations`.
    computed, packed : float
        Tokens that went through the model, padding included and without it. A token that went through some of the
        blocks counts as that part of one.
    """

    logits: np.ndarray
    logsumexp: np.ndarray
    completion_logit: np.ndarray | None = None
    completion_logprob: np.ndarray | None = None
    activations: np.ndarray | None = None
    layers: tuple[int, ...] = ()
    computed: float = 0.0
    packed: float = 0.0

    def propensity(self, score: str = "logit_diff") -> np.ndarray:
        """One number per example and code, (n_examples, n_codes).

        "logit_diff" (first differing token), "logprob_sum" and "logit_sum" (whole completions) are log odds of
        the first option against the others (with two options: the difference), in nats. "probability" is the
        first option's share of the probability of all options, and "answer_mass" the probability of all options
        together, both at the first differing token.
        """
        if score not in SCORES:
            raise InputError(f"score {score!r} is not one of {', '.join(SCORES)}")
        if score == "answer_mass":
            return np.exp(np.logaddexp.reduce(self.logits, axis=2) - self.logsumexp)
        sums = {"logprob_sum": self.completion_logprob, "logit_sum": self.completion_logit}
        values = sums.get(score, self.logits)
        if values is None:
            raise InputError(f"score {score!r} needs a run with completions=True")
        odds = values[..., 0] - np.logaddexp.reduce(values[..., 1:].astype(np.float64), axis=2)
        return (1 / (1 + np.exp(-odds)) if score == "probability" else odds).astype(np.float32)


def read_spans(mode: str, lengths: Sequence[int], prompt: int, branch: int) -> tuple[tuple[int, int, int], ...]:
    """`Example.reads` for one of the named places, one read per option.

    Parameters
    ----------
    mode : str
        "answer": the token at `branch`; "last_token": each option's last token; "last_prompt": the last prompt
        token (the same for all options of one prompt); "completion_mean": the mean over all answer tokens.
    lengths : sequence of int
        Tokens of each option, prompt included.
    prompt, branch : int
        As in `Example`.
    """
    if mode not in READS:
        raise InputError(f"read {mode!r} is not one of {', '.join(READS)}")
    spans = {
        "answer": lambda length: (branch, branch + 1),
        "last_token": lambda length: (length - 1, length),
        "last_prompt": lambda length: (prompt - 1, prompt),
        "completion_mean": lambda length: (prompt, length),
    }
    return tuple((option, *spans[mode](length)) for option, length in enumerate(lengths))


def check_examples(examples: Sequence[Example], *, first_token: bool) -> None:
    """Same number of options everywhere, and distinct first differing tokens where they are scored.

    Raises
    ------
    InputError
        Naming the example.
    """
    if not examples:
        raise InputError("no examples to run")
    for index, example in enumerate(examples):
        if len(example.options) != len(examples[0].options):
            raise InputError(
                f"example {index} has {len(example.options)} options, example 0 has {len(examples[0].options)}"
            )
        if not first_token:
            continue
        heads = [ids[example.branch] if len(ids) > example.branch else None for ids in example.options]
        if None in heads or len(set(heads)) < len(heads):
            raise InputError(
                f"example {index}: the options' tokens at position {example.branch} are {heads}; every option needs "
                "one of its own there (is one option the beginning of another?)"
            )
