"""Every command of the README, run as it stands: those of the analysis half (the others in test_readme_build)."""

from __future__ import annotations

import re
import subprocess
import sys

import pandas as pd
import pytest
from example_table import example_rows
from readme import ANALYSIS, BUILDS, COMMANDS, COMPARISONS, FENCES, README, ROOT, SHELL, steerstats


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like a checkout to the commands, and takes what they write."""
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    return tmp_path


def test_every_line_of_shell_is_run_by_a_test_or_is_an_installation():
    rest = [line for line in SHELL if line not in COMMANDS]
    pip = {"pip install .", "pip install -c constraints.txt '.[build]'"}
    assert set(rest) == {"make demo", "make test", "python3 -m venv .venv", ". .venv/bin/activate"} | pip
    assert sorted(COMMANDS) == sorted(ANALYSIS + BUILDS + COMPARISONS)
    targets = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", targets, flags=re.M) for target in ("demo", "test"))
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("line", ANALYSIS)
def test_analysis_commands(line, checkout):
    pd.DataFrame(list(example_rows())).to_csv(checkout / "scores.csv", index=False)
    out = steerstats(line, checkout)
    assert out.strip()
    target = re.search(r"-o (\S+)", line)
    assert target is None or any((checkout / target[1]).iterdir())


def test_the_python_example(checkout):
    block = next(block for language, block in FENCES if language == "python")
    done = subprocess.run([sys.executable, "-c", block], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nats per unit multiplier" in done.stdout


def test_comparison_commands(checkout):
    from steerstats.simulate import SimulationTruth, simulate_cache

    assert COMPARISONS
    for k, name in enumerate(("llama-7b", "qwen-14b")):
        simulate_cache(checkout / name, SimulationTruth(datasets=3, n_inputs=20), model=f"model-{k}")
    for line in COMPARISONS:
        assert "report" in steerstats(line, checkout)


def test_what_the_page_says_of_the_demos_report_stands_in_it():
    report = (ROOT / "reports" / "examples" / "demo" / "report.html").read_text("utf-8")
    said = re.findall(r'"([^"`]+)"', README.partition("and open it).")[2].partition("\n\n")[0])
    assert len(said) == 2
    for sentence in said:
        assert " ".join(sentence.split()) in " ".join(report.split())


def test_what_the_page_links_to_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
