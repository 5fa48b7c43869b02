"""What a grid, flat curves and an unrecorded engine make doubtful is said with the answers, once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reports.notices import notices_of
from steerstats.cache.table import import_table
from steerstats.study import open_cache

GRID = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)


def study_of(tmp_path, curves: dict[str, np.ndarray], grid=GRID):
    """A study of a table of curves (n, m), one base vector."""
    rows = [
        (name, f"q{i}", "base", "base", "base", 0, lam, float(value))
        for name, rows in curves.items()
        for i, row in enumerate(rows)
        for lam, value in zip(grid, row, strict=True)
    ]
    names = ["dataset", "input", "setting_train", "setting_eval", "vector", "layer", "multiplier", "propensity"]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "t.csv", index=False)
    return open_cache(import_table(tmp_path / "t.csv", tmp_path / "cache", model="mine"))


def rising(rng, n=30, grid=GRID):
    return rng.normal(size=(n, 1)) + rng.normal(1, 0.3, size=(n, 1)) * np.array(grid)


def test_a_table_of_constant_curves_steers_nothing_the_wrong_way(tmp_path):
    rng = np.random.default_rng(0)
    heights = {name: np.tile(rng.normal(scale=4, size=(40, 1)), len(GRID)) for name in ("one", "two", "three")}
    study = study_of(tmp_path, heights)
    table = study.steerability()
    for name in heights:
        assert table[name]["anti_steerable"].estimate == table[name]["negative"].estimate == 0
        assert table[name]["within_error"].estimate == 1
    (said,) = [text for text in table.warnings if "constant" in text]
    assert said.startswith("120 of 120 curves are constant: their slope is 0")
    assert "one (40), three (40), two (40)" in said
    assert f"{said}." in notices_of(study), "a page says it first"


def test_slopes_within_the_rounding_of_stored_values_have_no_sign(tmp_path):
    rng = np.random.default_rng(1)
    level = rng.uniform(10, 20, size=(40, 1))
    nearly = level * (1 + rng.choice([-1, 1], size=(40, len(GRID))) * 6e-8)
    signs = study_of(tmp_path, {"one": nearly, "two": nearly}).steerability()["one"]
    assert signs["negative"].estimate > 0.2
    assert signs["anti_steerable"].estimate == 0
    assert signs["within_error"].estimate == 1


def test_an_imported_table_says_once_that_no_parity_was_recorded(tmp_path):
    rng = np.random.default_rng(2)
    table = study_of(tmp_path, {"one": rising(rng), "two": rising(rng)})
    assert table.unit("one").engine_error is None
    assert table.unit("one").slope_error > 0
    (said,) = [text for text in table.steerability().warnings if "rounded" in text]
    assert said.startswith("how exactly the propensities were computed is not recorded: an input counts as anti-steer")
    (tmp_path / "apart").mkdir()
    apart = study_of(tmp_path / "apart", {"one": rising(rng), "two": 100 * rising(rng)})
    (said,) = [text for text in apart.steerability().warnings if "rounded" in text]
    assert apart.unit("two").slope_error > 10 * apart.unit("one").slope_error
    assert f"rounded, {apart.unit('two').slope_error:.1g} nat per unit multiplier or less" in said


@pytest.mark.parametrize(("grid", "said"), [((0.0, 1.0), "two multipliers"), ((-0.5, 0.0, 1.0), "not symmetric")])
def test_what_a_grid_makes_doubtful_is_said_once_with_every_answer(tmp_path, grid, said):
    rng = np.random.default_rng(3)
    study = study_of(tmp_path, {"one": rising(rng, grid=grid), "two": rising(rng, grid=grid)}, grid)
    for found in (study.steerability(), study.multiplier_range()):
        assert sum(said in text for text in found.warnings) == 1
        assert not any("m(0)" in text for text in found.warnings), "a name that only the page explains"
    alone = [f"{name}: the grid has one range only, there is nothing to compare" for name in ("one", "two")]
    assert [text for text in study.multiplier_range().warnings if text in alone] == (alone if len(grid) == 2 else [])


def test_few_questions_per_dataset_are_warned_of_and_many_are_not(tmp_path):
    rng = np.random.default_rng(4)
    (tmp_path / "few").mkdir()
    few = study_of(tmp_path / "few", {"one": rising(rng, 5), "two": rising(rng, 30)}).steerability()
    for said in (few.warnings, few.over_datasets.warnings):
        (text,) = [text for text in said if "fewer than 20 questions" in text]
        assert text.startswith("1 of 2 datasets have fewer than 20 questions (one; the fewest: 5)")
        assert text.endswith("read the unweighted mean")
    many = study_of(tmp_path, {"one": rising(rng, 20), "two": rising(rng, 30)}).steerability()
    assert not any("fewer than 20" in text for text in many.warnings)
