"""Prompt and completion to token ids, and the places in them that matter.

Both are tokenised together, because a tokenizer may join the end of one to the start of the other. The answers
share their tokens up to `first_diff`; a token that straddles the boundary belongs to the answer; activations are
read at the token that holds the first differing character.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steerstats.errors import InputError, ModelError


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of a prompt with each completion: the positive one, the negative one, and further wrong ones.

    Parameters
    ----------
    ids_positive, ids_negative : tuple of int
        Prompt and completion.
    answer_start : int
        Index of the first token of the answer: the first that holds a character of it. At least 1.
    first_diff : int
        Index of the first token in which not all completions agree; the token before it predicts the answer.
    read_positive, read_negative : int
        Index of the token that holds the first differing character.
    ids_others : tuple of tuple of int
        Prompt and each further wrong completion.
    read_others : tuple of int
        As `read_negative`.
    """

    ids_positive: tuple[int, ...]
    ids_negative: tuple[int, ...]
    answer_start: int
    first_diff: int
    read_positive: int
    read_negative: int
    ids_others: tuple[tuple[int, ...], ...] = ()
    read_others: tuple[int, ...] = ()

    @property
    def options(self) -> tuple[tuple[int, ...], ...]:
        """Token ids of every completion with its prompt, the positive one first."""
        return (self.ids_positive, self.ids_negative, *self.ids_others)

    @property
    def reads(self) -> tuple[int, ...]:
        """Where each of `options` holds its first differing character."""
        return (self.read_positive, self.read_negative, *self.read_others)

    @property
    def parts_at_once(self) -> bool:
        """Whether each completion has a token of its own at `first_diff`, so that one position scores them all."""
        heads = [ids[self.first_diff] for ids in self.options if len(ids) > self.first_diff]
        return len(set(heads)) == len(self.options)

    @property
    def last_prompt(self) -> int:
        """Index of the last token that belongs to the prompt alone."""
        return self.answer_start - 1

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt's tokens, without a straddling one."""
        return self.ids_positive[: self.answer_start]


def encode_pairs(
    tokenizer: Any,
    prompts: Sequence[str],
    positives: Sequence[str],
    negatives: Sequence[str],
    leading_space: bool = True,
    *,
    others: Sequence[Sequence[str]] | None = None,
    whole: bool = False,
) -> list[EncodedPair]:
    """Encode rendered prompts with their completions.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        Fast, or slow: without character offsets the boundary is found by comparing with the prompt's own tokens.
    prompts, positives, negatives : sequences of str
        Equally long.
    leading_space : bool
        Whether a space stands between prompt and completion.
    others : sequence of sequences of str, optional
        Further wrong completions of each prompt.
    whole : bool
        Completions are scored whole, so that they need no single token in which they part: one may begin another.

    Returns
    -------
    list of EncodedPair

    Raises
    ------
    ModelError
        Two BOS tokens at the beginning, or no prompt token before the answer.
    InputError
        Completions of the same tokens; without `whole` also those that do not part in one token, because one is the
        beginning of another, or two wrong ones begin with the same token.
    """
    space = " " if leading_space else ""
    more = [()] * len(prompts) if others is None else others
    endings = [
        tuple(space + text for text in (positive, negative, *rest))
        for positive, negative, rest in zip(positives, negatives, more, strict=True)
    ]
    texts = [prompt + ending for prompt, options in zip(prompts, endings, strict=True) for ending in options]
    if not texts:
        return []
    ids, ends = _tokenise(tokenizer, texts)
    alone = None if ends else _tokenise(tokenizer, list(prompts))[0]
    encoded, at = [], 0
    for k, (prompt, options) in enumerate(zip(prompts, endings, strict=True)):
        mine = slice(at, at + len(options))
        at = mine.stop
        _one_bos(tokenizer, ids[mine.start], prompt)
        pair = _locate(ids[mine], ends[mine] if ends else None, alone[k] if alone else None, prompt, options)
        _check_apart(pair, options, whole)
        encoded.append(pair)
    return encoded


def _check_apart(pair: EncodedPair, endings: Sequence[str], whole: bool) -> None:
    heads = [ids[pair.first_diff : pair.first_diff + 1] for ids in pair.options]
    for i, j in itertools.combinations(range(len(heads)), 2):
        if pair.options[i] == pair.options[j]:
            why = "they are the same tokens"
        elif whole or (heads[i] != heads[j] and heads[i] and heads[j]):
            continue
        elif heads[i] == heads[j]:
            why = 'they begin alike; write them apart, or score whole completions (score = "logprob_sum")'
        else:
            why = 'one is the beginning of the other; score whole completions (score = "logprob_sum")'
        raise InputError(f"completions {endings[i]!r} and {endings[j]!r} have no token in which they differ: {why}")


def _tokenise(tokenizer: Any, texts: list[str]) -> tuple[list[list[int]], list[list[int]] | None]:
    fast = bool(getattr(tokenizer, "is_fast", False))
    extra = {"return_offsets_mapping": True} if fast else {}
    batch = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, **extra
    )
    if not fast:
        return batch["input_ids"], None
    # only the ends: a tokenizer that trims spaces from offsets moves the starts, never the ends
    return batch["input_ids"], [[end for _, end in spans] for spans in batch["offset_mapping"]]


def _locate(
    ids: list[list[int]], ends: list[list[int]] | None, alone: list[int] | None, prompt: str, endings: Sequence[str]
) -> EncodedPair:
    size = len(prompt)
    first_diff = min(_common(ids[0], other) for other in ids[1:])
    if ends is None:
        start = min(_common(alone, one) for one in ids)
        reads = [first_diff] * len(ids)
    else:
        start = min(_holding(spans, size) for spans in ends)
        differing = size + min(_common(endings[0], other) for other in endings[1:])
        reads = [max(_holding(spans, differing), first_diff) for spans in ends]
    # where one completion is the beginning of another, its last token is the nearest to the difference
    reads = [min(at, len(one) - 1) for at, one in zip(reads, ids)]
    start = min(start, first_diff)
    if start < 1:
        raise ModelError("the rendered prompt has no token of its own before the answer; name a prompt.template")
    positive, negative, *others = map(tuple, ids)
    return EncodedPair(positive, negative, start, first_diff, *reads[:2], tuple(others), tuple(reads[2:]))


def _common(left: Sequence, right: Sequence) -> int:
    pairs = zip(left, right, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _holding(ends: list[int], position: int) -> int:
    return next((k for k, end in enumerate(ends) if end > position), len(ends) - 1)


def _one_bos(tokenizer: Any, ids: list[int], prompt: str) -> None:
    """Refuse a doubled beginning; further on some templates have the token open each turn, or end it."""
    bos = tokenizer.bos_token_id
    if bos is not None and list(ids[:2]) == [bos, bos]:
        raise ModelError(
            f"the rendered prompt begins with two BOS tokens ({tokenizer.bos_token}) and not with one: {prompt[:60]!r}"
        )
