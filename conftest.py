"""How the tests are run: each half by itself, and in the gate without excuses."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

# Modules that name what only the extras bring. (xarray is one of them; readers of caches do not need it.)
BUILD_HALF = re.compile(
    r"^\s*(?:import|from)\s+(?:torch|transformers|safetensors|cache_builder)\b|tiny_models|bench_engine"
    r"|importorskip\(\"xarray",
    re.M,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--half",
        choices=("analysis", "build"),
        help="run one half's tests only; those of the analysis half want an environment where importing torch fails",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--half") == "analysis" and importlib.util.find_spec("torch") is not None:
        raise pytest.UsageError("--half analysis is to show what works without torch, but torch is installed here")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Every module of tests belongs to one half: the build half's do not apply where torch is absent on purpose."""
    half = config.getoption("--half")
    if half is None or collection_path.suffix != ".py" or collection_path.name == "conftest.py":
        return None
    in_tests = collection_path.parent.name == "tests"  # elsewhere are the examples in the analysis half's docstrings
    builds = in_tests and bool(BUILD_HALF.search(collection_path.read_text(encoding="utf-8")))
    return builds != (half == "build") or None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In the gate a skipped test is a failed one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("STEERSTATS_FORBID_SKIPS") or reporter is None:
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and session.exitstatus == 0:
        reporter.write_line(f"{len(skipped)} tests were skipped, and this run forbids it", red=True)
        session.exitstatus = 1
