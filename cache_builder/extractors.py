"""Extraction methods: positive and negative activations of contrast pairs to one direction. Numpy and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import numpy as np

from steerstats.errors import InputError

Extractor = Callable[[np.ndarray, np.ndarray], np.ndarray]
ENTRY_POINTS = "steerstats.extractors"


def mean_difference(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Mean of positive minus negative activations (n_pairs, hidden) -> (hidden,)."""
    return (positive.astype(np.float64) - negative).mean(axis=0)


def pca(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """First principal direction of the differences about zero, as long as the mean difference along it.

    The sign is that of the mean difference. About zero, because the differences of a consistent behaviour share
    their mean, and centring would take away just that.
    """
    difference = positive.astype(np.float64) - negative
    # The Gram matrix is small (pairs x pairs); its eigenvectors give the right singular vectors.
    _, vectors = np.linalg.eigh(difference @ difference.T)
    return _along(vectors[:, -1] @ difference, difference.mean(axis=0))


def logistic(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Normal of a logistic regression between the answers, as long as the mean difference along it."""
    from sklearn.linear_model import LogisticRegression

    points = np.concatenate([positive, negative]).astype(np.float64)
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
        If nothing has that name.
    """
    if method in BUILT_IN:
        return BUILT_IN[method]
    registered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if method in registered:
        return registered[method].load()
    raise InputError(f"extraction method {method!r} is not one of {', '.join([*BUILT_IN, *sorted(registered)])}")


def nuisance_directions(
    activations: np.ndarray, pos_is_a: np.ndarray | None, pos_is_yes: np.ndarray | None
) -> np.ndarray:
    """What answering A rather than B, and Yes rather than No, adds to the difference of two answers.

    With d_i the positive-minus-negative difference of pair i, each direction is half the difference between the
    mean of d over pairs whose positive option is A (Yes) and over those where it is B (No).

    Parameters
    ----------
    activations : array (2, n_pairs, hidden)
    pos_is_a, pos_is_yes : int arrays (n_pairs,) or None
        1, 0, or -1 where not defined.

    Returns
    -------
    array (n_directions, hidden)
        Only directions that the data define; possibly none.
    """
    difference = activations[0].astype(np.float64) - activations[1]
    found = []
    for factor in (pos_is_a, pos_is_yes):
        level = np.full(len(difference), -1) if factor is None else np.asarray(factor)
        if (level == 1).any() and (level == 0).any():
            found.append((difference[level == 1].mean(axis=0) - difference[level == 0].mean(axis=0)) / 2)
    return np.array(found).reshape(-1, difference.shape[1])


def project_out(vector: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The part of `vector` (hidden,) orthogonal to every row of `directions` (n, hidden)."""
    if not len(directions):
        return vector
    _, size, basis = np.linalg.svd(directions, full_matrices=False)
    basis = basis[size > 1e-10 * max(size.max(), 1e-30)]
    return vector - (vector @ basis.T) @ basis


def _along(direction: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """The projection of `difference` on `direction`: its sign and its length come from the difference."""
    norm = np.linalg.norm(direction)
    if norm == 0:
        return np.zeros_like(difference)
    unit = direction / norm
    return unit * (unit @ difference)
