"""Where the tests find the paper's public data, and what they say when it is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("STEERSTATS_TEST_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data")
PERSONA_PROMPTS = DATA / "steering-bench" / "persona_prompts.json"

needs_data = pytest.mark.skipif(
    not (DATA / "SHA256SUMS").is_file(),
    reason=f"the paper's data are not in {DATA}; set STEERSTATS_TEST_DATA to a directory that holds them",
)
