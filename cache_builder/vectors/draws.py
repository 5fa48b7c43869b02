"""Random draws by name, and label-shuffled vectors: what is exchanged, and when what comes of it is no null at all.

Half of the questions have their positive and negative answers exchanged, and the vector is fitted again and brought
to the trained one's norm. What all questions agree on cancels in the halves; what is left is what the same recipe
makes of these very activations when it is told nothing of the labels.

The null hypothesis of the p-value (`steerstats.nulls`) is that no question's difference knows its sign: (d_1, ...,
d_n) is distributed as (±d_1, ..., ±d_n) for all signs. Independent flips of every question would then give an exact
p. But where the differences are consistent, some of those draws leave most labels as they are, and brought to full
norm they are the trained vector again: at 48 questions, a median |cosine| of .9 where half and half gives .4. So
exactly half are flipped, and p is approximate: flips of one half form no group (two of them composed are no third;
cf. Southworth, Kim & Owen 2009, doi:10.1089/cmb.2008.0144, on balanced permutations), and the null lacks draws near
the trained vector. That makes p too small where questions are few: at 5% and with 19 shuffles, a vector without
information passes in 15% of cases at 6 questions, 8% at 12, and 6% at 40 (`steerstats.nulls.shuffled_level`). Further
out it is more, as the normal tail of a t statistic: a p of .00125, by which one of forty datasets passes alone, is two
to three times too small at 24 and 40 questions, and `steerstats.nulls.tail_doubt` says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from steerstats.errors import InputError

PARALLEL = 0.999
# In fewer dimensions, directions come as close as that by chance.
FEWEST_DIMENSIONS = 8


def named_rng(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and on the names alone (SHA-256, so the same on every machine)."""
    digest = hashlib.sha256("\x1f".join(names).encode()).digest()
    return np.random.default_rng(np.random.SeedSequence([seed, *np.frombuffer(digest, dtype="<u4").tolist()]))


def question_groups(questions: Sequence[str] | None, n_pairs: int) -> list[np.ndarray]:
    """Indices of the pairs of each question, questions in the order of first appearance."""
    if questions is None:
        return [np.array([i]) for i in range(n_pairs)]
    if len(questions) != n_pairs:
        raise InputError(f"there are {len(questions)} questions for {n_pairs} pairs")
    members: dict[str, list[int]] = {}
    for i, question in enumerate(questions):
        members.setdefault(str(question), []).append(i)
    return [np.array(indices) for indices in members.values()]


def half_flips(groups: Sequence[np.ndarray], n_pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Which pairs have their two answers exchanged: those of exactly half of the questions.

    Parameters
    ----------
    groups : sequence of int arrays
        Indices of the pairs of each question.
    n_pairs : int
    rng : numpy.random.Generator

    Returns
    -------
    bool array (n_pairs,)
        Of an odd number of questions, half rounded up or down at random. Questions count by their pairs in a vector,
        so that equal ones balance each other: those with the same number of pairs (nearly, where one is left over)
        are matched at random, and of each two one is flipped. Among questions of equal size every half is as likely
        as every other.
    """
    flip = np.zeros(n_pairs, dtype=bool)
    order = rng.permutation(len(groups))
    # the largest first: what has no partner at the end weighs least
    order = order[np.argsort([-len(groups[g]) for g in order], kind="stable")]
    turned = rng.random((len(groups) + 1) // 2) < 0.5
    for place, question in enumerate(order):
        flip[groups[question]] = turned[place // 2] ^ bool(place % 2)
    return flip


def check_shuffled(setting: str, method: str, trained: np.ndarray, shuffled: Sequence[np.ndarray]) -> None:
    """Refuse label-shuffled vectors that are the trained one up to sign.

    Parameters
    ----------
    setting, method : str
        For the error.
    trained : array (n_slots, hidden)
    shuffled : sequence of arrays (n_slots, hidden)

    Raises
    ------
    InputError
        If |cosine| with the trained vector is above .999 in every slot of every one of them: the fit does not see
        which answer is the positive one, and steerability under them differs from the vector's own by rounding.
    """
    if not len(shuffled) or trained.shape[-1] < FEWEST_DIMENSIONS:
        return
    others = np.stack(shuffled)
    size = np.linalg.norm(others, axis=-1) * np.linalg.norm(trained, axis=-1)
    if (np.abs((others * trained).sum(axis=-1)) > PARALLEL * size).all():
        raise InputError(
            f"every label-shuffled {method} vector of setting {setting} is the trained one up to sign "
            f"(|cosine| > {PARALLEL}), and no null: either {method} does not see which answer is the positive one, "
            "or there are too few questions; set controls.shuffled = 0 and use controls.random"
        )
