"""The README's build commands, with the bundled model in the place of one from the hub, and few records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from paper_data import DATA, needs_data
from readme import BUILDS, FENCES, README, steerstats

from cache_builder.datasets import paper_datasets

STAND_IN = ["-s", "model.id=bundled:demo/model", "-s", "layers=1", "-s", "limit=12", "-s", "controls={}"]


@pytest.fixture
def own_data(tmp_path: Path):
    """The files that the README describes, as it describes them."""
    spec = next(block for language, block in FENCES if language == "toml")
    (tmp_path / "my-spec.toml").write_text(spec)
    item, table = json.loads(_inline('{"prompt"')), json.loads(_inline('{"kindness"'))
    items = [item | {"prompt": f"Would you help person {k}?\n(A) Yes\n(B) No"} for k in range(12)]
    (tmp_path / "kindness.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    (tmp_path / "descriptions.json").write_text(json.dumps(table))
    return tmp_path


@pytest.mark.parametrize("line", [line for line in BUILDS if "tan2024" not in line])
def test_build_commands_on_own_data(line, own_data):
    out = steerstats(line, own_data, *STAND_IN)
    assert "kindness" in out or "1 unit built" in out


@needs_data
@pytest.mark.parametrize("line", [line for line in BUILDS if "tan2024" in line])
def test_build_commands_of_the_papers_grid(line, tmp_path):
    assert {"openness", "myopic-reward"} <= set(paper_datasets())
    quick = ["-s", 'datasets=["openness","myopic-reward"]', "--data-dir", str(DATA)]
    out = steerstats(line, tmp_path, *STAND_IN, *quick)
    assert "units" in out


def _inline(start: str) -> str:
    """A JSON example in backticks, by how it begins."""
    return next(text for text in re.findall(r"`([^`\n]+)`", README) if text.startswith(start))
