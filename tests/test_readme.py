"""Every command of the README, run as it stands where nothing but the model or the network stands in the way."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from paper_data import DATA, needs_data

from steerstats.cache.table import example_rows

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.S)
SHELL = [line for language, block in FENCES if language == "sh" for line in block.strip().splitlines()]
COMMANDS = [line for line in SHELL if line.startswith("steerstats ")]
ANALYSIS = [line for line in COMMANDS if "reports/examples/" in line or " import " in line]
BUILDS = [line for line in COMMANDS if line.startswith("steerstats build")]
COMPARISONS = [line for line in COMMANDS if line not in ANALYSIS and line not in BUILDS]
# The hub cannot be reached from a test: the bundled model takes the place of a model id, and few records do.
STAND_IN = ["-s", "model.id=bundled:demo/model", "-s", "layers=1", "-s", "limit=12", "-s", "controls={}"]


def steerstats(line: str, cwd: Path, *more: str) -> str:
    arguments = [*shlex.split(line)[1:], *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "steerstats.cli", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like a checkout to the commands, and takes what they write."""
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    return tmp_path


def test_every_line_of_shell_is_run_by_a_test_or_is_an_installation():
    rest = [line for line in SHELL if line not in COMMANDS]
    assert set(rest) == {"make demo", "make test", "pip install .", "pip install -c constraints.txt '.[build]'"}
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
    assert "nat per unit multiplier" in done.stdout


@pytest.fixture
def own_data(checkout):
    """The files that the README describes, as it describes them."""
    spec = next(block for language, block in FENCES if language == "toml")
    (checkout / "my-spec.toml").write_text(spec)
    item, table = json.loads(_inline('{"prompt"')), json.loads(_inline('{"kindness"'))
    items = [item | {"prompt": f"Would you help person {k}?\n(A) Yes\n(B) No"} for k in range(12)]
    (checkout / "kindness.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    (checkout / "descriptions.json").write_text(json.dumps(table))
    return checkout


@pytest.mark.parametrize("line", [line for line in BUILDS if "tan2024" not in line])
def test_build_commands_on_own_data(line, own_data):
    out = steerstats(line, own_data, *STAND_IN)
    assert "kindness" in out or "1 units built" in out


@needs_data
@pytest.mark.parametrize("line", [line for line in BUILDS if "tan2024" in line])
def test_build_commands_of_the_papers_grid(line, checkout):
    quick = ["-s", 'datasets=["openness","myopic-reward"]', "--data-dir", str(DATA)]
    out = steerstats(line, checkout, *STAND_IN, *quick)
    assert "units" in out


def test_comparison_commands(checkout):
    from steerstats.simulate import SimulationTruth, simulate_cache

    assert COMPARISONS
    for k, name in enumerate(("llama-7b", "qwen-14b")):
        simulate_cache(checkout / name, SimulationTruth(datasets=3, n_inputs=20), model=f"model-{k}")
    for line in COMPARISONS:
        assert "report" in steerstats(line, checkout)


def _inline(start: str) -> str:
    """A JSON example in backticks, by how it begins."""
    return next(text for text in re.findall(r"`([^`\n]+)`", README) if text.startswith(start))
