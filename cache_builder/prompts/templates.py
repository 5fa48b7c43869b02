"""Chat templates of our own, for tokenizers that bring none. A spec names one; none is chosen silently.

Jinja, with `messages` (an optional system turn and one user turn), `add_generation_prompt`, and `add_bos`: whether
the tokenizer would put a BOS token first by itself, which it is not asked to do.
"""

from __future__ import annotations

_BOS = "{% if add_bos %}{{ bos_token }}{% endif %}"
_SPLIT = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
)

TEMPLATES: dict[str, str] = {
    # text alone, for base models: system text, question, and the word that asks for an answer
    "plain": (
        _BOS + _SPLIT + "{% if system %}{{ system + '\n\n' }}{% endif %}"
        "{% for turn in turns %}{{ turn['content'] + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
    ),
    # Llama-2-chat: the system text inside the first instruction
    "llama-2": (
        _BOS + _SPLIT + "{% for turn in turns %}"
        "{{ '[INST] ' }}"
        "{% if loop.first and system %}{{ '<<SYS>>\n' + system + '\n<</SYS>>\n\n' }}{% endif %}"
        "{{ turn['content'] + ' [/INST]' }}"
        "{% endfor %}"
    ),
    # ChatML: Qwen and many others
    "chatml": (
        _BOS + "{% for turn in messages %}"
        "{{ '<|im_start|>' + turn['role'] + '\n' + turn['content'] + '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}
