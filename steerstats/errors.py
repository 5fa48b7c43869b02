"""The few errors that steerstats raises on purpose, and the checks that raise them.

Every message names the place (file, line, HDF5 path or argument), the offending value, and what would be
right. The command line prints one such line and exits with code 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import difflib
import importlib
import operator
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np

_Text = TypeVar("_Text")


class SteerstatsError(Exception):
    """Base of every error that a user can cause and mend. Anything else is a bug of ours.

    Examples
    --------
    >>> import steerstats
    >>> try:
    ...     steerstats.open_cache("nowhere")
    ... except steerstats.SteerstatsError as error:
    ...     print(error)
    nowhere is neither a cache directory nor a packed cache: no such file
    """


class InputError(SteerstatsError, ValueError):
    """A value, file, line or argument is not what it has to be.

    Examples
    --------
    >>> import steerstats
    >>> steerstats.fit_steerability([[0.0, 1.0]], [1.0, 1.0])
    Traceback (most recent call last):
    ...
    steerstats.errors.InputError: multipliers [1.0, 1.0] repeat a value; each has to occur once
    """


class SpecError(InputError):
    """A build spec does not say what a build needs; the message names the key.

    Examples
    --------
    >>> import steerstats
    >>> issubclass(steerstats.SpecError, steerstats.InputError)  # whoever catches that catches a bad spec, too
    True
    """


class CacheError(SteerstatsError):
    """A cache is missing, damaged, of another version, or lacks what was asked for.

    Examples
    --------
    >>> import steerstats
    >>> steerstats.open_cache(steerstats.demo_cache()).slopes("likes-cats")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    steerstats.errors.CacheError: ...: dataset 'likes-cats' is not in this study; it has keeps-pets, likes-crowds, ...
    """


class Absent(CacheError):
    """What was asked for is not in a cache, of which nothing else is wrong: an answer where damage is none.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.errors import Absent
    >>> try:
    ...     steerstats.open_cache(steerstats.demo_cache()).require("base->nowhere")
    ... except Absent as error:
    ...     print(error.reason.partition(";")[0])
    not in this cache: built without nowhere
    """

    WORDS = "not in this cache"

    @property
    def reason(self) -> str:
        """The message from "not in this cache" on, without the place."""
        text = str(self)
        return text[max(text.find(self.WORDS), 0) :]


class ModelError(SteerstatsError):
    """A model or tokenizer cannot be loaded, or cannot be steered as the spec asks.

    Examples
    --------
    >>> import steerstats
    >>> issubclass(steerstats.ModelError, ValueError)  # the model is at fault, and no argument of the call
    False
    """


class CannotEstimate(SteerstatsError):
    """The data cannot identify the estimand (no replicates, leverage one, too few inputs).

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    >>> study.power(n_datasets=10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    steerstats.errors.CannotEstimate: the components come from one dataset: the variance ...
    """


class MissingDependency(SteerstatsError):
    """An optional package is not installed; the message holds the command that installs it.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.errors import require
    >>> try:
    ...     require("no_such_package", "build", "building a cache")
    ... except steerstats.MissingDependency as error:
    ...     print(str(error).partition(", or")[0])
    building a cache needs no_such_package, which is not installed: pip install 'steerstats[build]'
    """


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

    Examples
    --------
    >>> from steerstats.errors import require
    >>> require("json", "build", "reading a manifest").loads("[1]")
    [1]
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependency(
            f"{purpose} needs {package.partition('.')[0]}, which is not installed: pip install 'steerstats[{extra}]', "
            f"or '.[{extra}]' in a checkout"
        ) from error


def those_there(names: Iterable[object], wanted: object, most: int = 12) -> str:
    """What there is in place of what was asked for: names like it first, and not more of them than one reads.

    Parameters
    ----------
    names : iterable
        What is there.
    wanted : object
        What was asked for.
    most : int
        Names shown.

    Examples
    --------
    >>> those_there([f"random_{k}" for k in range(40)] + ["base"], "bases", most=3)
    'base, random_0, random_1, ... (41 in all)'
    """
    every = [str(name) for name in names]
    like = difflib.get_close_matches(str(wanted), every, most)
    shown = [*like, *(name for name in every if name not in like)][:most]
    return ", ".join(shown) + (f", ... ({len(every)} in all)" if len(every) > len(shown) else "")


def how_many(count: int, what: str) -> str:
    """A count with its noun, in one or in many.

    Examples
    --------
    >>> how_many(1, "dataset"), how_many(3, "dataset")
    ('1 dataset', '3 datasets')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def first_few(names: Sequence[str], most: int = 5) -> str:
    """Names for a sentence, and how many more there are.

    Examples
    --------
    >>> first_few(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def gathered(notes: Iterable[tuple[str, _Text]]) -> dict[_Text, list[str]]:
    """Texts in the order in which they come, each with the names of those that it is said of, each name once.

    Parameters
    ----------
    notes : iterable of (str, text)
        Who it is said of, and what.

    Examples
    --------
    >>> from steerstats.errors import gathered
    >>> gathered([("a", "is small"), ("b", "is odd"), ("c", "is small")])
    {'is small': ['a', 'c'], 'is odd': ['b']}
    """
    found: dict[_Text, dict[str, None]] = {}
    for name, text in notes:
        found.setdefault(text, {})[name] = None
    return {text: list(names) for text, names in found.items()}


def by_text(said: Mapping[str, Iterable[str]], *, always: bool = False) -> list[str]:
    """Sentences on datasets, each once: alone where it is of all of them (unless `always`), else after their names.

    Examples
    --------
    >>> from steerstats.errors import by_text
    >>> by_text({"a": ["is small", "is odd"], "b": ["is small"]})
    ['is small', 'a: is odd']
    """
    return [
        text if len(names) == len(said) and not always else f"{first_few(names)}: {text}"
        for text, names in gathered((name, text) for name, texts in said.items() for text in texts).items()
    ]


def check_level(level: float, name: str = "level", *, such_as: float = 0.95) -> float:
    """The nominal coverage of an interval (or a rate, by its name), refused unless strictly between 0 and 1.

    Returns
    -------
    float

    Raises
    ------
    InputError
        For anything else; a percentage (`95`) is told what it would be as a share.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> study.linearity(level=95)
    Traceback (most recent call last):
    ...
    steerstats.errors.InputError: level is 95; a share strictly between 0 and 1 is needed, such as 0.95
    """
    usable = isinstance(level, Real) and not isinstance(level, bool)
    if not (usable and 0 < level < 1):
        # 95 is a percentage, and 2 may be anything: only a rate on the side of such_as is taken for one.
        percent = usable and 1 < level < 100 and (level < 50) == (such_as < 0.5)
        share = f"{level / 100 if percent else such_as:g}"
        raise InputError(f"{name} is {level!r}; a share strictly between 0 and 1 is needed, such as {share}")
    return float(level)


def check_count(name: str, value: int, *, at_least: int = 1) -> int:
    """A count (of resamples, permutations, folds) as an int, refused unless it is whole and large enough.

    Parameters
    ----------
    name : str
        The argument, for the message: `"n_resamples"`.
    value : int
        Python's or numpy's; a float is refused even where it is whole, as `range` refuses it.
    at_least : int
        The smallest that makes sense.

    Raises
    ------
    InputError
        For anything else.

    Examples
    --------
    >>> from steerstats.errors import check_count
    >>> check_count("n_resamples", 2.5)
    Traceback (most recent call last):
    ...
    steerstats.errors.InputError: n_resamples is 2.5; a whole number, 1 or more, is needed
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool) or count < at_least:
        raise InputError(f"{name} is {value!r}; a whole number, {at_least} or more, is needed")
    return count


def check_rng(rng: np.random.Generator) -> np.random.Generator:
    """A generator of random numbers, refused unless it is one: a bare seed would give two analyses the same draws.

    Examples
    --------
    >>> from steerstats.errors import check_rng
    >>> check_rng(7)
    Traceback (most recent call last):
    ...
    steerstats.errors.InputError: rng is 7; a numpy.random.Generator is needed, such as numpy.random.default_rng(7)
    """
    import numpy as np

    if isinstance(rng, np.random.Generator):
        return rng
    seed = rng if isinstance(rng, int) and not isinstance(rng, bool) and rng >= 0 else 0
    raise InputError(f"rng is {rng!r}; a numpy.random.Generator is needed, such as numpy.random.default_rng({seed})")


def check_resamples(n_resamples: int) -> int:
    """The number of resamples that an interval is made of: one has no spread.

    Examples
    --------
    >>> from steerstats.errors import check_resamples
    >>> check_resamples(2000)
    2000
    """
    return check_count("n_resamples", n_resamples, at_least=2)
