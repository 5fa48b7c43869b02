"""Steering vectors from training activations: one per setting, rescaled, and the controls that give them error bars.

Every random draw comes from a generator named after what it is for, so that adding
one control never changes another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache_builder.blocks import parts_of
from cache_builder.vectors.draws import check_shuffled, half_flips, named_rng, question_groups
from cache_builder.vectors.extractors import BUILT_IN, find_extractor, nuisance_weights, project_out
from steerstats.errors import InputError

ROUNDING = 1e-6
"""Of an activation's length: eight float32 steps. Steering vectors are thousands of times longer."""
SAME_TOKEN = "do both answers' activations come from the same token of the same prefix?"
SAME_DIFFERENCES = "all questions have the same difference of activations, and without labels nothing is left"


@dataclass(frozen=True, kw_only=True)
class VectorSet:
    """The vectors of one (model, dataset) unit, with the coordinates they have in the cache.

    Parameters
    ----------
    direction : float32 array (n_vectors, n_slots, hidden)
    layers : int32 array (n_vectors, n_slots)
    label, kind, setting, method : tuple of str
        `kind` is one of `VECTOR_KINDS`; `setting` is the training setting, "mean" for means over settings, and the name
        of an imported vector.
    replicate : int32 array (n_vectors,)
        Number of the refit, fold or draw; -1 for the main vectors and the debiased ones.
    norm, raw_norm : float32 array (n_vectors,)
        L2 norm over all slots after and before rescaling.
    notes : tuple of str
        What could not be done, for the build's log.
    """

    direction: np.ndarray
    layers: np.ndarray
    label: tuple[str, ...]
    kind: tuple[str, ...]
    setting: tuple[str, ...]
    method: tuple[str, ...]
    replicate: np.ndarray
    norm: np.ndarray
    raw_norm: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.label)


def fit_vectors(
    activations: np.ndarray,
    settings: Sequence[str],
    layers: Sequence[int],
    *,
    questions: Sequence[str] | None = None,
    pos_is_a: np.ndarray | None = None,
    pos_is_yes: np.ndarray | None = None,
    method: str = "mean_difference",
    mean: bool = True,
    rescale: str = "base",
    resampled: int = 0,
    folds: int = 0,
    random: int = 0,
    shuffled: int = 0,
    debiased: bool = False,
    control_settings: Sequence[str] | None = None,
    seed: int = 0,
    name: str = "",
) -> VectorSet:
    """Fit one vector per training setting, their mean, and the controls asked for.

    Parameters
    ----------
    activations : array or store (n_settings, n_layers, n_options, n_pairs, hidden)
        Positive and negative answers of the training pairs, at the layers that one vector steers at once. Further
        options are wrong ones too: a pair's negative activation is their mean. Anything that gives
        `activations[setting, layer][:, start:stop]` will do, and is read part by part.
    settings : sequence of str
        Names of the first axis.
    layers : sequence of int
        Layers of the second axis; they become the slots.
    questions : sequence of str, optional
        Question of each pair: pairs of one question are resampled, folded and shuffled together. Default: each
        pair is its own.
    pos_is_a, pos_is_yes : int arrays (n_pairs,), optional
        1, 0, or -1 where not defined; for `debiased`.
    method : str
        "mean_difference", "pca", "logistic", or the name of an entry point of `steerstats.extractors`.
    mean : bool
        Add the mean over settings, rescaled after averaging.
    rescale : str
        "base" (every vector to the base vector's norm, slot by slot), "unit", or "none".
    resampled, folds, random, shuffled : int
        Refits on bootstrap resamples and on disjoint parts of the questions, which repeat the whole procedure,
        rescaling included; random directions and refits with the answers of half of the questions exchanged (see
        `draws`), at the norm of the vector that they stand beside. One resample, partition or shuffle serves
        every setting.
    debiased : bool
        The vectors without their A/B and Yes/No directions (see `nuisance_weights`), at the same norm. Where these are
        not defined, or nothing but rounding is left without them, there is none, and a note says so.
    control_settings : sequence of str, optional
        Settings for which controls are made ("mean" included); default: base, or the first setting.
    seed : int
    name : str
        Names the random draws, together with the seed. Builds pass the dataset's name and not the model's, so that
        models share their resamples, folds and shuffles of the same questions.

    Returns
    -------
    VectorSet

    Raises
    ------
    InputError
        If shapes disagree, a method is unknown or fails, a vector is zero (but for rounding) or not finite, or the
        label-shuffled vectors of a setting are the trained one up to sign (as by "pca": no null).
    """
    settings, layers = tuple(settings), tuple(layers)
    if activations.ndim != 5 or activations.shape[:2] != (len(settings), len(layers)) or activations.shape[2] < 2:
        raise InputError(
            f"activations have shape {activations.shape}; they have to be ({len(settings)} settings, "
            f"{len(layers)} layers, 2 answers, pairs, hidden)"
        )
    n_pairs = activations.shape[3]
    if n_pairs < 1:
        raise InputError("a steering vector needs at least one training pair; got none")
    if rescale not in ("base", "unit", "none"):
        raise InputError(f"rescale {rescale!r} is not one of base, unit, none")
    if rescale == "base" and "base" not in settings:
        raise InputError(f"rescale 'base' needs the base setting; there are {', '.join(settings)}")
    groups = question_groups(questions, n_pairs)
    fit = _Fit(activations, settings, find_extractor(method), mean, rescale, method)
    wanted = tuple(control_settings or ("base" if "base" in settings else settings[0],))
    for setting in wanted:
        if setting not in fit.names:
            raise InputError(f"control setting {setting!r} is not among {', '.join(fit.names)}")
    if len(groups) < folds:
        raise InputError(f"{folds} disjoint folds need as many questions; there are {len(groups)}")

    everything, again = np.arange(n_pairs), fit.behind(wanted)
    jobs = {("trained", -1): _Job(everything, settings)}
    for k in range(resampled):
        chosen = named_rng(seed, name, "resampled", str(k)).integers(len(groups), size=len(groups))
        jobs["resampled", k] = _Job(np.concatenate([groups[g] for g in chosen]), again, what="resampled ")
    parts = np.array_split(named_rng(seed, name, "folds").permutation(len(groups)), folds) if folds else ()
    for k, part in enumerate(parts):
        jobs["fold", k] = _Job(np.concatenate([groups[g] for g in part]), again, what="fold ")
    for k in range(shuffled):
        flip = half_flips(groups, n_pairs, named_rng(seed, name, "shuffled", str(k)))
        jobs["shuffled", k] = _Job(everything, again, flip, "label-shuffled ")
    fitted = dict(zip(jobs, fit.all(list(jobs.values()))))

    table = _Table(layers, method)
    main, raw = fitted.pop(("trained", -1))
    for setting in fit.names:
        kind = "mean" if setting == "mean" else "trained"
        table.add(main[setting], raw[setting], kind, setting, -1)
    turned = [fitted.pop(("shuffled", k))[1] for k in range(shuffled)]
    for (kind, k), refit in fitted.items():
        table.add_refit(refit, wanted, kind, k)
    for k in range(random):
        draw = named_rng(seed, name, "random", str(k)).normal(size=main[fit.names[0]].shape)
        for setting in wanted:
            table.add(to_norm(draw, slot_norms(main[setting])), draw, "random", setting, k, "random")
    for setting in again:
        check_shuffled(setting, method, main[setting], [vectors[setting] for vectors in turned])
    for k, vectors in enumerate(turned):
        for setting in wanted:
            table.add(to_norm(vectors[setting], slot_norms(main[setting])), vectors[setting], "shuffled", setting, k)
    if debiased:
        weights = nuisance_weights(n_pairs, pos_is_a, pos_is_yes)
        nuisance = fit.nuisance(main, weights) if len(weights) else {}
        table.add_debiased(main, nuisance, fit.rounding(main, raw), wanted)
    return table.finish()


def difference(options: np.ndarray) -> np.ndarray:
    """Positive minus the mean of the negative options, (n_options, n, hidden) -> float64 (n, hidden)."""
    values = options.astype(np.float64)
    return values[0] - (values[1] if len(values) == 2 else values[1:].mean(axis=0))


def slot_norms(direction: np.ndarray) -> np.ndarray:
    """L2 norm of each slot, (n_slots, hidden) -> (n_slots,)."""
    return np.linalg.norm(direction, axis=-1)


def to_norm(direction: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Rescale each slot of (n_slots, hidden) to the given norm.

    Raises
    ------
    InputError
        If a slot is zero: a zero vector has no direction.
    """
    own = slot_norms(direction)
    if not (own > 0).all():
        raise InputError(f"a steering vector is zero and cannot be rescaled; {SAME_TOKEN}")
    return direction * (np.asarray(norms) / own)[..., None]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One fit: the pairs that it uses (repeated where they were drawn twice), the settings in which they are used, and
    the pairs whose answers are exchanged.

    `what` says in errors which fit it is: "", or "resampled " and the like.
    """

    pairs: np.ndarray
    settings: tuple[str, ...]
    flip: np.ndarray | None = None
    what: str = ""

    def weights(self, n_pairs: int) -> np.ndarray:
        """(n_pairs,) such that the weighted sum of differences is the mean difference of this fit."""
        weights = np.bincount(self.pairs, minlength=n_pairs) / len(self.pairs)
        return weights if self.flip is None else np.where(self.flip, -weights, weights)


class _Fit:
    """One extraction procedure: a vector per setting, the mean, and rescaling, for any number of fits at once."""

    def __init__(self, activations, settings, extractor, mean, rescale, method):
        self.activations, self.settings, self.extractor = activations, settings, extractor
        self.mean, self.rescale, self.method = mean, rescale, method
        self.names = (*settings, *(("mean",) if mean else ()))

    def behind(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Settings that have to be fitted for the vectors of these: all for the mean, and base for its norm."""
        if "mean" in wanted:
            return self.settings
        needed = {*wanted, *(("base",) if self.rescale == "base" else ())}
        return tuple(name for name in self.settings if name in needed)

    def all(self, jobs: Sequence[_Job]) -> list[tuple[dict, dict]]:
        """Of each fit: rescaled and raw vectors (n_slots, hidden) by setting."""
        raw: dict[_Job, dict] = {job: {} for job in jobs}
        for s, name in enumerate(self.settings):
            here = [job for job in jobs if name in job.settings]
            found = self._differences(s, here) if self.method == "mean_difference" else self._extracted(s, here)
            if not np.isfinite(found).all():
                raise InputError(f"the {self.method} vector of setting {name} is not finite; are the activations?")
            least = self._rounding(s)
            for k, job in enumerate(here):
                if not (slot_norms(found[:, k]) > least).all():
                    hint = SAME_DIFFERENCES if job.flip is not None else SAME_TOKEN
                    raise InputError(f"{job.what}{self.method}, setting {name}: the steering vector is zero; {hint}")
                raw[job][name] = found[:, k]
        return [self._rescaled(one) for one in raw.values()]

    def _rounding(self, setting: int) -> np.ndarray:
        """Length (n_slots,) up to which a vector is what rounding leaves of nothing: the same token after the same
        tokens (all that a sliding window shows, say) is not the same bits wherever it is computed. A registered method
        has a scale of its own."""
        _, n_layers, n_options, n_pairs, hidden = self.activations.shape
        if self.method not in BUILT_IN:
            return np.zeros(n_layers)
        rows = parts_of(n_pairs, 8 * n_options * hidden)[0]
        norms = [np.linalg.norm(self.activations[setting, slot][:, rows], axis=-1).mean() for slot in range(n_layers)]
        return ROUNDING * np.array(norms)

    def rounding(self, main: dict, raw: dict) -> dict[str, np.ndarray]:
        """Length (n_slots,) up to which what is left of each main vector is rounding, at the scale that it has now."""
        scale = {name: slot_norms(main[name]) / slot_norms(raw[name]) for name in main}
        found = {name: self._rounding(s) * scale[name] for s, name in enumerate(self.settings)}
        return found | {name: np.max(list(found.values()), axis=0) * scale[name] for name in main if name not in found}

    def _differences(self, setting: int, jobs: Sequence[_Job]) -> np.ndarray:
        """Mean differences (n_slots, n_jobs, hidden)."""
        return self.weighted(setting, np.stack([job.weights(self.activations.shape[3]) for job in jobs]))

    def nuisance(self, main: dict, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Directions (n_slots, n_weights, hidden) by setting, as much longer or shorter as its vector is than its mean
        difference: so their mean is that of what the mean vector is the mean of."""
        n_pairs, found = self.activations.shape[3], {}
        for s, name in enumerate(self.settings):
            *sums, mean = np.moveaxis(self.weighted(s, np.vstack([weights, np.full(n_pairs, 1 / n_pairs)])), 1, 0)
            norms = slot_norms(mean)
            scale = np.divide(slot_norms(main[name]), norms, out=np.ones_like(norms), where=norms > 0)
            found[name] = np.stack(sums, axis=1) * scale[:, None, None]
        return found

    def weighted(self, setting: int, weights: np.ndarray) -> np.ndarray:
        """Weighted sums (n_slots, n_weights, hidden) of the pairs' differences, read part by part."""
        _, n_layers, n_options, n_pairs, hidden = self.activations.shape
        total = np.zeros((n_layers, len(weights), hidden))
        for slot in range(n_layers):
            for rows in parts_of(n_pairs, 8 * n_options * hidden):
                total[slot] += weights[:, rows] @ difference(self.activations[setting, slot][:, rows])
        return total

    def _extracted(self, setting: int, jobs: Sequence[_Job]) -> np.ndarray:
        """(n_slots, n_jobs, hidden) by any other method, which has one layer's pairs in memory at a time."""
        slots = []
        for slot in range(self.activations.shape[1]):
            values = np.asarray(self.activations[setting, slot][:, 0 : self.activations.shape[3]])
            right, wrong = values[0], values[1] if len(values) == 2 else values[1:].mean(axis=0)
            slots.append([self._one(job, right, wrong) for job in jobs])
        return np.asarray(slots)

    def _one(self, job: _Job, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        positive, negative = right[job.pairs], wrong[job.pairs]
        if job.flip is not None:
            turned = job.flip[job.pairs][:, None]
            positive, negative = np.where(turned, negative, positive), np.where(turned, positive, negative)
        return self.extractor(positive, negative)

    def _rescaled(self, raw: dict) -> tuple[dict, dict]:
        if self.rescale == "none":
            scaled = dict(raw)
        else:
            n_slots = self.activations.shape[1]
            norms = slot_norms(raw["base"]) if self.rescale == "base" else np.ones(n_slots)
            scaled = {name: to_norm(vector, norms) for name, vector in raw.items()}
        if self.mean and len(scaled) == len(self.settings):
            raw["mean"] = np.mean([scaled[name] for name in self.settings], axis=0)
            scaled["mean"] = raw["mean"] if self.rescale == "none" else to_norm(raw["mean"], norms)
        return scaled, raw


class _Table:
    """Vectors and their coordinates, in the order they get in the cache."""

    def __init__(self, layers: tuple[int, ...], method: str) -> None:
        self.layers, self.method, self.rows, self.notes = layers, method, [], []

    def add(self, direction, raw, kind, setting, replicate, method=None) -> None:
        label = setting if replicate < 0 and kind in ("trained", "mean") else f"{kind}:{setting}"
        label += f":{replicate}" if replicate >= 0 else ""
        self.rows.append((direction, raw, label, kind, setting, replicate, method or self.method))

    def add_refit(self, fitted, settings, kind, k) -> None:
        for setting in settings:
            self.add(fitted[0][setting], fitted[1][setting], kind, setting, k)

    def add_debiased(self, main, nuisance, rounding, wanted) -> None:
        for setting in wanted:
            if not nuisance:
                self.notes.append(f"no debiased vector for {setting}: the pairs define neither A/B nor Yes/No")
                continue
            # the directions of the mean over settings are the mean of the settings' directions
            slots = np.mean(list(nuisance.values()), axis=0) if setting == "mean" else nuisance[setting]
            raw = np.stack([project_out(vector, found) for vector, found in zip(main[setting], slots)])
            if not (slot_norms(raw) > rounding[setting]).all():
                self.notes.append(f"no debiased vector for {setting}: it is made of its A/B and Yes/No directions")
                continue
            self.add(to_norm(raw, slot_norms(main[setting])), raw, "debiased", setting, -1)

    def finish(self) -> VectorSet:
        directions, raws, labels, kinds, settings, replicates, methods = zip(*self.rows)
        direction = np.stack(directions).astype(np.float32)
        if not np.isfinite(direction).all():
            bad = labels[int(np.argwhere(~np.isfinite(direction))[0][0])]
            raise InputError(f"steering vector {bad!r} is not finite")
        zero = ~direction.any(axis=-1).all(axis=-1)
        if zero.any():
            raise InputError(f"steering vector {labels[int(np.flatnonzero(zero)[0])]!r} is zero; {SAME_TOKEN}")
        return VectorSet(
            direction=direction,
            layers=np.tile(np.array(self.layers, dtype=np.int32), (len(labels), 1)),
            label=labels,
            kind=kinds,
            setting=settings,
            method=methods,
            replicate=np.array(replicates, dtype=np.int32),
            norm=np.linalg.norm(direction, axis=(1, 2)).astype(np.float32),
            raw_norm=np.array([np.linalg.norm(raw) for raw in raws], dtype=np.float32),
            notes=tuple(self.notes),
        )
