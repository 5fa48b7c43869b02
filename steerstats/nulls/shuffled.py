"""How far p-values against label-shuffled vectors can be believed, from the number and sizes of training questions.

Why always half of the questions are exchanged, and what that costs, is in `cache_builder.vectors.draws`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from steerstats.errors import first_few
from steerstats.nulls.counts import with_t_tail
from steerstats.nulls.table import DIFFERS, FEWEST_QUESTIONS, NullTable
from steerstats.resampling.question_weight import carrying_questions
from steerstats.rounding import floats

NOTABLE = 1.3  # p-values too small by this factor: at 5%, those of fewer than 20 questions
HIGH = 0.075  # a level for 5% that is said where questions are many and a few of them carry the mean
SHUFFLES = 19  # label-shuffled vectors: the fewest that can show anything at 5%
STUDIES, FLIPS = 4000, 400


def shuffled_level(sizes: Sequence[int], *, rng: np.random.Generator) -> float:
    """How often a vector without information passes at 5% against label-shuffled ones, copies being answered alike.

    Questions of nearly equal size are exchanged in pairs, one of each two. What the larger ones of a dataset happen to
    agree on is then in its vector and in no shuffle of it, and where few of them carry the mean that is much of it.
    One that carries it alone has no such partner, and does no harm.

    Parameters
    ----------
    sizes : sequence of int
        Training pairs of each question.
    rng : numpy.random.Generator

    Returns
    -------
    float
        By simulation of normal differences between questions, to .004 or so.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.nulls import shuffled_level
    >>> [round(shuffled_level(sizes, rng=np.random.default_rng(0)), 2) for sizes in ([1] * 60, [30, 29] + [1] * 60)]
    [0.06, 0.35]
    """
    sizes = np.sort(floats(sizes))[::-1]
    pairs, odd = divmod(len(sizes), 2)
    # As a builder exchanges them: the largest first, those of one size in random order, one of each two at random.
    order = np.argsort(-sizes + 0.5 * rng.random((FLIPS, len(sizes))), axis=1)
    turned = rng.choice([-1.0, 1.0], size=(FLIPS, pairs + odd))
    signs = np.stack([turned, -turned], axis=2).reshape(FLIPS, -1)[:, : len(sizes)]
    flips = np.empty_like(signs)
    np.put_along_axis(flips, order, signs, axis=1)
    differences = sizes * rng.standard_normal((STUDIES, len(sizes)))
    own, others = np.abs(differences.sum(axis=1)), np.abs(differences @ flips.T)
    return float(np.mean((others < own[:, None]).mean(axis=1) ** SHUFFLES))


def shuffled_doubt(sizes: Sequence[int], *, rng: np.random.Generator) -> str:
    """Why p-values against label-shuffled vectors are too small, from the training questions; "" where they are not.

    Parameters
    ----------
    sizes : sequence of int
        Training pairs of each question.
    rng : numpy.random.Generator
        For `shuffled_level`.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.nulls import shuffled_doubt
    >>> shuffled_doubt([1] * 12, rng=np.random.default_rng(0))[:76]
    'with 12 training questions, p-values of label-shuffled vectors are too small'
    >>> shuffled_doubt([1] * 40, rng=np.random.default_rng(0))
    ''
    """
    few = 1 < len(sizes) < FEWEST_QUESTIONS  # of a single one every shuffle is the vector up to sign, and p is 1
    if not few and carrying_questions(sizes) >= FEWEST_QUESTIONS:
        return ""
    level = shuffled_level(sizes, rng=rng)
    small = f"p-values of label-shuffled vectors are too small (in simulation, {level:.0%} of vectors without "
    small += "information passed at 5%)"
    if few:
        return f"with {len(sizes)} training questions, {small}"
    if level <= HIGH:
        return ""
    first, second = sorted(sizes)[:-3:-1]
    return (
        f"the two largest of {len(sizes)} training questions hold {first} and {second} of {sum(sizes)} pairs: where "
        f"copies of a question are answered alike, {small}"
    )


def tail_doubt(table: NullTable, questions: Mapping[str, int]) -> str:
    """Which datasets pass against label-shuffled vectors only because p is too small far out; "" where none does.

    Exchanging half of the questions takes what they agree on out of the null's spread, which makes a z test of what
    is a t test on n − 1 degrees of freedom: hardly to be seen at 5% with 20 questions or more, but the smaller p, the
    more it is too small, and one of many datasets passes by a small p alone.

    Parameters
    ----------
    table : NullTable
    questions : mapping of str to int
        Training questions of the datasets, where they are known.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.nulls import null_table, tail_doubt
    >>> null = {f"d{k}": np.arange(1.0, 200)[:, None] for k in range(10)}  # 199 vectors
    >>> slopes = {name: np.array([200.0 if name == "d0" else 50.0]) for name in null}
    >>> tail_doubt(null_table(slopes, null, kind="shuffled"), {"d0": 30})[:69]
    'd0: p-values are too small this far out (0.005 from 30 training quest'
    >>> tail_doubt(null_table(slopes, null, kind="shuffled"), {"d0": 300})
    ''
    """
    passed = [k for k, decision in enumerate(table.decision) if decision == DIFFERS]
    needed = table.alpha * len(passed) / len(table.datasets)
    sizes = {k: questions.get(table.datasets[k], 0) for k in passed}
    honest = {k: float(with_t_tail(table.p[k], n)) for k, n in sizes.items() if n >= FEWEST_QUESTIONS}
    doubted = [k for k, p in honest.items() if p > NOTABLE * needed]
    if not doubted:
        return ""
    worst = max(doubted, key=honest.__getitem__)
    return (
        f"{first_few([table.datasets[k] for k in doubted])}: p-values are too small this far out "
        f"({table.p[worst]:.2g} from {questions[table.datasets[worst]]} training questions stands for about "
        f"{honest[worst]:.2g}, and {needed:.2g} was needed): of simulated studies of 40 datasets without information, "
        "19% with 24 questions each and 12% with 40 showed one to differ at 5%"
    )
