"""What one question alone holds of a factor: it gives no variance, and must not cost the other factors theirs.

Where a level, or a cell of an interaction, stands in one question only, that question's residual is 0 and no robust
standard error exists (leverage 1). Its level is folded or left out here, by name, so that the rest is estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from steerstats.errors import how_many

NEITHER = "neither"
LEVEL_NAMES = {"pos_is_a": ("B", "A"), "pos_is_yes": ("No", "Yes")}  # of levels 0 and 1
LEVERAGE = 1e-10  # as in HC2 and CR2: what is left of a question's residual, below which it counts as none
NO_VARIANCE = "which gives no variance (leverage 1)"


def fold_lone_levels(
    level: Mapping[str, np.ndarray], kept: np.ndarray, codes: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Take out of binary factors every level that a single question holds.

    A lone 1 or 0 counts as "neither"; where nobody else is neither, or these are left out, the factor goes. Inputs of
    a lone "neither" are left out: they would inform no other term, as the level's own column fits them exactly.

    Parameters
    ----------
    level : mapping of factor to ndarray (n,)
        1, 0, NaN where not defined.
    kept : bool ndarray (n,)
        Inputs in the design.
    codes : int ndarray (n,)
        Question of each input.

    Returns
    -------
    level, kept
        As given, after folding; a factor that goes is NaN everywhere.
    said : list of str
        What was done and why.
    """
    level, kept, said = dict(level), kept.copy(), []
    changed = True
    while changed:  # inputs that leave for one factor may have been all but one question of another's level
        changed = False
        for name, values in level.items():
            zero, one = LEVEL_NAMES.get(name, ("0", "1"))
            held = {one: values == 1, zero: values == 0, NEITHER: np.isnan(values)}
            inputs = {label: int((rows & kept).sum()) for label, rows in held.items()}
            questions = {label: np.unique(codes[rows & kept]).size for label, rows in held.items()}
            if not any(questions[label] == 1 for label in held) or not questions[one] + questions[zero]:
                continue
            lone = [label for label in (one, zero) if questions[label] == 1]
            folded = np.logical_or.reduce([held[NEITHER], *(held[label] for label in lone)])
            single = {label: f"{label} in one question alone ({how_many(inputs[label], 'input')})" for label in held}
            shown = " and ".join(single[label] for label in lone) or single[NEITHER]
            changed = True
            if not lone and questions[one] and questions[zero]:
                kept = kept & ~held[NEITHER]
                what = f"is {shown}, {NO_VARIANCE}: left out there"
            elif not lone or np.unique(codes[folded & kept]).size < 2 or folded[kept].all():
                level[name] = np.full(values.shape, np.nan)
                alone = lone or [NEITHER]
                others = [label for label in held if inputs[label] and label not in alone]
                rest = [f"{label} in {how_many(inputs[label], 'input')}" for label in others]
                what = f"is {'; '.join([shown + ', ' + NO_VARIANCE, *rest])}: no contrast is left, it is dropped"
            else:
                level[name] = np.where(folded, np.nan, values)
                left = next(label for label in (one, zero) if label not in lone)
                what = f"is {shown}, {NO_VARIANCE}: counted as {NEITHER}, so that no contrast is left to {left}"
            said.append(f"{name} {what}")
    return level, kept, said


def without_lone_columns(
    columns: np.ndarray, names: Sequence[str], owner: Sequence[str], codes: np.ndarray
) -> tuple[list[int], list[str]]:
    """Columns of a full-rank design of which no question alone determines a coefficient, and what was left out.

    What remains after `fold_lone_levels`: cells of interactions, and numeric factors that vary in one question. An
    interaction goes before a main effect.

    Parameters
    ----------
    columns : ndarray (n, p)
    names, owner : sequence of str, length p
        As in `FactorDesign`.
    codes : int ndarray (n,)

    Returns
    -------
    left : list of int
        Columns to keep.
    said : list of str
    """
    left, said = list(range(len(names))), []
    while len(left) > 1 and np.unique(codes).size > len(left):
        found = _determined(columns[:, left], codes)
        if found is None:
            break
        concerned = [left[j] for j in found if owner[left[j]]]
        crossed = [j for j in concerned if ":" in owner[j]]
        plain = [j for j in crossed if "[" not in names[j]]
        if crossed and not plain:
            gone = crossed
        else:
            last = owner[(plain or concerned)[-1]]
            # An interaction without its main effect would mean something else.
            gone = [j for j in left if owner[j] == last or (not crossed and last in owner[j].split(":"))]
        shown = ", ".join(names[j] for j in gone)
        said.append(f"{shown}: one question alone tells it from the other terms, {NO_VARIANCE}: left out")
        left = [j for j in left if j not in gone]
    return left, said


def _determined(columns: np.ndarray, codes: np.ndarray) -> list[int] | None:
    """The columns whose coefficients one question determines: the first such question's, None if there is none."""
    q, _ = np.linalg.qr(columns)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    for rows in np.split(order, starts):
        if np.square(q[rows]).sum() < 1 - LEVERAGE:
            continue  # the trace bounds the largest eigenvalue
        if np.linalg.eigvalsh(q[rows] @ q[rows].T)[-1] > 1 - LEVERAGE:
            scaled = columns / np.linalg.norm(columns, axis=0)
            rest = np.delete(scaled, rows, axis=0)
            _, sizes, directions = np.linalg.svd(rest, full_matrices=True)
            sizes = np.pad(sizes, (0, columns.shape[1] - sizes.size))
            null = directions[sizes <= 1e-7 * sizes[0]]
            return np.flatnonzero((np.abs(null) > 1e-6).any(axis=0)).tolist()
    return None
