"""The README's commands, sorted by what they need, and how a test runs one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def fences(page: str) -> list[tuple[str, str]]:
    """Language and content of every code block."""
    return re.findall(r"```(\w+)\n(.*?)```", page, flags=re.S)


FENCES = fences(README)
SHELL = [line for language, block in FENCES if language == "sh" for line in block.strip().splitlines()]
COMMANDS = [line for line in SHELL if line.startswith("steerstats ")]
ANALYSIS = [line for line in COMMANDS if "reports/examples/" in line or " import " in line]
BUILDS = [line for line in COMMANDS if line.startswith("steerstats build")]
COMPARISONS = [line for line in COMMANDS if line not in ANALYSIS and line not in BUILDS]


def steerstats(line: str, cwd: Path, *more: str) -> str:
    arguments = [*shlex.split(line)[1:], *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "steerstats", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout
