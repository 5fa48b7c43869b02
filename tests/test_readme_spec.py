"""The page on build specs: it names every key with its default, and what it shows runs."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from readme import ROOT, fences

from cache_builder.datasets import make_pairs, read_items
from cache_builder.engine.requests import OPERATORS, SCOPES
from cache_builder.prompts.templates import TEMPLATES
from cache_builder.spec import BuildSpec, load_spec, parse_spec
from cache_builder.spec.parts import Frozen
from cache_builder.vectors.extractors import BUILT_IN
from steerstats.cache import CacheReader
from steerstats.cli import main

PAGE = (ROOT / "cache_builder" / "README.md").read_text(encoding="utf-8")
FENCES = fences(PAGE)
TOML = [block for language, block in FENCES if language == "toml"]
KEYS = TOML[0]
COMMANDS = [line for language, block in FENCES if language == "sh" for line in block.strip().splitlines()]
BUILT = [line for line in COMMANDS if line.startswith(("steerstats export", "steerstats pack"))]
PLANNED = [line for line in COMMANDS if "--backend" in line or "8bit" in line]  # what they need is not here


def fields(model: type[Frozen], prefix: str = ""):
    """Every key of a spec, dotted, with its field."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Frozen):
            yield from fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def flat(table: dict[str, Any], known: set[str], prefix: str = ""):
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in known:
            yield from flat(value, known, f"{key}.")
        else:
            yield key, value


def default(field) -> Any:
    value = field.get_default(call_default_factory=True)
    return list(value) if isinstance(value, tuple) else value


def words(annotation: Any) -> set[str]:
    """Whatever text a field accepts by name."""
    found = set()
    for part in get_args(annotation):
        found |= {part} if isinstance(part, str) else words(part)
    return found


def line_of(key: str) -> str:
    """The line on which a key stands, in its table."""
    table, _, name = key.rpartition(".")
    part = KEYS if not table else KEYS.split(f"[{table}]", 1)[1]
    part = re.split(r"^\[", part, maxsplit=1, flags=re.M)[0]
    return re.search(rf"^#?{name} = .*$", part, flags=re.M)[0]


def test_every_key_stands_there_with_its_default_and_nothing_else_does():
    model = dict(fields(BuildSpec))
    shown = dict(flat(tomllib.loads(KEYS), set(model)))
    offered = dict(flat(tomllib.loads(re.sub(r"^#(?=\w+ = )", "", KEYS, flags=re.M)), set(model)))
    assert set(offered) == set(model)
    unset = {key for key, field in model.items() if field.is_required() or default(field) is None}
    assert set(offered) - set(shown) == unset
    assert shown == {key: default(field) for key, field in model.items() if key not in unset}


def test_every_key_says_in_its_line_what_it_accepts_by_name():
    for key, field in fields(BuildSpec):
        accepted = words(field.annotation)
        line = line_of(key) if key not in ("custom_datasets", "vectors.files") else ""
        named = KEYS if key == "vectors.settings" else line
        assert {word for word in accepted if f'"{word}"' not in named} == set(), key
    assert all(f'"{name}"' in line_of("vectors.method") for name in BUILT_IN)
    assert all(f'"{name}"' in line_of("prompt.template") for name in TEMPLATES)


def test_what_is_offered_is_a_spec():
    content = tomllib.loads(re.sub(r"^#(?=\w+ = )", "", KEYS, flags=re.M))
    content |= {"datasets": "bundled:demo", "layers": [1]}
    assert parse_spec(content, "README").hash()


def test_tables_name_every_scope_operator_and_score():
    rows = re.findall(r"^\| `(\w+)` \| (?!steered tokens|the activation becomes|propensity \|)", PAGE, flags=re.M)
    assert sorted(rows) == sorted([*SCOPES, *OPERATORS, *words(BuildSpec.model_fields["score"].annotation)])


def test_each_variant_of_a_record_is_read():
    variants = next(block for language, block in FENCES if language == "jsonl").splitlines()
    pairs = [make_pairs(read_items(line.encode(), "mine.jsonl"), "balanced")[0][0] for line in variants]
    assert pairs[0].others == ("Perhaps",)
    assert pairs[0].factors == {"season": "autumn"}
    assert pairs[1].text.startswith("Would you help?\n(A)")
    assert {pairs[2].positive, pairs[2].negative} == {"(A)", "(B)"}
    assert "(B)" in pairs[2].text


def test_the_controls_shown_are_understood(own):
    controls = next(block for block in TOML[1:] if block.startswith("[controls]"))
    (own / "my-spec.toml").write_text((own / "my-spec.toml").read_text() + controls)
    assert load_spec(own / "my-spec.toml").controls.random == 19


def run(line: str, *more: str) -> None:
    """A command of the page, in this process."""
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(line)[1:], *more])
    assert not ended.value.code, line


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a spec and its dataset, as the main README has them, for the bundled model."""
    monkeypatch.chdir(tmp_path)
    spec = {"name": "kindness", "layers": [1], "settings": ["base"], "multipliers": [-1, 0, 1]}
    lines = [f"{key} = {json.dumps(value)}" for key, value in spec.items()]
    lines += ["[model]", 'id = "bundled:demo/model"', "[custom_datasets]", 'kindness = "kindness.jsonl"\n']
    (tmp_path / "my-spec.toml").write_text("\n".join(lines))
    records = [
        {"prompt": f"Would you help person {k}?\n(A) Yes\n(B) No", "positive": "(A)", "negative": "(B)"}
        for k in range(40)
    ]
    (tmp_path / "kindness.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    return tmp_path


@pytest.mark.parametrize("line", [line for line in COMMANDS if line not in BUILT])
def test_commands_that_build(line, own, capsys):
    run(line, *(["--dry-run", "--no-probe"] if line in PLANNED else []))
    assert "kindness" in capsys.readouterr().out
    folder = re.search(r"-o (\S+)", line)
    assert folder is None or line in PLANNED or (own / folder[1] / "manifest.json").is_file()


def test_commands_on_what_was_built(own, capsys):
    run("steerstats build my-spec.toml -o my-cache")
    assert len(BUILT) == 3
    for line in BUILT:
        run(line)
        assert (own / re.search(r"-o (\S+)", line)[1]).stat().st_size > 0


def test_the_extractor_of_ones_own_is_found_and_used(own, monkeypatch, capsys):
    # As pip leaves it behind: the module, and the metadata that its pyproject.toml asks for.
    code = next(block for language, block in FENCES if language == "python")
    project = tomllib.loads(next(block for block in TOML if "[project]" in block))
    module = project["tool"]["setuptools"]["py-modules"][0]
    name, version = project["project"]["name"], project["project"]["version"]
    info = own / "site" / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (info.parent / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["project"]["entry-points"].items()
    text = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups)
    (info / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.delitem(sys.modules, module, raising=False)
    run("steerstats build my-spec.toml -o my-cache -s vectors.method=median")
    sys.modules.pop(module)
    assert set(CacheReader(own / "my-cache")["kindness"].read("vector_method")) == {"median"}


def test_the_main_readme_links_to_this_page():
    assert "(cache_builder/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
