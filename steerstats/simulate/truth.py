"""What a simulated cache is told to contain: every parameter by name, checked, and hashable into a cache's identity."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field

import numpy as np

from steerstats.cache import SETTINGS
from steerstats.errors import InputError
from steerstats.simulate.parameters import check_parameter

SHAPES = ("normal", "lognormal", "mixture")
DEFAULT_MULTIPLIERS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)


@dataclass(frozen=True, kw_only=True)
class SimulationTruth:
    """Parameters of the model that a simulated cache is drawn from.

    With e the evaluation setting, t the training setting, i the input and factors coded +1/2 and -1/2, the slope is
    `s_i - prompt_loss[e] - transfer_cost[t, e] + error_t`, where `s_i` holds the dataset's mean steerability, the
    factor effects and the input's own deviation. Curves are `intercept + slope λ + curvature λ²` plus a wiggle.
    The mean vector's slope is the mean over training settings. A parameter marked "per dataset" takes one number or
    one for each dataset.

    Parameters
    ----------
    datasets : int or sequence of str
        How many (named `sim-00`, ...), or their names.
    n_inputs, n_val, n_pairs, hidden : int
        Test inputs, inputs of split "val" beside them, training pairs, width of activations. `n_inputs` counts
        curves; with `counterbalance` it must be even.
    counterbalance : bool
        Every question in both orders; twins share question and deviation and differ in A/B.
    settings, multipliers, layer
        The grid, and the layer that is said to be steered.
    mean_steerability : float or per dataset
        A number is the mean over datasets, which then spread with `between_sd`; a sequence is taken as it is.
    between_sd : float
        Spread of mean steerability over datasets.
    cross_model_correlation : float in [0, 1]
        Correlation over datasets of mean steerability between two models simulated at the same seed.
    cross_model_input_correlation : float in [0, 1]
        Correlation over the inputs of a dataset of slopes between two such models, factor effects apart: the part of
        inputs that has one deviation in both, the others having one of their own. What inputs share makes the errors
        of two models' means correlate.
    input_sd : float or per dataset
        Spread of slopes within a dataset, factor effects apart. `shape` is its law (normal, lognormal, mixture; all
        standardised), `sd_ratio_a` the ratio of spreads where the positive option is A against B.
    intercept, intercept_sd, intercept_slope_correlation
        Unsteered propensity in the base setting: mean per dataset, spread over inputs, correlation with slopes.
    curvature, curvature_sd, wiggle_sd : float
        Mean and spread over inputs of the λ² coefficient; independent lack of fit per multiplier.
    a_slope, yes_slope, a_yes_slope, a_intercept, yes_intercept : float or per dataset
        Differences A minus B and Yes minus No, and their interaction (on the slope, ±1/2 codes multiplied).
    length_slope : float
        Slope per character by which the positive option is longer.
    prevalence_a, prevalence_yes, yes_defined : float in [0, 1]
        Share of inputs with the positive option A, Yes; share where Yes/No is defined at all.
    prompt_loss, prompt_intercept : mapping of setting to float
        Slope lost to the evaluation prompt by any vector, and what the prompt adds to the unsteered propensity.
    prompt_loss_sd, transfer_cost, transfer_cost_sd, shift_input_sd : float
        Spread of prompt losses over datasets; mean and spread of the cost of transfer (t ≠ e); spread of both over
        inputs.
    vector_sd, vector_input_sd, vector_setting_correlation : float
        Standard deviation of a vector's own error on its mean slope, and on each input's slope beside it;
        correlation of the errors between training settings (they share training pairs).
    n_resampled, n_folds, n_random, n_shuffled : int
        Control vectors; `debiased` adds one for the base setting with the A/B and Yes/No slope effects removed.
    null_sd, null_input_sd, shuffled_sd : float
        Spread of random vectors' mean slopes, of inputs around it, and of label-shuffled vectors' mean slopes.
    difference_cosine, cosine_sd : float
        Cosine of each training difference with the population vector: mean and spread over datasets.
    dprime, dprime_log_sd, dprime_correlation : float
        Separation of projections on the population vector, its log spread over datasets, and the correlation of
        both of these predictors with mean steerability.
    vector_cosine : float in [0, 1]
        Cosine between the population vectors of two settings.
    projection_correlation : float
        Correlation over inputs of the unsteered projection with the slope.
    answer_mass, mass_decay : float
        Probability of the two answers at multiplier 0, and what λ² takes from its logit.
    logits, activations : bool
        Whether the unit holds answer logits with the log-sum-exp, and activations.

    Raises
    ------
    InputError
        If a value is impossible, naming the parameter.

    Examples
    --------
    >>> import steerstats
    >>> truth = steerstats.SimulationTruth(datasets=["honesty", "myopia"], a_slope=[0.0, 1.5], n_resampled=20)
    >>> truth.of("a_slope", "myopia")
    1.5
    >>> steerstats.SimulationTruth(prevalence_a=1.2)
    Traceback (most recent call last):
    ...
    steerstats.errors.InputError: prevalence_a is 1.2; between 0 and 1
    """

    datasets: int | Sequence[str] = 8
    n_inputs: int = 60
    n_val: int = 0
    n_pairs: int = 60
    hidden: int = 16
    counterbalance: bool = False
    settings: Sequence[str] = SETTINGS
    multipliers: Sequence[float] = DEFAULT_MULTIPLIERS
    layer: int = 13
    mean_steerability: float | Sequence[float] = 1.0
    between_sd: float = 0.5
    cross_model_correlation: float = 0.8
    cross_model_input_correlation: float = 1.0
    input_sd: float | Sequence[float] = 0.8
    shape: str = "normal"
    sd_ratio_a: float = 1.0
    intercept: float | Sequence[float] = 0.0
    intercept_sd: float = 1.5
    intercept_slope_correlation: float = 0.0
    curvature: float = 0.0
    curvature_sd: float = 0.0
    wiggle_sd: float = 0.0
    a_slope: float | Sequence[float] = 0.0
    yes_slope: float | Sequence[float] = 0.0
    a_yes_slope: float | Sequence[float] = 0.0
    a_intercept: float | Sequence[float] = 0.0
    yes_intercept: float | Sequence[float] = 0.0
    length_slope: float = 0.0
    prevalence_a: float = 0.5
    prevalence_yes: float = 0.5
    yes_defined: float = 1.0
    prompt_loss: Mapping[str, float] = field(default_factory=dict)
    prompt_intercept: Mapping[str, float] = field(default_factory=dict)
    prompt_loss_sd: float = 0.0
    transfer_cost: float = 0.0
    transfer_cost_sd: float = 0.0
    shift_input_sd: float = 0.1
    vector_sd: float = 0.0
    vector_input_sd: float = 0.0
    vector_setting_correlation: float = 0.5
    n_resampled: int = 0
    n_folds: int = 0
    n_random: int = 0
    n_shuffled: int = 0
    debiased: bool = False
    null_sd: float = 0.2
    null_input_sd: float = 0.3
    shuffled_sd: float = 0.2
    difference_cosine: float = 0.5
    cosine_sd: float = 0.0
    dprime: float = 2.0
    dprime_log_sd: float = 0.0
    dprime_correlation: float = 0.0
    vector_cosine: float = 0.6
    projection_correlation: float = 0.0
    answer_mass: float = 0.95
    mass_decay: float = 0.0
    logits: bool = True
    activations: bool = True

    def __post_init__(self) -> None:
        for name, one in self.__dataclass_fields__.items():
            default = {} if one.default is MISSING else one.default
            if name != "datasets":
                check_parameter(name, getattr(self, name), default, per_dataset=name in PER_DATASET)
        _set(self, "datasets", _named(self.datasets))
        _set(self, "settings", tuple(self.settings))
        _set(self, "multipliers", tuple(float(value) for value in self.multipliers))
        _check_sizes(self)
        for name in ("cross_model_correlation", "cross_model_input_correlation", "vector_cosine"):
            _between(self, name, 0, 1)
        for name in ("prevalence_a", "prevalence_yes", "yes_defined"):
            _between(self, name, 0, 1)
        for name in ("intercept_slope_correlation", "dprime_correlation", "projection_correlation"):
            _between(self, name, -1, 1)
        _between(self, "vector_setting_correlation", 0, 1)
        for name in PER_DATASET:
            value = getattr(self, name)
            if np.ndim(value):
                if len(value) != len(self.datasets):
                    raise InputError(f"{name} has {len(value)} values; there are {len(self.datasets)} datasets")
                _set(self, name, tuple(float(one) for one in value))
        for name in [name for name in self.__dataclass_fields__ if name.endswith("_sd")]:
            if np.min(getattr(self, name)) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; a standard deviation is at least 0")
        for name in ("prompt_loss", "prompt_intercept"):
            strangers = set(getattr(self, name)) - set(self.settings)
            if strangers:
                raise InputError(f"{name} names {min(strangers)!r}; the settings are {', '.join(self.settings)}")
            _set(self, name, dict(getattr(self, name)))

    def of(self, name: str, dataset: str) -> float:
        """The value of a per-dataset parameter for one dataset."""
        value = getattr(self, name)
        return float(value[self.datasets.index(dataset)] if np.ndim(value) else value)

    def digest(self, model: str, seed: int) -> str:
        """SHA-256 of parameters, model name and seed: the identity of the cache drawn from them."""
        text = json.dumps({"truth": asdict(self), "model": model, "seed": int(seed)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


PER_DATASET = (
    "mean_steerability", "input_sd", "intercept", "a_slope", "yes_slope", "a_yes_slope", "a_intercept",
    "yes_intercept",
)  # fmt: skip


def _check_sizes(truth: SimulationTruth) -> None:
    if not truth.datasets or len(set(truth.datasets)) != len(truth.datasets):
        raise InputError(f"datasets is {truth.datasets}; at least one, each name once")
    unknown = [name for name in truth.settings if name not in SETTINGS]
    if unknown or not truth.settings or len(set(truth.settings)) != len(truth.settings):
        raise InputError(f"settings is {truth.settings}; some of {', '.join(SETTINGS)}, each once")
    lam = np.asarray(truth.multipliers)
    if not (len(lam) >= 2 and np.all(np.diff(lam) > 0) and 0 in lam):
        raise InputError(f"multipliers is {truth.multipliers}; increasing, at least two, 0 among them")
    for name, least in (("n_inputs", 1), ("n_val", 0), ("n_pairs", 2), ("hidden", len(truth.settings) + 3)):
        if getattr(truth, name) < least:
            raise InputError(f"{name} is {getattr(truth, name)}; at least {least}")
    for name in ("n_inputs", "n_val") if truth.counterbalance else ():
        if getattr(truth, name) % 2:
            raise InputError(
                f"counterbalance doubles every question; {name} is {getattr(truth, name)}, it should be even"
            )
    if truth.n_folds > truth.n_pairs:
        raise InputError(f"n_folds is {truth.n_folds}; at most n_pairs, {truth.n_pairs}, since each fold needs a pair")
    if truth.shape not in SHAPES:
        raise InputError(f"shape is {truth.shape!r}; one of {', '.join(SHAPES)}")
    for name in ("answer_mass", "difference_cosine"):
        if not 0 < getattr(truth, name) < 1:
            raise InputError(f"{name} is {getattr(truth, name)}; between 0 and 1, both excluded")
    if truth.dprime <= 0:
        raise InputError(f"dprime is {truth.dprime}; above 0")


def _between(truth: SimulationTruth, name: str, low: float, high: float) -> None:
    if not low <= getattr(truth, name) <= high:
        raise InputError(f"{name} is {getattr(truth, name)}; between {low} and {high}")


def _named(datasets: int | str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(datasets, str):
        return (datasets,)
    try:
        count = operator.index(datasets)
    except TypeError:
        check_parameter("datasets", datasets, ("sim-00",))
        return tuple(datasets)
    return tuple(f"sim-{k:02d}" for k in range(count))


def _set(truth: SimulationTruth, name: str, value: object) -> None:
    object.__setattr__(truth, name, value)
