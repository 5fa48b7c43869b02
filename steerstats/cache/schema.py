"""The cache contract as data: every array of a unit, its axes, its type, and whether it must be there.

`SCHEMA.md` says the same in prose. Writers and readers both go through `check_unit`, so what one writes the
other can read, and a file that breaks the contract is refused with the HDF5 path that breaks it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from steerstats.errors import CacheError

UNIT_TYPE = "steerstats.unit"
CACHE_TYPE = "steerstats.cache"
PACK_TYPE = "steerstats.pack"
VERSION = 1
READABLE_VERSIONS = frozenset({1})
KINDS = ("grid", "sweep", "import", "simulated")
SETTINGS = ("base", "sys_pos", "sys_neg", "user_pos", "user_neg")
VECTOR_KINDS = ("trained", "mean", "resampled", "fold", "random", "shuffled", "debiased", "imported")
REQUIRED_ATTRS = ("dataset", "model", "score", "spec_hash")  # beside type and version; a writer adds the unit's name
PART_VALUES = 1 << 22  # of an array that is checked, at a time
NOT_DEFINED = -1  # of the int8 factors: the factor does not apply to this input

STRING = "string"


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of the contract: its axes in order, its storage types, whether a unit must hold it."""

    name: str
    dims: tuple[str, ...]
    dtypes: tuple[str, ...]
    required: bool
    doc: str


@dataclass(frozen=True, slots=True)
class Streamed:
    """An array that is too large to hold: its parts are made one after the other when it is checked and written.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    parts : callable () -> iterator of (index, ndarray)
        Consecutive parts in C order: `index` says where a part belongs, numbers and then one slice. Every call
        starts anew.
    close : callable ()
        Frees what the parts are made from.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Callable[[], Iterator[tuple[tuple, np.ndarray]]]
    close: Callable[[], None] = lambda: None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the whole."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.itemsize


@dataclass(frozen=True, slots=True)
class UnitData:
    """One unit in memory: arrays by name (scales among them; the largest may be `Streamed`), root attributes."""

    arrays: Mapping[str, np.ndarray | Streamed]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def dims(self) -> dict[str, int]:
        """Length of every axis that has a scale here."""
        return {name: len(self.arrays[name]) for name in SCALES if name in self.arrays}


def _rows(text: str) -> tuple[ArraySpec, ...]:
    """Parse the table below: name | axes | types | must or may | meaning."""
    rows = []
    for line in text.strip().splitlines():
        name, dims, dtypes, required, doc = (cell.strip() for cell in line.split("|"))
        rows.append(ArraySpec(name, tuple(dims.split()), tuple(dtypes.split()), required == "must", doc))
    return tuple(rows)


# One row an array, kept on one line each so that the contract reads as a table.
ARRAYS: tuple[ArraySpec, ...] = _rows("""
input | input | string | must | id of an evaluated input
setting_eval | setting_eval | string | must | setting in which inputs are evaluated
vector | vector | string | must | label of a steering vector, unique
multiplier | multiplier | float64 | must | multipliers, strictly increasing, 0 among them
pair | pair | string | may | id of a training pair
setting_train | setting_train | string | may | setting whose training activations are kept
layer | layer | int32 | may | layers whose activations are kept; L is the output of decoder block L
slot | slot | int32 | may | 0..k-1, the layers that one vector steers at once
answer | answer | string | may | positive, negative; negative_2 and so on where there are more wrong options
hidden | hidden | int32 | may | 0..width-1
input_question | input | string | must | hash of the question, the unit of resampling; twins share it
input_text | input | string | may | the user's turn in the base setting, choices included; untrusted text
input_positive | input | string | may | positive completion
input_negative | input | string | may | negative completion
input_option_positive | input | string | may | text of the positive option
input_option_negative | input | string | may | text of the negative option
input_pos_is_a | input | int8 | may | 1 if the positive option is A, 0 if B, -1 not defined
input_pos_is_yes | input | int8 | may | 1 if the positive option is Yes, 0 if No, -1 neither
input_len_positive | input | int32 | may | characters of the positive option
input_len_negative | input | int32 | may | characters of the negative option
input_split | input | string | may | test or val
input_row | input | int32 | may | row of the source file, from 0
input_twin | input | int8 | may | 1 for the counterbalanced twin, else 0
input_prompt_tokens | setting_eval input | int32 | may | tokens of the rendered prompt
pair_question | pair | string | may | hash of the question
pair_pos_is_a | pair | int8 | may | as for inputs
pair_pos_is_yes | pair | int8 | may | as for inputs
pair_len_positive | pair | int32 | may | as for inputs
pair_len_negative | pair | int32 | may | as for inputs
pair_row | pair | int32 | may | as for inputs
vector_kind | vector | string | must | trained, mean, resampled, fold, random, shuffled, debiased or imported
vector_setting | vector | string | must | training setting; "mean" for the mean vector; the name of an imported one
vector_replicate | vector | int32 | must | -1 for main vectors and debiased ones, else 0..
vector_method | vector | string | may | extraction method
vector_norm | vector | float32 | may | norm as applied at multiplier 1
vector_raw_norm | vector | float32 | may | norm before rescaling
vector_layer | vector slot | int32 | may | layers that the vector steers
direction | vector slot hidden | float32 | may | the vector itself, as applied at multiplier 1
propensity | setting_eval vector multiplier input | float32 | must | score of the positive minus the negative answer, nats
answer_logit | setting_eval vector multiplier answer input | float32 | may | logits of the answers' first differing tokens
logsumexp | setting_eval vector multiplier input | float32 | may | log of the sum of exp of all logits at that place
completion_logprob | setting_eval vector multiplier answer input | float32 | may | log-probability of each whole completion, nats
completion_logit | setting_eval vector multiplier answer input | float32 | may | sum of the raw logits of each whole completion's tokens
planned | setting_eval vector | uint8 | must | 1 where this vector is evaluated in this setting
activation | setting_train layer answer pair hidden | float16 float32 | may | training activations at the place that the attribute read names
crossfit_projection | setting_train answer pair | float32 | may | projection on the unit mean difference of the other folds, from the attribute crossfit_origin on
pair_difference_cosine | setting_train pair | float32 | may | cosine of each training difference with its own vector
activation_norm | setting_train | float32 | may | mean norm of the training activations at the steered layer
vector_unembedding_cosine | vector | float32 | may | cosine with the unembedding of answer A minus answer B
input_projection | setting_eval vector input | float32 | may | unsteered activation where the answer is predicted, on the unit vector
input_difference_cosine | setting_eval vector input | float32 | may | cosine of the input's own difference with the vector
""")

FACTOR = "input_factor_", "pair_factor_"
FACTOR_TYPES = ("float64", "int8", STRING)
_FAMILIES = (
    (re.compile(r"input_factor_\w[\w.-]*"), ("input",), FACTOR_TYPES, "a nuisance factor of the user's own"),
    (re.compile(r"pair_factor_\w[\w.-]*"), ("pair",), FACTOR_TYPES, "as for inputs"),
    (re.compile(r"input_negative_([2-9]|[1-9]\d+)"), ("input",), (STRING,), "a further wrong completion"),
)


class _Contract(dict):
    """Arrays by name; those of a family (`input_factor_...`) are known by how their names begin."""

    def __missing__(self, name: str) -> ArraySpec:
        for pattern, dims, dtypes, doc in _FAMILIES:
            if isinstance(name, str) and pattern.fullmatch(name):
                return ArraySpec(name, dims, dtypes, False, doc)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None

    def get(self, name: Any, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default


BY_NAME: Mapping[str, ArraySpec] = _Contract({spec.name: spec for spec in ARRAYS})
SCALES: tuple[str, ...] = tuple(spec.name for spec in ARRAYS if spec.dims == (spec.name,))
# NaN outside `planned`, finite inside
GRID: tuple[str, ...] = ("propensity", "answer_logit", "logsumexp", "completion_logprob", "completion_logit")
PLANNED_SUMMARIES: tuple[str, ...] = ("input_projection", "input_difference_cosine")


def check_unit(unit: UnitData, where: str) -> None:
    """Raise `CacheError` unless the unit keeps the contract.

    Parameters
    ----------
    unit : UnitData
        Arrays and attributes, as written or as read.
    where : str
        File (and group) for the messages.

    Raises
    ------
    CacheError
        Naming `where`, the HDF5 path, the value found and what would be right.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.cache import CacheReader, UnitData, check_unit
    >>> unit = CacheReader(steerstats.demo_cache())["likes-rain"].load()
    >>> check_unit(unit, "likes-rain")
    >>> broken = dict(unit.arrays) | {"multiplier": unit.arrays["multiplier"][::-1]}
    >>> check_unit(UnitData(broken, unit.attrs), "likes-rain")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    steerstats.errors.CacheError: likes-rain: /multiplier is [1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5], it should ...
    """
    check_attrs(unit.attrs, where)
    for name in REQUIRED_ATTRS:
        if name not in unit.attrs:
            raise CacheError(f"{where}: attribute {name} is missing; every unit has it")
    for spec in ARRAYS:
        if spec.required and spec.name not in unit.arrays:
            raise CacheError(f"{where}: /{spec.name} is missing; every unit has it")
    sizes = unit.dims()
    for name, array in unit.arrays.items():
        _check_array(name, array, sizes, where)
    _check_labels(unit.arrays, where)
    check_values(unit.arrays, where)


def check_attrs(attrs: Mapping[str, Any], where: str) -> None:
    """Type and version of a unit's root, before anything else in the file is believed."""
    if attrs.get("type") != UNIT_TYPE:
        raise CacheError(f"{where}: attribute type is {attrs.get('type')!r}, not {UNIT_TYPE!r}")
    check_version(attrs.get("version"), where)


def check_version(version: Any, where: str) -> None:
    """Refuse a version that this program does not know, and say which it does."""
    if isinstance(version, np.integer):
        version = int(version)
    if version not in READABLE_VERSIONS:
        known = ", ".join(str(number) for number in sorted(READABLE_VERSIONS))
        raise CacheError(f"{where}: schema version {version!r} cannot be read; this steerstats reads {known}")


def _check_array(name: str, array: np.ndarray, sizes: Mapping[str, int], where: str) -> None:
    spec = BY_NAME.get(name)
    if spec is None:
        raise CacheError(f"{where}: /{name} is not part of the schema (see SCHEMA.md)")
    kind = dtype_name(array.dtype)
    if kind not in spec.dtypes:
        raise CacheError(f"{where}: /{name} has type {kind}, it should be {' or '.join(spec.dtypes)}")
    for axis in spec.dims:
        if axis not in sizes:
            raise CacheError(f"{where}: /{name} needs the scale /{axis}, which is missing")
    expected = tuple(sizes[axis] for axis in spec.dims)
    if array.shape != expected:
        axes = " x ".join(spec.dims)
        raise CacheError(f"{where}: /{name} has shape {array.shape}, {axes} is {expected}")


def _check_labels(arrays: Mapping[str, np.ndarray], where: str) -> None:
    for name in ("input", "setting_eval", "vector", "setting_train", "pair", "layer"):
        if name in arrays:
            values, counts = np.unique(arrays[name].astype(str), return_counts=True)
            if counts.size and counts.max() > 1:
                raise CacheError(f"{where}: /{name} holds {str(values[counts.argmax()])!r} more than once")
    multiplier = arrays["multiplier"]
    if not (np.all(np.isfinite(multiplier)) and np.all(np.diff(multiplier) > 0)):
        raise CacheError(f"{where}: /multiplier is {multiplier.tolist()}, it should be strictly increasing")
    if 0.0 not in multiplier:
        raise CacheError(f"{where}: /multiplier is {multiplier.tolist()}, it should hold 0, where nothing is steered")
    unknown = sorted(set(arrays["vector_kind"].astype(str)) - set(VECTOR_KINDS))
    if unknown:
        raise CacheError(f"{where}: /vector_kind holds {str(unknown[0])!r}, it should be one of {VECTOR_KINDS}")


def check_values(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Every planned number is finite, and every unplanned one is NaN.

    Raises
    ------
    CacheError
        With the coordinates of the first offending value.
    """
    planned = arrays["planned"].astype(bool)
    for name, array in arrays.items():
        if array.dtype.kind != "f" or name.startswith(FACTOR):
            continue
        if isinstance(array, Streamed):
            _check_parts(name, array, arrays, where)
            continue
        for lead, part in _bounded(array):
            bad = ~np.isfinite(part)
            if name in GRID or name in PLANNED_SUMMARIES:
                wanted = planned[lead[:2]]
                wanted = wanted.reshape(wanted.shape + (1,) * (part.ndim - wanted.ndim))
                if (~bad & ~wanted).any():
                    place = coordinates(name, (*lead, *np.argwhere(~bad & ~wanted)[0]), arrays)
                    raise CacheError(f"{where}: /{name} has a value at {place}, which /planned excludes")
                bad &= wanted
            if bad.any():
                first = (*lead, *np.argwhere(bad)[0])
                place = coordinates(name, first, arrays)
                raise CacheError(f"{where}: /{name} is {array[first]} at {place}; it should be finite")


def _bounded(array: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """An array in parts of at most `PART_VALUES`, or of its last axis, with their indices: it may exceed memory."""
    n_lead, size = 0, array.size
    while size > PART_VALUES and n_lead < array.ndim - 1:
        size //= array.shape[n_lead]
        n_lead += 1
    for lead in np.ndindex(array.shape[:n_lead]):
        yield lead, array[lead]


def _check_parts(name: str, array: Streamed, arrays: Mapping[str, np.ndarray], where: str) -> None:
    for index, part in array.parts():
        bad = ~np.isfinite(part)
        if bad.any():
            inner = np.argwhere(bad)[0]
            place = coordinates(name, (*index[:-1], index[-1].start + inner[0], *inner[1:]), arrays)
            raise CacheError(f"{where}: /{name} is {part[tuple(inner)]} at {place}; it should be finite")


def coordinates(name: str, index: Sequence[int] | np.ndarray, arrays: Mapping[str, np.ndarray]) -> str:
    """`setting_eval=base, vector=mean, ...` for an index into an array, for messages."""
    return ", ".join(f"{axis}={arrays[axis][k]}" for axis, k in zip(BY_NAME[name].dims, index))


def dtype_name(dtype: np.dtype) -> str:
    """`string` for text of any kind, else numpy's name."""
    return STRING if dtype.kind in "OUST" else dtype.name


def content_hash(unit: UnitData) -> str:
    """SHA-256 over the numbers and labels alone: equal for a directory, a packed file, and a second run.

    Provenance (times, hosts, versions) is left out on purpose, so that two builds can be compared.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.cache import CacheReader, UnitData, content_hash
    >>> unit = CacheReader(steerstats.demo_cache())["likes-rain"].load()
    >>> later = UnitData(unit.arrays, dict(unit.attrs) | {"built": "another day"})
    >>> content_hash(later) == content_hash(unit)
    True
    """
    digest = hashlib.sha256()
    for key in ("dataset", "score", "spec_hash"):
        digest.update(f"{key}={unit.attrs.get(key)}\n".encode())
    for name in sorted(unit.arrays):
        array = unit.arrays[name]
        kind = dtype_name(array.dtype)
        digest.update(f"{name} {kind} {array.shape}\n".encode())
        if isinstance(array, Streamed):
            for _, part in array.parts():
                digest.update(np.ascontiguousarray(part.astype(part.dtype.newbyteorder("<"), copy=False)).data)
        elif kind == STRING:
            for text in array.ravel():
                encoded = str(text).encode()
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
        else:
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(np.ascontiguousarray(little).data)
    return digest.hexdigest()
