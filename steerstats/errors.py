"""The few errors that steerstats raises on purpose, and the checks that raise them.

Every message names the place (file, line, HDF5 path or argument), the offending value, and what would be
right. The command line prints one such line and exits with code 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class SteerstatsError(Exception):
    """Base of every error that a user can cause and mend. Anything else is a bug of ours."""


class InputError(SteerstatsError, ValueError):
    """A value, file, line or argument is not what it has to be."""


class SpecError(InputError):
    """A build spec does not say what a build needs; the message names the key."""


class CacheError(SteerstatsError):
    """A cache is missing, damaged, of another version, or lacks what was asked for."""


class ModelError(SteerstatsError):
    """A model or tokenizer cannot be loaded, or cannot be steered as the spec asks."""


class CannotEstimate(SteerstatsError):
    """The data cannot identify the estimand (no replicates, leverage one, too few inputs)."""


class MissingDependency(SteerstatsError):
    """An optional package is not installed; the message holds the command that installs it."""


def require(package: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say which command installs it.

    Parameters
    ----------
    package : str
        Importable name, `"torch"`.
    extra : str
        The extra of this distribution that brings it, `"build"`.
    purpose : str
        What needs it, for the message: `"building a cache"`.

    Raises
    ------
    MissingDependency
        If the package cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependency(
            f"{purpose} needs {package.partition('.')[0]}, which is not installed: pip install 'steerstats[{extra}]'"
        ) from error
