"""Propensity curves of one simulated dataset: inputs and their factors, true slopes under every vector, the grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steerstats.cache import NOT_DEFINED
from steerstats.errors import InputError
from steerstats.generalization.slopes import ID_SHIFT, PAPER_SHIFTS
from steerstats.resampling.seeds import generator
from steerstats.simulate.truth import SimulationTruth

MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class UnitTruth:
    """What one simulated dataset really contains.

    Parameters
    ----------
    dataset : str
    settings, vectors : tuple of str
        Labels of the axes below; `vectors` are the main ones, the training settings and "mean".
    mean_steerability : float
        The dataset's own mean slope (base to base, balanced factors, a vector without error).
    slope : ndarray (setting_eval, vector, input)
        Slope of every main vector on every input, the vector's error included; nats per unit multiplier.
    intercept : ndarray (setting_eval, input)
        Unsteered propensity, nats.
    curvature : ndarray (input,)
    test : bool ndarray (input,)
        The inputs of split "test".
    prompt_loss : ndarray (setting_eval,)
    transfer_cost : ndarray (setting_train, setting_eval)
    vector_error : ndarray (setting_train,)
        Error of each trained vector's mean slope.
    dprime, difference_cosine : float
        Separation and cosine in the training activations, before sampling.
    """

    dataset: str
    settings: tuple[str, ...]
    vectors: tuple[str, ...]
    mean_steerability: float
    slope: np.ndarray
    intercept: np.ndarray
    curvature: np.ndarray
    test: np.ndarray
    prompt_loss: np.ndarray
    transfer_cost: np.ndarray
    vector_error: np.ndarray
    dprime: float
    difference_cosine: float

    def mean_slope(self, vector: str = "base", setting_eval: str = "base") -> float:
        """Mean slope over the test inputs of this draw.

        Of the linear part: where curves bend and the multipliers are not symmetric about 0, a line fitted to them has
        another slope.
        """
        at = self.settings.index(setting_eval), self.vectors.index(vector)
        return float(self.slope[at][self.test].mean())

    def gap(self, train: str, evaluation: str) -> float:
        """Loss of mean slope from base to base to this shift, over the test inputs of this draw."""
        return self.mean_slope() - self.mean_slope(train, evaluation)

    def expected_gap(self, train: str, evaluation: str) -> float:
        """The same over all inputs and vectors that could have been drawn."""
        e, t, base = (self.settings.index(name) for name in (evaluation, train, "base"))
        return float(self.prompt_loss[e] + self.transfer_cost[t, e] - self.prompt_loss[base])


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs of one dataset: where they come from, their factors, and their own deviations (unit variance)."""

    question: np.ndarray
    twin: np.ndarray
    test: np.ndarray
    pos_is_a: np.ndarray
    pos_is_yes: np.ndarray
    len_positive: np.ndarray
    len_negative: np.ndarray
    slope_deviation: np.ndarray
    intercept_deviation: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """The vector axis of one dataset."""

    label: tuple[str, ...]
    kind: tuple[str, ...]
    setting: tuple[str, ...]
    replicate: np.ndarray
    planned: np.ndarray


def latent_steerability(truth: SimulationTruth, dataset: str, model: str, seed: int) -> tuple[float, float]:
    """Mean steerability of a dataset, and the same in standard units over datasets."""
    given = truth.mean_steerability
    if np.ndim(given):
        spread = np.std(given) or 1.0
        value = truth.of("mean_steerability", dataset)
        return value, (value - float(np.mean(given))) / spread
    shared = generator(seed, "steerability", dataset).standard_normal()
    own = generator(seed, "steerability", dataset, model).standard_normal()
    z = np.sqrt(truth.cross_model_correlation) * shared + np.sqrt(1 - truth.cross_model_correlation) * own
    return float(given + truth.between_sd * z), float(z)


def draw_inputs(truth: SimulationTruth, rng: np.random.Generator, own: np.random.Generator) -> Inputs:
    """Questions, factors and deviations; twins of one question differ in A/B alone.

    `rng` is the dataset's, the same for every model; `own` the model's, for what two models do not share.
    """
    per_question = 2 if truth.counterbalance else 1
    n_test, n_val = truth.n_inputs // per_question, truth.n_val // per_question
    n = n_test + n_val
    test = np.zeros(n, dtype=bool)
    test[rng.permutation(n)[:n_test]] = True
    pos_is_a = _exact_share(truth.prevalence_a, n, rng)
    pos_is_yes = np.empty(n, dtype=np.int8)
    for level in (0, 1):  # within A and within B, so that the two factors do not confound each other
        pos_is_yes[pos_is_a == level] = _exact_share(truth.prevalence_yes, int((pos_is_a == level).sum()), rng)
    pos_is_yes[_exact_share(truth.yes_defined, n, rng) == 0] = NOT_DEFINED
    lengths = rng.integers(10, 60, size=(2, n)).astype(np.int32)
    deviation = _deviation(truth.shape, n, rng)
    if truth.cross_model_input_correlation < 1:
        # Sharing some inputs whole, rather than mixing two draws, keeps the law whatever its shape. Each of two models
        # shares an input with probability √r, so that both do with probability r.
        shares = own.random(n) < np.sqrt(truth.cross_model_input_correlation)
        deviation = np.where(shares, deviation, _deviation(truth.shape, n, own))
    r = truth.intercept_slope_correlation
    intercept = r * deviation + np.sqrt(1 - r**2) * rng.standard_normal(n)
    columns = [np.arange(n), test, pos_is_a, pos_is_yes, *lengths, deviation, intercept]
    question, test, pos_is_a, pos_is_yes, positive, negative, deviation, intercept = (
        np.repeat(column, per_question) for column in columns
    )
    twin = np.tile(np.arange(per_question, dtype=np.int8), n)
    return Inputs(
        question=question,
        twin=twin,
        test=test,
        pos_is_a=np.where(twin == 1, 1 - pos_is_a, pos_is_a).astype(np.int8),
        pos_is_yes=pos_is_yes.astype(np.int8),
        len_positive=positive,
        len_negative=negative,
        slope_deviation=deviation,
        intercept_deviation=intercept,
    )


def plan_vectors(truth: SimulationTruth) -> Vectors:
    """Main vectors in every setting; controls only where one of the paper's shifts evaluates them."""
    rows = [(name, "trained", name, -1) for name in truth.settings] + [(MEAN, MEAN, MEAN, -1)]
    shifts = [shift for shift in (ID_SHIFT, *PAPER_SHIFTS) if set(shift) <= set(truth.settings)]
    trains = list(dict.fromkeys(train for train, _ in shifts))
    wanted = [("resampled", truth.n_resampled, trains), ("fold", truth.n_folds, trains)]
    wanted += [("random", truth.n_random, trains[:1]), ("shuffled", truth.n_shuffled, trains[:1])]
    for kind, count, names in wanted:
        rows += [(f"{kind}:{name}:{k}", kind, name, k) for name in names for k in range(count)]
    if truth.debiased:
        rows += [(f"debiased:{name}", "debiased", name, -1) for name in trains[:1]]
    label, kind, setting, replicate = zip(*rows)
    main = ("trained", MEAN)
    planned = [[kind in main or (s, e) in shifts for _, kind, s, _ in rows] for e in truth.settings]
    return Vectors(
        label=label,
        kind=kind,
        setting=setting,
        replicate=np.array(replicate, dtype=np.int32),
        planned=np.array(planned, dtype=np.uint8),
    )


def draw_slopes(
    truth: SimulationTruth, dataset: str, mean: float, inputs: Inputs, vectors: Vectors, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """True slopes (setting_eval, vector, input), NaN where not planned, and the dataset's own parameters."""
    names, k, n = truth.settings, len(truth.settings), len(inputs.question)
    bias = _factor_slope(truth, dataset, inputs)
    spread = truth.of("input_sd", dataset) * np.where(inputs.pos_is_a == 1, truth.sd_ratio_a, 1.0)
    own = mean + bias + spread * inputs.slope_deviation

    loss = np.array([truth.prompt_loss.get(name, 0.0) for name in names])
    loss = loss + truth.prompt_loss_sd * rng.standard_normal(k) * (np.array(names) != "base")
    cost = (truth.transfer_cost + truth.transfer_cost_sd * rng.standard_normal((k, k))) * ~np.eye(k, dtype=bool)
    jitter_eval = truth.shift_input_sd * rng.standard_normal((k, n)) * (np.array(names) != "base")[:, None]
    jitter = truth.shift_input_sd * rng.standard_normal((k, k, n)) * ~np.eye(k, dtype=bool)[..., None]
    error = _vector_errors(truth, rng, 1)[0]

    def trained(shifted: np.ndarray) -> np.ndarray:  # (train, eval, input)
        return own - loss[:, None] - jitter_eval - cost[..., None] - jitter + shifted

    main = trained((error[:, None] + truth.vector_input_sd * rng.standard_normal((k, n)))[:, None, :])
    slope = np.full((k, len(vectors.label), n), np.nan)
    slope[:, :k] = main.transpose(1, 0, 2)
    slope[:, k] = main.mean(axis=0)
    refits = {"resampled": 1.0, "fold": np.sqrt(max(truth.n_folds, 1))}  # a fold trains on 1/K of the pairs
    errors = {kind: scale * _vector_errors(truth, rng, len(vectors.label)) for kind, scale in refits.items()}
    for v in range(k + 1, len(vectors.label)):
        kind, replicate, t = vectors.kind[v], vectors.replicate[v], names.index(vectors.setting[v])
        if kind in refits:
            own_error = refits[kind] * truth.vector_input_sd * rng.standard_normal(n)
            slope[:, v] = main[t] + errors[kind][replicate, t] + own_error
        elif kind == "debiased":
            slope[:, v] = main[t] - bias
        else:
            centre = (truth.null_sd if kind == "random" else truth.shuffled_sd) * rng.standard_normal()
            slope[:, v] = centre + truth.null_input_sd * rng.standard_normal(n)
    slope[vectors.planned == 0] = np.nan
    return slope, {"prompt_loss": loss, "transfer_cost": cost, "vector_error": error}


def draw_heights(
    truth: SimulationTruth, dataset: str, inputs: Inputs, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Unsteered propensity (setting_eval, input), the same under every vector, and curvature (input,)."""
    yes = _code(inputs.pos_is_yes)
    base = truth.of("intercept", dataset) + truth.intercept_sd * inputs.intercept_deviation
    base = base + truth.of("a_intercept", dataset) * _code(inputs.pos_is_a)
    base = base + truth.of("yes_intercept", dataset) * yes
    added = np.array([truth.prompt_intercept.get(name, 0.0) for name in truth.settings])
    curvature = truth.curvature + truth.curvature_sd * rng.standard_normal(len(base))
    return base + added[:, None], curvature


def draw_propensity(
    truth: SimulationTruth, slope: np.ndarray, intercept: np.ndarray, curvature: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The grid (setting_eval, vector, multiplier, input), float64; NaN where not planned."""
    lam = np.array(truth.multipliers)[:, None]
    curves = intercept[:, None, None, :] + lam * slope[:, :, None, :] + lam**2 * curvature
    if truth.wiggle_sd:
        wiggle = truth.wiggle_sd * rng.standard_normal(curves.shape)
        # At multiplier 0 no vector acts, so all of them see one curve.
        zero = truth.multipliers.index(0.0)
        wiggle[:, :, zero] = wiggle[:, :1, zero]
        curves += wiggle
    return curves


def _factor_slope(truth: SimulationTruth, dataset: str, inputs: Inputs) -> np.ndarray:
    a, yes = _code(inputs.pos_is_a), _code(inputs.pos_is_yes)
    bias = truth.of("a_slope", dataset) * a + truth.of("yes_slope", dataset) * yes
    bias = bias + truth.of("a_yes_slope", dataset) * a * yes
    return bias + truth.length_slope * (inputs.len_positive - inputs.len_negative)


def _vector_errors(truth: SimulationTruth, rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, setting_train); errors of one refit are correlated, because settings share their training pairs."""
    r = truth.vector_setting_correlation
    shared, own = rng.standard_normal((count, 1)), rng.standard_normal((count, len(truth.settings)))
    return truth.vector_sd * (np.sqrt(r) * shared + np.sqrt(1 - r) * own)


def _deviation(shape: str, n: int, rng: np.random.Generator) -> np.ndarray:
    z = rng.standard_normal(n)
    if shape == "normal":
        return z
    if shape == "lognormal":
        sigma2 = 0.64
        return (np.exp(np.sqrt(sigma2) * z) - np.exp(sigma2 / 2)) / np.sqrt(np.expm1(sigma2) * np.exp(sigma2))
    if shape == "mixture":  # means -0.4 and 1.6, weights 4:1, within variance 0.36: mean 0, variance 1
        return np.where(rng.random(n) < 0.2, 1.6, -0.4) + 0.6 * z
    raise InputError(f"shape is {shape!r}; normal, lognormal or mixture")


def _exact_share(share: float, n: int, rng: np.random.Generator) -> np.ndarray:
    flags = np.zeros(n, dtype=np.int8)
    flags[rng.permutation(n)[: round(share * n)]] = 1
    return flags


def _code(flags: np.ndarray) -> np.ndarray:
    """+1/2, -1/2, and 0 where the factor is not defined."""
    return np.where(flags == NOT_DEFINED, 0.0, flags - 0.5)
