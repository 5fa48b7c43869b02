"""The engine's benchmarks run, compare what they say they compare, and fill the tables. Nothing is timed."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from paper_data import needs_data

pytest.importorskip("steering_vectors")

from benchmarks import bench_engine, bench_gpu, table


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
    gains = [
        record[f"speedup_by_{what}"] for what in ("norms_in_two_kernels", "rope_in_place", "no_pause_between_settings")
    ]
    assert np.isfinite([record["hours_for_the_papers_grid"], *gains]).all()
    record["peak_memory_gib"] = 0.0  # known on a GPU alone
    assert len(rows("gpu", record)) == 12


@needs_data
def test_what_fails_late_in_the_gpus_benchmark_loses_nothing_measured_before(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_gpu, "TOKENIZER", 600)
    monkeypatch.setattr(bench_gpu, "pauses", lambda *_: 1 / 0)
    asked = ["--tiny", "--inputs", "2", "--datasets", "1", "--rounds", "1", "--out", str(tmp_path / "gpu.json")]
    with pytest.raises(ZeroDivisionError):
        bench_gpu.main(asked)
    record = json.loads((tmp_path / "gpu.partial.json").read_text("utf-8"))
    assert {"shape", "model_flop_utilisation", "speedup_by_rope_in_place"} <= set(record)
    assert "bfloat16_largest_difference" not in record
    assert not (tmp_path / "gpu.json").exists()


def test_the_gpus_benchmark_needs_nothing_that_reads_specs():
    """A machine with a GPU that is there for an hour has torch and transformers, and often no way to install more."""
    program = "import sys; sys.modules['pydantic'] = None; import benchmarks.bench_gpu"
    done = subprocess.run([sys.executable, "-c", program], cwd=table.HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_last_block_counts_what_it_computes_everywhere():
    """Of two blocks: keys and values of the last one; all of the first; the rest only where something is scored."""
    model = bench_gpu.random_llama({**bench_gpu.TINY, "num_hidden_layers": 2}, "cpu")
    square, mlp, norms = 64 * 64, 3 * 64 * 128, 2 * 64
    everywhere = 4 * square + mlp + norms + 2 * square + norms + 64
    scored = 2 * square + mlp + 64 * bench_gpu.VOCABULARY
    assert bench_gpu.flops(model, 10.0, 3) == 2 * (10 * everywhere + 3 * scored)


def results() -> dict[str, dict]:
    return {name: json.loads(table._result(name).read_text("utf-8")) for name in table.ROWS}


def test_both_pages_show_what_the_results_say():
    for path, parts in table.pages().items():
        text = path.read_text("utf-8")
        for name, made in parts.items():
            assert re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)[1] == f"{made}\n"


def test_the_readme_has_few_rows_and_a_page_for_the_others():
    few, all_of_them = table.highlights(results()), table.all_rows(results())
    assert len(few) <= 8 < len(all_of_them)
    assert "benchmarks/README.md" in table.README.read_text("utf-8")


def test_a_missed_target_is_marked_and_a_reached_one_is_not():
    found = results()
    found["engine"]["extras"][0]["sweep_speedup"] = 149.0
    found["gpu"] |= {"model_flop_utilisation": 0.44, "hours_for_the_papers_grid": 0.26}
    found["mixed"]["ratio_to_fit_mixed"]["lme4"] = 99.0
    found["analysis"]["wall_s"] = 61.0
    for rows_, count in ((table.highlights(found), 5), (table.all_rows(found), 5)):
        assert sum("missed" in row[2] for row in rows_) == count
    found["engine"]["extras"] = [one | {"sweep_speedup": 150.0} for one in found["engine"]["extras"]]
    found["gpu"] |= {"model_flop_utilisation": 0.45, "hours_for_the_papers_grid": 0.25}
    found["mixed"]["ratio_to_fit_mixed"]["lme4"] = 100.0
    found["analysis"]["wall_s"] = 59.0
    for rows_ in (table.highlights(found), table.all_rows(found)):
        assert not any("missed" in row[2] for row in rows_)


def test_figures_of_an_earlier_version_say_so_until_the_gpu_is_measured_again():
    found = results()
    names = ("norms_in_two_kernels", "rope_in_place", "no_pause_between_settings")
    gains = [f"speedup_by_{name}" for name in names]
    earlier = {key: value for key, value in found["gpu"].items() if key not in gains}
    current = earlier | dict.fromkeys(gains, 1.1)
    for record, old in ((earlier, True), (current, False)):
        shown = " ".join(" ".join(row) for row in table.highlights(found | {"gpu": record}))
        assert ("measured on an earlier version" in shown) is old
        assert ("before RMS norms took two kernels" in " ".join(table.gpu_notes(record).split())) is old


def test_a_mask_that_was_out_of_the_question_is_shown_with_its_reason():
    masks = {"blocked": 477.9, "dense": 257.3, "flex": "pads rows of 4096 tokens by 2.6%"}
    notes = " ".join(table.gpu_notes(results()["gpu"] | {"examples_per_second_by_mask": masks}).split())
    assert "inputs per second: blocked 478, dense 257, flex pads rows of 4096 tokens by 2.6%)" in notes


def test_without_results_the_pages_say_that_nothing_was_measured():
    assert table.highlights({}) == table.all_rows({}) == [table.NO_GPU]
    assert table.gpu_cost(None) == table.gpu_notes(None) == table.UNMEASURED


def test_the_page_says_how_to_run_each_benchmark_again():
    named = re.findall(r"`python -m benchmarks (\w+)`", table.PAGE.read_text("utf-8"))
    assert tuple(named) == table.NAMES
    assert all((table.HERE / f"bench_{name}.py").is_file() for name in (*named, "gpu"))
