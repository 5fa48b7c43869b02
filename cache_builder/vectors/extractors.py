"""Extraction methods: positive and negative activations of contrast pairs to one direction. No torch."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
from scipy.linalg import eigh

from steerstats.errors import InputError

Extractor = Callable[[np.ndarray, np.ndarray], np.ndarray]
ENTRY_POINTS = "steerstats.extractors"


def mean_difference(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Mean of positive minus negative activations (n_pairs, hidden) -> (hidden,)."""
    return (positive.astype(np.float64) - negative).mean(axis=0)


def pca(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """First principal direction of the differences about zero, as long as the mean difference along it.

    The sign is that of the mean difference. About zero, because the differences of a consistent behaviour share
    their mean, and centring would take away just that. The axis therefore does not depend on which answer is the
    positive one, and label-shuffled vectors are no null for it (see `draws`).
    """
    difference = positive.astype(np.float64) - negative
    return _along(_first_axis(difference), difference.mean(axis=0))


def _first_axis(difference: np.ndarray) -> np.ndarray:
    """First right singular vector of (n_pairs, hidden), of any length and sign; NaN where an entry is not finite."""
    wide = len(difference) <= difference.shape[1]
    # D D' and D' D have the same non-zero eigenvalues: only the top one of the smaller is needed.
    gram = difference @ difference.T if wide else difference.T @ difference
    if not np.isfinite(gram).all():
        return np.full(difference.shape[1], np.nan)
    last = len(gram) - 1
    top = eigh(gram, subset_by_index=[last, last])[1][:, 0]
    return top @ difference if wide else top


def logistic(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Normal of a logistic regression between the answers, as long as the mean difference along it.

    NaN where an activation is not finite.
    """
    from sklearn.linear_model import LogisticRegression

    points = np.concatenate([positive, negative]).astype(np.float64)
    if not np.isfinite(points).all():
        return np.full(points.shape[1], np.nan)
    points -= points.mean(axis=0)
    # One common scale keeps directions as they are and makes the ridge penalty independent of the model's units.
    points /= max(points.std(), 1e-12)
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    normal = LogisticRegression(max_iter=5000).fit(points, labels).coef_[0]
    return _along(normal, mean_difference(positive, negative))


BUILT_IN: dict[str, Extractor] = {"mean_difference": mean_difference, "pca": pca, "logistic": logistic}


def find_extractor(method: str) -> Extractor:
    """A built-in extractor, or one that an installed package registers under `steerstats.extractors`.

    An extractor takes positive and negative activations, both (n_pairs, hidden), and returns (hidden,).

    Raises
    ------
    InputError
        If nothing has that name, more than one thing does, or it cannot be loaded. Called, a registered one
        raises it too: for whatever goes wrong in it, and for a result of another shape.
    """
    point = _registered(method)
    if point is None:
        return BUILT_IN[method]
    return _guarded(_load(point), _name(point))


def extractor_facts(method: str) -> dict[str, str]:
    """What identifies a registered extractor beside its name, for a cache's identity; nothing for a built-in one.

    A built-in method is part of this package, and its meaning does not change under its name.

    Returns
    -------
    dict
        `distribution` and `version` that register it, and `source`, the SHA-256 of the file that defines it (of
        its bytecode where there is no file), so that a cache is not continued with a method that was changed.
    """
    point = _registered(method)
    if point is None:
        return {}
    found, owner = _load(point), getattr(point, "dist", None)
    return {
        "distribution": owner.name if owner else "",
        "version": owner.version if owner else "",
        "source": _source_hash(found),
    }


def _registered(method: str) -> EntryPoint | None:
    """The one entry point of that name; None for a built-in method."""
    points = list(entry_points(group=ENTRY_POINTS))
    having = [point for point in points if point.name == method]
    if method in BUILT_IN:
        if having:
            raise InputError(f"extraction method {_name(having[0])} has the name of a built-in one; rename it")
        return None
    if not having:
        known = ", ".join([*BUILT_IN, *sorted({point.name for point in points})])
        raise InputError(f"extraction method {method!r} is not one of {known}")
    if len(having) > 1:
        raise InputError(
            f"extraction method {method!r} is registered {len(having)} times, as "
            f"{' and '.join(_name(point) for point in having)}; rename or uninstall all but one"
        )
    return having[0]


def _load(point: EntryPoint) -> Extractor:
    try:
        found = point.load()
    except Exception as error:
        raise InputError(f"extraction method {_name(point)} cannot be loaded: {_one_line(error)}") from error
    if not callable(found):
        raise InputError(f"extraction method {_name(point)} is not a function ({type(found).__name__})")
    return found


def _guarded(extractor: Extractor, name: str) -> Extractor:
    def guarded(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
        try:
            found = np.asarray(extractor(positive, negative), dtype=np.float64)
        except Exception as error:
            raise InputError(f"extraction method {name} failed: {_one_line(error)}") from error
        if found.shape != positive.shape[1:]:
            wanted = positive.shape[1:]
            raise InputError(f"extraction method {name} returned shape {found.shape}; it has to be {wanted}")
        return found

    return guarded


def _name(point: EntryPoint) -> str:
    owner = getattr(point, "dist", None)
    return f"{point.name!r} (of {owner.name} {owner.version})" if owner else repr(point.name)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _source_hash(extractor: Extractor) -> str:
    """Of the whole defining file: what a function calls is mostly written beside it."""
    inner = inspect.unwrap(extractor)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner)
    try:
        content = Path(inspect.getsourcefile(inner) or "").read_bytes()
    except (OSError, TypeError):
        code = getattr(inner, "__code__", None)
        content = code.co_code + repr(code.co_consts).encode() if code else repr(inner).encode()
    return hashlib.sha256(content).hexdigest()


def nuisance_weights(n_pairs: int, pos_is_a: np.ndarray | None, pos_is_yes: np.ndarray | None) -> np.ndarray:
    """What answering A rather than B, and Yes rather than No, adds to the difference of two answers, as weights.

    With d_i the positive-minus-negative difference of pair i, each direction is half the difference between the
    mean of d over pairs whose positive option is A (Yes) and over those where it is B (No): a weighted sum of the d_i.

    Parameters
    ----------
    n_pairs : int
    pos_is_a, pos_is_yes : int arrays (n_pairs,) or None
        1, 0, or -1 where not defined.

    Returns
    -------
    array (n_directions, n_pairs)
        Only directions that the data define; possibly none.
    """
    found = []
    for factor in (pos_is_a, pos_is_yes):
        level = np.full(n_pairs, -1) if factor is None else np.asarray(factor)
        one, other = level == 1, level == 0
        if one.any() and other.any():
            found.append((one / one.sum() - other / other.sum()) / 2)
    return np.array(found).reshape(-1, n_pairs)


def project_out(vector: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The part of `vector` (hidden,) orthogonal to every row of `directions` (n, hidden), n above 0."""
    _, size, basis = np.linalg.svd(directions, full_matrices=False)
    basis = basis[size > 1e-10 * size.max()]
    return vector - (vector @ basis.T) @ basis


def _along(direction: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """The projection of `difference` on `direction`: its sign and its length come from the difference."""
    norm = np.linalg.norm(direction)
    if norm == 0:
        return np.zeros_like(difference)
    unit = direction / norm
    return unit * (unit @ difference)
