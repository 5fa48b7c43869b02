"""Real prompts for the benchmarks: the paper's datasets in the paper's settings, in the form of Llama-2-chat.

No tokenizer is fetched: a byte-pair tokenizer is trained on the prompts themselves, so that prompt lengths come
close to those of a real one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cache_builder.datasets import load_dataset
from cache_builder.prompts.encoding import encode_pairs
from cache_builder.prompts.example_store import example_of
from cache_builder.prompts.settings import Description, load_descriptions

SYSTEM = "You are a helpful, honest and concise assistant."


def data_dir() -> Path | None:
    """The folder of source files, or None where it is not there."""
    place = Path(os.environ.get("STEERSTATS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    return place if place.is_dir() else None


def render(text: str, setting: str = "base", said: Description | None = None) -> str:
    """A user turn with its system text, as Llama-2-chat writes it."""
    place, _, sign = setting.partition("_")
    persona = "" if said is None else {"pos": said.positive, "neg": said.negative}.get(sign, "")
    system = persona if place == "sys" else SYSTEM
    user = f"{persona}\n\n{text}" if place == "user" else text
    return f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]"


def real_examples(names: Sequence[str], n: int, settings: Sequence[str] = ("base",), vocabulary: int = 2048):
    """Examples of each dataset, n pairs from its middle in each setting, with the paper's own descriptions.

    Returns
    -------
    dict of str to list of Example
        Setting by setting.
    """
    chosen, texts = {}, []
    table = load_descriptions(data_dir() / "steering-bench" / "persona_prompts.json")
    for name in names:
        pairs = load_dataset(name, data_dir=data_dir()).pairs
        texts += [render(pair.text) for pair in pairs[::3]]
        start = max(0, (len(pairs) - n) // 2)
        chosen[name] = [
            (render(p.text, s, table[name]), p.positive, p.negative) for s in settings for p in pairs[start : start + n]
        ]
    tokenizer = train_tokenizer(texts, vocabulary)
    return {name: [example_of(pair) for pair in encode_pairs(tokenizer, *zip(*rows))] for name, rows in chosen.items()}


def train_tokenizer(texts: Sequence[str], vocabulary: int):
    """A byte-level pair tokenizer with a begin token, trained on the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, " (A) (B)"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
