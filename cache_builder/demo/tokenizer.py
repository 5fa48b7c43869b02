"""The micro model's tokenizer: one token a word, one a mark of punctuation, and a chat template.

White space separates and is dropped, so `(A)` and ` (A)` are the same three tokens, and the letter is the
first token in which two answers differ.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import WordPiece
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, Whitespace
from transformers import PreTrainedTokenizerFast

from cache_builder.demo.compose import all_texts

SPECIAL = ("<pad>", "<unk>", "<bos>", "<end>", "<system>", "<user>", "<assistant>")

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('roles are system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<' + message['role'] + '>' + message['content'] + '<end>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer over all words of `cache_builder.demo.words`.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        With the chat template. It adds no special tokens of its own: the template writes the one `<bos>`.
    """
    split = Sequence([Whitespace(), Split(Regex(r"[^\w\s]"), "isolated")])
    words = sorted({piece for text in all_texts() for piece, _ in split.pre_tokenize_str(text)})
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *words])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = split
    backend.decoder = WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<system>", "<user>", "<assistant>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )


def render(messages: list[dict[str, str]]) -> str:
    """What the chat template renders, with a generation prompt; plain Python, for speed in training.

    Parameters
    ----------
    messages : list of dict
        `role` and `content`.

    Returns
    -------
    str
    """
    return "<bos>" + "".join(f"<{m['role']}>{m['content']}<end>" for m in messages) + "<assistant>"
