"""From parameters to a finished cache on disk, with the truth beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from steerstats.cache import UnitData, create_cache, write_unit
from steerstats.cache.writer import checked_name
from steerstats.errors import CacheError
from steerstats.resampling.seeds import generator
from steerstats.simulate.curves import (
    MEAN,
    Inputs,
    UnitTruth,
    Vectors,
    draw_heights,
    draw_inputs,
    draw_propensity,
    draw_slopes,
    latent_steerability,
    plan_vectors,
)
from steerstats.simulate.geometry import (
    FOLDS,
    SCALE,
    crossfit_projections,
    difference_cosines,
    draw_activations,
    fit_directions,
)
from steerstats.simulate.truth import SimulationTruth

LOGIT = 18.0  # where answer logits lie in the chat models that the field steers


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A written cache and what it really contains.

    Parameters
    ----------
    path : pathlib.Path
        The cache directory.
    truth : SimulationTruth
        The parameters it was drawn from.
    model : str
    units : mapping of dataset to UnitTruth
        The draw itself: true slopes per input, losses, errors.
    """

    path: Path
    truth: SimulationTruth
    model: str
    units: Mapping[str, UnitTruth]

    def mean_slopes(self, vector: str = "base", setting_eval: str = "base") -> np.ndarray:
        """True mean slope of every dataset, in the manifest's order."""
        return np.array([unit.mean_slope(vector, setting_eval) for unit in self.units.values()])


def simulate_cache(
    path: str | Path,
    truth: SimulationTruth | None = None,
    *,
    seed: int = 0,
    model: str = "simulated-a",
    unfinished: Sequence[str] = (),
) -> Simulation:
    """Draw a whole cache and write it through the same writer as any build.

    Two models simulated at one seed are asked the same questions, and share what `cross_model_correlation` (datasets)
    and `cross_model_input_correlation` (inputs) say. A dataset's numbers depend on seed, model and its own name, never
    on the other datasets or their order.

    Parameters
    ----------
    path : path
        A directory that does not hold another cache.
    truth : SimulationTruth, optional
        Defaults: eight small datasets.
    seed : int
    model : str
        Name of the pretended model.
    unfinished : sequence of str
        Datasets that the manifest names and that are not written, as after an interrupted build.

    Raises
    ------
    CacheError
        If the directory holds another cache, or `unfinished` names no dataset of it.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> drawn = simulate_cache(folder, SimulationTruth(datasets=2, n_inputs=20, mean_steerability=[1.0, 2.0]), seed=1)
    >>> [unit.mean_steerability for unit in drawn.units.values()]
    [1.0, 2.0]
    """
    truth = truth or SimulationTruth()
    strangers = set(unfinished) - set(truth.datasets)
    if strangers:
        raise CacheError(f"unfinished names {min(strangers)!r}; the datasets are {', '.join(truth.datasets)}")
    digest = truth.digest(model, seed)
    spec = {
        "simulation": {**asdict(truth), "seed": int(seed)},
        "model": model,
        "layer": truth.layer,
        "multipliers": list(truth.multipliers),
        "settings": list(truth.settings),
        "score": "logit_diff",
    }
    root = create_cache(
        path,
        {
            "kind": "simulated",
            "spec": spec,
            "spec_hash": digest,
            "model": model,
            "units": [checked_name(name) for name in truth.datasets],
            "categories": {name: f"family-{k % 4}" for k, name in enumerate(truth.datasets)},
            "provenance": {"source": "steerstats.simulate", "seed": int(seed)},
        },
    )
    units = {}
    for dataset in truth.datasets:
        data, units[dataset] = simulate_unit(truth, dataset, seed=seed, model=model)
        if dataset not in unfinished:
            write_unit(root, dataset, UnitData(data.arrays, {**data.attrs, "spec_hash": digest}))
    return Simulation(path=root, truth=truth, model=model, units=units)


def simulate_unit(
    truth: SimulationTruth, dataset: str, *, seed: int = 0, model: str = "simulated-a"
) -> tuple[UnitData, UnitTruth]:
    """Draw one dataset in memory: its arrays as a unit holds them, and the truth about them.

    Parameters
    ----------
    truth : SimulationTruth
    dataset : str
        One of `truth.datasets`.
    seed : int
    model : str

    Returns
    -------
    UnitData, UnitTruth

    Examples
    --------
    >>> from steerstats.simulate import SimulationTruth, simulate_unit
    >>> truth = SimulationTruth(datasets=["honesty"], mean_steerability=[1.5], prompt_loss={"user_neg": 0.4})
    >>> data, drawn = simulate_unit(truth, "honesty", seed=3)
    >>> data.arrays["propensity"].shape  # setting_eval, vector, multiplier, input
    (5, 6, 7, 60)
    >>> round(drawn.expected_gap("base", "user_neg"), 3)
    0.4
    """
    rng = generator(seed, "unit", model, dataset)
    mean, z = latent_steerability(truth, dataset, model, seed)
    # Questions belong to the dataset, not to the model: two models are asked the same.
    inputs = draw_inputs(truth, generator(seed, "inputs", dataset), generator(seed, "inputs", dataset, model))
    vectors = plan_vectors(truth)
    slope, own = draw_slopes(truth, dataset, mean, inputs, vectors, rng)
    intercept, curvature = draw_heights(truth, dataset, inputs, rng)
    curves = draw_propensity(truth, slope, intercept, curvature, rng)

    r = truth.dprime_correlation
    shared = r * z + np.sqrt(1 - r**2) * rng.standard_normal()
    dprime = float(truth.dprime * np.exp(truth.dprime_log_sd * shared))
    cosine = float(np.clip(truth.difference_cosine + truth.cosine_sd * shared, 0.05, 0.98))

    arrays = _coordinates(truth, vectors, inputs, dataset)
    arrays |= _grid(truth, curves, rng)
    arrays |= _training(truth, vectors, inputs, slope, dprime, cosine, dataset, rng)
    attrs = {"dataset": dataset, "model": model, "score": "logit_diff", "crossfit_origin": "midpoint"}
    k = len(truth.settings) + 1
    drawn = UnitTruth(
        dataset=dataset,
        settings=tuple(truth.settings),
        vectors=(*truth.settings, MEAN),
        mean_steerability=mean,
        slope=slope[:, :k],
        intercept=intercept,
        curvature=curvature,
        test=inputs.test,
        dprime=dprime,
        difference_cosine=cosine,
        **own,
    )
    return UnitData(arrays, attrs), drawn


def _coordinates(truth: SimulationTruth, vectors: Vectors, inputs: Inputs, dataset: str) -> dict[str, np.ndarray]:
    n = len(inputs.question)
    question = _labels(f"{dataset}-q", inputs.question)
    flip = np.where(inputs.pos_is_a == 1, "(A)", "(B)").astype(object)
    prompt = 40 + 7 * np.arange(len(truth.settings))[:, None] + inputs.len_positive // 4
    return {
        "input": np.array([f"{q}.{twin}" for q, twin in zip(question, inputs.twin)], dtype=object),
        "setting_eval": _text(truth.settings),
        "vector": _text(vectors.label),
        "multiplier": np.array(truth.multipliers),
        "answer": _text(("positive", "negative")),
        "slot": np.zeros(1, dtype=np.int32),
        "hidden": np.arange(truth.hidden, dtype=np.int32),
        "input_question": question,
        "input_text": np.array([f"Simulated question {q} of {dataset}" for q in inputs.question], dtype=object),
        "input_positive": flip,
        "input_negative": np.where(flip == "(A)", "(B)", "(A)").astype(object),
        "input_pos_is_a": inputs.pos_is_a,
        "input_pos_is_yes": inputs.pos_is_yes,
        "input_len_positive": inputs.len_positive,
        "input_len_negative": inputs.len_negative,
        "input_split": np.where(inputs.test, "test", "val").astype(object),
        "input_row": np.arange(n, dtype=np.int32),
        "input_twin": inputs.twin,
        "input_prompt_tokens": prompt.astype(np.int32),
        "vector_kind": _text(vectors.kind),
        "vector_setting": _text(vectors.setting),
        "vector_replicate": vectors.replicate,
        "vector_method": _text(["mean_difference"] * len(vectors.label)),
        "vector_layer": np.full((len(vectors.label), 1), truth.layer, dtype=np.int32),
        "planned": vectors.planned,
    }


def _grid(truth: SimulationTruth, curves: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Propensity, and logits that it follows from to the last bit."""
    if not truth.logits:
        return {"propensity": curves.astype(np.float32)}
    centre = LOGIT + rng.standard_normal(curves.shape[-1])
    answers = np.stack([centre + curves / 2, centre - curves / 2], axis=3).astype(np.float32)
    lam = np.array(truth.multipliers)[:, None]
    height = np.log(truth.answer_mass / (1 - truth.answer_mass)) - truth.mass_decay * lam**2
    log_mass = -np.log1p(np.exp(-(height + 0.5 * rng.standard_normal(curves.shape[-1]))))
    with np.errstate(invalid="ignore"):  # NaN where not planned
        logsumexp = np.logaddexp(answers[:, :, :, 0], answers[:, :, :, 1]) - log_mass
    return {
        "answer_logit": answers,
        "logsumexp": logsumexp.astype(np.float32),
        "propensity": answers[:, :, :, 0] - answers[:, :, :, 1],
    }


def _training(
    truth: SimulationTruth,
    vectors: Vectors,
    inputs: Inputs,
    slope: np.ndarray,
    dprime: float,
    cosine: float,
    dataset: str,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Pairs, activations, directions and the summaries that a build makes of them."""
    n = truth.n_pairs
    activations, letter = draw_activations(truth, dprime, cosine, rng)
    directions, raw = fit_directions(truth, activations, letter, vectors, rng)
    question = _labels(f"{dataset}-p", np.arange(n))
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    r, planned = truth.projection_correlation, vectors.planned[:, :, None] == 1
    centred = (inputs.slope_deviation - inputs.slope_deviation.mean()) / (inputs.slope_deviation.std() or 1.0)
    projection = SCALE * (r * centred + np.sqrt(1 - r**2) * rng.standard_normal(slope.shape))
    input_cosine = np.tanh(np.arctanh(cosine) + 0.2 * rng.standard_normal(slope.shape))
    arrays = {
        "pair": question,
        "setting_train": _text(truth.settings),
        "layer": np.array([truth.layer], dtype=np.int32),
        "pair_question": question,
        "pair_pos_is_a": (np.arange(n) % 2).astype(np.int8),
        "pair_pos_is_yes": (np.arange(n) // 2 % 2).astype(np.int8),
        "pair_row": np.arange(n, dtype=np.int32) + len(inputs.question),
        "vector_norm": np.linalg.norm(directions, axis=1).astype(np.float32),
        "vector_raw_norm": raw.astype(np.float32),
        "direction": directions[:, None].astype(np.float32),
        "vector_unembedding_cosine": (unit @ letter).astype(np.float32),
        "pair_difference_cosine": difference_cosines(activations).astype(np.float32),
        "activation_norm": np.linalg.norm(activations, axis=-1).mean(axis=(1, 2)).astype(np.float32),
        "input_projection": np.where(planned, projection, np.nan).astype(np.float32),
        "input_difference_cosine": np.where(planned, input_cosine, np.nan).astype(np.float32),
    }
    if n > FOLDS:
        arrays["crossfit_projection"] = crossfit_projections(activations, question, rng).astype(np.float32)
    if truth.activations:
        arrays["activation"] = activations[:, None].astype(np.float16)
    return arrays


def _text(values: Sequence[str]) -> np.ndarray:
    return np.array(list(values), dtype=object)


def _labels(stem: str, numbers: np.ndarray) -> np.ndarray:
    return _text([f"{stem}{number:05d}" for number in numbers])
