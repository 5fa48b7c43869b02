"""Training activations of one simulated dataset with a chosen cosine and d', and the vectors fitted on them."""

from __future__ import annotations

import numpy as np

from steerstats.simulate.curves import MEAN, Vectors
from steerstats.simulate.truth import SimulationTruth

FOLDS = 5
SCALE = 4.0  # norm of the mean difference, in units of activation


def draw_activations(
    truth: SimulationTruth, dprime: float, cosine: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Activations (setting, answer, pair, hidden), and the A/B direction (hidden,).

    Each difference is `SCALE` along the population vector plus noise orthogonal to it, of the length that makes the
    cosine exactly `cosine`. What a pair's two answers share varies along the vector with standard deviation
    `SCALE / dprime`, so the separation of the two classes of projections is `dprime`.
    """
    k, h, n = len(truth.settings), truth.hidden, truth.n_pairs
    frame = np.linalg.qr(rng.standard_normal((h, h)))[0].T
    common, own, letter = frame[0], frame[1 : k + 1], frame[k + 1]
    population = np.sqrt(truth.vector_cosine) * common + np.sqrt(1 - truth.vector_cosine) * own
    noise = rng.standard_normal((k, n, h))
    noise -= np.einsum("knh,kh->kn", noise, population)[..., None] * population[:, None]
    noise *= SCALE * np.sqrt(1 / cosine**2 - 1) / np.linalg.norm(noise, axis=-1, keepdims=True)
    half = (SCALE * population[:, None] + noise) / 2
    pair = rng.standard_normal((n, h))  # one pair has the same content in every setting
    pair = np.broadcast_to(pair, (k, n, h)) - (pair @ population.T).T[..., None] * population[:, None]
    pair = pair + SCALE / dprime * rng.standard_normal((k, n, 1)) * population[:, None]
    centre = 3 * rng.standard_normal((k, 1, h))
    return np.stack([centre + pair + half, centre + pair - half], axis=1), letter


def fit_directions(
    truth: SimulationTruth, activations: np.ndarray, letter: np.ndarray, vectors: Vectors, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Directions (vector, hidden) at the first setting's norm, and their norms before rescaling (vector,)."""
    names, n = truth.settings, truth.n_pairs
    difference = activations[:, 0] - activations[:, 1]
    main = difference.mean(axis=1)
    norm = np.linalg.norm(main[0])
    # Refit k uses the same pairs in every setting, so gaps keep the covariance of the errors.
    draws = rng.integers(0, n, size=(max(truth.n_resampled, 1), n))
    folds = np.array_split(rng.permutation(n), max(truth.n_folds, 1))
    rows = []
    for kind, setting, replicate in zip(vectors.kind, vectors.setting, vectors.replicate):
        t = 0 if setting == MEAN else names.index(setting)
        if kind == "trained":
            row = main[t]
        elif kind == MEAN:
            # Rescaled one by one before averaging, and as a mean after it.
            row = (norm * main / np.linalg.norm(main, axis=1, keepdims=True)).mean(axis=0)
        elif kind == "resampled":
            row = difference[t, draws[replicate]].mean(axis=0)
        elif kind == "fold":
            row = difference[t, folds[replicate]].mean(axis=0)
        elif kind == "shuffled":
            row = (difference[t] * rng.choice([-1.0, 1.0], size=(n, 1))).mean(axis=0)
        elif kind == "debiased":
            row = main[t] - (main[t] @ letter) * letter
        else:
            row = rng.standard_normal(truth.hidden)
        rows.append(row)
    raw = np.array(rows)
    lengths = np.linalg.norm(raw, axis=1)
    return norm * raw / lengths[:, None], lengths


def crossfit_projections(activations: np.ndarray, questions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(setting, answer, pair): projection on the unit mean difference of the other folds, from their midpoint on."""
    distinct, codes = np.unique(questions, return_inverse=True)
    n_folds = min(FOLDS, len(distinct))
    fold = (rng.permutation(len(distinct)) % n_folds)[codes]
    difference = activations[:, 0] - activations[:, 1]
    out = np.empty(activations.shape[:3])
    for f in range(n_folds):
        vector = difference[:, fold != f].mean(axis=1)
        vector /= np.linalg.norm(vector, axis=1, keepdims=True)
        middle = activations[:, :, fold != f].mean(axis=(1, 2))[:, None, None]
        out[:, :, fold == f] = np.einsum("kaph,kh->kap", activations[:, :, fold == f] - middle, vector)
    return out


def difference_cosines(activations: np.ndarray) -> np.ndarray:
    """(setting, pair): cosine of each training difference with the mean difference of all."""
    difference = activations[:, 0] - activations[:, 1]
    vector = difference.mean(axis=1)
    product = np.einsum("kph,kh->kp", difference, vector)
    return product / np.linalg.norm(difference, axis=2) / np.linalg.norm(vector, axis=1)[:, None]
