"""Prompt and completion as tokens: where the answer begins, where the two part, where activations are read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import Slow, byte_level, metaspace, words
from tokenizers.processors import TemplateProcessing

from cache_builder.prompts.encoding import encode_pairs
from steerstats.errors import InputError, ModelError

PROMPT = "<s><user>\nDo you agree?\n<assistant>"
_BYTES = byte_level()
MAKERS = {"byte_level": byte_level, "metaspace": metaspace, "words": words, "slow": lambda: Slow(())}


def encode_pair(tokenizer, prompt, positive, negative, leading_space=True, *, others=(), whole=False):
    return encode_pairs(tokenizer, [prompt], [positive], [negative], leading_space, others=[others], whole=whole)[0]


def pieces(tokenizer, ids) -> list[str]:
    return [tokenizer.decode([i]) for i in ids]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("space", [True, False])
def test_the_letter_is_where_the_answers_part_and_where_activations_are_read(kind, space):
    tokenizer = MAKERS[kind]()
    pair = encode_pair(tokenizer, PROMPT, "(A)", "(B)", leading_space=space)
    assert tokenizer.decode([pair.ids_positive[pair.first_diff]]) == "A"
    assert tokenizer.decode([pair.ids_negative[pair.first_diff]]) == "B"
    assert pair.read_positive == pair.read_negative == pair.first_diff
    assert pair.ids_positive[: pair.first_diff] == pair.ids_negative[: pair.first_diff]
    answer = "".join(pieces(tokenizer, pair.ids_positive[pair.answer_start :]))
    assert answer.strip(" ") == "(A)"
    assert tokenizer.decode([pair.ids_positive[pair.last_prompt]]) == ">"
    assert pair.prompt_ids == tuple(tokenizer(PROMPT, add_special_tokens=False)["input_ids"])


def test_a_tokenizer_that_joins_bracket_and_letter_moves_the_branch():
    tokenizer = byte_level(join=("(A", "(B"))
    pair = encode_pair(tokenizer, PROMPT, "(A)", "(B)", leading_space=False)
    assert pieces(tokenizer, pair.ids_positive[pair.answer_start :]) == ["(A", ")"]
    assert pair.first_diff == pair.answer_start == pair.read_positive


def test_a_token_that_straddles_the_boundary_belongs_to_the_answer():
    tokenizer = byte_level(join=(":(",))
    pair = encode_pair(tokenizer, "Answer:", "(A)", "(B)", leading_space=False)
    assert pieces(tokenizer, pair.ids_positive[pair.answer_start :]) == [":(", "A", ")"]
    assert pair.first_diff == pair.answer_start + 1


def test_a_boundary_that_only_one_answer_straddles():
    tokenizer = byte_level(join=(":(A",))
    pair = encode_pair(tokenizer, "Answer:", "(A)", "(B)", leading_space=False)
    assert pair.first_diff == pair.answer_start
    assert tokenizer.decode([pair.ids_positive[pair.answer_start]]) == ":(A"
    assert tokenizer.decode([pair.ids_negative[pair.answer_start]]) == ":"
    # the negative answer's B comes two tokens later, and that is where its activation is read
    assert tokenizer.decode([pair.ids_negative[pair.read_negative]]) == "B"
    assert pair.read_positive == pair.first_diff


def test_without_offsets_the_prompts_own_tokens_tell_the_boundary():
    tokenizer = Slow()
    pair = encode_pair(tokenizer, "Sure> ", "(A)", "(B)", leading_space=False)
    assert tokenizer.convert_ids_to_tokens(list(pair.ids_positive)) == ["S", "u", "r", "e", "> ", "(A", ")"]
    assert (pair.answer_start, pair.first_diff) == (5, 5)
    late = encode_pair(tokenizer, "Sure>", "(A)", "(B)", leading_space=True)
    assert late.answer_start == 4
    assert tokenizer.convert_ids_to_tokens([late.ids_positive[late.answer_start]]) == ["> "]


def test_completions_of_different_lengths():
    tokenizer = byte_level()
    pair = encode_pair(tokenizer, PROMPT, "Yes, I agree", "No")
    assert len(pair.ids_positive) > len(pair.ids_negative)
    assert tokenizer.decode(list(pair.ids_negative[pair.answer_start :])) == " No"


@settings(deadline=None)
@given(
    prompt=st.text(min_size=1, max_size=20),
    stem=st.text(max_size=6),
    ends=st.tuples(st.characters(), st.characters()).filter(lambda two: two[0] != two[1]),
)
def test_on_any_text_the_pieces_add_up_and_the_indices_are_in_order(prompt, stem, ends):
    tokenizer = _BYTES
    if "<s>" in prompt or any(0xD800 <= ord(c) < 0xE000 for c in prompt + stem + "".join(ends)):
        return
    positive, negative = (f"{stem}{end}." for end in ends)
    pair = encode_pair(tokenizer, f"{prompt}:", positive, negative)
    for ids, text, read in (
        (pair.ids_positive, positive, pair.read_positive),
        (pair.ids_negative, negative, pair.read_negative),
    ):
        assert tokenizer.decode(list(ids)) == f"{prompt}: {text}"
        assert 1 <= pair.answer_start <= pair.first_diff <= read < len(ids)
    head = tokenizer.decode(list(pair.prompt_ids))
    assert f"{prompt}:".startswith(head.rstrip("\ufffd"))


def test_two_bos_tokens_at_the_beginning_are_an_error():
    with pytest.raises(ModelError, match=r"begins with two BOS tokens \(<s>\) and not with one"):
        encode_pairs(byte_level(), ["hello:", "<s><s>hello:"], ["(A)"] * 2, ["(B)"] * 2)


def test_a_tokenizer_that_opens_every_text_adds_nothing_to_what_its_template_wrote():
    tokenizer = byte_level()
    opens = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = opens
    assert tokenizer("hello:")["input_ids"][0] == tokenizer.bos_token_id
    for prompt, count in (("<s>hello:", 1), ("hello:", 0)):
        assert encode_pair(tokenizer, prompt, "(A)", "(B)").prompt_ids.count(tokenizer.bos_token_id) == count


@pytest.mark.parametrize("prompt", ["<s>user\nHello?</s>\n<s>assistant\n", "user: Hello?<s>\nassistant:<s>"])
def test_a_bos_token_may_open_or_end_each_turn(prompt):
    pair = encode_pair(byte_level(), prompt, "(A)", "(B)")
    assert pair.prompt_ids == tuple(byte_level()(prompt, add_special_tokens=False)["input_ids"])
    assert pair.prompt_ids.count(byte_level().bos_token_id) == 2


def test_completions_that_do_not_part_are_an_error():
    for two in (("(A)", "(A)"), ("Yes", "Yes,")):
        with pytest.raises(InputError, match="have no token in which they differ"):
            encode_pair(metaspace(), PROMPT, *two)


def test_whole_completions_may_begin_one_another_and_are_read_at_their_last_token_then():
    tokenizer = metaspace()
    pair = encode_pair(tokenizer, PROMPT, "Yes", "Yes, I do", whole=True)
    assert pair.first_diff == len(pair.ids_positive)
    assert not pair.parts_at_once
    assert pair.read_positive == len(pair.ids_positive) - 1
    assert pair.read_negative == pair.first_diff
    turned = encode_pair(tokenizer, PROMPT, "Yes, I do", "Yes", whole=True)
    assert (turned.first_diff, turned.reads) == (pair.first_diff, pair.reads[::-1])
    with pytest.raises(InputError, match="they are the same tokens"):
        encode_pair(tokenizer, PROMPT, "Yes", "Yes", whole=True)


def test_several_wrong_completions_share_one_branch():
    tokenizer = byte_level()
    pair = encode_pair(tokenizer, PROMPT, "(A)", "(B)", others=["(C)", "(D)"])
    assert [tokenizer.decode([ids[pair.first_diff]]) for ids in pair.options] == ["A", "B", "C", "D"]
    assert pair.reads == (pair.first_diff,) * 4
    assert pair.parts_at_once
    two = encode_pair(tokenizer, PROMPT, "(A)", "(B)")
    assert (two.ids_positive, two.ids_negative) == pair.options[:2]
    with pytest.raises(InputError, match=r"' No' and ' Not' have no token in which they differ: they begin alike"):
        encode_pair(tokenizer, PROMPT, "Yes", "No", others=["Not"])
    assert not encode_pair(tokenizer, PROMPT, "Yes", "No", others=["Not"], whole=True).parts_at_once
    third = encode_pair(tokenizer, PROMPT, "(A)", "(B)", leading_space=False, others=["No"], whole=True)
    assert third.first_diff == third.answer_start, "where the third parts from both"
    assert third.reads == (third.first_diff,) * 3


def test_a_prompt_without_a_token_of_its_own_is_an_error():
    with pytest.raises(ModelError, match="no token of its own before the answer"):
        encode_pair(byte_level(), "", "(A)", "(B)")


def test_a_batch_is_its_members():
    tokenizer = byte_level()
    prompts = [PROMPT, "Short:", "A longer one, with more words in it:"]
    batch = encode_pairs(tokenizer, prompts, ["(A)", "(B)", "Yes"], ["(B)", "(A)", "No"])
    assert batch[1] == encode_pair(tokenizer, prompts[1], "(B)", "(A)")
    assert batch[2] == encode_pair(tokenizer, prompts[2], "Yes", "No")
    assert encode_pairs(tokenizer, [], [], []) == []


class Retokenising:
    """Stands for a tokenizer whose choice of an answer reaches back into the prompt."""

    is_fast, bos_token_id = True, None

    def __call__(self, texts, **kwargs):
        ids = [[1, 2, 3, 4], [1, 9, 5]]
        ends = [[(0, 1), (1, 2), (2, 3), (3, 4)], [(0, 1), (1, 3), (3, 4)]]
        return {"input_ids": ids, "offset_mapping": ends}


def test_tokens_of_the_prompt_that_depend_on_the_answer_belong_to_the_answer():
    pair = encode_pair(Retokenising(), "abc", "A", "B", leading_space=False)
    assert (pair.answer_start, pair.first_diff) == (1, 1)
    assert (pair.read_positive, pair.read_negative) == (3, 2)
