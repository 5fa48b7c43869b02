"""Every public function shows how it is called: a `>>>` example in its docstring, which doctest runs.

Public are the names of `steerstats.__all__`, of each subpackage's `__all__`, and of each module beside them: its
`__all__`, or the functions that it defines under a name without an underscore.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import FunctionType, ModuleType

import steerstats

# Commands are shown by `steerstats COMMAND --help`; what the methods of Study call is shown by the methods.
NO_API = ("steerstats.cli", "steerstats.study_")


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(steerstats.__path__, "steerstats."):
        if not found.name.startswith(NO_API):
            yield importlib.import_module(found.name)


def names_of(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and not name.startswith("_") and value.__module__ == module.__name__
    ]


def public() -> dict[str, object]:
    """Where it is defined, to the function or (at the top level) class."""
    found = [getattr(steerstats, name) for name in steerstats.__all__]
    found += [getattr(module, name) for module in modules() for name in names_of(module)]
    top = {id(value) for value in found[: len(steerstats.__all__)]}
    wanted = [
        value for value in found if isinstance(value, FunctionType) or (id(value) in top and inspect.isclass(value))
    ]
    return {f"{value.__module__}.{value.__qualname__}": value for value in wanted}


def without_example() -> list[str]:
    return sorted(
        name for name, value in public().items() if ">>>" not in (vars(value).get("__doc__") or value.__doc__ or "")
    )


def test_every_public_function_has_an_example():
    assert len(public()) > 100
    missing = without_example()
    assert not missing, f"without a >>> example in the docstring: {', '.join(missing)}"
