"""Parameters of a simulation as people write them: a TOML file, `name=value`, and what each of them must be."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from steerstats.errors import InputError, check_count


def check_parameter(name: str, value: Any, default: Any, *, per_dataset: bool = False) -> None:
    """Refuse a value of another kind than the parameter's default, by name.

    Parameters
    ----------
    name : str
    value
    default
        Its kind decides: bool, int, float, str, mapping of str to float, or a sequence of the first one's kind.
    per_dataset : bool
        One number for each dataset may stand for a number.

    Raises
    ------
    InputError
    """
    if isinstance(default, bool):
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{name} is {value!r}; true or false is needed")
    elif isinstance(default, int):
        check_count(name, value, at_least=0)
    elif isinstance(default, float):
        several = per_dataset and _is_sequence(value)
        if not all(_is_number(one) for one in (value if several else [value])):
            wanted = "a finite number, or one for each dataset," if per_dataset else "a finite number"
            raise InputError(f"{name} is {value!r}; {wanted} is needed")
    elif isinstance(default, Mapping):
        if not (isinstance(value, Mapping) and all(_is_number(one) for one in value.values())):
            raise InputError(f"{name} is {value!r}; a mapping of settings to numbers is needed")
    elif isinstance(default, str):
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}; a text such as {default!r} is needed")
    else:
        text = isinstance(default[0], str)
        if not (_is_sequence(value) and all(isinstance(one, str) if text else _is_number(one) for one in value)):
            raise InputError(f"{name} is {value!r}; a sequence of {'names' if text else 'numbers'} is needed")


def read_parameters(
    known: Sequence[str], file: str | Path | None = None, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """Parameters from a TOML file, and from `name=value` texts that go over it.

    Parameters
    ----------
    known : sequence of str
        The names that exist.
    file : path, optional
        Top-level keys are parameters; tables are mappings such as `prompt_loss`.
    settings : sequence of str
        `name=value`; the value in TOML, or a bare word.

    Raises
    ------
    InputError
        Naming the file or the text, and what would be right.
    """
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{file} cannot be read as TOML: {error}") from error
        _known(found, known, f"{file}: ")
    for text in settings:
        name, equals, value = text.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise InputError(f"--set {text!r} is not of the form name=value, such as a_slope=1.5")
        _known([name.strip()], known, "--set: ")
        found[name.strip()] = _value(name.strip(), value.strip())
    return found


def _known(names: Sequence[str], known: Sequence[str], place: str) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            rest = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"
            raise InputError(f"{place}parameter {name!r} is unknown; {rest}")


def _value(name: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if text.replace("_", "").isalnum() and not text[0].isdigit():
            return text
        raise InputError(
            f"--set {name}={text}: the value is neither TOML (1.5, true, [1, 2], ...) nor a word"
        ) from error


def _is_sequence(value: Any) -> bool:
    # an array of no dimension holds one value, and cannot be gone through
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))
