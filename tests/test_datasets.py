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


def test_a_question_is_the_same_in_either_order_of_its_choices_and_no_exact_copy(tmp_path):
    path = tmp_path / "mine.jsonl"
    turned = own(prompt="Sure?\n(A) No\n(B) Yes", positive="(A)", negative="(B)")
    path.write_bytes(own(prompt="Sure?\n(A) Yes\n(B) No", positive="(B)", negative="(A)") + 2 * turned)
    dataset = load_dataset("mine", path=path)
    assert len({pair.question for pair in dataset.pairs}) == 1
    assert (dataset.duplicates_exact, dataset.duplicates) == (1, 2)
    path.write_bytes(own(choices=True) + own(choices=True, negative="Oslo"))
    assert load_dataset("mine", path=path).duplicates_exact == 0


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


def test_a_question_that_names_a_choice_is_refused_also_where_the_choices_are_written_for_it(tmp_path):
    path = tmp_path / "mine.jsonl"
    named = own(prompt="Say option B to stop me.", choices=True)
    path.write_bytes(named + own(positive="Paris (A)", choices=True) + own(choices=True) + own(prompt="Say option B."))
    dataset = load_dataset("mine", path=path, order="counterbalance")
    assert [pair.row for pair in dataset.pairs] == [2, 2, 3]
    assert dataset.refused == 2
    assert len(load_dataset("mine", path=path).pairs) == 4


def test_the_last_block_of_a_question_is_its_choices():
    block = find_choices("Ex?\n (A) u\n (B) v\nNow?\n (A): 1 \n\n (B): 2\t\n")
    assert (block.option_a, block.option_b) == ("1", "2")
    assert block.stem.endswith("Now?\n ")
    assert find_choices("Which?\n(B) 1\n(A) 2") is None
    assert find_choices("Which (A) or\n(B)?") is None


def test_a_byte_order_mark_is_no_part_of_the_first_field(tmp_path):
    for name, content in (("x.csv", HEADER + "Q1,a,b\n"), ("x.jsonl", MWE), ("x.json", f"[{MWE}]")):
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8-sig"))
        assert len(load_dataset("mine", path=path)) == 1


def own(**fields) -> bytes:
    record = {"prompt": "Capital of France?", "positive": "Paris", "negative": "Rome"} | fields
    return (json.dumps(record) + "\n").encode()


def test_own_records_are_taken_as_they_are_or_asked_as_choices(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(own(factors={"topic": "cities", "year": 3, "size": None}) + own(choices=True))
    free, choices = load_dataset("mine", path=path, order="balanced").pairs
    assert (free.text, free.positive, free.negative) == ("Capital of France?", "Paris", "Rome")
    assert (free.pos_is_a, free.pos_is_yes, free.len_positive) == (None, None, 5)
    assert free.factors == {"topic": "cities", "year": 3}
    assert choices.positive in ("(A)", "(B)")
    first, second = ("Paris", "Rome") if choices.pos_is_a else ("Rome", "Paris")
    assert choices.text == f"Capital of France?\n\nChoices:\n(A): {first}\n(B): {second}"
    assert len(load_dataset("mine", path=path, order="counterbalance").pairs) == 3


def test_own_prompts_that_carry_choices_are_read_as_such(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(own(prompt="Sure?\n(A) Yes\n(B) No", positive="(B)", negative="(A)"))
    (pair,) = load_dataset("mine", path=path).pairs
    assert (pair.pos_is_a, pair.pos_is_yes, pair.option_positive) == (False, False, "No")


@pytest.mark.parametrize("order", ["tan2024", "balanced", "counterbalance"])
@pytest.mark.parametrize(("a", "b"), [("A", "B"), ("(a)", "(b)"), ("A.", "B."), ("(A", "(B")])
def test_letters_are_answered_as_the_file_writes_them_in_every_order(tmp_path, order, a, b):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(own(prompt="Sure?\n(A) Yes\n(B) No", positive=f" {b}", negative=a))
    for pair in load_dataset("mine", path=path, order=order).pairs:
        assert (pair.positive, pair.negative) == ((a, b) if pair.pos_is_a else (b, a))
        assert pair.text.endswith("\n(A) No\n(B) Yes" if pair.pos_is_a else "\n(A) Yes\n(B) No")


@pytest.mark.parametrize(
    ("positive", "negative", "at_a"),
    [("A", "B", True), ("(B)", "(A)", False), ("(A)", "(A) or so", None), ("A", "C", None), ("A", "(a)", None)],
)
def test_a_or_b_is_a_factor_where_the_other_answer_is_the_other_letter(tmp_path, positive, negative, at_a):
    path = tmp_path / "mine.jsonl"
    answers = {"positive": positive, "negative": negative}
    path.write_bytes(own(**answers) + own(prompt="Sure?\n(A) Yes\n(B) No" if negative != "(a)" else "Sure?", **answers))
    for pair in load_dataset("mine", path=path).pairs:
        assert (pair.positive, pair.negative, pair.pos_is_a) == (positive, negative, at_a)


def test_letters_without_choices_that_can_be_swapped_are_asked_in_one_order_and_counted(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(own(prompt="Sure?\nA. Yes\nB. No", positive="A", negative="B") + own())
    for order in ("balanced", "counterbalance"):
        dataset = load_dataset("mine", path=path, order=order)
        assert [pair.pos_is_a for pair in dataset.pairs] == [True, None]
        (note,) = dataset.notes
        assert note.startswith("1 records answer A or B and do not end in choices written (A) and (B)")
    assert load_dataset("mine", path=path).notes == ()


def test_several_wrong_answers_are_asked_as_they_stand_and_never_swapped(tmp_path):
    path = tmp_path / "mine.jsonl"
    letters = own(prompt="Which?\n(A) x\n(B) y\n(C) z", positive="(A)", negative=["(B)", "(C)"])
    path.write_bytes(own(negative=["Rome", "Oslo "]) + letters)
    free, listed = load_dataset("mine", path=path).pairs
    assert free.completions == ("Paris", "Rome", "Oslo")
    assert listed.completions == ("(A)", "(B)", "(C)")
    assert listed.text.endswith("(C) z")
    assert listed.pos_is_a is None, "A or B is a factor of two positions"
    assert listed.place == "mine.jsonl, line 2"
    path.write_bytes(own(negative=["Rome", "Oslo"]) + own(negative=["Rome", "Bern"]))
    assert len({pair.question for pair in load_dataset("mine", path=path).pairs}) == 2
    path.write_bytes(own(negative=["Rome", "Oslo "]) + letters)
    turned = load_dataset("mine", path=path, order="counterbalance")
    assert [pair.completions for pair in turned.pairs] == [free.completions]
    assert turned.refused == 1
    assert any("or more than two" in note for note in turned.notes)


MWE = '{"question": "Q?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}'
HEADER = "Question,Best Answer,Incorrect Answers\n"


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("x.jsonl", MWE + "\n{oops", ["x.jsonl, line 2", "not JSON"]),
        ("x.jsonl", MWE + "\n\n[1]", ["x.jsonl, line 3", "object", "list"]),
        ("x.jsonl", MWE.replace("question", "quest"), ["line 1", "'question' is missing", "quest"]),
        ("x.jsonl", MWE.replace('" No"', "3"), ["line 1", "'answer_not_matching_behavior'", "int (3)"]),
        ("x.jsonl", MWE.replace(" No", " Yes"), ["line 1", "'answer_not_matching_behavior'", "Yes"]),
        ("x.jsonl", MWE.replace("Q?", " "), ["line 1", "'question' is empty"]),
        ("x.jsonl", MWE.replace(" Yes", "(A)").replace(" No", "(B)"), ["line 1", "'question'", "(A) ... (B)"]),
        ("x.jsonl", own(prompt="(A) x\n(B) y", positive="A", negative="(a)").decode(), ["line 1: both answers are A"]),
        ("x.jsonl", MWE.replace("Q?", "Q\\ud83d"), ["line 1", "'question'", "U+D83D"]),
        ("x.jsonl", MWE.replace("Q?", "Q\\ude00"), ["line 1", "'question'", "U+DE00"]),
        ("x.jsonl", MWE[:-1] + ', "question": "R?"}', ["x.jsonl, line 1", 'field "question" is there twice']),
        ("x.json", "[" + MWE[:-1] + ', "question": "R?"}]', ["x.json: ", 'field "question" is there twice']),
        ("x.jsonl", MWE + "\n" + "[" * 100000, ["x.jsonl, line 2", "recursion"]),
        ("x.jsonl", MWE.replace('"Q?"', "9" * 5000), ["x.jsonl, line 1", "5000 digits"]),
        ("x.jsonl", own(factors=[1]).decode(), ["line 1", "'factors'"]),
        ("x.jsonl", own(chioces=True).decode(), ["line 1", "'chioces' is not known"]),
        ("x.jsonl", own().decode().replace("prompt", "promt"), ["line 1", "'promt' is not known; a record has prompt"]),
        ("x.jsonl", own(choices="yes").decode(), ["line 1", "'choices'", '"yes"']),
        ("x.jsonl", own(negative=[]).decode(), ["line 1", "'negative' is an empty list"]),
        ("x.jsonl", own(negative=["Rome", 7]).decode(), ["line 1", "'negative[1]' must be text, not int (7)"]),
        ("x.jsonl", own(negative=["Rome", " Rome"]).decode(), ["line 1", "'negative[1]' is there twice", "Rome"]),
        ("x.jsonl", own(negative=["Rome", "Paris "]).decode(), ["line 1", "'negative[1]' equals the positive"]),
        ("x.jsonl", own(negative=["Rome", "Oslo"], choices=True).decode(), ["line 1", "'choices'", "there are 3"]),
        (
            "x.jsonl",
            (own() + own(negative=["Rome", "Oslo"])).decode(),
            ["line 2", "holds 2 texts, and 1 in x.jsonl, line 1"],
        ),
        ("x.jsonl", own(factors={"a/b": 1}).decode(), ["line 1", '"a/b"']),
        ("x.jsonl", own(factors={"topic": ["law"]}).decode(), ["line 1", "'factors.topic'", '["law"]']),
        ("x.jsonl", own(factors={"size": float("nan")}).decode(), ["line 1", "'factors.size' must be finite, not NaN"]),
        ("x.jsonl", own(factors={"size": 10**400}).decode(), ["line 1", "'factors.size' must be finite", "..."]),
        (
            "x.jsonl",
            (own(factors={"t": "law"}) + b"\n" + own(factors={"t": 3})).decode(),
            ["x.jsonl, line 3: field 'factors.t' is a number, 3, and text in x.jsonl, line 1"],
        ),
        (
            "x.jsonl",
            f"[{own().decode().strip()}]",
            ["x.jsonl: is one JSON list; records that have a 'prompt' go one a line"],
        ),
        ("x.json", f"[{MWE}, 3]", ["x.json, record 2", "int"]),
        ("x.json", "[1,\n 2", ["x.json, line 2", "not JSON"]),
        ("x.csv", HEADER + "Q1,a,b\nQ2,,b\n", ["x.csv, line 3", "'Best Answer' is empty"]),
        ("x.csv", HEADER + "Q1,a, ; \n", ["x.csv, line 2", "'Incorrect Answers'"]),
        ("x.csv", "Question,Best\nQ1,a\n", ["x.csv, line 2", "'Best Answer' is missing"]),
        ("x.csv", HEADER + 'Q1,a,"b\nQ2,a,b\n', ["x.csv, line 2", "not CSV"]),
        ("x.jsonl", "\n", ["x.jsonl", "no records"]),
    ],
)
def test_a_malformed_line_is_named_with_file_line_and_field(tmp_path, name, content, parts):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_dataset("mine", path=path)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_bytes_that_are_not_text_are_named_by_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(MWE.encode() + b"\n\xff\n")
    with pytest.raises(InputError, match=r"x\.jsonl, line 2: is not UTF-8"):
        load_dataset("mine", path=path)


def test_unknown_names_and_missing_files_say_what_would_be_right(tmp_path):
    with pytest.raises(InputError, match="did you mean openness"):
        load_dataset("opennes")
    with pytest.raises(InputError, match=r"nothing\.jsonl: cannot be read"):
        load_dataset("mine", path=tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match=r"'truthfulqa': .*TruthfulQA\.csv does not exist"):
        load_dataset("truthfulqa", data_dir=tmp_path)
    with pytest.raises(InputError, match="order 'random' is not known"):
        make_pairs([], "random")
