"""How the tests are run: without torch, and in the gate without excuses."""

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
        "--without-torch",
        action="store_true",
        help="run the analysis half's tests, in an environment where importing torch fails",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-torch") and importlib.util.find_spec("torch") is not None:
        raise pytest.UsageError("--without-torch was asked for, but torch is installed here")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the build half's modules where torch is absent on purpose: they are not skipped, they do not apply."""
    if not config.getoption("--without-torch") or collection_path.suffix != ".py":
        return None
    if collection_path.parent.name != "tests" or collection_path.name == "conftest.py":
        return None
    return bool(BUILD_HALF.search(collection_path.read_text(encoding="utf-8"))) or None


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
