"""Per-input slopes of many datasets over train x eval settings, and the inputs that a comparison may use.

Every estimator of this package takes a `SlopeGrid`. Which inputs count is decided here and nowhere else: those
with a finite slope in every setting compared, with the rest counted; twins of a question stay together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from steerstats.errors import InputError
from steerstats.resampling.question_weight import weight_warnings
from steerstats.rounding import floats

Shift = tuple[str, str]

ID_SHIFT: Shift = ("base", "base")
PAPER_SHIFTS: tuple[Shift, ...] = (
    ("base", "user_neg"),
    ("base", "user_pos"),
    ("sys_pos", "user_neg"),
    ("sys_neg", "user_pos"),
)

FEW_UNITS = 10
SAMPLE = "the questions are a sample of those the dataset stands for"  # what every interval over them assumes
SINGLE = "a single question has no variance: no interval"
ONE_SIDED = "too many resamples have no variance: a limit is infinite"
NO_WIDTH = "every question gives the same value: the interval has no width, and says nothing about other questions"


@dataclass(frozen=True, kw_only=True)
class SlopeGrid:
    """Steerability of every input under every training setting's vector, in every evaluation setting.

    Parameters
    ----------
    train, evaluate : tuple of str
        Setting names of the first two axes.
    slopes : mapping of str to array of shape (n_train, n_eval, n_inputs)
        Dataset -> slopes in nats per unit multiplier. NaN where a cell was not evaluated or has no slope;
        the number of inputs may differ between datasets.
    question : mapping of str to array of shape (n_inputs,), optional
        Dataset -> hash of each input's question, the unit of resampling. Inputs are their own units without.
    unsteered : mapping of str to array of shape (n_eval, n_inputs), optional
        Dataset -> unsteered propensity m(0), in nats.
    refits : mapping of str to array of shape (n_refits, n_train, n_eval, n_inputs), optional
        Dataset -> slopes under vectors refitted on bootstrap resamples of the training pairs, replicate k from
        the same resample of pairs in every setting. Cells without refits are NaN, and a dataset without any may be
        left out. Where they are, intervals include the vector's own error.
    refit_draw : mapping of str to sequence of str, optional
        Dataset -> name of the resample of training pairs behind each of its refits. Refits of two grids with one name
        were fitted to the same pairs, and their errors are not independent.
    category : mapping of str to str, optional
        Dataset -> category, for leave-one-category-out.

    Raises
    ------
    InputError
        If a shape does not fit the settings, a mapping other than `refits` lacks a dataset, or there are fewer than
        two refits.

    Examples
    --------
    >>> import steerstats
    >>> grid = steerstats.open_cache(steerstats.demo_cache()).grid(["base->base", "base->user_neg"])
    >>> cells = grid.cells(grid.datasets[0], [("base", "base"), ("base", "user_neg")])
    >>> cells.slopes.shape, cells.n_excluded
    ((2, 60), 0)
    """

    train: tuple[str, ...]
    evaluate: tuple[str, ...]
    slopes: Mapping[str, np.ndarray]
    question: Mapping[str, np.ndarray] | None = None
    unsteered: Mapping[str, np.ndarray] | None = None
    refits: Mapping[str, np.ndarray] | None = None
    refit_draw: Mapping[str, Sequence[str]] | None = None
    category: Mapping[str, str] | None = None
    _index: dict = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {"train": _places(self.train, "train"), "evaluate": _places(self.evaluate, "evaluate")}
        object.__setattr__(self, "_index", index)
        if not self.slopes:
            raise InputError("slopes is empty; at least one dataset is needed")
        shape = (len(self.train), len(self.evaluate))
        as_float = {name: floats(array) for name, array in self.slopes.items()}
        object.__setattr__(self, "slopes", as_float)
        for name, array in as_float.items():
            if array.ndim != 3 or array.shape[:2] != shape:
                raise InputError(f"slopes[{name!r}] has shape {array.shape}; {shape} + (n_inputs,) is needed")
            n = array.shape[2]
            self._check("question", name, lambda a, n=n: a.shape == (n,), f"({n},)")
            self._check("unsteered", name, lambda a, n=n: a.shape == (shape[1], n), f"({shape[1]}, {n})")
            want = (*shape, n)
            if self.refits is not None and name in self.refits:
                self._check("refits", name, lambda a, w=want: a.ndim == 4 and a.shape[1:] == w, f"(n_refits,) + {want}")
                if len(self.refits[name]) < 2:
                    raise InputError(f"refits[{name!r}] has {len(self.refits[name])}; a variance needs at least two")
                named = None if self.refit_draw is None else self.refit_draw.get(name)
                if named is not None and len(set(named)) != len(self.refits[name]):
                    raise InputError(
                        f"refit_draw[{name!r}] holds {len(set(named))} names for {len(self.refits[name])} refits; each "
                        "refit is of a resample of its own"
                    )
        if self.category is not None and set(self.slopes) - set(self.category):
            raise InputError(f"category lacks {sorted(set(self.slopes) - set(self.category))}")

    def _check(self, name: str, dataset: str, fits, wanted: str) -> None:
        mapping = getattr(self, name)
        if mapping is None:
            return
        if dataset not in mapping:
            raise InputError(f"{name} lacks dataset {dataset!r}, which slopes has")
        shape = np.shape(mapping[dataset])
        if not fits(np.asarray(mapping[dataset])):
            raise InputError(f"{name}[{dataset!r}] has shape {shape}; {wanted} is needed")

    @property
    def datasets(self) -> tuple[str, ...]:
        """Dataset names, in the order of `slopes`."""
        return tuple(self.slopes)

    def place(self, shift: Shift) -> tuple[int, int]:
        """Indices (train, eval) of a shift; InputError where a setting is not in the grid."""
        train, evaluate = shift
        if train not in self._index["train"]:
            raise InputError(f"training setting {train!r} is not in the grid; it has {', '.join(self.train)}")
        if evaluate not in self._index["evaluate"]:
            raise InputError(f"evaluation setting {evaluate!r} is not in the grid; it has {', '.join(self.evaluate)}")
        return self._index["train"][train], self._index["evaluate"][evaluate]

    def has(self, shift: Shift, dataset: str | None = None) -> bool:
        """Whether the shift was evaluated, on one dataset or on all."""
        if shift[0] not in self._index["train"] or shift[1] not in self._index["evaluate"]:
            return False
        i, j = self.place(shift)
        chosen = self.datasets if dataset is None else (dataset,)
        return all(np.isfinite(self.slopes[name][i, j]).any() for name in chosen)

    def cells(self, dataset: str, shifts: Sequence[Shift]) -> Cells:
        """Slopes of one dataset in several cells, on the inputs that are complete in all of them.

        Parameters
        ----------
        dataset : str
        shifts : sequence of (train, eval)

        Raises
        ------
        InputError
            If a cell was not evaluated, or no input is complete.
        """
        if dataset not in self.slopes:
            raise InputError(f"dataset {dataset!r} is not in the grid; it has {', '.join(self.datasets)}")
        for shift in shifts:
            self.place(shift)
            if not self.has(shift, dataset):
                raise InputError(f"dataset {dataset!r} has no slopes in {shift_name(shift)}")
        places = [self.place(shift) for shift in shifts]
        slopes = np.stack([self.slopes[dataset][i, j] for i, j in places])
        complete = np.isfinite(slopes).all(axis=0)
        refits, refitted = None, np.zeros(len(shifts), dtype=bool)
        if self.refits is not None and dataset in self.refits:
            again = floats(self.refits[dataset])
            refits = np.stack([again[:, i, j] for i, j in places], axis=1)
            refitted = np.isfinite(refits).any(axis=(0, 2))
            complete &= np.isfinite(refits[:, refitted]).all(axis=(0, 1))
        if not complete.any():
            raise InputError(
                f"dataset {dataset!r} has no input with slopes in all of {[shift_name(s) for s in shifts]}"
            )
        question = None if self.question is None else np.asarray(self.question[dataset])[complete]
        return Cells(
            slopes=slopes[:, complete],
            question=question,
            n_excluded=int((~complete).sum()),
            complete=complete,
            refits=refits[..., complete] if refitted.any() else None,
            refitted=refitted,
            draw=self.draws(dataset) if refitted.any() else None,
        )

    def draws(self, dataset: str) -> tuple[str, ...] | None:
        """Names of the resamples behind a dataset's refits, None where they are not known or there are none."""
        if self.refits is None or self.refit_draw is None or dataset not in self.refits:
            return None
        return tuple(self.refit_draw[dataset]) if dataset in self.refit_draw else None


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Complete cases of one dataset.

    Parameters
    ----------
    slopes : ndarray of shape (n_shifts, n_inputs)
    question : ndarray of shape (n_inputs,) or None
    n_excluded : int
        Inputs that were not complete in all the cells.
    complete : ndarray of bool, over all inputs of the dataset
    refits : ndarray of shape (n_refits, n_shifts, n_inputs) or None
        NaN in cells without refits; None where no cell has them.
    refitted : ndarray of bool, shape (n_shifts,)
        Cells with refits.
    draw : tuple of str or None
        Name of the resample behind each refit, where it is known.
    """

    slopes: np.ndarray
    question: np.ndarray | None
    n_excluded: int
    complete: np.ndarray
    refits: np.ndarray | None
    refitted: np.ndarray
    draw: tuple[str, ...] | None = None

    @classmethod
    def paired(cls, sides: Mapping[str, np.ndarray], question: np.ndarray | None, where: str) -> Cells:
        """Two vectors of slopes on the same inputs, by the names of arguments; `where` an input has to have both."""
        values = [floats(side) for side in sides.values()]
        if values[0].ndim != 1 or values[0].shape != values[1].shape:
            named = " and ".join(f"{name} {one.shape}" for name, one in zip(sides, values))
            raise InputError(f"{named} must be vectors of one length")
        slopes = np.stack(values)
        complete = np.isfinite(slopes).all(axis=0)
        if not complete.any():
            raise InputError(f"no input has a finite slope {where}")
        return cls(
            slopes=slopes[:, complete],
            question=None if question is None else np.asarray(question)[complete],
            n_excluded=int((~complete).sum()),
            complete=complete,
            refits=None,
            refitted=np.zeros(2, dtype=bool),
        )

    def left_out(self) -> tuple[str, ...]:
        """What to warn of where inputs were not complete."""
        return (f"{self.n_excluded} inputs without a slope on both sides are left out",) if self.n_excluded else ()

    def vector_covariance(self) -> np.ndarray:
        """Covariance (n_shifts, n_shifts) of the cells' means over another draw of vectors; 0 where not refitted."""
        out = np.zeros((len(self.slopes),) * 2)
        if self.refits is not None:
            means = self.refits[:, self.refitted].mean(axis=2)
            out[np.ix_(self.refitted, self.refitted)] = np.cov(means, rowvar=False)
        return out


def cells_frame(table: Any, names: Sequence[str], axes: Mapping[str, Sequence], **more: np.ndarray) -> pd.DataFrame:
    """One row per cell of a result's arrays, labelled by `axes`; what has fewer of these, such as n, is repeated."""
    shape = [len(labels) for labels in axes.values()]
    columns = {name: getattr(table, name) for name in names} | more
    columns = {name: np.broadcast_to(values, shape).ravel() for name, values in columns.items()}
    frame = pd.DataFrame(columns, index=pd.MultiIndex.from_product(axes.values(), names=axes)).reset_index()
    for name in ("n", "n_excluded"):
        frame[name] = frame["dataset"].map(dict(zip(table.datasets, getattr(table, name)))).astype(int)
    return frame.assign(level=table.level)


def shift_name(shift: Shift) -> str:
    """The name of a shift.

    Examples
    --------
    >>> shift_name(("base", "user_neg"))
    'base->user_neg'
    """
    return f"{shift[0]}->{shift[1]}"


def parse_shift(text: str | Shift) -> Shift:
    """A shift as a pair (train, eval), from its name or from a pair.

    Raises
    ------
    InputError
        If it is neither.

    Examples
    --------
    >>> parse_shift("base->user_neg")
    ('base', 'user_neg')
    """
    if isinstance(text, str):
        train, _, evaluate = (part.strip() for part in text.partition("->"))
        if train and evaluate and "->" not in evaluate:
            return train, evaluate
    elif isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(name, str) and name for name in text):
        return tuple(text)
    raise InputError(
        f"shift {text!r} is not of the form 'train->eval', such as 'base->user_neg', nor a pair (train, eval) of names"
    )


def parse_shifts(shifts: Sequence[Shift | str] | Shift | str, *, reference: Shift | None = None) -> tuple[Shift, ...]:
    """Several shifts as pairs, each once; a single one may stand without brackets.

    Parameters
    ----------
    shifts : sequence of (train, eval) or "train->eval", or one of them
    reference : (train, eval), optional
        What they are compared with, and which therefore cannot be one of them.

    Raises
    ------
    InputError
        If there is none, one is no shift, one is there twice, or one is the reference.
    """
    if isinstance(shifts, str) or (
        isinstance(shifts, tuple) and len(shifts) == 2 and all(isinstance(s, str) and "->" not in s for s in shifts)
    ):
        shifts = [shifts]
    try:
        found = tuple(parse_shift(shift) for shift in shifts)
    except TypeError as error:
        raise InputError(f"shifts is {shifts!r}; a sequence such as ['base->user_neg'] is needed") from error
    if not found:
        raise InputError("shifts is empty; at least one (train, eval) pair is needed")
    twice = [shift for shift in found if found.count(shift) > 1]
    if twice:
        raise InputError(
            f"shifts names {shift_name(twice[0])} twice; each counts once in the family of tests and bands"
        )
    if reference is not None and reference in found:
        raise InputError(
            f"shifts names {shift_name(reference)}, which every other is compared with: its gap is 0 and its "
            f"correlation 1 by definition; name shifts away from it, such as {shift_name(PAPER_SHIFTS[0])}"
        )
    return found


def without_width(estimate: np.ndarray, se: np.ndarray) -> np.ndarray:
    """Whether intervals have no width: values that are the same differ by rounding where refits enter."""
    return se <= 1e-12 * np.abs(estimate)


def unit_warnings(n_units: int, place: str, question: np.ndarray | None = None) -> tuple[str, ...]:
    """What few units of resampling mean for an interval; empty with ten or more.

    With the question of each input, also what it means that a few of them hold most inputs.
    """
    if n_units == 1:
        return (f"{place}{SINGLE}",)
    if n_units < FEW_UNITS:
        return (f"{place}only {n_units} questions",)
    return () if question is None else weight_warnings(np.unique(question, return_counts=True)[1], place)


def _places(names: Sequence[str], axis: str) -> dict[str, int]:
    if len(set(names)) != len(names):
        raise InputError(f"{axis} names a setting twice: {', '.join(names)}")
    return {name: place for place, name in enumerate(names)}
