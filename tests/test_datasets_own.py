"""Files of one's own as contrast pairs: how records are read, asked and swapped, and what is said of a wrong line."""

from __future__ import annotations

import json

import pytest

from cache_builder.datasets import load_dataset
from steerstats.errors import InputError

MWE = '{"question": "Q?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}'
HEADER = "Question,Best Answer,Incorrect Answers\n"


def own(**fields) -> bytes:
    record = {"prompt": "Capital of France?", "positive": "Paris", "negative": "Rome"} | fields
    return (json.dumps(record) + "\n").encode()


def test_a_question_is_the_same_in_either_order_of_its_choices_and_no_exact_copy(tmp_path):
    path = tmp_path / "mine.jsonl"
    turned = own(prompt="Sure?\n(A) No\n(B) Yes", positive="(A)", negative="(B)")
    path.write_bytes(own(prompt="Sure?\n(A) Yes\n(B) No", positive="(B)", negative="(A)") + 2 * turned)
    dataset = load_dataset("mine", path=path)
    assert len({pair.question for pair in dataset.pairs}) == 1
    assert (dataset.duplicates_exact, dataset.duplicates) == (1, 2)
    path.write_bytes(own(choices=True) + own(choices=True, negative="Oslo"))
    assert load_dataset("mine", path=path).duplicates_exact == 0


def test_a_question_that_names_a_choice_is_refused_also_where_the_choices_are_written_for_it(tmp_path):
    path = tmp_path / "mine.jsonl"
    named = own(prompt="Say option B to stop me.", choices=True)
    path.write_bytes(named + own(positive="Paris (A)", choices=True) + own(choices=True) + own(prompt="Say option B."))
    dataset = load_dataset("mine", path=path, order="counterbalance")
    assert [pair.row for pair in dataset.pairs] == [2, 2, 3]
    assert dataset.refused == 2
    assert len(load_dataset("mine", path=path).pairs) == 4


def test_a_byte_order_mark_is_no_part_of_the_first_field(tmp_path):
    for name, content in (("x.csv", HEADER + "Q1,a,b\n"), ("x.jsonl", MWE), ("x.json", f"[{MWE}]")):
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8-sig"))
        assert len(load_dataset("mine", path=path)) == 1


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
