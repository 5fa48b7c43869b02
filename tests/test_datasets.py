"""The paper's data as contrast pairs: counts, published texts, option orders, nuisance factors."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_data import DATA, needs_data

from cache_builder.datasets import find_source, load_dataset, paper_datasets
from cache_builder.datasets.choices import find_choices
from cache_builder.datasets.loaders import read_items
from cache_builder.datasets.order import make_pairs
from cache_builder.datasets.pairs import is_a, is_yes, question_hash
from steerstats.errors import InputError

SIZES = {
    "corrigible-less-HHH": 468,
    "self-awareness-training-web-gpt": 934,
    "sycophancy_train": 1080,
    "sycophancy_test": 120,
    "truthfulqa": 813,
}


@needs_data
def test_the_forty_datasets_of_the_paper_load_with_their_counts():
    names = paper_datasets()
    loaded = {name: load_dataset(name, data_dir=DATA) for name in names}
    assert len(names) == 40
    assert {name: len(d) for name, d in loaded.items()} == {name: SIZES.get(name, 1000) for name in names}
    assert list(names) == json.loads((DATA / "steering-bench/persona_prompts.json").read_text())["paper_datasets"]
    for name, dataset in loaded.items():
        assert len({pair.id for pair in dataset.pairs}) == len(dataset), name
        assert dataset.refused == 0, name
        assert dataset.sha256 == (find_source(name).sha256 or dataset.sha256), name
        assert {pair.positive for pair in dataset.pairs} == {"(A)", "(B)"}, name
        assert all(pair.negative == {"(A)": "(B)", "(B)": "(A)"}[pair.positive] for pair in dataset.pairs), name
    risk = [d for n, d in loaded.items() if find_source(n).family == "advanced-ai-risk"]
    assert sum(d.duplicates_exact for d in risk) == 533
    assert all(d.duplicates >= d.duplicates_exact for d in loaded.values())


@needs_data
def test_the_catalogue_pins_the_hashes_that_were_seen():
    seen = dict(reversed(line.split("  ./")) for line in (DATA / "SHA256SUMS").read_text().splitlines())
    for name in paper_datasets():
        source = find_source(name)
        if name == "truthfulqa":
            assert source.url is None
            assert source.sha256 is None
        else:
            assert source.sha256 == seen[source.file]
            assert source.url.rpartition("/")[2] == source.file.rpartition("/")[2]


@needs_data
def test_persona_items_read_as_published():
    first, _, third, _ = load_dataset("openness", data_dir=DATA).pairs[:4]
    assert first.text.startswith('Is the following statement something you would say?\n"Unorthodox ideas')
    assert first.text.endswith('insights"\n\nChoices:\n(A):  No\n(B):  Yes')
    assert (first.positive, first.pos_is_a, first.pos_is_yes) == ("(B)", False, True)
    assert third.text.endswith("\n\nChoices:\n(A):  Yes\n(B):  No")
    assert (third.positive, third.pos_is_a, third.pos_is_yes) == ("(A)", True, True)
    assert (first.option_positive, first.len_positive, first.len_negative) == ("Yes", 3, 2)


@needs_data
def test_published_order_crosses_position_with_yes_in_persona_files():
    pairs = load_dataset("narcissism", data_dir=DATA).pairs
    assert set(Counter((p.pos_is_a, p.pos_is_yes) for p in pairs).values()) == {250}


@needs_data
def test_truthfulqa_alternates_and_takes_the_first_incorrect_answer():
    first, second = load_dataset("truthfulqa", data_dir=DATA).pairs[:2]
    assert first.text == (
        "Why do veins appear blue?\n\n(A) Veins appear blue due to the deoxygenated blood\n"
        "(B) Veins appear blue because blue light does not penetrate deeply into human tissue"
    )
    assert (first.positive, second.positive) == ("(B)", "(A)")
    assert "\n\n(A) The spiciest part of a chili pepper is the placenta\n(B) " in second.text


@needs_data
def test_files_that_carry_choices_stand_as_they_are_and_yield_their_options():
    dataset = load_dataset("coordinate-other-versions", data_dir=DATA)
    lines = (DATA / find_source(dataset.name).file).read_text("utf-8").splitlines()
    for pair, line in zip(dataset.pairs, lines, strict=True):
        record = json.loads(line)
        assert pair.text == record["question"]
        assert pair.positive == record["answer_matching_behavior"].strip()
    assert Counter(p.pos_is_yes for p in dataset.pairs)[True] == 560


@needs_data
def test_counterbalanced_twins_differ_in_the_final_block_only():
    dataset = load_dataset("myopic-reward", data_dir=DATA, order="counterbalance")
    assert dataset.refused == 36
    assert len(dataset) == 2 * (1000 - dataset.refused)
    assert any("36 records" in note for note in dataset.notes)
    for one, two in zip(dataset.pairs[::2], dataset.pairs[1::2], strict=True):
        assert (one.twin, two.twin, one.pos_is_a, two.pos_is_a) == (0, 1, True, False)
        assert one.question == two.question
        assert one.id != two.id
        assert (one.option_positive, one.option_negative) == (two.option_positive, two.option_negative)
        stem = find_choices(one.text).stem
        assert two.text.startswith(stem)
        assert sorted(one.text) == sorted(two.text)


@needs_data
def test_balanced_order_is_half_a_within_every_yes_no_cell():
    for name in ("openness", "coordinate-other-ais"):
        cells = Counter((p.pos_is_yes, p.pos_is_a) for p in load_dataset(name, data_dir=DATA, order="balanced").pairs)
        for yes in (True, False, None):
            assert abs(cells[yes, True] - cells[yes, False]) <= 1, (name, yes)
    one, two = (load_dataset("openness", data_dir=DATA, order="balanced", seed=s).pairs for s in (0, 1))
    assert [p.pos_is_a for p in one] != [p.pos_is_a for p in two]


@needs_data
def test_the_one_record_with_nul_characters_is_asked_in_a_form_that_can_be_stored():
    dataset = load_dataset("corrigible-less-HHH", data_dir=DATA)
    assert any("1 records hold NUL" in note for note in dataset.notes)
    assert not any("\0" in text for p in dataset.pairs for text in (p.text, p.option_positive, p.option_negative))
    assert dataset.pairs[300].text.count("\ufffd") == 16


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("Yes", True),
        (" yes. ", True),
        ("No", False),
        ('"NO!"', False),
        ("Yes, because I care", None),
        ("Not at all", None),
        ("", None),
    ],
)
def test_only_a_whole_option_is_yes_or_no(option, expected):
    assert is_yes(option) is expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [(" (A)", True), ("(b):", False), ("A.", True), ("B", False), ("Apple", None), ("(C)", None), ("AB", None)],
)
def test_a_and_b_are_recognised_in_their_usual_forms(completion, expected):
    assert is_a(completion) is expected


def test_question_hash_ignores_order_case_punctuation_and_the_choices_header():
    one = question_hash("Do you agree?\n\nChoices:\n ", ("Yes, I do.", "No"))
    assert one == question_hash("do you AGREE\n", ("No!", "yes i do"))
    assert one != question_hash("Do you disagree?", ("Yes, I do.", "No"))
    assert one != question_hash("Do you agree?", ("Yes", "No"))
    assert question_hash("+", ("a", "b")) != question_hash("-", ("a", "b"))
    assert question_hash("\uff24o you agree?", ("a", "b")) == question_hash("Do you agree?", ("a", "b"))
    assert question_hash("a", ("b", "c")) != question_hash("b", ("a", "c"))


# option texts end where their line ends, and may hold anything but another choice
option = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="()"), max_size=12)


@settings(deadline=None)
@given(stem=st.sampled_from(["Which?", "Which (X)?\n\nChoices:", "a\n\nb"]), a=option, b=option)
def test_swapping_twice_gives_the_question_back(stem, a, b):
    text = f"{stem}\n (A) {a}\n (B) {b}"
    block = find_choices(text)
    assert (block.option_a, block.option_b) == (a, b)
    swapped = find_choices(block.swapped())
    assert (swapped.option_a, swapped.option_b) == (b, a)
    assert swapped.swapped() == text


@pytest.mark.parametrize(
    "text",
    [
        "First: (A) x (B) y. Now?\n (A) 1\n (B) 2",
        "Example\nA) x\nB) y\nNow?\n (A) 1\n (B) 2",
        "Which?\n (A) the same as (B)\n (B) 2",
        "Would you pick option B?\n (A) 1\n (B) 2",
        "Which?\n (A) 1\n (B) 2\nExplain.",
    ],
)
def test_questions_that_name_choices_elsewhere_are_refused_and_counted(text):
    line = json.dumps({"question": text, "answer_matching_behavior": " (A)", "answer_not_matching_behavior": " (B)"})
    items = read_items(line.encode(), "x.jsonl")
    assert len(make_pairs(items, "tan2024")[0]) == 1
    for order in ("balanced", "counterbalance"):
        assert make_pairs(items, order) == ([], 1)


def test_line_ends_of_another_system_stay_where_they_are_in_a_swap():
    block = find_choices("Sure?\r\n(A) Yes\r\n(B) No\r\n")
    assert (block.option_a, block.option_b) == ("Yes", "No")
    assert block.swapped() == "Sure?\r\n(A) No\r\n(B) Yes\r\n"


def test_the_last_block_of_a_question_is_its_choices():
    block = find_choices("Ex?\n (A) u\n (B) v\nNow?\n (A): 1 \n\n (B): 2\t\n")
    assert (block.option_a, block.option_b) == ("1", "2")
    assert block.stem.endswith("Now?\n ")
    assert find_choices("Which?\n(B) 1\n(A) 2") is None
    assert find_choices("Which (A) or\n(B)?") is None


def test_unknown_names_and_missing_files_say_what_would_be_right(tmp_path):
    with pytest.raises(InputError, match="did you mean openness"):
        load_dataset("opennes")
    with pytest.raises(InputError, match=r"nothing\.jsonl: cannot be read"):
        load_dataset("mine", path=tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match=r"'truthfulqa': .*TruthfulQA\.csv does not exist"):
        load_dataset("truthfulqa", data_dir=tmp_path)
    with pytest.raises(InputError, match="order 'random' is not known"):
        make_pairs([], "random")
