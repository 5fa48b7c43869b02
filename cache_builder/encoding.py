"""Prompt and completion to token ids, and the places in them that matter.

Both are tokenised together, because a tokenizer may join the end of one to the start of the other. The two answers
share their tokens up to `first_diff`; a token that straddles the boundary belongs to the answer; activations are
read at the token that holds the first differing character.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from steerstats.errors import InputError, ModelError


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of a prompt with either completion.

    Parameters
    ----------
    ids_positive, ids_negative : tuple of int
        Prompt and completion.
    answer_start : int
        Index of the first token of the answer: the first that holds a character of it. At least 1.
    first_diff : int
        Index of the first token in which the two differ; the token before it predicts the answer.
    read_positive, read_negative : int
        Index of the token that holds the first differing character.
    straddles : bool
        Whether the first answer token also holds the end of the prompt.
    """

    ids_positive: tuple[int, ...]
    ids_negative: tuple[int, ...]
    answer_start: int
    first_diff: int
    read_positive: int
    read_negative: int
    straddles: bool

    @property
    def last_prompt(self) -> int:
        """Index of the last token that belongs to the prompt alone."""
        return self.answer_start - 1

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt's tokens, without a straddling one."""
        return self.ids_positive[: self.answer_start]


def encode_pair(tokenizer: Any, prompt: str, positive: str, negative: str, leading_space: bool = True) -> EncodedPair:
    """Encode one prompt with its two completions; see `encode_pairs`."""
    return encode_pairs(tokenizer, [prompt], [positive], [negative], leading_space)[0]


def encode_pairs(
    tokenizer: Any,
    prompts: Sequence[str],
    positives: Sequence[str],
    negatives: Sequence[str],
    leading_space: bool = True,
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

    Returns
    -------
    list of EncodedPair

    Raises
    ------
    ModelError
        More than one BOS token, or no prompt token before the answer.
    InputError
        Completions that do not differ, or of which one is the beginning of the other.
    """
    space = " " if leading_space else ""
    endings = [(space + positive, space + negative) for positive, negative in zip(positives, negatives, strict=True)]
    texts = [prompt + ending for prompt, pair in zip(prompts, endings, strict=True) for ending in pair]
    if not texts:
        return []
    ids, ends = _tokenise(tokenizer, texts)
    alone = None if ends else _tokenise(tokenizer, list(prompts))[0]
    encoded = []
    for k, (prompt, pair) in enumerate(zip(prompts, endings, strict=True)):
        both = (ids[2 * k], ids[2 * k + 1])
        first_diff = _common(*both)
        if first_diff >= min(map(len, both)):
            raise InputError(
                f"completions {pair[0]!r} and {pair[1]!r} have no token in which they differ: "
                f"one is the beginning of the other"
            )
        _one_bos(tokenizer, both[0], prompt)
        spans = ends[2 * k : 2 * k + 2] if ends else None
        encoded.append(_locate(both, spans, alone[k] if alone else None, prompt, pair, first_diff))
    return encoded


def require_steerable(pairs: Iterable[EncodedPair], scope: str) -> None:
    """Refuse a scope in which steering could not act on the score.

    Parameters
    ----------
    pairs : iterable of EncodedPair
    scope : {"last_prompt", "first_answer", "all", "prompt"}

    Raises
    ------
    ModelError
        If steering starts at the first answer token, and the answers differ in that very token: the token before
        it, which predicts it, is not steered, and every slope would be exactly zero.
    """
    if scope != "first_answer":
        return
    for pair in pairs:
        if pair.first_diff <= pair.answer_start:
            raise ModelError(
                "scope: first_answer cannot act here: this tokenizer makes the start of the answer one token, so the "
                "answers differ in their first token, which is predicted before steering begins; "
                "set scope = last_prompt"
            )


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
    both: tuple[list[int], list[int]],
    ends: list[list[int]] | None,
    alone: list[int] | None,
    prompt: str,
    pair: tuple[str, str],
    first_diff: int,
) -> EncodedPair:
    size = len(prompt)
    if ends is None:
        start = min(_common(alone, ids) for ids in both)
        reads, straddles = (first_diff, first_diff), start < len(alone)
    else:
        start = min(_holding(spans, size) for spans in ends)
        differing = size + _common(*pair)
        reads = tuple(max(_holding(spans, differing), first_diff) for spans in ends)
        straddles = any(_straddles(spans, start, size) for spans in ends)
    start = min(start, first_diff)
    if start < 1:
        raise ModelError("the rendered prompt has no token of its own before the answer; name a prompt.template")
    return EncodedPair(tuple(both[0]), tuple(both[1]), start, first_diff, *reads, straddles)


def _common(left: Sequence, right: Sequence) -> int:
    pairs = zip(left, right, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _holding(ends: list[int], position: int) -> int:
    return next((k for k, end in enumerate(ends) if end > position), len(ends) - 1)


def _straddles(ends: list[int], start: int, size: int) -> bool:
    return (ends[start - 1] if start else 0) < size


def _one_bos(tokenizer: Any, ids: list[int], prompt: str) -> None:
    bos = tokenizer.bos_token_id
    count = 0 if bos is None else ids.count(bos)
    if count > 1:
        raise ModelError(
            f"the rendered prompt has {count} BOS tokens ({tokenizer.bos_token}), it should have one: {prompt[:60]!r}"
        )
