"""The page of the Python API: its examples run, its table names what there is; rooms are told of as they are."""

from __future__ import annotations

import importlib
import inspect
import os
import pydoc
import re
import subprocess
import sys

import pytest
from readme import ROOT, fences

from steerstats import Study
from steerstats.results import Result

PAGE = (ROOT / "steerstats" / "README.md").read_text(encoding="utf-8")
ASKED = PAGE.partition("## What to ask")[2].partition("## Of arrays")[0]
TABLE = [line.strip("|").split("|")[1:] for line in ASKED.splitlines() if line.startswith("| ")]
QUOTED = [name for row in TABLE for cell in row for name in re.findall(r"`([^`]+)`", cell)]
FUNCTIONS = [name for name in QUOTED if re.fullmatch(r"[a-z_.]+", name)]


@pytest.mark.parametrize(("block", "said"), [(0, "Steerability by dataset"), (1, "mean gap")])
def test_the_examples_run_as_they_stand(tmp_path, block, said):
    code = [code for language, code in fences(PAGE) if language == "python"][block]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_the_figure_of_the_page_is_drawn(tmp_path):
    (code,) = [code for language, code in fences(PAGE) if "savefig" in code]
    env = os.environ | {"MPLBACKEND": "agg"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "steerability.pdf").read_bytes().startswith(b"%PDF")


def test_every_method_in_the_table_is_one_and_every_question_of_a_study_is_there():
    named = {name for text in QUOTED for name in re.findall(r"study\.(\w+)\(", text)}
    assert named
    assert {name for name in named if not callable(getattr(Study, name, None))} == set()
    # whatever gives an interval is asked for its level
    methods = inspect.getmembers(Study, inspect.isfunction)
    asked = {name for name, method in methods if "level" in inspect.signature(method).parameters}
    assert asked - named == set()


def test_every_function_in_the_table_is_one():
    assert len(FUNCTIONS) > 20
    for name in FUNCTIONS:
        home, _, function = f"steerstats.{name}".rpartition(".")
        assert callable(getattr(importlib.import_module(home), function, None)), name


def test_versions_of_a_question_are_told_by_the_argument_that_the_page_names():
    said = re.search(r"`(\w+)=`, a label for each input", PAGE)[1]
    named = {name: inspect.signature(pydoc.locate(f"steerstats.{name}")).parameters for name in FUNCTIONS}
    there = {name: argument for name in named for argument in ("question", "questions") if argument in named[name]}
    assert len(there) > 10
    assert set(there.values()) == {said}


def test_a_result_has_what_the_page_says():
    promised = re.findall(r"`(\w+)(?:\(\))?`", PAGE.partition("A result is frozen.")[2].partition(". ")[0])
    assert promised == ["to_frame", "summary", "method", "assumptions", "warnings"]
    assert {name for name in promised if not hasattr(Result, name) and name not in Result.__dataclass_fields__} == set()


@pytest.mark.parametrize("package", ["steerstats", "cache_builder"])
def test_every_room_is_on_its_page_and_every_room_on_the_page_is_there(package):
    folder = ROOT / package
    listed = (folder / "README.md").read_text("utf-8").partition("## What is where")[2]
    rows = [line.split("|")[1] for line in listed.splitlines() if line.startswith("| `")]
    named = [name.rstrip("/") for cell in rows for name in re.findall(r"`([^`]+)`", cell)]
    there = {place.name for place in folder.iterdir() if not place.name.startswith("_")}
    assert sorted(named) == sorted(there - {"README.md"})
