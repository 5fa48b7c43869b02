"""Small tokenizers of several kinds, built in the process, for tests of rendering and encoding."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

LINES = ["Do you agree? (A) (B) Choices:\n(A): Yes\n(B): No", "You are a helpful assistant.", "user system Answer:"] * 5

WITH_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>\n{{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + WITH_SYSTEM
)
INJECTING = "{% if messages[0].role != 'system' %}<system>\nYou are Tiny, made by Nobody.\n{% endif %}" + WITH_SYSTEM
DATED = "{% set today = strftime_now('%d %B %Y') %}Today is {{ today }}\n" + WITH_SYSTEM


def byte_level(template: str | None = WITH_SYSTEM, join: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2 and Llama 3 have it; `join` are strings that must become one token each."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(LINES, trainer)
    backend.add_tokens(list(join))
    return _wrap(backend, template)


def metaspace(template: str | None = WITH_SYSTEM) -> PreTrainedTokenizerFast:
    """Characters with a visible space put first, as sentencepiece tokenizers have it."""
    characters = sorted({c for line in LINES for c in line} | set("<>_|[]/"))
    vocabulary = {token: k for k, token in enumerate(["<unk>", "<s>", "</s>", "▁", *characters])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Replace("▁", " ")
    return _wrap(backend, template)


def words(template: str | None = WITH_SYSTEM) -> PreTrainedTokenizerFast:
    """One token a word or mark; spaces are dropped."""
    marks = pre_tokenizers.Split(Regex(r"[^\w\s]"), "isolated")
    split = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), marks])
    pieces = sorted({piece for line in LINES for piece, _ in split.pre_tokenize_str(line)} | set("()ABC<>:"))
    vocabulary = {token: k for k, token in enumerate(["<unk>", "<s>", "</s>", *pieces])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = split
    return _wrap(backend, template)


class Slow(PreTrainedTokenizer):
    """A tokenizer in plain Python, without offsets: characters, but some pairs joined greedily from the left."""

    JOINED = ("(A", "> ", "Ye")

    def __init__(self, joined: tuple[str, ...] = JOINED, **kwargs):
        self.pieces = [chr(k) for k in range(9, 127)] + list(joined)
        self.joined = joined
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="<unk>", **kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def get_vocab(self) -> dict[str, int]:
        return {piece: k for k, piece in enumerate(self.pieces)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        found = []
        while text:
            piece = next((p for p in self.joined if text.startswith(p)), text[0])
            found.append(piece)
            text = text[len(piece) :]
        return found

    def _convert_token_to_id(self, token: str) -> int:
        return self.pieces.index(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.pieces[index]


def _wrap(backend: Tokenizer, template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = template
    return tokenizer
