"""Read a spec from a TOML file, a preset or a mapping, with overrides; what is wrong in it is said in one line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cache_builder.spec.model import BUNDLED, BuildSpec, is_place
from steerstats.errors import SpecError

_SHAPES = {
    "tuple_type": "should be a list",
    "dict_type": "should be a table of key = value",
    "model_type": "should be a table of key = value, whose keys an override spells TABLE.KEY=VALUE",
}
"""What pydantic calls by Python's names."""
_LISTS = {"settings": '["base"]', "multipliers": "[-1, 0, 1]", "split_percent": "[40, 10, 50]"}


def load_spec(source: str | Path, overrides: Sequence[str] = ()) -> BuildSpec:
    """Read a spec.

    Parameters
    ----------
    source : str or path
        A preset's name (`demo`, `tan2024`) or a TOML file. Paths inside a file are relative to it.
    overrides : sequence of str
        `key=value` with dotted keys; the value is TOML, or text where it is not: `model.id=gpt2`,
        `multipliers=[-1,0,1]`, `controls.random=20`.

    Returns
    -------
    BuildSpec

    Raises
    ------
    SpecError
        One line that names the key.
    """
    text, place, folder = _read_source(source)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{place}: is not TOML: {error}") from error
    if folder is not None:
        _anchor(content, folder)
    for override in overrides:
        _override(content, override)
    _anchor_model(content, Path("."))
    return parse_spec(content, place)


def parse_spec(content: Mapping[str, Any], place: str = "spec") -> BuildSpec:
    """Validate a spec that is already a mapping, such as the one in a cache's manifest.

    Raises
    ------
    SpecError
        One line: place, key, what is wrong, and how many other keys are wrong too.
    """
    try:
        return BuildSpec.model_validate(dict(content))
    except ValidationError as error:
        raise SpecError(f"{place}: {_one_line(error)}") from None


def presets() -> tuple[str, ...]:
    """Names of the presets that ship with the package."""
    folder = resources.files("cache_builder").joinpath("presets")
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def local_path(name: str) -> Path:
    """A directory or file that a spec names; `bundled:demo/model` is looked up in the package."""
    if not name.startswith(BUNDLED):
        return Path(name).expanduser()
    inner = name.removeprefix(BUNDLED)
    return Path(str(resources.files("cache_builder").joinpath(*inner.split("/"))))


def _read_source(source: str | Path) -> tuple[str, str, Path | None]:
    name = str(source)
    if name in presets():
        text = resources.files("cache_builder").joinpath("presets", f"{name}.toml").read_text("utf-8")
        return text, f"preset {name}", None
    path = Path(source).expanduser()
    if not path.is_file():
        raise SpecError(f"{name}: is neither a file nor a preset ({', '.join(presets())})")
    try:
        return path.read_text("utf-8"), name, path.parent
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{name}: cannot be read ({error})") from error


def _anchor(content: dict[str, Any], folder: Path) -> None:
    def anchored(value: Any) -> Any:
        if not isinstance(value, str) or value.startswith(BUNDLED):
            return value
        return str(folder / Path(value).expanduser())

    vectors = content.get("vectors")
    tables = [(content.get("custom_datasets"), None), (content.get("prompt"), {"descriptions"})]
    tables.append((vectors.get("files") if isinstance(vectors, dict) else None, None))
    tables.append((content.get("run"), {"data_dir", "out"}))
    for table, keys in tables:
        if isinstance(table, dict):
            for key in table:
                if keys is None or key in keys:
                    table[key] = anchored(table[key])
    _anchor_model(content, folder)


def _anchor_model(content: dict[str, Any], folder: Path) -> None:
    # "models/mine" may be a directory or a hub id; a directory gets a form that says so, on every machine
    model = content.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("id"), str):
        return
    name = model["id"]
    if not name or name.startswith(BUNDLED) or Path(name).is_absolute():
        return
    place = folder / Path(name).expanduser()
    if is_place(name) or place.is_dir():
        model["id"] = str(place) if is_place(str(place)) else f"./{place}"


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"override {override!r}: must be key=value")
    *parents, last = key.strip().split(".")
    table = content
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise SpecError(f"override {override!r}: {parent} is not a table")
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        table[last] = value


def _one_line(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    # a wrong member of a union is reported once for each member; the one that got deepest is the telling one
    first = max(problems, key=lambda p: (p["type"] == "extra_forbidden", len(p["loc"])))
    keys = [str(part) for part in first["loc"] if not str(part).startswith(("literal[", "tuple["))]
    key = ".".join(keys)
    if first["type"] == "extra_forbidden":
        message = f"key is not known{_nearest(keys)}"
    elif first["type"] == "missing":
        message = "is missing"
    else:
        message = _SHAPES.get(first["type"], first["msg"]).removeprefix("Value error, ").replace("TABLE", key)
        if first["type"] == "tuple_type":
            message += f", such as {_LISTS.get(keys[-1], '[1, 2]')}"
        if first["type"] != "value_error":
            message = f"{message[0].lower()}{message[1:]}, not {_short(first['input'])}"
    others = len({p["loc"][0] for p in problems if p["loc"]} - {first["loc"][0]} if first["loc"] else ())
    more = f" (and {others} more wrong key{'s' if others > 1 else ''})" if others else ""
    return f"{key}: {message}{more}" if key else f"{message}{more}"


def _nearest(keys: list[str]) -> str:
    model: Any = BuildSpec
    for table, info in BuildSpec.model_fields.items():
        if keys[-1] in getattr(info.annotation, "model_fields", ()):
            return f"; did you mean {table}.{keys[-1]}?"
    for key in keys[:-1]:
        model = model.model_fields[key].annotation if key in model.model_fields else BuildSpec
    near = difflib.get_close_matches(keys[-1], model.model_fields, n=1, cutoff=0.6)
    known = ", ".join(model.model_fields)
    return f"; did you mean {near[0]}?" if near else f"; there are {known}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
