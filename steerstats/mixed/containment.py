"""Which random effect each fixed effect runs along, and the degrees of freedom that this leaves it."""

from __future__ import annotations

import numpy as np

from steerstats.mixed.arrays import nearest_multiple
from steerstats.mixed.formula import Design


def containing(design: Design) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Per fixed effect: the random effect it runs along, its containment df, and what to warn about.

    A fixed effect is contained in random effect z of a factor when it is z times a constant of each group; its df
    are the factor's levels that `_informing` counts, less the fixed effects contained there. The outermost factor that
    contains it counts.
    """
    outward = sorted(range(len(design.terms)), key=lambda k: design.levels[k])
    found: list[tuple[int, int] | None] = []
    for x in design.X.T:
        place = None
        for k in outward:
            for c, z in enumerate(design.Z[k].T):
                if np.abs(x - nearest_multiple(x, z, design.codes[k])).max() <= 1e-9 * np.abs(x).max():
                    place = (k, c)
                    break
            if place:
                break
        found.append(place)
    n_random = max(count * Z.shape[1] for count, Z in zip(design.levels, design.Z))
    rest = max(len(design.y) - n_random - sum(place is None for place in found), 1)
    known = {p: _informing(design, *p) - found.count(p) for p in set(found) - {None}}
    df = np.array([rest if p is None else max(known[p], 1) for p in found], dtype=float)
    columns = tuple("" if p is None else design.z_names[p[0]][p[1]] for p in found)
    warnings = []
    if len({term.label for term in design.terms}) > 1 and outward:
        outer = design.terms[outward[0]].label
        loose = [
            name for name, place in zip(design.names, found) if place is None or design.terms[place[0]].label != outer
        ]
        if loose:
            warnings.append(
                f"{', '.join(loose)} vary within {outer!r} without a random slope over it: their standard errors "
                f"ignore how they differ between levels of {outer!r}"
            )
        if design.levels[outward[0]] < 50:
            warnings.append(
                f"{design.levels[outward[0]]} levels of {outer!r}: prefer `two_stage`, whose Hartung-Knapp intervals "
                "hold with few"
            )
    return columns, df, warnings


def _informing(design: Design, k: int, c: int) -> int:
    """Groups in which random effect c of term k is not a combination of those before it over the same groups.

    The others say nothing of it inside them: counting all of them where it varies in few rejects far too often. Where
    it differs between those others, they do tell of it, and too few are counted: tests then reject too seldom.
    """
    codes, count, label = design.codes[k], design.levels[k], design.terms[k].label
    before = [z for j in range(k) if design.terms[j].label == label for z in design.Z[j].T]
    basis: list[np.ndarray] = []
    for z in [*before, *design.Z[k].T[: c + 1]]:
        rest, least = z, 1e-18 * np.bincount(codes, z * z, minlength=count).max()
        for b in basis:
            rest = rest - nearest_multiple(rest, b, codes)
        informs = np.bincount(codes, rest * rest, minlength=count) > least
        basis.append(np.where(informs[codes], rest, 0.0))
    return int(informs.sum())
