"""The engine's benchmarks run, compare what they say they compare, and fill the README's table. Nothing is timed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from paper_data import needs_data

pytest.importorskip("steering_vectors")

from benchmarks import __main__ as table
from benchmarks import bench_engine, bench_gpu

README = Path(__file__).parent.parent / "README.md"


def rows(name: str, record: dict) -> list[str]:
    """What the table shows of a record; every number in it is one."""
    found = [" | ".join(row) for row in table.ROWS[name](record)]
    assert not re.search(r"\bnan\b|\binf\b", " ".join(found))
    return found


@pytest.fixture
def small(monkeypatch):
    """A smaller model and grid, one setting and one budget: what is measured is nonsense, how it is measured is not."""
    changes = {"HIDDEN": 32, "VOCABULARY": 600, "MULTIPLIERS": (-1.0, 0.0, 1.0), "SETTINGS": ("base",)}
    for name, value in {**changes, "BUDGETS": (2048,), "BATCH_SIZES": (4,)}.items():
        monkeypatch.setattr(bench_engine, name, value)


@needs_data
def test_the_engines_benchmark_compares_every_grid_with_one_at_a_time(small, tmp_path, capsys):
    assert bench_engine.main(["--inputs", "2", "--rounds", "1", "--out", str(tmp_path / "engine.json")]) == 0
    record = json.loads((tmp_path / "engine.json").read_text("utf-8"))
    assert [(row["dataset"], row["scope"]) for row in record["rows"]] == [
        (name, scope) for name in bench_engine.DATASETS for scope in ("last_prompt", "first_answer")
    ]
    for row, extra in zip(record["rows"][::2], record["extras"]):
        assert 0 < row["largest_difference"] < 1e-4
        assert 0 < extra["sweep_largest_difference"] < 1e-4
        assert row["computed_over_distinct"] == pytest.approx(1.0, abs=0.1)
        assert extra["sweep_of_six_tokens_over_distinct"] > extra["sweep_tokens_over_distinct"] > 10
    shown = rows("engine", record)
    assert any(line.startswith("the six-vector grid at each of 8 layers in turn") for line in shown)
    assert set(record["forty_datasets"]) == {"last_prompt", "first_answer"}


@needs_data
@pytest.mark.parametrize("which", ["sweep", "sweep_of_six"])
def test_a_sweep_that_answers_otherwise_is_a_failed_benchmark(small, which, tmp_path, monkeypatch, capsys):
    plain = bench_engine.Engine.run
    vectors = bench_engine.LAYERS * (6 if which == "sweep_of_six" else 1)

    def other(self, examples, steering=None, **options):
        scores = plain(self, examples, steering, **options)
        if steering is not None and len(steering.directions) == vectors:
            scores.logits[:, 1:, 0] += 1e-3
        return scores

    monkeypatch.setattr(bench_engine.Engine, "run", other)
    monkeypatch.setattr(bench_engine, "DATASETS", ("truthfulqa",))
    monkeypatch.setattr(bench_engine, "forty_datasets", lambda *_: 1.0)
    assert bench_engine.main(["--inputs", "2", "--rounds", "1", "--out", str(tmp_path / "engine.json")]) == 1
    assert "FAILED: values differ by 1.0e-03 nats" in capsys.readouterr().err


@needs_data
def test_the_gpus_benchmark_runs_without_a_gpu_on_a_tiny_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_gpu, "TOKENIZER", 600)
    asked = ["--tiny", "--inputs", "4", "--datasets", "5", "--rounds", "2", "--out", str(tmp_path / "gpu.json")]
    assert bench_gpu.main(asked) == 0
    record = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert (record["path"], record["inputs"]) == ("trie", 20)
    assert record["computed_over_distinct"] >= 1
    assert 0 < record["bfloat16_largest_difference"] < 0.1
    gains = [record[f"speedup_by_{what}"] for what in ("norms_in_two_kernels", "no_pause_between_settings")]
    assert np.isfinite([record["hours_for_the_papers_grid"], *gains]).all()
    record["peak_memory_gib"] = 0.0  # known on a GPU alone
    assert len(rows("gpu", record)) == 11


def test_the_readme_shows_what_the_results_say():
    shown = re.search(r"<!-- bench -->\n(.*?)<!-- /bench -->", README.read_text("utf-8"), re.DOTALL)[1]
    made = [line for name in table.ROWS for line in table.rows_of(name)]
    assert shown.splitlines()[2:] == made
