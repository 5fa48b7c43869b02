"""Readers of the four file formats. A line that is not what it should be is an error with its place.

Formats: `mwe` (model-written evaluations, JSONL: `question`, `answer_matching_behavior`,
`answer_not_matching_behavior`; options as text in persona files, or (A)/(B) with the choices inside the question),
`caa` (the same records as one JSON list), `truthfulqa` (the official CSV) and `pairs` (JSONL of one's own):

    {"prompt": "...", "positive": "(A)", "negative": "(B)", "factors": {"topic": "law"}, "choices": false}

In a `pairs` file, `positive` and `negative` are completions, taken as they are; `negative` may be a list of several
wrong ones, equally many in every record. With `"choices": true` they are the texts of two options, and the question
is asked as A/B in the order that the spec says. `factors` are one's own nuisance factors: text, numbers or
true/false, of one type for each name; a record may leave some out.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cache_builder.datasets.choices import ChoiceBlock, find_choices
from cache_builder.datasets.pairs import is_a, question_hash
from steerstats.errors import InputError

Format = Literal["mwe", "caa", "truthfulqa", "pairs"]
Layout = Literal["choices", "truthfulqa", "embedded", "free"]
LARGEST = sys.float_info.max


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One record of a source file before its option order is chosen.

    Parameters
    ----------
    row : int
        Record number from 0.
    stem : str
        The question without choices; for free completions the whole prompt.
    positive, negative : str
        Answers as completions; for layouts that are formatted later, empty.
    option_positive, option_negative : str
        The options as the file writes them, outer spaces included.
    layout : {"choices", "truthfulqa", "embedded", "free"}
        Formatted as persona items are, as TruthfulQA items are, already formatted, or no choices at all.
    block : ChoiceBlock or None
        The choices inside the question, for `embedded`.
    factors : dict
        The user's own factors.
    others : tuple of str
        Further wrong completions.
    place : str
        File and line (or record), for messages.
    question : str
        Content hash, see `pairs.question_hash`.
    """

    row: int
    stem: str
    positive: str
    negative: str
    option_positive: str
    option_negative: str
    layout: Layout
    block: ChoiceBlock | None = None
    factors: dict[str, str | float | bool] = field(default_factory=dict)
    question: str = ""
    others: tuple[str, ...] = ()
    place: str = ""

    @property
    def content(self) -> tuple[str, ...]:
        """What two records share when they are exact copies of each other."""
        text = self.block.text if self.block else self.stem
        return (text, self.positive, self.negative, self.option_positive, self.option_negative, *self.others)


def read_items(data: bytes, file: str, form: Format | None = None) -> list[SourceItem]:
    """Read the bytes of one source file.

    Parameters
    ----------
    data : bytes
        The file's content (read once, so that what is hashed is what is parsed).
    file : str
        Its name, for errors, and for the suffix that tells the format where `form` is None.
    form : {"mwe", "caa", "truthfulqa", "pairs"}, optional
        Format; found from suffix and fields when left out.

    Returns
    -------
    list of SourceItem

    Raises
    ------
    InputError
        Naming file, line (record for a JSON list) and field.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{file}, line {line}: is not UTF-8 ({error.reason})") from error
    suffix = Path(file).suffix.lower()
    if form == "truthfulqa" or (form is None and suffix == ".csv"):
        items = list(_truthfulqa(text, file))
    elif form == "caa" or (form is None and text.lstrip()[:1] == "["):
        records = list(_json_list(text, file))
        if records and "prompt" in records[0][1] and "question" not in records[0][1]:
            raise InputError(
                f"{file}: is one JSON list; records that have a 'prompt' go one a line, without [ ] and commas"
            )
        items = [replace(_mwe(*record), place=record[-1]) for record in records]
    else:
        items = []
        for row, record, place in _json_lines(text, file):
            mine = form == "pairs" or (form is None and not {"prompt", "positive", "negative"}.isdisjoint(record))
            items.append(replace((_own if mine else _mwe)(row, record, place), place=place))
    if not items:
        raise InputError(f"{file}: holds no records")
    _check_alike(items)
    return items


def _check_alike(items: list[SourceItem]) -> None:
    """Equally many options everywhere, and one type for each factor."""
    seen: dict[str, tuple[str, str]] = {}
    for item in items:
        if len(item.others) != len(items[0].others):
            raise InputError(
                f"{item.place}: field 'negative' holds {1 + len(item.others)} texts, and {1 + len(items[0].others)} in "
                f"{items[0].place}; all questions of a dataset have equally many options"
            )
        for name, value in item.factors.items():
            kind, first = seen.setdefault(name, (_kind(value), item.place))
            if kind != _kind(value):
                raise InputError(
                    f"{item.place}: field 'factors.{name}' is {_kind(value)}, {_short(value)}, and {kind} in {first}"
                )


def _kind(value: Any) -> str:
    return "true/false" if isinstance(value, bool) else "text" if isinstance(value, str) else "a number"


def _short(value: Any) -> str:
    """A value as it stands in the file, cut to what fits in a message of one line."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _json_lines(text: str, file: str) -> Iterator[tuple[int, dict, str]]:
    row = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            record = _parse(line, place)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: is not JSON ({error.msg} at column {error.colno})") from error
        yield row, _object(record, place), place
        row += 1


def _json_list(text: str, file: str) -> Iterator[tuple[int, dict, str]]:
    try:
        records = _parse(text, file)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}, line {error.lineno}: is not JSON ({error.msg})") from error
    if not isinstance(records, list):
        raise InputError(f"{file}: must hold a JSON list of records, not {type(records).__name__}")
    for row, record in enumerate(records):
        place = f"{file}, record {row + 1}"
        yield row, _object(record, place), place


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unrepeated)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise InputError(f"{place}: cannot be read ({error})") from error


def unrepeated(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose fields are there once: of repeated ones, JSON's reader would take the last without a word."""
    record = dict(fields)
    if len(record) < len(fields):
        names = [name for name, _ in fields]
        raise ValueError(f"field {_short(next(name for name in names if names.count(name) > 1))} is there twice")
    return record


def _object(record: Any, place: str) -> dict:
    if not isinstance(record, dict):
        raise InputError(f"{place}: must be a JSON object, not {type(record).__name__} ({_short(record)})")
    return record


def _string(record: dict, key: str, place: str) -> str:
    if key not in record:
        raise InputError(f"{place}: field '{key}' is missing; it has {', '.join(record) or 'no fields'}")
    value = record[key]
    if not isinstance(value, str):
        raise InputError(f"{place}: field '{key}' must be text, not {type(value).__name__} ({_short(value)})")
    if not value.strip():
        raise InputError(f"{place}: field '{key}' is empty ({_short(value)})")
    # JSON can spell half a surrogate pair, which can be neither tokenised nor stored
    bad = next((character for character in value if 0xD800 <= ord(character) < 0xE000), None)
    if bad is not None:
        raise InputError(
            f"{place}: field '{key}' holds the character U+{ord(bad):04X}, which is no text ({_short(value)})"
        )
    return value


def _mwe(row: int, record: dict, place: str) -> SourceItem:
    question = _string(record, "question", place)
    positive = _string(record, "answer_matching_behavior", place)
    negative = _string(record, "answer_not_matching_behavior", place)
    _must_differ(positive, negative, place, "answer_not_matching_behavior")
    if is_a(positive) is None or is_a(negative) is None:
        return _formatted(row, question, positive, negative, "choices")
    return _embedded(row, question, positive, negative, place, "question")


def _own(row: int, record: dict, place: str) -> SourceItem:
    unknown = sorted(set(record) - {"prompt", "positive", "negative", "factors", "choices"})
    if unknown:
        raise InputError(
            f"{place}: field '{unknown[0]}' is not known; a record has prompt, positive, negative, factors, choices"
        )
    prompt = _string(record, "prompt", place)
    positive = _string(record, "positive", place)
    negative, *others = _wrong(record, place)
    for index, wrong in enumerate((negative, *others)):
        _must_differ(positive, wrong, place, f"negative[{index}]" if others else "negative")
    factors = _factors(record, place)
    choices = record.get("choices", False)
    if not isinstance(choices, bool):
        raise InputError(f"{place}: field 'choices' must be true or false, not {_short(choices)}")
    if choices:
        if others:
            raise InputError(
                f"{place}: field 'choices' asks two options as A and B, and there are {2 + len(others)}; write the "
                "choices into the prompt, and their letters as completions"
            )
        return _formatted(row, prompt, positive, negative, "choices", factors)
    if not others and is_a(positive) is not None and is_a(negative) is not None and find_choices(prompt):
        return _embedded(row, prompt, positive, negative, place, "prompt", factors)
    question = question_hash(prompt, (positive, negative, *others))
    answers = (positive.strip(), negative.strip())
    more = tuple(wrong.strip() for wrong in others)
    return SourceItem(row, prompt, *answers, *answers, "free", None, factors, question, more)


def _wrong(record: dict, place: str) -> list[str]:
    """The wrong completions: one text, or a list of different ones."""
    given = record.get("negative")
    if not isinstance(given, list):
        return [_string(record, "negative", place)]
    if not given:
        raise InputError(f"{place}: field 'negative' is an empty list")
    found = [_string({f"negative[{i}]": value}, f"negative[{i}]", place) for i, value in enumerate(given)]
    for i, text in enumerate(found):
        if text.strip() in {other.strip() for other in found[:i]}:
            raise InputError(f"{place}: field 'negative[{i}]' is there twice ({_short(text)})")
    return found


def _factors(record: dict, place: str) -> dict[str, str | float | bool]:
    given = record.get("factors", {})
    if not isinstance(given, dict):
        raise InputError(f"{place}: field 'factors' must map names to text, numbers or true/false, not {_short(given)}")
    factors = {name: value for name, value in given.items() if value is not None}
    for name, value in factors.items():
        field_name = f"factors.{name}"
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise InputError(f"{place}: field 'factors' names {_short(name)}; a name holds letters, digits, _, - and .")
        if not isinstance(value, str | int | float):
            raise InputError(f"{place}: field '{field_name}' must be text, a number or true/false, not {_short(value)}")
        if isinstance(value, str) and value:
            _string({field_name: value}, field_name, place)
        elif not isinstance(value, str) and not abs(value) <= LARGEST:
            raise InputError(f"{place}: field '{field_name}' must be finite, not {_short(value)}")
    return factors


def _truthfulqa(text: str, file: str) -> Iterator[SourceItem]:
    # strict: a stray quote must not swallow the rest of the file into one cell
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    row = 0
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            # the reader has not counted the record that failed: it starts on the next line
            raise InputError(f"{file}, line {reader.line_num + 1}: is not CSV ({error})") from error
        if record is None:
            return
        place = f"{file}, line {reader.line_num}"
        cells = {key: value for key, value in record.items() if key is not None and value is not None}
        question = _string(cells, "Question", place)
        best = _string(cells, "Best Answer", place).strip()
        incorrect = [part.strip() for part in _string(cells, "Incorrect Answers", place).split(";")]
        first = next((part for part in incorrect if part), None)
        if first is None:
            given = _short(cells["Incorrect Answers"])
            raise InputError(f"{place}: field 'Incorrect Answers' names no answer ({given})")
        _must_differ(best, first, place, "Incorrect Answers")
        yield replace(_formatted(row, question, best, first, "truthfulqa"), place=place)
        row += 1


def _formatted(
    row: int, stem: str, positive: str, negative: str, layout: Layout, factors: dict | None = None
) -> SourceItem:
    question = question_hash(stem, (positive, negative))
    return SourceItem(row, stem, "", "", positive, negative, layout, None, factors or {}, question)


def _embedded(
    row: int, text: str, positive: str, negative: str, place: str, field_name: str, factors: dict | None = None
) -> SourceItem:
    block = find_choices(text)
    if block is None:
        raise InputError(
            f"{place}: field '{field_name}' does not end in '(A) ... (B) ...', but the answers are "
            f"{positive.strip()} and {negative.strip()} ({_short(text[-40:])})"
        )
    if is_a(positive) == is_a(negative):
        raise InputError(f"{place}: both answers are {positive.strip()}")
    options = (block.option_a, block.option_b) if is_a(positive) else (block.option_b, block.option_a)
    question = question_hash(block.stem, options)
    answers = (positive.strip(), negative.strip())
    return SourceItem(row, block.stem, *answers, *options, "embedded", block, factors or {}, question)


def _must_differ(positive: str, negative: str, place: str, field_name: str) -> None:
    if positive.strip() == negative.strip():
        raise InputError(f"{place}: field '{field_name}' equals the positive answer, {positive.strip()!r}")
