"""Results as text for a terminal or a notebook: nothing twice, no digit that says nothing, nothing lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

import steerstats
from steerstats.text import MOST_ROWS, WIDTH, compact, table_lines, wrapped


def test_what_every_row_has_is_said_once_and_the_ends_of_an_interval_share_a_column():
    frame = pd.DataFrame({"dataset": ["a", "b"], "mean": [0.5123, np.nan], "ci_low": [0.1, np.nan], "ci_high": 0.9})
    frame = frame.assign(level=0.95, q_low=1.0, q_high=[2.0, np.inf], n_inputs=7, method="long", se=np.nan, low=[1, 2])
    table, common = compact(frame)
    assert table.to_dict("list") == {
        "dataset": ["a", "b"],
        "mean": ["0.512", "NaN"],
        "[95%]": ["[0.100, 0.900]", "[NaN, 0.900]"],
        "q [low, high]": ["[1.000, 2.000]", "[1.000, inf]"],
        "low": ["1", "2"],
    }
    assert common == "n_inputs 7, se NaN"
    assert compact(frame.assign(level=[0.9, 0.95]))[0].columns[2] == "ci [low, high]", "levels differ"
    assert compact(frame.assign(dataset="a"))[0]["dataset"].tolist() == ["a", "a"]


def test_round_numbers_are_short_and_a_column_has_one_precision():
    frame = pd.DataFrame({"lam": [-1.5, -0.0, 1.0], "p": [0.05, 0.123456, 1.0], "flag": [True, False, True]})
    table, _ = compact(frame)
    assert table.to_numpy().T.tolist() == [["-1.5", "0", "1"], ["0.050", "0.123", "1.000"], ["True", "False", "True"]]


def test_one_row_stands_upright_and_of_many_the_middle_is_left_out():
    assert table_lines(pd.DataFrame({"gap": [0.25], "n_of": [60]})) == ["  gap   0.25", "  n_of    60"]
    rows = np.arange(MOST_ROWS + 5)
    lines = table_lines(pd.DataFrame({"row": rows, "x": 1, "not in the middle": np.where(rows == 32, 2, 3)}))
    assert lines[-2:] == ["(65 rows; the middle is left out here, to_frame() has all)", "In every row: x 1"]
    assert [line.split() for line in lines[1:-2]] == [[str(k), "3"] for k in (*range(30), *range(35, 65))]
    assert table_lines(pd.DataFrame({"row": [], "x": []})) == ["  row  x"]


def test_heads_longer_than_their_cells_take_several_lines():
    lines = table_lines(pd.DataFrame({"a": [1, 2], "long_name": [1.234, 2.0], "xyz_low": [0.0, 1], "xyz_high": [1, 2]}))
    assert [line.split() for line in lines] == [
        ["long", "xyz"],
        ["a", "name", "[low,", "high]"],
        ["1", "1.234", "[0.000,", "1.000]"],
        ["2", "2.000", "[1.000,", "2.000]"],
    ]


def test_every_result_of_a_study_fits_its_notes_and_says_nothing_in_every_row():
    study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain", "travels-far", "keeps-pets"])
    for name in ("linearity", "nulls", "power", "answer_mass", "debiased", "vector_cosines", "multiplier_range"):
        result = getattr(study, name)()
        table, _, notes = str(result).partition("\nMethod: ")
        assert max(map(len, notes.splitlines())) <= WIDTH, name
        assert ("In every row: " in table) == (name != "power"), name
        page = result._repr_html_()
        assert page.count("<tr") - 1 == len(result._shown())
        assert ("In every row:" in page) == (name != "power")
    mass = study.answer_mass()
    frame = mass.to_frame().set_index(["dataset", "multiplier"])["mean"]
    for _, row in mass._shown().iterrows():
        assert row["mean"] == frame[row["dataset"]].min() == frame[row["dataset"], row["lowest_at"]]
    assert wrapped([("Method", "word " * 30)])[1].startswith("  word")


def test_a_result_without_rows_has_a_summary(study):
    alone = replace(study.vector_cosines(), vectors=("base",))
    assert alone.to_frame().empty
    assert alone.summary().startswith("VectorCosines\n\n  dataset  vector_a  vector_b  cosine ")
    assert table_lines(pd.DataFrame()) == ["  no rows"]
    assert "<table" in alone._repr_html_()
