"""`steerstats fit`: what it shows, and tables that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from test_cache import make_cache


def test_fit_shows_one_row_a_dataset_and_writes_the_long_form(run, tmp_path):
    make_cache(tmp_path / "c", ("openness", "narcissism"))
    code, out, errors = run("fit", tmp_path / "c", "-o", tmp_path / "fit")
    assert code == 0
    assert "note: only 2 datasets: the SD between them (tau)" in errors
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("narcissism"))
    written = pd.read_csv(tmp_path / "fit" / "steerability.csv").set_index(["dataset", "name"])
    slopes = pd.read_parquet(tmp_path / "fit" / "steerability_per_input.parquet")
    assert row[2] == f"{written.loc[('narcissism', 'mean'), 'estimate']:.3f}"
    assert len(slopes) == 2 * 6 * 30
    assert set(pd.read_csv(tmp_path / "fit" / "steerability_per_input.csv").columns) == set(slopes.columns)


def test_fit_replaces_its_own_tables_and_no_others(run, tmp_path):
    make_cache(tmp_path / "c")
    (tmp_path / "own").mkdir()
    mine = tmp_path / "own" / "steerability.csv"
    mine.write_text("mine")
    code, _, errors = run("fit", tmp_path / "c", "-o", tmp_path / "own")
    assert code == 2
    assert f"{mine} is not from an earlier fit and would be replaced" in errors
    assert mine.read_text() == "mine"
    assert [run("fit", tmp_path / "c", "-o", tmp_path / "fit")[0] for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("before", [True, False], ids=["over an earlier fit", "in a new directory"])
@pytest.mark.parametrize("step", ["write", "sync"])
def test_fit_on_a_full_disk_names_the_table_and_leaves_what_was_there(run, tmp_path, monkeypatch, before, step):
    make_cache(tmp_path / "c")
    folder = tmp_path / "fit"
    if before:
        run("fit", tmp_path / "c", "-o", folder)
        (folder / "steerability.csv").write_text("earlier")
    there = sorted(path.name for path in tmp_path.rglob("*"))

    owner, name, place = {"write": (pd.DataFrame, "to_parquet", 1), "sync": (os, "fsync", 2)}[step]
    whole, calls = getattr(owner, name), []

    def full(*arguments, **options):
        calls.append(whole(*arguments, **options))
        if len(calls) == place:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, name, full)
    code, _, errors = run("fit", tmp_path / "c", "-o", folder)
    assert code == 2
    assert f"{folder / 'steerability_per_input.parquet'}: the table cannot be written (No space left" in errors
    assert sorted(path.name for path in tmp_path.rglob("*")) == there
    assert not before or (folder / "steerability.csv").read_text() == "earlier"


def test_a_place_where_no_directory_can_be_made_is_named(run, tmp_path, monkeypatch):
    make_cache(tmp_path / "c")
    whole = Path.mkdir

    def refused(self, *args, **more):
        if self.name == "deep":
            raise FileNotFoundError(2, "No such file or directory", str(self))
        whole(self, *args, **more)

    monkeypatch.setattr(Path, "mkdir", refused)
    code, _, errors = run("fit", tmp_path / "c", "-o", tmp_path / "deep")
    assert code == 2
    assert f"{tmp_path / 'deep'}: no directory can be made there (No such file or directory)" in errors


@pytest.mark.parametrize("command", ["fit", "report", "reproduce"])
def test_tables_go_to_no_directory_whose_name_is_no_text(run, tmp_path, command):
    target = os.fsdecode(os.fsencode(tmp_path) + b"/\xfcbung")
    code, _, err = run(command, make_cache(tmp_path / "cache"), "-o", target)
    assert code == 2
    assert err.endswith("bung: the name is not UTF-8, as those of tables have to be; choose another\n")
    assert not os.path.exists(target)
