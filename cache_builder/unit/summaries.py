"""What the predictors need from the activations, small enough to keep when the activations are left out."""

from __future__ import annotations

import hashlib

import numpy as np

from cache_builder.blocks import parts_of
from cache_builder.vectors import difference


def crossfit_projection(activation: np.ndarray, questions: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Project every answer of each pair on the unit mean-difference vector of the other folds' pairs.

    In-sample projections separate pure noise (400 pairs in 4,096 dimensions: d' about 4); held-out ones do not. They
    count from the midpoint of the other folds' means: what all activations share lies differently far along each fold's
    vector, and would pass for spread between pairs (on the demo model as much as there is in truth: d' of .42 for .66).

    Parameters
    ----------
    activation : array or view of a store (n_options, n_pairs, hidden)
        Positive and negative answers, at the steered layer; read as `activation[:, start:stop]`.
    questions : array of str (n_pairs,)
        Pairs of one question stay in one fold.
    n_folds : int
        Folds; no more than there are questions are used.
    seed : int
        Another seed gives other folds.

    Returns
    -------
    ndarray (n_options, n_pairs) of float32
        Zero where the other folds are empty (a single question).
    """
    fold = question_folds(questions, n_folds, seed)
    n_options, n_pairs, hidden = activation.shape
    parts = parts_of(n_pairs, 8 * n_options * hidden)
    count = np.bincount(fold)
    member = fold == np.arange(len(count))[:, None]
    sums = np.zeros((2, len(count), hidden))  # of differences, and of what is midway between both answers
    for rows in parts:
        values, own = activation[:, rows], member[:, rows].astype(np.float64)
        apart = difference(values)
        sums += own @ apart, own @ (values[0] - apart / 2)
    rest = len(fold) - count
    means, middle = (sums.sum(axis=1, keepdims=True) - sums) / np.maximum(rest, 1)[:, None]
    units = np.array([unit_vector(mean) for mean in means])
    out = np.zeros((n_options, n_pairs), dtype=np.float32)
    for rows in parts:
        values = activation[:, rows].astype(np.float64) - middle[fold[rows]]
        out[:, rows] = np.einsum("onh,nh->on", values, units[fold[rows]])
    return out


def pair_cosines(activation: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Cosine of each pair's difference (n_options, n_pairs, hidden) with a direction (hidden,); (n_pairs,) float32."""
    n_options, n_pairs, hidden = activation.shape
    parts = parts_of(n_pairs, 8 * n_options * hidden)
    return np.concatenate([difference_cosine(difference(activation[:, rows]), direction) for rows in parts])


def mean_norm(activation: np.ndarray) -> float:
    """Mean L2 norm of activations (n_options, n_pairs, hidden), over answers and pairs."""
    n_options, n_pairs, hidden = activation.shape
    parts = parts_of(n_pairs, 8 * n_options * hidden)
    total = sum(np.linalg.norm(activation[:, rows].astype(np.float64), axis=-1).sum() for rows in parts)
    return float(total / (n_options * n_pairs))


def question_folds(questions: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Fold of each pair: questions ranked by a hash of their content and dealt in turn, so that sizes balance."""
    unique, index = np.unique(np.asarray(questions, dtype=str), return_inverse=True)
    keys = [hashlib.sha256(f"{seed}/{question}".encode()).digest() for question in unique]
    rank = np.argsort(np.argsort(np.array(keys, dtype="S32")))
    return (rank % n_folds)[index]


def difference_cosine(difference: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Cosine of each difference (..., n, hidden) with a direction (hidden,); 0 where either is zero."""
    values = difference.astype(np.float64)
    norms = np.linalg.norm(values, axis=-1)
    return np.divide(values @ unit_vector(direction), norms, out=np.zeros_like(norms), where=norms > 0).astype(
        np.float32
    )


def unit_vector(direction: np.ndarray) -> np.ndarray:
    """The direction in float64 at length 1, or zeros where it has none."""
    values = np.asarray(direction, dtype=np.float64)
    norm = np.linalg.norm(values)
    return values / norm if norm > 0 else np.zeros_like(values)
