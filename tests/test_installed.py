"""What an installation holds: all four packages with their data, found from anywhere, with no import of torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SHIPPED = {
    "steerstats": ["README.md", "cache/SCHEMA.md"],
    "cache_builder": [
        "README.md",
        "presets/demo.toml",
        "presets/tan2024.toml",
        "datasets/sources.json",
        "descriptions.json",
        "demo/descriptions.json",
        "demo/data/likes-rain.jsonl",
        "demo/model/config.json",
        "demo/model/model.safetensors",
        "demo/model/tokenizer.json",
    ],
    "analyses": ["README.md"],
    "reports": ["templates/report.html.jinja", "examples/demo/cache.h5"],
}


def isolated(code: str, *arguments: str, cwd) -> subprocess.CompletedProcess:
    """Run where the checkout is not on the path: only what is installed is found."""
    command = [sys.executable, "-I", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("package", SHIPPED)
def test_data_files_ship_with_their_package(package, tmp_path):
    code = (
        "import sys, json; from importlib.resources import files; "
        "print([p for p in json.loads(sys.argv[2]) if not files(sys.argv[1]).joinpath(*p.split('/')).is_file()])"
    )
    done = isolated(code, package, json.dumps(SHIPPED[package]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_the_analysis_half_loads_neither_torch_nor_the_heavy_libraries(tmp_path):
    code = (
        "import sys, steerstats, steerstats.cli, steerstats.errors; "
        "print([n for n in ('torch', 'transformers', 'cache_builder', 'pandas', 'matplotlib') if n in sys.modules])"
    )
    done = isolated(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_checkout_beside_a_script_does_not_hide_the_package(tmp_path):
    (tmp_path / "steerstats").mkdir()  # as a clone is called
    code = "import steerstats; print(len(steerstats.open_cache(steerstats.demo_cache()).datasets))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout == "14\n", done.stderr
